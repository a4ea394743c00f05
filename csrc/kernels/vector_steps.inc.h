/*
 * The rows of a group through one layer, and again with care where plain arithmetic may have spoilt
 * their digits.  chain_vectors.inc.h takes them from layer to layer.
 */

#undef JM_LOW_SQUARE
#undef JM_HIGH_SQUARE
#undef JM_LEAST_SQUARE
#undef JM_MOST_SQUARE
/* Squared norms at which a row is left alone, and those that lose nothing; see chain_rows_repair.
 */
#define JM_LOW_SQUARE (JM_IS_F64 ? 0x1p-200 : 0x1p-40)
#define JM_HIGH_SQUARE (JM_IS_F64 ? 0x1p200 : 0x1p40)
#define JM_LEAST_SQUARE (JM_IS_F64 ? 0x1p-957 : 0x1p-61)
#define JM_MOST_SQUARE (JM_IS_F64 ? 0x1p1016 : 0x1p120)

/* A group's state, and scratch. */
typedef struct {
    int64_t *exponent;    /* per vector */
    ptrdiff_t *bad_layer; /* per vector; -1: none */
    int *is_zero;         /* per vector: it has become exactly zero */
    JM_T *block[2];       /* the vectors, a row each */
    JM_T *scratch;        /* the same size: what the slopes on the input side give */
    JM_T *packed;         /* (max_width, panel width): columns of W as the rows' panel */
    JM_T *alone;          /* (max_width, padded): one row, for a careful step */
    JM_T *weights;        /* (max_width, max_width) and (max_width): scaled copies for it */
    JM_T *slopes;
} JM_NAME(chain_vectors_space);

/* sums[j] = sum of the JM_VW lanes of row j. */
static void JM_NAME(chain_sum_lanes)(ptrdiff_t count, const JM_T *lanes, double *sums) {
    for (ptrdiff_t j = 0; j < count; j++)
        sums[j] = (double)JM_LANE_SUM(JM_LOAD(lanes + j * JM_VW));
}

static double JM_NAME(chain_row_square)(ptrdiff_t n, const JM_T *row) {
    JM_V sum = JM_SPLAT(0);
    for (ptrdiff_t i = 0; i < JM_PADDED(n); i += JM_VW)
        sum = JM_FMADD(JM_LOAD(row + i), JM_LOAD(row + i), sum);
    return (double)JM_LANE_SUM(sum);
}

/* chain_rows_dots for rows of several samples, one after the other, from that of `step` on. */
static void JM_NAME(chain_rows_dots_of_samples)(const JM_NAME(chain_step) * step, ptrdiff_t stride,
                                                const JM_NAME(chain_rows_job) * whole,
                                                ptrdiff_t count) {
    JM_NAME(chain_step) own = *step;
    JM_NAME(chain_rows_job) job = *whole;
    const ptrdiff_t *const sample = job.sample;
    for (ptrdiff_t j = 0, n; j < count; j += n) {
        for (n = 1; j + n < count && sample[j + n] == sample[j]; n++)
            ;
        own.weights = step->weights + (sample[j] - sample[0]) * stride;
        JM_NAME(chain_rows_dots)(&own, &job, n);
        job.source += n * job.in_pad;
        job.out += n * job.out_pad;
    }
}

/*
 * Rows through one layer, with the sum of squares of what stands between the two operations (1 if
 * there is only one) and of the result.
 */
JM_INLINE void JM_NAME(chain_rows_step)(ptrdiff_t rows, ptrdiff_t depth, const jm_layer *layer,
                                        const JM_NAME(chain_step) * step, const JM_T *ahead,
                                        ptrdiff_t fetch, int is_own, const ptrdiff_t *sample,
                                        ptrdiff_t count, const JM_T *in, JM_T *out, double *between,
                                        double *result,
                                        const JM_NAME(chain_vectors_space) * space) {
    JM_T lanes[JM_GROUP_PADDED * JM_VW], between_lanes[JM_GROUP_PADDED * JM_VW];
    const JM_T *slopes = layer->slopes;
    const int scales_input = slopes && step->slopes_first && step->weights;
    JM_NAME(chain_rows_job)
    job = {.source = scales_input ? space->scratch : in,
           .original = in,
           .out = out,
           .in_pad = JM_PADDED(depth),
           .out_pad = JM_PADDED(rows),
           .shortcut = step->shortcut,
           .slopes = scales_input ? NULL : slopes,
           .slopes_stride = layer->slopes_stride,
           .ahead = ahead,
           .fetch = fetch,
           .sample = sample,
           .between = between_lanes,
           .result = lanes};
    const int takes_dots = is_own && step->row_stride != 1;
    const int is_alone = !takes_dots && count <= 2 && step->row_stride == 1;
    if ((takes_dots || is_alone) && fetch && rows * depth * (ptrdiff_t)sizeof(JM_T) > JM_AHEAD)
        job.fetch = JM_AHEAD; /* read in order */
    if (scales_input)
        JM_NAME(chain_rows_slope)
    (depth, &job, slopes, count, space->scratch);
    if (!step->weights) {
        JM_NAME(chain_rows_finish)(&job, in, rows, count);
    } else if (takes_dots) {
        if (sample[count - 1] == sample[0])
            JM_NAME(chain_rows_dots)(step, &job, count);
        else
            JM_NAME(chain_rows_dots_of_samples)(step, layer->weights_stride, &job, count);
        JM_NAME(chain_rows_finish)(&job, out, rows, count);
    } else if (is_alone) {
        JM_NAME(chain_rows_alone)(step, &job, count);
    } else {
        JM_NAME(chain_rows_product)(rows, depth, step, &job, count, space->packed);
    }
    JM_NAME(chain_sum_lanes)(count, lanes, result);
    if (slopes && step->weights)
        JM_NAME(chain_sum_lanes)(count, between_lanes, between);
    else
        for (ptrdiff_t j = 0; j < count; j++)
            between[j] = 1;
}

/*
 * One row through a step from scaled copies of everything, its result in [0.5, 1) unless zero, by
 * the operations of the plain step.  Adds to *exponent.  Returns JM_NON_FINITE for bad input; out
 * is then what plain arithmetic gives.
 */
static int JM_NAME(chain_careful_row)(JM_NAME(chain_step) step, int is_own, const JM_T *in,
                                      JM_T *out, int64_t *exponent,
                                      const JM_NAME(chain_vectors_space) * space) {
    static const ptrdiff_t no_sample = 0;
    const ptrdiff_t in_pad = JM_PADDED(step.cols), out_pad = JM_PADDED(step.rows);
    JM_T *from = space->alone;
    int e = 0, e_step = 0, e_out = 0;
    double between, result;
    memcpy(from, in, (size_t)in_pad * sizeof(JM_T));
    JM_T largest = JM_NAME(max_abs)(step.cols, from);
    if (largest > 0 && !isinf(largest)) {
        e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.cols, from, -e);
    }
    const int status = JM_NAME(chain_scaled_step)(&step, space->weights, space->slopes, &e_step);
    const jm_layer layer = {.slopes = step.slopes};
    JM_NAME(chain_rows_step)
    (step.rows, step.cols, &layer, &step, NULL, 0, is_own, &no_sample, 1, from, out, &between,
     &result, space);
    largest = JM_NAME(max_abs)(step.rows, out);
    if (largest > 0 && !isinf(largest)) {
        e_out = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.rows, out, -e_out);
    }
    for (ptrdiff_t i = step.rows; i < out_pad; i++)
        out[i] = 0;
    *exponent += (int64_t)e + e_step + e_out;
    return status;
}

/*
 * Rows whose digits plain arithmetic may have spoilt are taken again with care, and a row whose
 * norm has left 2^+-JM_LAZY is brought back.  A sum of squares is trusted between 2^(JM_MIN_EXP +
 * 64) and 2^(JM_MAX_EXP - 8): the largest magnitude is then far from where chain_is_safe would
 * object.
 */
static void JM_NAME(chain_rows_repair)(const jm_chain *chain, const ptrdiff_t *sample, ptrdiff_t k,
                                       int transposed, int is_own, ptrdiff_t count,
                                       const JM_NAME(chain_step) * step, const JM_T *in, JM_T *out,
                                       const double *between, double *result,
                                       const JM_NAME(chain_vectors_space) * space) {
    const double low = JM_LOW_SQUARE, high = JM_HIGH_SQUARE;
    const double least = JM_LEAST_SQUARE, most = JM_MOST_SQUARE;
    const ptrdiff_t in_pad = JM_PADDED(step->cols), out_pad = JM_PADDED(step->rows);
    int is_plain = 1;
    for (ptrdiff_t j = 0; j < count; j++)
        is_plain &=
            (result[j] >= low) & (result[j] <= high) & (between[j] >= least) & (between[j] <= most);
    for (ptrdiff_t j = 0; !is_plain && j < count; j++) {
        const int is_between = between[j] >= least && between[j] <= most;
        if (result[j] >= low && result[j] <= high && is_between)
            continue;
        if (space->bad_layer[j] >= 0 || (space->is_zero[j] && result[j] == 0))
            continue;
        JM_T *row = out + j * out_pad;
        if (result[j] >= least && result[j] <= most && is_between) {
            const int e = JM_NAME(exponent_of)((JM_T)sqrt(result[j]));
            JM_NAME(scale_by_power)(step->rows, row, -e);
            space->exponent[j] += e;
        } else {
            const JM_NAME(chain_step) alone =
                JM_NAME(chain_step_of)(chain, k, sample[j], transposed);
            if (JM_NAME(chain_careful_row)(alone, is_own, in + j * in_pad, row, space->exponent + j,
                                           space) != JM_OK)
                space->bad_layer[j] = k;
        }
        result[j] = JM_NAME(chain_row_square)(step->rows, row);
        space->is_zero[j] = result[j] == 0;
    }
}
