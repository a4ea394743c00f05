/* chain_product against loops in long double. */
#include "random_chain.h"

/* One sample's product, its layers in ranges of `range`; what the kernel returns. */
static int run_product(const jm_table *table, test_chain *t, const recipe *r, ptrdiff_t sample,
                       ptrdiff_t range, void *mantissa, int64_t *exponent, ptrdiff_t *bad_layer) {
    const jm_chain *chain = described(t, r);
    const ptrdiff_t n_columns = r->widths[r->from_last ? r->n_layers : 0];
    void *work = workspace(table->chains->chain_product_work[t->dtype](t->max_width, n_columns));
    int status = JM_OK;
    for (ptrdiff_t begin = 0; begin < r->n_layers; begin += range) {
        const ptrdiff_t end = begin + range < r->n_layers ? begin + range : r->n_layers;
        status = table->chains->chain_product[t->dtype](chain, sample, t->max_width, begin, end,
                                                        mantissa, exponent, bad_layer, work);
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
    const ptrdiff_t count = table->chains->chain_product_group[dtype](&chain);
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
    void *work = workspace((size_t)count * table->chains->chain_product_work[dtype](n, n));
    table->chains->chain_products[dtype](&chain, 0, count, n, 0, N_LAYERS, together, exponents,
                                         bad_layers, work);
    for (ptrdiff_t b = 0; b < count; b++) {
        const int status = table->chains->chain_product[dtype](&chain, b, n, 0, N_LAYERS, alone,
                                                               &exponent, &bad_layer, work);
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
