/*
 * Proof that theta is close to the largest eigenvalue of G^, a computed Gram matrix, JM_VW matrices
 * at a time, one in each lane.  Nothing that led to theta needs to be trusted for it.
 *
 * Let C = fl(theta I - G^) and w_ij = fl(c_ij - sum_{k<j} w_ik l_jk), d_j = w_jj, l_jk = fl(w_jk
 * fl(1 / d_k)): the factorisation C = L D L^T.  If it runs to completion with d_j > 0, R = D^{-1/2}
 * W^T satisfies |R^T R - C| <= gamma |R|^T |R| entry by entry, gamma = gamma(short + 3): what
 * Higham 2002, theorem 10.3, says of Cholesky's factor, with two roundings more in l_jk.
 *
 * Upper.  (Rump, "Verification of positive definiteness", BIT 46, 2006.)  || |R|^T |R| ||_2 <=
 * ||R||_F^2 = trace(R^T R) <= trace(C) / (1 - gamma), so
 *     ||R^T R - C||_2 <= gamma / (1 - gamma) trace(C).
 * R^T R has no negative eigenvalue and the trace is at most short theta, so
 *     lambda_max(G^) <= theta (1 + eta),  eta = u + short gamma / (1 - gamma).
 *
 * Lower.  For any y, the computed solution v of L^T v = y satisfies (L + E)^T v = y with |E| <=
 * gamma(short + 1) |L| (Higham 2002, theorem 8.5).  D^{1/2} L^T is R but for two roundings of an
 * entry, so with ||w||^2 = sum d_i y_i^2, w = D^{1/2} y,
 *     theta - lambda_max(G^) <= (theta I - G^)'s Rayleigh quotient at v
 *         <= (||w|| / ||v|| + gamma(short + 3) ||R||_F)^2 + eta theta.
 * With L D y = x that is one step of inverse iteration; in float32 two are taken.  A fixed x could
 * be orthogonal to the eigenvectors, and for the symmetries of a convolution many are.  The entries
 * of x are therefore +-1, each sign such that nothing cancels in its entry of t = D y (Cline,
 * Moler, Stewart and Wilkinson, "An estimate for the condition number of a matrix", SIAM J. Numer.
 * Anal. 16, 1979).  So |t_i| >= 1, and as w_i = t_i / sqrt(d_i) and ||w||^2 = v^T x,
 *     ||w|| / ||v|| <= sqrt(short) / ||w|| <= sqrt(short) min sqrt(d_i)
 * whatever the eigenvectors and their multiplicity.
 *
 * Where the factorisation breaks down, theta is moved up, JM_GRAM_TRIALS times in all.
 */
#ifndef JM_GRAM_TRIALS
#define JM_GRAM_TRIALS 3      /* values of theta tried */
#define JM_GRAM_INFLATION 4.0 /* first theta = lambda (1 + 4 (short + 4) u) */
#define JM_GRAM_INFLATE 16.0  /* growth of that distance from trial to trial */
#define JM_GRAM_ROWS 4        /* of the factor, worked on together */
#endif
#undef JM_GRAM_SOLVES /* steps of inverse iteration: each gains the digits of the type */
#if JM_IS_F64
#define JM_GRAM_SOLVES 1
#else
#define JM_GRAM_SOLVES 2
#endif

/*
 * Rows [i0, i0 + r) of the factor: -L below the diagonal of factor (size, size, JM_VW), 1 / d in
 * inverse (size, JM_VW).  Returns `complete` where all their d are positive, else zero.  r is a
 * literal at every call; i0 is a multiple of JM_GRAM_ROWS.
 */
JM_INLINE JM_V JM_NAME(factor_rows)(const int r, ptrdiff_t size, ptrdiff_t i0, JM_V theta,
                                    const JM_T *g, JM_T *factor, JM_T *inverse, JM_V complete) {
    JM_T *const rows = factor + i0 * size * JM_VW;
    const JM_T *const entries = g + i0 * size * JM_VW;
    /* -W left of the diagonal block, two columns at a time */
    for (ptrdiff_t j = 0; j < i0; j += 2) {
        const JM_T *const left = factor + j * size * JM_VW, *const right = left + size * JM_VW;
        JM_V one[JM_GRAM_ROWS], two[JM_GRAM_ROWS];
        for (int a = 0; a < r; a++) {
            one[a] = JM_LOAD(entries + (a * size + j) * JM_VW);
            two[a] = JM_LOAD(entries + (a * size + j + 1) * JM_VW);
        }
        for (ptrdiff_t k = 0; k < j; k++) {
            const JM_V l = JM_LOAD(left + k * JM_VW), m = JM_LOAD(right + k * JM_VW);
            for (int a = 0; a < r; a++) {
                const JM_V w = JM_LOAD(rows + (a * size + k) * JM_VW);
                one[a] = JM_FMADD(w, l, one[a]);
                two[a] = JM_FMADD(w, m, two[a]);
            }
        }
        const JM_V m = JM_LOAD(right + j * JM_VW);
        for (int a = 0; a < r; a++) {
            JM_STORE(rows + (a * size + j) * JM_VW, one[a]);
            JM_STORE(rows + (a * size + j + 1) * JM_VW, JM_FMADD(one[a], m, two[a]));
        }
    }
    /* that part of -W becomes -L, and its products go to the diagonal block */
    JM_V sum[JM_GRAM_ROWS][JM_GRAM_ROWS], w[JM_GRAM_ROWS], l[JM_GRAM_ROWS];
    for (int a = 0; a < r; a++)
        for (int b = 0; b <= a; b++) {
            const JM_V entry = JM_LOAD(entries + (a * size + i0 + b) * JM_VW);
            sum[a][b] = b < a ? entry : theta - entry;
        }
    for (ptrdiff_t k = 0; k < i0; k++) {
        const JM_V over = JM_LOAD(inverse + k * JM_VW);
        for (int a = 0; a < r; a++) {
            w[a] = JM_LOAD(rows + (a * size + k) * JM_VW);
            l[a] = w[a] * over;
            JM_STORE(rows + (a * size + k) * JM_VW, l[a]);
            for (int b = 0; b < a; b++)
                sum[a][b] = JM_FMADD(w[a], l[b], sum[a][b]);
            sum[a][a] = JM_FMADD(-w[a], l[a], sum[a][a]);
        }
    }
    JM_V block[JM_GRAM_ROWS][JM_GRAM_ROWS], over[JM_GRAM_ROWS];
    for (int a = 0; a < r; a++) {
        for (int b = 0; b < a; b++) {
            w[b] = sum[a][b];
            for (int c = 0; c < b; c++)
                w[b] = JM_FMADD(w[c], block[b][c], w[b]);
        }
        for (int b = 0; b < a; b++) {
            block[a][b] = w[b] * over[b];
            JM_STORE(rows + (a * size + i0 + b) * JM_VW, block[a][b]);
            sum[a][a] = JM_FMADD(-w[b], block[a][b], sum[a][a]);
        }
        complete = JM_VLESS(JM_SPLAT(0), sum[a][a], complete, JM_SPLAT(0));
        over[a] = JM_SPLAT(1) / sum[a][a];
        JM_STORE(inverse + (i0 + a) * JM_VW, over[a]);
    }
    return complete;
}

/* The factor of theta I - G; one in the lanes that ran to completion, zero elsewhere. */
JM_INLINE JM_V JM_NAME(gram_factor)(ptrdiff_t size, JM_V theta, const JM_T *g, JM_T *factor,
                                    JM_T *inverse) {
    JM_V complete = JM_SPLAT(1);
    ptrdiff_t i0 = 0;
    for (; i0 + 4 <= size; i0 += 4)
        complete = JM_NAME(factor_rows)(4, size, i0, theta, g, factor, inverse, complete);
    if (size - i0 == 3)
        complete = JM_NAME(factor_rows)(3, size, i0, theta, g, factor, inverse, complete);
    else if (size - i0 == 2)
        complete = JM_NAME(factor_rows)(2, size, i0, theta, g, factor, inverse, complete);
    else if (size - i0 == 1)
        complete = JM_NAME(factor_rows)(1, size, i0, theta, g, factor, inverse, complete);
    return complete;
}

/*
 * Rows [i0, i0 + r) of t (size, JM_VW) <- L^-1 x.  x is t itself, or, to start, +-1 of the sign of
 * what it is added to.  Returns the larger of `largest` and |t / d|.
 */
JM_INLINE JM_V JM_NAME(forward_rows)(const int r, const int is_start, ptrdiff_t size, ptrdiff_t i0,
                                     const JM_T *factor, const JM_T *inverse, JM_T *t,
                                     JM_V largest) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1);
    const JM_T *const rows = factor + i0 * size * JM_VW;
    JM_V value[JM_GRAM_ROWS];
    for (int a = 0; a < r; a++)
        value[a] = is_start ? zero : JM_LOAD(t + (i0 + a) * JM_VW);
    for (ptrdiff_t k = 0; k < i0; k++) {
        const JM_V t_k = JM_LOAD(t + k * JM_VW);
        for (int a = 0; a < r; a++)
            value[a] = JM_FMADD(JM_LOAD(rows + (a * size + k) * JM_VW), t_k, value[a]);
    }
    for (int a = 0; a < r; a++) {
        for (int b = 0; b < a; b++)
            value[a] = JM_FMADD(JM_LOAD(rows + (a * size + i0 + b) * JM_VW), value[b], value[a]);
        if (is_start)
            value[a] = value[a] + JM_VLESS(value[a], zero, -one, one);
        JM_STORE(t + (i0 + a) * JM_VW, value[a]);
        largest = JM_VMAX(JM_VABS(value[a] * JM_LOAD(inverse + (i0 + a) * JM_VW)), largest);
    }
    return largest;
}

/*
 * v (size, JM_VW) <- y = D^-1 L^-1 x times a power of two that brings its largest entry near one; x
 * as in forward_rows.  Returns sum d_i y_i^2.
 */
JM_INLINE JM_V JM_NAME(forward_solve)(const int is_start, ptrdiff_t size, const JM_T *factor,
                                      const JM_T *inverse, JM_T *v) {
    JM_V largest = JM_SPLAT(0), square = JM_SPLAT(0);
    ptrdiff_t i0 = 0;
    for (; i0 + 4 <= size; i0 += 4)
        largest = JM_NAME(forward_rows)(4, is_start, size, i0, factor, inverse, v, largest);
    for (int r = 3; r > 0; r--)
        if (size - i0 == r)
            largest = JM_NAME(forward_rows)(r, is_start, size, i0, factor, inverse, v, largest);
    const JM_V scale = JM_VPOW2(JM_SPLAT(JM_ROUNDER) - JM_VEXPONENT(largest));
    for (ptrdiff_t i = 0; i < size; i++) {
        const JM_V t = JM_LOAD(v + i * JM_VW) * scale, y = t * JM_LOAD(inverse + i * JM_VW);
        square = JM_FMADD(t, y, square);
        JM_STORE(v + i * JM_VW, y);
    }
    return square;
}

/* Rows [i0, i0 + r), last first, of v <- L^-T v; `square` plus their squares. */
JM_INLINE JM_V JM_NAME(backward_rows)(const int r, ptrdiff_t size, ptrdiff_t i0, const JM_T *factor,
                                      JM_T *v, JM_V square) {
    const JM_T *const rows = factor + i0 * size * JM_VW;
    JM_V value[JM_GRAM_ROWS];
    for (int a = r - 1; a >= 0; a--) {
        value[a] = JM_LOAD(v + (i0 + a) * JM_VW);
        for (int b = r - 1; b > a; b--)
            value[a] = JM_FMADD(JM_LOAD(rows + (b * size + i0 + a) * JM_VW), value[b], value[a]);
        square = JM_FMADD(value[a], value[a], square);
        JM_STORE(v + (i0 + a) * JM_VW, value[a]);
    }
    for (ptrdiff_t k = 0; k < i0; k++) {
        JM_V sum = JM_LOAD(v + k * JM_VW);
        for (int a = 0; a < r; a++)
            sum = JM_FMADD(JM_LOAD(rows + (a * size + k) * JM_VW), value[a], sum);
        JM_STORE(v + k * JM_VW, sum);
    }
    return square;
}

/* v (size, JM_VW) <- L^-T v; the squared norm of the result. */
JM_INLINE JM_V JM_NAME(backward_solve)(ptrdiff_t size, const JM_T *factor, JM_T *v) {
    JM_V square = JM_SPLAT(0);
    ptrdiff_t i0 = size / JM_GRAM_ROWS * JM_GRAM_ROWS;
    for (int r = 3; r > 0; r--)
        if (size - i0 == r)
            square = JM_NAME(backward_rows)(r, size, i0, factor, v, square);
    for (i0 -= JM_GRAM_ROWS; i0 >= 0; i0 -= JM_GRAM_ROWS)
        square = JM_NAME(backward_rows)(JM_GRAM_ROWS, size, i0, factor, v, square);
    return square;
}

/*
 * theta above lambda for which the factorisation completes, zero in the lanes where no trial does,
 * and the square of ||w|| / ||v|| of the head of this file.  factor, inverse, v are scratch.
 */
JM_INLINE JM_V JM_NAME(gram_theta)(ptrdiff_t size, JM_V lambda, const JM_T *g, JM_T *factor,
                                   JM_T *inverse, JM_T *v, JM_V *quotient) {
    const JM_V zero = JM_SPLAT(0);
    const JM_V pending = JM_VLESS(zero, lambda, JM_SPLAT(1), zero);
    JM_V theta = zero;
    double inflation = JM_GRAM_INFLATION * (double)(size + 4) * (double)JM_U;
    for (int trial = 0; trial < JM_GRAM_TRIALS; trial++) {
        const JM_V candidate = JM_FMADD(lambda, JM_SPLAT((JM_T)inflation), lambda);
        /* a lane that has succeeded repeats its factorisation, to the same digits */
        const JM_V tried = JM_VLESS(zero, theta, theta, candidate);
        const JM_V complete = JM_NAME(gram_factor)(size, tried, g, factor, inverse);
        theta = JM_VLESS(zero, complete, tried, zero);
        if (!JM_ANY_ABOVE(JM_VLESS(zero, theta, zero, pending), zero))
            break;
        inflation *= JM_GRAM_INFLATE;
    }
    JM_V w_square = JM_NAME(forward_solve)(1, size, factor, inverse, v);
    for (int solve = 1; solve < JM_GRAM_SOLVES; solve++) {
        (void)JM_NAME(backward_solve)(size, factor, v);
        w_square = JM_NAME(forward_solve)(0, size, factor, inverse, v);
    }
    *quotient = w_square / JM_NAME(backward_solve)(size, factor, v);
    return theta;
}
