"""How the factors of a Chain become layers ``c I + diag(s) W`` or ``c I + W diag(s)``."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..factors import BatchNorm, Chain, Dense, Diagonal, Factor, Residual
from .scaled import ScaledArray


@dataclass(slots=True)
class Layer:
    """One layer of the kernels, or a factor that they do not know; and where it comes from."""

    weights: Any = None  # None: the identity
    slopes: Any = None
    shortcut: float = 0.0
    weights_from: int = 0  # indices of factors in their period
    slopes_from: int = 0
    opaque: Factor | None = None


@dataclass(slots=True)
class Run:
    """The layers of a period, and how often it is repeated."""

    layers: list
    n_repeats: int
    n_factors: int  # in one period


def layers_of(chain: Chain, *, fuse: bool) -> tuple[str, list[Run]]:
    """The slope side and the layers of a chain: the side that leaves least to do.

    With `fuse`, a Diagonal joins the Dense whose output (side "output") or input (side "input") it
    stands at; without, every factor is a layer of its own, so that interfaces are the chain's.
    """
    output = [Run(_layers(p, "output", fuse), n, len(p)) for p, n in chain.runs]
    if not any(_may_gain(run.layers, fuse) for run in output):
        return "output", output
    found = [Run(_layers(p, "input", fuse), n, len(p)) for p, n in chain.runs]
    return ("input", found) if _work(found) < _work(output) else ("output", output)


def is_known(runs: list[Run]) -> bool:
    """Whether the kernels know every layer."""
    return all(layer.opaque is None for run in runs for layer in run.layers)


def _may_gain(layers, fuse):
    """Whether a layer might be spared, or known, were the slopes on the other side."""
    for layer in layers:
        if layer.opaque is not None:
            if isinstance(layer.opaque, Residual):
                return True
        elif fuse and layer.weights is None:
            return True
    return False


def _work(runs):
    """What to make least of: first layers that the kernels do not know, then layers."""
    every = [layer for run in runs for layer in run.layers]
    return sum(layer.opaque is not None for layer in every), len(every)


def _layers(factors, side, fuse):
    layers: list[Layer] = []
    for k, factor in enumerate(factors):
        layer = _layer(factor, side, k)
        if fuse and layers and _joins(layers[-1], layer, side):
            previous = layers.pop()
            layer = Layer(
                weights=previous.weights if side == "output" else layer.weights,
                slopes=layer.slopes if side == "output" else previous.slopes,
                weights_from=k - 1 if side == "output" else k,
                slopes_from=k if side == "output" else k - 1,
            )
        layers.append(layer)
    return layers


def _joins(first, second, side):
    """Whether two neighbours are a Dense and a Diagonal, in the order that suits the side."""
    if (first.weights is None) == (second.weights is None):
        return False
    dense, diagonal = (first, second) if side == "output" else (second, first)
    return (
        dense.weights is not None
        and dense.slopes is None
        and diagonal.weights is None
        and diagonal.slopes is not None
        and dense.shortcut == diagonal.shortcut == 0
    )


def _layer(factor, side, k):
    if isinstance(factor, Dense):
        return Layer(factor.weights, None, 0.0, k, k)
    if isinstance(factor, Diagonal) or (
        isinstance(factor, BatchNorm) and not factor.couples_samples
    ):
        return Layer(None, factor.slopes, 0.0, k, k)
    if isinstance(factor, Residual) and len(factor.chain) <= 2:
        branch = _layers(tuple(factor.chain), side, fuse=True)
        if len(branch) == 1 and branch[0].opaque is None and branch[0].shortcut == 0:
            slopes = _times(factor.scale, branch[0].slopes, factor)
            if slopes is not False:
                return Layer(branch[0].weights, slopes, 1.0, k, k)
    return Layer(None, None, 0.0, k, k, factor)


def _times(scale, slopes, factor):
    """The branch's slopes times `scale`; None for ones, False where that loses digits."""
    if scale == 1:
        return slopes
    if slopes is None:
        slopes = np.ones(factor.shape[0], factor.dtype)
    dtype = np.result_type(slopes.dtype, np.float32)
    scaled = (slopes * scale).astype(dtype)
    size = np.abs(scaled[slopes != 0])
    fits = np.isfinite(size).all() and (size >= np.finfo(dtype).tiny).all()
    return scaled if fits else False


def require_uncoupled(chain: Chain) -> None:
    """Raise, naming the factor, where samples are coupled and a matrix per sample is asked for."""
    if not chain.couples_samples:
        return
    k = next(k for k, factor in enumerate(chain) if factor.couples_samples)
    raise ValueError(
        f"factors[{k}] ({type(chain[k]).__name__}) couples the samples of the batch, so there is "
        "no Jacobian per sample: use chain_jvp or chain_vjp, or Chain([chain.over_batch()]), the "
        "whole batch as one operator"
    )


def dense(factor: Factor, dtype) -> ScaledArray:
    """The matrix of a factor, one per sample where it has samples."""
    if isinstance(factor, Residual):
        return _dense_residual(factor, dtype)
    factor, exponent = factor.scaled()
    columns = np.eye(factor.shape[1], dtype=dtype)
    if factor.n_samples is not None:
        columns = np.broadcast_to(columns, (factor.n_samples, *columns.shape))
    matrix = np.swapaxes(np.asarray(factor.jvp(columns), dtype), -1, -2)
    return shifted(ScaledArray.from_array(matrix), exponent)


def _dense_residual(factor, dtype):
    product: Any = None
    for inner in factor.chain:
        matrix = dense(inner, dtype)
        product = matrix if product is None else matrix @ product
    return add_scaled(
        ScaledArray.from_array(np.eye(factor.shape[0], dtype=dtype)), product, factor.scale
    )


def shifted(scaled: ScaledArray, exponent) -> ScaledArray:
    """``scaled * 2**exponent``, zero and non-finite items keeping their exponent of 0."""
    axes = tuple(range(scaled.exponent.ndim, scaled.mantissa.ndim))
    largest = np.max(np.abs(scaled.mantissa), axis=axes, initial=0)
    moves = np.isfinite(largest) & (largest > 0)
    return ScaledArray(scaled.mantissa, np.where(moves, scaled.exponent + exponent, 0))


def add_scaled(x: ScaledArray, y: ScaledArray, scale: float) -> ScaledArray:
    """``x + scale * y``, item by item, rounded at the scale of the larger one."""
    digits, exponent = np.frexp(scale)
    y = shifted(ScaledArray.from_array(y.mantissa * y.dtype.type(digits), _item_ndim(y)),
                y.exponent + int(exponent))  # fmt: skip
    top = np.maximum(_top(x), _top(y))
    top = np.where(top == _NONE, 0, top)
    total = _at(x, top) + _at(y, top)
    return shifted(ScaledArray.from_array(total, _item_ndim(x)), top)


def aligned(x: ScaledArray, axis: int) -> ScaledArray:
    """The same values with one exponent along a batch axis."""
    top = np.max(_top(x), axis=axis, keepdims=True, initial=_NONE)
    top = np.broadcast_to(np.where(top == _NONE, 0, top), x.exponent.shape)
    return ScaledArray(_at(x, top), top)


_NONE = np.iinfo(np.int64).min


def _item_ndim(x):
    return x.mantissa.ndim - x.exponent.ndim


def _top(x):
    """The exponents of items, `_NONE` for items of zeros, which align to any."""
    axes = tuple(range(x.exponent.ndim, x.mantissa.ndim))
    return np.where(np.any(x.mantissa != 0, axis=axes), x.exponent, _NONE)


def _at(x, top):
    """The mantissas at the exponents `top`, of which none is smaller than their own."""
    down = np.maximum(x.exponent - top, -(2**14))
    with np.errstate(under="ignore"):
        return np.ldexp(
            x.mantissa, down.reshape(down.shape + (1,) * _item_ndim(x)).astype(np.int32)
        )
