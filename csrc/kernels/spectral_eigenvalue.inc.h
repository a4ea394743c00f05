/*
 * The largest eigenvalue of small symmetric matrices, JM_VW at a time, one in each lane.
 *
 *   1. Householder tridiagonalisation (Golub and Van Loan, "Matrix Computations", 2013, section
 *      8.3.1), each pass over the matrix applying the last reflection while it multiplies by the
 *      next one.
 *   2. The largest eigenvalue from above by Laguerre's method, which never passes it, in a bracket
 *      whose other end comes from Schroeder's method (see largest_eigenvalue).
 *
 * Functions for which size or pack is a literal at some call are unrolled there.
 */
#ifndef JM_GRAM_EVALUATIONS
#define JM_GRAM_EVALUATIONS 80 /* of the characteristic polynomial; 5 are usual, 20 hard */
#define JM_GRAM_SIMPLE 1.25    /* estimated multiplicity below which a root counts as simple */
#define JM_GRAM_GUARD 24       /* bits kept clear of underflow in squared norms */
#define JM_GRAM_LEAN 0.0625    /* where in the bracket a trial is placed for a multiple root */
#define JM_GRAM_PACK 4 /* groups of lanes whose iterations hide each other's latency, at most */
#endif
/* sizes up to which the polynomial itself, up to (4 u)^size of its scale, cannot underflow */
#undef JM_GRAM_POLYNOMIAL
#if JM_IS_F64
#define JM_GRAM_POLYNOMIAL 16
#else
#define JM_GRAM_POLYNOMIAL 4
#endif
#undef JM_GRAM_TILE
#if (defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES >= 64) || defined(__aarch64__)
#define JM_GRAM_TILE 4 /* 32 vector registers */
#else
#define JM_GRAM_TILE 2
#endif

/*
 * Rows [i0, i0 + r) of S -= u w^T + w u^T, and y += S x over the symmetric matrix of which these
 * are the rows of the lower triangle.  All vectors (size, JM_VW); r is a literal at every call.
 */
JM_INLINE void JM_NAME(reflect_rows)(const int r, ptrdiff_t size, ptrdiff_t i0, const JM_T *u,
                                     const JM_T *w, const JM_T *x, JM_T *y, JM_T *s) {
    JM_V u_i[4], w_i[4], x_i[4], y_i[4];
    for (int a = 0; a < r; a++) {
        u_i[a] = -JM_LOAD(u + (i0 + a) * JM_VW);
        w_i[a] = -JM_LOAD(w + (i0 + a) * JM_VW);
        x_i[a] = JM_LOAD(x + (i0 + a) * JM_VW);
        y_i[a] = JM_LOAD(y + (i0 + a) * JM_VW);
    }
    for (ptrdiff_t j = 0; j < i0; j++) {
        const JM_V u_j = JM_LOAD(u + j * JM_VW), w_j = JM_LOAD(w + j * JM_VW);
        const JM_V x_j = JM_LOAD(x + j * JM_VW);
        JM_V y_j = JM_LOAD(y + j * JM_VW);
        for (int a = 0; a < r; a++) {
            JM_T *entry = s + ((i0 + a) * size + j) * JM_VW;
            JM_V value = JM_FMADD(u_i[a], w_j, JM_LOAD(entry));
            value = JM_FMADD(w_i[a], u_j, value);
            JM_STORE(entry, value);
            y_i[a] = JM_FMADD(value, x_j, y_i[a]);
            y_j = JM_FMADD(value, x_i[a], y_j);
        }
        JM_STORE(y + j * JM_VW, y_j);
    }
    for (int a = 0; a < r; a++) {
        for (int b = 0; b <= a; b++) { /* the triangle on the diagonal; u_i and w_i are negated */
            JM_T *entry = s + ((i0 + a) * size + i0 + b) * JM_VW;
            JM_V value = JM_LOAD(entry);
            value = value - (u_i[a] * w_i[b] + w_i[a] * u_i[b]);
            JM_STORE(entry, value);
            y_i[a] = JM_FMADD(value, x_i[b], y_i[a]);
            if (b < a)
                y_i[b] = JM_FMADD(value, x_i[a], y_i[b]);
        }
    }
    for (int a = 0; a < r; a++)
        JM_STORE(y + (i0 + a) * JM_VW, y_i[a]);
}

/*
 * x (h, JM_VW) = row h of S with the last reflection applied, the diagonal's entry apart; its
 * squared norm goes to off_square[h].
 */
JM_INLINE JM_V JM_NAME(updated_row)(ptrdiff_t size, ptrdiff_t h, const JM_T *s, const JM_T *u,
                                    const JM_T *w, JM_T *x, JM_T *diagonal, JM_T *off_square) {
    const JM_T *const row = s + h * size * JM_VW;
    const JM_V u_h = JM_LOAD(u + h * JM_VW), w_h = JM_LOAD(w + h * JM_VW);
    JM_V square = JM_SPLAT(0);
    for (ptrdiff_t j = 0; j < h; j++) {
        const JM_V value = JM_LOAD(row + j * JM_VW) -
                           (u_h * JM_LOAD(w + j * JM_VW) + w_h * JM_LOAD(u + j * JM_VW));
        JM_STORE(x + j * JM_VW, value);
        square = JM_FMADD(value, value, square);
    }
    const JM_V uw = u_h * w_h;
    JM_STORE(diagonal + h * JM_VW, JM_LOAD(row + h * JM_VW) - (uw + uw));
    JM_STORE(off_square + h * JM_VW, square);
    return square;
}

/*
 * S (pack, size, size, JM_VW), lower triangles, becomes tridiagonal: diagonal (pack, size, JM_VW)
 * and the squares of the off-diagonals, off_square[h] between h - 1 and h.  vectors (pack, 4, size,
 * JM_VW) is scratch; pack is a literal at every call.
 */
JM_INLINE void JM_NAME(tridiagonalise)(const int pack, ptrdiff_t size, JM_T *s, JM_T *diagonal,
                                       JM_T *off_square, JM_T *vectors) {
    const ptrdiff_t n = size * JM_VW;
    const JM_V zero = JM_SPLAT(0);
    /* a row of squared norm below this is not reflected: its reciprocal could overflow */
    const JM_V negligible = JM_SPLAT(JM_LDEXP((JM_T)1, JM_MIN_EXP + JM_GRAM_GUARD));
    for (int k = 0; k < pack; k++) { /* no reflection yet */
        JM_STORE(off_square + k * n, zero);
        for (ptrdiff_t j = 0; j < 2 * size; j++)
            JM_STORE(vectors + 4 * k * n + j * JM_VW, zero);
    }
    ptrdiff_t last = 0, next = 2 * n; /* where u, w of the last reflection are, and of the next */
    for (ptrdiff_t h = size - 1; h > 1; h--) {
        JM_V inverse[JM_GRAM_PACK];
        for (int k = 0; k < pack; k++) {
            JM_T *const u = vectors + 4 * k * n + last, *const x = vectors + 4 * k * n + next;
            const JM_V square = JM_NAME(updated_row)(size, h, s + k * size * n, u, u + n, x,
                                                     diagonal + k * n, off_square + k * n);
            /* x - alpha e_{h-1}, alpha of the sign that does not cancel; half its squared norm */
            const JM_V end = JM_LOAD(x + (h - 1) * JM_VW), norm = JM_VSQRT(square);
            const JM_V shift = JM_VLESS(end, zero, -norm, norm);
            JM_STORE(x + (h - 1) * JM_VW, end + shift);
            const JM_V half = JM_FMADD(end, shift, square);
            inverse[k] = JM_VLESS(negligible, half, JM_SPLAT(1) / half, zero);
            for (ptrdiff_t j = 0; j < h; j++)
                JM_STORE(x + n + j * JM_VW, zero);
        }
        for (int k = 0; k < pack; k++) {
            JM_T *const u = vectors + 4 * k * n + last, *const x = vectors + 4 * k * n + next;
            JM_T *const own = s + k * size * n;
            ptrdiff_t i0 = 0;
            for (; i0 + JM_GRAM_TILE <= h; i0 += JM_GRAM_TILE)
                JM_NAME(reflect_rows)(JM_GRAM_TILE, size, i0, u, u + n, x, x + n, own);
            for (; i0 < h; i0++)
                JM_NAME(reflect_rows)(1, size, i0, u, u + n, x, x + n, own);
        }
        for (int k = 0; k < pack; k++) {
            JM_T *const x = vectors + 4 * k * n + next, *const y = x + n;
            JM_V along = zero;
            for (ptrdiff_t j = 0; j < h; j++) {
                const JM_V p = JM_LOAD(y + j * JM_VW) * inverse[k];
                JM_STORE(y + j * JM_VW, p);
                along = JM_FMADD(p, JM_LOAD(x + j * JM_VW), along);
            }
            along = -(along * inverse[k] * JM_SPLAT(0.5));
            for (ptrdiff_t j = 0; j < h; j++)
                JM_STORE(y + j * JM_VW,
                         JM_FMADD(along, JM_LOAD(x + j * JM_VW), JM_LOAD(y + j * JM_VW)));
        }
        last = next;
        next = 2 * n - next;
    }
    for (int k = 0; k < pack; k++) { /* what is left is two by two */
        JM_T *const u = vectors + 4 * k * n + last, *const x = vectors + 4 * k * n + next;
        (void)JM_NAME(updated_row)(size, 1, s + k * size * n, u, u + n, x, diagonal + k * n,
                                   off_square + k * n);
        const JM_V uw = JM_LOAD(u) * JM_LOAD(u + n);
        JM_STORE(diagonal + k * n, JM_LOAD(s + k * size * n) - (uw + uw));
    }
}

/*
 * At x (pack): the sums S1 and S2 of 1 / (x - lambda) and of its square over the eigenvalues, and a
 * number that is positive if x lies above all of them, of `pack` groups of tridiagonal matrices.
 *
 * The leading minors p_i of x I - T and their two derivatives obey p_i = (x - a_i) p_{i-1} - b_i^2
 * p_{i-2}, without a division; S1 = p' / p and S2 = S1^2 - p'' / p.  Where p could underflow its
 * pivots d_i = p_i / p_{i-1} are used instead.
 *
 * diagonal, off_square (pack, size, JM_VW)
 */
JM_INLINE void JM_NAME(eigenvalue_sums)(const int pack, const int is_polynomial, ptrdiff_t size,
                                        const JM_T *diagonal, const JM_T *off_square, const JM_V *x,
                                        JM_V *s1, JM_V *s2, JM_V *least) {
    const JM_V one = JM_SPLAT(1);
    JM_V p[JM_GRAM_PACK], first[JM_GRAM_PACK], second[JM_GRAM_PACK]; /* p, p', p'', or d, ... */
    JM_V old_p[JM_GRAM_PACK], old_first[JM_GRAM_PACK], old_second[JM_GRAM_PACK];
    JM_V inverse[JM_GRAM_PACK];
    for (int k = 0; k < pack; k++) {
        least[k] = p[k] = x[k] - JM_LOAD(diagonal + k * size * JM_VW);
        old_p[k] = first[k] = one;
        second[k] = old_first[k] = old_second[k] = JM_SPLAT(0);
        if (!is_polynomial) {
            s1[k] = inverse[k] = one / p[k];
            s2[k] = inverse[k] * inverse[k];
        }
    }
    for (ptrdiff_t i = 1; i < size; i++)
        for (int k = 0; k < pack; k++) {
            const JM_V t = x[k] - JM_LOAD(diagonal + (k * size + i) * JM_VW);
            const JM_V b = JM_LOAD(off_square + (k * size + i) * JM_VW);
            if (is_polynomial) {
                const JM_V two = first[k] + first[k];
                const JM_V next_second = JM_FMADD(t, second[k], JM_FMADD(-b, old_second[k], two));
                const JM_V next_first = JM_FMADD(t, first[k], JM_FMADD(-b, old_first[k], p[k]));
                const JM_V next_p = JM_FMADD(t, p[k], -(b * old_p[k]));
                old_second[k] = second[k];
                old_first[k] = first[k];
                old_p[k] = p[k];
                second[k] = next_second;
                first[k] = next_first;
                p[k] = next_p;
                least[k] = JM_VMIN(p[k], least[k]);
            } else { /* d' and d'' over d: d_i = (x - a_i) - b^2 / d_{i-1} */
                const JM_V ratio = b * inverse[k];
                const JM_V g1 = first[k] * inverse[k], g2 = second[k] * inverse[k];
                p[k] = t - ratio;
                first[k] = JM_FMADD(ratio, g1, one);
                second[k] = ratio * (g2 - (g1 * g1 + g1 * g1));
                inverse[k] = one / p[k];
                least[k] = JM_VMIN(p[k], least[k]);
                const JM_V f1 = first[k] * inverse[k];
                s1[k] = s1[k] + f1;
                s2[k] = JM_FMADD(f1, f1, s2[k] - second[k] * inverse[k]);
            }
        }
    if (is_polynomial)
        for (int k = 0; k < pack; k++) {
            const JM_V over = one / p[k];
            s1[k] = first[k] * over;
            s2[k] = JM_FMADD(s1[k], s1[k], -(second[k] * over));
        }
}

/*
 * The largest eigenvalues of `pack` groups of tridiagonal matrices, approached from above; pack is
 * a literal at every call.
 *
 * With S1 and S2 of eigenvalue_sums at x above all eigenvalues, the distance to the largest lies
 * between Laguerre's step n / (S1 + sqrt((n - 1)(n S2 - S1^2))) and Schroeder's, S1 / S2; S1^2 / S2
 * estimates its multiplicity.  For a simple root Laguerre's step is taken; for a cluster, where it
 * is slow, a point near the other end of the bracket is tried, and given up if it does not lie
 * above.  The start is Laguerre's step from infinity (Samuelson's inequality) or Gershgorin's
 * bound.
 *
 * For a simple root at distance e, with t the sum of 1 / (x - lambda_i) over the others, the
 * bracket has width w = e^2 t and Laguerre's step is short by at most e^3 t^2 / 2 = w^2 / (2 e), to
 * leading order: the iteration ends where that is within rounding, without an evaluation to see it.
 * (What is too soon, or too late, costs width, not truth.)  A lane that is done is left alone, so
 * it does not depend on its neighbours.
 */
JM_INLINE void JM_NAME(largest_eigenvalue)(const int pack, ptrdiff_t size, const JM_T *diagonal,
                                           const JM_T *off_square, JM_V *lambda) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1), n = JM_SPLAT((JM_T)size);
    const JM_V over_n = JM_SPLAT(1 / (JM_T)size);
    const JM_V ulps = JM_SPLAT(4 * JM_U);
    JM_V x[JM_GRAM_PACK], safe[JM_GRAM_PACK], below[JM_GRAM_PACK], active[JM_GRAM_PACK];
    JM_V s1[JM_GRAM_PACK], s2[JM_GRAM_PACK], least[JM_GRAM_PACK];
    for (int k = 0; k < pack; k++) {
        const JM_T *const a_k = diagonal + k * size * JM_VW;
        const JM_T *const b_k = off_square + k * size * JM_VW;
        JM_V gershgorin = zero, frobenius = zero, trace = zero, before = zero;
        below[k] = zero;
        for (ptrdiff_t i = 0; i < size; i++) {
            const JM_V a = JM_LOAD(a_k + i * JM_VW);
            const JM_V square = i + 1 < size ? JM_LOAD(b_k + (i + 1) * JM_VW) : zero;
            const JM_V after = JM_VSQRT(square);
            gershgorin = JM_VMAX(gershgorin, a + (before + after));
            frobenius = JM_FMADD(a, a, frobenius + (square + square));
            below[k] = JM_VMAX(below[k], a);
            trace = trace + a;
            before = after;
        }
        /* what rounding can hide is added, or the start could lie below a cluster */
        const JM_V rounding = JM_SPLAT((JM_T)(4 * (size + 4)) * JM_U);
        const JM_V sums = n * frobenius;
        const JM_V excess = JM_VMAX(JM_FMADD(sums, rounding, sums - trace * trace), zero);
        const JM_V samuelson = (trace + JM_VSQRT((n - one) * excess)) * over_n;
        safe[k] = JM_VMIN(gershgorin, samuelson);
        safe[k] = JM_FMADD(safe[k], JM_SPLAT((JM_T)(2 * (size + 4)) * JM_U), safe[k]);
        x[k] = safe[k];
        active[k] = JM_VLESS(zero, safe[k], one, zero);
    }
    for (int evaluation = 0; evaluation < JM_GRAM_EVALUATIONS; evaluation++) {
        JM_V any = active[0];
        for (int k = 1; k < pack; k++)
            any = any + active[k];
        if (!JM_ANY_ABOVE(any, zero))
            break;
        if (size <= JM_GRAM_POLYNOMIAL)
            JM_NAME(eigenvalue_sums)(pack, 1, size, diagonal, off_square, x, s1, s2, least);
        else
            JM_NAME(eigenvalue_sums)(pack, 0, size, diagonal, off_square, x, s1, s2, least);
        for (int k = 0; k < pack; k++) {
            const JM_V square = s1[k] * s1[k];
            const JM_V spread = JM_VMAX(n * s2[k] - square, zero);
            const JM_V laguerre = n / (s1[k] + JM_VSQRT((n - one) * spread));
            const JM_V schroeder = s1[k] / s2[k];
            const JM_V tolerance = ulps * x[k];
            const JM_V is_simple = JM_SPLAT(JM_GRAM_SIMPLE) * s2[k];

            /* x proved to lie above: the bracket becomes [x - schroeder, x - laguerre] */
            JM_V above = JM_VLESS(zero, least[k], active[k], zero);
            above = JM_VLESS(zero, laguerre, above, zero); /* a NaN proves nothing */
            const JM_V new_safe = x[k] - laguerre;
            const JM_V new_below = JM_VMAX(x[k] - schroeder - tolerance, below[k]);
            const JM_V lean = JM_FMADD(JM_SPLAT(JM_GRAM_LEAN), new_safe - new_below, new_below);
            const JM_V trial = JM_VLESS(square, is_simple, new_safe, lean);
            /* x not above: it is the lower end, and the last safe point is next */
            const JM_V next_x = JM_VLESS(zero, above, trial, safe[k]);
            const JM_V next_safe = JM_VLESS(zero, above, new_safe, safe[k]);
            const JM_V next_below = JM_VLESS(zero, above, new_below, x[k]);
            const JM_V moved = JM_VLESS(zero, above, laguerre, safe[k] - x[k]);
            const JM_V width = next_safe - next_below;
            safe[k] = JM_VLESS(zero, active[k], next_safe, safe[k]);
            below[k] = JM_VLESS(zero, active[k], next_below, below[k]);
            x[k] = JM_VLESS(zero, active[k], next_x, x[k]);
            active[k] = JM_VLESS(tolerance, width, active[k], zero);
            active[k] = JM_VLESS(tolerance, moved, active[k], zero);
            const JM_V slow = JM_VLESS(tolerance * (moved + moved), width * width, active[k], zero);
            active[k] = JM_VLESS(square, is_simple, slow, active[k]);
        }
    }
    for (int k = 0; k < pack; k++)
        lambda[k] = safe[k];
}
