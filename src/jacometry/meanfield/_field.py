"""Mean-field theory of one kind of layer, repeated: fixed points, slopes and depth scales."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import activations as _activations
from .._validate import (
    as_array,
    broadcast_shape,
    choice,
    count,
    dtype_of,
    finite_scan,
    real_scalar,
    refuse,
)
from . import _solver
from ._layer_maps import Layers, iterate, slopes
from ._layers import ActivationLike

#: The fields in the order in which tables show them.
FIELDS = (
    "q_star",
    "chi_1",
    "c_star",
    "chi_c",
    "depth_scale_q",
    "depth_scale_c",
    "depth_scale_grad",
)
# Where arguments may lie, if not in [0, inf).
_RANGES = {
    "shortcut": (-math.inf, math.inf, ""),
    "branch_scale": (-math.inf, math.inf, ""),
    "dropout": (0.0, math.nextafter(1.0, 0.0), "lie in [0, 1)"),
    "c": (-1.0, 1.0, "lie in [-1, 1]"),
}
_COBWEB_STEPS = 60
PHASES = ("ordered", "critical", "chaotic", "divergent")
_STATUS_WORDS = (
    (_solver.DIVERGES, "q diverges"),
    (_solver.GROWS, "q grows slower than any exponential"),
    (_solver.EVERY, "every q is fixed"),
    (_solver.SEVERAL, "several fixed points"),
    (_solver.SLOW, "slow: algebraic convergence"),
)
_STATUSES = np.array(
    [
        "; ".join(word for bit, word in _STATUS_WORDS if code & bit) or "converged"
        for code in range(64)
    ]
)


class Trajectory(NamedTuple):
    """Variance and correlation of two inputs, layer by layer; the last axis is depth.

    Attributes
    ----------
    q : ndarray (..., depth + 1)
        Mean square of the entries, the same for both inputs.
    c : ndarray (..., depth + 1)
        Correlation of the two.
    complement : ndarray (..., depth + 1)
        ``1 - c``, with its own digits where c is near 1.
    """

    q: np.ndarray
    c: np.ndarray
    complement: np.ndarray


class FieldResult:
    """The fields of a grid as flat arrays and codes, under their public names."""

    shape: tuple[int, ...]
    q_star: np.ndarray
    chi_1: np.ndarray
    c_star: np.ndarray
    chi_c: np.ndarray
    depth_scale_q: np.ndarray
    depth_scale_c: np.ndarray
    depth_scale_grad: np.ndarray
    _phase_codes: np.ndarray
    _status_codes: np.ndarray

    @property
    def phase(self) -> Any:
        """The phase of each grid point.

        Returns
        -------
        ndarray of str, or str
            "ordered", "critical", "chaotic" or "divergent".
        """
        return np.take(PHASES, self._phase_codes)

    @property
    def status(self) -> Any:
        """What there is to say of each grid point.

        Returns
        -------
        ndarray of str, or str
            "converged", or what is true of "q diverges", "q grows slower than any exponential",
            "every q is fixed", "several fixed points" and "slow: algebraic convergence", joined
            by "; ".
        """
        return np.take(_STATUSES, self._status_codes)


class MeanField(FieldResult):
    """Fixed points, slopes and depth scales of wide random layers, on a grid of parameters.

    A layer takes ``x`` to ``shortcut x + branch_scale (W D phi(N(x)) + b)``, ``Var(W_ij) =
    sigma_w**2 / fan_in``, ``Var(b) = sigma_b**2``; ``D`` is dropout and ``N`` the normalisation.
    ``q`` is the mean square of the entries of ``x``, ``c`` the correlation of the ``x`` of two
    inputs.  With the defaults this is ``z_{l+1} = W phi(z_l) + b``.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    sigma_w, sigma_b : array_like
        Standard deviations, >= 0.  All arguments but `activation` and `normalization` broadcast.
    q0 : array_like, optional
        Variance from which the iteration of q starts, >= 0.
    shortcut : array_like, optional
        Factor of the identity path; 1 for a residual network.
    branch_scale : array_like, optional
        Factor of the branch.
    normalization : {None, "batch", "layer"}, optional
        Standardisation of x ahead of the activation, without gain and shift: over the units of a
        layer ("layer"), or of each unit over a batch that is large and whose samples are no more
        correlated with each other than the layers make them ("batch").
    dropout : array_like, optional
        Rate in [0, 1) at which outputs of the activation are zeroed; the rest is divided by the
        keep rate ``1 - dropout``, and two inputs have masks of their own.
    n_threads : int, optional
        Threads over the items; None takes the smaller of OpenMP's limit and the CPU quota.

    Attributes
    ----------
    shape : tuple of int
        The broadcast shape, that of every field; fields are NumPy scalars if it is ().
    q_star : ndarray
        Where the iteration ``q -> V(q)`` from q0 goes: a fixed point, 0 and infinity included.
    chi_1 : ndarray
        Factor on the gradient's mean square per layer at q_star: ``sigma_w**2 E phi'(sqrt(q*)
        z)**2``.
    c_star : ndarray
        Where the correlation of two inputs with c in [0, 1) goes; 1 where q_star is 0.
    chi_c : ndarray
        Slope of the correlation map at c_star.
    depth_scale_q, depth_scale_c, depth_scale_grad : ndarray
        ``-1 / ln`` of ``|V'(q*)|``, `chi_c` and `chi_1`: layers in which distances from q_star and
        c_star, and the gradient's mean square, fall by e.  Negative where they grow, infinite
        within 1e-11 of 1.
    phase : ndarray of str, or str
        "divergent" without a finite q_star, else "ordered", "critical" or "chaotic" as `chi_1` is
        below, within 1e-11 of, or above 1.
    status : ndarray of str, or str
        "converged", or what is true of: "q diverges" (exponentially or faster), "q grows slower
        than any exponential", "every q is fixed" (ReLU at its critical point: then
        q_star = q0), "several fixed points" (of V, 0 included: another q0 may end elsewhere, see
        `fixed_points`), "slow: algebraic convergence" (an infinite depth scale of q or c).

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it is and what was expected.

    Notes
    -----
    With ``u = q`` (1 after a normalisation) and ``rho = 1 - dropout``::

        V(q) = shortcut**2 q + branch_scale**2 (sigma_w**2 E phi(sqrt(u) z)**2 / rho + sigma_b**2)
        chi_1 = shortcut**2 + branch_scale**2 sigma_w**2 E phi'(sqrt(u) z)**2 / (rho v)

    where v, the variance that the normalisation divides by, is 1 without one, q for "layer" and the
    variance within the batch for "batch".  So plain layers with batch norm have ``chi_1 = E phi'**2
    / Var phi(z)`` whatever the sigmas, at least 1: they are never ordered.  Their c_star is that of
    x, ahead of the normalisation, which leaves the samples of the batch uncorrelated; chi_c is the
    slope for one pair in such a batch.

    V increases for every activation of the package, so that the iterates from q0 are monotone and
    end at the first fixed point on their way.  Another's V may decrease, but ``sqrt(q) V(q)``
    never does, so that no variance cycles.  c_star is the stable root of ``sigma_w**2 D(q*, e) =
    q*`` in ``e = 1 - c`` for chi_1 > 1, with D of `jacometry.ops.correlations.decorrelation`; it is
    1 otherwise.  With dropout two copies of one input part ways, so c_star < 1 and there is no
    critical point, although chi_1 = 1 can still be had.

    Where q grows for ever, chi_1, c_star and chi_c are their limits for q to infinity: with a
    shortcut of 1 and a bounded activation q grows like l and chi_1 tends to 1, the gradient growing
    like ``exp(O(sqrt(l)))``; depth scales are infinite there.  q_star and c_star are found to about
    ``1e-15 max(1, depth scale)``, for an activation without a kernel to what its moments allow.
    Cost: about 2 us per point, 5 where chaotic, once the tables of an activation without closed
    forms are there (some 0.3 s).

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016;
    Schoenholz et al., Deep information propagation, 2017; Yang and Schoenholz, Mean field residual
    networks: on the edge of chaos, 2017; Yang et al., A mean field theory of batch normalization,
    2019.

    Examples
    --------
    >>> import numpy as np
    >>> field = MeanField("tanh", [1.0, 2.0**0.5], 0.05**0.5)
    >>> field.phase.tolist()
    ['ordered', 'chaotic']
    >>> field.c_star.round(6)
    array([1.      , 0.744082])
    >>> MeanField("gelu", 1.547, 0.2, q0=[0.1, 1.0]).phase.tolist()
    ['ordered', 'divergent']
    """

    def __init__(
        self,
        activation: ActivationLike,
        sigma_w: npt.ArrayLike,
        sigma_b: npt.ArrayLike = 0.0,
        *,
        q0: npt.ArrayLike = 1.0,
        shortcut: npt.ArrayLike = 0.0,
        branch_scale: npt.ArrayLike = 1.0,
        normalization: str | None = None,
        dropout: npt.ArrayLike = 0.0,
        n_threads: int | None = None,
    ) -> None:
        self.activation = _activations.get(activation)
        if normalization is not None:
            choice("normalization", normalization, ("batch", "layer"))
        self.normalization = normalization
        given = {
            "sigma_w": sigma_w, "sigma_b": sigma_b, "q0": q0, "shortcut": shortcut,
            "branch_scale": branch_scale, "dropout": dropout,
        }  # fmt: skip
        dtype, self.shape, arrays = _broadcast(given)
        w, b, q0, shortcut, branch_scale, dropout = arrays
        self._q0 = q0
        self._layers = Layers(
            self.activation, normalization, carried=shortcut**2, weight=(branch_scale * w) ** 2,
            bias=(branch_scale * b) ** 2, keep=1 - dropout, n_threads=n_threads,
        )  # fmt: skip
        fields, phases, statuses = solve(self._layers, q0)
        for name in FIELDS:
            setattr(self, name, fields[name].astype(dtype).reshape(self.shape)[()])
        self._phase_codes = phases.reshape(self.shape)
        self._status_codes = statuses.reshape(self.shape)

    def __repr__(self) -> str:
        return f"<MeanField {self.activation.name} of shape {self.shape}>"

    def fixed_points(self, i: int | tuple[int, ...] = ()) -> np.ndarray:
        """Every fixed point of the variance map at one point of the grid.

        Parameters
        ----------
        i : int or tuple of int, optional
            Index into `shape`; () for a scalar.

        Returns
        -------
        ndarray
            Structured, ascending in "q", 0 included, infinity not: "q", "slope" (V'(q)), "chi_1"
            and "stable" (whether nearby q come back).  Where every q is fixed, q_star alone.

        Raises
        ------
        IndexError
            If `i` is not an index of a single point.
        """
        item = self._item(i)
        q = float(np.reshape(self.q_star, -1)[item])
        if self._status_codes.reshape(-1)[item] & _solver.EVERY:
            roots = np.array([q])
        else:
            roots = _solver.all_fixed_points(self._layers[item : item + 1], q)
        layers = self._layers[np.full(roots.size, item)]
        found = np.empty(
            roots.size, [("q", float), ("slope", float), ("chi_1", float), ("stable", bool)]
        )
        found["q"] = roots
        found["slope"], found["chi_1"] = slopes(layers, roots)
        found["stable"] = _solver.attracts(layers, roots, found["slope"])
        return found

    def trajectory(self, q: npt.ArrayLike, c: npt.ArrayLike, depth: int) -> Trajectory:
        """Variance and correlation of two inputs over `depth` layers.

        Parameters
        ----------
        q : array_like
            Variance of both at the start, >= 0; broadcasts with the grid.
        c : array_like
            Their correlation at the start, in [-1, 1]; broadcasts with the grid.
        depth : int
            Number of layers.

        Returns
        -------
        Trajectory
            ``q``, ``c`` and ``complement = 1 - c``, each with an axis of length ``depth + 1`` at
            the end.

        Raises
        ------
        ValueError, TypeError
            Naming the argument.

        Notes
        -----
        ``1 - c`` is iterated, so c = 1 is approached to full relative accuracy.  A variance of 0
        keeps c.  With batch norm, the pair stands in a batch whose samples are uncorrelated at the
        start.  Cost: one two-dimensional moment per point and layer.
        """
        depth = count("depth", depth)
        _, shape, (_, q, c) = _broadcast({"grid": np.zeros(self.shape), "q": q, "c": c})
        items = np.broadcast_to(
            np.arange(math.prod(self.shape)).reshape(self.shape), shape
        ).reshape(-1)
        layers = self._layers[items]
        qs, es = iterate(layers, q, 1 - c, depth)
        cs = 1 - es
        cs[:, 0] = c
        return Trajectory(*(a.reshape(*shape, depth + 1) for a in (qs, cs, es)))

    def plot_c_map(self, i: int | tuple[int, ...] = (), *, c: float = 0.1, ax: Any = None) -> Any:
        """Draw the correlation map at q_star as a cobweb.

        Parameters
        ----------
        i : int or tuple of int, optional
            Index into `shape`; () for a scalar.
        c : float, optional
            Correlation of two inputs from which the cobweb starts, in [-1, 1].
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ValueError
            If q_star is not finite there.
        ImportError
            Without the ``plot`` extra.
        """
        from ..plots._field import correlation_cobweb

        item = self._item(i)
        q, c_star = (float(np.reshape(f, -1)[item]) for f in (self.q_star, self.c_star))
        if not math.isfinite(q):
            raise ValueError(f"the correlation map is drawn at a finite q_star, got {q}")
        c = real_scalar("c", c, low=-1.0, high=1.0)
        start, ones = np.linspace(min(0.0, c), 1.0, 201), np.ones(201)
        layers = self._layers[np.full(201, item)]
        after = 1 - iterate(layers, q * ones, 1 - start, 1)[1][:, 1]
        way = 1 - iterate(layers[:1], q * ones[:1], 1 - c * ones[:1], _COBWEB_STEPS)[1][0]
        return correlation_cobweb(start, after, way, c_star, ax=ax)

    def _item(self, i: int | tuple[int, ...]) -> int:
        item = np.arange(math.prod(self.shape)).reshape(self.shape)[i]
        if np.ndim(item):
            raise IndexError(f"i must index one point of shape {self.shape}, got {i!r}")
        return int(item)


def solve(layers: Layers, q0: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The fields by name, the phase codes and the status codes of a flat list of layers."""
    q, status = _solver.variance_limit(layers, q0)
    slope, chi_1 = slopes(layers, q)
    e, chi_c = _solver.correlation_limit(layers, q)
    fields = {"q_star": q, "chi_1": chi_1, "c_star": 1 - e, "chi_c": chi_c}
    for name, factor in (("q", np.abs(slope)), ("c", chi_c), ("grad", chi_1)):
        fields[f"depth_scale_{name}"] = _depth_scale(factor)
    phase = np.where(_is_one(chi_1), 1, np.where(chi_1 < 1, 0, 2))
    phase[~np.isfinite(q)] = 3
    status[np.isinf(q)] |= np.where(
        slope[np.isinf(q)] > 1 + _solver.CRITICAL, _solver.DIVERGES, _solver.GROWS
    ).astype(np.uint8)
    is_slow = _is_one(chi_c) | (_is_one(np.abs(slope)) & np.isfinite(q))
    is_slow &= layers.weight > 0
    status |= np.where(is_slow, _solver.SLOW, 0).astype(np.uint8)
    return fields, phase.astype(np.uint8), status


def _is_one(factor: np.ndarray) -> np.ndarray:
    return np.abs(factor - 1) <= _solver.CRITICAL


def _depth_scale(factor: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = -1 / np.log(np.where(_is_one(factor), 1.0, factor))
    return np.where(_is_one(factor), np.inf, scale)


def _broadcast(given: dict[str, Any]) -> tuple[Any, tuple[int, ...], list[np.ndarray]]:
    """The result's dtype, the broadcast shape, and each argument in float64, flat."""
    arrays = {name: as_array(name, value) for name, value in given.items()}
    for name, array in arrays.items():
        finite_scan(name, array)
        low, high, expected = _RANGES.get(name, (0.0, math.inf, "be >= 0"))
        refuse(name, array, (array < low) | (array > high), expected)
    dtype, shape = dtype_of(given, arrays), broadcast_shape(arrays)
    flat = [
        np.broadcast_to(array, shape).astype(np.float64).reshape(-1) for array in arrays.values()
    ]
    return dtype, shape, flat
