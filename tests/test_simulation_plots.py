"""The figure of an ensemble shows the numbers of the ensemble."""

import math

import numpy as np
import pytest

from jacometry import plots
from jacometry.meanfield import predict, simulate

pytest.importorskip("matplotlib").use("Agg")

WIDTHS = [8, 12, 12, 4]


@pytest.fixture(scope="module")
def ensemble():
    return simulate(WIDTHS, "tanh", initializer="gaussian", n_nets=40, rng=0)


@pytest.mark.parametrize("quantity", ["forward", "gradient"])
def test_the_lines_are_the_ensemble_and_the_theory(ensemble, quantity):
    theory = predict(WIDTHS, "tanh", sigma_w=1.0)
    ax = plots.ensemble_trajectory(ensemble, theory, quantity=quantity)
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    logs = getattr(ensemble, quantity).log_norms
    entry = np.log(WIDTHS) / 2 if quantity == "forward" else 0.0
    mean = np.log(np.mean(np.exp(2 * logs), axis=0)) / 2 - entry
    np.testing.assert_allclose(lines["root mean square over nets"], mean / math.log(10), atol=1e-12)
    expected = np.log(theory.q) / 2 if quantity == "forward" else theory.log_gradient
    np.testing.assert_allclose(lines["mean-field theory"], expected / math.log(10))
    ordered = np.sort(logs, axis=0)
    np.testing.assert_allclose(lines["median net"], (ordered[19] - entry) / math.log(10))


def test_it_draws_where_it_is_told_and_without_theory(ensemble):
    ax = plots.new_axes()
    assert plots.ensemble_trajectory(ensemble, ax=ax) is ax
    assert len(ax.get_lines()) == 2


def test_rejections_name_the_argument(ensemble):
    with pytest.raises(ValueError, match="quantity"):
        plots.ensemble_trajectory(ensemble, quantity="both")
    with pytest.raises(ValueError, match="prediction must be for the 4 interfaces"):
        plots.ensemble_trajectory(ensemble, predict([3, 3], "tanh", sigma_w=1.0))
