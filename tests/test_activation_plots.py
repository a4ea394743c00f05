"""The figure of activations draws their values, slopes and curvatures."""

import numpy as np
import pytest

from jacometry import activations, plots

pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs the plot extra")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_curves_are_those_of_the_activations(derivative):
    names = ["tanh", "relu", "selu", "hard_swish", "gelu", "mish"]
    _, axes = pyplot.subplots()
    assert plots.activation_curves(names, derivative=derivative, ax=axes) is axes
    assert [line.get_label() for line in axes.get_lines()] == names
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    assert axes.get_ylabel() == ("value", "slope", "curvature")[derivative]
    for line, phi in zip(axes.get_lines(), map(activations.get, names), strict=True):
        x, y = line.get_data()
        is_drawn = ~np.isnan(y)
        function = (phi.value, phi.slope, phi.curvature)[derivative]
        np.testing.assert_array_equal(y[is_drawn], function(x[is_drawn]))
        assert x[~is_drawn].tolist() == (list(phi.kinks) if derivative else [])
        assert (np.diff(x) > 0).all()
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(styles) == len(names)


def test_without_axes_it_makes_a_figure():
    axes = plots.activation_curves(["sin", np.arctan], x_range=(0, 1))
    assert axes.get_xlim() == (0.0, 1.0)
    assert [line.get_label() for line in axes.get_lines()] == ["sin", "arctan"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"derivative": 3}, ValueError, "derivative must be 0, 1 or 2, got 3"),
        ({"x_range": (1, 1)}, ValueError, r"x_range must be two finite numbers, ascending, got"),
        ({"activations": "relu"}, TypeError, "activations must be a sequence of activations"),
        ({"activations": ["swash"]}, ValueError, "activation must be one of .* got 'swash'"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        plots.activation_curves(**({"activations": ["relu"]} | options))
    assert not pyplot.get_fignums()
