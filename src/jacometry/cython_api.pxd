# The C API for Cython: `cimport jacometry.cython_api`, jacometry.get_include() among the include
# directories.  jacometry/types.h describes the structs, jacometry/functions.h the functions.
from libc.stdint cimport int64_t


cdef extern from "jacometry/types.h" nogil:
    enum:
        JM_OK
        JM_NON_FINITE
        JM_NOT_CONVERGED
        JM_SLOPE_OUTPUT
        JM_SLOPE_INPUT

    ctypedef struct jm_layer:
        const void *weights
        const void *slopes
        Py_ssize_t weights_stride
        Py_ssize_t slopes_stride
        Py_ssize_t rows
        Py_ssize_t cols
        double shortcut

    ctypedef struct jm_chain "jm_chain_v1":
        Py_ssize_t n_layers
        Py_ssize_t n_distinct
        int slope_side
        int from_last
        const jm_layer *layers
        jm_layer first
        Py_ssize_t weights_layer_stride
        Py_ssize_t slopes_layer_stride
        const double *shortcuts

    ctypedef struct jm_vectors "jm_vectors_v1":
        Py_ssize_t n_vectors
        Py_ssize_t per_sample
        int has_shared_weights
        const void *start
        double *log_norms
        void **kept
        int64_t **kept_exponents

    ctypedef struct jm_lyapunov "jm_lyapunov_v1":
        Py_ssize_t max_width
        int is_square
        Py_ssize_t n_columns
        Py_ssize_t burn_in
        Py_ssize_t n_batches
        const void *start
        double *exponents
        double *standard_errors
        double *history


# From here on written by tests/abi/write_cython_api.py.
cdef size_t jm_chain_product_work_f32(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil
cdef size_t jm_chain_product_work_f64(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil
cdef int jm_chain_product_f32(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, float *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_chain_product_f64(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef size_t jm_chain_vectors_work_f32(Py_ssize_t max_width) noexcept nogil
cdef size_t jm_chain_vectors_work_f64(Py_ssize_t max_width) noexcept nogil
cdef Py_ssize_t jm_chain_vectors_group_f32(
    Py_ssize_t max_width, int has_shared_weights
) noexcept nogil
cdef Py_ssize_t jm_chain_vectors_group_f64(
    Py_ssize_t max_width, int has_shared_weights
) noexcept nogil
cdef int jm_chain_jvp_f32(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_chain_jvp_f64(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_chain_vjp_f32(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_chain_vjp_f64(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef size_t jm_chain_log_svdvals_work_f32(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil
cdef size_t jm_chain_log_svdvals_work_f64(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil
cdef int jm_chain_log_svdvals_f32(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_chain_log_svdvals_f64(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef Py_ssize_t jm_lyapunov_spectrum_group_f32(const jm_lyapunov *job) noexcept nogil
cdef Py_ssize_t jm_lyapunov_spectrum_group_f64(const jm_lyapunov *job) noexcept nogil
cdef size_t jm_lyapunov_spectrum_work_f32(const jm_lyapunov *job) noexcept nogil
cdef size_t jm_lyapunov_spectrum_work_f64(const jm_lyapunov *job) noexcept nogil
cdef int jm_lyapunov_spectrum_f32(
    const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
cdef int jm_lyapunov_spectrum_f64(
    const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil
