"""Chains of other shapes than `bench_chain`: own weights under vectors, few vectors, rectangles."""

import sys
from functools import reduce
from itertools import pairwise

import harness
import numpy as np
from bench_chain import LEAST_SLOPE, _depth, _reflections, _relative_error, _slopes, _tolerance
from machine import working_sets

from jacometry import chain_jvp, chain_product, chain_vjp

SIZES = (4, 8, 16, 32, 64, 128)
QUICK_SIZES = (4, 32)
# Widths of the interfaces in units of n: narrow at the input, in the middle, at the output.
RECTANGLES = {
    "narrow input": (1, 8, 8, 8, 8),
    "narrow output": (8, 8, 8, 8, 1),
    "narrow middle": (8, 8, 1, 8, 8),
    "hourglasses": (4, 8, 2, 8, 1, 8, 4),
}


def make_cases(options, notes):
    """Every job and size, one after the other."""
    sizes = QUICK_SIZES if options.quick else SIZES
    for is_vjp in (True, False):
        for regime, n_bytes in working_sets().items():
            for n in sizes:
                for m in (1, 8):
                    yield _own_weights(n, m, regime, n_bytes, options, is_vjp)
        for n in sizes:
            yield _few_vectors(n, options, is_vjp)
    for name, units in RECTANGLES.items():
        for n in sizes:
            yield _rectangular(name, [n * unit for unit in units], options)


def _own_weights(n, m, regime, n_bytes, options, is_vjp):
    """Every sample's own W, m vectors each."""
    dtype, rng = options.numpy_dtype, np.random.default_rng(n)
    n_layers = _depth(n, n_bytes, dtype.itemsize)
    n_samples = max(1, n_bytes // (n_layers * (n * n + n) * dtype.itemsize))
    weights = _reflections(rng, (n_samples, n_layers), n, dtype)
    start = rng.standard_normal((n_samples, m, n)).astype(dtype)
    slopes = _slopes(rng, (n_samples, n_layers, n), dtype)
    sizes = {"n": n, "m": m, "B": n_samples, "L": n_layers, "set": regime}
    return _vectors("own W + slopes", sizes, weights, slopes, start, options, is_vjp)


def _few_vectors(n, options, is_vjp):
    """64 vectors through shared weights: what is left to a second thread."""
    dtype, rng, n_layers = options.numpy_dtype, np.random.default_rng(n), 64
    weights = _reflections(rng, (n_layers,), n, dtype)
    start = rng.standard_normal((64, 1, n)).astype(dtype)
    slopes = _slopes(rng, (64, n_layers, n), dtype)
    sizes = {"n": n, "m": 1, "B": 64, "L": n_layers}
    return _vectors("64 of them, shared W + slopes", sizes, weights, slopes, start, options, is_vjp)


def _vectors(job, sizes, weights, slopes, start, options, is_vjp):
    n_layers, n = slopes.shape[1:]
    by_layer = np.ascontiguousarray(slopes.swapaxes(0, 1))[:, :, None]
    matrices = list(np.moveaxis(weights, -3, 0))
    order = range(n_layers)

    def push(start):
        now, log_norms = start, [np.log(np.linalg.norm(start, axis=-1))]
        for k in reversed(order) if is_vjp else order:
            if is_vjp:
                now = (now * by_layer[k]) @ matrices[k]
            else:
                now = (now @ matrices[k].swapaxes(-1, -2)) * by_layer[k]
            log_norms.append(0.5 * np.log(np.einsum("bmi,bmi->bm", now, now)))
        return now, np.stack(log_norms[::-1] if is_vjp else log_norms, axis=-1)

    expected, expected_log_norms = push(start.astype(np.float64))
    ours = chain_vjp if is_vjp else chain_jvp

    def error(found):
        last, log_norms = (
            found if isinstance(found, tuple) else (found.vector.to_array(), found.log_norms)
        )
        off = float(np.max(np.abs(log_norms - expected_log_norms)))
        return max(off, _relative_error(last, expected, 1))

    n_vectors = start.shape[0] * start.shape[1]
    return harness.Case(
        job=f"chain_{'vjp' if is_vjp else 'jvp'} with log-norms, {job}",
        sizes=sizes,
        contestants={
            "ours": lambda: ours(weights, start, slopes=slopes, n_threads=options.n_threads),
            "numpy.matmul": lambda: push(start),
        },
        error=error,
        tolerance=_tolerance(n, n_layers, options.numpy_dtype, LEAST_SLOPE),
        n_units=n_vectors * n_layers,
        unit="layer",
        flops=(2.0 * n * n + 3.0 * n) * n_layers * n_vectors,
        n_bytes=weights.nbytes + slopes.nbytes + 2 * start.nbytes + 8 * n_vectors * (n_layers + 1),
    )


def _rectangular(name, widths, options):
    """One chain of rectangular factors: the order is ours, left to right, or multi_dot's."""
    dtype, rng = options.numpy_dtype, np.random.default_rng(widths[0])
    factors = [rng.uniform(0.5, 1, (b, a)).astype(dtype) for a, b in pairwise(widths)]
    exact = [factor.astype(np.float64) for factor in factors]
    expected = np.linalg.multi_dot(exact[::-1])
    # Positive entries: the bound of the docstring is relative to the product itself.
    tolerance = 2 * sum(n + 2 for n in widths[:-1]) * float(np.finfo(dtype).eps)
    return harness.Case(
        job=f"chain_product, rectangular, {name}",
        sizes={"n": min(widths), "B": 1, "L": len(factors)},
        contestants={
            "ours": lambda: chain_product(factors, n_threads=options.n_threads),
            "numpy, first to last": lambda: reduce(lambda now, f: f @ now, factors),
            "multi_dot": lambda: np.linalg.multi_dot(factors[::-1]),
        },
        error=lambda found: _relative_error(np.asarray(found), expected, 2),
        tolerance=tolerance,
        n_units=len(factors),
        unit="layer",
    )


if __name__ == "__main__":
    sys.exit(harness.main("chain_shapes", make_cases))
