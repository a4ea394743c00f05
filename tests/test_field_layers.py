"""MeanField of residual, normalised and dropped-out layers."""

import math

import numpy as np
import pytest
from common import plane_means

import jacometry as jm
from jacometry.meanfield import MeanField
from jacometry.ops.moments import gaussian_moments, variance_map


def test_dropout_parts_two_copies_of_an_input():
    plain, dropped = (MeanField("tanh", 1.2, 0.3, dropout=rate) for rate in (0.0, 0.1))
    assert plain.c_star == 1
    assert dropped.c_star < 0.99
    q = float(dropped.q_star)
    assert q == pytest.approx(
        float(variance_map("tanh", q, sigma_w=1.2 / math.sqrt(0.9), sigma_b=0.3)), rel=1e-14
    )
    assert dropped.chi_1 == pytest.approx(1.44 / 0.9 * gaussian_moments("tanh", q).dphi2)
    together, _ = plane_means(np.tanh, 1 - float(dropped.c_star), q)
    assert 1.44 * together + 0.09 == pytest.approx(q * float(dropped.c_star), rel=1e-13)
    way = dropped.trajectory(q, 1.0, 300)
    assert way.c[-1] == pytest.approx(dropped.c_star, rel=1e-13)


def test_a_damped_shortcut_has_a_fixed_point():
    field = MeanField("tanh", 1.5, 0.2, shortcut=0.6, branch_scale=0.5)
    q = float(field.q_star)
    branch = 0.25 * (2.25 * gaussian_moments("tanh", q).phi2 + 0.04)
    assert 0.36 * q + branch == pytest.approx(q, rel=1e-14)
    chi = 0.36 + 0.25 * 2.25 * gaussian_moments("tanh", q).dphi2
    assert field.chi_1 == pytest.approx(chi, rel=1e-15)
    way = field.trajectory(1.0, 0.3, 500)
    assert way.q[-1] == pytest.approx(q, rel=1e-13)
    assert way.c[-1] == pytest.approx(field.c_star, rel=1e-12)


def test_a_full_shortcut_grows_without_a_fixed_point():
    # Yang and Schoenholz 2017: ReLU exponentially, tanh linearly in depth.
    relu = MeanField("relu", 1.0, 0.1, shortcut=1.0, branch_scale=0.5)
    assert np.isinf(relu.q_star)
    assert relu.status.startswith("q diverges")
    assert relu.chi_1 == pytest.approx(1.125, rel=1e-15)
    assert relu.depth_scale_q == pytest.approx(-1 / math.log(1.125), rel=1e-13)
    assert relu.c_star == 1
    tanh = MeanField("tanh", 1.2, 0.3, shortcut=1.0)
    assert np.isinf(tanh.q_star)
    assert tanh.status.startswith("q grows slower than any exponential")
    assert tanh.chi_1 == pytest.approx(1.0, abs=1e-12)
    assert np.isinf(tanh.depth_scale_q)
    assert tanh.phase == "divergent"
    # The correlation tends to the root of (1.44 + 0.09) c = 1.44 (2 / pi) asin c + 0.09.
    c = float(tanh.c_star)
    assert 1.53 * c == pytest.approx(1.44 * 2 / math.pi * math.asin(c) + 0.09, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("relu", 1.46694220692426), ("tanh", 1.17780723230418), ("gelu", 1.318844970865623)],
)
def test_batch_norm_explodes_at_the_known_rate_whatever_the_sigmas(name, rate):
    field = MeanField(name, [0.3, 1.0, 5.0], [0.0, 0.5, 1.0], normalization="batch")
    np.testing.assert_allclose(field.chi_1, rate, rtol=1e-13)
    assert set(field.phase) == {"chaotic"}
    moments = gaussian_moments(name, 1.0)
    spread = moments.phi2 - moments.phi**2
    np.testing.assert_allclose(field.chi_c, moments.dphi**2 / spread, rtol=1e-13)
    c = field.trajectory(1.0, 0.4, 400).c[:, -1]  # 0.93**400 = 3e-13
    np.testing.assert_allclose(c, field.c_star, atol=1e-12)


def test_batch_norm_in_a_residual_network_explodes_polynomially():
    damped = MeanField("relu", 1.0, 0.0, shortcut=0.8, normalization="batch")
    assert damped.chi_1 == pytest.approx(0.64 + 0.36 * 1.46694220692426, rel=1e-13)
    full = MeanField("relu", 1.0, 0.0, shortcut=1.0, normalization="batch")
    assert np.isinf(full.q_star)
    assert full.chi_1 == 1
    assert "slower than any exponential" in full.status


def test_layer_norm_keeps_relu_critical_and_makes_tanh_chaotic():
    relu = MeanField("relu", [0.2, 3.0], normalization="layer")
    np.testing.assert_allclose(relu.chi_1, 1.0, rtol=1e-15)
    assert set(relu.phase) == {"critical"}
    tanh = MeanField("tanh", 1.7, 0.3, normalization="layer")
    moments = gaussian_moments("tanh", 1.0)
    q = 2.89 * moments.phi2 + 0.09
    assert tanh.q_star == pytest.approx(q, rel=1e-15)
    assert tanh.chi_1 == pytest.approx(2.89 * moments.dphi2 / q, rel=1e-15)
    together, _ = plane_means(np.tanh, 1 - float(tanh.c_star), 1.0)
    assert 2.89 * together + 0.09 == pytest.approx(q * float(tanh.c_star), rel=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shortcut": 0.6, "branch_scale": 0.5},
        {"normalization": "layer"},
        {"normalization": "batch"},
        {"normalization": "batch", "shortcut": 0.8},
        {"normalization": "layer", "shortcut": 0.5, "branch_scale": 2.0},
    ],
)
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_predictions_tend_to_the_fields(name, options):
    field = MeanField(name, 1.2, 0.3, **options)
    prediction = jm.predict([7] * 400, name, sigma_w=1.2, sigma_b=0.3, **options)
    assert prediction.q[-1] == pytest.approx(field.q_star, rel=1e-11)
    assert prediction.chi[-1] == pytest.approx(field.chi_1, rel=1e-11)
