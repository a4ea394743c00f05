/*
 * chain_log_svdvals on buffers that end exactly: the sum of the logs against a determinant in long
 * double, layer ranges against one go, zero rows, extreme scales, NaN.
 */
#include <math.h>
#include <string.h>

#include "check.h"

enum { N_LAYERS = 3, MAX_N = 17 };

static jm_chain square_chain(ptrdiff_t n, const void *weights, const void *slopes) {
    jm_chain chain = {.n_layers = N_LAYERS, .n_distinct = 1};
    chain.first.weights = weights;
    chain.first.slopes = slopes;
    chain.first.rows = chain.first.cols = n;
    chain.weights_layer_stride = n * n;
    chain.slopes_layer_stride = n;
    return chain;
}

/* ln |det|, by elimination with partial pivoting. */
static long double log_det(ptrdiff_t n, const void *weights, int dtype, ptrdiff_t at) {
    long double a[MAX_N][MAX_N], sum = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            a[i][j] = get(weights, dtype, at + i * n + j);
    for (ptrdiff_t k = 0; k < n; k++) {
        ptrdiff_t pivot = k;
        for (ptrdiff_t i = k + 1; i < n; i++)
            pivot = fabsl(a[i][k]) > fabsl(a[pivot][k]) ? i : pivot;
        for (ptrdiff_t j = 0; j < n; j++) {
            const long double kept = a[k][j];
            a[k][j] = a[pivot][j];
            a[pivot][j] = kept;
        }
        sum += logl(fabsl(a[k][k]));
        for (ptrdiff_t i = k + 1; i < n; i++) {
            const long double factor = a[i][k] / a[k][k];
            for (ptrdiff_t j = k; j < n; j++)
                a[i][j] -= factor * a[k][j];
        }
    }
    return sum;
}

static void check_size(const jm_table *table, int dtype, ptrdiff_t n, double scale) {
    void *weights = buffer(N_LAYERS * n * n, dtype), *slopes = buffer(N_LAYERS * n, dtype);
    double *values = buffer(n, JM_F64), *errors = buffer(n, JM_F64), *again = buffer(n, JM_F64);
    void *work = workspace(table->spectra->chain_log_svdvals_work[dtype](n, n));
    ptrdiff_t bad_layer = 7;
    long double expected = 0;
    for (ptrdiff_t i = 0; i < N_LAYERS * n * n; i++)
        set(weights, dtype, i, normal() * scale);
    for (ptrdiff_t i = 0; i < N_LAYERS * n; i++)
        set(slopes, dtype, i, 0.5 + uniform());
    for (int k = 0; k < N_LAYERS; k++)
        expected += log_det(n, weights, dtype, k * n * n);
    for (ptrdiff_t i = 0; i < N_LAYERS * n; i++)
        expected += logl(get(slopes, dtype, i));
    const jm_chain chain = square_chain(n, weights, slopes);
    check(table->spectra->chain_log_svdvals[dtype](&chain, 0, n, 0, N_LAYERS, values, errors,
                                                   &bad_layer, work) == JM_OK,
          "status, n = %d", (int)n);
    long double sum = 0, room = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        sum += values[i];
        room += errors[i];
        check(i == 0 || values[i] <= values[i - 1], "order, n = %d", (int)n);
    }
    check(fabsl(sum - expected) <= room, "log det %Lg for %Lg +- %Lg, n = %d", sum, expected, room,
          (int)n);
    check(bad_layer == -1, "bad layer, n = %d", (int)n);
    for (ptrdiff_t k = 0; k < N_LAYERS; k++)
        (void)table->spectra->chain_log_svdvals[dtype](&chain, 0, n, k, k + 1, again, errors,
                                                       &bad_layer, work);
    check(same_bits(values, again, (size_t)n * sizeof(double)), "layer ranges, n = %d", (int)n);

    set(slopes, dtype, n, 0); /* a zero row of layer 1 */
    (void)table->spectra->chain_log_svdvals[dtype](&chain, 0, n, 0, N_LAYERS, values, errors,
                                                   &bad_layer, work);
    check(isinf(values[n - 1]) && errors[n - 1] == 0, "zero row, n = %d", (int)n);
    check(n == 1 || isfinite(values[n - 2]), "rank, n = %d", (int)n);

    set(weights, dtype, 2 * n * n, NAN);
    check(table->spectra->chain_log_svdvals[dtype](&chain, 0, n, 0, N_LAYERS, values, errors,
                                                   &bad_layer, work) == JM_NON_FINITE,
          "NaN, n = %d", (int)n);
    check(bad_layer == 2 && isnan(values[0]), "NaN's layer, n = %d", (int)n);
    buffer_free(weights, dtype);
    buffer_free(slopes, dtype);
    buffer_free(values, JM_F64);
    buffer_free(errors, JM_F64);
    buffer_free(again, JM_F64);
    workspace_free(work);
}

void test_chain_svdvals(const jm_table *table, int dtype) {
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 5, 8, 9, 16, 17};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int s = -1; s <= 1; s++)
            check_size(table, dtype, sizes[i], s == 0 ? 1 : pow(largest_number(dtype), 0.9 * s));
}
