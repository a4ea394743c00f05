"""Weights, biases and activations of a network, checked layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import activations as _activations
from ._npz import printable
from ._status import UnsupportedModelError
from ._validate import as_array, finite_scan

__all__ = ["activations_of", "matrices_of", "vectors_of"]


def matrices_of(weights: Sequence[npt.ArrayLike]) -> list[np.ndarray]:
    """One matrix per layer, finite, or raise."""
    if isinstance(weights, (str, bytes)) or not hasattr(weights, "__len__"):
        raise TypeError(f"weights must be a sequence of matrices, got {type(weights).__name__}")
    if len(weights) == 0:
        raise ValueError("weights must hold at least one matrix, got none")
    matrices = []
    for k, given in enumerate(weights):
        matrix = as_array(f"weights[{k}]", given)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(
                f"weights[{k}] must be a matrix (n_out, n_in) of at least 1 x 1, "
                f"got shape {matrix.shape}"
            )
        finite_scan(f"weights[{k}]", matrix)
        matrices.append(matrix)
    return matrices


def vectors_of(
    biases: Sequence[npt.ArrayLike | None] | None, matrices: list[np.ndarray]
) -> list[np.ndarray | None]:
    """One vector or None per layer, or raise."""
    if biases is None:
        return [None] * len(matrices)
    if len(biases) != len(matrices):
        raise ValueError(
            f"biases must hold {len(matrices)} vectors, one per layer, got {len(biases)}"
        )
    vectors: list[np.ndarray | None] = []
    for k, (given, matrix) in enumerate(zip(biases, matrices, strict=True)):
        vector = None if given is None else as_array(f"biases[{k}]", given)
        if vector is not None:
            if vector.shape != (len(matrix),):
                raise ValueError(
                    f"biases[{k}] must have shape ({len(matrix)},) to go with weights[{k}], "
                    f"got {vector.shape}"
                )
            finite_scan(f"biases[{k}]", vector)
        vectors.append(vector)
    return vectors


def activations_of(activations: Any, n_layers: int) -> list[_activations.Activation]:
    """One activation after each layer; one given for all leaves the last layer linear."""
    if isinstance(activations, (list, tuple, np.ndarray)):
        if len(activations) != n_layers:
            raise ValueError(
                f"activations must hold {n_layers} entries, one after each layer, "
                f"got {len(activations)}"
            )
        given = [str(phi) if isinstance(phi, np.str_) else phi for phi in activations]
    else:
        given = [activations] * (n_layers - 1) + ["identity"]
    resolved = []
    for k, phi in enumerate(given):
        try:
            resolved.append(_activations.get(phi))
        except ValueError as error:
            known = ", ".join(_activations.names())
            shown = printable(str(phi), 60)
            raise UnsupportedModelError(
                f"activations[{k}] must be one of {known}, got {shown!r}"
            ) from error
    return resolved
