"""What `jacometry.analyze` measures: signal, gradient, Jacobians and theory, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import meanfield
from ._losses import Loss
from ._matrices import matrix_samples, measure_matrices
from .network import Network, is_built_in
from .ops.chain import chain_vjp

__all__ = ["LAYER_DTYPE", "Measurement", "measure"]

LAYER_DTYPE = np.dtype(
    [
        ("name", "U64"),
        ("forward_variance", np.float64),
        ("gradient_log_norm", np.float64),
        ("norm_lower", np.float64),
        ("norm_upper", np.float64),
        ("cumulative_log_norm", np.float64),
        ("condition", np.float64),
        ("saturation", np.float64),
        ("dead", np.float64),
        ("effective_rank", np.float64),
        ("theory_log_gradient", np.float64),
        ("z", np.float64),
        ("theory_sd", np.float64),
        ("spread", np.float64),
        ("sigma_w", np.float64),
    ]
)

_LOG_2 = float(np.log(2.0))
# A unit is saturated where its slope is below this part of the activation's steepest.
_SATURATED = 0.05
# Signals and slopes of one chunk of samples stay below this.
_CHUNK_BYTES = 64 * 2**20
# The variance of networks is known to leading order only: at least this part of it is kept in z.
_SURE_PART = 0.2

Progress = Callable[[int, int], Any]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Figures behind a report, beside the table of layers.

    Attributes
    ----------
    layers : structured ndarray, (L,)
        Of `LAYER_DTYPE`.
    rate, rate_stderr : float
        Mean change of ``gradient_log_norm`` per layer towards the input, and its standard error.
    theory_rate : float
        The same of mean-field theory.
    input_log_norm, output_log_norm : float
        Mean log-norm of the gradient with respect to the input and to the network's output.
    input_spread, output_spread : float
        RMS distance of the samples from their mean, relative to their RMS norm.
    n_samples, n_zero_gradient, n_matrix_samples : int
        Samples in all, those whose gradient is exactly zero at some layer, and those used for
        matrices.
    feature_rms : ndarray, (n_0,)
        Root mean square of each input feature.
    accuracy : float or None
        Part of the samples classified rightly, where there are class labels.
    """

    layers: np.ndarray
    rate: float
    rate_stderr: float
    theory_rate: float
    input_log_norm: float
    output_log_norm: float
    input_spread: float
    output_spread: float
    n_samples: int
    n_zero_gradient: int
    n_matrix_samples: int
    feature_rms: np.ndarray
    accuracy: float | None


class _Spread:
    """RMS distance from the mean over RMS norm, of vectors that come in chunks.

    Sums are taken of differences from the first vector, so that a spread far below the rounding
    unit of the vectors' squares is still seen.
    """

    def __init__(self) -> None:
        self.first: np.ndarray | None = None
        self.sum_difference: Any = 0.0
        self.sum_square_difference = self.sum_square = 0.0
        self.n = 0

    def add(self, vectors: np.ndarray) -> None:
        if self.first is None:
            self.first = vectors[0]
        with np.errstate(over="ignore", invalid="ignore"):
            difference = vectors - self.first
            self.sum_difference = self.sum_difference + difference.sum(axis=0)
            self.sum_square_difference += float((difference**2).sum())
            self.sum_square += float((vectors**2).sum())
        self.n += len(vectors)

    def value(self) -> float:
        if self.n < 2 or not np.isfinite(self.sum_square) or self.sum_square == 0.0:
            return float("nan")
        about_mean = self.sum_square_difference - float((self.sum_difference**2).sum()) / self.n
        return float(np.sqrt(max(about_mean, 0.0) / self.sum_square))


class _LayerSums:
    """Running sums over the samples at one layer."""

    def __init__(self, width: int, limit: float | None) -> None:
        self.limit = limit  # slopes below it are saturated; None where the word does not apply
        self.n = self.n_saturated = 0
        self.slope_2 = self.slope_4 = 0.0
        self.alive = np.zeros(width, bool)
        self.gram = np.zeros((width, width))
        self.spread = _Spread()

    def add(self, state: Any) -> None:
        slopes = state.slopes
        self.n += len(slopes)
        self.slope_2 += float((slopes**2).sum())
        self.slope_4 += float((slopes**4).sum())
        self.alive |= (slopes != 0).any(axis=0)
        if self.limit is not None:
            self.n_saturated += int((np.abs(slopes) < self.limit).sum())
        norms = np.linalg.norm(state.activations, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            directions = np.where(norms > 0, state.activations / norms, 0.0)
        self.gram += directions.T @ directions
        shift = np.clip(state.exponent, -(2**14), 2**14).astype(np.int32)[:, None]
        with np.errstate(over="ignore"):
            self.spread.add(np.ldexp(state.pre_activations, shift))

    def saturation(self) -> float:
        if self.limit is None:
            return float("nan")
        return self.n_saturated / (self.n * len(self.alive))

    def effective_rank(self) -> float:
        values = np.sqrt(np.clip(np.linalg.eigvalsh(self.gram), 0.0, None))
        # Eigenvalues of a Gram matrix are uncertain by the rounding unit times the largest.
        values = values[values > values.max(initial=0.0) * 1e-7]
        if not len(values):
            return 0.0
        share = values / values.sum()
        return float(np.exp(-(share * np.log(share)).sum()))

    def log_ratio_variance(self) -> float:
        """Var of ln of the squared gradient norm added here, to leading order in 1 / width."""
        n_entries = self.n * len(self.alive)
        square_of_mean = (self.slope_2 / n_entries) ** 2
        if square_of_mean == 0.0:  # no slope, or too small to square
            return float("nan")
        kurtosis = self.slope_4 / n_entries / square_of_mean
        return (3.0 * kurtosis - 1.0) / len(self.alive)


def measure(
    network: Network,
    x: np.ndarray,
    loss: Loss,
    rng: np.random.Generator | int | None,
    progress: Progress | None,
) -> Measurement:
    """Every figure of the report.

    Parameters
    ----------
    network : Network
        The model.
    x : ndarray, (B, n_0)
        Finite inputs, B at least 1.
    loss : Loss
        Where the cotangents come from.
    rng : numpy.random.Generator, int or None
        For the start vectors of the spectral norms.
    progress : callable or None
        Called as ``progress(done, total)``.

    Returns
    -------
    Measurement

    Notes
    -----
    Memory beyond inputs and weights: one chunk of samples (64 MB), a Gram matrix per layer, and one
    log-norm per sample and layer.
    """
    n_layers = len(network)
    total = 2 * n_layers
    report_progress = progress or (lambda done, total: None)
    sums = [_LayerSums(f.weights.shape[0], _saturation_limit(f.activation)) for f in network.layers]
    log_squares, log_norms, output_logs, output_spread, n_right = _run_samples(
        network, x, loss, sums, lambda part: report_progress(int(part * n_layers), total)
    )

    layers = np.zeros(n_layers, LAYER_DTYPE)
    layers["name"] = [layer.name for layer in network.layers]
    layers["forward_variance"] = _exp_mean(log_squares)
    layers["saturation"] = [s.saturation() for s in sums]
    layers["dead"] = [np.mean(~s.alive) for s in sums]
    layers["effective_rank"] = [s.effective_rank() for s in sums]
    layers["spread"] = [s.spread.value() for s in sums]

    means, valid = _mean_logs(log_norms)
    layers["gradient_log_norm"] = means[1:]
    theory_rate = _compare_with_theory(network, x, layers, sums, log_norms[valid])
    samples = matrix_samples(network, len(x))
    measure_matrices(
        network, x[samples], layers, rng, lambda done: report_progress(n_layers + done, total)
    )
    report_progress(total, total)

    rate, stderr = _rate(layers["gradient_log_norm"])
    input_spread = _Spread()
    input_spread.add(x)
    finite_outputs = output_logs[np.isfinite(output_logs)]
    return Measurement(
        layers=layers,
        rate=rate,
        rate_stderr=stderr,
        theory_rate=theory_rate,
        input_log_norm=float(means[0]),
        output_log_norm=float(finite_outputs.mean()) if len(finite_outputs) else -np.inf,
        input_spread=input_spread.value(),
        output_spread=output_spread,
        n_samples=len(x),
        n_zero_gradient=int(np.isneginf(log_norms[:, 1:]).any(axis=1).sum()),
        n_matrix_samples=len(samples),
        feature_rms=_rms(x),
        accuracy=n_right / len(x) if loss.on_logits else None,
    )


def _run_samples(
    network: Network,
    x: np.ndarray,
    loss: Loss,
    sums: list[_LayerSums],
    report_progress: Callable[[float], Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, int]:
    """Forward and backward, chunk by chunk.

    Returns log mean squares (B, L), log gradient norms at input and layers (B, L + 1) and at the
    output (B,), the outputs' spread, and how many samples are classified rightly.
    """
    n_layers = len(network)
    log_squares = np.empty((len(x), n_layers))
    log_norms = np.empty((len(x), n_layers + 1))
    output_logs = np.empty(len(x))
    outputs_spread = _Spread()
    n_right = 0
    weights = [layer.weights.astype(np.float64) for layer in network.layers]
    chunk = max(1, _CHUNK_BYTES // (24 * sum(network.widths)))
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        slopes: list[np.ndarray | None] = [None]
        for k, state in enumerate(network.propagate(x[rows])):
            sums[k].add(state)
            log_squares[rows, k] = _log_mean_square(state)
            is_linear = is_built_in(network.layers[k].activation, ("identity",))
            slopes.append(None if is_linear else state.slopes)
        last_slopes = slopes.pop()
        output = _plain_output(state, loss.on_logits)
        outputs_spread.add(output)
        y = None if loss.y is None else loss.y[rows]
        if loss.on_logits:
            guess = output.argmax(axis=1) if output.shape[1] > 1 else output[:, 0] > 0
            n_right += int((guess == y).sum())
        cotangent = loss.gradient(output, y)
        with np.errstate(divide="ignore"):
            output_logs[rows] = np.log(np.linalg.norm(cotangent, axis=1))
        if last_slopes is not None and not loss.on_logits:
            cotangent = cotangent * last_slopes
        trace = chain_vjp(weights, cotangent, slopes=slopes, slope_side="input")
        log_norms[rows] = trace.log_norms
        report_progress(min(1.0, (start + chunk) / len(x)))
    return log_squares, log_norms, output_logs, outputs_spread.value(), n_right


def _rms(x: np.ndarray) -> np.ndarray:
    """Root mean square of each column; of the range of float64 that squares stay in."""
    size = np.abs(x).max() or 1.0
    return np.sqrt(((x / size) ** 2).mean(axis=0)) * size


def _plain_output(state: Any, on_logits: bool) -> np.ndarray:
    values = state.pre_activations if on_logits else state.activations
    shift = np.clip(state.exponent, -(2**14), 2**14).astype(np.int32)[:, None]
    with np.errstate(over="ignore"):
        # A loss needs numbers: outputs beyond float64 keep their sign and the largest value it has.
        return np.nan_to_num(np.ldexp(values, shift))


def _log_mean_square(state: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        z = state.pre_activations
        size = np.abs(z).max(axis=1, keepdims=True)
        unit = np.where(size > 0, size, 1.0)
        mean_square = ((z / unit) ** 2).mean(axis=1)
        return np.log(mean_square) + 2 * np.log(unit[:, 0]) + 2 * _LOG_2 * state.exponent


def _exp_mean(logs: np.ndarray) -> np.ndarray:
    """Mean over the samples of exp(logs), (B, L) to (L,); inf or 0 where it does not fit."""
    top = logs.max(axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(over="ignore"):
        return np.exp(logs - top).mean(axis=0) * np.exp(top)


def _mean_logs(log_norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the samples that have a gradient at every layer, and which those are."""
    finite = np.isfinite(log_norms)
    valid = finite[:, 1:].all(axis=1)
    chosen = valid[:, None] & finite if valid.any() else finite
    counts = chosen.sum(axis=0)
    totals = np.where(chosen, log_norms, 0.0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), -np.inf), valid


def _rate(log_norm: np.ndarray) -> tuple[float, float]:
    n_steps = len(log_norm) - 1
    if n_steps < 1:
        return float("nan"), float("nan")
    if not np.isfinite(log_norm).all():
        return -np.inf, float("nan")
    steps = log_norm[:-1] - log_norm[1:]
    stderr = float(steps.std(ddof=1) / np.sqrt(n_steps)) if n_steps > 1 else float("nan")
    return float(steps.mean()), stderr


def _saturation_limit(activation: Any) -> float | None:
    """The slope below which an activation that levels off smoothly on both sides is saturated."""
    if activation.jumps:
        return None
    steepest = activation.lipschitz
    far = np.abs(activation.slope(np.array([-1e6, -1e3, 1e3, 1e6])))
    if not np.isfinite(steepest) or not (far < _SATURATED * steepest).all():
        return None
    return _SATURATED * steepest


def _compare_with_theory(
    network: Network,
    x: np.ndarray,
    layers: np.ndarray,
    sums: list[_LayerSums],
    log_norms: np.ndarray,
) -> float:
    """Fill sigma_w, theory_log_gradient, theory_sd and z; return the theory's rate."""
    sigma_w = [_sigma_w(layer.weights) for layer in network.layers]
    sigma_b = [float(np.sqrt(np.mean(np.square(f.biases, dtype=float)))) for f in network.layers]
    prediction = meanfield.predict(
        network.widths,
        [layer.activation for layer in network.layers[:-1]],
        sigma_w=sigma_w,
        sigma_b=sigma_b,
        q0=float(np.mean(np.minimum(_rms(x), 1e150) ** 2)),
    )
    relative = prediction.log_gradient[1:]
    measured = layers["gradient_log_norm"]
    added = [s.log_ratio_variance() for s in sums[:-1]]
    width_variance = np.append(np.cumsum(added[::-1])[::-1], 0.0)
    single = width_variance / 4
    variance = single
    if len(log_norms) > 1:
        # Law of total variance: what does not differ between samples differs between networks.
        within = (log_norms[:, 1:] - log_norms[:, -1:]).var(axis=0, ddof=1)
        variance = np.maximum(single - within, _SURE_PART * single) + within / len(log_norms)
    sd = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        typical = relative - width_variance / 4
        z = (measured - measured[-1] - typical) / sd
    z[-1] = 0.0
    layers["sigma_w"] = sigma_w
    layers["theory_log_gradient"] = measured[-1] + relative
    layers["theory_sd"] = sd
    layers["z"] = z
    return _rate(relative)[0]


def _sigma_w(weights: np.ndarray) -> float:
    size = float(np.abs(weights).max()) or 1.0
    scaled = weights.astype(np.float64) / size
    return float(np.sqrt(np.mean(scaled**2) * weights.shape[1]) * size)
