"""Matrices and kernels with a structure: orthogonal, identity, zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._arguments import Rng, checked

__all__ = ["delta_orthogonal", "identity", "orthogonal", "zeros"]


def orthogonal(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """A matrix whose singular values all equal `gain`, uniform (Haar) among those.

    Parameters
    ----------
    shape : sequence of int
        ``(fan_out, fan_in, *kernel)``; with a kernel, the matrix ``(fan_out, fan_in * kernel
        size)``.
    rng, dtype
        As for `glorot_normal`.
    fan : {"in", "out", "avg"}, optional
        Accepted so that initializers can be exchanged; it changes nothing.
    gain : float, optional
        The common singular value.

    Returns
    -------
    ndarray
        Of `shape`.

    References
    ----------
    Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning, 2014;
    Mezzadri, How to generate random matrices from the classical compact groups, 2007 (the signs).
    """
    sizes, kind, gain, _ = checked(shape, dtype, fan, gain)
    return (
        (gain * _haar(sizes[0], math.prod(sizes[1:]), rng)).reshape(sizes).astype(kind, order="C")
    )


def delta_orthogonal(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """A convolution kernel that multiplies every norm by `gain`: Haar at its centre, else zero.

    Parameters
    ----------
    shape : sequence of int
        ``(fan_out, fan_in, *kernel)`` with ``fan_out >= fan_in``.
    rng, dtype
        As for `glorot_normal`.
    fan : {"in", "out", "avg"}, optional
        Accepted so that initializers can be exchanged; it changes nothing.
    gain : float, optional
        The common singular value of the convolution with stride 1 and padding "same".

    Returns
    -------
    ndarray
        Of `shape`.

    Raises
    ------
    ValueError, TypeError
        As for `glorot_normal`; if ``fan_out < fan_in``, where no such kernel keeps every norm.

    Notes
    -----
    The centre of a kernel of even size is the entry that padding "same" puts over the output: index
    ``(size - 1) // 2``.

    References
    ----------
    Xiao et al., Dynamical isometry and a mean field theory of CNNs, 2018, algorithm 1.

    Examples
    --------
    >>> kernel = delta_orthogonal((4, 2, 3, 3), rng=0)
    >>> bool(np.allclose(kernel[:, :, 1, 1].T @ kernel[:, :, 1, 1], np.eye(2)))
    True
    """
    sizes, kind, gain, _ = checked(shape, dtype, fan, gain)
    if sizes[0] < sizes[1]:
        raise ValueError(f"shape must have fan_out >= fan_in, got {shape!r}")
    kernel = np.zeros(sizes, kind)
    kernel[_centre(sizes)] = gain * _haar(sizes[0], sizes[1], rng)
    return kernel


def identity(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """`gain` times the identity, for recurrent weights; with a kernel, at its centre.

    Parameters
    ----------
    shape : sequence of int
        ``(fan_out, fan_in, *kernel)``; where the fans differ, the rest is zero.
    rng, dtype, fan
        As for `glorot_normal`; only `dtype` matters.
    gain : float, optional
        The entries on the diagonal.

    Returns
    -------
    ndarray
        Of `shape`.

    Notes
    -----
    The centre of a kernel is that of `delta_orthogonal`.

    References
    ----------
    Le, Jaitly and Hinton, A simple way to initialize recurrent networks of rectified linear units,
    2015.

    Examples
    --------
    >>> identity((2, 3))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    sizes, kind, gain, _ = checked(shape, dtype, fan, gain)
    kernel = np.zeros(sizes, kind)
    kernel[_centre(sizes)] = gain * np.eye(sizes[0], sizes[1])
    return kernel


def zeros(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float64,
    fan: str = "in",
    gain: float = 1.0,
) -> np.ndarray:
    """All zeros: every gradient but the last layer's bias is then zero, and stays so.

    Parameters
    ----------
    shape, rng, dtype, fan, gain
        As for `glorot_normal`; only `shape` and `dtype` matter.

    Returns
    -------
    ndarray
        Of `shape`.
    """
    sizes, kind, _, _ = checked(shape, dtype, fan, gain)
    return np.zeros(sizes, kind)


def _haar(n_rows: int, n_columns: int, rng: Rng) -> np.ndarray:
    """Orthonormal columns, or rows where those are fewer, uniform among such matrices."""
    long, short = max(n_rows, n_columns), min(n_rows, n_columns)
    q, r = np.linalg.qr(np.random.default_rng(rng).standard_normal((long, short)))
    # With the diagonal of R positive, Q is a function of the draws that rotates with them.
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if n_rows >= n_columns else q.T


def _centre(sizes: tuple[int, ...]) -> tuple[slice | int, ...]:
    return (slice(None), slice(None), *((size - 1) // 2 for size in sizes[2:]))
