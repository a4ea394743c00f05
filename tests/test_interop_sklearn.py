"""scikit-learn's multilayer perceptrons become networks with the same outputs."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the sklearn extra")

from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from jacometry import UnsupportedModelError
from jacometry.diagnostics import analyze
from jacometry.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:.*Maximum iterations")


@pytest.fixture
def samples(rng):
    return rng.standard_normal((40, 5))


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_a_regressor_gives_the_same_values(activation, samples):
    target = samples[:, 0] ** 2
    mlp = MLPRegressor(
        hidden_layer_sizes=(6, 4), activation=activation, max_iter=5, random_state=0
    ).fit(samples, target)
    net = Network.from_sklearn(mlp)
    np.testing.assert_allclose(net.forward(samples)[:, 0], mlp.predict(samples), rtol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_gives_its_logits(n_classes, samples):
    names = np.array(["ant", "bee", "cow"])[np.arange(40) % n_classes]
    mlp = MLPClassifier(hidden_layer_sizes=(6,), max_iter=5, random_state=0).fit(samples, names)
    logits = Network.from_sklearn(mlp).forward(samples)
    probabilities = mlp.predict_proba(samples)
    if n_classes == 2:
        np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), probabilities[:, 1], rtol=1e-12)
    else:
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(softmax, probabilities, rtol=1e-12)
    report = analyze(mlp, samples, y=names, rng=0)
    assert report.loss == "cross_entropy"
    assert report.accuracy == pytest.approx(mlp.score(samples, names))
    with pytest.raises(ValueError, match="y must hold classes"):
        analyze(mlp, samples, y=np.array(["dog"] * 40))


def test_other_estimators_are_named(samples):
    with pytest.raises(UnsupportedModelError, match="LinearRegression"):
        Network.from_sklearn(LinearRegression())
    with pytest.raises(UnsupportedModelError, match="LinearRegression"):
        analyze(LinearRegression(), samples)
    with pytest.raises(ValueError, match="fitted"):
        Network.from_sklearn(MLPRegressor())
