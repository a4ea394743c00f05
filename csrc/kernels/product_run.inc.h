/*
 * Many square layers of a stacked chain, plainly, while that stands: in registers, with a constant
 * size, or with any.  Tiles are chain_tile of chain_step.inc.h.
 */

/* Bytes of W, and rows of it at least, that are worked on while all panels pass; see below. */
#ifndef JM_ROW_BLOCK
#define JM_ROW_BLOCK (1 << 17)
#define JM_LEAST_ROWS 20
/* The width from which F_0 is multiplied where it lies: below, its copy costs less than a general
 * layer. */
#define JM_IN_PLACE 24
#endif

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
