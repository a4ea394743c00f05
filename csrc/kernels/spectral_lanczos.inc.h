/*
 * The 2-norm of one dense matrix by Lanczos on A^T A.
 *
 * From a Gaussian start v_1, A^T A V_k = V_k T_k + beta_{k+1} v_{k+1} e_k^T with V_k kept
 * orthonormal by repeated Gram-Schmidt; A is read once per step, A^T (A v) being formed a few rows
 * at a time.
 *
 * Lower bound, certain: the Rayleigh quotient ||A x||_2 / ||x||_2 of the Ritz vector x = V_k y,
 * evaluated by one more pass.  |y^ - A x| <= gamma(k_row) |A| |x|, so what is lost is gamma(k_row)
 * ||A||_F.
 *
 * Upper bound (Hochstenbach, "Probabilistic upper bounds for the matrix two-norm", J. Sci. Comput.
 * 57, 2013, section 3): v_{k+1} = p_k(A^T A) v_1, p_k the Lanczos polynomial
 *     p_k(t) = det(t I - T_k) / (beta_2 ... beta_{k+1}),
 * so 1 = ||v_{k+1}|| >= |gamma_1| |p_k(sigma^2)|, gamma_1 the component of v_1 along the top right
 * singular vector.  p_k increases beyond the largest Ritz value, so sigma^2 is at most the root t
 * of p_k(t) = 1 / delta there, unless |gamma_1| < delta.  The event is the same for every k: the
 * least root is used.
 *
 * Rounding.  The computed recurrence is that of A^T A + E for a small E.  Forming A^T (A v)
 * contributes at most gamma(k_row + k_column) || |A|^T |A| ||_2 <= gamma(k_row + k_column) cap^2 (a
 * certain bound), and orthogonalising some units more (Paige, "Error analysis of the Lanczos
 * algorithm", 1976; with reorthogonalisation E is of that size, Simon 1984); `inflation` is added
 * to the root for both.  Each beta has besides a relative error of its norm, `in_norms`, by which
 * the level of log p_k is raised.  The upper bound is therefore probabilistic in the start vector
 * and modelled, not proved, in the rounding.  A step whose remainder is pure rounding goes on: what
 * is left is a random direction, and p_k grows.
 *
 * cap, certain: the least of ||A||_F and sqrt(||A||_1 ||A||_inf), rounded up.
 */
#ifndef JM_LANCZOS_CHUNK
#define JM_LANCZOS_CHUNK 64      /* rows summed apart, to shorten the chain of roundings */
#define JM_LANCZOS_PASSES 4      /* of Gram-Schmidt at most; one is usual */
#define JM_LANCZOS_KEPT 0.5      /* part of the norm that must survive the last pass */
#define JM_LANCZOS_SOLVES 3      /* inverse iterations for the Ritz vector in its basis */
#define JM_LANCZOS_ROOT_STEPS 60 /* of Newton for p_k(t) = 1 / delta */
#define JM_LANCZOS_CHEAP 65536   /* entries below which convergence is not looked at every step */
#define JM_LANCZOS_SPARING 8     /* ... but every 1 + k / 8 steps */
#define JM_LANCZOS_ORTH 16.0     /* units of rounding per step charged to orthogonalisation */
#define JM_LARGE 0x1p500         /* products leave through a logarithm beyond these */
#define JM_SMALL 0x1p-500
#endif

/* exponents up to which a matrix is used as it is: its squares stay far from under- and overflow */
#undef JM_LANCZOS_RANGE
#if JM_IS_F64
#define JM_LANCZOS_RANGE 200
#else
#define JM_LANCZOS_RANGE 16
#endif

/* One matrix, and the two factors that bring it to scale if it must be scaled on the fly. */
typedef struct {
    ptrdiff_t rows, cols;
    const JM_T *entries;
    JM_T scale, more;
} JM_NAME(jm_matrix);

/* Roundings of one term in a dot product of n terms as formed below. */
static double JM_NAME(dot_roundings)(ptrdiff_t n) {
    return (double)(n / (2 * JM_VW) + 2 * JM_VW + 4);
}

static JM_T JM_NAME(dot)(ptrdiff_t n, const JM_T *x, const JM_T *y) {
    JM_V even = JM_SPLAT(0), odd = JM_SPLAT(0);
    ptrdiff_t j = 0;
    for (; j + 2 * JM_VW <= n; j += 2 * JM_VW) {
        even = JM_FMADD(JM_LOAD(x + j), JM_LOAD(y + j), even);
        odd = JM_FMADD(JM_LOAD(x + j + JM_VW), JM_LOAD(y + j + JM_VW), odd);
    }
    if (j + JM_VW <= n) {
        even = JM_FMADD(JM_LOAD(x + j), JM_LOAD(y + j), even);
        j += JM_VW;
    }
    JM_T sum = JM_LANE_SUM(even + odd);
    for (; j < n; j++)
        sum = JM_FMADD_S(x[j], y[j], sum);
    return sum;
}

/* y += c x */
static void JM_NAME(add_multiple)(ptrdiff_t n, JM_T c, const JM_T *x, JM_T *y) {
    ptrdiff_t j = 0;
    for (; j + JM_VW <= n; j += JM_VW)
        JM_STORE(y + j, JM_FMADD(JM_SPLAT(c), JM_LOAD(x + j), JM_LOAD(y + j)));
    for (; j < n; j++)
        y[j] = JM_FMADD_S(c, x[j], y[j]);
}

/* x *= c */
static void JM_NAME(multiply)(ptrdiff_t n, JM_T c, JM_T *x) {
    for (ptrdiff_t j = 0; j < n; j++)
        x[j] *= c;
}

/*
 * Rows [i, i + r): image = A v, and w += A^T image if w is not NULL.  r and is_scaled are literals
 * at every call, so that each combination is a loop of its own.
 */
JM_INLINE void JM_NAME(push_rows)(const int r, const int is_scaled, const JM_NAME(jm_matrix) * a,
                                  ptrdiff_t i, const JM_T *v, JM_T *w, JM_T *image) {
    const ptrdiff_t n = a->cols;
    const JM_T *row[4];
    JM_V even[4], odd[4];
    for (int k = 0; k < r; k++) {
        row[k] = a->entries + (i + k) * n;
        even[k] = odd[k] = JM_SPLAT(0);
    }
    const JM_V scale = JM_SPLAT(a->scale), more = JM_SPLAT(a->more);
    ptrdiff_t j = 0;
    for (; j + 2 * JM_VW <= n; j += 2 * JM_VW) {
        const JM_V x = JM_LOAD(v + j), z = JM_LOAD(v + j + JM_VW);
        for (int k = 0; k < r; k++) {
            JM_V p = JM_LOAD(row[k] + j), q = JM_LOAD(row[k] + j + JM_VW);
            if (is_scaled) {
                p = p * scale * more;
                q = q * scale * more;
            }
            even[k] = JM_FMADD(p, x, even[k]);
            odd[k] = JM_FMADD(q, z, odd[k]);
        }
    }
    const ptrdiff_t tail = j;
    JM_T own[4];
    for (int k = 0; k < r; k++) {
        own[k] = JM_LANE_SUM(even[k] + odd[k]);
        for (ptrdiff_t t = tail; t < n; t++)
            own[k] =
                JM_FMADD_S(is_scaled ? row[k][t] * a->scale * a->more : row[k][t], v[t], own[k]);
        image[k] = own[k];
    }
    if (!w)
        return;
    for (j = 0; j + JM_VW <= n; j += JM_VW) {
        JM_V sum = JM_LOAD(w + j);
        for (int k = 0; k < r; k++) {
            JM_V p = JM_LOAD(row[k] + j);
            if (is_scaled)
                p = p * scale * more;
            sum = JM_FMADD(JM_SPLAT(own[k]), p, sum);
        }
        JM_STORE(w + j, sum);
    }
    for (; j < n; j++)
        for (int k = 0; k < r; k++)
            w[j] = JM_FMADD_S(own[k], is_scaled ? row[k][j] * a->scale * a->more : row[k][j], w[j]);
}

/*
 * w (cols) = A^T (A v) if w is not NULL; chunk (cols) is scratch.  Returns ||A v||^2, summed in
 * double.
 */
JM_INLINE double JM_NAME(normal_product)(const int is_scaled, const JM_NAME(jm_matrix) * a,
                                         const JM_T *v, JM_T *w, JM_T *chunk) {
    double square = 0;
    const size_t bytes = (size_t)a->cols * sizeof(JM_T);
    if (w)
        memset(w, 0, bytes);
    for (ptrdiff_t begin = 0; begin < a->rows; begin += JM_LANCZOS_CHUNK) {
        const ptrdiff_t left = a->rows - begin;
        const ptrdiff_t end = begin + (left < JM_LANCZOS_CHUNK ? left : JM_LANCZOS_CHUNK);
        JM_T *const sum = w ? chunk : NULL;
        if (w)
            memset(chunk, 0, bytes);
        JM_T image[4];
        ptrdiff_t i = begin;
        for (; i + 4 <= end; i += 4) {
            JM_NAME(push_rows)(4, is_scaled, a, i, v, sum, image);
            for (int k = 0; k < 4; k++)
                square += (double)image[k] * (double)image[k];
        }
        for (; i < end; i++) {
            JM_NAME(push_rows)(1, is_scaled, a, i, v, sum, image);
            square += (double)image[0] * (double)image[0];
        }
        if (w)
            for (ptrdiff_t j = 0; j < a->cols; j++)
                w[j] += chunk[j];
    }
    return square;
}

static double JM_NAME(apply)(const JM_NAME(jm_matrix) * a, int is_scaled, const JM_T *v, JM_T *w,
                             JM_T *chunk) {
    return is_scaled ? JM_NAME(normal_product)(1, a, v, w, chunk)
                     : JM_NAME(normal_product)(0, a, v, w, chunk);
}

/*
 * Certain upper bounds on ||A||_F and on the 2-norm, of the scaled matrix; column (cols) is
 * scratch.
 */
static double JM_NAME(norm_cap)(const JM_NAME(jm_matrix) * a, JM_T *column, JM_T *chunk,
                                double *frobenius) {
    const ptrdiff_t n = a->cols;
    const JM_V scale = JM_SPLAT(a->scale), more = JM_SPLAT(a->more);
    double square = 0, row_largest = 0, column_largest = 0;
    memset(column, 0, (size_t)n * sizeof(JM_T));
    for (ptrdiff_t begin = 0; begin < a->rows; begin += JM_LANCZOS_CHUNK) {
        const ptrdiff_t left = a->rows - begin;
        const ptrdiff_t end = begin + (left < JM_LANCZOS_CHUNK ? left : JM_LANCZOS_CHUNK);
        memset(chunk, 0, (size_t)n * sizeof(JM_T));
        for (ptrdiff_t i = begin; i < end; i++) {
            const JM_T *row = a->entries + i * n;
            JM_V sums = JM_SPLAT(0), squares = JM_SPLAT(0);
            ptrdiff_t j = 0;
            for (; j + JM_VW <= n; j += JM_VW) {
                const JM_V p = JM_VABS(JM_LOAD(row + j) * scale * more);
                sums = sums + p;
                squares = JM_FMADD(p, p, squares);
                JM_STORE(chunk + j, JM_LOAD(chunk + j) + p);
            }
            double row_sum = (double)JM_LANE_SUM(sums);
            square += (double)JM_LANE_SUM(squares);
            for (; j < n; j++) {
                const JM_T p = JM_ABS(row[j] * a->scale * a->more);
                row_sum += (double)p;
                square += (double)p * (double)p;
                chunk[j] += p;
            }
            row_largest = row_sum > row_largest ? row_sum : row_largest;
        }
        for (ptrdiff_t j = 0; j < n; j++)
            column[j] += chunk[j];
    }
    for (ptrdiff_t j = 0; j < n; j++)
        column_largest = (double)column[j] > column_largest ? (double)column[j] : column_largest;
    /* rounding of the sums in JM_T, and of those in double over the rows */
    const double over_row = JM_NAME(gamma)((double)(n / JM_VW + 2 * JM_VW + 4));
    const double over_column =
        JM_NAME(gamma)((double)(JM_LANCZOS_CHUNK + a->rows / JM_LANCZOS_CHUNK + 3));
    const double over_rows = (double)(a->rows + n) * 0x1p-52 + JM_OUTWARD;
    *frobenius = sqrt(square * (1 + 2 * over_row) * (1 + 2 * over_rows)) * (1 + JM_OUTWARD);
    const double mixed = sqrt(row_largest * (1 + 2 * over_row) * column_largest *
                              (1 + 2 * over_column) * (1 + 2 * over_rows)) *
                         (1 + JM_OUTWARD);
    return mixed < *frobenius ? mixed : *frobenius;
}

/*
 * At x: the least pivot of x I - T (not more than 0: x is no bound), the sums S1 and S2 over its
 * eigenvalues as in largest_eigenvalue, and, if `log_det` is given, log p_k(x).
 *
 * diagonal (k), off (k + 1): off[i] = beta_{i+1} couples i - 1 and i; off[k] is the remainder
 */
static double JM_NAME(pivots)(ptrdiff_t k, const double *diagonal, const double *off, double x,
                              double *s1, double *s2, double *log_p) {
    double inverse = 0, first = 0, second = 0, least = (double)INFINITY;
    double product = 1, logs = 0;
    *s1 = *s2 = 0;
    for (ptrdiff_t i = 0; i < k; i++) {
        const double ratio = i ? off[i] * off[i] * inverse : 0;
        const double g1 = first * inverse, g2 = second * inverse;
        const double d = (x - diagonal[i]) - ratio;
        if (!(d > 0))
            return 0;
        least = d < least ? d : least;
        first = 1 + ratio * g1;
        second = ratio * (g2 - 2 * g1 * g1);
        inverse = 1 / d;
        const double f1 = first * inverse;
        *s1 += f1;
        *s2 += f1 * f1 - second * inverse;
        if (log_p) {
            product *= d / off[i + 1];
            if (!(product < JM_LARGE && product > JM_SMALL)) {
                logs += log(product);
                product = 1;
            }
        }
    }
    if (log_p)
        *log_p = logs + log(product);
    return least;
}

/* The largest eigenvalue of T_k (see largest_eigenvalue), at least `below`. */
static double JM_NAME(ritz_value)(ptrdiff_t k, const double *diagonal, const double *off,
                                  double below) {
    const double n = (double)k, unit = 0x1p-51;
    double safe = 0;
    for (ptrdiff_t i = 0; i < k; i++) {
        const double row = diagonal[i] + (i ? off[i] : 0) + (i + 1 < k ? off[i + 1] : 0);
        safe = row > safe ? row : safe;
        below = diagonal[i] > below ? diagonal[i] : below;
    }
    double x = safe * (1 + unit), s1, s2;
    safe = x;
    for (int evaluation = 0; evaluation < JM_GRAM_EVALUATIONS; evaluation++) {
        double moved;
        if (JM_NAME(pivots)(k, diagonal, off, x, &s1, &s2, NULL) > 0) {
            const double spread = n * s2 - s1 * s1;
            const double laguerre = n / (s1 + sqrt((n - 1) * (spread > 0 ? spread : 0)));
            const double other = x - s1 / s2 - unit * x;
            below = other > below ? other : below;
            safe = x - laguerre;
            moved = laguerre;
            x = s1 * s1 < JM_GRAM_SIMPLE * s2 ? safe : below + JM_GRAM_LEAN * (safe - below);
        } else {
            moved = safe - x;
            below = x;
            x = safe;
        }
        if (!(moved > unit * safe) || !(safe - below > unit * safe))
            break;
    }
    return safe;
}

/*
 * The root beyond theta of p_k(t) = exp(log_level).  With t = theta + e^s, log p_k is convex in s
 * with slopes between 1 and k, so Newton's method descends to the root from its right after at most
 * one step.
 */
static double JM_NAME(lanczos_root)(ptrdiff_t k, const double *diagonal, const double *off,
                                    double theta, double guess, double log_level) {
    const double least = 0x1p-50 * theta;
    double distance = isfinite(guess) ? guess - theta : theta;
    distance = distance > least ? distance : least;
    double best = (double)INFINITY;
    for (int step = 0; step < JM_LANCZOS_ROOT_STEPS; step++) {
        double s1, s2, log_p;
        if (!(JM_NAME(pivots)(k, diagonal, off, theta + distance, &s1, &s2, &log_p) > 0)) {
            distance *= 4; /* theta itself is rounded */
            continue;
        }
        const double excess = log_p - log_level;
        if (excess >= 0) {
            best = distance < best ? distance : best;
            if (distance <= least)
                break;
        }
        const double change = excess / (distance * s1);
        distance *= exp(-change);
        distance = distance < least ? least : distance;
        if (excess >= 0 && change < 0x1p-20)
            break;
    }
    return theta + best;
}

/*
 * Ritz vector y (k) of theta in the Lanczos basis, by inverse iteration with the factors of x I -
 * T_k, x just above theta and proved by its pivots to lie above all eigenvalues.  pivot (k) is
 * scratch.
 */
static void JM_NAME(ritz_vector)(ptrdiff_t k, const double *diagonal, const double *off,
                                 double theta, double *pivot, double *y) {
    double distance = 0x1p-52 * theta, s1, s2;
    while (!(JM_NAME(pivots)(k, diagonal, off, theta + distance, &s1, &s2, NULL) > 0) &&
           distance < theta)
        distance *= 4;
    for (ptrdiff_t i = 0; i < k; i++) {
        pivot[i] = (theta + distance - diagonal[i]) - (i ? off[i] * off[i] / pivot[i - 1] : 0);
        y[i] = 1;
    }
    for (int solve = 0; solve < JM_LANCZOS_SOLVES; solve++) {
        for (ptrdiff_t i = 1; i < k; i++)
            y[i] += off[i] / pivot[i - 1] * y[i - 1];
        double largest = 0;
        for (ptrdiff_t i = k - 1; i >= 0; i--) {
            y[i] = (y[i] + (i + 1 < k ? off[i + 1] * y[i + 1] : 0)) / pivot[i];
            largest = fabs(y[i]) > largest ? fabs(y[i]) : largest;
        }
        for (ptrdiff_t i = 0; i < k; i++)
            y[i] /= largest;
    }
}

/* w minus its components along r rows of basis; r, at most 4, is a literal at every call. */
JM_INLINE void JM_NAME(subtract_components)(const int r, ptrdiff_t n, const JM_T *basis, JM_T *w) {
    JM_V even[4], odd[4];
    JM_T component[4];
    for (int k = 0; k < r; k++)
        even[k] = odd[k] = JM_SPLAT(0);
    ptrdiff_t j = 0;
    for (; j + 2 * JM_VW <= n; j += 2 * JM_VW) {
        const JM_V x = JM_LOAD(w + j), z = JM_LOAD(w + j + JM_VW);
        for (int k = 0; k < r; k++) {
            even[k] = JM_FMADD(JM_LOAD(basis + k * n + j), x, even[k]);
            odd[k] = JM_FMADD(JM_LOAD(basis + k * n + j + JM_VW), z, odd[k]);
        }
    }
    for (int k = 0; k < r; k++) {
        component[k] = JM_LANE_SUM(even[k] + odd[k]);
        for (ptrdiff_t i = j; i < n; i++)
            component[k] = JM_FMADD_S(basis[k * n + i], w[i], component[k]);
    }
    for (j = 0; j + JM_VW <= n; j += JM_VW) {
        JM_V left = JM_LOAD(w + j);
        for (int k = 0; k < r; k++)
            left = JM_FMADD(JM_SPLAT(-component[k]), JM_LOAD(basis + k * n + j), left);
        JM_STORE(w + j, left);
    }
    for (; j < n; j++)
        for (int k = 0; k < r; k++)
            w[j] = JM_FMADD_S(-component[k], basis[k * n + j], w[j]);
}

/*
 * w minus its components along the `count` rows of basis, repeated until little is lost; its norm,
 * or 0.
 */
static double JM_NAME(orthogonalise)(ptrdiff_t n, ptrdiff_t count, const JM_T *basis, JM_T *w) {
    double norm = sqrt((double)JM_NAME(dot)(n, w, w));
    for (int pass = 0; pass < JM_LANCZOS_PASSES; pass++) {
        ptrdiff_t k = 0;
        for (; k + 4 <= count; k += 4)
            JM_NAME(subtract_components)(4, n, basis + k * n, w);
        for (; k < count; k++)
            JM_NAME(subtract_components)(1, n, basis + k * n, w);
        const double left = sqrt((double)JM_NAME(dot)(n, w, w));
        const int is_kept = left > JM_LANCZOS_KEPT * norm;
        norm = left;
        if (is_kept)
            break;
    }
    /* below this the norm itself is lost to underflow */
    return norm > (double)JM_SQRT(JM_LDEXP((JM_T)1, JM_MIN_EXP + JM_GRAM_GUARD)) ? norm : 0;
}

/* Bytes of workspace for spectral_norm_lanczos. */
static size_t JM_NAME(spectral_norm_lanczos_work)(ptrdiff_t cols, ptrdiff_t max_iter) {
    return (size_t)((max_iter + 3) * cols) * sizeof(JM_T) +
           (size_t)(4 * (max_iter + 1)) * sizeof(double) + 2 * JM_ALIGNMENT;
}

/*
 * Bounds on the 2-norm of one matrix, as at the head of this file.
 *
 * a          (rows, cols)  row-major, contiguous
 * start      (cols)        double, Gaussian: what the probability is over
 * rtol                     asked for: upper / lower <= 1 + rtol ends the iteration
 * log_level                log(1 / delta)
 * bounds     (4)           lower, value, probabilistic upper, not capped, certain upper; each
 *                          times 2^exponent
 * n_iter                   steps taken, at most max_iter
 * work                     spectral_norm_lanczos_work(cols, max_iter) bytes
 *
 * Requires rows, cols >= 1, 1 <= max_iter <= cols.  Never allocates.
 * Returns JM_OK, JM_NOT_CONVERGED if rtol was not reached, JM_NON_FINITE with bounds NaN.
 */
static int JM_NAME(spectral_norm_lanczos)(ptrdiff_t rows, ptrdiff_t cols, const void *a_,
                                          const double *start, double rtol, double log_level,
                                          ptrdiff_t max_iter, double *bounds, int64_t *exponent,
                                          int64_t *n_iter, void *work) {
    JM_T *const basis = JM_NAME(aligned_work)(work); /* (max_iter + 1, cols) */
    JM_T *const w = basis + (max_iter + 1) * cols;
    JM_T *const chunk = w + cols;
    double *const diagonal =
        (double *)(((uintptr_t)(chunk + cols) + (JM_ALIGNMENT - 1)) / JM_ALIGNMENT * JM_ALIGNMENT);
    double *const off = diagonal + (max_iter + 1);
    double *const y = off + (max_iter + 1);
    double *const pivot = y + (max_iter + 1);

    JM_NAME(jm_matrix) a = {rows, cols, (const JM_T *)a_, 1, 1};
    const JM_T peak = JM_NAME(peak)(rows * cols, a.entries);
    const int e = JM_NAME(norm_exponent)(peak);
    *exponent = e;
    *n_iter = 0;
    if (peak == 0 || !isfinite(peak))
        return JM_NAME(trivial_bounds)(peak, bounds);
    a.scale = JM_LDEXP((JM_T)1, -e / 2);
    a.more = JM_LDEXP((JM_T)1, -e - -e / 2);
    const int is_scaled = e > JM_LANCZOS_RANGE || e < -JM_LANCZOS_RANGE;
    /* of A^T A v where A is used as it is */
    const JM_T rescale = is_scaled ? (JM_T)1 : JM_LDEXP((JM_T)1, -2 * e);

    double frobenius;
    const double cap = JM_NAME(norm_cap)(&a, w, chunk, &frobenius);
    const double row_roundings = JM_NAME(dot_roundings)(cols);
    const double column_roundings = (double)(JM_LANCZOS_CHUNK + rows / JM_LANCZOS_CHUNK + 3);
    const double forming = JM_NAME(gamma)(row_roundings + column_roundings) * cap * cap;
    const double row_loss = JM_NAME(gamma)(row_roundings) * frobenius;
    const double in_norms = JM_NAME(gamma)(row_roundings + 8) + (double)rows * 0x1p-52;
    const double peak_scaled = (double)(peak * a.scale * a.more);

    double largest = 0;
    for (ptrdiff_t j = 0; j < cols; j++)
        largest = fabs(start[j]) > largest ? fabs(start[j]) : largest;
    for (ptrdiff_t j = 0; j < cols; j++)
        basis[j] = (JM_T)(start[j] / largest);
    JM_NAME(multiply)(cols, (JM_T)(1 / sqrt((double)JM_NAME(dot)(cols, basis, basis))), basis);

    double theta = 0, root = (double)INFINITY, upper_square = (double)INFINITY;
    double lower = 0, upper = cap;
    ptrdiff_t k = 0, next_look = 1;
    while (k < max_iter) {
        const JM_T *const v = basis + k * cols;
        (void)JM_NAME(apply)(&a, is_scaled, v, w, chunk);
        JM_NAME(multiply)(cols, rescale, w);
        const JM_T alpha = JM_NAME(dot)(cols, v, w);
        JM_NAME(add_multiple)(cols, -alpha, v, w);
        if (k > 0) /* what remains is orthogonal but for rounding: one pass usually keeps it */
            JM_NAME(add_multiple)(cols, -(JM_T)off[k], v - cols, w);
        const double beta = JM_NAME(orthogonalise)(cols, k + 1, basis, w);
        diagonal[k] = (double)alpha;
        off[k + 1] = beta;
        k++;
        const int is_invariant = !(beta > 0) || k == cols;
        if (!is_invariant) {
            memcpy(basis + k * cols, w, (size_t)cols * sizeof(JM_T));
            JM_NAME(multiply)(cols, (JM_T)(1 / beta), basis + k * cols);
        }
        if (k < next_look && k < max_iter && !is_invariant)
            continue;
        next_look = k + 1 + (rows * cols < JM_LANCZOS_CHEAP ? k / JM_LANCZOS_SPARING : 0);

        theta = JM_NAME(ritz_value)(k, diagonal, off, theta);
        root = is_invariant ? theta
                            : JM_NAME(lanczos_root)(k, diagonal, off, theta, root,
                                                    log_level + (double)k * in_norms);
        const double inflation = forming + JM_LANCZOS_ORTH * (double)k * (double)JM_U * theta;
        upper_square = root + inflation < upper_square ? root + inflation : upper_square;
        upper = sqrt(upper_square) < cap ? sqrt(upper_square) : cap;
        lower = sqrt(theta) * (1 - in_norms) - row_loss;
        lower = lower > peak_scaled ? lower : peak_scaled;
        if (is_invariant || upper <= lower * (1 + rtol) || root - theta <= inflation)
            break;
    }
    *n_iter = (int64_t)k;

    /* the Ritz vector, and the certain lower bound it gives */
    JM_NAME(ritz_vector)(k, diagonal, off, theta, pivot, y);
    memset(w, 0, (size_t)cols * sizeof(JM_T));
    for (ptrdiff_t i = 0; i < k; i++)
        JM_NAME(add_multiple)(cols, (JM_T)y[i], basis + i * cols, w);
    const double image =
        JM_NAME(apply)(&a, is_scaled, w, NULL, chunk) * ldexp(1, is_scaled ? 0 : -2 * e);
    const double ratio =
        image * (1 - in_norms) / ((double)JM_NAME(dot)(cols, w, w) * (1 + in_norms));
    const double proved = (sqrt(ratio) - row_loss) * (1 - JM_OUTWARD);
    lower = proved > peak_scaled ? proved : peak_scaled; /* NaN gives the peak */
    upper = sqrt(upper_square) * (1 + JM_OUTWARD);
    upper = upper > lower ? upper : lower; /* also where the probable bound failed, or is NaN */
    const double least_upper = upper < cap ? upper : cap;
    double value = sqrt(theta);
    value = value >= lower ? value : lower;
    bounds[JM_LOWER] = lower;
    bounds[JM_VALUE] = value <= least_upper ? value : least_upper;
    bounds[JM_PROBABLE_UPPER] = upper;
    bounds[JM_CERTAIN_UPPER] = cap;
    return least_upper <= lower * (1 + rtol) ? JM_OK : JM_NOT_CONVERGED;
}
