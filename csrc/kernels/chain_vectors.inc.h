/*
 * Vectors pushed through a chain, forwards (jvp) or backwards (vjp); see chain_step.inc.h.
 *
 * A group of vectors goes through all layers together.  Where the weights are shared and wide
 * enough, the vectors are rows and the lanes run along the width: W is the panel, read as it lies
 * for a vjp and transposed for a jvp.  Elsewhere the vectors are the columns of one panel, a lane
 * each.  Which way is taken depends on the chain alone, and a vector's arithmetic on that vector
 * alone.
 */

#undef JM_GROUP_COLUMNS
#undef JM_PADDED
/* Vectors in a group: as columns, in lanes; as rows. */
#define JM_GROUP_COLUMNS (2 * JM_VW)
#define JM_PADDED(n) (((n) + JM_VW - 1) / JM_VW * JM_VW)
#ifndef JM_GROUP_ROWS
#define JM_GROUP_ROWS 32
#define JM_GROUP_MAX 32 /* the larger of the two for every vector width up to 64 bytes */
#endif

/* A group's state, and scratch. */
typedef struct {
    int64_t *exponent;    /* per vector */
    ptrdiff_t *bad_layer; /* per vector; -1: none */
    int *is_zero;         /* per vector: it has become exactly zero */
    JM_T *block[2];       /* the vectors, as columns or rows */
    JM_T *scratch;        /* the same size: what the slopes on the input side give */
    JM_T *lane_slopes;    /* the same size: slopes, one column per vector */
    JM_T *packed;         /* (max_width, padded max_width): W as the rows' panel */
    JM_T *alone[2];       /* (max_width, JM_VW) each: one vector, for a careful step */
    JM_T *weights;        /* (max_width, max_width) and (max_width): scaled copies for it */
    JM_T *slopes;
} JM_NAME(chain_vectors_space);

static int JM_NAME(chain_goes_by_rows)(ptrdiff_t max_width, int has_shared_weights) {
    return has_shared_weights && max_width >= JM_VW;
}

/* How many vectors a group of this chain holds. */
static ptrdiff_t JM_NAME(chain_vectors_group)(ptrdiff_t max_width, int has_shared_weights) {
    return JM_NAME(chain_goes_by_rows)(max_width, has_shared_weights) ? JM_GROUP_ROWS
                                                                      : JM_GROUP_COLUMNS;
}

static size_t JM_NAME(chain_vectors_layout)(ptrdiff_t max_width, void *work,
                                            JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t padded = JM_PADDED(max_width);
    const ptrdiff_t group = JM_GROUP_ROWS > JM_GROUP_COLUMNS ? JM_GROUP_ROWS : JM_GROUP_COLUMNS;
    const size_t state = JM_GROUP_MAX * sizeof(int64_t), block = JM_LINE(group * padded);
    const size_t alone = JM_LINE(max_width * JM_VW);
    const size_t sizes[] = {state,
                            state,
                            state,
                            block,
                            block,
                            block,
                            block,
                            JM_LINE(max_width * padded),
                            alone,
                            alone,
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
        space->lane_slopes = (void *)(base + offset[6]);
        space->packed = (void *)(base + offset[7]);
        space->alone[0] = (void *)(base + offset[8]);
        space->alone[1] = (void *)(base + offset[9]);
        space->weights = (void *)(base + offset[10]);
        space->slopes = (void *)(base + offset[11]);
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
 * next term is below 2^-60.  The loop has no branch, so that the compiler takes it in lanes.
 */
static void JM_NAME(chain_log_norms)(ptrdiff_t count, const double *square, const int64_t *exponent,
                                     double *out, ptrdiff_t stride) {
    static const double odd[] = {1. / 3,  1. / 5,  1. / 7,  1. / 9,  1. / 11,
                                 1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21};
    double log_norm[JM_GROUP_MAX];
    for (ptrdiff_t j = 0; j < count; j++) {
        union {
            double value;
            int64_t bits;
        } x = {square[j]};
        const int64_t e = (x.bits - 0x3FE6A09E667F3BCD) >> 52; /* the bits of 1/sqrt 2 */
        x.bits -= e * ((int64_t)1 << 52);
        const double r = (x.value - 1) / (x.value + 1), r2 = r * r;
        double series = odd[9];
        for (int i = 8; i >= 0; i--)
            series = series * r2 + odd[i];
        const double twos = (double)exponent[j] + 0.5 * (double)e;
        log_norm[j] = JM_LOG_2_HIGH * twos + (JM_LOG_2_LOW * twos + (r + r * (r2 * series)));
    }
    for (ptrdiff_t j = 0; j < count; j++)
        out[j * stride] = square[j] > 0 && isfinite(square[j]) ? log_norm[j] : 0.5 * log(square[j]);
}

/* Vector j of a group, with elements `stride` apart, written where the caller keeps interface k. */
static void JM_NAME(chain_keep)(const jm_vectors *vectors, ptrdiff_t k, ptrdiff_t vector,
                                ptrdiff_t n, const JM_T *x, ptrdiff_t stride, int64_t exponent) {
    JM_T *out = (JM_T *)vectors->kept[k] + vector * n;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = x[i * stride];
    const JM_T largest = JM_NAME(max_abs)(n, out);
    const int is_plain = largest > 0 && !isinf(largest);
    if (is_plain) {
        const int e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(n, out, -e);
        exponent += e;
    }
    vectors->kept_exponents[k][vector] = is_plain ? exponent : 0;
}

/*
 * One vector through a step from scaled copies of everything, its result in [0.5, 1) unless zero.
 * Adds to *exponent.  Returns JM_NON_FINITE for bad input; out is then what plain arithmetic gives.
 */
static int JM_NAME(chain_careful_vector)(JM_NAME(chain_step) step, const JM_T *in,
                                         ptrdiff_t in_stride, JM_T *out, ptrdiff_t out_stride,
                                         int64_t *exponent,
                                         const JM_NAME(chain_vectors_space) * space) {
    JM_T *from = space->alone[0], *to = space->alone[1];
    int e = 0, e_step = 0, e_out = 0;
    JM_T largest = 0;
    memset(from, 0, (size_t)(step.cols * JM_VW) * sizeof(JM_T));
    for (ptrdiff_t i = 0; i < step.cols; i++) {
        from[i * JM_VW] = in[i * in_stride];
        largest = JM_ABS(from[i * JM_VW]) > largest ? JM_ABS(from[i * JM_VW]) : largest;
    }
    if (largest > 0 && !isinf(largest)) {
        e = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.cols * JM_VW, from, -e);
    }
    const int status = JM_NAME(chain_scaled_step)(&step, space->weights, space->slopes, &e_step);
    JM_NAME(chain_range) ignored = JM_NAME(chain_no_range)();
    JM_NAME(chain_panel)(&step, 1, from, to, space->scratch, &ignored);
    largest = JM_NAME(max_abs)(step.rows * JM_VW, to);
    if (largest > 0 && !isinf(largest)) {
        e_out = JM_NAME(exponent_of)(largest);
        JM_NAME(scale_by_power)(step.rows * JM_VW, to, -e_out);
    }
    for (ptrdiff_t i = 0; i < step.rows; i++)
        out[i * out_stride] = to[i * JM_VW];
    *exponent += (int64_t)e + e_step + e_out;
    return status;
}

/* Slopes of a layer as vector `vector` sees them. */
static const JM_T *JM_NAME(chain_slopes_of)(const jm_layer *layer, const jm_vectors *vectors,
                                            ptrdiff_t vector) {
    return (const JM_T *)layer->slopes + vector / vectors->per_sample * layer->slopes_stride;
}

/* ---- vectors as columns ----------------------------------------------------------------- */

/*
 * The columns arrive at interface k: they are brought to [0.5, 1), their log-norms written, and
 * they are kept if asked for.  A zero or non-finite column keeps its digits.
 */
static void JM_NAME(chain_columns_arrive)(const jm_vectors *vectors, ptrdiff_t n_layers,
                                          ptrdiff_t k, ptrdiff_t rows, int nv, ptrdiff_t first,
                                          ptrdiff_t count, JM_T *panel, const JM_T *largest,
                                          const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    JM_T half[JM_GROUP_COLUMNS], rest[JM_GROUP_COLUMNS], lanes[JM_GROUP_COLUMNS];
    double square[JM_GROUP_COLUMNS] = {0};
    for (ptrdiff_t j = 0; j < width; j++) {
        int e = 0;
        if (j < count && largest[j] > 0 && isfinite(largest[j]))
            e = JM_NAME(exponent_of)(largest[j]);
        half[j] = JM_NAME(power_of_two)(-e / 2);
        rest[j] = JM_NAME(power_of_two)(-e - -e / 2);
        if (j < count)
            space->exponent[j] += e;
    }
    for (int v = 0; v < nv; v++) {
        const JM_V first_factor = JM_LOAD(half + v * JM_VW), second = JM_LOAD(rest + v * JM_VW);
        JM_V sum = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < rows; i++) {
            JM_T *at = panel + i * width + v * JM_VW;
            const JM_V x = JM_LOAD(at) * first_factor * second;
            JM_STORE(at, x);
            sum = JM_FMADD(x, x, sum);
        }
        JM_STORE(lanes + v * JM_VW, sum);
    }
    for (ptrdiff_t j = 0; j < count; j++)
        square[j] = (double)lanes[j];
    JM_NAME(chain_log_norms)
    (count, square, space->exponent, vectors->log_norms + first * (n_layers + 1) + k, n_layers + 1);
    for (ptrdiff_t j = 0; vectors->kept[k] && j < count; j++)
        JM_NAME(chain_keep)
    (vectors, k, first + j, rows, panel + j, width, space->exponent[j]);
}

/* Start vectors as columns, and the largest magnitude of each. */
static void JM_NAME(chain_columns_start)(const jm_vectors *vectors, ptrdiff_t n, int nv,
                                         ptrdiff_t first, ptrdiff_t count, JM_T *panel,
                                         JM_T *largest) {
    const ptrdiff_t width = nv * JM_VW;
    const JM_T *start = (const JM_T *)vectors->start + first * n;
    memset(panel, 0, (size_t)(n * width) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < width; j++)
        largest[j] = j < count ? JM_NAME(max_abs)(n, start + j * n) : 0;
    for (ptrdiff_t j = 0; j < count; j++)
        for (ptrdiff_t i = 0; i < n; i++)
            panel[i * width + j] = start[j * n + i];
}

/* Slopes of a layer, one column per vector. */
static void JM_NAME(chain_gather_slopes)(const jm_layer *layer, const jm_vectors *vectors,
                                         ptrdiff_t first, ptrdiff_t count, ptrdiff_t n,
                                         ptrdiff_t width, JM_T *lane_slopes) {
    memset(lane_slopes, 0, (size_t)(n * width) * sizeof(JM_T));
    for (ptrdiff_t j = 0; j < count; j++) {
        const JM_T *s = JM_NAME(chain_slopes_of)(layer, vectors, first + j);
        for (ptrdiff_t i = 0; i < n; i++)
            lane_slopes[i * width + j] = s[i];
    }
}

/*
 * The columns of `out` that plain arithmetic may have spoilt, taken again with care.  `result` gets
 * the largest magnitude of each column as it stands.
 */
static void JM_NAME(chain_columns_repair)(const jm_chain *chain, const jm_vectors *vectors,
                                          ptrdiff_t k, int transposed, ptrdiff_t first,
                                          ptrdiff_t count, int nv, const JM_NAME(chain_step) * step,
                                          const JM_T *in, JM_T *out,
                                          const JM_NAME(chain_range) * range, JM_T *result,
                                          const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    const int has_between = step->weights && (step->slopes || step->lane_slopes);
    JM_T between[JM_GROUP_COLUMNS];
    JM_T poison[JM_GROUP_COLUMNS]; /* NaN where the column holds a NaN or an infinity */
    for (int v = 0; v < nv; v++) {
        JM_V sum = JM_SPLAT(0);
        for (ptrdiff_t i = 0; i < step->rows; i++)
            sum = JM_FMADD(JM_LOAD(out + i * width + v * JM_VW), JM_SPLAT(0), sum);
        JM_STORE(poison + v * JM_VW, sum);
        JM_STORE(between + v * JM_VW, range->between[v]);
        JM_STORE(result + v * JM_VW, range->result[v]);
    }
    for (ptrdiff_t j = 0; j < count; j++) {
        const int is_finite = !isnan(poison[j]);
        if (space->bad_layer[j] >= 0 || (is_finite && space->is_zero[j]))
            continue;
        if (is_finite && JM_NAME(chain_is_safe)(result[j], step->cols) &&
            (!has_between || JM_NAME(chain_is_safe)(between[j], step->cols)))
            continue;
        const JM_NAME(chain_step) alone =
            JM_NAME(chain_step_of)(chain, k, (first + j) / vectors->per_sample, transposed);
        const int status = JM_NAME(chain_careful_vector)(alone, in + j, width, out + j, width,
                                                         space->exponent + j, space);
        result[j] = 0;
        for (ptrdiff_t i = 0; i < step->rows; i++) {
            const JM_T magnitude = JM_ABS(out[i * width + j]);
            result[j] = magnitude > result[j] ? magnitude : result[j];
        }
        if (status != JM_OK)
            space->bad_layer[j] = k;
        space->is_zero[j] = status == JM_OK && result[j] == 0;
    }
}

static void JM_NAME(chain_columns)(const jm_chain *chain, const jm_vectors *vectors,
                                   ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end,
                                   int transposed, const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t n_layers = chain->n_layers;
    const ptrdiff_t sample = first / vectors->per_sample;
    const int spans_samples = (first + count - 1) / vectors->per_sample != sample;
    const int nv = (int)((count + JM_VW - 1) / JM_VW);
    JM_T *in = space->block[begin % 2], *out = space->block[1 - begin % 2];
    JM_T largest[JM_GROUP_COLUMNS];

    if (begin == 0) {
        const ptrdiff_t n = transposed ? JM_NAME(chain_layer)(chain, n_layers - 1).rows
                                       : JM_NAME(chain_layer)(chain, 0).cols;
        JM_NAME(chain_columns_start)(vectors, n, nv, first, count, in, largest);
        JM_NAME(chain_columns_arrive)
        (vectors, n_layers, transposed ? n_layers : 0, n, nv, first, count, in, largest, space);
    }
    /* `progress` counts layers passed; a vjp meets them last to first. */
    for (ptrdiff_t progress = begin; progress < end; progress++) {
        const ptrdiff_t k = transposed ? n_layers - 1 - progress : progress;
        const jm_layer layer = JM_NAME(chain_layer)(chain, k);
        JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, transposed);
        if (spans_samples && layer.slopes && layer.slopes_stride != 0) {
            JM_NAME(chain_gather_slopes)
            (&layer, vectors, first, count, step.slopes_first ? step.cols : step.rows, nv * JM_VW,
             space->lane_slopes);
            step.slopes = NULL;
            step.lane_slopes = space->lane_slopes;
        }
        JM_NAME(chain_range) range = JM_NAME(chain_no_range)();
        JM_NAME(chain_panel)(&step, nv, in, out, space->scratch, &range);
        JM_NAME(chain_columns_repair)
        (chain, vectors, k, transposed, first, count, nv, &step, in, out, &range, largest, space);
        JM_NAME(chain_columns_arrive)
        (vectors, n_layers, transposed ? k : k + 1, step.rows, nv, first, count, out, largest,
         space);
        JM_T *const previous = in;
        in = out;
        out = previous;
    }
}

/* ---- vectors as rows -------------------------------------------------------------------- */

/*
 * W as a panel whose row k multiplies element k of a vector: (cols, padded rows) of the step.  Read
 * in place where it lies so and needs no padding; *stride is then its own.
 */
static const JM_T *JM_NAME(chain_pack)(const JM_NAME(chain_step) * step, JM_T *packed,
                                       ptrdiff_t *stride) {
    const ptrdiff_t n = step->rows, padded = JM_PADDED(n);
    if (step->row_stride == 1 && n == padded) {
        *stride = step->col_stride;
        return step->weights;
    }
    *stride = padded;
    for (ptrdiff_t k = 0; k < step->cols; k++)
        for (ptrdiff_t j = n; j < padded; j++)
            packed[k * padded + j] = 0;
    if (step->row_stride == 1) {
        for (ptrdiff_t k = 0; k < step->cols; k++)
            memcpy(packed + k * padded, step->weights + k * step->col_stride,
                   (size_t)n * sizeof(JM_T));
    } else { /* transposed in squares that fit the first-level cache */
        enum { SQUARE = 16 };
        for (ptrdiff_t j0 = 0; j0 < n; j0 += SQUARE)
            for (ptrdiff_t k0 = 0; k0 < step->cols; k0 += SQUARE)
                for (ptrdiff_t j = j0; j < j0 + SQUARE && j < n; j++)
                    for (ptrdiff_t k = k0; k < k0 + SQUARE && k < step->cols; k++)
                        packed[k * padded + j] = step->weights[j * step->row_stride + k];
    }
    return packed;
}

/* A vector's slopes padded to whole vectors: in place if they are, else in `padded`. */
static const JM_T *JM_NAME(chain_pad_slopes)(const JM_T *slopes, ptrdiff_t n, JM_T *padded) {
    if (n % JM_VW == 0)
        return slopes;
    memcpy(padded, slopes, (size_t)n * sizeof(JM_T));
    for (ptrdiff_t i = n; i < JM_PADDED(n); i++)
        padded[i] = 0;
    return padded;
}

/* sums[j] = sum of the JM_VW lanes of row j. */
static void JM_NAME(chain_sum_lanes)(ptrdiff_t count, const JM_T *lanes, double *sums) {
    for (ptrdiff_t j = 0; j < count; j++) {
        JM_T sum = lanes[j * JM_VW];
        for (int v = 1; v < JM_VW; v++)
            sum += lanes[j * JM_VW + v];
        sums[j] = (double)sum;
    }
}

/* out = in W for rows, without slopes or shortcut; rows of both are padded to whole vectors. */
static void JM_NAME(chain_rows_times)(const JM_NAME(chain_step) * step, const JM_T *in,
                                      ptrdiff_t count, JM_T *out, JM_T *packed) {
    const ptrdiff_t in_pad = JM_PADDED(step->cols), out_pad = JM_PADDED(step->rows);
    ptrdiff_t stride;
    const JM_T *panel = JM_NAME(chain_pack)(step, packed, &stride);
    JM_NAME(chain_step) plain = {0};
    plain.weights = in;
    const ptrdiff_t n_vectors = out_pad / JM_VW;
    const ptrdiff_t n_panels = (n_vectors + JM_PANEL - 1) / JM_PANEL;
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const ptrdiff_t begin = p * n_vectors / n_panels;
        const ptrdiff_t at = begin * JM_VW;
        JM_NAME(chain_range) ignored = JM_NAME(chain_no_range)();
        switch ((p + 1) * n_vectors / n_panels - begin) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        if (n <= JM_PANEL)                                                                         \
            JM_NAME(chain_rows)                                                                    \
        (n <= JM_PANEL ? n : 1, &plain, count, step->cols, in_pad, 1, panel + at, stride, NULL,    \
         out + at, out_pad, &ignored);                                                             \
        break;
            JM_WIDTH(1)
            JM_WIDTH(2)
            JM_WIDTH(3)
            JM_WIDTH(4)
#undef JM_WIDTH
        }
    }
}

/*
 * Rows through one layer, with the sum of squares of what stands between the two operations (1 if
 * there is only one) and of the result.
 */
static void JM_NAME(chain_rows_step)(const jm_layer *layer, const jm_vectors *vectors,
                                     const JM_NAME(chain_step) * step, ptrdiff_t first,
                                     ptrdiff_t count, const JM_T *in, JM_T *out, double *between,
                                     double *result, const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t in_pad = JM_PADDED(step->cols), out_pad = JM_PADDED(step->rows);
    JM_T lanes[JM_GROUP_ROWS * JM_VW], between_lanes[JM_GROUP_ROWS * JM_VW];
    const JM_T *source = in;
    if (layer->slopes && step->slopes_first && step->weights) {
        for (ptrdiff_t j = 0; j < count; j++) {
            const JM_T *s = JM_NAME(chain_pad_slopes)(
                JM_NAME(chain_slopes_of)(layer, vectors, first + j), step->cols, space->slopes);
            JM_V sum = JM_SPLAT(0);
            for (ptrdiff_t i = 0; i < in_pad; i += JM_VW) {
                const JM_V x = JM_LOAD(in + j * in_pad + i) * JM_LOAD(s + i);
                sum = JM_FMADD(x, x, sum);
                JM_STORE(space->scratch + j * in_pad + i, x);
            }
            JM_STORE(between_lanes + j * JM_VW, sum);
        }
        source = space->scratch;
    }
    if (step->weights)
        JM_NAME(chain_rows_times)(step, source, count, out, space->packed);
    else
        memcpy(out, in, (size_t)(count * out_pad) * sizeof(JM_T));

    const int scales_output = layer->slopes && !(step->slopes_first && step->weights);
    const JM_V c = JM_SPLAT(step->shortcut);
    for (ptrdiff_t j = 0; j < count; j++) {
        JM_T *row = out + j * out_pad;
        const JM_T *original = in + j * in_pad;
        JM_V sum = JM_SPLAT(0), between_sum = JM_SPLAT(0);
        if (scales_output) {
            const JM_T *s = JM_NAME(chain_pad_slopes)(
                JM_NAME(chain_slopes_of)(layer, vectors, first + j), step->rows, space->slopes);
            for (ptrdiff_t i = 0; i < out_pad; i += JM_VW) {
                JM_V x = JM_LOAD(row + i);
                between_sum = JM_FMADD(x, x, between_sum);
                x *= JM_LOAD(s + i);
                if (step->shortcut != 0)
                    x = JM_FMADD(c, JM_LOAD(original + i), x);
                sum = JM_FMADD(x, x, sum);
                JM_STORE(row + i, x);
            }
            JM_STORE(between_lanes + j * JM_VW, between_sum);
        } else {
            for (ptrdiff_t i = 0; i < out_pad; i += JM_VW) {
                JM_V x = JM_LOAD(row + i);
                if (step->shortcut != 0) {
                    x = JM_FMADD(c, JM_LOAD(original + i), x);
                    JM_STORE(row + i, x);
                }
                sum = JM_FMADD(x, x, sum);
            }
        }
        JM_STORE(lanes + j * JM_VW, sum);
    }
    JM_NAME(chain_sum_lanes)(count, lanes, result);
    if (layer->slopes && step->weights)
        JM_NAME(chain_sum_lanes)(count, between_lanes, between);
    else
        for (ptrdiff_t j = 0; j < count; j++)
            between[j] = 1;
}

/* Sum of squares of a row that has been brought to [0.5, 1). */
static double JM_NAME(chain_row_square)(ptrdiff_t n, const JM_T *row) {
    JM_T sum = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        sum = JM_FMADD_S(row[i], row[i], sum);
    return (double)sum;
}

/*
 * Rows of `out` brought back into the window, or, where plain arithmetic may have spoilt them,
 * taken again with care.  A sum of squares is trusted between 2^(JM_MIN_EXP + 64) and 2^(JM_MAX_EXP
 * - 8): the largest magnitude is then far from where chain_is_safe would object.
 */
static void JM_NAME(chain_rows_repair)(const jm_chain *chain, const jm_vectors *vectors,
                                       ptrdiff_t k, int transposed, ptrdiff_t first,
                                       ptrdiff_t count, const JM_NAME(chain_step) * step,
                                       const JM_T *in, JM_T *out, const double *between,
                                       double *result, const JM_NAME(chain_vectors_space) * space) {
    const double low = ldexp(1, -2 * JM_LAZY), high = ldexp(1, 2 * JM_LAZY);
    const double least = ldexp(1, JM_MIN_EXP + 64), most = ldexp(1, JM_MAX_EXP - 8);
    const ptrdiff_t in_pad = JM_PADDED(step->cols), out_pad = JM_PADDED(step->rows);
    for (ptrdiff_t j = 0; j < count; j++) {
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
                JM_NAME(chain_step_of)(chain, k, (first + j) / vectors->per_sample, transposed);
            if (JM_NAME(chain_careful_vector)(alone, in + j * in_pad, 1, row, 1,
                                              space->exponent + j, space) != JM_OK)
                space->bad_layer[j] = k;
            for (ptrdiff_t i = step->rows; i < out_pad; i++)
                row[i] = 0;
        }
        result[j] = JM_NAME(chain_row_square)(step->rows, row);
        space->is_zero[j] = result[j] == 0;
    }
}

static void JM_NAME(chain_by_rows)(const jm_chain *chain, const jm_vectors *vectors,
                                   ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin, ptrdiff_t end,
                                   int transposed, const JM_NAME(chain_vectors_space) * space) {
    const ptrdiff_t n_layers = chain->n_layers;
    JM_T *in = space->block[begin % 2], *out = space->block[1 - begin % 2];
    double *log_norms = vectors->log_norms + first * (n_layers + 1);
    double between[JM_GROUP_ROWS], result[JM_GROUP_ROWS];

    for (ptrdiff_t progress = begin - (begin == 0); progress < end; progress++) {
        /* Progress -1 is the start; k is the interface arrived at, which a vjp counts backwards. */
        const ptrdiff_t arrived = transposed ? n_layers - 1 - progress : progress + 1;
        ptrdiff_t n;
        if (progress < 0) {
            n = transposed ? JM_NAME(chain_layer)(chain, n_layers - 1).rows
                           : JM_NAME(chain_layer)(chain, 0).cols;
            const ptrdiff_t padded = JM_PADDED(n);
            for (ptrdiff_t j = 0; j < count; j++) {
                JM_T *row = in + j * padded;
                memset(row, 0, (size_t)padded * sizeof(JM_T));
                memcpy(row, (const JM_T *)vectors->start + (first + j) * n,
                       (size_t)n * sizeof(JM_T));
                const JM_T largest = JM_NAME(max_abs)(n, row);
                if (largest > 0 && !isinf(largest)) {
                    const int e = JM_NAME(exponent_of)(largest);
                    JM_NAME(scale_by_power)(n, row, -e);
                    space->exponent[j] = e;
                }
                result[j] = JM_NAME(chain_row_square)(n, row);
            }
        } else {
            const ptrdiff_t k = transposed ? arrived : progress;
            const jm_layer layer = JM_NAME(chain_layer)(chain, k);
            const JM_NAME(chain_step) step =
                JM_NAME(chain_step_of)(chain, k, first / vectors->per_sample, transposed);
            n = step.rows;
            JM_NAME(chain_rows_step)
            (&layer, vectors, &step, first, count, in, out, between, result, space);
            JM_NAME(chain_rows_repair)
            (chain, vectors, k, transposed, first, count, &step, in, out, between, result, space);
            JM_T *const previous = in;
            in = out;
            out = previous;
        }
        JM_NAME(chain_log_norms)
        (count, result, space->exponent, log_norms + arrived, n_layers + 1);
        for (ptrdiff_t j = 0; vectors->kept[arrived] && j < count; j++)
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
    JM_NAME(chain_vectors_space) space;
    JM_NAME(chain_vectors_layout)(max_width, work, &space);
    for (ptrdiff_t j = 0; begin == 0 && j < count; j++) {
        space.exponent[j] = 0;
        space.bad_layer[j] = -1;
        space.is_zero[j] = 0;
    }
    if (JM_NAME(chain_goes_by_rows)(max_width, vectors->has_shared_weights))
        JM_NAME(chain_by_rows)(chain, vectors, first, count, begin, end, transposed, &space);
    else
        JM_NAME(chain_columns)(chain, vectors, first, count, begin, end, transposed, &space);
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
 * count      1 .. chain_vectors_group(...); vectors of one group share the weights of every layer
 * bad_layer  (count)  first layer with a NaN or infinity that the vector meets, -1 if there is none
 * work       chain_vectors_work(largest width) bytes; begin == 0 starts it anew, a later range of
 *            layers passed goes on from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers, every width >= 1, and finite start vectors.  Never
 * allocates.  Cost 2 n_{k+1} n_k flops a layer and vector, and one logarithm.  A vector's result
 * does not depend on the rest of its group.  Returns JM_OK, or JM_NON_FINITE if a bad_layer is set.
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
