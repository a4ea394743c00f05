/*
 * Vectors pushed through a chain, forwards (jvp) or backwards (vjp); see chain_step.inc.h.
 *
 * A group of vectors, the rows of a block, goes through all layers together.  Where the weights are
 * shared, and for a vjp, the lanes run along the result: W is the panel, read as it lies for a vjp
 * and transposed for a jvp.  A jvp through weights of each sample's own takes dot products along
 * the rows of W, which are then read once and in order; a group of vectors is then of one sample.
 * Which way is taken depends on the chain and the direction alone, and a vector's arithmetic on
 * that vector alone.
 */

#undef JM_PADDED
#undef JM_LOW_SQUARE
#undef JM_HIGH_SQUARE
#undef JM_LEAST_SQUARE
#undef JM_MOST_SQUARE
/* Squared norms at which a row is left alone, and those that lose nothing; see chain_rows_repair.
 */
#define JM_LOW_SQUARE (JM_IS_F64 ? 0x1p-200 : 0x1p-40)
#define JM_HIGH_SQUARE (JM_IS_F64 ? 0x1p200 : 0x1p40)
#define JM_LEAST_SQUARE (JM_IS_F64 ? 0x1p-957 : 0x1p-61)
#define JM_MOST_SQUARE (JM_IS_F64 ? 0x1p1016 : 0x1p120)
#define JM_PADDED(n) (((n) + JM_VW - 1) / JM_VW * JM_VW)
#ifndef JM_GROUP_ROWS
#define JM_GROUP_ROWS 128                    /* vectors in a group at most */
#define JM_GROUP_PADDED (JM_GROUP_ROWS + 12) /* the last tile may reach past the last row */
#define JM_PANEL_ALONE 8                     /* vectors in a panel for one row at a time */
#define JM_LEAST_TILE_ROWS 5                 /* about the height of a tile, to count them */
#endif

/* A group's state, and scratch. */
typedef struct {
    int64_t *exponent;    /* per vector */
    ptrdiff_t *bad_layer; /* per vector; -1: none */
    int *is_zero;         /* per vector: it has become exactly zero */
    JM_T *block[2];       /* the vectors, a row each */
    JM_T *scratch;        /* the same size: what the slopes on the input side give */
    JM_T *packed;         /* (max_width, panel width): columns of W as the rows' panel */
    JM_T *alone;          /* (max_width, padded): one row, for a careful step */
    JM_T *weights;        /* (max_width, max_width) and (max_width): scaled copies for it */
    JM_T *slopes;
} JM_NAME(chain_vectors_space);

/* How many vectors a group of this chain may hold. */
static ptrdiff_t JM_NAME(chain_vectors_group)(ptrdiff_t max_width, int has_shared_weights) {
    (void)max_width;
    (void)has_shared_weights;
    return JM_GROUP_ROWS;
}

static size_t JM_NAME(chain_vectors_layout)(ptrdiff_t max_width, void *work,
                                            JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t padded = JM_PADDED(max_width);
    const size_t state = JM_GROUP_ROWS * sizeof(int64_t), block = JM_LINE(JM_GROUP_PADDED * padded);
    const size_t sizes[] = {state,
                            state,
                            state,
                            block,
                            block,
                            block,
                            JM_LINE(max_width * JM_PANEL * JM_VW),
                            JM_LINE(padded),
                            JM_LINE(max_width * max_width),
                            JM_LINE(max_width)};
    enum { N_PARTS = sizeof sizes / sizeof *sizes };
    size_t offset[N_PARTS], end = 0;
    for (int i = 0; i < N_PARTS; i++) {
        offset[i] = end;
        end += sizes[i];
    }
    if (space) {
        char *base = work;
        space->exponent = (void *)(base + offset[0]);
        space->bad_layer = (void *)(base + offset[1]);
        space->is_zero = (void *)(base + offset[2]);
        space->block[0] = (void *)(base + offset[3]);
        space->block[1] = (void *)(base + offset[4]);
        space->scratch = (void *)(base + offset[5]);
        space->packed = (void *)(base + offset[6]);
        space->alone = (void *)(base + offset[7]);
        space->weights = (void *)(base + offset[8]);
        space->slopes = (void *)(base + offset[9]);
    }
    return end;
}

/* Bytes of workspace, of 64-byte alignment, that chain_jvp and chain_vjp need. */
static size_t JM_NAME(chain_vectors_work)(ptrdiff_t max_width) {
    return JM_NAME(chain_vectors_layout)(max_width, NULL, NULL);
}

/* ---- what both ways share --------------------------------------------------------------- */

/*
 * out[j * stride] = log of sqrt(square_j) 2^exponent_j, with an error of about one rounding.
 *
 * log m = 2 atanh((m - 1) / (m + 1)) for m in [1/sqrt 2, sqrt 2), whose series is cut where its
 * next term is below 2^-60.  The loop has no branch and no conversion, so that the compiler takes
 * it in lanes: integers become doubles through the low bits of a large one's fraction.
 */
static void JM_NAME(chain_log_norms)(ptrdiff_t count, const double *square, const int64_t *exponent,
                                     double *out, ptrdiff_t stride) {
    static const double odd[] = {1. / 3,  1. / 5,  1. / 7,  1. / 9,  1. / 11,
                                 1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21};
    const int64_t least = 0x3FE6A09E667F3BCD;      /* the bits of 1/sqrt 2 */
    const uint64_t shift = 0x4000000000000000;     /* makes every exponent positive */
    const int64_t large_bits = 0x4338000000000000; /* the bits of 1.5 * 2^52 */
    const double large = 0x1.8p52;
    double log_norm[JM_GROUP_ROWS];
    int is_plain = 1;
    for (ptrdiff_t j = 0; j < count; j++) {
        union {
            double value;
            int64_t bits;
        } x = {square[j]}, e, twos;
        const int64_t offset = x.bits - least;
        e.bits = (int64_t)(((uint64_t)offset + shift) >> 52) + large_bits;
        twos.bits = exponent[j] + large_bits;
        x.bits = (offset & 0xFFFFFFFFFFFFF) + least;
        const double r = (x.value - 1) / (x.value + 1), r2 = r * r;
        double series = odd[9];
        for (int i = 8; i >= 0; i--)
            series = series * r2 + odd[i];
        const double total = (twos.value - large) + 0.5 * ((e.value - large) - 1024);
        log_norm[j] = JM_LOG_2_HIGH * total + (JM_LOG_2_LOW * total + (r + r * (r2 * series)));
        is_plain &= (square[j] >= DBL_MIN) & (square[j] <= DBL_MAX);
    }
    for (ptrdiff_t j = 0; j < count; j++)
        out[j * stride] = log_norm[j];
    for (ptrdiff_t j = 0; !is_plain && j < count; j++)
        if (!(square[j] >= DBL_MIN && square[j] <= DBL_MAX))
            out[j * stride] = 0.5 * log(square[j]);
}

/* Whether the vectors at interface k are to be written. */
static int JM_NAME(chain_is_kept)(const jm_vectors *vectors, ptrdiff_t k, int is_far_end) {
    return vectors->kept_exponents ? vectors->kept[k] != NULL : is_far_end;
}

/* One vector at interface k, with elements `stride` apart, written where the caller keeps it. */
static void JM_NAME(chain_keep)(const jm_vectors *vectors, ptrdiff_t k, ptrdiff_t vector,
                                ptrdiff_t n, const JM_T *x, ptrdiff_t stride, int64_t exponent) {
    const int keeps_all = vectors->kept_exponents != NULL;
    JM_T *out = (JM_T *)vectors->kept[keeps_all ? k : 0] + vector * n;
    int64_t *out_exponent = keeps_all ? vectors->kept_exponents[k] : (int64_t *)vectors->kept[1];
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = x[i * stride];
    const JM_T largest = JM_NAME(max_abs)(n, out);
    const int is_plain = largest > 0 && !isinf(largest);
    if (is_plain) {
        const int e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(n, out, -e);
        exponent += e;
    }
    out_exponent[vector] = is_plain ? exponent : 0;
}

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

/* sums[j] = sum of the JM_VW lanes of row j. */
static void JM_NAME(chain_sum_lanes)(ptrdiff_t count, const JM_T *lanes, double *sums) {
    for (ptrdiff_t j = 0; j < count; j++)
        sums[j] = (double)JM_LANE_SUM(JM_LOAD(lanes + j * JM_VW));
}

static double JM_NAME(chain_row_square)(ptrdiff_t n, const JM_T *row) {
    JM_V sum = JM_SPLAT(0);
    for (ptrdiff_t i = 0; i < JM_PADDED(n); i += JM_VW)
        sum = JM_FMADD(JM_LOAD(row + i), JM_LOAD(row + i), sum);
    return (double)JM_LANE_SUM(sum);
}

/*
 * Rows through one layer, with the sum of squares of what stands between the two operations (1 if
 * there is only one) and of the result.
 */
JM_INLINE void JM_NAME(chain_rows_step)(ptrdiff_t rows, ptrdiff_t depth, const jm_layer *layer,
                                        const JM_NAME(chain_step) * step, const JM_T *ahead,
                                        ptrdiff_t fetch, int is_own, const ptrdiff_t *sample,
                                        ptrdiff_t count, const JM_T *in, JM_T *out, double *between,
                                        double *result,
                                        const JM_NAME(chain_vectors_space) * space) {
    JM_T lanes[JM_GROUP_PADDED * JM_VW], between_lanes[JM_GROUP_PADDED * JM_VW];
    const JM_T *slopes = layer->slopes;
    const int scales_input = slopes && step->slopes_first && step->weights;
    JM_NAME(chain_rows_job)
    job = {.source = scales_input ? space->scratch : in,
           .original = in,
           .out = out,
           .in_pad = JM_PADDED(depth),
           .out_pad = JM_PADDED(rows),
           .shortcut = step->shortcut,
           .slopes = scales_input ? NULL : slopes,
           .slopes_stride = layer->slopes_stride,
           .ahead = ahead,
           .fetch = fetch,
           .sample = sample,
           .between = between_lanes,
           .result = lanes};
    const int takes_dots = is_own && step->row_stride != 1;
    const int is_alone = !takes_dots && count <= 2 && step->row_stride == 1;
    if ((takes_dots || is_alone) && fetch && rows * depth * (ptrdiff_t)sizeof(JM_T) > JM_AHEAD)
        job.fetch = JM_AHEAD; /* read in order */
    if (scales_input)
        JM_NAME(chain_rows_slope)
    (depth, &job, slopes, count, space->scratch);
    if (!step->weights) {
        JM_NAME(chain_rows_finish)(&job, in, rows, count);
    } else if (takes_dots) {
        JM_NAME(chain_rows_dots)(step, &job, count);
        JM_NAME(chain_rows_finish)(&job, out, rows, count);
    } else if (is_alone) {
        JM_NAME(chain_rows_alone)(step, &job, count);
    } else {
        JM_NAME(chain_rows_product)(rows, depth, step, &job, count, space->packed);
    }
    JM_NAME(chain_sum_lanes)(count, lanes, result);
    if (slopes && step->weights)
        JM_NAME(chain_sum_lanes)(count, between_lanes, between);
    else
        for (ptrdiff_t j = 0; j < count; j++)
            between[j] = 1;
}

/*
 * One row through a step from scaled copies of everything, its result in [0.5, 1) unless zero, by
 * the operations of the plain step.  Adds to *exponent.  Returns JM_NON_FINITE for bad input; out
 * is then what plain arithmetic gives.
 */
static int JM_NAME(chain_careful_row)(JM_NAME(chain_step) step, int is_own, const JM_T *in,
                                      JM_T *out, int64_t *exponent,
                                      const JM_NAME(chain_vectors_space) * space) {
    static const ptrdiff_t no_sample = 0;
    const ptrdiff_t in_pad = JM_PADDED(step.cols), out_pad = JM_PADDED(step.rows);
    JM_T *from = space->alone;
    int e = 0, e_step = 0, e_out = 0;
    double between, result;
    memcpy(from, in, (size_t)in_pad * sizeof(JM_T));
    JM_T largest = JM_NAME(max_abs)(step.cols, from);
    if (largest > 0 && !isinf(largest)) {
        e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.cols, from, -e);
    }
    const int status = JM_NAME(chain_scaled_step)(&step, space->weights, space->slopes, &e_step);
    const jm_layer layer = {.slopes = step.slopes};
    JM_NAME(chain_rows_step)
    (step.rows, step.cols, &layer, &step, NULL, 0, is_own, &no_sample, 1, from, out, &between,
     &result, space);
    largest = JM_NAME(max_abs)(step.rows, out);
    if (largest > 0 && !isinf(largest)) {
        e_out = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.rows, out, -e_out);
    }
    for (ptrdiff_t i = step.rows; i < out_pad; i++)
        out[i] = 0;
    *exponent += (int64_t)e + e_step + e_out;
    return status;
}

/*
 * Rows whose digits plain arithmetic may have spoilt are taken again with care, and a row whose
 * norm has left 2^+-JM_LAZY is brought back.  A sum of squares is trusted between 2^(JM_MIN_EXP +
 * 64) and 2^(JM_MAX_EXP - 8): the largest magnitude is then far from where chain_is_safe would
 * object.
 */
static void JM_NAME(chain_rows_repair)(const jm_chain *chain, const ptrdiff_t *sample, ptrdiff_t k,
                                       int transposed, int is_own, ptrdiff_t count,
                                       const JM_NAME(chain_step) * step, const JM_T *in, JM_T *out,
                                       const double *between, double *result,
                                       const JM_NAME(chain_vectors_space) * space) {
    const double low = JM_LOW_SQUARE, high = JM_HIGH_SQUARE;
    const double least = JM_LEAST_SQUARE, most = JM_MOST_SQUARE;
    const ptrdiff_t in_pad = JM_PADDED(step->cols), out_pad = JM_PADDED(step->rows);
    int is_plain = 1;
    for (ptrdiff_t j = 0; j < count; j++)
        is_plain &=
            (result[j] >= low) & (result[j] <= high) & (between[j] >= least) & (between[j] <= most);
    for (ptrdiff_t j = 0; !is_plain && j < count; j++) {
        const int is_between = between[j] >= least && between[j] <= most;
        if (result[j] >= low && result[j] <= high && is_between)
            continue;
        if (space->bad_layer[j] >= 0 || (space->is_zero[j] && result[j] == 0))
            continue;
        JM_T *row = out + j * out_pad;
        if (result[j] >= least && result[j] <= most && is_between) {
            const int e = JM_NAME(exponent_of)((JM_T)sqrt(result[j]));
            JM_NAME(scale_by_power)(step->rows, row, -e);
            space->exponent[j] += e;
        } else {
            const JM_NAME(chain_step) alone =
                JM_NAME(chain_step_of)(chain, k, sample[j], transposed);
            if (JM_NAME(chain_careful_row)(alone, is_own, in + j * in_pad, row, space->exponent + j,
                                           space) != JM_OK)
                space->bad_layer[j] = k;
        }
        result[j] = JM_NAME(chain_row_square)(step->rows, row);
        space->is_zero[j] = result[j] == 0;
    }
}

/* Start vectors as rows, their largest magnitude brought to [0.5, 1), and their squared norms. */
static void JM_NAME(chain_rows_start)(const jm_vectors *vectors, ptrdiff_t n_layers, ptrdiff_t n,
                                      ptrdiff_t first, ptrdiff_t count, JM_T *in, double *result,
                                      const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t padded = JM_PADDED(n);
    memset(in, 0, (size_t)(count * padded) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < count; j++) {
        JM_T *row = in + j * padded;
        memcpy(row, (const JM_T *)vectors->start + (first + j) * n, (size_t)n * sizeof(JM_T));
        const JM_T largest = JM_NAME(max_abs)(n, row);
        if (isinf(largest)) {
            space->bad_layer[j] = n_layers;
        } else if (largest > 0) {
            const int e = JM_NAME(exponent_of)(largest);
            JM_NAME(scale_by_power)(n, row, -e);
            space->exponent[j] = e;
        }
        result[j] = JM_NAME(chain_row_square)(n, row);
    }
}

/*
 * The slopes to fetch while layer k is worked on: those of the next layer or, where a group's are
 * few, of the same layer in the next group, n_samples on (0: there is none).  NULL for none.
 */
static const JM_T *JM_NAME(chain_slopes_ahead)(const jm_chain *chain, const jm_layer *layer,
                                               ptrdiff_t k, int transposed, ptrdiff_t n_samples) {
    const ptrdiff_t group = n_samples * layer->slopes_stride, then = transposed ? k - 1 : k + 1;
    if (layer->slopes_stride == 0)
        return NULL;
    if (group > 0 && group * (ptrdiff_t)sizeof(JM_T) <= 4 * JM_AHEAD)
        return (const JM_T *)layer->slopes + group;
    if (then >= 0 && then < chain->n_layers)
        return JM_NAME(chain_layer)(chain, then).slopes;
    const JM_T *start = JM_NAME(chain_layer)(chain, transposed ? chain->n_layers - 1 : 0).slopes;
    return start && group ? start + group : NULL;
}

/*
 * From an entry of layer k's own W to one that is wanted some JM_AHEAD bytes of them later, in
 * bytes: in a later layer or, after the last, in the next sample.  0 for none.
 */
static ptrdiff_t JM_NAME(chain_fetch_distance)(const jm_chain *chain, const jm_layer *layer,
                                               ptrdiff_t k, int transposed, int has_next) {
    const ptrdiff_t n_layers = chain->n_layers;
    const ptrdiff_t size = layer->rows * layer->cols * (ptrdiff_t)sizeof(JM_T);
    ptrdiff_t steps = (JM_AHEAD + size - 1) / size;
    steps = steps < n_layers ? steps : n_layers;
    ptrdiff_t then = transposed ? k - steps : k + steps;
    const int is_past = then < 0 || then >= n_layers;
    if (!layer->weights || !layer->weights_stride || (is_past && !has_next))
        return 0;
    if (is_past)
        then += transposed ? n_layers : -n_layers;
    const jm_layer next = JM_NAME(chain_layer)(chain, then);
    const JM_T *weights = next.weights;
    return weights ? (const char *)(weights + is_past * next.weights_stride) -
                         (const char *)layer->weights
                   : 0;
}

static void JM_NAME(chain_by_rows)(const jm_chain *chain, const jm_vectors *vectors,
                                   ptrdiff_t max_width, ptrdiff_t first, ptrdiff_t count,
                                   ptrdiff_t begin, ptrdiff_t end, int transposed,
                                   const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t n_layers = chain->n_layers, per_sample = vectors->per_sample;
    const int is_own = !vectors->has_shared_weights;
    const int has_next = first + count < vectors->n_vectors; /* there is another group */
    JM_T *in = space->block[begin % 2], *out = space->block[1 - begin % 2];
    double *log_norms = vectors->log_norms + first * (n_layers + 1);
    double between[JM_GROUP_ROWS], result[JM_GROUP_ROWS];
    /* Rows past the last are padding of its tile: zero, so that nothing is slow or traps there. */
    ptrdiff_t sample[JM_GROUP_PADDED];
    for (ptrdiff_t j = 0, now = first / per_sample, left = per_sample - first % per_sample;
         j < JM_GROUP_PADDED; j++, left--) {
        if (left == 0 && j < count) {
            now++;
            left = per_sample;
        }
        sample[j] = now;
    }
    if (begin == 0) {
        JM_T *const blocks[] = {in, out, space->scratch};
        const ptrdiff_t padded = JM_PADDED(max_width);
        for (int i = 0; i < 3; i++)
            memset(blocks[i] + count * padded, 0, (size_t)(12 * padded) * sizeof(JM_T));
    }

    for (ptrdiff_t progress = begin - (begin == 0); progress < end; progress++) {
        /* Progress -1 is the start; k is the interface arrived at, which a vjp counts backwards. */
        const ptrdiff_t arrived = transposed ? n_layers - 1 - progress : progress + 1;
        ptrdiff_t n;
        if (progress < 0) {
            n = transposed ? JM_NAME(chain_layer)(chain, n_layers - 1).rows
                           : JM_NAME(chain_layer)(chain, 0).cols;
            JM_NAME(chain_rows_start)(vectors, n_layers, n, first, count, in, result, space);
        } else {
            const ptrdiff_t k = transposed ? arrived : progress;
            const jm_layer layer = JM_NAME(chain_layer)(chain, k);
            const JM_NAME(chain_step) step =
                JM_NAME(chain_step_of)(chain, k, sample[0], transposed);
            const JM_T *ahead = JM_NAME(chain_slopes_ahead)(
                chain, &layer, k, transposed, has_next ? sample[count - 1] - sample[0] + 1 : 0);
            const ptrdiff_t fetch =
                is_own ? JM_NAME(chain_fetch_distance)(chain, &layer, k, transposed, has_next) : 0;
            n = step.rows;
            switch (step.cols == n ? n : 0) {
#define JM_SIZE(size)                                                                              \
    case size:                                                                                     \
        JM_NAME(chain_rows_step)                                                                   \
        (size, size, &layer, &step, ahead, fetch, is_own, sample, count, in, out, between, result, \
         space);                                                                                   \
        break;
                JM_SIZE(2)
                JM_SIZE(3)
                JM_SIZE(4)
                JM_SIZE(8)
                JM_SIZE(16)
                JM_SIZE(32)
                JM_SIZE(64)
#undef JM_SIZE
            default:
                JM_NAME(chain_rows_step)
                (n, step.cols, &layer, &step, ahead, fetch, is_own, sample, count, in, out, between,
                 result, space);
            }
            JM_NAME(chain_rows_repair)
            (chain, sample, k, transposed, is_own, count, &step, in, out, between, result, space);
            JM_T *const previous = in;
            in = out;
            out = previous;
        }
        JM_NAME(chain_log_norms)
        (count, result, space->exponent, log_norms + arrived, n_layers + 1);
        const int is_far_end = progress == n_layers - 1;
        for (ptrdiff_t j = 0; JM_NAME(chain_is_kept)(vectors, arrived, is_far_end) && j < count;
             j++)
            JM_NAME(chain_keep)
        (vectors, arrived, first + j, n, in + j * JM_PADDED(n), 1, space->exponent[j]);
    }
}

/* ---- the kernels ------------------------------------------------------------------------ */

/* Vectors [first, first + count) of one group through layers [begin, end), in either direction. */
static int JM_NAME(chain_vectors)(const jm_chain *chain, const jm_vectors *vectors,
                                  ptrdiff_t max_width, ptrdiff_t first, ptrdiff_t count,
                                  ptrdiff_t begin, ptrdiff_t end, int transposed,
                                  ptrdiff_t *bad_layer, void *work) {
    JM_NAME(chain_vectors_space) space;
    JM_NAME(chain_vectors_layout)(max_width, work, &space);
    for (ptrdiff_t j = 0; begin == 0 && j < count; j++) {
        space.exponent[j] = 0;
        space.bad_layer[j] = -1;
        space.is_zero[j] = 0;
    }
    JM_NAME(chain_by_rows)
    (chain, vectors, max_width, first, count, begin, end, transposed, &space);
    int status = JM_OK;
    for (ptrdiff_t j = 0; j < count; j++) {
        bad_layer[j] = space.bad_layer[j];
        status = bad_layer[j] < 0 ? status : JM_NON_FINITE;
    }
    return status;
}

/*
 * J v for the tangents [first, first + count) of a group, F_0 first.
 *
 * count      1 .. chain_vectors_group(...); vectors of one group share the weights of every layer
 * bad_layer  (count)  first layer with a NaN or infinity that the vector meets, n_layers if it
 *                     holds one itself, -1 if there is none
 * work       chain_vectors_work(largest width) bytes; begin == 0 starts it anew, a later range of
 *            layers passed goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Never allocates.  Cost 2 n_{k+1} n_k
 * flops a layer and vector, and one logarithm.  A vector's result does not depend on the rest of
 * its group.  Returns JM_OK, or JM_NON_FINITE if a bad_layer is set.
 */
static int JM_NAME(chain_jvp)(const jm_chain *chain, const jm_vectors *vectors, ptrdiff_t max_width,
                              ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end,
                              ptrdiff_t *bad_layer, void *work) {
    return JM_NAME(chain_vectors)(chain, vectors, max_width, first, count, begin, end, 0, bad_layer,
                                  work);
}

/* v^T J for the cotangents of a group, F_{L-1} first; otherwise as chain_jvp. */
static int JM_NAME(chain_vjp)(const jm_chain *chain, const jm_vectors *vectors, ptrdiff_t max_width,
                              ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end,
                              ptrdiff_t *bad_layer, void *work) {
    return JM_NAME(chain_vectors)(chain, vectors, max_width, first, count, begin, end, 1, bad_layer,
                                  work);
}
