"""Oracles of the moment kernels, for one item: adaptive quadrature of the definition (QUADPACK)."""

import math
from itertools import pairwise

from scipy import integrate


def _mean(f, q, kinks):
    """E f(sqrt(q) z), z ~ N(0, 1), over 16 standard deviations cut where f or the density bends."""
    sigma = math.sqrt(q)
    distances = {0.0, *(sigma * d for d in (1, 2, 4, 8, 16)), 0.5, 1, 2, 4, 8, 16, 32}
    cuts = sorted(x for x in distances | {abs(k) for k in kinks} if x <= 16 * sigma)

    def integrand(x):
        density = math.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        return (f(x) + f(-x)) * density

    return math.fsum(
        integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(cuts)
    )


def _jump(dphi, kink):
    return dphi(math.nextafter(kink, math.inf)) - dphi(math.nextafter(kink, -math.inf))


def _moments_at_zero(phi, dphi, d2phi, kinks):
    right, left = (math.nextafter(0.0, side) for side in (1, -1))
    slope = sum(dphi(x) ** 2 + phi(0.0) * d2phi(x) for x in (left, right)) / 2
    strength = phi(0.0) * _jump(dphi, 0.0)
    curvature2 = math.inf if 0 in kinks and _jump(dphi, 0.0) else d2phi(0.0) ** 2
    return (
        phi(0.0),
        phi(0.0) ** 2,
        dphi(0.0),
        dphi(0.0) ** 2,
        curvature2,
        slope if strength == 0 else math.copysign(math.inf, strength),
    )


def gaussian_moments(phi, dphi, d2phi, kinks, q):
    """E of phi, phi^2, phi', phi'^2, phi''^2 and x phi phi' / q at x = sqrt(q) z for one q >= 0."""
    if q == 0:
        return _moments_at_zero(phi, dphi, d2phi, kinks)
    return (
        _mean(phi, q, kinks),
        _mean(lambda x: phi(x) ** 2, q, kinks),
        _mean(dphi, q, kinks),
        _mean(lambda x: dphi(x) ** 2, q, kinks),
        math.inf
        if any(abs(_jump(dphi, k)) > 1e-8 for k in kinks)
        else _mean(lambda x: d2phi(x) ** 2, q, kinks),
        _mean(lambda x: x * phi(x) * dphi(x), q, kinks) / q,
    )


def variance_map(phi, kinks, q, sigma_w, sigma_b):
    """sigma_w^2 E phi(sqrt(q) z)^2 + sigma_b^2 for one q >= 0."""
    phi2 = phi(0.0) ** 2 if q == 0 else _mean(lambda x: phi(x) ** 2, q, kinks)
    return sigma_w**2 * phi2 + sigma_b**2
