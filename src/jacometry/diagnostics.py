"""Gradient-flow analysis of a network: `analyze`, the report it returns, and `compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _verdict
from ._advice import advise
from ._losses import resolve
from ._measure import measure
from ._status import UnsupportedModelError
from ._validate import real_scalar
from ._verdict import Finding, Segment
from .network import Network

__all__ = ["Comparison", "Finding", "GradientFlowReport", "Segment", "analyze", "compare"]

VERDICTS = ("healthy", "vanishing", "exploding", "broken", "collapsed")


@dataclass(frozen=True, eq=False, repr=False)
class GradientFlowReport:
    """What happens to the signal, and to its gradient, on its way through one network.

    Made by `analyze`.  ``print(report)`` gives it as text.  Logs are natural; layers are counted
    from 1 at the input; ``z_l`` are the pre-activations of layer l, ``h_l = phi_l(z_l)``, ``D_l =
    diag(phi_l'(z_l))``; Loss is that of one sample.

    Attributes
    ----------
    layers : structured ndarray, (L,)
        One row per layer, with the fields

        - ``name``;
        - ``forward_variance``: mean of ``z_l**2`` over units and samples (q of mean-field theory);
        - ``gradient_log_norm``: mean over the samples of ``ln ||dLoss/dz_l||_2``.  Samples whose
          gradient is exactly zero at some layer are left out at every layer (see
          `n_zero_gradient`); -inf where all are zero;
        - ``norm_lower``, ``norm_upper``: bounds on the largest, over the samples, spectral norm of
          the layer Jacobian ``W_l D_{l-1}`` (``W_1`` for the first);
        - ``cumulative_log_norm``: the largest, over the samples, ``ln`` of the spectral norm of the
          derivative of the network's output with respect to ``z_l``;
        - ``condition``: median over the samples of the ratio of the extreme singular values of the
          layer Jacobian; inf where rank is lost, NaN where the layer is too large to decompose;
        - ``saturation``: part of the slopes below 5 % of the activation's steepest, over units and
          samples; NaN for activations that do not level off on both sides (ReLU, GELU, identity);
        - ``dead``: part of the units whose slope is exactly zero on all the given samples;
        - ``effective_rank``: exponential of the entropy of the singular values of the matrix of the
          samples' ``h_l``, each scaled to length 1 (Roy and Vetterli, The effective rank, 2007): 1
          when all signals point one way;
        - ``theory_log_gradient``: ``gradient_log_norm`` as mean-field theory predicts it for random
          weights and biases of each layer's measured size, from the measured last layer backwards;
        - ``z``: (measured - theory) / sd, relative to the last layer.  The theory is lowered by a
          quarter of the accumulated variance of ``ln ||.||**2``, because a typical log lies below
          the log of the mean; per layer that variance is ``(3 E[phi'^4] / E[phi'^2]^2 - 1) / n``
          (leading order of Hanin and Nica, Products of many large random matrices and gradients in
          deep neural networks, 2020: 5/n for ReLU, 2/n for linear);
        - ``theory_sd``: the sd in ``z``, by the law of total variance: that accumulated variance is
          the one of a single sample, the part of it that differs between the given samples is
          measured and divided by their number, and the rest (at least a fifth of the whole, as the
          law is of leading order only) differs from network to network;
        - ``spread``: root mean square distance of the samples' ``z_l`` from their mean, over their
          root mean square norm: how much of the signal still depends on the input; NaN for one
          sample;
        - ``sigma_w``: ``sqrt(fan_in mean(W_l**2))``.
    rate, rate_stderr : float
        Change of ``gradient_log_norm`` per layer towards the input (negative: it shrinks), mean
        over the layers, and the standard error of that mean; NaN for a single layer.
    theory_rate : float
        The rate that mean-field theory predicts.
    segments : tuple of Segment
        Stretches of constant rate, from the input on.
    findings : tuple of Finding
        ``(kind, layers, value, threshold, reason, severity)``.
    verdict : str
        - "vanishing": between two layers, going towards the input, the gradient's norm falls by
          `threshold_decades` powers of ten or more;
        - "exploding": it rises by as much;
        - "broken": it does both, in different parts of the network;
        - "collapsed": there is a layer where it is zero for every sample, or all hidden layers'
          gradients lie that far below the output's while they are alike among themselves, or the
          outputs have lost that much of their dependence on the input without the profile showing
          it;
        - "healthy": none of these.

        Layer norms play no part: their product is an upper bound, often off by many powers of ten.
    advice : tuple of str
        What to do, each with its reason.
    float_range : dict of str to float
        Layers after which a gradient of norm 1 under- or overflows in float16, bfloat16, float32
        and float64 at the measured rate; inf where the rate is within two standard errors of zero.
    n_samples, n_zero_gradient, n_matrix_samples : int
        Samples in all; those whose gradient is exactly zero at some layer; those, evenly spaced, at
        which norms, condition numbers and products were taken.
    input_log_norm, output_log_norm : float
        Mean log-norm of dLoss/dx and of the gradient with respect to the network's output.
    title, description, loss : str
        What was analysed, and where its cotangents came from.
    threshold_decades : float
        As given.
    widths : tuple of int
        ``n_0, ..., n_L``.
    accuracy : float or None
        Part of the samples classified rightly, where `y` held class labels.
    """

    layers: np.ndarray
    rate: float
    rate_stderr: float
    theory_rate: float
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...]
    verdict: str
    advice: tuple[str, ...]
    float_range: dict[str, float]
    n_samples: int
    n_zero_gradient: int
    n_matrix_samples: int
    input_log_norm: float
    output_log_norm: float
    input_spread: float
    output_spread: float
    title: str
    description: str
    loss: str
    threshold_decades: float
    widths: tuple[int, ...]
    activations: tuple[str, ...]
    accuracy: float | None = None
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from .report import to_text

        return to_text(self)

    def __repr__(self) -> str:
        return f"<GradientFlowReport {self.title!r}: {self.verdict}, {len(self.layers)} layers>"

    def _repr_html_(self) -> str:
        from .report import to_fragment

        return to_fragment(self)

    def plot(self, ax: Any = None) -> Any:
        """Draw the gradient's norm per layer, measured and predicted.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            Without the ``plot`` extra.
        """
        from .plots import gradient_profile

        return gradient_profile([self], ax=ax)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one self-contained HTML file.

        Parameters
        ----------
        path : str or path-like
            Overwritten if it exists.

        Notes
        -----
        Without the ``plot`` extra the file has every table but no figures, and says how to get
        them.
        """
        from .report import write_html

        write_html(path, self)

    def to_json(self) -> str:
        """The report as strict JSON: NaN as null, infinities as "Infinity" and "-Infinity".

        Returns
        -------
        str
        """
        from .report import to_json

        return to_json(self)

    def to_dataframe(self) -> Any:
        """`layers` as a data frame, indexed by layer number.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Without the ``frames`` extra.
        """
        from .report import to_dataframe

        return to_dataframe(self)

    def scalars(self) -> dict[str, float]:
        """The figures worth logging at every step of a training run.

        Returns
        -------
        dict of str to float
            Flat: "rate", "gradient_log_norm/1", ...
        """
        values = {
            "rate": self.rate,
            "theory_rate": self.theory_rate,
            "output_spread": self.output_spread,
            "n_problems": float(sum(f.severity == "problem" for f in self.findings)),
        }
        for name in ("gradient_log_norm", "forward_variance", "saturation", "dead"):
            column = self.layers[name]
            values |= {f"{name}/{k}": float(v) for k, v in enumerate(column, start=1)}
        return values


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several reports side by side; made by `compare`.

    Attributes
    ----------
    reports : tuple of GradientFlowReport
    table : structured ndarray
        One row per report: title, verdict, depth, rate, rate_stderr, theory_rate, decades (change
        of the gradient's norm from the last layer to the first, as a power of ten), output_spread,
        accuracy.
    """

    reports: tuple[GradientFlowReport, ...]
    table: np.ndarray

    def __str__(self) -> str:
        from .report import comparison_text

        return comparison_text(self)

    def _repr_html_(self) -> str:
        from .report import to_fragment

        return to_fragment(self)

    def plot(self, ax: Any = None) -> Any:
        """Draw all gradient profiles in one figure.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from .plots import gradient_profile

        return gradient_profile(list(self.reports), ax=ax)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison, then each report, as one self-contained HTML file.

        Parameters
        ----------
        path : str or path-like
            Overwritten if it exists.
        """
        from .report import write_html

        write_html(path, self)


def analyze(
    model: Any,
    x: npt.ArrayLike,
    *,
    y: Any = None,
    loss: str | Callable[..., Any] | None = None,
    rng: np.random.Generator | int | None = None,
    progress: Callable[[int, int], Any] | None = None,
    threshold_decades: float = 3.0,
) -> GradientFlowReport:
    """Measure the flow of signal and gradient through a network, and say what it means.

    Parameters
    ----------
    model : Network, torch module, fitted scikit-learn MLP, path, or sequence of matrices
        A path is read by `Network.load`; matrices ``W_1, ..., W_L`` make a linear network.
    x : array_like, (B, n_0) or (n_0,)
        Inputs, the kind that the network is used on.
    y : array_like, optional
        Class labels (integers, or the classes that a scikit-learn model was fitted on), or real
        targets of the outputs' shape.  Without it the cotangents at the output are standard
        Gaussian.
    loss : {"cross_entropy", "mse"} or callable, optional
        Whose gradient is taken, per sample; default "cross_entropy" for integer labels, else "mse"
        (half the sum of squares).  A callable takes outputs (B, n_L) and `y` (a chunk of both) and
        returns dLoss/d outputs, (B, n_L).
    rng : numpy.random.Generator, int or None, optional
        SPEC 7: for cotangents and the start vectors of norms.
    progress : callable, optional
        Called now and then as ``progress(done, total)``.
    threshold_decades : float, optional
        Powers of ten by which the gradient's norm must change for a verdict.

    Returns
    -------
    GradientFlowReport

    Raises
    ------
    ValueError, TypeError
        Naming the argument: wrong shapes, an empty batch, NaN or infinity, labels out of range.
    UnsupportedModelError
        Naming the part of the model that is not understood.
    ModelFileError, OSError
        For a path.

    Notes
    -----
    Computed in float64 whatever the dtype of the weights, so that slopes which are zero in float32
    only are seen.  Norms are kept as logs and products with their own exponents: no depth and no
    scale over- or underflows.  Cost: a forward and a backward pass over all samples; norms,
    condition numbers and the product of the layers at up to 16 of them.  Memory: see
    `_measure.measure`.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.network import Network
    >>> net = Network.random([20] * 31, "sigmoid", "glorot_normal", rng=0)
    >>> report = analyze(net, np.random.default_rng(1).standard_normal((8, 20)), rng=2)
    >>> report.verdict
    'vanishing'
    """
    threshold = real_scalar("threshold_decades", threshold_decades, low=0.0, open_low=True)
    network, title = _as_network(model)
    inputs = network.checked_input(x)
    if inputs.ndim == 1:
        inputs = inputs[None]
    if not len(inputs):
        raise ValueError("x must hold at least one sample, got an empty batch")
    if y is not None and len(inputs) == 1 and np.ndim(x) == 1 and np.ndim(y) == 0:
        y = [y]
    inputs = inputs.astype(np.float64)
    rng = np.random.default_rng(rng)
    chosen = resolve(network, len(inputs), y, loss, rng)
    measured = measure(network, inputs, chosen, rng, progress)

    verdict, findings = _verdict.judge(measured, threshold)
    depths = _verdict.float_range(measured.rate, measured.rate_stderr)
    findings += _verdict.find(network, measured, verdict, depths)
    advice = advise(network, measured, verdict, findings)
    profile = measured.layers["gradient_log_norm"]
    return GradientFlowReport(
        layers=measured.layers,
        rate=measured.rate,
        rate_stderr=measured.rate_stderr,
        theory_rate=measured.theory_rate,
        segments=tuple(_verdict.segments(profile, threshold)),
        findings=tuple(findings),
        verdict=verdict,
        advice=tuple(advice),
        float_range=depths,
        n_samples=measured.n_samples,
        n_zero_gradient=measured.n_zero_gradient,
        n_matrix_samples=measured.n_matrix_samples,
        input_log_norm=measured.input_log_norm,
        output_log_norm=measured.output_log_norm,
        input_spread=measured.input_spread,
        output_spread=measured.output_spread,
        title=title,
        description=network.description,
        loss=chosen.name,
        threshold_decades=threshold,
        widths=network.widths,
        activations=tuple(layer.activation.name for layer in network.layers),
        accuracy=measured.accuracy,
    )


def compare(*reports: GradientFlowReport) -> Comparison:
    """Put reports side by side.

    Parameters
    ----------
    *reports : GradientFlowReport
        At least one.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        For anything else than reports, or none.
    """
    if not reports:
        raise ValueError("reports must hold at least one report, got none")
    for k, report in enumerate(reports):
        if not isinstance(report, GradientFlowReport):
            raise TypeError(
                f"reports[{k}] must be a GradientFlowReport, got {type(report).__name__}"
            )
    rows = []
    for report in reports:
        profile = report.layers["gradient_log_norm"]
        with np.errstate(invalid="ignore"):
            decades = float(profile[0] - profile[-1]) / np.log(10.0)
        accuracy = np.nan if report.accuracy is None else report.accuracy
        rows.append(
            (
                report.title, report.verdict, len(profile), report.rate, report.rate_stderr,
                report.theory_rate, decades, report.output_spread, accuracy,
            )
        )  # fmt: skip
    names = ("rate", "rate_stderr", "theory_rate", "decades", "output_spread", "accuracy")
    head = [("title", "U64"), ("verdict", "U16"), ("depth", np.int64)]
    table = np.array(rows, dtype=[*head, *((name, np.float64) for name in names)])
    return Comparison(reports, table)


def _as_network(model: Any) -> tuple[Network, str]:
    """The network that `model` stands for, and what to call it."""
    if isinstance(model, Network):
        return model, repr(model)[1:-1]
    if isinstance(model, (str, os.PathLike)):
        from ._npz import printable

        return Network.load(model), printable(os.path.basename(os.fspath(model)), 64)
    home = type(model).__module__.partition(".")[0]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        return Network.from_torch(model), f"PyTorch {type(model).__name__}"
    if home == "sklearn":
        return Network.from_sklearn(model), f"scikit-learn {type(model).__name__}"
    if isinstance(model, Sequence):
        return Network.from_arrays(model), f"linear network of {len(model)} layers"
    raise UnsupportedModelError(
        "model must be a Network, a torch module, a fitted scikit-learn MLP, a path or a "
        f"sequence of matrices, got {type(model).__name__}"
    )
