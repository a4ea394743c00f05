"""Convolutions as factors: the linear map of a cross-correlation on flattened signals."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np

from ._base import Factor, exponent_of, float_dtype, ldexp, real_array

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")


def _whole_number(name: str, value: Any, low: int) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must hold integers, got a bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must hold integers, got {type(value).__name__}") from None
    if number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    return number


def _per_axis(name: str, value: Any, n_axes: int, low: int) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all or a sequence."""
    values = list(value) if np.iterable(value) else [value] * n_axes
    if len(values) != n_axes:
        raise ValueError(f"{name} must be an integer or {n_axes} of them, got {value!r}")
    return tuple(_whole_number(name, v, low) for v in values)


class _Conv(Factor):
    """What Conv1d and Conv2d share; `n_axes` is the number of spatial axes."""

    n_axes: int

    def __init__(
        self,
        kernel: Any,
        input_shape: Any,
        *,
        padding: Any = 0,
        padding_mode: str = "zeros",
        stride: Any = 1,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        n_axes = self.n_axes
        self.kernel = real_array("kernel", kernel)
        if self.kernel.ndim != n_axes + 2 or 0 in self.kernel.shape:
            raise ValueError(
                f"kernel must have {n_axes + 2} axes (out, in/groups, *k), none of length 0, "
                f"got shape {self.kernel.shape}"
            )
        self.groups = _whole_number("groups", groups, 1)
        self.input_shape = _per_axis("input_shape", input_shape, n_axes, 1)
        self.stride = _per_axis("stride", stride, n_axes, 1)
        self.dilation = _per_axis("dilation", dilation, n_axes, 1)
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {', '.join(map(repr, PADDING_MODES))}, "
                f"got {padding_mode!r}"
            )
        self.padding_mode = padding_mode
        self.out_channels = self.kernel.shape[0]
        self.in_channels = self.kernel.shape[1] * self.groups
        if self.out_channels % self.groups:
            raise ValueError(
                f"groups must divide the {self.out_channels} output channels of kernel, "
                f"got {self.groups}"
            )
        self.padding = self._check_padding(padding)
        self.output_shape = tuple(
            (size + sum(pads) - d * (k - 1) - 1) // s + 1
            for size, pads, k, s, d in zip(
                self.input_shape, self.padding, self.kernel.shape[2:], self.stride, self.dilation,
                strict=True,
            )
        )  # fmt: skip
        if min(self.output_shape) < 1:
            raise ValueError(
                f"kernel of shape {self.kernel.shape} with dilation {self.dilation} does not fit "
                f"into input_shape {self.input_shape} with padding {self.padding}"
            )
        self.shape = (
            self.out_channels * math.prod(self.output_shape),
            self.in_channels * math.prod(self.input_shape),
        )
        self.dtype = self.kernel.dtype

    def _check_padding(self, padding: Any) -> tuple[tuple[int, int], ...]:
        """(before, after) for every axis."""
        if isinstance(padding, str):
            if padding != "same":
                raise ValueError(f"padding must be 'same' or made of integers, got {padding!r}")
            if any(s != 1 for s in self.stride):
                raise ValueError(f"padding 'same' needs a stride of 1, got {self.stride}")
            totals = [
                d * (k - 1) for d, k in zip(self.dilation, self.kernel.shape[2:], strict=True)
            ]
            pairs = tuple((total // 2, total - total // 2) for total in totals)
        elif np.iterable(padding) and all(np.iterable(p) for p in padding):
            pairs = tuple(
                (_whole_number("padding", before, 0), _whole_number("padding", after, 0))
                for before, after in padding
            )
            if len(pairs) != self.n_axes:
                raise ValueError(
                    f"padding must hold {self.n_axes} pairs (before, after), got {padding!r}"
                )
        else:
            pairs = tuple((p, p) for p in _per_axis("padding", padding, self.n_axes, 0))
        if self.padding_mode == "reflect":
            for size, pair in zip(self.input_shape, pairs, strict=True):
                if max(pair) >= size:
                    raise ValueError(
                        f"padding of {max(pair)} must be less than the input's {size} where "
                        "padding_mode is 'reflect'"
                    )
        return pairs

    def _borders(self) -> list[tuple[Any, Any]]:
        """(index in the padding, index copied there) of all that is not zero, axes in order."""
        copies = []
        for axis, (size, (before, after)) in enumerate(
            zip(self.input_shape, self.padding, strict=True), start=2
        ):
            for outside in (*range(-before, 0), *range(size, size + after)):
                if self.padding_mode == "circular":
                    source = outside % size
                elif self.padding_mode == "reflect":
                    source = -outside if outside < 0 else 2 * (size - 1) - outside
                elif self.padding_mode == "replicate":
                    source = 0 if outside < 0 else size - 1
                else:
                    continue
                every = (slice(None),) * axis
                copies.append(((*every, outside + before), (*every, source + before)))
        return copies

    def _padded_zeros(self, n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Zeros of the padded size, and a view of their inside."""
        sizes = [s + sum(p) for s, p in zip(self.input_shape, self.padding, strict=True)]
        padded = np.zeros((n, self.in_channels, *sizes), dtype)
        inside: Any = [
            slice(p[0], p[0] + s) for s, p in zip(self.input_shape, self.padding, strict=True)
        ]
        return padded, padded[(..., *inside)]

    def _taps(self) -> Any:
        """For each entry of the kernel, its matrices by group, and the input positions it meets."""
        kernel = self.kernel.reshape(self.groups, -1, *self.kernel.shape[1:])
        tap: Any
        for tap in itertools.product(*(range(k) for k in self.kernel.shape[2:])):
            positions = tuple(
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(
                    tap, self.dilation, self.stride, self.output_shape, strict=True
                )
            )
            yield kernel[(..., *tap)], positions

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The convolution of tangents of shape (..., in_channels * prod(input_shape))."""
        tangent = np.asarray(tangent)
        *lead, _ = tangent.shape
        n = math.prod(lead)
        dtype = float_dtype(tangent.dtype, self.dtype)
        padded, inside = self._padded_zeros(n, dtype)
        inside[:] = tangent.reshape(inside.shape)
        for border, source in self._borders():
            padded[border] = padded[source]
        n_out, n_group = math.prod(self.output_shape), self.kernel.shape[1]
        out = np.zeros((n, self.groups, self.out_channels // self.groups, n_out), dtype)
        for matrices, positions in self._taps():
            out += matrices @ padded[(..., *positions)].reshape(n, self.groups, n_group, n_out)
        return out.reshape(*lead, self.shape[0])

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """The adjoint, applied to cotangents of (..., out_channels * prod(output_shape))."""
        cotangent = np.asarray(cotangent)
        *lead, _ = cotangent.shape
        n = math.prod(lead)
        dtype = float_dtype(cotangent.dtype, self.dtype)
        padded, inside = self._padded_zeros(n, dtype)
        grouped = cotangent.reshape(
            n, self.groups, self.out_channels // self.groups, math.prod(self.output_shape)
        )
        for matrices, positions in self._taps():
            target = padded[(..., *positions)]
            target += (np.swapaxes(matrices, -1, -2) @ grouped).reshape(target.shape)
        for border, source in reversed(self._borders()):
            padded[source] += padded[border]
        return inside.reshape(*lead, self.shape[1])

    def scaled(self) -> tuple[Factor, int]:
        """See `Factor`."""
        exponent = exponent_of(self.kernel)
        return self._with_kernel(ldexp(self.kernel, -exponent)), exponent

    def _with_kernel(self, kernel: np.ndarray) -> _Conv:
        return type(self)(
            kernel,
            self.input_shape,
            padding=self.padding,
            padding_mode=self.padding_mode,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels} x {self.input_shape} -> "
            f"{self.out_channels} x {self.output_shape}, kernel {self.kernel.shape[2:]})"
        )


class Conv1d(_Conv):
    """The linear map of a one-dimensional convolution, as deep-learning libraries define it.

    ``y[o, i] = sum_{c, t} kernel[o, c, t] x_padded[c, stride i + dilation t]``, a cross-correlation
    (the kernel is not flipped), on vectors flattened channel by channel.

    Parameters
    ----------
    kernel : array_like, shape (out_channels, in_channels / groups, k)
        Kept as a read-only view.
    input_shape : int or sequence of int
        The length of the signal, without channels.
    padding : int, sequence of int, sequence of (before, after), or "same"
        Entries added at the ends; "same" keeps the length and, where the total is odd, adds the
        odd one at the end.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}
        What the added entries hold.
    stride, dilation : int or sequence of int
        Steps between outputs, and between the entries that one output sees.
    groups : int
        Blocks of channels that do not mix.

    Attributes
    ----------
    shape : tuple of int
        (out_channels * output length, in_channels * input length).
    output_shape : tuple of int
        Spatial sizes of the output.

    Notes
    -----
    ``jvp`` and ``vjp`` take one matrix product per kernel entry and hold the padded signals once
    more; ``2 * kernel.size * prod(output_shape)`` flops per vector.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import Conv1d
    >>> conv = Conv1d([[[2.0, 7.0, -1.0]]], 4, padding="same", padding_mode="circular")
    >>> conv.jvp(np.array([1.0, 0.0, 0.0, 0.0]))
    array([ 7.,  2.,  0., -1.])
    """

    n_axes = 1


class Conv2d(_Conv):
    """The linear map of a two-dimensional convolution, as deep-learning libraries define it.

    As `Conv1d` on images: vectors are flattened channel by channel, row by row.

    Parameters
    ----------
    kernel : array_like, shape (out_channels, in_channels / groups, k_rows, k_columns)
        Kept as a read-only view.
    input_shape : sequence of two int
        Rows and columns of the image, without channels.
    padding : int, sequence of int, sequence of (before, after), or "same"
        As in `Conv1d`, for each axis.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}
        What the added entries hold.
    stride, dilation : int or sequence of int
        As in `Conv1d`.
    groups : int
        Blocks of channels that do not mix.

    Attributes
    ----------
    shape : tuple of int
        (out_channels * prod(output_shape), in_channels * prod(input_shape)).
    output_shape : tuple of int
        Rows and columns of the output.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import Conv2d
    >>> conv = Conv2d(np.ones((8, 3, 3, 3)), (32, 32), padding=1, stride=2)
    >>> conv.output_shape, conv.shape
    ((16, 16), (2048, 3072))
    """

    n_axes = 2
