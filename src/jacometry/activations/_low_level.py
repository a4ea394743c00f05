"""C functions of one number as functions of arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from scipy import LowLevelCallable

# The signatures that scipy.integrate.quad takes, and whether they want the user's data.
_SIGNATURES = {"double (double)": False, "double (double, void *)": True}

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_context = ctypes.pythonapi.PyCapsule_GetContext
_context.restype, _context.argtypes = ctypes.c_void_p, [ctypes.py_object]


class LowLevelFunction:
    """What a `scipy.LowLevelCallable` computes, entry by entry and without the GIL, in float64."""

    # The compiled loop, which jacometry.ops enters here: (function, wants data, data, x, out).
    loop: ClassVar[Callable[[int, bool, int, np.ndarray, np.ndarray], None]]

    def __init__(self, argument: str, function: LowLevelCallable) -> None:
        if function.signature not in _SIGNATURES:
            expected = " or ".join(map(repr, _SIGNATURES))
            raise TypeError(
                f"{argument} must have the signature {expected}, got {function.signature!r}"
            )
        # Where SciPy's own loops find it: item 0 is a capsule of that name.
        capsule = tuple.__getitem__(function, 0)
        self.function = function  # which keeps the data alive
        self.__name__ = getattr(function.function, "__name__", "LowLevelCallable")
        self._call = (
            _pointer(capsule, function.signature.encode()),
            _SIGNATURES[function.signature],
            _context(capsule) or 0,
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64, order="C")
        out = np.empty(x.shape)
        LowLevelFunction.loop(*self._call, x, out)
        return out


def vectorised(argument: str, function: Any) -> Any:
    """`function`, or a function of arrays if it is a C function."""
    if isinstance(function, LowLevelCallable):
        return LowLevelFunction(argument, function)
    return function
