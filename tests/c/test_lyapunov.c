/*
 * lyapunov_spectrum where the answer is known: factors that are a multiple of a rotation, any
 * width, at ordinary and extreme scales, in one go and in ranges; and bad input.
 */
#include <math.h>

#include "check.h"

enum { N_LAYERS = 40, N_ITEMS = 3 };

/* W = scale times a permutation with signs: every exponent is log |scale|. */
static void fill_rotation(void *weights, int dtype, ptrdiff_t n, ptrdiff_t n_matrices,
                          double scale) {
    for (ptrdiff_t m = 0; m < n_matrices; m++)
        for (ptrdiff_t r = 0; r < n; r++)
            set(weights, dtype, (m * n + r) * n + (r + m) % n, uniform() < 0.5 ? scale : -scale);
}

static void check_rotation(const jm_table *table, int dtype, ptrdiff_t n, ptrdiff_t k, double scale,
                           int is_bad) {
    const ptrdiff_t size = N_LAYERS * n * n;
    void *weights = buffer(N_ITEMS * size, dtype), *start = buffer(n * k, dtype);
    double *exponents = buffer(N_ITEMS * k, JM_F64), *errors = buffer(N_ITEMS * k, JM_F64);
    double *history = buffer(N_ITEMS * (N_LAYERS - 3) * k, JM_F64);
    fill_rotation(weights, dtype, n, N_ITEMS * N_LAYERS, scale);
    for (ptrdiff_t i = 0; i < n * k; i++)
        set(start, dtype, i, normal());
    if (is_bad)
        set(weights, dtype, size + 5 * n * n, NAN);
    const jm_chain chain = {
        .n_layers = N_LAYERS,
        .n_distinct = 1,
        .first = {.weights = weights, .weights_stride = size, .rows = n, .cols = n},
        .weights_layer_stride = n * n};
    jm_lyapunov job = {.max_width = n,
                       .is_square = 1,
                       .n_columns = k,
                       .burn_in = 3,
                       .n_batches = 5,
                       .start = start,
                       .exponents = exponents,
                       .standard_errors = errors,
                       .history = is_bad ? NULL : history};
    const ptrdiff_t group = table->spectra->lyapunov_spectrum_group[dtype](&job);
    const size_t bytes = table->spectra->lyapunov_spectrum_work[dtype](&job);
    void *work = workspace(bytes);
    ptrdiff_t bad_layer[N_ITEMS];
    for (ptrdiff_t first = 0; first < N_ITEMS; first += group) {
        const ptrdiff_t count = N_ITEMS - first < group ? N_ITEMS - first : group;
        for (ptrdiff_t begin = 0; begin < N_LAYERS; begin += is_bad ? 7 : N_LAYERS)
            table->spectra->lyapunov_spectrum[dtype](
                &chain, &job, first, count, begin,
                is_bad && begin + 7 < N_LAYERS ? begin + 7 : N_LAYERS, bad_layer + first, work);
    }
    for (ptrdiff_t i = 0; i < N_ITEMS; i++) {
        check(bad_layer[i] == (is_bad && i == 1 ? 5 : -1), "bad layer of item %td, n = %td", i, n);
        for (ptrdiff_t j = 0; j < k; j++) {
            const double off = exponents[i * k + j] - log(scale);
            const double bound = N_LAYERS * (double)(n + 4) * unit_roundoff(dtype) * 8;
            if (is_bad && i == 1)
                check(isnan(exponents[i * k + j]), "NaN is propagated, n = %td", n);
            else
                check(fabs(off) <= bound + 1e-13 * fabs(log(scale)),
                      "exponent %td of n = %td, scale %g: off by %g", j, n, scale, off);
        }
    }
    workspace_free(work);
    buffer_free(history, JM_F64);
    buffer_free(errors, JM_F64);
    buffer_free(exponents, JM_F64);
    buffer_free(start, dtype);
    buffer_free(weights, dtype);
}

void test_lyapunov_spectrum(const jm_table *table, int dtype) {
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 5, 8, 9, 16, 17, 33};
    const double top = ldexp(1, dtype == JM_F64 ? 1020 : 124);
    const double scales[] = {1, 3, top, 1 / top};
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 4; j++) {
            const ptrdiff_t n = sizes[i];
            check_rotation(table, dtype, n, j % 2 ? n : (n + 1) / 2, scales[j], 0);
            check_rotation(table, dtype, n, n, scales[j], 1);
        }
}
