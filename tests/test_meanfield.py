"""Mean-field predictions against closed forms, published numbers and simulated networks."""

import math

import numpy as np
import pytest
from scipy.special import expit

from jacometry import initializers
from jacometry.meanfield import predict
from jacometry.network import Network
from jacometry.ops.chain import chain_vjp


def test_he_relu_keeps_signal_and_gradient():
    prediction = predict([64, 30, 50, 20, 10], "relu", sigma_w=math.sqrt(2))
    np.testing.assert_allclose(prediction.q, [1, 2, 2, 2, 2], rtol=1e-14)
    np.testing.assert_allclose(prediction.log_gradient[1:], 0, atol=1e-14)
    assert prediction.log_gradient[0] == pytest.approx(math.log(2) / 2)


def test_linear_network_is_a_power():
    prediction = predict([5, 6, 7, 8], "identity", sigma_w=0.5, sigma_b=0.0, q0=3.0)
    np.testing.assert_allclose(prediction.q, 3.0 * 0.25 ** np.arange(4), rtol=1e-14)
    np.testing.assert_allclose(prediction.log_gradient, np.log(0.5) * np.array([3, 2, 1, 0]))


def test_sigmoid_with_xavier_weights_loses_the_gradient():
    # theory.md: chi = 0.0557 at the fixed point.
    prediction = predict([40] * 41, "sigmoid", sigma_w=1.0)
    assert prediction.chi[-1] == pytest.approx(0.0557, abs=5e-5)
    assert prediction.log_gradient[20] - prediction.log_gradient[21] == pytest.approx(
        math.log(0.236), abs=1e-3
    )


@pytest.mark.parametrize(
    ("sigma_w2", "q_star", "chi_1"),
    [(1.0, 0.1935925202453, 0.75903164718539), (2.0, 0.72176187265207, 1.0476659995757)],
)
def test_tanh_reaches_the_published_fixed_point(sigma_w2, q_star, chi_1):
    options = {"sigma_w": math.sqrt(sigma_w2), "sigma_b": math.sqrt(0.05)}
    prediction = predict([10] * 400, "tanh", **options, q0=q_star)
    assert prediction.q[-1] == pytest.approx(q_star, rel=1e-11)
    assert prediction.chi[-1] == pytest.approx(chi_1, rel=1e-10)


@pytest.mark.parametrize(("q_1", "constant"), [(1.0, 0.7061), (0.5, 1.241)])
def test_tanh_at_xavier_decays_like_one_over_depth(q_1, constant):
    depth = 4000
    prediction = predict([1] * (depth + 2), "tanh", sigma_w=1.0, q0=q_1)
    energy = math.exp(2 * prediction.log_gradient[1])
    assert energy * depth == pytest.approx(constant, rel=2e-3)


def test_entries_follow_the_recursion_with_fan_out():
    widths, sigma_w = np.array([30, 50, 20, 70, 10]), 1.3
    prediction = predict(widths, "tanh", sigma_w=sigma_w, sigma_b=0.2)
    entry = np.exp(2 * prediction.log_gradient_entry)
    # Var(g_l) = fan_out Var(W) E[phi'^2] Var(g_{l+1}), Var(W) = sigma_w^2 / fan_in, chi = sigma_w^2
    # E[phi'^2].
    expected = widths[1:] / widths[:-1] * prediction.chi * entry[1:]
    np.testing.assert_allclose(entry[:-1], expected, rtol=1e-13)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_wide_random_networks_follow_the_prediction(activation, rng):
    widths = [200, 400, 300, 500, 100]
    ratios, squares = [], []
    for _ in range(24):
        net = Network.random(widths, activation, initializers.gaussian, rng=rng)
        x = rng.standard_normal(200)
        states = list(net.propagate(x[None]))
        squares.append([np.mean(s.pre_activations**2) for s in states])
        slopes = [None, *(s.slopes for s in states[:-1])]
        weights = [layer.weights for layer in net.layers]
        trace = chain_vjp(weights, rng.standard_normal((1, 100)), slopes=slopes, slope_side="input")
        ratios.append(np.exp(2 * (trace.log_norms[0] - trace.log_norms[0, -1])))
    prediction = predict(widths, activation, sigma_w=1.0, q0=1.0)
    for measured, expected in (
        (np.array(ratios), np.exp(2 * prediction.log_gradient)),
        (np.array(squares), prediction.q[1:]),
    ):
        stderr = measured.std(axis=0, ddof=1) / math.sqrt(len(measured))
        # Six standard errors and a finite-width bias of order depth / width.
        allowed = 6 * stderr + 0.05 * expected
        assert (np.abs(measured.mean(axis=0) - expected) <= allowed).all()


def test_per_layer_scales_and_activations():
    mixed = predict(
        [4, 4, 4, 4], ["relu", "tanh"], sigma_w=[1.0, 2.0, 0.5], sigma_b=[0.0, 0.3, 0.0]
    )
    assert mixed.q[1] == 1.0
    assert mixed.q[2] == pytest.approx(4 * 0.5 + 0.09)
    relu_kappa = 0.5
    assert mixed.chi[1] == pytest.approx(4 * relu_kappa)


def test_a_user_function_is_understood():
    by_name = predict([9] * 6, "sigmoid", sigma_w=1.2, sigma_b=0.1)
    by_function = predict([9] * 6, expit, sigma_w=1.2, sigma_b=0.1)
    np.testing.assert_allclose(by_function.log_gradient, by_name.log_gradient, atol=1e-8)


def test_a_diverging_signal_keeps_its_gradient():
    prediction = predict([3] * 2001, "relu", sigma_w=2.0)
    assert prediction.q[-1] > 1e299
    assert prediction.log_gradient[1] == pytest.approx(1999 * math.log(2) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"widths": [3]}, ValueError, "widths"),
        ({"widths": [3, 0]}, ValueError, "widths"),
        ({"widths": [3.0, 2.0]}, ValueError, "widths"),
        ({"sigma_w": [1.0, 1.0]}, ValueError, "sigma_w"),
        ({"sigma_w": -1.0}, ValueError, "sigma_w"),
        ({"sigma_w": "1"}, TypeError, "sigma_w"),
        ({"sigma_b": math.nan}, ValueError, "sigma_b"),
        ({"q0": -1.0}, ValueError, "q0"),
        ({"activation": ["relu"]}, ValueError, "activation"),
        ({"activation": "nope"}, ValueError, "activation"),
    ],
)
def test_rejections_name_the_argument(options, error, name):
    arguments = {"widths": [3, 4, 5, 6], "activation": "tanh", "sigma_w": 1.0} | options
    with pytest.raises(error, match=name):
        predict(arguments.pop("widths"), arguments.pop("activation"), **arguments)
