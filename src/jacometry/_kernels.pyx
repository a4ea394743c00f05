# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The only module that links csrc: picks a table slot, releases the GIL, loops over items.

Which slots, and what a call gives to each item, stands in a file for each family of kernels,
included below; the loop itself in _kernels_loop.pxi.
"""
from cpython.buffer cimport (
    PyBUF_RECORDS_RO, PyBUF_SIMPLE, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

include "_kernels_table.pxi"

cdef extern from "Python.h":
    # Declared again because the stock cimport swallows KeyboardInterrupt in places.
    int PyErr_CheckSignals() except -1
    # And this one so that a refusal is an answer, not an exception.
    int PyObject_TryBuffer "PyObject_GetBuffer"(object, Py_buffer *, int) noexcept
    void PyErr_Clear() noexcept
    const Py_ssize_t PY_SSIZE_T_MAX


active = &jm_tables[jm_n_tables() - 1]
c_api = PyCapsule_New(<void *>&jm_exports, JM_CAPSULE, NULL)


def available_isas():
    return [jm_tables[i].isa.decode() for i in range(jm_n_tables())]


def active_isa():
    return active.isa.decode()


def select_isa(name):
    global active
    for i in range(jm_n_tables()):
        if jm_tables[i].isa.decode() == name:
            active = &jm_tables[i]
            return
    raise ValueError(f"isa must be one of {available_isas()}, got {name!r}")


def openmp_max_threads():
    return jm_openmp_max_threads()


def has_openmp():
    return bool(jm_has_openmp())


cdef void *address(object array, int flags=PyBUF_SIMPLE) except? NULL:
    """Where a contiguous array's elements are; the caller keeps the array alive."""
    cdef Py_buffer view
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, flags)
    cdef void *pointer = view.buf
    PyBuffer_Release(&view)
    return pointer


def address_of(array):
    """Where the elements of an array of any strides are, as an integer."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDED_RO)
    cdef size_t where = <size_t>view.buf
    PyBuffer_Release(&view)
    return where


cdef void *output(object array) except? NULL:
    return address(array, PyBUF_WRITABLE)


include "_kernels_loop.pxi"
include "_chain_layout.pxi"
include "_kernels_chain.pxi"
include "_kernels_spectra.pxi"
include "_kernels_moments.pxi"
include "_kernels_correlations.pxi"
include "_kernels_norms.pxi"
include "_kernels_draws.pxi"
