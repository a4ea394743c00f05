/*
 * chain_product, chain_jvp and chain_vjp against loops in long double, whose range (2^16384) takes
 * any chain of this file without scaling.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MAX_LAYERS = 5, MAX_WIDTH = 65, N_SAMPLES = 2, MAX_VECTORS = 258 };

/* Where long double is software of 113 bits (aarch64), every third size. */
enum { SIZE_STEP = LDBL_MANT_DIG > 64 ? 3 : 1 };
static const ptrdiff_t SIZES[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 40};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES };

/* What a test chain is made of. */
typedef struct {
    int n_layers;
    ptrdiff_t widths[MAX_LAYERS + 1];
    int is_listed; /* one jm_layer each, else first and strides */
    int has_slopes, has_own_weights, has_own_slopes;
    int n_distinct; /* listed chains: the entries, which repeat; 0: one for every layer */
    int diagonal;   /* the layer whose W is the identity, or -1; listed chains only */
    enum jm_slope_side side;
    int from_last; /* products only */
    double shortcut;
    double weight_scale, slope_scale;
} recipe;

/* A chain in exactly sized buffers, one per array. */
typedef struct {
    jm_chain chain;
    jm_layer layers[MAX_LAYERS];
    void *weights[MAX_LAYERS], *slopes[MAX_LAYERS]; /* entry 0 holds all of a uniform chain */
    double *shortcuts;
    ptrdiff_t max_width;
    int dtype;
} test_chain;

static recipe square(ptrdiff_t n, int n_layers) {
    recipe r = {.n_layers = n_layers, .diagonal = -1, .weight_scale = 1, .slope_scale = 1};
    for (int k = 0; k <= n_layers; k++)
        r.widths[k] = n;
    return r;
}

/* Which of the chain's buffers holds layer k: a list may repeat, a uniform chain has one. */
static int block_of(const recipe *r, int k) {
    return !r->is_listed ? 0 : r->n_distinct ? k % r->n_distinct : k;
}

static void fill(void *entries, int dtype, ptrdiff_t n, double scale) {
    for (ptrdiff_t i = 0; i < n; i++)
        set(entries, dtype, i, normal() * scale);
}

static test_chain build(const recipe *r, int dtype) {
    test_chain t = {.dtype = dtype};
    for (int k = 0; k <= r->n_layers; k++)
        t.max_width = r->widths[k] > t.max_width ? r->widths[k] : t.max_width;
    const int n_blocks = !r->is_listed ? 1 : r->n_distinct ? r->n_distinct : r->n_layers;
    const ptrdiff_t per_block = r->is_listed ? 1 : r->n_layers;
    for (int k = 0; k < n_blocks; k++) {
        const ptrdiff_t rows = r->widths[k + 1], cols = r->widths[k];
        const ptrdiff_t n_slopes = r->side == JM_SLOPE_OUTPUT ? rows : cols;
        jm_layer *layer = &t.layers[k];
        layer->rows = rows;
        layer->cols = cols;
        layer->shortcut = r->shortcut;
        if (k != r->diagonal) {
            const ptrdiff_t n = per_block * rows * cols;
            t.weights[k] = buffer(n * (r->has_own_weights ? N_SAMPLES : 1), dtype);
            fill(t.weights[k], dtype, n * (r->has_own_weights ? N_SAMPLES : 1),
                 r->weight_scale / sqrt((double)cols));
            layer->weights = t.weights[k];
            layer->weights_stride = r->has_own_weights ? n : 0;
        }
        if (r->has_slopes || k == r->diagonal) {
            const ptrdiff_t n = per_block * n_slopes;
            t.slopes[k] = buffer(n * (r->has_own_slopes ? N_SAMPLES : 1), dtype);
            fill(t.slopes[k], dtype, n * (r->has_own_slopes ? N_SAMPLES : 1), r->slope_scale);
            layer->slopes = t.slopes[k];
            layer->slopes_stride = r->has_own_slopes ? n : 0;
        }
    }
    t.chain.n_layers = r->n_layers;
    t.chain.n_distinct = n_blocks;
    t.chain.slope_side = r->side;
    t.chain.from_last = r->from_last;
    if (!r->is_listed) {
        t.chain.first = t.layers[0];
        t.chain.weights_layer_stride = r->widths[0] * r->widths[0];
        t.chain.slopes_layer_stride = r->widths[0];
        if (r->shortcut != 0) {
            t.shortcuts = buffer(r->n_layers, JM_F64);
            for (int k = 0; k < r->n_layers; k++)
                t.shortcuts[k] = k % 2 ? -r->shortcut : r->shortcut;
            t.chain.shortcuts = t.shortcuts;
        }
    }
    return t;
}

/* The pointer to the list is set here, since a test_chain moves when it is returned. */
static const jm_chain *described(test_chain *t, const recipe *r) {
    t->chain.layers = r->is_listed ? t->layers : NULL;
    return &t->chain;
}

static void release(test_chain *t) {
    for (int k = 0; k < MAX_LAYERS; k++) {
        buffer_free(t->weights[k], t->dtype);
        buffer_free(t->slopes[k], t->dtype);
    }
    buffer_free(t->shortcuts, JM_F64);
}

/* ---- the oracle ------------------------------------------------------------------------- */

typedef long double matrix[MAX_WIDTH][MAX_WIDTH];

/* Layer k for one sample as a matrix, and the sum of the magnitudes that each entry is made of. */
static void factor(const test_chain *t, const recipe *r, int k, ptrdiff_t sample, matrix f,
                   matrix magnitude) {
    const ptrdiff_t rows = r->widths[k + 1], cols = r->widths[k];
    const int block = block_of(r, k);
    const ptrdiff_t w_at =
        (r->is_listed ? 0 : k * rows * cols) + sample * t->layers[block].weights_stride;
    const ptrdiff_t n_slopes = r->side == JM_SLOPE_OUTPUT ? rows : cols;
    const ptrdiff_t s_at =
        (r->is_listed ? 0 : k * n_slopes) + sample * t->layers[block].slopes_stride;
    const double c = t->shortcuts ? t->shortcuts[k] : r->shortcut;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++) {
            long double x = t->weights[block]
                                ? get(t->weights[block], t->dtype, w_at + i * cols + j)
                                : (long double)(i == j);
            if (t->slopes[block])
                x *= get(t->slopes[block], t->dtype, s_at + (r->side == JM_SLOPE_OUTPUT ? i : j));
            f[i][j] = x + (i == j ? c : 0);
            magnitude[i][j] = fabsl(x) + (i == j ? fabs(c) : 0);
        }
}

/* out = f x, and the same of the magnitudes with the rounding of one layer added. */
static void apply(ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t cols, const matrix f,
                  const matrix magnitude, matrix x, matrix size) {
    static matrix y, y_size;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++) {
            long double sum = 0, sum_size = 0;
            for (ptrdiff_t k = 0; k < depth; k++) {
                sum += f[i][k] * x[k][j];
                sum_size += magnitude[i][k] * size[k][j];
            }
            y[i][j] = sum;
            y_size[i][j] = sum_size;
        }
    memcpy(x, y, sizeof y);
    memcpy(size, y_size, sizeof y_size);
}

static void transpose(ptrdiff_t rows, ptrdiff_t cols, matrix f) {
    static matrix g;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++)
            g[j][i] = f[i][j];
    memcpy(f, g, sizeof g);
}

/* ---- the product ------------------------------------------------------------------------ */

/* One sample's product, its layers in ranges of `range`; what the kernel returns. */
static int run_product(const jm_table *table, test_chain *t, const recipe *r, ptrdiff_t sample,
                       ptrdiff_t range, void *mantissa, int64_t *exponent, ptrdiff_t *bad_layer) {
    const jm_chain *chain = described(t, r);
    const ptrdiff_t n_columns = r->widths[r->from_last ? r->n_layers : 0];
    void *work = workspace(table->chain_product_work[t->dtype](t->max_width, n_columns));
    int status = JM_OK;
    for (ptrdiff_t begin = 0; begin < r->n_layers; begin += range) {
        const ptrdiff_t end = begin + range < r->n_layers ? begin + range : r->n_layers;
        status = table->chain_product[t->dtype](chain, sample, t->max_width, begin, end, mantissa,
                                                exponent, bad_layer, work);
    }
    workspace_free(work);
    return status;
}

static void check_product(const jm_table *table, int dtype, const recipe *r, const char *what) {
    test_chain t = build(r, dtype);
    const ptrdiff_t rows = r->widths[r->n_layers], cols = r->widths[0];
    const size_t n_bytes = (size_t)(rows * cols) * size_of(dtype);
    static matrix f, magnitude, exact, size;
    for (ptrdiff_t sample = 0; sample < N_SAMPLES; sample++) {
        void *mantissa = buffer(rows * cols, dtype), *again = buffer(rows * cols, dtype);
        int64_t exponent = 99, exponent_again = 98;
        ptrdiff_t bad_layer = 99;
        const int status =
            run_product(table, &t, r, sample, r->n_layers, mantissa, &exponent, &bad_layer);
        check(status == JM_OK && bad_layer == -1, "%s, %td to %td: status %d", what, cols, rows,
              status);

        memset(exact, 0, sizeof exact);
        memset(size, 0, sizeof size);
        double roundings = 2;
        for (ptrdiff_t i = 0; i < cols; i++)
            exact[i][i] = size[i][i] = 1;
        for (int k = 0; k < r->n_layers; k++) {
            factor(&t, r, k, sample, f, magnitude);
            apply(r->widths[k + 1], r->widths[k], cols, f, magnitude, exact, size);
            roundings += (double)r->widths[k] + 3;
        }
        int is_close = 1, is_zero = 1;
        double largest = 0;
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t j = 0; j < cols; j++) {
                const double m = get(mantissa, dtype, i * cols + j);
                is_zero &= exact[i][j] == 0; /* a tiny draw may have rounded to zero */
                const long double error = fabsl(ldexpl(m, (int)exponent) - exact[i][j]);
                is_close &= error <= (long double)(roundings * unit_roundoff(dtype)) * size[i][j];
                largest = fabs(m) > largest ? fabs(m) : largest;
            }
        check(is_close, "%s, %td to %td: off the exact product", what, cols, rows);
        check(is_zero ? largest == 0 : largest >= 0.5 && largest < 1,
              "%s, %td to %td: largest mantissa %g", what, cols, rows, largest);

        for (ptrdiff_t range = 1; range < r->n_layers; range++) {
            (void)run_product(table, &t, r, sample, range, again, &exponent_again, &bad_layer);
            check(exponent == exponent_again && same_bits(mantissa, again, n_bytes),
                  "%s, %td to %td: ranges of %td layers give other bits", what, cols, rows, range);
        }
        buffer_free(mantissa, dtype);
        buffer_free(again, dtype);
    }
    release(&t);
}

/* A NaN or infinity in one entry of one layer is found, named, and kept out of the exponent. */
static void check_bad_product(const jm_table *table, int dtype, recipe r, double bad,
                              int in_slopes) {
    for (int k = 0; k < r.n_layers; k++)
        for (ptrdiff_t range = 1; range <= r.n_layers; range += 2) {
            test_chain t = build(&r, dtype);
            const ptrdiff_t n = r.widths[0], per_layer = in_slopes ? n : n * n;
            set(in_slopes ? t.slopes[0] : t.weights[0], dtype, (k + 1) * per_layer - 1, bad);
            void *mantissa = buffer(n * n, dtype);
            int64_t exponent = 99;
            ptrdiff_t bad_layer = 99;
            const int status =
                run_product(table, &t, &r, 0, range, mantissa, &exponent, &bad_layer);
            int is_finite = 1;
            for (ptrdiff_t i = 0; i < n * n; i++)
                is_finite &= isfinite(get(mantissa, dtype, i)) != 0;
            check(status == JM_NON_FINITE && bad_layer == k && exponent == 0 && !is_finite,
                  "%g in layer %d of width %td: status %d, layer %td", bad, k, n, status,
                  bad_layer);
            buffer_free(mantissa, dtype);
            release(&t);
        }
}

/* Two listed layers, from width n to m and back, that repeat through an odd number of layers. */
static recipe repeating(ptrdiff_t n, ptrdiff_t m, int variant) {
    recipe r = square(n, MAX_LAYERS);
    for (int k = 1; k <= MAX_LAYERS; k += 2)
        r.widths[k] = m;
    r.is_listed = 1;
    r.n_distinct = 2;
    r.has_slopes = variant & 1;
    r.side = variant & 2 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
    r.has_own_weights = variant & 4;
    r.has_own_slopes = 1;
    return r;
}

static void check_zero_product(const jm_table *table, int dtype, ptrdiff_t n) {
    recipe r = square(n, 4);
    test_chain t = build(&r, dtype);
    for (ptrdiff_t i = 0; i < n * n; i++)
        set(t.weights[0], dtype, 2 * n * n + i, 0);
    void *mantissa = buffer(n * n, dtype);
    int64_t exponent = 99;
    ptrdiff_t bad_layer = 99;
    const int status = run_product(table, &t, &r, 0, 4, mantissa, &exponent, &bad_layer);
    int is_zero = 1;
    for (ptrdiff_t i = 0; i < n * n; i++)
        is_zero &= get(mantissa, dtype, i) == 0;
    check(status == JM_OK && bad_layer == -1 && exponent == 0 && is_zero,
          "zero product of width %td", n);
    buffer_free(mantissa, dtype);
    release(&t);
}

/*
 * Samples that are taken together have the bits of one at a time, whether all are plain, one is bad
 * or zero, or their scales differ beyond what one may keep unscaled.
 */
static void check_group(const jm_table *table, int dtype, ptrdiff_t n, int variant) {
    enum { N_LAYERS = 3 };
    const ptrdiff_t per_sample = N_LAYERS * n * n;
    jm_chain chain = {.n_layers = N_LAYERS, .n_distinct = 1, .weights_layer_stride = n * n};
    chain.first.rows = chain.first.cols = n;
    chain.first.weights_stride = per_sample;
    const ptrdiff_t count = table->chain_product_group[dtype](&chain);
    void *weights = buffer(count * per_sample, dtype);
    fill(weights, dtype, count * per_sample, 1);
    chain.first.weights = weights;
    const ptrdiff_t odd_one = variant % count * per_sample;
    for (ptrdiff_t i = 0; variant && i < n * n; i++) {
        const double scale = variant == 1 ? 0 : variant == 2 ? 0x1p60 : 0x1p-60;
        const ptrdiff_t at = odd_one + n * n + i;
        set(weights, dtype, at, get(weights, dtype, at) * scale * (variant == 4 ? INFINITY : 1));
    }
    void *together = buffer(count * n * n, dtype), *alone = buffer(n * n, dtype);
    int64_t *exponents = (int64_t *)buffer(count, JM_F64), exponent = 99;
    ptrdiff_t *bad_layers = workspace((size_t)count * sizeof(ptrdiff_t)), bad_layer = 99;
    void *work = workspace((size_t)count * table->chain_product_work[dtype](n, n));
    table->chain_products[dtype](&chain, 0, count, n, 0, N_LAYERS, together, exponents, bad_layers,
                                 work);
    for (ptrdiff_t b = 0; b < count; b++) {
        const int status = table->chain_product[dtype](&chain, b, n, 0, N_LAYERS, alone, &exponent,
                                                       &bad_layer, work);
        check((status != JM_OK) == (variant == 4 && b == variant % count),
              "group of width %td: status %d of sample %td", n, status, b);
        const char *at = (const char *)together + (size_t)(b * n * n) * size_of(dtype);
        check(same_bits(at, alone, (size_t)(n * n) * size_of(dtype)) && exponents[b] == exponent &&
                  bad_layers[b] == bad_layer,
              "group of width %td, variant %d: sample %td has other bits than alone", n, variant,
              b);
    }
    workspace_free(work);
    workspace_free(bad_layers);
    buffer_free(exponents, JM_F64);
    buffer_free(alone, dtype);
    buffer_free(together, dtype);
    buffer_free(weights, dtype);
}

void test_chain_product(const jm_table *table, int dtype) {
    for (int i = 0; i < N_SIZES; i += SIZE_STEP)
        for (int variant = 0; variant < 16; variant++) {
            recipe r = square(SIZES[i], 1 + (i + variant) % MAX_LAYERS);
            r.has_slopes = variant & 1;
            r.side = variant & 2 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
            r.shortcut = variant & 4 ? 0.5 : 0;
            r.has_own_weights = !(variant & 8);
            r.has_own_slopes = (variant & 9) == 9;
            check_product(table, dtype, &r, "square");
            r.from_last = 1;
            check_product(table, dtype, &r, "square, from the last layer");
        }
    static const ptrdiff_t widths[][MAX_LAYERS + 1] = {
        {3, 5, 2, 1, 4, 6}, {1, 7, 1, 65, 1, 2}, {17, 3, 40, 9, 33, 8}, {64, 1, 33, 2, 31, 65}};
    for (int i = 0; i < 4; i++)
        for (int variant = 0; variant < 8; variant++) {
            recipe r = square(1, MAX_LAYERS);
            memcpy(r.widths, widths[i], sizeof r.widths);
            r.is_listed = 1;
            r.has_slopes = variant & 1;
            r.side = variant & 2 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
            r.has_own_weights = variant & 4;
            r.has_own_slopes = !(variant & 4);
            check_product(table, dtype, &r, "rectangular");
            r.from_last = 1;
            check_product(table, dtype, &r, "rectangular, from the last layer");
        }
    for (int i = 0; i < N_SIZES; i += SIZE_STEP) {
        recipe r = square(SIZES[i], 3);
        r.is_listed = 1;
        r.diagonal = i % 3;
        r.shortcut = i % 2 ? 0.25 : 0;
        check_product(table, dtype, &r, "one layer diagonal");
        r = repeating(SIZES[i], SIZES[N_SIZES - 1 - i], i);
        check_product(table, dtype, &r, "listed layers that repeat");
    }
    /* Subnormal weights have few digits but those are exact; the slopes bring sums back or
     * overflow. */
    const double top = largest_number(dtype) / 16;
    const double scales[] = {top, 1 / top, 1024 * smallest_number(dtype), sqrt(top)};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            for (int n = 0; n < N_SIZES; n += 3) {
                recipe r = square(SIZES[n], MAX_LAYERS);
                r.has_slopes = j > 0;
                r.side = n % 2 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
                r.weight_scale = scales[i];
                r.slope_scale = scales[j];
                r.from_last = n % 4 == 0;
                check_product(table, dtype, &r, "extreme");
            }
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < N_SIZES; n += 2) {
            recipe r = square(SIZES[n], 4);
            check_bad_product(table, dtype, r, bad[i], 0);
            r.has_slopes = 1;
            r.side = n % 4 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
            check_bad_product(table, dtype, r, bad[i], 1);
            r.from_last = 1;
            check_bad_product(table, dtype, r, bad[i], 1);
        }
    for (int n = 0; n < N_SIZES; n++)
        check_zero_product(table, dtype, SIZES[n]);
    for (ptrdiff_t n = 1; n <= 5; n++)
        for (int variant = 0; variant < 5; variant++)
            check_group(table, dtype, n, variant);
}

/* ---- vectors ---------------------------------------------------------------------------- */

/* Results of a run over vectors, in exactly sized buffers. */
typedef struct {
    double *log_norms;
    void *kept[MAX_LAYERS + 1];
    int64_t *kept_exponents[MAX_LAYERS + 1];
    ptrdiff_t bad_layers[MAX_VECTORS];
    int status;
} trace;

static trace new_trace(const recipe *r, int dtype, ptrdiff_t n_vectors) {
    trace out = {.log_norms = buffer(n_vectors * (r->n_layers + 1), JM_F64)};
    for (int k = 0; k <= r->n_layers; k++) {
        out.kept[k] = buffer(n_vectors * r->widths[k], dtype);
        out.kept_exponents[k] = buffer(n_vectors, JM_F64); /* int64_t has the size of a double */
    }
    return out;
}

static void free_trace(trace *out, const recipe *r, int dtype) {
    for (int k = 0; k <= r->n_layers; k++) {
        buffer_free(out->kept[k], dtype);
        buffer_free(out->kept_exponents[k], JM_F64);
    }
    buffer_free(out->log_norms, JM_F64);
}

/* All vectors in groups of at most `most`, within a sample if the weights are the sample's own. */
static void run_vectors(const jm_table *table, test_chain *t, const recipe *r, int transposed,
                        const void *start, ptrdiff_t n_vectors, ptrdiff_t per_sample,
                        ptrdiff_t most, ptrdiff_t range, trace *out) {
    const jm_chain *chain = described(t, r);
    const jm_vectors vectors = {.n_vectors = n_vectors,
                                .per_sample = per_sample,
                                .has_shared_weights = !r->has_own_weights,
                                .start = start,
                                .log_norms = out->log_norms,
                                .kept = out->kept,
                                .kept_exponents = out->kept_exponents};
    const ptrdiff_t run = r->has_own_weights ? per_sample : n_vectors;
    out->status = JM_OK;
    for (ptrdiff_t first = 0, count; first < n_vectors; first += count) {
        const ptrdiff_t left = run - first % run;
        count = left < most ? left : most;
        void *work = workspace(table->chain_vectors_work[t->dtype](t->max_width));
        int status = JM_OK;
        for (ptrdiff_t begin = 0; begin < r->n_layers; begin += range) {
            const ptrdiff_t end = begin + range < r->n_layers ? begin + range : r->n_layers;
            status = (transposed ? table->chain_vjp : table->chain_jvp)[t->dtype](
                chain, &vectors, t->max_width, first, count, begin, end, out->bad_layers + first,
                work);
        }
        out->status = status == JM_OK ? out->status : status;
        workspace_free(work);
    }
}

static void check_same_trace(const recipe *r, int dtype, ptrdiff_t n_vectors, const trace *a,
                             const trace *b, const char *what) {
    const size_t n = (size_t)n_vectors;
    int is_same =
        same_bits(a->log_norms, b->log_norms, n * (size_t)(r->n_layers + 1) * sizeof(double));
    for (int k = 0; k <= r->n_layers; k++) {
        is_same &= same_bits(a->kept[k], b->kept[k], n * (size_t)r->widths[k] * size_of(dtype));
        is_same &= same_bits(a->kept_exponents[k], b->kept_exponents[k], n * sizeof(int64_t));
    }
    check(is_same, "width %td: %s gives other bits", r->widths[0], what);
}

static void check_vectors(const jm_table *table, int dtype, const recipe *r, int transposed,
                          ptrdiff_t per_sample) {
    const ptrdiff_t n_vectors = N_SAMPLES * per_sample;
    const int n_layers = r->n_layers;
    const ptrdiff_t n_start = r->widths[transposed ? n_layers : 0];
    test_chain t = build(r, dtype);
    const ptrdiff_t group = table->chain_vectors_group[dtype](t.max_width, !r->has_own_weights);
    void *start = buffer(n_vectors * n_start, dtype);
    fill(start, dtype, n_vectors * n_start, 1);
    trace out = new_trace(r, dtype, n_vectors), again = new_trace(r, dtype, n_vectors);
    run_vectors(table, &t, r, transposed, start, n_vectors, per_sample, group, n_layers, &out);
    check(out.status == JM_OK, "width %td: status %d", r->widths[0], out.status);

    static matrix f, magnitude, exact, size;
    for (ptrdiff_t v = 0; v < n_vectors; v++) {
        double roundings = 4;
        int is_close = 1, is_log_close = 1;
        for (ptrdiff_t i = 0; i < n_start; i++) {
            exact[i][0] = get(start, dtype, v * n_start + i);
            size[i][0] = fabsl(exact[i][0]);
        }
        for (int passed = 0; passed <= n_layers; passed++) {
            const int at = transposed ? n_layers - passed : passed;
            if (passed > 0) {
                const int k = transposed ? at : at - 1;
                factor(&t, r, k, v / per_sample, f, magnitude);
                if (transposed) {
                    transpose(r->widths[k + 1], r->widths[k], f);
                    transpose(r->widths[k + 1], r->widths[k], magnitude);
                }
                apply(r->widths[at], r->widths[transposed ? k + 1 : k], 1, f, magnitude, exact,
                      size);
                roundings += (double)r->widths[transposed ? k + 1 : k] + 3;
            }
            long double norm2 = 0, error2 = 0, largest = 0;
            for (ptrdiff_t i = 0; i < r->widths[at]; i++)
                largest = fmaxl(largest, fabsl(exact[i][0]));
            for (ptrdiff_t i = 0; i < r->widths[at]; i++) {
                const double m = get(out.kept[at], dtype, v * r->widths[at] + i);
                const long double error =
                    fabsl(ldexpl(m, (int)out.kept_exponents[at][v]) - exact[i][0]);
                const long double bound =
                    (long double)(roundings * unit_roundoff(dtype)) * size[i][0];
                is_close &= error <= bound;
                norm2 += exact[i][0] / largest * (exact[i][0] / largest);
                error2 += bound / largest * (bound / largest);
            }
            const double log_norm = (double)(logl(largest) + 0.5L * logl(norm2));
            const double slack = 1.01 * (double)sqrtl(error2 / norm2) +
                                 ((double)r->widths[at] + 4) * unit_roundoff(dtype) +
                                 2 * DBL_EPSILON * (1 + fabs(log_norm));
            is_log_close &= fabs(out.log_norms[v * (n_layers + 1) + at] - log_norm) <= slack;
        }
        check(is_close, "width %td, vector %td: off the exact result", r->widths[0], v);
        check(is_log_close, "width %td, vector %td: wrong log-norm", r->widths[0], v);
        check(out.bad_layers[v] == -1, "vector %td: bad layer %td", v, out.bad_layers[v]);
    }
    run_vectors(table, &t, r, transposed, start, n_vectors, per_sample, 1, n_layers, &again);
    check_same_trace(r, dtype, n_vectors, &out, &again, "one vector at a time");
    for (ptrdiff_t range = 1; range < n_layers; range++) {
        run_vectors(table, &t, r, transposed, start, n_vectors, per_sample, group, range, &again);
        check_same_trace(r, dtype, n_vectors, &out, &again, "taking the layers in ranges");
    }
    free_trace(&out, r, dtype);
    free_trace(&again, r, dtype);
    buffer_free(start, dtype);
    release(&t);
}

/* A bad entry of sample 1 is named there and leaves sample 0's vectors alone. */
static void check_bad_vectors(const jm_table *table, int dtype, ptrdiff_t n, int transposed,
                              double bad) {
    recipe r = square(n, 4);
    r.has_slopes = r.has_own_slopes = 1;
    const ptrdiff_t per_sample = table->chain_vectors_group[dtype](n, 1) / 2;
    const ptrdiff_t n_vectors = 2 * per_sample;
    void *start = buffer(n_vectors * n, dtype);
    fill(start, dtype, n_vectors * n, 1);
    for (int k = 0; k < r.n_layers; k++) {
        test_chain t = build(&r, dtype);
        trace good = new_trace(&r, dtype, n_vectors), out = new_trace(&r, dtype, n_vectors);
        run_vectors(table, &t, &r, transposed, start, n_vectors, per_sample, n_vectors, 4, &good);
        set(t.slopes[0], dtype, (r.n_layers + k) * n, bad);
        run_vectors(table, &t, &r, transposed, start, n_vectors, per_sample, n_vectors, 4, &out);
        const int far = transposed ? 0 : r.n_layers;
        int is_named = out.status == JM_NON_FINITE;
        for (ptrdiff_t v = 0; v < n_vectors; v++)
            is_named &= out.bad_layers[v] == (v < per_sample ? -1 : k);
        check(is_named, "width %td: %g in layer %d is not named", n, bad, k);
        check(same_bits(out.kept[far], good.kept[far], (size_t)(per_sample * n) * size_of(dtype)),
              "width %td: %g in layer %d reaches the other sample", n, bad, k);
        int is_finite = 1;
        for (ptrdiff_t i = per_sample * n; i < (per_sample + 1) * n; i++)
            is_finite &= isfinite(get(out.kept[far], dtype, i)) != 0;
        check(!is_finite && out.kept_exponents[far][per_sample] == 0,
              "width %td: %g in layer %d is lost", n, bad, k);
        free_trace(&good, &r, dtype);
        free_trace(&out, &r, dtype);
        release(&t);
    }
    buffer_free(start, dtype);
}

/* A bad entry of one start vector is named as that and leaves the other vectors alone. */
static void check_bad_start(const jm_table *table, int dtype, ptrdiff_t n, int transposed,
                            int has_own_weights, double bad) {
    recipe r = square(n, 3);
    r.has_own_weights = has_own_weights;
    const ptrdiff_t n_vectors = 2 * N_SAMPLES, far = transposed ? 0 : r.n_layers;
    void *start = buffer(n_vectors * n, dtype);
    fill(start, dtype, n_vectors * n, 1);
    test_chain t = build(&r, dtype);
    trace good = new_trace(&r, dtype, n_vectors), out = new_trace(&r, dtype, n_vectors);
    run_vectors(table, &t, &r, transposed, start, n_vectors, 2, 2, r.n_layers, &good);
    set(start, dtype, n_vectors * n - 1, bad);
    run_vectors(table, &t, &r, transposed, start, n_vectors, 2, 2, r.n_layers, &out);
    int is_named = out.status == JM_NON_FINITE, is_finite = 1;
    for (ptrdiff_t v = 0; v < n_vectors; v++)
        is_named &= out.bad_layers[v] == (v < n_vectors - 1 ? -1 : r.n_layers);
    check(is_named, "width %td: %g in a start vector is not named", n, bad);
    check(same_bits(out.kept[far], good.kept[far], (size_t)((n_vectors - 1) * n) * size_of(dtype)),
          "width %td: %g in a start vector reaches another", n, bad);
    for (ptrdiff_t i = (n_vectors - 1) * n; i < n_vectors * n; i++)
        is_finite &= isfinite(get(out.kept[far], dtype, i)) != 0;
    check(!is_finite, "width %td: %g in a start vector is lost", n, bad);
    free_trace(&good, &r, dtype);
    free_trace(&out, &r, dtype);
    buffer_free(start, dtype);
    release(&t);
}

/* Without kept vectors only the far end and the log-norms are written; a zero vector stays zero. */
static void check_log_norms_alone(const jm_table *table, int dtype, int transposed) {
    recipe r = square(5, 3);
    test_chain t = build(&r, dtype);
    void *start = buffer(5, dtype);
    double *log_norms = buffer(4, JM_F64);
    void *last = buffer(5, dtype);
    int64_t last_exponent = 99;
    void *far_end[] = {last, &last_exponent};
    const jm_vectors vectors = {.n_vectors = 1,
                                .per_sample = 1,
                                .has_shared_weights = 1,
                                .start = start,
                                .log_norms = log_norms,
                                .kept = far_end};
    void *work = workspace(table->chain_vectors_work[dtype](5));
    ptrdiff_t bad_layer = 99;
    const int status = (transposed ? table->chain_vjp : table->chain_jvp)[dtype](
        described(&t, &r), &vectors, 5, 0, 1, 0, 3, &bad_layer, work);
    int is_zero = status == JM_OK && bad_layer == -1 && last_exponent == 0;
    for (int k = 0; k <= 3; k++)
        is_zero &= isinf(log_norms[k]) && log_norms[k] < 0;
    for (int i = 0; i < 5; i++)
        is_zero &= get(last, dtype, i) == 0;
    check(is_zero, "a zero vector");
    workspace_free(work);
    buffer_free(last, dtype);
    buffer_free(log_norms, JM_F64);
    buffer_free(start, dtype);
    release(&t);
}

void test_chain_vectors(const jm_table *table, int dtype) {
    const ptrdiff_t group = table->chain_vectors_group[dtype](MAX_WIDTH, 1);
    check(N_SAMPLES * (group + 1) <= MAX_VECTORS, "groups of %td do not fit this test", group);
    for (int transposed = 0; transposed <= 1; transposed++) {
        for (int i = 0; i < N_SIZES; i += SIZE_STEP)
            for (int variant = 0; variant < 8; variant++) {
                recipe r = square(SIZES[i], 1 + (i + variant) % 4);
                r.has_slopes = variant > 0;
                r.side = variant & 1 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
                r.shortcut = variant & 2 ? 0.5 : 0;
                r.has_own_weights = (variant & 4) != 0;
                r.has_own_slopes = variant > 2;
                const ptrdiff_t per_sample = variant % 3 == 0   ? 1
                                             : variant % 3 == 1 ? 3
                                                                : group + 1;
                check_vectors(table, dtype, &r, transposed, per_sample);
            }
        recipe r = square(1, MAX_LAYERS);
        memcpy(r.widths, (ptrdiff_t[]){7, 12, 3, 33, 1, 9}, sizeof r.widths);
        r.is_listed = r.has_slopes = r.has_own_slopes = 1;
        check_vectors(table, dtype, &r, transposed, 2);
        r.side = JM_SLOPE_INPUT;
        r.has_own_weights = 1;
        check_vectors(table, dtype, &r, transposed, 2);
        for (int i = 0; i < N_SIZES; i += SIZE_STEP) {
            r = repeating(SIZES[i], SIZES[N_SIZES - 1 - i], i);
            check_vectors(table, dtype, &r, transposed, 2);
        }
        r = square(9, 3);
        r.is_listed = r.has_own_slopes = 1;
        r.diagonal = 1;
        check_vectors(table, dtype, &r, transposed, 3);

        const double top = largest_number(dtype) / 16;
        const double scales[] = {top, 1 / top, 1024 * smallest_number(dtype), sqrt(top)};
        for (int i = 0; i < 16; i++) {
            r = square(i % 2 ? 5 : 17, MAX_LAYERS);
            r.has_slopes = r.has_own_slopes = 1;
            r.side = i % 3 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
            r.weight_scale = scales[i / 4];
            r.slope_scale = scales[i % 4];
            check_vectors(table, dtype, &r, transposed, 2);
        }
        static const double bad[] = {NAN, INFINITY};
        for (int i = 0; i < 2; i++)
            for (int n = 0; n < N_SIZES; n += 4) {
                check_bad_vectors(table, dtype, SIZES[n], transposed, bad[i]);
                check_bad_start(table, dtype, SIZES[n], transposed, i, bad[i]);
            }
        check_log_norms_alone(table, dtype, transposed);
    }
}
