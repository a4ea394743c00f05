/* The kernel of the tables of two-point means. */
#include <float.h>
#include <math.h>

#include "check.h"

enum { N_OCTAVES = 6, LOW_OCTAVE = -2, N_TERMS = 20, ROW = 24, MANY = 403 };

static const int FIRST_LOG2[] = {-3, -1, 0};

/* Pieces of s in the octave from 2^k. */
static int n_pieces(int k, int first_log2) { return 2 + (k > first_log2 ? k - first_log2 : 0); }

static double chebyshev(double x, int degree) {
    return x >= 1 ? 1 : x <= -1 ? (degree % 2 ? -1 : 1) : cos(degree * acos(x));
}

/* The number of an item's patch and the place in it, found by walking through all of them. */
static ptrdiff_t locate(int first_log2, double q, double distance, double *x, double *y) {
    const double scale = sqrt(distance >= 0.5 ? q : q * (1 - distance)), s = sqrt(q * distance);
    ptrdiff_t number = N_OCTAVES;
    int k = LOW_OCTAVE;
    for (; scale >= ldexp(1, k + 1); k++)
        number += n_pieces(k, first_log2);
    *x = 2 * (scale / ldexp(1, k) - 1) - 1;
    if (distance >= 0.5) {
        *y = 4 * (1 - distance) - 1;
        return k - LOW_OCTAVE;
    }
    double start = 0, end = ldexp(1, k < first_log2 ? k : first_log2);
    for (; s >= end; number++) {
        start = end;
        end *= 2;
    }
    *y = 2 * (s - start) / (end - start) - 1;
    return number;
}

static void check_table(const jm_table *table, int dtype, int first_log2, int which) {
    ptrdiff_t n_patches = N_OCTAVES;
    for (int k = LOW_OCTAVE; k < LOW_OCTAVE + N_OCTAVES; k++)
        n_patches += n_pieces(k, first_log2);
    double *coefficients = buffer(n_patches * 4 * N_TERMS * ROW, JM_F64);
    for (ptrdiff_t i = 0; i < n_patches * 4 * N_TERMS; i++)
        for (int j = 0; j < N_TERMS; j++)
            coefficients[i * ROW + j] = normal();
    int32_t *patches = workspace((size_t)n_patches * sizeof(int32_t));
    for (ptrdiff_t i = 0; i < n_patches; i++) /* backwards, and some are not there */
        patches[i] = i % 7 == 3 ? -1 : (int32_t)(n_patches - 1 - i);
    const jm_two_point_table two_point = {coefficients, patches, N_OCTAVES, LOW_OCTAVE, first_log2};
    void *q = buffer(MANY, dtype), *near = buffer(MANY, dtype), *out = buffer(MANY, dtype);
    void *single = buffer(MANY, dtype);
    for (int i = 0; i < MANY; i++) {
        const double distance = i % 5 ? uniform() : ldexp(uniform(), -3 * i);
        set(q, dtype, i, exp2(2 * LOW_OCTAVE + 2 + (2 * N_OCTAVES - 4) * uniform()));
        set(near, dtype, i, i % 3 ? distance : -distance);
    }
    set(near, dtype, 1, 0), set(near, dtype, 3, -0.0), set(near, dtype, 4, 0.5);
    set(near, dtype, 6, 1), set(near, dtype, 9, -1), set(q, dtype, 10, 0);
    set(q, dtype, 11, largest_number(dtype)), set(q, dtype, 12, NAN), set(near, dtype, 13, NAN);
    set(q, dtype, 14, INFINITY), set(q, dtype, 15, -1), set(q, dtype, 16, 1), set(q, dtype, 17, 4);
    const int status =
        table->moments->two_point_table[dtype](&two_point, q, near, which, out, 0, MANY);
    check(status == JM_NOT_TABULATED, "two_point_table: status %d", status);
    for (int i = 0; i < MANY; i++) {
        int one =
            table->moments->two_point_table[dtype](&two_point, q, near, which, single, i, i + 1);
        double item = get(q, dtype, i), x, y;
        const double c = get(near, dtype, i), found = get(out, dtype, i);
        if (!(item >= 0 && item <= DBL_MAX && fabs(c) <= 1)) {
            check(isnan(found) && one == JM_OK, "two_point_table: %g of item %d", found, i);
            continue;
        }
        item = fmin(fmax(item, ldexp(1, 2 * LOW_OCTAVE + 2)),
                    ldexp(1, 2 * (LOW_OCTAVE + N_OCTAVES) - 1));
        const ptrdiff_t number = locate(first_log2, item, fabs(c), &x, &y);
        if (patches[number] < 0) {
            check(isnan(found) && one == JM_NOT_TABULATED, "two_point_table: patch %d is there",
                  (int)number);
            continue;
        }
        const double *terms = coefficients + (patches[number] * 4 + (signbit(c) ? 2 : 0) + which) *
                                                 (ptrdiff_t)(N_TERMS * ROW);
        double expected = 0, size = 0;
        for (int a = 0; a < N_TERMS; a++)
            for (int b = 0; b < N_TERMS; b++) {
                expected += terms[a * ROW + b] * chebyshev(y, a) * chebyshev(x, b);
                size += fabs(terms[a * ROW + b]);
            }
        /* A place in the patch is good to 4 u, and a term of degree n moves by n^2 times that. */
        const double error = 2 * 400 * 4 * 0x1p-53 + (dtype == JM_F32 ? 0x1p-24 : 0);
        check(one == JM_OK && fabs(found - expected) <= error * size,
              "two_point_table, first %d, item %d: %.17g, expected %.17g", first_log2, i, found,
              expected);
    }
    check(same_bits(out, single, MANY * size_of(dtype)),
          "two_point_table: one item at a time gives other bits");
    buffer_free(q, dtype);
    buffer_free(near, dtype);
    buffer_free(out, dtype);
    buffer_free(single, dtype);
    buffer_free(coefficients, JM_F64);
    workspace_free(patches);
}

void test_correlation(const jm_table *table, int dtype) {
    for (int i = 0; i < 3; i++)
        for (int which = 0; which < 2; which++)
            check_table(table, dtype, FIRST_LOG2[i], which);
}
