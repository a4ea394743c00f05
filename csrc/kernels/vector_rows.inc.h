/*
 * The vectors of a group, as rows, times W, and the slopes, shortcut and norms that go with it: in
 * panels of W, packed or where it lies, or by dot products.  vector_steps.inc.h calls it.
 */

#ifndef JM_GROUP_ROWS
#define JM_GROUP_ROWS 128                    /* vectors in a group at most */
#define JM_GROUP_PADDED (JM_GROUP_ROWS + 12) /* the last tile may reach past the last row */
#define JM_PANEL_ALONE 8                     /* vectors in a panel for one row at a time */
#define JM_LEAST_TILE_ROWS 5                 /* about the height of a tile, to count them */
#endif

/* A layer as it acts on the rows of a group; rows are padded with zeros to whole vectors. */
typedef struct {
    const JM_T *source;   /* (count, in_pad): what W multiplies */
    const JM_T *original; /* (count, in_pad): what the shortcut multiplies */
    JM_T *out;            /* (count, out_pad) */
    ptrdiff_t in_pad, out_pad;
    JM_T shortcut;
    const JM_T *slopes;      /* on the output side, or NULL */
    ptrdiff_t slopes_stride; /* from one sample to the next */
    const JM_T *ahead;       /* slopes to come, to be fetched; NULL: none */
    ptrdiff_t fetch;         /* bytes from an entry of W to one to come, to be fetched; 0: none */
    const ptrdiff_t *sample; /* of each row */
    JM_T *between, *result;  /* (count, JM_VW): sums of squares lane by lane, before and after */
} JM_NAME(chain_rows_job);

/* Vector `v` of nv, the last of which holds `tail` elements and no more. */
#undef JM_LOAD_OF
#define JM_LOAD_OF(p, v, nv, tail)                                                                 \
    ((v) == (nv) - 1 && (tail) < JM_VW ? JM_LOAD_FIRST((p) + (v) * JM_VW, (tail))                  \
                                       : JM_LOAD((p) + (v) * JM_VW))

/*
 * Rows [row, row + n_rows) times columns [col, col + nv vectors) of W, whose panel is given, and
 * what follows.  `tail` is the number of elements in the last vector; is_in_place says that the
 * panel has no padding there.  n_rows, nv and is_in_place are constants where this is inlined.
 */
JM_INLINE void JM_NAME(chain_rows_tile)(const int n_rows, const int nv, const int is_in_place,
                                        const JM_NAME(chain_rows_job) * job, ptrdiff_t in_pad,
                                        ptrdiff_t out_pad, ptrdiff_t depth, ptrdiff_t row,
                                        ptrdiff_t col, int tail, const JM_T *JM_RESTRICT panel,
                                        ptrdiff_t stride) {
    JM_V sum[12][JM_PANEL_ALONE];
    const JM_T *x = job->source + row * in_pad;
    if (job->ahead)
        for (int r = 0; r < n_rows; r++) {
            const JM_T *s = job->ahead + job->sample[row + r] * job->slopes_stride + col;
            for (int line = 0; line < nv * JM_VW; line += (int)(64 / sizeof(JM_T)))
                JM_PREFETCH(s + line);
        }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        JM_UNROLL
    for (int v = 0; v < nv; v++)
        sum[r][v] = JM_SPLAT(0);
    for (ptrdiff_t k = 0; k < depth; k++) {
        JM_V w[JM_PANEL_ALONE];
        JM_UNROLL
        for (int v = 0; v < nv; v++)
            w[v] = JM_LOAD_OF(panel + k * stride, v, nv, is_in_place ? tail : JM_VW);
        if (is_in_place)
            for (int line = 0; line < nv * JM_VW; line += (int)(64 / sizeof(JM_T)))
                JM_PREFETCH((const char *)(panel + k * stride + line) + job->fetch);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const JM_V a = JM_SPLAT(x[r * in_pad + k]);
            JM_UNROLL
            for (int v = 0; v < nv; v++)
                sum[r][v] = JM_FMADD(a, w[v], sum[r][v]);
        }
    }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const ptrdiff_t at = (row + r) * JM_VW;
        JM_V result = col ? JM_LOAD(job->result + at) : JM_SPLAT(0);
        if (job->slopes) {
            const JM_T *s = job->slopes + job->sample[row + r] * job->slopes_stride + col;
            JM_V between = col ? JM_LOAD(job->between + at) : JM_SPLAT(0);
            JM_UNROLL
            for (int v = 0; v < nv; v++) {
                between = JM_FMADD(sum[r][v], sum[r][v], between);
                sum[r][v] *= JM_LOAD_OF(s, v, nv, tail);
            }
            JM_STORE(job->between + at, between);
        }
        if (job->shortcut != 0) {
            const JM_T *original = job->original + (row + r) * in_pad + col;
            JM_UNROLL
            for (int v = 0; v < nv; v++)
                sum[r][v] =
                    JM_FMADD(JM_SPLAT(job->shortcut), JM_LOAD(original + v * JM_VW), sum[r][v]);
        }
        JM_T *out = job->out + (row + r) * out_pad + col;
        JM_UNROLL
        for (int v = 0; v < nv; v++) {
            result = JM_FMADD(sum[r][v], sum[r][v], result);
            JM_STORE(out + v * JM_VW, sum[r][v]);
        }
        JM_STORE(job->result + at, result);
    }
}

/*
 * All rows of one panel.  Where the last tile is not full its other rows are padding.  Before each
 * tile `share` bytes of `ahead` are fetched; what comes after them is returned.
 */
JM_INLINE const char *JM_NAME(chain_rows_tiles)(const int nv, const JM_NAME(chain_rows_job) * job,
                                                ptrdiff_t in_pad, ptrdiff_t out_pad,
                                                ptrdiff_t depth, ptrdiff_t count, ptrdiff_t col,
                                                int tail, const JM_T *panel, ptrdiff_t stride,
                                                const char *ahead, ptrdiff_t share) {
    const int height = JM_TILE_ROWS(nv);
    ptrdiff_t row = 0;
    for (; row + 2 < count; row += height) {
        for (ptrdiff_t at = 0; at < share; at += 64)
            JM_PREFETCH(ahead + at);
        ahead += share;
        JM_NAME(chain_rows_tile)
        (height, nv, 0, job, in_pad, out_pad, depth, row, col, tail, panel, stride);
    }
    for (; row < count; row++)
        JM_NAME(chain_rows_tile)
    (1, nv, 0, job, in_pad, out_pad, depth, row, col, tail, panel, stride);
    return ahead;
}

/*
 * Columns [col, col + width) of W as a panel whose row k multiplies element k of a vector: (depth,
 * padded width).  Read in place where it lies so, unless its rows, many and far apart, would fall
 * on few lines of the cache and many rows are to come; *stride is then its own.
 */
static const JM_T *JM_NAME(chain_pack)(const JM_NAME(chain_step) * step, ptrdiff_t col,
                                       ptrdiff_t width, ptrdiff_t count, JM_T *packed,
                                       ptrdiff_t *stride) {
    enum { MANY = 64 };
    const ptrdiff_t padded = JM_PADDED(width), depth = step->cols;
    const int tail = (int)(width - padded + JM_VW);
    const JM_T *weights = step->weights + col * step->row_stride;
    *stride = padded;
    if (step->row_stride == 1) {
        if (width == padded && (depth < MANY || count < MANY / 4)) {
            *stride = step->col_stride;
            return weights;
        }
        for (ptrdiff_t k = 0; k < depth; k++) {
            const JM_T *from = weights + k * step->col_stride;
            JM_T *to = packed + k * padded;
            for (ptrdiff_t j = 0; j + JM_VW < padded; j += JM_VW)
                JM_STORE(to + j, JM_LOAD(from + j));
            JM_STORE(to + padded - JM_VW, JM_LOAD_OF(from + padded - JM_VW, 0, 1, tail));
        }
        return packed;
    }
    ptrdiff_t whole = 0;
    for (; whole + JM_VW <= width; whole += JM_VW) {
        const JM_T *items[JM_VW];
        for (int l = 0; l < JM_VW; l++)
            items[l] = weights + (whole + l) * step->row_stride;
        JM_NAME(jm_interleave)(depth, 0, items, padded / JM_VW, packed + whole);
    }
    if (whole < padded)
        for (ptrdiff_t k = 0; k < depth; k++)
            for (ptrdiff_t j = whole; j < whole + JM_VW; j++)
                packed[k * padded + j] = j < width ? weights[j * step->row_stride + k] : 0;
    return packed;
}

/* Rows through W.  `rows` and `depth`, those of the step, are constants where it is worth it. */
JM_INLINE void JM_NAME(chain_rows_product)(ptrdiff_t rows, ptrdiff_t depth,
                                           const JM_NAME(chain_step) * step,
                                           const JM_NAME(chain_rows_job) * job, ptrdiff_t count,
                                           JM_T *packed) {
    const ptrdiff_t in_pad = JM_PADDED(depth), out_pad = JM_PADDED(rows);
    const ptrdiff_t n_vectors = out_pad / JM_VW;
    const ptrdiff_t n_panels = JM_PANELS(n_vectors);
    const char *ahead = (const char *)step->weights + job->fetch;
    const ptrdiff_t n_tiles = n_panels * ((count + JM_LEAST_TILE_ROWS - 1) / JM_LEAST_TILE_ROWS);
    const ptrdiff_t share =
        job->fetch ? (rows * depth * (ptrdiff_t)sizeof(JM_T) / n_tiles + 63) / 64 * 64 : 0;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = p * n_vectors / n_panels, end = (p + 1) * n_vectors / n_panels;
        const ptrdiff_t col = begin * JM_VW;
        const ptrdiff_t width = (end * JM_VW < rows ? end * JM_VW : rows) - col;
        const int tail = (int)(width - (end - begin - 1) * JM_VW);
        ptrdiff_t stride;
        const JM_T *panel = JM_NAME(chain_pack)(step, col, width, count, packed, &stride);
        switch (end - begin) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        if (n <= JM_PANEL)                                                                         \
            ahead = JM_NAME(chain_rows_tiles)(n <= JM_PANEL ? n : 1, job, in_pad, out_pad, depth,  \
                                              count, col, tail, panel, stride, ahead, share);      \
        break;
            JM_WIDTH(1)
            JM_WIDTH(2)
            JM_WIDTH(3)
            JM_WIDTH(4)
#undef JM_WIDTH
        }
    }
}

/* One or two rows through W that lies as their panel: it is read once, in place. */
static void JM_NAME(chain_rows_alone)(const JM_NAME(chain_step) * step,
                                      const JM_NAME(chain_rows_job) * job, ptrdiff_t count) {
    for (ptrdiff_t row = 0; row < count; row++)
        for (ptrdiff_t col = 0, nv; col < step->rows; col += nv * JM_VW) {
            const ptrdiff_t left = step->rows - col;
            nv = left <= JM_VW ? 1 : left <= 2 * JM_VW ? 2 : left <= 4 * JM_VW ? 4 : JM_PANEL_ALONE;
            /* A vector that would be empty is left to the next, narrower turn. */
            while ((nv - 1) * JM_VW >= left)
                nv /= 2;
            const int tail = (int)(left < nv * JM_VW ? left - (nv - 1) * JM_VW : JM_VW);
            switch (nv) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        JM_NAME(chain_rows_tile)                                                                   \
        (1, n, 1, job, job->in_pad, job->out_pad, step->cols, row, col, tail, step->weights + col, \
         step->col_stride);                                                                        \
        break;
                JM_WIDTH(1)
                JM_WIDTH(2)
                JM_WIDTH(4)
                JM_WIDTH(JM_PANEL_ALONE)
#undef JM_WIDTH
            }
        }
}

/*
 * Rows [row, row + n_rows) of W times `n_cols` vectors from `vector` on, as dot products along W's
 * rows, which are read where they lie.  `tail` is the number of elements in the last vector of one.
 */
JM_INLINE void JM_NAME(chain_dots_tile)(const int n_rows, const int n_cols, const int is_first,
                                        const JM_NAME(chain_step) * step,
                                        const JM_NAME(chain_rows_job) * job, ptrdiff_t row,
                                        ptrdiff_t vector, int tail) {
    JM_V sum[8][2];
    const JM_T *w = step->weights + row * step->row_stride;
    const JM_T *x = job->source + vector * job->in_pad;
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_cols; c++)
            sum[r][c] = JM_SPLAT(0);
    for (ptrdiff_t k = 0; k < job->in_pad; k += JM_VW) {
        const int is_last = k + JM_VW == job->in_pad && tail < JM_VW;
        JM_V v[2];
        for (int c = 0; c < n_cols; c++)
            v[c] = JM_LOAD(x + c * job->in_pad + k);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const JM_T *at = w + r * step->row_stride + k;
            const JM_V a = is_last ? JM_LOAD_FIRST(at, tail) : JM_LOAD(at);
            if (is_first)
                JM_PREFETCH((const char *)at + job->fetch);
            for (int c = 0; c < n_cols; c++)
                sum[r][c] = JM_FMADD(a, v[c], sum[r][c]);
        }
    }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_cols; c++)
            job->out[(vector + c) * job->out_pad + row + r] = JM_LANE_SUM(sum[r][c]);
}

/* Rows through W by dot products: of each sample's own weights, read once and not packed. */
static void JM_NAME(chain_rows_dots)(const JM_NAME(chain_step) * step,
                                     const JM_NAME(chain_rows_job) * job, ptrdiff_t count) {
    const int tail = (int)(step->cols - job->in_pad + JM_VW);
    for (ptrdiff_t j = 0; j < count; j++)
        for (ptrdiff_t i = job->out_pad - JM_VW; i < job->out_pad; i++)
            job->out[j * job->out_pad + i] = 0;
    for (ptrdiff_t row = 0, n_rows; row < step->rows; row += n_rows) {
        const ptrdiff_t left = step->rows - row;
        n_rows = left < 4 ? 1 : count == 1 && left >= 8 ? 8 : 4;
        for (ptrdiff_t j = 0, n_cols; j < count; j += n_cols) {
            n_cols = n_rows == 4 && j + 1 < count ? 2 : 1;
            /* The vectors after the first find these rows in the cache. */
            switch (10 * n_rows + n_cols + 1000 * (j == 0)) {
#define JM_DOTS(r, c)                                                                              \
    case 1000 + 10 * r + c:                                                                        \
        JM_NAME(chain_dots_tile)(r, c, 1, step, job, row, j, tail);                                \
        break;                                                                                     \
    case 10 * r + c:                                                                               \
        JM_NAME(chain_dots_tile)(r, c, 0, step, job, row, j, tail);                                \
        break;
                JM_DOTS(8, 1)
                JM_DOTS(4, 1)
                JM_DOTS(4, 2)
                JM_DOTS(1, 1)
#undef JM_DOTS
            }
        }
    }
}

/*
 * What follows the product, which is (count, out_pad) as `out` is and may be the same: slopes,
 * shortcut, and the sums of squares.
 */
static void JM_NAME(chain_rows_finish)(const JM_NAME(chain_rows_job) * job, const JM_T *product,
                                       ptrdiff_t n, ptrdiff_t count) {
    const int tail = (int)(n - job->out_pad + JM_VW);
    for (ptrdiff_t j = 0; j < count; j++) {
        const JM_T *s = job->slopes ? job->slopes + job->sample[j] * job->slopes_stride : NULL;
        JM_V between = JM_SPLAT(0), result = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < job->out_pad; i += JM_VW) {
            JM_V y = JM_LOAD(product + j * job->out_pad + i);
            if (s) {
                between = JM_FMADD(y, y, between);
                y *= i + JM_VW < job->out_pad ? JM_LOAD(s + i) : JM_LOAD_OF(s + i, 0, 1, tail);
            }
            if (job->shortcut != 0)
                y = JM_FMADD(JM_SPLAT(job->shortcut), JM_LOAD(job->original + j * job->in_pad + i),
                             y);
            result = JM_FMADD(y, y, result);
            JM_STORE(job->out + j * job->out_pad + i, y);
        }
        JM_STORE(job->between + j * JM_VW, between);
        JM_STORE(job->result + j * JM_VW, result);
    }
}

/* scratch = in * slopes row by row, the slopes on the input side. */
JM_INLINE void JM_NAME(chain_rows_slope)(ptrdiff_t n, const JM_NAME(chain_rows_job) * job,
                                         const JM_T *slopes, ptrdiff_t count, JM_T *scratch) {
    const ptrdiff_t pad = JM_PADDED(n);
    const int tail = (int)(n - pad + JM_VW);
    for (ptrdiff_t j = 0; j < count; j++) {
        const ptrdiff_t at = job->sample[j] * job->slopes_stride;
        JM_V sum = JM_SPLAT(0);
        JM_UNROLL
        for (ptrdiff_t i = 0; i + JM_VW < pad; i += JM_VW) {
            const JM_V x = JM_LOAD(job->original + j * pad + i) * JM_LOAD(slopes + at + i);
            sum = JM_FMADD(x, x, sum);
            JM_STORE(scratch + j * pad + i, x);
        }
        const ptrdiff_t i = pad - JM_VW;
        const JM_V x =
            JM_LOAD(job->original + j * pad + i) * JM_LOAD_OF(slopes + at + i, 0, 1, tail);
        sum = JM_FMADD(x, x, sum);
        JM_STORE(scratch + j * pad + i, x);
        JM_STORE(job->between + j * JM_VW, sum);
    }
}
