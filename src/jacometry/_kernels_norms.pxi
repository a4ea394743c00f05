"""spectral_norm: batches by Gram matrices, single matrices by Lanczos; sums of squares."""


cdef struct GramCall:
    # What one call of spectral_norm_gram gives to every group of matrices.
    spectral_norm_gram_t kernel
    Py_ssize_t n_items
    Py_ssize_t group
    Py_ssize_t rows
    Py_ssize_t cols
    Py_ssize_t itemsize
    const char *entries
    double rtol
    double *bounds
    char *ends
    int64_t *exponent
    int *status
    char *is_extreme  # of each group: whether an end may be further out than its bound


cdef void norms_of_group(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                         char *work) noexcept nogil:
    cdef const GramCall *call = <const GramCall *>given
    cdef Py_ssize_t first = i * call.group
    call.is_extreme[i] = call.kernel(
        min(call.group, call.n_items - first), call.rows, call.cols,
        call.entries + first * call.rows * call.cols * call.itemsize, call.rtol,
        call.bounds + first if call.bounds else NULL, call.ends + first * call.itemsize,
        call.n_items, call.exponent + first if call.exponent else NULL,
        call.status + first if call.status else NULL, work)


def spectral_norm_gram(int dtype, a, double rtol, bounds, ends, exponent, status, int n_threads):
    """a (B, m, n); bounds (3, B) float64, ends (3, B) of a's dtype, exponent int64, status intc.

    All but ends may be None.  True if an end may be further out than its bound.
    """
    cdef GramCall call
    cdef Py_ssize_t rows = a.shape[1], cols = a.shape[2]
    call.kernel = active.norms.spectral_norm_gram[dtype]
    call.group = active.norms.spectral_norm_gram_group[dtype](rows, cols)
    call.n_items, call.rows, call.cols, call.itemsize = a.shape[0], rows, cols, 8 if dtype else 4
    call.entries, call.rtol = <const char *>address(a), rtol
    call.bounds, call.ends = <double *>output(bounds), <char *>output(ends)
    call.exponent, call.status = <int64_t *>output(exponent), <int *>output(status)
    cdef Py_ssize_t n_groups = (call.n_items + call.group - 1) // call.group
    cdef double size = min(rows, cols), length = max(rows, cols)
    cdef Plan cut = plan(n_groups, 1, 2 * call.group * size * size * (size + length), n_threads)
    cdef size_t bytes = active.norms.spectral_norm_gram_work[dtype](rows, cols)
    cdef char *work = workspace(bytes * cut.n_spaces + n_groups, "spectral_norm")
    cdef Py_ssize_t i
    call.is_extreme = work + bytes * cut.n_spaces
    try:
        run_items(norms_of_group, &call, &cut, n_groups, 1, bytes, work)
        for i in range(n_groups):
            if call.is_extreme[i]:
                return True
        return False
    finally:
        jm_free(work)


# Steps of a usual Lanczos item; two passes over the matrix each.
cdef double LANCZOS_STEPS = 40.0


cdef struct LanczosCall:
    # What one call of spectral_norm_lanczos gives to every matrix.
    spectral_norm_lanczos_t kernel
    Py_ssize_t rows
    Py_ssize_t cols
    Py_ssize_t max_iter
    Py_ssize_t itemsize
    const char *entries
    const double *start
    double rtol
    double log_level
    double *bounds
    int64_t *exponent
    int64_t *n_iter
    int *status


cdef void norm_of_one(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                      char *work) noexcept nogil:
    cdef const LanczosCall *call = <const LanczosCall *>given
    call.status[i] = call.kernel(
        call.rows, call.cols, call.entries + i * call.rows * call.cols * call.itemsize,
        call.start + i * call.cols, call.rtol, call.log_level, call.max_iter, call.bounds + 4 * i,
        call.exponent + i, call.n_iter + i, work)


def spectral_norm_lanczos(int dtype, a, start, double rtol, double log_level, Py_ssize_t max_iter,
                          bounds, exponent, n_iter, status, int n_threads):
    """a (B, m, n), start (B, n) float64; bounds (B, 4) float64, exponent, n_iter int64, status intc."""
    cdef LanczosCall call
    cdef Py_ssize_t n_items = a.shape[0], rows = a.shape[1], cols = a.shape[2]
    call.kernel, call.rows, call.cols = active.norms.spectral_norm_lanczos[dtype], rows, cols
    call.max_iter, call.rtol, call.log_level = max_iter, rtol, log_level
    call.entries, call.itemsize = <const char *>address(a), 8 if dtype else 4
    call.start, call.bounds = <const double *>address(start), <double *>output(bounds)
    call.exponent, call.n_iter = <int64_t *>output(exponent), <int64_t *>output(n_iter)
    call.status = <int *>output(status)
    cdef double steps = min(<double>max_iter, LANCZOS_STEPS)
    cdef Plan cut = plan(n_items, 1, 4 * steps * rows * cols, n_threads)
    cdef size_t bytes = active.norms.spectral_norm_lanczos_work[dtype](cols, max_iter)
    cdef char *work = workspace(bytes * cut.n_spaces, "spectral_norm")
    try:
        run_items(norm_of_one, &call, &cut, n_items, 1, bytes, work)
    finally:
        jm_free(work)


# Entries summed in one call of the kernel.
cdef double RUN = 4096.0


cdef struct SquaresCall:
    # What one call of sum_squares gives to every run of items.
    sum_squares_t kernel
    Py_ssize_t n_items
    Py_ssize_t n_entries
    Py_ssize_t run
    Py_ssize_t itemsize
    const char *entries
    double *squares


cdef void squares_of_run(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                         char *work) noexcept nogil:
    cdef const SquaresCall *call = <const SquaresCall *>given
    cdef Py_ssize_t first = i * call.run
    call.kernel(min(call.run, call.n_items - first), call.n_entries,
                call.entries + first * call.n_entries * call.itemsize, call.squares + first)


def sum_squares(int dtype, a, squares, int n_threads):
    """a (B, n); squares (B,) float64."""
    cdef SquaresCall call
    call.kernel, call.n_items, call.n_entries = active.norms.sum_squares[dtype], a.shape[0], a.shape[1]
    call.entries, call.itemsize = <const char *>address(a), 8 if dtype else 4
    call.squares, call.run = <double *>output(squares), max(1, <Py_ssize_t>(RUN / call.n_entries))
    cdef Py_ssize_t n_runs = (call.n_items + call.run - 1) // call.run
    cdef Plan cut = plan(n_runs, 1, 2.0 * call.run * call.n_entries, n_threads)
    run_items(squares_of_run, &call, &cut, n_runs, 1, 0, NULL)
