"""What ops/_chain_arrays.py reads a chain into: checked, and laid out as the kernels take it."""

cdef object ndarray, dtypes
from numpy import dtype as _dtype
from numpy import ndarray

dtypes = (_dtype("f4"), _dtype("f8"))


cdef struct Elements:
    # Where an array's elements are; strides in elements.
    const char *first
    int ndim
    Py_ssize_t shape[4]
    Py_ssize_t strides[4]


cdef int read_plain(object array, int core_ndim, Elements *found) noexcept:
    """The dtype index of an array that kernels can read as it lies, else -1.

    That is an ndarray of native, aligned float32 or float64, its last core_ndim axes C-contiguous.
    With more than four axes, which no argument has, only their number is found.
    """
    cdef Py_buffer view
    cdef int axis, index = -1
    cdef Py_ssize_t expected
    if type(array) is not ndarray:
        return -1
    if PyObject_TryBuffer(array, &view, PyBUF_RECORDS_RO) < 0:
        PyErr_Clear()
        return -1
    # NumPy says "d" for native, aligned float64 and nothing else.
    if view.format[1] == 0:
        index = 1 if view.format[0] == b"d" else 0 if view.format[0] == b"f" else -1
    found.first, found.ndim = <const char *>view.buf, view.ndim
    expected = view.itemsize
    for axis in range(view.ndim - 1, -1, -1):
        if axis >= view.ndim - core_ndim and view.shape[axis] > 1 and view.len:
            index = index if view.strides[axis] == expected else -1
        expected *= view.shape[axis]
        index = index if view.strides[axis] % view.itemsize == 0 else -1
        if view.ndim <= 4:
            found.shape[axis] = view.shape[axis]
            found.strides[axis] = view.strides[axis] // view.itemsize
    PyBuffer_Release(&view)
    return index


cdef class ChainLayout:
    """A checked chain; `read_stacked` or `read_listed` fills it in.

    n_samples is None where nothing has a batch axis, widths where all L + 1 interfaces are
    max_width wide.  layers (LAYER) is the table that repeats until n_layers, None where the arrays
    are stacked.  weights and slopes are stacked arrays, or lists that repeat as layers does;
    shortcut is a float or an array that does.  The attributes last named say of which factors of a
    Chain the layers are, for messages.
    """
    cdef jm_chain chain
    cdef int dtype_index
    cdef readonly Py_ssize_t n_layers, n_in, n_out, max_width
    cdef readonly int slope_side
    cdef readonly bint has_empty_width, has_shared_weights
    cdef readonly object n_samples, widths, layers, weights, slopes, shortcut
    cdef public object origins, path
    cdef public Py_ssize_t factors_per_period, first_factor

    def __cinit__(self):
        self.shortcut = 0.0
        self.path = ""

    @property
    def dtype(self):
        """float32 or float64: of every array."""
        return dtypes[self.dtype_index]

    def read_stacked(self, weights, slopes, int slope_side, vectors):
        """Read (..., L, n, n) weights and (..., L, n) slopes; False where an array is not plain."""
        cdef Elements w, s, other
        cdef int index = read_plain(weights, 2, &w)
        if index < 0 or vectors is not None and read_plain(vectors, 0, &other) != index:
            return False
        if slopes is not None and read_plain(slopes, 1, &s) != index:
            return False
        if w.ndim not in (3, 4) or w.shape[w.ndim - 1] != w.shape[w.ndim - 2]:
            raise ValueError(
                "weights must have shape (L, n, n) or (B, L, n, n), or be a sequence of matrices, "
                f"got shape {weights.shape}"
            )
        cdef jm_chain *chain = &self.chain
        cdef Py_ssize_t n_layers = w.shape[w.ndim - 3], n = w.shape[w.ndim - 1], n_samples = -1
        chain.first.weights, chain.weights_layer_stride = w.first, w.strides[w.ndim - 3]
        if w.ndim == 4:
            n_samples, chain.first.weights_stride = w.shape[0], w.strides[0]
        if slopes is not None:
            if (s.ndim not in (2, 3) or s.shape[s.ndim - 2] != n_layers
                    or s.shape[s.ndim - 1] != n):
                raise ValueError(
                    f"slopes must have shape ({n_layers}, {n}) or (B, {n_layers}, {n}), "
                    f"got {slopes.shape}"
                )
            chain.first.slopes, chain.slopes_layer_stride = s.first, s.strides[s.ndim - 2]
            if s.ndim == 3:
                chain.first.slopes_stride = s.strides[0]
                n_samples = merge_samples(n_samples, s.shape[0], "slopes", -1)
        chain.n_layers, chain.n_distinct, chain.slope_side = n_layers, 1, slope_side
        chain.first.rows = chain.first.cols = n
        self.dtype_index, self.slope_side, self.n_layers = index, slope_side, n_layers
        self.n_in = self.n_out = self.max_width = n
        self.has_empty_width, self.has_shared_weights = n == 0, w.ndim == 3
        self.n_samples = None if n_samples < 0 else n_samples
        self.weights, self.slopes = weights, slopes
        return True

    def set_shortcut(self, shortcut):
        """Multiples of the identity of a stacked chain: a float, or (L,) contiguous float64."""
        self.shortcut = shortcut
        if type(shortcut) is float:
            self.chain.first.shortcut = shortcut
        else:
            self.chain.shortcuts = <const double *>address(shortcut)

    def read_listed(self, list weights, list slopes, int slope_side, shortcut, vectors,
                    layers, Py_ssize_t n_repeats, bint has_identities):
        """Read a list of factors, repeated; False where an array is not plain.

        slopes is a list as long as weights, or None.  layers is the table to fill in.  A weight may
        be None, the identity, only if has_identities.
        """
        cdef Elements w, s
        cdef Py_ssize_t n_distinct = len(weights), n_samples = -1, rows, cols, expected, k
        cdef Py_ssize_t before = -1, most = 0, least = -1
        cdef int index = -1, found
        cdef bint is_shared = True
        cdef jm_layer *table = <jm_layer *>output(layers)
        cdef const double *shortcuts = NULL
        cdef double every = 0.0
        if type(shortcut) is float:
            every = shortcut
        else:
            shortcuts = <const double *>address(shortcut)
        if vectors is not None:
            index = read_plain(vectors, 0, &w)
            if index < 0:
                return False
        memset(table, 0, n_distinct * sizeof(jm_layer))
        for k in range(n_distinct):
            weight = weights[k]
            slope = None if slopes is None else slopes[k]
            if weight is not None:
                found = read_plain(weight, 2, &w)
                if found < 0 or index >= 0 and found != index:
                    return False
                index = found
            elif not has_identities:
                return False
            if slope is not None:
                found = read_plain(slope, 1, &s)
                if found < 0 or index >= 0 and found != index:
                    return False
                index = found
            layer = table + k
            layer.shortcut = every if shortcuts == NULL else shortcuts[k]
            if weight is not None:
                if w.ndim not in (2, 3):
                    raise ValueError(
                        f"weights[{k}] must have shape (n_out, n_in) or (B, n_out, n_in), "
                        f"got {weight.shape}"
                    )
                rows, cols = w.shape[w.ndim - 2], w.shape[w.ndim - 1]
            else:
                rows = cols = s.shape[s.ndim - 1]
            if before >= 0 and cols != before:
                raise ValueError(
                    f"weights[{k}] must have {before} columns, the rows of layer {k - 1}, "
                    f"got {cols}: shape {(slope if weight is None else weight).shape}"
                )
            if layer.shortcut != 0 and rows != cols:
                raise ValueError(
                    f"shortcut must be 0 where weights are not square, got {layer.shortcut:g} "
                    f"at layer {k} of shape ({rows}, {cols})"
                )
            if before < 0:
                most = least = cols
            before, most, least = rows, max(most, rows), min(least, rows)
            layer.rows, layer.cols = rows, cols
            if weight is not None:
                layer.weights = w.first
                if w.ndim == 3:
                    layer.weights_stride, is_shared = w.strides[0], False
                    n_samples = merge_samples(n_samples, w.shape[0], "weights", k)
            if slope is not None:
                expected = cols if slope_side else rows
                if s.ndim not in (1, 2) or s.shape[s.ndim - 1] != expected:
                    raise ValueError(
                        f"slopes[{k}] must have shape ({expected},) or (B, {expected}), "
                        f"got {slope.shape}"
                    )
                layer.slopes = s.first
                if s.ndim == 2:
                    layer.slopes_stride = s.strides[0]
                    n_samples = merge_samples(n_samples, s.shape[0], "slopes", k)
        self.set_table(layers, n_distinct * n_repeats, table[0].cols, before, most)
        self.dtype_index, self.slope_side = index, slope_side
        self.chain.slope_side = slope_side
        self.has_empty_width, self.has_shared_weights = least == 0, is_shared
        self.n_samples = None if n_samples < 0 else n_samples
        if least != most or n_samples >= 0 and n_repeats == 1:
            period = [table[k].rows for k in range(n_distinct)]
            self.widths = [table[0].cols, *period * n_repeats]
        self.weights, self.slopes, self.shortcut = weights, slopes, shortcut
        return True

    def takes(self, vectors, bint transposed):
        """Whether kernels can read these start vectors as they lie, one for each result."""
        cdef Elements v
        if read_plain(vectors, 3, &v) != self.dtype_index or not 1 <= v.ndim <= 3:
            return False
        if v.shape[v.ndim - 1] != (self.n_out if transposed else self.n_in):
            return False
        return self.n_samples is None or v.ndim > 1 and v.shape[0] == self.n_samples

    def read_table(self, ChainLayout other, layers, Py_ssize_t n_in, Py_ssize_t n_out,
                   Py_ssize_t max_width):
        """The layers of a table made of another chain's: for the kernels alone."""
        self.set_table(layers, len(layers), n_in, n_out, max_width)
        self.dtype_index, self.chain.slope_side = other.dtype_index, other.chain.slope_side

    cdef int set_table(self, layers, Py_ssize_t n_layers, Py_ssize_t n_in, Py_ssize_t n_out,
                       Py_ssize_t max_width) except -1:
        self.layers = layers
        self.chain.layers = <const jm_layer *>address(layers)
        self.chain.first = self.chain.layers[0]
        self.chain.n_distinct = len(layers)
        self.chain.n_layers = self.n_layers = n_layers
        self.n_in, self.n_out, self.max_width = n_in, n_out, max_width
        return 0


cdef Py_ssize_t merge_samples(Py_ssize_t n_samples, Py_ssize_t found, str name,
                              Py_ssize_t k) except -1:
    """The number of samples that both have, -1 standing for none; found is that of name[k]."""
    if n_samples >= 0 and n_samples != found:
        raise ValueError(
            f"{name}{f'[{k}]' if k >= 0 else ''} must hold {n_samples} samples as the arrays "
            f"before it, got {found}"
        )
    return found
