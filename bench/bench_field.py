"""Phase diagrams with every field, beside the iteration of the two maps that papers' code does.

`harness` has the command line.  The peer iterates q and c to their fixed points with the best rule
NumPy can do, the trapezoidal one, on a small grid; the large grid is ours alone.
"""

import concurrent.futures
import sys

import harness
import numpy as np
from bench_moments import SLOPES, VALUES, _trapezoid

from jacometry import phase_diagram

ACTIVATIONS = ("tanh", "erf", "gelu")
# gelu diverges beyond sqrt(2), and is chaotic in a strip before.
SIGMA_W = {"tanh": (1.2, 3.0), "erf": (1.1, 2.5), "gelu": (0.5, 1.35)}
_FINE, _COARSE = _trapezoid(1 / 16), _trapezoid(1 / 8)
_SETTLED = 1e-12


def make_cases(options, notes):
    """A small grid beside the peer, then the whole diagram."""
    for activation in ACTIVATIONS:
        yield _small(activation, 4 if options.quick else 8, options)
    for activation in ACTIVATIONS:
        yield _large(activation, 64 if options.quick else 512, options)


def _axes(activation, side):
    return np.linspace(*SIGMA_W[activation], side), np.linspace(0.1, 1.0, side)


def _fields(diagram):
    return np.stack([diagram.q_star, diagram.chi_1, diagram.c_star, diagram.chi_c])


def _ours(activation, side, options):
    """On two threads, one tile each."""
    axes = _axes(activation, side)
    if options.n_threads == 1:
        return lambda: _fields(phase_diagram(activation, *axes, n_threads=1))

    def threaded():
        with concurrent.futures.ThreadPoolExecutor(options.n_threads) as executor:
            return _fields(phase_diagram(activation, *axes, executor=executor))

    return threaded


def _iterated(activation, w, b, rule):
    """q*, chi_1, c* and its slope for flat sigmas, by iteration."""
    phi, dphi = VALUES[activation], SLOPES[activation]
    z, weights = _trapezoid(1 / 16)
    q, before = np.ones_like(w), 0.0
    while np.max(np.abs(q / before - 1) if np.ndim(before) else 1) > _SETTLED:
        q, before = w**2 * (phi(np.sqrt(q)[:, None] * z) ** 2 @ weights) + b**2, q
    chi = w**2 * (dphi(np.sqrt(q)[:, None] * z) ** 2 @ weights)
    z, weights = rule
    c, slope = np.ones_like(w), chi.copy()
    for i in np.flatnonzero(chi > 1):
        root, now, before = np.sqrt(q[i]), 0.5, 0.0
        one = root * z[:, None]
        while abs(now - before) > _SETTLED:
            two = now * one + np.sqrt(1 - now**2) * root * z
            mean = weights @ (phi(one) * phi(two)) @ weights
            now, before = (w[i] ** 2 * mean + b[i] ** 2) / q[i], now
        two = now * one + np.sqrt(1 - now**2) * root * z
        c[i], slope[i] = now, w[i] ** 2 * (weights @ (dphi(one) * dphi(two)) @ weights)
    return np.stack([q, chi, c, slope])


def _small(activation, side, options):
    w, b = (axis.reshape(-1) for axis in np.meshgrid(*_axes(activation, side), indexing="ij"))
    expected = _iterated(activation, w, b, _FINE).reshape(4, side, side)
    return harness.Case(
        job="phase_diagram beside iteration",
        sizes={"activation": activation, "grid": f"{side} x {side}"},
        contestants={
            "ours": _ours(activation, side, options),
            "numpy, iteration": lambda: _iterated(activation, w, b, _COARSE),
        },
        error=lambda found: float(np.max(np.abs(found.reshape(expected.shape) - expected))),
        tolerance=1e-9,
        n_units=side * side,
        unit="point",
    )


def _large(activation, side, options):
    ours = _ours(activation, side, options)
    w, b = _axes(activation, side)
    some = slice(side // 7, None, side // 3)
    grid = np.meshgrid(w[some], b[some], indexing="ij")
    expected = _iterated(activation, *(axis.reshape(-1) for axis in grid), _FINE)

    def error(found):
        chosen = found[:, some, some].reshape(expected.shape)
        return float(np.max(np.abs(chosen - expected)))

    return harness.Case(
        job="phase_diagram, every field",
        sizes={"activation": activation, "grid": f"{side} x {side}"},
        contestants={"ours": ours},
        error=error,
        tolerance=1e-9,
        n_units=side * side,
        unit="point",
    )


if __name__ == "__main__":
    sys.exit(harness.main("field", make_cases))
