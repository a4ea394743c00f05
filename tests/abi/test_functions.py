"""The functions of the C API, called by address as C, Cython and numba call them."""

import ctypes
import ctypes.util
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import jacometry as jm
from jacometry import _kernels, cython_api

SIGNATURES = dict(
    line.split(": ")
    for line in Path(__file__).with_name("signatures.txt").read_text(encoding="utf-8").splitlines()
)
C_TYPES = {"size_t": ctypes.c_size_t, "Py_ssize_t": ctypes.c_ssize_t, "int": ctypes.c_int}
WIDTHS = (5, 9, 3, 17, 1, 4)
N_SAMPLES = 2
JM_OK, JM_NON_FINITE = 0, 1


class Layer(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("slopes", ctypes.c_void_p),
        ("weights_stride", ctypes.c_ssize_t),
        ("slopes_stride", ctypes.c_ssize_t),
        ("rows", ctypes.c_ssize_t),
        ("cols", ctypes.c_ssize_t),
        ("shortcut", ctypes.c_double),
    )


class CChain(ctypes.Structure):
    _fields_ = (
        ("n_layers", ctypes.c_ssize_t),
        ("n_distinct", ctypes.c_ssize_t),
        ("slope_side", ctypes.c_int),
        ("from_last", ctypes.c_int),
        ("layers", ctypes.POINTER(Layer)),
        ("first", Layer),
        ("weights_layer_stride", ctypes.c_ssize_t),
        ("slopes_layer_stride", ctypes.c_ssize_t),
        ("shortcuts", ctypes.c_void_p),
    )


class Vectors(ctypes.Structure):
    _fields_ = (
        ("n_vectors", ctypes.c_ssize_t),
        ("per_sample", ctypes.c_ssize_t),
        ("has_shared_weights", ctypes.c_int),
        ("start", ctypes.c_void_p),
        ("log_norms", ctypes.c_void_p),
        ("kept", ctypes.c_void_p),
        ("kept_exponents", ctypes.c_void_p),
    )


class Lyapunov(ctypes.Structure):
    _fields_ = (
        ("max_width", ctypes.c_ssize_t),
        ("is_square", ctypes.c_int),
        ("n_columns", ctypes.c_ssize_t),
        ("burn_in", ctypes.c_ssize_t),
        ("n_batches", ctypes.c_ssize_t),
        ("start", ctypes.c_void_p),
        ("exponents", ctypes.c_void_p),
        ("standard_errors", ctypes.c_void_p),
        ("history", ctypes.c_void_p),
    )


def pointer_in(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name.encode())


@pytest.fixture(params=["capsule", "cimport"])
def function(request, dtype):
    """A function of the API for the dtype at hand, by either way to it."""

    def find(kernel):
        name = f"jm_{kernel}_f{8 * dtype.itemsize}"
        signature = SIGNATURES[name]
        result, parameters = signature.removesuffix(")").split(" (")
        types = [C_TYPES.get(t, ctypes.c_void_p) for t in (result, *parameters.split(", "))]
        if request.param == "cimport":
            address = pointer_in(cython_api.__pyx_capi__[name], signature)
        else:
            slots = pointer_in(_kernels.c_api, "jacometry._kernels.c_api") + 8
            address = (ctypes.c_void_p * len(SIGNATURES)).from_address(slots)[
                list(SIGNATURES).index(name)
            ]
        return ctypes.CFUNCTYPE(*types)(address)

    return find


class Case:
    """A rectangular chain with shared weights and slopes of each sample, in Python and in C."""

    def __init__(self, rng, dtype, widths=WIDTHS):
        self.dtype = dtype
        self.weights = [
            (1e3 * rng.standard_normal((rows, cols))).astype(dtype)
            for cols, rows in pairwise(widths)
        ]
        self.slopes = [rng.random((N_SAMPLES, w.shape[0])).astype(dtype) for w in self.weights]
        self.n_layers = len(self.weights)
        self.layers = (Layer * self.n_layers)(
            *(
                Layer(w.ctypes.data, s.ctypes.data, 0, s.shape[1], *w.shape, 0.0)
                for w, s in zip(self.weights, self.slopes, strict=True)
            )
        )
        self.chain = CChain(n_layers=self.n_layers, n_distinct=self.n_layers, layers=self.layers)
        self.address = ctypes.addressof(self.chain)

    def product(self, function, sample, cuts=()):
        """Status, mantissa, exponent and bad layer of a sample, taken in ranges of layers."""
        mantissa = np.empty((WIDTHS[-1], WIDTHS[0]), self.dtype)
        exponent, bad_layer = ctypes.c_int64(), ctypes.c_ssize_t()
        work = workspace(function("chain_product_work")(max(WIDTHS), WIDTHS[0]))
        kernel = function("chain_product")
        edges = (0, *cuts, self.n_layers)
        for begin, end in pairwise(edges):
            status = kernel(
                self.address, sample, max(WIDTHS), begin, end, mantissa.ctypes.data,
                ctypes.addressof(exponent), ctypes.addressof(bad_layer), work.ctypes.data,
            )  # fmt: skip
        return status, mantissa, exponent.value, bad_layer.value

    def log_svdvals(self, function, sample, cuts=()):
        """Status, values, errors and bad layer of a sample, taken in ranges of layers."""
        n_in, n_out = self.weights[0].shape[1], self.weights[-1].shape[0]
        max_width = max(max(w.shape) for w in self.weights)
        values, errors = np.empty((2, min(n_in, n_out)))
        bad_layer = ctypes.c_ssize_t()
        work = workspace(function("chain_log_svdvals_work")(max_width, n_in))
        kernel = function("chain_log_svdvals")
        for begin, end in pairwise((0, *cuts, self.n_layers)):
            status = kernel(
                self.address, sample, max_width, begin, end, values.ctypes.data,
                errors.ctypes.data, ctypes.addressof(bad_layer), work.ctypes.data,
            )  # fmt: skip
        return status, values, errors, bad_layer.value


def workspace(size):
    """`size` bytes that start at a multiple of 64."""
    block = np.empty(size + 63, np.uint8)
    return block[-block.ctypes.data % 64 :][:size]


@pytest.fixture
def case(rng, dtype):
    return Case(rng, dtype)


@pytest.mark.parametrize("cuts", [(), (2, 3)])
def test_the_product_is_pythons_bit_for_bit(isa, case, function, cuts):
    expected = jm.chain_product(case.weights, slopes=case.slopes)
    for sample in range(N_SAMPLES):
        status, mantissa, exponent, bad_layer = case.product(function, sample, cuts)
        assert (status, bad_layer) == (JM_OK, -1)
        np.testing.assert_array_equal(mantissa, expected.mantissa[sample], strict=True)
        assert exponent == expected.exponent[sample]


@pytest.mark.parametrize("cuts", [(), (2, 3)])
@pytest.mark.parametrize("is_square", [True, False])
def test_the_singular_values_are_pythons_bit_for_bit(isa, rng, dtype, function, cuts, is_square):
    case = Case(rng, dtype, (6,) * 6 if is_square else WIDTHS)
    expected = jm.chain_log_svdvals(case.weights, slopes=case.slopes)
    for sample in range(N_SAMPLES):
        status, values, errors, bad_layer = case.log_svdvals(function, sample, cuts)
        assert (status, bad_layer) == (JM_OK, -1)
        np.testing.assert_array_equal(values, expected.values[sample], strict=True)
        np.testing.assert_array_equal(errors, expected.error[sample], strict=True)
    case.weights[4][0, 0] = np.inf
    status, values, errors, bad_layer = case.log_svdvals(function, 1, cuts)
    assert (status, bad_layer) == (JM_NON_FINITE, 4)
    assert np.isnan([values, errors]).all()


def test_a_layer_that_is_not_finite_is_named(isa, case, function):
    case.slopes[3][1, 0] = np.nan
    assert case.product(function, 0)[0] == JM_OK
    status, mantissa, _, bad_layer = case.product(function, 1)
    assert (status, bad_layer) == (JM_NON_FINITE, 3)
    assert np.isnan(mantissa).any()


@pytest.mark.parametrize("kernel", ["chain_jvp", "chain_vjp"])
def test_vectors_and_log_norms_are_pythons_bit_for_bit(isa, case, function, kernel, rng):
    start_width = WIDTHS[0] if kernel == "chain_jvp" else WIDTHS[-1]
    start = rng.standard_normal((N_SAMPLES, 3, start_width)).astype(case.dtype)
    expected = getattr(jm, kernel)(case.weights, start, slopes=case.slopes, keep="all")

    n_vectors = N_SAMPLES * 3
    log_norms = np.empty((n_vectors, case.n_layers + 1))
    kept = [np.empty((n_vectors, n), case.dtype) for n in WIDTHS]
    exponents = [np.empty(n_vectors, np.int64) for _ in WIDTHS]
    addresses = np.array([[a.ctypes.data for a in arrays] for arrays in (kept, exponents)])
    vectors = Vectors(
        n_vectors, 3, 1, start.ctypes.data, log_norms.ctypes.data,
        addresses[0].ctypes.data, addresses[1].ctypes.data,
    )  # fmt: skip
    work = workspace(function("chain_vectors_work")(max(WIDTHS)))
    bad_layers = np.empty(n_vectors, np.intp)
    group = function("chain_vectors_group")(max(WIDTHS), 1)
    for first in range(0, n_vectors, group):
        status = function(kernel)(
            case.address, ctypes.addressof(vectors), max(WIDTHS), first,
            min(group, n_vectors - first), 0, case.n_layers, bad_layers[first:].ctypes.data,
            work.ctypes.data,
        )  # fmt: skip
        assert status == JM_OK

    assert (bad_layers == -1).all()
    np.testing.assert_array_equal(log_norms.reshape(expected.log_norms.shape), expected.log_norms)
    for k, scaled in enumerate(expected.vectors):
        np.testing.assert_array_equal(kept[k].reshape(scaled.mantissa.shape), scaled.mantissa)
        np.testing.assert_array_equal(exponents[k].reshape(scaled.exponent.shape), scaled.exponent)


@pytest.mark.parametrize("width", [0, 3, 12], ids=["rectangular", "in lanes", "in panels"])
def test_the_lyapunov_spectrum_is_pythons_bit_for_bit(isa, case, function, rng, width):
    """One that is asked for by hand: history, two ranges of layers, a bad item that harms none."""
    n_samples, chain = N_SAMPLES, case.chain
    weights, slopes, widths = case.weights, case.slopes, WIDTHS
    if width:
        n_samples, widths = 5, (width,) * 12
        weights = rng.standard_normal((n_samples, 11, width, width)).astype(case.dtype)
        weights[3, 7, 1, 0] = np.inf
        slopes = None
        first = Layer(weights.ctypes.data, None, 11 * width**2, 0, width, width, 0.0)
        chain = CChain(n_layers=11, n_distinct=1, first=first, weights_layer_stride=width**2)
    n_columns, burn_in, n_layers = min(2, *widths), 2, len(widths) - 1
    n_counted = n_layers - burn_in
    expected = jm.lyapunov_spectrum(
        weights, slopes=slopes, k=n_columns, burn_in=burn_in, history=True, rng=8,
        check_finite=False,
    )  # fmt: skip

    start = np.random.default_rng(8).standard_normal((widths[0], n_columns)).astype(case.dtype)
    exponents, errors = np.empty((2, n_samples, n_columns))
    history = np.empty((n_samples, n_counted, n_columns))
    job = Lyapunov(
        max(widths), int(len(set(widths)) == 1), n_columns, burn_in, min(32, n_counted),
        start.ctypes.data, exponents.ctypes.data, errors.ctypes.data, history.ctypes.data,
    )  # fmt: skip
    here, address = ctypes.addressof(job), ctypes.addressof(chain)
    work = workspace(function("lyapunov_spectrum_work")(here))
    group = function("lyapunov_spectrum_group")(here)
    bad_layers = np.empty(n_samples, np.intp)
    for low in range(0, n_samples, group):
        count = min(group, n_samples - low)
        for begin, end in ((0, 3), (3, n_layers)):
            status = function("lyapunov_spectrum")(
                address, here, low, count, begin, end, bad_layers[low:].ctypes.data,
                work.ctypes.data,
            )  # fmt: skip
        is_bad = width and low <= 3 < low + count
        assert status == (JM_NON_FINITE if is_bad else JM_OK)

    assert bad_layers.tolist() == [7 if width and i == 3 else -1 for i in range(n_samples)]
    np.testing.assert_array_equal(exponents, expected.exponents)
    np.testing.assert_array_equal(errors, expected.stderr)
    np.testing.assert_array_equal(history, expected.history)


@pytest.mark.skipif(
    not (os.name == "posix" and os.uname().machine == "x86_64"),
    reason="rounding constants of x86-64",
)
def test_the_callers_rounding_mode_changes_nothing_and_stays(case, function):
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = 0x800
    _, expected, exponent, _ = case.product(function, 0)
    libm.fesetround(upward)
    try:
        _, found, found_exponent, _ = case.product(function, 0)
        rounding = libm.fegetround()
    finally:
        libm.fesetround(0)
    assert rounding == upward
    np.testing.assert_array_equal(found, expected)
    assert found_exponent == exponent


def test_threads_may_call_at_once(case, function):
    expected = [case.product(function, sample)[1] for sample in range(N_SAMPLES)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda i: case.product(function, i % N_SAMPLES)[1], range(200))
        for i, mantissa in enumerate(found):
            np.testing.assert_array_equal(mantissa, expected[i % N_SAMPLES])
