"""spectral_radius of matrices, operators and chains, and the adapted norm."""

import numpy as np
import pytest
import scipy.sparse as sp
from flint import fmpz_mat
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import jacometry as jm
from jacometry.ops import spectral
from jacometry.ops.radius import adapted_norm
from jacometry.reference import radius as reference

EPS = np.finfo(np.float64).eps
TURN = np.array([[0.0, -2.0], [2.0, 0.0]])


def jordan(n, value):
    return value * np.eye(n) + np.eye(n, k=1)


def test_the_names_are_in_the_spectral_module_too():
    assert spectral.spectral_radius is jm.spectral_radius
    assert spectral.joint_spectral_radius is jm.joint_spectral_radius
    assert spectral.JSRBounds is jm.JSRBounds


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 17, 33, 64])
def test_spectral_radius_agrees_with_the_oracle(dtype, rng, n):
    a = rng.standard_normal((4, 3, n, n)).astype(dtype)
    found = jm.spectral_radius(a)
    assert found.value.shape == found.residual.shape == found.converged.shape == (4, 3)
    assert found.value.dtype == dtype
    assert found.residual.max() <= 10 * n * EPS
    assert found.converged.all()
    truth = np.array([reference.spectral_radius(m.astype(float)) for m in a.reshape(-1, n, n)])
    # Gaussian eigenvalues are conditioned like n, and LAPACK's error is n eps ||A||
    tolerance = np.finfo(dtype).eps + 100 * n**1.5 * EPS
    assert np.abs(found.value.ravel() / truth - 1).max() <= tolerance
    assert np.allclose(found.log_value, np.log(found.value), atol=1e-6)


def test_integer_spectra_are_found_against_exact_arithmetic(rng):
    for _ in range(200):
        n = int(rng.integers(2, 6))
        a = rng.integers(-9, 10, (n, n))
        roots = fmpz_mat(a.tolist()).charpoly().complex_roots()
        truth = max(float(abs(root)) for root, _ in roots)
        found = jm.spectral_radius(a)
        if found.converged:
            assert abs(found.value - truth) <= 1e-2 * truth
        assert found.residual <= 10 * n * EPS


def test_a_complex_pair_counts_with_its_modulus():
    found = jm.spectral_radius(TURN)
    assert abs(found.value - 2) <= 4 * EPS
    assert isinstance(found.value, np.float64)
    assert float(found) == found.value == np.asarray(found)


def test_a_defective_matrix_is_not_said_to_have_converged_beyond_its_digits(rng):
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    hidden = jm.spectral_radius(q @ jordan(6, 0.5) @ q.T, rtol=1e-6)
    assert hidden.residual <= 1e-13
    assert abs(hidden.value - 0.5) > 1e-6
    assert not hidden.converged
    assert jm.spectral_radius(q[:2, :2] @ jordan(2, 0.5) @ np.linalg.inv(q[:2, :2])).converged
    plain = jm.spectral_radius(jordan(6, 0.5), rtol=1e-6)  # triangular: on the diagonal, exactly
    assert (plain.value, plain.converged) == (0.5, True)
    nilpotent = jm.spectral_radius(3 * np.array([[1.0, -1.0], [1.0, -1.0]]))
    assert not nilpotent.converged


@pytest.mark.parametrize("shift", [-1060, -996, -300, 0, 300, 996])
def test_scaling_by_powers_of_two_scales_the_radius(rng, shift):
    a = rng.integers(-99, 100, (20, 5, 5)).astype(float)
    one, scaled = jm.spectral_radius(a), jm.spectral_radius(np.ldexp(a, shift))
    assert (scaled.value == np.ldexp(one.value, shift)).all()
    assert (scaled.residual == one.residual).all()
    assert np.abs(scaled.log_value - one.log_value - shift * np.log(2)).max() < 1e-12


def test_entries_of_any_range_take_part():
    found = jm.spectral_radius([[0.0, 1e300], [1e-300, 0.0]])
    assert abs(found.value - 1) < 1e-15
    assert found.converged
    cycle = np.zeros((3, 3))
    cycle[0, 1], cycle[1, 2], cycle[2, 0] = 1e300, 1e-200, 8e-100
    assert abs(jm.spectral_radius(cycle).value - 2) < 1e-14


def test_an_item_does_not_depend_on_the_rest_of_the_batch(rng):
    a = rng.standard_normal((50, 7, 7))
    a[3], a[4, 0, 0] = 0, 1e300
    together = jm.spectral_radius(a)
    for i in (0, 3, 4, 49):
        alone = jm.spectral_radius(a[i])
        assert alone.value == together.value[i]
        assert alone.residual == together.residual[i]
        assert alone.converged == together.converged[i]


def test_zero_and_empty_matrices():
    zero = jm.spectral_radius(np.zeros((2, 3, 3)))
    assert (zero.value == 0).all()
    assert zero.converged.all()
    assert (zero.log_value == -np.inf).all()
    assert jm.spectral_radius(np.zeros((0, 3, 3))).value.shape == (0,)
    assert (jm.spectral_radius(np.zeros((4, 0, 0), np.float32)).value == np.zeros(4)).all()
    assert jm.spectral_radius([[-3]]).value == 3.0


def test_similar_transposed_and_permuted_matrices_have_one_radius(rng):
    a = rng.standard_normal((6, 6))
    p = rng.permutation(6)
    truth = jm.spectral_radius(a).value
    for other in (a.T, a[p][:, p], -a):
        assert abs(jm.spectral_radius(other).value - truth) <= 100 * 6**1.5 * EPS * truth


@pytest.mark.parametrize("n", [3, 200])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_operators_and_sparse_matrices_agree_with_the_dense(rng, n, scale):
    a = rng.standard_normal((n, n)) / n
    a[0, 0] += 2.0
    truth = jm.spectral_radius(a).value * scale
    for given in (sp.csr_array(a * scale), aslinearoperator(a * scale)):
        found = jm.spectral_radius(given, rng=5)
        assert abs(found.value / truth - 1) <= 1e-12
        assert found.converged
        assert found.residual <= 1e-12
    single = jm.spectral_radius(sp.csr_array((a * 1.0).astype(np.float32)), rng=5)
    assert single.value.dtype == np.float32


def test_a_large_complex_pair_is_found(rng):
    n = 300
    a = np.diag(np.linspace(0, 1, n))
    a[:2, :2] = TURN
    found = jm.spectral_radius(aslinearoperator(a), rng=1)
    assert abs(found.value - 2) <= 1e-12


def test_chains_have_radii_beyond_the_range_of_floats(rng):
    a = rng.standard_normal((8, 8))
    log = np.log(jm.spectral_radius(a).value)
    power = jm.spectral_radius(jm.Chain([jm.Dense(a)]).repeat(2000))
    assert power.value == np.inf
    assert abs(power.log_value - 2000 * log) < 1e-8
    batch = jm.spectral_radius(jm.Chain([jm.Dense(np.stack([a, 2 * a])), jm.Dense(a)]))
    expected = jm.spectral_radius(np.stack([a @ a, 2 * a @ a])).value
    assert np.abs(batch.value / expected - 1).max() < 1e-11
    wide = rng.standard_normal((150, 150)) / 150
    wide[0, 0] = 30
    long = jm.spectral_radius(jm.Chain([jm.Dense(wide)]).repeat(300), rng=2)
    assert abs(long.log_value - 300 * np.log(jm.spectral_radius(wide).value)) < 1e-8


def test_a_zero_operator_has_radius_zero():
    found = jm.spectral_radius(sp.csr_array((200, 200)), rng=0)
    assert (found.value, found.converged) == (0.0, True)


def test_arnoldi_that_stops_early_says_so(rng):
    a = aslinearoperator(np.linalg.qr(rng.standard_normal((500, 500)))[0])  # all of modulus one
    found = jm.spectral_radius(a, rng=0, max_iter=1)
    assert not found.converged or abs(found.value - 1) < 1e-2


def test_non_finite_items_are_nan_where_not_checked(rng):
    a = rng.standard_normal((3, 4, 4))
    a[1, 2, 3] = np.nan
    found = jm.spectral_radius(a, check_finite=False)
    assert np.isnan(found.value).tolist() == [False, True, False]
    assert found.converged.tolist() == [True, False, True]


class Wrong(LinearOperator):
    """An operator that gives NaN."""

    def __init__(self, n):
        super().__init__(np.float64, (n, n))

    def _matvec(self, x):
        return x * np.nan


REJECTED = [
    ((np.ones(3),), ValueError, r"a must have shape \(\.\.\., n, n\), got \(3,\)"),
    ((np.ones((2, 3)),), ValueError, r"a must have shape .* got \(2, 3\)"),
    (
        (np.array([np.eye(2), np.full((2, 2), np.inf)]),),
        ValueError,
        r"a must be finite.*\(1, 0, 0\)",
    ),
    ((np.eye(2) * 1j,), TypeError, "a must have a real floating dtype"),
    ((None,), TypeError, "a must be an array"),
    ((aslinearoperator(np.ones((2, 3))),), ValueError, "a must be square, got an operator"),
    ((aslinearoperator(np.eye(2) * 1j),), TypeError, "a must have a real floating dtype"),
    ((Wrong(3),), ValueError, "a must give finite products"),
    ((Wrong(200),), ValueError, "a must give finite products"),
    ((sp.csr_array(np.eye(200) * np.nan),), ValueError, "a must be finite"),
    ((jm.Chain([jm.Dense(np.ones((2, 3)))]),), ValueError, "a must be square, got a chain"),
    ((np.eye(2), {"rtol": 0}), ValueError, r"rtol must lie in \(0, inf\)"),
    ((np.eye(2), {"max_iter": 0}), ValueError, "max_iter must be at least 1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REJECTED)
def test_what_it_refuses(arguments, error, message):
    given, options = arguments[0], arguments[1] if len(arguments) > 1 else {}
    with pytest.raises(error, match=message):
        jm.spectral_radius(given, **options)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("epsilon", [1.0, 1e-2])
def test_the_adapted_norm_is_near_the_radius(rng, n, epsilon):
    for a in (rng.standard_normal((n, n)), jordan(n, 0.7), np.triu(rng.standard_normal((n, n)))):
        t = adapted_norm(a, epsilon=epsilon)
        # as a norm for the proof, rounding included
        bounds = jm.joint_spectral_radius([a], norm=t, delta=1e-9, max_products=1)
        radius = jm.spectral_radius(a).value
        slack = 1e-3 * epsilon  # the rounding of T A T^-1
        assert bounds.lower <= radius * (1 + 1e-6)
        assert bounds.upper <= radius + epsilon + slack


def test_an_adapted_norm_that_rounding_forbids_is_refused(rng):
    q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    with pytest.raises(ValueError, match="epsilon = 1e-12 is too small"):
        adapted_norm(q @ jordan(12, 0.5) @ q.T, epsilon=1e-12)
    with pytest.raises(ValueError, match="epsilon must lie in"):
        adapted_norm(np.eye(2), epsilon=0.0)
    with pytest.raises(ValueError, match=r"a must have shape \(n, n\)"):
        adapted_norm(np.ones((2, 3)))
