"""How the numbers that make up the nets of `simulate` come about: weights, inputs, biases."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import initializers as _initializers
from ..ops._draws import gaussian_rows
from ..ops.scaled import ScaledArray

# Words that a net takes: the key of its Gaussian weights (or, with the third one, the seed of its
# other weights), and the key of everything else.
N_WORDS = 5
_WEIGHTS, _SEED, _ENDS = slice(0, 2), slice(0, 3), slice(3, 5)

_GAUSSIAN = (
    _initializers.gaussian,
    _initializers.he_normal,
    _initializers.glorot_normal,
    _initializers.lecun_normal,
)


class Ends:
    """Inputs, cotangents and biases of nets by their words, the same in either dtype."""

    def __init__(self, sizes: np.ndarray, dtype: np.dtype[Any], n_threads: int | None) -> None:
        self.sizes = [int(n) for n in sizes]
        self.dtype = dtype
        self.n_threads = n_threads
        # Where in a net's numbers the cotangent and the biases of layer 0, 1, ... begin.
        self.cotangent = self.sizes[0]
        self.biases_of = [
            self.sizes[0] + self.sizes[-1] + n
            for n in itertools.accumulate(self.sizes[1:], initial=0)
        ]

    def inputs(self, words: np.ndarray, q0: float) -> ScaledArray:
        """Inputs (nets, n_0) of mean square q0 and uniform direction."""
        x = self._numbers(words, 0, self.sizes[0])
        digits, exponent = math.frexp(math.sqrt(q0))
        x *= digits * math.sqrt(self.sizes[0]) / np.linalg.norm(x, axis=1, keepdims=True)
        scaled = ScaledArray.from_array(x.astype(self.dtype), item_ndim=1)
        return ScaledArray(scaled.mantissa, scaled.exponent + exponent)

    def cotangents(self, words: np.ndarray) -> ScaledArray:
        """Gaussian cotangents (nets, n_L)."""
        drawn = self._numbers(words, self.cotangent, self.sizes[-1])
        return ScaledArray.from_array(drawn.astype(self.dtype), item_ndim=1)

    def biases(self, words: np.ndarray, k: int, sigma_b: float) -> np.ndarray:
        """The biases (nets, n_{k+1}) of layer k."""
        drawn = self._numbers(words, self.biases_of[k], self.sizes[k + 1], sigma_b)
        return drawn.astype(self.dtype)

    def _numbers(self, words, first, count, scale=1.0):
        out = np.empty((len(words), count))
        gaussian_rows(words[:, _ENDS], first, out, scale=scale, n_threads=self.n_threads)
        return out


class GaussianWeights:
    """Gaussian weights: what a net has where is a function of its words, so nothing is kept."""

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        scales: list[float],
        room: np.ndarray,
        n_threads: int | None,
    ) -> None:
        self.shapes = shapes
        self.scales = scales
        self.room = room
        self.n_threads = n_threads
        self.starts = [0, *itertools.accumulate(m * n for m, n in shapes)]

    def begin(self, words: np.ndarray, first: int) -> None:
        """Turn to the nets of these words, of which `first` is the number of the first one."""
        self.words = words

    def layers(self, begin: int, end: int) -> list[np.ndarray]:
        """The weights (nets, rows, columns) of layers [begin, end); they share one buffer."""
        room = self.room[: len(self.words)]
        k = begin
        while k < end:  # neighbours of one scale at once
            after = k + 1
            while after < end and self.scales[after] == self.scales[k]:
                after += 1
            start, stop = self.starts[k], self.starts[after]
            gaussian_rows(
                self.words[:, _WEIGHTS], start,
                room[:, start - self.starts[begin] : stop - self.starts[begin]],
                scale=self.scales[k], n_threads=self.n_threads,
            )  # fmt: skip
            k = after
        return _cut(room, self.shapes[begin:end])


class CalledWeights:
    """Weights that an initializer draws, a call for each matrix, from a generator for each net.

    Segments are asked for in order at first, then again in any order.
    """

    def __init__(
        self, shapes: list[tuple[int, int]], draw: Callable[..., np.ndarray], room: np.ndarray
    ) -> None:
        self.shapes = shapes
        self.draw = draw
        self.room = room

    def begin(self, words: np.ndarray, first: int) -> None:
        """Turn to the nets of these words, of which `first` is the number of the first one."""
        self.first = first
        self.generators = [_generator(row[_SEED]) for row in words]
        self.states: dict[int, list[Any]] = {}  # of the generators, where a segment begins

    def layers(self, begin: int, end: int) -> list[np.ndarray]:
        """The weights (nets, rows, columns) of layers [begin, end); they share one buffer."""
        if begin in self.states:
            for generator, state in zip(self.generators, self.states[begin], strict=True):
                generator.bit_generator.state = state
        else:
            self.states[begin] = [g.bit_generator.state for g in self.generators]
        layers = _cut(self.room[: len(self.generators)], self.shapes[begin:end])
        for i, generator in enumerate(self.generators):
            for k, (layer, shape) in enumerate(zip(layers, self.shapes[begin:end], strict=True)):
                drawn = np.asarray(self.draw(shape, rng=generator, dtype=self.room.dtype.type))
                if drawn.shape != shape or not np.isfinite(drawn).all():
                    raise ValueError(
                        f"initializer must return finite numbers of shape {shape}, got shape "
                        f"{drawn.shape}{_first_bad(drawn)} for layer {begin + k} of net "
                        f"{self.first + i}"
                    )
                layer[i] = drawn
        return layers


def weights_by(
    draw: Callable[..., np.ndarray],
    shapes: list[tuple[int, int]],
    room: np.ndarray,
    n_threads: int | None,
) -> GaussianWeights | CalledWeights:
    """How weights of these shapes by an initializer come about, in a buffer (nets, entries)."""
    scales = [_gaussian_scale(draw, shape, room.dtype) for shape in shapes]
    known = [scale for scale in scales if scale is not None]
    if len(known) == len(shapes):
        return GaussianWeights(shapes, known, room, n_threads)
    return CalledWeights(shapes, draw, room)


def _gaussian_scale(
    draw: Callable[..., Any], shape: tuple[int, int], dtype: np.dtype[Any]
) -> float | None:
    """Standard deviation of the entries, if `draw` is a Gaussian initializer, else None.

    What the initializer would refuse, or might make infinite, is left to it.
    """
    options: dict[str, Any] = {}
    if isinstance(draw, functools.partial) and not draw.args:
        options, draw = draw.keywords, draw.func
    if draw not in _GAUSSIAN or not options.keys() <= {"fan", "gain"}:
        return None
    settings = {**(draw.__kwdefaults__ or {}), **options}
    fans = {"out": shape[0], "in": shape[1], "avg": (shape[0] + shape[1]) / 2}
    gain = settings["gain"]
    if settings["fan"] not in fans or not isinstance(gain, (int, float)):
        return None
    scale = float(gain) / math.sqrt(fans[settings["fan"]])
    return scale if abs(scale) < 1e-3 * float(np.finfo(dtype).max) else None


class _Words(np.random.bit_generator.ISeedSequence):
    """Three random words as the seed of an SFC64, which mixes them itself."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self.words[:n_words].astype(dtype)


def _generator(words):
    seed: Any = _Words(words)
    return np.random.Generator(np.random.SFC64(seed))


def _cut(room, shapes):
    """The entries of each net in `room` as matrices of these shapes, one after the other."""
    ends = itertools.accumulate(m * n for m, n in shapes)
    return [
        room[:, end - m * n : end].reshape(len(room), m, n)
        for (m, n), end in zip(shapes, ends, strict=True)
    ]


def _first_bad(array):
    bad = array[~np.isfinite(array)]
    return f" with {bad[0]}" if bad.size else ""
