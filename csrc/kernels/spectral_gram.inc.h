/*
 * The 2-norm of small matrices with a proof, JM_VW matrices at a time, one in each lane.
 *
 * B (long x short) is the scaled matrix, transposed if it is wide; short <= long.
 *
 *   1. G = B^T B.  Of small matrices lane by lane; of others one after the other, a row of B
 *      against its own entries, and then brought into lanes.
 *   2. The largest eigenvalue lambda of a copy of G (spectral_eigenvalue.inc.h).
 *   3. theta just above lambda with the proof that the largest eigenvalue of the computed G lies
 *      within eta theta above it and how far below (spectral_proof.inc.h).
 *   4. Each entry of G passes through at most k = block + blocks roundings, block the rows summed
 *      at a time, so
 *          ||G^ - B^T B||_2 <= gamma(k) || |B|^T |B| ||_2 <= gamma(k) ||B||_F^2,
 *      and ||B||_F^2 is the trace of G^ up to 1 / (1 - gamma(k + short)).
 * The Frobenius norm is another upper bound, the one that stands where the proof fails, and the
 * largest entry of B another lower one.
 *
 *      At short = 2 lambda is (g_11 + g_22) / 2 + hypot((g_11 - g_22) / 2, g_12), in which nothing
 *      cancels but one difference of two given numbers: no more than 6 roundings; at short = 1 it
 *      is g_11.  Then theta = lambda and eta = 8 u on either side, without a factorisation.
 *
 * The bounds are put together in JM_T, moved outward by 32 units for those few operations, of which
 * none rounds by more than u theta.
 */
#ifndef JM_GRAM_BLOCK
#define JM_GRAM_BLOCK 64       /* rows of B summed apart, to shorten the chain of roundings */
#define JM_GRAM_CLOSED 2       /* sizes up to this have a closed form */
#define JM_GRAM_CLOSED_ETA 8.0 /* and this error in units of rounding */
#define JM_GRAM_OUTWARD 32.0   /* units by which assembled bounds are moved outward */
#define JM_GRAM_FINE 64        /* entries up to which G is formed lane by lane */
#define JM_GRAM_LITERAL 4      /* sizes up to this are unrolled */
#define JM_GRAM_RUN 16         /* sizes below which a call takes several packs */
#define JM_GRAM_PAIRED 16      /* sizes up to which two groups of lanes are iterated together */
#define JM_GRAM_COLUMNS 3      /* vectors of columns in a tile of JM_GRAM_ROWS rows */
#endif

/* What the bounds of every matrix of a shape have in common. */
typedef struct {
    JM_T forming;     /* gamma(k) */
    JM_T over_trace;  /* 1 / (1 - gamma(k + short)) */
    JM_T eta;         /* relative, of theta */
    JM_T in_quotient; /* what evaluating ||w||^2 / ||v||^2 may round */
    JM_T in_solve;    /* gamma(short + 4) ||R||_F / sqrt(theta) */
} JM_NAME(jm_gram_errors);

/* A group of JM_VW matrices: how they are scaled. */
typedef struct {
    JM_V peak;            /* largest |entry| */
    JM_V scale, more;     /* product 2^-exponent; more is one in plain lanes */
    JM_V back, more_back; /* product 2^exponent */
    int is_plain;         /* no bound can leave the normal range, and no matrix is zero */
} JM_NAME(jm_gram_scales);

/*
 * Rows [0, length) of every lane's B, not yet scaled: block (length, short, JM_VW).
 *
 * items   (JM_VW) the matrices, row-major (rows, cols)
 */
JM_INLINE void JM_NAME(gram_load)(ptrdiff_t rows, ptrdiff_t cols, const JM_T *const *items,
                                  JM_T *JM_RESTRICT block) {
    if (rows >= cols) {
        JM_NAME(jm_interleave)(rows * cols, 0, items, 1, block);
    } else {
        for (ptrdiff_t i = 0; i < rows; i++)
            JM_NAME(jm_interleave)(cols, i * cols, items, rows, block + i * JM_VW);
    }
}

/* The largest |entry| of each lane of block (n, JM_VW), infinity where one is not finite. */
JM_INLINE JM_V JM_NAME(gram_peaks)(ptrdiff_t n, const JM_T *block) {
    JM_V largest = JM_SPLAT(0), fault = JM_SPLAT(0);
    for (ptrdiff_t i = 0; i < n; i++) {
        const JM_V x = JM_LOAD(block + i * JM_VW);
        largest = JM_VMAX_ABS(x, largest);
        fault = fault + (x - x); /* 0, or NaN where x is not finite */
    }
    return JM_VLESS(fault, JM_SPLAT(1), largest, JM_SPLAT(INFINITY));
}

/*
 * G[i0.., j0..] = block^T block for a tile of r x c entries; r and c are literals at every
 * call.
 */
JM_INLINE void JM_NAME(lane_tile)(const int r, const int c, ptrdiff_t size, ptrdiff_t count,
                                  const JM_T *block, ptrdiff_t i0, ptrdiff_t j0, JM_T *g) {
    JM_V sum[4][4];
    for (int x = 0; x < r; x++)
        for (int y = 0; y < c; y++)
            sum[x][y] = JM_SPLAT(0);
    const JM_T *row = block + i0 * JM_VW;
    const JM_T *column = block + j0 * JM_VW;
    for (ptrdiff_t k = 0; k < count; k++) {
        JM_V b[4];
        for (int y = 0; y < c; y++)
            b[y] = JM_LOAD(column + y * JM_VW);
        for (int x = 0; x < r; x++) {
            const JM_V a = JM_LOAD(row + x * JM_VW);
            for (int y = 0; y < c; y++)
                sum[x][y] = JM_FMADD(a, b[y], sum[x][y]);
        }
        row += size * JM_VW;
        column += size * JM_VW;
    }
    for (int x = 0; x < r; x++)
        for (int y = 0; y < c; y++)
            JM_STORE(g + ((i0 + x) * size + j0 + y) * JM_VW, sum[x][y]);
}

/* A row of tiles, r high, up to and including the diagonal. */
JM_INLINE void JM_NAME(lane_tiles)(const int r, ptrdiff_t size, ptrdiff_t count, const JM_T *block,
                                   ptrdiff_t i0, JM_T *g) {
    ptrdiff_t j0 = 0;
    for (; j0 + 4 <= i0 + r; j0 += 4)
        JM_NAME(lane_tile)(r, 4, size, count, block, i0, j0, g);
    if (j0 + 2 <= i0 + r) {
        JM_NAME(lane_tile)(r, 2, size, count, block, i0, j0, g);
        j0 += 2;
    }
    if (j0 < i0 + r)
        JM_NAME(lane_tile)(r, 1, size, count, block, i0, j0, g);
}

/*
 * G (size, size, JM_VW) = block^T block, lower triangle; entries above the diagonal are
 * undefined.
 */
JM_INLINE void JM_NAME(lane_products)(ptrdiff_t size, ptrdiff_t count, const JM_T *block, JM_T *g) {
    ptrdiff_t i0 = 0;
    for (; i0 + JM_GRAM_TILE <= size; i0 += JM_GRAM_TILE)
        JM_NAME(lane_tiles)(JM_GRAM_TILE, size, count, block, i0, g);
    for (; i0 < size; i0++)
        JM_NAME(lane_tiles)(1, size, count, block, i0, g);
}

/* Rows [begin, begin + count) of one B, times scale and more: block (count, stride), zeros beside.
 */
static void JM_NAME(gram_pack)(ptrdiff_t rows, ptrdiff_t cols, const JM_T *a, ptrdiff_t begin,
                               ptrdiff_t count, JM_V scale, JM_V more, ptrdiff_t stride,
                               JM_T *JM_RESTRICT block) {
    if (rows >= cols) {
        for (ptrdiff_t k = 0; k < count; k++) {
            const JM_T *const row = a + (begin + k) * cols;
            JM_T *const to = block + k * stride;
            ptrdiff_t j = 0;
            for (; j + JM_VW <= cols; j += JM_VW)
                JM_STORE(to + j, JM_LOAD(row + j) * scale * more);
            if (j < cols) {
                JM_STORE(to + j, JM_LOAD_FIRST(row + j, cols - j) * scale * more);
                j += JM_VW;
            }
            for (; j < stride; j += JM_VW)
                JM_STORE(to + j, JM_SPLAT(0));
        }
        return;
    }
    for (ptrdiff_t j = 0; j < stride; j += JM_VW) { /* beside the last row: that row again */
        const JM_T *lines[JM_VW];
        for (ptrdiff_t i = 0; i < JM_VW; i++)
            lines[i] = a + (j + i < rows ? j + i : rows - 1) * cols;
        JM_NAME(jm_interleave)(count, begin, lines, stride / JM_VW, block + j);
    }
    for (ptrdiff_t j = 0; j < count * stride; j += JM_VW)
        JM_STORE(block + j, JM_LOAD(block + j) * scale * more);
}

/*
 * Rows [i0, i0 + JM_GRAM_ROWS) and c vectors of columns from j0 of G (+)= block^T block, both with
 * rows of `stride`.  c is a literal at every call.
 */
JM_INLINE void JM_NAME(product_tile)(const int c, ptrdiff_t stride, ptrdiff_t count,
                                     const JM_T *block, ptrdiff_t i0, ptrdiff_t j0, int first,
                                     JM_T *g) {
    JM_V sum[JM_GRAM_ROWS][JM_GRAM_COLUMNS];
    for (int x = 0; x < JM_GRAM_ROWS; x++)
        for (int y = 0; y < c; y++)
            sum[x][y] = JM_SPLAT(0);
    for (ptrdiff_t k = 0; k < count; k++) {
        const JM_T *const row = block + k * stride;
        JM_V b[JM_GRAM_COLUMNS];
        for (int y = 0; y < c; y++)
            b[y] = JM_LOAD(row + j0 + y * JM_VW);
        for (int x = 0; x < JM_GRAM_ROWS; x++) {
            const JM_V a = JM_SPLAT(row[i0 + x]);
            for (int y = 0; y < c; y++)
                sum[x][y] = JM_FMADD(a, b[y], sum[x][y]);
        }
    }
    for (int x = 0; x < JM_GRAM_ROWS; x++)
        for (int y = 0; y < c; y++) {
            JM_T *const entry = g + (i0 + x) * stride + j0 + y * JM_VW;
            JM_STORE(entry, first ? sum[x][y] : JM_LOAD(entry) + sum[x][y]);
        }
}

/* Entries in a row of one matrix' block and G: whole vectors, and whole tiles. */
JM_INLINE ptrdiff_t JM_NAME(gram_stride)(ptrdiff_t size) {
    const ptrdiff_t unit = JM_VW > JM_GRAM_ROWS ? JM_VW : JM_GRAM_ROWS;
    return (size + unit - 1) / unit * unit;
}

/* G (stride, stride) of one matrix, up to the diagonal and to the end of a vector beyond it. */
static void JM_NAME(gram_of_one)(ptrdiff_t rows, ptrdiff_t cols, const JM_T *a, JM_V scale,
                                 JM_V more, JM_T *block, JM_T *g) {
    const ptrdiff_t size = rows < cols ? rows : cols, length = rows < cols ? cols : rows;
    const ptrdiff_t stride = JM_NAME(gram_stride)(size);
    for (ptrdiff_t begin = 0; begin < length; begin += JM_GRAM_BLOCK) {
        const ptrdiff_t left = length - begin, count = left < JM_GRAM_BLOCK ? left : JM_GRAM_BLOCK;
        JM_NAME(gram_pack)(rows, cols, a, begin, count, scale, more, stride, block);
        for (ptrdiff_t i0 = 0; i0 < size; i0 += JM_GRAM_ROWS) {
            const int first = begin == 0;
            ptrdiff_t vectors = (i0 + JM_GRAM_ROWS + JM_VW - 1) / JM_VW, j0 = 0;
            for (; vectors >= JM_GRAM_COLUMNS; vectors -= JM_GRAM_COLUMNS) {
                JM_NAME(product_tile)(JM_GRAM_COLUMNS, stride, count, block, i0, j0, first, g);
                j0 += JM_GRAM_COLUMNS * JM_VW;
            }
            if (vectors == 2)
                JM_NAME(product_tile)(2, stride, count, block, i0, j0, first, g);
            else if (vectors == 1)
                JM_NAME(product_tile)(1, stride, count, block, i0, j0, first, g);
        }
    }
}

/* Whether no bound of a matrix with this exponent can leave the normal range. */
JM_INLINE int JM_NAME(is_plain_exponent)(int64_t e) {
    return e > JM_MIN_EXP + 1 && e < JM_MAX_EXP - JM_GRAM_BLOCK;
}

/* The scales of a group from its peaks, and the exponents. */
JM_INLINE void JM_NAME(gram_scales)(JM_V peak, int64_t *exponent, JM_NAME(jm_gram_scales) * to) {
    const JM_V least = JM_SPLAT(JM_LDEXP((JM_T)1, JM_MIN_EXP + 1));
    const JM_V most = JM_SPLAT(JM_LDEXP((JM_T)1, JM_MAX_EXP - JM_GRAM_BLOCK - 2));
    to->peak = peak;
    to->is_plain = !JM_ANY_ABOVE(least, peak) && !JM_ANY_ABOVE(peak, most);
    JM_T lanes[JM_VW];
    if (to->is_plain) {
        const JM_V e = JM_VEXPONENT(peak) + JM_SPLAT(1), rounder = JM_SPLAT(JM_ROUNDER);
        to->scale = JM_VPOW2(rounder - e);
        to->back = JM_VPOW2(rounder + e);
        to->more = to->more_back = JM_SPLAT(1);
        JM_STORE(lanes, e);
        for (int j = 0; j < JM_VW; j++)
            exponent[j] = (int64_t)lanes[j];
        return;
    }
    JM_T factor[4][JM_VW];
    JM_STORE(lanes, peak);
    for (int j = 0; j < JM_VW; j++) {
        const int is_usual = lanes[j] > 0 && isfinite(lanes[j]);
        const int e = is_usual ? JM_NAME(exponent_of)(lanes[j]) : 0;
        const int part = JM_NAME(is_plain_exponent)(e) ? e : e / 2;
        factor[0][j] = JM_NAME(power_of_two)(-part);
        factor[1][j] = JM_NAME(power_of_two)(part - e);
        factor[2][j] = JM_NAME(power_of_two)(part);
        factor[3][j] = JM_NAME(power_of_two)(e - part);
        exponent[j] = e;
    }
    to->scale = JM_LOAD(factor[0]);
    to->more = JM_LOAD(factor[1]);
    to->back = JM_LOAD(factor[2]);
    to->more_back = JM_LOAD(factor[3]);
}

static JM_NAME(jm_gram_errors) JM_NAME(gram_errors)(ptrdiff_t size, ptrdiff_t length) {
    const ptrdiff_t block = length < JM_GRAM_BLOCK ? length : JM_GRAM_BLOCK;
    const double u = (double)JM_U, p = (double)size;
    const double k = (double)(block + (length + block - 1) / block + 1); /* a spare: underflow */
    const double c = JM_NAME(gamma)(p + 4), up = 1 + 2 * u; /* and so does rounding to JM_T */
    const int is_closed = size <= JM_GRAM_CLOSED;
    return (JM_NAME(jm_gram_errors)){
        .forming = (JM_T)(JM_NAME(gamma)(k) * up),
        .over_trace = (JM_T)(up / (1 - JM_NAME(gamma)(k + p))),
        .eta = (JM_T)((is_closed ? JM_GRAM_CLOSED_ETA * u : u + p * c / (1 - c)) * up),
        .in_quotient = (JM_T)(JM_NAME(gamma)(2 * p + 8) * up),
        .in_solve = (JM_T)(c * sqrt(p / (1 - c)) * up),
    };
}

/*
 * The bounds of every lane, found[0..3) lower, value and upper, by the inequalities at the heads of
 * this file and of spectral_proof.inc.h.  peak is the largest entry, scaled; is_closed is a literal
 * at every call.
 */
JM_INLINE void JM_NAME(gram_bounds)(const int is_closed, const JM_NAME(jm_gram_errors) * errors,
                                    JM_V peak, JM_V lambda, JM_V theta, JM_V trace, JM_V quotient,
                                    JM_V *found) {
    const JM_V zero = JM_SPLAT(0), eta = JM_SPLAT(errors->eta);
    const JM_V outward = JM_SPLAT((JM_T)(1 + JM_GRAM_OUTWARD * JM_U));
    const JM_V inward = JM_SPLAT((JM_T)(1 - JM_GRAM_OUTWARD * JM_U));

    const JM_V square_sum = trace * JM_SPLAT(errors->over_trace) * outward;
    const JM_V loss = JM_SPLAT(errors->forming) * square_sum * outward;
    const JM_V above = JM_FMADD(theta, eta, theta) + loss;
    const JM_V least = JM_VLESS(zero, theta, JM_VMIN(above, square_sum), square_sum);
    found[2] = JM_VSQRT(least * outward) * outward;

    JM_V below = theta * (JM_SPLAT((JM_T)(1 - JM_GRAM_OUTWARD * JM_U)) - eta) - loss;
    if (!is_closed) {
        const JM_V root = JM_VSQRT(JM_FMADD(quotient, JM_SPLAT(errors->in_quotient), quotient));
        const JM_V off = JM_FMADD(JM_VSQRT(theta), JM_SPLAT(errors->in_solve), root) * outward;
        below = below - off * off * outward;
    }
    below = JM_VSQRT(below) * inward;
    /* NaN gives the peak */
    found[0] = JM_VLESS(zero, theta, JM_VMAX(below, peak), peak);
    found[1] = JM_VMIN(JM_VMAX(JM_VSQRT(lambda), found[0]), found[2]);
}

/*
 * G (size, size, JM_VW) of small matrices, lane by lane; block (length, size, JM_VW) is scratch.
 */
JM_INLINE void JM_NAME(gram_of_lanes)(ptrdiff_t size, ptrdiff_t rows, ptrdiff_t cols,
                                      const JM_T *const *items, int64_t *exponent, JM_T *block,
                                      JM_T *g, JM_NAME(jm_gram_scales) * scales) {
    const ptrdiff_t n = rows * cols;
    JM_NAME(gram_load)(rows, cols, items, block);
    JM_NAME(gram_scales)(JM_NAME(gram_peaks)(n, block), exponent, scales);
    for (ptrdiff_t i = 0; i < n; i++)
        JM_STORE(block + i * JM_VW, JM_LOAD(block + i * JM_VW) * scales->scale * scales->more);
    JM_NAME(lane_products)(size, rows < cols ? cols : rows, block, g);
}

/*
 * G (size, size, JM_VW) of n_items <= JM_VW matrices, formed one after the other, and, beyond its
 * last row, up to JM_VW - 1 entries more; block and own (JM_VW, stride, stride) are scratch.
 */
static void JM_NAME(gram_of_items)(ptrdiff_t n_items, ptrdiff_t rows, ptrdiff_t cols,
                                   const JM_T *const *items, int64_t *exponent, JM_T *block,
                                   JM_T *own, JM_T *g, JM_NAME(jm_gram_scales) * scales) {
    const ptrdiff_t size = rows < cols ? rows : cols;
    const ptrdiff_t stride = JM_NAME(gram_stride)(size);
    JM_T peaks[JM_VW], scale[JM_VW], more[JM_VW];
    const JM_T *found[JM_VW];
    for (int j = 0; j < JM_VW; j++) {
        peaks[j] = j == 0 || j < n_items ? JM_NAME(peak)(rows * cols, items[j]) : peaks[0];
        found[j] = own + (j < n_items ? j : 0) * stride * stride;
    }
    JM_NAME(gram_scales)(JM_LOAD(peaks), exponent, scales);
    JM_STORE(scale, scales->scale);
    JM_STORE(more, scales->more);
    for (ptrdiff_t j = 0; j < n_items; j++)
        JM_NAME(gram_of_one)(rows, cols, items[j], JM_SPLAT(scale[j]), JM_SPLAT(more[j]), block,
                             own + j * stride * stride);
    for (ptrdiff_t i = 0; i < size; i++)
        JM_NAME(jm_interleave)((i + JM_VW) / JM_VW * JM_VW, i * stride, found, 1,
                               g + i * size * JM_VW);
}

/* Where the kernel writes: see spectral_norm_gram. */
typedef struct {
    double rtol;
    double *bounds;
    JM_T *ends;
    ptrdiff_t stride;
    int64_t *exponent;
    int *status;
} JM_NAME(jm_gram_output);

/*
 * One item's bounds times 2^e, rounded outward where that leaves the normal range: what bounds of
 * a kernel become for whoever does not want the exponent.
 */
static void JM_NAME(outward_ends)(const JM_T *bounds, int e, JM_T *ends) {
    for (int side = 0; side < 3; side++) {
        ends[side] = JM_LDEXP(bounds[side], e);
        const JM_T back = JM_LDEXP(ends[side], -e); /* differs where it was rounded */
        if (side == 0 && back > bounds[side])
            ends[side] = JM_NEXT(ends[side], (JM_T)-INFINITY);
        if (side == 2 && back < bounds[side])
            ends[side] = JM_NEXT(ends[side], (JM_T)INFINITY);
    }
    ends[1] = ends[1] < ends[0] ? ends[0] : ends[1] > ends[2] ? ends[2] : ends[1];
}

/* The bounds of items [at, at + n_items), n_items <= JM_VW; 1 if an end left the plain range. */
JM_INLINE int JM_NAME(gram_report)(ptrdiff_t at, ptrdiff_t n_items,
                                   const JM_NAME(jm_gram_scales) * scales, const int64_t *exponent,
                                   const JM_V *found, const JM_NAME(jm_gram_output) * to) {
    JM_V moved[3];
    for (int side = 0; side < 3; side++)
        moved[side] = found[side] * scales->back * scales->more_back;
    if (scales->is_plain && n_items == JM_VW && !to->bounds && !to->status) {
        for (int side = 0; side < 3; side++)
            JM_STORE(to->ends + side * to->stride + at, moved[side]);
        return 0;
    }
    JM_T peaks[JM_VW], own[3][JM_VW], their[3][JM_VW];
    JM_STORE(peaks, scales->peak);
    for (int side = 0; side < 3; side++) {
        JM_STORE(own[side], found[side]);
        JM_STORE(their[side], moved[side]);
    }
    int is_extreme = 0;
    for (ptrdiff_t j = 0; j < n_items; j++) {
        JM_T bound[3] = {own[0][j], own[1][j], own[2][j]};
        JM_T end[3] = {their[0][j], their[1][j], their[2][j]};
        int status =
            (double)bound[2] > (double)bound[0] * (1 + to->rtol) ? JM_NOT_CONVERGED : JM_OK;
        if (!scales->is_plain) {
            if (peaks[j] == 0 || !isfinite(peaks[j])) {
                status = peaks[j] == 0 ? JM_OK : JM_NON_FINITE;
                bound[0] = bound[1] = bound[2] = peaks[j] == 0 ? (JM_T)0 : (JM_T)NAN;
            }
            JM_NAME(outward_ends)(bound, (int)exponent[j], end);
            is_extreme |= !JM_NAME(is_plain_exponent)(exponent[j]);
        }
        for (int side = 0; side < 3; side++) {
            if (to->bounds)
                to->bounds[side * to->stride + at + j] = (double)bound[side];
            to->ends[side * to->stride + at + j] = end[side];
        }
        if (to->exponent)
            to->exponent[at + j] = exponent[j];
        if (to->status)
            to->status[at + j] = status;
    }
    return is_extreme;
}

/* Groups of JM_VW matrices that are iterated on together. */
JM_INLINE ptrdiff_t JM_NAME(gram_pack_size)(ptrdiff_t rows, ptrdiff_t cols) {
    if (rows == cols && rows <= JM_GRAM_LITERAL)
        return JM_GRAM_PACK;
    return (rows < cols ? rows : cols) <= JM_GRAM_PAIRED ? 2 : 1;
}

/* Whether G is formed lane by lane. */
JM_INLINE int JM_NAME(is_gram_fine)(ptrdiff_t rows, ptrdiff_t cols) {
    return rows * cols <= JM_GRAM_FINE;
}

/* Entries of JM_T in block, G of a group, and the factor, which has room for the items' own G. */
JM_INLINE ptrdiff_t JM_NAME(gram_block_entries)(ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t size = rows < cols ? rows : cols, length = rows < cols ? cols : rows;
    if (JM_NAME(is_gram_fine)(rows, cols))
        return rows * cols * JM_VW;
    return (length < JM_GRAM_BLOCK ? length : JM_GRAM_BLOCK) * JM_NAME(gram_stride)(size);
}
JM_INLINE ptrdiff_t JM_NAME(gram_entries)(ptrdiff_t size) { return (size * size + JM_VW) * JM_VW; }
JM_INLINE ptrdiff_t JM_NAME(gram_factor_entries)(ptrdiff_t pack, ptrdiff_t size) {
    const ptrdiff_t stride = JM_NAME(gram_stride)(size), own = stride * stride * JM_VW;
    return own > pack * size * size * JM_VW ? own : pack * size * size * JM_VW;
}

/*
 * As spectral_norm_gram, for n_items <= pack * JM_VW matrices from item `at` on.  pack is a literal
 * at every call, and for small matrices size.
 */
JM_INLINE int JM_NAME(gram_pack_norms)(const int pack, ptrdiff_t size, ptrdiff_t at,
                                       ptrdiff_t n_items, ptrdiff_t rows, ptrdiff_t cols,
                                       const JM_T *a, const JM_NAME(jm_gram_errors) * errors,
                                       const JM_NAME(jm_gram_output) * to, JM_T *block) {
    JM_T *const g = block + JM_NAME(gram_block_entries)(rows, cols); /* (pack) */
    JM_T *const factor = g + pack * JM_NAME(gram_entries)(size);
    JM_T *const vectors = factor + JM_NAME(gram_factor_entries)(pack, size); /* (pack, 4, size) */
    JM_T *const inverse = vectors + pack * 4 * size * JM_VW;
    JM_T *const v = inverse + size * JM_VW;
    JM_T *const diagonal = v + size * JM_VW; /* (pack, size) */
    JM_T *const off_square = diagonal + pack * size * JM_VW;

    JM_NAME(jm_gram_scales) scales[JM_GRAM_PACK];
    int64_t exponent[JM_GRAM_PACK][JM_VW];
    JM_V trace[JM_GRAM_PACK], lambda[JM_GRAM_PACK];
    const ptrdiff_t n_groups = (n_items + JM_VW - 1) / JM_VW;
    for (ptrdiff_t k = 0; k < n_groups; k++) {
        const ptrdiff_t left = n_items - k * JM_VW;
        const JM_T *items[JM_VW];
        for (int j = 0; j < JM_VW; j++) /* spare lanes repeat the first matrix */
            items[j] = a + (at + k * JM_VW + (j < left ? j : 0)) * rows * cols;
        JM_T *const g_k = g + k * JM_NAME(gram_entries)(size);
        if (JM_NAME(is_gram_fine)(rows, cols))
            JM_NAME(gram_of_lanes)(size, rows, cols, items, exponent[k], block, g_k, &scales[k]);
        else
            JM_NAME(gram_of_items)(left < JM_VW ? left : JM_VW, rows, cols, items, exponent[k],
                                   block, factor, g_k, &scales[k]);
        trace[k] = lambda[k] = JM_LOAD(g_k);
        for (ptrdiff_t i = 1; i < size; i++)
            trace[k] = trace[k] + JM_LOAD(g_k + i * (size + 1) * JM_VW);
        if (size == 2) {
            const JM_V corner = JM_LOAD(g_k + 2 * JM_VW), half = JM_SPLAT(0.5);
            const JM_V difference = (JM_LOAD(g_k) - JM_LOAD(g_k + 3 * JM_VW)) * half;
            const JM_V square = JM_FMADD(corner, corner, difference * difference);
            lambda[k] = JM_FMADD(trace[k], half, JM_VSQRT(square));
        }
    }
    if (size > JM_GRAM_CLOSED) {
        for (ptrdiff_t k = 0; k < n_groups; k++)
            for (ptrdiff_t i = 0; i < size; i++)
                for (ptrdiff_t j = 0; j <= i; j++)
                    JM_STORE(factor + ((k * size + i) * size + j) * JM_VW,
                             JM_LOAD(g + k * JM_NAME(gram_entries)(size) + (i * size + j) * JM_VW));
        if (n_groups == pack) {
            JM_NAME(tridiagonalise)(pack, size, factor, diagonal, off_square, vectors);
            JM_NAME(largest_eigenvalue)(pack, size, diagonal, off_square, lambda);
        } else {
            for (ptrdiff_t k = 0; k < n_groups; k++) {
                JM_T *const own = diagonal + k * size * JM_VW;
                JM_T *const off = off_square + k * size * JM_VW;
                JM_NAME(tridiagonalise)(1, size, factor + k * size * size * JM_VW, own, off,
                                        vectors);
                JM_NAME(largest_eigenvalue)(1, size, own, off, &lambda[k]);
            }
        }
    }
    int is_extreme = 0;
    for (ptrdiff_t k = 0; k < n_groups; k++) {
        const ptrdiff_t left = n_items - k * JM_VW;
        JM_V theta = lambda[k], quotient = JM_SPLAT(0), found[3];
        const JM_V peak = scales[k].peak * scales[k].scale * scales[k].more;
        if (size > JM_GRAM_CLOSED) {
            theta = JM_NAME(gram_theta)(size, lambda[k], g + k * JM_NAME(gram_entries)(size),
                                        factor, inverse, v, &quotient);
            JM_NAME(gram_bounds)(0, errors, peak, lambda[k], theta, trace[k], quotient, found);
        } else {
            JM_NAME(gram_bounds)(1, errors, peak, lambda[k], theta, trace[k], quotient, found);
        }
        is_extreme |= JM_NAME(gram_report)(at + k * JM_VW, left < JM_VW ? left : JM_VW, &scales[k],
                                           exponent[k], found, to);
    }
    return is_extreme;
}

/* Matrices per call of spectral_norm_gram that share work, or make a call worth its preparation. */
static ptrdiff_t JM_NAME(spectral_norm_gram_group)(ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t size = rows < cols ? rows : cols;
    return JM_NAME(gram_pack_size)(rows, cols) * JM_VW *
           (size < JM_GRAM_RUN ? JM_GRAM_RUN / size : 1);
}

/* Bytes of workspace for spectral_norm_gram. */
static size_t JM_NAME(spectral_norm_gram_work)(ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t size = rows < cols ? rows : cols, pack = JM_NAME(gram_pack_size)(rows, cols);
    const ptrdiff_t entries =
        JM_NAME(gram_block_entries)(rows, cols) + pack * JM_NAME(gram_entries)(size) +
        JM_NAME(gram_factor_entries)(pack, size) + (2 + 6 * pack) * size * JM_VW;
    return (size_t)entries * sizeof(JM_T) + JM_ALIGNMENT;
}

/*
 * Certain bounds on the 2-norms of n_items matrices; fastest if they are a multiple of
 * spectral_norm_gram_group(rows, cols).
 *
 * a         (n_items, rows, cols)     row-major, contiguous
 * rtol                                what is asked for
 * bounds    (3, stride) or NULL       lower, value, upper in double, each times 2^exponent
 * ends      (3, stride)               the same as numbers of JM_T, rounded outward
 * stride                              from row to row of bounds and ends
 * exponent  (n_items) or NULL
 * status    (n_items) or NULL         JM_OK; JM_NOT_CONVERGED where upper > lower (1 + rtol);
 *                                     JM_NON_FINITE with bounds NaN
 * work                                spectral_norm_gram_work(rows, cols) bytes
 *
 * Requires rows, cols, n_items >= 1.  Never allocates.  An item's digits do not depend on its
 * neighbours.  Returns 1 if an end may be further out than its bound because the bound is outside
 * the range of JM_T or nearly so, else 0.
 */
static int JM_NAME(spectral_norm_gram)(ptrdiff_t n_items, ptrdiff_t rows, ptrdiff_t cols,
                                       const void *a_, double rtol, double *bounds, void *ends,
                                       ptrdiff_t stride, int64_t *exponent, int *status,
                                       void *work) {
    const JM_T *const a = (const JM_T *)a_;
    const ptrdiff_t size = rows < cols ? rows : cols, length = rows < cols ? cols : rows;
    const ptrdiff_t step = JM_NAME(gram_pack_size)(rows, cols) * JM_VW;
    JM_T *const block = JM_NAME(aligned_work)(work);
    const JM_NAME(jm_gram_errors) errors = JM_NAME(gram_errors)(size, length);
    const JM_NAME(jm_gram_output) to = {rtol, bounds, (JM_T *)ends, stride, exponent, status};
    int is_extreme = 0;
    for (ptrdiff_t at = 0; at < n_items; at += step) {
        const ptrdiff_t n = n_items - at < step ? n_items - at : step;
        if (rows == 2 && cols == 2)
            is_extreme |= JM_NAME(gram_pack_norms)(4, 2, at, n, 2, 2, a, &errors, &to, block);
        else if (rows == 3 && cols == 3)
            is_extreme |= JM_NAME(gram_pack_norms)(4, 3, at, n, 3, 3, a, &errors, &to, block);
        else if (rows == 4 && cols == 4)
            is_extreme |= JM_NAME(gram_pack_norms)(4, 4, at, n, 4, 4, a, &errors, &to, block);
        else if (size <= JM_GRAM_PAIRED)
            is_extreme |=
                JM_NAME(gram_pack_norms)(2, size, at, n, rows, cols, a, &errors, &to, block);
        else
            is_extreme |=
                JM_NAME(gram_pack_norms)(1, size, at, n, rows, cols, a, &errors, &to, block);
    }
    return is_extreme;
}
