"""What to do about a verdict, each piece of advice with its reason."""

from __future__ import annotations

import math

import numpy as np

from ._measure import Measurement
from ._status import NoEdgeOfChaosError
from ._verdict import Finding, figure
from .meanfield import critical_point, gain
from .network import Network, is_built_in

__all__ = ["advise"]

_SATURATING = ("sigmoid", "tanh", "erf", "softsign", "hard_tanh", "hard_sigmoid")
_DEEP = 10  # layers from which residual connections or normalisation are worth their cost


def advise(
    network: Network, measured: Measurement, verdict: str, findings: list[Finding]
) -> list[str]:
    """What to do, each with its reason from the figures.

    Parameters
    ----------
    network : Network
        The model.
    measured : Measurement
        The figures.
    verdict : str
        Of `judge`.
    findings : list of Finding
        Of `judge` and `find`.

    Returns
    -------
    list of str
        An instruction, then its reason, as sentences.
    """
    kinds = {finding.kind for finding in findings}
    advice: list[str] = []
    sick = verdict != "healthy"
    hidden = [layer.activation for layer in network.layers[:-1]]
    if "unscaled_input" in kinds:
        advice.append(
            "Standardise the input features to mean 0 and variance 1. "
            + next(f.reason for f in findings if f.kind == "unscaled_input")
        )
    if sick and hidden:
        advice += _initialisation_advice(network, measured)
    saturates = any(is_built_in(phi, _SATURATING) for phi in hidden)
    if saturates and verdict in ("vanishing", "collapsed", "broken"):
        advice.append(
            "Use ReLU, or a relative of it, in the hidden layers, with He initialisation. Its "
            "slope is 1 wherever a unit is active, and with sigma_w = 1.414 the gradient's mean "
            "square is kept at every depth."
        )
    if "dead_units" in kinds:
        advice.append(
            "Lower the learning rate, or use leaky ReLU. "
            + next(f.reason for f in findings if f.kind == "dead_units")
            + " A unit that is dead on all data gets no gradient at any learning rate."
        )
    if sick and len(network) >= _DEEP:
        factor = (
            f"{figure(math.exp(measured.rate))} per layer"
            if math.isfinite(measured.rate)
            else "zero"
        )
        advice.append(
            f"Add residual connections, or normalisation, for a depth of {len(network)} layers. "
            f"The gradient's factor is {factor}; beside a shortcut it need not pass through every "
            "layer."
        )
    if verdict in ("exploding", "broken"):
        advice.append(
            "Clip the gradient's norm while training. It keeps one step finite; the cause "
            "remains in the weights' scale."
        )
    if sick:
        advice.append(
            "Measure again after a few hundred training steps, and stop or lower the learning "
            "rate when the profile bends. Initialisation is only the first step: training moves "
            "every figure here."
        )
    else:
        advice.append(
            "Nothing needs to change. Keep measuring during training: initialisation is only the "
            "first step, and the spectra drift."
        )
    return advice


def _initialisation_advice(network: Network, measured: Measurement) -> list[str]:
    """The weight scale that the most common hidden activation asks for."""
    hidden = [layer.activation for layer in network.layers[:-1]]
    names = [phi.name for phi in hidden]
    phi = hidden[names.index(max(set(names), key=names.count))]
    actual = float(np.median(measured.layers["sigma_w"][1:]))
    try:
        point = critical_point(phi, sigma_b=0.0)
        target = point.sigma_w if point.stable else float(gain(phi))
    except NoEdgeOfChaosError:
        target = float(gain(phi))
    if is_built_in(phi, ("sigmoid",)):
        # E[phi'^2] is at most 1/16; the fixed point of the variance map raises it further.
        return [
            "Do not use sigmoid in hidden layers of a deep network. Its slope is at most 1/4: to "
            "keep the gradient's mean square it would need weights of sigma_w = sqrt(fan_in Var "
            f"W) = {target:.5g} (zero biases); these have {figure(actual)}. tanh does the same job "
            "with sigma_w near 1."
        ]
    if abs(math.log(actual / target)) < math.log(1.2) if actual > 0 else False:
        return []
    return [
        f"Initialise for {phi.name}: weights with sigma_w = sqrt(fan_in Var W) = "
        f"{figure(target)}. That keeps the gradient's mean square from layer to layer; these "
        f"have {figure(actual)}."
    ]
