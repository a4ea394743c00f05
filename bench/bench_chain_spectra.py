"""chain_log_svdvals beside NumPy: a pivoted-free graded QR per layer, and the SVD of one product.

The factors have orthogonal bases and a spectrum of e^+-0.5 that meets from layer to layer, so the
truth is known.  The QR estimate is right in the limit only and the SVD of the product down to 1e-16
of its largest value only: both are marked wrong where the answer asked for is beyond them.
"""

import sys

import harness
import numpy as np

from jacometry import chain_log_svdvals

SIZES = (2, 3, 4, 5, 8, 12, 16, 24, 32, 33, 64, 100, 128)
QUICK_SIZES = (2, 3, 4, 8, 16, 32, 64)
DEPTH = 100
SPREAD = 0.5
FLOPS = 1e8


def make_cases(options, notes):
    """Every size, one after the other."""
    notes.append("numpy.linalg.qr per layer gives no error bound and converges with depth only")
    notes.append("6 n^3 flops a layer: F Q, its QR, the sweep back; T and the end come on top")
    for n in QUICK_SIZES if options.quick else SIZES:
        for n_samples in sorted({1, max(1, int(FLOPS / (6 * n**3 * DEPTH)))}):
            yield _case(n, n_samples, np.random.default_rng(n), options)


def _case(n, n_samples, rng, options):
    logs = np.linspace(SPREAD, -SPREAD, n)
    bases = np.linalg.qr(rng.standard_normal((n_samples, DEPTH + 1, n, n)))[0]
    weights = bases[:, 1:] @ (np.exp(logs)[:, None] * np.swapaxes(bases[:, :-1], -1, -2))
    weights = weights.astype(options.numpy_dtype)
    by_layer = np.ascontiguousarray(weights.swapaxes(0, 1), dtype=np.float64)
    u = np.finfo(options.numpy_dtype).eps / 2
    return harness.Case(
        job="chain_log_svdvals",
        sizes={"n": n, "B": n_samples, "L": DEPTH},
        contestants={
            "ours": lambda: chain_log_svdvals(weights, n_threads=options.n_threads).values,
            "numpy.linalg.qr per layer": lambda: _qr(by_layer),
            "numpy.linalg.svd of the product": lambda: _svd(by_layer),
        },
        error=lambda found: float(np.max(np.abs(found - DEPTH * logs))),
        tolerance=float(DEPTH * 4 * n * u * np.exp(2 * SPREAD)) + DEPTH * 4 * n * 2.0**-53,
        n_units=n_samples * DEPTH,
        unit="layer",
        flops=6.0 * n**3 * DEPTH * n_samples,
        n_bytes=weights.nbytes,
    )


def _qr(weights):
    """The logs of the diagonals, summed: the start is not aligned, so it is off by O(1)."""
    q = np.broadcast_to(np.eye(weights.shape[-1]), weights.shape[1:])
    total = 0.0
    for w in weights:
        q, r = np.linalg.qr(w @ q)
        total = total + np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1)))
    return -np.sort(-total)


def _svd(weights):
    product = weights[0]
    for w in weights[1:]:
        product = w @ product
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.svd(product, compute_uv=False))


if __name__ == "__main__":
    sys.exit(harness.main("chain_spectra", make_cases))
