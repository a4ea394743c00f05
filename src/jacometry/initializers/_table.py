"""The summary table of initializers, computed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import numpy as np

from ._arguments import checked
from ._registry import get, names

__all__ = ["initializer_table"]

# Those that are not listed draw independent entries of variance gain**2 / fan.
_LAWS = {
    "glorot_uniform": "uniform",
    "he_uniform": "uniform",
    "orthogonal": "orthogonal",
    "delta_orthogonal": "orthogonal",
    "identity": "fixed",
    "zeros": "fixed",
}
_PRESERVED = 1e-12


def initializer_table(
    shape: Sequence[int] = (256, 256), *, fan: str | None = None, gain: float | None = None
) -> np.ndarray:
    """What each initializer does, at this shape, to a signal and to its gradient.

    Parameters
    ----------
    shape : sequence of int, optional
        ``(fan_out, fan_in, *kernel)``.
    fan : {"in", "out", "avg"}, optional
        For all of them; None: the default of each.
    gain : float, optional
        For all of them; None: the default of each.

    Returns
    -------
    structured ndarray
        One row per initializer (``pandas.DataFrame(table)`` shows it):

        - ``name``; ``law``: "normal", "uniform", "orthogonal" or "fixed";
        - ``fan`` ("" where it changes nothing) and ``gain``;
        - ``variance``: the mean square of an entry, ``gain**2 / fan`` where entries are
          independent;
        - ``bound``: the largest possible size of an entry;
        - ``forward``: ``fan_in Var(W)``, the factor on the mean square of a signal's entries from
          a linear layer's input to its output; a ReLU halves it;
        - ``backward``: ``fan_out Var(W)``, that on a gradient's entries, from output to input;
        - ``preserves``: which of these is 1, ", " between them: "signal", "gradient", "signal
          through ReLU", "gradient through ReLU", "signal and gradient on average" (``(forward +
          backward) / 2``); where all singular values are 1, "every norm", or "every signal's norm"
          or "every gradient's norm" if the fans differ.

        `critical` is that of tanh without biases.  `delta_orthogonal` has NaN in the place of
        numbers if ``fan_out < fan_in``.

    Raises
    ------
    ValueError, TypeError
        As the initializers.

    Notes
    -----
    Of a kernel, ``forward`` and ``backward`` hold away from the borders, for signals whose entries
    are uncorrelated or, where the law is "normal" or "uniform", for all.

    Examples
    --------
    >>> table = initializer_table((200, 100))
    >>> row = table[table["name"] == "he_normal"][0]
    >>> round(float(row["variance"]), 12), round(float(row["forward"]), 12), str(row["preserves"])
    (0.02, 2.0, 'signal through ReLU')
    """
    sizes = checked(shape, np.float64, fan or "in", 1.0 if gain is None else gain)[0]
    taps = math.prod(sizes[2:])
    columns = [("name", "U32"), ("law", "U16"), ("fan", "U8"), ("gain", np.float64)]
    columns += [(c, np.float64) for c in ("variance", "bound", "forward", "backward")]
    table = np.empty(len(names()), np.dtype([*columns, ("preserves", "U128")]))
    for row, name in zip(table, names(), strict=True):
        defaults = inspect.signature(get(name)).parameters
        law = _LAWS.get(name, "normal")
        row_fan = defaults["fan"].default if fan is None else fan
        row_gain = float(defaults["gain"].default if gain is None else gain)
        row["name"], row["law"], row["gain"] = name, law, row_gain
        row["fan"] = row_fan if law in ("normal", "uniform") else ""
        row["variance"], row["bound"] = _entries(name, law, sizes, row_fan, row_gain)
        row["forward"] = sizes[1] * taps * row["variance"]
        row["backward"] = sizes[0] * taps * row["variance"]
        row["preserves"] = ", ".join(_preserved(row, sizes))
    return table


def _entries(
    name: str, law: str, sizes: tuple[int, ...], fan: str, gain: float
) -> tuple[float, float]:
    """The mean square of an entry, and the largest possible size of one."""
    n_out, n_in, *kernel = sizes
    taps = math.prod(kernel)
    size = abs(gain)
    if law == "orthogonal" and name == "orthogonal":
        return gain**2 / max(n_out, n_in * taps), size
    if law == "orthogonal":
        return (gain**2 / (n_out * taps), size) if n_out >= n_in else (math.nan, math.nan)
    if law == "fixed":
        size *= name != "zeros"
        return size**2 / (max(n_out, n_in) * taps), size
    if name == "critical":
        from ..meanfield import critical_point

        size *= critical_point("tanh", sigma_b=0.0).sigma_w
    divisor = checked(sizes, np.float64, fan, gain)[3]
    return size**2 / divisor, size * math.sqrt(3 / divisor) if law == "uniform" else math.inf


def _preserved(row: np.void, sizes: tuple[int, ...]) -> list[str]:
    forward, backward = float(row["forward"]), float(row["backward"])
    found = {
        "signal": forward,
        "gradient": backward,
        "signal through ReLU": forward / 2,
        "gradient through ReLU": backward / 2,
    }
    if forward != backward:
        found["signal and gradient on average"] = (forward + backward) / 2
    # Of a kernel, `orthogonal` makes the matrix of its rows orthogonal, not the convolution.
    if row["law"] in ("orthogonal", "fixed") and (sizes[2:] == () or row["name"] != "orthogonal"):
        n_out, n_in = sizes[:2]
        whose = "norm" if n_out == n_in else f"{'signal' if n_out > n_in else 'gradient'}'s norm"
        found[f"every {whose}"] = float(row["bound"])
    return [what for what, factor in found.items() if abs(factor - 1) <= _PRESERVED]
