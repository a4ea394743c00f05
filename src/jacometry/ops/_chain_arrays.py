"""From what the caller gives as a chain to the layout that the kernels read."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _kernels
from .._validate import as_array, choice, common_dtype, finite_scan, with_core
from ..factors import Chain
from ._chain_factors import dense, layers_of, require_uncoupled

# jm_layer of jacometry/types.h
LAYER = np.dtype(
    [
        ("weights", np.uintp),
        ("slopes", np.uintp),
        ("weights_stride", np.intp),
        ("slopes_stride", np.intp),
        ("rows", np.intp),
        ("cols", np.intp),
        ("shortcut", np.float64),
    ],
    align=True,
)
SIDES = ("output", "input")


@dataclass(slots=True)
class ChainArrays:
    """A checked chain; its first fields are what ``read_chain`` of the binding takes."""

    layers: np.ndarray | None  # LAYER, entries that repeat until n_layers; None where stacked
    n_layers: int
    slope_side: int
    n_in: int
    n_out: int
    max_width: int
    has_empty_width: bool
    widths: list | None  # of the L + 1 interfaces; None where all are max_width
    dtype: np.dtype
    n_samples: int | None
    has_shared_weights: bool
    weights: Any  # stacked (..., L, n, n) array, or a list of arrays and None
    slopes: Any = None
    shortcut: Any = 0.0  # float or (L,) array; lists and this one repeat as `layers` does
    origins: list | None = None  # of a Chain: per layer, the factors its weights and slopes are
    factors_per_period: int = 0
    first_factor: int = 0
    path: str = ""  # what stands before "factors[k]" in messages

    def width(self, interface):
        """Width of an interface."""
        return self.max_width if self.widths is None else self.widths[interface]

    def layer(self, k, sample):
        """Weights, slopes and shortcut of one layer as one sample sees it."""
        if isinstance(self.weights, list):
            k %= len(self.weights)
        found: list = []
        for given, core_ndim in ((self.weights, 2), (self.slopes, 1)):
            if given is None:
                found.append(None)
                continue
            is_list = isinstance(given, list)
            array = given[k] if is_list else given[..., k, *(slice(None),) * core_ndim]
            if array is not None and array.ndim > core_ndim:
                array = array[sample]
            found.append(array)
        weights, slopes = found
        if weights is None:
            weights = np.eye(self.width(k))
        shortcut = self.shortcut if isinstance(self.shortcut, float) else self.shortcut[k]
        return weights, slopes, float(shortcut)

    def sample(self, sample):
        """Lists of weights and slopes, and shortcuts, of one sample: what the references take."""
        layers = [self.layer(k, sample) for k in range(self.n_layers)]
        return {
            "weights": [layer[0] for layer in layers],
            "slopes": [layer[1] for layer in layers],
            "slope_side": SIDES[self.slope_side],
            "shortcut": [layer[2] for layer in layers],
        }

    def raise_non_finite(self, sample, k):
        """Raise for the NaN or infinity that a kernel met in layer k of a sample."""
        weights, slopes, _ = self.layer(k, sample)
        name, array = ("slopes", slopes)
        if not np.isfinite(weights).all():
            name, array = ("weights", weights)
        where = f" in layer {k}" if self.n_samples is None else f" in sample {sample}, layer {k}"
        value = array[~np.isfinite(array)][0]
        if self.origins is not None:
            period, position = divmod(k, len(self.origins))
            factor = self.origins[position][name == "slopes"] + period * self.factors_per_period
            name = f"{self.path}factors[{self.first_factor + factor}]"
            where = "" if self.n_samples is None else f" in sample {sample}"
        raise ValueError(
            f"{name} must be finite, got {value}{where} (check_finite=False propagates it)"
        )


def _sample_stride(array, core_ndim):
    """Elements from one sample to the next; 0 where the array is shared."""
    return array.strides[0] // array.itemsize if array.ndim > core_ndim else 0


def _merge_samples(n_samples, name, found):
    if found is None or n_samples == found:
        return n_samples
    if n_samples is not None:
        raise ValueError(
            f"{name} must hold {n_samples} samples as the arrays before it, got {found}"
        )
    return found


def _as_sequence(name, value, core_ndim):
    """A stacked array (L, ...) or (B, L, ...) as the list of its layers."""
    if value is None or isinstance(value, (list, tuple)):
        return value
    array = as_array(name, value)
    if array.ndim not in (core_ndim + 1, core_ndim + 2):
        raise ValueError(f"{name} must have shape (L, ...) or (B, L, ...), got {array.shape}")
    return [array[..., k, *(slice(None),) * core_ndim] for k in range(array.shape[-core_ndim - 1])]


def _check_shortcut(shortcut, n_layers):
    if type(shortcut) is float and math.isfinite(shortcut):
        return shortcut
    array = np.array(as_array("shortcut", shortcut), np.float64)
    if array.shape not in ((), (n_layers,)):
        raise ValueError(
            f"shortcut must be a scalar or have shape ({n_layers},), got {array.shape}"
        )
    finite_scan("shortcut", array)
    return array if array.ndim else float(array)


def _uniform(weights, slopes, slope_side, shortcut, vectors):
    """The chain of stacked arrays: nothing is copied or listed per layer."""
    weights = as_array("weights", weights)
    if weights.ndim not in (3, 4) or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(
            "weights must have shape (L, n, n) or (B, L, n, n), or be a sequence of matrices, "
            f"got shape {weights.shape}"
        )
    n_layers, n = weights.shape[-3], weights.shape[-1]
    n_samples = weights.shape[0] if weights.ndim == 4 else None
    if slopes is not None:
        slopes = as_array("slopes", slopes)
        if slopes.ndim not in (2, 3) or slopes.shape[-2:] != (n_layers, n):
            raise ValueError(
                f"slopes must have shape ({n_layers}, {n}) or (B, {n_layers}, {n}), "
                f"got {slopes.shape}"
            )
        n_samples = _merge_samples(
            n_samples, "slopes", slopes.shape[0] if slopes.ndim == 3 else None
        )
    dtype = common_dtype(weights, slopes, vectors)
    weights = with_core(weights, dtype, 2)
    slopes = None if slopes is None else with_core(slopes, dtype, 1)
    return ChainArrays(
        layers=None,
        n_layers=n_layers,
        slope_side=SIDES.index(slope_side),
        n_in=n,
        n_out=n,
        max_width=n,
        has_empty_width=n == 0,
        widths=None,
        dtype=dtype,
        n_samples=n_samples,
        has_shared_weights=weights.ndim == 3,
        weights=weights,
        slopes=slopes,
        shortcut=_check_shortcut(shortcut, n_layers),
    )


def _listed(weights, slopes, slope_side, shortcut, vectors, n_repeats=1):
    """The chain of a sequence of factors, repeated; an entry None of `weights` is the identity."""
    n_layers = len(weights)
    if not n_layers:
        raise ValueError("weights must hold at least one factor: an empty sequence has no size")
    slopes = [None] * n_layers if slopes is None else list(slopes)
    if len(slopes) != n_layers:
        raise ValueError(f"slopes must have {n_layers} entries as weights has, got {len(slopes)}")
    weights = [None if w is None else as_array(f"weights[{k}]", w) for k, w in enumerate(weights)]
    slopes = [None if s is None else as_array(f"slopes[{k}]", s) for k, s in enumerate(slopes)]
    dtype = common_dtype(vectors, *weights, *slopes)
    shortcut = _check_shortcut(shortcut, n_layers)
    shortcuts = np.broadcast_to(shortcut, n_layers).tolist()
    layers: list[tuple] = []
    widths: list[int] = []
    n_samples, is_shared = None, True
    for k in range(n_layers):
        w, s = weights[k], slopes[k]
        if w is not None and w.ndim not in (2, 3):
            raise ValueError(
                f"weights[{k}] must have shape (n_out, n_in) or (B, n_out, n_in), got {w.shape}"
            )
        rows, cols = w.shape[-2:] if w is not None else (s.shape[-1],) * 2
        if widths and cols != widths[-1]:
            raise ValueError(
                f"weights[{k}] must have {widths[-1]} columns, the rows of layer {k - 1}, "
                f"got {cols}: shape {w.shape if w is not None else s.shape}"
            )
        if not widths:
            widths.append(cols)
        widths.append(rows)
        if shortcuts[k] != 0 and rows != cols:
            raise ValueError(
                f"shortcut must be 0 where weights are not square, got {shortcuts[k]:g} "
                f"at layer {k} of shape ({rows}, {cols})"
            )
        layer = [0, 0, 0, 0, rows, cols, shortcuts[k]]  # fields of LAYER
        if w is not None:
            w = weights[k] = with_core(w, dtype, 2)
            n_samples = _merge_samples(
                n_samples, f"weights[{k}]", w.shape[0] if w.ndim == 3 else None
            )
            is_shared &= w.ndim == 2
            layer[0], layer[2] = _kernels.address_of(w), _sample_stride(w, 2)
        if s is not None:
            expected = rows if slope_side == "output" else cols
            if s.ndim not in (1, 2) or s.shape[-1] != expected:
                raise ValueError(
                    f"slopes[{k}] must have shape ({expected},) or (B, {expected}), got {s.shape}"
                )
            s = slopes[k] = with_core(s, dtype, 1)
            n_samples = _merge_samples(
                n_samples, f"slopes[{k}]", s.shape[0] if s.ndim == 2 else None
            )
            layer[1], layer[3] = _kernels.address_of(s), _sample_stride(s, 1)
        layers.append(tuple(layer))
    is_even = n_repeats > 1 and len(set(widths)) == 1
    return ChainArrays(
        layers=np.array(layers, LAYER),
        n_layers=n_layers * n_repeats,
        slope_side=SIDES.index(slope_side),
        n_in=layers[0][5],
        n_out=layers[-1][4],
        max_width=max(widths),
        has_empty_width=0 in widths,
        widths=None if is_even else widths[:1] + widths[1:] * n_repeats,
        dtype=dtype,
        n_samples=n_samples,
        has_shared_weights=is_shared,
        weights=weights,
        slopes=slopes,
        shortcut=shortcut,
    )


def listed_run(layers, side, n_repeats, n_factors, dtype):
    """Layers of a period of a Chain, all of which the kernels know, as the kernels read them."""
    arrays = _listed(
        [layer.weights for layer in layers],
        [layer.slopes for layer in layers],
        side,
        np.array([layer.shortcut for layer in layers]),
        np.empty(0, dtype),
        n_repeats,
    )
    arrays.origins = [(layer.weights_from, layer.slopes_from) for layer in layers]
    arrays.factors_per_period = n_factors
    return arrays


def described(chain, side, runs, vectors):
    """The arrays of a Chain; factors that the kernels do not know are written out as matrices."""
    require_uncoupled(chain)
    dtype = dtype_of(chain, vectors)
    start, read = 0, []
    for run in runs:
        for layer in run.layers:
            if layer.opaque is not None:
                layer.weights = dense(layer.opaque, dtype).to_array()
                if not np.isfinite(layer.weights).all():
                    raise ValueError(
                        f"factors[{start + layer.weights_from}] ({type(layer.opaque).__name__}) "
                        f"is not finite as a matrix of {dtype}"
                    )
        read.append(listed_run(run.layers, side, run.n_repeats, run.n_factors, dtype))
        start += run.n_factors * run.n_repeats
    return read[0] if len(read) == 1 else _joined(read, runs)


def _joined(read, runs):
    """Several runs as one list of layers: a few words for every layer, repeats written out."""
    weights, slopes, widths, origins, first = [], [], [read[0].n_in], [], 0
    for arrays, run in zip(read, runs, strict=True):
        weights += arrays.weights * run.n_repeats
        slopes += arrays.slopes * run.n_repeats
        widths += [arrays.n_out] * arrays.n_layers if arrays.widths is None else arrays.widths[1:]
        for period in range(run.n_repeats):
            shift = first + period * run.n_factors
            origins += [(w + shift, s + shift) for w, s in arrays.origins]
        first += run.n_factors * run.n_repeats
    n_samples = None
    for arrays in read:
        n_samples = _merge_samples(n_samples, "factors", arrays.n_samples)
    table = np.concatenate(
        [np.tile(arrays.layers, run.n_repeats) for arrays, run in zip(read, runs, strict=True)]
    )
    return replace(
        read[0],
        layers=table,
        n_layers=len(table),
        n_out=read[-1].n_out,
        max_width=max(widths),
        has_empty_width=0 in widths,
        widths=widths,
        n_samples=n_samples,
        has_shared_weights=all(arrays.has_shared_weights for arrays in read),
        weights=weights,
        slopes=slopes,
        shortcut=table["shortcut"],
        origins=origins,
    )


def dtype_of(chain, vectors):
    """What a Chain is computed in, applied to `vectors` or to none."""
    return common_dtype(np.empty(0, chain.dtype), vectors)


def read_chain(weights, slopes, slope_side, shortcut, vectors=None, *, fuse=True):
    """Check the arguments that describe a chain and lay them out for the kernels.

    `vectors`, an array that the chain will be applied to, has its say in the dtype.
    Factors of a Chain that the kernels do not know are written out as matrices.  Its layers are its
    factors, or with `fuse` fewer, where a Diagonal joins a Dense: see `layers_of`.
    """
    choice("slope_side", slope_side, SIDES)
    if isinstance(weights, Chain):
        if slopes is not None or np.any(np.asarray(shortcut) != 0):
            name = "slopes" if slopes is not None else "shortcut"
            raise ValueError(
                f"{name} must be left out where weights is a Chain, which holds its own"
            )
        return described(weights, *layers_of(weights, fuse=fuse), vectors)
    if isinstance(weights, (list, tuple)):
        for k, w in enumerate(weights):
            as_array(f"weights[{k}]", w)
        slopes = _as_sequence("slopes", slopes, 1)
        return _listed(list(weights), slopes, slope_side, shortcut, vectors)
    if isinstance(slopes, (list, tuple)):
        weights = _as_sequence("weights", weights, 2)
        return _listed(weights, slopes, slope_side, shortcut, vectors)
    return _uniform(weights, slopes, slope_side, shortcut, vectors)
