/*
 * All singular values of J = F_{L-1} ... F_0, whatever their spread; see graded.inc.h.
 *
 * The product so far is kept as Q diag(2^e) T: Q orthogonal, T with rows of norm in [0.5, 1), e in
 * integers.  One layer: C = F Q, then C diag(2^e) Pi = Q' R with column pivoting, R = diag(2^e') R~
 * and T' = R~ Pi^T T, so the new product is Q' diag(2^e') T'.  Scaling is by powers of two and
 * exact; an entry of R~ that underflows is below u times the 1 on its row's diagonal.  At the end
 * T^T diag(2^e) is factored once more, and one-sided Jacobi works on the transposed triangle.
 *
 * Rank.  Only the first `live` columns of Q carry the product; the others complete the basis, so
 * that a layer's rounding can be followed into the directions that the product does not reach.
 * Rows and columns of F that are exactly zero are left out before any arithmetic, hence zeros
 * that follow from them are exact: live <= number of rows and of columns that are not zero.
 *
 * Error.  The computed Q, e, T of a layer belong exactly to F + dF, where column j of dF Q is at
 * most gamma f_j long, f_j^2 = sum_i q_ij^2 |F e_i|^2 and gamma = c n u: the product C = F Q and
 * the columnwise bound of Householder QR (Higham, Accuracy and Stability of Numerical Algorithms,
 * 2002, theorem 19.4), with rounding errors that do not conspire (Higham and Mary, A new approach
 * to probabilistic rounding error analysis, 2019).  In the new basis dF Q = X R with
 * |X e_b| <= gamma chi_b, chi_b = sum_j f_j |R^-1|_jb: f_j and R unscaled, so that the lengths of
 * the columns cancel.  An entry X_ab is a relative error of the part of the product in direction b,
 * turned into direction a.  It can be taken to the right through the product, where it is damped by
 * 2^(e_b - e_a), or to the left, where it grows with g_a / g_b, the quotient of the later layers'
 * growths (diagonal of R, exponents undone).  Both are multiplicative perturbations of J, which
 * change no singular value by more than the factor 1 + |X| (Eisenstat and Ipsen, Relative
 * perturbation techniques, 1995).  So entries with a < b are summed on the right (in `turned`),
 * those with a > b on the left, growing from layer to layer; what these feed back into direction b
 * at a layer, |R_ba / R_bb| times their size, is summed in `stretched` together with the rounding
 * of T'.  The sum is over layers, hence of first order; a bound that comes out above
 * JM_FIRST_ORDER is reported as infinite.  The right-hand part is measured by the condition of T,
 * rows scaled, at the end; value i takes the part of index b with weight min(1, 2^(e_b - e_i)).
 */

/* ---- a factor, read from either type ------------------------------------------------------- */

#ifndef JM_SVDVALS_TYPES
#define JM_SVDVALS_TYPES
/* Largest first-order bound that is reported as a number. */
#define JM_FIRST_ORDER 0.05
/* Entries of R~ below this are dropped: n of them stay far below u. */
#define JM_NEGLIGIBLE 0x1p-90
/* Exponent that factors of wide range are brought to, so that small entries stay normal. */
#define JM_LIFT 980

/*
 * F = transposed^T 2^exponent, without its zero rows and without the columns that meet zero rows of
 * the factors before.
 */
typedef struct {
    ptrdiff_t rows, cols; /* that are left */
    ptrdiff_t n_columns;  /* of these, not zero */
    double *transposed;   /* (cols, ld), padded with zeros */
    ptrdiff_t *support;   /* in: (cols) which columns; out: (rows) which rows */
    ptrdiff_t *kept;      /* (rows) scratch */
    int *is_zero;         /* (cols) whether the column is zero */
    int64_t exponent;
    int has_lost; /* an entry other than zero was too small beside the largest */
} svdvals_factor;
#endif

/*
 * Reads layer k; factor->cols columns, those in factor->support, are wanted.  Returns JM_NON_FINITE
 * if an entry of the layer is not finite.  Entries err by one rounding each.
 */
static int JM_NAME(svdvals_read)(const jm_chain *chain, ptrdiff_t k, ptrdiff_t sample, ptrdiff_t ld,
                                 svdvals_factor *factor) {
    const jm_layer layer = JM_NAME(chain_layer)(chain, k);
    const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, k, sample, 0);
    const ptrdiff_t n_slopes = !step.slopes ? 0 : step.slopes_first ? step.cols : step.rows;
    const double w_top =
        step.weights ? (double)JM_NAME(max_abs)(step.rows * step.cols, step.weights) : 1;
    const double s_top = n_slopes ? (double)JM_NAME(max_abs)(n_slopes, step.slopes) : 1;
    const double c = layer.shortcut;
    if (isinf(w_top) || isinf(s_top) || !isfinite(c))
        return JM_NON_FINITE;
    int e_w = 0, e_s = 0, e_c = 0;
    (void)frexp(w_top, &e_w);
    (void)frexp(s_top, &e_s);
    (void)frexp(c, &e_c);
    int e = e_w + e_s;
    if (c != 0 && (w_top == 0 || s_top == 0 || e_c > e))
        e = e_c;

    factor->exponent = e;
    factor->has_lost = 0;
    for (int lift = 0; lift <= JM_LIFT; lift += JM_LIFT) {
        int is_small = 0;
        const int w_by = step.slopes ? lift / 2 - e_w : lift - e, s_by = lift - e - w_by;
        const double w_half = ldexp(1, w_by / 2), w_rest = ldexp(1, w_by - w_by / 2);
        const double s_half = ldexp(1, s_by / 2), s_rest = ldexp(1, s_by - s_by / 2);
        ptrdiff_t rows = 0;
        factor->exponent = (int64_t)e - lift;
        for (ptrdiff_t j = 0; j < factor->cols; j++)
            factor->is_zero[j] = 1;
        for (ptrdiff_t i = 0; i < step.rows; i++) {
            int is_row_zero = 1;
            for (ptrdiff_t j = 0; j < factor->cols; j++) {
                const ptrdiff_t col = factor->support[j];
                double w = step.weights ? (double)step.weights[i * step.cols + col] : i == col;
                double s = step.slopes ? (double)step.slopes[step.slopes_first ? col : i] : 1;
                double x = 0;
                if (w != 0 && s != 0) {
                    w = w * w_half * w_rest;
                    s = s * s_half * s_rest;
                    x = w * s;
                    is_small |= !(fabs(x) >= 0x1p-1022);
                }
                if (c != 0 && i == col)
                    x = fma(w, s, ldexp(c, lift - e));
                factor->transposed[j * ld + rows] = x;
                if (x != 0) {
                    is_row_zero = 0;
                    factor->is_zero[j] = 0;
                }
            }
            if (!is_row_zero)
                factor->kept[rows++] = i;
        }
        factor->rows = rows;
        factor->has_lost = is_small;
        if (!is_small)
            break;
    }
    return JM_OK;
}

#if JM_IS_F64

/* ---- the state of a chain ------------------------------------------------------------------ */

typedef struct {
    ptrdiff_t ld, ld_t; /* strides of what belongs to a width, and of T */
    ptrdiff_t cols;     /* of Q, which is square: rows of the product that are not always zero */
    ptrdiff_t live, n_in;
    ptrdiff_t rank; /* bound of the rank by the zeros of the factors; live <= rank */
    ptrdiff_t bad_layer;
    int is_identity;   /* Q is */
    int is_lost;       /* something other than zero was dropped: no error is known */
    double *q;         /* (cols, ld) columns of Q */
    double *c, *v;     /* (cols, ld) columns of C, then R; reflections */
    double *triangle;  /* (cols, ld) R~ row by row; the inverse of R */
    double *factor;    /* (cols, ld) */
    double *t, *t_new; /* (live, ld_t) */
    double *turned;    /* (cols, ld) entry (b, a): relative error of direction b towards a */
    double *turned_new;
    double *stretched, *stretched_new; /* (cols) */
    double *f; /* (cols) lengths of F's columns, then errors of C's columns */
    double *chi, *growth;
    int64_t *exponent, *exponent_new;
    int64_t *unit; /* (cols) exponents that brought C's columns to [0.5, 1) */
    ptrdiff_t *order, *support, *kept, *first, *last;
    graded_size *norms;
    int *is_zero;
    double condition, spread;
    graded_rotations jacobi;
} svdvals_state;

/* Cuts the workspace; returns its size. */
static size_t svdvals_layout(ptrdiff_t max_width, ptrdiff_t n_in, char *work,
                             svdvals_state *state) {
    const ptrdiff_t ld = JM_PADDED(max_width), ld_t = JM_PADDED(n_in);
    const size_t square = JM_LINE(max_width * ld), tall = JM_LINE(max_width * ld_t);
    const size_t line = JM_LINE(ld);
    size_t at = (sizeof(svdvals_state) + 63) / 64 * 64;
    double **const squares[] = {&state->q,      &state->c,      &state->v,         &state->triangle,
                                &state->factor, &state->turned, &state->turned_new};
    double **const lines[] = {&state->stretched, &state->stretched_new, &state->f, &state->chi,
                              &state->growth};
    int64_t **const integers[] = {&state->exponent, &state->exponent_new, &state->unit};
    ptrdiff_t **const indices[] = {&state->order, &state->support, &state->kept, &state->first,
                                   &state->last};
    for (size_t i = 0; i < sizeof squares / sizeof *squares; i++, at += square)
        if (work)
            *squares[i] = (double *)(work + at);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++, at += line)
        if (work)
            *lines[i] = (double *)(work + at);
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++, at += line)
        if (work)
            *integers[i] = (int64_t *)(work + at);
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++, at += line)
        if (work)
            *indices[i] = (ptrdiff_t *)(work + at);
    if (work) {
        state->ld = ld;
        state->ld_t = ld_t;
        state->n_in = n_in;
        state->t = (double *)(work + at);
        state->t_new = (double *)(work + at + tall);
        state->norms = (graded_size *)(work + at + 2 * tall);
        state->is_zero = (int *)(work + at + 2 * tall + 2 * line);
    }
    return at + 2 * tall + 3 * line;
}

/* The empty product: Q = T = I. */
static void svdvals_start(svdvals_state *state) {
    const ptrdiff_t n = state->n_in, ld = state->ld;
    state->cols = state->live = state->rank = n;
    state->bad_layer = -1;
    state->is_identity = 1;
    state->is_lost = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        memset(state->t + j * state->ld_t, 0, (size_t)state->ld_t * sizeof(double));
        memset(state->turned + j * ld, 0, (size_t)ld * sizeof(double));
        state->t[j * state->ld_t + j] = 0.5;
        state->exponent[j] = 1;
        state->stretched[j] = 0;
        state->support[j] = j;
    }
}

/* C = F Q, its columns brought to [0.5, 1), and into f the errors of the columns, over gamma. */
static void svdvals_apply(svdvals_state *state, const svdvals_factor *factor) {
    const ptrdiff_t n = JM_PADDED(factor->rows), ld = state->ld, cols = state->cols;
    for (ptrdiff_t i = 0; i < cols; i++)
        for (ptrdiff_t k = factor->rows; k < n; k++)
            factor->transposed[i * ld + k] = 0;
    if (state->is_identity)
        for (ptrdiff_t j = 0; j < cols; j++)
            memcpy(state->c + j * ld, factor->transposed + j * ld, (size_t)n * sizeof(double));
    else
        graded_times(cols, cols, n, state->q, ld, NULL, NULL, factor->transposed, ld, state->c, ld);

    for (ptrdiff_t i = 0; i < cols; i++) {
        const double *column = factor->transposed + i * ld;
        const graded_size length = graded_norm(n, column, graded_dot(n, column, column));
        state->growth[i] = length.mantissa * graded_power(length.exponent);
    }
    double *terms = state->v;
    memset(terms, 0, (size_t)ld * sizeof(double));
    for (ptrdiff_t j = 0; j < cols; j++) {
        const double *q = state->q + j * ld;
        state->unit[j] = 0;
        (void)graded_unit(n, state->c + j * ld, state->unit + j);
        state->f[j] = 1;
        if (state->is_identity)
            continue;
        for (ptrdiff_t i = 0; i < cols; i++)
            terms[i] = q[i] * state->growth[i];
        const graded_size size =
            graded_norm(cols, terms, graded_dot(JM_PADDED(cols), terms, terms));
        state->f[j] = size.mantissa * graded_power(size.exponent - state->unit[j]);
    }
}

/* R~ of the live rows into `triangle`, where its rows end into `last`, their exponents. */
static void svdvals_triangle(svdvals_state *state, ptrdiff_t live_before, ptrdiff_t live,
                             int64_t shift) {
    const ptrdiff_t ld = state->ld;
    for (ptrdiff_t i = 0; i < live; i++) {
        double *row = state->triangle + i * ld;
        const double diagonal = fabs(state->c[i * ld + i]);
        const int64_t e = exponent_of_f64(diagonal);
        const int64_t own = state->exponent[i] + state->unit[i] + e;
        memset(row, 0, (size_t)JM_PADDED(live_before) * sizeof(double));
        state->last[i] = i + 1;
        for (ptrdiff_t j = i; j < live_before; j++) {
            const double x =
                state->c[j * ld + i] * graded_power(state->exponent[j] + state->unit[j] - own);
            if (fabs(x) < JM_NEGLIGIBLE)
                continue;
            row[j] = x;
            state->last[i] = j + 1;
        }
        state->first[i] = i;
        state->exponent_new[i] = own + shift;
    }
}

/* T' = R~ Pi^T T with rows of norm in [0.5, 1), and what its rounding adds to `stretched_new`. */
static void svdvals_update_t(svdvals_state *state, ptrdiff_t live_before, ptrdiff_t live) {
    const ptrdiff_t n = state->ld_t;
    for (ptrdiff_t j = 0; j < live_before; j++)
        memcpy(state->t_new + j * n, state->t + state->order[j] * n, (size_t)n * sizeof(double));
    graded_times(live, live_before, n, state->triangle, state->ld, state->first, state->last,
                 state->t_new, n, state->t, n);
    for (ptrdiff_t i = 0; i < live; i++) {
        const double *row = state->triangle + i * state->ld;
        double size = 0; /* every row of T was shorter than 1 */
        for (ptrdiff_t j = i; j < state->last[i]; j++)
            size += fabs(row[j]);
        const int64_t before = state->exponent_new[i];
        const double length = graded_unit(n, state->t + i * n, state->exponent_new + i);
        const double terms = (double)(state->last[i] - i);
        state->stretched_new[i] +=
            terms * 0x1p-53 * size / (length * graded_power(state->exponent_new[i] - before));
    }
}

/*
 * The errors after this layer from those before it; see the top of the file.  `order` says where
 * the columns were, chi how far the new directions err, over gamma.
 */
static void svdvals_errors(svdvals_state *state, ptrdiff_t live, ptrdiff_t steps, ptrdiff_t rows,
                           const int64_t *exponent_before, double gamma) {
    const ptrdiff_t ld = state->ld;
    for (ptrdiff_t a = 0; a < steps; a++)
        state->growth[a] = fabs(state->c[a * ld + a]) * graded_power(state->unit[a]);
    for (ptrdiff_t b = 0; b < live; b++) {
        const double *before = state->turned + state->order[b] * ld;
        double *after = state->turned_new + b * ld;
        const double own = gamma * state->chi[b], grown = 1 / state->growth[b];
        double fed = 0;
        for (ptrdiff_t a = 0; a < state->cols; a++) {
            const ptrdiff_t was = state->order[a];
            double x = a == b ? 0 : before[was];
            if (was < state->order[b] && a > b)
                ; /* right before and left now: what it was is more than what it has become */
            else if (was > state->order[b] && a < b && x > 0)
                x *= graded_power(exponent_before[state->order[b]] - exponent_before[was]);
            if (a > b && x > 0)
                fed += x * grown * fabs(state->c[a * ld + b]) * graded_power(state->unit[a]);
            if (a >= steps)
                continue;
            if (a > b && was > state->order[b] && x > 0)
                x *= state->growth[a] * grown;
            after[a] = x + own;
        }
        for (ptrdiff_t a = steps; a < rows; a++)
            after[a] = own;
        state->stretched_new[b] = state->stretched[state->order[b]] + own + fed;
    }
}

/* chi_b for the leading live columns; infinite where R is singular. */
static void svdvals_chi(svdvals_state *state, ptrdiff_t live) {
    const ptrdiff_t ld = state->ld;
    graded_inverse(live, state->c, ld, state->triangle);
    for (ptrdiff_t b = 0; b < live; b++)
        state->chi[b] = 0;
    for (ptrdiff_t i = 0; i < live; i++) {
        const double *row = state->triangle + i * ld;
        const double f = state->f[state->order[i]];
        for (ptrdiff_t b = i; b < live; b++)
            state->chi[b] += f * fabs(row[b]);
    }
}

/* The product with one more factor in front. */
static void svdvals_step(svdvals_state *state, const svdvals_factor *factor) {
    const ptrdiff_t rows = factor->rows, cols = state->cols, live_before = state->live;
    svdvals_apply(state, factor);
    state->is_lost |= factor->has_lost;
    for (ptrdiff_t j = 0; j < cols; j++) {
        state->exponent_new[j] = state->exponent[j]; /* kept for the errors, in the old order */
        state->exponent[j] += state->unit[j];
    }
    graded_qr qr = {rows,        cols,     state->ld,       live_before,
                    state->c,    state->v, state->exponent, state->order,
                    state->norms};
    graded_factor(&qr);
    const ptrdiff_t live = qr.live, steps = rows < cols ? rows : cols;
    state->rank = rows < state->rank ? rows : state->rank;

    /* `exponent` is now in the new order and holds unit; take them apart again. */
    for (ptrdiff_t j = 0; j < cols; j++)
        state->growth[j] = (double)state->unit[state->order[j]];
    for (ptrdiff_t j = 0; j < cols; j++) {
        state->unit[j] = (int64_t)state->growth[j];
        state->exponent[j] -= state->unit[j];
    }

    const double gamma = (double)(rows + cols + 16) * 0x1p-53;
    svdvals_chi(state, live);
    svdvals_errors(state, live, steps, rows, state->exponent_new, gamma);
    for (ptrdiff_t j = live; j < live_before; j++) /* live columns that R leaves out */
        for (ptrdiff_t b = 0; b < live; b++) {
            const double room = fabs(state->c[b * state->ld + b]);
            state->stretched_new[b] += gamma * state->f[state->order[j]] / room *
                                       graded_power(state->exponent[j] + state->unit[j] -
                                                    state->exponent[b] - state->unit[b]);
        }
    svdvals_triangle(state, live_before, live, factor->exponent);
    for (ptrdiff_t i = live; i < rows; i++) {
        const double diagonal = i < steps ? fabs(state->c[i * state->ld + i]) : 0;
        state->exponent_new[i] =
            i < cols ? state->exponent[i] + state->unit[i] + factor->exponent : 0;
        if (diagonal > 0)
            state->exponent_new[i] += exponent_of_f64(diagonal);
    }
    svdvals_update_t(state, live_before, live);
    graded_form_q(&qr, state->q);

    state->cols = rows;
    state->live = live;
    state->is_identity = 0;
    double *const turned = state->turned, *const stretched = state->stretched;
    int64_t *const exponent = state->exponent;
    state->turned = state->turned_new;
    state->turned_new = turned;
    state->stretched = state->stretched_new;
    state->stretched_new = stretched;
    state->exponent = state->exponent_new;
    state->exponent_new = exponent;
}

/*
 * Leaves out the columns of a factor that are zero where fewer remain than the product has rank:
 * the rows of Q that they meet are taken away, a factor of its own that bounds the rank exactly.
 */
static void svdvals_select(svdvals_state *state, svdvals_factor *factor) {
    const ptrdiff_t ld = state->ld, cols = state->cols;
    svdvals_factor selection = *factor;
    selection.transposed = state->triangle;
    selection.exponent = 0;
    selection.has_lost = 0;
    selection.rows = 0;
    for (ptrdiff_t j = 0; j < cols; j++) {
        memset(selection.transposed + j * ld, 0, (size_t)ld * sizeof(double));
        if (factor->is_zero[j])
            continue;
        selection.transposed[j * ld + selection.rows] = 1;
        if (selection.rows < j)
            memcpy(factor->transposed + selection.rows * ld, factor->transposed + j * ld,
                   (size_t)ld * sizeof(double));
        selection.rows++;
    }
    svdvals_step(state, &selection);
}

/* Layer k.  A layer with a NaN or infinity ends the item. */
static void svdvals_layer(svdvals_state *state, const jm_chain *chain, ptrdiff_t k,
                          ptrdiff_t sample, int is_f64) {
    svdvals_factor factor = {.cols = state->cols,
                             .transposed = state->factor,
                             .support = state->support,
                             .kept = state->kept,
                             .is_zero = state->is_zero};
    const int status = is_f64 ? svdvals_read_f64(chain, k, sample, state->ld, &factor)
                              : svdvals_read_f32(chain, k, sample, state->ld, &factor);
    if (status != JM_OK) {
        state->bad_layer = k;
        return;
    }
    ptrdiff_t n_columns = 0;
    for (ptrdiff_t j = 0; j < factor.cols; j++)
        n_columns += !factor.is_zero[j];
    if (n_columns < state->live)
        svdvals_select(state, &factor);
    svdvals_step(state, &factor);
    memcpy(state->support, state->kept, (size_t)factor.rows * sizeof(ptrdiff_t));
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Sorts values, descending, with their errors; a few dozen that are nearly sorted. */
static void svdvals_sort(ptrdiff_t n, double *values, double *errors) {
    for (ptrdiff_t i = 1; i < n; i++) {
        const double value = values[i], error = errors[i];
        ptrdiff_t j = i;
        for (; j > 0 && values[j - 1] < value; j--) {
            values[j] = values[j - 1];
            errors[j] = errors[j - 1];
        }
        values[j] = value;
        errors[j] = error;
    }
}

/*
 * Prepares the rotations that give the singular values of diag(2^e) T: row i of the triangle is row
 * order[i] of T, of 2^unit.  `condition` is a bound of |T^-1|, the lengths of its columns go to f,
 * `spread` is the same for the triangle's inverse, rows of length one.
 */
static void svdvals_decompose(svdvals_state *state) {
    const ptrdiff_t live = state->live, ld = state->ld;
    /* T^T diag(2^e) Pi = Q R; the reflections go where T' would. */
    graded_qr qr = {state->n_in,     live,         state->ld_t, live, state->t, state->t_new,
                    state->exponent, state->order, state->norms};
    graded_factor(&qr);
    const ptrdiff_t n = qr.live;
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t i = 0; i <= j; i++)
            state->c[j * ld + i] = state->t[j * state->ld_t + i];
    graded_inverse(n, state->c, ld, state->triangle);
    state->condition = graded_triangle_norm(n, state->triangle, ld, state->chi);
    for (ptrdiff_t i = 0; i < n; i++) {
        const double *row = state->triangle + i * ld;
        state->f[state->order[i]] = sqrt(graded_dot(JM_PADDED(n), row, row));
    }

    /* Rows of R, each a vector for Jacobi with its own exponent. */
    double *x = state->v;
    for (ptrdiff_t j = 0; j < n; j++)
        state->unit[j] = 0;
    svdvals_triangle(state, n, n, 0);
    for (ptrdiff_t i = 0; i < n; i++)
        memcpy(x + i * ld, state->triangle + i * ld, (size_t)JM_PADDED(n) * sizeof(double));
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t i = 0; i <= j; i++)
            state->c[j * ld + i] = state->triangle[i * ld + j];
    graded_inverse(n, state->c, ld, state->triangle);
    state->spread = graded_triangle_norm(n, state->triangle, ld, state->chi);
    for (ptrdiff_t i = 0; i < n; i++)
        state->unit[i] = state->exponent_new[i];
    state->jacobi = (graded_rotations){n, ld, x, state->exponent_new, state->growth, 0, 0, 0};
}

/*
 * The logs of the singular values, not sorted, after the rotations.  Returns the bound of the
 * errors made since svdvals_decompose: n reflections of columns, each relative to its column, and
 * the rotations, each relative to its row.
 */
static double svdvals_values(const svdvals_state *state, double *values) {
    const graded_rotations *jacobi = &state->jacobi;
    const double width = (double)jacobi->n, height = (double)state->n_in;
    for (ptrdiff_t i = 0; i < jacobi->n; i++) {
        const double twos = (double)state->exponent_new[i];
        values[i] = JM_LOG_2_HIGH * twos + (JM_LOG_2_LOW * twos + log(state->growth[i]));
    }
    return 0x1p-53 * (width * (height + 16) * state->condition +
                      8 * width * jacobi->sweep * state->spread) +
           width * jacobi->largest;
}

/* The logs of the singular values and the bounds of all errors so far. */
static void svdvals_finish(svdvals_state *state, ptrdiff_t n_values, double *values,
                           double *errors) {
    const ptrdiff_t n = state->jacobi.n;
    const double own = svdvals_values(state, values), condition = state->condition;
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t was = state->order[i];
        const double *turned = state->turned + was * state->ld;
        double largest = 0;
        for (ptrdiff_t a = 0; a < state->cols; a++)
            largest = a != was && turned[a] > largest ? turned[a] : largest;
        state->f[i] = state->stretched[was] + largest;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        double square = 0;
        for (ptrdiff_t b = 0; b < n; b++) {
            const int64_t below = state->unit[b] - state->exponent_new[i];
            const double weight = below < 0 ? graded_power(below) : 1;
            square += state->f[b] * weight * (state->f[b] * weight);
        }
        double error = condition * sqrt(square) + own;
        if (!(error < JM_FIRST_ORDER) || state->is_lost)
            error = INFINITY;
        errors[i] = error + 0x1p-51 * fabs(values[i]) + 0x1p-51;
    }
    svdvals_sort(n, values, errors);
    for (ptrdiff_t i = n; i < n_values; i++) {
        values[i] = -INFINITY;
        errors[i] = i < state->rank || state->is_lost ? INFINITY : 0;
    }
}

#endif
