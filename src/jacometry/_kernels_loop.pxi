"""How the items of a call are cut, and the loop over them that every kernel goes through."""

# Flops between two looks at Ctrl-C (about 50 ms), in a grain of the parallel loop (about 50 us), and
# below which starting a team of threads costs more than it saves.
cdef double ROUND = 2.5e8
cdef double GRAIN = 2.5e5
cdef double SERIAL = 1e6
# Items in flight while single items are worked on in layer ranges.
cdef Py_ssize_t IN_FLIGHT = 8


cdef struct Plan:
    # How the items of a call are cut: see `plan`.
    Py_ssize_t layers_per_round
    Py_ssize_t items_per_round
    Py_ssize_t grain
    Py_ssize_t n_spaces
    int n_threads
    bint is_long  # items keep a workspace each while they are worked on in ranges of layers


cdef Plan plan(Py_ssize_t n_items, Py_ssize_t n_layers, double layer_cost, int n_threads) noexcept:
    """Cut by shape alone: rounds of items, or, where one item is long, of its layers."""
    cdef Plan cut
    cdef double item_cost = max(1.0, n_layers * layer_cost)
    cut.n_threads = 1 if n_items < 2 or n_items * item_cost < SERIAL else n_threads
    cut.is_long = item_cost > ROUND / IN_FLIGHT
    if not cut.is_long:
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
                        space = i - lo if cut.is_long else 0
                        kernel(call, i, begin, end, work + space * bytes)
                    jm_fp_leave(saved)
            else:
                with nogil, parallel(num_threads=cut.n_threads):
                    saved = jm_fp_enter()
                    for i in prange(lo, hi, schedule="dynamic", chunksize=cut.grain):
                        space = i - lo if cut.is_long else threadid()
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


cdef Py_ssize_t first_bad(const Py_ssize_t *bad_layer, Py_ssize_t n_items) noexcept nogil:
    """The first item with a layer named in bad_layer, or -1."""
    cdef Py_ssize_t i
    for i in range(n_items):
        if bad_layer[i] >= 0:
            return i
    return -1


cdef object first_bad_of(const Py_ssize_t *bad_layer, Py_ssize_t n_items):
    """The first item with a layer named in bad_layer, and that layer, or None."""
    cdef Py_ssize_t i = first_bad(bad_layer, n_items)
    return None if i < 0 else (i, bad_layer[i])
