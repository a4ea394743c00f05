/*
 * chain_log_svdvals of square chains up to JM_LANES_MOST wide, JM_VW samples side by side in lanes,
 * with a proved bound of the error.
 *
 * Forward.  As in chain_svdvals.inc.h the product is Q D T, with D = diag(m 2^e) and the step
 * F Q P = Q' R, D' = diag(R) D, T' = R~ P^T T, R~ = D'^-1 R D of unit diagonal; here by
 * Gram-Schmidt in its modified form with column pivoting, a column that cancels made orthogonal
 * twice.  What the error needs is a small residual, F Q P = Q' R + Delta, and that Q is well
 * conditioned; Q need not be orthogonal beyond that, for Q and its inverse meet in the product.
 * Column j of Delta is at most delta_j = u (n |F|_F + (steps) |C_j|) long: each step of
 * Gram-Schmidt rounds what is left of the column once.
 *
 * Backward, over a store of as many layers as fit.  With A_k = R_K P_K' ... R_{k+1} the later
 * layers, A_k = diag(2^g) U_k with rows of U_k near length one, and V_k = U_k^-1, the product with
 * one layer perturbed is diag(2^g) (I - X_k) diag(D_K 2^-g) T_K, where |X_k|_ab <= alpha_a beta_b,
 * alpha_a = |row a of U_k|,   beta_b = sum_j delta_j |R_k^-1 V_k|_jb. Factor I - X = (I - L)(I -
 * U'), L strictly lower, U' upper: what is in L goes to the left, where it is L_ab 2^(g_a - g_b),
 * what is above the diagonal to the right, U'_ab d_b / d_a with d = D_K 2^-g, and the diagonal
 * stays.  All of them are multiplicative perturbations of the product and change no singular value
 * by more than the factor 1 + norm (Eisenstat and Ipsen, Relative perturbation techniques for
 * singular value problems, 1995).  Sums over b > a are done from the bottom, with quotients of
 * neighbours.  Decision 9 has the proof.
 *
 * The steps forward are here; those backward, and the groups of samples, in svdvals_sweep.inc.h.
 */

#ifndef JM_LANES_MOST
/* Widths up to this go in lanes. */
#define JM_LANES_MOST 32
/* Bytes of the store of layers, and flops of one sweep through it, both in each lane. */
#define JM_LANES_STORE ((size_t)1 << 23)
#define JM_LANES_SWEEP 80000000
/* A column that shrinks by more on being made orthogonal is made so again; squared. */
#define JM_LANES_AGAIN 0x1p-6
/* Terms of F Q that are summed on their own. */
#define JM_LANES_TERMS 4
/* A column that is left with less than this is left to the other way; squared. */
#define JM_LANES_NOISE 0x1p-80
/* Squared Frobenius norms of a factor within 2^+-this go in lanes. */
#define JM_LANES_RANGE 700
#endif

#if !JM_IS_F64

/* The factors of layer t for `lanes` samples, in double, (n, n, lanes). */
static void svdvals_lane_factor_f32(ptrdiff_t n, ptrdiff_t lanes, const jm_chain *chain,
                                    ptrdiff_t t, const ptrdiff_t *sample, double *factor) {
    const jm_layer layer = chain_layer_f32(chain, t);
    const int on_input = chain->slope_side == JM_SLOPE_INPUT;
    for (ptrdiff_t l = 0; l < lanes; l++) {
        const float *w = layer.weights, *s = layer.slopes;
        if (w)
            w += sample[l] * layer.weights_stride;
        if (s)
            s += sample[l] * layer.slopes_stride;
        for (ptrdiff_t r = 0; r < n; r++)
            for (ptrdiff_t c = 0; c < n; c++) {
                double x = w ? (double)w[r * n + c] : r == c;
                if (s)
                    x *= (double)s[on_input ? c : r];
                if (r == c)
                    x += layer.shortcut;
                factor[(r * n + c) * lanes + l] = x;
            }
    }
}

#else

/* What lives on between calls, at the start of the workspace. */
typedef struct {
    ptrdiff_t stored, n_layers; /* in the store; all so far */
    int is_later;               /* the store has been emptied before */
} svdvals_lane_progress;

/* The workspace.  Arrays of vectors: index times JM_VW. */
typedef struct {
    svdvals_lane_progress *progress;
    ptrdiff_t n, capacity, layer_size;
    double *factor, *q, *c, *t;  /* (n, n): q, c by columns, t by rows */
    double *u, *v;               /* (n, n): U by rows, V by columns */
    double *mantissa, *exponent; /* (n) of D; exponents hold integers */
    double *old_mantissa, *old_exponent;
    /* (n) squares of what is left of a column, was, and was left so far, summed; rows of T */
    double *square, *whole, *passed, *length;
    double *diagonal; /* (n) relative errors of D so far */
    double *low, *up, /* sums by columns, by rows */
        *alpha, *beta, *g, *order, *began, *began_mantissa, *left_columns;
    /* One vector each: bound of the part to the left, to the right (not yet times the condition of
     * T), the sum of all |X|_F, the largest quotient met; nonzero: left to the other way. */
    double *left, *right, *sum, *worst, *undone;
    double *store;
} svdvals_lanes;

/* Of one layer of the store: R packed by rows, delta, where columns were, errors of T's rows, e. */
static ptrdiff_t svdvals_lane_layer_size(ptrdiff_t n) { return (n * (n + 1) / 2 + 4 * n) * JM_VW; }

static size_t svdvals_lane_layout(ptrdiff_t n, char *work, svdvals_lanes *lanes) {
    const size_t square = (size_t)(n * n * JM_VW), line = (size_t)(n * JM_VW);
    double **const squares[] = {&lanes->factor, &lanes->q, &lanes->c,
                                &lanes->t,      &lanes->u, &lanes->v};
    double **const lines[] = {
        &lanes->mantissa,       &lanes->exponent,    &lanes->old_mantissa, &lanes->old_exponent,
        &lanes->square,         &lanes->whole,       &lanes->length,       &lanes->diagonal,
        &lanes->passed,         &lanes->low,         &lanes->up,           &lanes->alpha,
        &lanes->beta,           &lanes->g,           &lanes->order,        &lanes->began,
        &lanes->began_mantissa, &lanes->left_columns};
    double **const vectors[] = {&lanes->left, &lanes->right, &lanes->sum, &lanes->worst,
                                &lanes->undone};
    const size_t head = (sizeof(svdvals_lane_progress) + 63) / 64 * 64;
    size_t at = 0;
    double *base = work ? (double *)(work + head) : NULL;
    for (size_t i = 0; i < sizeof squares / sizeof *squares; i++, at += square)
        *squares[i] = work ? base + at : NULL;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++, at += line)
        *lines[i] = work ? base + at : NULL;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++, at += JM_VW)
        *vectors[i] = work ? base + at : NULL;
    lanes->progress = (svdvals_lane_progress *)(void *)work;
    lanes->n = n;
    lanes->layer_size = svdvals_lane_layer_size(n);
    lanes->capacity = (ptrdiff_t)(JM_LANES_STORE / sizeof(double)) * JM_VW / lanes->layer_size;
    const ptrdiff_t most = JM_LANES_SWEEP / (2 * n * n * n);
    lanes->capacity = most < lanes->capacity ? most : lanes->capacity;
    lanes->store = work ? base + at : NULL;
    at += (size_t)(lanes->capacity * lanes->layer_size);
    return head + (at * sizeof(double) + 63) / 64 * 64;
}

static void svdvals_lane_start(const svdvals_lanes *lanes) {
    const ptrdiff_t n = lanes->n;
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1);
    *lanes->progress = (svdvals_lane_progress){0, 0, 0};
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = i * JM_VW;
        for (ptrdiff_t j = 0; j < n; j++) {
            JM_STORE(lanes->q + (i * n + j) * JM_VW, JM_SPLAT(i == j));
            JM_STORE(lanes->t + (i * n + j) * JM_VW, JM_SPLAT(i == j));
        }
        JM_STORE(lanes->mantissa + at, one);
        JM_STORE(lanes->exponent + at, zero);
        JM_STORE(lanes->began + at, zero);
        JM_STORE(lanes->began_mantissa + at, one);
        JM_STORE(lanes->length + at, one);
        JM_STORE(lanes->diagonal + at, zero);
    }
    JM_STORE(lanes->left, zero);
    JM_STORE(lanes->right, zero);
    JM_STORE(lanes->sum, zero);
    JM_STORE(lanes->worst, one);
    JM_STORE(lanes->undone, zero);
}

/* 2^k for integers k, brought to within 2^+-1000. */
JM_INLINE JM_V svdvals_lane_power(JM_V k) {
    k = JM_VMIN(JM_VMAX(k, JM_SPLAT(-1000)), JM_SPLAT(1000));
    return JM_VPOW2(k + JM_SPLAT(JM_ROUNDER));
}

/* log2 a, by the straight line between powers of two. */
JM_INLINE JM_V svdvals_lane_log2(JM_V a) {
    const JM_V e = JM_VEXPONENT(a);
    return e + (a * JM_VPOW2(JM_SPLAT(JM_ROUNDER) - e) - JM_SPLAT(1));
}

/* Entry (i, j) of a triangle packed by rows. */
JM_INLINE double *svdvals_lane_entry(const ptrdiff_t n, double *r, ptrdiff_t i, ptrdiff_t j) {
    return r + (i * n - i * (i + 1) / 2 + j) * JM_VW;
}

/*
 * The norm of F into *size; samples whose factor has a row or column of zeros, or is not of
 * ordinary size, are left to the other way and go on with the identity.
 */
JM_INLINE JM_V svdvals_lane_check(const ptrdiff_t n, const svdvals_lanes *lanes) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1);
    JM_V total = zero, least = one;
    double *const largest = lanes->square; /* of the columns */
    for (ptrdiff_t c = 0; c < n; c++)
        JM_STORE(largest + c * JM_VW, zero);
    for (ptrdiff_t r = 0; r < n; r++) {
        JM_V row = zero;
        for (ptrdiff_t c = 0; c < n; c++) {
            const JM_V x = JM_LOAD(lanes->factor + (r * n + c) * JM_VW);
            total = JM_FMADD(x, x, total);
            row = JM_VMAX_ABS(x, row);
            JM_STORE(largest + c * JM_VW, JM_VMAX_ABS(x, JM_LOAD(largest + c * JM_VW)));
        }
        least = JM_VMIN(row, least);
    }
    for (ptrdiff_t c = 0; c < n; c++)
        least = JM_VMIN(JM_LOAD(largest + c * JM_VW), least);
    /* A NaN or infinity makes the total one. */
    const JM_V high = JM_SPLAT(0x1p700), low = JM_SPLAT(0x1p-700);
    JM_V fails = JM_VLESS(total, high, zero, one);
    fails = JM_VLESS(low, total, fails, one);
    fails = JM_VLESS(zero, least, fails, one);
    if (JM_ANY_ABOVE(fails, zero)) {
        double failed[JM_VW], undone[JM_VW];
        JM_STORE(failed, fails);
        JM_STORE(undone, JM_LOAD(lanes->undone));
        for (ptrdiff_t l = 0; l < JM_VW; l++) {
            if (failed[l] == 0)
                continue;
            undone[l] = 1;
            for (ptrdiff_t i = 0; i < n * n; i++)
                lanes->factor[i * JM_VW + l] = i % (n + 1) == 0;
        }
        JM_STORE(lanes->undone, JM_LOAD(undone));
        total = JM_VLESS(zero, fails, JM_SPLAT((double)n), total);
    }
    return JM_VSQRT(total);
}

JM_INLINE JM_V svdvals_lane_key(const svdvals_lanes *lanes, ptrdiff_t j) {
    const JM_V m = JM_LOAD(lanes->old_mantissa + j * JM_VW);
    const JM_V e = JM_LOAD(lanes->old_exponent + j * JM_VW);
    const JM_V square = JM_VMAX(JM_LOAD(lanes->square + j * JM_VW), JM_SPLAT(0x1p-900));
    return svdvals_lane_log2(square * (m * m)) + (e + e);
}

static void svdvals_lane_exchange(double *a, double *b, ptrdiff_t count, ptrdiff_t lane) {
    for (ptrdiff_t i = lane; i < count * JM_VW; i += JM_VW) {
        const double kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

/* Columns i and `pivot` of one sample change places. */
static void svdvals_lane_swap(const svdvals_lanes *lanes, double *r, ptrdiff_t i, ptrdiff_t pivot,
                              ptrdiff_t lane) {
    const ptrdiff_t n = lanes->n, x = i * JM_VW, y = pivot * JM_VW;
    double *const lines[] = {lanes->square,       lanes->whole,        lanes->passed, lanes->length,
                             lanes->old_mantissa, lanes->old_exponent, lanes->order};
    for (size_t k = 0; k < sizeof lines / sizeof *lines; k++)
        svdvals_lane_exchange(lines[k] + x, lines[k] + y, 1, lane);
    svdvals_lane_exchange(lanes->c + i * n * JM_VW, lanes->c + pivot * n * JM_VW, n, lane);
    svdvals_lane_exchange(lanes->t + i * n * JM_VW, lanes->t + pivot * n * JM_VW, n, lane);
    for (ptrdiff_t k = 0; k < i; k++)
        svdvals_lane_exchange(svdvals_lane_entry(n, r, k, i), svdvals_lane_entry(n, r, k, pivot), 1,
                              lane);
}

/* Brings the longest column of [i, n) to i unless column i is as long up to a factor sqrt 2. */
JM_INLINE void svdvals_lane_pivot(const ptrdiff_t n, const svdvals_lanes *lanes, double *r,
                                  ptrdiff_t i) {
    JM_V best = svdvals_lane_key(lanes, i) + JM_SPLAT(1), where = JM_SPLAT(0);
    for (ptrdiff_t j = i + 1; j < n; j++) {
        const JM_V key = svdvals_lane_key(lanes, j);
        where = JM_VLESS(best, key, JM_SPLAT((double)(j - i)), where);
        best = JM_VMAX(key, best);
    }
    if (!JM_ANY_ABOVE(where, JM_SPLAT(0)))
        return;
    double pivot[JM_VW];
    JM_STORE(pivot, where);
    for (ptrdiff_t l = 0; l < JM_VW; l++)
        if (pivot[l] > 0)
            svdvals_lane_swap(lanes, r, i, i + (ptrdiff_t)pivot[l], l);
}

/* Makes column i orthogonal once more where it has cancelled; returns its squared length. */
static JM_V svdvals_lane_again(const svdvals_lanes *lanes, double *r, ptrdiff_t i, JM_V square) {
    const ptrdiff_t n = lanes->n;
    double *a = lanes->c + i * n * JM_VW;
    const JM_V zero = JM_SPLAT(0);
    const JM_V limit = JM_SPLAT(JM_LANES_AGAIN) * JM_LOAD(lanes->whole + i * JM_VW);
    for (ptrdiff_t k = 0; k < i; k++) {
        const double *q = lanes->c + k * n * JM_VW;
        const JM_V share = JM_VLESS(square, limit, lyapunov_lane_dot_f64(n, JM_VW, q, a), zero);
        for (ptrdiff_t x = 0; x < n * JM_VW; x += JM_VW)
            JM_STORE(a + x, JM_LOAD(a + x) - share * JM_LOAD(q + x));
        double *at = svdvals_lane_entry(n, r, k, i);
        JM_STORE(at, JM_LOAD(at) + share);
    }
    return JM_VLESS(square, limit, lyapunov_lane_dot_f64(n, JM_VW, a, a), square);
}

/* r_ij = q_i . c_j and c_j -= r_ij q_i for `count` columns from j on. */
JM_INLINE void svdvals_lane_project(const ptrdiff_t n, const int count, const double *q, double *c,
                                    double *r) {
    JM_V sum[4];
    for (int h = 0; h < count; h++)
        sum[h] = JM_LOAD(q) * JM_LOAD(c + h * n * JM_VW);
    for (ptrdiff_t x = 1; x < n; x++) {
        const JM_V y = JM_LOAD(q + x * JM_VW);
        for (int h = 0; h < count; h++)
            sum[h] = JM_FMADD(y, JM_LOAD(c + (h * n + x) * JM_VW), sum[h]);
    }
    for (int h = 0; h < count; h++) {
        JM_STORE(r + h * JM_VW, sum[h]);
        sum[h] = -sum[h];
    }
    for (ptrdiff_t x = 0; x < n; x++) {
        const JM_V y = JM_LOAD(q + x * JM_VW);
        for (int h = 0; h < count; h++) {
            double *at = c + (h * n + x) * JM_VW;
            JM_STORE(at, JM_FMADD(sum[h], y, JM_LOAD(at)));
        }
    }
}

/* Rows and columns of a tile of C = F Q, a few terms at a time: a term is rounded with few others.
 */
JM_INLINE void svdvals_lane_tile(const int n_rows, const int n_cols, const ptrdiff_t n,
                                 const double *factor, const double *q, double *JM_RESTRICT c) {
    for (ptrdiff_t begin = 0; begin < n; begin += JM_LANES_TERMS) {
        JM_V sum[4][2];
        const ptrdiff_t end = begin + JM_LANES_TERMS < n ? begin + JM_LANES_TERMS : n;
        JM_UNROLL
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < n_cols; j++)
                sum[r][j] = JM_SPLAT(0);
        JM_UNROLL
        for (ptrdiff_t k = begin; k < end; k++) {
            JM_V x[2];
            for (int j = 0; j < n_cols; j++)
                x[j] = JM_LOAD(q + (j * n + k) * JM_VW);
            JM_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const JM_V f = JM_LOAD(factor + (r * n + k) * JM_VW);
                for (int j = 0; j < n_cols; j++)
                    sum[r][j] = JM_FMADD(f, x[j], sum[r][j]);
            }
        }
        JM_UNROLL
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < n_cols; j++) {
                double *at = c + (j * n + r) * JM_VW;
                JM_STORE(at, begin > 0 ? JM_LOAD(at) + sum[r][j] : sum[r][j]);
            }
    }
}

JM_INLINE void svdvals_lane_columns(const int n_cols, const ptrdiff_t n, const svdvals_lanes *lanes,
                                    ptrdiff_t j) {
    const double *q = lanes->q + j * n * JM_VW;
    double *c = lanes->c + j * n * JM_VW;
    ptrdiff_t r = 0;
    for (; r + 4 <= n; r += 4)
        svdvals_lane_tile(4, n_cols, n, lanes->factor + r * n * JM_VW, q, c + r * JM_VW);
    for (; r < n; r++)
        svdvals_lane_tile(1, n_cols, n, lanes->factor + r * n * JM_VW, q, c + r * JM_VW);
}

/* C = F Q by columns. */
JM_INLINE void svdvals_lane_multiply(const ptrdiff_t n, const svdvals_lanes *lanes) {
    ptrdiff_t j = 0;
    for (; j + 2 <= n; j += 2)
        svdvals_lane_columns(2, n, lanes, j);
    if (j < n)
        svdvals_lane_columns(1, n, lanes, j);
}

/* T' = R~ T in place, and the errors of its rows, over u, into theta. */
JM_INLINE void svdvals_lane_update_t(const ptrdiff_t n, const svdvals_lanes *lanes, double *r,
                                     JM_V size, double *theta) {
    const JM_V zero = JM_SPLAT(0), least = JM_SPLAT(0x1p-90);
    const JM_V log_size = svdvals_lane_log2(size) + JM_SPLAT(93);
    /* Largest exponent of the columns that follow. */
    JM_V follows = JM_SPLAT(-0x1p60);
    double *const suffix = lanes->beta;
    for (ptrdiff_t i = n - 1; i >= 0; i--) {
        JM_STORE(suffix + i * JM_VW, follows);
        follows = JM_VMAX(JM_LOAD(lanes->old_exponent + i * JM_VW), follows);
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = i * JM_VW;
        const JM_V e = JM_LOAD(lanes->exponent + at);
        JM_STORE(theta + at, zero);
        if (!JM_ANY_ABOVE(JM_LOAD(suffix + at) + log_size, e))
            continue;
        double *row = lanes->t + i * n * JM_VW;
        const JM_V inverse = JM_SPLAT(1) / JM_LOAD(lanes->mantissa + at);
        JM_V errors = zero;
        for (ptrdiff_t j = i + 1; j < n; j++) {
            JM_V x = JM_LOAD(svdvals_lane_entry(n, r, i, j)) *
                     (JM_LOAD(lanes->old_mantissa + j * JM_VW) * inverse);
            x *= svdvals_lane_power(JM_LOAD(lanes->old_exponent + j * JM_VW) - e);
            x = JM_VLESS(JM_VABS(x), least, zero, x);
            if (!JM_ANY_ABOVE(JM_VABS(x), zero))
                continue;
            errors = JM_FMADD(JM_VABS(x), JM_LOAD(lanes->length + j * JM_VW), errors);
            const double *other = lanes->t + j * n * JM_VW;
            for (ptrdiff_t c = 0; c < n * JM_VW; c += JM_VW)
                JM_STORE(row + c, JM_FMADD(x, JM_LOAD(other + c), JM_LOAD(row + c)));
        }
        const JM_V before = JM_LOAD(lanes->length + at);
        const JM_V length = JM_VSQRT(lyapunov_lane_dot_f64(n, JM_VW, row, row));
        const JM_V normal = JM_VMAX(length, JM_SPLAT(0x1p-300));
        const JM_V shift = JM_VLESS(zero, errors, JM_VEXPONENT(normal), zero);
        const JM_V back = svdvals_lane_power(-shift);
        for (ptrdiff_t c = 0; c < n * JM_VW; c += JM_VW)
            JM_STORE(row + c, JM_LOAD(row + c) * back);
        const JM_V terms = JM_SPLAT((double)(n + 6));
        const JM_V error = JM_VLESS(zero, errors, terms * (errors + before) * back, zero);
        JM_STORE(theta + at, error);
        JM_STORE(lanes->length + at, normal * back);
        JM_STORE(lanes->exponent + at, e + shift);
    }
}

/* One more layer. */
JM_INLINE void svdvals_lane_step(const ptrdiff_t n, const svdvals_lanes *lanes,
                                 const jm_layer *layer) {
    double *const r = lanes->store + lanes->progress->stored * lanes->layer_size;
    double *const delta = r + n * (n + 1) / 2 * JM_VW;
    double *const order = delta + n * JM_VW, *const theta = order + n * JM_VW;
    double *const exponent = theta + n * JM_VW;
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1), u = JM_SPLAT(0x1p-53);
    const JM_V size =
        svdvals_lane_check(n, lanes) + JM_SPLAT(sqrt((double)n) * fabs(layer->shortcut));
    /* Roundings that a term of F Q meets, in F too. */
    const double terms =
        (double)((n < JM_LANES_TERMS ? n : JM_LANES_TERMS) + (n - 1) / JM_LANES_TERMS +
                 (layer->slopes ? 1 : 0) + (layer->shortcut != 0));
    svdvals_lane_multiply(n, lanes);
    for (ptrdiff_t j = 0; j < n; j++) {
        const ptrdiff_t at = j * JM_VW;
        const double *a = lanes->c + j * n * JM_VW;
        const JM_V square = lyapunov_lane_dot_f64(n, JM_VW, a, a);
        JM_STORE(lanes->square + at, square);
        JM_STORE(lanes->whole + at, square);
        JM_STORE(lanes->passed + at, zero);
        JM_STORE(lanes->old_mantissa + at, JM_LOAD(lanes->mantissa + at));
        JM_STORE(lanes->old_exponent + at, JM_LOAD(lanes->exponent + at));
        JM_STORE(lanes->order + at, JM_SPLAT((double)j)); /* where the column was */
    }
    JM_V fails = zero;
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = i * JM_VW;
        double *a = lanes->c + i * n * JM_VW;
        svdvals_lane_pivot(n, lanes, r, i);
        const JM_V whole = JM_LOAD(lanes->whole + at);
        JM_V square = lyapunov_lane_dot_f64(n, JM_VW, a, a);
        JM_V repeated = zero;
        if (i > 0 && JM_ANY_ABOVE(JM_SPLAT(JM_LANES_AGAIN) * whole, square)) {
            repeated = JM_VLESS(square, JM_SPLAT(JM_LANES_AGAIN) * whole, one, zero);
            square = svdvals_lane_again(lanes, r, i, square);
        }
        fails = JM_VLESS(JM_SPLAT(JM_LANES_NOISE) * whole, square, fails, one);
        square = JM_VMAX(square, JM_SPLAT(0x1p-900));
        const JM_V length = JM_VSQRT(square), inverse = one / length;
        for (ptrdiff_t x = 0; x < n * JM_VW; x += JM_VW)
            JM_STORE(a + x, JM_LOAD(a + x) * inverse);
        double *const row = svdvals_lane_entry(n, r, i, i);
        JM_STORE(row, length);
        ptrdiff_t j = i + 1;
        for (; j + 4 <= n; j += 4)
            svdvals_lane_project(n, 4, a, lanes->c + j * n * JM_VW, row + (j - i) * JM_VW);
        for (; j < n; j++)
            svdvals_lane_project(n, 1, a, lanes->c + j * n * JM_VW, row + (j - i) * JM_VW);
        for (j = i + 1; j < n; j++) {
            const JM_V x = JM_LOAD(row + (j - i) * JM_VW);
            JM_V left = JM_LOAD(lanes->square + j * JM_VW) - x * x;
            const JM_V limit = JM_SPLAT(0x1p-20) * JM_LOAD(lanes->whole + j * JM_VW);
            if (JM_ANY_ABOVE(limit, left)) {
                const double *b = lanes->c + j * n * JM_VW;
                left = JM_VLESS(left, limit, lyapunov_lane_dot_f64(n, JM_VW, b, b), left);
            }
            left = JM_VMAX(left, zero);
            JM_STORE(lanes->square + j * JM_VW, left);
            JM_STORE(lanes->passed + j * JM_VW, left + JM_LOAD(lanes->passed + j * JM_VW));
        }
        /* The residual: what F Q and F round, what each projection rounds of the rest of the
         * column, and the division; a second pass has its own small share. */
        const double rank = (double)i;
        const JM_V whole_length = JM_VSQRT(whole);
        JM_V error =
            JM_FMADD(JM_SPLAT(3), length, JM_VSQRT(JM_SPLAT(rank) * JM_LOAD(lanes->passed + at)));
        if (!JM_IS_FUSED)
            error = JM_FMADD(JM_SPLAT(sqrt(rank)), whole_length, error);
        error =
            JM_FMADD(repeated * JM_SPLAT(0.25 * rank + 2 * sqrt(rank) + 1), whole_length, error);
        JM_STORE(delta + at, u * JM_FMADD(JM_SPLAT(terms), size, error));
        const JM_V m = JM_LOAD(lanes->old_mantissa + at) * length;
        const JM_V e = JM_VEXPONENT(m);
        JM_STORE(lanes->mantissa + at, m * svdvals_lane_power(-e));
        JM_STORE(lanes->exponent + at, e + JM_LOAD(lanes->old_exponent + at));
    }
    for (ptrdiff_t at = 0; at < n * JM_VW; at += JM_VW)
        JM_STORE(order + at, JM_LOAD(lanes->order + at));
    JM_STORE(lanes->undone, JM_VMAX(fails, JM_LOAD(lanes->undone)));
    svdvals_lane_update_t(n, lanes, r, size, theta);
    for (ptrdiff_t at = 0; at < n * JM_VW; at += JM_VW)
        JM_STORE(exponent + at, JM_LOAD(lanes->exponent + at));
}

#endif
