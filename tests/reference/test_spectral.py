"""The norm oracles against closed forms and mpmath."""

import math

import mpmath
import numpy as np
import pytest

from jacometry.reference import spectral as reference


def norm(a):
    """The oracle's value."""
    bounds, exponent = reference.spectral_norm_gram(a)
    assert bounds.shape == (3,)
    assert bounds[0] <= bounds[1] <= bounds[2]
    return math.ldexp(bounds[1], exponent)


def circulant(n=20):
    """The circular convolution [2, 7, -1]."""
    eye = np.eye(n)
    return 2 * np.roll(eye, 1, axis=0) + 7 * eye - np.roll(eye, -1, axis=0)


def test_norm_of_a_rank_one_matrix_is_the_product_of_two_norms(rng):
    x, y = rng.standard_normal(7), rng.standard_normal(4)
    assert norm(np.outer(x, y)) == pytest.approx(np.linalg.norm(x) * np.linalg.norm(y), rel=1e-14)


def test_norm_of_an_orthogonal_matrix_is_one(rng):
    assert norm(np.linalg.qr(rng.standard_normal((9, 9)))[0]) == pytest.approx(1, rel=1e-14)


def test_norm_of_the_published_convolution():
    assert norm(circulant()) == pytest.approx(8.005633637867117, rel=1e-15)


def test_norm_agrees_with_mpmath_at_forty_digits(rng):
    a = rng.standard_normal((5, 4)) * 10.0 ** rng.integers(-8, 8, (5, 1))
    with mpmath.workdps(40):
        sigma = mpmath.svd_r(mpmath.matrix(a.tolist()), compute_uv=False)[0]
    assert norm(a) == pytest.approx(float(sigma), rel=1e-14)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300])
def test_norm_holds_at_any_scale(scale):
    assert norm(np.full((2, 2), scale)) == pytest.approx(2 * scale, rel=1e-15)


def test_lanczos_on_a_rank_one_matrix_has_closed_form_bounds():
    # A = sigma u x^T and one step from v with gamma = x . v: alpha = sigma^2 gamma^2,
    # beta = sigma^2 gamma sqrt(1 - gamma^2), and p_1(t) = (t - alpha) / beta.
    sigma, gamma, delta = 3.0, 0.6, 0.01
    a = sigma * np.outer([0.6, 0.8, 0.0], [1.0, 0.0])
    lower, upper = reference.lanczos_bounds(a, np.array([gamma, 0.8]), -math.log(delta), 1)
    assert lower[0] == pytest.approx(sigma * gamma, rel=1e-14)
    square = sigma**2 * (gamma**2 + gamma * math.sqrt(1 - gamma**2) / delta)
    assert upper[0] == pytest.approx(math.sqrt(square), rel=1e-12)


def test_lanczos_bounds_close_in_on_the_norm(rng):
    a = rng.standard_normal((30, 25))
    lower, upper = reference.lanczos_bounds(a, rng.standard_normal(25), math.log(1e6), 25)
    sigma = norm(a)
    assert (np.diff(lower) >= -1e-13 * sigma).all()
    assert (lower <= sigma * (1 + 1e-14)).all()
    assert (upper >= sigma * (1 - 1e-12)).all()
    assert upper[-1] / lower[-1] == pytest.approx(1, abs=1e-12)


def test_polynomial_of_the_bound_is_the_one_that_makes_the_next_vector(rng):
    # v_{k+1} = p_k(A^T A) v_1 and log p_k = log_level at the bound: check p_k by its action on v_1.
    a = rng.standard_normal((12, 8))
    start = rng.standard_normal(8)
    start /= np.linalg.norm(start)
    eigenvalues, vectors = np.linalg.eigh(a.T @ a)
    # Lanczos vectors by QR of the Krylov matrix in the eigenbasis
    krylov = (vectors.T @ start)[:, None] * eigenvalues[:, None] ** np.arange(4)
    q, _ = np.linalg.qr(krylov)
    # p_3 at the eigenvalues, extrapolated to t by its exact cubic
    p = np.polynomial.Polynomial.fit(eigenvalues, q[:, 3] / (vectors.T @ start), 3)
    _, upper = reference.lanczos_bounds(a, start, math.log(1e4), 3)
    assert abs(p(upper[2] ** 2)) == pytest.approx(1e4, rel=1e-6)
