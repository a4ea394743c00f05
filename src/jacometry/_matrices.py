"""The matrices of `jacometry.analyze`: norms and condition numbers of layers, norms of products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .network import Network, is_built_in
from .ops.chain import chain_product
from .ops.conditioning import condition_number
from .ops.spectral import spectral_norm

__all__ = ["matrix_samples", "measure_matrices"]

_LOG_2 = float(np.log(2.0))
# Matrices of one block of layers stay below this.
_BLOCK_BYTES = 64 * 2**20
# They are taken at no more samples than this, and at fewer where the work would exceed this many
# multiplications.
_MATRIX_SAMPLES = 16
_MATRIX_WORK = 2e10
# A singular value decomposition with more multiplications than this is left out: condition is NaN.
_SVD_WORK = 4e9
# Products of fewer multiplications than this stay on one thread.
_THREADED_WORK = 1e7


def matrix_samples(network: Network, n_samples: int) -> np.ndarray:
    """Indices, evenly spaced, of the samples at which matrices are taken."""
    sizes = np.array(network.widths, dtype=float)
    products = (sizes[1:] * sizes[:-1]).sum() * sizes[-1]
    decompositions = (sizes[1:] * sizes[:-1] * np.minimum(sizes[1:], sizes[:-1])).sum()
    affordable = int(_MATRIX_WORK / (products + 4 * decompositions))
    count = max(1, min(n_samples, _MATRIX_SAMPLES, affordable))
    return np.linspace(0, n_samples - 1, count).round().astype(int)


def measure_matrices(
    network: Network,
    x: np.ndarray,
    layers: np.ndarray,
    rng: np.random.Generator | int | None,
    report_progress: Callable[[int], Any],
) -> None:
    """Fill norm_lower, norm_upper, condition and cumulative_log_norm."""
    rng = np.random.default_rng(rng)
    slopes: list[np.ndarray | None] = [None]
    for layer, state in zip(network.layers, network.propagate(x), strict=True):
        is_linear = is_built_in(layer.activation, ("identity",))
        slopes.append(None if is_linear else state.slopes)
    last_slopes = slopes.pop()

    n_layers = len(network)
    for rows, jacobians in _blocks(_layer_jacobians(network, slopes)):
        count = len(rows)
        flat = jacobians.reshape(-1, *jacobians.shape[2:])
        bounds = spectral_norm(flat, rng=rng)
        layers["norm_lower"][rows] = np.reshape(bounds.lower, (count, -1)).max(axis=1)
        layers["norm_upper"][rows] = np.reshape(bounds.upper, (count, -1)).max(axis=1)
        layers["condition"][rows] = np.median(_conditions(flat).reshape(count, -1), axis=1)
        report_progress(n_layers - min(rows) if n_layers < 2 else (n_layers - min(rows)) // 2)

    exponents = np.zeros((n_layers, len(x)), np.int64)
    for rows, products in _blocks(_suffix_products(network, slopes, last_slopes, exponents)):
        flat = products.reshape(-1, *products.shape[2:])
        norms = np.reshape(spectral_norm(flat, rng=rng).value, (len(rows), -1))
        with np.errstate(divide="ignore"):
            logs = np.log(norms) + exponents[rows] * _LOG_2
        layers["cumulative_log_norm"][rows] = logs.max(axis=1)
        report_progress(n_layers - min(rows))


def _layer_jacobians(
    network: Network, slopes: list[np.ndarray | None]
) -> Iterator[tuple[int, np.ndarray]]:
    """``W_l D_{l-1}`` at each sample, (S, n_l, n_{l-1}); S = 1 where it is the same for all."""
    for k in reversed(range(len(network))):
        weights, slope = network.layers[k].weights.astype(np.float64), slopes[k]
        yield k, weights[None] if slope is None else weights * slope[:, None, :]


def _suffix_products(
    network: Network,
    slopes: list[np.ndarray | None],
    last_slopes: np.ndarray | None,
    exponents: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """Mantissas of the derivative of the output with respect to z_l; fills `exponents`."""
    n_layers, n_samples = exponents.shape
    n_out = network.widths[-1]
    product = np.broadcast_to(np.eye(n_out), (n_samples, n_out, n_out))
    if last_slopes is not None:
        product = product * last_slopes[:, :, None]
    exponent = np.zeros(n_samples, np.int64)
    for k in reversed(range(n_layers)):
        if k < n_layers - 1:
            factor = network.layers[k + 1].weights.astype(np.float64)
            # A step this small is done before a second thread has woken up.
            n_threads = 1 if n_samples * n_out * factor.size < _THREADED_WORK else None
            step = chain_product(
                [factor, product],
                slopes=[slopes[k + 1], None],
                slope_side="input",
                n_threads=n_threads,
            )
            product, exponent = step.mantissa, exponent + step.exponent
        exponents[k] = exponent
        yield k, product


def _blocks(items: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Consecutive arrays of one shape, stacked, so that one call serves many layers."""
    rows: list[int] = []
    arrays: list[np.ndarray] = []
    for row, array in items:
        is_full = len(arrays) and (len(arrays) + 1) * array.nbytes > _BLOCK_BYTES
        if arrays and (is_full or array.shape != arrays[0].shape):
            yield rows, np.stack(arrays)
            rows, arrays = [], []
        rows.append(row)
        arrays.append(array)
    if arrays:
        yield rows, np.stack(arrays)


def _conditions(matrices: np.ndarray) -> np.ndarray:
    """Condition numbers (N,) of (N, m, n) matrices; NaN where they would take too long."""
    n_rows, n_columns = matrices.shape[1:]
    if n_rows * n_columns * min(n_rows, n_columns) > _SVD_WORK:
        return np.full(len(matrices), np.nan)
    return condition_number(matrices).value
