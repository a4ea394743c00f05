"""A good guest in the host's process: signals, fork, rounding mode, the GIL, backends."""

import ctypes
import ctypes.util
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import jacometry as jm
from jacometry import _kernels, _threads

POSIX = os.name == "posix"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def repeat_forever(weights):
    while True:
        jm.chain_product(weights)


@pytest.mark.parametrize("shape", [(1, 10_000_000, 4), (10_000, 2_000, 8)])
def test_a_long_call_stops_soon_after_ctrl_c(shape):
    n_samples, depth, n = shape
    weights = np.broadcast_to(np.eye(n), (n_samples, depth, n, n))
    sent = []

    def interrupt():
        time.sleep(0.2)
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # may be inherited as ignored
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            repeat_forever(weights)
        delay = time.perf_counter() - sent[0]
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    # The promise is 0.1 s; ten times that tells polling from waiting for the end on a busy machine.
    assert delay < 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_on_one_thread_and_does_not_hang():
    code = """
import os, sys, numpy as np, jacometry as jm
w = np.random.default_rng(0).standard_normal((64, 20, 16, 16))
before = jm.chain_product(w, n_threads=4).mantissa
child = os.fork()
if child == 0:
    after = jm.chain_product(w, n_threads=4).mantissa
    os._exit(0 if (after == before).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def fenv_rounding():
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    return library.fegetround, library.fesetround


@pytest.mark.skipif(
    not (POSIX and os.uname().machine == "x86_64"), reason="rounding constants of x86-64"
)
@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_rounding_mode_of_the_host_changes_nothing_and_is_restored(isa, rng, n_threads):
    fegetround, fesetround = fenv_rounding()
    upward = 0x800
    weights = rng.standard_normal((40, 20, 7, 7))
    expected = jm.chain_product(weights, n_threads=1).mantissa
    try:
        assert fesetround(upward) == 0
        got = jm.chain_product(weights, n_threads=n_threads).mantissa
        assert fegetround() == upward
    finally:
        fesetround(0)
    np.testing.assert_array_equal(got, expected)


def test_other_threads_run_while_a_kernel_computes():
    weights = np.broadcast_to(np.eye(8), (2000, 2000, 8, 8))
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    jm.chain_product(weights, n_threads=1)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert sum(start < t < end for t in ticks) >= 3


def test_openmp_limits_and_arguments_govern_the_threads():
    assert _threads.resolve(3) == 3
    assert 1 <= _threads.resolve(None) <= _kernels.openmp_max_threads()
    code = "from jacometry import _threads; print(_threads.resolve(None))"
    assert run_python(code, OMP_NUM_THREADS="1").stdout.strip() == "1"


def test_the_reference_backend_gives_the_same_answers():
    code = """
import numpy as np, jacometry as jm
w = np.random.default_rng(0).standard_normal((3, 5, 6, 6))
v = np.random.default_rng(1).standard_normal((3, 2, 6))
p, t = jm.chain_product(w, shortcut=0.5), jm.chain_vjp(w, v, keep="all")
print(float(np.sum(p.log_norm())), float(t.log_norms.sum()), float(t.vectors[0].log_abs().sum()))
"""
    compiled, plain = run_python(code), run_python(code, JACOMETRY_BACKEND="reference")
    assert compiled.returncode == plain.returncode == 0, compiled.stderr + plain.stderr
    np.testing.assert_allclose(
        [float(x) for x in compiled.stdout.split()],
        [float(x) for x in plain.stdout.split()],
        rtol=1e-12,
    )
    assert "JACOMETRY_BACKEND must be one of" in run_python(code, JACOMETRY_BACKEND="c").stderr


def test_isa_and_backend_are_chosen_by_environment_or_named_in_an_error():
    code = "from jacometry import _kernels; print(_kernels.active_isa())"
    assert run_python(code, JACOMETRY_ISA="baseline").stdout.strip() == "baseline"
    assert "JACOMETRY_ISA" in run_python(code, JACOMETRY_ISA="z80").stderr
    with pytest.raises(ValueError, match="isa must be one of"):
        _kernels.select_isa("z80")
