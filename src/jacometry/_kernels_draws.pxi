"""Normal numbers by position, in rows of a stream each."""

# Numbers in one call of the kernel, and what a number costs in flops.
cdef Py_ssize_t DRAW_RUN = 1 << 14
cdef double DRAW_COST = 15.0


cdef struct GaussianCall:
    # What one call of gaussian_fill gives to every run of a row.
    gaussian_fill_t kernel
    const uint64_t *keys
    int64_t first
    double scale
    char *out
    Py_ssize_t n_columns
    Py_ssize_t row_bytes
    Py_ssize_t n_runs  # in a row
    Py_ssize_t itemsize


cdef void gaussian_run(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                       char *work) noexcept nogil:
    cdef const GaussianCall *call = <const GaussianCall *>given
    cdef Py_ssize_t row = i // call.n_runs, column = i % call.n_runs * DRAW_RUN
    call.kernel(call.keys + 2 * row, call.first + column, min(DRAW_RUN, call.n_columns - column),
                call.scale, call.out + row * call.row_bytes + column * call.itemsize)


def gaussian_fill(int dtype, keys, int64_t first, double scale, out, int n_threads):
    """keys (B, 2) uint64; out (B, n), contiguous along a row.  B, n >= 1."""
    cdef GaussianCall call
    cdef Py_ssize_t n_rows = out.shape[0]
    call.kernel, call.keys = active.moments.gaussian_fill[dtype], <const uint64_t *>address(keys)
    call.first, call.scale, call.itemsize = first, scale, 8 if dtype else 4
    call.out = <char *>address(out, PyBUF_STRIDED_RO | PyBUF_WRITABLE)
    call.n_columns, call.row_bytes = out.shape[1], out.strides[0]
    call.n_runs = (call.n_columns + DRAW_RUN - 1) // DRAW_RUN
    cdef double cost = DRAW_COST * min(DRAW_RUN, call.n_columns)
    cdef Plan cut = plan(n_rows * call.n_runs, 1, cost, n_threads)
    run_items(gaussian_run, &call, &cut, n_rows * call.n_runs, 1, 0, NULL)
