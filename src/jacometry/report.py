"""Gradient-flow reports as text, JSON and data frames; HTML is written by `_html`."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .diagnostics import Comparison, GradientFlowReport

__all__ = [
    "HEADLINES",
    "comparison_text",
    "summary",
    "to_dataframe",
    "to_fragment",
    "to_json",
    "to_text",
    "widths_in_words",
    "write_html",
]

# In plain words, for someone who has not met the terms.
HEADLINES = {
    "healthy": "The learning signal reaches every layer at a similar size.",
    "vanishing": "The learning signal fades on its way back: the first layers can hardly learn.",
    "exploding": "The learning signal grows on its way back: the first layers are thrown about.",
    "broken": "The learning signal fades in one part of the network and grows in another.",
    "collapsed": "Hardly anything passes through the network: neither signal nor gradient.",
}

_LN_10 = math.log(10.0)
_SHOWN_ROWS = 40  # a longer table of layers is cut in the middle
_BAR = 16
# JSON schema version of `to_json`.
_FORMAT = "jacometry.gradient_flow_report/1"


def to_text(report: GradientFlowReport) -> str:
    """The report for a terminal.

    Parameters
    ----------
    report : GradientFlowReport
        What to write.

    Returns
    -------
    str
        Lines of at most 100 columns; ends without a newline.
    """
    lines = [f"Gradient flow: {report.title}", *_wrapped(_what(report), "  ")]
    if report.description:
        lines += _wrapped(report.description, "  ")
    lines += ["", f"VERDICT  {report.verdict.upper()}"]
    lines += _wrapped(HEADLINES[report.verdict], "  ")
    lines += _wrapped(summary(report), "  ")
    lines += ["", *_layer_lines(report)]
    if report.findings:
        lines += ["", "FINDINGS"]
        for finding in report.findings:
            lines += _wrapped(
                finding.reason, "    ", f"  {'!' if finding.severity == 'problem' else '-'} "
            )
    lines += ["", "ADVICE"]
    for advice in report.advice:
        lines += _wrapped(advice, "    ", "  - ")
    lines += ["", "RANGE   layers after which a gradient of norm 1 leaves the format, at this rate"]
    lines.append("  " + "   ".join(f"{k} {_depth(v)}" for k, v in report.float_range.items()))
    return "\n".join(lines)


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal.

    Parameters
    ----------
    comparison : Comparison
        What to write.

    Returns
    -------
    str
    """
    table = comparison.table
    width = max(7, *(len(title) for title in table["title"]))
    with_accuracy = bool(np.isfinite(table["accuracy"]).any())
    head = f"{'network':{width}}  {'verdict':9}"
    head += "  accuracy" if with_accuracy else ""
    lines = [
        head + "  gradient kept per layer  in all layers  output varies by",
        " " * len(head) + "     measured  mean field",
    ]
    for row in table:
        line = f"{row['title']:{width}}  {row['verdict']:9}"
        line += f"  {100 * row['accuracy']:6.1f} %" if with_accuracy else ""
        line += f"  x{math.exp(row['rate']):11.3f}  x{math.exp(row['theory_rate']):9.3f}"
        lines.append(line + f"  {_power(row['decades']):>13}  {row['output_spread']:16.2g}")
    return "\n".join(lines)


def to_json(report: GradientFlowReport) -> str:
    """The report as strict JSON.

    Parameters
    ----------
    report : GradientFlowReport
        What to write.

    Returns
    -------
    str
        NaN is null, infinities are "Infinity" and "-Infinity".
    """
    content = {
        "format": _FORMAT,
        "title": report.title,
        "description": report.description,
        "verdict": report.verdict,
        "headline": HEADLINES[report.verdict],
        "rate": report.rate,
        "rate_stderr": report.rate_stderr,
        "theory_rate": report.theory_rate,
        "threshold_decades": report.threshold_decades,
        "widths": report.widths,
        "activations": report.activations,
        "loss": report.loss,
        "accuracy": report.accuracy,
        "n_samples": report.n_samples,
        "n_zero_gradient": report.n_zero_gradient,
        "n_matrix_samples": report.n_matrix_samples,
        "input_log_norm": report.input_log_norm,
        "output_log_norm": report.output_log_norm,
        "input_spread": report.input_spread,
        "output_spread": report.output_spread,
        "float_range": report.float_range,
        "findings": [finding._asdict() for finding in report.findings],
        "segments": [segment._asdict() for segment in report.segments],
        "advice": report.advice,
        "notes": report.notes,
        "layers": [
            dict(zip(report.layers.dtype.names or (), row.item(), strict=True))
            for row in report.layers
        ],
    }
    return json.dumps(_strict(content), indent=1, allow_nan=False)


def to_dataframe(report: GradientFlowReport) -> Any:
    """The table of layers as a data frame.

    Parameters
    ----------
    report : GradientFlowReport
        What to convert.

    Returns
    -------
    pandas.DataFrame
        Indexed by layer number from 1.

    Raises
    ------
    ImportError
        Without the ``frames`` extra, naming it.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "pandas is needed for data frames: pip install 'jacometry[frames]'"
        ) from error
    index = pandas.RangeIndex(1, len(report.layers) + 1, name="layer")
    return pandas.DataFrame.from_records(report.layers, index=index)


def write_html(
    path: str | os.PathLike[str],
    subject: GradientFlowReport | Comparison,
    *,
    title: str | None = None,
    introduction: tuple[str, ...] = (),
) -> None:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path : str or path-like
        Overwritten if it exists.
    subject : GradientFlowReport or Comparison
        What to write.
    title : str, optional
        Heading of a comparison.
    introduction : tuple of str, optional
        Paragraphs of plain text above a comparison's table.
    """
    from ._html import page

    content = page(subject, title=title, introduction=introduction)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(content)


def to_fragment(subject: GradientFlowReport | Comparison) -> str:
    """HTML to be put into another page, as notebooks do; its styles reach nothing outside it.

    Parameters
    ----------
    subject : GradientFlowReport or Comparison
        What to show.

    Returns
    -------
    str
    """
    from ._html import fragment

    return fragment(subject)


def summary(report: GradientFlowReport) -> str:
    """The gradient's course in one or two sentences.

    Parameters
    ----------
    report : GradientFlowReport
        What to describe.

    Returns
    -------
    str
    """
    n_layers = len(report.layers)
    profile = report.layers["gradient_log_norm"]
    if n_layers == 1:
        return "The network has a single layer: there is nothing for the gradient to pass through."
    if not np.isfinite(profile).all():
        return "At some layer the gradient is exactly zero for every sample."
    decades = float(profile[0] - profile[-1]) / _LN_10
    text = (
        f"From layer {n_layers} back to layer 1 the gradient's norm changes by a factor of "
        f"{_power(decades)}: x{math.exp(report.rate):.3f} per layer"
    )
    if math.isfinite(report.theory_rate):
        theory = f"x{math.exp(report.theory_rate):.3f}"
        text += f" (mean-field theory for random weights of this size: {theory})"
    return text + "."


def widths_in_words(widths: tuple[int, ...]) -> str:
    """Layer widths with runs joined, as 64-40x12-10.

    Parameters
    ----------
    widths : tuple of int
        The input's first.

    Returns
    -------
    str
    """
    runs: list[list[int]] = []
    for width in widths:
        if runs and runs[-1][0] == width:
            runs[-1][1] += 1
        else:
            runs.append([width, 1])
    words = [str(n) if times == 1 else f"{n}x{times}" for n, times in runs]
    if len(words) > 20:
        words = [*words[:3], "...", *words[-2:]]
    return "-".join(words)


def _what(report: GradientFlowReport) -> str:
    names = ", ".join(dict.fromkeys(report.activations))
    text = f"{len(report.layers)} layers, widths {widths_in_words(report.widths)} ({names}); "
    text += f"{report.n_samples} samples; gradients of {report.loss}"
    if report.accuracy is not None:
        text += f"; accuracy on these samples {100 * report.accuracy:.1f} %"
    return text


def _layer_lines(report: GradientFlowReport) -> list[str]:
    layers = report.layers
    profile = layers["gradient_log_norm"] / _LN_10
    finite = profile[np.isfinite(profile)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    span = max(high - low, report.threshold_decades)
    name_width = min(24, max(4, *(len(name) for name in layers["name"])))
    lines = [
        f"{'layer':>5} {'name':{name_width}} {'gradient':>9} {'theory':>9} {'z':>5} "
        f"{'norm':>8} {'signal':>8} {'varies':>8} {'sat.':>5} {'dead':>5}  gradient, log scale"
    ]
    n_layers = len(layers)
    shown = list(range(n_layers))
    if n_layers > _SHOWN_ROWS:
        shown = [*range(_SHOWN_ROWS // 2), -1, *range(n_layers - _SHOWN_ROWS // 2, n_layers)]
    for k in shown:
        if k < 0:
            lines.append(f"{'...':>5} {n_layers - _SHOWN_ROWS} layers not shown")
            continue
        row = layers[k]
        length = 0
        if np.isfinite(profile[k]):
            length = 1 + round((_BAR - 1) * float(profile[k] - (high - span)) / span)
        lines.append(
            f"{k + 1:5d} {row['name'][:name_width]:{name_width}} "
            f"{_log10(row['gradient_log_norm']):>9} {_log10(row['theory_log_gradient']):>9} "
            f"{_cell(row['z'], '.1f'):>5} {_cell(row['norm_upper'], '.3g'):>8} "
            f"{_cell(math.sqrt(row['forward_variance']), '.3g'):>8} "
            f"{_cell(row['spread'], '.2g'):>8} {_share(row['saturation']):>5} "
            f"{_share(row['dead']):>5}  {'#' * length}"
        )
    lines.append(
        "  gradient: norm of dLoss/dz; theory: mean field; z: their distance in standard "
        "deviations;"
    )
    lines.append(
        "  norm: layer Jacobian; signal: root mean square of z; varies: part of z that depends on "
        "the input"
    )
    return lines


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, 98, initial_indent=indent if first is None else first, subsequent_indent=indent
    )


def _strict(value: Any) -> Any:
    """`value` with nothing in it that strict JSON cannot say."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _power(decades: float) -> str:
    if math.isnan(decades):
        return "-"
    return f"10^{decades:.1f}" if abs(decades) >= 2 else f"{10.0**decades:.3g}"


def _log10(log: float) -> str:
    """exp(log) in scientific notation, whatever its size."""
    if not math.isfinite(log):
        return "0" if log < 0 else "-"
    exponent = math.floor(log / _LN_10)
    mantissa = math.exp(log - exponent * _LN_10)
    if round(mantissa, 2) >= 10:
        mantissa, exponent = mantissa / 10, exponent + 1
    return f"{mantissa:.2f}e{exponent:+03d}"


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(float(value), form)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _depth(depth: float) -> str:
    return "never" if math.isinf(depth) else f"{depth:.0f}"
