/*
 * The kernels of chain_log_svdvals for one sample: the general way (chain_svdvals.inc.h), and of
 * the two ways, this one and svdvals_lanes.inc.h, the one that the chain allows.
 */

#if JM_IS_F64

/* Bytes of workspace, of 64-byte alignment, that chain_log_svdvals_one needs. */
static size_t chain_log_svdvals_one_work_f64(ptrdiff_t max_width, ptrdiff_t n_in) {
    svdvals_state state;
    return svdvals_layout(max_width, n_in, NULL, &state);
}

static size_t chain_log_svdvals_one_work_f32(ptrdiff_t max_width, ptrdiff_t n_in) {
    return chain_log_svdvals_one_work_f64(max_width, n_in);
}

/* Layers [begin, end) of chain_log_svdvals by the general way, for any chain. */
static int svdvals_run(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                       ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *bad_layer, void *work,
                       int is_f64) {
    svdvals_state *state = work;
    if (begin == 0) {
        (void)svdvals_layout(max_width, chain_layer_f64(chain, 0).cols, work, state);
        svdvals_start(state);
    }
    for (ptrdiff_t k = begin; k < end && state->bad_layer < 0; k++)
        svdvals_layer(state, chain, k, sample, is_f64);
    *bad_layer = state->bad_layer;
    return state->bad_layer < 0 ? JM_OK : JM_NON_FINITE;
}

/*
 * As chain_log_svdvals of one sample by the general way, without the end: `values` and `errors` are
 * chain_log_svdvals_end's.
 */
static int chain_log_svdvals_one_f64(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                     ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                                     ptrdiff_t *bad_layer, void *work) {
    (void)values;
    (void)errors;
    return svdvals_run(chain, sample, max_width, begin, end, bad_layer, work, 1);
}

static int chain_log_svdvals_one_f32(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                     ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                                     ptrdiff_t *bad_layer, void *work) {
    (void)values;
    (void)errors;
    return svdvals_run(chain, sample, max_width, begin, end, bad_layer, work, 0);
}

/*
 * What follows the layers of chain_log_svdvals_one, about `n_pairs` rotations a call; the first has
 * is_first set.  Returns whether there is more to do; values and errors are written by the last.
 */
static int chain_log_svdvals_end_f64(ptrdiff_t n_values, ptrdiff_t n_pairs, int is_first,
                                     double *values, double *errors, void *work) {
    svdvals_state *state = work;
    if (state->bad_layer >= 0) {
        for (ptrdiff_t i = 0; i < n_values; i++)
            values[i] = errors[i] = NAN;
        return 0;
    }
    if (is_first)
        svdvals_decompose(state);
    if (graded_jacobi(&state->jacobi, n_pairs))
        return 1;
    svdvals_finish(state, n_values, values, errors);
    return 0;
}

static int chain_log_svdvals_end_f32(ptrdiff_t n_values, ptrdiff_t n_pairs, int is_first,
                                     double *values, double *errors, void *work) {
    return chain_log_svdvals_end_f64(n_values, n_pairs, is_first, values, errors, work);
}

/* Bytes of workspace, of 64-byte alignment, that chain_log_svdvals needs. */
static size_t chain_log_svdvals_work_f64(ptrdiff_t max_width, ptrdiff_t n_in) {
    if (max_width <= JM_LANES_MOST && max_width == n_in)
        return chain_log_svdvals_lanes_work_f64(n_in);
    return chain_log_svdvals_one_work_f64(max_width, n_in);
}

static size_t chain_log_svdvals_work_f32(ptrdiff_t max_width, ptrdiff_t n_in) {
    return chain_log_svdvals_work_f64(max_width, n_in);
}

static int svdvals_either(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                          ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                          ptrdiff_t *bad_layer, void *work, int is_f64) {
    const ptrdiff_t n_in = chain_layer_f64(chain, 0).cols;
    const ptrdiff_t n_out = chain_layer_f64(chain, chain->n_layers - 1).rows;
    ptrdiff_t undone = 1;
    if (chain_log_svdvals_group_f64(chain, max_width)) {
        *bad_layer = -1;
        (void)svdvals_lane_items(chain, sample, 1, begin, end, values, errors, &undone, work,
                                 is_f64);
        if (!undone || end < chain->n_layers)
            return JM_OK;
        begin = 0;
    }
    const int status = svdvals_run(chain, sample, max_width, begin, end, bad_layer, work, is_f64);
    if (end == chain->n_layers)
        (void)chain_log_svdvals_end_f64(n_in < n_out ? n_in : n_out, PTRDIFF_MAX, 1, values, errors,
                                        work);
    return status;
}

/*
 * Natural logs of the singular values of F_{end-1} ... F_begin times what the workspace holds, for
 * one sample; weights and slopes of either type, all arithmetic in double.
 *
 * values     (min(n_0, n_L))  written when end == n_layers: descending, -inf for zeros
 * errors                      bound of |value - truth|, 0 for zeros that follow from zero rows and
 *                             columns of the factors, infinite where no digit is certain
 * bad_layer                   first layer with a NaN or infinity, -1 if there is none, once end ==
 *                             n_layers; all values and errors are then NaN
 * work       chain_log_svdvals_work(largest width, n_0) bytes; begin == 0 starts it anew, a later
 *            range goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Never allocates.  Cost about 6 n^3
 * flops a layer, n the larger width, and some 20 n^3 at the end.  Returns JM_OK or JM_NON_FINITE.
 */
static int chain_log_svdvals_f64(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                 ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                                 ptrdiff_t *bad_layer, void *work) {
    return svdvals_either(chain, sample, max_width, begin, end, values, errors, bad_layer, work, 1);
}

static int chain_log_svdvals_f32(const jm_chain *chain, ptrdiff_t sample, ptrdiff_t max_width,
                                 ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                                 ptrdiff_t *bad_layer, void *work) {
    return svdvals_either(chain, sample, max_width, begin, end, values, errors, bad_layer, work, 0);
}

#endif
