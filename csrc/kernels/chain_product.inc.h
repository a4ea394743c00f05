/* The product J = F_{L-1} ... F_0 of a chain, one sample at a time; see chain_step.inc.h. */

/* What a product in progress keeps at the start of its workspace. */
typedef struct {
    int64_t exponent;
    ptrdiff_t rows;      /* of the block of columns in `current` */
    ptrdiff_t bad_layer; /* first layer with a non-finite entry, or -1 */
    int current;         /* which of the two blocks */
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

/* Bytes of the current block. */
static size_t JM_NAME(chain_block_bytes)(const JM_NAME(chain_product_space) * space) {
    return (size_t)(space->state->rows * space->n_vectors * JM_VW) * sizeof(JM_T);
}

/* out (rows of step) = step applied to every panel of in. */
static JM_NAME(chain_range)
    JM_NAME(chain_block)(const JM_NAME(chain_step) * step,
                         const JM_NAME(chain_product_space) * space, const JM_T *in, JM_T *out) {
    JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
    const ptrdiff_t n_panels = (space->n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = JM_NAME(chain_first_vector)(space->n_vectors, p);
        const ptrdiff_t end = JM_NAME(chain_first_vector)(space->n_vectors, p + 1);
        JM_NAME(chain_panel)
        (step, (int)(end - begin), in + begin * JM_VW * step->cols,
         out + begin * JM_VW * step->rows, space->panel, &range);
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
    if (largest > 0 && !isinf(largest))
        JM_NAME(chain_keep_in_window)(space, largest);
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
 * chain_run where a row is one vector and all of them fit the registers, which saves the way
 * through memory from each layer to the next.  Operations and their order are those of chain_tile.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_run_resident)(const int n, const jm_chain *chain, ptrdiff_t k,
                                                ptrdiff_t end, const JM_NAME(chain_step) * step,
                                                const JM_NAME(chain_product_space) * space) {
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_T *block = space->block[space->state->current];
    const JM_T *w = step->weights, *s = step->slopes;
    JM_V c = JM_SPLAT(step->shortcut), row[JM_RESIDENT];
    JM_UNROLL
    for (int i = 0; i < n; i++)
        row[i] = JM_LOAD(block + i * JM_VW);
    for (; k < end; k++) {
        JM_V next[JM_RESIDENT], between = JM_SPLAT(0), result = JM_SPLAT(0);
        if (chain->shortcuts)
            c = JM_SPLAT((JM_T)chain->shortcuts[k]);
        JM_PREFETCH((const char *)w + JM_AHEAD);
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
            if (step->shortcut != 0 || chain->shortcuts)
                next[i] = JM_FMADD(c, row[i], next[i]);
            result = JM_VMAX_ABS(next[i], result);
        }
        if (JM_NAME(chain_leaves)(&window, result, s != NULL, between))
            break;
        JM_UNROLL
        for (int i = 0; i < n; i++)
            row[i] = next[i];
        w += chain->weights_layer_stride;
        if (s)
            s += chain->slopes_layer_stride;
    }
    JM_UNROLL
    for (int i = 0; i < n; i++)
        JM_STORE(block + i * JM_VW, row[i]);
    return k;
}

/*
 * Square layers [k, end) of a uniform chain, while all goes plainly.  n is a constant where it is
 * worth the code.  Returns the first layer whose result was out of the window, which does not
 * stand, or end.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_run)(const ptrdiff_t n, const int is_constant,
                                       const jm_chain *chain, ptrdiff_t k, ptrdiff_t end,
                                       ptrdiff_t sample,
                                       const JM_NAME(chain_product_space) * space) {
    const ptrdiff_t n_vectors = (n + JM_VW - 1) / JM_VW;
    const ptrdiff_t n_panels = (n_vectors + JM_PANEL - 1) / JM_PANEL;
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_NAME(chain_state) *state = space->state;
    JM_T *in = space->block[state->current], *out = space->block[1 - state->current];
    JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    const int scales_input = step.slopes && step.slopes_first;
    const size_t bytes = (size_t)(n * n) * sizeof(JM_T);

    if (is_constant && n <= JM_RESIDENT)
        return JM_NAME(chain_run_resident)((int)n, chain, k, end, &step, space);
    for (; k < end; k++) {
        JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
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
                (height, nv, &step, n, n, 1, i, panel, nv * JM_VW, panel, out + first * JM_VW * n,
                 nv * JM_VW, &range);
                if (n % height)
                    JM_NAME(chain_tile)
                (n % height, nv, &step, n, n, 1, i, panel, nv * JM_VW, panel,
                 out + first * JM_VW * n, nv * JM_VW, &range);
            }
        } else {
            range = JM_NAME(chain_block)(&step, space, in, out);
        }
        JM_V result = range.result[0], between = range.between[0];
        for (int v = 1; v < JM_PANEL; v++) {
            result = JM_VMAX(range.result[v], result);
            between = JM_VMAX(range.between[v], between);
        }
        if (JM_NAME(chain_leaves)(&window, result, step.slopes != NULL, between))
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
                                         ptrdiff_t end,
                                         const JM_NAME(chain_product_space) * space) {
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

/*
 * F_0 itself as the first block, which spares the product with the identity and has its bits.
 * Returns whether it stands, as in chain_product_layer.
 */
static int JM_NAME(chain_first_factor)(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t n_in,
                                       const JM_NAME(chain_product_space) * space) {
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, 0, sample, 0);
    if (!step.weights)
        return 0;
    JM_T *block = space->block[0];
    const ptrdiff_t n_panels = (space->n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = JM_NAME(chain_first_vector)(space->n_vectors, p) * JM_VW;
        const ptrdiff_t end = JM_NAME(chain_first_vector)(space->n_vectors, p + 1) * JM_VW;
        const ptrdiff_t filled = (end < n_in ? end : n_in) - begin;
        for (ptrdiff_t i = 0; i < step.rows; i++) {
            JM_T *row = block + begin * step.rows + i * (end - begin);
            memcpy(row, step.weights + i * n_in + begin, (size_t)filled * sizeof(JM_T));
            for (ptrdiff_t j = filled; j < end - begin; j++)
                row[j] = 0;
            for (ptrdiff_t j = 0; step.slopes && j < filled; j++)
                row[j] *= step.slopes[step.slopes_first ? begin + j : i];
            if (step.shortcut != 0 && i >= begin && i < begin + filled)
                row[i - begin] += step.shortcut;
        }
    }
    const JM_NAME(chain_state) start = {.rows = step.rows, .bad_layer = -1};
    *space->state = start;
    const JM_T largest = JM_NAME(max_abs)(step.rows * space->n_vectors * JM_VW, block);
    const JM_T between = !step.slopes        ? 1
                         : step.slopes_first ? JM_NAME(max_abs)(step.cols, step.slopes)
                                             : JM_NAME(max_abs)(step.rows * n_in, step.weights);
    if (!JM_NAME(chain_is_safe)(largest, step.cols) || !JM_NAME(chain_is_safe)(between, step.cols))
        return 0;
    JM_NAME(chain_keep_in_window)(space, largest);
    return 1;
}

/* Writes the current block, its largest magnitude given, row by row as mantissa and exponent. */
static void JM_NAME(chain_product_finish)(ptrdiff_t n_in, JM_T largest,
                                          const JM_NAME(chain_product_space) * space,
                                          JM_T *mantissa, int64_t *exponent) {
    JM_NAME(chain_state) *state = space->state;
    JM_T *block = space->block[state->current];
    const ptrdiff_t n_block = state->rows * space->n_vectors * JM_VW;
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
            memcpy(mantissa + i * n_in + begin, block + begin * state->rows + i * (end - begin),
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
    JM_NAME(chain_state) *state = space.state;
    const JM_NAME(chain_state) start = *state;
    ptrdiff_t done = begin;
    if (begin > 0)
        memcpy(space.checkpoint, space.block[state->current], JM_NAME(chain_block_bytes)(&space));
    else if (JM_NAME(chain_first_factor)(chain, sample, n_in, &space))
        done = 1;
    else
        JM_NAME(chain_identity)(n_in, &space);
    JM_NAME(chain_product_plain)(chain, sample, done, end, &space);

    /* A NaN stays in its column to the end, so one look finds what the maxima passed over: an
     * infinity minus an infinity inside a sum, or a NaN in the input. */
    const ptrdiff_t n_block = state->rows * space.n_vectors * JM_VW;
    JM_T largest = JM_NAME(max_abs)(n_block, space.block[state->current]);
    if (state->bad_layer < 0 && isinf(largest)) {
        if (begin > 0) {
            *state = start;
            memcpy(space.block[state->current], space.checkpoint,
                   JM_NAME(chain_block_bytes)(&space));
        } else {
            JM_NAME(chain_identity)(n_in, &space);
        }
        for (ptrdiff_t k = begin; k < end; k++)
            JM_NAME(chain_product_layer)(chain, k, sample, 1, &space);
        largest = JM_NAME(max_abs)(n_block, space.block[state->current]);
    }
    *bad_layer = state->bad_layer;
    const int status = state->bad_layer < 0 ? JM_OK : JM_NON_FINITE;
    if (end == chain->n_layers)
        JM_NAME(chain_product_finish)(n_in, largest, &space, mantissa, exponent);
    return status;
}
