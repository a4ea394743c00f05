# cython: language_level=3, boundscheck=False, wraparound=False
"""jacometry's kernels from Cython: describe a chain, bring the workspace, call without the GIL."""
from jacometry.cython_api cimport (
    JM_OK, jm_chain, jm_chain_product_f64, jm_chain_product_work_f64, jm_chain_vectors_work_f64,
    jm_chain_vjp_f64, jm_vectors,
)
from libc.math cimport log, sqrt
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset

import numpy as np


cdef jm_chain chain_of(const double[:, :, ::1] weights) noexcept nogil:
    """Square factors that lie one after the other, without slopes or shortcuts."""
    cdef jm_chain chain
    memset(&chain, 0, sizeof(chain))  # what is not set is absent
    chain.n_layers = weights.shape[0]
    chain.first.weights = &weights[0, 0, 0]
    chain.first.rows = chain.first.cols = weights.shape[1]
    chain.weights_layer_stride = weights.shape[1] * weights.shape[1]
    return chain


cdef void *aligned(unsigned char[::1] block) noexcept nogil:
    """The first multiple of 64 in a block."""
    return <void *>((<uintptr_t>&block[0] + 63) // 64 * 64)


cdef int check(const double[:, :, ::1] weights) except -1:
    """The kernels check nothing, so the caller does."""
    if weights.shape[0] < 1 or weights.shape[1] < 1 or weights.shape[1] != weights.shape[2]:
        raise ValueError("weights must have shape (L, n, n) with L, n >= 1")
    return 0


def product_log_norm(const double[:, :, ::1] weights):
    """Natural log of the Frobenius norm of ``weights[-1] @ ... @ weights[0]``."""
    check(weights)
    cdef jm_chain chain = chain_of(weights)
    cdef Py_ssize_t n = weights.shape[1], bad_layer, i, j
    cdef double[:, ::1] mantissa = np.empty((n, n))
    cdef unsigned char[::1] block = np.empty(jm_chain_product_work_f64(n, n) + 63, np.uint8)
    cdef void *work = aligned(block)
    cdef int64_t exponent
    cdef double square = 0
    cdef int status
    with nogil:
        status = jm_chain_product_f64(
            &chain, 0, n, 0, chain.n_layers, &mantissa[0, 0], &exponent, &bad_layer, work
        )
        for i in range(n):
            for j in range(n):
                square += mantissa[i, j] * mantissa[i, j]
    if status != JM_OK:
        raise ValueError(f"layer {bad_layer} is not finite")
    return log(sqrt(square)) + exponent * log(2)


def gradient_log_norms(const double[:, :, ::1] weights, const double[::1] cotangent):
    """Natural logs of the norms of a backpropagated vector at the L + 1 interfaces."""
    check(weights)
    if cotangent.shape[0] != weights.shape[1]:
        raise ValueError("cotangent must have shape (n,)")
    cdef jm_chain chain = chain_of(weights)
    cdef Py_ssize_t n = weights.shape[1], n_layers = weights.shape[0], bad_layer
    log_norms = np.empty(n_layers + 1)
    cdef double[::1] log_norms_out = log_norms
    cdef size_t[:, ::1] kept = np.zeros((2, n_layers + 1), np.uintp)  # NULL: keep no vectors
    cdef unsigned char[::1] block = np.empty(jm_chain_vectors_work_f64(n) + 63, np.uint8)
    cdef void *work = aligned(block)
    cdef jm_vectors vectors
    cdef int status
    vectors.n_vectors = vectors.per_sample = vectors.has_shared_weights = 1
    vectors.start = &cotangent[0]
    vectors.log_norms = &log_norms_out[0]
    vectors.kept = <void **>&kept[0, 0]
    vectors.kept_exponents = <int64_t **>&kept[1, 0]
    with nogil:
        status = jm_chain_vjp_f64(&chain, &vectors, n, 0, 1, 0, n_layers, &bad_layer, work)
    if status != JM_OK:
        raise ValueError(f"layer {bad_layer} is not finite")
    return log_norms
