"""Norms of a chain's products without the products: from random probes, and from its factors."""

from dataclasses import dataclass

import numpy as np

from .._validate import count, real_scalar
from ..factors import Chain
from ._chain_arrays import SIDES, read_chain
from ._chain_factors import add_scaled
from .chain import chain_vjp
from .scaled import ScaledArray, _scaled_log

__all__ = ["ChainNormBounds", "ChainNormProfile", "chain_norm_bounds", "chain_norm_profile"]


@dataclass(frozen=True, slots=True)
class ChainNormProfile:
    """Estimated log Frobenius norms of ``J_{l:L}``, from interface l to the output.

    Attributes
    ----------
    values : ndarray of float64, shape (L + 1,) or (B, L + 1)
        Log of the estimate, whose square is unbiased; exact at the output, where J is the identity.
    lower, upper : ndarray of float64
        Ends of the confidence intervals, of the same shape.
    confidence : float
        What each interval holds with, alone, whatever the singular values.
    n_probes : int
        Gaussian vectors behind each value.
    """

    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    confidence: float
    n_probes: int


@dataclass(frozen=True, slots=True)
class ChainNormBounds:
    """Bounds on the log 2-norm of a chain's product.

    Attributes
    ----------
    lower, upper : float or ndarray of float64, shape (B,)
        ``lower <= log ||J||_2 <= upper``; ``lower`` is -inf where the factors say nothing.
    """

    lower: np.ndarray
    upper: np.ndarray


def chain_norm_profile(
    chain,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    n_probes=8,
    confidence=0.95,
    rng=None,
    n_threads=None,
):
    """Log Frobenius norm of the Jacobian from every interface to the output.

    ``||J_{l:L}||_F^2 = E ||J_{l:L}^T g||^2`` for a standard Gaussian g, so that one pull of a few
    Gaussian cotangents through the chain estimates the norm at every depth.

    Parameters
    ----------
    chain : Chain, array_like or sequence of array_like
        As `weights` of `chain_product`.  Where a factor couples the samples, the norm is that of
        the whole batch's Jacobian.
    slopes, slope_side, shortcut
        As in `chain_product`.
    n_probes : int
        Gaussian cotangents per sample, r.
    confidence : float
        In [0.6, 1): of each interval.
    rng : numpy.random.Generator, int or None, optional
        SPEC 7; probes are drawn in one call, ``(B, r, n_L)``.
    n_threads : int, optional
        As in `chain_product`.

    Returns
    -------
    ChainNormProfile

    Raises
    ------
    ValueError, TypeError
        As `chain_vjp`; and where `n_probes` or `confidence` is out of range.

    Notes
    -----
    Cost: r vectors of `chain_vjp`, ``2 r sum_k n_{k+1} n_k`` flops per sample.

    With ``w_j`` the squared singular values over their sum, the square of the estimate over the
    truth is ``R = sum_j w_j Q_j / r`` with independent ``Q_j ~ chi^2_r``.  For a J of rank one this
    is ``chi^2_r / r``, and the intervals take its quantiles: there they hold with `confidence`
    exactly, half of the misses on each side.  Other spectra concentrate ``R`` more, and tails this
    far out are largest at rank one: Szekely and Bakirov, Extremal probabilities for Gaussian
    quadratic forms (2003), for the upper tail beyond 1.5364 (r = 1; hence 0.6 as the least
    `confidence`), Roosta-Khorasani, Szekely and Ascher, Assessing stochastic algorithms (2015), for
    sums of gamma variables.  The intervals of one profile share probes: they hold one by one, not
    all together.  Rounding (see `chain_vjp`) is not in them.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_norm_profile
    >>> profile = chain_norm_profile(np.full((3, 1, 1), 0.5), rng=0)
    >>> bool((profile.lower <= np.log([0.125, 0.25, 0.5, 1])).all())
    True
    >>> profile.values[3].item()
    0.0
    """
    n_probes = count("n_probes", n_probes, low=1)
    confidence = real_scalar("confidence", confidence, low=0.6, high=1.0, open_high=True)
    rng = np.random.default_rng(rng)
    is_joint = False
    if isinstance(chain, Chain):
        n_samples, n_out, dtype = chain.n_samples, chain.shape[0], chain.dtype
        is_joint = chain.couples_samples
    else:
        arrays = read_chain(chain, slopes, slope_side, shortcut)
        n_samples, n_out, dtype = arrays.n_samples, arrays.n_out, arrays.dtype

    batch = () if n_samples is None else (n_samples,)
    probes = rng.standard_normal((*batch, n_probes, n_out)).astype(dtype)
    log_norms = chain_vjp(
        chain, probes, slopes=slopes, slope_side=slope_side, shortcut=shortcut, n_threads=n_threads
    ).log_norms
    axes = (0, 1) if is_joint else (-2,)
    largest = log_norms.max(axis=axes, keepdims=True, initial=-np.inf)
    unit = np.where(np.isneginf(largest), 0.0, largest)
    squares = np.exp(2 * (log_norms - unit)).sum(axis=axes) / n_probes
    with np.errstate(divide="ignore"):
        values = np.log(squares) / 2 + unit.reshape(squares.shape)
        low, high = _chi_square_ends(n_probes, confidence)
        lower, upper = values - np.log(high) / 2, values - np.log(low) / 2
        exact = np.log(n_out * (n_samples if is_joint else 1)) / 2
    for ends in (values, lower, upper):
        ends[..., -1] = exact
    return ChainNormProfile(values, lower, upper, confidence, n_probes)


def _chi_square_ends(n_probes, confidence):
    """Quantiles of chi^2_r / r that leave half of what `confidence` leaves in each tail."""
    from scipy.special import gammainccinv, gammaincinv

    tail, shape = (1 - confidence) / 2, n_probes / 2
    return gammaincinv(shape, tail) / shape, gammainccinv(shape, tail) / shape


def chain_norm_bounds(weights, *, slopes=None, slope_side="output", shortcut=0.0):
    """Two-sided bounds on the 2-norm of a chain's product, from its factors alone.

    ``log ||J|| <= sum_k log smax(F_k)``, and for every k
    ``log ||J|| >= sum_{j > k} log inj(F_j) + log smax(F_k) + sum_{j < k} log sur(F_j)``, where
    ``inj(F)`` is the smallest singular value of a factor of full column rank and ``sur(F)`` that of
    one of full row rank, 0 otherwise.  For square factors this is ``||A B|| >= ||A|| / ||B^-1||``.

    Parameters
    ----------
    weights, slopes, slope_side, shortcut
        The chain, as in `chain_product`.

    Returns
    -------
    ChainNormBounds
        The largest of the lower bounds over k.

    Raises
    ------
    ValueError, TypeError
        As `chain_product`; a factor that is not finite is named.

    Notes
    -----
    Cost: one singular value decomposition per distinct factor and sample, of repeated ones once.
    The bounds hold for the numbers given, rounding included, whatever the decomposition returned:
    from ``F = U S V^T + R``, singular value i of F lies within ``||R||_F`` of that of ``U S V^T``
    (Weyl), which is ``S_i`` to a factor of ``1 +- max(||U^T U - I||_F, ||V^T V - I||_F)``
    (Ostrowski); these norms are computed, and widened by a bound on the rounding of computing them
    and of forming F from weights, slopes and shortcut.  Logarithms and their sums count as rounded
    to 2 units in the last place.  All this takes about ``n^2 u`` of the largest singular value: a
    smallest one below that is taken for zero.

    In a chain of layers the gap between the two grows with the depth; `chain_product` and its
    ``log_norm`` cost as much and give the norm itself: the bounds say what could be known
    beforehand.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_norm_bounds
    >>> bounds = chain_norm_bounds([np.diag([3.0, 0.5]), np.diag([2.0, 4.0])])
    >>> np.exp([bounds.lower, bounds.upper]).round(12)
    array([ 6., 12.])
    >>> chain_norm_bounds([[[1.0], [0.0]], [[0.0, 1.0]]]).lower  # J2 J1 = 0
    np.float64(-inf)
    """
    chain = read_chain(weights, slopes, slope_side, shortcut)
    batch = () if chain.n_samples is None else (chain.n_samples,)
    if chain.has_empty_width:
        empty = np.full(batch, -np.inf)[()]
        return ChainNormBounds(empty, empty)
    n_layers = chain.n_layers
    n_distinct = min(n_layers, len(chain.layers)) if chain.layers is not None else n_layers
    logs = np.zeros((4, *batch, n_distinct))
    for k in range(n_distinct):
        logs[..., k] = _log_extremes(chain, k, batch)
    logs = np.tile(logs, n_layers // n_distinct if n_distinct else 1)
    top_low, top, injective, surjective = logs
    zero = np.zeros((*batch, 1))
    before = np.concatenate([zero, np.cumsum(surjective, axis=-1)], axis=-1)[..., :-1]
    after = np.concatenate([np.cumsum(injective[..., ::-1], axis=-1)[..., ::-1], zero], axis=-1)
    sizes = np.abs(np.where(np.isfinite(logs), logs, 0.0)).max(axis=0).sum(axis=-1)
    slack = 2 * n_layers * np.finfo(float).eps * (sizes + 2)
    initial = 0.0 if not n_layers else -np.inf
    lower = (before + top_low + after[..., 1:]).max(axis=-1, initial=initial) - slack
    return ChainNormBounds(lower, top.sum(axis=-1) + slack)


def _log_extremes(chain, k, batch):
    """Logs of layer k: smax from below and above, inj and sur from below; each of shape batch."""
    factor, error = _scaled_layer(chain, k)
    if not np.isfinite(factor.mantissa).all():
        bad = np.argwhere(~np.isfinite(factor.mantissa))[0]
        chain.raise_non_finite(int(bad[0]) if factor.exponent.ndim else 0, k)
    if factor.mantissa.ndim == factor.exponent.ndim + 1:  # diagonal
        rows = cols = factor.shape[-1]
        values = np.abs(factor.mantissa)
        largest, smallest, relative = values.max(axis=-1), values.min(axis=-1), 0.0
    else:
        rows, cols = factor.shape[-2:]
        values, relative, residual = _verified_svdvals(factor.mantissa)
        largest, smallest, error = values[..., 0], values[..., -1], error + residual
    down, up = 1 - 8 * _U, 1 + 8 * _U
    low = np.maximum(smallest * (1 - relative) - error, 0) * down
    bounds = [
        np.maximum(largest * (1 - relative) - error, 0) * down,
        (largest * (1 + relative) + error) * up,
        low if rows >= cols else np.zeros_like(low),
        low if rows <= cols else np.zeros_like(low),
    ]
    with np.errstate(divide="ignore"):
        logs = [_scaled_log(np.log(b), factor.exponent) for b in bounds]
    return [np.broadcast_to(log, batch) for log in logs]


_U = 2.0**-53
# Entries are below 1: whatever underflows in a product of them is less than this altogether.
_UNDERFLOW = 1e-280


def _verified_svdvals(a):
    """Approximate singular values, and their certain relative and absolute errors."""
    left, values, right = np.linalg.svd(a, full_matrices=False)
    rank = values.shape[-1]
    scaled = values[..., :, None] * right
    residual = np.linalg.norm(a - left @ scaled, axis=(-2, -1))
    # |fl(X Y) - X Y| <= n u |X| |Y| for sums of n terms in any order, and a norm of products is
    # below the product of Frobenius norms; 1.01 covers the second order and the norms' rounding.
    sizes = np.linalg.norm(left, axis=(-2, -1)) * np.linalg.norm(scaled, axis=(-2, -1))
    residual = 1.01 * (residual + (rank + 3) * _U * (sizes + np.linalg.norm(a, axis=(-2, -1))))
    relative = [
        1.01
        * (
            np.linalg.norm(x.mT @ x - np.eye(rank), axis=(-2, -1))
            + (x.shape[-2] + 2) * _U * np.linalg.norm(x, axis=(-2, -1)) ** 2
        )
        for x in (left, right.mT)
    ]
    return values, np.maximum(*relative), residual + _UNDERFLOW * a.any(axis=(-2, -1))


def _scaled_layer(chain, k):
    """Layer k in float64 for all samples, and a bound of its rounding in units of its exponent.

    Matrices, the bound in the Frobenius norm; or diagonals as vectors.
    """
    weights, slopes = (
        None if a is None else a[k] if isinstance(a, list) else a[..., k, *(slice(None),) * axes]
        for a, axes in ((chain.weights, 2), (chain.slopes, 1))
    )
    shortcut = chain.shortcut if isinstance(chain.shortcut, float) else float(chain.shortcut[k])
    item_ndim = 1 if weights is None else 2
    error = 0.0  # in units of the factor's exponent
    if weights is None:
        factor = ScaledArray.from_array(np.asarray(slopes, np.float64), 1)
    else:
        factor = ScaledArray.from_array(np.asarray(weights, np.float64))
        if slopes is not None:
            scale = ScaledArray.from_array(np.asarray(slopes, np.float64), 1)
            on_rows = SIDES[chain.slope_side] == "output"
            along = scale.mantissa[..., :, None] if on_rows else scale.mantissa[..., None, :]
            raw = factor.mantissa * along
            is_product = (factor.mantissa != 0) & (along != 0)
            underflows = is_product & (np.abs(raw) < np.finfo(float).tiny)
            product = ScaledArray.from_array(raw)
            exponent = product.exponent + factor.exponent + scale.exponent
            factor = ScaledArray(product.mantissa, exponent)
            # One rounding an entry, and 2^-1074 where it underflowed before it was scaled.
            lost = _at_exponent(underflows.sum(axis=(-2, -1)) * 2.0**-1074, -product.exponent)
            error = 1.01 * _U * np.linalg.norm(product.mantissa, axis=(-2, -1)) + lost
    if shortcut:
        n = factor.shape[-1]
        one = np.broadcast_to(np.eye(n) if item_ndim == 2 else np.ones(n), factor.shape)
        total = add_scaled(factor, ScaledArray.from_array(one, item_ndim), shortcut)
        # The sum is rounded at its own scale; what was lost before it is at that of the terms.
        top = np.maximum(factor.exponent, np.frexp(shortcut)[1])
        error = _at_exponent(error, factor.exponent - total.exponent)
        error = (
            error
            + _at_exponent(n * n * 2.0**-1070, top - total.exponent)
            + 1.01 * _U * n * total.mantissa.any()
        )
        factor = total
    return factor, error


def _at_exponent(x, exponent):
    """x 2**exponent, infinite where it overflows, rounded upwards below."""
    with np.errstate(over="ignore"):
        scaled = np.ldexp(x, np.clip(exponent, -5000, 5000).astype(np.intc))
    return np.where(np.asarray(x) > 0, np.maximum(scaled, _UNDERFLOW), 0.0)
