"""Lyapunov exponents of Lorenz-63: about 0.9056, 0 and -14.5723 per unit of time.

Each step is one of the classical Runge-Kutta method; its derivative is that of the same formula.
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jacometry as jm

DT, N_STEPS, BURN_IN, N_ORBITS = 0.01, 12_000, 2_000, 16


def rates(x):
    """The vector field, over the last axis."""
    a, b, c = np.moveaxis(x, -1, 0)
    return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def jacobian(x):
    """Its matrix of derivatives."""
    j = np.zeros((*x.shape, 3))
    j[..., 0, 0], j[..., 0, 1] = -10, 10
    j[..., 1, 0], j[..., 1, 1], j[..., 1, 2] = 28 - x[..., 2], -1, -x[..., 0]
    j[..., 2, 0], j[..., 2, 1], j[..., 2, 2] = x[..., 1], x[..., 0], -8 / 3
    return j


def step(x):
    """One step of Runge and Kutta."""
    k1 = rates(x)
    k2 = rates(x + DT / 2 * k1)
    k3 = rates(x + DT / 2 * k2)
    k4 = rates(x + DT * k3)
    return x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def jvp(x, v):
    """The derivative of `step` applied to the columns of v."""
    k1 = rates(x)
    k2 = rates(x + DT / 2 * k1)
    k3 = rates(x + DT / 2 * k2)
    d1 = jacobian(x) @ v
    d2 = jacobian(x + DT / 2 * k1) @ (v + DT / 2 * d1)
    d3 = jacobian(x + DT / 2 * k2) @ (v + DT / 2 * d2)
    d4 = jacobian(x + DT * k3) @ (v + DT * d3)
    return v + DT / 6 * (d1 + 2 * d2 + 2 * d3 + d4)


def main(path="lorenz.png"):
    """Print the spectrum of several orbits together and save a figure."""
    x0 = np.random.default_rng(0).normal([0, 0, 25], 1, (N_ORBITS, 3))
    found = jm.lyapunov_spectrum_map(
        step, jvp, x0, N_STEPS, k=3, dt=DT, burn_in=BURN_IN, history=True, rng=0
    )
    mean = found.exponents.mean(0)
    error = np.sqrt((found.stderr**2).sum(0)) / N_ORBITS
    for value, deviation in zip(mean, error, strict=True):
        print(f"{value:9.4f} +- {deviation:.4f}")
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    steps = np.arange(1, N_STEPS - BURN_IN + 1)
    axes.semilogx(DT * steps, np.cumsum(found.history[:, :, 0], 1).T / steps[:, None])
    axes.set(title="Lorenz-63, 16 orbits", xlabel="time", ylabel="largest exponent")
    figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
