"""Oracles of the radii: plain NumPy, the shortest correct definition."""

from functools import reduce
from itertools import product

import numpy as np


def spectral_radius(a):
    """Largest modulus of the eigenvalues."""
    return np.abs(np.linalg.eigvals(a)).max()


def _norm(a):
    return np.linalg.norm(a, 2)


def joint_spectral_radius(matrices, length):
    """Bounds from all products of up to `length` matrices, rounding aside.

    Below the largest ``radius(P)**(1/k)``; above the least over k of the largest ``||P||_2**(1/k)``
    (Rota and Strang, A note on the joint spectral radius, 1960).
    """
    lower, upper = 0.0, np.inf
    for k in range(1, length + 1):
        products = [reduce(np.matmul, word) for word in product(matrices, repeat=k)]
        radii, norms = ([f(p) for p in products] for f in (spectral_radius, _norm))
        lower, upper = max(lower, max(radii) ** (1 / k)), min(upper, max(norms) ** (1 / k))
    return lower, upper
