"""chain_product, chain_vjp, chain_jvp beside NumPy, torch and numba; see `harness`.

The factors are Householder reflections (dense, orthogonal) and the slopes lie in [0.9, 1], so that
no answer is ill-conditioned and the error bound below holds for any order of summation.
"""

import sys

import chain_peers as peers
import harness
import numpy as np
from machine import working_sets

from jacometry import chain_jvp, chain_product, chain_vjp

SIZES = (2, 3, 4, 5, 7, 8, 12, 16, 24, 32, 33, 48, 64, 100, 128)
QUICK_SIZES = {"L2": (2, 4, 8, 16, 32, 64, 128), "32 MB": (4, 64)}
DEPTH = 16
MIN_DEPTH = 4
LEAST_SLOPE = 0.9


def make_cases(options, notes):
    """Every job, regime and size, one after the other."""
    modules = harness.optional("torch", "numba", notes=notes)
    others = {}
    if "torch" in modules:
        others["torch"] = peers.Torch(modules["torch"], options.n_threads)
    if "numba" in modules:
        others["numba"] = peers.Numba(modules["numba"], options.n_threads)
    for make in (_own, _shared, _shared_log_norms, _vjp, _jvp):
        for regime, n_bytes in working_sets().items():
            for n in QUICK_SIZES[regime] if options.quick else SIZES:
                # The seed is the size: the same factors in every run.
                rng = np.random.default_rng(n)
                yield make(n, regime, n_bytes, rng, options, others)


def _depth(n, n_bytes, itemsize):
    """Layers: DEPTH, or fewer where four such chains would not fit."""
    return max(MIN_DEPTH, min(DEPTH, n_bytes // (4 * n * n * itemsize)))


def _reflections(rng, shape, n, dtype):
    v = rng.standard_normal((*shape, n))
    v *= np.sqrt(2) / np.linalg.norm(v, axis=-1, keepdims=True)
    return (np.eye(n) - v[..., :, None] * v[..., None, :]).astype(dtype)


def _slopes(rng, shape, dtype):
    return rng.uniform(LEAST_SLOPE, 1, shape).astype(dtype)


def _tolerance(n, n_layers, dtype, least_slope=1.0):
    """Normwise bound for one answer, doubled for the truth's own rounding.

    A product with an orthogonal factor errs by at most ``(n + 2) u sqrt(n)`` of the Frobenius norm,
    slope included (Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.13), and the
    result is no shorter than ``least_slope**n_layers`` times the product of the factors' norms.
    """
    u = np.finfo(dtype).eps / 2
    return float(2 * n_layers * (n + 2) * np.sqrt(n) * u / least_slope**n_layers)


def _true_product(weights, slopes=None):
    """In float64; weights and slopes per layer."""
    product = None
    for k, weight in enumerate(weights):
        factor = weight.astype(np.float64)
        if slopes is not None:
            factor = slopes[k][:, :, None] * factor
        product = factor if product is None else factor @ product
    return product


def _relative_error(found, expected, n_axes):
    """Largest relative error in the 2-norm (Frobenius norm) over the last n_axes axes."""
    axes = tuple(range(-n_axes, 0))
    difference = np.sqrt(np.sum((found - expected) ** 2, axis=axes))
    return float(np.max(difference / np.sqrt(np.sum(expected**2, axis=axes))))


def _sizes(n, n_samples, n_layers, regime):
    return {"n": n, "B": n_samples, "L": n_layers, "set": regime}


def _own(n, regime, n_bytes, rng, options, others):
    dtype = options.numpy_dtype
    n_layers = _depth(n, n_bytes, dtype.itemsize)
    n_samples = max(1, n_bytes // ((n_layers + 1) * n * n * dtype.itemsize))
    weights = _reflections(rng, (n_samples, n_layers), n, dtype)
    by_layer = np.ascontiguousarray(weights.swapaxes(0, 1))
    expected = _true_product(by_layer)
    contestants = {
        "ours": lambda: chain_product(weights, n_threads=options.n_threads),
        "numpy.matmul": peers.numpy_own(list(weights.swapaxes(0, 1))),
        "numpy.matmul, layers first": peers.numpy_own(list(by_layer)),
    }
    if "torch" in others:
        contestants["torch.bmm, layers first"] = others["torch"].own(list(by_layer))
    if "numba" in others:
        contestants["numba"] = others["numba"].own(weights)
    return harness.Case(
        job="chain_product, own W",
        sizes=_sizes(n, n_samples, n_layers, regime),
        contestants=contestants,
        error=lambda found: _relative_error(np.asarray(found), expected, 2),
        tolerance=_tolerance(n, n_layers, dtype),
        n_units=n_samples * n_layers,
        unit="layer",
        flops=2.0 * n**3 * (n_layers - 1) * n_samples,
        n_bytes=weights.nbytes + weights.nbytes / n_layers,
        working_set=regime,
    )


def _shared_arrays(n, regime, n_bytes, rng, dtype, floats_per_sample):
    n_layers = _depth(n, n_bytes, dtype.itemsize)
    per_sample = (n_layers * n + floats_per_sample) * dtype.itemsize
    n_samples = max(1, n_bytes // per_sample)
    weights = _reflections(rng, (n_layers,), n, dtype)
    return weights, _slopes(rng, (n_samples, n_layers, n), dtype)


def _shared(n, regime, n_bytes, rng, options, others, has_log_norms=False):
    dtype = options.numpy_dtype
    weights, slopes = _shared_arrays(n, regime, n_bytes, rng, dtype, n * n)
    n_samples, n_layers = slopes.shape[:2]
    by_layer = np.ascontiguousarray(slopes.swapaxes(0, 1))
    in_columns = np.ascontiguousarray(by_layer.swapaxes(1, 2))
    expected = _true_product(weights, by_layer)
    expected_log_norms = np.log(np.linalg.norm(expected, axis=(1, 2)))

    def ours():
        product = chain_product(weights, slopes=slopes, n_threads=options.n_threads)
        return (product, product.log_norm()) if has_log_norms else product

    def error(found):
        if not isinstance(found, tuple):
            return _relative_error(np.asarray(found), expected, 2)
        product, log_norms = found
        off = float(np.max(np.abs(log_norms - expected_log_norms)))
        return max(off, _relative_error(np.asarray(product), expected, 2))

    contestants = {
        "ours": ours,
        "numpy.matmul, layers first": peers.numpy_shared(list(weights), list(by_layer)),
        "numpy.matmul, one gemm": peers.numpy_shared_one_gemm(list(weights), list(in_columns)),
    }
    if "torch" in others:
        contestants["torch.mm, one gemm"] = others["torch"].shared(list(weights), list(in_columns))
    if "numba" in others:
        contestants["numba"] = others["numba"].shared(weights, slopes)
    product_bytes = n_samples * n * n * dtype.itemsize
    return harness.Case(
        job=f"chain_product, shared W + slopes{', log-norm (peers: none)' * has_log_norms}",
        sizes=_sizes(n, n_samples, n_layers, regime),
        contestants=contestants,
        error=error,
        tolerance=_tolerance(n, n_layers, dtype, LEAST_SLOPE),
        n_units=n_samples * n_layers,
        unit="layer",
        flops=(2.0 * n**3 * (n_layers - 1) + n * n * n_layers) * n_samples,
        n_bytes=weights.nbytes + slopes.nbytes + product_bytes,
        working_set=regime,
    )


def _shared_log_norms(*arguments):
    return _shared(*arguments, has_log_norms=True)


def _vectors(n, regime, n_bytes, rng, options, others, is_vjp):
    """The cotangent (tangent) of every sample, and its log-norm at every interface."""
    dtype = options.numpy_dtype
    weights, slopes = _shared_arrays(n, regime, n_bytes, rng, dtype, 2 * n)
    n_samples, n_layers = slopes.shape[:2]
    start = rng.standard_normal((n_samples, n)).astype(dtype)
    by_layer = np.ascontiguousarray(slopes.swapaxes(0, 1))
    vector = start.astype(np.float64)
    log_norms = [np.log(np.linalg.norm(vector, axis=1))]
    for k in reversed(range(n_layers)) if is_vjp else range(n_layers):
        weight = weights[k].astype(np.float64)
        vector = (vector * by_layer[k]) @ weight if is_vjp else (vector @ weight.T) * by_layer[k]
        log_norms.append(np.log(np.linalg.norm(vector, axis=1)))
    expected_log_norms = np.stack(log_norms[::-1] if is_vjp else log_norms, axis=1)
    push = chain_vjp if is_vjp else chain_jvp

    def ours():
        return push(weights, start, slopes=slopes, n_threads=options.n_threads)

    def error(found):
        last, log_norms = (
            found if isinstance(found, tuple) else (found.vector.to_array(), found.log_norms)
        )
        off = float(np.max(np.abs(log_norms - expected_log_norms)))
        return max(off, _relative_error(last, vector, 1))

    name = "vjp" if is_vjp else "jvp"
    numpy_peer = peers.numpy_vjp if is_vjp else peers.numpy_jvp
    contestants = {
        "ours": ours,
        "numpy.matmul": numpy_peer(list(weights), list(slopes.swapaxes(0, 1)), start),
        "numpy.matmul, layers first": numpy_peer(list(weights), list(by_layer), start),
    }
    if "torch" in others:
        solver = getattr(others["torch"], name)(list(weights), list(by_layer), start)
        contestants["torch.mm, layers first"] = solver
    if "numba" in others:
        contestants["numba"] = getattr(others["numba"], name)(weights, slopes, start)
    return harness.Case(
        job=f"chain_{name} with log-norms, shared W + slopes",
        sizes=_sizes(n, n_samples, n_layers, regime),
        contestants=contestants,
        error=error,
        tolerance=_tolerance(n, n_layers, dtype, LEAST_SLOPE),
        n_units=n_samples * n_layers,
        unit="layer",
        flops=(2.0 * n * n + 3.0 * n) * n_layers * n_samples,
        n_bytes=weights.nbytes + slopes.nbytes + 2 * start.nbytes + 8 * n_samples * (n_layers + 1),
        working_set=regime,
    )


def _vjp(*arguments):
    return _vectors(*arguments, is_vjp=True)


def _jvp(*arguments):
    return _vectors(*arguments, is_vjp=False)


if __name__ == "__main__":
    sys.exit(harness.main("chain", make_cases, has_roofs=True))
