/*
 * Vectors pushed through a chain, forwards (jvp) or backwards (vjp); see chain_step.inc.h.
 *
 * A group of vectors, the rows of a block, goes through all layers together.  Where the weights are
 * shared, and for a vjp, the lanes run along the result: W is the panel, read as it lies for a vjp
 * and transposed for a jvp.  A jvp through weights of each sample's own takes dot products along
 * the rows of W, which are then read once and in order; a group of vectors is then of one sample,
 * unless there is one layer only.
 * Which way is taken depends on the chain and the direction alone, and a vector's arithmetic on
 * that vector alone.
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

/* How many vectors a group of this chain may hold. */
static ptrdiff_t JM_NAME(chain_vectors_group)(ptrdiff_t max_width, int has_shared_weights) {
    (void)max_width;
    (void)has_shared_weights;
    return JM_GROUP_ROWS;
}

static size_t JM_NAME(chain_vectors_layout)(ptrdiff_t max_width, void *work,
                                            JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t padded = JM_PADDED(max_width);
    const size_t state = JM_GROUP_ROWS * sizeof(int64_t), block = JM_LINE(JM_GROUP_PADDED * padded);
    const size_t sizes[] = {state,
                            state,
                            state,
                            block,
                            block,
                            block,
                            JM_LINE(max_width * JM_PANEL * JM_VW),
                            JM_LINE(padded),
                            JM_LINE(max_width * max_width),
                            JM_LINE(max_width)};
    enum { N_PARTS = sizeof sizes / sizeof *sizes };
    size_t offset[N_PARTS], end = 0;
    for (int i = 0; i < N_PARTS; i++) {
        offset[i] = end;
        end += sizes[i];
    }
    if (space) {
        char *base = work;
        space->exponent = (void *)(base + offset[0]);
        space->bad_layer = (void *)(base + offset[1]);
        space->is_zero = (void *)(base + offset[2]);
        space->block[0] = (void *)(base + offset[3]);
        space->block[1] = (void *)(base + offset[4]);
        space->scratch = (void *)(base + offset[5]);
        space->packed = (void *)(base + offset[6]);
        space->alone = (void *)(base + offset[7]);
        space->weights = (void *)(base + offset[8]);
        space->slopes = (void *)(base + offset[9]);
    }
    return end;
}

/* Bytes of workspace, of 64-byte alignment, that chain_jvp and chain_vjp need. */
static size_t JM_NAME(chain_vectors_work)(ptrdiff_t max_width) {
    return JM_NAME(chain_vectors_layout)(max_width, NULL, NULL);
}

/* ---- what both ways share --------------------------------------------------------------- */

/*
 * out[j * stride] = log of sqrt(square_j) 2^exponent_j, with an error of about one rounding.
 *
 * log m = 2 atanh((m - 1) / (m + 1)) for m in [1/sqrt 2, sqrt 2), whose series is cut where its
 * next term is below 2^-60.  The loop has no branch and no conversion, so that the compiler takes
 * it in lanes: integers become doubles through the low bits of a large one's fraction.
 */
static void JM_NAME(chain_log_norms)(ptrdiff_t count, const double *square, const int64_t *exponent,
                                     double *out, ptrdiff_t stride) {
    static const double odd[] = {1. / 3,  1. / 5,  1. / 7,  1. / 9,  1. / 11,
                                 1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21};
    const int64_t least = 0x3FE6A09E667F3BCD;      /* the bits of 1/sqrt 2 */
    const uint64_t shift = 0x4000000000000000;     /* makes every exponent positive */
    const int64_t large_bits = 0x4338000000000000; /* the bits of 1.5 * 2^52 */
    const double large = 0x1.8p52;
    double log_norm[JM_GROUP_ROWS];
    int is_plain = 1;
    for (ptrdiff_t j = 0; j < count; j++) {
        union {
            double value;
            int64_t bits;
        } x = {square[j]}, e, twos;
        const int64_t offset = x.bits - least;
        e.bits = (int64_t)(((uint64_t)offset + shift) >> 52) + large_bits;
        twos.bits = exponent[j] + large_bits;
        x.bits = (offset & 0xFFFFFFFFFFFFF) + least;
        const double r = (x.value - 1) / (x.value + 1), r2 = r * r;
        double series = odd[9];
        for (int i = 8; i >= 0; i--)
            series = series * r2 + odd[i];
        const double total = (twos.value - large) + 0.5 * ((e.value - large) - 1024);
        log_norm[j] = JM_LOG_2_HIGH * total + (JM_LOG_2_LOW * total + (r + r * (r2 * series)));
        is_plain &= (square[j] >= DBL_MIN) & (square[j] <= DBL_MAX);
    }
    for (ptrdiff_t j = 0; j < count; j++)
        out[j * stride] = log_norm[j];
    for (ptrdiff_t j = 0; !is_plain && j < count; j++)
        if (!(square[j] >= DBL_MIN && square[j] <= DBL_MAX))
            out[j * stride] = 0.5 * log(square[j]);
}

/* Whether the vectors at interface k are to be written. */
static int JM_NAME(chain_is_kept)(const jm_vectors *vectors, ptrdiff_t k, int is_far_end) {
    return vectors->kept_exponents ? vectors->kept[k] != NULL : is_far_end;
}

/* One vector at interface k, with elements `stride` apart, written where the caller keeps it. */
static void JM_NAME(chain_keep)(const jm_vectors *vectors, ptrdiff_t k, ptrdiff_t vector,
                                ptrdiff_t n, const JM_T *x, ptrdiff_t stride, int64_t exponent) {
    const int keeps_all = vectors->kept_exponents != NULL;
    JM_T *out = (JM_T *)vectors->kept[keeps_all ? k : 0] + vector * n;
    int64_t *out_exponent = keeps_all ? vectors->kept_exponents[k] : (int64_t *)vectors->kept[1];
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = x[i * stride];
    const JM_T largest = JM_NAME(max_abs)(n, out);
    const int is_plain = largest > 0 && !isinf(largest);
    if (is_plain) {
        const int e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(n, out, -e);
        exponent += e;
    }
    out_exponent[vector] = is_plain ? exponent : 0;
}

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

/* Start vectors as rows, their largest magnitude brought to [0.5, 1), and their squared norms. */
static void JM_NAME(chain_rows_start)(const jm_vectors *vectors, ptrdiff_t n_layers, ptrdiff_t n,
                                      ptrdiff_t first, ptrdiff_t count, JM_T *in, double *result,
                                      const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t padded = JM_PADDED(n);
    memset(in, 0, (size_t)(count * padded) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < count; j++) {
        JM_T *row = in + j * padded;
        memcpy(row, (const JM_T *)vectors->start + (first + j) * n, (size_t)n * sizeof(JM_T));
        const JM_T largest = JM_NAME(max_abs)(n, row);
        if (isinf(largest)) {
            space->bad_layer[j] = n_layers;
        } else if (largest > 0) {
            const int e = JM_NAME(exponent_of)(largest);
            JM_NAME(scale_by_power)(n, row, -e);
            space->exponent[j] = e;
        }
        result[j] = JM_NAME(chain_row_square)(n, row);
    }
}

/*
 * The slopes to fetch while layer k is worked on: those of the next layer or, where a group's are
 * few, of the same layer in the next group, n_samples on (0: there is none).  NULL for none.
 */
static const JM_T *JM_NAME(chain_slopes_ahead)(const jm_chain *chain, const jm_layer *layer,
                                               ptrdiff_t k, int transposed, ptrdiff_t n_samples) {
    const ptrdiff_t group = n_samples * layer->slopes_stride, then = transposed ? k - 1 : k + 1;
    if (layer->slopes_stride == 0)
        return NULL;
    if (group > 0 && group * (ptrdiff_t)sizeof(JM_T) <= 4 * JM_AHEAD)
        return (const JM_T *)layer->slopes + group;
    if (then >= 0 && then < chain->n_layers)
        return JM_NAME(chain_layer)(chain, then).slopes;
    const JM_T *start = JM_NAME(chain_layer)(chain, transposed ? chain->n_layers - 1 : 0).slopes;
    return start && group ? start + group : NULL;
}

/*
 * From an entry of layer k's own W to one that is wanted some JM_AHEAD bytes of them later, in
 * bytes: in a later layer or, after the last, in the next sample.  0 for none.
 */
static ptrdiff_t JM_NAME(chain_fetch_distance)(const jm_chain *chain, const jm_layer *layer,
                                               ptrdiff_t k, int transposed, int has_next) {
    const ptrdiff_t n_layers = chain->n_layers;
    const ptrdiff_t size = layer->rows * layer->cols * (ptrdiff_t)sizeof(JM_T);
    ptrdiff_t steps = (JM_AHEAD + size - 1) / size;
    steps = steps < n_layers ? steps : n_layers;
    ptrdiff_t then = transposed ? k - steps : k + steps;
    const int is_past = then < 0 || then >= n_layers;
    if (!layer->weights || !layer->weights_stride || (is_past && !has_next))
        return 0;
    if (is_past)
        then += transposed ? n_layers : -n_layers;
    const jm_layer next = JM_NAME(chain_layer)(chain, then);
    const JM_T *weights = next.weights;
    return weights ? (const char *)(weights + is_past * next.weights_stride) -
                         (const char *)layer->weights
                   : 0;
}

static void JM_NAME(chain_by_rows)(const jm_chain *chain, const jm_vectors *vectors,
                                   ptrdiff_t max_width, ptrdiff_t first, ptrdiff_t count,
                                   ptrdiff_t begin, ptrdiff_t end, int transposed,
                                   const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t n_layers = chain->n_layers, per_sample = vectors->per_sample;
    const int is_own = !vectors->has_shared_weights;
    const int has_next = first + count < vectors->n_vectors; /* there is another group */
    JM_T *in = space->block[begin % 2], *out = space->block[1 - begin % 2];
    double *log_norms = vectors->log_norms + first * (n_layers + 1);
    double between[JM_GROUP_ROWS], result[JM_GROUP_ROWS];
    /* Rows past the last are padding of its tile: zero, so that nothing is slow or traps there. */
    ptrdiff_t sample[JM_GROUP_PADDED];
    for (ptrdiff_t j = 0, now = first / per_sample, left = per_sample - first % per_sample;
         j < JM_GROUP_PADDED; j++, left--) {
        if (left == 0 && j < count) {
            now++;
            left = per_sample;
        }
        sample[j] = now;
    }
    if (begin == 0) {
        JM_T *const blocks[] = {in, out, space->scratch};
        const ptrdiff_t padded = JM_PADDED(max_width);
        for (int i = 0; i < 3; i++)
            memset(blocks[i] + count * padded, 0, (size_t)(12 * padded) * sizeof(JM_T));
    }

    for (ptrdiff_t progress = begin - (begin == 0); progress < end; progress++) {
        /* Progress -1 is the start; k is the interface arrived at, which a vjp counts backwards. */
        const ptrdiff_t arrived = transposed ? n_layers - 1 - progress : progress + 1;
        ptrdiff_t n;
        if (progress < 0) {
            n = transposed ? JM_NAME(chain_layer)(chain, n_layers - 1).rows
                           : JM_NAME(chain_layer)(chain, 0).cols;
            JM_NAME(chain_rows_start)(vectors, n_layers, n, first, count, in, result, space);
        } else {
            const ptrdiff_t k = transposed ? arrived : progress;
            const jm_layer layer = JM_NAME(chain_layer)(chain, k);
            const JM_NAME(chain_step) step =
                JM_NAME(chain_step_of)(chain, k, sample[0], transposed);
            const JM_T *ahead = JM_NAME(chain_slopes_ahead)(
                chain, &layer, k, transposed, has_next ? sample[count - 1] - sample[0] + 1 : 0);
            const ptrdiff_t fetch =
                is_own ? JM_NAME(chain_fetch_distance)(chain, &layer, k, transposed, has_next) : 0;
            n = step.rows;
            switch (step.cols == n ? n : 0) {
#define JM_SIZE(size)                                                                              \
    case size:                                                                                     \
        JM_NAME(chain_rows_step)                                                                   \
        (size, size, &layer, &step, ahead, fetch, is_own, sample, count, in, out, between, result, \
         space);                                                                                   \
        break;
                JM_SIZE(2)
                JM_SIZE(3)
                JM_SIZE(4)
                JM_SIZE(8)
                JM_SIZE(16)
                JM_SIZE(32)
                JM_SIZE(64)
#undef JM_SIZE
            default:
                JM_NAME(chain_rows_step)
                (n, step.cols, &layer, &step, ahead, fetch, is_own, sample, count, in, out, between,
                 result, space);
            }
            JM_NAME(chain_rows_repair)
            (chain, sample, k, transposed, is_own, count, &step, in, out, between, result, space);
            JM_T *const previous = in;
            in = out;
            out = previous;
        }
        JM_NAME(chain_log_norms)
        (count, result, space->exponent, log_norms + arrived, n_layers + 1);
        const int is_far_end = progress == n_layers - 1;
        for (ptrdiff_t j = 0; JM_NAME(chain_is_kept)(vectors, arrived, is_far_end) && j < count;
             j++)
            JM_NAME(chain_keep)
        (vectors, arrived, first + j, n, in + j * JM_PADDED(n), 1, space->exponent[j]);
    }
}

/* ---- the kernels ------------------------------------------------------------------------ */

/* Vectors [first, first + count) of one group through layers [begin, end), in either direction. */
static int JM_NAME(chain_vectors)(const jm_chain *chain, const jm_vectors *vectors,
                                  ptrdiff_t max_width, ptrdiff_t first, ptrdiff_t count,
                                  ptrdiff_t begin, ptrdiff_t end, int transposed,
                                  ptrdiff_t *bad_layer, void *work) {
#ifdef JM_NARROW
    if (max_width <= JM_VW / 2)
        return (transposed ? JM_NARROW.chain_vjp : JM_NARROW.chain_jvp)[JM_IS_F64](
            chain, vectors, max_width, first, count, begin, end, bad_layer, work);
#endif
    JM_NAME(chain_vectors_space) space;
    JM_NAME(chain_vectors_layout)(max_width, work, &space);
    for (ptrdiff_t j = 0; begin == 0 && j < count; j++) {
        space.exponent[j] = 0;
        space.bad_layer[j] = -1;
        space.is_zero[j] = 0;
    }
    JM_NAME(chain_by_rows)
    (chain, vectors, max_width, first, count, begin, end, transposed, &space);
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
 * count      1 .. chain_vectors_group(...); vectors of one group share the weights of every layer,
 *            except in a jvp of one layer with two columns or more
 * bad_layer  (count)  first layer with a NaN or infinity that the vector meets, n_layers if it
 *                     holds one itself, -1 if there is none
 * work       chain_vectors_work(largest width) bytes; begin == 0 starts it anew, a later range of
 *            layers passed goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers and every width >= 1.  Never allocates.  Cost 2 n_{k+1} n_k
 * flops a layer and vector, and one logarithm.  A vector's result does not depend on the rest of
 * its group.  Returns JM_OK, or JM_NON_FINITE if a bad_layer is set.
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
