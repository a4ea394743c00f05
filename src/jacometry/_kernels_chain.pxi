"""chain_product, chain_jvp and chain_vjp: what a call gives to each group of samples or vectors."""

# What a vector costs in a layer beside the product, in flops: its norm, and its share of the loops.
cdef double VECTOR_COST = 100.0
# Vectors that share all weights are a group for each thread at least, where these would be no smaller
# than this: each group reads the weights again.
cdef Py_ssize_t LEAST_GROUP = 16
# Widest single layer of which samples share a group.
cdef Py_ssize_t BRIEF_WIDTH = 32


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
    call.one, call.several = active.chains.chain_product[dtype], active.chains.chain_products[dtype]
    call.chain, call.n_samples = &chain, n_samples
    call.group = active.chains.chain_product_group[dtype](&chain)
    call.max_width = spec.max_width
    call.item_bytes = spec.n_out * spec.n_in * (8 if dtype else 4)
    call.out = <char *>output(mantissa)
    call.exponent = <int64_t *>output(exponent)
    cdef double layer_cost = 2.0 * spec.max_width * spec.max_width * n_columns * call.group
    cdef Py_ssize_t n_groups = (n_samples + call.group - 1) // call.group
    cdef Plan cut = plan(n_groups, spec.n_layers, layer_cost, n_threads)
    cdef size_t bytes = call.group * active.chains.chain_product_work[dtype](spec.max_width, n_columns)
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
    Py_ssize_t run             # vectors that may be of one group
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
    call.kernel = active.chains.chain_vjp[dtype] if transposed else active.chains.chain_jvp[dtype]
    call.chain, call.vectors, call.max_width = &spec.chain, &vectors, spec.max_width
    cdef Py_ssize_t most = active.chains.chain_vectors_group[dtype](spec.max_width, is_shared)
    # One narrow layer costs less than a group's beginning and end: samples share one.
    cdef bint is_brief = (not transposed and spec.n_layers == 1 and spec.n_in > 1
                          and spec.max_width <= BRIEF_WIDTH)
    call.run = n_vectors if is_shared or is_brief else per_sample
    call.groups_per_run = (call.run + most - 1) // most
    cdef double vector_cost = 2.0 * spec.max_width * spec.max_width + VECTOR_COST
    if call.run == n_vectors and vector_cost * n_vectors * spec.n_layers >= SERIAL:
        call.groups_per_run = max(call.groups_per_run, min(n_threads, n_vectors // LEAST_GROUP))
    cdef Py_ssize_t n_groups = call.groups_per_run * (n_vectors // call.run)
    cdef double group_cost = vector_cost * call.run / call.groups_per_run
    cdef Plan cut = plan(n_groups, spec.n_layers, group_cost, n_threads)
    cdef size_t bytes = active.chains.chain_vectors_work[dtype](spec.max_width)
    cdef char *work = workspace(bytes * cut.n_spaces + n_vectors * sizeof(Py_ssize_t),
                                "chain_jvp or chain_vjp")
    try:
        call.bad_layer = <Py_ssize_t *>(work + bytes * cut.n_spaces)
        run_items(push_group, &call, &cut, n_groups, spec.n_layers, bytes, work)
        return first_bad_of(call.bad_layer, n_vectors)
    finally:
        jm_free(work)
