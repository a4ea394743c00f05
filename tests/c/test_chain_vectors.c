/* chain_jvp and chain_vjp against loops in long double. */
#include "random_chain.h"

enum { MAX_VECTORS = 258 };

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

/* All vectors in groups of at most `most`, within a sample where they must be. */
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
    const int may_mix =
        !r->has_own_weights || (!transposed && r->n_layers == 1 && r->widths[0] > 1);
    const ptrdiff_t run = may_mix ? n_vectors : per_sample;
    out->status = JM_OK;
    for (ptrdiff_t first = 0, count; first < n_vectors; first += count) {
        const ptrdiff_t left = run - first % run;
        count = left < most ? left : most;
        void *work = workspace(table->chains->chain_vectors_work[t->dtype](t->max_width));
        int status = JM_OK;
        for (ptrdiff_t begin = 0; begin < r->n_layers; begin += range) {
            const ptrdiff_t end = begin + range < r->n_layers ? begin + range : r->n_layers;
            status = (transposed ? table->chains->chain_vjp : table->chains->chain_jvp)[t->dtype](
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
    const ptrdiff_t group =
        table->chains->chain_vectors_group[dtype](t.max_width, !r->has_own_weights);
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
    const ptrdiff_t per_sample = table->chains->chain_vectors_group[dtype](n, 1) / 2;
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
    void *work = workspace(table->chains->chain_vectors_work[dtype](5));
    ptrdiff_t bad_layer = 99;
    const int status = (transposed ? table->chains->chain_vjp : table->chains->chain_jvp)[dtype](
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
    const ptrdiff_t group = table->chains->chain_vectors_group[dtype](MAX_WIDTH, 1);
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
