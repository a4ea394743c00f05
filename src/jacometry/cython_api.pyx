# cython: language_level=3, freethreading_compatible=True
# Written by tests/abi/write_cython_api.py from jacometry/functions.h.
"""The C API as functions to cimport: each is one of the capsule's."""

cdef extern from "jacometry/capi.h":
    int jm_import() except -1

cdef extern from "jacometry/capi.h" nogil:
    size_t c_jm_chain_product_work_f32 "jm_chain_product_work_f32"(
        Py_ssize_t max_width, Py_ssize_t n_in
    )
    size_t c_jm_chain_product_work_f64 "jm_chain_product_work_f64"(
        Py_ssize_t max_width, Py_ssize_t n_in
    )
    int c_jm_chain_product_f32 "jm_chain_product_f32"(
        const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
        Py_ssize_t end, float *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_chain_product_f64 "jm_chain_product_f64"(
        const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
        Py_ssize_t end, double *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
    )
    size_t c_jm_chain_vectors_work_f32 "jm_chain_vectors_work_f32"(Py_ssize_t max_width)
    size_t c_jm_chain_vectors_work_f64 "jm_chain_vectors_work_f64"(Py_ssize_t max_width)
    Py_ssize_t c_jm_chain_vectors_group_f32 "jm_chain_vectors_group_f32"(
        Py_ssize_t max_width, int has_shared_weights
    )
    Py_ssize_t c_jm_chain_vectors_group_f64 "jm_chain_vectors_group_f64"(
        Py_ssize_t max_width, int has_shared_weights
    )
    int c_jm_chain_jvp_f32 "jm_chain_jvp_f32"(
        const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
        Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_chain_jvp_f64 "jm_chain_jvp_f64"(
        const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
        Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_chain_vjp_f32 "jm_chain_vjp_f32"(
        const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
        Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_chain_vjp_f64 "jm_chain_vjp_f64"(
        const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
        Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )
    size_t c_jm_chain_log_svdvals_work_f32 "jm_chain_log_svdvals_work_f32"(
        Py_ssize_t max_width, Py_ssize_t n_in
    )
    size_t c_jm_chain_log_svdvals_work_f64 "jm_chain_log_svdvals_work_f64"(
        Py_ssize_t max_width, Py_ssize_t n_in
    )
    int c_jm_chain_log_svdvals_f32 "jm_chain_log_svdvals_f32"(
        const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
        Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_chain_log_svdvals_f64 "jm_chain_log_svdvals_f64"(
        const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
        Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
    )
    Py_ssize_t c_jm_lyapunov_spectrum_group_f32 "jm_lyapunov_spectrum_group_f32"(
        const jm_lyapunov *job
    )
    Py_ssize_t c_jm_lyapunov_spectrum_group_f64 "jm_lyapunov_spectrum_group_f64"(
        const jm_lyapunov *job
    )
    size_t c_jm_lyapunov_spectrum_work_f32 "jm_lyapunov_spectrum_work_f32"(const jm_lyapunov *job)
    size_t c_jm_lyapunov_spectrum_work_f64 "jm_lyapunov_spectrum_work_f64"(const jm_lyapunov *job)
    int c_jm_lyapunov_spectrum_f32 "jm_lyapunov_spectrum_f32"(
        const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
        Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )
    int c_jm_lyapunov_spectrum_f64 "jm_lyapunov_spectrum_f64"(
        const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
        Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
    )

jm_import()


cdef size_t jm_chain_product_work_f32(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil:
    return c_jm_chain_product_work_f32(max_width, n_in)


cdef size_t jm_chain_product_work_f64(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil:
    return c_jm_chain_product_work_f64(max_width, n_in)


cdef int jm_chain_product_f32(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, float *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_product_f32(
        chain, sample, max_width, begin, end, mantissa, exponent, bad_layer, work
    )


cdef int jm_chain_product_f64(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *mantissa, int64_t *exponent, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_product_f64(
        chain, sample, max_width, begin, end, mantissa, exponent, bad_layer, work
    )


cdef size_t jm_chain_vectors_work_f32(Py_ssize_t max_width) noexcept nogil:
    return c_jm_chain_vectors_work_f32(max_width)


cdef size_t jm_chain_vectors_work_f64(Py_ssize_t max_width) noexcept nogil:
    return c_jm_chain_vectors_work_f64(max_width)


cdef Py_ssize_t jm_chain_vectors_group_f32(
    Py_ssize_t max_width, int has_shared_weights
) noexcept nogil:
    return c_jm_chain_vectors_group_f32(max_width, has_shared_weights)


cdef Py_ssize_t jm_chain_vectors_group_f64(
    Py_ssize_t max_width, int has_shared_weights
) noexcept nogil:
    return c_jm_chain_vectors_group_f64(max_width, has_shared_weights)


cdef int jm_chain_jvp_f32(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_jvp_f32(chain, vectors, max_width, first, count, begin, end, bad_layer, work)


cdef int jm_chain_jvp_f64(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_jvp_f64(chain, vectors, max_width, first, count, begin, end, bad_layer, work)


cdef int jm_chain_vjp_f32(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_vjp_f32(chain, vectors, max_width, first, count, begin, end, bad_layer, work)


cdef int jm_chain_vjp_f64(
    const jm_chain *chain, const jm_vectors *vectors, Py_ssize_t max_width, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_vjp_f64(chain, vectors, max_width, first, count, begin, end, bad_layer, work)


cdef size_t jm_chain_log_svdvals_work_f32(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil:
    return c_jm_chain_log_svdvals_work_f32(max_width, n_in)


cdef size_t jm_chain_log_svdvals_work_f64(Py_ssize_t max_width, Py_ssize_t n_in) noexcept nogil:
    return c_jm_chain_log_svdvals_work_f64(max_width, n_in)


cdef int jm_chain_log_svdvals_f32(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_log_svdvals_f32(
        chain, sample, max_width, begin, end, values, errors, bad_layer, work
    )


cdef int jm_chain_log_svdvals_f64(
    const jm_chain *chain, Py_ssize_t sample, Py_ssize_t max_width, Py_ssize_t begin,
    Py_ssize_t end, double *values, double *errors, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_chain_log_svdvals_f64(
        chain, sample, max_width, begin, end, values, errors, bad_layer, work
    )


cdef Py_ssize_t jm_lyapunov_spectrum_group_f32(const jm_lyapunov *job) noexcept nogil:
    return c_jm_lyapunov_spectrum_group_f32(job)


cdef Py_ssize_t jm_lyapunov_spectrum_group_f64(const jm_lyapunov *job) noexcept nogil:
    return c_jm_lyapunov_spectrum_group_f64(job)


cdef size_t jm_lyapunov_spectrum_work_f32(const jm_lyapunov *job) noexcept nogil:
    return c_jm_lyapunov_spectrum_work_f32(job)


cdef size_t jm_lyapunov_spectrum_work_f64(const jm_lyapunov *job) noexcept nogil:
    return c_jm_lyapunov_spectrum_work_f64(job)


cdef int jm_lyapunov_spectrum_f32(
    const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_lyapunov_spectrum_f32(chain, job, first, count, begin, end, bad_layer, work)


cdef int jm_lyapunov_spectrum_f64(
    const jm_chain *chain, const jm_lyapunov *job, Py_ssize_t first, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t *bad_layer, void *work
) noexcept nogil:
    return c_jm_lyapunov_spectrum_f64(chain, job, first, count, begin, end, bad_layer, work)
