"""Oracles of two-point Gaussian means, for one item: nested adaptive quadrature (QUADPACK)."""

import math
from itertools import pairwise

import numpy as np
from scipy import integrate


def _mean(f, sigma, mean, kinks, epsrel):
    """E f(mean + sigma z), z ~ N(0, 1), over 12 standard deviations cut at the kinks."""
    if sigma == 0:
        return f(mean)
    near = {mean + s * d * sigma for d in (0, 1, 2, 4, 8, 12) for s in (-1, 1)}
    places = near | {s * d for d in (0.5, 1, 2, 4, 8, 16) for s in (-1, 1)} | set(kinks)
    cuts = sorted(x for x in places if abs(x - mean) <= 12 * sigma * (1 + 1e-12))

    def integrand(x):
        density = math.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        return f(x) * density

    return math.fsum(
        integrate.quad(integrand, a, b, epsabs=1e-300, epsrel=epsrel, limit=200)[0]
        for a, b in pairwise(cuts)
    )


def _two_point(f, kinks, q1, q2, complement):
    """E f(u1, u2), u2 given u1 being N(c sqrt(q2 / q1) u1, (1 - c^2) q2), c = 1 - complement."""
    width = math.sqrt(q2 * complement * (2 - complement))
    slant = (1 - complement) * math.sqrt(q2 / q1)

    def given(x):
        return _mean(lambda y: f(x, y), width, slant * x, kinks, 1e-11)

    # The conditional mean bends where its centre passes a kink, over its own width.
    bends = set(kinks)
    if slant != 0:
        bends |= {
            (kink + s * d * width) / slant for kink in kinks for d in (0, 1, 3, 8) for s in (-1, 1)
        }
    return _mean(given, math.sqrt(q1), 0.0, bends, 1e-10)


def two_point_mean(f, kinks, q1, q2, complement):
    """E f(u1) f(u2) for q1, q2 > 0."""
    return _two_point(lambda x, y: f(x) * f(y), kinks, q1, q2, complement)


def decorrelation(phi, dphi, kinks, complement, q):
    """E (phi(u1) - phi(u2))^2 / (2 complement) for q > 0; its limit at 0."""
    if complement == 0:
        return q * _mean(lambda x: dphi(x) ** 2, math.sqrt(q), 0.0, kinks, 1e-12)
    distance = _two_point(lambda x, y: (phi(x) - phi(y)) ** 2, kinks, q, q, complement)
    return distance / (2 * complement)


def two_point_table(coefficients, patches, n_octaves, low_octave, first_log2, q, near, which):
    """K (which = 0) or S (1) of one item from the polynomials of its patch; None without one."""
    distance = abs(near)
    q = min(max(q, 4.0 ** (low_octave + 1)), 4.0 ** (low_octave + n_octaves) / 2)
    scale = math.sqrt(q if distance >= 0.5 else q * (1 - distance))
    place = 0
    while scale >= 2.0 ** (low_octave + place + 1):
        place += 1
    x = 2 * (scale / 2.0 ** (low_octave + place) - 1) - 1
    if distance >= 0.5:
        number, y = place, 4 * (1 - distance) - 1
    else:
        end = 2.0 ** min(low_octave + place, first_log2)
        start, piece, s = 0.0, 0, math.sqrt(q * distance)
        while s >= end:
            start, end, piece = end, 2 * end, piece + 1
        y = 2 * (s - start) / (end - start) - 1
        n_pieces = [2 + max(0, low_octave + i - first_log2) for i in range(place)]
        number = n_octaves + sum(n_pieces) + piece
    if patches[number] < 0:
        return None
    is_negative = math.copysign(1, near) < 0
    terms = coefficients[patches[number], 2 * is_negative + which, :, :20]
    return float(np.polynomial.chebyshev.chebval2d(y, x, terms))
