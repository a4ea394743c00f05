/* The product J = F_{L-1} ... F_0 of a chain, one sample at a time; see chain_step.inc.h. */

/* Bytes of W, and rows of it at least, that are worked on while all panels pass; see below. */
#ifndef JM_ROW_BLOCK
#define JM_ROW_BLOCK (1 << 17)
#define JM_LEAST_ROWS 20
/* The width from which F_0 is multiplied where it lies: below, its copy costs less than a general
 * layer. */
#define JM_IN_PLACE 24
#endif

/* The greatest width at which samples go in lanes: beyond it one sample fills the registers as
 * well, and reads memory in a straight line. */
#undef JM_LANES_WIDTH
#if JM_IS_F64
#define JM_LANES_WIDTH 3
#else
#define JM_LANES_WIDTH 4
#endif

/* What a product in progress keeps at the start of its workspace. */
typedef struct {
    int64_t exponent;
    JM_T largest;        /* magnitude in the block, as far as the maxima saw: they pass over NaN */
    ptrdiff_t rows;      /* of the block of columns in `current` */
    ptrdiff_t bad_layer; /* first layer with a non-finite entry, or -1 */
    int current;         /* which of the two blocks */
    int is_zero;
} JM_NAME(chain_state);

/* How a block is cut: into n panels, the first n_narrow of `narrow` vectors, the rest one wider. */
typedef struct {
    ptrdiff_t n, narrow, n_narrow;
} JM_NAME(chain_panels);

JM_INLINE JM_NAME(chain_panels) JM_NAME(chain_panels_of)(ptrdiff_t n_vectors) {
    const ptrdiff_t n = JM_PANELS(n_vectors);
    const JM_NAME(chain_panels) panels = {n, n_vectors / n, n - n_vectors % n};
    return panels;
}

/* Vectors in panel p. */
JM_INLINE ptrdiff_t JM_NAME(chain_panel_width)(const JM_NAME(chain_panels) * panels, ptrdiff_t p) {
    return panels->narrow + (p >= panels->n_narrow);
}

/* The workspace of a product: its state and what lies behind it.  A block's panels lie one by one.
 */
typedef struct {
    JM_NAME(chain_state) * state;
    JM_T *block[2];   /* (max_width, padded columns) each */
    JM_T *checkpoint; /* the block at the start of the layer range */
    JM_T *panel;      /* one panel, for slopes on the input side */
    JM_T *weights;    /* scaled copies for a careful step */
    JM_T *slopes;
    ptrdiff_t n_vectors; /* per row of a block */
    JM_NAME(chain_panels) panels;
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
        space->panels = JM_NAME(chain_panels_of)(n_vectors);
    }
    return end;
}

/* Bytes of workspace, of 64-byte alignment, that chain_product needs. */
static size_t JM_NAME(chain_product_work)(ptrdiff_t max_width, ptrdiff_t n_in) {
    return JM_NAME(chain_product_layout)(max_width, n_in, NULL, NULL);
}

/* Bytes of the current block. */
static size_t JM_NAME(chain_block_bytes)(const JM_NAME(chain_product_space) * space) {
    return (size_t)(space->state->rows * space->n_vectors * JM_VW) * sizeof(JM_T);
}

/* out (rows of step) = step applied to every panel of in. */
static JM_NAME(chain_range)
    JM_NAME(chain_block)(const JM_NAME(chain_step) * step,
                         const JM_NAME(chain_product_space) * space, const JM_T *in, JM_T *out) {
    JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
    for (ptrdiff_t p = 0; p < space->panels.n; p++) {
        const ptrdiff_t nv = JM_NAME(chain_panel_width)(&space->panels, p);
        JM_NAME(chain_panel)(step, (int)nv, in, out, space->panel, &range);
        in += nv * JM_VW * step->cols;
        out += nv * JM_VW * step->rows;
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
    state->largest = JM_LDEXP(largest, -e);
}

/* The same, once its exponent has left +-JM_LAZY. */
static void JM_NAME(chain_keep_in_window)(const JM_NAME(chain_product_space) * space,
                                          JM_T largest) {
    const int e = JM_NAME(exponent_of)(largest);
    if (e > JM_LAZY || e < -JM_LAZY)
        JM_NAME(chain_normalize)(space, largest);
}

/* The current block through layer k.  `careful` scales the step at once and sees every NaN. */
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
    /* A NaN that the maxima passed over is left to the careful pass, which meets it on its way. */
    const JM_T before = stands ? 1 : JM_NAME(max_abs)(step.cols * space->n_vectors * JM_VW, in);
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
    state->largest = largest;
    if (largest > 0 && !isinf(largest))
        JM_NAME(chain_keep_in_window)(space, largest);
}

/* Whether every layer is `first` moved on: square ones, one after the other. */
static int JM_NAME(chain_is_stacked)(const jm_chain *chain) {
    return !chain->layers && chain->first.weights && !chain->from_last;
}

/* Bounds of the window in which a plain step stands, in every lane. */
typedef struct {
    JM_V low, high;  /* of the result */
    JM_V tiny, huge; /* of what stands between the two operations */
} JM_NAME(chain_window);

JM_INLINE JM_NAME(chain_window) JM_NAME(chain_window_of)(ptrdiff_t n) {
    const JM_NAME(chain_window)
        window = {JM_SPLAT(JM_LDEXP((JM_T)1, -JM_LAZY)), JM_SPLAT(JM_LDEXP((JM_T)1, JM_LAZY)),
                  JM_SPLAT((JM_T)n * JM_LDEXP((JM_T)1, JM_MIN_EXP + 2)),
                  JM_SPLAT(JM_LDEXP((JM_T)1, JM_MAX_EXP - 1))};
    return window;
}

/* Whether a plain step with these largest magnitudes leaves the window. */
JM_INLINE int JM_NAME(chain_leaves)(const JM_NAME(chain_window) * window, JM_V result,
                                    int has_between, JM_V between) {
    return !JM_ANY_ABOVE(result, window->low) || JM_ANY_ABOVE(result, window->high) ||
           (has_between &&
            (!JM_ANY_ABOVE(between, window->tiny) || JM_ANY_ABOVE(between, window->huge)));
}

/*
 * Square layers [k, end) of a stacked chain where a row is one vector and all of them fit the
 * registers, which saves the way through memory from each layer to the next.  `step` is layer k
 * and moves on; `largest` gets the magnitudes of the last result, by lane.  Returns the first layer
 * that does not stand, or end.  Operations and their order are those of chain_tile.
 *
 * Bound: the latency of n fused operations a layer; from main memory, its bandwidth from n = 4.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_run_resident)(const int n, const jm_chain *chain, ptrdiff_t k,
                                                ptrdiff_t end, JM_NAME(chain_step) * step,
                                                JM_V *row, JM_V *largest) {
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    const int has_shortcut = step->shortcut != 0 || chain->shortcuts;
    const JM_T *w = step->weights, *s = step->slopes;
    JM_V c = JM_SPLAT(step->shortcut);
    for (; k < end; k++) {
        JM_V next[JM_RESIDENT], between = JM_SPLAT(0), result = JM_SPLAT(0);
        if (chain->shortcuts)
            c = JM_SPLAT((JM_T)chain->shortcuts[k]);
        for (size_t line = 0; line < n * n * sizeof(JM_T); line += 64)
            JM_PREFETCH((const char *)w + JM_AHEAD + line);
        JM_UNROLL
        for (int i = 0; i < n; i++)
            next[i] = JM_SPLAT(0);
        JM_UNROLL
        for (int j = 0; j < n; j++) {
            JM_V x = row[j];
            if (s && step->slopes_first) {
                x *= JM_SPLAT(s[j]);
                between = JM_VMAX_ABS(x, between);
            }
            JM_UNROLL
            for (int i = 0; i < n; i++)
                next[i] = JM_FMADD(JM_SPLAT(w[i * n + j]), x, next[i]);
        }
        JM_UNROLL
        for (int i = 0; i < n; i++) {
            if (s && !step->slopes_first) {
                between = JM_VMAX_ABS(next[i], between);
                next[i] *= JM_SPLAT(s[i]);
            }
            if (has_shortcut)
                next[i] = JM_FMADD(c, row[i], next[i]);
            result = JM_VMAX_ABS(next[i], result);
        }
        if (JM_NAME(chain_leaves)(&window, result, s != NULL, between))
            break;
        *largest = result;
        JM_UNROLL
        for (int i = 0; i < n; i++)
            row[i] = next[i];
        w += chain->weights_layer_stride;
        if (s)
            s += chain->slopes_layer_stride;
    }
    return k;
}

/*
 * One panel through a square layer of constant size: chain_rows_of with every height a constant.
 */
JM_INLINE const char *JM_NAME(chain_square_panel)(const int nv, const int n,
                                                  const JM_NAME(chain_step) * step, const JM_T *in,
                                                  JM_T *out, JM_T *scaled, const char *ahead,
                                                  JM_NAME(chain_range) * range) {
    const JM_T *source = in;
    if (step->slopes && step->slopes_first) {
        JM_NAME(chain_scale_rows)(nv, step, n, in, scaled, range);
        source = scaled;
    }
    const int n_tiles = (n + JM_TILE_ROWS(nv) - 1) / JM_TILE_ROWS(nv);
    const int low = n / n_tiles, tall = low + 1, n_tall = n % n_tiles;
    ptrdiff_t i = 0;
    for (; i < n_tall * tall; i += tall) {
        ahead = JM_NAME(chain_fetch)(tall, nv, ahead);
        JM_NAME(chain_tile)
        (tall, nv, step, n, n, 1, i, source, nv * JM_VW, in, out, nv * JM_VW, range);
    }
    for (; i < n; i += low) {
        ahead = JM_NAME(chain_fetch)(low, nv, ahead);
        JM_NAME(chain_tile)
        (low, nv, step, n, n, 1, i, source, nv * JM_VW, in, out, nv * JM_VW, range);
    }
    return ahead;
}

/*
 * All panels through a square layer, plainly.  `in` is a block or, if is_row_major, a matrix whose
 * rows are n apart, and then no slopes are on the input side; `scaled` has room for a panel.
 *
 * Bound: flops, 2 n^3 a layer and sample, with W from L2 at 2 bytes a cycle; from main memory, n^2
 * numbers a layer up to n = 16 or so.  Rows are taken in blocks whose part of W stays in L2 while
 * the panels pass.
 */
static void JM_NAME(chain_square_layer)(ptrdiff_t n, const JM_NAME(chain_panels) * panels,
                                        const JM_NAME(chain_step) * step, const JM_T *in,
                                        int is_row_major, JM_T *out, JM_T *scaled,
                                        JM_NAME(chain_range) * range) {
    const int scales_input = step->slopes && step->slopes_first;
    const char *ahead = (const char *)step->weights + JM_AHEAD;
    ptrdiff_t n_rows = JM_ROW_BLOCK / (n * (ptrdiff_t)sizeof(JM_T));
    n_rows = n_rows < JM_LEAST_ROWS ? JM_LEAST_ROWS : n_rows;
    for (ptrdiff_t begin = 0; begin < n; begin += n_rows) {
        const ptrdiff_t end = begin + n_rows < n ? begin + n_rows : n;
        for (ptrdiff_t p = 0, first = 0; p < panels->n; p++) {
            const ptrdiff_t nv = JM_NAME(chain_panel_width)(panels, p), width = nv * JM_VW;
            const JM_T *original = in + (is_row_major ? first : first * n);
            const JM_T *source = scales_input ? scaled : original;
            const ptrdiff_t stride = is_row_major ? n : width;
            if (scales_input)
                JM_NAME(chain_scale_rows)((int)nv, step, n, original, scaled, range);
            switch (nv) {
#define JM_WIDTH(v)                                                                                \
    case v:                                                                                        \
        if (v <= JM_PANEL)                                                                         \
            ahead =                                                                                \
                JM_NAME(chain_rows_of)(v <= JM_PANEL ? v : 1, step, begin, end, n, n, 1, source,   \
                                       stride, original, out + first * n, width, ahead, range);    \
        break;
                JM_WIDTH(1)
                JM_WIDTH(2)
                JM_WIDTH(3)
                JM_WIDTH(4)
#undef JM_WIDTH
            }
            first += width;
        }
    }
}

/* The same where n is a constant. */
JM_INLINE void JM_NAME(chain_constant_layer)(const int n, const JM_NAME(chain_panels) * panels,
                                             const JM_NAME(chain_step) * step, const JM_T *in,
                                             JM_T *out, JM_T *scaled,
                                             JM_NAME(chain_range) * range) {
    const char *ahead = (const char *)step->weights + JM_AHEAD;
    const int narrow = (int)panels->narrow, wide = narrow < JM_PANEL ? narrow + 1 : narrow;
    for (ptrdiff_t p = 0; p < panels->n; p++) {
        if (p < panels->n_narrow) {
            ahead = JM_NAME(chain_square_panel)(narrow, n, step, in, out, scaled, ahead, range);
            in += narrow * JM_VW * n;
            out += narrow * JM_VW * n;
        } else {
            ahead = JM_NAME(chain_square_panel)(wide, n, step, in, out, scaled, ahead, range);
            in += wide * JM_VW * n;
            out += wide * JM_VW * n;
        }
    }
}

/*
 * Square layers [k, end) of a stacked chain, while all goes plainly.  n is a constant where it is
 * worth the code.  Returns the first layer whose result was out of the window, which does not
 * stand, or end.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_run)(const ptrdiff_t n, const int is_constant,
                                       const jm_chain *chain, ptrdiff_t k, ptrdiff_t end,
                                       ptrdiff_t sample,
                                       const JM_NAME(chain_product_space) * space) {
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_NAME(chain_state) *state = space->state;
    JM_T *in = space->block[state->current], *out = space->block[1 - state->current];
    JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    const JM_NAME(chain_panels) panels = JM_NAME(chain_panels_of)((n + JM_VW - 1) / JM_VW);
    JM_V largest = JM_SPLAT(state->largest);

    if (is_constant && n <= JM_RESIDENT) {
        JM_V row[JM_RESIDENT];
        JM_UNROLL
        for (int i = 0; i < n; i++)
            row[i] = JM_LOAD(in + i * JM_VW);
        k = JM_NAME(chain_run_resident)((int)n, chain, k, end, &step, row, &largest);
        JM_UNROLL
        for (int i = 0; i < n; i++)
            JM_STORE(in + i * JM_VW, row[i]);
        state->largest = JM_NAME(largest_lane)(largest);
        return k;
    }
    for (; k < end; k++) {
        JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
        if (chain->shortcuts)
            step.shortcut = (JM_T)chain->shortcuts[k];
        if (is_constant)
            JM_NAME(chain_constant_layer)
        ((int)n, &panels, &step, in, out, space->panel, &range);
        else JM_NAME(chain_square_layer)(n, &panels, &step, in, 0, out, space->panel, &range);
        JM_V result = range.result[0], between = range.between[0];
        for (int v = 1; v < JM_PANEL; v++) {
            result = JM_VMAX(range.result[v], result);
            between = JM_VMAX(range.between[v], between);
        }
        if (JM_NAME(chain_leaves)(&window, result, step.slopes != NULL, between))
            break;
        largest = result;
        JM_T *const previous = in;
        in = out;
        out = previous;
        state->current = 1 - state->current;
        step.weights += chain->weights_layer_stride;
        if (step.slopes)
            step.slopes += chain->slopes_layer_stride;
    }
    state->largest = JM_NAME(largest_lane)(largest);
    return k;
}

/* Layers [begin, end) from the current block, plainly where that stands. */
static void JM_NAME(chain_product_plain)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t begin,
                                         ptrdiff_t end,
                                         const JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n = chain->first.rows;
    const int is_stacked = JM_NAME(chain_is_stacked)(chain);
    for (ptrdiff_t k = begin; k < end; k++) {
        if (is_stacked && !space->state->is_zero && space->state->bad_layer < 0) {
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
                JM_SIZE(9)
                JM_SIZE(10)
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
    for (ptrdiff_t p = 0, first = 0; p < space->panels.n; p++) {
        const ptrdiff_t width = JM_NAME(chain_panel_width)(&space->panels, p) * JM_VW;
        for (ptrdiff_t j = first; j < first + width && j < n; j++)
            block[first * n + j * width + (j - first)] = 1;
        first += width;
    }
    const JM_NAME(chain_state) start = {.largest = 1, .rows = n, .bad_layer = -1};
    *space->state = start;
}

/*
 * F_0 itself as the first block, which spares the product with the identity and has its bits.
 * Returns whether it stands, as in chain_product_layer.  A NaN is left to the look at the result.
 */
static int JM_NAME(chain_first_factor)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t n_in,
                                       const JM_NAME(chain_product_space) * space) {
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, 0, sample, 0);
    if (!step.weights || chain->from_last)
        return 0;
    const JM_T *s_first = step.slopes_first ? step.slopes : NULL;
    const JM_T *s_last = step.slopes_first ? NULL : step.slopes;
    JM_V result = JM_SPLAT(0), between = JM_SPLAT(0);
    JM_T *panel = space->block[0];
    for (ptrdiff_t p = 0, first = 0; p < space->panels.n; p++) {
        const ptrdiff_t width = JM_NAME(chain_panel_width)(&space->panels, p) * JM_VW;
        for (ptrdiff_t i = 0; i < step.rows; i++)
            for (ptrdiff_t j = 0; j < width; j += JM_VW) {
                const ptrdiff_t left = n_in - first - j;
                const JM_T *at = step.weights + i * n_in + first + j;
                JM_V x = left < JM_VW ? JM_LOAD_FIRST(at, left) : JM_LOAD(at);
                if (s_last) {
                    between = JM_VMAX_ABS(x, between);
                    x *= JM_SPLAT(s_last[i]);
                }
                if (s_first) {
                    at = s_first + first + j;
                    x *= left < JM_VW ? JM_LOAD_FIRST(at, left) : JM_LOAD(at);
                }
                result = JM_VMAX_ABS(x, result);
                JM_STORE(panel + i * width + j, x);
            }
        for (ptrdiff_t i = first; step.shortcut != 0 && i < first + width && i < n_in; i++)
            panel[i * width + i - first] += step.shortcut;
        panel += width * step.rows;
        first += width;
    }
    const JM_NAME(chain_state) start = {.rows = step.rows, .bad_layer = -1};
    *space->state = start;
    const ptrdiff_t n_block = step.rows * space->n_vectors * JM_VW;
    const JM_T largest = step.shortcut != 0 ? JM_NAME(max_abs)(n_block, space->block[0])
                                            : JM_NAME(largest_lane)(result);
    const JM_T middle = s_last    ? JM_NAME(largest_lane)(between)
                        : s_first ? JM_NAME(max_abs)(step.cols, s_first)
                                  : 1;
    if (!JM_NAME(chain_is_safe)(largest, step.cols) || !JM_NAME(chain_is_safe)(middle, step.cols))
        return 0;
    space->state->largest = largest;
    JM_NAME(chain_keep_in_window)(space, largest);
    return 1;
}

/*
 * F_1 F_0 as the first block, with F_0 read where it lies, which spares the copy of a wide one.
 * Returns whether it stands: with no slopes, shortcuts or padding, and magnitudes within the window
 * as in chain_run.
 */
static int JM_NAME(chain_first_two)(const jm_chain *chain, ptrdiff_t sample,
                                    const JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n = chain->first.rows;
    if (!JM_NAME(chain_is_stacked)(chain) || chain->shortcuts || chain->first.shortcut != 0 ||
        chain->first.slopes || n < JM_IN_PLACE || n % JM_VW)
        return 0;
    const JM_NAME(chain_step) first = JM_NAME(chain_step_of)(chain, 0, sample, 0);
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, 1, sample, 0);
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
    if (JM_NAME(chain_leaves)(&window, JM_SPLAT(JM_NAME(max_abs)(n * n, first.weights)), 0,
                              JM_SPLAT(0)))
        return 0;
    JM_NAME(chain_square_layer)
    (n, &space->panels, &step, first.weights, 1, space->block[0], space->panel, &range);
    const JM_T largest = JM_NAME(chain_largest)(range.result);
    if (JM_NAME(chain_leaves)(&window, JM_SPLAT(largest), 0, JM_SPLAT(0)))
        return 0;
    const JM_NAME(chain_state) start = {.largest = largest, .rows = n, .bad_layer = -1};
    *space->state = start;
    return 1;
}

/*
 * Rows [begin, end) of a panel times `factor` into a matrix whose rows are n_in apart, whole
 * vectors, ascending.  `poison` becomes NaN with the first entry that is not finite.
 */
JM_INLINE void JM_NAME(chain_write_rows)(const int nv, ptrdiff_t begin, ptrdiff_t end, JM_V factor,
                                         const JM_T *panel, ptrdiff_t n_in, JM_T *out,
                                         JM_V *poison) {
    /* Two chains of latency a vector. */
    JM_V odd[JM_PANEL], even[JM_PANEL];
    JM_UNROLL
    for (int v = 0; v < nv; v++)
        odd[v] = even[v] = JM_SPLAT(0);
    for (ptrdiff_t i = begin; i < end; i++) {
        JM_UNROLL
        for (int v = 0; v < nv; v++) {
            const JM_V x = JM_LOAD(panel + (i * nv + v) * JM_VW) * factor, last = odd[v];
            JM_STORE(out + i * n_in + v * JM_VW, x);
            odd[v] = even[v];
            even[v] = JM_FMADD(x, JM_SPLAT(0), last);
        }
    }
    JM_UNROLL
    for (int v = 0; v < nv; v++)
        *poison += odd[v] + even[v];
}

/*
 * Writes the current block, row by row (if it is J^T, column by column), as mantissa and exponent.
 * Returns whether it is finite: if not, what was written does not stand.
 */
static int JM_NAME(chain_write)(ptrdiff_t n_in, int is_transposed,
                                const JM_NAME(chain_product_space) * space, JM_T *mantissa,
                                int64_t *exponent) {
    const JM_NAME(chain_state) *state = space->state;
    const int e = state->largest > 0 ? JM_NAME(exponent_of)(state->largest) : 0;
    const JM_V factor = JM_SPLAT(JM_NAME(power_of_two)(-e));
    const ptrdiff_t rows = state->rows;
    JM_V poison = JM_SPLAT(0);
    JM_T part[JM_VW];
    /* What the last vector of a row has too much goes to the rows after it, written later; rows
     * that are too near to the end for that go element by element. */
    const ptrdiff_t excess = space->n_vectors * JM_VW - n_in,
                    n_careful = (excess + n_in - 1) / n_in;
    const ptrdiff_t n_whole = is_transposed || n_careful > rows ? 0 : rows - n_careful;
    const JM_T *panel = space->block[state->current] + rows * space->n_vectors * JM_VW;
    for (ptrdiff_t p = space->panels.n - 1, first = space->n_vectors * JM_VW; p >= 0; p--) {
        const ptrdiff_t nv = JM_NAME(chain_panel_width)(&space->panels, p), width = nv * JM_VW;
        panel -= rows * width;
        first -= width;
        switch (nv) {
#define JM_WIDTH(v)                                                                                \
    case v:                                                                                        \
        if (v <= JM_PANEL)                                                                         \
            JM_NAME(chain_write_rows)                                                              \
        (v <= JM_PANEL ? v : 1, 0, n_whole, factor, panel, n_in, mantissa + first, &poison);       \
        break;
            JM_WIDTH(1)
            JM_WIDTH(2)
            JM_WIDTH(3)
            JM_WIDTH(4)
#undef JM_WIDTH
        }
        for (ptrdiff_t i = n_whole; i < rows; i++)
            for (ptrdiff_t j = 0; j < width; j += JM_VW) {
                const JM_V x = JM_LOAD(panel + i * width + j) * factor;
                const ptrdiff_t left = n_in - first - j;
                poison = JM_FMADD(x, JM_SPLAT(0), poison);
                JM_STORE(part, x);
                for (ptrdiff_t l = 0; l < JM_VW && l < left; l++)
                    mantissa[is_transposed ? (first + j + l) * rows + i
                                           : i * n_in + first + j + l] = part[l];
            }
    }
    *exponent = state->largest > 0 ? state->exponent + e : 0;
    return !JM_ANY_NAN(poison);
}

/* The same for a block with NaN or infinity, which is written as it is, with exponent 0. */
static void JM_NAME(chain_write_non_finite)(ptrdiff_t n_in, int is_transposed,
                                            const JM_NAME(chain_product_space) * space,
                                            JM_T *mantissa, int64_t *exponent) {
    JM_NAME(chain_state) *state = space->state;
    JM_T *block = space->block[state->current];
    const int64_t limit = 4 * JM_MAX_EXP, e = state->exponent;
    for (ptrdiff_t i = 0; i < state->rows * space->n_vectors * JM_VW; i++)
        block[i] = JM_LDEXP(block[i], (int)(e > limit ? limit : e < -limit ? -limit : e));
    state->largest = 0;
    (void)JM_NAME(chain_write)(n_in, is_transposed, space, mantissa, exponent);
}

/*
 * The whole product where it stays in registers from the first factor to the result, which is most
 * of the time of a small item.  Returns how many layers stand: all of them, and the result is
 * written; or fewer, and what they give is the current block.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_product_resident)(const int n, const jm_chain *chain,
                                                    ptrdiff_t sample,
                                                    const JM_NAME(chain_product_space) * space,
                                                    JM_T *mantissa, int64_t *exponent) {
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, 0, sample, 0);
    const JM_T *s_first = step.slopes_first ? step.slopes : NULL;
    const JM_T *s_last = step.slopes_first ? NULL : step.slopes;
    JM_V row[JM_RESIDENT], largest = JM_SPLAT(0), between = JM_SPLAT(0);
    if (s_first)
        between = JM_VABS(JM_LOAD_FIRST(s_first, n));
    JM_UNROLL
    for (int i = 0; i < n; i++) {
        row[i] = JM_LOAD_FIRST(step.weights + i * n, n);
        if (s_first)
            row[i] *= JM_LOAD_FIRST(s_first, n);
        if (s_last) {
            between = JM_VMAX_ABS(row[i], between);
            row[i] *= JM_SPLAT(s_last[i]);
        }
        largest = JM_VMAX_ABS(row[i], largest);
    }
    if (JM_NAME(chain_leaves)(&window, largest, step.slopes != NULL, between))
        return 0;
    step.weights += chain->weights_layer_stride;
    if (step.slopes)
        step.slopes += chain->slopes_layer_stride;
    const ptrdiff_t k =
        JM_NAME(chain_run_resident)(n, chain, 1, chain->n_layers, &step, row, &largest);
    const JM_T top = JM_NAME(largest_lane)(largest);
    const int e = JM_NAME(exponent_of)(top);
    if (k < chain->n_layers) {
        const JM_NAME(chain_state) state = {.largest = top, .rows = n, .bad_layer = -1};
        *space->state = state;
        JM_UNROLL
        for (int i = 0; i < n; i++)
            JM_STORE(space->block[0] + i * JM_VW, row[i]);
        return k;
    }
    const JM_V factor = JM_SPLAT(JM_NAME(power_of_two)(-e));
    JM_V poison = JM_SPLAT(0);
    JM_UNROLL
    for (int i = 0; i < n; i++) {
        row[i] *= factor;
        poison = JM_FMADD(row[i], JM_SPLAT(0), poison);
        JM_STORE_FIRST(mantissa + i * n, row[i], n);
    }
    *exponent = e;
    return JM_ANY_NAN(poison) ? 0 : k;
}

/* chain_product_resident for a chain of that kind; 0, which promises nothing, for any other. */
static ptrdiff_t JM_NAME(chain_product_in_registers)(const jm_chain *chain, ptrdiff_t sample,
                                                     const JM_NAME(chain_product_space) * space,
                                                     JM_T *mantissa, int64_t *exponent) {
    if (!JM_NAME(chain_is_stacked)(chain) || chain->shortcuts || chain->first.shortcut != 0)
        return 0;
    switch (chain->first.rows) {
#define JM_SIZE(n)                                                                                 \
    case n:                                                                                        \
        if (n <= JM_RESIDENT)                                                                      \
            return JM_NAME(chain_product_resident)(n <= JM_RESIDENT ? n : 1, chain, sample, space, \
                                                   mantissa, exponent);                            \
        break;
        JM_SIZE(1)
        JM_SIZE(2)
        JM_SIZE(3)
        JM_SIZE(4)
        JM_SIZE(5)
        JM_SIZE(6)
        JM_SIZE(7)
        JM_SIZE(8)
#undef JM_SIZE
    }
    return 0;
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
 * With chain->from_last it is J^T = F_0^T ... F_{L-1}^T that grows: ranges count layers from the
 * last, n_L takes the place of n_0 in workspace and cost, and results are those of J all the same.
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Never allocates.  Cost
 * 2 n_{k+1} n_k n_0 flops a layer.  Error of an entry, beside exact arithmetic: at most
 * sum_k (n_k + 2) u times the product of the factors' absolute values.
 * Returns JM_OK, or JM_NON_FINITE.
 */
static int JM_NAME(chain_product)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                  ptrdiff_t begin, ptrdiff_t end, void *mantissa, int64_t *exponent,
                                  ptrdiff_t *bad_layer, void *work) {
    const ptrdiff_t n_in = JM_NAME(chain_step_of)(chain, 0, sample, 0).cols;
    JM_NAME(chain_product_space) space;
    JM_NAME(chain_product_layout)(max_width, n_in, work, &space);
    JM_NAME(chain_state) *state = space.state;
    const JM_NAME(chain_state) start = *state;
    const int is_last = end == chain->n_layers;
    ptrdiff_t done = begin;
    if (begin == 0 && is_last)
        done = JM_NAME(chain_product_in_registers)(chain, sample, &space, mantissa, exponent);
    if (done == end) {
        *bad_layer = -1;
        return JM_OK;
    }
    if (begin > 0)
        memcpy(space.checkpoint, space.block[state->current], JM_NAME(chain_block_bytes)(&space));
    else if (done == 0 && end > 1 && JM_NAME(chain_first_two)(chain, sample, &space))
        done = 2;
    else if (done == 0 && JM_NAME(chain_first_factor)(chain, sample, n_in, &space))
        done = 1;
    else if (done == 0)
        JM_NAME(chain_identity)(n_in, &space);
    JM_NAME(chain_product_plain)(chain, sample, done, end, &space);

    /* A NaN stays in its column to the end, so one look finds what the maxima passed over: an
     * infinity minus an infinity inside a sum, or a NaN in the input. */
    int is_written = is_last && state->bad_layer < 0 &&
                     JM_NAME(chain_write)(n_in, chain->from_last, &space, mantissa, exponent);
    if (state->bad_layer < 0 && !is_written &&
        (is_last || isinf(JM_NAME(max_abs)(state->rows * space.n_vectors * JM_VW,
                                           space.block[state->current])))) {
        if (begin > 0) {
            *state = start;
            memcpy(space.block[state->current], space.checkpoint,
                   JM_NAME(chain_block_bytes)(&space));
        } else {
            JM_NAME(chain_identity)(n_in, &space);
        }
        for (ptrdiff_t k = begin; k < end; k++)
            JM_NAME(chain_product_layer)(chain, k, sample, 1, &space);
        is_written =
            is_last && JM_NAME(chain_write)(n_in, chain->from_last, &space, mantissa, exponent);
    }
    *bad_layer = chain->from_last && state->bad_layer >= 0 ? chain->n_layers - 1 - state->bad_layer
                                                           : state->bad_layer;
    if (is_last && !is_written)
        JM_NAME(chain_write_non_finite)(n_in, chain->from_last, &space, mantissa, exponent);
    return state->bad_layer < 0 ? JM_OK : JM_NON_FINITE;
}

/*
 * Whole products of JM_VW samples of a stacked chain, a lane each: of the weights alone, each
 * sample's own.  Returns whether every lane stayed in the window, where chain_product gives the
 * same bits; if not, what was written does not stand.
 *
 * Bound: the shuffles that bring the entries into lanes, about as many as fused operations; from
 * main memory, its bandwidth.
 */
JM_INLINE int JM_NAME(chain_product_lanes)(const int n, const jm_chain *chain, ptrdiff_t first,
                                           JM_T *mantissa, int64_t *exponent) {
    const ptrdiff_t stride = chain->first.weights_stride;
    const ptrdiff_t group_bytes = JM_VW * stride * (ptrdiff_t)sizeof(JM_T);
    /* The groups to come or, where a sample is long, the layers to come. */
    const ptrdiff_t ahead = group_bytes > 4 * JM_AHEAD || group_bytes <= 0
                                ? JM_AHEAD
                                : (JM_AHEAD + group_bytes - 1) / group_bytes * group_bytes;
    /* Not as low as for one sample: on the bound itself that one decides. */
    const JM_V low = JM_SPLAT(JM_LDEXP((JM_T)1, 1 - JM_LAZY));
    const JM_V high = JM_SPLAT(JM_LDEXP((JM_T)1, JM_LAZY));
    const JM_T *w = (const JM_T *)chain->first.weights + first * stride;
    ptrdiff_t at[JM_VW];
    JM_V product[JM_LANES_WIDTH * JM_LANES_WIDTH], next[JM_LANES_WIDTH * JM_LANES_WIDTH];
    JM_V largest = JM_SPLAT(0), poison = JM_SPLAT(0);
    JM_T lanes[JM_VW], powers[JM_VW];
    int exponents[JM_VW];

    for (int l = 0; l < JM_VW; l++)
        at[l] = l * stride;
    JM_UNROLL
    for (int i = 0; i < n * n; i++) {
        product[i] = JM_GATHER(w + i, at);
        largest = JM_VMAX_ABS(product[i], largest);
    }
    for (ptrdiff_t k = 1; k < chain->n_layers; k++) {
        if (JM_ANY_ABOVE(low, largest) || JM_ANY_ABOVE(largest, high))
            return 0;
        w += chain->weights_layer_stride;
        largest = JM_SPLAT(0);
        for (int l = 0; l < JM_VW; l++)
            for (size_t line = 0; line < n * n * sizeof(JM_T); line += 64)
                JM_PREFETCH((const char *)(w + at[l]) + ahead + line);
        JM_UNROLL
        for (int i = 0; i < n; i++) {
            JM_UNROLL
            for (int j = 0; j < n; j++)
                next[i * n + j] = JM_SPLAT(0);
            JM_UNROLL
            for (int m = 0; m < n; m++) {
                const JM_V a = JM_GATHER(w + i * n + m, at);
                JM_UNROLL
                for (int j = 0; j < n; j++)
                    next[i * n + j] = JM_FMADD(a, product[m * n + j], next[i * n + j]);
            }
        }
        JM_UNROLL
        for (int i = 0; i < n * n; i++) {
            product[i] = next[i];
            largest = JM_VMAX_ABS(product[i], largest);
        }
    }
    if (JM_ANY_ABOVE(low, largest) || JM_ANY_ABOVE(largest, high))
        return 0;
    JM_STORE(lanes, largest);
    for (int l = 0; l < JM_VW; l++) {
        exponents[l] = JM_NAME(exponent_of)(lanes[l]);
        powers[l] = JM_NAME(power_of_two)(-exponents[l]);
    }
    const JM_V factor = JM_LOAD(powers);
    JM_UNROLL
    for (int i = 0; i < n * n; i++) {
        product[i] *= factor;
        poison = JM_FMADD(product[i], JM_SPLAT(0), poison);
        JM_STORE(lanes, product[i]);
        for (int l = 0; l < JM_VW; l++)
            mantissa[l * n * n + i] = lanes[l];
    }
    for (int l = 0; l < JM_VW; l++)
        exponent[l] = exponents[l];
    return !JM_ANY_NAN(poison);
}

/* Samples that chain_products takes at once, at most. */
static ptrdiff_t JM_NAME(chain_product_group)(const jm_chain *chain) {
    const int is_plain = JM_NAME(chain_is_stacked)(chain) && !chain->first.slopes &&
                         !chain->shortcuts && chain->first.shortcut == 0;
    return is_plain && chain->first.weights_stride != 0 && chain->first.rows <= JM_LANES_WIDTH
               ? JM_VW
               : 1;
}

/*
 * chain_product for the samples [first, first + count), bit for bit.
 *
 * mantissa             (count, n_L, n_0)
 * exponent, bad_layer  (count)
 * work                 count times chain_product_work(largest width, n_0) bytes
 *
 * Requires 1 <= count <= chain_product_group(chain).
 */
static void JM_NAME(chain_products)(const jm_chain *chain, ptrdiff_t first, ptrdiff_t count,
                                    ptrdiff_t max_width, ptrdiff_t begin, ptrdiff_t end,
                                    void *mantissa, int64_t *exponent, ptrdiff_t *bad_layer,
                                    void *work) {
    int is_done = 0;
    if (count == JM_VW && count > 1 && begin == 0 && end == chain->n_layers)
        switch (chain->first.rows) {
#define JM_SIZE(n)                                                                                 \
    case n:                                                                                        \
        is_done = JM_NAME(chain_product_lanes)(n, chain, first, mantissa, exponent);               \
        break;
            JM_SIZE(1)
            JM_SIZE(2)
            JM_SIZE(3)
#if JM_LANES_WIDTH > 3
            JM_SIZE(4)
#endif
#undef JM_SIZE
        }
    if (is_done) {
        for (ptrdiff_t b = 0; b < count; b++)
            bad_layer[b] = -1;
        return;
    }
    const ptrdiff_t n_in = JM_NAME(chain_step_of)(chain, 0, first, 0).cols;
    const ptrdiff_t n_out = JM_NAME(chain_step_of)(chain, chain->n_layers - 1, first, 0).rows;
    const size_t bytes = JM_NAME(chain_product_work)(max_width, n_in);
    for (ptrdiff_t b = 0; b < count; b++)
        (void)JM_NAME(chain_product)(chain, first + b, max_width, begin, end,
                                     (JM_T *)mantissa + b * n_out * n_in, exponent + b,
                                     bad_layer + b, (char *)work + b * bytes);
}
