"""Norms and condition numbers of batches of small matrices and of large ones, beside their peers.

`harness` has the command line.  An answer of ours counts only if its bounds hold as well.
"""

import sys

import harness
import numpy as np
from scipy.sparse.linalg import svds

from jacometry.ops.conditioning import condition_number, frobenius_norm, smallest_singular_value
from jacometry.ops.spectral import spectral_norm

SMALL = (2, 3, 4, 5, 7, 8, 12, 16, 24, 32, 33, 48, 64)
LARGE = (128, 256, 512, 1024, 2048)
QUICK_SMALL = (2, 4, 8, 16, 32, 64)
TALL = ((64, 4), (200, 16), (1000, 32))  # rows, columns
DIRECT = (4, 16, 64)
QUICK_LARGE = (128, 512)
BATCH_ENTRIES = 2**19
MEMORY = 2**24  # bytes of a matrix that does not stay in a cache from step to step
MAX_BATCH = 20_000
RTOLS = (1e-2, 1e-6, 1e-10)
# Relative widths from which A is read in float32: what is read per step is then not its own bytes.
NARROW = 1e-3

# The largest relative error at which an answer counts, where rtol does not ask for less.
ACCURACY = {"f64": 1e-10, "f32": 1e-6}


def _svd(a):
    return np.linalg.svd(a, compute_uv=False)[:, 0]


def _gram_eigvalsh(a):
    return np.sqrt(np.linalg.eigvalsh(np.swapaxes(a, 1, 2) @ a)[:, -1])


def _svds(a, rtol):
    return np.array([svds(item, k=1, tol=rtol, return_singular_vectors=False)[0] for item in a])


def _truth(a):
    """In float64, of the transposes, so that no contestant has the same arithmetic."""
    return _svd(np.ascontiguousarray(np.swapaxes(a, 1, 2), np.float64))


def _clustered(rng, n):
    """One matrix whose singular values crowd below its norm."""
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return ((left * np.linspace(0.99, 1.0, n)) @ right)[None]


def make_cases(options, notes):
    """Batches of Gaussian matrices, then single large ones of two spectra at two accuracies."""
    torch = harness.optional("torch", notes=notes).get("torch")
    if torch:
        torch.set_num_threads(options.n_threads)
    dtype = options.numpy_dtype
    for n in QUICK_SMALL if options.quick else SMALL:
        n_items = min(MAX_BATCH, BATCH_ENTRIES // n**2) // (8 if options.quick else 1)
        # The seed is the size: the same matrices in every run.
        a = np.random.default_rng(n).standard_normal((n_items, n, n)).astype(dtype)
        yield _case("spectral_norm, batched", a, "Gaussian", 1e-2, options, torch)
    for m, n in TALL:
        n_items = max(1, BATCH_ENTRIES // (m * n)) // (8 if options.quick else 1)
        a = np.random.default_rng(m).standard_normal((n_items, m, n)).astype(dtype)
        yield _case("spectral_norm, batched", a, "Gaussian", 1e-2, options, torch)
    for n in DIRECT:
        n_items = BATCH_ENTRIES // n**2 // (8 if options.quick else 1)
        a = np.random.default_rng(n).standard_normal((n_items, n, n)).astype(dtype)
        yield from _direct_cases(a)
    for n in QUICK_LARGE if options.quick else LARGE:
        a = np.random.default_rng(n).standard_normal((1, n, n)).astype(dtype)
        for rtol in RTOLS:
            job = f"spectral_norm, one matrix, rtol {rtol:.0e}, beside numpy alone"
            yield _case(job, a, "Gaussian", rtol, options, None, is_numpy_alone=True)
    for n in QUICK_LARGE if options.quick else LARGE:
        rng = np.random.default_rng(n)
        spectra = {"Gaussian": rng.standard_normal((1, n, n)), "clustered": _clustered(rng, n)}
        for spectrum, a in spectra.items():
            for rtol in RTOLS:
                job = f"spectral_norm, one matrix, rtol {rtol:.0e}"
                yield _case(job, a.astype(dtype), spectrum, rtol, options, torch)


def _direct_cases(a):
    """What NumPy has too; the tolerance leaves room for the condition numbers."""
    sigma = np.linalg.svd(np.ascontiguousarray(np.swapaxes(a, 1, 2), float), compute_uv=False)
    axes = {"axis": (1, 2)}
    jobs = {
        "frobenius_norm": (
            np.sqrt((sigma**2).sum(axis=1)),
            lambda: frobenius_norm(a),
            {"numpy norm": lambda: np.linalg.norm(a, **axes)},
        ),
        "smallest_singular_value": (
            sigma[:, -1],
            lambda: smallest_singular_value(a),
            {"numpy svd, no bounds": lambda: np.linalg.svd(a, compute_uv=False)[:, -1]},
        ),
        "condition_number": (
            sigma[:, 0] / sigma[:, -1],
            lambda: condition_number(a),
            {"numpy cond, no bounds": lambda: np.linalg.cond(a)},
        ),
    }
    # a singular value is known to n eps sigma_max, so these quotients to as many condition numbers
    worst = float((sigma[:, 0] / sigma[:, -1]).max()) * 10 * a.shape[-1]
    for job, (expected, ours, peers) in jobs.items():
        yield harness.Case(
            job=f"{job}, batched",
            sizes={"n": a.shape[-1], "B": len(a)},
            contestants={"ours": ours} | peers,
            error=lambda found, expected=expected: float(
                np.max(np.abs(np.asarray(found, float) / expected - 1))
            ),
            tolerance=worst * float(np.finfo(a.dtype).eps),
            n_units=len(a),
            unit="matrix",
            n_bytes=float(a.nbytes),
        )


def _bytes_read(a, rtol, options):
    """Of one matrix: A once a step, once for the certain bounds and once for the Ritz vector."""
    is_narrow = a.dtype == np.float64 and a[0].size >= 2**18 and rtol >= NARROW
    if len(a) > 1 or a.shape[-1] <= 64 or is_narrow:
        return float(a.nbytes)
    n_iter = spectral_norm(a, rtol=rtol, rng=0, n_threads=options.n_threads).n_iter
    return float(a.nbytes * (int(n_iter[0]) + 2))


def _case(job, a, spectrum, rtol, options, torch, is_numpy_alone=False):
    n_items, m, n = a.shape
    expected = _truth(a)
    eps = float(np.finfo(a.dtype).eps)
    # What the truth itself may be off, and what rounding the bounds to a's dtype may add.
    slack = 1 + m * float(np.finfo(np.float64).eps)

    def error(found):
        if isinstance(found, np.ndarray):
            return float(np.max(np.abs(found / expected - 1)))
        lower, upper = np.asarray(found.lower, float), np.asarray(found.upper, float)
        if np.any(lower > expected * slack) or np.any(upper * slack < expected):
            return np.inf
        return float(np.max(np.abs(found.value / expected - 1)))

    contestants = {
        "ours": lambda: spectral_norm(a, rtol=rtol, rng=0, n_threads=options.n_threads),
        "numpy norm(A, 2)": lambda: _svd(a),  # which is what norm does
        "numpy eigvalsh of Gram": lambda: _gram_eigvalsh(a),
    }
    if is_numpy_alone:
        del contestants["numpy eigvalsh of Gram"]
    if torch:
        tensor = torch.from_numpy(a)
        contestants["torch svdvals"] = lambda: torch.linalg.svdvals(tensor)[:, 0].numpy()
    if n_items == 1 and not is_numpy_alone:
        contestants["scipy svds"] = lambda: _svds(a, rtol)
    is_one = n_items == 1
    return harness.Case(
        job=job,
        sizes=({} if m == n else {"m": m}) | {"n": n, "B": n_items, "spectrum": spectrum},
        contestants=contestants,
        error=error,
        tolerance=max(rtol, 10 * eps) if is_one else ACCURACY[options.dtype],
        n_units=n_items,
        unit="matrix",
        flops=float(n_items * m * n * n) if not is_one else None,  # the Gram matrix alone
        n_bytes=_bytes_read(a, rtol, options),
        working_set="32 MB" if is_one and a.nbytes >= MEMORY else None,
    )


if __name__ == "__main__":
    sys.exit(harness.main("spectral", make_cases, has_roofs=True))
