"""chain_log_svdvals and lyapunov_spectrum."""


cdef struct SvdvalsCall:
    # What one call of chain_log_svdvals gives to every item: a group of samples in lanes, or a sample.
    chain_log_svdvals_t kernel
    svdvals_end_t finish
    const jm_chain *chain
    const Py_ssize_t *which  # the samples that are items, one by one; NULL: groups of all samples
    Py_ssize_t first         # item of this round
    Py_ssize_t group
    Py_ssize_t n_samples
    Py_ssize_t max_width
    Py_ssize_t n_values
    Py_ssize_t n_pairs       # in a piece
    bint is_long             # items have a workspace each, and their ends come in pieces
    bint is_first            # the first of those pieces
    double *values
    double *errors
    Py_ssize_t *bad_layer
    int *has_more            # per item: its end has pieces to come
    char *work
    size_t bytes


cdef void reduce_group(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                       char *work) noexcept nogil:
    cdef const SvdvalsCall *call = <const SvdvalsCall *>given
    cdef Py_ssize_t at = (call.first + i) * call.group
    call.kernel(call.chain, at, min(call.group, call.n_samples - at), begin, end,
                call.values + at * call.n_values, call.errors + at * call.n_values,
                call.bad_layer + at, work)


cdef void reduce_one(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                     char *work) noexcept nogil:
    cdef const SvdvalsCall *call = <const SvdvalsCall *>given
    cdef Py_ssize_t at = call.which[call.first + i]
    cdef double *values = call.values + at * call.n_values
    cdef double *errors = call.errors + at * call.n_values
    call.kernel(call.chain, at, call.max_width, begin, end, values, errors, call.bad_layer + at, work)
    if not call.is_long:
        call.finish(call.n_values, PY_SSIZE_T_MAX, True, values, errors, work)


cdef void finish_one(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                     char *work) noexcept nogil:
    """A piece of a long item's end, which its own workspace waits for."""
    cdef const SvdvalsCall *call = <const SvdvalsCall *>given
    cdef Py_ssize_t at = call.which[call.first + i]
    if call.has_more[i]:
        call.has_more[i] = call.finish(
            call.n_values, call.n_pairs, call.is_first, call.values + at * call.n_values,
            call.errors + at * call.n_values, call.work + i * call.bytes)


def chain_log_svdvals(int dtype, ChainLayout spec, Py_ssize_t n_samples, values, errors, bad_layer,
                      double layer_cost, int n_threads):
    """values and errors (B, r) float64."""
    cdef SvdvalsCall call
    memset(&call, 0, sizeof(call))
    call.chain, call.max_width, call.n_values = &spec.chain, spec.max_width, values.shape[1]
    call.n_samples = n_samples
    call.finish = active.spectra.chain_log_svdvals_end[dtype]
    call.values, call.errors = <double *>output(values), <double *>output(errors)
    call.bad_layer = <Py_ssize_t *>output(bad_layer)
    call.group = active.spectra.chain_log_svdvals_group[dtype](&spec.chain, spec.max_width)
    bad_layer.fill(1)
    if call.group:
        call.kernel = active.spectra.chain_log_svdvals_lanes[dtype]
        call.bytes = active.spectra.chain_log_svdvals_lanes_work[dtype](spec.n_in)
        svdvals_loop(&call, reduce_group, (n_samples + call.group - 1) // call.group,
                     call.group * layer_cost, n_threads)
    left = bad_layer.nonzero()[0]
    bad_layer.fill(-1)
    if len(left):
        call.kernel = active.spectra.chain_log_svdvals_one[dtype]
        call.bytes = active.spectra.chain_log_svdvals_one_work[dtype](spec.max_width, spec.n_in)
        call.which = <const Py_ssize_t *>address(left)
        svdvals_loop(&call, reduce_one, len(left), 1.5 * layer_cost, n_threads)
    return first_bad(call.bad_layer, n_samples)


cdef int svdvals_loop(SvdvalsCall *call, item_kernel kernel, Py_ssize_t n_items, double layer_cost,
                      int n_threads) except -1:
    cdef int has_more[8]  # IN_FLIGHT
    cdef Py_ssize_t n_layers = call.chain.n_layers, count, i
    # Latency, not flops, bounds the smallest factors; a pair takes some 10 n flops.
    cdef Plan cut = plan(n_items, n_layers, layer_cost + 1000.0 * call.max_width, n_threads)
    call.n_pairs = max(1, <Py_ssize_t>(ROUND / IN_FLIGHT / (10.0 * call.max_width)))
    call.is_long, call.has_more = cut.is_long, &has_more[0]
    call.work = workspace(call.bytes * cut.n_spaces, "chain_log_svdvals")
    try:
        call.first = 0
        while call.first < n_items:
            count = min(cut.items_per_round, n_items - call.first)
            run_items(kernel, call, &cut, count, n_layers, call.bytes, call.work)
            if cut.is_long and call.which != NULL:
                for i in range(count):
                    has_more[i] = True
                call.is_first = True
                while any_of(has_more, count):
                    run_items(finish_one, call, &cut, count, 1, 0, call.work)
                    call.is_first = False
            call.first += count
    finally:
        jm_free(call.work)
    return 0


cdef bint any_of(const int *flags, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        if flags[i]:
            return True
    return False


cdef struct LyapunovCall:
    # What one call of lyapunov_spectrum gives to every group of samples.
    lyapunov_spectrum_t kernel
    const jm_chain *chain
    const jm_lyapunov *job
    Py_ssize_t n_samples
    Py_ssize_t group
    Py_ssize_t *bad_layer


cdef void follow_group(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                       char *work) noexcept nogil:
    cdef const LyapunovCall *call = <const LyapunovCall *>given
    cdef Py_ssize_t first = i * call.group
    call.kernel(call.chain, call.job, first, min(call.group, call.n_samples - first), begin, end,
                call.bad_layer + first, work)


def lyapunov_spectrum(int dtype, ChainLayout spec, bint is_square, Py_ssize_t n_columns,
                      Py_ssize_t burn_in, Py_ssize_t n_batches, start, exponents, standard_errors,
                      history, bad_layer, double layer_cost, int n_threads):
    cdef LyapunovCall call
    cdef jm_lyapunov job
    job.max_width, job.is_square, job.n_columns = spec.max_width, is_square, n_columns
    job.burn_in, job.n_batches = burn_in, n_batches
    job.start = address(start)
    job.exponents = <double *>output(exponents)
    job.standard_errors = <double *>output(standard_errors)
    job.history = NULL if history is None else <double *>output(history)
    call.kernel, call.chain, call.job = active.spectra.lyapunov_spectrum[dtype], &spec.chain, &job
    call.n_samples, call.bad_layer = len(bad_layer), <Py_ssize_t *>output(bad_layer)
    call.group = active.spectra.lyapunov_spectrum_group[dtype](&job)
    cdef Py_ssize_t n_groups = (call.n_samples + call.group - 1) // call.group
    # Latency, not flops, bounds the smallest columns.
    cdef double group_cost = call.group * layer_cost + 500.0 * n_columns
    cdef Plan cut = plan(n_groups, spec.n_layers, group_cost, n_threads)
    cdef size_t bytes = active.spectra.lyapunov_spectrum_work[dtype](&job)
    cdef char *work = workspace(bytes * cut.n_spaces, "lyapunov_spectrum")
    try:
        run_items(follow_group, &call, &cut, n_groups, spec.n_layers, bytes, work)
    finally:
        jm_free(work)
    return first_bad(call.bad_layer, call.n_samples)
