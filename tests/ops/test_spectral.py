"""spectral_norm: oracle, guarantees and invariances."""

import itertools
import math
from fractions import Fraction

import flint
import numpy as np
import pytest
from common import N_ADVERSARIAL, hard_matrices, orthogonal, with_singular_values
from scipy import linalg, special, stats

from jacometry import _kernels
from jacometry.ops import spectral
from jacometry.ops._norm_bounds import LOWER, PROBABLE_UPPER, VALUE
from jacometry.ops.spectral import spectral_norm
from jacometry.reference import spectral as reference

# one, odd, prime, rectangular, one past every vector width, one past a block of rows
SHAPES = [(1, 1), (2, 2), (3, 5), (5, 3), (1, 9), (9, 1), (7, 7), (17, 16), (31, 33)]
SHAPES += [(65, 20), (64, 64)]
LARGE_SHAPES = [(65, 65), (67, 129), (129, 67), (130, 71)]
VALUE_ERROR = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-10}
FALSE_ALARM = 1e-7


def fourier(n):
    """The real Fourier basis: eigenvectors of every symmetric circulant matrix."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n // 2 + 1)) / n
    basis = np.hstack([np.cos(angle), np.sin(angle)[:, 1 : (n + 1) // 2]])
    return basis / np.linalg.norm(basis, axis=0)


def of_symmetry(rng, basis, multiplicity):
    """One matrix for each vector of the basis: it and the next ones are its top singular ones."""
    n = len(basis)
    left = orthogonal(rng, n + 7)[:, :n]
    sigma = np.r_[np.full(multiplicity, 2.0), rng.uniform(0.1, 1.8, n - multiplicity)]
    return np.array([(left * np.roll(sigma, k)) @ basis.T for k in range(n)])


def with_multiple_norms(rng):
    """Stacks of matrices whose largest singular value is multiple or whose vectors are special."""
    blocks = rng.standard_normal((20, 5, 3))
    repeated = np.array([np.kron(np.eye(8), block) for block in blocks])
    mixed = np.array([orthogonal(rng, 40) @ a @ orthogonal(rng, 24) for a in repeated])
    grids = {
        "unit vectors": np.eye(24),
        "ring": fourier(24),
        "grid 2 x 3 x 4": np.kron(np.kron(fourier(2), fourier(3)), fourier(4)),
        "grid 3 x 4 x 2": np.kron(np.kron(fourier(3), fourier(4)), fourier(2)),
        "walsh 16": linalg.hadamard(16) / 4.0,
        "walsh 64": linalg.hadamard(64) / 8.0,
    }
    return {
        "repeated blocks": repeated,
        "interleaved blocks": np.array([np.kron(block, np.eye(8)) for block in blocks]),
        "mixed blocks": mixed,
        "orthogonal": np.array([orthogonal(rng, 24) for _ in range(20)]),
        **{
            f"{name}, multiplicity {k}": of_symmetry(rng, basis, k)
            for name, basis in grids.items()
            for k in (1, 2, 3)
        },
    }


def oracle(a):
    bounds, exponent = reference.spectral_norm_gram(a)
    return math.ldexp(bounds[1], exponent)


def is_above_norm(s, a):
    """Whether s > ||a||_2, exactly: the leading minors of s^2 I - A^T A are positive."""
    rows = [[Fraction(float(x)) for x in row] for row in a]
    s = Fraction(s)
    scale = max([s.denominator, *(x.denominator for row in rows for x in row)])  # powers of two
    scale = math.lcm(scale, s.denominator)
    matrix = flint.fmpz_mat([[int(x * scale) for x in row] for row in rows])
    gram = (matrix.transpose() * matrix).table()
    for i, row in enumerate(gram):
        for j, x in enumerate(row):
            row[j] = (int(s * scale) ** 2 if i == j else 0) - x
    return all(
        flint.fmpz_mat([row[:k] for row in gram[:k]]).det() > 0 for k in range(1, len(gram) + 1)
    )


def reaches_norm(s, a):
    """Whether s >= ||a||_2, but for 2^-80 of it: the test above is strict."""
    return not a.any() or is_above_norm(Fraction(s) * (1 + Fraction(1, 2**80)), a)


def adversarial(rng, n_matrices):
    """Small matrices with awkward entries: wide exponents, ties, cancellation, subnormals."""
    for _ in range(n_matrices):
        shape = tuple(rng.integers(1, 6, 2))
        kind = rng.integers(7)
        a = rng.standard_normal(shape)
        if kind == 1:
            a = rng.integers(-3, 4, shape).astype(float)
        elif kind == 2:
            a = np.ldexp(a, rng.integers(-500, 500, shape))
        elif kind == 3:
            a = with_singular_values(rng, np.ones(min(shape)), shape)
            a += 1e-15 * rng.standard_normal(shape)
        elif kind == 4:
            a = np.ones(shape) + np.ldexp(1.0, -52) * rng.integers(-2, 3, shape)
        elif kind == 5:
            a = a * 1e-310
        elif kind == 6:
            a = a * 1e307
        yield a


def run_gram(a):
    """The kernel itself, float32 not repeated in float64: lower, value, upper."""
    n_items = len(a)
    bounds, ends = np.empty((3, n_items)), np.empty((3, n_items), a.dtype)
    exponent, status = np.empty(n_items, np.int64), np.empty(n_items, np.intc)
    _kernels.spectral_norm_gram(
        int(a.dtype == np.float64), a, 1.0, bounds, ends, exponent, status, 1
    )
    return np.ldexp(bounds, exponent)


def run_lanczos(a, starts, log_level, max_iter, rtol=1e-300):
    """The kernel itself, its upper bound not capped."""
    n_items, bounds = len(a), np.zeros((len(a), 4))
    exponent, n_iter = np.zeros((2, n_items), np.int64)
    status = np.zeros(n_items, np.intc)
    _kernels.spectral_norm_lanczos(
        int(a.dtype == np.float64), a, starts, rtol, log_level, max_iter, bounds, exponent, n_iter,
        status, 1,
    )  # fmt: skip
    return np.ldexp(bounds, exponent[:, None]), n_iter


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_value_agrees_with_the_oracle_on_hard_spectra(isa, dtype, shape, rng):
    named = hard_matrices(rng, shape)
    a = np.array(list(named.values())).astype(dtype)
    result = spectral_norm(a, method="gram")
    assert result.value.dtype == dtype
    assert result.converged.all()
    assert result.lower_certain.all()
    assert result.upper_certain.all()
    for i, name in enumerate(named):
        exact = oracle(a[i])
        assert float(result.value[i]) == pytest.approx(exact, rel=VALUE_ERROR[dtype]), name
        slack = 4 * np.finfo(float).eps * exact * max(shape)  # of the oracle
        assert float(result.lower[i]) <= exact + slack, name
        assert float(result.upper[i]) >= exact - slack, name


def test_gram_is_tight_whatever_the_multiplicity_and_the_symmetry(isa, dtype, rng):
    # The kernel's head: with k <= 2 n roundings in an entry of G, squares are off by n (n + 4) u
    # and n k u on either side, theta by up to 64 (n + 4) u: halved, below 4 (n + 4)^2 u from n = 16
    u = np.finfo(dtype).eps / 2
    for name, a in with_multiple_norms(rng).items():
        a = np.ascontiguousarray(a.astype(dtype))
        exact = np.linalg.svd(a.astype(float), compute_uv=False)[:, 0]
        slack = 4 * np.finfo(float).eps * max(a.shape[1:]) * exact  # of the oracle
        lower, value, upper = run_gram(a)
        assert (lower <= exact + slack).all(), name
        assert (upper >= exact - slack).all(), name
        assert ((lower <= value) & (value <= upper)).all(), name
        assert (upper / lower - 1 <= 4 * (a.shape[2] + 4) ** 2 * u).all(), name


@pytest.mark.parametrize("shape", SHAPES + LARGE_SHAPES)
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_lanczos_bounds_hold_on_hard_spectra_and_rtol_is_met(isa, dtype, shape, rtol, rng):
    named = hard_matrices(rng, shape)
    a = np.array(list(named.values())).astype(dtype)
    result = spectral_norm(a, method="lanczos", rtol=rtol, rng=rng)
    assert result.value.dtype == dtype
    assert result.lower_certain.all()
    for i, name in enumerate(named):
        exact = oracle(a[i])
        slack = 4 * np.finfo(float).eps * exact * max(shape)
        assert float(result.lower[i]) <= exact + slack, name
        assert float(result.upper[i]) >= exact - slack, name
        assert result.converged[i], name
        assert result.rtol[i] <= rtol * (1 + 1e-6), name


@pytest.mark.parametrize("n_steps", [1, 2, 5, 12])
def test_lanczos_agrees_with_the_textbook_oracle(isa, dtype, n_steps, rng):
    a = rng.standard_normal((1, 40, 30)).astype(dtype)
    starts = rng.standard_normal((1, 30))
    log_level = math.log(1e4)
    bounds, n_iter = run_lanczos(a, starts, log_level, n_steps)
    lower, upper = reference.lanczos_bounds(a[0].astype(float), starts[0], log_level, n_steps)
    assert n_iter[0] == n_steps
    # The inflation of the upper bound for rounding, (k_row + k_column) u cap^2, is all but a few u
    # of it; Newton's method stops above the root by 2^-20 of its distance from the Ritz value.
    tolerance = 400 * 40 * float(np.finfo(dtype).eps)
    best = upper.min()
    tolerance_above = tolerance + 2.0**-20 * best / lower[-1]
    assert bounds[0, LOWER] == pytest.approx(lower[-1], rel=tolerance)
    assert bounds[0, PROBABLE_UPPER] >= best * (1 - 1e-13)
    assert bounds[0, PROBABLE_UPPER] <= best * (1 + tolerance_above)


def test_certain_bounds_hold_on_adversarial_matrices_in_exact_arithmetic(isa, rng):
    for i, a in enumerate(adversarial(rng, N_ADVERSARIAL)):
        for method in ("gram", "lanczos") if i % 4 == 0 else ("gram",):
            result = spectral_norm(a, method=method, rng=rng)
            assert np.isfinite(result.lower)
            assert not is_above_norm(float(result.lower), a), (method, a)
            if method == "gram" and np.isfinite(result.upper):
                assert result.upper_certain
                assert reaches_norm(float(result.upper), a), a


def test_certain_bounds_of_float32_hold_in_exact_arithmetic(isa, rng):
    for a in adversarial(rng, N_ADVERSARIAL // 5):
        with np.errstate(over="ignore", under="ignore"):
            a = a.astype(np.float32)
        if not np.isfinite(a).all():
            continue
        result = spectral_norm(a, method="gram")
        assert not is_above_norm(float(result.lower), a), a
        if np.isfinite(result.upper):
            assert reaches_norm(float(result.upper), a), a


def test_gram_bounds_are_narrow(isa, rng):
    a = rng.standard_normal((50, 16, 16))
    assert np.median(spectral_norm(a).rtol) < 1e-13
    assert spectral_norm(a.astype(np.float32)).rtol.max() < 1e-4


@pytest.mark.parametrize(("failure_prob", "n_runs"), [(0.1, 832), (0.01, 9628)])
def test_upper_bound_fails_exactly_as_often_as_promised_at_rank_one(failure_prob, n_runs, rng):
    # One step on a rank-one matrix: t* = alpha + beta / delta < sigma^2 if and only if
    # gamma^2 < delta^2 / (1 + delta^2), gamma^2 ~ Beta(1/2, (n - 1)/2).  The cap is not applied.
    n = 20
    x, y = rng.choice([-1.0, 1.0], 30), rng.choice([-1.0, 1.0], n)
    a = np.broadcast_to(np.outer(x, y), (n_runs, 30, n)).copy()
    sigma = np.linalg.norm(x) * np.linalg.norm(y)
    log_level = spectral._log_level(n, failure_prob)
    starts = rng.standard_normal((n_runs, n))
    bounds, _ = run_lanczos(a, starts, log_level, 1)
    delta_square = math.exp(-2 * log_level)
    law = special.betainc(0.5, (n - 1) / 2, delta_square / (1 + delta_square))
    assert law <= failure_prob
    n_failures = int((bounds[:, PROBABLE_UPPER] < sigma).sum())
    test = stats.binom(n_runs, law)
    assert test.cdf(n_failures) > FALSE_ALARM / 2
    assert test.sf(n_failures - 1) > FALSE_ALARM / 2
    # the statistic itself: the lower bound is sigma |gamma|, or the largest entry if that is more
    gamma_square = (bounds[:, LOWER] / sigma) ** 2
    largest = 1 / sigma
    seen = gamma_square[gamma_square > largest**2 * (1 + 1e-12)]
    assert len(seen) > n_runs / 2
    beta = stats.beta(0.5, (n - 1) / 2)
    below = beta.cdf(largest**2)
    assert stats.kstest(seen, lambda t: (beta.cdf(t) - below) / (1 - below)).pvalue > FALSE_ALARM


@pytest.mark.parametrize("n", [2, 3, 20, 1000])
@pytest.mark.parametrize("failure_prob", [0.5, 1e-3, 1e-9, 1e-19, 1e-21, 1e-300])
def test_level_of_the_bound_has_the_stated_probability(n, failure_prob):
    level = spectral._log_level(n, failure_prob)
    if failure_prob > 1e-18:
        law = special.betainc(0.5, (n - 1) / 2, math.exp(-2 * level))
        assert law == pytest.approx(failure_prob, rel=1e-12)
    else:
        leading = math.log(2) - level - special.betaln(0.5, (n - 1) / 2)
        assert leading == pytest.approx(math.log(failure_prob), abs=1e-9)


def test_published_numbers_of_hochstenbachs_bound(rng):
    # n = 300 Gaussian, failure probability 1e-3, 20 steps: about 0.9985 and 1.018, at most 1.026,
    # depending on the draw
    n_draws, n = 8, 300
    a = rng.standard_normal((n_draws, n, n))
    starts = rng.standard_normal((n_draws, n))
    bounds, n_iter = run_lanczos(a, starts, spectral._log_level(n, 1e-3), 20)
    sigma = np.sqrt([np.linalg.eigvalsh(item.T @ item)[-1] for item in a])
    lower, upper = (bounds[:, [LOWER, PROBABLE_UPPER]] / sigma[:, None]).T
    assert (n_iter == 20).all()
    assert lower.mean() == pytest.approx(0.999, abs=1.5e-3)
    assert upper.mean() == pytest.approx(1.018, abs=6e-3)
    assert (lower <= 1).all()
    assert (upper >= 1).all()
    assert (upper < 1.026).all()


def test_lanczos_is_within_the_tail_of_kuczynski_and_wozniakowski(rng):
    # P(theta_k < (1 - eps) lambda_1) <= 1.648 sqrt(n) exp(-sqrt(eps) (2 k - 1)), for any spectrum
    n, n_runs, eps = 30, 2000, 0.1
    spectra = [np.linspace(0, 1, n), 1 - (np.arange(n) / n) ** 2, np.r_[1.0, np.full(n - 1, 0.85)]]
    for spectrum in spectra:
        a = np.broadcast_to(np.diag(np.sqrt(spectrum)), (n_runs, n, n)).copy()
        starts = rng.standard_normal((n_runs, n))
        for n_steps in (6, 8, 10):
            bounds, _ = run_lanczos(a, starts, 20.0, n_steps)
            n_failures = int((bounds[:, VALUE] ** 2 < 1 - eps).sum())
            law = min(1.0, 1.648 * math.sqrt(n) * math.exp(-math.sqrt(eps) * (2 * n_steps - 1)))
            assert stats.binom(n_runs, law).sf(n_failures - 1) > FALSE_ALARM


def test_gram_iteration_agrees(rng):
    # Delattre et al. 2023: ||G_t||_F^(2^-t) >= sigma, G_0 = A, G_{t+1} = G_t^T G_t
    a = rng.standard_normal((20, 12, 12))
    result, gram = spectral_norm(a), a
    for t in range(8):
        above = np.linalg.norm(gram, axis=(1, 2)) ** (2.0**-t)
        assert (above * (1 + 1e-12) >= result.lower).all()
        gram = np.swapaxes(gram, 1, 2) @ gram
    # the last is within 12^(1/2 / 2^7) of sigma
    assert (above <= result.upper * 12 ** (0.5 / 128) * (1 + 1e-12)).all()


def test_norm_of_the_published_convolution(isa, dtype):
    eye = np.eye(20)
    a = (2 * np.roll(eye, 1, axis=0) + 7 * eye - np.roll(eye, -1, axis=0)).astype(dtype)
    for method in ("gram", "lanczos", "svd"):
        result = spectral_norm(a, method=method, rtol=1e-6, rng=0)
        assert float(result.value) == pytest.approx(8.005633637867117, rel=1e-6)
        assert result.lower <= 8.005633637867117 <= result.upper


@pytest.mark.parametrize("method", ["gram", "lanczos"])
@pytest.mark.parametrize("power", [-1, 1])
def test_bounds_scale_by_powers_of_two_bit_for_bit(isa, dtype, method, power, rng):
    shift = power * (900 if dtype == np.float64 else 100)
    a = rng.standard_normal((9, 23, 17)).astype(dtype)
    plain = spectral_norm(a, method=method, rng=1)
    scaled = spectral_norm(np.ldexp(a, shift), method=method, rng=1)
    for name in ("lower", "value", "upper"):
        assert (np.ldexp(getattr(plain, name), shift) == getattr(scaled, name)).all(), name
    assert (plain.n_iter == scaled.n_iter).all()


@pytest.mark.parametrize("method", ["gram", "lanczos"])
def test_transpose_has_the_same_norm(isa, dtype, method, rng):
    a = rng.standard_normal((5, 19, 33)).astype(dtype)
    one = spectral_norm(a, method=method, rng=1)
    other = spectral_norm(np.swapaxes(a, 1, 2), method=method, rng=1)
    for name in ("lower", "value", "upper"):
        assert (getattr(one, name) == getattr(other, name)).all()
    square = rng.standard_normal((5, 21, 21)).astype(dtype)
    one, other = spectral_norm(square), spectral_norm(np.swapaxes(square, 1, 2))
    np.testing.assert_allclose(one.value, other.value, rtol=VALUE_ERROR[dtype])


def test_permuted_rows_have_the_same_norm(isa, dtype, rng):
    a = rng.standard_normal((30, 20)).astype(dtype)
    one, other = spectral_norm(a), spectral_norm(a[rng.permutation(30)])
    assert float(one.value) == pytest.approx(float(other.value), rel=VALUE_ERROR[dtype])


@pytest.mark.parametrize("method", ["gram", "lanczos"])
def test_spectral_norm_does_not_depend_on_threads(isa, dtype, method, rng):
    a = rng.standard_normal((203, 24, 24)).astype(dtype)
    one = spectral_norm(a, method=method, rng=1, n_threads=1)
    four = spectral_norm(a, method=method, rng=1, n_threads=4)
    for name in ("lower", "value", "upper", "n_iter"):
        assert (getattr(one, name) == getattr(four, name)).all(), name


def test_gram_does_not_depend_on_how_the_batch_is_split(isa, dtype, rng):
    a = np.array(list(hard_matrices(rng, (21, 13)).values())).astype(dtype)
    whole = spectral_norm(a)
    for i in range(len(a)):
        alone = spectral_norm(a[i])
        for name in ("lower", "value", "upper"):
            assert getattr(alone, name) == getattr(whole, name)[i], (name, i)


def test_a_poisoned_neighbour_changes_nothing(isa, dtype, rng):
    a = rng.standard_normal((11, 9, 9)).astype(dtype)
    clean = spectral_norm(a)
    a[4, 2, 2] = np.nan
    poisoned = spectral_norm(a, check_finite=False)
    others = np.arange(11) != 4
    assert np.isnan(poisoned.value[4])
    assert np.isnan(poisoned.upper[4])
    assert not poisoned.converged[4]
    assert (poisoned.value[others] == clean.value[others]).all()
    assert (poisoned.upper[others] == clean.upper[others]).all()


def test_lanczos_gives_each_item_its_own_row_of_start_vectors(isa, rng):
    a = rng.standard_normal((6, 70, 40))
    starts = rng.standard_normal((6, 40))
    together, _ = run_lanczos(a, starts, 20.0, 10)
    for i in range(6):
        alone, _ = run_lanczos(a[i : i + 1], starts[i : i + 1], 20.0, 10)
        assert (alone[0] == together[i]).all()


@pytest.mark.parametrize("method", ["gram", "lanczos", "svd"])
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-300, 1e-160, 1e160, 1e300, 1.7e308])
def test_any_scale_is_safe(isa, method, scale):
    shape = (6, 4)
    result = spectral_norm(np.full(shape, scale), method=method, rng=0)
    log_norm = math.log(scale) + math.log(24) / 2
    assert result.log_lower <= log_norm + 1e-13 * abs(log_norm)
    assert result.log_upper >= log_norm - 1e-13 * abs(log_norm)
    assert result.log_upper - result.log_lower < 1e-10
    assert result.lower <= result.value <= result.upper
    assert result.converged
    if scale > 1e308:
        assert result.upper == np.inf
        assert result.lower == np.finfo(float).max


def test_float32_is_rounded_outward(isa, rng):
    a = rng.standard_normal((40, 5, 5)).astype(np.float32)
    narrow = spectral_norm(a, rtol=1e-6)
    wide = spectral_norm(a.astype(np.float64))
    assert narrow.value.dtype == np.float32
    assert (narrow.lower <= wide.lower).all()
    assert (narrow.upper >= wide.upper).all()
    assert narrow.converged.all()


def test_rtol_beyond_float32_is_reported_as_not_reached():
    result = spectral_norm(np.array([[3.0, 1.0], [1.0, 2.0]], np.float32), rtol=1e-9)
    assert not result.converged
    assert 1e-9 < result.rtol < 3e-7


def test_roundings_to_float32_are_paid_for_in_the_bounds(isa, rng):
    # At rtol 1e-2 the products are those of A rounded to float32.  Entries one bit below the middle
    # of two float32 numbers are all rounded down, entries one above all up: at rank one the norm
    # moves by half a unit of float32 for each.
    for side in (-1, 1):
        a = np.full((513, 512), 1 + 2.0**-24 + side * 2.0**-50)
        exact = math.sqrt(513 * 512) * a[0, 0]
        result = spectral_norm(a, method="lanczos", rng=rng)
        assert result.lower <= exact * (1 - 1e-15)
        assert result.upper >= exact * (1 + 1e-15)
        assert result.converged
        tight = spectral_norm(a, method="lanczos", rtol=1e-9, rng=rng)
        assert tight.converged
        assert result.lower <= tight.upper
        assert tight.lower <= result.upper


def test_max_iter_reached_first_is_reported_with_bounds_that_hold(isa, rng):
    a = rng.standard_normal((80, 80))
    result = spectral_norm(a, method="lanczos", rtol=1e-8, max_iter=3, rng=rng)
    assert not result.converged
    assert result.n_iter == 3
    assert result.lower <= np.linalg.norm(a, 2) <= result.upper


def test_smaller_rtol_gives_an_interval_inside(isa, rng):
    a = rng.standard_normal((90, 80))
    bounds = [spectral_norm(a, rtol=r, rng=1, method="lanczos") for r in (1e-1, 1e-2, 1e-4, 1e-8)]
    for wide, narrow in itertools.pairwise(bounds):
        assert narrow.upper <= wide.upper * (1 + 1e-12)
        assert narrow.lower >= wide.lower * (1 - 1e-12)
        assert narrow.n_iter >= wide.n_iter


def test_exact_breakdown_ends_the_iteration(isa, dtype):
    result = spectral_norm(np.eye(80, 70, dtype=dtype), method="lanczos", rng=0)
    assert result.converged
    assert float(result.value) == pytest.approx(1, rel=1e-6)
