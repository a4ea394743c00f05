"""gaussian_moments and variance_map: points in blocks of a grain.  Also the user's C functions."""

# Cost of a moment in the unit of GRAIN, per activation id.
cdef double[7] MOMENT_COST = [50.0, 50.0, 100.0, 100.0, 100.0, 50.0, 100.0]


cdef int read_activation(int activation_id, tuple parameters, tuple arrays, jm_moment_table *table,
                         jm_activation *activation) except -1:
    """An activation by its parameters, or by the arrays of its table, which `table` then points to."""
    activation.id = activation_id
    activation.parameters[0], activation.parameters[1] = parameters or (0.0, 0.0)
    activation.table = table
    if arrays is not None:
        table.polynomials = <const double *>address(arrays[0])
        table.panels = <const int32_t *>address(arrays[1])
        table.ends = <const double *>address(arrays[2])
    return 0


cdef struct MomentsCall:
    # What one call of gaussian_moments gives to every block of points.
    gaussian_moments_t kernel
    const jm_activation *activation
    const void *q
    const jm_moments *out
    Py_ssize_t n_points
    Py_ssize_t block
    char *is_lacking  # of a block: whether the table lacks a panel for a point


cdef void moments_of_block(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                           char *work) noexcept nogil:
    cdef const MomentsCall *call = <const MomentsCall *>given
    call.is_lacking[i] = call.kernel(call.activation, call.q, call.out, i * call.block,
                                     min((i + 1) * call.block, call.n_points)) != 0


def gaussian_moments(int dtype, int activation_id, tuple parameters, tuple table, q, moments,
                     int n_threads):
    cdef MomentsCall call
    cdef jm_activation activation
    cdef jm_moment_table arrays
    read_activation(activation_id, parameters, table, &arrays, &activation)
    cdef jm_moments out
    out.phi, out.phi2 = output(moments[0]), output(moments[1])
    out.dphi, out.dphi2, out.d2phi2 = output(moments[2]), output(moments[3]), output(moments[4])
    out.phi2_slope = output(moments[5])
    call.kernel = active.moments.gaussian_moments[dtype]
    call.activation, call.q, call.out, call.n_points = &activation, address(q), &out, len(q)
    call.block = points_of_grain(activation_id)
    is_lacking = bytearray(n_blocks(call.n_points, call.block))
    call.is_lacking = <char *>output(is_lacking)
    run_blocks(moments_of_block, &call, call.n_points, activation_id, n_threads)
    return any(is_lacking)


cdef struct MapCall:
    # What one call of variance_map gives to every block of points.
    variance_map_t kernel
    const jm_activation *activation
    const jm_variance_arguments *arguments
    void *out
    Py_ssize_t n_points
    Py_ssize_t block
    char *is_lacking  # of a block: whether the table lacks a panel for a point


cdef void map_block(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                    char *work) noexcept nogil:
    cdef const MapCall *call = <const MapCall *>given
    call.is_lacking[i] = call.kernel(call.activation, call.arguments, call.out, i * call.block,
                                     min((i + 1) * call.block, call.n_points)) != 0


def variance_map(int dtype, int activation_id, tuple parameters, tuple table, q, sigma_w, sigma_b,
                 out, int n_threads):
    cdef MapCall call
    cdef jm_activation activation
    cdef jm_moment_table arrays
    read_activation(activation_id, parameters, table, &arrays, &activation)
    cdef jm_variance_arguments arguments
    arguments.q, arguments.q_stride = address(q), len(q) != 1
    arguments.sigma_w, arguments.sigma_w_stride = address(sigma_w), len(sigma_w) != 1
    arguments.sigma_b, arguments.sigma_b_stride = address(sigma_b), len(sigma_b) != 1
    call.kernel = active.moments.variance_map[dtype]
    call.activation, call.arguments = &activation, &arguments
    call.out, call.n_points = output(out), len(out)
    call.block = points_of_grain(activation_id)
    is_lacking = bytearray(n_blocks(call.n_points, call.block))
    call.is_lacking = <char *>output(is_lacking)
    run_blocks(map_block, &call, call.n_points, activation_id, n_threads)
    return any(is_lacking)


cdef Py_ssize_t points_of_grain(int activation_id) noexcept:
    return <Py_ssize_t>(GRAIN / MOMENT_COST[activation_id])


cdef Py_ssize_t n_blocks(Py_ssize_t n_points, Py_ssize_t block) noexcept:
    return (n_points + block - 1) // block


cdef int run_blocks(item_kernel kernel, const void *call, Py_ssize_t n_points, int activation_id,
                    int n_threads) except -1:
    cdef Py_ssize_t block = points_of_grain(activation_id)
    cdef Py_ssize_t count = n_blocks(n_points, block)
    cdef Plan cut = plan(count, 1, block * MOMENT_COST[activation_id], n_threads)
    return run_items(kernel, call, &cut, count, 1, 0, NULL)


ctypedef double (*function_of_one)(double) noexcept nogil
ctypedef double (*function_with_data)(double, void *) noexcept nogil


def call_function(size_t function, bint wants_data, size_t user_data, x, out):
    """out[i] = function(x[i]) for a C function at an address; float64, of the same length."""
    cdef const double *argument = <const double *>address(x)
    cdef double *result = <double *>output(out)
    cdef Py_ssize_t i, n_items = x.size
    with nogil:
        if wants_data:
            for i in range(n_items):
                result[i] = (<function_with_data>function)(argument[i], <void *>user_data)
        else:
            for i in range(n_items):
                result[i] = (<function_of_one>function)(argument[i])
