"""Lyapunov spectra: how fast the independent directions of a long product grow or shrink."""

from dataclasses import dataclass

import numpy as np

from .. import _backend, _kernels, _threads
from .._validate import as_array, count, finite_scan, real_scalar
from ._chain_arrays import read_chain

# Batches for the standard errors: 10 to 30 use a run of known length well, more gain little
# (Schmeiser, Batch size effects in the analysis of simulation output, 1982).
N_BATCHES = 32


@dataclass(frozen=True, slots=True)
class LyapunovSpectrum:
    """Growth rates of the independent directions, the fastest first.

    Attributes
    ----------
    exponents : ndarray of float64, shape (k,) or (B, k)
        Mean of ``log R_ii`` over the steps counted: natural logs, per step or unit of time.
    stderr : ndarray of float64
        Standard error of each exponent, from batch means; NaN where only one step counts, 0 where
        the exponent is exactly -inf.
    history : ndarray of float64, shape (n, k) or (B, n, k), or None
        With ``history=True``, the growth rate in each of the n steps counted.
    """

    exponents: np.ndarray
    stderr: np.ndarray
    history: np.ndarray | None = None


def lyapunov_spectrum(
    weights,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    k=None,
    burn_in=0,
    history=False,
    rng=None,
    n_threads=None,
    check_finite=True,
):
    """Lyapunov spectrum of a chain: the exponential growth rates of its product, all or the top k.

    ``Q_{t+1} R_t = F_t Q_t`` from a random start block, with the factors of `chain_product`; the
    i-th exponent is the mean of ``log |R_ii|`` over the steps after `burn_in`.

    Parameters
    ----------
    weights, slopes, slope_side, shortcut
        The chain, as in `chain_product`.  Factors may be rectangular.
    k : int, optional
        Exponents wanted, at most the smallest width, which None takes.
    burn_in : int
        Steps taken but not counted, fewer than there are.
    history : bool
        Also return the growth in every counted step.
    rng : None, int, numpy.random.Generator or anything numpy.random.default_rng takes
        Draws the Gaussian start block, the same for all samples.  None draws from the operating
        system: the digits then differ from run to run by the transient of about 1 / L.
    n_threads : int, optional
        As in `chain_product`.
    check_finite : bool
        Raise for NaN and infinity in the input; False gives NaN exponents for that sample.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        As in `chain_product`, and if no step is left to count or k exceeds a width.
    TypeError
        As in `chain_product`.

    Notes
    -----
    The start block is random because a fixed one can miss the leading direction: columns of the
    identity never leave their axes under diagonal factors.

    Standard errors are those of the means of 32 batches of nearly equal length (Schmeiser, Batch
    size effects in the analysis of simulation output, Operations Research 1982; one step each where
    there are fewer than 32): correlations shorter than a batch are taken into account, and
    ``exponents +- 2.04 stderr`` is a 95 % interval (Student's t, 31 degrees of freedom).

    An exponent is -inf, exactly, from the step on where zero rows, columns or slopes leave fewer
    independent directions than it needs, or a column is mapped to zero (entries below the smallest
    number times their column's length count as zeros).  Singularity that only rounding hides is not
    decided: such a step counts about ``log u``, u the unit roundoff.

    Cost ``2 k sum_t n_{t+1} (n_t + k)`` flops per sample; memory does not grow with depth unless
    `history` is given.  Each step perturbs its factor by a few ``n u`` of its norm, and scaling is
    by exact powers of two, so no depth and no scale over- or underflows.  Results do not depend on
    `n_threads` or on the rest of the batch.  Source: Benettin, Galgani, Giorgilli and Strelcyn,
    Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 1980.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import lyapunov_spectrum
    >>> cat_map = np.broadcast_to(np.array([[2.0, 1.0], [1.0, 1.0]]), (1000, 2, 2))
    >>> lyapunov_spectrum(cat_map, burn_in=100, rng=0).exponents.round(6)
    array([ 0.962424, -0.962424])
    """
    chain = read_chain(weights, slopes, slope_side, shortcut)
    burn_in = count("burn_in", burn_in)
    n_threads = _threads.resolve(n_threads)
    if burn_in >= chain.n_layers:
        raise ValueError(
            f"burn_in must be less than the number of layers {chain.n_layers}, got {burn_in}"
        )
    smallest = chain.max_width if chain.widths is None else min(chain.widths)
    n_columns = smallest if k is None else count("k", k, low=1)
    if n_columns > smallest:
        raise ValueError(f"k must be at most the smallest width {smallest}, got {n_columns}")

    n_items = 1 if chain.n_samples is None else chain.n_samples
    n_counted = chain.n_layers - burn_in
    n_batches = min(N_BATCHES, n_counted)
    start = np.random.default_rng(rng).standard_normal((chain.n_in, n_columns))
    start = start.astype(chain.dtype)
    exponents = np.empty((n_items, n_columns))
    stderr = np.empty((n_items, n_columns))
    steps = np.empty((n_items, n_counted, n_columns)) if history else None
    bad_item, bad_layer = -1, np.full(n_items, -1, np.intp)

    if not n_items or not n_columns:
        pass
    elif _backend.is_reference():
        reference = _backend.reference("lyapunov")
        for i in range(n_items):
            layers = chain.sample(i)
            found = reference.lyapunov_spectrum(
                layers.pop("weights"), start, n_batches, burn_in=burn_in, **layers
            )
            exponents[i], stderr[i] = found[:2]
            if steps is not None:
                steps[i] = found[2]
    else:
        is_square = chain.widths is None or len(set(chain.widths)) == 1
        layer_cost = 2.0 * chain.max_width * n_columns * (chain.max_width + n_columns)
        bad_item = _kernels.lyapunov_spectrum(
            int(chain.dtype.itemsize == 8), chain, is_square, n_columns, burn_in, n_batches, start,
            exponents, stderr, steps, bad_layer, layer_cost, n_threads,
        )  # fmt: skip

    if check_finite and bad_item >= 0:
        chain.raise_non_finite(bad_item, int(bad_layer[bad_item]))
    if chain.n_samples is None:
        return LyapunovSpectrum(exponents[0], stderr[0], None if steps is None else steps[0])
    return LyapunovSpectrum(exponents, stderr, steps)


def lyapunov_spectrum_map(step, jvp, x0, n_steps, *, k, dt=1.0, burn_in=0, history=False, rng=None):
    """Lyapunov spectrum along the orbit of a map given by functions.

    Parameters
    ----------
    step : callable
        ``step(x)``, the next state, of the shape of x.
    jvp : callable
        ``jvp(x, v)``: the derivative of `step` at x applied to every column of v, whose shape is
        ``(n, k)``, or ``(B, n, k)`` for a batch; returns an array of that shape.
    x0 : array_like, shape (n,) or (B, n)
        Where the orbit, or each of B orbits, starts.
    n_steps : int
        Steps to take, `burn_in` included.
    k : int
        Exponents wanted, at most n.
    dt : float
        Time per step; exponents are per unit of time.
    burn_in : int
        Steps taken but not counted, fewer than `n_steps`.
    history : bool
        Also return the growth rate in every counted step.
    rng : None, int, numpy.random.Generator or anything numpy.random.default_rng takes
        Draws the Gaussian start block, the same for all orbits.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        If a function returns another shape or a value that is not finite, naming it and the step.
    TypeError
        If an argument is of the wrong kind.

    Notes
    -----
    Computes in float64, with a Householder QR per step.  Standard errors and exact zeros as in
    `lyapunov_spectrum`.  Memory does not grow with `n_steps` unless `history` is given.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import lyapunov_spectrum_map
    >>> found = lyapunov_spectrum_map(
    ...     lambda x: 4 * x * (1 - x), lambda x, v: (4 - 8 * x)[:, None] * v, [0.3], 20_000, k=1,
    ...     rng=0,
    ... )
    >>> bool(abs(found.exponents[0] - np.log(2)) < 5 * found.stderr[0] + 1e-3)
    True
    """
    for name, function in (("step", step), ("jvp", jvp)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}")
    x = np.array(as_array("x0", x0), np.float64)
    if x.ndim not in (1, 2) or not x.shape[-1]:
        raise ValueError(f"x0 must have shape (n,) or (B, n) with n >= 1, got {x.shape}")
    finite_scan("x0", x)
    n = x.shape[-1]
    n_steps = count("n_steps", n_steps, low=1)
    burn_in = count("burn_in", burn_in)
    dt = real_scalar("dt", dt, low=0, open_low=True)
    if burn_in >= n_steps:
        raise ValueError(f"burn_in must be less than n_steps {n_steps}, got {burn_in}")
    n_columns = count("k", k, low=1)
    if n_columns > n:
        raise ValueError(f"k must be at most the number of variables {n}, got {n_columns}")

    n_counted = n_steps - burn_in
    n_batches = min(N_BATCHES, n_counted)
    batch_shape = (*x.shape[:-1], n_columns)
    v = np.linalg.qr(np.random.default_rng(rng).standard_normal((n, n_columns)))[0]
    v = np.array(np.broadcast_to(v, (*x.shape, n_columns)))  # the caller may write to it
    live = np.full(x.shape[:-1], n_columns)
    mean, spread, total = np.zeros(batch_shape), np.zeros(batch_shape), np.zeros(batch_shape)
    steps = np.empty((*x.shape[:-1], n_counted, n_columns)) if history else None
    batch, batch_begin = 0, 0

    for t in range(n_steps):
        image = _checked("jvp", jvp(x, v), v.shape, t)
        x = _checked("step", step(x), x.shape, t)
        v, growth, live = _orthogonalized(image, live)
        done = t + 1 - burn_in
        if done <= 0:
            continue
        total += growth
        if steps is not None:
            steps[..., done - 1, :] = growth / dt
        if done == (batch + 1) * n_counted // n_batches:
            with np.errstate(invalid="ignore"):
                rate = total / (done - batch_begin)
                off = rate - mean
                mean += off * ((done - batch_begin) / done)
                spread += (done - batch_begin) * off * (rate - mean)
            total[...] = 0
            batch, batch_begin = batch + 1, done

    freedom = (n_batches - 1) * n_counted
    stderr = np.sqrt(spread / freedom) if freedom else np.full(batch_shape, np.nan)
    is_dead = np.arange(n_columns) >= live[..., None]
    return LyapunovSpectrum(
        np.where(is_dead, -np.inf, mean / dt), np.where(is_dead, 0.0, stderr / dt), steps
    )


def _checked(name, value, shape, t):
    """What a user's function returned, as float64."""
    value = np.asarray(as_array(f"the result of {name}", value), np.float64)
    if value.shape != shape:
        raise ValueError(f"{name} must return shape {shape}, got {value.shape} in step {t}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must return finite values, got NaN or infinity in step {t}")
    return value


def _orthogonalized(image, live):
    """Orthonormal columns, logs of R_ii, and how many columns are left of each item.

    Columns beyond the number of rows that are not zero, and columns that are zero, are exactly
    dependent; they and those after them stay zero.
    """
    scale = np.frexp(np.max(np.abs(image), axis=(-2, -1), keepdims=True))[1]
    q, r = np.linalg.qr(np.ldexp(image, -scale))
    diagonal = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    is_zero = ~image.any(-2)
    first_zero = np.where(is_zero.any(-1), is_zero.argmax(-1), image.shape[-1])
    live = np.minimum(live, np.minimum(first_zero, image.any(-1).sum(-1)))
    is_live = np.arange(image.shape[-1]) < live[..., None]
    with np.errstate(divide="ignore"):
        growth = np.where(is_live, np.log(diagonal) + scale[..., 0] * np.log(2.0), -np.inf)
    return q * is_live[..., None, :], growth, live
