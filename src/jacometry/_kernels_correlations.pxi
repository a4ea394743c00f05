"""two_point_table: points in blocks of a grain."""

# Flops of a point, in the unit of GRAIN.
cdef double TWO_POINT_COST = 1000.0


cdef struct TwoPointCall:
    # What one call of two_point_table gives to every block of points.
    two_point_table_t kernel
    const jm_two_point_table *table
    const void *q
    const void *near
    int which
    void *out
    Py_ssize_t n_points
    Py_ssize_t block
    char *is_lacking  # of a block: whether the table lacks a patch for a point


cdef void two_point_block(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                          char *work) noexcept nogil:
    cdef const TwoPointCall *call = <const TwoPointCall *>given
    call.is_lacking[i] = call.kernel(call.table, call.q, call.near, call.which, call.out,
                                     i * call.block, min((i + 1) * call.block, call.n_points)) != 0


def two_point_table(int dtype, coefficients, patches, Py_ssize_t n_octaves, int low_octave,
                    int first_log2, q, near, int which, out, int n_threads):
    cdef jm_two_point_table table
    table.coefficients = <const double *>address(coefficients)
    table.patches = <const int32_t *>address(patches)
    table.n_octaves, table.low_octave, table.first_log2 = n_octaves, low_octave, first_log2
    cdef TwoPointCall call
    call.kernel, call.table, call.which = active.moments.two_point_table[dtype], &table, which
    call.q, call.near, call.out, call.n_points = address(q), address(near), output(out), len(q)
    call.block = <Py_ssize_t>(GRAIN / TWO_POINT_COST)
    cdef Py_ssize_t count = n_blocks(call.n_points, call.block)
    is_lacking = bytearray(count)
    call.is_lacking = <char *>output(is_lacking)
    cdef Plan cut = plan(count, 1, GRAIN, n_threads)
    run_items(two_point_block, &call, &cut, count, 1, 0, NULL)
    return any(is_lacking)
