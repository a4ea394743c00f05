"""Moments of the user's own activations: callables, C functions, and what is wrong with them."""

import ctypes
import math
import os
import threading

import numpy as np
import pytest
from scipy import LowLevelCallable

from jacometry import JacometryWarning
from jacometry.activations import Activation, get
from jacometry.ops.moments import gaussian_moments, variance_map

FIELDS = ["phi", "phi2", "dphi", "dphi2", "d2phi2", "phi2_slope"]
Q = np.array([1e-12, 1e-3, 0.3, 1.0, 30.0, 1e4])

with_data = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_void_p)
plain = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)


def rows(moments):
    return np.stack([np.atleast_1d(getattr(moments, field)) for field in FIELDS])


def libm(name):
    """A function of one number of the C library."""
    function = getattr(ctypes.CDLL("ucrtbase" if os.name == "nt" else None), name)
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
    return LowLevelCallable(function)


def test_a_c_function_is_an_activation():
    atan = gaussian_moments(libm("atan"), Q)
    expected = gaussian_moments(np.arctan, Q)
    for field in FIELDS:
        np.testing.assert_allclose(getattr(atan, field), getattr(expected, field), rtol=1e-9)
    x = np.linspace(-3, 3, 14).reshape(2, 7)
    found = get(libm("atan")).value(x.T)
    assert found.shape == (7, 2)
    np.testing.assert_allclose(found, np.arctan(x.T), rtol=4e-16)
    assert get(libm("atan")).value(0.5) == math.atan(0.5)
    assert get(libm("atan")).value(np.float32(0.5)).dtype == np.float32
    assert get(libm("atan")).name == "atan"


def test_the_parts_of_an_activation_may_be_c_functions():
    mixed = Activation(libm("tanh"), lambda x: np.cosh(np.clip(x, -300, 300)) ** -2.0, name="mixed")
    found, expected = gaussian_moments(mixed, Q), gaussian_moments("tanh", Q)
    np.testing.assert_allclose(found.phi2, expected.phi2, rtol=1e-13)
    np.testing.assert_allclose(found.dphi2, expected.dphi2, rtol=1e-13)
    exponential = libm("exp")
    e = Activation(exponential, exponential, exponential, name="exp")
    q = np.array([1e-9, 0.5, 2.0])
    found = gaussian_moments(e, q)
    for field, mean in [("phi", q / 2), ("phi2", 2 * q), ("dphi", q / 2), ("d2phi2", 2 * q)]:
        np.testing.assert_allclose(getattr(found, field), np.exp(mean), rtol=1e-13)
    np.testing.assert_allclose(found.phi2_slope, 2 * np.exp(2 * q), rtol=1e-13)


def test_a_c_function_gets_its_data():
    data = ctypes.c_double(2.5)

    @with_data
    def scaled(x, pointer):
        return ctypes.cast(pointer, ctypes.POINTER(ctypes.c_double))[0] * x

    function = LowLevelCallable(scaled, ctypes.cast(ctypes.pointer(data), ctypes.c_void_p))
    assert function.signature == "double (double, void *)"
    found = gaussian_moments(function, 2.0)
    assert found.phi2 == pytest.approx(12.5, rel=1e-12)
    assert found.dphi == pytest.approx(2.5, rel=1e-9)


def test_a_c_function_runs_without_the_gil():
    """The function waits for another Python thread: it would for ever if the loop held the GIL."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "nanosleep"):
        pytest.skip("needs POSIX")
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(1e-3):
            ticks.append(1)

    @plain
    def slow(x):  # takes the GIL itself, so it yields only because the loop does not hold it
        return x

    other = threading.Thread(target=tick)
    other.start()
    try:
        get(LowLevelCallable(slow)).value(np.zeros(300_000))
    finally:
        done.set()
        other.join()
    assert ticks


@pytest.mark.parametrize("argument", ["phi", "dphi", "d2phi"])
def test_a_c_function_of_another_signature_is_named(argument):
    wrong = LowLevelCallable(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int)(lambda n: 0.0))
    parts = {"phi": np.tanh, "dphi": np.tanh, "d2phi": np.tanh, argument: wrong}
    with pytest.raises(
        TypeError, match=rf"^{argument} must have the signature 'double \(double\)'"
    ):
        Activation(**parts)
    with pytest.raises(TypeError, match=r"^activation must have .*got 'double \(int\)'"):
        gaussian_moments(wrong, 1.0)


@pytest.mark.parametrize(
    ("phi", "error", "message"),
    [
        (lambda x: x[:-1], ValueError, "phi of .* must return the shape of its input"),
        (lambda x: x + 0j, TypeError, "phi of .* must return real numbers, got dtype complex128"),
        (lambda x: np.full(x.shape, np.nan), ValueError, "phi of .* must be finite at the nodes"),
        (lambda x: np.where(x > 3, np.inf, x), ValueError, "phi of .* at the nodes .* got inf at"),
        (math.tanh, TypeError, "phi of .* must be a vectorised callable"),
    ],
)
def test_a_wrong_activation_is_named(phi, error, message):
    activation = Activation(phi, lambda x: np.ones(x.shape), name="mine")
    for call in (
        lambda: gaussian_moments(activation, 1.0),
        lambda: variance_map(activation, 1.0, sigma_w=1.0),
    ):
        with pytest.raises(error, match=message):
            call()


def test_wrong_slopes_and_curvatures_are_named():
    bad = Activation(np.tanh, lambda x: x[..., None], name="mine")
    with pytest.raises(ValueError, match="dphi of activation 'mine' must return the shape"):
        gaussian_moments(bad, 1.0)
    bad = Activation(np.tanh, np.cos, lambda x: x + np.nan, name="mine")
    with pytest.raises(ValueError, match="d2phi of activation 'mine' must be finite at the nodes"):
        gaussian_moments(bad, 1.0)


def test_kinks_out_of_order_or_not_finite_are_named():
    def clipped(*kinks):
        return Activation(
            lambda x: np.clip(x, -1, 2),
            lambda x: np.where((x > -1) & (x < 2), 1.0, 0.0),
            np.zeros_like,
            kinks=kinks,
        )

    assert gaussian_moments(clipped(-1.0, 2.0), 1.0).dphi == pytest.approx(
        (math.erf(math.sqrt(0.5)) + math.erf(math.sqrt(2.0))) / 2, rel=1e-14
    )
    for bad in ((2.0, -1.0), (0.0, np.nan), (0.0, np.inf)):
        with pytest.raises(ValueError, match="kinks must be finite numbers in ascending order"):
            clipped(*bad)


def test_curvature_is_infinite_exactly_where_the_slope_jumps():
    """phi = |x| x / 2 has a slope without a jump and a curvature that jumps; E phi''^2 = 1."""
    smooth = Activation(lambda x: np.abs(x) * x / 2, np.abs, np.sign, kinks=(0.0,))
    np.testing.assert_allclose(gaussian_moments(smooth, Q).d2phi2, 1.0, rtol=1e-13)
    sharp = Activation(np.abs, np.sign, np.zeros_like, kinks=(0.0,))
    np.testing.assert_array_equal(gaussian_moments(sharp, Q).d2phi2, np.inf)
    aside = Activation(lambda x: np.abs(x - 1), lambda x: np.sign(x - 1), np.zeros_like, kinks=(1,))
    found = gaussian_moments(aside, [0.0, 1e-9, 1.0])
    np.testing.assert_array_equal(found.d2phi2, [0, np.inf, np.inf])
    shifted = gaussian_moments(aside, Q[2:])  # by Stein's lemma a jump counts as a point mass
    np.testing.assert_allclose(shifted.phi2, 1 + Q[2:], rtol=1e-13)
    np.testing.assert_allclose(shifted.phi2_slope, 1.0, rtol=1e-13)
    np.testing.assert_allclose(gaussian_moments(sharp, Q).phi2_slope, 1.0, rtol=1e-13)


def test_an_item_does_not_depend_on_what_was_asked_before(rng):
    """Octaves are made one by one and in any order; two activations that are equal agree."""

    def fresh():
        return Activation(np.arctan, lambda x: 1 / (1 + x * x), name="mine")

    q = rng.lognormal(sigma=6, size=300)
    at_once = rows(gaussian_moments(fresh(), q))
    grown = fresh()
    for i in rng.permutation(len(q)):
        np.testing.assert_array_equal(rows(gaussian_moments(grown, q[i]))[:, 0], at_once[:, i])
    np.testing.assert_array_equal(rows(gaussian_moments(grown, q)), at_once)


def test_many_threads_may_fill_one_table(rng):
    activation = Activation(np.arctan, lambda x: 1 / (1 + x * x), name="mine")
    q = rng.lognormal(sigma=6, size=(8, 50))
    found = [None] * len(q)

    def work(i):
        found[i] = rows(gaussian_moments(activation, q[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(q))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(len(q)):
        np.testing.assert_array_equal(found[i], rows(gaussian_moments(activation, q[i])))


def test_an_activation_may_ask_for_moments_of_itself():
    """As one that normalises itself does: no lock is held while it runs."""

    def phi(x):
        return np.tanh(x) / np.sqrt(gaussian_moments("tanh", 1.0).phi2)

    found = gaussian_moments(Activation(phi, lambda x: 0 * x, name="mine"), 1.0)
    assert found.phi2 == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize("q", [5e-324, 1e-310, 1e-300, 1e-80, 1e80, 1e300, 1.7e308])
def test_the_table_and_what_is_beyond_it_have_the_limits(q):
    """Subnormal variances are integrated one by one, as is the last octave."""
    activation = get("tanh")
    found = gaussian_moments(activation, np.array([1.0, q, 0.0, np.nextafter(q, 1), -0.0]))
    np.testing.assert_array_equal(rows(found)[:, 1], rows(gaussian_moments(activation, q))[:, 0])
    np.testing.assert_array_equal(found.dphi2[[2, 4]], 1.0)
    expected = min(q, 1.0)
    # The 1500 terms of a sum below 2e-308 are multiples of 5e-324.
    assert found.phi2[1] == pytest.approx(expected, rel=1e-13, abs=1500 * 5e-324)
    assert found.dphi2[1] == pytest.approx(1.0 if q < 1 else 0.0, rel=1e-13, abs=1e-40)
    for argument in (q, np.full(3, q)):
        mapped = variance_map(activation, argument, sigma_w=[2.0, 3.0, 0.5], sigma_b=1.0)
        np.testing.assert_allclose(mapped, np.array([4, 9, 0.25]) * expected + 1, rtol=1e-13)


def test_a_moment_that_changes_too_fast_for_a_polynomial_is_integrated():
    """A threshold at 1: E phi^2 falls like exp(-1 / (2 q)) and keeps its digits all the way."""
    threshold = Activation(
        lambda x: np.where(x > 1, x - 1, 0.0),
        lambda x: np.where(x > 1, 1.0, 0.0),
        np.zeros_like,
        kinks=(1.0,),
    )
    q = np.array([0.005, 0.01, 0.02, 0.1, 1.0])
    t = 1 / np.sqrt(q)
    above = np.array([math.erfc(v / math.sqrt(2)) / 2 for v in t])
    found = gaussian_moments(threshold, q)
    np.testing.assert_allclose(found.dphi, above, rtol=1e-12)
    np.testing.assert_allclose(found.dphi2, above, rtol=1e-12)


def test_an_undeclared_kink_is_warned_about_at_every_call():
    activation = Activation(np.abs, lambda x: np.sign(x - 0.3), name="jump")
    for _ in range(2):
        with pytest.warns(
            JacometryWarning, match="'jump' near q = 1 settled to .* declare its kinks"
        ):
            gaussian_moments(activation, 1.0)
        with pytest.warns(JacometryWarning, match="near q = 1 settled"):
            variance_map(activation, 1.0, sigma_w=1.0)


def test_a_tail_that_cannot_be_reached_is_warned_about():
    """exp(x^2 / 3) has a second moment for q < 3 / 4 only."""
    heavy = Activation(lambda x: np.exp(x * x / 3), lambda x: 2 / 3 * x * np.exp(x * x / 3))
    light = gaussian_moments(heavy, 0.25)
    assert light.phi == pytest.approx((1 - 2 * 0.25 / 3) ** -0.5, rel=1e-13)
    with pytest.warns(JacometryWarning, match="near q = 0.5 leave out a tail: it grows too fast"):
        gaussian_moments(heavy, 0.9)
    with pytest.raises(ValueError, match=r"must be finite at the nodes .* got inf"):
        gaussian_moments(heavy, 4.0)
