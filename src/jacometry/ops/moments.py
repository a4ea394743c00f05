"""Moments of an activation under a Gaussian input, and the variance map of a wide random layer."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from .. import _backend, _kernels, _threads, activations
from .._status import JacometryWarning
from .._validate import as_array, common_dtype, contiguous, finite_scan

# The five moments as (derivative of phi, power).
_MOMENTS = ((0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
# The quadrature for activations without a kernel: see gaussian_moments.
_N_NODES = 16
_REACH = 16.0
_SETTLED = 1e-11
_MAX_REFINEMENTS = 5
_BLOCK = 2**21


@dataclass(frozen=True, slots=True)
class GaussianMoments:
    """Means over z ~ N(0, 1) at ``x = sqrt(q) z``, each of the shape of q.

    Attributes
    ----------
    phi, phi2 : ndarray or NumPy scalar
        ``E phi(x)`` and ``E phi(x)**2``.
    dphi, dphi2 : ndarray or NumPy scalar
        ``E phi'(x)`` and ``E phi'(x)**2``.
    d2phi2 : ndarray or NumPy scalar
        ``E phi''(x)**2``; infinite for an activation with kinks.
    """

    phi: np.ndarray
    phi2: np.ndarray
    dphi: np.ndarray
    dphi2: np.ndarray
    d2phi2: np.ndarray


def gaussian_moments(activation, q, *, n_threads=None, check_finite=True):
    """Moments of an activation and of its derivatives under a Gaussian input.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    q : array_like of any shape
        Variance of the input, >= 0.
    n_threads : int, optional
        Threads over the items; None takes the smaller of OpenMP's limit and the CPU quota.
    check_finite : bool
        Raise for NaN and infinity in `q`.  False lets NaN give NaN and infinity the limit (NaN for
        an activation without a kernel, whose limit is not known).

    Returns
    -------
    GaussianMoments
        Arrays of the shape of `q`, NumPy scalars for a scalar.  float32 if `q` is float32 or
        float16, computed in float64 and rounded once; else float64.

    Raises
    ------
    ValueError
        If an entry of `q` is negative or not finite, naming it; if the activation is unknown, or
        not finite at a node of the quadrature.
    TypeError
        If an argument has the wrong type.

    Warns
    -----
    JacometryWarning
        If the quadrature of an activation without a kernel did not settle to 1e-11.

    Notes
    -----
    At ``q = 0`` the input is 0: the results are ``phi(0)``, ``phi(0)**2``, ``phi'(0)``,
    ``phi'(0)**2`` and ``phi''(0)**2``, with the stated slope at a kink, and ``d2phi2`` infinite if
    the kink is at 0.

    Identity, (leaky) ReLU, erf and GELU have closed forms (Williams, Computing with infinite
    networks, 1997; Cho and Saul, Kernel methods for deep learning, 2009; Stein's lemma), with a
    relative error below ``10 u``.  tanh and sigmoid use the trapezoidal rule (Trefethen and
    Weideman, The exponentially convergent trapezoidal rule, 2014), with a relative error below
    2e-14, for ``d2phi2`` below 1e-13, at every q from 1e-300 to 1e300.  Their cost is about 40 ns
    an item, that of the others 20 ns.

    Any other activation is integrated in NumPy, by 16-point Gauss-Legendre panels over at least 16
    standard deviations, split at its kinks.  A panel is no wider than half a standard deviation,
    nor than 1/2 or, farther out, ``|x| / 4``; all are halved until the means agree to 1e-11 of ``E
    |f|``, five times at most.  A slope found by differences (see `jacometry.activations.get`)
    limits the accuracy to about 1e-10, for ``d2phi2`` to 1e-8.  It takes about 10^4 calls of the
    activation for every factor of 4 that `q` spans, and memory for 2^21 float64 beyond inputs and
    outputs.

    Examples
    --------
    >>> from jacometry.ops.moments import gaussian_moments
    >>> moments = gaussian_moments("tanh", [1.0, 25.0])
    >>> moments.phi2.round(12)
    array([0.39429449, 0.84296176])
    >>> float(gaussian_moments("relu", 3.0).phi2)
    1.5
    """
    activation = activations.get(activation)
    q = as_array("q", q)
    n_threads = _threads.resolve(n_threads)
    dtype = common_dtype(q)
    _check_not_negative("q", q, check_finite)
    flat = contiguous(q, dtype).reshape(-1)

    moments = np.empty((5, flat.size), dtype)

    if _backend.is_reference():
        reference = _backend.reference("moments")
        phi, dphi, d2phi, kinks = _reference_functions(activation)
        for i, item in enumerate(flat):
            moments[:, i] = reference.gaussian_moments(phi, dphi, d2phi, kinks, float(item))
    elif activation.kernel_id is None:
        moments[:] = _quadrature(activation, _MOMENTS, flat)
    elif flat.size:
        _kernels.gaussian_moments(
            int(dtype == np.float64), activation.kernel_id, activation.parameters, flat,
            list(moments), n_threads,
        )  # fmt: skip

    return GaussianMoments(*(moment.reshape(q.shape)[()] for moment in moments))


def variance_map(activation, q, *, sigma_w, sigma_b=0.0, n_threads=None, check_finite=True):
    """Variance after one wide random layer: ``sigma_w**2 E phi(sqrt(q) z)**2 + sigma_b**2``.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    q : array_like
        Variance of the pre-activations, >= 0.
    sigma_w, sigma_b : array_like
        Standard deviations, >= 0: ``Var(W_ij) = sigma_w**2 / fan_in``, ``Var(b) = sigma_b**2``.
        All three broadcast.
    n_threads : int, optional
        As in `gaussian_moments`.
    check_finite : bool
        As in `gaussian_moments`, for all three.

    Returns
    -------
    ndarray or NumPy scalar
        Variance of the next layer's pre-activations, of the broadcast shape.  float32 if every
        array among the arguments that is floating is float32 or float16 (Python numbers do not
        count), computed in float64 and rounded once; else float64.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_moments`, for all three; also if the shapes do not broadcast.

    Warns
    -----
    JacometryWarning
        As in `gaussian_moments`.

    Notes
    -----
    The recursion of Poole et al., Exponential expressivity in deep neural networks through
    transient chaos (2016), equation 3.  Error and cost are those of ``phi2`` in `gaussian_moments`.
    An argument that is neither one number nor of the full shape is written out to it.

    Examples
    --------
    >>> from jacometry.ops.moments import variance_map
    >>> float(variance_map("relu", 2.0, sigma_w=2**0.5).round(12))
    2.0
    """
    activation = activations.get(activation)
    given = {"q": q, "sigma_w": sigma_w, "sigma_b": sigma_b}
    arrays = {name: as_array(name, value) for name, value in given.items()}
    n_threads = _threads.resolve(n_threads)
    dtype = common_dtype(
        *(arrays[name] for name, value in given.items() if type(value) not in (int, float, bool))
    )
    shape = _broadcast_shape(arrays)
    for name, array in arrays.items():
        _check_not_negative(name, array, check_finite)
    # One number stays one number: the kernel reads it with stride 0.
    q, sigma_w, sigma_b = (
        contiguous(a if a.size == 1 else np.broadcast_to(a, shape), dtype).reshape(-1)
        for a in arrays.values()
    )

    out = np.empty(math.prod(shape), dtype)

    if _backend.is_reference():
        reference = _backend.reference("moments")
        phi, _, _, kinks = _reference_functions(activation)
        for i, items in enumerate(np.broadcast(q, sigma_w, sigma_b) if out.size else ()):
            out[i] = reference.variance_map(phi, kinks, *map(float, items))
    elif activation.kernel_id is None:
        phi2 = _quadrature(activation, _MOMENTS[1:2], q)[0]
        sigma_w, sigma_b = sigma_w.astype(np.float64), sigma_b.astype(np.float64)
        out[:] = sigma_w * phi2 * sigma_w + sigma_b * sigma_b
    elif out.size:
        _kernels.variance_map(
            int(dtype == np.float64), activation.kernel_id, activation.parameters,
            q, sigma_w, sigma_b, out, n_threads,
        )  # fmt: skip

    return out.reshape(shape)[()]


def _check_not_negative(name, array, check_finite):
    if not array.size:
        return
    low, high = (array.item(),) * 2 if array.size == 1 else (array.min(), array.max())
    if low >= 0 and high < math.inf:  # neither is true of a NaN, which min and max hand on
        return
    if check_finite:
        finite_scan(name, array)
    negative = array < 0
    if negative.any():
        index = tuple(int(i) for i in np.argwhere(negative)[0])
        where = f" at index {index}" if index else ""
        raise ValueError(f"{name} must be >= 0, got {array[index]}{where}")


def _broadcast_shape(arrays):
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{', '.join(arrays)} must broadcast together, got shapes {shapes}"
        ) from None


def _reference_functions(activation):
    """phi, dphi, d2phi on floats and the kinks, as the oracles take them."""
    if activation.kernel_id is not None:
        known = _backend.reference("activation").ACTIVATIONS
        return known[activation.kernel_id](*activation.parameters)
    return activation.value, activation.slope, activation.curvature, activation.kinks


def _quadrature(activation, moments, q):
    """Means (moments, n); each moment is a pair (derivative, power)."""
    q = q.astype(np.float64)
    means = np.full((len(moments), q.size), np.nan)
    at_zero = q == 0
    means[:, at_zero] = _powers(activation, moments, np.zeros(1))
    is_usable = np.isfinite(q) & (q > 0)
    smooth = [m for m in moments if m[0] < 2 or not activation.kinks]
    if len(smooth) < len(moments):
        means[-1, is_usable] = math.inf
        if 0.0 in activation.kinks:
            means[-1, at_zero] = math.inf
    usable = np.flatnonzero(is_usable)
    roots = np.sqrt(q[usable])
    # Items whose roots lie within a factor of 2 share nodes, so the activation is called once.
    octaves = np.frexp(roots)[1]
    for octave in np.unique(octaves):
        items = octaves == octave
        means[: len(smooth), usable[items]] = _settled_means(
            activation, smooth, roots[items], math.ldexp(0.5, int(octave))
        )
    return means


def _settled_means(activation, moments, roots, low_root):
    """Means for roots in [low_root, 2 low_root), panels halved until they agree."""
    # Differences of a slope are too noisy to settle.
    tested = [order < 2 or activation.d2phi is not None for order, _ in moments]
    means, _ = _panel_means(activation, moments, roots, low_root, 0)
    for refinement in range(1, _MAX_REFINEMENTS + 1):
        before = means
        means, sizes = _panel_means(activation, moments, roots, low_root, refinement)
        change = np.abs(means - before)[tested]
        if (change <= _SETTLED * sizes[tested]).all():
            return means
    worst = np.max(change / sizes[tested])
    warnings.warn(
        f"the moments of activation {activation.name!r} settled to {worst:.0e} only, not to "
        f"{_SETTLED:.0e}, near q = {low_root**2:.3g}; declare its kinks in an Activation",
        JacometryWarning,
        stacklevel=4,
    )
    return means


def _powers(activation, moments, x):
    """The powers of the derivatives at x: (moments, len(x))."""
    derivatives = {}
    for order in sorted({order for order, _ in moments}):
        name = ("phi", "dphi", "d2phi")[order]
        derivative = (activation.value, activation.slope, activation.curvature)[order]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            derivatives[order] = derivative(x)
        is_bad = ~np.isfinite(derivatives[order])
        if is_bad.any():
            raise ValueError(
                f"{name} of activation {activation.name!r} must be finite at the nodes of the "
                f"quadrature, got {derivatives[order][is_bad][0]} at x = {x[is_bad][0]:.6g}"
            )
    with np.errstate(over="ignore", under="ignore"):
        return np.stack([derivatives[order] ** power for order, power in moments])


def _panel_means(activation, moments, roots, low_root, refinement):
    """E f and E |f| for each moment's f and each root: two arrays (moments, roots)."""
    x, weights = _nodes(low_root, activation.kinks, refinement)
    values = _powers(activation, moments, x)
    both = np.concatenate([values, np.abs(values)])
    means = np.empty((len(both), roots.size))
    n_at_once = max(1, _BLOCK // x.size)
    for first in range(0, roots.size, n_at_once):
        root = roots[first : first + n_at_once, None]
        density = np.exp(-0.5 * (x / root) ** 2) * weights / (math.sqrt(2 * math.pi) * root)
        means[:, first : first + n_at_once] = both @ density.T
    return np.split(means, 2)


def _nodes(low_root, kinks, refinement):
    """Gauss-Legendre nodes and weights on panels for every root in [low_root, 2 low_root)."""
    end = 2 * low_root * _REACH
    positive = [0.0]
    while positive[-1] < end:
        positive.append(positive[-1] + min(0.5 * low_root, max(0.5, 0.25 * positive[-1])))
    positive[-1] = end
    inside = [kink for kink in kinks if abs(kink) < end]
    edges = np.unique(np.concatenate([np.negative(positive), positive, inside]))
    parts = 2**refinement
    starts, widths = edges[:-1, None], np.diff(edges)[:, None] / parts
    starts = (starts + widths * np.arange(parts)).reshape(-1, 1)
    halves = np.repeat(widths / 2, parts, axis=0)
    z, w = np.polynomial.legendre.leggauss(_N_NODES)
    return (starts + halves * (1 + z)).ravel(), (halves * w).ravel()
