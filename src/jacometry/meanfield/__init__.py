"""Mean-field theory of wide random networks: what the signal and the gradient do on average.

Weights have ``Var(W_ij) = sigma_w**2 / fan_in``, biases ``Var(b) = sigma_b**2``, and widths are
taken to infinity (Poole et al., Exponential expressivity in deep neural networks through transient
chaos, 2016; Schoenholz et al., Deep information propagation, 2017).
"""

from ._batch_norm import batchnorm_gradient_rate
from ._critical import CriticalPoint, critical_point, gain
from ._field import MeanField, Trajectory
from ._finite_width import LogNormLaw, log_norm_law
from ._phase_diagram import PhaseDiagram, phase_diagram
from ._predict import Prediction, predict
from ._simulation import LogNorms, Simulation, simulate
from ._spectrum_law import JacobianSpectrumLaw, jacobian_spectrum_law

__all__ = [
    "CriticalPoint",
    "JacobianSpectrumLaw",
    "LogNormLaw",
    "LogNorms",
    "MeanField",
    "PhaseDiagram",
    "Prediction",
    "Simulation",
    "Trajectory",
    "batchnorm_gradient_rate",
    "critical_point",
    "gain",
    "jacobian_spectrum_law",
    "log_norm_law",
    "phase_diagram",
    "predict",
    "simulate",
]
