"""What several test files use."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Matrices with awkward entries whose certain bounds are checked in exact arithmetic: more by night.
N_ADVERSARIAL = int(os.environ.get("JACOMETRY_ADVERSARIAL", "5000"))


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def with_singular_values(rng, sigma, shape):
    m, n = shape
    size = min(m, n)
    left, right = orthogonal(rng, m)[:, :size], orthogonal(rng, n)[:, :size]
    return (left * sigma) @ right.T


def hard_matrices(rng, shape):
    """Spectra that flatter nobody, by name."""
    m, n = shape
    size = min(m, n)
    index = np.arange(size)
    return {
        "gaussian": rng.standard_normal(shape),
        "orthogonal": with_singular_values(rng, np.ones(size), shape),
        "rank one": np.outer(rng.standard_normal(m), rng.standard_normal(n)),
        "ones": np.ones(shape),
        "projection": with_singular_values(rng, index < (size + 1) // 2, shape),
        "cluster": with_singular_values(rng, 1 - 1e-6 * index, shape),
        "tight cluster": with_singular_values(rng, 1 - 1e-10 * index, shape),
        "graded": with_singular_values(rng, 10.0**-index, shape),
        "graded rows": rng.standard_normal(shape) * 10.0 ** -np.arange(m)[:, None],
        "diagonal": np.eye(m, n) * np.arange(1, n + 1),
        "zero": np.zeros(shape),
        "one entry": np.eye(1, m * n, m * n // 2).reshape(shape),
        "nilpotent": np.eye(m, n, 1) * 50.0 + np.eye(m, n) * 0.9,
    }


def run_python(code):
    """The words that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def seconds_after_ctrl_c(setup, call):
    """How long a call, repeated for ever in a fresh interpreter, goes on after an interrupt."""
    code = f"""
import signal, threading, time, numpy as np, jacometry as jm
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits "ignore"
{setup}
sent = []
def interrupt():
    time.sleep(0.2)
    sent.append(time.perf_counter())
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    while True:
        {call}
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""
    return float(run_python(code)[0])


# What is allocated is the same everywhere; the peak of one process is read where Linux tells it.
reads_peak = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")


def bytes_grown(setup, call, result="0"):
    """By how much a call raises a fresh interpreter's peak, less `result`: the bytes it returns."""
    code = f"""
import numpy as np, jacometry as jm
def peak():
    with open("/proc/self/status") as lines:
        return 1024 * next(int(x.split()[1]) for x in lines if x.startswith("VmHWM"))
{setup}
before = peak()
found = {call}
print(peak() - before - ({result}))
"""
    return int(run_python(code)[0])


def plane_means(phi, e, q):
    """E phi(u1) phi(u2) and half of E (phi(u1) - phi(u2))**2, by the trapezoidal rule."""
    z = np.arange(-9, 9.05, 0.1)
    w = np.exp(-0.5 * z**2) * 0.1 / math.sqrt(2 * math.pi)
    near = math.sqrt(q * (1 - e / 2)) * z[:, None]
    far = math.sqrt(q * e / 2) * z
    one, two = phi(near + far), phi(near - far)
    return w @ (one * two) @ w, w @ ((one - two) ** 2 / 2) @ w
