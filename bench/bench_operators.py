"""Norms of operators, sparse matrices and convolutions, beside SciPy's svds and dense SVDs.

`harness` has the command line.  An answer of ours counts only if its bounds hold as well.  Peers
give a lower bound without a word on how far off it is.
"""

import sys

import harness
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator, svds

from jacometry import Chain, Conv2d, conv_spectral_norm, spectral_norm

DENSE = (128, 512, 2048)
SPARSE = (10_000, 100_000)
CONV = ((3, 32), (16, 32), (64, 32))
RTOLS = (1e-2, 1e-6)
RING = {"padding": 1, "padding_mode": "circular"}


def _svds(a, rtol):
    return svds(a, k=1, tol=rtol, return_singular_vectors=False, rng=0)[0]


def _svd(a):
    return np.linalg.svd(a, compute_uv=False)[0]


def _circular_svd(kernel, size):
    """What is published as the exact norm of a circular convolution: an SVD per frequency."""
    blocks = np.fft.fft2(kernel, (size, size), axes=(2, 3)).transpose(2, 3, 0, 1)
    return np.linalg.svd(blocks, compute_uv=False).max()


def _case(job, sizes, contestants, truth, rtol, n_bytes=None):
    """`truth` in float64 to 1e-9; each answer within rtol, ours between its bounds."""

    def error(found):
        if isinstance(found, float):
            return abs(found / truth - 1)
        if found.lower > truth * (1 + 1e-9) or found.upper < truth * (1 - 1e-9):
            return np.inf
        return abs(float(found.value) / truth - 1) if found.converged else np.inf

    return harness.Case(
        job=f"{job}, rtol {rtol:.0e}",
        sizes=sizes,
        contestants=contestants,
        error=error,
        tolerance=rtol,
        n_units=1,
        unit="norm",
        n_bytes=n_bytes,
    )


def make_cases(options, notes):
    """Dense matrices as operators, sparse ones, and convolutions of two paddings."""
    dtype = options.numpy_dtype
    for n in DENSE[:2] if options.quick else DENSE:
        a = np.random.default_rng(n).standard_normal((n, n)).astype(dtype)
        operator, truth = aslinearoperator(a), _svd(a.T.astype(float))
        for rtol in RTOLS:
            contestants = {
                "ours": lambda a=operator, r=rtol: spectral_norm(a, rtol=r, rng=0),
                "scipy svds": lambda a=operator, r=rtol: float(_svds(a, r)),
                "numpy svd": lambda a=a: float(_svd(a)),
            }
            yield _case("operator", {"n": n}, contestants, truth, rtol, float(a.nbytes))
    for n in SPARSE[:1] if options.quick else SPARSE:
        rng = np.random.default_rng(n)
        a = sparse.random_array((n, n), density=10 / n, rng=rng, format="csr", dtype=dtype)
        truth = float(_svds(a.astype(float), 0))
        for rtol in RTOLS:
            contestants = {
                "ours": lambda a=a, r=rtol: spectral_norm(a, rtol=r, rng=0),
                "scipy svds": lambda a=a, r=rtol: float(_svds(a, r)),
            }
            yield _case("sparse, 10 per row", {"n": n}, contestants, truth, rtol)
    for channels, size in CONV[:2] if options.quick else CONV:
        rng = np.random.default_rng(channels)
        kernel = rng.standard_normal((channels, channels, 3, 3)).astype(dtype)
        sizes = {"channels": channels, "size": size}
        wide = kernel.astype(float)
        contestants = {
            "ours": lambda k=kernel, s=size: conv_spectral_norm(k, (s, s), **RING),
            "numpy fft2 and svd": lambda k=wide, s=size: float(_circular_svd(k, s)),
        }
        yield _case("circular conv 3x3", sizes, contestants, _circular_svd(wide, size), 1e-6)
        operator = Chain([Conv2d(kernel, (size, size), padding=1)])
        truth = float(_svds(Chain([Conv2d(wide, (size, size), padding=1)]), 1e-10))
        contestants = {
            "ours": lambda k=kernel, s=size: conv_spectral_norm(k, (s, s), padding=1, rng=0),
            "scipy svds": lambda a=operator: float(_svds(a, 1e-2)),
        }
        yield _case("zero-padded conv 3x3", sizes, contestants, truth, 1e-2)


if __name__ == "__main__":
    sys.exit(harness.main("operators", make_cases))
