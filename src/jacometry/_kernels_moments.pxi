"""gaussian_moments and variance_map: points in blocks of a grain."""

# Cost of a moment in the unit of GRAIN, per activation id.
cdef double[6] MOMENT_COST = [50.0, 50.0, 200.0, 200.0, 100.0, 100.0]


cdef jm_activation read_activation(int activation_id, tuple parameters):
    cdef jm_activation activation
    activation.id = activation_id
    activation.parameters[0], activation.parameters[1] = parameters or (0.0, 0.0)
    return activation


cdef struct MomentsCall:
    # What one call of gaussian_moments gives to every block of points.
    gaussian_moments_t kernel
    const jm_activation *activation
    const void *q
    const jm_moments *out
    Py_ssize_t n_points
    Py_ssize_t block


cdef void moments_of_block(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                           char *work) noexcept nogil:
    cdef const MomentsCall *call = <const MomentsCall *>given
    call.kernel(call.activation, call.q, call.out, i * call.block,
                min((i + 1) * call.block, call.n_points))


def gaussian_moments(int dtype, int activation_id, tuple parameters, q, moments, int n_threads):
    cdef MomentsCall call
    cdef jm_activation activation = read_activation(activation_id, parameters)
    cdef jm_moments out
    out.phi, out.phi2 = output(moments[0]), output(moments[1])
    out.dphi, out.dphi2, out.d2phi2 = output(moments[2]), output(moments[3]), output(moments[4])
    call.kernel = active.gaussian_moments[dtype]
    call.activation, call.q, call.out, call.n_points = &activation, address(q), &out, len(q)
    call.block = points_of_grain(activation_id)
    run_blocks(moments_of_block, &call, call.n_points, activation_id, n_threads)


cdef struct MapCall:
    # What one call of variance_map gives to every block of points.
    variance_map_t kernel
    const jm_activation *activation
    const jm_variance_arguments *arguments
    void *out
    Py_ssize_t n_points
    Py_ssize_t block


cdef void map_block(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                    char *work) noexcept nogil:
    cdef const MapCall *call = <const MapCall *>given
    call.kernel(call.activation, call.arguments, call.out, i * call.block,
                min((i + 1) * call.block, call.n_points))


def variance_map(int dtype, int activation_id, tuple parameters, q, sigma_w, sigma_b, out,
                 int n_threads):
    cdef MapCall call
    cdef jm_activation activation = read_activation(activation_id, parameters)
    cdef jm_variance_arguments arguments
    arguments.q, arguments.q_stride = address(q), len(q) != 1
    arguments.sigma_w, arguments.sigma_w_stride = address(sigma_w), len(sigma_w) != 1
    arguments.sigma_b, arguments.sigma_b_stride = address(sigma_b), len(sigma_b) != 1
    call.kernel = active.variance_map[dtype]
    call.activation, call.arguments = &activation, &arguments
    call.out, call.n_points = output(out), len(out)
    call.block = points_of_grain(activation_id)
    run_blocks(map_block, &call, call.n_points, activation_id, n_threads)


cdef Py_ssize_t points_of_grain(int activation_id) noexcept:
    return <Py_ssize_t>(GRAIN / MOMENT_COST[activation_id])


cdef int run_blocks(item_kernel kernel, const void *call, Py_ssize_t n_points, int activation_id,
                    int n_threads) except -1:
    cdef Py_ssize_t block = points_of_grain(activation_id)
    cdef Py_ssize_t n_blocks = (n_points + block - 1) // block
    cdef Plan cut = plan(n_blocks, 1, block * MOMENT_COST[activation_id], n_threads)
    return run_items(kernel, call, &cut, n_blocks, 1, 0, NULL)
