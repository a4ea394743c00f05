"""lyapunov_spectrum beside QR and CholeskyQR at every step in NumPy and torch; and deep chains.

Factors are orthogonal times singular values in [0.7, 1.3], so that CholeskyQR is accurate too.
"""

import sys

import harness
import numpy as np

from jacometry import lyapunov_spectrum
from jacometry.reference import lyapunov as reference

SIZES = (2, 3, 4, 5, 7, 8, 12, 16, 24, 32, 33, 48, 64)
QUICK_SIZES = (2, 4, 8, 16, 32, 64)
N_STEPS = 50
DEPTHS = (1_000, 100_000)
SEED = 7


def make_cases(options, notes):
    """One trajectory and a batch of them, at every size."""
    torch = harness.optional("torch", notes=notes).get("torch")
    if torch is not None:
        torch.set_num_threads(options.n_threads)
    for n in QUICK_SIZES if options.quick else SIZES:
        for n_items in (1, max(32, 4096 // n**2 * 4)):
            yield _case(n, n_items, options, torch)
    for n in () if options.quick else (2, 8, 33):
        for depth in DEPTHS:
            yield _deep_case(n, depth, options)


def _numpy(weights, start, factorize):
    def solve():
        q = np.linalg.qr(start)[0]
        q = np.broadcast_to(q, (weights.shape[0], *q.shape))
        total = np.zeros(q.shape[:-1])
        for t in range(weights.shape[1]):
            q, diagonal = factorize(weights[:, t] @ q)
            total += np.log(diagonal)
        return total / weights.shape[1]

    return solve


def _qr(a):
    q, r = np.linalg.qr(a)
    return q, np.abs(np.diagonal(r, axis1=-2, axis2=-1))


def _cholesky_qr(a):
    lower = np.linalg.cholesky(a.mT @ a)
    return a @ np.linalg.inv(lower).mT, np.diagonal(lower, axis1=-2, axis2=-1)


def _torch(torch, weights, start):
    layers = torch.from_numpy(weights)
    begin = torch.linalg.qr(torch.from_numpy(start))[0]

    def solve():
        q, total = begin, 0
        for t in range(layers.shape[1]):
            q, r = torch.linalg.qr(layers[:, t] @ q)
            total = total + r.diagonal(dim1=-2, dim2=-1).abs().log()
        return (total / layers.shape[1]).numpy()

    return solve


def _torch_cholesky(torch, weights, start):
    layers = torch.from_numpy(weights)
    begin = torch.linalg.qr(torch.from_numpy(start))[0]

    def solve():
        q, total = begin.expand(len(layers), *begin.shape), 0
        for t in range(layers.shape[1]):
            image = layers[:, t] @ q
            lower = torch.linalg.cholesky_ex(image.mT @ image)[0]
            q = torch.linalg.solve_triangular(lower, image.mT, upper=False).mT
            total = total + lower.diagonal(dim1=-2, dim2=-1).log()
        return (total / layers.shape[1]).numpy()

    return solve


def _case(n, n_items, options, torch):
    # The seed is the size: the same factors in every run.
    rng, dtype = np.random.default_rng(n), options.numpy_dtype
    weights = np.linalg.qr(rng.standard_normal((n_items, N_STEPS, n, n)))[0]
    weights = (weights * rng.uniform(0.7, 1.3, (n_items, N_STEPS, 1, n))).astype(dtype)
    start = np.random.default_rng(SEED).standard_normal((n, n)).astype(dtype)
    shown = [0, n_items - 1]
    truth = np.array([reference.lyapunov_spectrum(weights[i], start, 32)[0] for i in shown])
    contestants = {
        harness.OURS: lambda: (
            lyapunov_spectrum(weights, rng=SEED, n_threads=options.n_threads).exponents
        ),
        "numpy QR": _numpy(weights, start, _qr),
        "numpy CholeskyQR": _numpy(weights, start, _cholesky_qr),
    }
    if torch is not None:
        contestants["torch QR"] = _torch(torch, weights, start)
        contestants["torch CholeskyQR"] = _torch_cholesky(torch, weights, start)
    return harness.Case(
        job="lyapunov_spectrum",
        sizes={"n": n, "B": n_items, "L": N_STEPS},
        contestants=contestants,
        error=lambda found: np.abs(found[shown] - truth).max(),
        tolerance=float(8 * N_STEPS * (n + 4) * np.finfo(dtype).eps),
        n_units=n_items * N_STEPS,
        unit="step",
        flops=4.0 * n**3 * n_items * N_STEPS,
        n_bytes=float(weights.nbytes),
    )


def _deep_case(n, depth, options):
    """One repeated rotation, scaled: the time of a step must not grow with the depth."""
    rng, dtype = np.random.default_rng(n), options.numpy_dtype
    rotation = 2 * np.linalg.qr(rng.standard_normal((n, n)))[0].astype(dtype)
    weights = np.broadcast_to(rotation, (depth, n, n))
    return harness.Case(
        job="lyapunov_spectrum, one repeated factor",
        sizes={"n": n, "L": depth},
        contestants={
            harness.OURS: lambda: (
                lyapunov_spectrum(weights, rng=SEED, n_threads=options.n_threads).exponents
            )
        },
        error=lambda found: np.abs(found - np.log(2)).max(),
        tolerance=float(8 * (n + 4) * np.finfo(dtype).eps),
        n_units=depth,
        unit="step",
        flops=4.0 * n**3 * depth,
    )


if __name__ == "__main__":
    sys.exit(harness.main("lyapunov", make_cases))
