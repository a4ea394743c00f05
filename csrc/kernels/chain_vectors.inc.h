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
