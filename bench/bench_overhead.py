"""What a call costs before any work is done, and what the import adds to NumPy and SciPy."""

import dataclasses
import subprocess
import sys

import harness
import numpy as np

from jacometry import chain_jvp, chain_product, chain_vjp
from jacometry.ops.moments import gaussian_moments, variance_map
from jacometry.ops.spectral import spectral_norm

N_LAYERS = 4

IMPORT_PROGRAM = """\
import time
import numpy
import scipy.linalg
start = time.perf_counter()
import jacometry
print(time.perf_counter() - start)
"""


def import_seconds():
    """Seconds of ``import jacometry`` in a new interpreter with numpy and scipy.linalg loaded."""
    command = [sys.executable, "-c", IMPORT_PROGRAM]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def make_cases(options, notes):
    """The import, then one small call of every kernel."""
    n_threads = options.n_threads
    dtype = options.numpy_dtype
    rng = np.random.default_rng(2)
    weights = np.stack([np.linalg.qr(rng.standard_normal((2, 2)))[0] for _ in range(N_LAYERS)])
    weights = weights.astype(dtype)
    vector = np.array([0.6, -0.8], dtype)
    tolerance = 100 * float(np.finfo(dtype).eps)
    notes.append("import time and calls are of the dtype given, on inputs that need no conversion")

    yield harness.Case(
        job="import jacometry, beyond numpy and scipy.linalg",
        sizes={"interpreter": "fresh"},
        contestants={"ours": import_seconds},
        error=None,
        tolerance=0.0,
        unit="import",
        is_self_timed=True,
    )

    def product():
        return weights[3] @ weights[2] @ weights[1] @ weights[0]

    def forwards():
        now = vector
        for weight in weights:
            now = weight @ now
        return now

    def backwards():
        now = vector
        for weight in weights[::-1]:
            now = now @ weight
        return now

    def call(job, ours, expected, **peers):
        return harness.Case(
            job=job,
            sizes={"n": 2, "B": 1},
            contestants={"ours": ours, **peers},
            error=lambda found: float(np.max(np.abs(np.asarray(found) - expected))),
            tolerance=tolerance,
        )

    exact = weights.astype(np.float64)
    truth = exact[3] @ (exact[2] @ (exact[1] @ exact[0]))
    yield call(
        f"chain_product call, {N_LAYERS} layers",
        lambda: chain_product(weights, n_threads=n_threads),
        truth,
        numpy=product,
        multi_dot=lambda: np.linalg.multi_dot(weights[::-1]),
    )
    yield _with_answer(
        call(
            f"chain_jvp call, {N_LAYERS} layers (numpy: no norms)",
            lambda: chain_jvp(weights, vector, n_threads=n_threads),
            truth @ vector,
            numpy=forwards,
        )
    )
    yield _with_answer(
        call(
            f"chain_vjp call, {N_LAYERS} layers (numpy: no norms)",
            lambda: chain_vjp(weights, vector, n_threads=n_threads),
            vector @ truth,
            numpy=backwards,
        )
    )
    # Orthogonal: its norm is one.
    yield call(
        "spectral_norm call",
        lambda: spectral_norm(weights[0], n_threads=n_threads),
        1.0,
        numpy=lambda: np.linalg.norm(weights[0], 2),
    )
    # E relu(sqrt(q) z)^2 = q / 2.
    q = np.ones(1, dtype)
    yield call(
        "gaussian_moments call, relu (numpy: one moment in closed form)",
        lambda: gaussian_moments("relu", q, n_threads=n_threads).phi2,
        0.5,
        numpy=lambda: q / 2,
    )
    yield call(
        "variance_map call, relu (numpy: the closed form)",
        lambda: variance_map("relu", q, sigma_w=1.5, sigma_b=0.5, n_threads=n_threads),
        1.5**2 / 2 + 0.25,
        numpy=lambda: 1.5**2 * q / 2 + 0.25,
    )


def _with_answer(case):
    """The case with a `ChainTrace` read as its vector."""

    def error(found):
        return case.error(getattr(found, "vector", found))

    return dataclasses.replace(case, error=error)


if __name__ == "__main__":
    sys.exit(harness.main("overhead", make_cases))
