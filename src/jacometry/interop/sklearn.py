"""Networks from scikit-learn's multilayer perceptrons (the ``sklearn`` extra)."""

from __future__ import annotations

from typing import Any

from .._status import UnsupportedModelError
from ..network import Network

__all__ = ["to_network"]

# The function that a classifier puts on its outputs belongs to its loss: the network ends in
# logits.
_OUTPUTS = ("identity", "softmax", "logistic")


def to_network(mlp: Any) -> Network:
    """The `Network` of a fitted ``MLPClassifier`` or ``MLPRegressor``.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        Fitted.

    Returns
    -------
    Network
        Its outputs are the logits of a classifier; its `classes` are the estimator's.

    Raises
    ------
    ImportError
        Without scikit-learn.
    UnsupportedModelError
        For another estimator or an activation that is not understood, naming it.
    ValueError
        If `mlp` is not fitted.
    """
    try:
        from sklearn.neural_network import MLPClassifier, MLPRegressor
    except ImportError as error:
        raise ImportError(
            "scikit-learn is needed to read its models: pip install 'jacometry[sklearn]'"
        ) from error
    if not isinstance(mlp, (MLPClassifier, MLPRegressor)):
        raise UnsupportedModelError(
            f"mlp must be an MLPClassifier or MLPRegressor, got {type(mlp).__name__}"
        )
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"mlp must be fitted, got an unfitted {type(mlp).__name__}")
    if mlp.out_activation_ not in _OUTPUTS:
        raise UnsupportedModelError(
            f"mlp has the output activation {mlp.out_activation_!r}; known are "
            f"{', '.join(_OUTPUTS)}"
        )
    network = Network.from_arrays(
        [weights.T for weights in mlp.coefs_],
        list(mlp.intercepts_),
        mlp.activation,
        description=f"scikit-learn {type(mlp).__name__}",
    )
    return Network(
        network.layers,
        description=network.description,
        classes=getattr(mlp, "classes_", None),
    )
