"""Oracle of the Lyapunov spectrum, for one sample: Householder QR at every step."""

import numpy as np


def _split(x):
    """x / 2**e with its largest magnitude in [0.5, 1), and e."""
    e = int(np.frexp(np.max(np.abs(x), initial=0.0))[1])
    return np.ldexp(x, -e), e


def lyapunov_spectrum(
    weights, start, n_batches, slopes=None, slope_side="output", shortcut=0.0, burn_in=0
):
    """Exponents, their standard errors by batch means, and the growth in every counted step."""
    q = np.linalg.qr(np.asarray(start, float))[0]
    growth = []
    for t, w in enumerate(weights):
        a, e = _split(np.asarray(w, float))
        if slopes is not None and slopes[t] is not None:
            s, e_slopes = _split(np.asarray(slopes[t], float))
            a = s[:, None] * a if slope_side == "output" else a * s
            e += e_slopes
        c = float(np.broadcast_to(shortcut, len(weights))[t])
        if c:
            a = a + np.ldexp(c, -e) * np.eye(len(a))
        q, r = np.linalg.qr(a @ q)
        with np.errstate(divide="ignore"):
            growth.append(np.log(np.abs(np.diag(r))) + e * np.log(2.0))
    counted = np.array(growth[burn_in:])
    ends = np.arange(n_batches + 1) * len(counted) // n_batches
    exponents = counted.mean(0)
    means = np.add.reduceat(counted, ends[:-1], 0) / np.diff(ends)[:, None]
    spread = (np.diff(ends)[:, None] * (means - exponents) ** 2).sum(0)
    freedom = (n_batches - 1) * len(counted)
    return exponents, np.sqrt(spread / freedom) if freedom else np.nan * spread, counted
