"""Oracle of chain_log_svdvals: the definition, in decimals of as many digits as it takes."""

from decimal import Decimal, localcontext

import numpy as np


def chain_log_svdvals(weights, slopes=None, slope_side="output", shortcut=0.0, digits=None):
    """Logs of the singular values of F_{L-1} ... F_0, descending; -inf for zeros.

    `digits` must exceed twice the decades between the largest and the smallest value by 40; left
    out, it starts at 100 and doubles until two answers agree.
    """
    if digits is None:
        digits, last = 100, _log_svdvals(weights, slopes, slope_side, shortcut, 100)
        while True:
            digits *= 2
            values = _log_svdvals(weights, slopes, slope_side, shortcut, digits)
            if np.array_equal(values, last):
                return values
            last = values
    return _log_svdvals(weights, slopes, slope_side, shortcut, digits)


def _log_svdvals(weights, slopes, slope_side, shortcut, digits):
    exact = np.vectorize(lambda x: Decimal(float(x)), otypes=[object])
    slopes = [None] * len(weights) if slopes is None else slopes
    shortcuts = np.broadcast_to(shortcut, len(weights))
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = digits, 10**9, -(10**9)
        product = exact(np.eye(np.shape(weights[0])[1]))
        for w, s, c in zip(weights, slopes, shortcuts, strict=True):
            f = exact(w)
            if s is not None:
                f = exact(s)[:, None] * f if slope_side == "output" else f * exact(s)
            if c:
                f = f + exact(c * np.eye(len(f)))
            product = f @ product
        x = product if product.shape[0] < product.shape[1] else product.T
        return _jacobi(x.copy(), Decimal(10) ** -(digits // 2 - 10))


def _jacobi(x, tolerance):
    """Logs of the norms of the rows of x once they are orthogonal (Hestenes 1958)."""
    n, has_turned = len(x), True
    while has_turned:
        has_turned = False
        least = max(row @ row for row in x) * tolerance**2  # what is smaller counts as zero
        for i in range(n):
            for j in range(i + 1, n):
                a, b, c = x[i] @ x[i], x[j] @ x[j], x[i] @ x[j]
                if min(a, b) <= least or c * c <= tolerance * tolerance * a * b:
                    continue
                has_turned = True
                zeta = (b - a) / (2 * c)
                t = (1 if zeta >= 0 else -1) / (abs(zeta) + (1 + zeta * zeta).sqrt())
                cosine = 1 / (1 + t * t).sqrt()
                x[i], x[j] = cosine * (x[i] - t * x[j]), cosine * (t * x[i] + x[j])
    squares = sorted((row @ row for row in x), reverse=True)
    return np.array([float(q.ln() / 2) if q > least else -np.inf for q in squares])
