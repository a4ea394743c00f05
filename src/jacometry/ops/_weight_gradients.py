"""Norms of the gradients of weights, from what passes forwards and backwards."""

import numpy as np

from .._validate import as_array, choice, finite_scan
from .scaled import ScaledArray

# Squared norms that neither overflow nor gradual underflow can have touched, nor that of a product.
LEAST_SQUARE, MOST_SQUARE = 1e-280, 1e280


def weight_gradient_log_norms(activations, deltas, *, reduction="none", check_finite=True):
    """Log Frobenius norm of every dLoss/dW, without forming it where that can be helped.

    For ``z_l = W_l h_{l-1} + b_l`` one sample's gradient is the outer product
    ``dLoss/dW_l = delta_l h_{l-1}^T`` with ``delta_l = dLoss/dz_l``, so its Frobenius norm is
    ``|delta_l| |h_{l-1}|`` (Goodfellow, Efficient per-example gradient computations, 2015).

    Parameters
    ----------
    activations : sequence of L array_like or ScaledArray, shape (B, n_{l-1}) or (n_{l-1},)
        What each weight matrix was applied to, the first layer's first.
    deltas : sequence of L array_like or ScaledArray, shape (B, n_l) or (n_l,)
        Gradients of each sample's loss in what each weight matrix gave, before the nonlinearity.
        Where `chain_vjp` has the slopes on the input side, so that its interfaces lie before the
        nonlinearities, these are ``trace.vectors[1:]`` of ``keep="all"``.
    reduction : {"none", "mean"}
        The norms sample by sample, or the norm of the mean of the gradients over the samples.
    check_finite : bool
        Raise for NaN and infinity; False propagates them.

    Returns
    -------
    ndarray of float64
        Natural logs; shape ``(B, L)``, or ``(L,)`` for the mean and where nothing has a batch axis.
        -inf for a gradient that is zero.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit or an entry is not finite, naming the argument and layer.
    TypeError
        If an entry is not an array of real numbers.

    Notes
    -----
    Computed in float64 whatever the dtype.  An array without a batch axis serves every sample.  No
    scale of an entry or of a ScaledArray over- or underflows.

    Per sample: cost ``2 sum_l (n_{l-1} + n_l)`` flops, relative error of the norm at most
    ``(n_{l-1} + n_l + 4) u``.

    The mean is taken from ``D^T H`` with the samples' deltas and activations in the rows of D and H
    (``2 B n_{l-1} n_l`` flops, a temporary matrix of the size of W_l) or, for few samples and wide
    layers, as ``|R D|`` with R from the QR factorization of ``H^T`` (about
    ``2 B^2 (n_{l-1} + n_l)`` flops).  Both err normwise by at most a small multiple of
    ``(B + n) u mean_b |delta_b| |h_b|``: digits are lost only as gradients of different samples
    cancel.  The Gram matrices of D and H would cost as little, but lose twice as many.  NumPy's
    BLAS decides on threads.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry import weight_gradient_log_norms
    >>> h, delta = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[2.0], [2.0]])
    >>> np.exp(weight_gradient_log_norms([h], [delta])).round(12)
    array([[10.],
           [ 2.]])
    >>> np.exp(weight_gradient_log_norms([h], [-delta], reduction="mean")).round(12)
    array([5.83095189])
    """
    choice("reduction", reduction, ("none", "mean"))
    activations = _vectors("activations", activations, check_finite)
    deltas = _vectors("deltas", deltas, check_finite)
    if len(activations) != len(deltas):
        raise ValueError(
            f"deltas must hold one entry per entry of activations, {len(activations)}, "
            f"got {len(deltas)} (the first of a trace's vectors is not a delta: pass vectors[1:])"
        )
    n_samples = None
    for name, entries in (("activations", activations), ("deltas", deltas)):
        for k, x in enumerate(entries):
            if x.exponent.ndim and n_samples not in (None, len(x)):
                raise ValueError(
                    f"{name}[{k}] must hold {n_samples} samples as the arrays before it, "
                    f"got shape {x.shape}"
                )
            n_samples = len(x) if x.exponent.ndim else n_samples
    if reduction == "none" or n_samples is None:
        shape = () if n_samples is None else (n_samples,)
        log_norms = np.empty((*shape, len(deltas)))
        for k, (h, delta) in enumerate(zip(activations, deltas, strict=True)):
            log_norms[..., k] = _log_of_product(_norms(h), _norms(delta))
        return log_norms
    if n_samples == 0:
        raise ValueError("deltas must hold at least one sample for reduction='mean', got none")
    return np.array(
        [_log_norm_of_mean(h, d, n_samples) for h, d in zip(activations, deltas, strict=True)]
    )


def _vectors(name, entries, check_finite):
    """The entries as ScaledArrays in float64, their digits as they were given."""
    found = []
    for k, entry in enumerate(entries):
        label = f"{name}[{k}]"
        is_scaled = isinstance(entry, ScaledArray)
        array = as_array(label, entry.mantissa if is_scaled else entry)
        exponent = entry.exponent if is_scaled else np.zeros(array.shape[:-1], np.int64)
        if array.ndim not in (1, 2) or exponent.ndim != array.ndim - 1:
            raise ValueError(f"{label} must have shape (n,) or (B, n), got {array.shape}")
        if check_finite:
            finite_scan(label, array)
        found.append(ScaledArray(array, exponent))
    return found


def _norms(x):
    """2-norms of vectors, as numbers of moderate size and exponents."""
    mantissa = np.asarray(x.mantissa, np.float64)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("...i,...i->...", mantissa, mantissa)
    if np.all((squares >= LEAST_SQUARE) & (squares <= MOST_SQUARE)):
        return np.sqrt(squares), x.exponent
    scaled = _scaled(x)
    return np.linalg.norm(scaled.mantissa, axis=-1), scaled.exponent


def _log_of_product(a, b):
    """Log of the product of two such norms; only its own magnitude counts in its rounding."""
    product = ScaledArray.from_array((a[0] * b[0])[..., None], item_ndim=1)
    return ScaledArray(product.mantissa, product.exponent + a[1] + b[1]).log_norm()


def _scaled(x):
    """The vectors in float64, brought to [0.5, 1)."""
    scaled = ScaledArray.from_array(np.asarray(x.mantissa, np.float64), item_ndim=1)
    return ScaledArray(scaled.mantissa, scaled.exponent + x.exponent)


def _log_norm_of_mean(h, delta, n_samples):
    """Log Frobenius norm of the mean over samples of delta h^T."""
    h, delta = _scaled(h), _scaled(delta)
    exponents = np.broadcast_to(h.exponent + delta.exponent, n_samples)
    is_zero = ~(np.any(h.mantissa, axis=-1) & np.any(delta.mantissa, axis=-1))
    is_zero = np.broadcast_to(is_zero, n_samples)
    if is_zero.all():
        return -np.inf
    top = exponents[~is_zero].max()
    # What underflows here is below 2^-1000 of the sample with the largest product of norms.
    shift = np.where(is_zero, 0, np.clip(exponents - top, -2000, 0)).astype(np.int32)
    n_in, n_out = h.shape[-1], delta.shape[-1]
    h = np.broadcast_to(h.mantissa, (n_samples, n_in))
    delta = np.ldexp(np.broadcast_to(delta.mantissa, (n_samples, n_out)), shift[:, None])
    if 2 * n_samples * (n_in + n_out) < n_in * n_out:
        mean = np.linalg.qr(h.T, mode="r") @ delta
    else:
        mean = delta.T @ h
    mean = ScaledArray.from_array(mean / n_samples)
    return float(ScaledArray(mean.mantissa, mean.exponent + top).log_norm())
