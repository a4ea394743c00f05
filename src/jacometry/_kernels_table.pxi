"""What csrc declares, as Cython sees it: the structures of a call, and the table of kernels."""

cdef extern from "jm_kernels.h" nogil:
    ctypedef struct jm_layer:
        const void *weights
        const void *slopes
        Py_ssize_t weights_stride
        Py_ssize_t slopes_stride
        Py_ssize_t rows
        Py_ssize_t cols
        double shortcut

    ctypedef struct jm_chain:
        Py_ssize_t n_layers
        Py_ssize_t n_distinct
        int slope_side
        const jm_layer *layers
        jm_layer first
        Py_ssize_t weights_layer_stride
        Py_ssize_t slopes_layer_stride
        const double *shortcuts
        int from_last

    ctypedef struct jm_vectors:
        Py_ssize_t n_vectors
        Py_ssize_t per_sample
        int has_shared_weights
        const void *start
        double *log_norms
        void **kept
        int64_t **kept_exponents

    ctypedef struct jm_lyapunov:
        Py_ssize_t max_width
        int is_square
        Py_ssize_t n_columns
        Py_ssize_t burn_in
        Py_ssize_t n_batches
        const void *start
        double *exponents
        double *standard_errors
        double *history

cdef extern from "jm_kernels.h" nogil:
    ctypedef struct jm_moment_table:
        const double *polynomials
        const int32_t *panels
        const double *ends

    ctypedef struct jm_activation:
        int id
        double parameters[2]
        const jm_moment_table *table

    ctypedef struct jm_moments:
        void *phi
        void *phi2
        void *dphi
        void *dphi2
        void *d2phi2
        void *phi2_slope

    ctypedef struct jm_variance_arguments:
        const void *q
        const void *sigma_w
        const void *sigma_b
        Py_ssize_t q_stride
        Py_ssize_t sigma_w_stride
        Py_ssize_t sigma_b_stride

    ctypedef struct jm_two_point_table:
        const double *coefficients
        const int32_t *patches
        Py_ssize_t n_octaves
        int low_octave
        int first_log2

ctypedef int (*two_point_table_t)(
    const jm_two_point_table *, const void *, const void *, int, void *, Py_ssize_t,
    Py_ssize_t) noexcept nogil
ctypedef int (*gaussian_moments_t)(
    const jm_activation *, const void *, const jm_moments *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef int (*variance_map_t)(
    const jm_activation *, const jm_variance_arguments *, void *, Py_ssize_t,
    Py_ssize_t) noexcept nogil
ctypedef int (*chain_product_t)(
    const jm_chain *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, void *, int64_t *,
    Py_ssize_t *, void *) noexcept nogil
ctypedef Py_ssize_t (*chain_product_group_t)(const jm_chain *) noexcept nogil
ctypedef void (*chain_products_t)(
    const jm_chain *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, void *, int64_t *,
    Py_ssize_t *, void *) noexcept nogil
ctypedef int (*chain_vectors_t)(
    const jm_chain *, const jm_vectors *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t *, void *) noexcept nogil
ctypedef int (*lyapunov_spectrum_t)(
    const jm_chain *, const jm_lyapunov *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t *, void *) noexcept nogil
ctypedef Py_ssize_t (*lyapunov_group_t)(const jm_lyapunov *) noexcept nogil
ctypedef size_t (*lyapunov_work_t)(const jm_lyapunov *) noexcept nogil
ctypedef int (*chain_log_svdvals_t)(
    const jm_chain *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *, double *,
    Py_ssize_t *, void *) noexcept nogil
ctypedef int (*svdvals_end_t)(
    Py_ssize_t, Py_ssize_t, int, double *, double *, void *) noexcept nogil
ctypedef Py_ssize_t (*svdvals_group_t)(const jm_chain *, Py_ssize_t) noexcept nogil
ctypedef int (*sum_squares_t)(Py_ssize_t, Py_ssize_t, const void *, double *) noexcept nogil
ctypedef int (*gaussian_fill_t)(
    const uint64_t *, int64_t, Py_ssize_t, double, void *) noexcept nogil
ctypedef int (*spectral_norm_gram_t)(
    Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, double, double *, void *, Py_ssize_t, int64_t *,
    int *, void *) noexcept nogil
ctypedef int (*spectral_norm_lanczos_t)(
    Py_ssize_t, Py_ssize_t, const void *, const double *, double, double, Py_ssize_t, double *,
    int64_t *, int64_t *, void *) noexcept nogil
ctypedef size_t (*size_t_of_two)(Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef size_t (*size_t_of_one)(Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*count_of_two)(Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*chain_group_t)(Py_ssize_t, int) noexcept nogil

cdef extern from "jm_kernels.h" nogil:
    ctypedef struct jm_chains_kernels:
        size_t_of_two chain_product_work[2]
        chain_product_t chain_product[2]
        chain_product_group_t chain_product_group[2]
        chain_products_t chain_products[2]
        size_t_of_one chain_vectors_work[2]
        chain_group_t chain_vectors_group[2]
        chain_vectors_t chain_jvp[2]
        chain_vectors_t chain_vjp[2]

    ctypedef struct jm_spectra_kernels:
        lyapunov_group_t lyapunov_spectrum_group[2]
        lyapunov_work_t lyapunov_spectrum_work[2]
        lyapunov_spectrum_t lyapunov_spectrum[2]
        size_t_of_two chain_log_svdvals_work[2]
        chain_log_svdvals_t chain_log_svdvals[2]
        svdvals_group_t chain_log_svdvals_group[2]
        size_t_of_one chain_log_svdvals_lanes_work[2]
        chain_log_svdvals_t chain_log_svdvals_lanes[2]
        size_t_of_two chain_log_svdvals_one_work[2]
        chain_log_svdvals_t chain_log_svdvals_one[2]
        svdvals_end_t chain_log_svdvals_end[2]

    ctypedef struct jm_norms_kernels:
        count_of_two spectral_norm_gram_group[2]
        size_t_of_two spectral_norm_gram_work[2]
        spectral_norm_gram_t spectral_norm_gram[2]
        size_t_of_two spectral_norm_lanczos_work[2]
        spectral_norm_lanczos_t spectral_norm_lanczos[2]
        sum_squares_t sum_squares[2]

    ctypedef struct jm_moments_kernels:
        gaussian_fill_t gaussian_fill[2]
        gaussian_moments_t gaussian_moments[2]
        variance_map_t variance_map[2]
        two_point_table_t two_point_table[2]

    ctypedef struct jm_table:
        const char *isa
        const jm_chains_kernels *chains
        const jm_spectra_kernels *spectra
        const jm_norms_kernels *norms
        const jm_moments_kernels *moments

    const jm_table jm_tables[]
    int jm_n_tables()

cdef extern from "exports.h" nogil:
    ctypedef struct jm_capi:
        pass
    const jm_table *active "jm_active"
    const jm_capi jm_exports
    const char *JM_CAPSULE

cdef extern from "host.h" nogil:
    ctypedef struct jm_fp_environment:
        pass
    jm_fp_environment jm_fp_enter()
    void jm_fp_leave(jm_fp_environment saved)
    int jm_openmp_max_threads()
    int jm_has_openmp()
    void *jm_malloc(size_t n)
    void jm_free(void *aligned)
