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
        Of Linear, Flatten, Identity, Dropout (in evaluation mode), further Sequentials, and the
        activations ReLU, LeakyReLU, PReLU (with one slope), ReLU6, ELU, SELU, CELU, GELU (both
        forms), SiLU, Mish, Softplus, Tanh, Sigmoid, Softsign, Hardtanh (from -1 to 1), Hardsigmoid
        and Hardswish.

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


# Modules without parameters, by class.
_PLAIN = {
    "ReLU": activations.relu,
    "ReLU6": activations.relu6,
    "SELU": activations.selu,
    "SiLU": activations.silu,
    "Mish": activations.mish,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softsign": activations.softsign,
    "Hardsigmoid": activations.hard_sigmoid,
    "Hardswish": activations.hard_swish,
}


def _activation(nn: Any, node: Any, shown: str) -> activations.Activation:
    # A user's subclass may compute something else.
    same = [c for c in type(node).__mro__ if getattr(c, "forward", None) is type(node).forward]
    kind = next((c.__name__ for c in same if getattr(nn, c.__name__, None) is c), "")
    if kind in _PLAIN:
        return _PLAIN[kind]()
    if kind == "LeakyReLU":
        return activations.leaky_relu(float(node.negative_slope))
    if kind == "PReLU" and node.num_parameters == 1:
        return activations.prelu(float(node.weight.detach()))
    if kind == "ELU":
        return activations.elu(float(node.alpha))
    if kind == "CELU":
        return activations.celu(float(node.alpha))
    if kind == "Softplus" and node.threshold >= 20:  # beyond it is x: the same to 2e-9
        return activations.softplus(float(node.beta))
    if kind == "GELU":
        return activations.gelu() if node.approximate == "none" else activations.gelu_tanh()
    if kind == "Hardtanh" and (node.min_val, node.max_val) == (-1.0, 1.0):
        return activations.hard_tanh()
    hint = ""
    if kind in ("Softmax", "LogSoftmax"):
        hint = "; leave it out and analyse the logits: it belongs to the loss"
    elif kind == "PReLU":
        hint = f" with {node.num_parameters} slopes; only one for all units is"
    elif kind == "Softplus":
        hint = f" with threshold {node.threshold}; only from 20 on is it"
    elif kind == "Hardtanh":
        hint = f" between {node.min_val} and {node.max_val}; only between -1 and 1 is it"
    raise UnsupportedModelError(f"{shown} is not understood{hint}")


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()
