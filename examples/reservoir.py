"""Lyapunov spectrum of a driven tanh reservoir, h <- tanh(W h + u), below and above the edge."""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jacometry as jm

N_UNITS, N_STEPS, BURN_IN, DRIVE = 64, 2000, 200, 0.1


def main(path="reservoir.png"):
    """Print the largest exponents for three gains and save the spectra."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((N_UNITS, N_UNITS)) / np.sqrt(N_UNITS)
    drive = DRIVE * rng.standard_normal((N_STEPS, N_UNITS))
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for gain in (0.8, 1.2, 2.0):
        h, slopes = np.zeros(N_UNITS), np.empty((N_STEPS, N_UNITS))
        for t in range(N_STEPS):
            h = np.tanh(gain * w @ h + drive[t])
            slopes[t] = 1 - h**2
        # One W for all steps: a view without a copy.
        weights = np.broadcast_to(gain * w, (N_STEPS, N_UNITS, N_UNITS))
        found = jm.lyapunov_spectrum(weights, slopes=slopes, burn_in=BURN_IN, rng=1)
        print(f"gain {gain}: {found.exponents[0]:8.4f} +- {found.stderr[0]:.4f}")
        axes.errorbar(np.arange(N_UNITS), found.exponents, 2 * found.stderr, label=f"gain {gain}")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(title="tanh reservoir", xlabel="index", ylabel="exponent per step")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
