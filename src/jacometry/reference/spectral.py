"""Oracles of the norm kernels: plain NumPy and SciPy, the shortest correct definition."""

import numpy as np
from scipy import linalg, optimize


def spectral_norm_gram(a):
    """Bounds (3,) and exponent of the 2-norm: ``bounds * 2**exponent``, from a dense SVD."""
    a = np.asarray(a, dtype=np.float64)
    if not np.isfinite(a).all():
        return np.full(3, np.nan), 0
    _, exponent = np.frexp(np.abs(a).max())
    sigma = np.linalg.svd(np.ldexp(a, -exponent), compute_uv=False)[0]
    error = max(a.shape) * 2.0**-50
    return sigma * np.array([1 - error, 1, 1 + error]), int(exponent)


def lanczos_bounds(a, start, log_level, n_steps):
    """Textbook Lanczos on A^T A: (lower, upper) on the 2-norm after each step.

    Lower: the largest Ritz value's root.  Upper: the root t beyond it of
    ``det(t I - T_k) / (beta_2 ... beta_{k+1}) = exp(log_level)`` (Hochstenbach 2013).
    """
    gram = a.T @ a
    basis = [start / np.linalg.norm(start)]
    lower, upper = [], []
    for k in range(1, n_steps + 1):
        v = np.array(basis).T
        t = v.T @ gram @ v  # tridiagonal up to rounding
        rest = gram @ basis[-1]
        for _ in range(3):
            rest = rest - v @ (v.T @ rest)
        beta = np.linalg.norm(rest)
        ritz = linalg.eigvalsh(t)
        log_betas = np.log(np.append(np.diagonal(t, 1), beta)).sum() if beta > 0 else -np.inf

        def log_p(s, ritz=ritz, log_betas=log_betas):
            return np.log(np.exp(s) + (ritz[-1] - ritz)).sum() - log_betas - log_level

        lower.append(np.sqrt(ritz[-1]))
        if k == len(gram) or beta <= 1e-14 * ritz[-1]:
            upper.append(lower[-1])
            break
        s = optimize.brentq(log_p, -700.0, 700.0, xtol=1e-13)
        upper.append(np.sqrt(ritz[-1] + np.exp(s)))
        basis.append(rest / beta)
    return np.array(lower), np.array(upper)


def spectral_norm_lanczos(a, start, rtol, log_level, max_iter):
    """Bounds (4,), exponent and steps: the first of `lanczos_bounds` within rtol, or the last."""
    a = np.asarray(a, dtype=np.float64)
    if not np.isfinite(a).all():
        return np.full(4, np.nan), 0, 0
    if not a.any():
        return np.zeros(4), 0, 0
    _, exponent = np.frexp(np.abs(a).max())
    a = np.ldexp(a, -exponent)
    cap = min(np.linalg.norm(a), np.sqrt(np.linalg.norm(a, 1) * np.linalg.norm(a, np.inf)))
    lower, upper = lanczos_bounds(a, start, log_level, max_iter)
    error = max(a.shape) * 2.0**-50
    upper = np.minimum.accumulate(upper) * (1 + error)
    within = np.minimum(upper, cap * (1 + error)) <= lower * (1 - error) * (1 + rtol)
    k = int(np.argmax(within)) if within.any() else len(lower) - 1
    bounds = [lower[k] * (1 - error), min(lower[k], cap), upper[k], cap * (1 + error)]
    return np.array(bounds), int(exponent), k + 1


def sum_squares(a):
    """Sums of squares over all axes but the first, in float64."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return (np.asarray(a, np.float64) ** 2).sum(axis=tuple(range(1, np.ndim(a))))
