"""Chains with factors that no kernel knows: compiled segments, and NumPy for what lies between.

Vectors go from factor to factor as ScaledArrays, so that the exact scaling of the kernels holds
throughout: a factor is applied to mantissas, with its own coefficients scaled to about one where it
can be (`Factor.scaled`), and the exponents are added.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from ..factors import Chain, Factor, Residual
from ._chain_arrays import ChainArrays, described, dtype_of, listed_run, read_chain
from ._chain_factors import (
    add_scaled,
    aligned,
    is_known,
    layers_of,
    require_uncoupled,
    shifted,
)
from .scaled import ScaledArray, _scaled_log


@dataclass(slots=True)
class Segment:
    """Neighbouring layers that the kernels take, or one factor that they do not."""

    first: int  # factor of the period
    arrays: ChainArrays | None = None
    factor: Factor | None = None  # scaled
    exponent: int = 0
    branch: Any = None  # of a Residual: ChainArrays or ChainSegments
    name: str = ""


@dataclass(slots=True)
class ChainSegments:
    """A Chain as segments; beside `runs`, what a ChainArrays says of itself."""

    chain: Chain
    fuse: bool
    dtype: np.dtype
    n_layers: int = field(init=False)
    n_in: int = field(init=False)
    n_out: int = field(init=False)
    n_samples: int | None = field(init=False)
    runs: list = field(init=False)  # (segments of a period, repeats, factors of a period)
    path: str = ""
    # A product is written when all is read: its `out` may overlap with the arrays of the factors.
    weights: Any = None
    slopes: Any = None
    shortcut: Any = None

    def __post_init__(self):
        self.n_layers, self.n_samples = len(self.chain), self.chain.n_samples
        self.n_out, self.n_in = self.chain.shape
        side, runs = layers_of(self.chain, fuse=self.fuse)
        self.runs = [self._segments(run, side) for run in runs]

    def _segments(self, run, side):
        """The segments of a period, how often it is repeated, and how many factors it has."""
        if is_known([run]):  # one call, repeats and all
            arrays = listed_run(run.layers, side, run.n_repeats, run.n_factors, self.dtype)
            return [Segment(0, arrays=arrays)], 1, run.n_factors * run.n_repeats
        segments: list[Segment] = []
        for known_here, layers in groupby(run.layers, lambda layer: layer.opaque is None):
            if not known_here:
                segments += map(self._opaque, layers)
                continue
            known = list(layers)
            first = min(known[0].weights_from, known[0].slopes_from)
            arrays = listed_run(known, side, 1, 0, self.dtype)
            arrays.origins = [(w - first, s - first) for w, s in arrays.origins]
            segments.append(Segment(first, arrays=arrays))
        return segments, run.n_repeats, run.n_factors

    def _opaque(self, layer):
        factor, exponent = layer.opaque.scaled()
        segment = Segment(layer.weights_from, factor=factor, exponent=exponent)
        segment.name = type(layer.opaque).__name__
        if isinstance(factor, Residual):
            segment.branch = read_any(factor.chain, None, "output", 0.0, np.empty(0, self.dtype))
        return segment

    def walk(self, transposed) -> Iterator[tuple[Segment, int]]:
        """The segments in the order of the vectors, each with its first factor in the chain."""
        starts = np.cumsum([0, *(n_repeats * size for _, n_repeats, size in self.runs)])
        runs = list(zip(self.runs, starts[:-1].tolist(), strict=True))
        for (segments, n_repeats, size), start in reversed(runs) if transposed else runs:
            repeats = range(n_repeats)
            for repeat in reversed(repeats) if transposed else repeats:
                for segment in reversed(segments) if transposed else segments:
                    yield segment, start + repeat * size + segment.first


def read_any(weights, slopes, slope_side, shortcut, vectors=None, *, fuse=True):
    """`read_chain`, or segments where a Chain holds factors that the kernels do not know."""
    if isinstance(weights, Chain) and slopes is None and not np.any(np.asarray(shortcut)):
        side, runs = layers_of(weights, fuse=fuse)
        if is_known(runs):
            return described(weights, side, runs, vectors)
        return ChainSegments(weights, fuse, dtype_of(weights, vectors))
    return read_chain(weights, slopes, slope_side, shortcut, vectors, fuse=fuse)


@dataclass(slots=True)
class Push:
    """One call: its options, and what it records at the interfaces."""

    compiled: Callable  # (arrays, start, transposed, keep) -> ChainTrace
    transposed: bool
    check_finite: bool
    log_norms: Any = None  # (*batch, L + 1), filled in
    vectors: list | None = None  # filled in where kept

    def run(self, chain, start) -> ScaledArray:
        """Vectors `start` (*batch, n) through a chain of either kind; where they end."""
        x = ScaledArray.from_array(start, item_ndim=1)
        if isinstance(chain, ChainArrays):
            return self._through_arrays(chain, x, None)
        self._record(chain.n_layers if self.transposed else 0, x)
        for segment, first in chain.walk(self.transposed):
            if segment.arrays is not None:
                segment.arrays.first_factor, segment.arrays.path = first, chain.path
                x = self._through_arrays(segment.arrays, x, first)
                continue
            name = f"{chain.path}factors[{first}]"
            if segment.factor.couples_samples:
                x = aligned(x, 0)
            if segment.branch is None:
                x = self._through_factor(segment, x, name)
            else:
                x = self._through_residual(segment, x, name)
            self._record(first + (not self.transposed), x)
        return x

    def _through_arrays(self, arrays, x, first):
        keep = "last" if self.vectors is None else "all"
        trace = self.compiled(arrays, x.mantissa, self.transposed, keep)
        if self.log_norms is not None and first is not None:
            interfaces = slice(first, first + arrays.n_layers + 1)
            self.log_norms[..., interfaces] = _scaled_log(trace.log_norms, x.exponent[..., None])
            if self.vectors is not None:
                self.vectors[interfaces] = [shifted(v, x.exponent) for v in trace.vectors]
        return shifted(trace.vector, x.exponent)

    def _through_factor(self, segment, x, name):
        push = segment.factor.vjp if self.transposed else segment.factor.jvp
        y = np.asarray(push(x.mantissa), x.dtype)
        expected = segment.factor.shape[1 if self.transposed else 0]
        if y.shape != (*x.shape[:-1], expected):
            raise ValueError(
                f"{name} ({segment.name}) must map vectors {x.shape} to "
                f"{(*x.shape[:-1], expected)}, got {y.shape}"
            )
        if self.check_finite and not np.isfinite(y).all():
            index = np.argwhere(~np.isfinite(y))[0]
            where = f" for sample {index[0]}" if y.ndim > 1 else ""
            raise ValueError(
                f"{name} ({segment.name}) must give finite vectors, got {y[tuple(index)]}{where} "
                "(check_finite=False propagates it)"
            )
        return shifted(ScaledArray.from_array(y, item_ndim=1), x.exponent + segment.exponent)

    def _through_residual(self, segment, x, name):
        if isinstance(segment.branch, ChainSegments):
            segment.branch.path = f"{name}.chain."
        else:
            segment.branch.first_factor, segment.branch.path = 0, f"{name}.chain."
        inner = Push(self.compiled, self.transposed, self.check_finite)
        at_zero = ScaledArray(x.mantissa, np.zeros_like(x.exponent))
        y = inner.run(segment.branch, x.mantissa)
        return shifted(add_scaled(at_zero, y, segment.factor.scale), x.exponent)

    def _record(self, interface, x):
        if self.log_norms is not None:
            self.log_norms[..., interface] = x.log_norm()
        if self.vectors is not None:
            normal = ScaledArray.from_array(x.mantissa, item_ndim=1)
            self.vectors[interface] = shifted(normal, x.exponent)


def push_segments(chain, start, transposed, keep, compiled, check_finite):
    """The fields of a ChainTrace: vector at the far end, log-norms, vectors with keep "all"."""
    n_interfaces = chain.n_layers + 1
    push = Push(compiled, transposed, check_finite)
    push.log_norms = np.empty((*start.shape[:-1], n_interfaces))
    push.vectors = [None] * n_interfaces if keep == "all" else None
    vector = push.run(chain, start)
    return vector, push.log_norms, None if push.vectors is None else tuple(push.vectors)


def product_of_segments(chain, compiled, check_finite) -> ScaledArray:
    """The product, from the identity's columns pushed forwards or its rows backwards.

    Whichever are fewer.  Every column (row) has an exponent of its own on the way.
    """
    require_uncoupled(chain.chain)
    transposed = chain.n_out < chain.n_in
    start = np.eye(min(chain.n_out, chain.n_in), dtype=chain.dtype)
    if chain.n_samples is not None:
        start = np.ascontiguousarray(np.broadcast_to(start, (chain.n_samples, *start.shape)))
    vectors = aligned(Push(compiled, transposed, check_finite).run(chain, start), -1)
    mantissa = vectors.mantissa if transposed else np.swapaxes(vectors.mantissa, -1, -2)
    exponent = np.max(vectors.exponent, axis=-1, initial=np.iinfo(np.int64).min)
    exponent = np.where(exponent == np.iinfo(np.int64).min, 0, exponent)
    return shifted(ScaledArray.from_array(np.ascontiguousarray(mantissa)), exponent)
