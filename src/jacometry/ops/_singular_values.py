"""Proved bounds of the largest and smallest singular values of batches of matrices."""

import contextlib
import math

import numpy as np

from ._direct_norms import GRAM_MAX_SIZE, gram_bounds, sum_squares
from ._norm_bounds import EPS

# What assembling a bound from a few float64 operations may round, with room.
OUTWARD = 32 * EPS
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)
# ||X A - I|| from which an approximate inverse X gives way to the singular value decomposition.
WORST_RESIDUAL = 2.0**-10
# Width asked of norms that are taken in float64 anyway.
ANY_RTOL = 1.0


def gamma(k):
    """Bound on k roundings, with room for the few that assemble a bound."""
    return k * EPS / 2 / (1 - k * EPS / 2) + OUTWARD


def lost(items):
    """What scaling can have rounded away, as a bound on a norm: entries that became subnormal."""
    return SMALLEST * math.prod(items.shape[1:])


def length(items):
    """Upper bounds (B,) of Frobenius norms, whose squares neither over- nor underflow."""
    items = np.ascontiguousarray(items)
    return np.sqrt(sum_squares(items)) * (1 + gamma(math.prod(items.shape[1:]) + 2))


def takes_inverses(m, n, method):
    """Whether m x n matrices are first tried by approximate inverses."""
    return method == "auto" and m == n <= GRAM_MAX_SIZE


def extremes(items, rank, method, is_largest_wanted=True):
    """(3, B) bounds of the largest (if wanted) and of the smallest singular values.

    items (B, m, n) are tall, of entries at most 1; rank (B,) is at least theirs.
    """
    n_items, m, n = items.shape
    largest, smallest = np.empty((2, 3, n_items))
    is_done = np.zeros(n_items, bool)
    if takes_inverses(m, n, method):
        tried = np.flatnonzero(rank == n)
        ends = by_inverse(items if len(tried) == n_items else items[tried])
        smallest[:, tried] = ends
        is_done[tried] = ~np.isnan(ends[0])
        if is_largest_wanted:
            largest[:] = norms(items)
    if not is_done.all():
        left = np.flatnonzero(~is_done)
        ends = by_svd(items[left], rank[left])
        largest[:, left], smallest[:, left] = ends[:, :, 0], ends[:, :, -1]
    return largest, smallest


def norms(items):
    """(3, B) bounds of 2-norms in the normal range."""
    scaled = gram_bounds(items, ANY_RTOL, 1)
    return np.ldexp(scaled.bounds, scaled.exponent)


def inverses(items):
    """Approximate inverses; NaN where LAPACK finds a matrix singular."""
    try:
        return np.linalg.inv(items)
    except np.linalg.LinAlgError:  # of one item: the others must not notice
        found = np.full_like(items, np.nan)
        for i, item in enumerate(items):
            with contextlib.suppress(np.linalg.LinAlgError):
                found[i] = np.linalg.inv(item)
        return found


def by_inverse(items):
    """(3, B) bounds of the smallest singular values of square items; NaN where X is no inverse."""
    n = items.shape[-1]
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        inverse = inverses(items)
        residual = inverse @ items
        residual.reshape(len(items), n * n)[:, :: n + 1] -= 1
        rho = length(residual) * (1 + OUTWARD) + gamma(n + 4) * length(inverse) * length(items)
        lower, value, upper = norms(inverse)
        # what scaling rounded away is far below one rounding of what is left by the residual
        ends = np.array([(1 - rho) / upper * (1 - OUTWARD), 1 / value, (1 + rho) / lower])
        ends[2] *= 1 + OUTWARD
        ends[1] = np.clip(ends[1], ends[0], ends[2])
    ends[:, ~(rho < WORST_RESIDUAL)] = np.nan
    return ends


def by_svd(items, rank):
    """(3, B, n) bounds of all singular values of tall items, from LAPACK's factors."""
    m, n = items.shape[1:]
    u, s, vt = np.linalg.svd(items, full_matrices=False)
    v = np.swapaxes(vt, 1, 2)
    eye = np.eye(n)

    in_rows, in_columns = gamma(n + 4), gamma(m + 4)
    us = u * s[:, None, :]
    rho = length(items @ v - us) * (1 + OUTWARD)
    rho += in_rows * length(items) * length(v) + OUTWARD * length(us) + 2 * lost(items)
    du = length(np.swapaxes(u, 1, 2) @ u - eye) * (1 + OUTWARD) + in_columns * length(u) ** 2
    dv = length(vt @ v - eye) * (1 + OUTWARD) + in_rows * length(v) ** 2
    du, dv, rho = du[:, None], dv[:, None], rho[:, None] * (1 + OUTWARD)
    with np.errstate(invalid="ignore", divide="ignore"):
        lower = (s * np.sqrt(1 - du) * (1 - OUTWARD) - rho) / np.sqrt(1 + dv)
        upper = (s * np.sqrt(1 + du) + rho) / np.sqrt(1 - dv)
    lower = np.fmax(lower * (1 - OUTWARD), 0.0)  # also where LAPACK's factors are no use
    upper = np.where((du < 1) & (dv < 1), upper * (1 + OUTWARD), np.inf)
    is_zero = np.arange(n) >= rank[:, None]
    is_noise = is_zero | ((lower == 0) & (s <= max(m, n) * EPS * s[:, :1]))
    lower, upper = np.where(is_zero, 0.0, lower), np.where(is_zero, 0.0, upper)
    return np.array([lower, np.where(is_noise, 0.0, np.clip(s, lower, upper)), upper])
