"""What a product of its own costs beside its multiply-adds: `CALL_COST` of ops/_chain_runs.py.

A rectangular chain is taken in runs, and a run of its own is a call: planned in Python, laid out in
a table, its product stored and read again.  Chains whose last half is a product of its own are
timed against the same layers in one run; the difference is given in the unit of the planner,
multiply-adds at the rate of the kernel.  The batch shares it, and the order must not depend on the
batch's size.

    python bench/fit_call_cost.py
"""

import sys
import time
from itertools import pairwise

import numpy as np

from jacometry import _kernels
from jacometry.ops._chain_arrays import read_chain
from jacometry.ops._chain_runs import Run, multiply

WIDTHS = (4, 8, 16, 24, 32)
N_LAYERS = 8
N_REPEATS, N_CALLS = 40, 50


def best_of(*functions):
    """Least seconds per call of each, taken in turns."""
    found = [float("inf")] * len(functions)
    for _ in range(N_REPEATS):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            for _ in range(N_CALLS):
                function()
            found[i] = min(found[i], (time.perf_counter() - start) / N_CALLS)
    return found


def fit(n, dtype, rng):
    """Seconds of a run more, and seconds of a multiply-add, for chains of width n."""
    widths = [n] * N_LAYERS + [n + 1]  # one of them another, or nothing is planned
    weights = [rng.standard_normal((b, a)).astype(dtype) for a, b in pairwise(widths)]
    chain = read_chain(weights, None, "output", 0.0)
    middle = N_LAYERS // 2
    one = [Run([*range(N_LAYERS + 1)], False, False)]
    two = [
        Run([*range(middle, N_LAYERS + 1)], False, False),
        Run([*range(middle + 1), N_LAYERS], False, False),
    ]
    mantissa, exponent = np.empty((1, n + 1, n), dtype), np.empty(1, np.int64)

    def run(runs):
        return lambda: multiply(chain, runs, mantissa, exponent, 1, True)

    def kernel():
        _kernels.chain_product(chain, 1, mantissa, exponent, 1, False, None)

    in_one, in_two, plain = best_of(run(one), run(two), kernel)
    # Both orders take N_LAYERS - 1 products of n^3 multiply-adds, but for n^2.
    return in_two - in_one, plain / ((N_LAYERS - 1) * n**3)


def main():
    """Print the fit for every width and type."""
    print(f"isa {_kernels.active_isa()}; seconds of a call, and what it comes to")
    for dtype in ("f8", "f4"):
        for n in WIDTHS:
            call, multiply_add = fit(n, dtype, np.random.default_rng(n))
            cost = call / multiply_add
            print(
                f"{dtype} n={n:3d}: {call * 1e6:6.2f} us, {1e-9 / multiply_add:5.1f} G "
                f"multiply-adds/s, cost {cost:9.0f} = 2^{np.log2(cost):.1f}"
            )


if __name__ == "__main__":
    sys.exit(main())
