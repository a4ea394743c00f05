"""Networks from PyTorch modules (the ``torch`` extra)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import activations
from .._status import UnsupportedModelError
from ..network import Network

__all__ = ["to_network"]


def to_network(module: Any) -> Network:
    """The `Network` of a ``torch.nn.Sequential``; its arrays are copied.

    Parameters
    ----------
    module : torch.nn.Sequential
        Of Linear, Flatten, Identity, Dropout (in evaluation mode), ReLU, LeakyReLU, Tanh, Sigmoid,
        GELU (exact form) and further Sequentials.

    Returns
    -------
    Network
        Layers bear the names that the module gives its Linear nodes.

    Raises
    ------
    ImportError
        Without PyTorch.
    UnsupportedModelError
        For a node, or an order of nodes, that is not understood, naming it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "PyTorch is needed to read its modules: pip install 'jacometry[torch]'"
        ) from error
    nn = torch.nn
    weights, biases, phis, names = [], [], [], []
    flattens = False
    for name, node in _nodes(nn, module, ""):
        shown = f"{name} ({type(node).__name__})"
        if isinstance(node, nn.Linear) and type(node).forward is nn.Linear.forward:
            weights.append(_array(torch, node.weight))
            biases.append(None if node.bias is None else _array(torch, node.bias))
            phis.append(activations.identity())
            names.append(f"{name} Linear")
        elif isinstance(node, nn.Identity):
            continue
        elif isinstance(node, nn.Dropout):
            if node.training and node.p > 0:
                raise UnsupportedModelError(
                    f"{shown} is in training mode, where it is random; call module.eval() first"
                )
        elif isinstance(node, nn.Flatten):
            if (node.start_dim, node.end_dim) != (1, -1) or weights:
                raise UnsupportedModelError(
                    f"{shown} is understood only before the first Linear, with start_dim=1, "
                    "end_dim=-1"
                )
            flattens = True
        else:
            phi = _activation(nn, node, shown)
            if not weights or phis[-1] is not activations.identity():
                place = "before the first Linear" if not weights else "after another activation"
                raise UnsupportedModelError(f"{shown} stands {place}, which is not understood")
            phis[-1] = phi
    if not weights:
        raise UnsupportedModelError("module has no Linear node")
    network = Network.from_arrays(weights, biases, phis, names=names)
    return Network(
        network.layers,
        description=f"PyTorch {type(module).__name__}",
        flattens_input=flattens,
    )


def _nodes(nn: Any, module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The nodes that a Sequential runs, in order, with their qualified names."""
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        raise UnsupportedModelError(
            f"{prefix or 'module'} is a {type(module).__name__}; expected torch.nn.Sequential"
        )
    for name, node in module._modules.items():  # named_children() would skip a node used twice
        qualified = f"{prefix}.{name}" if prefix else name
        if isinstance(node, nn.Sequential):
            yield from _nodes(nn, node, qualified)
        else:
            yield qualified, node


def _activation(nn: Any, node: Any, shown: str) -> activations.Activation:
    if isinstance(node, nn.LeakyReLU):
        return activations.leaky_relu(float(node.negative_slope))
    if isinstance(node, nn.GELU):
        if node.approximate != "none":
            raise UnsupportedModelError(
                f"{shown} has approximate={node.approximate!r}; only the exact form is understood"
            )
        return activations.gelu()
    for kind, make in (
        (nn.ReLU, activations.relu),
        (nn.Tanh, activations.tanh),
        (nn.Sigmoid, activations.sigmoid),
    ):
        if isinstance(node, kind):
            return make()
    hint = ""
    if isinstance(node, (nn.Softmax, nn.LogSoftmax)):
        hint = "; leave it out and analyse the logits: it belongs to the loss"
    raise UnsupportedModelError(f"{shown} is not understood{hint}")


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()
