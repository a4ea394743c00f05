"""Gradients of a loss at a network's output: the cotangents that backpropagation starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._validate import as_array, finite_scan
from .network import Network, is_built_in

__all__ = ["Loss", "resolve"]


class Loss:
    """How a batch of outputs becomes a batch of cotangents.

    Parameters
    ----------
    name : str
        For reports: "cross_entropy", "mse", "Gaussian cotangents" or the name of a callable.
    gradient : callable
        ``gradient(outputs, y)``: (B, n) and the matching part of `y` to dLoss/d outputs, (B, n).
    y : ndarray or None
        Checked targets, one per sample.
    on_logits : bool, optional
        Whether the outputs are taken before the last layer's activation.
    """

    def __init__(
        self,
        name: str,
        gradient: Callable[[np.ndarray, Any], np.ndarray],
        y: np.ndarray | None,
        *,
        on_logits: bool = False,
    ) -> None:
        self.name = name
        self.gradient = gradient
        self.y = y
        self.on_logits = on_logits


def resolve(
    network: Network,
    n_samples: int,
    y: Any,
    loss: Any,
    rng: np.random.Generator | int | None,
) -> Loss:
    """The `Loss` that the arguments of `jacometry.analyze` stand for.

    Parameters
    ----------
    network : Network
        Its number of outputs and classes bound the targets.
    n_samples : int
        Rows of x.
    y, loss, rng
        As given to `jacometry.analyze`.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        Naming `y` or `loss`.
    """
    if loss is not None and not callable(loss) and loss not in ("cross_entropy", "mse"):
        raise ValueError(f"loss must be 'cross_entropy', 'mse' or a callable, got {loss!r}")
    if y is None:
        if loss is not None:
            raise ValueError("y must be given when loss is, got None")
        generator = np.random.default_rng(rng)
        return Loss(
            "Gaussian cotangents", lambda out, _: generator.standard_normal(out.shape), None
        )
    if callable(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        if not hasattr(y, "__len__") or len(y) != n_samples:
            raise ValueError(f"y must hold {n_samples} targets, one per row of x")
        return Loss(name, _checked_gradient(loss), np.asarray(y))

    if network.classes is not None and loss != "mse":
        y = _class_numbers(network.classes, y)
    targets = as_array("y", y)
    if targets.ndim == 0 or len(targets) != n_samples:
        raise ValueError(
            f"y must hold {n_samples} targets, one per row of x, got shape {targets.shape}"
        )
    finite_scan("y", targets)
    is_labels = targets.dtype.kind in "biu" and targets.ndim == 1
    if loss is None:
        loss = "cross_entropy" if is_labels else "mse"
    if loss == "mse":
        return Loss("mse", _squared_error, _mse_targets(targets, network.widths[-1]))
    return _cross_entropy(network, targets, is_labels)


def _cross_entropy(network: Network, targets: np.ndarray, is_labels: bool) -> Loss:
    if not is_labels:
        raise ValueError(
            "y must hold integer class labels, shape (B,), for loss='cross_entropy'; "
            f"got {targets.dtype} of shape {targets.shape}"
        )
    last = network.layers[-1].activation
    n_outputs = network.widths[-1]
    binary = n_outputs == 1
    if not is_built_in(last, ("identity",)) and not (binary and is_built_in(last, ("sigmoid",))):
        raise ValueError(
            "loss='cross_entropy' needs a network that ends in logits; the last activation is "
            f"{last.name!r}: pass loss as a callable, loss(output, y) -> gradient"
        )
    labels = targets.astype(np.int64)
    n_classes = 2 if binary else n_outputs
    if len(labels) and (labels.min() < 0 or labels.max() >= n_classes):
        raise ValueError(
            f"y must hold class labels from 0 to {n_classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    gradient = _logistic_gradient if binary else _softmax_gradient
    return Loss("cross_entropy", gradient, labels, on_logits=True)


def _softmax_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """softmax(logits) - onehot(labels), without the cancellation at a confident right answer."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    probabilities[rows, labels] = 0.0
    probabilities[rows, labels] = -probabilities.sum(axis=1)
    return probabilities


def _logistic_gradient(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """sigmoid(z) - y, as sigmoid(z) or -sigmoid(-z)."""
    sign = np.where(labels == 1, -1.0, 1.0)[:, None]
    with np.errstate(over="ignore"):
        return sign / (1.0 + np.exp(-sign * logits))


def _squared_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return outputs - targets


def _mse_targets(targets: np.ndarray, n_outputs: int) -> np.ndarray:
    if targets.ndim == 1 and n_outputs == 1:
        targets = targets[:, None]
    if targets.shape != (len(targets), n_outputs):
        raise ValueError(
            f"y must have shape (B, {n_outputs}), as the network has {n_outputs} outputs, "
            f"got {targets.shape}"
        )
    return targets.astype(np.float64)


def _class_numbers(classes: np.ndarray, y: Any) -> np.ndarray:
    y = np.asarray(y)
    order = np.argsort(classes)
    places = np.searchsorted(classes, y, sorter=order).clip(0, len(classes) - 1)
    numbers = order[places]
    if not (classes[numbers] == y).all():
        unknown = y[classes[numbers] != y][0]
        raise ValueError(f"y must hold classes that the model was fitted on, got {unknown!r}")
    return numbers


def _checked_gradient(loss: Callable[..., Any]) -> Callable[[np.ndarray, Any], np.ndarray]:
    def gradient(outputs: np.ndarray, y: Any) -> np.ndarray:
        result = as_array("the gradient that loss returned", loss(outputs, y)).astype(np.float64)
        if result.shape != outputs.shape:
            raise ValueError(
                f"loss must return a gradient of the outputs' shape {outputs.shape}, "
                f"got {result.shape}"
            )
        finite_scan("the gradient that loss returned", result)
        return result

    return gradient
