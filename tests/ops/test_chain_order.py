"""The order in which chain_product multiplies rectangular chains: least cost, same value."""

import itertools
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import jacometry as jm
from jacometry.ops import _chain_runs
from jacometry.ops._chain_arrays import read_chain
from jacometry.ops._parenthesise import fan_splits, least_cost_order

CHAIN_WIDTHS = st.one_of(
    st.lists(st.integers(1, top), min_size=2, max_size=14) for top in (2, 3, 6, 100)
)


def least_cost(widths, call_cost=0):
    """The dynamic programme over all intervals, O(L^3): cost of the best order."""
    n = len(widths)
    best = {(i, i + 1): 0 for i in range(n - 1)}
    for span in range(2, n):
        for i in range(n - span):
            j = i + span
            best[i, j] = min(
                best[i, k] + best[k, j] + widths[i] * widths[k] * widths[j] for k in range(i + 1, j)
            )
    return best[0, n - 1]


def products(splits, n_layers):
    """The pairs of interfaces that a tree of splits forms a product for, checked to be a tree."""
    waiting, found = [(0, n_layers)], []
    while waiting:
        i, j = waiting.pop()
        if j - i > 1:
            found.append((i, splits[i, j], j))
            assert i < splits[i, j] < j
            waiting += [(i, splits[i, j]), (splits[i, j], j)]
    assert len(found) == len(splits) == n_layers - 1
    return found


def least_cost_splits(widths, call_cost):
    return least_cost_order(widths, call_cost)[1]


def cost_of(widths, splits):
    return sum(widths[i] * widths[k] * widths[j] for i, k, j in products(splits, len(widths) - 1))


@settings(max_examples=500, deadline=None)
@given(CHAIN_WIDTHS.filter(lambda widths: len(widths) > 2))
def test_no_order_costs_less(widths):
    least, splits = least_cost_order(widths, 0)
    assert least == cost_of(widths, splits) == least_cost(widths)


@settings(max_examples=200, deadline=None)
@given(CHAIN_WIDTHS.filter(lambda widths: len(widths) > 2), st.sampled_from([1, 10, 1000, 10**6]))
def test_a_product_of_its_own_saves_what_its_call_costs(widths, call_cost):
    """The order costs at most `call_cost` more for each product that the best order has."""
    free = least_cost_splits(widths, 0)
    own = len(_chain_runs._runs(widths, free, [0] * len(widths)))
    found = least_cost_splits(widths, call_cost)
    assert cost_of(widths, found) <= least_cost(widths) + call_cost * own
    fan = min(widths) * (sum(a * b for a, b in itertools.pairwise(widths)))
    assert cost_of(widths, found) <= fan + min(widths) * widths[0] * widths[-1]
    if call_cost == 10**6 > fan:
        assert len(_chain_runs._runs(widths, found, [0] * len(widths))) <= 3


@pytest.mark.parametrize(
    ("widths", "cost"),
    [
        ([30, 35, 15, 5, 10, 20, 25], 15125),  # Cormen et al., Introduction to Algorithms, 15.2
        ([10, 100, 5, 50], 7500),
        ([40, 20, 30, 10, 30], 26000),
        ([1, 2, 3, 4, 3], 30),
        ([7] * 12, 10 * 7**3),
    ],
)
def test_published_costs(widths, cost):
    assert cost_of(widths, least_cost_splits(widths, 0)) == cost


@pytest.mark.parametrize(
    "widths",
    [
        [10] + [64] * 30_000 + [10],
        list(range(1, 30_002)),
        [2, 3] * 15_000,
        [*range(1, 15_000), *range(15_000, 0, -1)],
    ],
    ids=["equal", "rising", "alternating", "mountain"],
)
def test_depth_is_no_obstacle_to_the_order(widths):
    """No recursion, and no quadratic time: any of these would not end."""
    cost = cost_of(widths, least_cost_splits(widths, 0))
    fan = widths[0] * sum(a * b for a, b in itertools.pairwise(widths))
    assert cost <= fan


def fractions_of(array):
    return np.array([[Fraction(float(x)) for x in row] for row in array], dtype=object)


@st.composite
def chains(draw):
    """A rectangular chain, layers shared and per sample mixed, as arguments of chain_product."""
    widths = draw(st.lists(st.integers(1, 6), min_size=3, max_size=9))
    n_samples = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    side = draw(st.sampled_from(["output", "input"]))
    largest = draw(st.sampled_from([2, 3]))
    weights, slopes, shortcut = [], [], []
    for n_in, n_out in itertools.pairwise(widths):
        batch = draw(st.sampled_from([(), (n_samples,)]))
        weights.append(rng.integers(-largest, largest + 1, (*batch, n_out, n_in)).astype(float))
        batch = draw(st.sampled_from([None, (), (n_samples,)]))
        n = n_out if side == "output" else n_in
        slopes.append(None if batch is None else rng.integers(0, 3, (*batch, n)).astype(float))
        shortcut.append(float(draw(st.sampled_from([0, 1, -2]))) if n_in == n_out else 0.0)
    return {
        "weights": weights, "slopes": slopes, "slope_side": side, "shortcut": np.array(shortcut),
    }  # fmt: skip


def sample_of(chain, sample):
    """One sample of a chain: nothing has a batch axis."""
    return {
        **chain,
        "weights": [w[sample] if w.ndim == 3 else w for w in chain["weights"]],
        "slopes": [s[sample] if s is not None and s.ndim == 2 else s for s in chain["slopes"]],
    }


def n_samples_of(chain):
    sizes = {w.shape[0] for w in chain["weights"] if w.ndim == 3}
    sizes |= {s.shape[0] for s in chain["slopes"] if s is not None and s.ndim == 2}
    return sizes.pop() if sizes else None


def exact_product(chain):
    """Of one sample, in rationals."""
    product = None
    for w, s, c in zip(chain["weights"], chain["slopes"], chain["shortcut"], strict=True):
        factor = fractions_of(w)
        if s is not None:
            s = np.array([Fraction(float(x)) for x in s], dtype=object)
            factor = s[:, None] * factor if chain["slope_side"] == "output" else factor * s
        if c:
            factor = factor + Fraction(c) * np.eye(len(factor), dtype=int)
        product = factor if product is None else factor @ product
    return product


def by_least_cost(chain, **options):
    """chain_product where no product of its own is too small to be worth its call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain_runs, "CALL_COST", 0)
        return jm.chain_product(**chain, **options)


def runs_by_least_cost(chain):
    """What by_least_cost goes through."""
    slopes, side = chain.get("slopes"), chain.get("slope_side", "output")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain_runs, "CALL_COST", 0)
        return _chain_runs.runs_of(read_chain(chain["weights"], slopes, side, 0.0))


@settings(max_examples=150, deadline=None)
@given(chains())
def test_integer_chains_are_exact_in_any_order(chain):
    """Entries stay below 2^53: at most nine layers of at most 6 * 3 * 2 + 2."""
    got = by_least_cost(chain)
    n_samples = n_samples_of(chain)
    for i in range(n_samples or 1):
        exact = exact_product(sample_of(chain, i)).astype(float)
        values = got.to_array() if n_samples is None else got[i].to_array()
        np.testing.assert_array_equal(values, exact)


@settings(max_examples=100, deadline=None)
@given(chains(), st.data())
def test_powers_of_two_change_exponents_only_in_any_order(chain, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    chain = {
        **chain,
        "weights": [rng.standard_normal(w.shape) for w in chain["weights"]],
        "slopes": [None if s is None else rng.random(s.shape) for s in chain["slopes"]],
        "shortcut": 0.0,
    }
    k = data.draw(st.integers(0, len(chain["weights"]) - 1))
    power = data.draw(st.integers(-900, 900))
    plain = by_least_cost(chain)
    moved = {**chain, "weights": list(chain["weights"])}
    moved["weights"][k] = np.ldexp(moved["weights"][k], power)
    scaled = by_least_cost(moved)
    np.testing.assert_array_equal(scaled.mantissa, plain.mantissa)
    np.testing.assert_array_equal(scaled.exponent, plain.exponent + power)


@settings(max_examples=60, deadline=None)
@given(chains())
def test_an_item_does_not_depend_on_batch_threads_or_group(chain):
    n_samples = n_samples_of(chain)
    whole = by_least_cost(chain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain_runs, "WAITING_BYTES", 1)
        one_by_one = by_least_cost(chain, n_threads=1)
    np.testing.assert_array_equal(one_by_one.mantissa, whole.mantissa)
    np.testing.assert_array_equal(one_by_one.exponent, whole.exponent)
    if n_samples is not None:
        last = {
            **chain,
            "weights": [w[-1:] if w.ndim == 3 else w for w in chain["weights"]],
            "slopes": [
                s[-1:] if s is not None and s.ndim == 2 else s for s in chain["slopes"]
            ],
        }  # fmt: skip
        alone = by_least_cost(last, n_threads=2)
        np.testing.assert_array_equal(alone.mantissa[0], whole.mantissa[-1])
        assert alone.exponent[0] == whole.exponent[-1]


def ladder(rng, widths, dtype, n_samples=None, scale=1.0):
    batch = () if n_samples is None else (n_samples,)
    return [
        (scale * rng.standard_normal((*batch, b, a)) / np.sqrt(a)).astype(dtype)
        for a, b in itertools.pairwise(widths)
    ]


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize(
    "widths",
    [[33, 17, 40, 5], [5, 40, 40, 40, 3], [64, 2, 64, 2, 64], [20, 9, 30, 8, 31, 7, 40]],
)
def test_the_error_bound_holds_in_any_order(isa, dtype, rng, widths, side):
    """Each inner interface is summed over once in any order: sum_k (n_k + 2) u |F| ... |F|."""
    weights = ladder(rng, widths, dtype, 2)
    slopes = [
        rng.random(w.shape[1] if side == "output" else w.shape[2]).astype(dtype) for w in weights
    ]
    chain = {"weights": weights, "slopes": slopes, "slope_side": side}
    assert runs_by_least_cost(chain)
    got = by_least_cost(chain)
    u = np.finfo(dtype).eps / 2
    for i in range(2):
        one = {**sample_of(chain, i), "shortcut": np.zeros(len(weights))}
        exact = exact_product(one)
        absolute = exact_product({**one, "weights": [np.abs(w) for w in one["weights"]]})
        values = np.ldexp(got.mantissa[i].astype(float), int(got.exponent[i]))
        error = np.abs(fractions_of(values) - exact).astype(float)
        bound = sum(n + 2 for n in widths[:-1]) * u * absolute.astype(float)
        # gamma_n for n u, and the final rounding of the comparison in float64.
        assert (error <= 1.01 * bound).all()


@pytest.mark.parametrize("power", [-900, 900])
def test_products_of_their_own_neither_over_nor_underflow(rng, power):
    widths = [5, 30, 4, 30, 4, 30, 6] * 30
    weights = ladder(rng, widths, np.float64)
    assert len(runs_by_least_cost({"weights": weights})) > 50
    plain = by_least_cost({"weights": weights})
    scaled = by_least_cost({"weights": [np.ldexp(w, power) for w in weights]})
    np.testing.assert_array_equal(scaled.mantissa, plain.mantissa)
    assert scaled.exponent == plain.exponent + power * len(weights)


def test_a_product_that_is_zero_has_exponent_zero_in_any_order():
    weights = [np.full((30, 4), 1e100), np.full((4, 30), 1e100), np.zeros((30, 4))]
    got = by_least_cost({"weights": [np.stack([w] * 2) for w in weights]})
    np.testing.assert_array_equal(got.mantissa, 0)
    np.testing.assert_array_equal(got.exponent, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("layer", range(6))
@pytest.mark.parametrize("name", ["weights", "slopes"])
def test_a_non_finite_entry_is_named_in_any_order(rng, bad, layer, name):
    widths = [20, 9, 30, 8, 31, 7, 40]
    chain = {"weights": ladder(rng, widths, np.float64, 3)}
    chain["slopes"] = [np.ones((3, w.shape[1])) for w in chain["weights"]]
    chain[name][layer][2, 0] = bad
    with pytest.raises(ValueError, match=rf"{name} must be finite, got .* sample 2, layer {layer}"):
        by_least_cost(chain)
    got = by_least_cost(chain, check_finite=False)
    assert not np.isfinite(got.mantissa[2]).all()
    assert got.exponent[2] == 0
    chain[name][layer][2, 0] = 1.0
    finite = by_least_cost(chain)
    np.testing.assert_array_equal(got.mantissa[:2], finite.mantissa[:2])


def test_what_is_finite_beside_an_infinity_keeps_its_value():
    """An infinity in the last layer's first row is in the product's first row."""
    weights = [np.full(shape, 2.0**20) for shape in [(30, 4), (4, 30), (30, 4), (5, 30)]]
    weights[3][0, 0] = np.inf
    chain = {"weights": [np.stack([w] * 2) for w in weights]}
    assert len(runs_by_least_cost(chain)) == 2
    got = by_least_cost(chain, check_finite=False)
    np.testing.assert_array_equal(got.exponent, 0)
    assert not np.isfinite(got.mantissa[:, 0]).any()
    np.testing.assert_array_equal(got.mantissa[:, 1:], 2.0**80 * 30 * 4 * 30)


def test_shared_layers_between_narrowest_interfaces_are_multiplied_once():
    own, shared = np.stack([np.eye(6)] * 3), np.ones((6, 6))
    weights = [shared, shared, shared, own, shared, shared, own, shared]
    runs = runs_by_least_cost({"weights": weights})
    assert [(run.points, run.is_own) for run in runs] == [
        ([0, 1, 2, 3], False),
        ([4, 5, 6], False),
        ([0, 3, 4, 6, 7, 8], True),
    ]
    assert runs_by_least_cost({"weights": [own] * 8}) is None
    assert runs_by_least_cost({"weights": [shared] * 8}) is None


def test_shared_layers_at_the_end_of_a_run_are_multiplied_once():
    own, shared = np.ones((3, 7, 7)), np.ones((7, 7))
    weights = [np.ones((7, 6)), shared, shared, own, own, np.ones((8, 7))]
    runs = runs_by_least_cost({"weights": weights})
    assert [(run.points, run.is_own) for run in runs] == [
        ([0, 1, 2, 3], False),
        ([0, 3, 4, 5, 6], True),
    ]


@settings(max_examples=200, deadline=None)
@given(CHAIN_WIDTHS.filter(lambda widths: len(widths) > 2), st.sampled_from([0, 30, 1000, 10**5]))
def test_every_call_beyond_one_saves_its_cost(widths, call_cost):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain_runs, "CALL_COST", call_cost)
        splits = _chain_runs._cheap_splits(widths)
    n_layers = len(widths) - 1
    from_first, from_last = (cost_of(widths, fan_splits(n_layers, k)) for k in (0, n_layers))
    n_calls = len(_chain_runs._runs(widths, splits, [0] * len(widths)))
    saved = min(from_first, from_last) - cost_of(widths, splits)
    assert saved >= (n_calls - 1) * call_cost
    if not call_cost:
        assert cost_of(widths, splits) == least_cost(widths)


def test_square_chains_keep_their_bits(rng):
    """Listed or stacked, from the first layer to the last."""
    weights = rng.standard_normal((3, 50, 16, 16))
    stacked = jm.chain_product(weights)
    listed = jm.chain_product(list(weights.swapaxes(0, 1)))
    np.testing.assert_array_equal(listed.mantissa, stacked.mantissa)
    np.testing.assert_array_equal(listed.exponent, stacked.exponent)


def test_a_chain_that_ends_narrow_is_taken_from_its_last_layer(rng):
    weights = ladder(rng, [300, 200, 100, 10], np.float64)
    (run,) = _chain_runs.runs_of(read_chain(weights, None, "output", 0.0))
    assert run.from_last
    expected = weights[2] @ weights[1] @ weights[0]
    np.testing.assert_allclose(jm.chain_product(weights).to_array(), expected, atol=1e-13)


def test_a_hundred_thousand_rectangular_layers_take_no_recursion(rng):
    widths = [8] + [3, 5, 2, 9] * 25_000
    chain = [np.ones((b, a)) for a, b in itertools.pairwise(widths)]
    expected = np.log(widths[1:-1]).sum() + np.log(widths[0] * widths[-1]) / 2
    got = float(jm.chain_product(chain).log_norm())
    assert got == pytest.approx(expected, rel=100_000 * 11 * 2.0**-53)
