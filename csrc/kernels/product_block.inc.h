/*
 * A product in progress: its workspace, and one layer after the other with every step looked at.
 * One layer of a panel is chain_step.inc.h; faster ways through many layers are product_run.inc.h.
 */

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
