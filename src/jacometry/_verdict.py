"""From figures to words: segments of constant rate, findings with reasons, a verdict."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ._measure import Measurement
from .network import Network

__all__ = ["Finding", "Segment", "figure", "find", "float_range", "judge", "segments"]

_LN_10 = math.log(10.0)

# Smallest positive (subnormal) and largest finite number of each format.
_FORMATS = {
    "float16": (2.0**-24, 65504.0),
    "bfloat16": (2.0**-133, 2.0**127 * (2.0 - 2.0**-7)),
    "float32": (2.0**-149, 2.0**127 * (2.0 - 2.0**-23)),
    "float64": (2.0**-1074, 2.0**1023 * (2.0 - 2.0**-52)),
}

_SATURATED_NOTE, _SATURATED_PROBLEM = 0.5, 0.9
_DEAD_NOTE, _DEAD_PROBLEM = 0.1, 0.5
_Z_NOTE = 4.0
_NORM_PRODUCT_NOTE = 2.0  # decades by which the product of norms overstates the norm of the product
_FEATURE_RATIO = 30.0  # largest over median root mean square of an input feature
_INPUT_RMS = (0.1, 10.0)


class Segment(NamedTuple):
    """Neighbouring layers between which the gradient changes at one rate.

    Attributes
    ----------
    first, last : int
        Layers, counted from 1; the segment is the way from ``last`` back to ``first``.
    rate : float
        Mean change of the gradient's log-norm per layer towards the input.
    decades : float
        The whole change, as a power of ten.
    kind : {"steady", "vanishing", "exploding"}
        By whether the change passes the threshold.
    """

    first: int
    last: int
    rate: float
    decades: float
    kind: str


class Finding(NamedTuple):
    """One thing that the figures show.

    Attributes
    ----------
    kind : str
        For programs: "vanishing_gradient", "exploding_gradient", "zero_gradient",
        "uniform_collapse", "signal_collapse", "saturation", "dead_units", "unscaled_input",
        "off_theory", "norm_product", "reduced_precision".
    layers : tuple of int
        Layers concerned, counted from 1; empty where it is the whole network.
    value, threshold : float
        The figure, and what it was compared with.
    reason : str
        One or two sentences with the figures.
    severity : {"problem", "note"}
        A problem fails ``jacometry analyze --check``.
    """

    kind: str
    layers: tuple[int, ...]
    value: float
    threshold: float
    reason: str
    severity: str


def segments(log_norm: np.ndarray, threshold_decades: float) -> list[Segment]:
    """Split a gradient profile into stretches of constant rate.

    Parameters
    ----------
    log_norm : ndarray, (L,)
        Log-norm of the gradient at each layer.
    threshold_decades : float
        Change over a stretch from which it counts as vanishing or exploding.

    Returns
    -------
    list of Segment
        From the input on; empty for one layer, or where the gradient is exactly zero.

    Notes
    -----
    Least squares with a penalty of ``3 s**2 ln(L - 1)`` per stretch, solved exactly by dynamic
    programming (Jackson et al., An algorithm for optimal partitioning of data on an interval,
    2005); ``s`` is a robust scale of the differences of successive steps.  Cost ``O(L**2)``
    vectorised operations.
    """
    start = int(np.argmax(np.isfinite(log_norm))) if np.isfinite(log_norm).any() else len(log_norm)
    steps = log_norm[start:-1] - log_norm[start + 1 :]
    n = len(steps)
    if n < 1 or not np.isfinite(steps).all():
        return []
    cuts = _partition(steps)
    found = []
    for a, b in pairwise(cuts):
        decades = float(steps[a:b].sum()) / _LN_10
        kind = "steady"
        if abs(decades) >= threshold_decades:
            kind = "vanishing" if decades < 0 else "exploding"
        rate = float(steps[a:b].mean())
        found.append(Segment(start + a + 1, start + b + 1, rate, decades, kind))
    return found


def _partition(steps: np.ndarray) -> list[int]:
    n = len(steps)
    jumps = np.abs(np.diff(steps))
    scale = float(np.median(jumps)) / (0.6745 * math.sqrt(2.0)) if n > 2 else 0.0
    scale = max(scale, 1e-3)
    penalty = 3.0 * scale**2 * math.log(max(n, 2))
    sums = np.concatenate([[0.0], np.cumsum(steps)])
    squares = np.concatenate([[0.0], np.cumsum(steps**2)])
    best = np.zeros(n + 1)
    last_cut = np.zeros(n + 1, int)
    best[0] = -penalty
    for end in range(1, n + 1):
        lengths = np.arange(end, 0, -1)
        total = sums[end] - sums[:end]
        costs = best[:end] + squares[end] - squares[:end] - total**2 / lengths + penalty
        last_cut[end] = int(np.argmin(costs))
        best[end] = costs[last_cut[end]]
    cuts = [n]
    while cuts[-1]:
        cuts.append(int(last_cut[cuts[-1]]))
    return cuts[::-1]


def _largest_fall(log_norm: np.ndarray) -> tuple[float, int, int]:
    """Largest loss on the way from the output to the input, in decades, and its two layers."""
    from_output = log_norm[::-1]
    highest = np.maximum.accumulate(from_output)
    with np.errstate(invalid="ignore"):
        falls = np.nan_to_num(highest - from_output, nan=0.0, posinf=np.inf)
    low = int(np.argmax(falls))
    high = int(np.argmax(from_output[: low + 1]))
    n = len(log_norm)
    return float(falls[low]) / _LN_10, n - low, n - high


def judge(measured: Measurement, threshold_decades: float) -> tuple[str, list[Finding]]:
    """The verdict, and the findings that it rests on.

    Parameters
    ----------
    measured : Measurement
        The figures.
    threshold_decades : float
        Change of the gradient's norm that counts.

    Returns
    -------
    verdict : str
        As `jacometry.diagnostics.GradientFlowReport.verdict` defines it.
    findings : list of Finding
        Those behind the verdict.
    """
    log_norm = measured.layers["gradient_log_norm"]
    n_layers = len(log_norm)
    findings: list[Finding] = []
    verdict = "healthy"
    fall, fall_to, fall_from = _largest_fall(log_norm)
    rise, rise_to, rise_from = _largest_fall(-log_norm)
    below_output = (measured.output_log_norm - log_norm) / _LN_10
    hidden = below_output[:-1]
    zero = [int(k) + 1 for k in np.flatnonzero(np.isneginf(log_norm))]

    if zero:
        verdict = "collapsed"
        findings.append(
            Finding(
                "zero_gradient", tuple(zero), 0.0, 0.0,
                f"The gradient is exactly zero in {_layers(zero)} for every one of the "
                f"{measured.n_samples} samples: nothing there or before can learn.", "problem",
            )
        )  # fmt: skip
    elif (
        n_layers > 2
        and hidden.min() >= threshold_decades
        and hidden.max() - hidden.min() < threshold_decades
    ):
        verdict = "collapsed"
        findings.append(
            Finding(
                "uniform_collapse", tuple(range(1, n_layers)), float(hidden.min()),
                threshold_decades,
                f"Every layer's gradient is at least {_power(hidden.min())} times smaller than the "
                "gradient at the output, although it hardly changes from one hidden layer to the "
                "next: a first-to-last ratio would not show it.", "problem",
            )
        )  # fmt: skip
    else:
        if fall >= threshold_decades:
            verdict = "vanishing"
            factor = 10 ** (-fall / (fall_from - fall_to))
            findings.append(
                Finding(
                    "vanishing_gradient", tuple(range(fall_to, fall_from + 1)), -fall,
                    -threshold_decades,
                    f"From layer {fall_from} back to layer {fall_to} the gradient's norm shrinks "
                    f"{_power(fall)}-fold: each layer keeps {figure(factor)} of it on average. "
                    "The layers near the input get almost no signal to learn from.", "problem",
                )
            )  # fmt: skip
        if rise >= threshold_decades:
            verdict = "broken" if verdict == "vanishing" else "exploding"
            factor = 10 ** (rise / (rise_from - rise_to))
            findings.append(
                Finding(
                    "exploding_gradient", tuple(range(rise_to, rise_from + 1)), rise,
                    threshold_decades,
                    f"From layer {rise_from} back to layer {rise_to} the gradient's norm grows "
                    f"{_power(rise)}-fold: each layer multiplies it by {figure(factor)} on "
                    "average. No single learning rate suits layers that differ so much.", "problem",
                )
            )  # fmt: skip
    collapse = _signal_collapse(measured, threshold_decades)
    if collapse is not None:
        findings.append(collapse)
        if verdict == "healthy":
            verdict = "collapsed"
    return verdict, findings


def _signal_collapse(measured: Measurement, threshold_decades: float) -> Finding | None:
    before, after = measured.input_spread, measured.output_spread
    if math.isnan(before) or math.isnan(after) or before < 1e-12:
        return None
    decades = math.inf if after == 0.0 else math.log10(before / after)
    if decades < threshold_decades:
        return None
    share = "nothing" if after == 0.0 else f"only {figure(after)} of their size"
    return Finding(
        "signal_collapse", (), decades, threshold_decades,
        f"Inputs differ from one another by {figure(before)} of their size, outputs by {share}: "
        "the network gives nearly the same answer to every input.", "problem",
    )  # fmt: skip


def find(
    network: Network, measured: Measurement, verdict: str, depths: dict[str, float]
) -> list[Finding]:
    """Findings beside those of `judge`.

    Parameters
    ----------
    network : Network
        The model.
    measured : Measurement
        The figures.
    verdict : str
        Of `judge`.
    depths : dict of str to float
        Of `float_range`.

    Returns
    -------
    list of Finding
    """
    layers = measured.layers
    found: list[Finding] = []
    if measured.n_zero_gradient > 0 and np.isfinite(layers["gradient_log_norm"]).all():
        part = measured.n_zero_gradient / measured.n_samples
        found.append(
            Finding(
                "zero_gradient", (), part, 0.0,
                f"{measured.n_zero_gradient} of {measured.n_samples} samples have a gradient of "
                "exactly zero at some layer; they are left out of the means of gradients.", "note",
            )
        )  # fmt: skip
    found += _unit_findings(
        layers["saturation"], "saturation", _SATURATED_NOTE, _SATURATED_PROBLEM,
        "of the slopes are below 5 % of the activation's steepest: those units pass hardly any "
        "gradient",
    )  # fmt: skip
    found += _unit_findings(
        layers["dead"], "dead_units", _DEAD_NOTE, _DEAD_PROBLEM,
        f"of the units have slope zero on all {measured.n_samples} samples given (a larger set may "
        "revive some)",
    )  # fmt: skip
    found += _input_finding(measured)
    found += _theory_finding(measured)
    found += _product_finding(measured)
    if verdict != "collapsed" and depths["float16"] < len(network):
        found.append(
            Finding(
                "reduced_precision", (), depths["float16"], float(len(network)),
                f"At this rate a gradient of norm 1 leaves the range of float16 after "
                f"{figure(depths['float16'])} layers; this network has {len(network)}.", "note",
            )
        )  # fmt: skip
    return found


def _unit_findings(
    shares: np.ndarray, kind: str, note: float, problem: float, what: str
) -> list[Finding]:
    with np.errstate(invalid="ignore"):
        hit = np.flatnonzero(shares >= note)
    if not len(hit):
        return []
    numbers = tuple(int(k) + 1 for k in hit)
    worst = float(shares[hit].max())
    severity = "problem" if worst >= problem else "note"
    reason = f"In {_layers(numbers)} up to {100 * worst:.0f} % {what}."
    return [Finding(kind, numbers, worst, note, reason, severity)]


def _input_finding(measured: Measurement) -> list[Finding]:
    rms = measured.feature_rms
    size = float(rms.max()) or 1.0
    overall = size * float(np.sqrt(np.mean((rms / size) ** 2)))
    used = rms[rms > 0]
    if not len(used):
        return []
    ratio = float(used.max() / np.median(used))
    saturated = float(np.nan_to_num(measured.layers["saturation"][0]))
    severity = "problem" if saturated >= _SATURATED_NOTE else "note"
    if ratio > _FEATURE_RATIO:
        reason = (
            f"Input feature {int(np.argmax(rms))} (counted from 0) is {figure(ratio)} times as "
            "large as the median feature: it dominates every unit of the first layer."
        )
        return [Finding("unscaled_input", (1,), ratio, _FEATURE_RATIO, reason, severity)]
    low, high = _INPUT_RMS
    if not low <= overall <= high:
        reason = (
            f"The input's root mean square is {figure(overall)}; initialisations assume about 1."
        )
        bound = high if overall > high else low
        return [Finding("unscaled_input", (1,), overall, bound, reason, severity)]
    return []


def _theory_finding(measured: Measurement) -> list[Finding]:
    z = measured.layers["z"]
    with np.errstate(invalid="ignore"):
        hit = tuple(int(k) + 1 for k in np.flatnonzero(np.abs(z) > _Z_NOTE))
    if not hit:
        return []
    worst = float(z[np.array(hit) - 1][np.argmax(np.abs(z[np.array(hit) - 1]))])
    reason = (
        f"In {_layers(hit)} the gradient is up to {abs(worst):.1f} standard deviations "
        f"{'above' if worst > 0 else 'below'} what random weights of the same size would give: "
        "training (or another structure) has arranged the weights."
    )
    return [Finding("off_theory", hit, worst, _Z_NOTE, reason, "note")]


def _product_finding(measured: Measurement) -> list[Finding]:
    layers = measured.layers
    with np.errstate(divide="ignore"):
        bound = float(np.log(layers["norm_lower"][1:]).sum()) / _LN_10
    true = float(layers["cumulative_log_norm"][0]) / _LN_10
    excess = bound - true
    if not (math.isfinite(excess) and min(excess, bound) >= _NORM_PRODUCT_NOTE):
        return []
    reason = (
        f"The layers' norms multiply to {_power(bound)}, the product of the layers has norm "
        f"{_power(true)}. A large product of norms is only an upper bound and no sign of "
        "explosion; the verdict does not use it."
    )
    return [Finding("norm_product", (), excess, _NORM_PRODUCT_NOTE, reason, "note")]


def float_range(rate: float, stderr: float) -> dict[str, float]:
    """Depth at which a gradient of norm 1 at the output leaves each format's range.

    Parameters
    ----------
    rate, stderr : float
        Change of the log-norm per layer towards the input, and its standard error.

    Returns
    -------
    dict of str to float
        For float16, bfloat16, float32, float64: the number of layers after which the norm passes
        the smallest positive (subnormal) or largest finite number; infinite where `rate` is within
        two standard errors of zero or unknown.

    Examples
    --------
    >>> {name: round(depth, 1) for name, depth in float_range(-1.0, 0.1).items()}
    {'float16': 16.6, 'bfloat16': 92.2, 'float32': 103.3, 'float64': 744.4}
    """
    if (
        math.isnan(rate)
        or rate == 0.0
        or abs(rate) <= 2.0 * (0.0 if math.isnan(stderr) else stderr)
    ):
        return dict.fromkeys(_FORMATS, math.inf)
    return {
        name: (math.log(smallest) if rate < 0 else math.log(largest)) / rate
        for name, (smallest, largest) in _FORMATS.items()
    }


def _layers(numbers: tuple[int, ...] | list[int]) -> str:
    """Layer numbers as words, runs joined: "layers 1-4 and 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    if len(words) > 6:
        words = [*words[:5], f"{len(numbers) - 5} more"]
    head = "layer" if len(numbers) == 1 else "layers"
    joined = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    return f"{head} {joined}"


def _power(decades: float) -> str:
    return f"10^{decades:.1f}" if abs(decades) >= 3 else figure(10.0**decades)


def figure(value: float) -> str:
    """A figure as texts show it."""
    return f"{value:.3g}"
