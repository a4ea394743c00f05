"""The one way arrays and scalars come in."""

import math
import numbers
import operator

import numpy as np

_KINDS = "biuf"
_PIECE = 1 << 20  # entries
_FLOAT32: np.dtype = np.dtype(np.float32)
_FLOAT64: np.dtype = np.dtype(np.float64)


def as_array(name, value) -> np.ndarray:
    """View `value` as a real array, copied only where NumPy must, or raise naming the argument."""
    if type(value) is np.ndarray and value.dtype.char in "df":  # the usual case, at once
        return value
    if value is None:
        raise TypeError(f"{name} must be an array, got None")
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            n_masked = int(value.mask.sum())
            raise TypeError(f"{name} must not be masked, got {n_masked} masked entries")
        value = value.data
    if getattr(value, "requires_grad", False):
        raise TypeError(f"{name} must not require grad; pass {name}.detach()")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name} must be an array of real numbers, got {type(value).__name__} ({error})"
        ) from None
    if array.dtype.kind not in _KINDS or array.dtype.char == "g":
        raise TypeError(
            f"{name} must have a real floating dtype up to float64, got dtype {array.dtype}"
        )
    return array


def common_dtype(*arrays) -> np.dtype:
    """float32 if the floating ones of `arrays` are all float16 or float32, else float64."""
    found: np.dtype = _FLOAT64
    for array in arrays:
        if array is not None and array.dtype.kind == "f":
            if array.dtype.itemsize > _FLOAT32.itemsize:
                return _FLOAT64
            found = _FLOAT32
    return found


def dtype_of(given, arrays) -> np.dtype:
    """`common_dtype` of `arrays`, two dicts by argument; Python's numbers do not count."""
    return common_dtype(
        *(arrays[name] for name, value in given.items() if type(value) not in (int, float, bool))
    )


def broadcast_shape(arrays) -> tuple[int, ...]:
    """The shape that the arrays of a dict broadcast to, or raise naming each with its own."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{', '.join(arrays)} must broadcast together, got shapes {shapes}"
        ) from None


def with_core(array, dtype, core_ndim) -> np.ndarray:
    """`array` as native, aligned `dtype`, its last `core_ndim` axes C-contiguous.

    Leading axes keep their strides, so broadcast views are not written out; where the array must be
    converted, its axes of stride 0 keep theirs.
    """
    core_ndim = min(core_ndim, array.ndim)  # the shape is not checked yet
    flags = array.flags
    if flags.aligned and array.dtype == dtype:
        if flags.c_contiguous:
            return array
        itemsize, expected, is_core_contiguous = dtype.itemsize, dtype.itemsize, True
        for axis in range(array.ndim - 1, array.ndim - 1 - core_ndim, -1):
            is_core_contiguous &= array.shape[axis] <= 1 or array.strides[axis] == expected
            expected *= array.shape[axis]
        if is_core_contiguous and all(s % itemsize == 0 for s in array.strides):
            return array
    leading = array.strides[: array.ndim - core_ndim]
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in leading)
    return np.broadcast_to(_copied(array[once], dtype), array.shape)


def _copied(array, dtype) -> np.ndarray:
    """A C-contiguous copy, in pieces of about 10 ms: Ctrl-C is answered between them."""
    copy = np.empty(array.shape, dtype)
    if array.size <= _PIECE:
        copy[...] = array
        return copy
    axis = int(np.argmax(array.shape))
    step = max(1, _PIECE * array.shape[axis] // array.size)
    for low in range(0, array.shape[axis], step):
        piece = (*(slice(None),) * axis, slice(low, low + step))
        copy[piece] = array[piece]
    return copy


def contiguous(array, dtype) -> np.ndarray:
    """`array` as native, aligned, C-contiguous `dtype`."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype == dtype:  # the usual case, at once
        return array
    return np.require(array, dtype, ["C", "A"])


def finite_scan(name, array) -> None:
    """Raise naming the first non-finite entry of `array`."""
    if not np.isfinite(array).all():
        refuse(name, array, ~np.isfinite(array), "be finite")


def refuse(name, array, is_bad, expected) -> None:
    """Raise naming the first bad entry of `array`, if any: it must `expected`."""
    if is_bad.any():
        index = tuple(int(i) for i in np.argwhere(is_bad)[0])
        where = f" at index {index}" if index else ""
        raise ValueError(f"{name} must {expected}, got {array[index]}{where}")


def real_scalar(name, value, *, low=-math.inf, high=math.inf, open_low=False, open_high=False):
    """`value` as a float in the given interval, or raise naming the argument."""
    if type(value) is float:  # the usual case, at once
        pass
    elif isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.ndarray)):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    elif isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "iuf"):
        raise TypeError(f"{name} must be a real number, got an array of shape {value.shape}")
    number = float(value)
    above = number > low if open_low else number >= low
    below = number < high if open_high else number <= high
    if not (above and below):  # also true of NaN
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}{right}, got {number:g}")
    return number


def count(name, value, *, low=0) -> int:
    """`value` as an integer of at least `low`, or raise naming the argument."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    return number


def choice(name, value, allowed):
    """`value` if it is one of `allowed`, or raise naming the argument."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
