"""Normalisation layers as factors: their Jacobians where they stand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._base import Diagonal, Factor, exponent_of, float_dtype, ldexp, real_array, real_number


def _gain_of(gain: Any, n: int, dtype: np.dtype) -> np.ndarray:
    """`gain` as (n,), ones where there is none."""
    if gain is None:
        return np.ones(n, dtype)
    gain = real_array("gain", gain)
    if gain.shape != (n,):
        raise ValueError(f"gain must have shape ({n},), got {gain.shape}")
    return gain


def _standardised(x: np.ndarray, axis: Any, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """(x - mean) / s and 1 / s over `axis`, kept, with s = sqrt(var + eps), in float64.

    x is scaled by a power of two first, so that no square over- or underflows.
    """
    x = x.astype(np.float64)
    largest = np.max(np.abs(x), axis=axis, keepdims=True, initial=0.0)
    if not np.isfinite(largest).all():
        raise ValueError("x must be finite")
    exponent = np.frexp(largest)[1]
    x = np.ldexp(x, -exponent)
    centred = x - x.mean(axis=axis, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=axis, keepdims=True))
    deviation = np.hypot(deviation, np.ldexp(math.sqrt(eps), -exponent))
    if not deviation.all():
        raise ValueError("x must vary where eps is 0: a constant cannot be normalised")
    with np.errstate(over="ignore"):
        return centred / deviation, np.ldexp(1 / deviation, -exponent)


class LayerNorm(Factor):
    """The Jacobian of layer normalisation at given inputs.

    ``y = gain (x - mean(x)) / s``, ``s = sqrt(var(x) + eps)``, over each sample's features, has
    ``J = diag(gain / s) (I - 1 1^T / n - xh xh^T / n)`` with ``xh = (x - mean) / s``.

    Parameters
    ----------
    x : array_like, shape (n,) or (B, n)
        Where the Jacobian is taken: the layer's inputs.
    gain : array_like of shape (n,), optional
        The multiplier of each feature; ones if left out.
    eps : float
        Added to the variance.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import LayerNorm
    >>> norm = LayerNorm([1.0, 2.0, 4.0], eps=0.0)
    >>> bool(np.allclose(norm.jvp(np.ones(3)), 0))  # blind to a shift
    True
    """

    def __init__(self, x: Any, gain: Any = None, *, eps: float = 1e-5) -> None:
        x = real_array("x", x)
        if x.ndim not in (1, 2) or x.shape[-1] == 0:
            raise ValueError(f"x must have shape (n,) or (B, n), n at least 1, got {x.shape}")
        n = x.shape[-1]
        dtype = float_dtype(x.dtype)
        gain = _gain_of(gain, n, dtype)
        self.shape = (n, n)
        self.n_samples = None if x.ndim == 1 else x.shape[0]
        self.dtype = float_dtype(dtype, gain.dtype)
        normal, inverse = _standardised(x, -1, real_number("eps", eps, 0.0))
        self.x_hat = real_array("x", normal.astype(self.dtype))
        self.slopes = real_array("gain", (gain * inverse).astype(self.dtype))

    def _project(self, v: np.ndarray) -> np.ndarray:
        x_hat = self.x_hat
        if self.n_samples is not None and v.ndim == 3:
            x_hat = x_hat[:, None]
        along = (x_hat * v).mean(axis=-1, keepdims=True)
        return v - v.mean(axis=-1, keepdims=True) - x_hat * along

    def _scale(self, v: np.ndarray) -> np.ndarray:
        return Diagonal(self.slopes).jvp(v)

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The Jacobian applied to tangents of shape (..., n)."""
        return self._scale(self._project(np.asarray(tangent)))

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """Its transpose applied to cotangents of shape (..., n)."""
        return self._project(self._scale(np.asarray(cotangent)))

    def scaled(self) -> tuple[Factor, int]:
        """See `Factor`."""
        return _with_slopes(self)


class BatchNorm(Factor):
    """The Jacobian of batch normalisation.

    At inference the running variance makes it diagonal: ``gain / sqrt(variance + eps)``.  While
    training the statistics are the batch's own, and for every feature
    ``J = (gain / s) (I - 1 1^T / N - xh xh^T / N)`` acts on the feature's N entries **across the
    batch** (and the positions, where there are any), with ``xh = (x - mean) / s``.  A sample's
    output then depends on every sample: `couples_samples` is True, tangents are ``(B, n)`` or
    ``(B, m, n)``, and there is no Jacobian per sample.

    Parameters
    ----------
    x : array_like, shape (B, n) or (B, n, *positions), optional
        Training: the batch at which the Jacobian is taken, features on axis 1.
    gain : array_like of shape (n,), optional
        The multiplier of each feature; ones if left out.
    variance : array_like of shape (n,), optional
        Inference: the running variance.  Give this or `x`.
    eps : float
        Added to the variance.
    input_shape : sequence of int
        Inference after a convolution: the spatial sizes.  Training takes them from `x`.

    Attributes
    ----------
    shape : tuple of int
        (n * prod(positions),) twice; vectors are flattened feature by feature.
    slopes : ndarray
        ``gain / s`` of every entry.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import BatchNorm
    >>> BatchNorm(variance=[4.0, 9.0], eps=0.0).jvp(np.ones(2)).round(3)
    array([0.5  , 0.333])
    >>> x = np.array([[1.0], [2.0], [4.0]])
    >>> bool(np.allclose(BatchNorm(x, eps=0.0).jvp(np.ones((3, 1))), 0))
    True
    """

    def __init__(
        self,
        x: Any = None,
        gain: Any = None,
        *,
        variance: Any = None,
        eps: float = 1e-5,
        input_shape: Any = (),
    ) -> None:
        if (x is None) == (variance is None):
            raise ValueError("give x (the batch, for training) or variance (for inference)")
        eps = real_number("eps", eps, 0.0)
        if x is None:
            self._init_inference(real_array("variance", variance), gain, eps, input_shape)
            return
        if tuple(np.atleast_1d(input_shape)):
            raise ValueError("input_shape must be left out where x is given, which holds it")
        x = real_array("x", x)
        if x.ndim < 2 or 0 in x.shape:
            raise ValueError(
                f"x must have shape (B, n) or (B, n, *positions), none of them 0, got {x.shape}"
            )
        n_samples, n_features, *positions = x.shape
        n_positions = math.prod(positions)
        gain = _gain_of(gain, n_features, float_dtype(x.dtype))
        self.dtype = float_dtype(x.dtype, gain.dtype)
        self.n_samples, self.couples_samples = n_samples, True
        self.shape = (n_features * n_positions,) * 2
        normal, inverse = _standardised(x.reshape(n_samples, n_features, -1), (0, 2), eps)
        self.x_hat = real_array("x", normal.astype(self.dtype))  # (B, n, positions)
        slopes = (gain * inverse.reshape(n_features)).astype(self.dtype)
        self.slopes = real_array("gain", np.repeat(slopes, n_positions))

    def _init_inference(self, variance: Any, gain: Any, eps: float, input_shape: Any) -> None:
        if variance.ndim != 1 or not (variance >= 0).all():
            raise ValueError(f"variance must have shape (n,) and no negative entry, got {variance}")
        n_features = len(variance)
        n_positions = math.prod(int(n) for n in np.atleast_1d(input_shape))
        gain = _gain_of(gain, n_features, float_dtype(variance.dtype))
        self.dtype = float_dtype(variance.dtype, gain.dtype)
        deviation = np.hypot(np.sqrt(variance.astype(np.float64)), math.sqrt(eps))
        if not deviation.all():
            raise ValueError("variance must be positive where eps is 0")
        self.shape = (n_features * n_positions,) * 2
        slopes = (gain / deviation).astype(self.dtype)
        self.slopes = real_array("gain", np.repeat(slopes, n_positions))

    def _project(self, v: np.ndarray) -> np.ndarray:
        """``I - 1 1^T / N - xh xh^T / N`` for each feature, N entries over batch and positions."""
        if not self.couples_samples:
            return v
        if v.ndim not in (2, 3) or v.shape[0] != self.n_samples:
            raise ValueError(
                f"batch normalisation while training takes ({self.n_samples}, n) or "
                f"({self.n_samples}, m, n), the whole batch at once, got shape {v.shape}"
            )
        m = 1 if v.ndim == 2 else v.shape[1]
        blocks = v.reshape(len(self.x_hat), m, *self.x_hat.shape[1:])
        x_hat = self.x_hat[:, None]
        along = (x_hat * blocks).mean(axis=(0, 3), keepdims=True)
        mean = blocks.mean(axis=(0, 3), keepdims=True)
        return (blocks - mean - x_hat * along).reshape(v.shape)

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The Jacobian applied to tangents of shape (..., n), the whole batch in training."""
        return self.slopes * self._project(np.asarray(tangent))

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """Its transpose, which is the same: a feature has one slope."""
        return self.jvp(cotangent)

    @property
    def T(self) -> BatchNorm:
        """The factor itself, which is symmetric."""
        return self

    def scaled(self) -> tuple[Factor, int]:
        """See `Factor`."""
        return _with_slopes(self)

    def __repr__(self) -> str:
        mode = f"training, n_samples={self.n_samples}" if self.couples_samples else "inference"
        return f"BatchNorm(shape={self.shape}, {mode})"


def _with_slopes(factor: Any) -> tuple[Factor, int]:
    """A copy of a normalisation whose slopes are over 2**e, and e."""
    exponent = exponent_of(factor.slopes)
    copy = object.__new__(type(factor))
    copy.__dict__.update(factor.__dict__, slopes=ldexp(factor.slopes, -exponent))
    return copy, exponent
