"""Oracles of the moment kernels, for one item: adaptive quadrature of the definition (QUADPACK)."""

import math
from itertools import pairwise

from scipy import integrate


def _mean(f, q, kinks):
    """E f(sqrt(q) z), z ~ N(0, 1), over 16 standard deviations cut where f or the density bends."""
    sigma = math.sqrt(q)
    distances = {0.0, *(sigma * d for d in (1, 2, 4, 8, 16)), 0.5, 1, 2, 4, 8, 16, 32}
    places = {s * d for d in distances for s in (-1, 1)} | set(kinks)
    cuts = sorted(x for x in places if abs(x) <= 16 * sigma)

    def integrand(x):
        return f(x) * math.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))

    return math.fsum(
        integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(cuts)
    )


def gaussian_moments(phi, dphi, d2phi, kinks, q):
    """E of phi, phi^2, phi', phi'^2, phi''^2 at sqrt(q) z for one q >= 0."""
    if q == 0:
        curvature2 = math.inf if 0 in kinks else d2phi(0.0) ** 2
        return phi(0.0), phi(0.0) ** 2, dphi(0.0), dphi(0.0) ** 2, curvature2
    return (
        _mean(phi, q, kinks),
        _mean(lambda x: phi(x) ** 2, q, kinks),
        _mean(dphi, q, kinks),
        _mean(lambda x: dphi(x) ** 2, q, kinks),
        math.inf if kinks else _mean(lambda x: d2phi(x) ** 2, q, kinks),
    )


def variance_map(phi, kinks, q, sigma_w, sigma_b):
    """sigma_w^2 E phi(sqrt(q) z)^2 + sigma_b^2 for one q >= 0."""
    phi2 = phi(0.0) ** 2 if q == 0 else _mean(lambda x: phi(x) ** 2, q, kinks)
    return sigma_w**2 * phi2 + sigma_b**2
