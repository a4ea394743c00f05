"""Products of layer Jacobians, and vectors pushed through them, at any depth and scale."""

import math
from dataclasses import dataclass

import numpy as np

from .. import _backend, _kernels, _threads
from .._validate import as_array, choice, contiguous, finite_scan
from ._chain_generic import ChainSegments, product_of_segments, push_segments, read_any
from ._chain_runs import multiply, runs_of
from ._weight_gradients import weight_gradient_log_norms as weight_gradient_log_norms
from .chain_spectra import LogSingularValues as LogSingularValues
from .chain_spectra import chain_log_svdvals as chain_log_svdvals
from .lyapunov import LyapunovSpectrum as LyapunovSpectrum
from .lyapunov import lyapunov_spectrum as lyapunov_spectrum
from .lyapunov import lyapunov_spectrum_map as lyapunov_spectrum_map
from .scaled import ScaledArray


@dataclass(slots=True)
class ChainTrace:
    """What became of vectors on their way through a chain.

    Attributes
    ----------
    vector : ScaledArray, shape (n,), (B, n) or (B, m, n)
        The vectors at the far end: the output for a jvp, the input for a vjp.
    log_norms : ndarray of float64, shape (L + 1,), (B, L + 1) or (B, m, L + 1)
        Natural log of the 2-norm at each interface, the input's first in both directions.
    vectors : tuple of ScaledArray or None
        With ``keep="all"``, the vectors at every interface, the input's first.
    """

    vector: ScaledArray
    log_norms: np.ndarray
    vectors: tuple | None = None


def chain_product(
    weights,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    out=None,
    n_threads=None,
    check_finite=True,
):
    """Product of the layer Jacobians of a chain.

    ``J = F_{L-1} ... F_1 F_0`` with ``F_k = shortcut_k I + diag(slopes_k) W_k``, or
    ``F_k = shortcut_k I + W_k diag(slopes_k)`` with ``slope_side="input"``.  The running product is
    rescaled by powers of two, exactly, so no depth and no scale over- or underflows.

    Parameters
    ----------
    weights : array_like or sequence of array_like or Chain
        ``(L, n, n)`` or ``(B, L, n, n)``; or a list of L arrays ``(n_{k+1}, n_k)`` or
        ``(B, n_{k+1}, n_k)``, rectangular, shared and per-sample ones mixed; or a `Chain` of any
        factors, which brings its own slopes.  ``weights[0]`` is applied first.
    slopes : array_like or sequence of array_like, optional
        ``(L, n)`` or ``(B, L, n)``; or a list whose entries are None, ``(n,)`` or ``(B, n)``.
    slope_side : {"output", "input"}
        Whether the slopes multiply the rows of each W or its columns.
    shortcut : float or array_like of shape (L,)
        Multiple of the identity added to each factor; nonzero only for square ones.
    out : ScaledArray, optional
        Where the result goes: mantissa and exponent of its shape and dtype, C-contiguous, writable,
        sharing no memory with the input.  Undefined after an error.
    n_threads : int, optional
        Threads over the samples; None takes the smaller of OpenMP's limit and the CPU quota.
    check_finite : bool
        Raise for NaN and infinity in the input (found at no cost); False propagates them.

    Returns
    -------
    ScaledArray
        Shape ``(B, n_L, n_0)``, without B when nothing has one; `out` if given.  float32
        if all floating input is float32 or float16, else float64.

    Raises
    ------
    ValueError
        If shapes do not fit, naming the layer, or an entry is not finite, naming sample and layer.
    TypeError
        If an argument is not an array of real numbers.

    Notes
    -----
    Square chains are multiplied from the first factor to the last: ``2 sum_k n^3`` flops per
    sample.  Rectangular ones are multiplied in the order of least cost, counted by the widths
    alone (Hu and Shing, Computation of matrix chain products, SIAM J. Comput. 13, 1984), which may
    change the rounding; a product of its own must save 2^14 multiply-adds per sample, what its call
    costs, and a chain of fewer than that per layer is not planned: its order costs at most twice
    the least.  Products of factors that all samples share are formed once where that costs no
    sample anything.  The order depends on the widths and on which factors have a batch axis, not on
    B.  Finding it takes O(L log(L)^2) time.

    Memory beyond input and output is three ``max(n) x min(n_0, n_L)`` blocks and one ``max(n)^2``
    per thread, and, out of order, products that wait: those of shared factors, and 8 MB or one
    sample per thread of the others; none is larger than a factor in it.

    Normwise error, in any order, since each inner interface is summed over once:
    ``|J' - J| <= sum_k (n_k + 2) u |F_{L-1}| ... |F_0|``, u the unit
    roundoff (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.7).  Results
    do not depend on `n_threads` or on the rest of the batch.

    A `Chain` with factors that no kernel knows (convolutions, normalisations, operators, long
    residual branches) is multiplied by pushing the columns of the identity forwards or its rows
    backwards, whichever are fewer, in NumPy through those factors: ``B min(n_0, n_L) max(n)``
    entries are held.  Batch normalisation while training has no Jacobian per sample and raises.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_product
    >>> J = chain_product(np.full((4, 1, 1), 3.0))
    >>> J.to_array()
    array([[81.]])
    >>> chain_product(np.full((100_000, 1, 1), 1e-30)).log_norm().round(3)
    np.float64(-6907755.279)
    """
    chain = read_any(weights, slopes, slope_side, shortcut)
    n_threads = _threads.resolve(n_threads)
    if isinstance(chain, ChainSegments):
        room = None if out is None else _checked_out(out, chain)
        product = product_of_segments(chain, _compiled(n_threads, check_finite), check_finite)
        if room is None:
            return product
        room[0][...], room[1][...] = product.mantissa, product.exponent
        return out

    n_samples, n_in = chain.n_samples, chain.n_in
    batch = () if n_samples is None else (n_samples,)
    n_items = 1 if n_samples is None else n_samples
    if out is None:
        mantissa = np.empty((*batch, chain.n_out, n_in), chain.dtype)
        exponent = np.empty(batch, np.int64)
        out = ScaledArray._of(mantissa, exponent)
    else:
        mantissa, exponent = _checked_out(out, chain)
    bad = None

    if chain.n_layers == 0:
        mantissa[...] = np.eye(n_in) / 2
        exponent[...] = 1 if n_in else 0
    elif chain.has_empty_width or not n_items:
        mantissa[...] = exponent[...] = 0
        _scan_empty(chain, check_finite)
    elif _backend.is_reference():
        reference = _backend.reference("chain")
        for i in range(n_items):
            at = i if batch else ...
            mantissa[at], exponent[at] = reference.chain_product(**chain.sample(i))
        _scan_empty(chain, check_finite)
    elif chain.widths is not None and (runs := runs_of(chain)):
        whole = (n_items, chain.n_out, n_in)
        multiply(
            chain, runs, mantissa.reshape(whole), exponent.reshape(n_items), n_threads, check_finite
        )
    else:
        bad = _kernels.chain_product(chain, n_items, mantissa, exponent, n_threads, False, None)

    if bad is not None and check_finite:
        chain.raise_non_finite(*bad)
    return out


def _checked_out(out, chain):
    """Mantissa and exponent of `out`, if they can take the product."""
    if not isinstance(out, ScaledArray):
        raise TypeError(f"out must be a ScaledArray, got {type(out).__name__}")
    batch = () if chain.n_samples is None else (chain.n_samples,)
    inputs = []
    for given in (chain.weights, chain.slopes, chain.shortcut):
        inputs += given if isinstance(given, list) else [given]
    parts = {
        "mantissa": ((*batch, chain.n_out, chain.n_in), chain.dtype),
        "exponent": (batch, np.dtype(np.int64)),
    }
    for name, (shape, dtype) in parts.items():
        array = getattr(out, name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"out.{name} must have shape {shape} and dtype {dtype}, "
                f"got {array.shape} and {array.dtype}"
            )
        if not array.flags.carray:
            raise ValueError(f"out.{name} must be C-contiguous, aligned and writable")
        if any(isinstance(a, np.ndarray) and np.may_share_memory(array, a) for a in inputs):
            raise ValueError(f"out.{name} must not share memory with weights, slopes or shortcut")
    if np.may_share_memory(out.mantissa, out.exponent):
        raise ValueError("out.mantissa must not share memory with out.exponent")
    return out.mantissa, out.exponent


def chain_jvp(
    weights,
    tangent,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    keep="last",
    n_threads=None,
    check_finite=True,
):
    """Push tangents forwards through a chain: ``J v``, and the norm at every interface.

    Parameters
    ----------
    weights, slopes, slope_side, shortcut
        The chain, as in `chain_product`.  The interfaces of a `Chain` are those between its own
        factors, ``len(chain) + 1`` of them.
    tangent : array_like, shape (n_0,), (B, n_0) or (B, m, n_0)
        One tangent, one per sample, or m per sample.  ``(n_0,)`` serves every sample of a batch.
    keep : {"last", "all"}
        Return the vectors at the far end only, or at every interface.
    n_threads : int, optional
        As in `chain_product`.
    check_finite : bool
        As in `chain_product`; tangents are scanned too.

    Returns
    -------
    ChainTrace

    Raises
    ------
    ValueError, TypeError
        As in `chain_product`.

    Notes
    -----
    Cost ``2 sum_k n_{k+1} n_k`` flops and L + 1 logarithms per vector.  A log-norm at interface k
    errs by at most ``sum_{j<k} (n_j + 4) u kappa + 2 u |log|`` where kappa is how much the product
    of the factors' norms overstates the vector's growth.  With float32 input u is that of float32.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_jvp
    >>> trace = chain_jvp(np.full((3, 1, 1), 0.5), [1.0])
    >>> np.exp(trace.log_norms).round(12)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    tangent = as_array("tangent", tangent)
    chain = read_any(weights, slopes, slope_side, shortcut, tangent, fuse=False)
    return _push(chain, "tangent", tangent, False, keep, n_threads, check_finite)


def chain_vjp(
    weights,
    cotangent,
    *,
    slopes=None,
    slope_side="output",
    shortcut=0.0,
    keep="last",
    n_threads=None,
    check_finite=True,
):
    """Pull cotangents backwards through a chain, as backpropagation does: ``J^T v``.

    Parameters
    ----------
    weights, slopes, slope_side, shortcut
        The chain, as in `chain_jvp`.
    cotangent : array_like, shape (n_L,), (B, n_L) or (B, m, n_L)
        One cotangent, one per sample, or m per sample.  ``(n_L,)`` serves every sample of a batch.
    keep : {"last", "all"}
        Return the vectors at the far end (the chain's input) only, or at every interface.
    n_threads : int, optional
        As in `chain_product`.
    check_finite : bool
        As in `chain_product`; cotangents are scanned too.

    Returns
    -------
    ChainTrace
        ``log_norms[..., k]`` belongs to interface k, so the last entry is the cotangent given.

    Raises
    ------
    ValueError, TypeError
        As in `chain_product`.

    Notes
    -----
    Cost and error as in `chain_jvp`.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import chain_vjp
    >>> trace = chain_vjp(np.full((3, 1, 1), 0.5), [1.0])
    >>> np.exp(trace.log_norms).round(12)
    array([0.125, 0.25 , 0.5  , 1.   ])
    """
    cotangent = as_array("cotangent", cotangent)
    chain = read_any(weights, slopes, slope_side, shortcut, cotangent, fuse=False)
    return _push(chain, "cotangent", cotangent, True, keep, n_threads, check_finite)


def _push(chain, name, start, transposed, keep, n_threads, check_finite):
    choice("keep", keep, ("last", "all"))
    n_threads = _threads.resolve(n_threads)
    given, n_layers = start, chain.n_layers
    has_segments = isinstance(chain, ChainSegments)
    if not has_segments and chain.takes(start, transposed):
        batch = start.shape[:-1]
    else:
        batch = _batch_shape(chain, name, start, transposed)
        start = contiguous(np.broadcast_to(start, (*batch, start.shape[-1])), chain.dtype)

    if has_segments:
        if check_finite:
            finite_scan(name, given)
        compiled = _compiled(n_threads, check_finite)
        return ChainTrace(*push_segments(chain, start, transposed, keep, compiled, check_finite))

    n_vectors = math.prod(batch) if batch else 1

    if not n_layers or not n_vectors or chain.has_empty_width or _backend.is_reference():
        if check_finite:
            finite_scan(name, given)
        _scan_empty(chain, check_finite)
        vectors, log_norms = _push_plain(chain, start, transposed)
        last = vectors[0 if transposed else -1]
        return ChainTrace(last, log_norms, tuple(vectors) if keep == "all" else None)

    per_sample = batch[1] if len(batch) == 2 else 1
    log_norms = np.empty((*batch, n_layers + 1))
    vectors = mantissas = exponents = None
    if keep == "all":
        vectors = tuple(_room(chain, k, batch) for k in range(n_layers + 1))
        mantissas = np.array([_kernels.address_of(v.mantissa) for v in vectors], np.uintp)
        exponents = np.array([_kernels.address_of(v.exponent) for v in vectors], np.uintp)
        last = vectors[0 if transposed else -1]
    else:
        last = _room(chain, 0 if transposed else n_layers, batch)
    bad = _kernels.chain_vectors(
        chain, transposed, start, n_vectors, per_sample, log_norms,
        last.mantissa, last.exponent, mantissas, exponents, n_threads,
    )  # fmt: skip
    if bad is not None and check_finite:
        vector, layer = bad
        if layer == n_layers:
            finite_scan(name, given)
        chain.raise_non_finite(vector // per_sample, layer)
    return ChainTrace(last, log_norms, vectors)


def _room(chain, interface, batch):
    """For the vectors at an interface, to be written by a kernel."""
    mantissa = np.empty((*batch, chain.width(interface)), chain.dtype)
    return ScaledArray._of(mantissa, np.empty(batch, np.int64))


def _compiled(n_threads, check_finite):
    """`_push` as the segments of a chain call it."""

    def compiled(arrays, start, transposed, keep):
        return _push(arrays, "vectors", start, transposed, keep, n_threads, check_finite)

    return compiled


def _batch_shape(chain, name, start, transposed):
    """Batch axes of the result: (), (B,) or (B, m)."""
    n_start = chain.n_out if transposed else chain.n_in
    if start.ndim not in (1, 2, 3) or start.shape[-1] != n_start:
        raise ValueError(
            f"{name} must have shape ({n_start},), (B, {n_start}) or (B, m, {n_start}), "
            f"got {start.shape}"
        )
    if start.ndim == 1:
        return () if chain.n_samples is None else (chain.n_samples,)
    if chain.n_samples not in (None, start.shape[0]):
        raise ValueError(
            f"{name} must hold {chain.n_samples} samples as the chain does, got shape {start.shape}"
        )
    return start.shape[:-1]


def _push_plain(chain, start, transposed):
    """Vectors and log-norms at every interface: an empty chain or batch, or the references."""
    batch, n_layers = start.shape[:-1], chain.n_layers
    near = n_layers if transposed else 0
    vectors = [
        ScaledArray(np.zeros((*batch, chain.width(k)), chain.dtype), np.zeros(batch, np.int64))
        for k in range(n_layers + 1)
    ]
    vectors[near] = ScaledArray.from_array(start, item_ndim=1)
    if n_layers and not chain.has_empty_width and _backend.is_reference():
        reference = _backend.reference("chain")
        push = reference.chain_vjp if transposed else reference.chain_jvp
        for index in np.ndindex(batch):
            layers = chain.sample(index[0] if index else 0)
            trace = push(layers.pop("weights"), start[index], **layers)
            for vector, (mantissa, exponent) in zip(vectors, trace, strict=True):
                vector.mantissa[index] = mantissa
                vector.exponent[index] = exponent if mantissa.any() else 0
    return vectors, np.stack([v.log_norm() for v in vectors], axis=-1)


def _scan_empty(chain, check_finite):
    """The scan for non-finite entries where no kernel looks at them."""
    if not check_finite:
        return
    for name in ("weights", "slopes"):
        arrays = getattr(chain, name)
        if isinstance(arrays, list):
            for k, array in enumerate(arrays):
                if array is not None:
                    finite_scan(f"{name}[{k}]", array)
        elif arrays is not None:
            finite_scan(name, arrays)
