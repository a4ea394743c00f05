"""Powers of two: what scaling a factor does to every operation, and shortcuts out of range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jacometry as jm


@settings(max_examples=80, deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 17, 33]),
    layer=st.integers(0, 5),
    power=st.integers(-100, 100),
    what=st.sampled_from(["weights", "slopes"]),
    side=st.sampled_from(["output", "input"]),
    has_shortcut=st.booleans(),
    is_shared=st.booleans(),
    is_float32=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_scaling_a_whole_factor_by_a_power_of_two_changes_exponents_only(
    n, layer, power, what, side, has_shortcut, is_shared, is_float32, seed
):
    """F_k = c I + diag(s) W times 2^p: by its weights or its slopes, and its shortcut along."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(np.float32 if is_float32 else np.float64)
    arrays = {
        "weights": rng.uniform(0.5, 1, (*(() if is_shared else (3,)), 6, n, n)).astype(dtype),
        "slopes": rng.uniform(0.5, 1, (3, 6, n)).astype(dtype),
        "shortcut": rng.uniform(0.5, 1, 6) * has_shortcut,
    }
    moved = {name: array.copy() for name, array in arrays.items()}
    axis = -3 if what == "weights" else -2
    of_layer = np.moveaxis(moved[what], axis, 0)
    of_layer[layer] = np.ldexp(of_layer[layer], power)
    moved["shortcut"][layer] = np.ldexp(moved["shortcut"][layer], power)

    plain, scaled = (jm.chain_product(**a, slope_side=side) for a in (arrays, moved))
    np.testing.assert_array_equal(scaled.mantissa, plain.mantissa)
    np.testing.assert_array_equal(scaled.exponent, plain.exponent + power)

    v = rng.uniform(0.5, 1, (3, n)).astype(dtype)
    for push, is_past in (
        (jm.chain_jvp, lambda k: k > layer),
        (jm.chain_vjp, lambda k: k <= layer),
    ):
        plain, scaled = (
            push(a["weights"], v, slopes=a["slopes"], slope_side=side, shortcut=a["shortcut"],
                 keep="all")
            for a in (arrays, moved)
        )  # fmt: skip
        for k, (a, b) in enumerate(zip(plain.vectors, scaled.vectors, strict=True)):
            np.testing.assert_array_equal(a.mantissa, b.mantissa)
            np.testing.assert_array_equal(b.exponent, a.exponent + (power if is_past(k) else 0))


@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("shortcut", [1e39, -1e300, 1e-40, 1e-300])
@pytest.mark.parametrize("call", ["chain_product", "chain_jvp", "chain_log_svdvals"])
def test_a_shortcut_that_the_dtype_cannot_hold_is_refused(isa, call, shortcut, is_list, rng):
    weights = rng.standard_normal((3, 4, 4)).astype(np.float32)
    given = list(weights) if is_list else weights
    more = [np.ones(4, np.float32)] if call == "chain_jvp" else []
    function = getattr(jm, call)
    message = f"shortcut must be 0 or a normal number of float32, .* got {shortcut:g}"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        function(given, *more, shortcut=shortcut)
    with pytest.raises(ValueError, match=message.replace("+", r"\+") + " in layer 1"):
        function(given, *more, shortcut=[0.0, shortcut, 1.0])
    # float64 holds it, and the kernels' own scaling carries it through.
    wide = jm.chain_product(weights.astype(float), shortcut=shortcut)
    assert np.isfinite(wide.log_norm())


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_shortcut_that_is_not_finite_is_refused(bad):
    for weights in (np.ones((2, 3, 3)), [np.ones((3, 3))] * 2):
        with pytest.raises(ValueError, match=f"shortcut must be finite, got {bad}"):
            jm.chain_product(weights, shortcut=bad)
