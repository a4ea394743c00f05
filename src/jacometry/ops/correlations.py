"""Two-point Gaussian means of an activation, and the correlation map of a wide random layer."""

import math

import numpy as np

from .. import _threads, activations
from .._validate import as_array, broadcast_shape, dtype_of, finite_scan, refuse
from . import _correlation_closed, _correlation_rule, _correlation_table
from .moments import gaussian_moments

# How far beyond its interval a correlation may lie by rounding, in units of its dtype's epsilon.
_SLACK = 16


def dual_activation(
    activation, c, q1, q2=None, *, derivative=0, complement=False, n_threads=None, check_finite=True
):
    """Mean of a product of activations, or of their derivatives, at two correlated inputs.

    ``E phi(u1) phi(u2)`` for centred Gaussian u1, u2 of variances q1, q2 and correlation c.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    c : array_like
        Correlation, in [-1, 1]; ``1 - c``, in [0, 2], with `complement`.
    q1, q2 : array_like
        Variances, >= 0; None takes `q1` for both.  All broadcast.
    derivative : {0, 1, 2}
        0: of phi; 1: of phi' on both sides; 2: of phi''.
    complement : bool
        Whether `c` holds ``1 - c``, which near 1 has more digits.
    n_threads : int, optional
        Threads over the items; None takes the smaller of OpenMP's limit and the CPU quota.
    check_finite : bool
        Raise for NaN and infinity.  False gives NaN for NaN, and for infinite q.

    Returns
    -------
    ndarray or NumPy scalar
        Of the broadcast shape.  float32 if every array among the arguments that is floating is
        float32 or float16 (Python numbers do not count), computed in float64 and rounded once; else
        float64.

    Raises
    ------
    ValueError
        If |c| exceeds 1 by more than rounding, a variance is negative, something is not finite,
        naming it; if shapes do not broadcast; if the activation is not finite at a node of the
        quadrature.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    The dual activation of Daniely, Frostig and Singer, Toward deeper understanding of neural
    networks (2016).  Its derivative in c is ``sqrt(q1 q2)`` times the same of phi' (Price 1958), so
    that the slope of the correlation map at c = 1 is ``chi_1 = sigma_w**2 dual_activation(.., 1, q,
    derivative=1)``.  In ``derivative=2`` a kink counts as a delta function: infinite at c = 1.

    The error is below 1e-12 of ``E phi(u)**2`` (or of the derivative's) for q from 1e-12 to 1e4 for
    an activation with an exact slope; one found by differences limits it to about 1e-10.

    Where ``q1 == q2`` and derivative is 0 or 1, the values come from a table that is built patch by
    patch where it is asked for, 50 ms each and about 20 for a phase diagram, kept for the 64
    activations used last; then about 0.2 us an item.  Elsewhere each item is integrated on its own,
    5 ms each, but for identity, (leaky) ReLU and erf, which have closed forms.

    Examples
    --------
    >>> from jacometry.ops.correlations import dual_activation
    >>> float(dual_activation("relu", 0.5, 2.0).round(12))
    0.608997781044
    >>> float(dual_activation("tanh", 0.0, 1.0, 4.0, derivative=1).round(9))
    0.22092428
    """
    if isinstance(derivative, bool) or derivative not in (0, 1, 2):
        raise ValueError(f"derivative must be 0, 1 or 2, got {derivative!r}")
    activation = activations.get(activation)
    n_threads = _threads.resolve(n_threads)
    given = {"c": c, "q1": q1} if q2 is None else {"c": c, "q1": q1, "q2": q2}
    (near, gap, q1, *rest), dtype, shape = _arguments(given, complement, check_finite)

    out = _dual(activation, derivative, q1, rest[0] if rest else q1, near, gap, n_threads)

    return out.reshape(shape).astype(dtype, copy=False)[()]


def decorrelation(activation, complement, q, *, n_threads=None, check_finite=True):
    """How far the activation pulls two inputs apart: ``E (phi(u1) - phi(u2))**2 / (2 e)``.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    complement : array_like
        ``e = 1 - c``, in [0, 2], of the correlation c of u1 and u2.
    q : array_like
        Variance of both, >= 0.  They broadcast.
    n_threads, check_finite : optional
        As in `dual_activation`.

    Returns
    -------
    ndarray or NumPy scalar
        ``D(q, e) = (E phi(u)**2 - E phi(u1) phi(u2)) / e``, of the broadcast shape; dtype as in
        `dual_activation`.

    Raises
    ------
    ValueError, TypeError
        As in `dual_activation`.

    Notes
    -----
    At e = 0 it is ``q E phi'(u)**2``.  The fixed point of the correlation map at the fixed point q*
    of the variance is the root of ``sigma_w**2 D(q*, e) = q*``.  D falls with e on [0, 1].  Nothing
    cancels: the relative error is below 1e-12 for every e down to 1e-300 (at e near 2, relative to
    its value at e = 0).  Cost as in `dual_activation`.

    Examples
    --------
    >>> from jacometry.ops.correlations import decorrelation
    >>> decorrelation("relu", [0.0, 1e-20, 2.0], 1.0)
    array([0.5 , 0.5 , 0.25])
    """
    activation = activations.get(activation)
    n_threads = _threads.resolve(n_threads)
    given = {"complement": complement, "q": q}
    (near, _, q), dtype, shape = _arguments(given, True, check_finite)

    out = q * _same_variance(activation, q, near, True, n_threads)

    return out.reshape(shape).astype(dtype, copy=False)[()]


def correlation_map(
    activation,
    c,
    q1,
    q2=None,
    *,
    sigma_w,
    sigma_b=0.0,
    complement=False,
    n_threads=None,
    check_finite=True,
):
    """Correlation of two inputs after one wide random layer.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.
    c : array_like
        Correlation of the pre-activations, in [-1, 1]; ``1 - c``, in [0, 2], with `complement`.
    q1, q2 : array_like
        Their variances, >= 0; None takes `q1` for both.
    sigma_w, sigma_b : array_like
        Standard deviations, >= 0: ``Var(W_ij) = sigma_w**2 / fan_in``, ``Var(b) = sigma_b**2``.
        All broadcast.
    complement : bool
        Take and return ``1 - c`` instead of c.
    n_threads, check_finite : optional
        As in `dual_activation`, for all.

    Returns
    -------
    ndarray or NumPy scalar
        ``(sigma_w**2 E phi(u1) phi(u2) + sigma_b**2) / sqrt(V(q1) V(q2))``, V the variance map;
        1 where V is zero, which makes the two outputs the same.  dtype as in `dual_activation`.

    Raises
    ------
    ValueError, TypeError
        As in `dual_activation`, for all.

    Notes
    -----
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016),
    equation 5.  The error is below 1e-12.  With `complement` nothing cancels where ``q1 == q2``,
    and the *relative* error is below 1e-12 for ``1 - c`` down to 1e-300, which iterating on 1 - c
    keeps; for other variances it is below ``1e-12 + 1e-14 / sqrt(result)``.  Cost as in
    `dual_activation`, with ``1 - c`` at unequal variances 10 ms an item.

    Examples
    --------
    >>> from jacometry.ops.correlations import correlation_map
    >>> correlation_map("relu", [0.0, 0.5, 0.9], 1.0, sigma_w=2**0.5)
    array([0.31830989, 0.60899778, 0.9095384 ])
    """
    activation = activations.get(activation)
    n_threads = _threads.resolve(n_threads)
    given = {"c": c, "q1": q1, "sigma_w": sigma_w, "sigma_b": sigma_b}
    if q2 is not None:
        given["q2"] = q2
    (near, gap, q1, w, b, *rest), dtype, shape = _arguments(given, complement, check_finite)

    q2 = rest[0] if rest else q1
    w2, b2 = w * w, b * b
    v1 = w2 * _second_moment(activation, q1, n_threads) + b2
    v2 = v1 if q2 is q1 else w2 * _second_moment(activation, q2, n_threads) + b2
    same = q1 == q2
    out = np.full(q1.size, np.nan)
    is_zero = (v1 == 0) | (v2 == 0)
    out[is_zero & np.isfinite(gap)] = 0.0
    todo = np.flatnonzero(same & ~is_zero)
    spread = _same_variance(activation, q1[todo], near[todo], True, n_threads)
    out[todo] = w2[todo] * (q1[todo] / v1[todo]) * spread * gap[todo]
    others = np.flatnonzero(~same & ~is_zero & np.isfinite(q1 + q2 + near + w2 + b2))
    if complement:
        for i in others:
            roots = 1 / math.sqrt(v1[i]), 1 / math.sqrt(v2[i])
            distance = _correlation_rule.two_point_distance(
                activation, q1[i], q2[i], near[i], roots
            )
            out[i] = 0.5 * (w2[i] * distance + b2[i] * (roots[0] - roots[1]) ** 2)
    else:
        dual = _dual(activation, 0, q1[others], q2[others], near[others], gap[others], n_threads)
        root = np.sqrt(v1[others]) * np.sqrt(v2[others])
        out[others] = 1 - (w2[others] * dual + b2[others]) / root
    out = out if complement else 1 - out

    return out.reshape(shape).astype(dtype, copy=False)[()]


def _arguments(given, complement, check_finite):
    """The arguments, the correlation first, as flat float64 arrays, and the result's dtype, shape.

    Of the correlation c there are two: ``1 - |c|`` with the sign of c, and ``1 - c``.
    """
    arrays = {name: as_array(name, value) for name, value in given.items()}
    dtype, shape = dtype_of(given, arrays), broadcast_shape(arrays)
    (name, correlation), *others = arrays.items()
    if check_finite:
        for argument, array in arrays.items():
            finite_scan(argument, array)
    slack = _SLACK * float(
        np.finfo(correlation.dtype if correlation.dtype.kind == "f" else float).eps
    )
    low, high = (0, 2) if complement else (-1, 1)
    outside = (correlation < low - slack) | (correlation > high + slack)
    refuse(name, correlation, outside, f"lie in [{low}, {high}]")
    for argument, array in others:
        refuse(argument, array, array < 0, "be >= 0")
    c = np.clip(correlation.astype(np.float64), low, high)
    # 1 - |c| may be zero at either end: the sign says which.
    if complement:
        gap, is_negative, distance = c, c > 1, np.where(c > 1, 2 - c, c)
    else:
        gap, is_negative, distance = 1 - c, c < 0, 1 - np.abs(c)
    near = np.copysign(distance, np.where(is_negative, -1.0, 1.0))
    wide = [near, gap, *(array for _, array in others)]
    flat = [np.broadcast_to(array, shape).astype(np.float64).reshape(-1) for array in wide]
    if not check_finite:
        for array in flat:
            array[np.isinf(array)] = np.nan  # the limit is not known
    return flat, dtype, shape


def _second_moment(activation, q, n_threads):
    return gaussian_moments(activation, q, n_threads=n_threads, check_finite=False).phi2


def _same_variance(activation, q, near, is_spread, n_threads):
    """``E phi'(u1) phi'(u2)``, or the decorrelation over q, at equal variances."""
    closed = _correlation_closed.same_variance(activation, q, near, is_spread)
    if closed is not None:
        return closed
    out = np.full(q.size, np.nan)
    is_usable = np.isfinite(q) & np.isfinite(near)
    usable = np.flatnonzero(is_usable & (q <= _correlation_table.HIGH_Q))
    table = _correlation_table.table_of(activation)
    out[usable] = table.evaluate(q[usable], near[usable], is_spread, n_threads)
    for i in np.flatnonzero(is_usable & (q > _correlation_table.HIGH_Q)):
        item = float(q[i]), float(q[i]), float(near[i])
        gap = 2 + item[2] if math.copysign(1, item[2]) < 0 else item[2]
        if is_spread and gap > 0:
            scale = 1 / math.sqrt(item[0])
            out[i] = _correlation_rule.two_point_distance(activation, *item, (scale, scale))
            out[i] /= 2 * gap
        else:
            out[i] = _correlation_rule.two_point_mean(activation, 1, *item)
    if not is_spread:
        out[q == 0] = activation.slope(0.0) ** 2
    return out


def _dual(activation, derivative, q1, q2, near, gap, n_threads):
    """``E f(u1) f(u2)`` of the derivative f of that order."""
    closed = _correlation_closed.dual(activation, derivative, q1, q2, near)
    if closed is not None:
        return closed
    out = np.full(q1.size, np.nan)
    usable = np.isfinite(q1) & np.isfinite(q2) & np.isfinite(near)
    same = usable & (q1 == q2) & (derivative < 2)
    if derivative == 1:
        out[same] = _same_variance(activation, q1[same], near[same], False, n_threads)
    elif derivative == 0:
        q = q1[same]
        spread = _same_variance(activation, q, near[same], True, n_threads)
        out[same] = _second_moment(activation, q, n_threads) - q * gap[same] * spread
    for i in np.flatnonzero(usable & ~same):
        item = float(q1[i]), float(q2[i]), float(near[i])
        if derivative == 2:
            out[i] = _correlation_rule.curvature_mean(activation, *item)
        else:
            out[i] = _correlation_rule.two_point_mean(activation, derivative, *item)
    return out
