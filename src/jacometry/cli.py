"""The command line: ``jacometry analyze``, ``phase``, ``critical``, ``demo`` and ``config``."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import meanfield
from ._npz import printable, read_npy
from ._status import JacometryError, NoEdgeOfChaosError
from .diagnostics import GradientFlowReport, analyze, compare
from .network import Network
from .report import widths_in_words, write_html

__all__ = ["main"]

# Without --input, so many standard Gaussian samples.
_GAUSSIAN_SAMPLES = 64


class _DemoNetwork(NamedTuple):
    """One of the shipped networks, and how it was initialised: Var(W) = gain**2 / fan."""

    title: str
    file: str
    activation: str
    gain: float
    fan: str


_DEMO = (
    _DemoNetwork("sigmoid, Xavier", "digits_sigmoid_xavier.npz", "sigmoid", 1.0, "avg"),
    _DemoNetwork("tanh, Xavier", "digits_tanh_xavier.npz", "tanh", 1.0, "avg"),
    _DemoNetwork("ReLU, He", "digits_relu_he.npz", "relu", 2.0**0.5, "in"),
)


class _Parser(argparse.ArgumentParser):
    """Errors on one line, as for files."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see '{self.prog} --help')")


class _UsageError(Exception):
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; None takes those of the process.

    Returns
    -------
    int
        0 once the answer is written; 1 with ``--check`` when a problem is found; 2 for usage and
        file errors, after one line on stderr; 130 after an interrupt.
    """
    try:
        arguments = _parser().parse_args(argv)
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except _UsageError as error:
        return _fail(str(error))
    except (JacometryError, ValueError, TypeError, ImportError) as error:
        return _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read the output has left; Python would complain again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        name = printable(str(error.filename)) if error.filename else "file"
        return _fail(f"{name}: {error.strerror or error}")
    except MemoryError:
        return _fail("not enough memory for this model and input")
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jacometry",
        description="What happens to a signal and its gradient on the way through many layers.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("analyze", help="gradient-flow report of a model file")
    command.add_argument("model", metavar="MODEL.npz", help="weights_0, biases_0, ..., activations")
    command.add_argument("--input", metavar="X.npy", help="inputs, one per row (default: Gaussian)")
    command.add_argument("--html", metavar="R.html", help="write the report with figures")
    command.add_argument("--json", metavar="FILE", help="write the report as JSON; - for stdout")
    command.add_argument("--seed", type=_seed, metavar="N", help="makes the figures reproducible")
    command.add_argument("--check", action="store_true", help="exit status 1 if there is a problem")
    command.add_argument("--open", action="store_true", help="show the HTML report in a browser")
    command.set_defaults(run=_analyze)

    command = commands.add_parser("phase", help="phase diagram of an activation")
    command.add_argument("activation", metavar="ACTIVATION", help="tanh, relu, gelu, ...")
    command.add_argument("--sigma-w", type=float, nargs=2, metavar=("LOW", "HIGH"),
                         default=(0.0, 4.0), help="default: 0 4")  # fmt: skip
    command.add_argument("--sigma-b", type=float, nargs=2, metavar=("LOW", "HIGH"),
                         default=(0.0, 1.0), help="default: 0 1")  # fmt: skip
    command.add_argument("--points", type=_points, metavar="N", default=128,
                         help="along each side (default: %(default)s)")  # fmt: skip
    command.add_argument("--plot", metavar="P.png", help="write the figure")
    command.set_defaults(run=_phase)

    command = commands.add_parser("critical", help="initialisation on the edge of chaos")
    command.add_argument("activation", metavar="ACTIVATION", help="tanh, relu, gelu, ...")
    given = command.add_mutually_exclusive_group()
    given.add_argument("--sigma-b", type=float, metavar="S", help="standard deviation of biases")
    given.add_argument("--q-star", type=float, metavar="Q", help="variance of pre-activations")
    command.set_defaults(run=_critical)

    command = commands.add_parser("demo", help="three real networks: why one of them did not train")
    command.add_argument(
        "--html", metavar="R.html", default="jacometry-demo.html", help="default: ./%(default)s"
    )
    command.set_defaults(run=_demo)

    command = commands.add_parser("config", help="how this installation computes")
    command.set_defaults(run=_config)
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return seed


def _points(text: str) -> int:
    points = int(text)
    if not 2 <= points <= 4096:
        raise argparse.ArgumentTypeError("must lie in [2, 4096]")
    return points


def _fail(message: str) -> int:
    print(f"jacometry: error: {printable(message, 500)}", file=sys.stderr)
    return 2


def _analyze(arguments: argparse.Namespace) -> int:
    network = Network.load(arguments.model)
    # Without --seed from the system: bounds on norms would not hold against a file made for a known
    # seed.
    rng = np.random.default_rng(arguments.seed)
    if arguments.input is None:
        x = rng.standard_normal((_GAUSSIAN_SAMPLES, network.widths[0]))
        source = f"No --input was given: these are {_GAUSSIAN_SAMPLES} standard Gaussian inputs."
    else:
        x = read_npy(arguments.input)
        source = f"Inputs from {printable(os.path.basename(arguments.input))}."
    with _progress() as progress:
        report = analyze(network, x, rng=rng, progress=progress)
    title = printable(os.path.basename(arguments.model), 64)
    report = replace(report, title=title, notes=(source,))

    if arguments.json == "-":
        print(report.to_json())
    else:
        print(report)
        print(f"\n{source}")
        if arguments.json is not None:
            Path(arguments.json).write_text(report.to_json() + "\n", encoding="utf-8")
    html = arguments.html or ("jacometry-report.html" if arguments.open else None)
    if html is not None:
        report.to_html(html)
        where = sys.stderr if arguments.json == "-" else sys.stdout
        print(f"Report: {printable(str(Path(html).resolve()), 500)}", file=where)
        if arguments.open:
            import webbrowser

            webbrowser.open(Path(html).resolve().as_uri())
    has_problem = any(finding.severity == "problem" for finding in report.findings)
    return 1 if arguments.check and has_problem else 0


def _phase(arguments: argparse.Namespace) -> int:
    axes = []
    for name, (low, high) in (("sigma-w", arguments.sigma_w), ("sigma-b", arguments.sigma_b)):
        if not (0 <= low < high < math.inf):
            raise _UsageError(
                f"argument --{name}: must be 0 <= LOW < HIGH, got {low:g} {high:g} "
                "(see 'jacometry phase --help')"
            )
        axes.append(np.linspace(low, high, arguments.points))
    with _progress() as progress:
        diagram = meanfield.phase_diagram(arguments.activation, *axes, progress=progress)
    (w_low, w_high), (b_low, b_high) = arguments.sigma_w, arguments.sigma_b
    print(
        f"{diagram.activation.name}: {diagram.chi_1.size} wide networks with sigma_w in "
        f"[{w_low:g}, {w_high:g}], sigma_b in [{b_low:g}, {b_high:g}], from q0 = 1"
    )
    for phase, count in zip(*np.unique(diagram.phase, return_counts=True), strict=True):
        print(f"  {phase:9} {100 * count / diagram.phase.size:6.2f} %")
    print("critical line (chi_1 = 1):\n    sigma_b       sigma_w            q*")
    for sigma_b in np.linspace(b_low, b_high, 5):
        try:
            point = meanfield.critical_point(arguments.activation, sigma_b=float(sigma_b))
        except NoEdgeOfChaosError:
            print(f"  {sigma_b:9.4g}  {'none':>12}")
        else:
            note = "" if point.stable else "  repels"
            q_star = "any" if math.isnan(point.q_star) else f"{point.q_star:.8g}"
            print(f"  {sigma_b:9.4g}  {point.sigma_w:12.9g}  {q_star:>12}{note}")
    if arguments.plot is not None:
        diagram.plot().figure.savefig(arguments.plot, dpi=150)
        print(f"Figure: {printable(str(Path(arguments.plot).resolve()), 500)}")
    return 0


def _critical(arguments: argparse.Namespace) -> int:
    point = meanfield.critical_point(
        arguments.activation, sigma_b=arguments.sigma_b, q_star=arguments.q_star
    )
    print(f"sigma_w  {point.sigma_w:.12g}   (Var(W) = {point.sigma_w**2:.12g} / fan_in)")
    print(f"sigma_b  {point.sigma_b:.12g}")
    print(f"q*       {'any' if math.isnan(point.q_star) else f'{point.q_star:.12g}'}")
    if not point.stable:
        reached = meanfield.MeanField(arguments.activation, point.sigma_w, point.sigma_b)
        print(
            f"This q* repels: a network initialised so ends elsewhere. From q = 1 it is "
            f"{reached.phase}, at q = {reached.q_star:.6g}."
        )
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    x, labels = _heldout_digits()
    reports = [_demo_report(network, x, labels) for network in _DEMO]
    comparison = compare(*reports)
    introduction = _demo_introduction(reports)

    for report in reports:
        print(report)
        print("\n".join(("", *(textwrap.fill(n, 98) for n in report.notes), "", "=" * 98, "")))
    print(comparison)
    print("\n" + "\n".join(textwrap.fill(text, 98) for text in introduction))
    for report in reports:
        print(
            f"  {report.title:16} held-out accuracy {100 * (report.accuracy or 0):5.1f} %  "
            f"{report.verdict}"
        )
    try:
        write_html(
            arguments.html,
            comparison,
            title="Three networks, one recipe: why one of them did not learn",
            introduction=introduction,
        )
    except OSError as error:
        print(f"The report could not be written: {error.strerror}", file=sys.stderr)
    else:
        print(f"\nReport: {printable(str(Path(arguments.html).resolve()), 500)}")
    return 0


def _heldout_digits() -> tuple[np.ndarray, np.ndarray]:
    file = resources.files("jacometry.data").joinpath("digits_heldout.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as digits:
        return (digits["pixels"] / 16 - digits["mean"]) / digits["std"], digits["labels"]


def _demo_report(entry: _DemoNetwork, x: np.ndarray, labels: np.ndarray) -> GradientFlowReport:
    with resources.as_file(resources.files("jacometry.data").joinpath(entry.file)) as path:
        network = Network.load(path)
    report = analyze(network, x, y=labels, rng=0)
    initial = _initial_theory(network, entry, float(np.mean(x**2)))
    middle = float(initial.chi[len(network) // 2])
    total = float(initial.log_gradient[1]) / np.log(10.0)
    note = (
        "Before training, mean-field theory already said this: with these initial weights a "
        f"layer in the middle multiplies the gradient's mean square by chi = {middle:.4f}, its "
        f"norm by {np.sqrt(middle):.3f}, and all {len(network) - 1} steps together the norm by "
        f"10^{total:.1f}."
    )
    return replace(report, title=entry.title, notes=(note,))


def _initial_theory(network: Network, entry: _DemoNetwork, q0: float) -> meanfield.Prediction:
    n = np.array(network.widths, dtype=float)
    divisor = n[:-1] if entry.fan == "in" else (n[:-1] + n[1:]) / 2
    sigma_w = entry.gain * np.sqrt(n[:-1] / divisor)
    return meanfield.predict(network.widths, entry.activation, sigma_w=sigma_w, q0=q0)


def _demo_introduction(reports: list[GradientFlowReport]) -> tuple[str, ...]:
    first, *others = reports
    n_layers = len(first.layers)
    profile = first.layers["gradient_log_norm"]
    decades = (profile[0] - profile[-1]) / np.log(10.0)
    kept = " and ".join(f"{report.title} x{np.exp(report.rate):.2f}" for report in others)
    scores = " and ".join(f"{100 * (report.accuracy or 0):.1f} %" for report in others)
    return (
        f"Three networks of one shape ({widths_in_words(first.widths)}, {n_layers} layers) were "
        "trained by one recipe to read handwritten digits. They differ in activation and initial "
        f"weights only. On {first.n_samples} images kept out of training, two reach {scores}; the "
        f"first, {first.title}, reaches {100 * (first.accuracy or 0):.1f} %, no better than "
        "guessing.",
        "The reason is in its gradient. On the way back from the output each of its layers keeps "
        f"only {np.exp(first.rate):.3f} of it (mean-field theory predicts "
        f"{np.exp(first.theory_rate):.3f}), so that 10^{decades:.1f} of it is left at the first "
        "layer: too little to learn from. In the other two a layer keeps nearly all of it "
        f"({kept}).",
        "The same factor acts on the way forward: it shrinks the differences between images "
        f"until only {first.output_spread:.1g} of the output depends on the image, so the last "
        "layers have nothing to tell one digit from another by.",
        "A word on the scores: these images were scored once before, with an earlier recipe whose "
        "94.7 % for ReLU led to the present one. They took no part in choosing it, but the scores "
        "may be slightly optimistic; the README beside the networks tells the whole story.",
    )


def _config(_arguments: argparse.Namespace) -> int:
    from . import show_config

    show_config()
    return 0


@contextlib.contextmanager
def _progress() -> Any:
    """A progress callback that writes on stderr where someone can see it, or None."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{100 * done // max(total, 1):3d} %")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r     \r")
