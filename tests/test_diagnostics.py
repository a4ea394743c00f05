"""The analysis against autograd-free references, closed forms, and networks made to be ill."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from jacometry import UnsupportedModelError
from jacometry._verdict import float_range, segments
from jacometry.diagnostics import Finding, GradientFlowReport, analyze, compare
from jacometry.initializers import gaussian
from jacometry.network import Network
from jacometry.ops.chain import chain_product

FIELDS = (
    "name", "forward_variance", "gradient_log_norm", "norm_lower", "norm_upper",
    "cumulative_log_norm", "condition", "saturation", "dead", "effective_rank",
    "theory_log_gradient", "z",
)  # fmt: skip


def scaled_network(factors, width, rng, activation="identity"):
    """Orthogonal layers times factors: every norm is known."""
    weights = []
    for factor in factors:
        q, _ = np.linalg.qr(rng.standard_normal((width, width)))
        weights.append(factor * q)
    return Network.from_arrays(weights, activations=activation)


def problems(report):
    return {finding.kind for finding in report.findings if finding.severity == "problem"}


# ------------------------------------------------------------------------------------- the figures


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "gelu", "softsign", "relu6"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_every_figure_agrees_with_its_definition(activation, loss, rng):
    widths, n = (6, 7, 5, 7, 4), 9
    weights = [rng.standard_normal((m, k)) / math.sqrt(k) for k, m in pairwise(widths)]
    biases = [0.1 * rng.standard_normal(m) for m in widths[1:]]
    net = Network.from_arrays(weights, biases, activation)
    x = rng.standard_normal((n, 6))
    y = rng.integers(0, 4, n) if loss == "cross_entropy" else rng.standard_normal((n, 4))
    report = analyze(net, x, y=y, rng=0)
    assert report.loss == loss
    assert report.layers.dtype.names[: len(FIELDS)] == FIELDS

    h, zs, slopes = x, [], []
    for w, b, layer in zip(weights, biases, net.layers, strict=True):
        zs.append(h @ w.T + b)
        slopes.append(layer.activation.slope(zs[-1]))
        h = layer.activation.value(zs[-1])
    if loss == "mse":
        delta = h - y
    else:
        p = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
        delta = p - np.eye(4)[y]
        assert report.accuracy == np.mean(h.argmax(axis=1) == y)
    derivative = np.broadcast_to(np.eye(4), (n, 4, 4))
    norms = np.empty((4, n))
    for k in reversed(range(4)):
        row = report.layers[k]
        if k < 3:
            step = weights[k + 1] * slopes[k][:, None, :]
            delta = np.einsum("bij,bi->bj", step, delta)
            derivative = derivative @ step
        norms[k] = np.linalg.norm(delta, axis=1)
        assert row["forward_variance"] == pytest.approx(np.mean(zs[k] ** 2), rel=1e-12)
        jacobian = weights[k][None] if k == 0 else weights[k] * slopes[k - 1][:, None, :]
        values = np.linalg.svd(jacobian, compute_uv=False)
        assert row["norm_lower"] <= values[:, 0].max() * (1 + 1e-12)
        assert row["norm_upper"] >= values[:, 0].max() * (1 - 1e-12)
        assert row["norm_upper"] <= row["norm_lower"] * 1.02
        if activation not in ("relu", "relu6"):
            condition = np.median(values[:, 0] / values[:, -1])
            assert row["condition"] == pytest.approx(condition, rel=1e-6)
        largest = np.linalg.norm(derivative, 2, axis=(1, 2)).max()
        assert row["cumulative_log_norm"] == pytest.approx(math.log(largest), abs=0.01)
        assert row["dead"] == np.mean((slopes[k] == 0).all(axis=0))
        if k < 3 and activation in ("tanh", "sigmoid", "softsign"):
            limit = 0.05 * net.layers[k].activation.lipschitz
            assert row["saturation"] == np.mean(np.abs(slopes[k]) < limit)
        else:
            assert math.isnan(row["saturation"])
        centred = zs[k] - zs[k].mean(axis=0)
        assert row["spread"] == pytest.approx(np.linalg.norm(centred) / np.linalg.norm(zs[k]))
    has_gradient = norms.all(axis=0)
    assert report.n_zero_gradient == n - has_gradient.sum()
    logs = np.log(norms[:, has_gradient]).mean(axis=1)
    np.testing.assert_allclose(report.layers["gradient_log_norm"], logs, rtol=1e-10)


def test_rate_is_the_mean_step_with_its_standard_error(rng):
    factors = np.exp(rng.standard_normal(12))
    report = analyze(scaled_network(factors, 5, rng), rng.standard_normal((3, 5)), rng=0)
    logs = np.log(factors[1:])
    assert report.rate == pytest.approx(logs.mean())
    assert report.rate_stderr == pytest.approx(logs.std(ddof=1) / math.sqrt(11))
    np.testing.assert_allclose(report.layers["norm_upper"], factors, rtol=0.02)


def test_gradient_of_a_chain_of_orthogonal_layers_is_exact(rng):
    depth = 10_000
    net = scaled_network(np.full(depth, 0.5), 2, rng)
    report = analyze(net, rng.standard_normal((2, 2)), rng=0)
    profile = report.layers["gradient_log_norm"]
    np.testing.assert_allclose(
        profile - profile[-1], np.log(0.5) * np.arange(depth - 1, -1, -1), rtol=1e-10
    )
    np.testing.assert_allclose(
        report.layers["cumulative_log_norm"],
        np.log(0.5) * np.arange(depth - 1, -1, -1),
        atol=1e-2,
        rtol=1e-10,
    )
    assert report.verdict == "vanishing"
    assert np.isfinite(report.layers["theory_log_gradient"]).all()


@pytest.mark.parametrize(("scale", "verdict"), [(1e-30, "vanishing"), (1e30, "exploding")])
@pytest.mark.parametrize("activation", ["relu", "identity", "abs", "prelu"])
def test_no_depth_and_no_scale_overflows(scale, verdict, activation, rng):
    net = Network.from_arrays([np.full((3, 3), scale)] * 200, activations=activation)
    report = analyze(net, np.ones((2, 3)), rng=0)
    assert report.verdict == verdict
    assert report.rate == pytest.approx(math.log(3 * scale), rel=0.01)


@pytest.mark.parametrize("n_samples", [1, 16])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "identity"])
def test_theory_and_z_hold_for_random_networks(activation, n_samples, rng):
    """z of the first layer, over independent networks, has mean 0 and a spread of at most 1."""
    n_nets = 30
    z = np.empty(n_nets)
    for k in range(n_nets):
        net = Network.random([40] * 7 + [10], activation, "lecun_normal", rng=rng)
        report = analyze(net, rng.standard_normal((n_samples, 40)), rng=rng)
        z[k] = report.layers["z"][0]
    # Five standard errors of a mean and of a standard deviation, and 0.3 for the law's O(1/n)
    # error.
    assert abs(z.mean()) < 5 / math.sqrt(n_nets) + 0.3
    assert z.std(ddof=1) < 1 + 5 / math.sqrt(2 * n_nets) + 0.3
    if n_samples == 1:  # nothing to measure the samples' part from: the law alone
        assert z.std(ddof=1) > 1 - 5 / math.sqrt(2 * n_nets) - 0.1


def test_a_random_network_is_not_called_off_theory(rng):
    net = Network.random([40] * 15, "relu", "he_normal", rng=rng)
    report = analyze(net, rng.standard_normal((64, 40)), rng=rng)
    assert "off_theory" not in {f.kind for f in report.findings}


def test_results_do_not_depend_on_chunks(rng, monkeypatch):
    net = Network.random([10, 20, 20, 5], "tanh", "glorot_normal", rng=0)
    x, y = rng.standard_normal((50, 10)), rng.integers(0, 5, 50)
    whole = analyze(net, x, y=y, rng=1)
    monkeypatch.setattr("jacometry._measure._CHUNK_BYTES", 10_000)
    parts = analyze(net, x, y=y, rng=1)
    assert whole.accuracy == parts.accuracy
    for name in whole.layers.dtype.names[1:]:
        np.testing.assert_allclose(
            whole.layers[name], parts.layers[name], rtol=1e-10, equal_nan=True
        )


def test_a_seed_makes_the_report_reproducible(rng):
    net = Network.random([10, 20, 5], "tanh", "glorot_normal", rng=0)
    x = rng.standard_normal((5, 10))
    assert analyze(net, x, rng=3).to_json() == analyze(net, x, rng=3).to_json()
    assert analyze(net, x, rng=3).to_json() != analyze(net, x, rng=4).to_json()


def test_progress_is_reported(rng):
    calls = []
    net = Network.random([5, 6, 7, 2], "tanh", "glorot_normal", rng=0)
    analyze(net, rng.standard_normal((3, 5)), rng=0, progress=lambda *call: calls.append(call))
    assert calls[-1] == (6, 6)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


# ------------------------------------------------------------------------------------ the verdicts


def test_verdicts_by_construction(rng):
    x = rng.standard_normal((8, 6))
    for factors, verdict in (
        (np.full(12, 1.0), "healthy"),
        (np.full(12, 0.3), "vanishing"),
        (np.full(12, 3.0), "exploding"),
        ([1.0, *[0.1] * 5, *[10.0] * 5], "broken"),
        ([1.0, *[10.0] * 5, *[0.1] * 5], "broken"),
        ([1.0, *[0.1] * 2, *[10.0] * 2], "healthy"),
    ):
        report = analyze(scaled_network(factors, 6, rng), x, rng=0)
        assert report.verdict == verdict, factors
        assert bool(problems(report)) == (verdict != "healthy")
        assert report.advice


def test_the_threshold_is_the_callers(rng):
    net, x = scaled_network(np.full(5, 0.1), 4, rng), np.eye(4)
    assert analyze(net, x, rng=0, threshold_decades=4.5).verdict == "healthy"
    assert analyze(net, x, rng=0, threshold_decades=3.5).verdict == "vanishing"


def test_a_uniform_collapse_is_seen_although_the_ratio_is_near_one(rng):
    net = scaled_network([*[1.0] * 8, 1e-11], 6, rng)
    report = analyze(net, rng.standard_normal((5, 6)), rng=0)
    profile = report.layers["gradient_log_norm"]
    assert profile[0] - profile[-2] == pytest.approx(0, abs=1e-9)
    assert report.verdict == "collapsed"
    assert "uniform_collapse" in problems(report)


def test_a_saturated_output_is_a_uniform_collapse(rng):
    weights = [np.eye(4)] * 4
    biases = [np.zeros(4)] * 3 + [np.full(4, 25.0)]
    net = Network.from_arrays(weights, biases, ["identity"] * 3 + ["sigmoid"])
    assert analyze(net, rng.standard_normal((5, 4)), rng=0).verdict == "collapsed"


def test_dead_layers_are_a_collapse_and_are_named(rng):
    weights = [np.eye(4)] * 4
    biases = [np.zeros(4), np.full(4, -100.0), np.zeros(4), np.zeros(4)]
    report = analyze(
        Network.from_arrays(weights, biases, "relu"), rng.standard_normal((9, 4)), rng=0
    )
    assert report.verdict == "collapsed"
    assert report.rate == -math.inf
    np.testing.assert_array_equal(report.layers["gradient_log_norm"][:2], [-np.inf, -np.inf])
    # Layer 3 sees exactly 0, where the slope of ReLU is 0.
    by_kind = {f.kind: f for f in report.findings}
    assert by_kind["zero_gradient"].layers == (1, 2, 3)
    assert report.layers["dead"][1] == 1.0
    assert any("leaky ReLU" in text for text in report.advice)
    assert report.n_zero_gradient == 9
    assert str(report)


def test_samples_without_a_gradient_are_left_out_and_counted(rng):
    net = Network.from_arrays([[[1.0]], [[1.0]]], activations="relu")
    report = analyze(net, [[1.0], [-1.0], [2.0], [-3.0]], y=[[0.0], [0.0], [0.0], [0.0]])
    assert report.n_zero_gradient == 2
    assert report.layers["gradient_log_norm"][0] == pytest.approx((math.log(1) + math.log(2)) / 2)


def test_outputs_that_ignore_the_input_are_a_collapse(rng):
    weights = [np.eye(3), np.eye(3)]
    net = Network.from_arrays(weights, [np.zeros(3), np.full(3, 1e6)])
    report = analyze(net, rng.standard_normal((5, 3)), rng=0)
    assert report.verdict == "collapsed"
    assert "signal_collapse" in problems(report)


def test_a_large_product_of_norms_is_not_called_exploding(rng):
    # Jacobians of norm 5 that each pass on another direction: product of norms 5^20, true norm
    # small.
    stretch = np.diag([5.0, 0.2])
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    report = analyze(Network.from_arrays([stretch @ swap] * 20), np.eye(2), rng=0)
    assert report.verdict == "healthy"
    finding = next(f for f in report.findings if f.kind == "norm_product")
    assert finding.severity == "note"
    assert np.log(report.layers["norm_lower"]).sum() > 30


def test_raw_features_that_saturate_are_found(rng):
    x = np.column_stack([rng.standard_normal((30, 3)), rng.uniform(2e4, 1.5e5, 30)])
    net = Network.random([4, 10, 10, 2], "sigmoid", "glorot_normal", rng=0)
    report = analyze(net, x, rng=0)
    assert {"unscaled_input", "saturation"} <= problems(report)
    assert any("Standardise" in text for text in report.advice)


def test_sigmoid_with_xavier_vanishes_as_theory_says(rng):
    net = Network.random([50] * 16, "sigmoid", "glorot_normal", rng=rng)
    report = analyze(net, rng.standard_normal((30, 50)), rng=rng)
    assert report.verdict == "vanishing"
    assert report.rate == pytest.approx(math.log(0.236), abs=0.15)
    assert report.theory_rate == pytest.approx(math.log(0.236), abs=0.05)
    text = " ".join(report.advice)
    for word in ("sigmoid", "ReLU", "residual", "only the first step", "10.149"):
        assert word in text
    assert report.float_range["float16"] < 16 < report.float_range["bfloat16"]


# ----------------------------------------------------------------------------- pieces of a verdict


def test_segments_find_where_the_rate_changes():
    steps = np.array([0.0] * 10 + [-2.0] * 8 + [1.0] * 9)
    profile = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
    found = segments(profile, 3.0)
    assert [(s.first, s.last) for s in found] == [(1, 11), (11, 19), (19, 28)]
    assert [s.kind for s in found] == ["steady", "vanishing", "exploding"]
    assert found[1].decades == pytest.approx(-16 / math.log(10))


def test_noise_of_one_rate_is_one_segment(rng):
    n_split = 0
    for _ in range(40):
        profile = np.cumsum(rng.normal(-0.2, 0.3, 60))[::-1]
        n_split += len(segments(profile, 3.0)) > 1
    assert n_split <= 12


@pytest.mark.parametrize("profile", [[0.0], [-np.inf, -np.inf], [-np.inf, 0.0]])
def test_segments_of_what_has_none(profile):
    assert segments(np.array(profile), 3.0) == []


def test_float_range_extrapolates_the_rate():
    depths = float_range(math.log(0.5), 0.01)
    assert depths == pytest.approx(
        {"float16": 24, "bfloat16": 133, "float32": 149, "float64": 1074}
    )
    up = float_range(math.log(2), 0.01)
    assert up["float16"] == pytest.approx(16, abs=1e-3)
    assert up["float64"] == pytest.approx(1024)
    for rate, stderr in ((0.0, 0.0), (math.nan, math.nan), (0.1, 0.06)):
        assert set(float_range(rate, stderr).values()) == {math.inf}
    assert set(float_range(-math.inf, math.nan).values()) == {0.0}


# ------------------------------------------------------------------------------------- the corners


def test_one_layer(rng):
    report = analyze([rng.standard_normal((3, 4))], rng.standard_normal((5, 4)), rng=0)
    assert len(report.layers) == 1
    assert math.isnan(report.rate)
    assert report.verdict == "healthy"
    assert report.segments == ()
    assert str(report)
    assert report.to_json()


def test_width_one_float32_and_a_batch_of_one(rng):
    net = Network.random([1] * 6, "tanh", "gaussian", rng=0, dtype=np.float32)
    report = analyze(net, np.ones((1, 1), np.float32), rng=0)
    assert report.n_samples == 1
    assert np.isfinite(report.layers["gradient_log_norm"]).all()
    single = analyze(net, np.ones(1, np.float32), rng=0)
    assert single.to_json() == report.to_json()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": np.ones((0, 4))}, ValueError, "x must hold at least one sample"),
        ({"x": np.ones((2, 5))}, ValueError, "x must have shape"),
        ({"x": [[1, 2, np.nan, 4]]}, ValueError, r"x must be finite.*\(0, 2\)"),
        ({"y": [0, 1]}, ValueError, "y must hold 3 targets"),
        ({"y": [0, 1, 3]}, ValueError, "class labels from 0 to 2"),
        ({"y": [-1, 1, 2]}, ValueError, "class labels from 0 to 2"),
        ({"y": np.ones((3, 2))}, ValueError, r"y must have shape \(B, 3\)"),
        ({"y": [0.5, 1, 2], "loss": "cross_entropy"}, ValueError, "y must hold integer"),
        ({"y": np.full((3, 3), np.nan)}, ValueError, "y must be finite"),
        ({"y": ["a", "b", "c"]}, TypeError, "y must"),
        ({"loss": "mse"}, ValueError, "y must be given"),
        ({"y": [0, 1, 2], "loss": "hinge"}, ValueError, "loss must be"),
        ({"y": [0, 1, 2], "loss": lambda o, y: o[:, :1]}, ValueError, "loss must return"),
        ({"y": [0, 1, 2], "loss": lambda o, y: o * np.nan}, ValueError, "that loss returned"),
        ({"threshold_decades": 0.0}, ValueError, "threshold_decades"),
        ({"threshold_decades": math.nan}, ValueError, "threshold_decades"),
        ({"threshold_decades": "3"}, TypeError, "threshold_decades"),
        ({"model": 3}, UnsupportedModelError, "model must be"),
        ({"model": [np.ones((2, 4)), np.full((2, 2), np.nan)]}, ValueError, r"weights\[1\]"),
    ],
)
def test_rejections_name_the_argument(options, error, message):
    arguments = {"model": [np.ones((5, 4)), np.ones((3, 5))], "x": np.ones((3, 4))} | options
    with pytest.raises(error, match=message):
        analyze(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_losses_given_as_callables(rng):
    net = Network.random([4, 5, 3], "tanh", "glorot_normal", rng=0)
    x, y = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    own = analyze(net, x, y=y, loss=lambda outputs, targets: outputs - targets, rng=0)
    built_in = analyze(net, x, y=y, loss="mse", rng=0)
    np.testing.assert_array_equal(
        own.layers["gradient_log_norm"], built_in.layers["gradient_log_norm"]
    )


@pytest.mark.parametrize("last", ["identity", "sigmoid"])
def test_binary_cross_entropy_is_on_the_logit(last):
    net = Network.from_arrays([[[2.0]], [[1.0]]], activations=["identity", last])
    report = analyze(net, [[0.5], [0.5]], y=[0, 1])
    p = 1 / (1 + math.exp(-1))
    assert report.layers["gradient_log_norm"][1] == pytest.approx(
        (math.log(p) + math.log(1 - p)) / 2
    )
    assert report.accuracy == 0.5


def test_confident_right_answers_keep_their_gradient():
    net = Network.from_arrays([np.diag([60.0, 0.0])])
    report = analyze(net, [[1.0, 0.0]], y=[0])
    # softmax(60, 0) - (1, 0) = (-e, e) with e = exp(-60), far below the rounding unit of 1.
    assert report.layers["gradient_log_norm"][0] == pytest.approx(-60 + math.log(2) / 2)


def test_a_path_is_loaded(tmp_path):
    np.savez(tmp_path / "net.npz", weights_0=np.eye(2), activations=np.array(["identity"]))
    assert analyze(tmp_path / "net.npz", np.eye(2), rng=0).title == "net.npz"
    assert analyze(str(tmp_path / "net.npz"), np.eye(2), rng=0).widths == (2, 2)


def test_compare_tabulates(rng):
    x = rng.standard_normal((4, 6))
    reports = [analyze(scaled_network(np.full(8, f), 6, rng), x, rng=0) for f in (0.1, 1.0)]
    comparison = compare(*reports)
    assert list(comparison.table["verdict"]) == ["vanishing", "healthy"]
    np.testing.assert_allclose(comparison.table["decades"], [-7, 0], atol=1e-9)
    assert "vanishing" in str(comparison)
    with pytest.raises(ValueError, match="at least one"):
        compare()
    with pytest.raises(TypeError, match=r"reports\[1\]"):
        compare(reports[0], 3)


def test_the_product_of_the_chain_is_the_cumulative_norm(rng):
    net = Network.random([6, 9, 7, 3], "tanh", "glorot_normal", rng=0)
    x = rng.standard_normal((5, 6))
    report = analyze(net, x, rng=0)
    chain = net.jacobian_chain(x)
    norm = np.linalg.norm(chain_product(chain[1:]).to_array(), 2, axis=(1, 2)).max()
    assert report.layers["cumulative_log_norm"][0] == pytest.approx(math.log(norm), abs=0.01)


def test_reports_are_what_they_say(rng):
    report = analyze([np.eye(2)] * 3, np.eye(2), rng=0)
    assert isinstance(report, GradientFlowReport)
    assert all(
        isinstance(f, Finding) and f.severity in ("problem", "note") for f in report.findings
    )
    scalars = report.scalars()
    assert scalars["gradient_log_norm/1"] == report.layers["gradient_log_norm"][0]
    assert all(isinstance(value, float) for value in scalars.values())


@pytest.mark.parametrize("activation", ["tanh", "softsign", "hard_tanh", "gelu", "mish"])
def test_weak_weights_get_the_weight_scale_of_their_activation(activation, rng):
    draw = partial(gaussian, gain=0.3)
    net = Network.random([20] * 31, activation, draw, rng=rng)
    text = " ".join(analyze(net, rng.standard_normal((8, 20)), rng=0).advice)
    gains = {"gelu": "1.48", "mish": "1.44"}  # 1 / sqrt(E phi'**2); odd ones are linear near 0
    expected = f"Initialise for {activation}: weights with sigma_w = sqrt(fan_in Var W) = "
    assert f"{expected}{gains.get(activation, '1')}. " in text
    assert ("Use ReLU, or a relative" in text) == (activation not in gains)
