/*
 * Chains of layer Jacobians: J = F_{L-1} ... F_0, F_k = c_k I + diag(s_k) W_k or c_k I + W_k diag(s_k).
 *
 * The state of a chain is a block of columns, cut into panels of up to JM_PANEL vectors.  A panel is
 * stored row after row (rows x panel width, padded with zero columns), so the output tile of one layer
 * is the input of the next and nothing is packed; entries of W are read once per panel and broadcast.
 * A column's arithmetic depends on that column alone: sums run k = 0, 1, ... with one rounding per
 * fused multiply-add where the instruction set fuses.
 *
 * Range: a step is taken plainly, and its largest intermediate and largest result are looked at.
 * When both lie where neither overflow nor gradual underflow can have touched the leading digits
 * (see chain_is_safe) the step stands; else it is taken again from copies of W and s scaled by exact
 * powers of two.  Both ways give the same bits where both are safe.
 */

#undef JM_PANEL
#undef JM_TILE_ROWS
#undef JM_LAZY
/* A product is brought back to [0.5, 1) once its exponent leaves +-JM_LAZY. */
#define JM_LAZY (JM_IS_F64 ? 100 : 20)
#if defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 64
#define JM_PANEL 4                                            /* vectors in a panel */
#define JM_TILE_ROWS(nv) ((nv) == 1 ? 12 : (nv) == 2 ? 8 : 6) /* 12 to 24 of 32 registers */
#elif defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 32
#define JM_PANEL 3
#define JM_TILE_ROWS(nv) ((nv) == 1 ? 8 : (nv) == 2 ? 6 : 4) /* 8 to 12 of 16 registers */
#else
#define JM_PANEL 2
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
#define JM_AHEAD 4096
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

static jm_layer JM_NAME(chain_layer)(const jm_chain *chain, ptrdiff_t k) {
    if (chain->layers)
        return chain->layers[k];
    jm_layer layer = chain->first;
    if (layer.weights)
        layer.weights = (const JM_T *)layer.weights + k * chain->weights_layer_stride;
    if (layer.slopes)
        layer.slopes = (const JM_T *)layer.slopes + k * chain->slopes_layer_stride;
    if (chain->shortcuts)
        layer.shortcut = chain->shortcuts[k];
    return layer;
}

/* Layer k as sample `sample` sees it; `transposed` gives F^T. */
static JM_NAME(chain_step)
    JM_NAME(chain_step_of)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample, int transposed) {
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

/* ---- one tile, one panel ---------------------------------------------------------------------- */

/*
 * Rows [i, i + n_rows) of a panel: out = s (W in) + c original.  n_rows and nv are constants where this
 * is inlined, which keeps the accumulators in registers.
 */
JM_INLINE void JM_NAME(chain_tile)(const int n_rows, const int nv, const JM_NAME(chain_step) * step,
                                   ptrdiff_t depth, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                   ptrdiff_t i, const JM_T *JM_RESTRICT in, const JM_T *original,
                                   JM_T *JM_RESTRICT out, JM_NAME(chain_range) * range) {
    JM_V sum[12][JM_PANEL];
    const ptrdiff_t width = nv * JM_VW;
    const JM_T *w = step->weights + i * row_stride;
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int v = 0; v < nv; v++)
            sum[r][v] = JM_SPLAT(0);
    for (ptrdiff_t k = 0; k < depth; k++) {
        JM_V x[JM_PANEL];
        for (int v = 0; v < nv; v++)
            x[v] = JM_LOAD(in + k * width + v * JM_VW);
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
                                   : JM_LOAD(step->lane_slopes + (i + r) * width + v * JM_VW);
                range->between[v] = JM_VMAX(JM_VABS(sum[r][v]), range->between[v]);
                sum[r][v] *= s;
            }
    }
    if (step->shortcut != 0) {
        const JM_V c = JM_SPLAT(step->shortcut);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++)
            for (int v = 0; v < nv; v++)
                sum[r][v] =
                    JM_FMADD(c, JM_LOAD(original + (i + r) * width + v * JM_VW), sum[r][v]);
    }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int v = 0; v < nv; v++) {
            range->result[v] = JM_VMAX(JM_VABS(sum[r][v]), range->result[v]);
            JM_STORE(out + (i + r) * width + v * JM_VW, sum[r][v]);
        }
}

/* All rows of a panel, in tiles of nearly equal height. */
JM_INLINE void JM_NAME(chain_rows)(const int nv, const JM_NAME(chain_step) * step, ptrdiff_t rows,
                                   ptrdiff_t depth, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                   const JM_T *in, const JM_T *original, JM_T *out,
                                   JM_NAME(chain_range) * range) {
    ptrdiff_t n_tiles = (rows + JM_TILE_ROWS(nv) - 1) / JM_TILE_ROWS(nv);
    for (ptrdiff_t i = 0; i < rows; n_tiles--) {
        const ptrdiff_t height = (rows - i + n_tiles - 1) / n_tiles;
        switch (height) {
#define JM_HEIGHT(n)                                                                               \
    case n:                                                                                        \
        if (n <= JM_TILE_ROWS(nv))                                                                 \
            JM_NAME(chain_tile)                                                                    \
            (n, nv, step, depth, row_stride, col_stride, i, in, original, out, range);             \
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
            range->result[v] = JM_VMAX(JM_VABS(y), range->result[v]);
            JM_STORE(out + at, y);
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
static void JM_NAME(chain_panel)(const JM_NAME(chain_step) * step, int nv, const JM_T *in, JM_T *out,
                                 JM_T *work, JM_NAME(chain_range) * range) {
    if (!step->weights) {
        JM_NAME(chain_diagonal)(step, nv, in, out, range);
        return;
    }
    const JM_T *source = in;
    if (step->slopes_first && (step->slopes || step->lane_slopes)) {
        const ptrdiff_t width = nv * JM_VW;
        for (ptrdiff_t k = 0; k < step->cols; k++)
            for (int v = 0; v < nv; v++) {
                const ptrdiff_t at = k * width + v * JM_VW;
                const JM_V s =
                    step->slopes ? JM_SPLAT(step->slopes[k]) : JM_LOAD(step->lane_slopes + at);
                const JM_V x = JM_LOAD(in + at) * s;
                range->between[v] = JM_VMAX(JM_VABS(x), range->between[v]);
                JM_STORE(work + at, x);
            }
        source = work;
    }
    switch (nv) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        if (n <= JM_PANEL)                                                                         \
            JM_NAME(chain_rows)                                                                    \
            (n <= JM_PANEL ? n : 1, step, step->rows, step->cols, step->row_stride,                \
             step->col_stride, source, in, out, range);                                            \
        break;
        JM_WIDTH(1)
        JM_WIDTH(2)
        JM_WIDTH(3)
        JM_WIDTH(4)
#undef JM_WIDTH
    }
}

/* ---- range ------------------------------------------------------------------------------------ */

/*
 * Whether a step of `depth` terms whose largest magnitude is `largest` has lost nothing.  A product
 * that underflows errs by at most 2^(JM_MIN_EXP - 1) u; depth of them stay below u / 8 of the largest
 * result if that is at least depth * 2^(JM_MIN_EXP + 2).
 */
static int JM_NAME(chain_is_safe)(JM_T largest, ptrdiff_t depth) {
    return largest >= (JM_T)depth * JM_LDEXP((JM_T)1, JM_MIN_EXP + 2) && !isinf(largest);
}

/*
 * Replaces W, s and c of a step by copies scaled so that no entry exceeds 1, and gives the exponent e
 * with step = 2^e * scaled step.  Returns JM_NON_FINITE if W, s or c is not finite.
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
        JM_NAME(copy_scaled)(n_weights, step->weights, -e_weights - (n_slopes ? 0 : excess), weights);
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

/* ---- the product ------------------------------------------------------------------------------ */

/* What a product in progress keeps at the start of its workspace. */
typedef struct {
    int64_t exponent;
    ptrdiff_t rows;     /* of the block of columns in `current` */
    ptrdiff_t bad_layer; /* first layer with a non-finite entry, or -1 */
    int current;        /* which of the two blocks */
    int is_zero;
} JM_NAME(chain_state);

/* The workspace of a product: its state and what lies behind it. */
typedef struct {
    JM_NAME(chain_state) * state;
    JM_T *block[2];   /* (max_width, padded columns) each */
    JM_T *checkpoint; /* the block at the start of the layer range */
    JM_T *panel;      /* one panel, for slopes on the input side */
    JM_T *weights;    /* scaled copies for a careful step */
    JM_T *slopes;
    ptrdiff_t n_vectors; /* per row of a block */
} JM_NAME(chain_product_space);

static size_t JM_NAME(chain_product_layout)(ptrdiff_t max_width, ptrdiff_t n_in, void *work,
                                            JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n_vectors = (n_in + JM_VW - 1) / JM_VW;
    const size_t block = JM_LINE(max_width * n_vectors * JM_VW);
    const size_t sizes[] = {(sizeof(JM_NAME(chain_state)) + 63) / 64 * 64,
                            block,
                            block,
                            block,
                            JM_LINE(max_width * JM_PANEL * JM_VW),
                            JM_LINE(max_width * max_width),
                            JM_LINE(max_width)};
    size_t offsets[7], end = 0;
    for (int i = 0; i < 7; i++) {
        offsets[i] = end;
        end += sizes[i];
    }
    if (space) {
        char *base = work;
        space->state = (void *)base;
        space->block[0] = (void *)(base + offsets[1]);
        space->block[1] = (void *)(base + offsets[2]);
        space->checkpoint = (void *)(base + offsets[3]);
        space->panel = (void *)(base + offsets[4]);
        space->weights = (void *)(base + offsets[5]);
        space->slopes = (void *)(base + offsets[6]);
        space->n_vectors = n_vectors;
    }
    return end;
}

/* Bytes of workspace, of 64-byte alignment, that chain_product needs. */
static size_t JM_NAME(chain_product_work)(ptrdiff_t max_width, ptrdiff_t n_in) {
    return JM_NAME(chain_product_layout)(max_width, n_in, NULL, NULL);
}

/* Where element (i, j) of a block of n_rows rows lies: panels of nearly equal width, one by one. */
static ptrdiff_t JM_NAME(chain_first_vector)(ptrdiff_t n_vectors, ptrdiff_t panel) {
    const ptrdiff_t n_panels = (n_vectors + JM_PANEL - 1) / JM_PANEL;
    return panel * n_vectors / n_panels;
}

/* out (rows of step) = step applied to every panel of in. */
static JM_NAME(chain_range)
    JM_NAME(chain_block)(const JM_NAME(chain_step) * step, const JM_NAME(chain_product_space) * space,
                         const JM_T *in, JM_T *out) {
    JM_NAME(chain_range) range;
    for (int v = 0; v < JM_PANEL; v++)
        range.between[v] = range.result[v] = JM_SPLAT(0);
    const ptrdiff_t n_panels = (space->n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = JM_NAME(chain_first_vector)(space->n_vectors, p);
        const ptrdiff_t end = JM_NAME(chain_first_vector)(space->n_vectors, p + 1);
        JM_NAME(chain_panel)
        (step, (int)(end - begin), in + begin * JM_VW * step->cols, out + begin * JM_VW * step->rows,
         space->panel, &range);
    }
    return range;
}

/* Largest over the lanes of a range. */
static JM_T JM_NAME(chain_largest)(const JM_V *by_lane) {
    JM_V largest = by_lane[0];
    for (int v = 1; v < JM_PANEL; v++)
        largest = JM_VMAX(by_lane[v], largest);
    return JM_NAME(largest_lane)(largest);
}

/* Brings the current block, whose largest magnitude is given, to [0.5, 1). */
static void JM_NAME(chain_normalize)(const JM_NAME(chain_product_space) * space, JM_T largest) {
    JM_NAME(chain_state) *state = space->state;
    const int e = JM_NAME(exponent_of)(largest);
    JM_NAME(scale_by_power)
    (state->rows * space->n_vectors * JM_VW, space->block[state->current], -e);
    state->exponent += e;
}

/* The current block through layer k.  `careful` takes the scaled step at once and sees every NaN. */
static void JM_NAME(chain_product_layer)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample,
                                         int careful, const JM_NAME(chain_product_space) * space) {
    JM_NAME(chain_state) *state = space->state;
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    JM_T *in = space->block[state->current];
    JM_T *out = space->block[1 - state->current];
    const ptrdiff_t n_out = step.rows * space->n_vectors * JM_VW;
    JM_T largest = 0;
    int stands = 0;

    if (!careful || state->bad_layer >= 0) {
        const JM_NAME(chain_range) range = JM_NAME(chain_block)(&step, space, in, out);
        const int has_between = step.weights && step.slopes;
        largest = JM_NAME(chain_largest)(range.result);
        stands = state->is_zero || state->bad_layer >= 0 ||
                 (JM_NAME(chain_is_safe)(largest, step.cols) &&
                  (!has_between ||
                   JM_NAME(chain_is_safe)(JM_NAME(chain_largest)(range.between), step.cols)));
    }
    /* A NaN that the maxima passed over is left for the careful pass, which meets it where it arose. */
    const JM_T before =
        stands ? 1 : JM_NAME(max_abs)(step.cols * space->n_vectors * JM_VW, in);
    if (!stands && !isinf(before)) {
        JM_NAME(chain_step) scaled = step;
        int e = 0;
        if (before > 0)
            JM_NAME(chain_normalize)(space, before);
        if (JM_NAME(chain_scaled_step)(&scaled, space->weights, space->slopes, &e) != JM_OK)
            state->bad_layer = k;
        (void)JM_NAME(chain_block)(&scaled, space, in, out);
        state->exponent += e;
        largest = JM_NAME(max_abs)(n_out, out);
    }
    state->current = 1 - state->current;
    state->rows = step.rows;
    state->is_zero = largest == 0;
    if (largest > 0 && !isinf(largest)) {
        const int e = JM_NAME(exponent_of)(largest);
        if (e > JM_LAZY || e < -JM_LAZY)
            JM_NAME(chain_normalize)(space, largest);
    }
}

/*
 * Square layers [k, end) of a uniform chain, while all goes plainly.  n is a constant where it is worth
 * the code.  Returns the first layer whose result was out of the window, which does not stand, or end.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_run)(const ptrdiff_t n, const int is_constant,
                                       const jm_chain *chain, ptrdiff_t k, ptrdiff_t end,
                                       ptrdiff_t sample, const JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n_vectors = (n + JM_VW - 1) / JM_VW;
    const ptrdiff_t n_panels = (n_vectors + JM_PANEL - 1) / JM_PANEL;
    const JM_V low = JM_SPLAT(JM_LDEXP((JM_T)1, -JM_LAZY)), high = 1 / low;
    const JM_V tiny = JM_SPLAT((JM_T)n * JM_LDEXP((JM_T)1, JM_MIN_EXP + 2));
    const JM_V huge = JM_SPLAT(JM_LDEXP((JM_T)1, JM_MAX_EXP - 1));
    JM_NAME(chain_state) *state = space->state;
    JM_T *in = space->block[state->current], *out = space->block[1 - state->current];
    JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    const int scales_input = step.slopes && step.slopes_first;
    const size_t bytes = (size_t)(n * n) * sizeof(JM_T);

    for (; k < end; k++) {
        JM_NAME(chain_range) range;
        for (int v = 0; v < JM_PANEL; v++)
            range.between[v] = range.result[v] = JM_SPLAT(0);
        if (chain->shortcuts)
            step.shortcut = (JM_T)chain->shortcuts[k];
        for (size_t line = 0; line < bytes; line += 64)
            JM_PREFETCH((const char *)step.weights + JM_AHEAD + line);
        if (is_constant && !scales_input) {
            JM_UNROLL
            for (ptrdiff_t p = 0; p < n_panels; p++) {
                const ptrdiff_t first = p * n_vectors / n_panels;
                const int nv = (int)((p + 1) * n_vectors / n_panels - first);
                const int n_tiles = ((int)n + JM_TILE_ROWS(nv) - 1) / JM_TILE_ROWS(nv);
                const int height = ((int)n + n_tiles - 1) / n_tiles;
                const JM_T *panel = in + first * JM_VW * n;
                ptrdiff_t i = 0;
                for (; i + height <= n; i += height)
                    JM_NAME(chain_tile)
                (height, nv, &step, n, n, 1, i, panel, panel, out + first * JM_VW * n, &range);
                if (n % height)
                    JM_NAME(chain_tile)
                (n % height, nv, &step, n, n, 1, i, panel, panel, out + first * JM_VW * n, &range);
            }
        } else {
            range = JM_NAME(chain_block)(&step, space, in, out);
        }
        JM_V result = range.result[0], between = range.between[0];
        for (int v = 1; v < JM_PANEL; v++) {
            result = JM_VMAX(range.result[v], result);
            between = JM_VMAX(range.between[v], between);
        }
        if (!JM_ANY_ABOVE(result, low) || JM_ANY_ABOVE(result, high))
            break;
        if (step.slopes && (!JM_ANY_ABOVE(between, tiny) || JM_ANY_ABOVE(between, huge)))
            break;
        JM_T *const previous = in;
        in = out;
        out = previous;
        state->current = 1 - state->current;
        step.weights += chain->weights_layer_stride;
        if (step.slopes)
            step.slopes += chain->slopes_layer_stride;
    }
    return k;
}

/* Layers [begin, end) from the current block, plainly where that stands. */
static void JM_NAME(chain_product_plain)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t begin,
                                         ptrdiff_t end, const JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n = chain->first.rows;
    const int is_uniform = !chain->layers && chain->first.weights;
    for (ptrdiff_t k = begin; k < end; k++) {
        if (is_uniform && !space->state->is_zero && space->state->bad_layer < 0) {
            switch (n) {
#define JM_SIZE(size)                                                                              \
    case size:                                                                                     \
        k = JM_NAME(chain_run)(size, 1, chain, k, end, sample, space);                             \
        break;
                JM_SIZE(1)
                JM_SIZE(2)
                JM_SIZE(3)
                JM_SIZE(4)
                JM_SIZE(5)
                JM_SIZE(6)
                JM_SIZE(7)
                JM_SIZE(8)
                JM_SIZE(12)
                JM_SIZE(16)
                JM_SIZE(24)
                JM_SIZE(32)
#undef JM_SIZE
            default:
                k = JM_NAME(chain_run)(n, 0, chain, k, end, sample, space);
            }
        }
        if (k < end)
            JM_NAME(chain_product_layer)(chain, k, sample, 0, space);
    }
}

/* The block of columns of the identity, the empty product. */
static void JM_NAME(chain_identity)(ptrdiff_t n, const JM_NAME(chain_product_space) * space) {
    JM_T *block = space->block[0];
    memset(block, 0, (size_t)(n * space->n_vectors * JM_VW) * sizeof(JM_T));
    const ptrdiff_t n_panels = (space->n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = JM_NAME(chain_first_vector)(space->n_vectors, p) * JM_VW;
        const ptrdiff_t end = JM_NAME(chain_first_vector)(space->n_vectors, p + 1) * JM_VW;
        for (ptrdiff_t j = begin; j < end && j < n; j++)
            block[begin * n + j * (end - begin) + (j - begin)] = 1;
    }
    const JM_NAME(chain_state) start = {.rows = n, .bad_layer = -1};
    *space->state = start;
}

/* Writes the current block out row by row, as mantissa and exponent. */
static void JM_NAME(chain_product_finish)(ptrdiff_t n_in, const JM_NAME(chain_product_space) * space,
                                          JM_T *mantissa, int64_t *exponent) {
    JM_NAME(chain_state) *state = space->state;
    JM_T *block = space->block[state->current];
    const ptrdiff_t n_block = state->rows * space->n_vectors * JM_VW;
    const JM_T largest = JM_NAME(max_abs)(n_block, block);
    if (isinf(largest)) { /* an item with NaN or infinity is written as it is, with exponent 0 */
        const int64_t limit = 4 * JM_MAX_EXP;
        const int64_t e = state->exponent;
        for (ptrdiff_t i = 0; i < n_block; i++)
            block[i] = JM_LDEXP(block[i], (int)(e > limit ? limit : e < -limit ? -limit : e));
        state->exponent = 0;
    } else if (largest > 0) {
        JM_NAME(chain_normalize)(space, largest);
    } else {
        state->exponent = 0;
    }
    const ptrdiff_t n_panels = (space->n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = JM_NAME(chain_first_vector)(space->n_vectors, p) * JM_VW;
        const ptrdiff_t end = JM_NAME(chain_first_vector)(space->n_vectors, p + 1) * JM_VW;
        const ptrdiff_t n_columns = (end < n_in ? end : n_in) - begin;
        for (ptrdiff_t i = 0; i < state->rows; i++)
            memcpy(mantissa + i * n_in + begin,
                   block + begin * state->rows + i * (end - begin),
                   (size_t)n_columns * sizeof(JM_T));
    }
    *exponent = state->exponent;
}

/*
 * J = F_{end-1} ... F_begin times what the workspace holds, for one sample.
 *
 * mantissa  (n_L, n_0)   written when end == n_layers: J = mantissa * 2^exponent, the largest
 * exponent               |mantissa| in [0.5, 1); exponent 0 for a zero or non-finite J
 * bad_layer              first layer with a NaN or infinity, -1 if there is none
 * work                   chain_product_work(largest width, n_0) bytes; begin == 0 starts it anew, a
 *                        later range goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Never allocates.  Cost
 * 2 n_{k+1} n_k n_0 flops a layer.  Error of an entry, beside exact arithmetic: at most
 * sum_k (n_k + 2) u times the product of the factors' absolute values.
 * Returns JM_OK, or JM_NON_FINITE.
 */
static int JM_NAME(chain_product)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                  ptrdiff_t begin, ptrdiff_t end, void *mantissa, int64_t *exponent,
                                  ptrdiff_t *bad_layer, void *work) {
    const ptrdiff_t n_in = JM_NAME(chain_layer)(chain, 0).cols;
    JM_NAME(chain_product_space) space;
    JM_NAME(chain_product_layout)(max_width, n_in, work, &space);
    if (begin == 0)
        JM_NAME(chain_identity)(n_in, &space);

    JM_NAME(chain_state) *state = space.state;
    const JM_NAME(chain_state) start = *state;
    const size_t start_bytes = (size_t)(state->rows * space.n_vectors * JM_VW) * sizeof(JM_T);
    memcpy(space.checkpoint, space.block[state->current], start_bytes);
    JM_NAME(chain_product_plain)(chain, sample, begin, end, &space);

    /* A NaN stays in its column to the end, so one look finds what the maxima passed over: an
     * infinity minus an infinity inside a sum, or a NaN in the input. */
    const ptrdiff_t n_block = state->rows * space.n_vectors * JM_VW;
    if (state->bad_layer < 0 && isinf(JM_NAME(max_abs)(n_block, space.block[state->current]))) {
        *state = start;
        memcpy(space.block[state->current], space.checkpoint, start_bytes);
        for (ptrdiff_t k = begin; k < end; k++)
            JM_NAME(chain_product_layer)(chain, k, sample, 1, &space);
    }
    *bad_layer = state->bad_layer;
    const int status = state->bad_layer < 0 ? JM_OK : JM_NON_FINITE;
    if (end == chain->n_layers)
        JM_NAME(chain_product_finish)(n_in, &space, mantissa, exponent);
    return status;
}

/* ---- vectors ---------------------------------------------------------------------------------- */

/* A group is the vectors taken through a chain together, as the columns of one panel. */
#undef JM_GROUP_VECTORS
#define JM_GROUP_VECTORS 2

/* Where the parts of a group's workspace lie. */
typedef struct {
    int64_t *exponent;   /* (group) */
    ptrdiff_t *bad_layer; /* (group) */
    int *is_zero;         /* (group) */
    JM_T *panel[2];      /* (max_width, group) each: the vectors as columns */
    JM_T *scratch;       /* (max_width, group) for slopes on the input side */
    JM_T *lane_slopes;   /* (max_width, group) */
    JM_T *column[2];     /* (max_width, JM_VW) each: one vector alone, for a careful step */
    JM_T *weights;       /* scaled copies for a careful step */
    JM_T *slopes;
} JM_NAME(chain_vectors_space);

static ptrdiff_t JM_NAME(chain_vectors_group)(void) { return JM_GROUP_VECTORS * JM_VW; }

static size_t JM_NAME(chain_vectors_layout)(ptrdiff_t max_width, void *work,
                                            JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t group = JM_GROUP_VECTORS * JM_VW;
    const size_t lanes = ((size_t)group * sizeof(int64_t) + 63) / 64 * 64;
    const size_t panel = JM_LINE(max_width * group);
    const size_t column = JM_LINE(max_width * JM_VW);
    const size_t sizes[] = {
        lanes, lanes,  lanes,  panel, panel, panel,
        panel, column, column, JM_LINE(max_width * max_width), JM_LINE(max_width)};
    size_t offsets[11], end = 0;
    for (int i = 0; i < 11; i++) {
        offsets[i] = end;
        end += sizes[i];
    }
    if (space) {
        char *base = work;
        space->exponent = (void *)base;
        space->bad_layer = (void *)(base + offsets[1]);
        space->is_zero = (void *)(base + offsets[2]);
        space->panel[0] = (void *)(base + offsets[3]);
        space->panel[1] = (void *)(base + offsets[4]);
        space->scratch = (void *)(base + offsets[5]);
        space->lane_slopes = (void *)(base + offsets[6]);
        space->column[0] = (void *)(base + offsets[7]);
        space->column[1] = (void *)(base + offsets[8]);
        space->weights = (void *)(base + offsets[9]);
        space->slopes = (void *)(base + offsets[10]);
    }
    return end;
}

/* Bytes of workspace, of 64-byte alignment, that chain_jvp and chain_vjp need. */
static size_t JM_NAME(chain_vectors_work)(ptrdiff_t max_width) {
    return JM_NAME(chain_vectors_layout)(max_width, NULL, NULL);
}

/*
 * One vector, column `lane` of a panel, through a step from scaled copies of everything.
 * Returns the exponent to add to the vector's; *status becomes JM_NON_FINITE for bad input, and the
 * column is then what plain arithmetic gives.
 */
static int64_t JM_NAME(chain_careful_column)(JM_NAME(chain_step) step, ptrdiff_t width,
                                             ptrdiff_t lane, const JM_T *in, JM_T *out,
                                             const JM_NAME(chain_vectors_space) * space, int *status) {
    JM_T *column = space->column[0];
    JM_T largest = 0;
    memset(column, 0, (size_t)(step.cols * JM_VW) * sizeof(JM_T));
    for (ptrdiff_t i = 0; i < step.cols; i++) {
        column[i * JM_VW] = in[i * width + lane];
        largest = JM_ABS(column[i * JM_VW]) > largest ? JM_ABS(column[i * JM_VW]) : largest;
    }
    int e = 0, e_step = 0;
    if (largest > 0) {
        e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.cols * JM_VW, column, -e);
    }
    *status = JM_NAME(chain_scaled_step)(&step, space->weights, space->slopes, &e_step);
    JM_NAME(chain_range) ignored;
    for (int v = 0; v < JM_PANEL; v++)
        ignored.between[v] = ignored.result[v] = JM_SPLAT(0);
    JM_NAME(chain_panel)(&step, 1, column, space->column[1], space->scratch, &ignored);
    for (ptrdiff_t i = 0; i < step.rows; i++)
        out[i * width + lane] = space->column[1][i * JM_VW];
    return (int64_t)e + e_step;
}

/*
 * Brings every column of a panel to [0.5, 1), adds to the exponents, and writes the log 2-norms.
 * A zero or non-finite column keeps its digits.
 */
static void JM_NAME(chain_normalize_columns)(ptrdiff_t rows, int nv, ptrdiff_t count, JM_T *panel,
                                             const JM_V *largest, int64_t *exponent,
                                             double *log_norms, ptrdiff_t log_norms_stride) {
    const ptrdiff_t width = nv * JM_VW;
    JM_T half[JM_GROUP_VECTORS * JM_VW], rest[JM_GROUP_VECTORS * JM_VW];
    JM_T square[JM_GROUP_VECTORS * JM_VW];
    for (int v = 0; v < nv; v++)
        JM_STORE(square + v * JM_VW, largest[v]);
    for (ptrdiff_t j = 0; j < width; j++) {
        int e = 0;
        if (j < count && square[j] > 0 && isfinite(square[j]))
            e = JM_NAME(exponent_of)(square[j]);
        half[j] = JM_LDEXP((JM_T)1, -e / 2);
        rest[j] = JM_LDEXP((JM_T)1, -e - -e / 2);
        if (j < count)
            exponent[j] += e;
    }
    for (int v = 0; v < nv; v++) {
        const JM_V first = JM_LOAD(half + v * JM_VW), second = JM_LOAD(rest + v * JM_VW);
        JM_V sum = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < rows; i++) {
            JM_T *at = panel + i * width + v * JM_VW;
            const JM_V x = JM_LOAD(at) * first * second;
            JM_STORE(at, x);
            sum = JM_FMADD(x, x, sum);
        }
        JM_STORE(square + v * JM_VW, sum);
    }
    for (ptrdiff_t j = 0; j < count; j++)
        log_norms[j * log_norms_stride] =
            JM_LOG_2_HIGH * (double)exponent[j] +
            (JM_LOG_2_LOW * (double)exponent[j] + 0.5 * log((double)square[j]));
}

/* Slopes of a layer, one column per vector. */
static void JM_NAME(chain_gather_slopes)(const jm_layer *layer, const jm_vectors *vectors,
                                         ptrdiff_t first, ptrdiff_t count, ptrdiff_t n,
                                         ptrdiff_t width, JM_T *lane_slopes) {
    memset(lane_slopes, 0, (size_t)(n * width) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < count; j++) {
        const JM_T *s = (const JM_T *)layer->slopes +
                        (first + j) / vectors->per_sample * layer->slopes_stride;
        for (ptrdiff_t i = 0; i < n; i++)
            lane_slopes[i * width + j] = s[i];
    }
}

/*
 * The vectors arrive at an interface: their columns are brought to [0.5, 1), their log-norms written,
 * and, if asked for, the vectors themselves.
 */
static void JM_NAME(chain_interface)(const jm_vectors *vectors, ptrdiff_t n_layers,
                                     ptrdiff_t interface, ptrdiff_t rows, int nv, ptrdiff_t first,
                                     ptrdiff_t count, JM_T *panel, const JM_V *largest,
                                     const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    JM_NAME(chain_normalize_columns)
    (rows, nv, count, panel, largest, space->exponent,
     vectors->log_norms + first * (n_layers + 1) + interface, n_layers + 1);
    if (!vectors->kept[interface])
        return;
    JM_T *out = (JM_T *)vectors->kept[interface] + first * rows;
    int64_t *out_exponent = vectors->kept_exponents[interface] + first;
    for (ptrdiff_t j = 0; j < count; j++) {
        for (ptrdiff_t i = 0; i < rows; i++)
            out[j * rows + i] = panel[i * width + j];
        const JM_T size = JM_NAME(max_abs)(rows, out + j * rows);
        out_exponent[j] = size > 0 && !isinf(size) ? space->exponent[j] : 0;
    }
}

/* Start vectors as the columns of a panel. */
static void JM_NAME(chain_start)(const jm_vectors *vectors, ptrdiff_t n_start, int nv,
                                 ptrdiff_t first, ptrdiff_t count, JM_T *panel, JM_V *largest,
                                 const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    const JM_T *start = (const JM_T *)vectors->start + first * n_start;
    memset(panel, 0, (size_t)(n_start * width) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < count; j++) {
        for (ptrdiff_t i = 0; i < n_start; i++)
            panel[i * width + j] = start[j * n_start + i];
        space->exponent[j] = 0;
        space->bad_layer[j] = -1;
        space->is_zero[j] = 0;
    }
    for (int v = 0; v < nv; v++) {
        largest[v] = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < n_start; i++)
            largest[v] = JM_VMAX(JM_VABS(JM_LOAD(panel + i * width + v * JM_VW)), largest[v]);
    }
}

/*
 * The columns of `out` that plain arithmetic may have spoilt, taken again with care.  `range` holds the
 * maxima of the plain step and gets those of the columns as they stand.
 */
static void JM_NAME(chain_repair)(const jm_chain *chain, const jm_vectors *vectors, ptrdiff_t k,
                                  int transposed, ptrdiff_t first, ptrdiff_t count, int nv,
                                  const JM_NAME(chain_step) * step, const JM_T *in, JM_T *out,
                                  JM_NAME(chain_range) * range,
                                  const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    const int has_between = step->weights && (step->slopes || step->lane_slopes);
    JM_T between[JM_GROUP_VECTORS * JM_VW], result[JM_GROUP_VECTORS * JM_VW];
    JM_T poison[JM_GROUP_VECTORS * JM_VW]; /* NaN where the column holds a NaN or an infinity */
    for (int v = 0; v < nv; v++) {
        JM_V sum = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < step->rows; i++)
            sum = JM_FMADD(JM_LOAD(out + i * width + v * JM_VW), JM_SPLAT(0), sum);
        JM_STORE(poison + v * JM_VW, sum);
        JM_STORE(between + v * JM_VW, range->between[v]);
        JM_STORE(result + v * JM_VW, range->result[v]);
    }
    for (ptrdiff_t j = 0; j < count; j++) {
        const int is_finite = !isnan(poison[j]);
        if (space->bad_layer[j] >= 0 || (is_finite && space->is_zero[j]))
            continue;
        if (is_finite && JM_NAME(chain_is_safe)(result[j], step->cols) &&
            (!has_between || JM_NAME(chain_is_safe)(between[j], step->cols)))
            continue;
        int status;
        const JM_NAME(chain_step) alone =
            JM_NAME(chain_step_of)(chain, k, (first + j) / vectors->per_sample, transposed);
        space->exponent[j] +=
            JM_NAME(chain_careful_column)(alone, width, j, in, out, space, &status);
        result[j] = 0;
        for (ptrdiff_t i = 0; i < step->rows; i++) {
            const JM_T magnitude = JM_ABS(out[i * width + j]);
            result[j] = magnitude > result[j] ? magnitude : result[j];
        }
        if (status != JM_OK)
            space->bad_layer[j] = k;
        space->is_zero[j] = status == JM_OK && result[j] == 0;
    }
    for (int v = 0; v < nv; v++)
        range->result[v] = JM_LOAD(result + v * JM_VW);
}

/* Vectors [first, first + count) of one group through layers [begin, end), in either direction. */
static int JM_NAME(chain_vectors)(const jm_chain *chain, const jm_vectors *vectors,
                                  ptrdiff_t max_width, ptrdiff_t first, ptrdiff_t count,
                                  ptrdiff_t begin, ptrdiff_t end, int transposed,
                                  ptrdiff_t *bad_layer, void *work) {
    JM_NAME(chain_vectors_space) space;
    JM_NAME(chain_vectors_layout)(max_width, work, &space);
    const ptrdiff_t n_layers = chain->n_layers;
    const ptrdiff_t sample = first / vectors->per_sample;
    const int spans_samples = (first + count - 1) / vectors->per_sample != sample;
    const int nv = (int)((count + JM_VW - 1) / JM_VW);
    JM_T *in = space.panel[begin % 2], *out = space.panel[1 - begin % 2];
    JM_NAME(chain_range) range;

    if (begin == 0) {
        const ptrdiff_t n_start = transposed ? JM_NAME(chain_layer)(chain, n_layers - 1).rows
                                             : JM_NAME(chain_layer)(chain, 0).cols;
        JM_NAME(chain_start)(vectors, n_start, nv, first, count, in, range.result, &space);
        JM_NAME(chain_interface)
        (vectors, n_layers, transposed ? n_layers : 0, n_start, nv, first, count, in, range.result,
         &space);
    }
    /* `progress` counts layers passed; a vjp meets them last to first. */
    for (ptrdiff_t progress = begin; progress < end; progress++) {
        const ptrdiff_t k = transposed ? n_layers - 1 - progress : progress;
        const jm_layer layer = JM_NAME(chain_layer)(chain, k);
        JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, transposed);
        if (spans_samples && layer.slopes && layer.slopes_stride != 0) {
            JM_NAME(chain_gather_slopes)
            (&layer, vectors, first, count, step.slopes_first ? step.cols : step.rows, nv * JM_VW,
             space.lane_slopes);
            step.slopes = NULL;
            step.lane_slopes = space.lane_slopes;
        }
        for (int v = 0; v < JM_PANEL; v++)
            range.between[v] = range.result[v] = JM_SPLAT(0);
        JM_NAME(chain_panel)(&step, nv, in, out, space.scratch, &range);
        JM_NAME(chain_repair)
        (chain, vectors, k, transposed, first, count, nv, &step, in, out, &range, &space);
        JM_NAME(chain_interface)
        (vectors, n_layers, transposed ? k : k + 1, step.rows, nv, first, count, out, range.result,
         &space);
        JM_T *const previous = in;
        in = out;
        out = previous;
    }
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
 * count      1 .. chain_vectors_group(); vectors of one group share the weights of every layer
 * bad_layer  (count)  first layer with a NaN or infinity that the vector meets, -1 if there is none
 * work       chain_vectors_work(largest width) bytes; begin == 0 starts it anew, a later range of
 *            layers passed goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers, every width >= 1, and finite start vectors.  Never allocates.
 * Cost 2 n_{k+1} n_k flops a layer and vector, and one logarithm.  A vector's result does not depend on
 * the rest of its group.  Returns JM_OK, or JM_NON_FINITE if a bad_layer is not -1.
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
