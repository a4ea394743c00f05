"""The summary table of activations is computed, and its numbers are the published ones."""

import math

import numpy as np
import pytest

from jacometry import activations
from jacometry.activations import Activation, activation_table

# What gaussian_moments states for activations without a closed form.
STATED = 1e-13
# E phi**2 and E phi'**2 at q = 1: mpmath at more than 22 digits, the same as the published ones.
MOMENTS = {
    "tanh": (0.3942944903978412, 0.4644029024482682),
    "sigmoid": (0.293379035858093, 0.04483624135019437),
    "erf": (0.46455905439754, 0.5694100347337416),
    "gelu": (0.4252214825702987, 0.4558508656492871),
    "selu": (1.0, 1.071574992455799),
    "relu": (0.5, 0.5),
    "abs": (1.0, 1.0),
    "quadratic": (3.0, 4.0),
    # E sin**2 = (1 - E cos 2 z) / 2; E min(z**2, 1) = 1 - 2 density(1) and P(|z| < 1).
    "sin": ((1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
    "hard_tanh": (1 - (2 / math.pi / math.e) ** 0.5, math.erf(0.5**0.5)),
}


@pytest.fixture(scope="module")
def table():
    return activation_table()


def test_every_activation_has_one_row(table):
    names = [activations.get(name).name for name in activations.names()]
    assert table["name"].tolist() == list(dict.fromkeys(names))


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_are_the_published_numbers(table, name):
    (row,) = table[table["name"] == name]
    mean_square, kappa = MOMENTS[name]
    assert row["mean_square"] == pytest.approx(mean_square, rel=STATED)
    assert row["kappa"] == pytest.approx(kappa, rel=STATED)
    assert row["gain"] == pytest.approx(kappa**-0.5, rel=STATED)
    assert row["forward_gain"] == pytest.approx(mean_square**-0.5, rel=STATED)


def test_slopes_are_those_of_the_activations(table):
    for row in table:
        activation = activations.get(str(row["name"]))
        assert (row["slope_min"], row["slope_max"]) == activation.slope_range
        assert row["lipschitz"] == activation.lipschitz
        # The mean of a square lies between 0 and the square of the largest size.
        assert 0 < row["kappa"] <= row["lipschitz"] ** 2 * (1 + STATED)


def test_what_levels_off_and_what_has_kinks(table):
    saturating = {"sigmoid", "tanh", "hard_tanh", "hard_sigmoid", "softsign", "erf", "relu6"}
    assert set(table["name"][table["levels_off"]].tolist()) == saturating
    kinked = {"relu", "leaky_relu", "prelu", "selu", "abs"}
    kinked |= {"hard_tanh", "hard_sigmoid", "hard_swish", "relu6"}
    assert set(table["name"][table["kinked"]].tolist()) == kinked


def test_the_table_takes_other_activations_and_variances():
    step = Activation(np.zeros_like, np.zeros_like, name="nothing")
    found = activation_table(["relu", activations.elu(0.5), np.arctan, step], q=4.0)
    assert found["name"].tolist() == ["relu", "elu", "arctan", "nothing"]
    assert found["mean_square"][0] == pytest.approx(2.0, rel=1e-15)
    assert found["forward_gain"][0] == pytest.approx(2**0.5, rel=1e-15)
    assert found["gain"][3] == np.inf


@pytest.mark.parametrize("q", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_that_is_none_is_named(q):
    with pytest.raises(ValueError, match="q must be finite and > 0, got"):
        activation_table(q=q)


@pytest.mark.parametrize("wrong", ["relu", 3])
def test_activations_must_be_a_sequence(wrong):
    with pytest.raises(TypeError, match="activations must be a sequence of activations, got"):
        activation_table(wrong)
