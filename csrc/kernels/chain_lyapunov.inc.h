/*
 * The Lyapunov spectrum of a chain: Q_{t+1} R_t = F_t Q_t, exponent i the mean of log R_ii
 * (Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov characteristic exponents for smooth
 * dynamical systems, 1980); see lyapunov_columns.inc.h for how the columns are kept.
 *
 * Small square chains go with JM_VW items in lanes, for any number of items: then nothing is summed
 * across lanes and no width is odd (lyapunov_lanes.inc.h).  Others go one item at a time, with the
 * columns in panels as in chain_product (lyapunov_panels.inc.h).  Both ways are Gram-Schmidt in its
 * modified form, between items or columns alike.
 */

/* Bytes of workspace, of 64-byte alignment, that lyapunov_spectrum needs. */
static size_t JM_NAME(lyapunov_spectrum_work)(const jm_lyapunov *job) {
    return JM_NAME(lyapunov_layout)(job, NULL, NULL);
}

/* The columns of the start block, orthogonal; nothing has been counted. */
static void JM_NAME(lyapunov_start)(const jm_chain *chain, const jm_lyapunov *job, ptrdiff_t n,
                                    const ptrdiff_t *sample,
                                    const JM_NAME(lyapunov_space) * space) {
    const JM_T *start = job->start;
    const ptrdiff_t k = job->n_columns, n_items = space->n_items;
    const ptrdiff_t padded = space->is_in_lanes ? k : space->n_vectors * JM_VW;
    const JM_NAME(lyapunov_state) state = {.current = 1};
    *space->state = state;
    memset(space->block[0], 0, (size_t)(padded * n_items * n) * sizeof(JM_T));
    for (ptrdiff_t at = 0; at < padded * n_items; at++) {
        space->exponent[at] = space->mean[at] = space->spread[at] = 0;
        for (int which = 0; which < 2; which++)
            space->base_log[which][at] = space->base_exponent[which][at] = 0;
        space->square[at] = space->original[at] = 0;
        space->low[at] = JM_LDEXP((JM_T)1, -JM_STANDS);
    }
    for (ptrdiff_t i = 0; i < n_items; i++) {
        space->live[i] = k;
        space->bad_layer[i] = -1;
        for (ptrdiff_t j = 0; j < k; j++) {
            ptrdiff_t stride;
            JM_T *x = JM_NAME(lyapunov_column)(space, space->block[0], n, i, j, &stride);
            JM_T largest = 0;
            for (ptrdiff_t r = 0; r < n; r++) {
                x[r * stride] = start[r * k + j];
                largest = JM_ABS(x[r * stride]) > largest ? JM_ABS(x[r * stride]) : largest;
            }
            JM_NAME(lyapunov_shift)
            (space, j * n_items + i, x, stride, n, JM_NAME(exponent_of)(largest));
        }
    }
    if (space->is_in_lanes) {
        const int nv = (int)JM_NAME(lyapunov_lane_vectors)(n);
        (void)JM_NAME(lyapunov_lane_lengths)(n, nv, k, space->block[0], space);
        JM_NAME(lyapunov_lane_orthogonalize)
        (n, nv, k, chain, -1, sample, space->block[0], space);
    } else {
        (void)JM_NAME(lyapunov_lengths)(space->block[0], n, space);
        JM_NAME(lyapunov_orthogonalize)(NULL, space->block[1], space->block[0], n, space);
    }
    space->state->current = 0;
}

/* Writes exponents and standard errors. */
static void JM_NAME(lyapunov_finish)(const jm_lyapunov *job, ptrdiff_t n_counted, ptrdiff_t first,
                                     ptrdiff_t count, const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t k = job->n_columns;
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < k; j++) {
            const ptrdiff_t at = j * space->n_items + i, to = (first + i) * k + j;
            const double freedom = (double)(job->n_batches - 1) * (double)n_counted;
            job->exponents[to] = space->mean[at];
            job->standard_errors[to] =
                freedom > 0 ? sqrt(space->spread[at] / freedom) : (double)NAN;
            if (space->bad_layer[i] >= 0) {
                job->exponents[to] = job->standard_errors[to] = (double)NAN;
            } else if (j >= space->live[i]) {
                job->exponents[to] = -(double)INFINITY;
                job->standard_errors[to] = 0;
            }
        }
}

/*
 * Growth rates of the columns of J = F_{end-1} ... F_begin for the items [first, first + count).
 *
 * job        results are written when end == n_layers, the history as it comes
 * bad_layer  (count)  first layer with a NaN or infinity, -1 if there is none
 * work       lyapunov_spectrum_work(job) bytes; begin == 0 starts it anew, a later range goes on
 *            from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers, 1 <= count <= lyapunov_spectrum_group(job), 1 <= n_columns
 * <= every width, 0 <= burn_in < n_layers, 1 <= n_batches <= n_layers - burn_in, and a finite
 * start without a zero column.  Never allocates.  Cost 2 n_{t+1} n_t k + 2 n_{t+1} k^2 flops a step
 * and item.  Returns JM_OK, or JM_NON_FINITE; the other items of the group are then still right.
 */
static int JM_NAME(lyapunov_spectrum)(const jm_chain *chain, const jm_lyapunov *job,
                                      ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin,
                                      ptrdiff_t end, ptrdiff_t *bad_layer, void *work) {
    const ptrdiff_t n_counted = chain->n_layers - job->burn_in;
    JM_NAME(lyapunov_space) space;
    JM_NAME(lyapunov_layout)(job, work, &space);
    ptrdiff_t sample[2 * JM_VW];
    for (ptrdiff_t i = 0; i < space.n_items; i++)
        sample[i] = first + (i < count ? i : count - 1);
    if (begin == 0) {
        const ptrdiff_t n = JM_NAME(chain_layer)(chain, 0).cols;
        JM_NAME(lyapunov_start)(chain, job, n, sample, &space);
        JM_NAME(lyapunov_read)(job, n_counted, 0, first, count, &space);
    }
    for (ptrdiff_t t = begin; t < end;) {
        ptrdiff_t due = job->burn_in;
        if (t >= job->burn_in)
            due += JM_NAME(lyapunov_batch_end)(job, n_counted, space.state->batch);
        if (job->history && t >= job->burn_in)
            due = t + 1;
        due = due < end ? due : end;
        if (space.is_in_lanes)
            JM_NAME(lyapunov_lanes)(chain, job->max_width, t, due, sample, &space);
        else
            JM_NAME(lyapunov_rows)(chain, t, due, sample[0], &space);
        t = due;
        JM_NAME(lyapunov_read)(job, n_counted, t, first, count, &space);
    }
    if (end == chain->n_layers)
        JM_NAME(lyapunov_finish)(job, n_counted, first, count, &space);
    int status = JM_OK;
    for (ptrdiff_t i = 0; i < count; i++) {
        bad_layer[i] = space.bad_layer[i];
        if (bad_layer[i] >= 0)
            status = JM_NON_FINITE;
    }
    return status;
}
