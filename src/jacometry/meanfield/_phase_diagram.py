"""Mean-field theory over a plane of sigma_w and sigma_b, tile by tile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import activations as _activations
from .._validate import as_array, common_dtype, finite_scan, refuse
from ._field import FIELDS, FieldResult, MeanField
from ._layers import ActivationLike

# Points of a tile.  Fixed, so that progress and memory are alike for every executor.
_TILE = 8192
# Tiles that an executor is given ahead.
_AHEAD = 16


class PhaseDiagram(FieldResult):
    """Mean-field fields over a plane: what `phase_diagram` returns.

    Attributes
    ----------
    activation : Activation
        Of every layer.
    sigma_w : ndarray (n,)
        Standard deviations of the weights times sqrt(fan_in): the first axis of every field.
    sigma_b : ndarray (m,)
        Standard deviations of the biases: the second axis.
    q_star, chi_1, c_star, chi_c, depth_scale_q, depth_scale_c, depth_scale_grad : ndarray (n, m)
        As in `MeanField`.
    phase, status : ndarray of str (n, m)
        As in `MeanField`.
    """

    def __init__(
        self,
        activation: _activations.Activation,
        sigma_w: np.ndarray,
        sigma_b: np.ndarray,
    ) -> None:
        self.activation = activation
        self.sigma_w = sigma_w
        self.sigma_b = sigma_b
        self.shape = (len(sigma_w), len(sigma_b))
        for name in FIELDS:
            setattr(self, name, np.empty(self.shape, common_dtype(sigma_w, sigma_b)))
        self._phase_codes = np.empty(self.shape, np.uint8)
        self._status_codes = np.empty(self.shape, np.uint8)

    def __repr__(self) -> str:
        return f"<PhaseDiagram {self.activation.name} of shape {self.shape}>"

    def plot(self, ax: Any = None) -> Any:
        """Draw the phases, the depth scale of the gradient and the critical line.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            Without the ``plot`` extra.
        """
        from ..plots._field import phase_plane

        return phase_plane(self, ax=ax)

    def plot_depth_scales(self, sigma_b: float = 0.0, *, ax: Any = None) -> Any:
        """Draw the depth scales of variance, correlation and gradient over sigma_w.

        Parameters
        ----------
        sigma_b : float, optional
            The nearest value of the diagram is taken.
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            Without the ``plot`` extra.
        """
        from ..plots._field import depth_scales

        return depth_scales(self, int(np.abs(self.sigma_b - sigma_b).argmin()), ax=ax)

    def to_dataframe(self) -> Any:
        """One row per point: sigma_w, sigma_b, the fields, phase and status.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Without the ``frames`` extra.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "pandas is needed for data frames: pip install 'jacometry[frames]'"
            ) from error
        w, b = np.broadcast_arrays(self.sigma_w[:, None], self.sigma_b)
        columns = {"sigma_w": w, "sigma_b": b}
        columns |= {name: getattr(self, name) for name in (*FIELDS, "phase", "status")}
        return pandas.DataFrame({name: column.reshape(-1) for name, column in columns.items()})


def phase_diagram(
    activation: ActivationLike,
    sigma_w: npt.ArrayLike,
    sigma_b: npt.ArrayLike,
    *,
    executor: Any = None,
    progress: Callable[[int, int], Any] | None = None,
    n_threads: int | None = None,
) -> PhaseDiagram:
    """Every field of `MeanField` for all pairs of sigma_w and sigma_b, from q0 = 1.

    Parameters
    ----------
    activation : str, Activation or callable
        What `jacometry.activations.get` takes.  An executor of processes must be able to pickle it.
    sigma_w : array_like (n,)
        Standard deviations of the weights times sqrt(fan_in), >= 0.
    sigma_b : array_like (m,)
        Standard deviations of the biases, >= 0.
    executor : object, optional
        Anything with ``submit(function, *arguments)`` whose result has ``.result()``: the executors
        of `concurrent.futures`, ``dask.distributed.Client``.  None computes here.
    progress : callable, optional
        Called as ``progress(done, total)``, in tiles, after each one.
    n_threads : int, optional
        Threads within a tile.  None takes the smaller of OpenMP's limit and the CPU quota, and 1
        with an executor.

    Returns
    -------
    PhaseDiagram
        The fields, of shape (n, m); float32 if both axes are, else float64.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what it is and what was expected.

    Notes
    -----
    The plane is cut into tiles of 8192 points, whatever the executor; a point depends on nothing
    but its own sigmas, so every executor gives the same bits.  No more than 16 tiles are on their
    way at once; besides the result this takes about 12 MB.  Cost: see `MeanField`.

    Examples
    --------
    >>> import numpy as np
    >>> diagram = phase_diagram("erf", np.linspace(0.5, 2.5, 5), [0.1, 0.3])
    >>> diagram.phase[:, 0].tolist()
    ['ordered', 'ordered', 'chaotic', 'chaotic', 'chaotic']
    >>> diagram.chi_1.shape
    (5, 2)
    """
    known = _activations.get(activation)
    axes = []
    for name, value in (("sigma_w", sigma_w), ("sigma_b", sigma_b)):
        axis = as_array(name, value)
        if axis.ndim != 1:
            raise ValueError(f"{name} must have one axis, got shape {axis.shape}")
        finite_scan(name, axis)
        refuse(name, axis, axis < 0, "be >= 0")
        axes.append(axis)
    dtype = common_dtype(*axes)
    diagram = PhaseDiagram(known, *(axis.astype(dtype) for axis in axes))
    flat = {name: getattr(diagram, name).reshape(-1) for name in (*FIELDS, *_CODES)}
    tiles = _tiles(diagram)
    n_tiles = -(-flat["q_star"].size // _TILE)
    # A name is sent as a name.
    sent = activation if isinstance(activation, str) else known
    if executor is not None and n_threads is None:
        n_threads = 1
    for done, (items, values) in enumerate(_computed(executor, sent, tiles, n_threads), start=1):
        for name, column in flat.items():
            column[items] = values[name]
        if progress is not None:
            progress(done, n_tiles)
    return diagram


_CODES = ("_phase_codes", "_status_codes")


def _tiles(diagram: PhaseDiagram) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    n_columns = len(diagram.sigma_b)
    size = len(diagram.sigma_w) * n_columns
    for first in range(0, size, _TILE):
        items = np.arange(first, min(first + _TILE, size))
        rows, columns = np.divmod(items, n_columns)
        yield slice(first, first + _TILE), diagram.sigma_w[rows], diagram.sigma_b[columns]


def _computed(executor, activation, tiles, n_threads) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Tiles and their fields, in order."""
    if executor is None:
        for items, w, b in tiles:
            yield items, _tile(activation, w, b, n_threads)
        return
    waiting: deque[tuple[slice, Any]] = deque()
    try:
        for items, w, b in tiles:
            waiting.append((items, executor.submit(_tile, activation, w, b, n_threads)))
            if len(waiting) >= _AHEAD:
                items, future = waiting.popleft()
                yield items, future.result()
        while waiting:
            items, future = waiting.popleft()
            yield items, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _tile(activation, sigma_w, sigma_b, n_threads) -> dict[str, Any]:
    field = MeanField(activation, sigma_w, sigma_b, n_threads=n_threads)
    return {name: getattr(field, name) for name in (*FIELDS, *_CODES)}
