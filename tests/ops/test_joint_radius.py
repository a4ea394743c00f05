"""joint_spectral_radius: published values, exact arithmetic, and what it refuses."""

import itertools
import signal
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from flint import fmpz_mat

import jacometry as jm
from jacometry.ops._radius_bounds import disc_bound, exact_bound, root_below
from jacometry.ops.radius import adapted_norm
from jacometry.reference import radius as reference

GOLDEN = (1 + 5**0.5) / 2
UPPER_SHEAR = np.array([[1.0, 1.0], [0.0, 1.0]])
LOWER_SHEAR = UPPER_SHEAR.T.copy()
NILPOTENT = np.array([[0.0, 2.0], [0.0, 0.0]])
RECURRENT = np.array([[0.9, 50.0], [0.0, 0.9]])

# set, norm, known value
KNOWN = {
    "nilpotent": ([NILPOTENT / 2, NILPOTENT.T / 2], 2, 1.0),
    "golden": ([UPPER_SHEAR, LOWER_SHEAR], 2, GOLDEN),
    "golden, times .8": ([UPPER_SHEAR, 0.8 * LOWER_SHEAR], 2, 1.4472135955),
    "golden, times .9": ([UPPER_SHEAR, 0.9 * LOWER_SHEAR], 2, 1.5350018208),
    "slow in the 2-norm": ([[[1, 0], [1, 0]], [[0, 1], [0, -1]]], np.inf, 1.0),
    "one matrix": ([[[3.0]]], 1, 3.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_radii_lie_within_the_bounds(name):
    matrices, norm, truth = KNOWN[name]
    bounds = jm.joint_spectral_radius(matrices, norm=norm)
    printed = 5e-11  # the published digits
    assert bounds.lower <= truth + printed
    assert truth - printed <= bounds.upper
    assert bounds.converged
    assert bounds.upper - bounds.lower <= 1e-3
    # the best product of these sets is known too, so that the lower bound is the radius
    assert abs(bounds.lower - truth) < printed


def test_the_finiteness_counterexample_is_bounded():
    scale = 0.749326546330367557943961948091344672
    bounds = jm.joint_spectral_radius([UPPER_SHEAR, scale * LOWER_SHEAR])
    assert bounds.converged
    assert bounds.upper >= 1.4092472220583487
    # Sturmian words come close to it: the 13 letters of (0 0 1 0 1)(0 0 1)(0 0 1 0 1) to 5e-15
    assert 1.4092472220583487 - 1e-12 <= bounds.lower <= bounds.upper


def test_the_bounds_of_gripenberg_1996_section_4_meet_ours():
    a, b = np.array([[3, 0], [1, 3]]) / 5, np.array([[3, -3], [0, -1]]) / 5
    bounds = jm.joint_spectral_radius([a, b], delta=1e-2)
    assert bounds.converged
    assert bounds.contractive is True
    assert abs(bounds.lower - 0.659678908955284) < 1e-14  # of the product b a^12
    assert sorted(bounds.product) == [0] * 12 + [1]
    assert bounds.upper >= 0.6596789


def test_a_radius_of_one_is_found_out_exactly():
    for matrices, norm in (KNOWN["nilpotent"][:2], KNOWN["slow in the 2-norm"][:2]):
        bounds = jm.joint_spectral_radius(matrices, norm=norm)
        assert bounds.lower == 1.0
        assert bounds.contractive is False
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])  # radius 1 only before rounding
    bounds = jm.joint_spectral_radius([turn])
    truth = Fraction(0.6) ** 2 + Fraction(0.8) ** 2  # the square of the radius of what is given
    assert Fraction(bounds.lower) ** 2 <= truth <= Fraction(bounds.upper) ** 2
    assert bounds.contractive is None if truth < 1 else bounds.contractive is False


def test_the_slow_set_exhausts_its_budget_in_the_2_norm_with_bounds_that_hold():
    bounds = jm.joint_spectral_radius(KNOWN["slow in the 2-norm"][0], max_products=20_000)
    assert not bounds.converged
    assert bounds.n_products <= 20_000
    assert bounds.lower <= 1.0 <= bounds.upper
    # all products up to some length were bounded, of norm at most sqrt(2)
    assert bounds.upper <= 2 ** (1 / (2 * (bounds.length - 1))) * (1 + 1e-12)


@pytest.mark.parametrize("budget", [2, 3, 5, 17, 100, 1001])
def test_bounds_hold_whatever_the_budget(budget):
    bounds = jm.joint_spectral_radius([UPPER_SHEAR, 0.8 * LOWER_SHEAR], max_products=budget)
    assert bounds.n_products <= budget
    assert bounds.lower <= 1.4472135955 + 5e-11
    assert bounds.upper >= 1.4472135955 - 5e-11


def test_radii_below_one_do_not_make_a_product_vanish():
    a, b = NILPOTENT, NILPOTENT.T
    assert (jm.spectral_radius([a, b]).value == 0).all()
    power = jm.chain_product([b, a] * 50)
    assert power.log_norm(2) == pytest.approx(50 * np.log(4))
    bounds = jm.joint_spectral_radius([a, b])
    assert (bounds.lower, bounds.product, bounds.contractive) == (2.0, (0, 1), False)


def test_the_radius_of_the_weights_does_not_bound_that_with_a_mask():
    w = 3 * np.array([[1.0, -1.0], [1.0, -1.0]])
    # the nilpotent W has its radius up to the root of rounding, and says so
    nilpotent = jm.spectral_radius(w)
    assert nilpotent.value < 1e-6
    masked = w @ np.diag([1.0, 0.0])
    assert jm.spectral_radius(masked).value == 3
    assert jm.joint_spectral_radius([masked]).lower == 3
    # as one matrix W vanishes exactly
    alone = jm.joint_spectral_radius([w])
    assert (alone.lower, alone.upper, alone.contractive) == (0.0, 0.0, True)


def test_an_adapted_norm_is_good_for_its_own_matrix_only():
    a, b = 0.25 * NILPOTENT + 0.5 * np.eye(2), 8 * NILPOTENT.T + 0.5 * np.eye(2)
    t = adapted_norm(a, epsilon=0.1)
    inverse = np.linalg.inv(t)
    assert np.linalg.norm(t @ a @ inverse, 2) <= 0.6 + 1e-12
    assert np.linalg.norm(t @ b @ inverse, 2) > 1
    assert (jm.spectral_radius([a, b]).value == 0.5).all()
    assert jm.joint_spectral_radius([a, b]).contractive is False
    assert jm.joint_spectral_radius([a], norm=t, delta=0.2).contractive is True


def test_a_recurrent_matrix_grows_before_it_vanishes():
    norms = {1: 50.016, 9: 193.711, 50: 14.316, 200: 7.84e-6}
    for steps, norm in norms.items():
        product = jm.chain_product(np.broadcast_to(RECURRENT, (steps, 2, 2)))
        assert np.exp(product.log_norm(2)) == pytest.approx(norm, rel=1e-3)
    t = adapted_norm(RECURRENT, epsilon=0.05)
    bounds = jm.joint_spectral_radius([RECURRENT], norm=t, delta=0.1)
    assert bounds.contractive is True
    assert bounds.lower <= 0.9 <= bounds.upper
    # in the 2-norm too, where rounding carried on factor by factor would drown the products
    assert jm.joint_spectral_radius([RECURRENT], delta=0.05).contractive is True


def test_one_growing_factor_does_not_make_a_product_explode():
    factors = np.full((100, 1, 1), 0.5)
    factors[0] = 2.0
    assert float(np.exp(jm.chain_product(factors).log_norm(2))) == pytest.approx(3.2e-30, rel=0.02)


def integer_sets(rng, n_sets):
    """Small sets that are singular, nilpotent, defective, of orthogonal type or badly scaled."""
    for i in range(n_sets):
        n, m = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        kind = i % 8
        high = (1, 2, 3, 9, 1, 2, 2**20, 1)[kind]
        a = rng.integers(-high, high + 1, (m, n, n))
        if kind == 2:  # rank one
            a = rng.integers(-2, 3, (m, n, 1)) * rng.integers(-2, 3, (m, 1, n))
        elif kind == 3:  # a common triangular form: defective
            a = np.triu(rng.integers(-1, 2, (m, n, n)))
            p = rng.permutation(n)
            a = a[:, p][:, :, p]
        elif kind == 4:  # signed permutations
            a = np.array([np.eye(n)[rng.permutation(n)] * rng.choice([-1, 1], n) for _ in range(m)])
        elif kind == 5 and n > 1:  # conjugated by a unimodular matrix
            u = np.eye(n) + 3 * np.eye(n, k=1)
            a = np.rint(u @ np.triu(rng.integers(-1, 2, (m, n, n))) @ np.linalg.inv(u))
        elif kind == 7:  # entries of very different size
            d = 2 ** rng.integers(0, 12, n)
            a = a * d[:, None]
        yield np.asarray(a, dtype=np.int64)


def exact_products(integers, length):
    """Per length: words and their products, the first matrix applied first, as fmpz_mat."""
    letters = [fmpz_mat(a.tolist()) for a in integers]
    level = [((i,), a) for i, a in enumerate(letters)]
    for _ in range(length):
        yield level
        level = [
            ((*w, i), a * p) for (w, p), (i, a) in itertools.product(level, enumerate(letters))
        ]


def largest_root(product):
    """The spectral radius in ball arithmetic: lower and upper ends as exact fractions."""
    balls = [abs(root) for root, _ in product.charpoly().complex_roots()]
    ends = [(as_fraction(b.lower()), as_fraction(b.upper())) for b in balls]
    return max(low for low, _ in ends), max(high for _, high in ends)


def as_fraction(ball):
    digits, exponent = ball.man_exp()
    return Fraction(int(digits)) * Fraction(2) ** int(exponent)


def inf_norm(product):
    return max(sum(abs(int(c)) for c in row) for row in product.tolist())


def test_bounds_hold_in_exact_arithmetic(rng):
    """5,000 intervals: no product exceeds the upper bound, no length contradicts the lower."""
    for i, integers in enumerate(integer_sets(rng, 1250)):
        shift = (0, -40, 900)[i % 3]
        unit = Fraction(2) ** shift
        given = np.ldexp(integers.astype(float), shift)
        norm_ceiling, roots = [], {}
        for level in exact_products(integers, 4):
            norm_ceiling.append(max(inf_norm(p) for _, p in level))
            roots |= {word: largest_root(p) for word, p in level}
        similarity = rng.standard_normal(given.shape[1:]) + 3 * np.eye(given.shape[1])
        for norm in (1, 2, np.inf, similarity):
            delta = float(np.ldexp(0.1, shift))
            bounds = jm.joint_spectral_radius(given, norm=norm, delta=delta, max_products=60)
            lower, upper = Fraction(bounds.lower) / unit, Fraction(bounds.upper) / unit
            assert lower <= upper
            assert all(lower**k <= norm for k, norm in enumerate(norm_ceiling, 1)), integers
            assert all(low <= upper ** len(word) for word, (low, _) in roots.items()), integers
            if bounds.product in roots:
                low, high = roots[bounds.product]
                # and it is tight: what is proved is the radius, but for rounding
                assert low * Fraction(1 - 1e-13) <= lower ** len(bounds.product) <= high, integers


def test_the_disc_bound_holds_in_exact_arithmetic(rng):
    n_useful = 0
    for integers in integer_sets(rng, 1000):
        word = tuple(rng.integers(0, len(integers), int(rng.integers(1, 5))))
        scale = int(np.frexp(np.abs(integers).max() + 0.5)[1])
        bound, exponent = disc_bound(np.ldexp(integers.astype(float), -scale), word)
        product = fmpz_mat(integers[word[0]].tolist())
        for letter in word[1:]:
            product = fmpz_mat(integers[letter].tolist()) * product
        value = Fraction(bound) * Fraction(2) ** (exponent + scale * len(word))
        low, high = largest_root(product)
        assert value <= high, (integers, word)
        n_useful += value > 0 and value >= low * Fraction(0.999)
    assert n_useful > 300


def test_defective_products_do_not_fool_the_lower_bound(rng):
    for n in (2, 3, 4, 6):
        # a Jordan block in integers, hidden by unimodular rows: LAPACK is off by a root of rounding
        u = np.eye(n) + np.triu(rng.integers(-2, 3, (n, n)), 1)
        v = np.eye(n) + np.tril(rng.integers(-2, 3, (n, n)), -1)
        hidden = u @ v @ (np.eye(n) + np.eye(n, k=1)) @ np.rint(np.linalg.inv(u @ v))
        assert fmpz_mat(hidden.astype(int).tolist()).charpoly().coeffs()[0] in (1, -1)
        assert exact_bound(hidden[None], (0,)) == 1.0
        bounds = jm.joint_spectral_radius([hidden], max_products=20)
        assert bounds.lower == 1.0
        assert bounds.contractive is False


def test_exact_bounds_of_larger_matrices_are_refused_not_waited_for(rng):
    assert exact_bound(rng.standard_normal((1, 60, 60)), (0,)) is None
    a = rng.standard_normal((2, 60, 60)) / 60
    bounds = jm.joint_spectral_radius(a, delta=0.05, max_products=50)
    lower, upper = reference.joint_spectral_radius(a, 4)
    assert lower * (1 - 1e-9) <= bounds.upper
    assert 0.99 * lower <= bounds.lower <= upper * (1 + 1e-9)


def test_root_below_is_below_and_near():
    for bound, exponent, k in ((3, 0, 2), (1, 0, 7), (2**200 + 1, -77, 13), (5, -3000, 3)):
        root = Fraction(root_below(bound, exponent, k))
        truth = Fraction(bound) * Fraction(2) ** exponent
        assert root**k <= truth <= (root * Fraction(1 + 2**-50)) ** k
    assert root_below(0, 0, 3) == 0.0


def test_bounds_agree_with_the_brute_force_oracle(rng):
    for _ in range(20):
        a = rng.standard_normal((2, 3, 3))
        lower, upper = reference.joint_spectral_radius(a, 6)
        bounds = jm.joint_spectral_radius(a, max_products=3000)
        assert bounds.lower >= lower - 1e-3 - 1e-12  # the search may skip what gains less
        assert bounds.lower <= upper * (1 + 1e-12)
        assert bounds.upper >= lower * (1 - 1e-12)
        assert bounds.upper <= upper + 1e-3 + 1e-12


def test_scaling_by_powers_of_two_scales_the_bounds():
    a = np.array([UPPER_SHEAR, 0.8 * LOWER_SHEAR])
    one = jm.joint_spectral_radius(a)
    for shift in (-990, -3, 7, 1000):
        scaled = jm.joint_spectral_radius(np.ldexp(a, shift), delta=float(np.ldexp(1e-3, shift)))
        assert scaled.lower == np.ldexp(one.lower, shift)
        assert scaled.upper == np.ldexp(one.upper, shift)
        assert scaled.product == one.product


def test_permutation_transpose_and_similarity_leave_the_radius(rng):
    a = rng.standard_normal((2, 3, 3))
    one = jm.joint_spectral_radius(a, delta=0.02)
    t = rng.standard_normal((3, 3)) + 3 * np.eye(3)
    for other in (a[::-1], a.mT, t @ a @ np.linalg.inv(t)):
        bounds = jm.joint_spectral_radius(other, delta=0.02)
        assert max(one.lower, bounds.lower) <= min(one.upper, bounds.upper) + 1e-12


def test_matrices_of_extreme_range_are_bounded():
    bounds = jm.joint_spectral_radius([[[1e300]], [[1e-300]]], max_products=10)
    assert bounds.lower <= 1e300 <= bounds.upper
    assert bounds.lower >= 1e300 * (1 - 1e-12)
    bounds = jm.joint_spectral_radius([[[0.0, 1e300], [1e-300, 0.0]]], max_products=10)
    assert bounds.lower <= 1.0 <= bounds.upper
    largest = np.finfo(float).max
    bounds = jm.joint_spectral_radius(np.full((1, 2, 2), largest), max_products=4)
    assert bounds.lower <= largest
    assert bounds.upper == np.inf


def test_zero_matrices_have_radius_zero():
    bounds = jm.joint_spectral_radius(np.zeros((2, 3, 3)))
    assert (bounds.lower, bounds.upper, bounds.product, bounds.contractive) == (0, 0, (), True)
    float32 = jm.joint_spectral_radius(np.ones((1, 1, 1), np.float32))
    assert (float32.lower, type(float32.lower)) == (1.0, float)


REJECTED = [
    ({"matrices": []}, ValueError, r"matrices must have shape \(m, n, n\).*got \(0, 0, 0\)"),
    ({"matrices": np.ones((2, 2))}, ValueError, r"matrices must have shape .* got \(2, 2\)"),
    ({"matrices": [np.ones((2, 3))]}, ValueError, r"matrices must have shape .* got \(1, 2, 3\)"),
    ({"matrices": [np.eye(2), np.eye(3)]}, ValueError, r"matrices must be of one shape"),
    ({"matrices": [np.eye(2), np.eye(2) * np.nan]}, ValueError, r"finite, got nan at .*1, 0, 0"),
    ({"matrices": [np.eye(2) * 1j]}, TypeError, r"matrices\[0\] must have a real"),
    ({"delta": 0.0}, ValueError, r"delta must lie in \(0, inf\), got 0"),
    ({"delta": "x"}, TypeError, "delta must be a real number"),
    ({"norm": 3}, ValueError, "norm must be 1, 2, inf or an .* matrix, got 3"),
    ({"norm": "fro"}, TypeError, "norm must"),
    ({"norm": np.eye(3)}, ValueError, r"norm must be .* of shape \(2, 2\), got shape \(3, 3\)"),
    ({"norm": np.ones((2, 2))}, ValueError, "norm must be an invertible matrix"),
    ({"norm": [[1.0, np.inf], [0, 1]]}, ValueError, "norm must be finite"),
    ({"max_products": 1}, ValueError, "max_products must be at least the number of matrices, 2"),
    ({"max_products": 2.5}, TypeError, "max_products must be an integer"),
    ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REJECTED)
def test_what_it_refuses(changed, error, message):
    arguments = {"matrices": [UPPER_SHEAR, LOWER_SHEAR]} | changed
    with pytest.raises(error, match=message):
        jm.joint_spectral_radius(arguments.pop("matrices"), **arguments)


def test_ctrl_c_ends_the_search():
    def interrupt():
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            jm.joint_spectral_radius(KNOWN["slow in the 2-norm"][0], max_products=10**9)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
