/*
 * The product J = F_{L-1} ... F_0 of a chain, one sample at a time.
 *
 * chain_product tries, in this order: product_registers.inc.h, for a whole product of tiny
 * matrices; product_run.inc.h, for square layers of a stacked chain; chain_product_layer of
 * product_block.inc.h, for any layer, with care where plain arithmetic does not stand.
 * chain_products takes several tiny samples at once: product_lanes.inc.h.
 */

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
#ifdef JM_NARROW
    if (max_width <= JM_VW / 2)
        return JM_NARROW.chain_product[JM_IS_F64](chain, sample, max_width, begin, end, mantissa,
                                                  exponent, bad_layer, work);
#endif
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
