"""Norms of operators, sparse matrices and chains: truth, guarantees, hostile operators."""

import math
from fractions import Fraction

import numpy as np
import pytest
from common import hard_matrices, orthogonal, with_singular_values
from scipy import sparse, special, stats
from scipy.sparse.linalg import LinearOperator, aslinearoperator, splu, svds

import jacometry as jm
from jacometry import spectral_norm
from jacometry.factors import Factor, Operator
from jacometry.ops._golub_kahan import Bidiagonalisation, probable_upper
from jacometry.ops._operator_products import gamma, read_operator
from jacometry.ops.spectral import _log_level
from jacometry.reference import spectral as reference

SHAPES = [(1, 1), (1, 5), (7, 1), (3, 5), (17, 16), (31, 33), (70, 65), (65, 129), (100, 100)]
FALSE_ALARM = 1e-7


KINDS = {
    "operator": aslinearoperator,
    "sparse": sparse.coo_array,
    "chain": lambda a: jm.Chain([a]),
    "factor": jm.Dense,
}


def norm(a):
    """Of a transposed copy: other arithmetic than any product's."""
    return np.linalg.svd(np.ascontiguousarray(a.T), compute_uv=False)[0]


def assert_encloses(bounds, exact, shape, name=""):
    """lower <= exact <= upper, but for what LAPACK may be off."""
    slack = 4 * np.finfo(float).eps * max(shape) * exact
    assert float(bounds.lower) <= exact + slack, name
    assert float(bounds.upper) >= exact - slack, name
    assert bounds.lower <= bounds.value <= bounds.upper, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["auto", "lanczos", "gram", "svd"])
def test_bounds_hold_on_hard_spectra_and_rtol_is_met(kind, shape, method, rng):
    for name, a in hard_matrices(rng, shape).items():
        for rtol in (1e-2, 1e-6):
            found = spectral_norm(KINDS[kind](a), method=method, rtol=rtol, rng=rng)
            assert_encloses(found, norm(a), shape, name)
            assert found.converged, name
            assert found.rtol <= rtol, name
            assert found.method == (method if method != "auto" else found.method)
            assert np.exp(found.log_lower) == pytest.approx(float(found.lower), rel=1e-12)
            assert np.exp(found.log_upper) == pytest.approx(float(found.upper), rel=1e-12)


@pytest.mark.parametrize("kind", ["operator", "sparse", "chain"])
def test_float32_is_reported_in_float32_and_outward(kind, rng):
    a = rng.standard_normal((90, 80)).astype(np.float32)
    found = spectral_norm(KINDS[kind](a), rng=rng, rtol=1e-3)
    assert found.value.dtype == found.upper.dtype == np.float32
    assert found.converged
    assert_encloses(found, norm(a.astype(float)), a.shape)


def test_an_exhausted_bidiagonalisation_has_all_singular_values(rng):
    a = rng.standard_normal((9, 6))
    run = Bidiagonalisation(
        lambda x: ((a @ x.T).T, np.zeros(1, int)),
        lambda y: ((a.T @ y.T).T, np.zeros(1, int)),
        a.shape,
        rng.standard_normal((1, 6)),
        keep_left=True,
    )
    for _ in range(6):
        run.step()
    values = np.linalg.svd(run.bidiagonals()[0], compute_uv=False)
    values = np.ldexp(values, run.exponent[0])
    np.testing.assert_allclose(values, np.linalg.svd(a, compute_uv=False), rtol=1e-13)
    x = np.eye(6)[None, 2]
    basis = np.array([run.right_vectors(np.eye(6)[None, i])[0] for i in range(6)])
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-14)
    assert run.right_vectors(x).shape == (1, 6)


@pytest.mark.parametrize("keep_left", [False, True])
@pytest.mark.parametrize("n_steps", [1, 2, 5, 12])
def test_the_upper_bound_is_the_textbook_one(rng, n_steps, keep_left):
    """Against Lanczos on A^T A with its dense eigenvalues and bracketing."""
    a, start, level = rng.standard_normal((30, 20)), rng.standard_normal(20), 20.0
    run = Bidiagonalisation(
        lambda x: ((a @ x.T).T, np.zeros(1, int)),
        lambda y: ((a.T @ y.T).T, np.zeros(1, int)),
        a.shape,
        start[None],
        keep_left=keep_left,
    )
    for _ in range(n_steps):
        run.step()
    values = np.linalg.svd(run.bidiagonals(), compute_uv=False)
    upper = probable_upper(values, run.alphas, run.betas, level)[0]
    lower, expected = reference.lanczos_bounds(a, start, level, n_steps)
    assert math.ldexp(upper, int(run.exponent[0])) == pytest.approx(expected[-1], rel=1e-9)
    assert math.ldexp(values[0, 0], int(run.exponent[0])) == pytest.approx(lower[-1], rel=1e-12)


def test_the_upper_bound_fails_as_often_as_asked_at_rank_one(rng):
    """One step at rank one: ``t = gamma^2 + gamma sqrt(1 - gamma^2) / delta`` is below 1 exactly
    where the start's angle to the top vector has a cotangent of less than delta.

    Two-sided: the failures are binomial.
    """
    n, delta, n_draws = 20, 0.1, 2 * 832
    failure_prob = special.betainc(0.5, (n - 1) / 2, delta**2)
    assert _log_level(n, failure_prob) == pytest.approx(-math.log(delta), rel=1e-9)
    exact = special.betainc(0.5, (n - 1) / 2, delta**2 / (1 + delta**2))
    e, f = orthogonal(rng, n)[:2]
    a = aslinearoperator(np.outer(e, f))
    one_step = {"method": "lanczos", "max_iter": 1, "check_adjoint": False}
    n_failures = sum(
        spectral_norm(a, failure_prob=failure_prob, rng=rng, **one_step).upper < 1
        for _ in range(n_draws)
    )
    low, high = stats.binom.interval(1 - 2 * FALSE_ALARM, n_draws, exact)
    assert low <= n_failures <= high


def test_a_breakdown_is_no_failure(rng):
    """At rank one the second remainder is rounding, and the bound closes for any start."""
    e, f = orthogonal(rng, 30)[:2]
    a = aslinearoperator(np.outer(e, f))
    for _ in range(200):
        found = spectral_norm(a, method="lanczos", rng=rng, rtol=1e-6)
        assert found.lower <= 1 + 1e-15
        assert found.upper >= 1 - 1e-15
        assert found.converged
        assert found.n_iter <= 3


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300, 5e-324])
@pytest.mark.parametrize("kind", ["operator", "sparse", "chain"])
@pytest.mark.parametrize("size", [20, 80])
def test_any_scale(kind, scale, size, rng):
    a = with_singular_values(rng, np.linspace(0.1, 1, size), (size, size))
    with np.errstate(under="ignore"):
        a = a * scale if scale > 1e-323 else np.where(np.abs(a) > 0.1, scale, 0.0)
    exact = norm(np.ldexp(a, 1000 if scale < 1 else -1000))
    found = spectral_norm(KINDS[kind](a), rng=rng)
    log = math.log(exact) + (-1000 if scale < 1 else 1000) * math.log(2)
    assert found.log_lower <= log + 1e-12
    assert found.log_upper >= log - 1e-12
    assert found.log_upper - found.log_lower <= 0.01


def test_powers_of_two_scale_the_bounds_exactly(rng):
    a = rng.standard_normal((80, 70))
    for make in (aslinearoperator, sparse.csr_array, lambda x: jm.Chain([x])):
        one, two = (spectral_norm(make(x), rng=5) for x in (a, np.ldexp(a, 40)))
        assert two.lower == np.ldexp(one.lower, 40)
        assert two.upper == np.ldexp(one.upper, 40)


@pytest.mark.parametrize("n", [5, 70])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_logs_of_a_deep_chain_hold_where_values_do_not(n, scale, rng):
    """Q_k diag(sigma) Q_{k-1}^T, 400 layers: the norm is scale^400 exactly, but for rounding."""
    n_layers = 400
    sigma = scale * np.linspace(1, 0.5, n)
    q = [orthogonal(rng, n) for _ in range(n_layers + 1)]
    chain = jm.Chain([(q[k + 1] * sigma) @ q[k].T for k in range(n_layers)])
    found = spectral_norm(chain, rng=rng, rtol=1e-6)
    exact = n_layers * math.log(scale)
    rounding = n_layers * 16 * n * np.finfo(float).eps
    assert found.log_lower <= exact + rounding
    assert found.log_upper >= exact - rounding
    assert found.log_upper - found.log_lower <= 2e-6
    assert found.converged
    assert (found.upper == np.inf) == (scale > 1)
    assert float(found.lower) == (np.finfo(float).max if scale > 1 else 0.0)


def test_a_chain_of_samples_has_one_norm_each(rng):
    weights, slopes = rng.standard_normal((3, 80, 80)), rng.standard_normal((4, 80))
    slopes[2] = 0
    chain = jm.Chain([weights[0], jm.Diagonal(slopes), weights[1]])
    for method in ("lanczos", "gram", "svd"):
        found = spectral_norm(chain, method=method, rng=rng, rtol=1e-4)
        assert found.value.shape == (4,)
        for i in range(4):
            exact = norm(weights[1] @ np.diag(slopes[i]) @ weights[0])
            assert found.lower[i] <= exact * (1 + 1e-13)
            assert found.upper[i] >= exact * (1 - 1e-13)
        assert found.converged.all()
        assert found.upper[2] == 0
        assert found.log_upper[2] == -np.inf
    values = jm.smallest_singular_value(chain)
    assert values.value.shape == (4,)
    assert values.value[2] == 0


def test_sparse_bounds_are_certain_where_the_cap_is_the_norm():
    found = spectral_norm(sparse.diags_array(np.arange(1.0, 101.0)), rng=0)
    assert found.upper_certain
    assert found.lower_certain
    assert found.failure_prob == 0
    assert found.lower <= 100 <= found.upper
    ones = spectral_norm(sparse.coo_array(np.ones((70, 90))), rng=0, method="lanczos")
    assert ones.upper_certain
    assert ones.lower <= math.sqrt(6300) <= ones.upper


def is_above_norm(s, a):
    """Whether s > ||a||_2, exactly: the pivots of s^2 I - A^T A are positive."""
    rows = [[Fraction(float(x)) for x in row] for row in a]
    n = len(rows[0])
    gram = [[sum(row[i] * row[j] for row in rows) for j in range(n)] for i in range(n)]
    matrix = [[(s * s if i == j else 0) - gram[i][j] for j in range(n)] for i in range(n)]
    for k in range(n):
        if matrix[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            factor = matrix[i][k] / matrix[k][k]
            for j in range(k + 1, n):
                matrix[i][j] -= factor * matrix[k][j]
    return True


def adversarial(rng, n_matrices):
    """Small matrices with awkward entries: wide exponents, ties, cancellation, subnormals."""
    for _ in range(n_matrices):
        shape = tuple(rng.integers(1, 5, 2))
        kind = rng.integers(6)
        a = rng.standard_normal(shape)
        if kind == 1:
            a = rng.integers(-3, 4, shape).astype(float)
        elif kind == 2:
            a = np.ldexp(a, rng.integers(-60, 60, shape))
        elif kind == 3:
            a = with_singular_values(rng, np.ones(min(shape)), shape)
            a += 1e-15 * rng.standard_normal(shape)
        elif kind == 4:
            a = np.ones(shape) + np.ldexp(1.0, -52) * rng.integers(-2, 3, shape)
        elif kind == 5:
            a = a * 1e-310
        yield a


def test_bounds_of_sparse_matrices_hold_against_exact_arithmetic(rng):
    """Awkward small matrices, without the direct method: both bounds, and the certain cap."""
    shade = 1 + Fraction(1, 2**80)  # the exact test is strict
    for a in adversarial(rng, 1000):
        found = spectral_norm(sparse.csr_array(a), method="lanczos", rng=rng)
        assert found.lower_certain
        if not a.any():
            assert found.upper == 0
            continue
        assert found.lower == 0 or not is_above_norm(Fraction(float(found.lower)) / shade, a)
        assert is_above_norm(Fraction(float(found.upper)) * shade, a)
        products = read_operator(sparse.csr_array(a), rng=rng)
        assert is_above_norm(Fraction(products.cap) * Fraction(2) ** products.scale * shade, a)


def test_duplicate_entries_are_added_and_the_input_is_left_alone():
    a = sparse.coo_array(([1.0, 2.0, 3.0], ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    assert float(spectral_norm(a)) == pytest.approx(3)
    csr = sparse.csr_array(
        (np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2, 2])), shape=(2, 2)
    )
    assert float(spectral_norm(csr)) == pytest.approx(3)
    assert csr.nnz == 2
    for dtype in (np.int8, bool):
        found = spectral_norm(sparse.csr_array(np.eye(3, dtype=dtype)))
        assert found.value.dtype == np.float64
        assert float(found) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_operators_have_norm_zero(kind, shape):
    if kind in ("chain", "factor") or shape:
        a = KINDS[kind](np.zeros(shape)) if kind != "sparse" else sparse.csr_array(shape)
    for function in (spectral_norm, jm.smallest_singular_value, jm.frobenius_norm):
        found = function(a)
        assert found.lower == found.upper == 0
        assert found.log_upper == -np.inf
        assert found.converged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (80, 70)])
def test_zero_operators_have_norm_zero(kind, shape):
    a = KINDS[kind](np.zeros(shape))
    for function in (spectral_norm, jm.smallest_singular_value, jm.frobenius_norm):
        found = function(a)
        assert (found.lower, found.value, found.upper) == (0, 0, 0)
        assert found.converged
    assert jm.condition_number(a).value == np.inf


def test_steps_used_up_are_reported():
    a = sparse.diags_array(np.linspace(0.99, 1, 1000) * (1 + np.arange(1000) % 2))
    found = spectral_norm(aslinearoperator(a), max_iter=3, rtol=1e-8, rng=0)
    assert found.n_iter == 3
    assert not found.converged
    assert found.rtol > 1e-8
    assert found.lower <= 2 <= found.upper


def test_a_declared_error_widens_the_bounds(rng):
    """A matrix off by relative 1e-4 in each product: the bounds of the declared error hold."""
    n, declared = 80, 1e-4
    a = rng.standard_normal((n, n))
    exact = norm(a)

    def noisy(matrix):
        def product(x):
            y = matrix @ x
            noise = rng.standard_normal(n)
            return y + declared * exact * np.linalg.norm(x) * noise / np.linalg.norm(noise)

        return product

    operator = LinearOperator((n, n), matvec=noisy(a), rmatvec=noisy(a.T), dtype=float)
    for _ in range(20):
        found = spectral_norm(operator, matvec_rtol=declared, rng=rng)
        assert found.lower <= exact <= found.upper
        assert found.converged
    with pytest.raises(ValueError, match=r"a.rmatvec must be the transpose.*matvec_rtol"):
        spectral_norm(operator, rng=rng)


class _Duck:
    """What is no LinearOperator but has its methods."""

    def __init__(self, a):
        self.a, self.shape, self.dtype = a, a.shape, a.dtype

    def matvec(self, x):
        return self.a @ x

    def rmatvec(self, y):
        return self.a.T @ y


class _OwnFactor(Factor):
    """A user's layer; its vjp wrong if asked."""

    def __init__(self, a, back):
        self.a, self.back, self.shape = a, back, a.shape

    def jvp(self, tangent):
        return tangent @ self.a.T

    def vjp(self, cotangent):
        return cotangent @ self.back


def test_duck_typed_operators_and_factors_of_users(rng):
    a = rng.standard_normal((70, 80))
    assert_encloses(spectral_norm(_Duck(a), rng=rng), norm(a), a.shape)
    chain = jm.Chain([_OwnFactor(a, a), jm.Residual([Operator(sparse.eye_array(70))], scale=1.0)])
    assert_encloses(spectral_norm(chain, rng=rng), 2 * norm(a), a.shape)


@pytest.mark.parametrize("n", [1, 3, 80])
def test_an_inconsistent_adjoint_is_named(n, rng):
    a = rng.standard_normal((n, n)) if n > 1 else np.ones((1, 1))
    wrong = a.copy()
    wrong[-1, 0] *= 1 + 1e-6  # of one entry in n^2
    bad = LinearOperator((n, n), matvec=lambda x: a @ x, rmatvec=lambda y: wrong.T @ y, dtype=float)
    for function in (
        spectral_norm,
        jm.smallest_singular_value,
        jm.condition_number,
        jm.frobenius_norm,
    ):
        with pytest.raises(ValueError, match=r"a\.rmatvec must be the transpose of matvec"):
            function(bad, rng=rng)
    spectral_norm(bad, check_adjoint=False, rng=rng)
    with pytest.raises(ValueError, match=r"a.factors\[1\].vjp must be the transpose of jvp"):
        spectral_norm(jm.Chain([a, _OwnFactor(a, wrong)]), rng=rng)
    with pytest.raises(ValueError, match=r"a.factors\[1\].chain.factors\[0\].vjp must be the tra"):
        spectral_norm(jm.Chain([a, jm.Residual([_OwnFactor(a, wrong)])]).repeat(3), rng=rng)


def test_a_right_adjoint_is_never_refused(rng):
    """Well- and ill-scaled operators of many sizes, float32 too."""
    for shape in [(1, 1), (1, 300), (40, 3), (300, 200)]:
        for dtype in (np.float32, np.float64):
            for a in hard_matrices(rng, shape).values():
                spectral_norm(aslinearoperator(a.astype(dtype)), method="lanczos", max_iter=1)


def operator(matvec, rmatvec=None, n=5, dtype=float):
    return LinearOperator((n, n), matvec=matvec, rmatvec=rmatvec or matvec, dtype=dtype)


def raising(x):
    raise KeyError("lost")


HOSTILE = {
    "shape": (operator(lambda x: x[:-1]), ValueError, r"a.matvec failed on a vector of shape \(5"),
    "scalar": (operator(lambda x: 1.0), ValueError, "a.matvec failed on a vector"),
    "none": (operator(lambda x: None), (TypeError, ValueError), "a.matvec"),
    "text": (operator(lambda x: np.array(["a"] * 5)), TypeError, "a.matvec must return real num"),
    "complex": (operator(lambda x: x * 1j), TypeError, "a.matvec must return real.*complex128"),
    "nan": (operator(lambda x: x * np.nan), ValueError, "a.matvec must return finite.*nan at ind"),
    "inf": (
        operator(lambda x: np.where(np.arange(5) == 3, np.inf, x)), ValueError,
        "a.matvec must return finite numbers, got inf at index 3",
    ),
    "back": (operator(lambda x: x, lambda x: x * np.nan), ValueError, "a.rmatvec must return fin"),
    "declared complex": (operator(lambda x: x, dtype=complex), TypeError, "a must have a real flo"),
    "no adjoint": (
        LinearOperator((5, 5), matvec=lambda x: x, dtype=float), TypeError,
        "a.rmatvec must be defined",
    ),
    "complex sparse": (sparse.eye_array(3) * 1j, TypeError, "a must have a real floating dtype"),
    "longdouble": (
        sparse.csr_array(np.eye(2, dtype=np.longdouble)), TypeError, "a must have a real floating",
    ),
    "nan sparse": (
        sparse.coo_array(([1.0, np.nan], ([0, 2], [1, 0])), shape=(3, 3)), ValueError,
        "a must be finite, got nan in row 2, column 0",
    ),
    "one axis": (sparse.coo_array(np.ones(3)), ValueError, r"a must have shape \(m, n\), got \(3"),
    "nan chain": (jm.Chain([np.full((2, 2), np.nan)]), ValueError, "weights.*finite|finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize(
    "function", [spectral_norm, jm.smallest_singular_value, jm.condition_number, jm.frobenius_norm]
)
def test_hostile_operators_are_named(case, function):
    a, error, message = HOSTILE[case]
    with pytest.raises(error, match=message):
        function(a)


@pytest.mark.parametrize(
    "function", [spectral_norm, jm.smallest_singular_value, jm.condition_number, jm.frobenius_norm]
)
def test_exceptions_of_the_operator_come_through_with_a_note(function):
    with pytest.raises(KeyError, match="lost") as caught:
        function(operator(raising))
    assert "raised by a.matvec" in caught.value.__notes__[0]


@pytest.mark.parametrize("size", [5, 80])
@pytest.mark.parametrize("method", ["lanczos", "gram", "svd"])
def test_nan_goes_through_unchecked(size, method):
    a = np.eye(size)
    a[2, 1] = np.nan
    for make in (sparse.csr_array, aslinearoperator, lambda x: jm.Chain([x])):
        found = spectral_norm(make(a), check_finite=False, check_adjoint=False, method=method)
        assert np.isnan(found.value)
        assert not found.converged


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"matvec_rtol": -1.0}, ValueError, r"matvec_rtol must lie in \[0, 1\)"),
        ({"matvec_rtol": 1.0}, ValueError, r"matvec_rtol must lie in \[0, 1\)"),
        ({"matvec_rtol": "1"}, TypeError, "matvec_rtol must be a real number"),
        ({"rtol": 0.0}, ValueError, "rtol must lie in"),
        ({"failure_prob": 1.0}, ValueError, "failure_prob must lie in"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"method": "qr"}, ValueError, "method must be one of"),
    ],
)
def test_options_of_operators_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        spectral_norm(aslinearoperator(np.eye(3)), **options)


def test_direct_methods_refuse_matrices_too_large_to_write_out():
    huge = sparse.eye_array(10**5).tocsr()
    for method in ("gram", "svd"):
        with pytest.raises(ValueError, match=f"method '{method}' writes out.*use 'lanczos'"):
            spectral_norm(huge, method=method)
    assert float(spectral_norm(huge, rng=0)) == pytest.approx(1)


def test_coupled_samples_are_refused_by_name(rng):
    chain = jm.Chain([jm.BatchNorm(rng.standard_normal((4, 3)))])
    with pytest.raises(ValueError, match=r"factors\[0\] \(BatchNorm\) couples the samples"):
        spectral_norm(chain)
    whole = jm.Chain([chain.over_batch()])
    exact = norm(whole @ np.eye(12))
    assert_encloses(spectral_norm(whole), exact, (12, 12))


@pytest.mark.parametrize("kind", ["operator", "sparse", "chain"])
def test_a_smallest_singular_value_has_no_lower_bound_without_a_solve(kind, rng):
    a = rng.standard_normal((120, 90))
    exact = np.linalg.svd(a, compute_uv=False)[-1]
    found = jm.smallest_singular_value(KINDS[kind](a), rng=rng)
    assert found.lower == 0
    assert not found.converged
    assert found.log_lower == -np.inf
    assert exact * (1 - 1e-12) <= found.upper
    assert found.value == pytest.approx(exact, rel=1e-3)
    assert found.upper_certain == (kind == "sparse")
    ratio = jm.condition_number(KINDS[kind](a), rng=rng)
    assert ratio.upper == np.inf
    assert ratio.lower <= norm(a) / exact * (1 + 1e-12)
    assert not ratio.converged


@pytest.mark.parametrize("kind", ["operator", "sparse", "chain"])
@pytest.mark.parametrize("log_condition", [1, 6])
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_a_solve_bounds_the_smallest_singular_value(kind, log_condition, scale, rng):
    n = 80
    a = scale * with_singular_values(rng, np.logspace(0, -log_condition, n), (n, n))
    sigma = np.linalg.svd(a, compute_uv=False)
    exact, error = sigma[-1], 4 * n * np.finfo(float).eps * sigma[0]
    factorised = splu(sparse.csc_array(a))
    inverse = np.linalg.inv(a)
    solves = {
        "splu": factorised,
        "pair": (factorised.solve, lambda b: factorised.solve(b, "T")),
        "operator": aslinearoperator(inverse),
    }
    for name, solve in solves.items():
        found = jm.smallest_singular_value(KINDS[kind](a), solve=solve, rng=rng)
        assert 0 < found.lower <= exact + error, name
        assert found.upper >= exact - error, name
        assert found.converged, name
        ratio = jm.condition_number(KINDS[kind](a), solve=solve, rng=rng)
        assert ratio.lower <= sigma[0] / (exact - error), name
        assert ratio.upper >= sigma[0] / (exact + error), name
        assert ratio.converged, name


def test_a_solve_of_what_is_nearly_singular_promises_nothing(rng):
    n = 80
    a = with_singular_values(rng, np.r_[np.ones(n - 1), 1e-17], (n, n))
    found = jm.smallest_singular_value(
        sparse.csc_array(a), solve=splu(sparse.csc_array(a)), rng=rng
    )
    assert found.lower == 0
    assert found.value == 0
    assert found.upper <= 1e-12
    ratio = jm.condition_number(sparse.csc_array(a), solve=splu(sparse.csc_array(a)), rng=rng)
    assert ratio.value == ratio.upper == np.inf
    assert ratio.lower >= 1e12


def test_rank_deficient_operators_have_zero_and_inf_not_noise(rng):
    for size in (20, 90):
        sigma = np.r_[np.ones(size - 3), np.zeros(3)]
        a = with_singular_values(rng, sigma, (size, size))
        for make in (aslinearoperator, sparse.csr_array, lambda x: jm.Chain([x])):
            found, ratio = (
                jm.smallest_singular_value(make(a), rng=rng),
                jm.condition_number(make(a), rng=rng),
            )
            assert found.lower == 0
            assert found.value == 0
            assert found.upper <= 1e-11
            assert ratio.value == np.inf
            assert ratio.upper == np.inf
            assert ratio.lower >= 1e11


def test_wrong_solves_are_named(rng):
    a = sparse.csc_array(rng.standard_normal((70, 70)))
    with pytest.raises(ValueError, match="solve must apply the inverse of a"):
        jm.smallest_singular_value(a, solve=aslinearoperator(np.eye(70)))
    with pytest.raises(TypeError, match="solve must be a LinearOperator that applies"):
        jm.smallest_singular_value(a, solve=np.eye(70))
    with pytest.raises(ValueError, match=r"solve must have the shape \(70, 70\) of a"):
        jm.smallest_singular_value(a, solve=aslinearoperator(np.eye(3)))
    with pytest.raises(ValueError, match="solve needs one square matrix"):
        jm.smallest_singular_value(sparse.csr_array(np.ones((3, 4))), solve=splu(a))
    lu = splu(a)
    with pytest.raises(ValueError, match=r"solve\.solve_transposed must be the transpose of solve"):
        jm.smallest_singular_value(a, solve=(lu.solve, lu.solve))


@pytest.mark.parametrize("shape", [(5, 3), (90, 80)])
@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300])
def test_frobenius_norms_of_moderate_sizes_are_exact(shape, scale, rng):
    a = rng.standard_normal(shape) * scale
    exact = np.linalg.norm(a / scale) * scale
    for make in (aslinearoperator, sparse.csr_array, lambda x: jm.Chain([x])):
        found = jm.frobenius_norm(make(a))
        assert found.lower * (1 - 1e-14) <= exact <= found.upper * (1 + 1e-14)
        assert found.rtol <= 1e-10
        assert found.lower_certain
        assert found.upper_certain


def test_frobenius_norms_by_probes_hold_at_rank_one_as_often_as_asked(rng):
    """chi^2_r: the law is exact at rank one; two-sided test of the coverage."""
    n, n_draws, failure_prob = 40, 400, 0.2
    a = aslinearoperator(np.outer(np.ones(n), np.arange(1.0, n + 1)))
    exact = math.sqrt(n * sum(i * i for i in range(1, n + 1)))
    n_misses = 0
    for _ in range(n_draws):
        found = jm.frobenius_norm(
            a, max_iter=5, failure_prob=failure_prob, rng=rng, check_adjoint=False
        )
        n_misses += not found.lower <= exact <= found.upper
        assert found.method == "probes"
        assert not found.lower_certain
        assert found.failure_prob == failure_prob
    low, high = stats.binom.interval(1 - 2 * FALSE_ALARM, n_draws, failure_prob)
    assert low <= n_misses <= high


def test_frobenius_of_a_deep_chain_is_in_logs(rng):
    chain = jm.Chain([1e-200 * np.eye(600)]).repeat(10)
    found = jm.frobenius_norm(chain, max_iter=40, rng=rng)
    exact = math.log(600) / 2 + 10 * math.log(1e-200)
    assert found.log_lower <= exact <= found.log_upper
    assert found.value == 0


def test_agrees_with_svds_on_a_large_sparse_matrix(rng):
    a = sparse.random_array((3000, 2000), density=1e-3, rng=rng, format="csr")
    found = spectral_norm(a, rng=rng, rtol=1e-8)
    other = svds(a, k=1, return_singular_vectors=False, rng=rng)[0]
    assert found.converged
    assert other == pytest.approx(float(found), rel=1e-8)


def test_a_seed_makes_the_result_reproducible(rng):
    a = aslinearoperator(rng.standard_normal((90, 80)))
    assert spectral_norm(a, rng=3).upper == spectral_norm(a, rng=3).upper
    assert spectral_norm(a).upper != spectral_norm(a).upper


def test_transposition_keeps_the_norm(rng):
    a = rng.standard_normal((70, 110))
    for make in (aslinearoperator, sparse.csr_array, lambda x: jm.Chain([x])):
        one, two = spectral_norm(make(a), rng=1, rtol=1e-8), spectral_norm(make(a).T, rng=1)
        assert one.lower <= two.upper
        assert two.lower <= one.upper
        assert float(one) == pytest.approx(float(two), rel=1e-6)


def test_gamma_is_the_bound_on_n_roundings():
    assert gamma(0) == 0
    assert gamma(10) > 10 * 2.0**-53
