"""Activation functions as descriptions: value, slope, curvature, kinks, kernel.

An `Activation` is what the rest of the package needs to know of a scalar nonlinearity ``phi``.  The
factories (`identity`, `relu`, `leaky_relu`, `tanh`, `sigmoid`, `erf`, `gelu`) make the ones that
have a compiled kernel; `get` turns a name, an `Activation` or a plain vectorised callable into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = [
    "Activation",
    "erf",
    "gelu",
    "get",
    "identity",
    "leaky_relu",
    "names",
    "relu",
    "sigmoid",
    "tanh",
]

_Function = Callable[[np.ndarray], npt.ArrayLike]

# The numbers of enum jm_activation_id in types.h.
_KERNEL_IDS = {"identity": 0, "leaky_relu": 1, "tanh": 2, "sigmoid": 3, "erf": 4, "gelu": 5}

_SQRT_2PI = math.sqrt(2.0 * math.pi)
# exp(-x**2 / 2) and exp(-x**2) are zero beyond this |x| in float64 and in float32.
_GAUSSIAN_END = 40.0
# So is exp(-2 |x|).
_SECH2_END = 400.0


class Activation:
    """A scalar nonlinearity, applied entry by entry.

    Parameters
    ----------
    phi : callable
        The function: takes a float32 or float64 array, returns one of the same shape.
    dphi : callable
        Its derivative, with a stated choice at each kink.
    d2phi : callable, optional
        Its second derivative away from the kinks.  None: differences of `dphi`, see `curvature`.
    kinks : sequence of float, optional
        Where the derivative jumps.  Quadratures split there.
    lipschitz : float, optional
        The least Lipschitz constant.  None: the largest ``abs`` of `slope_range`.
    name : str, optional
        Used in messages and reports.  None: the name of `phi`.

    Attributes
    ----------
    phi, dphi, d2phi : callable
        As given.
    kinks : tuple of float
        Ascending.
    name : str
    kernel_id : int or None
        Number of the compiled kernel that knows this activation; None for user-defined ones.
    parameters : tuple of float
        Arguments of that kernel.

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
        "_lipschitz",
        "_slope_range",
        "d2phi",
        "dphi",
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
        for argument, function in (("phi", phi), ("dphi", dphi), ("d2phi", d2phi)):
            if not callable(function) and not (argument == "d2phi" and function is None):
                raise TypeError(
                    f"{argument} must be a vectorised callable, got {type(function).__name__}"
                )
        places = np.asarray(kinks, dtype=np.float64)
        if places.ndim != 1 or not np.isfinite(places).all():
            raise ValueError(f"kinks must be a sequence of finite numbers, got {kinks!r}")
        if lipschitz is not None and not lipschitz >= 0:
            raise ValueError(f"lipschitz must be >= 0, got {lipschitz!r}")
        self._fill(
            phi=phi,
            dphi=dphi,
            d2phi=d2phi,
            kinks=tuple(float(kink) for kink in np.unique(places)),
            name=getattr(phi, "__name__", type(phi).__name__) if name is None else str(name),
            kernel_id=None,
            parameters=(),
            _lipschitz=None if lipschitz is None else float(lipschitz),
            _slope_range=None,
        )

    def _fill(self, **values: Any) -> None:
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"an Activation is immutable, got a new {attribute}")

    def __getstate__(self) -> dict[str, Any]:
        return {attribute: getattr(self, attribute) for attribute in self.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fill(**state)

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
        """``phi''(x)``, entry by entry; at a kink, that of the smooth pieces beside it.

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
            return _difference(self.slope, x)
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


def get(activation: str | Activation | Callable[..., Any]) -> Activation:
    """The `Activation` that a name, an `Activation` or a callable stands for.

    Parameters
    ----------
    activation : str, Activation or callable
        A name of `names()`, which means that factory's defaults; an `Activation`, returned as it
        is; one of the factories of this module; or a vectorised callable: array in, array of that
        shape out.

    Returns
    -------
    Activation
        A shared, immutable instance for a name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    TypeError
        For anything else.

    Notes
    -----
    A bare callable is taken to be smooth; give an `Activation` with `kinks` where it is not.  Its
    slope is the central difference of fourth order (Abramowitz and Stegun 1972, 25.3.6)::

        (8 (f(x + h) - f(x - h)) - (f(x + 2 h) - f(x - 2 h))) / (12 h),  h = 2**-10 max(1, sqrt|x|)

    evaluated in float64, with an error of about ``h**4 |f'''''| / 30 + 2e-13 |f| / max(1,
    sqrt|x|)``. Its curvature is the same difference of that slope.

    Examples
    --------
    >>> get("relu").slope([-1.0, 0.0, 2.0])
    array([0., 0., 1.])
    >>> import numpy as np
    >>> round(float(get(np.arctan).slope(1.0)), 12)
    0.5
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in _FACTORIES:
            known = ", ".join(repr(name) for name in names())
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        return _FACTORIES[activation]()
    if not callable(activation) or isinstance(activation, type):
        raise TypeError(
            f"activation must be a name, an Activation or a vectorised callable, got {activation!r}"
        )
    if activation in _FACTORIES.values():
        return activation()
    return Activation(activation, partial(_difference, activation))


def names() -> tuple[str, ...]:
    """The names that `get` knows.

    Returns
    -------
    tuple of str
        Every name, aliases included.

    Examples
    --------
    >>> "gelu" in names()
    True
    """
    return tuple(_FACTORIES)


def identity() -> Activation:
    """``phi(x) = x``.

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    return _built_in("identity", _identity, np.ones_like, np.zeros_like, (1.0, 1.0))


def relu(*, slope_at_zero: float = 0.0) -> Activation:
    """``phi(x) = max(x, 0)``.

    Parameters
    ----------
    slope_at_zero : float, optional
        ``phi'(0)``, in [0, 1].  It matters only for inputs that are exactly zero.

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    if not 0.0 <= slope_at_zero <= 1.0:
        raise ValueError(f"slope_at_zero must lie in [0, 1], got {slope_at_zero!r}")
    return _rectifier("relu", 0.0, float(slope_at_zero))


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """``phi(x) = x`` above 0, ``negative_slope * x`` below; slope `negative_slope` at 0.

    Parameters
    ----------
    negative_slope : float, optional
        Any finite number: -1 gives the absolute value, 1 the identity.

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    if not math.isfinite(negative_slope):
        raise ValueError(f"negative_slope must be finite, got {negative_slope!r}")
    return _rectifier("leaky_relu", float(negative_slope), float(negative_slope))


def tanh() -> Activation:
    """``phi(x) = tanh(x)``.

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    return _built_in("tanh", np.tanh, _tanh_slope, _tanh_curvature, (0.0, 1.0))


def sigmoid() -> Activation:
    """``phi(x) = 1 / (1 + exp(-x))``, scikit-learn's "logistic".

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    return _built_in("sigmoid", special.expit, _sigmoid_slope, _sigmoid_curvature, (0.0, 0.25))


def erf() -> Activation:
    """``phi(x) = erf(x) = 2 / sqrt(pi) * integral from 0 to x of exp(-t**2)``.

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    return _built_in(
        "erf", special.erf, _erf_slope, _erf_curvature, (0.0, 2.0 / math.sqrt(math.pi))
    )


def gelu() -> Activation:
    """``phi(x) = x P(Z <= x)``, Z standard normal: the exact form of Hendrycks and Gimpel (2016).

    Returns
    -------
    Activation
        Known to the compiled kernels.
    """
    # phi'' = (2 - x**2) exp(-x**2 / 2) / sqrt(2 pi) vanishes at +-sqrt(2).
    steepest = float(special.ndtr(math.sqrt(2.0))) + math.sqrt(2.0) * math.exp(-1.0) / _SQRT_2PI
    return _built_in("gelu", _gelu, _gelu_slope, _gelu_curvature, (1.0 - steepest, steepest))


@cache
def _built_in(
    name: str,
    phi: _Function,
    dphi: _Function,
    d2phi: _Function,
    slope_range: tuple[float, float],
) -> Activation:
    activation = Activation(phi, dphi, d2phi, name=name)
    activation._fill(kernel_id=_KERNEL_IDS[name], _slope_range=slope_range)
    return activation


@cache
def _rectifier(name: str, negative_slope: float, slope_at_zero: float) -> Activation:
    activation = Activation(
        partial(_leaky_relu, negative_slope=negative_slope),
        partial(_leaky_relu_slope, negative_slope=negative_slope, slope_at_zero=slope_at_zero),
        np.zeros_like,
        kinks=() if negative_slope == 1.0 else (0.0,),
        name=name,
    )
    activation._fill(
        kernel_id=_KERNEL_IDS["leaky_relu"],
        parameters=(negative_slope, slope_at_zero),
        _slope_range=(min(negative_slope, 1.0), max(negative_slope, 1.0)),
    )
    return activation


_FACTORIES: dict[str, Callable[[], Activation]] = {
    "identity": identity,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "logistic": sigmoid,
    "erf": erf,
    "gelu": gelu,
}


def _as_float(x: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"x must hold real numbers of at most 64 bits, got dtype {array.dtype}")
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return array.astype(np.float32 if single else np.float64, copy=False)


def _identity(x: np.ndarray) -> np.ndarray:
    return x.copy()


def _leaky_relu(x: np.ndarray, *, negative_slope: float) -> np.ndarray:
    if negative_slope == 0.0:
        return np.maximum(x, 0)
    return np.where(x > 0, x, x.dtype.type(negative_slope) * x)


def _leaky_relu_slope(x: np.ndarray, *, negative_slope: float, slope_at_zero: float) -> np.ndarray:
    at_most_zero = np.where(x < 0, negative_slope, np.where(x == 0, slope_at_zero, x))
    return np.where(x > 0, 1.0, at_most_zero)


def _sech2(x: np.ndarray) -> np.ndarray:
    # 1 - tanh(x)**2 would lose every digit at large |x|.
    decay = np.exp(-2 * np.minimum(np.abs(x), _SECH2_END))
    return 4 * decay / (1 + decay) ** 2


def _tanh_slope(x: np.ndarray) -> np.ndarray:
    return _sech2(x)


def _tanh_curvature(x: np.ndarray) -> np.ndarray:
    return -2 * np.tanh(x) * _sech2(x)


def _sigmoid_slope(x: np.ndarray) -> np.ndarray:
    return _sech2(x / 2) / 4


def _sigmoid_curvature(x: np.ndarray) -> np.ndarray:
    return -np.tanh(x / 2) * _sech2(x / 2) / 4


def _erf_slope(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -_GAUSSIAN_END, _GAUSSIAN_END)
    return x.dtype.type(2 / math.sqrt(math.pi)) * np.exp(-near * near)


def _erf_curvature(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -_GAUSSIAN_END, _GAUSSIAN_END)
    return -2 * near * _erf_slope(x)


def _normal_density(near: np.ndarray) -> np.ndarray:
    return np.exp(-near * near / 2) / near.dtype.type(_SQRT_2PI)


def _gelu(x: np.ndarray) -> np.ndarray:
    # -inf times 0 would be NaN; phi is zero from there on.
    return np.maximum(x, -_GAUSSIAN_END) * special.ndtr(x)


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -_GAUSSIAN_END, _GAUSSIAN_END)
    return special.ndtr(x) + near * _normal_density(near)


def _gelu_curvature(x: np.ndarray) -> np.ndarray:
    near = np.clip(x, -_GAUSSIAN_END, _GAUSSIAN_END)
    return (2 - near * near) * _normal_density(near)


def _difference(f: Callable[..., Any], x: npt.ArrayLike) -> Any:
    given = np.asarray(x)
    x = given.astype(np.float64)
    h = 2.0**-10 * np.maximum(1.0, np.sqrt(np.abs(x)))
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
