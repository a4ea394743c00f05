# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The only module that links csrc: picks a table slot, releases the GIL, loops over items."""
from cpython.buffer cimport (
    PyBUF_RECORDS_RO, PyBUF_SIMPLE, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int64_t
from libc.string cimport memset


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
    ctypedef struct jm_activation:
        int id
        double parameters[2]

    ctypedef struct jm_moments:
        void *phi
        void *phi2
        void *dphi
        void *dphi2
        void *d2phi2

    ctypedef struct jm_variance_arguments:
        const void *q
        const void *sigma_w
        const void *sigma_b
        Py_ssize_t q_stride
        Py_ssize_t sigma_w_stride
        Py_ssize_t sigma_b_stride

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
ctypedef int (*spectral_norm_gram_t)(
    Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, double, double *, void *, Py_ssize_t, int64_t *,
    int *, void *) noexcept nogil
ctypedef int (*spectral_norm_lanczos_t)(
    Py_ssize_t, Py_ssize_t, const void *, const double *, double, double, Py_ssize_t, double *,
    int64_t *, int64_t *, void *) noexcept nogil
ctypedef size_t (*size_t_of_two)(Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef size_t (*size_t_of_one)(Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*size_of_nothing)() noexcept nogil
ctypedef Py_ssize_t (*chain_group_t)(Py_ssize_t, int) noexcept nogil

cdef extern from "jm_kernels.h" nogil:
    ctypedef struct jm_table:
        const char *isa
        size_t_of_two chain_product_work[2]
        chain_product_t chain_product[2]
        chain_product_group_t chain_product_group[2]
        chain_products_t chain_products[2]
        size_t_of_one chain_vectors_work[2]
        chain_group_t chain_vectors_group[2]
        chain_vectors_t chain_jvp[2]
        chain_vectors_t chain_vjp[2]
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
        size_of_nothing spectral_norm_gram_group[2]
        size_t_of_two spectral_norm_gram_work[2]
        spectral_norm_gram_t spectral_norm_gram[2]
        size_t_of_two spectral_norm_lanczos_work[2]
        spectral_norm_lanczos_t spectral_norm_lanczos[2]
        gaussian_moments_t gaussian_moments[2]
        variance_map_t variance_map[2]

    const jm_table *jm_tables[]
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

cdef extern from "Python.h":
    # Declared again because the stock cimport swallows KeyboardInterrupt in places.
    int PyErr_CheckSignals() except -1
    # And this one so that a refusal is an answer, not an exception.
    int PyObject_TryBuffer "PyObject_GetBuffer"(object, Py_buffer *, int) noexcept
    void PyErr_Clear() noexcept
    const Py_ssize_t PY_SSIZE_T_MAX


active = jm_tables[jm_n_tables() - 1]
c_api = PyCapsule_New(<void *>&jm_exports, JM_CAPSULE, NULL)

# Flops between two looks at Ctrl-C (about 50 ms), in a grain of the parallel loop (about 50 us), and
# below which starting a team of threads costs more than it saves.
cdef double ROUND = 2.5e8
cdef double GRAIN = 2.5e5
cdef double SERIAL = 1e6
# Items in flight while single items are worked on in layer ranges.
cdef Py_ssize_t IN_FLIGHT = 8


def available_isas():
    return [jm_tables[i].isa.decode() for i in range(jm_n_tables())]


def active_isa():
    return active.isa.decode()


def select_isa(name):
    global active
    for i in range(jm_n_tables()):
        if jm_tables[i].isa.decode() == name:
            active = jm_tables[i]
            return
    raise ValueError(f"isa must be one of {available_isas()}, got {name!r}")


def openmp_max_threads():
    return jm_openmp_max_threads()


def has_openmp():
    return bool(jm_has_openmp())


cdef void *address(object array, int flags=PyBUF_SIMPLE) except? NULL:
    """Where a contiguous array's elements are; the caller keeps the array alive."""
    cdef Py_buffer view
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, flags)
    cdef void *pointer = view.buf
    PyBuffer_Release(&view)
    return pointer


def address_of(array):
    """Where the elements of an array of any strides are, as an integer."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDED_RO)
    cdef size_t where = <size_t>view.buf
    PyBuffer_Release(&view)
    return where


cdef void *output(object array) except? NULL:
    return address(array, PyBUF_WRITABLE)


# What a vector costs in a layer beside the product, in flops: its norm, and its share of the loops.
cdef double VECTOR_COST = 100.0
# Vectors that share all weights are two groups at least, for two threads, where these would be no
# smaller than this: each group reads the weights again.
cdef Py_ssize_t LEAST_GROUP = 16


cdef struct Plan:
    # How the items of a call are cut: see `plan`.
    Py_ssize_t layers_per_round
    Py_ssize_t items_per_round
    Py_ssize_t grain
    Py_ssize_t n_spaces
    int n_threads


cdef Plan plan(Py_ssize_t n_items, Py_ssize_t n_layers, double layer_cost, int n_threads) noexcept:
    """Cut by shape alone: rounds of items, or, where one item is long, of its layers."""
    cdef Plan cut
    cdef double item_cost = max(1.0, n_layers * layer_cost)
    cut.n_threads = 1 if n_items < 2 or n_items * item_cost < SERIAL else n_threads
    if item_cost <= ROUND / IN_FLIGHT:
        cut.layers_per_round = n_layers
        cut.items_per_round = max(1, <Py_ssize_t>min(<double>n_items, ROUND / item_cost))
        cut.grain = max(1, <Py_ssize_t>min(<double>n_items, GRAIN / item_cost))
        cut.n_spaces = cut.n_threads
    else:
        cut.layers_per_round = max(1, <Py_ssize_t>(ROUND / IN_FLIGHT / layer_cost))
        cut.items_per_round = IN_FLIGHT
        cut.grain = 1
        cut.n_spaces = min(n_items, IN_FLIGHT)
    return cut


cdef Py_ssize_t first_bad(const Py_ssize_t *bad_layer, Py_ssize_t n_items) noexcept nogil:
    """The first item with a layer named in bad_layer, or -1."""
    cdef Py_ssize_t i
    for i in range(n_items):
        if bad_layer[i] >= 0:
            return i
    return -1


include "_chain_layout.pxi"


cdef int read_chain(ChainLayout spec, jm_chain *chain) except -1:
    """A chain of ops/_chain_arrays.py as the C descriptor."""
    chain[0] = spec.chain
    return 0


# One item, or one group of them, through layers [begin, end): a kernel with the arguments of a call.
ctypedef void (*item_kernel)(const void *call, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                             char *work) noexcept nogil


cdef int run_items(item_kernel kernel, const void *call, const Plan *cut, Py_ssize_t n_items,
                   Py_ssize_t n_layers, size_t bytes, char *work) except -1:
    """Every item through every layer, as the plan cuts them, `bytes` of work for each space."""
    cdef Py_ssize_t i, lo = 0, hi, begin, end, space
    cdef jm_fp_environment saved
    while lo < n_items:
        hi = min(lo + cut.items_per_round, n_items)
        begin = 0
        while begin < n_layers:
            end = min(begin + cut.layers_per_round, n_layers)
            if cut.n_threads == 1:  # a team of one would cost more than a small item
                with nogil:
                    saved = jm_fp_enter()
                    for i in range(lo, hi):
                        space = i - lo if end - begin < n_layers else 0
                        kernel(call, i, begin, end, work + space * bytes)
                    jm_fp_leave(saved)
            else:
                with nogil, parallel(num_threads=cut.n_threads):
                    saved = jm_fp_enter()
                    for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                        space = i - lo if end - begin < n_layers else threadid()
                        kernel(call, i, begin, end, work + space * bytes)
                    jm_fp_leave(saved)
            PyErr_CheckSignals()
            begin = end
        lo = hi
    return 0


cdef char *workspace(size_t bytes, str name) except NULL:
    cdef char *work = <char *>jm_malloc(bytes)
    if work == NULL:
        raise MemoryError(f"no memory for the workspace of {name}")
    return work


cdef object first_bad_of(const Py_ssize_t *bad_layer, Py_ssize_t n_items):
    """The first item with a layer named in bad_layer, and that layer, or None."""
    cdef Py_ssize_t i = first_bad(bad_layer, n_items)
    return None if i < 0 else (i, bad_layer[i])


cdef struct ProductCall:
    # What one call of chain_product gives to every group of samples.
    chain_product_t one
    chain_products_t several
    const jm_chain *chain
    Py_ssize_t n_samples
    Py_ssize_t group
    Py_ssize_t max_width
    Py_ssize_t item_bytes
    char *out
    int64_t *exponent
    Py_ssize_t *bad_layer


cdef void multiply_group(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                         char *work) noexcept nogil:
    cdef const ProductCall *call = <const ProductCall *>given
    cdef Py_ssize_t first = i * call.group, count = min(call.group, call.n_samples - first)
    cdef char *out = call.out + first * call.item_bytes
    if count == 1:
        call.one(call.chain, first, call.max_width, begin, end, out, call.exponent + first,
                 call.bad_layer + first, work)
    else:
        call.several(call.chain, first, count, call.max_width, begin, end, out,
                     call.exponent + first, call.bad_layer + first, work)


def chain_product(ChainLayout spec, Py_ssize_t n_samples, mantissa, exponent, int n_threads,
                  bint from_last, bad_layer):
    """The first sample that met a NaN or infinity and the layer, or None; all where bad_layer asks."""
    cdef ProductCall call
    cdef jm_chain chain = spec.chain
    cdef int dtype = spec.dtype_index
    chain.from_last = from_last
    cdef Py_ssize_t n_columns = spec.n_out if from_last else spec.n_in
    call.one, call.several = active.chain_product[dtype], active.chain_products[dtype]
    call.chain, call.n_samples = &chain, n_samples
    call.group = active.chain_product_group[dtype](&chain)
    call.max_width = spec.max_width
    call.item_bytes = spec.n_out * spec.n_in * (8 if dtype else 4)
    call.out = <char *>output(mantissa)
    call.exponent = <int64_t *>output(exponent)
    cdef double layer_cost = 2.0 * spec.max_width * spec.max_width * n_columns * call.group
    cdef Py_ssize_t n_groups = (n_samples + call.group - 1) // call.group
    cdef Plan cut = plan(n_groups, spec.n_layers, layer_cost, n_threads)
    cdef size_t bytes = call.group * active.chain_product_work[dtype](spec.max_width, n_columns)
    cdef char *work = workspace(bytes * cut.n_spaces + n_samples * sizeof(Py_ssize_t), "chain_product")
    try:
        call.bad_layer = <Py_ssize_t *>(work + bytes * cut.n_spaces)
        if bad_layer is not None:
            call.bad_layer = <Py_ssize_t *>output(bad_layer)
        run_items(multiply_group, &call, &cut, n_groups, spec.n_layers, bytes, work)
        return first_bad_of(call.bad_layer, n_samples)
    finally:
        jm_free(work)


cdef struct VectorsCall:
    # What one call of chain_jvp or chain_vjp gives to every group of vectors.
    chain_vectors_t kernel
    const jm_chain *chain
    const jm_vectors *vectors
    Py_ssize_t max_width
    Py_ssize_t run             # vectors that share all weights: a group stays within them
    Py_ssize_t groups_per_run
    Py_ssize_t *bad_layer


cdef void push_group(const void *given, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end,
                     char *work) noexcept nogil:
    cdef const VectorsCall *call = <const VectorsCall *>given
    cdef Py_ssize_t run = call.run, n_groups = call.groups_per_run, place = i % n_groups
    cdef Py_ssize_t first = place * run // n_groups, last = (place + 1) * run // n_groups
    cdef Py_ssize_t start = i // n_groups * run + first
    call.kernel(call.chain, call.vectors, call.max_width, start, last - first, begin, end,
                call.bad_layer + start, work)


def chain_vectors(ChainLayout spec, bint transposed, start, Py_ssize_t n_vectors,
                  Py_ssize_t per_sample, log_norms, last, last_exponents, kept, kept_exponents,
                  int n_threads):
    """chain_jvp or chain_vjp; the first vector that met a NaN or infinity and the layer, or None."""
    cdef VectorsCall call
    cdef jm_vectors vectors
    cdef int dtype = spec.dtype_index
    cdef bint is_shared = spec.has_shared_weights
    vectors.n_vectors, vectors.per_sample = n_vectors, per_sample
    vectors.has_shared_weights = is_shared
    vectors.start = address(start)
    vectors.log_norms = <double *>output(log_norms)
    cdef void *far_end[2]
    far_end[0], far_end[1] = output(last), output(last_exponents)
    vectors.kept = &far_end[0]
    if kept is not None:
        vectors.kept = <void **>address(kept)
    vectors.kept_exponents = <int64_t **>address(kept_exponents)
    call.kernel = active.chain_vjp[dtype] if transposed else active.chain_jvp[dtype]
    call.chain, call.vectors, call.max_width = &spec.chain, &vectors, spec.max_width
    cdef Py_ssize_t most = active.chain_vectors_group[dtype](spec.max_width, is_shared)
    call.run = n_vectors if is_shared else per_sample
    call.groups_per_run = (call.run + most - 1) // most
    cdef double vector_cost = 2.0 * spec.max_width * spec.max_width + VECTOR_COST
    if call.run == n_vectors and vector_cost * n_vectors * spec.n_layers >= SERIAL:
        call.groups_per_run = max(call.groups_per_run, min(2, n_vectors // LEAST_GROUP))
    cdef Py_ssize_t n_groups = call.groups_per_run * (n_vectors // call.run)
    cdef double group_cost = vector_cost * call.run / call.groups_per_run
    cdef Plan cut = plan(n_groups, spec.n_layers, group_cost, n_threads)
    cdef size_t bytes = active.chain_vectors_work[dtype](spec.max_width)
    cdef char *work = workspace(bytes * cut.n_spaces + n_vectors * sizeof(Py_ssize_t),
                                "chain_jvp or chain_vjp")
    try:
        call.bad_layer = <Py_ssize_t *>(work + bytes * cut.n_spaces)
        run_items(push_group, &call, &cut, n_groups, spec.n_layers, bytes, work)
        return first_bad_of(call.bad_layer, n_vectors)
    finally:
        jm_free(work)


def chain_log_svdvals(int dtype, spec, Py_ssize_t n_samples, values, errors, bad_layer,
                      double layer_cost, int n_threads):
    """values and errors (B, r) float64."""
    cdef jm_chain chain
    read_chain(spec, &chain)
    cdef Py_ssize_t group = active.chain_log_svdvals_group[dtype](&chain, spec.max_width)
    bad_layer.fill(1)
    if group:
        svdvals_loop(&chain, dtype, spec, n_samples, group, None, values, errors, bad_layer,
                     layer_cost, n_threads)
    left = bad_layer.nonzero()[0]
    bad_layer.fill(-1)
    if len(left):
        svdvals_loop(&chain, dtype, spec, len(left), 1, left, values, errors, bad_layer,
                     1.5 * layer_cost, n_threads)
    return first_bad(<Py_ssize_t *>output(bad_layer), n_samples)


cdef int svdvals_loop(const jm_chain *chain, int dtype, spec, Py_ssize_t n_items, Py_ssize_t group,
                      items, values, errors, bad_layer, double layer_cost, int n_threads) except -1:
    """In lanes, `group` samples at a time, or, given a list of items, those one by one."""
    cdef Py_ssize_t max_width = spec.max_width, n_in = spec.n_in, n_values = values.shape[1]
    cdef double *out = <double *>output(values)
    cdef double *out_errors = <double *>output(errors)
    cdef Py_ssize_t *bad = <Py_ssize_t *>output(bad_layer)
    cdef const Py_ssize_t *which = <const Py_ssize_t *>address(items)
    cdef chain_log_svdvals_t kernel = active.chain_log_svdvals_one[dtype]
    cdef svdvals_end_t finish = active.chain_log_svdvals_end[dtype]
    cdef size_t bytes
    cdef int is_first, has_more
    cdef int done[8]  # IN_FLIGHT
    memset(done, 0, sizeof(done))
    # A pair takes some 10 n flops.
    cdef Py_ssize_t pairs = max(1, <Py_ssize_t>(ROUND / IN_FLIGHT / (10.0 * max_width)))
    if items is None:
        kernel = active.chain_log_svdvals_lanes[dtype]
        bytes = active.chain_log_svdvals_lanes_work[dtype](n_in)
    else:
        bytes = active.chain_log_svdvals_one_work[dtype](max_width, n_in)
    cdef Py_ssize_t n_groups = (n_items + group - 1) // group
    # Latency, not flops, bounds the smallest factors.
    layer_cost = group * layer_cost + 1000.0 * max_width
    cdef Plan cut = plan(n_groups, chain.n_layers, layer_cost, n_threads)
    cdef bint is_long = chain.n_layers * layer_cost > ROUND / IN_FLIGHT
    cdef char *work = <char *>jm_malloc(bytes * cut.n_spaces)
    cdef Py_ssize_t i, at, lo, hi, begin, end, space
    cdef jm_fp_environment saved
    if work == NULL:
        raise MemoryError("no memory for the workspace of chain_log_svdvals")
    try:
        for lo in range(0, n_groups, cut.items_per_round):
            hi = min(lo + cut.items_per_round, n_groups)
            for begin in range(0, chain.n_layers, cut.layers_per_round):
                end = min(begin + cut.layers_per_round, chain.n_layers)
                with nogil, parallel(num_threads=cut.n_threads):
                    saved = jm_fp_enter()
                    for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                        space = i - lo if is_long else threadid()
                        at = which[i] if which != NULL else i * group
                        kernel(chain, at, max_width if which != NULL else min(group, n_items - at),
                               begin, end, out + at * n_values, out_errors + at * n_values,
                               bad + at, work + space * bytes)
                        if which != NULL and not is_long:
                            finish(n_values, PY_SSIZE_T_MAX, True, out + at * n_values,
                                   out_errors + at * n_values, work + space * bytes)
                    jm_fp_leave(saved)
                PyErr_CheckSignals()
            # Long items end in pieces too.
            is_first = True
            has_more = which != NULL and is_long
            while has_more:
                has_more = 0
                with nogil, parallel(num_threads=cut.n_threads):
                    saved = jm_fp_enter()
                    for i in prange(lo, hi, schedule="dynamic"):
                        if not done[i - lo]:
                            done[i - lo] = not finish(
                                n_values, pairs, is_first, out + which[i] * n_values,
                                out_errors + which[i] * n_values, work + (i - lo) * bytes)
                        has_more += not done[i - lo]
                    jm_fp_leave(saved)
                is_first = False
                PyErr_CheckSignals()
            memset(done, 0, sizeof(done))
    finally:
        jm_free(work)
    return 0


def lyapunov_spectrum(int dtype, spec, bint is_square, Py_ssize_t n_columns, Py_ssize_t burn_in,
                      Py_ssize_t n_batches, start, exponents, standard_errors, history, bad_layer,
                      double layer_cost, int n_threads):
    cdef jm_chain chain
    cdef jm_lyapunov job
    read_chain(spec, &chain)
    job.max_width, job.is_square, job.n_columns = spec.max_width, is_square, n_columns
    job.burn_in, job.n_batches = burn_in, n_batches
    job.start = address(start)
    job.exponents = <double *>output(exponents)
    job.standard_errors = <double *>output(standard_errors)
    job.history = NULL if history is None else <double *>output(history)
    cdef Py_ssize_t *bad = <Py_ssize_t *>output(bad_layer)
    cdef lyapunov_spectrum_t kernel = active.lyapunov_spectrum[dtype]
    cdef Py_ssize_t n_items = len(bad_layer), n_layers = chain.n_layers
    cdef Py_ssize_t group = active.lyapunov_spectrum_group[dtype](&job)
    cdef Py_ssize_t n_groups = (n_items + group - 1) // group
    # Latency, not flops, bounds the smallest columns.
    cdef Plan cut = plan(n_groups, n_layers, group * layer_cost + 500.0 * n_columns, n_threads)
    cdef size_t bytes = active.lyapunov_spectrum_work[dtype](&job)
    cdef char *work = <char *>jm_malloc(bytes * cut.n_spaces)
    cdef Py_ssize_t i, lo, hi, begin, end, space
    cdef jm_fp_environment saved
    if work == NULL:
        raise MemoryError("no memory for the workspace of lyapunov_spectrum")
    try:
        for lo in range(0, n_groups, cut.items_per_round):
            hi = min(lo + cut.items_per_round, n_groups)
            for begin in range(0, n_layers, cut.layers_per_round):
                end = min(begin + cut.layers_per_round, n_layers)
                with nogil, parallel(num_threads=cut.n_threads):
                    saved = jm_fp_enter()
                    for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                        space = i - lo if end - begin < n_layers else threadid()
                        kernel(&chain, &job, i * group, min(group, n_items - i * group), begin, end,
                               bad + i * group, work + space * bytes)
                    jm_fp_leave(saved)
                PyErr_CheckSignals()
    finally:
        jm_free(work)
    return first_bad(bad, n_items)


# Cost of a moment in the unit of GRAIN, per activation id.
cdef double[6] MOMENT_COST = [50.0, 50.0, 200.0, 200.0, 100.0, 100.0]


cdef jm_activation read_activation(int activation_id, tuple parameters):
    cdef jm_activation activation
    activation.id = activation_id
    activation.parameters[0], activation.parameters[1] = parameters or (0.0, 0.0)
    return activation


def gaussian_moments(int dtype, int activation_id, tuple parameters, q, moments, int n_threads):
    cdef jm_activation activation = read_activation(activation_id, parameters)
    cdef jm_moments out
    out.phi, out.phi2 = output(moments[0]), output(moments[1])
    out.dphi, out.dphi2, out.d2phi2 = output(moments[2]), output(moments[3]), output(moments[4])
    cdef const void *q_items = address(q)
    cdef Py_ssize_t n_items = len(q), lo, hi, begin, end
    cdef gaussian_moments_t kernel = active.gaussian_moments[dtype]
    cdef Plan cut = plan(n_items, 1, MOMENT_COST[activation_id], n_threads)
    cdef jm_fp_environment saved
    for lo in range(0, n_items, cut.items_per_round):
        hi = min(lo + cut.items_per_round, n_items)
        with nogil, parallel(num_threads=cut.n_threads):
            saved = jm_fp_enter()
            for begin in prange(lo, hi, cut.grain, schedule="dynamic", chunksize=1):
                end = min(begin + cut.grain, hi)
                kernel(&activation, q_items, &out, begin, end)
            jm_fp_leave(saved)
        PyErr_CheckSignals()


def variance_map(int dtype, int activation_id, tuple parameters, q, sigma_w, sigma_b, out,
                 int n_threads):
    cdef jm_activation activation = read_activation(activation_id, parameters)
    cdef jm_variance_arguments arguments
    arguments.q, arguments.q_stride = address(q), len(q) != 1
    arguments.sigma_w, arguments.sigma_w_stride = address(sigma_w), len(sigma_w) != 1
    arguments.sigma_b, arguments.sigma_b_stride = address(sigma_b), len(sigma_b) != 1
    cdef void *out_items = output(out)
    cdef Py_ssize_t n_items = len(out), lo, hi, begin, end
    cdef variance_map_t kernel = active.variance_map[dtype]
    cdef Plan cut = plan(n_items, 1, MOMENT_COST[activation_id], n_threads)
    cdef jm_fp_environment saved
    for lo in range(0, n_items, cut.items_per_round):
        hi = min(lo + cut.items_per_round, n_items)
        with nogil, parallel(num_threads=cut.n_threads):
            saved = jm_fp_enter()
            for begin in prange(lo, hi, cut.grain, schedule="dynamic", chunksize=1):
                end = min(begin + cut.grain, hi)
                kernel(&activation, &arguments, out_items, begin, end)
            jm_fp_leave(saved)
        PyErr_CheckSignals()


# Flops of a Lanczos item in the unit of GRAIN: two passes over the matrix, for a usual number of steps.
cdef double LANCZOS_STEPS = 40.0


def spectral_norm_gram(int dtype, a, double rtol, bounds, ends, exponent, status, int n_threads):
    """a (B, m, n); bounds (3, B) float64, ends (3, B) of a's dtype, exponent int64, status intc."""
    cdef Py_ssize_t n_items = a.shape[0], rows = a.shape[1], cols = a.shape[2]
    cdef Py_ssize_t item_bytes = rows * cols * (8 if dtype else 4)
    cdef const char *entries = <const char *>address(a)
    cdef double *out = <double *>output(bounds)
    cdef char *out_ends = <char *>output(ends)
    cdef int64_t *out_exponent = <int64_t *>output(exponent)
    cdef int *out_status = <int *>output(status)
    cdef spectral_norm_gram_t kernel = active.spectral_norm_gram[dtype]
    cdef Py_ssize_t group = active.spectral_norm_gram_group[dtype]()
    cdef Py_ssize_t n_groups = (n_items + group - 1) // group
    cdef double size = min(rows, cols), length = max(rows, cols)
    cdef Plan cut = plan(n_groups, 1, 2 * group * size * size * (size + length), n_threads)
    cdef size_t bytes = active.spectral_norm_gram_work[dtype](rows, cols)
    cdef char *work = <char *>jm_malloc(bytes * cut.n_threads)
    cdef Py_ssize_t i, lo, hi, first
    cdef jm_fp_environment saved
    if work == NULL:
        raise MemoryError("no memory for the workspace of spectral_norm")
    try:
        for lo in range(0, n_groups, cut.items_per_round):
            hi = min(lo + cut.items_per_round, n_groups)
            with nogil, parallel(num_threads=cut.n_threads):
                saved = jm_fp_enter()
                for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                    first = i * group
                    kernel(min(group, n_items - first), rows, cols, entries + first * item_bytes,
                           rtol, out + first, out_ends + first * (8 if dtype else 4), n_items,
                           out_exponent + first, out_status + first, work + threadid() * bytes)
                jm_fp_leave(saved)
            PyErr_CheckSignals()
    finally:
        jm_free(work)


def spectral_norm_lanczos(int dtype, a, start, double rtol, double log_level, Py_ssize_t max_iter,
                          bounds, exponent, n_iter, status, int n_threads):
    """a (B, m, n), start (B, n) float64; bounds (B, 4) float64, exponent, n_iter int64, status intc."""
    cdef Py_ssize_t n_items = a.shape[0], rows = a.shape[1], cols = a.shape[2]
    cdef Py_ssize_t item_bytes = rows * cols * (8 if dtype else 4)
    cdef const char *entries = <const char *>address(a)
    cdef const double *starts = <const double *>address(start)
    cdef double *out = <double *>output(bounds)
    cdef int64_t *out_exponent = <int64_t *>output(exponent)
    cdef int64_t *out_n_iter = <int64_t *>output(n_iter)
    cdef int *out_status = <int *>output(status)
    cdef spectral_norm_lanczos_t kernel = active.spectral_norm_lanczos[dtype]
    cdef double steps = min(<double>max_iter, LANCZOS_STEPS)
    cdef Plan cut = plan(n_items, 1, 4 * steps * rows * cols, n_threads)
    cdef size_t bytes = active.spectral_norm_lanczos_work[dtype](cols, max_iter)
    cdef char *work = <char *>jm_malloc(bytes * cut.n_threads)
    cdef Py_ssize_t i, lo, hi
    cdef jm_fp_environment saved
    if work == NULL:
        raise MemoryError("no memory for the workspace of spectral_norm")
    try:
        for lo in range(0, n_items, cut.items_per_round):
            hi = min(lo + cut.items_per_round, n_items)
            with nogil, parallel(num_threads=cut.n_threads):
                saved = jm_fp_enter()
                for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                    out_status[i] = kernel(
                        rows, cols, entries + i * item_bytes, starts + i * cols, rtol, log_level,
                        max_iter, out + 4 * i, out_exponent + i, out_n_iter + i,
                        work + threadid() * bytes)
                jm_fp_leave(saved)
            PyErr_CheckSignals()
    finally:
        jm_free(work)
