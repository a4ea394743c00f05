/*
 * Chains of layer Jacobians: J = F_{L-1} ... F_0, with F_k = c_k I + diag(s_k) W_k or
 * c_k I + W_k diag(s_k).
 *
 * The state of a chain is a block of columns, cut into panels of up to JM_PANEL vectors.  A panel
 * is stored row after row (rows x panel width, padded with zero columns), so the output tile of one
 * layer is the input of the next and nothing is packed; entries of W are read once per panel and
 * broadcast.  A column's arithmetic depends on that column alone: sums run k = 0, 1, ... with one
 * rounding per fused multiply-add where the instruction set fuses.
 *
 * Range: a step is taken plainly, and its largest intermediate and largest result are looked at.
 * When both lie where neither overflow nor gradual underflow can have touched the leading digits
 * (see chain_is_safe) the step stands; else it is taken again from copies of W and s scaled by
 * exact powers of two.  Both ways give the same bits where both are safe.
 */

#undef JM_PADDED
#undef JM_PANEL
#undef JM_PANELS
#undef JM_TILE_ROWS
#undef JM_LAZY
#undef JM_RESIDENT
/* n elements, rounded up to whole vectors. */
#define JM_PADDED(n) (((n) + JM_VW - 1) / JM_VW * JM_VW)
/* Widest product that stays in registers through all layers: one vector a row. */
#if defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 64
#define JM_RESIDENT 8
#else
#define JM_RESIDENT (JM_VW < 4 ? JM_VW : 4)
#endif
/* A product is brought back to [0.5, 1) once its exponent leaves +-JM_LAZY. */
#define JM_LAZY (JM_IS_F64 ? 100 : 20)
/*
 * Vectors in a panel at most, panels for n vectors, rows of a tile at most.  Two pipes of four
 * cycles' latency need eight accumulators in flight; more of them make the end of a tile longer,
 * which little of the next tile's beginning can hide.  Measured with 32-byte vectors, in % of the
 * peak at depths 24 / 48 from L1: 5 x 2 97 / 98, 4 x 2 97 / 98, 3 x 3 92 / 95, 6 x 2 87 / 92,
 * 4 x 3 86 / 92, 8 x 1 60 / 81 (bound by the loads).
 */
#if defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 64
#define JM_PANEL 4
#define JM_PANELS(n) (((n) + JM_PANEL - 1) / JM_PANEL)
#define JM_TILE_ROWS(nv) ((nv) == 1 ? 12 : (nv) == 2 ? 8 : 6) /* 12 to 24 of 32 registers */
#elif defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 32
#define JM_PANEL 3
#define JM_PANELS(n) ((n) < 4 ? 1 : (n) / 2)
#define JM_TILE_ROWS(nv) ((nv) == 1 ? 8 : (nv) == 2 ? 5 : 3) /* 8 to 10 of 16 registers */
#else
#define JM_PANEL 2
#define JM_PANELS(n) (((n) + JM_PANEL - 1) / JM_PANEL)
#define JM_TILE_ROWS(nv) ((nv) == 1 ? 8 : 4)
#endif

#ifndef JM_UNROLL
#if defined(__GNUC__)
#define JM_UNROLL _Pragma("GCC unroll 12")
#define JM_PREFETCH(p) __builtin_prefetch(p)
#else
#define JM_UNROLL
#define JM_PREFETCH(p) (void)(p)
#endif
/* Bytes of an array of n elements, rounded up to a cache line. */
#define JM_LINE(n) (((size_t)(n) * sizeof(JM_T) + 63) / 64 * 64)
/* Weights are fetched this many bytes ahead: the hardware's own prefetch stops at every page. */
#define JM_AHEAD 8192
/* ln 2 in two parts, the first of 32 bits, so that its product with an exponent is exact. */
#define JM_LOG_2_HIGH 0x1.62e42feep-1
#define JM_LOG_2_LOW 0x1.a39ef35793c76p-33
#endif

/* One layer as it acts on a panel: W (or W^T, by its strides), the slopes, and where they act. */
typedef struct {
    const JM_T *weights;     /* NULL: the identity */
    const JM_T *slopes;      /* one per row, the same for each column; NULL: ones */
    const JM_T *lane_slopes; /* (rows, panel width), one per column; NULL: see slopes */
    ptrdiff_t rows, cols;    /* of the factor as applied */
    ptrdiff_t row_stride, col_stride;
    int slopes_first; /* the slopes multiply the input of W, not its output */
    JM_T shortcut;
} JM_NAME(chain_step);

/* Largest magnitudes met in a step, lane by lane: before the last operation, and in the result. */
typedef struct {
    JM_V between[JM_PANEL];
    JM_V result[JM_PANEL];
} JM_NAME(chain_range);

/* A range before anything was met. */
JM_INLINE JM_NAME(chain_range) JM_NAME(chain_no_range)(void) {
    JM_NAME(chain_range) range;
    for (int v = 0; v < JM_PANEL; v++)
        range.between[v] = range.result[v] = JM_SPLAT(0);
    return range;
}

static jm_layer JM_NAME(chain_layer)(const jm_chain *chain, ptrdiff_t k) {
    if (chain->layers)
        return chain->layers[k < chain->n_distinct ? k : k % chain->n_distinct];
    jm_layer layer = chain->first;
    if (layer.weights)
        layer.weights = (const JM_T *)layer.weights + k * chain->weights_layer_stride;
    if (layer.slopes)
        layer.slopes = (const JM_T *)layer.slopes + k * chain->slopes_layer_stride;
    if (chain->shortcuts)
        layer.shortcut = chain->shortcuts[k];
    return layer;
}

/*
 * Layer k as sample `sample` sees it; `transposed` gives F^T.  A chain taken from its last layer is
 * that of J^T: k counts from there.
 */
static JM_NAME(chain_step)
    JM_NAME(chain_step_of)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample, int transposed) {
    if (chain->from_last) {
        k = chain->n_layers - 1 - k;
        transposed = !transposed;
    }
    const jm_layer layer = JM_NAME(chain_layer)(chain, k);
    JM_NAME(chain_step) step = {0};
    if (layer.weights)
        step.weights = (const JM_T *)layer.weights + sample * layer.weights_stride;
    if (layer.slopes)
        step.slopes = (const JM_T *)layer.slopes + sample * layer.slopes_stride;
    step.rows = transposed ? layer.cols : layer.rows;
    step.cols = transposed ? layer.rows : layer.cols;
    step.row_stride = transposed ? 1 : layer.cols;
    step.col_stride = transposed ? layer.cols : 1;
    step.slopes_first = (chain->slope_side == JM_SLOPE_INPUT) != transposed;
    step.shortcut = (JM_T)layer.shortcut;
    return step;
}

/* ---- one tile, one panel ---------------------------------------------------------------- */

/*
 * Rows [i, i + n_rows) of a panel: out = s (W in) + c original.  n_rows and nv are constants where
 * this is inlined, which keeps the accumulators in registers.  Rows of `in` are in_stride elements
 * apart, those of out, original and the lanes' slopes out_stride.
 */
JM_INLINE void JM_NAME(chain_tile)(const int n_rows, const int nv, const JM_NAME(chain_step) * step,
                                   ptrdiff_t depth, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                   ptrdiff_t i, const JM_T *JM_RESTRICT in, ptrdiff_t in_stride,
                                   const JM_T *original, JM_T *JM_RESTRICT out,
                                   ptrdiff_t out_stride, JM_NAME(chain_range) * range) {
    JM_V sum[12][JM_PANEL];
    const JM_T *w = step->weights + i * row_stride;
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int v = 0; v < nv; v++)
            sum[r][v] = JM_SPLAT(0);
    for (ptrdiff_t k = 0; k < depth; k++) {
        JM_V x[JM_PANEL];
        for (int v = 0; v < nv; v++)
            x[v] = JM_LOAD(in + k * in_stride + v * JM_VW);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const JM_V a = JM_SPLAT(w[r * row_stride + k * col_stride]);
            for (int v = 0; v < nv; v++)
                sum[r][v] = JM_FMADD(a, x[v], sum[r][v]);
        }
    }
    if (!step->slopes_first && (step->slopes || step->lane_slopes)) {
        JM_UNROLL
        for (int r = 0; r < n_rows; r++)
            for (int v = 0; v < nv; v++) {
                const JM_V s = step->slopes
                                   ? JM_SPLAT(step->slopes[i + r])
                                   : JM_LOAD(step->lane_slopes + (i + r) * out_stride + v * JM_VW);
                range->between[v] = JM_VMAX_ABS(sum[r][v], range->between[v]);
                sum[r][v] *= s;
            }
    }
    if (step->shortcut != 0) {
        const JM_V c = JM_SPLAT(step->shortcut);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++)
            for (int v = 0; v < nv; v++)
                sum[r][v] =
                    JM_FMADD(c, JM_LOAD(original + (i + r) * out_stride + v * JM_VW), sum[r][v]);
    }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int v = 0; v < nv; v++) {
            range->result[v] = JM_VMAX_ABS(sum[r][v], range->result[v]);
            JM_STORE(out + (i + r) * out_stride + v * JM_VW, sum[r][v]);
        }
}

/* Fetches as many bytes as a tile of the state holds, the tile's share of the weights to come. */
JM_INLINE const char *JM_NAME(chain_fetch)(const int n_rows, const int nv, const char *ahead) {
    const int bytes = n_rows * nv * JM_VW * (int)sizeof(JM_T);
    for (int at = 0; at < bytes; at += 64)
        JM_PREFETCH(ahead + at);
    return ahead + bytes;
}

/*
 * Rows [begin, end) of a panel, in tiles whose heights differ by one at most.  Each tile fetches
 * its share of `ahead`, unless that is NULL, and what comes after the last share is returned.
 */
JM_INLINE const char *JM_NAME(chain_rows_of)(const int nv, const JM_NAME(chain_step) * step,
                                             ptrdiff_t begin, ptrdiff_t end, ptrdiff_t depth,
                                             ptrdiff_t row_stride, ptrdiff_t col_stride,
                                             const JM_T *in, ptrdiff_t in_stride,
                                             const JM_T *original, JM_T *out, ptrdiff_t out_stride,
                                             const char *ahead, JM_NAME(chain_range) * range) {
    const ptrdiff_t rows = end - begin;
    const ptrdiff_t n_tiles = (rows + JM_TILE_ROWS(nv) - 1) / JM_TILE_ROWS(nv);
    const ptrdiff_t low = rows / n_tiles, n_tall = rows % n_tiles;
    for (ptrdiff_t tile = 0, i = begin; tile < n_tiles; tile++) {
        const ptrdiff_t height = low + (tile < n_tall);
        switch (height) {
#define JM_HEIGHT(n)                                                                               \
    case n:                                                                                        \
        if (n <= JM_TILE_ROWS(nv)) {                                                               \
            if (ahead)                                                                             \
                ahead = JM_NAME(chain_fetch)(n, nv, ahead);                                        \
            JM_NAME(chain_tile)                                                                    \
            (n, nv, step, depth, row_stride, col_stride, i, in, in_stride, original, out,          \
             out_stride, range);                                                                   \
        }                                                                                          \
        break;
            JM_HEIGHT(1)
            JM_HEIGHT(2)
            JM_HEIGHT(3)
            JM_HEIGHT(4)
            JM_HEIGHT(5)
            JM_HEIGHT(6)
            JM_HEIGHT(7)
            JM_HEIGHT(8)
            JM_HEIGHT(9)
            JM_HEIGHT(10)
            JM_HEIGHT(11)
            JM_HEIGHT(12)
#undef JM_HEIGHT
        }
        i += height;
    }
    return ahead;
}

/* All rows of a panel. */
JM_INLINE void JM_NAME(chain_rows)(const int nv, const JM_NAME(chain_step) * step, ptrdiff_t rows,
                                   ptrdiff_t depth, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                   const JM_T *in, ptrdiff_t in_stride, const JM_T *original,
                                   JM_T *out, ptrdiff_t out_stride, JM_NAME(chain_range) * range) {
    (void)JM_NAME(chain_rows_of)(nv, step, 0, rows, depth, row_stride, col_stride, in, in_stride,
                                 original, out, out_stride, NULL, range);
}

/* out = s in + c in, the step whose W is the identity. */
static void JM_NAME(chain_diagonal)(const JM_NAME(chain_step) * step, int nv, const JM_T *in,
                                    JM_T *out, JM_NAME(chain_range) * range) {
    const ptrdiff_t width = nv * JM_VW;
    for (ptrdiff_t i = 0; i < step->rows; i++)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t at = i * width + v * JM_VW;
            const JM_V x = JM_LOAD(in + at);
            JM_V y = x;
            if (step->slopes)
                y *= JM_SPLAT(step->slopes[i]);
            else if (step->lane_slopes)
                y *= JM_LOAD(step->lane_slopes + at);
            if (step->shortcut != 0)
                y = JM_FMADD(JM_SPLAT(step->shortcut), x, y);
            range->result[v] = JM_VMAX_ABS(y, range->result[v]);
            JM_STORE(out + at, y);
        }
}

/* out (rows, nv * JM_VW) = s in, row by row: a panel as slopes on the input side leave it. */
JM_INLINE void JM_NAME(chain_scale_rows)(const int nv, const JM_NAME(chain_step) * step,
                                         ptrdiff_t rows, const JM_T *in, JM_T *JM_RESTRICT out,
                                         JM_NAME(chain_range) * range) {
    const ptrdiff_t width = nv * JM_VW;
    for (ptrdiff_t k = 0; k < rows; k++)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t at = k * width + v * JM_VW;
            const JM_V s =
                step->slopes ? JM_SPLAT(step->slopes[k]) : JM_LOAD(step->lane_slopes + at);
            const JM_V x = JM_LOAD(in + at) * s;
            range->between[v] = JM_VMAX_ABS(x, range->between[v]);
            JM_STORE(out + at, x);
        }
}

/*
 * One panel of nv vectors through one layer.
 *
 * in   (cols, nv * JM_VW)       out (rows, nv * JM_VW), not overlapping
 * work (cols, nv * JM_VW)       used when the slopes come first
 *
 * range takes the lane-wise maxima in; NaN is passed over there but stays in out.
 */
static void JM_NAME(chain_panel)(const JM_NAME(chain_step) * step, int nv, const JM_T *in,
                                 JM_T *out, JM_T *work, JM_NAME(chain_range) * range) {
    if (!step->weights) {
        JM_NAME(chain_diagonal)(step, nv, in, out, range);
        return;
    }
    const JM_T *source = in;
    if (step->slopes_first && (step->slopes || step->lane_slopes)) {
        JM_NAME(chain_scale_rows)(nv, step, step->cols, in, work, range);
        source = work;
    }
    switch (nv) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        if (n <= JM_PANEL)                                                                         \
            JM_NAME(chain_rows)                                                                    \
        (n <= JM_PANEL ? n : 1, step, step->rows, step->cols, step->row_stride, step->col_stride,  \
         source, n * JM_VW, in, out, n * JM_VW, range);                                            \
        break;
        JM_WIDTH(1)
        JM_WIDTH(2)
        JM_WIDTH(3)
        JM_WIDTH(4)
#undef JM_WIDTH
    }
}

/* ---- range ------------------------------------------------------------------------------ */

/*
 * Whether a step of `depth` terms whose largest magnitude is `largest` has lost nothing.  A product
 * that underflows errs by at most 2^(JM_MIN_EXP - 1) u; depth of them stay below u / 8 of the
 * largest result if that is at least depth * 2^(JM_MIN_EXP + 2).
 */
static int JM_NAME(chain_is_safe)(JM_T largest, ptrdiff_t depth) {
    return largest >= (JM_T)depth * JM_LDEXP((JM_T)1, JM_MIN_EXP + 2) && !isinf(largest);
}

/*
 * Replaces W, s and c of a step by copies scaled so that no entry exceeds 1, and gives the exponent
 * e with step = 2^e * scaled step.  Returns JM_NON_FINITE if W, s or c is not finite.
 *
 * weights  (rows, cols)     slopes  (max(rows, cols))     scratch for the copies
 */
static int JM_NAME(chain_scaled_step)(JM_NAME(chain_step) * step, JM_T *weights, JM_T *slopes,
                                      int *exponent) {
    const ptrdiff_t n_weights = step->weights ? step->rows * step->cols : 0;
    const ptrdiff_t n_slopes = !step->slopes ? 0 : step->slopes_first ? step->cols : step->rows;
    const JM_T largest_weight = n_weights ? JM_NAME(max_abs)(n_weights, step->weights) : 1;
    const JM_T largest_slope = n_slopes ? JM_NAME(max_abs)(n_slopes, step->slopes) : 1;
    if (isinf(largest_weight) || isinf(largest_slope) || !isfinite(step->shortcut))
        return JM_NON_FINITE;

    const int e_weights = n_weights ? JM_NAME(exponent_of)(largest_weight) : 0;
    const int e_slopes = n_slopes ? JM_NAME(exponent_of)(largest_slope) : 0;
    int e = e_weights + e_slopes;
    if (step->shortcut != 0) {
        const int e_shortcut = JM_NAME(exponent_of)(JM_ABS(step->shortcut));
        if (e_shortcut > e || largest_weight == 0 || largest_slope == 0)
            e = e_shortcut;
    }
    /* By how much the shortcut's exponent exceeds that of s W goes to the slopes, else to W. */
    const int excess = e - (e_weights + e_slopes);
    if (n_weights) {
        JM_NAME(copy_scaled)(n_weights, step->weights, -e_weights - (n_slopes ? 0 : excess),
                             weights);
        step->weights = weights;
    }
    if (n_slopes) {
        JM_NAME(copy_scaled)(n_slopes, step->slopes, -e_slopes - excess, slopes);
        step->slopes = slopes;
    }
    step->shortcut = JM_LDEXP(step->shortcut, -e);
    *exponent = e;
    return JM_OK;
}
