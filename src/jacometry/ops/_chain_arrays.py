"""From what the caller gives as a chain to the layout that the kernels read."""

import math

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


class ChainArrays(_kernels.ChainLayout):
    """A checked chain, its arrays as the kernels read them; what it holds: see `ChainLayout`."""

    __slots__ = ()

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


def _as_sequence(name, value, core_ndim):
    """A stacked array (L, ...) or (B, L, ...) as the list of its layers."""
    if value is None or isinstance(value, (list, tuple)):
        return None if value is None else list(value)
    array = as_array(name, value)
    if array.ndim not in (core_ndim + 1, core_ndim + 2):
        raise ValueError(f"{name} must have shape (L, ...) or (B, L, ...), got {array.shape}")
    return [array[..., k, *(slice(None),) * core_ndim] for k in range(array.shape[-core_ndim - 1])]


def _check_shortcut(shortcut, n_layers):
    """`shortcut` as a float or a contiguous (L,) array of float64."""
    if type(shortcut) is float and math.isfinite(shortcut):
        return shortcut
    array = np.array(as_array("shortcut", shortcut), np.float64)
    if array.shape not in ((), (n_layers,)):
        raise ValueError(
            f"shortcut must be a scalar or have shape ({n_layers},), got {array.shape}"
        )
    finite_scan("shortcut", array)
    return array if array.ndim else float(array)


def _require_range(shortcut, dtype):
    """Raise where a checked `shortcut` does not fit into the dtype of the chain."""
    info = np.finfo(dtype)
    size = np.abs(np.atleast_1d(shortcut))
    bad = np.flatnonzero((size > info.max) | ((size < info.tiny) & (size > 0)))
    if bad.size:
        where = f" in layer {bad[0]}" if np.ndim(shortcut) else ""
        raise ValueError(
            f"shortcut must be 0 or a normal number of {dtype}, in which this chain is computed, "
            f"got {np.atleast_1d(shortcut)[bad[0]]:g}{where}"
        )


def _uniform(weights, slopes, slope_side, shortcut, vectors):
    """The chain of stacked arrays: nothing is copied or listed per layer."""
    chain, side = ChainArrays(), SIDES.index(slope_side)
    if not chain.read_stacked(weights, slopes, side, vectors):
        weights = as_array("weights", weights)
        slopes = None if slopes is None else as_array("slopes", slopes)
        dtype = common_dtype(weights, slopes, vectors)
        weights = with_core(weights, dtype, 2)
        slopes = None if slopes is None else with_core(slopes, dtype, 1)
        chain.read_stacked(weights, slopes, side, None)
    if type(shortcut) is not float or shortcut:
        shortcut = _check_shortcut(shortcut, chain.n_layers)
        _require_range(shortcut, chain.dtype)
        chain.set_shortcut(shortcut)
    return chain


def _listed(weights, slopes, slope_side, shortcut, vectors, n_repeats=1, has_identities=False):
    """The chain of a list of factors, repeated; a weight may be None, the identity, if so said."""
    n_layers = len(weights)
    if not n_layers:
        raise ValueError("weights must hold at least one factor: an empty sequence has no size")
    if slopes is not None and len(slopes) != n_layers:
        raise ValueError(f"slopes must have {n_layers} entries as weights has, got {len(slopes)}")
    chain, side = ChainArrays(), SIDES.index(slope_side)
    shortcut = _check_shortcut(shortcut, n_layers)
    table = np.empty(n_layers, LAYER)
    options = table, n_repeats, has_identities
    if not chain.read_listed(weights, slopes, side, shortcut, vectors, *options):
        weights = [
            w if w is None and has_identities else as_array(f"weights[{k}]", w)
            for k, w in enumerate(weights)
        ]
        slopes = [
            s if s is None else as_array(f"slopes[{k}]", s)
            for k, s in enumerate(slopes or [None] * n_layers)
        ]
        dtype = common_dtype(vectors, *weights, *slopes)
        weights = [w if w is None else with_core(w, dtype, 2) for w in weights]
        slopes = [s if s is None else with_core(s, dtype, 1) for s in slopes]
        chain.read_listed(weights, slopes, side, shortcut, None, *options)
    if type(shortcut) is not float or shortcut:
        _require_range(shortcut, chain.dtype)
    return chain


def listed_run(layers, side, n_repeats, n_factors, dtype):
    """Layers of a period of a Chain, all of which the kernels know, as the kernels read them."""
    shortcuts = [layer.shortcut for layer in layers]
    arrays = _listed(
        [layer.weights for layer in layers],
        [layer.slopes for layer in layers],
        side,
        np.array(shortcuts) if any(shortcuts) else 0.0,
        np.empty(0, dtype),
        n_repeats,
        has_identities=True,
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
    return read[0] if len(read) == 1 else _joined(read, side, runs)


def _joined(read, side, runs):
    """Several runs as one list of layers: a few words for every layer, repeats written out."""
    weights, slopes, origins, first = [], [], [], 0
    for arrays, run in zip(read, runs, strict=True):
        weights += arrays.weights * run.n_repeats
        slopes += arrays.slopes * run.n_repeats
        for period in range(run.n_repeats):
            shift = first + period * run.n_factors
            origins += [(w + shift, s + shift) for w, s in arrays.origins]
        first += run.n_factors * run.n_repeats
    shortcuts = np.concatenate(
        [np.tile(a.layers["shortcut"], r.n_repeats) for a, r in zip(read, runs, strict=True)]
    )
    joined = _listed(weights, slopes, side, shortcuts, None, has_identities=True)
    joined.origins = origins
    return joined


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
        slopes = _as_sequence("slopes", slopes, 1)
        return _listed(list(weights), slopes, slope_side, shortcut, vectors)
    if isinstance(slopes, (list, tuple)):
        weights = _as_sequence("weights", weights, 2)
        return _listed(weights, slopes, slope_side, shortcut, vectors)
    return _uniform(weights, slopes, slope_side, shortcut, vectors)
