"""What every initializer takes, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator | int | None

_FANS = ("in", "out", "avg")


def checked(
    shape: Sequence[int], dtype: npt.DTypeLike, fan: str, gain: float
) -> tuple[tuple[int, ...], np.dtype[Any], float, float]:
    """The validated shape, dtype and gain, and the chosen fan."""
    try:
        sizes = tuple(int(n) for n in np.asarray(shape, dtype=object).ravel())
        exact = np.ndim(shape) == 1 and all(n == m for n, m in zip(sizes, shape, strict=True))
    except (TypeError, ValueError):
        sizes, exact = (), False
    if not exact or len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            f"shape must be (fan_out, fan_in, *kernel), integers of at least 1, got {shape!r}"
        )
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    if fan not in _FANS:
        raise ValueError(f"fan must be 'in', 'out' or 'avg', got {fan!r}")
    gain = float(gain)
    if not math.isfinite(gain):
        raise ValueError(f"gain must be a finite number, got {gain!r}")
    field = math.prod(sizes[2:])
    fans: dict[str, float] = {"out": sizes[0] * field, "in": sizes[1] * field}
    fans["avg"] = (fans["in"] + fans["out"]) / 2
    return sizes, kind, gain, fans[fan]
