/* The norm kernels against the largest singular value by one-sided Jacobi rotations in long double.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "check.h"

enum { MAX_SIZE = 72, N_BOUNDS = 4, SWEEPS = 30 };
enum { LOWER, VALUE, PROBABLE_UPPER, CERTAIN_UPPER };

static const ptrdiff_t SHAPES[][2] = {{1, 1},  {1, 7},  {7, 1},   {2, 2},   {3, 5},   {5, 3},
                                      {8, 8},  {9, 9},  {16, 16}, {17, 17}, {33, 31}, {4, 65},
                                      {65, 4}, {1, 72}, {72, 1},  {40, 40}, {65, 17}};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

/* Rotates the columns until they are orthogonal (Hestenes 1958); the longest is the norm. */
static long double exact_norm(ptrdiff_t rows, ptrdiff_t cols, const void *a, int dtype) {
    static long double column[MAX_SIZE][MAX_SIZE];
    const int is_wide = cols > rows;
    const ptrdiff_t n = is_wide ? rows : cols, length = is_wide ? cols : rows;
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t i = 0; i < length; i++)
            column[j][i] = get(a, dtype, is_wide ? j * cols + i : i * cols + j);
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        int is_done = 1;
        for (ptrdiff_t p = 0; p < n; p++)
            for (ptrdiff_t q = p + 1; q < n; q++) {
                long double pp = 0, qq = 0, pq = 0;
                for (ptrdiff_t i = 0; i < length; i++) {
                    pp += column[p][i] * column[p][i];
                    qq += column[q][i] * column[q][i];
                    pq += column[p][i] * column[q][i];
                }
                if (fabsl(pq) <= 1e-17L * sqrtl(pp) * sqrtl(qq))
                    continue;
                is_done = 0;
                const long double zeta = (qq - pp) / (2 * pq);
                const long double t = copysignl(1, zeta) / (fabsl(zeta) + sqrtl(1 + zeta * zeta));
                const long double c = 1 / sqrtl(1 + t * t), s = c * t;
                for (ptrdiff_t i = 0; i < length; i++) {
                    const long double x = column[p][i], y = column[q][i];
                    column[p][i] = c * x - s * y;
                    column[q][i] = s * x + c * y;
                }
            }
        if (is_done)
            break;
    }
    long double largest = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        long double square = 0;
        for (ptrdiff_t i = 0; i < length; i++)
            square += column[j][i] * column[j][i];
        largest = fmaxl(largest, square);
    }
    return sqrtl(largest);
}

/* lower <= value <= upper and lower <= norm <= upper, up to the oracle's own 1e-15. */
static void check_bounds(const double *bounds, int64_t exponent, long double norm,
                         const char *kernel, ptrdiff_t rows, ptrdiff_t cols) {
    const long double scaled = ldexpl(norm, -(int)exponent);
    check(bounds[LOWER] <= bounds[VALUE] && bounds[VALUE] <= bounds[PROBABLE_UPPER] &&
              bounds[VALUE] <= bounds[CERTAIN_UPPER],
          "%s %td x %td: bounds out of order", kernel, rows, cols);
    check(bounds[LOWER] <= scaled * (1 + 1e-15L), "%s %td x %td: lower bound %.17g above %.17Lg",
          kernel, rows, cols, bounds[LOWER], scaled);
    check(bounds[PROBABLE_UPPER] >= scaled * (1 - 1e-15L) &&
              bounds[CERTAIN_UPPER] >= scaled * (1 - 1e-15L),
          "%s %td x %td: upper bounds %.17g, %.17g below %.17Lg", kernel, rows, cols,
          bounds[PROBABLE_UPPER], bounds[CERTAIN_UPPER], scaled);
}

static void fill_matrix(void *a, int dtype, ptrdiff_t from, ptrdiff_t n, double scale) {
    for (ptrdiff_t i = 0; i < n; i++)
        set(a, dtype, from + i, normal() * scale);
}

/* One call; bounds come as rows of n_items, written here as N_BOUNDS per item. */
static void run_gram(const jm_table *table, int dtype, ptrdiff_t n_items, ptrdiff_t rows,
                     ptrdiff_t cols, const void *a, double *bounds, int64_t *exponent,
                     int *status) {
    void *work = workspace(table->norms->spectral_norm_gram_work[dtype](rows, cols));
    double *found = buffer(3 * n_items, JM_F64);
    void *ends = buffer(3 * n_items, dtype);
    const int result = table->norms->spectral_norm_gram[dtype](
        n_items, rows, cols, a, INFINITY, found, ends, n_items, exponent, status, work);
    check(result == 0 || result == 1, "spectral_norm_gram: %d", result);
    for (ptrdiff_t i = 0; i < n_items; i++) {
        for (int side = 0; side < N_BOUNDS; side++)
            bounds[i * N_BOUNDS + side] = found[(side < 3 ? side : 2) * n_items + i];
        for (int side = 0; side < 3; side++) { /* outward: never inside the exact product */
            const long double exact = ldexpl(found[side * n_items + i], (int)exponent[i]);
            const long double end = get(ends, dtype, side * n_items + i);
            check(isnan(exact) || (side == 0 ? end <= exact : side == 1 || end >= exact),
                  "gram %td x %td: end %d is %.9Lg, not outside %.9Lg", rows, cols, side, end,
                  exact);
        }
    }
    workspace_free(work);
    buffer_free(found, JM_F64);
    buffer_free(ends, dtype);
}

/* The bounds are tight to what the gram of that precision can tell. */
static double gram_rtol(int dtype, ptrdiff_t size) {
    return 64 * (double)(size + 4) * (double)(size + 4) * unit_roundoff(dtype);
}

static void check_gram(const jm_table *table, int dtype, ptrdiff_t rows, ptrdiff_t cols,
                       double scale) {
    const ptrdiff_t group = table->norms->spectral_norm_gram_group[dtype](rows, cols);
    for (ptrdiff_t n_items = 1; n_items <= group + 1; n_items += group) {
        void *a = buffer(n_items * rows * cols, dtype);
        double *bounds = buffer(n_items * N_BOUNDS, JM_F64), single[N_BOUNDS];
        int64_t *exponent = buffer(n_items, JM_F64), single_exponent;
        int *status = buffer(n_items, JM_F32), single_status; /* an int has the size of a float */
        fill_matrix(a, dtype, 0, n_items * rows * cols, scale);
        run_gram(table, dtype, n_items, rows, cols, a, bounds, exponent, status);
        for (ptrdiff_t i = 0; i < n_items; i++) {
            const char *item = (const char *)a + (size_t)(i * rows * cols) * size_of(dtype);
            const double *own = bounds + i * N_BOUNDS;
            check(status[i] == JM_OK, "gram %td x %td: item status %d", rows, cols, status[i]);
            check_bounds(own, exponent[i], exact_norm(rows, cols, item, dtype), "gram", rows, cols);
            check(own[CERTAIN_UPPER] <=
                      own[LOWER] * (1 + gram_rtol(dtype, rows > cols ? rows : cols)),
                  "gram %td x %td: wide bounds %.9g, %.9g", rows, cols, own[LOWER],
                  own[CERTAIN_UPPER]);
            run_gram(table, dtype, 1, rows, cols, item, single, &single_exponent, &single_status);
            check(same_bits(own, single, sizeof single) && exponent[i] == single_exponent,
                  "gram %td x %td: an item's digits depend on its neighbours", rows, cols);
        }
        buffer_free(a, dtype);
        buffer_free(bounds, JM_F64);
        buffer_free(exponent, JM_F64);
        buffer_free(status, JM_F32);
    }
}

/* A NaN, an infinity and a zero matrix in one group with a plain one, which does not notice. */
static void check_unusual_gram(const jm_table *table, int dtype, ptrdiff_t n, double bad) {
    const ptrdiff_t group = table->norms->spectral_norm_gram_group[dtype](n, n);
    const ptrdiff_t n_items = group < 3 ? group : 3;
    void *a = buffer(n_items * n * n, dtype);
    double bounds[3 * N_BOUNDS], single[N_BOUNDS];
    int64_t exponent[3], single_exponent;
    int status[3], single_status;
    fill_matrix(a, dtype, 0, n * n, 1); /* the last item stays zero */
    run_gram(table, dtype, 1, n, n, a, single, &single_exponent, &single_status);
    if (n_items > 1)
        set(a, dtype, 2 * n * n - 1, bad);
    run_gram(table, dtype, n_items, n, n, a, bounds, exponent, status);
    check(status[0] == JM_OK && same_bits(bounds, single, sizeof single),
          "gram %td: a bad neighbour changes an item", n);
    if (n_items > 1)
        check(status[1] == JM_NON_FINITE && isnan(bounds[N_BOUNDS]) && exponent[1] == 0,
              "gram %td: %g gives status %d", n, bad, status[1]);
    if (n_items > 2)
        check(status[2] == JM_OK && bounds[2 * N_BOUNDS + CERTAIN_UPPER] == 0 && exponent[2] == 0,
              "gram %td: a zero matrix has a norm", n);
    buffer_free(a, dtype);
}

static void check_lanczos(const jm_table *table, int dtype, ptrdiff_t rows, ptrdiff_t cols,
                          double scale, ptrdiff_t max_iter, double rtol) {
    const double log_level = 27.6; /* the upper bound fails once in 1e12 starts */
    void *a = buffer(rows * cols, dtype);
    double *start = buffer(cols, JM_F64), *bounds = buffer(N_BOUNDS, JM_F64);
    int64_t exponent = 99, n_iter = 99;
    fill_matrix(a, dtype, 0, rows * cols, scale);
    fill_matrix(start, JM_F64, 0, cols, 1);
    void *work = workspace(table->norms->spectral_norm_lanczos_work[dtype](cols, max_iter));
    const int status = table->norms->spectral_norm_lanczos[dtype](
        rows, cols, a, start, rtol, log_level, max_iter, bounds, &exponent, &n_iter, work);
    check(status == JM_OK || status == JM_NOT_CONVERGED, "lanczos %td x %td: status %d", rows, cols,
          status);
    check(n_iter >= 1 && n_iter <= max_iter, "lanczos: %lld steps", (long long)n_iter);
    check_bounds(bounds, exponent, exact_norm(rows, cols, a, dtype), "lanczos", rows, cols);
    const double upper = fmin(bounds[PROBABLE_UPPER], bounds[CERTAIN_UPPER]);
    check((status == JM_OK) == (upper <= bounds[LOWER] * (1 + rtol)),
          "lanczos %td x %td: status %d at %.9g, %.9g", rows, cols, status, bounds[LOWER], upper);
    workspace_free(work);
    buffer_free(a, dtype);
    buffer_free(start, JM_F64);
    buffer_free(bounds, JM_F64);
}

static void check_unusual_lanczos(const jm_table *table, int dtype, ptrdiff_t n, double bad) {
    void *a = buffer(n * n, dtype);
    double *start = buffer(n, JM_F64), bounds[N_BOUNDS];
    int64_t exponent = 99, n_iter = 99;
    fill_matrix(start, JM_F64, 0, n, 1);
    void *work = workspace(table->norms->spectral_norm_lanczos_work[dtype](n, n));
    int status = table->norms->spectral_norm_lanczos[dtype](n, n, a, start, 0.01, 20, n, bounds,
                                                            &exponent, &n_iter, work);
    check(status == JM_OK && bounds[CERTAIN_UPPER] == 0 && exponent == 0 && n_iter == 0,
          "lanczos %td: a zero matrix gives status %d", n, status);
    set(a, dtype, n * n - 1, bad);
    status = table->norms->spectral_norm_lanczos[dtype](n, n, a, start, 0.01, 20, n, bounds,
                                                        &exponent, &n_iter, work);
    check(status == JM_NON_FINITE && isnan(bounds[LOWER]) && exponent == 0,
          "lanczos %td: %g gives status %d", n, bad, status);
    workspace_free(work);
    buffer_free(a, dtype);
    buffer_free(start, JM_F64);
}

static void check_sum_squares(const jm_table *table, int dtype, ptrdiff_t n_items, ptrdiff_t n) {
    void *a = buffer(n_items * n, dtype);
    double *squares = buffer(n_items, JM_F64);
    fill_matrix(a, dtype, 0, n_items * n, 3);
    const int status = table->norms->sum_squares[dtype](n_items, n, a, squares);
    check(status == JM_OK, "sum_squares: status %d", status);
    for (ptrdiff_t i = 0; i < n_items; i++) {
        long double exact = 0;
        for (ptrdiff_t j = 0; j < n; j++)
            exact += (long double)get(a, dtype, i * n + j) * get(a, dtype, i * n + j);
        check(fabsl(squares[i] - exact) <= (n + 1) * 0x1.01p-53L * exact,
              "sum_squares %td: %.17g instead of %.17Lg", n, squares[i], exact);
    }
    buffer_free(a, dtype);
    buffer_free(squares, JM_F64);
}

void test_spectral(const jm_table *table, int dtype) {
    for (ptrdiff_t n = 1; n < 80; n += n < 40 ? 1 : 13)
        check_sum_squares(table, dtype, n % 5 + 1, n);
    const double top = largest_number(dtype) / 16;
    const double scales[] = {1, top, 1 / top, 1024 * smallest_number(dtype)};
    for (int i = 0; i < N_SHAPES; i++) {
        const ptrdiff_t rows = SHAPES[i][0], cols = SHAPES[i][1];
        for (int j = 0; j < 4; j++) {
            check_gram(table, dtype, rows, cols, scales[j]);
            check_lanczos(table, dtype, rows, cols, scales[j], cols, 0.01);
            check_lanczos(table, dtype, rows, cols, scales[j], cols < 3 ? cols : 3, 1e-3);
        }
    }
    for (int i = 0; i < N_SHAPES; i++) {
        check_unusual_gram(table, dtype, SHAPES[i][0], NAN);
        check_unusual_gram(table, dtype, SHAPES[i][0], INFINITY);
        check_unusual_lanczos(table, dtype, SHAPES[i][0], NAN);
        check_unusual_lanczos(table, dtype, SHAPES[i][0], -INFINITY);
    }
}
