"""exp and tanh in lanes, compiled alone for each instruction set of this machine."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import mpmath
import numpy as np
import pytest

from jacometry import _kernels

CSRC = Path(__file__).parents[2] / "csrc"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# GNU vector types and these flags: not for MSVC.
pytestmark = pytest.mark.skipif(
    COMPILER is None or not CSRC.exists(), reason="needs a C compiler and the C sources"
)

DRIVER = """
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#define JM_T double
#define JM_IS_F64 1
#define JM_NAME(name) name##_f64
#include "simd.inc.h"
#include "kernels/activation.inc.h"
void exp_lanes(ptrdiff_t n, const double *x, double *out) {
    for (ptrdiff_t i = 0; i < n; i += JM_VW)
        JM_STORE(out + i, exp_negative_f64(JM_LOAD(x + i)));
}
void tanh_lanes(ptrdiff_t n, const double *x, double *out) {
    for (ptrdiff_t i = 0; i < n; i += JM_VW)
        JM_STORE(out + i, tanh_positive_f64(JM_LOAD(x + i)));
}
"""
FLAGS = {
    "plain": [],
    "baseline": ["-DJM_VECTOR_BYTES=16"],
    "avx2": ["-DJM_VECTOR_BYTES=32", "-mavx2", "-mfma"],
    "avx512": ["-DJM_VECTOR_BYTES=64", "-mavx512f", "-mavx512dq", "-mavx2", "-mfma"],
}


@pytest.fixture(scope="module", params=["plain", *_kernels.available_isas()])
def lanes(request, tmp_path_factory):
    """The two functions on arrays whose length is a multiple of every vector width."""
    folder = tmp_path_factory.mktemp(request.param)
    source, library = folder / "lanes.c", folder / "lanes.so"
    source.write_text(DRIVER)
    subprocess.run(
        [
            *(COMPILER, "-std=gnu11", "-O2", "-ffp-contract=off", "-fPIC", "-shared"),
            *(f"-I{CSRC}", *FLAGS[request.param], str(source), "-o", str(library), "-lm"),
        ],
        check=True,
    )
    loaded = ctypes.CDLL(str(library))

    def apply(name, x):
        out = np.empty_like(x)
        pointers = (ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data))
        getattr(loaded, name)(ctypes.c_ssize_t(len(x)), *pointers)
        return out

    return apply


def relative_error(found, x, function):
    with mpmath.workdps(40):
        return max(
            abs(mpmath.mpf(f) / function(mpmath.mpf(v)) - 1)
            for f, v in zip(found.tolist(), x.tolist(), strict=True)
        )


def test_exp_is_within_two_units_of_roundoff(lanes, rng):
    near = -np.geomspace(1e-300, 708, 400)
    x = np.concatenate([near, -rng.uniform(0, 40, 400)])
    assert relative_error(lanes("exp_lanes", x), x, mpmath.exp) <= 2 * 2.0**-53


def test_exp_is_exact_at_zero_and_ends_above_the_subnormals(lanes):
    x = np.array([0.0, -0.0, -1e-320, -708.0, -709.0, -1e300, -np.inf, -1.0])
    found = lanes("exp_lanes", x)
    np.testing.assert_array_equal(found[:3], 1.0)
    np.testing.assert_array_equal(found[4:7], found[3])


def test_tanh_is_within_five_units_of_roundoff(lanes, rng):
    x = np.concatenate([np.geomspace(1e-300, 350, 400), rng.uniform(0, 6, 400)])
    assert relative_error(lanes("tanh_lanes", x), x, mpmath.tanh) <= 5 * 2.0**-53
    assert lanes("tanh_lanes", np.zeros(8)).tolist() == [0.0] * 8
