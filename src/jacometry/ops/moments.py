"""Moments of an activation under a Gaussian input, and the variance map of a wide random layer."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from .. import _backend, _kernels, _threads, activations
from .._status import JacometryWarning
from .._validate import (
    as_array,
    broadcast_shape,
    common_dtype,
    contiguous,
    dtype_of,
    finite_scan,
    refuse,
)
from . import _moment_tables

# The number of enum jm_activation_id in types.h.
_TABULATED = 6


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
        ``E phi''(x)**2``; infinite where the slope jumps at a kink.
    phi2_slope : ndarray or NumPy scalar
        ``d E phi(x)**2 / dq``, which is ``E[x phi(x) phi'(x)] / q``; at ``q = 0`` its limit.
    """

    phi: np.ndarray
    phi2: np.ndarray
    dphi: np.ndarray
    dphi2: np.ndarray
    d2phi2: np.ndarray
    phi2_slope: np.ndarray


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
        Raise for NaN and infinity in `q`.  False lets NaN give NaN and infinity the limit, which is
        NaN where the values of the activation at both ends do not say what it is.

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
        If the quadrature of an activation without a closed form did not settle to 1e-11.

    Notes
    -----
    At ``q = 0`` the input is 0: the first five are ``phi(0)``, ``phi(0)**2``, ``phi'(0)``,
    ``phi'(0)**2`` and ``phi''(0)**2``, with the stated slope at a kink.  ``d2phi2`` is infinite if
    the slope jumps at a kink, at ``q = 0`` if it does so at 0.

    Identity, the ReLU family, erf, GELU, sin and the square have closed forms (Williams, Computing
    with infinite networks, 1997; Cho and Saul, Kernel methods for deep learning, 2009; Stein's
    lemma), with a relative error below ``10 u``, in about 20 ns an item.

    For any other activation each quarter of an octave of `q` has a polynomial of degree 15 per
    moment, made when first asked for and kept with the `Activation` (a bare callable is integrated
    anew at each call: wrap it).  It interpolates a quadrature in NumPy: 16-point Gauss-Legendre
    panels over at least 16 standard deviations, split at the kinks, no wider than one standard
    deviation nor than 1 or, farther out, ``|x| / 2``; all are halved, six times at most, until the
    means change by less than 1e-12 of ``E |f|``, f being what the mean is of.  The error is below
    100 u of ``E |f|`` and what rounding in the activation leaves, at every `q` from 1e-300 to
    1e300.  A slope found by differences (see `jacometry.activations.get`) limits the accuracy to
    about 1e-10, for ``d2phi2`` to 1e-8.  An octave costs about 2000 values of the activation, 3 ms
    and 3 KB once, an item then 40 ns; where no polynomial does, and at subnormal `q`, an item costs
    20 us and every octave 3 ms at each call.  An item depends on no other.

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

    moments = np.empty((6, flat.size), dtype)

    if _backend.is_reference():
        reference = _backend.reference("moments")
        phi, dphi, d2phi, kinks = _reference_functions(activation)
        for i, item in enumerate(flat):
            moments[:, i] = reference.gaussian_moments(phi, dphi, d2phi, kinks, float(item))
    elif activation.kernel_id is None:
        items, values, complaint = _moment_tables.fill(
            activation,
            flat,
            lambda table: _kernels.gaussian_moments(
                int(dtype == np.float64), _TABULATED, (), table, flat, list(moments), n_threads
            ),
        )
        with np.errstate(over="ignore", under="ignore"):
            moments[:, items] = values
        _warn(complaint)
    elif flat.size:
        _kernels.gaussian_moments(
            int(dtype == np.float64), activation.kernel_id, activation.parameters, None, flat,
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
    dtype = dtype_of(given, arrays)
    shape = broadcast_shape(arrays)
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
        items, values, complaint = _moment_tables.fill(
            activation,
            q,
            lambda table: _kernels.variance_map(
                int(dtype == np.float64), _TABULATED, (), table, q, sigma_w, sigma_b, out, n_threads
            ),
        )
        if items.size:
            where = items if q.size > 1 else slice(None)
            w, b = ((a if a.size == 1 else a[where]).astype(np.float64) for a in (sigma_w, sigma_b))
            out[where] = w * values[1] * w + b * b
        _warn(complaint)
    elif out.size:
        _kernels.variance_map(
            int(dtype == np.float64), activation.kernel_id, activation.parameters, None,
            q, sigma_w, sigma_b, out, n_threads,
        )  # fmt: skip

    return out.reshape(shape)[()]


def _warn(complaint):
    if complaint is not None:
        warnings.warn(complaint, JacometryWarning, stacklevel=3)


def _check_not_negative(name, array, check_finite):
    if not array.size:
        return
    low, high = (array.item(),) * 2 if array.size == 1 else (array.min(), array.max())
    if low >= 0 and high < math.inf:  # neither is true of a NaN, which min and max hand on
        return
    if check_finite:
        finite_scan(name, array)
    refuse(name, array, array < 0, "be >= 0")


def _reference_functions(activation):
    """phi, dphi, d2phi on floats and the kinks, as the oracles take them."""
    if activation.is_built_in:
        known = _backend.reference("activation").BY_NAME
        return known[activation.name](*activation.parameters)
    return activation.value, activation.slope, activation.curvature, activation.kinks
