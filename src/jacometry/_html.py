"""The HTML page of a report or a comparison: one file, nothing fetched, light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from . import plots
from .diagnostics import Comparison, GradientFlowReport
from .report import HEADLINES, summary, widths_in_words

__all__ = ["fragment", "page"]

_LN_10 = math.log(10.0)
_SHOWN_ROWS = 400  # a longer table of layers is cut in the middle

# Colours that stand in a figure for the page's own, which depend on light or dark.
_SENTINELS = {
    "#010203": "var(--ink)",
    "#010204": "var(--grid)",
    "#010205": "var(--theory)",
    "#010206": "var(--c0)",
    "#010207": "var(--c1)",
    "#010208": "var(--c2)",
    "#010209": "var(--c3)",
    "#01020a": "var(--c4)",
}
_PALETTE = plots.Palette(
    series=("#010206", "#010207", "#010208", "#010209", "#01020a"),
    theory="#010205",
    ink="#010203",
    grid="#010204",
)

_STYLE = """
.jm{--ink:#1f2430;--soft:#5b6272;--paper:#fff;--card:#f6f7f9;--line:#dfe2e8;--grid:#dfe2e8;
--theory:#c2640a;--c0:#1d5fd1;--c1:#c92a3a;--c2:#0b8457;--c3:#7a3fc4;--c4:#9a6a00;
--good:#0b7a4b;--bad:#b42332;color:var(--ink);background:var(--paper);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){.jm{--ink:#e6e8ee;--soft:#a2a9b8;--paper:#14171d;--card:#1c2028;
--line:#333946;--grid:#333946;--theory:#f0a04b;--c0:#6ea8ff;--c1:#ff7b86;--c2:#4cd19a;--c3:#bb92ff;
--c4:#e0b040;--good:#4cd19a;--bad:#ff7b86}}
.jm *{box-sizing:border-box}
.jm main,.jm .jm-body{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
.jm .jm-body{padding:1rem}
.jm h1{font-size:1.75rem;line-height:1.25;margin:.2rem 0 .6rem}
.jm h2{font-size:1.3rem;line-height:1.3;margin:2.4rem 0 .6rem}
.jm h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
.jm p{margin:.5rem 0}
.jm .kicker,.jm .note,.jm figcaption,.jm small{color:var(--soft);font-size:.9rem}
.jm .lead{font-size:1.12rem}
.jm .badge{display:inline-block;border-radius:.4rem;padding:.1rem .55rem;font-weight:650;
font-size:.92rem;border:1.5px solid;white-space:nowrap}
.jm .good{color:var(--good)} .jm .bad{color:var(--bad)}
.jm .scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.jm table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
.jm th,.jm td{padding:.32rem .6rem;border-bottom:1px solid var(--line);text-align:right;
white-space:nowrap}
.jm th{font-weight:600;vertical-align:bottom;white-space:normal;min-width:4.2rem}
.jm th:first-child,.jm td:first-child,.jm .text{text-align:left}
.jm td.wrap{white-space:normal;min-width:14rem;text-align:left}
.jm figure{margin:1rem 0;background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.8rem}
.jm figure svg{display:block;width:100%;height:auto;min-width:20rem;max-width:46rem;margin:0 auto}
.jm figure text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif!important}
.jm figcaption{margin-top:.4rem}
.jm figcaption b{color:var(--ink)}
.jm .pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0
1rem} .jm ul{padding-left:1.2rem;margin:.4rem 0} .jm li{margin:.35rem 0} .jm details{margin:.8rem 0}
.jm summary{cursor:pointer;font-weight:600} .jm dl{margin:.4rem 0} .jm
dt{font-weight:600;margin-top:.5rem} .jm dd{margin:0 0 0 1rem} .jm .report{border-top:3px solid
var(--line);margin-top:3.2rem;padding-top:.6rem} .jm
.facts{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0} .jm
.fact{background:var(--card);border:1px solid var(--line);border-radius:.6rem; padding:.5rem
.8rem;flex:1 1 9rem} .jm .fact b{display:block;font-size:1.25rem;line-height:1.3} .jm
.box{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.6rem 1rem}
@media print{.jm figure,.jm tr{break-inside:avoid}}
"""

_HOW_TO_READ = """
<p>A network learns by sending an error signal, the <b>gradient</b>, from its output back to its
input, one layer at a time. Every layer multiplies it by the layer's own derivative, its
<b>Jacobian</b>. Factors a little below 1 multiply to nothing over many layers (the gradient
<b>vanishes</b>: the first layers do not learn); factors a little above 1 multiply to huge numbers
(it <b>explodes</b>: training is unstable). Healthy is a curve that stays level within a few powers
of ten.</p> <p><b>Theory beside measurement.</b> The dashed line is what mean-field theory expects
of a network with <i>random</i> weights of the same size in each layer. Where the measurement
follows it, the cause is the choice of activation and weight scale, and it could have been known
before training. Where it departs, training has arranged the weights.</p> <p><b>Norms.</b>
Multiplying the norms of single layers gives only an upper bound on what all of them do together,
often too large by many powers of ten. The verdict does not use it.</p>
"""

_COLUMNS = (
    ("layer", "layer", "Its number, the input's side first, and its name.", None),
    ("gradient", "gradient_log_norm",
     "Length of the gradient with respect to the layer's pre-activations, dLoss/dz; geometric mean "
     "over the samples.", "log"),
    ("theory", "theory_log_gradient",
     "The same as mean-field theory predicts it from the last layer backwards.", "log"),
    ("z", "z",
     "Distance of measurement from theory in standard deviations of networks of this width; beyond "
     "4 is more than chance.", ".1f"),
    ("norm", "norm_upper",
     "Spectral norm of the layer's Jacobian, largest over the samples (upper bound): the most it "
     "can stretch any vector.", ".3g"),
    ("norm to output", "cumulative_log_norm",
     "Spectral norm of all layers from here to the output together.", "log"),
    ("condition", "condition",
     "Largest over smallest singular value of the Jacobian, median over the samples; infinite "
     "where a direction is lost altogether, as inactive ReLU units do.", ".3g"),
    ("signal", "forward_variance",
     "Mean square of the pre-activations z.", ".3g"),
    ("varies", "spread",
     "Part of the signal that differs from input to input, relative to its length; 0 means that "
     "all inputs look the same from here on.", ".2g"),
    ("rank", "effective_rank",
     "Effective number of directions that the samples' activations point in.", ".1f"),
    ("saturated", "saturation",
     "Slopes below 5 % of the activation's steepest; a dash where the activation does not level "
     "off on both sides.", "%"),
    ("dead", "dead", "Units whose slope is zero on every sample given.", "%"),
)  # fmt: skip


def page(
    subject: GradientFlowReport | Comparison, *, title: str | None, introduction: tuple[str, ...]
) -> str:
    """A whole HTML document.

    Parameters
    ----------
    subject : GradientFlowReport or Comparison
        What to show.
    title : str or None
        Heading of a comparison.
    introduction : tuple of str
        Plain paragraphs above a comparison's table.

    Returns
    -------
    str
    """
    if isinstance(subject, Comparison):
        heading = title or "Gradient flow: a comparison"
        body = _comparison(subject, heading, introduction)
    else:
        heading = f"Gradient flow: {subject.title}"
        body = _report(subject, "h1")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(heading)}</title>\n<style>html,body{{margin:0}}{_STYLE}</style>\n</head>\n"
        f'<body class="jm">\n<main>\n{body}\n'
        '<p class="note">Written by jacometry. This file is complete and fetches nothing.</p>\n'
        "</main>\n</body>\n</html>\n"
    )


def fragment(subject: GradientFlowReport | Comparison) -> str:
    """A piece of HTML for a notebook.

    Parameters
    ----------
    subject : GradientFlowReport or Comparison
        What to show.

    Returns
    -------
    str
    """
    if isinstance(subject, Comparison):
        body = _comparison(subject, "Gradient flow: a comparison", (), with_reports=False)
    else:
        body = _report(subject, "h2")
    return f'<div class="jm"><style>{_STYLE}</style><div class="jm-body">{body}</div></div>'


def _comparison(
    comparison: Comparison,
    heading: str,
    introduction: tuple[str, ...],
    *,
    with_reports: bool = True,
) -> str:
    parts = [f"<h1>{escape(heading)}</h1>"]
    parts += [f'<p class="lead">{_prose(text)}</p>' for text in introduction]
    parts.append(_comparison_table(comparison))
    caption = (
        "<b>The gradient on its way back, all networks together.</b> Read from right to left: "
        "each curve starts at 1 at the output. Solid is measured, dashed is what mean-field "
        "theory predicts for random weights of the same size. The vertical axis counts powers of "
        "ten."
    )
    parts.append(
        _figure(
            lambda ax: plots.gradient_profile(comparison.reports, ax=ax, palette=_PALETTE), caption
        )
    )
    parts.append(f'<h2>How to read this</h2><div class="box">{_HOW_TO_READ}</div>')
    if with_reports:
        for number, report in enumerate(comparison.reports, start=1):
            body = _report(report, "h2", False)
            parts.append(f'<section class="report" id="report-{number}">{body}</section>')
    return "\n".join(parts)


def _comparison_table(comparison: Comparison) -> str:
    table = comparison.table
    with_accuracy = bool(np.isfinite(table["accuracy"]).any())
    head = ["network", "verdict", *(["accuracy"] if with_accuracy else [])]
    head += [
        "gradient kept per layer, measured",
        "the same, mean-field theory",
        "gradient at the first layer, last layer = 1",
        "part of the output that depends on the input",
    ]
    rows = []
    for number, row in enumerate(table, start=1):
        cells = [
            f'<a href="#report-{number}" style="color:inherit">{escape(str(row["title"]))}</a>',
            _badge(str(row["verdict"])),
        ]
        if with_accuracy:
            cells.append(_percent(row["accuracy"], 1))
        cells += [
            f"× {math.exp(row['rate']):.3f} ± {_stderr_of_factor(row['rate'], row['rate_stderr'])}",
            f"× {math.exp(row['theory_rate']):.3f}",
            _scientific(row["decades"] * _LN_10),
            _number(row["output_spread"], ".2g"),
        ]
        rows.append(cells)
    return _table(head, rows)


def _report(report: GradientFlowReport, level: str, with_reading: bool = True) -> str:
    parts = [
        '<p class="kicker">Gradient flow</p>' if level == "h1" else "",
        f"<{level}>{escape(report.title)} {_badge(report.verdict)}</{level}>",
        f'<p class="lead"><b>{escape(HEADLINES[report.verdict])}</b> {_prose(summary(report))}</p>',
        _facts(report),
        *(f"<p>{_prose(note)}</p>" for note in report.notes),
        "<h3>What was measured</h3>",
        f"<p>{_measured(report)}</p>",
        _figures(report),
        _findings(report),
        "<h3>What to do</h3>",
        "<ul>" + "".join(f"<li>{_first_bold(text)}</li>" for text in report.advice) + "</ul>",
        "<h3>Layer by layer</h3>",
        _layer_table(report),
        _column_key(),
        _ranges(report),
    ]
    if with_reading:
        parts.append(f'<h3>How to read this</h3><div class="box">{_HOW_TO_READ}</div>')
    return "\n".join(part for part in parts if part)


def _facts(report: GradientFlowReport) -> str:
    facts = []
    if math.isfinite(report.rate):
        error = _stderr_of_factor(report.rate, report.rate_stderr)
        facts.append((f"× {math.exp(report.rate):.3f}", f"gradient kept per layer (± {error})"))
    if math.isfinite(report.theory_rate):
        facts.append((f"× {math.exp(report.theory_rate):.3f}", "the same, mean-field theory"))
    profile = report.layers["gradient_log_norm"]
    if len(profile) > 1 and np.isfinite(profile).all():
        text = _scientific(float(profile[0] - profile[-1]))
        facts.append((text, "of the gradient reaches layer 1"))
    if report.accuracy is not None:
        facts.append(
            (_percent(report.accuracy, 1), f"of {report.n_samples} samples classified rightly")
        )
    elif not math.isnan(report.output_spread):
        facts.append(
            (f"{report.output_spread:.2g}", "part of the output that depends on the input")
        )
    cells = "".join(
        f'<div class="fact"><b>{value}</b><small>{text}</small></div>' for value, text in facts
    )
    return f'<div class="facts">{cells}</div>' if cells else ""


def _measured(report: GradientFlowReport) -> str:
    names = ", ".join(dict.fromkeys(report.activations))
    text = (
        f"A fully connected network of {len(report.layers)} layers, widths "
        f"{widths_in_words(report.widths)}, activations {names}. On {report.n_samples} samples, "
        "the signal was followed forwards and the gradient backwards through every layer; "
    )
    if report.loss == "Gaussian cotangents":
        text += "no loss was given, so random vectors were sent back from the output. "
    else:
        text += f"the gradient is that of each sample's loss ({report.loss}). "
    text += f"Norms of Jacobians were taken at {report.n_matrix_samples} of the samples."
    html = escape(text)
    if report.description:
        html += f'<br><span class="note">{escape(report.description)}</span>'
    return html


def _figures(report: GradientFlowReport) -> str:
    drawn = _figure(
        lambda ax: plots.gradient_profile([report], ax=ax, palette=_PALETTE),
        "<b>The gradient at each layer.</b> Read from right to left, as it travels. Dashed: "
        "mean-field theory for random weights of the same size; shaded: where 95 % of such "
        "networks, of these widths, would lie.",
    )
    if drawn is _NO_FIGURES:
        return drawn
    signal = _figure(
        lambda ax: plots.signal_profile(report, ax=ax, palette=_PALETTE),
        "<b>The signal on its way forward.</b> Its size, and the part of it that differs from "
        "input to input; when that part is gone, the output cannot depend on the input.",
        narrow=True,
    )
    norms = _figure(
        lambda ax: plots.layer_norms(report, ax=ax, palette=_PALETTE),
        "<b>Norms of the layers.</b> The product of the single norms (dotted) is only an upper "
        "bound on what the layers do together.",
        narrow=True,
    )
    units = ""
    shares = np.concatenate([np.nan_to_num(report.layers["saturation"]), report.layers["dead"]])
    if shares.max() > 0:
        units = _figure(
            lambda ax: plots.unit_shares(report, ax=ax, palette=_PALETTE),
            "<b>Units that pass no gradient.</b> Saturated: the slope is below 5 % of the "
            "steepest; dead: it is zero on every sample.",
            narrow=True,
        )
    return f'{drawn}<div class="pair">{signal}{norms}{units}</div>'


_NO_FIGURES = (
    '<p class="box"><b>Figures are missing</b> because matplotlib is not installed. Install the '
    "extra, <code>pip install 'jacometry[plot]'</code>, and write the report again; the tables "
    "below are complete.</p>"
)


def _figure(draw: Callable[[Any], Any], caption: str, *, narrow: bool = False) -> str:
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        return _NO_FIGURES
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "jacometry",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.usetex": False,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        canvas = Figure(figsize=(5.4, 3.5) if narrow else (6.8, 3.6), layout="constrained")
        FigureCanvasSVG(canvas)
        canvas.patch.set_visible(False)
        ax = canvas.add_subplot()
        ax.patch.set_visible(False)
        draw(ax)
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub("|".join(_SENTINELS), lambda match: _SENTINELS[match[0]], svg)
    return f'<figure><div class="scroll">{svg}</div><figcaption>{caption}</figcaption></figure>'


def _findings(report: GradientFlowReport) -> str:
    if not report.findings:
        return "<h3>Findings</h3><p>Nothing out of the ordinary.</p>"
    rows = [
        [
            f'<b class="bad">{escape(_words(f.kind))}</b>'
            if f.severity == "problem"
            else _words(f.kind),
            _prose(f.reason),
        ]
        for f in report.findings
    ]
    body = "".join(
        f'<tr><td class="text">{kind}</td><td class="wrap">{reason}</td></tr>'
        for kind, reason in rows
    )
    return (
        '<h3>Findings</h3><p class="note">Problems are in red; the others are worth knowing.</p>'
        f'<div class="scroll"><table>{body}</table></div>'
    )


def _layer_table(report: GradientFlowReport) -> str:
    n_layers = len(report.layers)
    shown: list[int] = list(range(n_layers))
    if n_layers > _SHOWN_ROWS:
        shown = [*range(_SHOWN_ROWS // 2), *range(n_layers - _SHOWN_ROWS // 2, n_layers)]
    rows = []
    for k in shown:
        row = report.layers[k]
        cells = [f"{k + 1} <small>{escape(_plain_name(str(row['name']), k))}</small>"]
        cells += [_formatted(row[name], form) for _, name, _, form in _COLUMNS[1:]]
        rows.append(cells)
    note = ""
    if n_layers > _SHOWN_ROWS:
        note = f'<p class="note">{n_layers - _SHOWN_ROWS} layers in the middle are not shown.</p>'
    return _table([column[0] for column in _COLUMNS], rows) + note


def _plain_name(name: str, k: int) -> str:
    return "" if name == f"layer {k + 1}" else name


def _column_key() -> str:
    entries = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, _, text, _ in _COLUMNS)
    return f"<details><summary>What the columns mean</summary><dl>{entries}</dl></details>"


def _ranges(report: GradientFlowReport) -> str:
    rows = [
        [name, "never" if math.isinf(depth) else f"{depth:.0f} layers"]
        for name, depth in report.float_range.items()
    ]
    return (
        "<details><summary>How deep each number format would carry this "
        "gradient</summary><p>Layers after which a gradient of norm 1 at the output becomes too "
        "small (or too large) for the format, at the measured rate; “never” where the rate is "
        f"within two standard errors of level.</p>{_table(['format', 'depth'], rows)}</details>"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{text}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _badge(verdict: str) -> str:
    tone = "good" if verdict == "healthy" else "bad"
    return f'<span class="badge {tone}">{escape(verdict)}</span>'


def _first_bold(text: str) -> str:
    instruction, dot, reason = text.partition(". ")
    return f"<b>{_prose(instruction)}{dot.strip()}</b> {_prose(reason)}"


def _prose(text: str) -> str:
    """Plain text as HTML, its plain-text mathematics typeset."""
    html = escape(text)
    html = re.sub(
        r"\b10\^(-?[0-9.]*[0-9])", lambda m: f"10<sup>{m[1].replace('-', '−')}</sup>", html
    )
    html = re.sub(r"(?<![\w.#])x(?=[0-9])", "×\N{NARROW NO-BREAK SPACE}", html)
    html = re.sub(
        r"(?<=[0-9])e([+-][0-9]+)\b",
        lambda m: f"·10<sup>{str(int(m[1])).replace('-', '−')}</sup>",
        html,
    )
    html = re.sub(r"\bsigma_(w|b)\b", r"σ<sub>\1</sub>", html)
    return re.sub(r"\bchi\b(?= =)", "χ", html)


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _formatted(value: Any, form: str | None) -> str:
    if form == "log":
        return _scientific(float(value))
    if form == "%":
        return "–" if math.isnan(value) else f"{100 * value:.0f} %"
    return _number(float(value), form or "")


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _tidy(format(value, form))


def _scientific(log: float) -> str:
    """exp(log) as people write it, whatever its size."""
    if math.isnan(log):
        return "–"
    if math.isinf(log):
        return "0" if log < 0 else "∞"
    decades = log / _LN_10
    if -3 < decades < 4:
        return f"{math.exp(log):.3g}" if decades < 3 else f"{math.exp(log):.0f}"
    exponent = math.floor(decades)
    mantissa = 10 ** (decades - exponent)
    if mantissa >= 9.95:
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}·10<sup>{str(exponent).replace('-', '−')}</sup>"


def _tidy(text: str) -> str:
    """1e-07 as 1·10^-7, with a true minus sign."""
    mantissa, e, exponent = text.partition("e")
    mantissa = mantissa.replace("-", "−")
    return f"{mantissa}·10<sup>{str(int(exponent)).replace('-', '−')}</sup>" if e else mantissa


def _percent(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def _stderr_of_factor(rate: float, stderr: float) -> str:
    """Standard error of exp(rate)."""
    return "–" if math.isnan(stderr) else f"{math.exp(rate) * stderr:.3f}"
