"""Reports as text, JSON, data frames and HTML: complete, escaped, self-contained."""

import builtins
import json
import math
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from jacometry.diagnostics import analyze, compare
from jacometry.network import Network
from jacometry.report import widths_in_words

EVIL = "<script>alert(1)</script>&\"'$x^2$"


@pytest.fixture
def report():
    net = Network.random([6, *[12] * 11, 3], "sigmoid", "glorot_normal", rng=0)
    x = np.random.default_rng(1).standard_normal((20, 6))
    return analyze(net, x, y=np.arange(20) % 3, rng=2)


def evil_report():
    weights = [np.ones((2, 2)), np.ones((1, 2))]
    net = Network.from_arrays(weights, names=[EVIL, "two"], description=EVIL)
    return analyze(net, np.eye(2), rng=0)


class _Reader(HTMLParser):
    """Checks that tags close, and collects what a page says and asks for."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references, self.words = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [
            v for k, v in attributes if k in ("src", "href", "xlink:href", "action", "data")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)


def read(path):
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_text_has_all_parts_and_fits_a_terminal(report):
    text = str(report)
    for part in ("VERDICT  VANISHING", "FINDINGS", "ADVICE", "RANGE", "layer 12", "cross_entropy"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_a_deep_network_is_cut_in_the_middle():
    report = analyze([np.eye(2)] * 500, np.eye(2), rng=0)
    text = str(report)
    assert "460 layers not shown" in text
    assert len(text.splitlines()) < 80


def test_json_is_strict_and_complete(report):
    content = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert content["verdict"] == "vanishing"
    assert len(content["layers"]) == 12
    assert set(content["layers"][0]) == set(report.layers.dtype.names)
    assert content["layers"][3]["gradient_log_norm"] == report.layers["gradient_log_norm"][3]
    assert content["layers"][-1]["saturation"] is None
    assert {"kind", "layers", "value", "threshold", "reason"} <= set(content["findings"][0])


def test_json_says_infinities_in_words():
    net = Network.from_arrays([np.eye(2)] * 2, [np.full(2, -9.0), np.zeros(2)], "relu")
    content = json.loads(analyze(net, np.eye(2), rng=0).to_json(), parse_constant=pytest.fail)
    assert content["layers"][0]["gradient_log_norm"] == "-Infinity"
    assert content["rate"] == "-Infinity"


def test_dataframe_has_the_fields(report):
    pandas = pytest.importorskip("pandas", reason="needs the frames extra")
    frame = report.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(report.layers.dtype.names)
    assert list(frame.index) == list(range(1, 13))


def test_html_is_well_formed_and_fetches_nothing(report, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    report.to_html(tmp_path / "r.html")
    page = read(tmp_path / "r.html")
    assert all(reference.startswith("#") for reference in page.references)
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert "link" not in page.tags
    text = " ".join(page.words)
    for part in ("vanishing", "What was measured", "Findings", "What to do", "Layer by layer",
                 "How to read this", "What the columns mean"):  # fmt: skip
        assert part in text
    source = (tmp_path / "r.html").read_text()
    assert "@import" not in source
    assert "url(http" not in source
    assert "prefers-color-scheme:dark" in source
    assert "#0102" not in source


def test_strings_from_files_are_escaped(tmp_path):
    report = evil_report()
    report.to_html(tmp_path / "r.html")
    page = read(tmp_path / "r.html")
    assert "script" not in page.tags
    assert EVIL in " ".join(page.words)
    compare(report, report).to_html(tmp_path / "c.html")
    assert "script" not in read(tmp_path / "c.html").tags
    assert "<script" not in report._repr_html_()


def test_html_of_awkward_reports(tmp_path):
    dead = Network.from_arrays(
        [np.eye(2)] * 3, [np.full(2, -9.0), np.zeros(2), np.zeros(2)], "relu"
    )
    for model in ([np.ones((1, 1))], dead, [np.eye(2) * 1e-30] * 40, [np.eye(2)] * 900):
        x = np.ones((1, 1)) if len(model) == 1 else np.eye(2)
        report = analyze(model, x, rng=0)
        report.to_html(tmp_path / "r.html")
        read(tmp_path / "r.html")
        assert str(report)


def test_comparison_page_holds_all_reports(report, tmp_path):
    comparison = compare(report, evil_report())
    comparison.to_html(tmp_path / "c.html")
    page = read(tmp_path / "c.html")
    assert {"#report-1", "#report-2"} <= set(page.references)
    assert page.tags.count("section") == 2
    assert comparison._repr_html_()


def test_without_matplotlib_the_page_is_written_and_says_so(report, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError("no matplotlib")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    report.to_html(tmp_path / "r.html")
    page = read(tmp_path / "r.html")
    assert "svg" not in page.tags
    text = " ".join(page.words)
    assert "jacometry[plot]" in text
    assert text.count("Figures are missing") == 1
    with pytest.raises(ImportError, match=r"jacometry\[plot\]"):
        report.plot()


def test_without_pandas_the_error_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"jacometry\[frames\]"):
        report.to_dataframe()


def test_plots_draw_on_given_axes(report):
    matplotlib = pytest.importorskip("matplotlib", reason="needs the plot extra")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, ax = pyplot.subplots()
    assert report.plot(ax) is ax
    measured = ax.lines[1].get_ydata()
    np.testing.assert_allclose(measured, report.layers["gradient_log_norm"] / math.log(10))
    assert compare(report, report).plot() is not ax
    pyplot.close("all")


def test_importing_the_package_imports_no_extra():
    code = (
        "import sys, jacometry, jacometry.cli, jacometry.interop.torch, jacometry.interop.sklearn;"
        "print([m for m in ('matplotlib', 'pandas', 'torch', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_widths_in_words():
    assert widths_in_words((64, 40, 40, 40, 10)) == "64-40x3-10"
    assert widths_in_words(tuple(range(1, 50))).count("-") == 5
