/* gaussian_moments and variance_map against the trapezoidal rule in long double on a fine grid. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { N_MOMENTS = 6, N_ACTIVATIONS = 7, N_ITEMS = 23 };

static const jm_activation ACTIVATIONS[N_ACTIVATIONS] = {
    {JM_IDENTITY, {0, 0}, NULL}, {JM_LEAKY_RELU, {0, 0.5}, NULL}, {JM_LEAKY_RELU, {0.01, 0}, NULL},
    {JM_ERF, {0, 0}, NULL},      {JM_GELU, {0, 0}, NULL},         {JM_SIN, {0, 0}, NULL},
    {JM_QUADRATIC, {0, 0}, NULL}};
/* Exact in float32, so that both types are asked the same; on either side of every branch. */
static const double Q[N_ITEMS] = {0,    0x1p-140, 0x1p-30, 0x1p-20, 0.0625,  0.125, 0.2421875, 0.25,
                                  0.5,  0.75,     0.96875, 1,       1.03125, 1.5,   2,         3,
                                  4.25, 7,        12,      20,      33,      57.5,  100};

/* phi, phi', phi'' at x; the one-sided values of a kinked activation off 0. */
static void evaluate(const jm_activation *activation, long double x, long double *phi) {
    const long double pi = 3.14159265358979323846264338327950288L;
    const double a = activation->parameters[0];
    long double y;
    switch (activation->id) {
    case JM_IDENTITY:
        phi[0] = x, phi[1] = 1, phi[2] = 0;
        return;
    case JM_LEAKY_RELU:
        phi[0] = x > 0 ? x : a * x, phi[1] = x > 0 ? 1 : a, phi[2] = 0;
        return;
    case JM_ERF:
        phi[0] = erfl(x), phi[1] = 2 / sqrtl(pi) * expl(-x * x), phi[2] = -2 * x * phi[1];
        return;
    case JM_GELU:
        y = expl(-x * x / 2) / sqrtl(2 * pi);
        phi[0] = x * erfcl(-x / sqrtl(2)) / 2, phi[1] = erfcl(-x / sqrtl(2)) / 2 + x * y;
        phi[2] = (2 - x * x) * y;
        return;
    case JM_SIN:
        phi[0] = sinl(x), phi[1] = cosl(x), phi[2] = -sinl(x);
        return;
    case JM_QUADRATIC:
        phi[0] = x * x, phi[1] = 2 * x, phi[2] = 2;
        return;
    case JM_TABULATED:
        return;
    }
}

/* The last by Stein's lemma: E[x phi phi'] = q E[phi'^2 + phi phi'']. */
static void add(const jm_activation *activation, long double x, long double weight,
                long double *sum) {
    long double phi[3];
    evaluate(activation, x, phi);
    const long double terms[N_MOMENTS] = {phi[0],          phi[0] * phi[0],
                                          phi[1],          phi[1] * phi[1],
                                          phi[2] * phi[2], phi[1] * phi[1] + phi[0] * phi[2]};
    for (int m = 0; m < N_MOMENTS; m++)
        sum[m] += weight * terms[m];
}

/* The moments at one q > 0; even-handed about 0, so that odd parts cancel to nothing. */
static void exact_moments(const jm_activation *activation, double q, double *moments) {
    const int is_kinked = activation->id == JM_LEAKY_RELU;
    const long double sigma = sqrtl(q), width = 13 * sigma;
    const long double step = fminl(0.08L, 0.08L * sigma);
    const long double scale = step / (sigma * sqrtl(2 * 3.14159265358979323846264338327950288L));
    long double sum[N_MOMENTS] = {0};
    if (is_kinked) { /* closed form: half of the identity's moments on either side */
        const double a = activation->parameters[0];
        sum[0] = (1 - a) * sigma * scale / step * sigma;
        sum[1] = (1 + a * a) / 2 * (long double)q;
        sum[2] = (1 + a) / 2;
        sum[3] = (1 + a * a) / 2;
        sum[4] = INFINITY;
        sum[5] = sum[3];
    } else if (activation->id == JM_SIN) { /* closed form: decays far below what sums leave */
        sum[1] = sum[4] = -expm1l(-2 * (long double)q) / 2;
        sum[2] = expl(-(long double)q / 2);
        sum[3] = 1 - sum[1];
        sum[5] = expl(-2 * (long double)q);
    } else {
        add(activation, 0, scale, sum);
        for (long n = 1; n * step <= width; n++) {
            const long double x = (long double)n * step, z = x / sigma;
            const long double weight = scale * expl(-z * z / 2);
            add(activation, x, weight, sum);
            add(activation, -x, weight, sum);
        }
    }
    for (int m = 0; m < N_MOMENTS; m++)
        moments[m] = (double)sum[m];
}

/* At q = 0 every moment is that of the value at 0; a kink there has no curvature to speak of. */
static void moments_at_zero(const jm_activation *activation, double *moments) {
    long double phi[3];
    evaluate(activation, 0, phi);
    if (activation->id == JM_LEAKY_RELU)
        phi[1] = activation->parameters[1];
    moments[0] = (double)phi[0];
    moments[1] = (double)(phi[0] * phi[0]);
    moments[2] = (double)phi[1];
    moments[3] = (double)(phi[1] * phi[1]);
    moments[4] = activation->id == JM_LEAKY_RELU ? (double)INFINITY : (double)(phi[2] * phi[2]);
    moments[5] = (double)(phi[1] * phi[1] + phi[0] * phi[2]);
    if (activation->id == JM_LEAKY_RELU) /* the limit */
        moments[5] = (1 + activation->parameters[0] * activation->parameters[0]) / 2;
}

static const double (*expected_moments(int activation))[N_MOMENTS] {
    static double table[N_ACTIVATIONS][N_ITEMS][N_MOMENTS];
    static int is_made[N_ACTIVATIONS];
    for (int i = 0; !is_made[activation] && i < N_ITEMS; i++) {
        if (Q[i] == 0)
            moments_at_zero(&ACTIVATIONS[activation], table[activation][i]);
        else
            exact_moments(&ACTIVATIONS[activation], Q[i], table[activation][i]);
    }
    is_made[activation] = 1;
    return (const double(*)[N_MOMENTS])table[activation];
}

/* 1e-30 is what the oracle leaves of a mean that is zero, and less than any tested beside it. */
static int is_near(double found, double expected, double rtol) {
    return found == expected || fabs(found - expected) <= rtol * fabs(expected) + 1e-30;
}

/* Accuracy asked: 10 u; one rounding in float32. */
static double accuracy(int dtype) { return dtype == JM_F64 ? 10 * 0x1p-53 : 2 * 0x1p-24; }

typedef struct {
    void *of[N_MOMENTS];
} outputs;

static outputs new_outputs(ptrdiff_t n, int dtype) {
    outputs out;
    for (int m = 0; m < N_MOMENTS; m++)
        out.of[m] = buffer(n, dtype);
    return out;
}

static void free_outputs(outputs *out, int dtype) {
    for (int m = 0; m < N_MOMENTS; m++)
        buffer_free(out->of[m], dtype);
}

static void run_moments(const jm_table *table, int dtype, const jm_activation *activation,
                        const void *q, const outputs *out, ptrdiff_t begin, ptrdiff_t end) {
    const jm_moments moments = {out->of[0], out->of[1], out->of[2],
                                out->of[3], out->of[4], out->of[5]};
    const int status = table->moments->gaussian_moments[dtype](activation, q, &moments, begin, end);
    check(status == JM_OK, "gaussian_moments, activation %d: status %d", (int)activation->id,
          status);
}

static void check_moments(const jm_table *table, int dtype, int which) {
    const jm_activation *activation = &ACTIVATIONS[which];
    const double(*expected)[N_MOMENTS] = expected_moments(which);
    void *q = buffer(N_ITEMS, dtype);
    for (int i = 0; i < N_ITEMS; i++)
        set(q, dtype, i, Q[i]);
    outputs all = new_outputs(N_ITEMS, dtype), parts = new_outputs(N_ITEMS, dtype);
    run_moments(table, dtype, activation, q, &all, 0, N_ITEMS);
    for (int i = 0; i < N_ITEMS; i++)
        for (int m = 0; m < N_MOMENTS; m++)
            check(is_near(get(all.of[m], dtype, i), expected[i][m], accuracy(dtype)),
                  "activation %d, moment %d at q = %g: %.17g, expected %.17g", which, m, Q[i],
                  get(all.of[m], dtype, i), expected[i][m]);
    for (int length = 1; length < N_ITEMS; length = 2 * length + 1) {
        for (int begin = 0; begin < N_ITEMS; begin += length)
            run_moments(table, dtype, activation, q, &parts, begin,
                        begin + length < N_ITEMS ? begin + length : N_ITEMS);
        for (int m = 0; m < N_MOMENTS; m++)
            check(same_bits(all.of[m], parts.of[m], N_ITEMS * size_of(dtype)),
                  "activation %d, moment %d: pieces of %d give other bits", which, m, length);
    }
    run_moments(table, dtype, activation, q, &parts, 3, 3); /* nothing to do */
    free_outputs(&all, dtype);
    free_outputs(&parts, dtype);
    buffer_free(q, dtype);
}

/* NaN stays NaN and infinity has its limit, and the items beside them do not notice. */
static void check_unusual_items(const jm_table *table, int dtype, int which) {
    const jm_activation *activation = &ACTIVATIONS[which];
    enum { N = 7 };
    const double unusual[N] = {
        1, NAN, INFINITY, largest_number(dtype), smallest_number(dtype), -0x1p-10, 1};
    void *q = buffer(N, dtype);
    for (int i = 0; i < N; i++)
        set(q, dtype, i, i == 5 ? 1 : unusual[i]);
    outputs out = new_outputs(N, dtype);
    run_moments(table, dtype, activation, q, &out, 0, N);
    for (int m = 0; m < N_MOMENTS; m++) {
        check(isnan(get(out.of[m], dtype, 1)), "activation %d, moment %d of NaN", which, m);
        for (int i = 2; i < 5; i++)
            check(!isnan(get(out.of[m], dtype, i)), "activation %d, moment %d at q = %g is NaN",
                  which, m, unusual[i]);
        check(get(out.of[m], dtype, 0) == get(out.of[m], dtype, 6),
              "activation %d, moment %d: neighbours matter", which, m);
    }
    free_outputs(&out, dtype);
    buffer_free(q, dtype);
}

/* Each argument once as an array and once as one number. */
static void check_variance_map(const jm_table *table, int dtype, int which) {
    const double(*expected)[N_MOMENTS] = expected_moments(which);
    for (int scalars = 0; scalars < 8; scalars++) {
        const jm_variance_arguments strides = {.q_stride = !(scalars & 1),
                                               .sigma_w_stride = !(scalars & 2),
                                               .sigma_b_stride = !(scalars & 4)};
        void *q = buffer(strides.q_stride ? N_ITEMS : 1, dtype);
        void *sigma_w = buffer(strides.sigma_w_stride ? N_ITEMS : 1, dtype);
        void *sigma_b = buffer(strides.sigma_b_stride ? N_ITEMS : 1, dtype);
        void *out = buffer(N_ITEMS, dtype), *single = buffer(N_ITEMS, dtype);
        for (int i = 0; i < (strides.q_stride ? N_ITEMS : 1); i++)
            set(q, dtype, i, Q[strides.q_stride ? i : 13]);
        for (int i = 0; i < (strides.sigma_w_stride ? N_ITEMS : 1); i++)
            set(sigma_w, dtype, i, 0.125 * (i + 1));
        for (int i = 0; i < (strides.sigma_b_stride ? N_ITEMS : 1); i++)
            set(sigma_b, dtype, i, 0.0625 * i);
        jm_variance_arguments arguments = strides;
        arguments.q = q;
        arguments.sigma_w = sigma_w;
        arguments.sigma_b = sigma_b;
        const jm_activation *activation = &ACTIVATIONS[which];
        int status = table->moments->variance_map[dtype](activation, &arguments, out, 0, N_ITEMS);
        for (int i = 0; i < N_ITEMS; i++)
            status |= table->moments->variance_map[dtype](activation, &arguments, single, i, i + 1);
        check(status == JM_OK, "variance_map, activation %d: status %d", which, status);
        check(same_bits(out, single, N_ITEMS * size_of(dtype)),
              "variance_map, activation %d: one item at a time gives other bits", which);
        for (int i = 0; i < N_ITEMS; i++) {
            const double w = 0.125 * (strides.sigma_w_stride ? i + 1 : 1);
            const double b = 0.0625 * (strides.sigma_b_stride ? i : 0);
            const double next = w * w * expected[strides.q_stride ? i : 13][1] + b * b;
            check(is_near(get(out, dtype, i), next, accuracy(dtype)),
                  "variance_map, activation %d, item %d: %.17g, expected %.17g", which, i,
                  get(out, dtype, i), next);
        }
        buffer_free(q, dtype);
        buffer_free(sigma_w, dtype);
        buffer_free(sigma_b, dtype);
        buffer_free(out, dtype);
        buffer_free(single, dtype);
    }
}

/* More items than any piece that a kernel works on at a time. */
static void check_many_items(const jm_table *table, int dtype, int which) {
    enum { MANY = 600 };
    void *q = buffer(MANY, dtype);
    for (int i = 0; i < MANY; i++)
        set(q, dtype, i, 4 * uniform());
    outputs all = new_outputs(MANY, dtype), single = new_outputs(MANY, dtype);
    run_moments(table, dtype, &ACTIVATIONS[which], q, &all, 0, MANY);
    for (int i = 0; i < MANY; i++)
        run_moments(table, dtype, &ACTIVATIONS[which], q, &single, i, i + 1);
    for (int m = 0; m < N_MOMENTS; m++)
        check(same_bits(all.of[m], single.of[m], MANY * size_of(dtype)),
              "activation %d, moment %d: one item at a time gives other bits", which, m);
    free_outputs(&all, dtype);
    free_outputs(&single, dtype);
    buffer_free(q, dtype);
}

/* A table that has the panels of 1..1.25 and 1.75..2 in some octaves, its polynomials random. */
static void check_table(const jm_table *table, int dtype) {
    enum { N_OCTAVES = 3, N_PANELS = 1 + 2 * N_OCTAVES, N_TERMS = 16, N = 19 };
    static const int exponents[N_OCTAVES] = {-100, 0, 3};
    double *polynomials = buffer(N_PANELS * N_MOMENTS * N_TERMS, JM_F64);
    int32_t *panels = calloc(8192, sizeof *panels);
    double *ends = buffer(2 * N_MOMENTS, JM_F64);
    for (int i = 0; i < N_PANELS * N_MOMENTS * N_TERMS; i++)
        polynomials[i] = i < N_MOMENTS * N_TERMS ? NAN : uniform() - 0.5;
    for (int i = 0; i < 2 * N_OCTAVES; i++)
        panels[4 * (exponents[i / 2] + 1023) + (i % 2 ? 3 : 0)] = 1 + i;
    for (int m = 0; m < 2 * N_MOMENTS; m++)
        ends[m] = m + 0.5;
    const jm_moment_table moment_table = {polynomials, panels, ends};
    const jm_activation activation = {JM_TABULATED, {0, 0}, &moment_table};
    void *q = buffer(N, dtype);
    for (int i = 0; i < N; i++) {
        const int panel = i % (2 * N_OCTAVES), is_last = panel % 2;
        const double r = i < 2 * N_OCTAVES ? 0 : floor(uniform() * 0x1p20) * 0x1p-22;
        set(q, dtype, i, ldexp(1 + 0.75 * is_last + r, exponents[panel / 2]));
    }
    set(q, dtype, 8, 0);
    outputs out = new_outputs(N, dtype);
    run_moments(table, dtype, &activation, q, &out, 0, N);
    for (int i = 0; i < N; i++) {
        const int panel = i % (2 * N_OCTAVES);
        const double x = ldexp(get(q, dtype, i), -exponents[panel / 2]) - 0.75 * (panel % 2);
        const long double t = 8 * ((long double)x - 1) - 1;
        for (int m = 0; m < N_MOMENTS; m++) {
            const double *c = polynomials + ((1 + panel) * N_MOMENTS + m) * N_TERMS;
            long double sum = 0, size = 0;
            for (int k = N_TERMS - 1; k >= 0; k--) {
                sum = sum * t + c[k];
                size = size * fabsl(t) + fabs(c[k]);
            }
            if (i == 8)
                sum = size = ends[m];
            const double u = dtype == JM_F64 ? 0x1p-53 : 0x1p-24;
            check(fabsl(get(out.of[m], dtype, i) - sum) <= 2 * N_TERMS * u * size,
                  "table, moment %d of item %d: %.17g, expected %.17g", m, i,
                  get(out.of[m], dtype, i), (double)sum);
        }
    }
    /* NaN and infinity are not lacking; a panel that is not there is, and its item is NaN. */
    for (int is_lacking = 0; is_lacking < 2; is_lacking++) {
        set(q, dtype, 2, NAN);
        set(q, dtype, 5, INFINITY);
        set(q, dtype, 7, is_lacking ? 1.5 : 1.0);
        const jm_moments to = {out.of[0], out.of[1], out.of[2], out.of[3], out.of[4], out.of[5]};
        const int status = table->moments->gaussian_moments[dtype](&activation, q, &to, 0, N);
        check(status == (is_lacking ? JM_NOT_TABULATED : JM_OK), "table: status %d", status);
        for (int m = 0; m < N_MOMENTS; m++) {
            check(isnan(get(out.of[m], dtype, 2)) &&
                      get(out.of[m], dtype, 5) == N_MOMENTS + m + 0.5,
                  "table, moment %d of NaN and infinity", m);
            check(isnan(get(out.of[m], dtype, 7)) == is_lacking, "table, moment %d", m);
            check(!isnan(get(out.of[m], dtype, 6)), "table, moment %d: neighbours matter", m);
        }
        const jm_variance_arguments arguments = {q, q, q, 1, 1, 1};
        const int map_status =
            table->moments->variance_map[dtype](&activation, &arguments, out.of[0], 0, N);
        check(map_status == status, "table, variance_map: status %d", map_status);
    }
    free_outputs(&out, dtype);
    buffer_free(q, dtype);
    buffer_free(ends, JM_F64);
    buffer_free(polynomials, JM_F64);
    free(panels);
}

void test_moments(const jm_table *table, int dtype) {
    check_table(table, dtype);
    for (int which = 0; which < N_ACTIVATIONS; which++) {
        check_moments(table, dtype, which);
        check_unusual_items(table, dtype, which);
        check_variance_map(table, dtype, which);
        check_many_items(table, dtype, which);
    }
}
