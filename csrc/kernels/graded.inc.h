/*
 * Graded matrices: columns of double precision, each with a power of two of its own, as
 * C diag(2^exponent).  Orthogonal transformations act on the rows, so exponents that lie thousands
 * apart never meet and every column keeps its digits: Householder QR with column pivoting, and
 * one-sided Jacobi on the result (Demmel and Veselic, Jacobi's method is more accurate than QR,
 * 1992; Drmac and Veselic, New fast and accurate Jacobi SVD algorithm, 2008).
 *
 * A column of n entries is a contiguous row of an array of stride ld, a multiple of JM_VW, filled
 * up with zeros.  Everything here computes in double; it stands once, beside the float64 kernels.
 */
#if JM_IS_F64

/* Exponents stay below this in magnitude; a difference beyond it scales to zero or infinity. */
#define JM_FAR_EXPONENT 2000

static double graded_power(int64_t k) {
    const int64_t far = JM_FAR_EXPONENT;
    return power_of_two_f64((int)(k > far ? far : k < -far ? -far : k));
}

/* The sum of the lanes. */
JM_INLINE double graded_sum(JM_V v) {
    double lanes[JM_VW];
    JM_STORE(lanes, v);
    double sum = lanes[0];
    for (int j = 1; j < JM_VW; j++)
        sum += lanes[j];
    return sum;
}

/* x . y over n entries, n a multiple of JM_VW. */
static double graded_dot(ptrdiff_t n, const double *x, const double *y) {
    JM_V even = JM_SPLAT(0), odd = JM_SPLAT(0);
    ptrdiff_t i = 0;
    for (; i + 2 * JM_VW <= n; i += 2 * JM_VW) {
        even = JM_FMADD(JM_LOAD(x + i), JM_LOAD(y + i), even);
        odd = JM_FMADD(JM_LOAD(x + i + JM_VW), JM_LOAD(y + i + JM_VW), odd);
    }
    if (i < n)
        even = JM_FMADD(JM_LOAD(x + i), JM_LOAD(y + i), even);
    return graded_sum(even + odd);
}

/* A norm as mantissa in [0.5, 1) and exponent; zero is 0 with exponent 0. */
typedef struct {
    double mantissa;
    int64_t exponent;
} graded_size;

/* The 2-norm of n entries whose plain sum of squares is given, taken again where that is unsafe. */
static graded_size graded_norm(ptrdiff_t n, const double *x, double square) {
    graded_size norm = {0, 0};
    if (!(square > 0x1p-900 && square < 0x1p900)) {
        const double largest = max_abs_f64(n, x);
        if (largest == 0)
            return norm;
        norm.exponent = exponent_of_f64(largest);
        const double half = graded_power(-norm.exponent / 2);
        const double rest = graded_power(-norm.exponent - -norm.exponent / 2);
        square = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            const double y = x[i] * half * rest;
            square += y * y;
        }
    }
    const double root = sqrt(square);
    const int e = exponent_of_f64(root);
    norm.mantissa = root * graded_power(-e);
    norm.exponent += e;
    return norm;
}

/*
 * out = A B for rows of padded width n: A (m, depth) with stride lda, B (depth, n) with stride ldb.
 * Row i of A is zero outside [first[i], last[i]); NULL: it is full.
 */
JM_INLINE void graded_tile(const int height, const int nv, ptrdiff_t begin, ptrdiff_t end,
                           const double *a, ptrdiff_t lda, const double *b, ptrdiff_t ldb,
                           double *out, ptrdiff_t ldo) {
    JM_V sum[4][3];
    JM_UNROLL
    for (int r = 0; r < height; r++)
        for (int v = 0; v < nv; v++)
            sum[r][v] = JM_SPLAT(0);
    for (ptrdiff_t k = begin; k < end; k++) {
        JM_V x[3];
        for (int v = 0; v < nv; v++)
            x[v] = JM_LOAD(b + k * ldb + v * JM_VW);
        JM_UNROLL
        for (int r = 0; r < height; r++) {
            const JM_V s = JM_SPLAT(a[r * lda + k]);
            for (int v = 0; v < nv; v++)
                sum[r][v] = JM_FMADD(s, x[v], sum[r][v]);
        }
    }
    JM_UNROLL
    for (int r = 0; r < height; r++)
        for (int v = 0; v < nv; v++)
            JM_STORE(out + r * ldo + v * JM_VW, sum[r][v]);
}

static void graded_times(ptrdiff_t m, ptrdiff_t depth, ptrdiff_t n, const double *a, ptrdiff_t lda,
                         const ptrdiff_t *first, const ptrdiff_t *last, const double *b,
                         ptrdiff_t ldb, double *out, ptrdiff_t ldo) {
    for (ptrdiff_t i = 0; i < m; i += 4) {
        const int height = (int)(m - i < 4 ? m - i : 4);
        ptrdiff_t begin = first ? first[i] : 0, end = last ? 0 : depth;
        for (int r = 0; r < height; r++) {
            begin = first && first[i + r] < begin ? first[i + r] : begin;
            end = last && last[i + r] > end ? last[i + r] : end;
        }
        for (ptrdiff_t j = 0; j < n;) {
            const ptrdiff_t left = (n - j) / JM_VW;
            const int nv = left >= 3 && left != 4 ? 3 : left >= 2 ? 2 : 1;
            const double *ai = a + i * lda;
            double *to = out + i * ldo + j;
            switch (height * 4 + nv) {
#define JM_TILE(h, w)                                                                              \
    case h * 4 + w:                                                                                \
        graded_tile(h, w, begin, end, ai, lda, b + j, ldb, to, ldo);                               \
        break;
                JM_TILE(1, 1)
                JM_TILE(1, 2)
                JM_TILE(1, 3)
                JM_TILE(2, 1)
                JM_TILE(2, 2)
                JM_TILE(2, 3)
                JM_TILE(3, 1)
                JM_TILE(3, 2)
                JM_TILE(3, 3)
                JM_TILE(4, 1)
                JM_TILE(4, 2)
                JM_TILE(4, 3)
#undef JM_TILE
            }
            j += nv * JM_VW;
        }
    }
}

/* ---- Householder QR with column pivoting -------------------------------------------------- */

/*
 * c -= (v . c) v over rows [from, n), from and n multiples of JM_VW; v is zero above row `row`.
 * Returns the sum of squares of the rows below it, row - from < JM_VW.
 */
static double graded_reflect(ptrdiff_t from, ptrdiff_t n, ptrdiff_t row, const double *v,
                             double *c) {
    const double s = graded_dot(n - from, v + from, c + from);
    const JM_V negative = JM_SPLAT(-s);
    double first[JM_VW];
    JM_V sum = JM_FMADD(negative, JM_LOAD(v + from), JM_LOAD(c + from));
    JM_STORE(c + from, sum);
    JM_STORE(first, sum);
    for (ptrdiff_t i = 0; i <= row - from; i++)
        first[i] = 0;
    sum = JM_LOAD(first);
    sum *= sum;
    for (ptrdiff_t i = from + JM_VW; i < n; i += JM_VW) {
        const JM_V x = JM_FMADD(negative, JM_LOAD(v + i), JM_LOAD(c + i));
        JM_STORE(c + i, x);
        sum = JM_FMADD(x, x, sum);
    }
    return graded_sum(sum);
}

/* One matrix C diag(2^exponent) to be factored, and its factors. */
typedef struct {
    ptrdiff_t rows, cols, ld;
    ptrdiff_t live;     /* columns [0, live) are pivoted before all others */
    double *c;          /* (cols, ld): in C; out column j of R in [0, min(j, rows - 1)] */
    double *v;          /* (min(rows, cols), ld): reflections I - v v^T; a zero v is none */
    int64_t *exponent;  /* (cols) */
    ptrdiff_t *order;   /* (cols): out, where the column was */
    graded_size *norms; /* (cols): scratch */
} graded_qr;

static void graded_swap(const graded_qr *qr, ptrdiff_t i, ptrdiff_t j) {
    if (i == j)
        return;
    double *x = qr->c + i * qr->ld, *y = qr->c + j * qr->ld;
    const ptrdiff_t n = JM_PADDED(qr->rows);
    for (ptrdiff_t k = 0; k < n; k += JM_VW) {
        const JM_V kept = JM_LOAD(x + k);
        JM_STORE(x + k, JM_LOAD(y + k));
        JM_STORE(y + k, kept);
    }
    const int64_t exponent = qr->exponent[i];
    qr->exponent[i] = qr->exponent[j];
    qr->exponent[j] = exponent;
    const ptrdiff_t order = qr->order[i];
    qr->order[i] = qr->order[j];
    qr->order[j] = order;
    const graded_size norm = qr->norms[i];
    qr->norms[i] = qr->norms[j];
    qr->norms[j] = norm;
}

/* The longest column of [begin, end), exponents included; begin if all are zero. */
static ptrdiff_t graded_longest(const graded_qr *qr, ptrdiff_t begin, ptrdiff_t end) {
    ptrdiff_t best = begin;
    for (ptrdiff_t j = begin + 1; j < end; j++) {
        const graded_size x = qr->norms[j], y = qr->norms[best];
        if (x.mantissa == 0)
            continue;
        const int64_t lead = (x.exponent + qr->exponent[j]) - (y.exponent + qr->exponent[best]);
        if (y.mantissa == 0 || lead > 0 || (lead == 0 && x.mantissa > y.mantissa))
            best = j;
    }
    return best;
}

/* v for the column x whose part below row i - 1 has the norm given; R_ii goes to x[i]. */
static void graded_reflector(const graded_qr *qr, ptrdiff_t i, double *x, double *v) {
    const ptrdiff_t n = JM_PADDED(qr->rows);
    const graded_size norm = qr->norms[i];
    memset(v, 0, (size_t)n * sizeof(double));
    double below = 0;
    for (ptrdiff_t k = i + 1; k < qr->rows; k++)
        below = fabs(x[k]) > below ? fabs(x[k]) : below;
    if (below == 0)
        return;
    const double half = graded_power(-norm.exponent / 2);
    const double rest = graded_power(-norm.exponent - -norm.exponent / 2);
    for (ptrdiff_t k = i; k < qr->rows; k++)
        v[k] = x[k] * half * rest;
    const double head = fabs(v[i]);
    const double scale = 1 / sqrt(norm.mantissa * (norm.mantissa + head));
    v[i] += v[i] < 0 ? -norm.mantissa : norm.mantissa;
    const double sign = v[i] < 0 ? 1 : -1;
    for (ptrdiff_t k = i; k < qr->rows; k++)
        v[k] *= scale;
    x[i] = ldexp(sign * norm.mantissa, (int)norm.exponent);
}

/*
 * C diag(2^e) Pi = Q R diag(2^e) by as many reflections as the smaller side.  The live columns that
 * are left when all of them have become zero are no longer live: qr->live shrinks.
 */
static void graded_factor(graded_qr *qr) {
    const ptrdiff_t n = JM_PADDED(qr->rows);
    const ptrdiff_t steps = qr->rows < qr->cols ? qr->rows : qr->cols;
    for (ptrdiff_t j = 0; j < qr->cols; j++) {
        const double *x = qr->c + j * qr->ld;
        qr->order[j] = j;
        qr->norms[j] = graded_norm(n, x, graded_dot(n, x, x));
    }
    for (ptrdiff_t i = 0; i < steps; i++) {
        ptrdiff_t pivot = graded_longest(qr, i, i < qr->live ? qr->live : qr->cols);
        if (i < qr->live && qr->norms[pivot].mantissa == 0) {
            qr->live = i;
            pivot = graded_longest(qr, i, qr->cols);
        }
        graded_swap(qr, i, pivot);
        double *v = qr->v + i * qr->ld;
        graded_reflector(qr, i, qr->c + i * qr->ld, v);
        const ptrdiff_t from = i - i % JM_VW;
        for (ptrdiff_t j = i + 1; j < qr->cols; j++) {
            double *x = qr->c + j * qr->ld;
            const double square = graded_reflect(from, n, i, v, x);
            qr->norms[j] = graded_norm(qr->rows - i - 1, x + i + 1, square);
        }
    }
    if (qr->live > steps)
        qr->live = steps;
}

/* All `rows` columns of Q, one a row of q (rows, ld). */
static void graded_form_q(const graded_qr *qr, double *q) {
    const ptrdiff_t n = JM_PADDED(qr->rows);
    const ptrdiff_t steps = qr->rows < qr->cols ? qr->rows : qr->cols;
    for (ptrdiff_t j = 0; j < qr->rows; j++) {
        memset(q + j * qr->ld, 0, (size_t)n * sizeof(double));
        q[j * qr->ld + j] = 1;
    }
    for (ptrdiff_t i = steps - 1; i >= 0; i--)
        for (ptrdiff_t j = i; j < qr->rows; j++)
            (void)graded_reflect(i - i % JM_VW, n, i, qr->v + i * qr->ld, q + j * qr->ld);
}

/* inverse (n, ld) of the upper triangle whose column j is row j of c; columns up to n. */
static void graded_inverse(ptrdiff_t n, const double *c, ptrdiff_t ld, double *inverse) {
    const ptrdiff_t padded = JM_PADDED(n);
    for (ptrdiff_t i = n - 1; i >= 0; i--) {
        double *row = inverse + i * ld;
        memset(row, 0, (size_t)padded * sizeof(double));
        row[i] = 1;
        for (ptrdiff_t k = i + 1; k < n; k++) {
            const JM_V s = JM_SPLAT(-c[k * ld + i]);
            const double *other = inverse + k * ld;
            for (ptrdiff_t j = k - k % JM_VW; j < padded; j += JM_VW)
                JM_STORE(row + j, JM_FMADD(s, JM_LOAD(other + j), JM_LOAD(row + j)));
        }
        const JM_V s = JM_SPLAT(1 / c[i * ld + i]);
        for (ptrdiff_t j = i - i % JM_VW; j < padded; j += JM_VW)
            JM_STORE(row + j, JM_LOAD(row + j) * s);
    }
}

/* An upper bound of the 2-norm of the upper triangle a (n, ld): sqrt(|a|_1 |a|_inf). */
static double graded_triangle_norm(ptrdiff_t n, const double *a, ptrdiff_t ld, double *sums) {
    double rows = 0, columns = 0;
    memset(sums, 0, (size_t)n * sizeof(double));
    for (ptrdiff_t i = 0; i < n; i++) {
        double sum = 0;
        for (ptrdiff_t j = i; j < n; j++) {
            sum += fabs(a[i * ld + j]);
            sums[j] += fabs(a[i * ld + j]);
        }
        rows = sum > rows ? sum : rows;
    }
    for (ptrdiff_t j = 0; j < n; j++)
        columns = sums[j] > columns ? sums[j] : columns;
    return sqrt(rows) * sqrt(columns);
}

/* ---- one-sided Jacobi ---------------------------------------------------------------------- */

#define JM_MAX_SWEEPS 40

/*
 * Rotates the vectors x[i] 2^exponent[i] of a pair against each other, x[i] the longer one; their
 * cosine is c and ratio = |x_j| / |x_i| <= 1, both as if exponents did not matter for c.
 *
 * With t = ratio tau the tangent, x_i += t x_j and x_j -= t x_i hold in units of the vectors' own
 * lengths as x_i += t ratio x_j and x_j -= tau x_i: tau stays finite when the ratio underflows, and
 * what is left then is the orthogonal projection.
 */
static void graded_rotate(ptrdiff_t n, double *xi, double *xj, double c, double ratio, double to_i,
                          double to_j) {
    const double gap = (1 - ratio) * (1 + ratio);
    const double tau = 2 * c / (gap + sqrt(gap * gap + 4 * ratio * ratio * c * c));
    const double t = tau * ratio, cosine = 1 / sqrt(1 + t * t);
    const JM_V add = JM_SPLAT(t * ratio * to_i), subtract = JM_SPLAT(-tau * to_j);
    const JM_V scale = JM_SPLAT(cosine);
    for (ptrdiff_t k = 0; k < n; k += JM_VW) {
        const JM_V a = JM_LOAD(xi + k), b = JM_LOAD(xj + k);
        JM_STORE(xi + k, scale * JM_FMADD(add, b, a));
        JM_STORE(xj + k, scale * JM_FMADD(subtract, a, b));
    }
}

/* Brings a vector to a norm in [0.5, 1), its power of two into the exponent; returns the norm. */
static double graded_unit(ptrdiff_t n, double *x, int64_t *exponent) {
    const graded_size norm = graded_norm(n, x, graded_dot(n, x, x));
    if (norm.exponent) {
        scale_by_power_f64(n, x, (int)-norm.exponent);
        *exponent += norm.exponent;
    }
    return norm.mantissa;
}

/* Vectors x[i] 2^exponent[i] of length n on their way to being orthogonal. */
typedef struct {
    ptrdiff_t n, ld;
    double *x; /* (n, ld) */
    int64_t *exponent;
    double *length; /* (n) the norms of the x[i], in [0.5, 1) */
    ptrdiff_t next; /* the row of pairs that comes next */
    int sweep;      /* that it belongs to, or, at the end, how many there were */
    double largest; /* cosine of this sweep so far */
} graded_rotations;

/*
 * Rotates about n_pairs pairs; returns whether there is more to do.  Pairs are taken row by row,
 * the vectors of a sweep sorted by length where the pivoted QR before has not done so (de Rijk
 * 1989): a rotation leaves the longer one first.  Stops once no cosine exceeds n u; `largest` is
 * then the largest of the last sweep, n u at most unless the sweeps ran out.
 */
static int graded_jacobi(graded_rotations *job, ptrdiff_t n_pairs) {
    const ptrdiff_t n = job->n, ld = job->ld, padded = JM_PADDED(n);
    const double tolerance = (double)n * 0x1p-53;
    double *const length = job->length;
    int64_t *const exponent = job->exponent;
    if (job->sweep == 0 && job->next == 0)
        for (ptrdiff_t i = 0; i < n; i++)
            length[i] = graded_unit(padded, job->x + i * ld, exponent + i);
    while (job->sweep < JM_MAX_SWEEPS) {
        for (; job->next + 1 < n && n_pairs > 0; n_pairs -= n - job->next, job->next++) {
            const ptrdiff_t i = job->next;
            for (ptrdiff_t j = i + 1; j < n; j++) {
                double *xi = job->x + i * ld, *xj = job->x + j * ld;
                const double c = graded_dot(padded, xi, xj) / (length[i] * length[j]);
                if (!(fabs(c) > tolerance))
                    continue;
                job->largest = fabs(c) > job->largest ? fabs(c) : job->largest;
                const double ratio =
                    length[j] / length[i] * graded_power(exponent[j] - exponent[i]);
                if (ratio <= 1)
                    graded_rotate(padded, xi, xj, c, ratio, length[i] / length[j],
                                  length[j] / length[i]);
                else
                    graded_rotate(padded, xj, xi, c,
                                  length[i] / length[j] * graded_power(exponent[i] - exponent[j]),
                                  length[j] / length[i], length[i] / length[j]);
                length[i] = graded_unit(padded, xi, exponent + i);
                length[j] = graded_unit(padded, xj, exponent + j);
            }
        }
        if (job->next + 1 < n)
            return 1;
        job->sweep++;
        job->next = 0;
        if (job->largest <= tolerance || job->sweep == JM_MAX_SWEEPS)
            break;
        job->largest = 0;
    }
    return 0;
}

#endif
