"""Ensembles of random networks: the log-norms of signal and gradient, a layer at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import initializers as _initializers
from .._validate import count, real_scalar
from ..ops.chain import chain_jvp, chain_vjp
from ..ops.scaled import ScaledArray, _scaled_log
from ._layers import ActivationLike, hidden_activations, per_layer, residual_shortcut, sizes_of
from ._simulated_layers import Hidden, combined
from ._simulated_weights import N_WORDS, CalledWeights, Ends, GaussianWeights, weights_by

# Weights held at a time: of many layers of a few nets, so that most nets are drawn once.
_WEIGHT_BYTES = 1 << 25
# A layer of a group costs in Python what it costs to draw and multiply about this many weights.
_LAYER_COST = 1 << 13
_LARGEST_LEAST_GROUP = 64


@dataclass(frozen=True, eq=False)
class LogNorms:
    """Log 2-norms of an ensemble's vectors at each interface.

    Attributes
    ----------
    log_norms : ndarray of float64, (n_nets, n_interfaces)
        Row i belongs to net i; -inf where the vector is zero.
    """

    log_norms: np.ndarray

    @property
    def n_dead(self) -> np.ndarray:
        """Nets whose vector is zero, at each interface.

        Returns
        -------
        ndarray of int, (n_interfaces,)
        """
        return np.count_nonzero(self.log_norms == -np.inf, axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Mean over the nets whose vector is not zero; NaN where there is none.

        Returns
        -------
        ndarray, (n_interfaces,)
        """
        alive = self._alive()
        with np.errstate(invalid="ignore"):
            return np.where(alive, self.log_norms, 0.0).sum(axis=0) / alive.sum(axis=0)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation over the nets whose vector is not zero; NaN below two of them.

        Returns
        -------
        ndarray, (n_interfaces,)
        """
        alive = self._alive()
        squares = np.where(alive, self.log_norms - self.mean, 0.0) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(squares.sum(axis=0) / (alive.sum(axis=0) - 1.0))

    @property
    def log_mean_square(self) -> np.ndarray:
        """``ln E ||v||**2`` over all nets: what mean-field theory speaks of.

        Returns
        -------
        ndarray, (n_interfaces,)

        Notes
        -----
        In a deep net a few nets carry it: compare `mean`, the typical value.
        """
        top = self.log_norms.max(axis=0)
        base = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            return 2 * base + np.log(np.mean(np.exp(2 * (self.log_norms - base)), axis=0))

    def quantile(self, q: npt.ArrayLike) -> np.ndarray:
        """Quantiles over all nets, zero vectors counting as -inf.

        Parameters
        ----------
        q : array_like
            Probabilities in [0, 1].

        Returns
        -------
        ndarray, (*q.shape, n_interfaces)
            Order statistics: the least log-norm that a share q of the nets does not exceed.
        """
        return np.quantile(self.log_norms, np.asarray(q, np.float64), axis=0, method="inverted_cdf")

    def _alive(self) -> np.ndarray:
        return self.log_norms != -np.inf


@dataclass(frozen=True, eq=False)
class Simulation:
    """What `simulate` found, net by net and interface by interface.

    Attributes
    ----------
    widths : ndarray of int, (L + 1,)
        Width of each interface, the input's first.
    forward : LogNorms, (n_nets, L + 1)
        ``ln ||z_l||`` of the pre-activations, ``z_0`` the input.
    activations : LogNorms, (n_nets, L)
        ``ln ||h_l||`` of what the layers are applied to: ``h_0 = z_0``, ``h_l = phi(z_l)``.
    gradient : LogNorms, (n_nets, L + 1)
        ``ln (||g_l|| / ||g_L||)`` of the gradient with respect to ``z_l``.
    """

    widths: np.ndarray
    forward: LogNorms
    activations: LogNorms
    gradient: LogNorms


def simulate(
    widths: Sequence[int],
    activation: ActivationLike | Sequence[ActivationLike],
    *,
    initializer: str | Callable[..., np.ndarray],
    n_nets: int,
    rng: np.random.Generator | int | None = None,
    sigma_b: npt.ArrayLike = 0.0,
    q0: float = 1.0,
    shortcut: npt.ArrayLike = 0.0,
    branch_scale: npt.ArrayLike = 1.0,
    dtype: npt.DTypeLike = np.float64,
    n_threads: int | None = None,
) -> Simulation:
    """Log-norms of signal and gradient in an ensemble of random networks, at any depth.

    The layers are those of `predict`: ``z_{l+1} = shortcut_l z_l + branch_scale_l (W_l h_l +
    b_l)`` for l = 0..L-1 with ``h_0 = z_0`` the input and ``h_l = phi(z_l)``.

    Parameters
    ----------
    widths : sequence of int
        ``n_0, ..., n_L``: the sizes of the input and of each layer.
    activation : str, Activation, callable, or a sequence of L - 1 of them
        ``phi``; a sequence gives that of each hidden layer.  The output layer is linear.
    initializer : str or callable
        What `jacometry.initializers.get` takes; called as ``initializer((n_{l+1}, n_l), rng=...,
        dtype=...)`` for each weight matrix.
    n_nets : int
        Number of independent networks, each with an input and an output cotangent of its own.
    rng : numpy.random.Generator, int or None, optional
        SPEC 7: a generator, a seed, or None for fresh entropy.
    sigma_b : float or array_like (L,), optional
        Standard deviation of the Gaussian biases.
    q0 : float, optional
        Mean square of the input's entries, exactly; its direction is uniform.
    shortcut, branch_scale : float or array_like (L,), optional
        One number or one per layer; a nonzero shortcut needs a square layer.
    dtype : dtype, optional
        float32 or float64: what is drawn and computed in.
    n_threads : int, optional
        Threads that draw and multiply; None takes the smaller of OpenMP's limit and the CPU quota.

    Returns
    -------
    Simulation
        ``.forward``, ``.activations`` and ``.gradient``, each with ``.log_norms`` net by net and
        ``.mean``, ``.std``, ``.quantile(q)``, ``.log_mean_square``, ``.n_dead`` by interface.

    Raises
    ------
    ValueError
        If an argument is out of range, an initializer returns a wrong shape or a number that is not
        finite, or a signal leaves the range in which `activation` can be evaluated, naming net and
        layer.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    Net i is a function of `rng` and i alone: its numbers come from keys of its own, so that
    threads, the number of nets and how they are grouped change no bit of it.  Instruction sets with
    and without fused multiply-adds differ in the last bits.

    Signals and gradients carry exponents, so nothing under- or overflows at any depth.  Where the
    largest pre-activation of a net is below 2**-100 (above 2**100), `phi` is taken for its tangents
    at 0 (its lines at infinity), which it then is to all digits, if it has any: tanh, GELU, ELU do,
    a quadratic has not.  What falls below the least float is zero, and counts as dead.

    The gradient is pulled back from a Gaussian cotangent and needs every weight twice.  A group of
    nets is drawn in segments of layers of at most 32 MB of weights (or ``sqrt(L / n)`` layers of
    one net, if those are more); where one segment does not hold the network, all but the last are
    drawn a second time.  Memory beyond the results: the segment, and the signals at the segments'
    ends, which are no larger.  Time is that of a compiled draw of every weight (1 to 3 ns) and of
    two passes over it, and some 0.4 us a net and layer; initializers other than the Gaussian ones
    (`gaussian`, `he_normal`, `glorot_normal`, `lecun_normal`, or a ``functools.partial`` of one
    with its fan or gain) take a NumPy generator and a call per matrix.

    Examples
    --------
    >>> ensemble = simulate([32] * 11, "relu", initializer="he_normal", n_nets=200, rng=0)
    >>> ensemble.forward.log_norms.shape
    (200, 11)
    >>> from jacometry.meanfield import log_norm_law
    >>> law = log_norm_law("relu", [32] * 10)
    >>> grown = 2 * (ensemble.activations.log_norms[:, -1] - ensemble.activations.log_norms[:, 0])
    >>> bool(abs(grown.mean() - law.mean) < 5 * (law.variance / 200) ** 0.5)
    True
    """
    sizes = sizes_of(widths)
    n_layers = len(sizes) - 1
    phis = hidden_activations(activation, n_layers)
    made = {phi: Hidden(phi) for phi in dict.fromkeys(phis)}
    hidden = [made[phi] for phi in phis]
    draw = _initializers.get(initializer)
    n_nets = count("n_nets", n_nets, low=1)
    sigma_b = per_layer(sigma_b, "sigma_b", n_layers)
    q0 = real_scalar("q0", q0, low=0.0, high=math.inf, open_high=True)
    shortcut = residual_shortcut(shortcut, sizes)
    branch_scale = per_layer(branch_scale, "branch_scale", n_layers, least=-math.inf)
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    for name, values in (("sigma_b", sigma_b), ("branch_scale", branch_scale)):
        if (np.abs(values) > 1e-3 * np.finfo(kind).max).any():
            raise ValueError(
                f"{name} must lie well within the range of {kind}, got {values.max():g}"
            )
    # Row i for net i, so that more nets leave the first ones as they are.
    words = np.random.default_rng(rng).integers(0, 2**64, (n_nets, N_WORDS), np.uint64)

    forward = np.empty((n_nets, n_layers + 1))
    activations = np.empty((n_nets, n_layers))
    gradient = np.empty((n_nets, n_layers + 1))
    group, length = _cut(sizes, n_nets, kind.itemsize)
    nets = _Nets(
        sizes, hidden, draw, sigma_b, q0, shortcut, branch_scale, kind, group, length, n_threads
    )
    for first in range(0, n_nets, group):
        rows = slice(first, min(first + group, n_nets))
        nets.run(words[rows], first, forward[rows], activations[rows], gradient[rows])
    return Simulation(sizes, LogNorms(forward), LogNorms(activations), LogNorms(gradient))


def _cut(sizes: np.ndarray, n_nets: int, itemsize: int) -> tuple[int, int]:
    """Nets in a group and layers in a segment: the latter by the widths alone."""
    n_layers, widest = len(sizes) - 1, int(sizes.max())
    entries = int((sizes[1:] * sizes[:-1]).max())
    layers = _WEIGHT_BYTES // (entries * itemsize)  # that fit, of one net
    # Whole networks are drawn once, which pays where a layer costs Python no more than a second
    # draw of it; segments are of as many nets as make that cost small.
    least_group = min(_LARGEST_LEAST_GROUP, 1 + 8 * _LAYER_COST // entries)
    if layers >= min(_LARGEST_LEAST_GROUP, 1 + _LAYER_COST // entries) * n_layers:
        return min(n_nets, layers // n_layers), n_layers
    # The signals at the ends of the segments are to take no more than the segment.
    least_length = min(n_layers, math.isqrt((n_layers - 1) // widest) + 1)
    group = max(1, min(least_group, layers // least_length))
    return min(n_nets, group), min(n_layers, max(least_length, layers // group))


@dataclass(eq=False)
class _Nets:
    """Networks of one kind, run a group at a time."""

    sizes: np.ndarray
    hidden: list[Hidden]
    draw: Callable[..., np.ndarray]
    sigma_b: np.ndarray
    q0: float
    shortcut: np.ndarray
    branch_scale: np.ndarray
    dtype: np.dtype[Any]
    group: int
    length: int
    n_threads: int | None

    segments: list[tuple[int, int]] = field(init=False)
    weights: GaussianWeights | CalledWeights = field(init=False)
    ends: Ends = field(init=False)

    def __post_init__(self) -> None:
        shapes = list(zip(self.sizes[1:].tolist(), self.sizes[:-1].tolist(), strict=True))
        starts = range(0, len(shapes), self.length)
        self.segments = [(a, min(a + self.length, len(shapes))) for a in starts]
        most = max(sum(m * n for m, n in shapes[a:b]) for a, b in self.segments)
        room = np.empty((self.group, most), self.dtype)
        self.weights = weights_by(self.draw, shapes, room, self.n_threads)
        self.ends = Ends(self.sizes, self.dtype, self.n_threads)

    def run(self, words, first, forward, activations, gradient):
        """The log-norms of the nets of these words, `first` the number of the first one."""
        self.weights.begin(words, first)
        z = self.ends.inputs(words, self.q0)
        forward[:, 0] = z.log_norm()
        waiting = []
        for segment in self.segments:
            waiting.append(z)
            weights = self.weights.layers(*segment)
            z, slopes = self._push(segment, weights, z, words, first, forward, activations)
        g = self.ends.cotangents(words)
        gradient[:, -1] = g.log_norm()
        for segment in reversed(self.segments):
            z = waiting.pop()
            if segment != self.segments[-1]:
                weights = self.weights.layers(*segment)
                _, slopes = self._push(segment, weights, z, words, first, forward, activations)
            begin, end = segment
            trace = chain_vjp(
                weights, g.mantissa, slopes=slopes, slope_side="input",
                shortcut=self.shortcut[begin:end], n_threads=self.n_threads, check_finite=False,
            )  # fmt: skip
            gradient[:, begin:end] = _scaled_log(trace.log_norms[:, :-1], g.exponent[:, None])
            g = ScaledArray(trace.vector.mantissa, trace.vector.exponent + g.exponent)
        gradient -= gradient[:, -1:].copy()

    def _push(self, segment, weights, z, words, first, forward, activations):
        """The signal after a segment, and the slopes by which each of its layers is preceded."""
        slopes = []
        for k, w in zip(range(*segment), weights, strict=True):
            branch = float(self.branch_scale[k])
            if k == 0:
                h, exponent, slope = z.mantissa, z.exponent, None
            else:
                h, exponent, slope = self.hidden[k - 1](z)
                self._require_finite(h, k, first)
            trace = chain_jvp([w], h, n_threads=self.n_threads, check_finite=False)
            activations[:, k] = _scaled_log(trace.log_norms[:, 0], exponent)
            pushed = ScaledArray(trace.vector.mantissa, trace.vector.exponent + exponent)
            if self.sigma_b[k] or self.shortcut[k] or branch != 1.0:
                scale = float(self.sigma_b[k])
                biases = self.ends.biases(words, k, scale) if scale else None
                z = combined(
                    pushed, z, biases=biases, shortcut=float(self.shortcut[k]), branch_scale=branch
                )
                forward[:, k + 1] = z.log_norm()
            else:
                z = pushed
                forward[:, k + 1] = _scaled_log(trace.log_norms[:, 1], exponent)
            if branch != 1.0:
                slope = np.full_like(h, branch) if slope is None else slope * h.dtype.type(branch)
            slopes.append(slope)
        return z, slopes

    def _require_finite(self, h, k, first):
        if not np.isfinite(h).all():
            net = first + int(np.argwhere(~np.isfinite(h))[0, 0])
            raise ValueError(
                f"activation {self.hidden[k - 1].phi.name!r} must be finite, got "
                f"{h[~np.isfinite(h)][0]} before layer {k} of net {net}"
            )
