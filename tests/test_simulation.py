"""simulate: the same bits however it is cut, exact laws, networks pulled back by hand."""

import math
import tracemalloc
from functools import partial

import numpy as np
import pytest
from scipy.stats import norm

from jacometry import initializers
from jacometry.activations import Activation
from jacometry.meanfield import _simulation, log_norm_law, predict, simulate
from jacometry.reference import gaussian as reference

# Two-sided statistical tests reject a true statement once in 10^7 runs: their seeds are fixed.
Z = norm.isf(0.5e-7)
FIELDS = ("forward", "activations", "gradient")


def logs_of(simulation):
    return [getattr(simulation, name).log_norms for name in FIELDS]


def seeded(sfc, words):
    """Put an SFC64 where three words put it: beside a counter of 1, and twelve steps on."""
    state = sfc.state
    state["state"]["state"] = np.array([*words, 1], np.uint64)
    sfc.state = state
    sfc.random_raw(12)


SCALES = {
    initializers.gaussian: lambda m, n: 1 / math.sqrt(n),
    initializers.glorot_normal: lambda m, n: math.sqrt(2 / (m + n)),
}


def drawn(rng, widths, initializer, sigma_b=0.0):
    """Inputs, cotangents, weights and biases of the first net that simulate draws, by hand."""
    words = np.random.default_rng(rng).integers(0, 2**64, (1, 5), np.uint64)[0]
    counts = [widths[0], widths[-1], *widths[1:]]
    rest = reference.gaussian_fill(words[3:].tolist(), 0, sum(counts), 1.0, np.float64)
    x, g, *biases = np.split(rest, np.cumsum(counts)[:-1])
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    if initializer in SCALES:
        sizes = [m * n for m, n in shapes]
        flat = reference.gaussian_fill(words[:2].tolist(), 0, sum(sizes), 1.0, np.float64)
        parts = zip(np.split(flat, np.cumsum(sizes)[:-1]), shapes, strict=True)
        weights = [SCALES[initializer](*shape) * part.reshape(shape) for part, shape in parts]
    else:
        generator = np.random.Generator(np.random.SFC64())
        seeded(generator.bit_generator, words[:3])
        weights = [initializer(shape, rng=generator) for shape in shapes]
    return x * math.sqrt(len(x)) / np.linalg.norm(x), g, weights, [sigma_b * b for b in biases]


@pytest.mark.parametrize("initializer", ["glorot_normal", "he_uniform", "orthogonal"])
@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid"])
def test_one_net_is_what_numpy_makes_of_the_same_draws(initializer, name):
    from jacometry import activations

    widths, phi = [5, 9, 9, 3], activations.get(name)
    shortcut, scale, sigma_b = [0.0, 0.5, 0.0], [1.0, 0.7, 2.0], 0.3
    found = simulate(
        widths, name, initializer=initializer, n_nets=2, rng=11, sigma_b=sigma_b,
        shortcut=shortcut, branch_scale=scale,
    )  # fmt: skip
    x, g, weights, biases = drawn(11, widths, initializers.get(initializer), sigma_b)
    zs, hs = [x], []
    for k in range(3):
        hs.append(zs[-1] if k == 0 else phi.value(zs[-1]))
        branch = scale[k] * (weights[k] @ hs[-1] + biases[k])
        zs.append(branch + (shortcut[k] * zs[-1] if shortcut[k] else 0))
    gs = [g]
    for k in (2, 1, 0):
        slope = np.ones_like(x) if k == 0 else phi.slope(zs[k])
        pulled = scale[k] * slope * (weights[k].T @ gs[0])
        gs.insert(0, pulled + (shortcut[k] * gs[0] if shortcut[k] else 0))
    for logs, vectors in zip(logs_of(found), (zs, hs, gs), strict=True):
        expected = np.log([np.linalg.norm(v) for v in vectors])
        expected -= expected[-1] if vectors is gs else 0
        np.testing.assert_allclose(logs[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("initializer", ["he_normal", "orthogonal"])
def test_threads_groups_and_segments_change_no_bit(monkeypatch, dtype, initializer):
    widths = [6, 17, 17, 33, 8, 8, 1]
    options = {"initializer": initializer, "rng": 5, "sigma_b": 0.1, "dtype": dtype}

    def run(n_nets, n_threads=1):
        return logs_of(simulate(widths, "gelu", n_nets=n_nets, n_threads=n_threads, **options))

    whole = run(20)
    for n_threads in (2, 3):
        for a, b in zip(whole, run(20, n_threads), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(whole, run(7), strict=True):  # net i does not depend on how many there are
        np.testing.assert_array_equal(a[:7], b)
    # One net and layer at a time; two layers of three nets; and no less than that.
    eps = np.finfo(dtype).eps
    for size, group in ((1, 1), (17 * 33 * 3 * 2 * np.dtype(dtype).itemsize, 3)):
        monkeypatch.setattr(_simulation, "_WEIGHT_BYTES", size)
        monkeypatch.setattr(_simulation, "_LARGEST_LEAST_GROUP", group)
        forward, activations, gradient = run(20, 2)
        np.testing.assert_array_equal(forward, whole[0])
        np.testing.assert_array_equal(activations, whole[1])
        # Where segments end is where an exponent is split off: roundings of the logs on the way.
        largest = max(1.0, np.abs(whole[2][np.isfinite(whole[2])]).max())
        np.testing.assert_allclose(gradient, whole[2], rtol=0, atol=4 * eps * largest)


@pytest.mark.parametrize(("name", "widths"), [("relu", [12, 12, 20, 9]), ("identity", [6] * 5)])
def test_the_growth_of_a_signal_has_the_exact_law(name, widths):
    """Mean, variance and survival of ln ||h||^2 after each activation."""
    n_nets = 4000
    found = simulate([*widths, 4], name, initializer="he_normal", n_nets=n_nets, rng=3)
    law = log_norm_law(name, widths, sigma_w=math.sqrt(2))
    grown = 2 * (found.activations.log_norms - found.activations.log_norms[:, :1])
    for k in range(1, len(widths)):
        alive = grown[np.isfinite(grown[:, k]), k]
        chance = law.survivals[k]
        allowed = Z * math.sqrt(n_nets * chance * (1 - chance)) + 1
        assert abs(len(alive) - n_nets * chance) <= allowed
        assert abs(alive.mean() - law.means[k]) <= Z * math.sqrt(law.variances[k] / len(alive))
        fourth = np.mean((alive - alive.mean()) ** 4)
        spread = math.sqrt((fourth - alive.var() ** 2) / len(alive))
        assert abs(alive.var() - law.variances[k]) <= Z * spread


def test_leaky_relu_has_its_exact_law():
    n_nets, widths = 4000, [8] * 6
    found = simulate([*widths, 8], "leaky_relu", initializer="gaussian", n_nets=n_nets, rng=4)
    law = log_norm_law("leaky_relu", widths, sigma_w=1.0)
    grown = 2 * (found.activations.log_norms[:, -1] - found.activations.log_norms[:, 0])
    assert abs(grown.mean() - law.mean) <= Z * math.sqrt(law.variance / n_nets)
    assert abs(grown.var() / law.variance - 1) <= Z * math.sqrt(3 / n_nets)
    assert found.forward.n_dead.sum() == 0


@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_wide_nets_follow_mean_field_theory(name):
    widths, n_nets = [200, 300, 250, 300, 300, 100], 60
    options = {"sigma_b": 0.2, "shortcut": [0, 0, 0, 1.0, 0], "branch_scale": [1, 1, 1, 0.5, 1]}
    gaussian = partial(initializers.gaussian, gain=1.3)
    found = simulate(widths, name, initializer=gaussian, n_nets=n_nets, rng=8, **options)
    theory = predict(widths, name, sigma_w=1.3, **options)
    square = found.forward.log_mean_square - np.log(widths)
    # The fluctuation of one net's log square is about sqrt(5 L / n); so is the bias of its mean.
    allowed = Z * math.sqrt(5 * 5 / 200 / n_nets) + 5 * 5 / 200
    assert np.abs(square - np.log(theory.q)).max() <= allowed
    # And the cotangent's own chi-squared law adds 2 / 100.
    pulled = found.gradient.log_mean_square - 2 * theory.log_gradient
    assert np.abs(pulled).max() <= allowed + Z * math.sqrt(2 / 100 / n_nets)


def test_a_signal_may_vanish_or_explode_for_ten_thousand_layers():
    depth = 10_000
    for name, gain, rate in (
        ("tanh", 1e-3, 1e-3),
        ("leaky_relu", 1e3, 1e3 / math.sqrt(2)),
    ):
        gaussian = partial(initializers.gaussian, gain=gain)
        found = simulate([8] * (depth + 1), name, initializer=gaussian, n_nets=1, rng=0)
        for logs in (found.forward.log_norms[0], found.gradient.log_norms[0, ::-1]):
            assert np.isfinite(logs).all()
            # The mean is below ln of the root mean square by about 5 / (4 n).
            assert logs[-1] / depth == pytest.approx(math.log(rate), abs=0.25)


@pytest.mark.parametrize("name", ["tanh", "elu", "softplus", "silu", "relu", "sin", "leaky_relu"])
def test_an_activation_far_from_one_is_its_tangents(name):
    """Beyond 2^+-100 the signal is scaled; at 2^+-90 it is not: the same net, scaled, agrees."""
    from jacometry import activations

    if name not in activations.names():
        pytest.skip(f"{name} is not in the registry")
    phi = activations.get(name)
    for exponent in (-130, 130)[: 1 if name == "sin" else 2]:  # sin of 2^130 is noise
        q0 = 4.0**exponent
        found = simulate([6, 6, 6], name, initializer="gaussian", n_nets=1, rng=2, q0=q0)
        x, g, weights, _ = drawn(2, [6, 6, 6], initializers.gaussian)
        z = weights[0] @ (x * 2.0**exponent)
        h, slope = phi.value(z), phi.slope(z)
        expected = [np.linalg.norm(h), np.linalg.norm(slope * (weights[1].T @ g))]
        got = [found.activations.log_norms[0, 1],
               found.gradient.log_norms[0, 1] + math.log(np.linalg.norm(g))]  # fmt: skip
        with np.errstate(divide="ignore"):  # the slope of tanh is 0 there
            np.testing.assert_allclose(got, np.log(expected), rtol=1e-14, atol=1e-14)


def test_an_input_beyond_float32_is_no_obstacle():
    large, small = (
        simulate([5, 4, 3], "relu", initializer="he_normal", n_nets=3, rng=0, q0=q0,
                 dtype=np.float32).forward.log_norms
        for q0 in (4.0**400, 1.0)
    )  # fmt: skip
    np.testing.assert_allclose(large, small + 400 * math.log(2), rtol=1e-15)


def test_dead_nets_are_counted_and_left_out():
    widths, n_nets = [3] * 9, 500
    found = simulate(widths, "relu", initializer="he_normal", n_nets=n_nets, rng=1)
    dead = found.forward.log_norms == -np.inf
    np.testing.assert_array_equal(found.forward.n_dead, dead.sum(axis=0))
    assert 0 < found.forward.n_dead[-1] < n_nets
    # A net is dead forwards from a layer on, and backwards up to it.
    np.testing.assert_array_equal(dead[:, -1], found.gradient.log_norms[:, 0] == -np.inf)
    alive = found.forward.log_norms[~dead[:, -1], -1]
    assert found.forward.mean[-1] == pytest.approx(alive.mean())
    assert found.forward.std[-1] == pytest.approx(alive.std(ddof=1))
    squares = np.exp(2 * found.forward.log_norms[:, -1])
    assert found.forward.log_mean_square[-1] == pytest.approx(np.log(squares.mean()))
    low, middle = found.forward.quantile([0.0, 0.5])
    assert low[-1] == -np.inf
    assert middle[-1] in found.forward.log_norms[:, -1]


def test_zeros_kill_every_net_and_say_so():
    found = simulate([4, 4, 4], "relu", initializer="zeros", n_nets=3, rng=0)
    np.testing.assert_array_equal(found.forward.n_dead, [0, 3, 3])
    np.testing.assert_array_equal(found.gradient.n_dead, [3, 3, 0])
    assert np.isnan(found.forward.mean[1:]).all()
    assert (found.forward.log_mean_square[1:] == -np.inf).all()


def test_memory_does_not_grow_with_nets_or_depth(monkeypatch):
    monkeypatch.setattr(_simulation, "_WEIGHT_BYTES", 1 << 20)

    def peak(depth, n_nets):
        tracemalloc.start()
        found = simulate([32] * (depth + 1), "tanh", initializer="lecun_normal", n_nets=n_nets,
                         rng=0, n_threads=1)  # fmt: skip
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used - sum(logs.nbytes for logs in logs_of(found))

    # All weights would be 8 KB a layer and net, 190 MB.  Held: 1 MB of them, and no more of the
    # signals at segments' ends, and the slopes.
    for depth, n_nets in ((40, 60), (400, 6), (400, 60)):
        assert peak(depth, n_nets) < 4 * 2**20


def test_rng_may_be_a_generator_whose_state_decides():
    a, b = (simulate([4, 4], "tanh", initializer="gaussian", n_nets=2, rng=rng) for rng in
            (np.random.default_rng(7), 7))  # fmt: skip
    np.testing.assert_array_equal(a.forward.log_norms, b.forward.log_norms)
    generator = np.random.default_rng(7)
    first, second = (
        simulate([4, 4], "tanh", initializer="gaussian", n_nets=2, rng=generator) for _ in "ab"
    )
    assert (first.forward.log_norms[:, 1:] != second.forward.log_norms[:, 1:]).all()


CUBE = Activation(lambda x: x**3, lambda x: 3 * x * x, name="cube")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_nets": 0}, ValueError, "n_nets must be at least 1"),
        ({"n_nets": 1.5}, TypeError, "n_nets"),
        ({"initializer": "nope"}, ValueError, "initializer"),
        ({"initializer": lambda shape, **_: np.ones(3)}, ValueError, r"initializer.*got shape \(3"),
        (
            {"initializer": lambda shape, **_: np.full(shape, np.nan)},
            ValueError, "initializer must return finite.*nan for layer 0 of net 0",
        ),
        ({"initializer": partial(initializers.gaussian, gain=math.nan)}, ValueError, "gain"),
        (
            {"initializer": partial(initializers.gaussian, gain=1e39), "dtype": np.float32},
            ValueError, "initializer must return finite",
        ),
        ({"sigma_b": 1e39, "dtype": np.float32}, ValueError, "sigma_b must lie well within"),
        ({"q0": -1.0}, ValueError, "q0"),
        ({"sigma_b": -1.0}, ValueError, "sigma_b"),
        ({"shortcut": 1.0}, ValueError, r"shortcut must be 0 .* layer 0 of shape \(4, 3\)"),
        ({"branch_scale": math.inf}, ValueError, "branch_scale"),
        ({"dtype": np.int64}, TypeError, "dtype"),
        ({"activation": "nope"}, ValueError, "activation"),
        ({"widths": [3]}, ValueError, "widths"),
        ({"activation": CUBE, "q0": 1e250}, ValueError, "activation 'cube'.*inf before layer 1"),
    ],
)  # fmt: skip
def test_rejections_name_the_argument(options, error, message):
    arguments = {
        "widths": [3, 4, 4], "activation": "relu", "initializer": "he_normal", "n_nets": 2,
        "rng": 0,
    } | options  # fmt: skip
    with pytest.raises(error, match=message):
        simulate(arguments.pop("widths"), arguments.pop("activation"), **arguments)
