"""Lyapunov exponents of the Henon map (a = 1.4, b = 0.3): about 0.4192 and -1.6232."""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jacometry as jm

N_STEPS = 100_000
A, B = 1.4, 0.3


def main(path="henon.png"):
    """Print the spectrum and save the attractor with the convergence of the exponents."""
    orbit = np.empty((N_STEPS + 1, 2))
    x, y = 0.1, 0.1
    for t in range(N_STEPS + 1):
        orbit[t] = x, y
        x, y = 1 - A * x * x + y, B * x
    jacobians = np.zeros((N_STEPS, 2, 2))
    jacobians[:, 0, 0], jacobians[:, 0, 1], jacobians[:, 1, 0] = -2 * A * orbit[:-1, 0], 1, B
    found = jm.lyapunov_spectrum(jacobians, burn_in=1000, history=True, rng=0)
    for value, error in zip(found.exponents, found.stderr, strict=True):
        print(f"{value:9.5f} +- {error:.5f}")
    print(f"sum {found.exponents.sum():.12f}, ln 0.3 = {np.log(B):.12f}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(*orbit[1000:21_000].T, ",")
    left.set(title="Henon attractor", xlabel="x", ylabel="y")
    steps = np.arange(1, len(found.history) + 1)
    right.semilogx(steps, np.cumsum(found.history, 0) / steps[:, None])
    right.set(title="Lyapunov exponents", xlabel="steps", ylabel="per step")
    figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
