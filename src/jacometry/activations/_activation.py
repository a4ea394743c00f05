"""What the package knows of a scalar nonlinearity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._low_level import vectorised

__all__ = ["Activation"]

_Function = Callable[[np.ndarray], npt.ArrayLike]

# The numbers of enum jm_activation_id in types.h, for those that have a compiled kernel.
_KERNEL_IDS = {
    "identity": 0,
    "relu": 1,
    "leaky_relu": 1,
    "prelu": 1,
    "abs": 1,
    "erf": 2,
    "gelu": 3,
    "sin": 4,
    "quadratic": 5,
}
# One object per built-in activation and parameters, so that `is` compares them.
_BUILT_IN: dict[tuple[str, tuple[float, ...]], Activation] = {}
# Slopes beside a kink that differ by no more than this part of the larger one do not jump.
_JUMP = 1e-6


class Activation:
    """A scalar nonlinearity, applied entry by entry.

    Parameters
    ----------
    phi : callable
        The function: takes a float32 or float64 array, returns one of the same shape.  For it and
        its derivatives also a `scipy.LowLevelCallable` of signature ``double (double)`` or ``double
        (double, void *)``, which is called in a compiled loop without the GIL.
    dphi : callable
        Its derivative, with a stated choice at each kink.
    d2phi : callable, optional
        Its second derivative away from the kinks.  None: differences of `dphi`, see `curvature`.
    kinks : sequence of float, optional
        Where phi or one of its first two derivatives is not smooth, ascending.  Quadratures split
        there.
    lipschitz : float, optional
        The least Lipschitz constant.  None: the largest ``abs`` of `slope_range`.
    name : str, optional
        Used in messages and reports.  None: the name of `phi`.

    Attributes
    ----------
    phi, dphi, d2phi : callable
        As given.
    kinks : tuple of float
    name : str
    kernel_id : int or None
        Number of the compiled kernel that knows this activation; None if there is none.
    parameters : tuple of float
        Those of a built-in activation, as the kernel takes them.
    is_built_in : bool
        Whether it is one of this module's; their objects are shared, so that `is` compares them.

    Notes
    -----
    Instances are immutable.  `value`, `slope` and `curvature` behave as ufuncs: any shape, a NumPy
    scalar for a scalar, NaN where the result depends on an entry that is NaN.  float32 and float16
    compute and return float32, every other real dtype float64; complex, object and longdouble raise
    `TypeError`.

    Examples
    --------
    >>> import numpy as np
    >>> swish = Activation(lambda x: x / (1 + np.exp(-x)),
    ...                    lambda x: (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2,
    ...                    name="swish")
    >>> float(swish.slope(0.0))
    0.5
    """

    __slots__ = (
        "__weakref__",
        "_lipschitz",
        "_slope_range",
        "d2phi",
        "dphi",
        "is_built_in",
        "kernel_id",
        "kinks",
        "name",
        "parameters",
        "phi",
    )

    phi: _Function
    dphi: _Function
    d2phi: _Function | None
    kinks: tuple[float, ...]
    name: str
    kernel_id: int | None
    parameters: tuple[float, ...]
    is_built_in: bool
    _lipschitz: float | None
    _slope_range: tuple[float, float] | None

    def __init__(
        self,
        phi: _Function,
        dphi: _Function,
        d2phi: _Function | None = None,
        *,
        kinks: npt.ArrayLike = (),
        lipschitz: float | None = None,
        name: str | None = None,
    ) -> None:
        phi, dphi = vectorised("phi", phi), vectorised("dphi", dphi)
        d2phi = vectorised("d2phi", d2phi)
        for argument, function in (("phi", phi), ("dphi", dphi), ("d2phi", d2phi)):
            if not callable(function) and not (argument == "d2phi" and function is None):
                raise TypeError(
                    f"{argument} must be a vectorised callable, got {type(function).__name__}"
                )
        places = np.asarray(kinks, dtype=np.float64)
        if places.ndim != 1 or not np.isfinite(places).all() or not (np.diff(places) > 0).all():
            raise ValueError(f"kinks must be finite numbers in ascending order, got {kinks!r}")
        if lipschitz is not None and not lipschitz >= 0:
            raise ValueError(f"lipschitz must be >= 0, got {lipschitz!r}")
        self._fill(
            phi=phi,
            dphi=dphi,
            d2phi=d2phi,
            kinks=tuple(places.tolist()),
            name=getattr(phi, "__name__", type(phi).__name__) if name is None else str(name),
            kernel_id=None,
            parameters=(),
            is_built_in=False,
            _lipschitz=None if lipschitz is None else float(lipschitz),
            _slope_range=None,
        )

    def _fill(self, **values: Any) -> None:
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"an Activation is immutable, got a new {attribute}")

    def __reduce__(self) -> tuple[Any, ...]:
        state = {a: getattr(self, a) for a in self.__slots__ if a != "__weakref__"}
        return _restored, (state,)

    def __repr__(self) -> str:
        arguments = "".join(f", {parameter:g}" for parameter in self.parameters)
        return f"<Activation {self.name}{arguments}>"

    def value(self, x: npt.ArrayLike) -> Any:
        """``phi(x)``, entry by entry.

        Parameters
        ----------
        x : array_like of real
            Any shape.

        Returns
        -------
        ndarray or NumPy scalar
            Of the shape of `x`; float32 for float32 and float16, else float64.
        """
        return self._apply(self.phi, "phi", _as_float(x))

    def slope(self, x: npt.ArrayLike) -> Any:
        """``phi'(x)``, entry by entry, with the stated choice at a kink.

        Parameters
        ----------
        x : array_like of real
            Any shape.

        Returns
        -------
        ndarray or NumPy scalar
            Of the shape of `x`; float32 for float32 and float16, else float64.
        """
        return self._apply(self.dphi, "dphi", _as_float(x))

    def curvature(self, x: npt.ArrayLike) -> Any:
        """``phi''(x)``, entry by entry; at a kink, with a stated choice.

        Parameters
        ----------
        x : array_like of real
            Any shape.

        Returns
        -------
        ndarray or NumPy scalar
            Of the shape of `x`; float32 for float32 and float16, else float64.

        Notes
        -----
        Without `d2phi` it is the fourth-order central difference of `slope` described in `get`.
        """
        x = _as_float(x)
        if self.d2phi is None:
            return difference(self.slope, x)
        return self._apply(self.d2phi, "d2phi", x)

    @property
    def slope_range(self) -> tuple[float, float]:
        """Infimum and supremum of ``phi'``.

        Returns
        -------
        tuple of float
            Lower end, upper end; infinite where unbounded.

        Notes
        -----
        For a user-defined activation they are searched for: `dphi` on a grid of step 1/64 on [-40,
        40], at powers of two up to 2**100 and beside the kinks, the best three refined by Brent's
        method; a slope still growing at the end of the grid counts as unbounded.
        """
        if self._slope_range is None:
            found = (
                -_supremum(lambda x: -self.slope(x), self.kinks),
                _supremum(self.slope, self.kinks),
            )
            object.__setattr__(self, "_slope_range", found)
        assert self._slope_range is not None
        return self._slope_range

    @property
    def lipschitz(self) -> float:
        """The least L with ``|phi(x) - phi(y)| <= L |x - y|``.

        Returns
        -------
        float
            As given, else the largest ``abs`` of `slope_range`.
        """
        return max(abs(s) for s in self.slope_range) if self._lipschitz is None else self._lipschitz

    @property
    def jumps(self) -> tuple[float, ...]:
        """The kinks where the slope jumps, so that ``E phi''**2`` is infinite.

        Returns
        -------
        tuple of float
            Those where `slope` differs by more than 1e-6 of itself from one side to the other.
        """
        kinks = np.array(self.kinks, dtype=np.float64)
        before = self.slope(np.nextafter(kinks, -np.inf))
        after = self.slope(np.nextafter(kinks, np.inf))
        size = np.maximum(np.abs(before), np.abs(after))
        return tuple(kinks[np.abs(after - before) > _JUMP * size].tolist())

    def _apply(self, function: _Function, argument: str, x: np.ndarray) -> Any:
        try:
            result = np.asarray(function(x))
        except TypeError as error:
            raise TypeError(
                f"{argument} of activation {self.name!r} must be a vectorised callable, failed "
                f"on an array of shape {x.shape} ({error})"
            ) from error
        if result.shape != x.shape:
            raise ValueError(
                f"{argument} of activation {self.name!r} must return the shape of its input, "
                f"{x.shape}, got {result.shape}"
            )
        if result.dtype.kind not in "biuf":
            raise TypeError(
                f"{argument} of activation {self.name!r} must return real numbers, "
                f"got dtype {result.dtype}"
            )
        return result.astype(x.dtype, copy=False)[()]


def built_in(
    name: str,
    phi: _Function,
    dphi: _Function,
    d2phi: _Function,
    *,
    parameters: tuple[float, ...] = (),
    kinks: Sequence[float] = (),
    slope_range: tuple[float, float],
) -> Activation:
    """One of the package's own: the same object whenever name and parameters are the same."""
    known = _BUILT_IN.get((name, parameters))
    if known is not None:
        return known
    activation = Activation(phi, dphi, d2phi, kinks=kinks, name=name)
    activation._fill(
        kernel_id=_KERNEL_IDS.get(name),
        parameters=parameters,
        is_built_in=True,
        _slope_range=slope_range,
    )
    return _BUILT_IN.setdefault((name, parameters), activation)


def _restored(state: dict[str, Any]) -> Activation:
    """The built-in activation of a pickle, as `built_in` would give it, or a user's own."""
    activation = object.__new__(Activation)
    activation._fill(**state)
    if state["is_built_in"]:
        return _BUILT_IN.setdefault((activation.name, activation.parameters), activation)
    return activation


def _as_float(x: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"x must hold real numbers of at most 64 bits, got dtype {array.dtype}")
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return array.astype(np.float32 if single else np.float64, copy=False)


def difference(f: Callable[..., Any], x: npt.ArrayLike) -> Any:
    """The central difference of fourth order that `get` describes."""
    given = np.asarray(x)
    x = given.astype(np.float64)
    size = np.abs(x)
    h = 2.0**-10 * np.maximum(np.maximum(1.0, np.sqrt(size)), 2.0**-36 * size)
    h = (x + h) - x  # x + h is exact
    near, far = f(x + h) - f(x - h), f(x + 2 * h) - f(x - 2 * h)
    return ((8 * near - far) / (12 * h)).astype(given.dtype)[()]


def _supremum(slope: Callable[[np.ndarray], np.ndarray], kinks: tuple[float, ...]) -> float:
    from scipy import optimize

    far = 2.0 ** np.arange(6, 101)
    beside = [np.nextafter(kink, side) for kink in kinks for side in (-np.inf, np.inf)]
    grid = np.unique(
        np.concatenate([-far, far, np.linspace(-40.0, 40.0, 80 * 64 + 1), beside, kinks])
    )
    slopes = slope(grid)
    best = int(np.argmax(slopes))
    ends = {0: 1, len(grid) - 1: len(grid) - 2}
    if best in ends and slopes[best] > slopes[ends[best]] * (1 + 1e-9) + 1e-9:
        return math.inf
    supremum = float(slopes[best])
    for place in np.argsort(slopes)[-3:]:
        inside = grid[[max(place - 1, 0), min(place + 1, len(grid) - 1)]]
        peak = optimize.minimize_scalar(
            lambda x: -float(slope(np.asarray(x))), bounds=tuple(inside), method="bounded"
        )
        supremum = max(supremum, -float(peak.fun))
    return supremum
