/*
 * The columns whose growth along a chain gives its Lyapunov spectrum: where they lie, how their
 * growth is read, and what is done with one of them where a plain step does not stand.
 *
 * The columns stay orthogonal but are not brought to length one: the i-th has grown, since some
 * step, by the product of R_ii of every QR step in between, so one logarithm at each end serves
 * however many steps lie between, and a step needs neither roots nor logarithms.  Lengths are kept
 * in range by exact powers of two.  What a column lacks of orthogonality (at most about n u times
 * 1 / JM_AGAIN) enters the growth once and squared, and does not add up over the steps.
 */

#undef JM_STANDS
#undef JM_KEEPS
/* A plain step stands if every squared length after it lies within 2^+-JM_STANDS. */
#define JM_STANDS (JM_IS_F64 ? 400 : 60)
/* A column is rescaled once its squared length leaves 2^+-JM_KEEPS. */
#define JM_KEEPS (JM_IS_F64 ? 200 : 30)

#ifndef JM_AGAIN
/* A column that shrinks by more than this on being made orthogonal is made so again (Daniel,
 * Gragg, Kaufman and Stewart, Reorthogonalization and stable algorithms, 1976). */
#define JM_AGAIN 0x1p-6
#define JM_MAX_PASSES 4
/* Widths up to this take the items in lanes. */
#define JM_LYAPUNOV_LANES 8
/* Growth is read against where a column stood: at the last batch's end, or one step ago. */
enum { JM_OF_BATCH, JM_OF_STEP };
#endif

/* What a group in progress keeps at the start of its workspace. */
typedef struct {
    ptrdiff_t batch; /* batches that are complete */
    int current;
} JM_NAME(lyapunov_state);

/* The workspace.  What belongs to column j of item i of the group lies at j * n_items + i. */
typedef struct {
    JM_NAME(lyapunov_state) * state;
    ptrdiff_t n_items, n_columns, n_vectors;
    int is_in_lanes;
    ptrdiff_t *live;      /* per item: columns that have not become exactly zero, the first ones */
    ptrdiff_t *bad_layer; /* per item; -1: none */
    double *exponent;     /* per column: it is block column * 2^exponent */
    double *base_log[2], *base_exponent[2]; /* per column: its length where growth counts from */
    double *mean, *spread; /* per column: Welford's over the batches, weighted by their steps */
    JM_T *square;          /* per column: its squared length */
    JM_T *original;        /* the same before it was made orthogonal */
    JM_T *low;             /* below `original` where a plain step stands; negative once zero */
    JM_T *block[2];        /* the columns, before and after a step */
    JM_T *factor;          /* c I + diag(s) W or c I + W diag(s) */
    JM_T *weights, *slopes, *column; /* for a careful step */
} JM_NAME(lyapunov_space);

/* Vectors of items in a group; two of them hide the latency of short columns. */
JM_INLINE ptrdiff_t JM_NAME(lyapunov_lane_vectors)(ptrdiff_t n) { return n <= 4 ? 2 : 1; }

/* How many items a group of this chain holds. */
static ptrdiff_t JM_NAME(lyapunov_spectrum_group)(const jm_lyapunov *job) {
    return job->is_square && job->max_width <= JM_LYAPUNOV_LANES
               ? JM_NAME(lyapunov_lane_vectors)(job->max_width) * JM_VW
               : 1;
}

static size_t JM_NAME(lyapunov_layout)(const jm_lyapunov *job, void *work,
                                       JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t n = job->max_width, n_items = JM_NAME(lyapunov_spectrum_group)(job);
    const int is_in_lanes = job->is_square && n <= JM_LYAPUNOV_LANES;
    const ptrdiff_t n_vectors = (job->n_columns + JM_VW - 1) / JM_VW;
    const ptrdiff_t padded = is_in_lanes ? job->n_columns : n_vectors * JM_VW;
    const size_t per_item = (size_t)n_items * sizeof(ptrdiff_t);
    const size_t numbers = (size_t)(padded * n_items) * sizeof(double);
    const size_t entries = JM_LINE(padded * n_items), block = JM_LINE(padded * n_items * n);
    const size_t square = JM_LINE(n * n);
    const size_t sizes[] = {sizeof(JM_NAME(lyapunov_state)),
                            per_item,
                            per_item,
                            numbers,
                            numbers,
                            numbers,
                            numbers,
                            numbers,
                            numbers,
                            numbers,
                            entries,
                            entries,
                            entries,
                            block,
                            block,
                            is_in_lanes ? JM_LINE(n * n * n_items) : square,
                            square,
                            JM_LINE(n),
                            JM_LINE(n)};
    enum { N_PARTS = sizeof sizes / sizeof *sizes };
    size_t offset[N_PARTS], end = 0;
    for (int i = 0; i < N_PARTS; i++) {
        offset[i] = end;
        end += (sizes[i] + 63) / 64 * 64;
    }
    if (space) {
        char *base = work;
        const JM_NAME(lyapunov_space)
            found = {.state = (void *)(base + offset[0]),
                     .n_items = n_items,
                     .n_columns = job->n_columns,
                     .n_vectors = n_vectors,
                     .is_in_lanes = is_in_lanes,
                     .live = (void *)(base + offset[1]),
                     .bad_layer = (void *)(base + offset[2]),
                     .exponent = (void *)(base + offset[3]),
                     .base_log = {(void *)(base + offset[4]), (void *)(base + offset[5])},
                     .base_exponent = {(void *)(base + offset[6]), (void *)(base + offset[7])},
                     .mean = (void *)(base + offset[8]),
                     .spread = (void *)(base + offset[9]),
                     .square = (void *)(base + offset[10]),
                     .original = (void *)(base + offset[11]),
                     .low = (void *)(base + offset[12]),
                     .block = {(void *)(base + offset[13]), (void *)(base + offset[14])},
                     .factor = (void *)(base + offset[15]),
                     .weights = (void *)(base + offset[16]),
                     .slopes = (void *)(base + offset[17]),
                     .column = (void *)(base + offset[18])};
        *space = found;
    }
    return end;
}

/* The first vector of panel p: panels of nearly equal width, one by one. */
static ptrdiff_t JM_NAME(lyapunov_first_vector)(ptrdiff_t n_vectors, ptrdiff_t p) {
    const ptrdiff_t n_panels = (n_vectors + JM_PANEL - 1) / JM_PANEL;
    return p * n_vectors / n_panels;
}

/* Column j of an item in a block of `rows` rows; its elements are *stride apart. */
static JM_T *JM_NAME(lyapunov_column)(const JM_NAME(lyapunov_space) * space, JM_T *block,
                                      ptrdiff_t rows, ptrdiff_t item, ptrdiff_t j,
                                      ptrdiff_t *stride) {
    if (space->is_in_lanes) {
        *stride = space->n_items;
        return block + j * rows * space->n_items + item;
    }
    ptrdiff_t p = 0;
    while (JM_NAME(lyapunov_first_vector)(space->n_vectors, p + 1) * JM_VW <= j)
        p++;
    const ptrdiff_t begin = JM_NAME(lyapunov_first_vector)(space->n_vectors, p) * JM_VW;
    *stride = JM_NAME(lyapunov_first_vector)(space->n_vectors, p + 1) * JM_VW - begin;
    return block + begin * rows + (j - begin);
}

/* ---- growth ----------------------------------------------------------------------------- */

/* Log of the growth of a live column since its base, which moves here. */
static double JM_NAME(lyapunov_growth)(const JM_NAME(lyapunov_space) * space, int which,
                                       ptrdiff_t at) {
    int e = 0;
    const double log_length = 0.5 * log(frexp((double)space->square[at], &e));
    const double exponent = space->exponent[at] + 0.5 * e;
    const double twos = exponent - space->base_exponent[which][at];
    const double rest = log_length - space->base_log[which][at];
    space->base_log[which][at] = log_length;
    space->base_exponent[which][at] = exponent;
    return JM_LOG_2_HIGH * twos + (JM_LOG_2_LOW * twos + rest);
}

/* Steps counted until batch b is complete. */
static ptrdiff_t JM_NAME(lyapunov_batch_end)(const jm_lyapunov *job, ptrdiff_t n_counted,
                                             ptrdiff_t b) {
    return (b + 1) * n_counted / job->n_batches;
}

/*
 * Reads the columns after step t, where something falls due: the start of counting, a step of the
 * history, the end of a batch.
 */
static void JM_NAME(lyapunov_read)(const jm_lyapunov *job, ptrdiff_t n_counted, ptrdiff_t t,
                                   ptrdiff_t first, ptrdiff_t count,
                                   const JM_NAME(lyapunov_space) * space) {
    JM_NAME(lyapunov_state) *state = space->state;
    const ptrdiff_t k = job->n_columns, done = t - job->burn_in;
    if (done < 0)
        return;
    const ptrdiff_t batch_end = JM_NAME(lyapunov_batch_end)(job, n_counted, state->batch);
    const ptrdiff_t batch_begin = JM_NAME(lyapunov_batch_end)(job, n_counted, state->batch - 1);
    const double steps = (double)(batch_end - batch_begin);
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < k; j++) {
            const ptrdiff_t at = j * space->n_items + i;
            const int is_live = j < space->live[i];
            if (done == 0) {
                if (is_live) {
                    (void)JM_NAME(lyapunov_growth)(space, JM_OF_BATCH, at);
                    (void)JM_NAME(lyapunov_growth)(space, JM_OF_STEP, at);
                }
                continue;
            }
            if (job->history)
                job->history[((first + i) * n_counted + done - 1) * k + j] =
                    is_live                    ? JM_NAME(lyapunov_growth)(space, JM_OF_STEP, at)
                    : space->bad_layer[i] >= 0 ? (double)NAN
                                               : -(double)INFINITY;
            if (done == batch_end && is_live) {
                const double rate = JM_NAME(lyapunov_growth)(space, JM_OF_BATCH, at) / steps;
                const double off = rate - space->mean[at];
                space->mean[at] += off * (steps / (double)batch_end);
                space->spread[at] += steps * off * (rate - space->mean[at]);
            }
        }
    if (done == batch_end && done > 0)
        state->batch++;
}

/* ---- one column ------------------------------------------------------------------------- */

/* Columns j and beyond of an item are zero from here on. */
static void JM_NAME(lyapunov_die)(const JM_NAME(lyapunov_space) * space, JM_T *block,
                                  ptrdiff_t rows, ptrdiff_t item, ptrdiff_t j) {
    if (j < space->live[item])
        space->live[item] = j;
    for (; j < space->n_columns; j++) {
        const ptrdiff_t at = j * space->n_items + item;
        ptrdiff_t stride;
        JM_T *column = JM_NAME(lyapunov_column)(space, block, rows, item, j, &stride);
        for (ptrdiff_t r = 0; r < rows; r++)
            column[r * stride] = 0;
        space->square[at] = space->original[at] = 0;
        space->low[at] = -1;
    }
}

/* Multiplies a column by 2^-e and counts it. */
static void JM_NAME(lyapunov_shift)(const JM_NAME(lyapunov_space) * space, ptrdiff_t at,
                                    JM_T *column, ptrdiff_t stride, ptrdiff_t rows, int e) {
    const JM_T half = JM_NAME(power_of_two)(-e / 2), rest = JM_NAME(power_of_two)(-e - -e / 2);
    for (ptrdiff_t r = 0; r < rows; r++)
        column[r * stride] = column[r * stride] * half * rest;
    space->exponent[at] += e;
}

/* Brings the columns of an item whose squared length has left the window back to about one. */
static void JM_NAME(lyapunov_rescale)(const JM_NAME(lyapunov_space) * space, JM_T *block,
                                      ptrdiff_t rows, ptrdiff_t item) {
    for (ptrdiff_t j = 0; j < space->live[item]; j++) {
        const ptrdiff_t at = j * space->n_items + item;
        const int e = JM_NAME(exponent_of)(space->square[at]) / 2;
        if (2 * e >= -JM_KEEPS && 2 * e <= JM_KEEPS)
            continue;
        ptrdiff_t stride;
        JM_T *column = JM_NAME(lyapunov_column)(space, block, rows, item, j, &stride);
        JM_NAME(lyapunov_shift)(space, at, column, stride, rows, e);
        JM_NAME(scale_by_power)(1, space->square + at, -2 * e);
    }
}

/* Entry (r, c) of a factor, as every way computes it. */
JM_INLINE JM_T JM_NAME(lyapunov_entry)(const JM_NAME(chain_step) * step, ptrdiff_t r, ptrdiff_t c) {
    JM_T x = step->weights ? step->weights[r * step->cols + c] : (JM_T)(r == c);
    if (step->slopes)
        x *= step->slopes[step->slopes_first ? c : r];
    return r == c && step->shortcut != 0 ? x + step->shortcut : x;
}

/*
 * Whether the zeros of a step alone make column i depend on those before it: there are no more than
 * i rows that some input reaches, or no more than i inputs that are not zero and reach some row.
 * Asked of the factor and not of the result, where entries may have underflowed.
 */
static int JM_NAME(lyapunov_is_dependent)(const JM_NAME(chain_step) * step,
                                          const JM_NAME(lyapunov_space) * space, JM_T *in,
                                          ptrdiff_t item, ptrdiff_t i) {
    JM_T *is_reached = space->column; /* per row */
    ptrdiff_t n_outputs = 0, n_inputs = 0, stride;
    for (ptrdiff_t r = 0; r < step->rows; r++)
        is_reached[r] = 0;
    for (ptrdiff_t c = 0; c < step->cols && (n_outputs <= i || n_inputs <= i); c++) {
        int is_zero = 1, is_read = 0;
        for (ptrdiff_t j = 0; is_zero && j < space->live[item]; j++)
            is_zero =
                JM_NAME(lyapunov_column)(space, in, step->cols, item, j, &stride)[c * stride] == 0;
        for (ptrdiff_t r = 0; !is_zero && r < step->rows && !(is_read && n_outputs > i); r++) {
            const int has_shortcut = r == c && step->shortcut != 0;
            const JM_T w = step->weights ? step->weights[r * step->cols + c] : (JM_T)(r == c);
            const JM_T s = step->slopes ? step->slopes[step->slopes_first ? c : r] : 1;
            if (has_shortcut ? JM_NAME(lyapunov_entry)(step, r, c) == 0 : w == 0 || s == 0)
                continue;
            is_read = 1;
            n_outputs += is_reached[r] == 0;
            is_reached[r] = 1;
        }
        n_inputs += is_read;
    }
    return n_outputs <= i || n_inputs <= i;
}

/* Column i of an item less what it has of the columns before it; returns its squared length. */
static JM_T JM_NAME(lyapunov_project)(const JM_NAME(lyapunov_space) * space, JM_T *block,
                                      ptrdiff_t rows, ptrdiff_t item, ptrdiff_t i) {
    ptrdiff_t stride, other_stride;
    JM_T *x = JM_NAME(lyapunov_column)(space, block, rows, item, i, &stride);
    JM_T square = 0;
    for (ptrdiff_t j = 0; j < i; j++) {
        const JM_T *y = JM_NAME(lyapunov_column)(space, block, rows, item, j, &other_stride);
        JM_T product = 0;
        for (ptrdiff_t r = 0; r < rows; r++)
            product = JM_FMADD_S(y[r * other_stride], x[r * stride], product);
        product /= -space->square[j * space->n_items + item];
        for (ptrdiff_t r = 0; r < rows; r++)
            x[r * stride] = JM_FMADD_S(product, y[r * other_stride], x[r * stride]);
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        square = JM_FMADD_S(x[r * stride], x[r * stride], square);
    return square;
}

/*
 * Puts a direction of its own in place of column i, which has cancelled to zero without being zero
 * by structure, as long as the rounding error that hides it: the unit vector that the columns
 * before it cover least, made orthogonal.  Returns its squared length.
 */
static JM_T JM_NAME(lyapunov_fresh)(const JM_NAME(lyapunov_space) * space, JM_T *block,
                                    ptrdiff_t rows, ptrdiff_t item, ptrdiff_t i, JM_T original) {
    ptrdiff_t stride, best = 0;
    JM_T least = (JM_T)INFINITY;
    for (ptrdiff_t r = 0; r < rows; r++) {
        JM_T covered = 0;
        for (ptrdiff_t j = 0; j < i; j++) {
            const JM_T x =
                JM_NAME(lyapunov_column)(space, block, rows, item, j, &stride)[r * stride];
            covered += x * x / space->square[j * space->n_items + item];
        }
        if (covered < least) {
            least = covered;
            best = r;
        }
    }
    JM_T *column = JM_NAME(lyapunov_column)(space, block, rows, item, i, &stride);
    for (ptrdiff_t r = 0; r < rows; r++)
        column[r * stride] = r == best;
    (void)JM_NAME(lyapunov_project)(space, block, rows, item, i);
    const JM_T square = JM_NAME(lyapunov_project)(space, block, rows, item, i);
    const JM_T scale = (JM_T)JM_U * JM_SQRT(original / square);
    for (ptrdiff_t r = 0; r < rows; r++)
        column[r * stride] *= scale;
    return square * scale * scale;
}

/*
 * Column i of an item, which has shrunk to `square`, made orthogonal to those before it once more
 * until it no longer shrinks; zero from here on if the zeros of the step (NULL: the start) say so.
 */
static void JM_NAME(lyapunov_again)(const JM_NAME(chain_step) * step,
                                    const JM_NAME(lyapunov_space) * space, JM_T *in, JM_T *out,
                                    ptrdiff_t rows, ptrdiff_t item, ptrdiff_t i, JM_T square) {
    const ptrdiff_t at = i * space->n_items + item;
    const JM_T original = space->original[at];
    JM_T before = original;
    if (step && JM_NAME(lyapunov_is_dependent)(step, space, in, item, i)) {
        JM_NAME(lyapunov_die)(space, out, rows, item, i);
        return;
    }
    const JM_T shrinks = (JM_T)(JM_AGAIN * JM_AGAIN);
    for (int pass = 1; pass < JM_MAX_PASSES && square < shrinks * before; pass++) {
        before = square;
        square = JM_NAME(lyapunov_project)(space, out, rows, item, i);
    }
    /* What shrinks every time lies among the others: rounding has left no direction of its own. */
    if (square < shrinks * before || square < JM_LDEXP((JM_T)1, JM_MIN_EXP))
        square = JM_NAME(lyapunov_fresh)(space, out, rows, item, i, original);
    space->square[at] = square;
}

/* ---- a careful step --------------------------------------------------------------------- */

/*
 * F x for a column x, with the exponent of every term, where no common scale serves.  Returns e
 * such that it is out * 2^e.
 */
static int JM_NAME(lyapunov_exact_product)(const JM_NAME(chain_step) * step, const JM_T *x,
                                           ptrdiff_t stride, JM_T *out) {
    const int nothing = 8 * JM_MIN_EXP;
    int top = nothing;
    for (int is_sum = 0; is_sum <= 1; is_sum++)
        for (ptrdiff_t r = 0; r < step->rows; r++) {
            JM_T sum = 0;
            for (ptrdiff_t c = 0; c <= step->cols; c++) { /* the last one is the shortcut */
                const int is_shortcut = c == step->cols;
                const ptrdiff_t from = is_shortcut ? r : c;
                JM_T w = is_shortcut     ? step->shortcut
                         : step->weights ? step->weights[r * step->cols + c]
                                         : (JM_T)(r == c);
                JM_T s =
                    !is_shortcut && step->slopes ? step->slopes[step->slopes_first ? c : r] : 1;
                if (w == 0 || s == 0 || from >= step->cols || x[from * stride] == 0)
                    continue;
                int e_w, e_s, e_x;
                w = JM_FREXP(w, &e_w);
                s = JM_FREXP(s, &e_s);
                const JM_T term = w * s * JM_FREXP(x[from * stride], &e_x);
                const int e = e_w + e_s + e_x;
                if (is_sum)
                    sum += JM_LDEXP(term, e - top);
                else if (e > top)
                    top = e;
            }
            out[r] = sum;
        }
    return top == nothing ? 0 : top;
}

/* out = F x by columns of F^T, in the order of a tile's sums. */
static void JM_NAME(lyapunov_product)(ptrdiff_t rows, ptrdiff_t cols, const JM_T *transposed,
                                      const JM_T *x, ptrdiff_t stride, JM_T *out) {
    for (ptrdiff_t r = 0; r < rows; r++)
        out[r] = 0;
    for (ptrdiff_t c = 0; c < cols; c++) {
        const JM_T *f = transposed + c * rows;
        ptrdiff_t r = 0;
        for (; r + JM_VW <= rows; r += JM_VW)
            JM_STORE(out + r, JM_FMADD(JM_LOAD(f + r), JM_SPLAT(x[c * stride]), JM_LOAD(out + r)));
        for (; r < rows; r++)
            out[r] = JM_FMADD_S(f[r], x[c * stride], out[r]);
    }
}

/*
 * One item's columns through layer k from scaled copies of everything; each result in [0.5, 1).
 * Where both ways stand this one has the bits of the plain step.  Bad input kills all columns.
 *
 * transposed  (cols, rows) of the layer, scratch
 */
static void JM_NAME(lyapunov_careful)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample,
                                      ptrdiff_t item, JM_T *transposed,
                                      const JM_NAME(lyapunov_space) * space) {
    JM_T *in = space->block[space->state->current], *out = space->block[1 - space->state->current];
    const JM_NAME(chain_step) plain = JM_NAME(chain_step_of)(chain, k, sample, 0);
    JM_NAME(chain_step) step = plain;
    int e_step = 0;
    if (JM_NAME(chain_scaled_step)(&step, space->weights, space->slopes, &e_step) != JM_OK) {
        if (space->bad_layer[item] < 0)
            space->bad_layer[item] = k;
        JM_NAME(lyapunov_die)(space, out, step.rows, item, 0);
        return;
    }
    for (ptrdiff_t c = 0; c < step.cols; c++)
        for (ptrdiff_t r = 0; r < step.rows; r++)
            transposed[c * step.rows + r] = JM_NAME(lyapunov_entry)(&step, r, c);
    for (ptrdiff_t j = 0; j < space->live[item]; j++) {
        const ptrdiff_t at = j * space->n_items + item;
        ptrdiff_t stride, out_stride;
        JM_T *x = JM_NAME(lyapunov_column)(space, in, step.cols, item, j, &stride);
        JM_T *y = JM_NAME(lyapunov_column)(space, out, step.rows, item, j, &out_stride);
        JM_T largest = 0;
        for (ptrdiff_t c = 0; c < step.cols; c++)
            largest = JM_ABS(x[c * stride]) > largest ? JM_ABS(x[c * stride]) : largest;
        JM_NAME(lyapunov_shift)(space, at, x, stride, step.cols, JM_NAME(exponent_of)(largest));
        int e = e_step;
        JM_NAME(lyapunov_product)(step.rows, step.cols, transposed, x, stride, space->column);
        largest = JM_NAME(max_abs)(step.rows, space->column);
        if (!JM_NAME(chain_is_safe)(largest, step.cols)) {
            e = JM_NAME(lyapunov_exact_product)(&plain, x, stride, space->column);
            largest = JM_NAME(max_abs)(step.rows, space->column);
        }
        if (largest == 0) {
            space->live[item] = j;
            break;
        }
        for (ptrdiff_t r = 0; r < step.rows; r++)
            y[r * out_stride] = space->column[r];
        JM_NAME(lyapunov_shift)
        (space, at, y, out_stride, step.rows, JM_NAME(exponent_of)(largest));
        space->exponent[at] += e;
    }
    JM_NAME(lyapunov_die)(space, out, step.rows, item, space->live[item]);
}

/* Looks for bad input in layer k where no column is left to show it. */
static void JM_NAME(lyapunov_scan)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample,
                                   ptrdiff_t item, const JM_NAME(lyapunov_space) * space) {
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    const ptrdiff_t n_slopes = step.slopes_first ? step.cols : step.rows;
    const int is_bad =
        (step.weights && isinf(JM_NAME(max_abs)(step.rows * step.cols, step.weights))) ||
        (step.slopes && isinf(JM_NAME(max_abs)(n_slopes, step.slopes)));
    if (is_bad && space->bad_layer[item] < 0)
        space->bad_layer[item] = k;
}
