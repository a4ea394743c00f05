"""joint_spectral_radius in products per second, and spectral_radius, beside plain NumPy.

No package on PyPI computes the joint spectral radius; the peer is the same search written in NumPy,
one product at a time as the textbooks have it, without any account of rounding.
"""

import sys

import harness
import numpy as np

from jacometry import joint_spectral_radius, spectral_radius

SETS = {2: 50_000, 4: 20_000, 8: 10_000, 16: 5_000, 32: 1_000}
QUICK_SETS = {2: 10_000, 8: 2_000}
DELTA = 1e-3
RADII = (2, 4, 8, 16, 32, 64)
QUICK_RADII = (4, 32)


def _textbook(matrices, delta, max_products):
    """Gripenberg's search, a product at a time: lower and upper bound."""
    norms = [np.linalg.norm(m, 2) for m in matrices]
    lower = max(np.abs(np.linalg.eigvals(m)).max() for m in matrices)
    level, stopped = [(m, b) for m, b in zip(matrices, norms, strict=True)], 0.0
    n_products, length = len(matrices), 1
    while level:
        length += 1
        level.sort(key=lambda item: -item[1])
        longer = []
        for i, (product, bound) in enumerate(level):
            if n_products + len(matrices) > max_products:
                return lower, max(stopped, *(b for _, b in longer + level[i:]))
            for m in matrices:
                own = m @ product
                own_bound = min(bound, np.linalg.norm(own, 2) ** (1 / length))
                lower = max(lower, np.abs(np.linalg.eigvals(own)).max() ** (1 / length))
                if own_bound > lower + delta:
                    longer.append((own, own_bound))
                else:
                    stopped = max(stopped, own_bound)
            n_products += len(matrices)
        level = longer
    return lower, stopped


def make_cases(options, notes):
    """A fixed budget of products at every size, then batches of spectral radii."""
    notes.append("no package on PyPI computes the joint spectral radius")
    for n, budget in (QUICK_SETS if options.quick else SETS).items():
        yield _search(n, budget, options)
    for n in QUICK_RADII if options.quick else RADII:
        yield _radii(n, options)


def _search(n, budget, options):
    # Radius 1, but norms of sqrt(2) at any length: no product stops before the budget does.
    turn = np.linalg.qr(np.random.default_rng(n).standard_normal((n // 2, n // 2)))[0]
    slow = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
    matrices = np.stack([np.kron(turn, a) for a in slow])

    def error(found):
        lower, upper = (found.lower, found.upper) if hasattr(found, "lower") else found
        return max(abs(lower - 1), 1 - upper, upper - 2**0.5)

    return harness.Case(
        job="joint_spectral_radius",
        sizes={"n": n, "m": 2, "products": budget},
        contestants={
            harness.OURS: lambda: joint_spectral_radius(
                matrices, delta=DELTA, max_products=budget, n_threads=options.n_threads
            ),
            "numpy, one by one": lambda: _textbook(matrices, DELTA, budget),
        },
        error=error,
        tolerance=1e-11,
        n_units=budget,
        unit="product",
    )


def _radii(n, options):
    n_items = max(16, 2**16 // n**2)
    a = np.random.default_rng(n).standard_normal((n_items, n, n)).astype(options.numpy_dtype)
    truth = np.abs(np.linalg.eigvals(a.mT.astype(np.float64))).max(axis=1)
    return harness.Case(
        job="spectral_radius",
        sizes={"n": n, "B": n_items},
        contestants={
            harness.OURS: lambda: spectral_radius(a).value,
            "numpy eig": lambda: np.abs(np.linalg.eig(a)[0]).max(axis=1),
            "numpy eigvals (no residual)": lambda: np.abs(np.linalg.eigvals(a)).max(axis=1),
        },
        error=lambda found: np.abs(found / truth - 1).max(),
        # eigenvalues of Gaussian matrices are conditioned like n, the worst of a batch like B n
        tolerance=float(n_items * n**1.5 * np.finfo(options.numpy_dtype).eps),
        n_units=n_items,
        unit="matrix",
    )


if __name__ == "__main__":
    sys.exit(harness.main("radius", make_cases))
