"""Convolutions and recurrent networks obey the equations of fully connected ones."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

import jacometry as jm
from jacometry import activations, initializers
from jacometry.meanfield import predict

N_NETS = 24
T = student.isf(0.5e-7, N_NETS - 1)  # standard errors: a true statement is rejected once in 10^7


def assert_follows(squares, energies, theory, width, n_layers):
    """Means over nets of the mean squares and of the gradient's energies, against `predict`."""
    for found, expected in (
        (np.array(squares), theory.q[1:]),
        (np.array(energies), np.exp(2 * theory.log_gradient)),
    ):
        ratio = found / expected
        error = ratio.std(axis=0, ddof=1) / math.sqrt(len(ratio))
        # A finite width biases each layer by about 5 / width.
        assert (np.abs(ratio.mean(axis=0) - 1) <= T * error + 5 * n_layers / width).all()


@pytest.mark.parametrize("initializer", ["gaussian", "delta_orthogonal"])
def test_circular_convolutions_follow_the_prediction(rng, initializer):
    """Shape (channels, positions); fan_in counts channels times the kernel's size."""
    channels, positions, n_layers, sigma_w, sigma_b = 120, 6, 4, 1.2, 0.3
    phi, draw = activations.get("tanh"), initializers.get(initializer)
    theory = predict([channels] * (n_layers + 1), "tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    squares, energies = [], []
    for _ in range(N_NETS):
        h, layers, seen = rng.standard_normal((channels, positions)), [], []
        h *= math.sqrt(h.size) / np.linalg.norm(h)
        for _ in range(n_layers):
            kernel = draw((channels, channels, 3), rng=rng, gain=sigma_w)
            conv = jm.Conv1d(kernel, positions, padding=1, padding_mode="circular")
            z = conv.jvp(h.ravel()).reshape(channels, -1)
            z += sigma_b * rng.standard_normal((channels, 1))
            seen.append(np.mean(z**2))
            layers.append((conv, phi.slope(z)))
            h = phi.value(z)
        g = rng.standard_normal(channels * positions)
        found = [1.0]
        start = g @ g
        for k in range(n_layers - 1, -1, -1):
            g = layers[k][0].vjp(g)
            if k:
                g = g * layers[k - 1][1].ravel()
            found.insert(0, g @ g / start)
        squares.append(seen)
        energies.append(found)
    assert_follows(squares, energies, theory, channels, n_layers)


def test_a_recurrent_network_follows_the_prediction_of_its_unrolling(rng):
    """z_{t+1} = W phi(z_t) + b with one W and b: fresh weights each step give the same moments."""
    n, n_steps, sigma_w, sigma_b = 300, 6, 1.4, 0.2
    phi = activations.get("tanh")
    theory = predict([n] * (n_steps + 1), "tanh", sigma_w=sigma_w, sigma_b=sigma_b)
    squares, energies = [], []
    for _ in range(N_NETS):
        w = sigma_w / math.sqrt(n) * rng.standard_normal((n, n))
        b = sigma_b * rng.standard_normal(n)
        h, seen, slopes = rng.standard_normal(n), [], [None]
        h *= math.sqrt(n) / np.linalg.norm(h)
        for _ in range(n_steps):
            z = w @ h + b
            seen.append(np.mean(z**2))
            slopes.append(phi.slope(z))
            h = phi.value(z)
        trace = jm.chain_vjp(
            [w] * n_steps, rng.standard_normal(n), slopes=slopes[:-1], slope_side="input"
        )
        squares.append(seen)
        energies.append(np.exp(2 * (trace.log_norms - trace.log_norms[-1])))
    assert_follows(squares, energies, theory, n, n_steps)
