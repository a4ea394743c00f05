/*
 * The 2-norm of small matrices, JM_VW matrices at a time, one in each lane.
 *
 * B (long x short) is the scaled matrix, transposed if it is wide; short <= long.
 *
 *   1. G = B^T B, in blocks of JM_GRAM_BLOCK rows that are first transposed into lanes.
 *   2. Householder tridiagonalisation of a copy of G (Golub and Van Loan, "Matrix
 *      Computations", 2013, section 8.3.1), each pass over the matrix applying the last
 *      reflection while it multiplies by the next one.
 *   3. The largest eigenvalue lambda from above by Laguerre's method, which never passes it, in a
 *      bracket whose other end comes from Schroeder's method (see largest_eigenvalue).
 *   4. A proof.  Nothing above needs to be trusted for it:
 *
 *      Upper.  If Cholesky's factorisation of C = fl(theta I - G^), G^ the computed Gram matrix,
 *      runs to completion, then (Rump, "Verification of positive definiteness", BIT 46, 2006, from
 *      Higham 2002, theorem 10.3 and its proof) the factor L satisfies
 *          ||L L^T - C||_2 <= gamma / (1 - gamma) trace(C),
 *      gamma = gamma(short + 3): two roundings more than the theorem, for multiplying by a rounded
 *      reciprocal.  L L^T has no negative eigenvalue and the trace is at most short theta, so
 *          lambda_max(G^) <= theta (1 + eta),  eta = u + short gamma / (1 - gamma).
 *      Each entry of G passes through at most k = block + blocks roundings, block the rows summed
 *      at a time, so
 *          ||G^ - B^T B||_2 <= gamma(k) || |B|^T |B| ||_2 <= gamma(k) ||B||_F^2,
 *      and ||B||_F^2 is the trace of G^ up to 1 / (1 - gamma(k + short)).
 *
 *      Lower.  For any w, the computed solution v of L^T v = w satisfies (L + D)^T v = w with
 *      |D| <= gamma(short + 1) |L| (Higham 2002, theorem 8.5) and ||L||_F^2 <= short theta /
 *      (1 - gamma), so
 *          theta - lambda_max(G^) <= (theta I - G^)'s Rayleigh quotient at v
 *              <= (||w|| / ||v|| + gamma(short + 1) ||L||_F)^2 + eta theta.
 *      With w = L^-1 x that is one step of inverse iteration; in float32 two are taken.  A fixed x
 *      could be orthogonal to the eigenvectors, and for the symmetries of a convolution many are.
 *      The entries of x are therefore +-1, each sign such that nothing cancels in its entry of w
 *      (Cline, Moler, Stewart and Wilkinson, "An estimate for the condition number of a matrix",
 *      SIAM J. Numer. Anal. 16, 1979).  So |w_i| >= 1 / l_ii, and as ||w||^2 = v^T x,
 *          ||w|| / ||v|| <= sqrt(short) / ||w|| <= sqrt(short) min l_ii
 *      whatever the eigenvectors and their multiplicity.
 * The largest entry of B is another bound.
 *
 *      At short = 2 lambda is (g_11 + g_22) / 2 + hypot((g_11 - g_22) / 2, g_12), in which nothing
 *      cancels but one difference of two given numbers: no more than 6 roundings; at short = 1 it
 *      is g_11.  Then theta = lambda and eta = 8 u on either side, without a factorisation.
 *
 * The bounds are put together in JM_T, moved outward by 32 units for those few operations, of which
 * none rounds by more than u theta.
 *
 * Where Cholesky breaks down, theta is moved up, JM_GRAM_TRIALS times in all; then the Frobenius
 * norm stands.
 */
#ifndef JM_GRAM_BLOCK
#define JM_GRAM_BLOCK 64       /* rows of B held in lanes at a time */
#define JM_GRAM_TRIALS 3       /* values of theta tried */
#define JM_GRAM_INFLATION 4.0  /* first theta = lambda (1 + 4 (short + 4) u) */
#define JM_GRAM_INFLATE 16.0   /* growth of that distance from trial to trial */
#define JM_GRAM_EVALUATIONS 80 /* of the characteristic polynomial; 5 are usual, 20 hard */
#define JM_GRAM_SIMPLE 1.25    /* estimated multiplicity below which a root counts as simple */
#define JM_GRAM_GUARD 24       /* bits kept clear of underflow in squared norms */
#define JM_GRAM_LEAN 0.0625    /* where in the bracket a trial is placed for a multiple root */
#define JM_GRAM_CLOSED 2       /* sizes up to this have a closed form */
#define JM_GRAM_CLOSED_ETA 8.0 /* and this error in units of rounding */
#define JM_GRAM_OUTWARD 32.0   /* units by which assembled bounds are moved outward */
#define JM_GRAM_FINE 256       /* entries up to which peaks are taken in lanes */
#endif
#undef JM_GRAM_SOLVES /* steps of inverse iteration: each gains the digits of the type */
#if JM_IS_F64
#define JM_GRAM_SOLVES 1
#else
#define JM_GRAM_SOLVES 2
#endif
#undef JM_GRAM_TILE
#if (defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES >= 64) || defined(__aarch64__)
#define JM_GRAM_TILE 4 /* 32 vector registers */
#else
#define JM_GRAM_TILE 2
#endif

/*
 * Rows [begin, begin + count) of every lane's B, not yet scaled: block (count, short, JM_VW).
 *
 * items   (JM_VW) the matrices, row-major (rows, cols)
 */
static void JM_NAME(gram_load)(ptrdiff_t rows, ptrdiff_t cols, const JM_T *const *items,
                               ptrdiff_t begin, ptrdiff_t count, JM_T *JM_RESTRICT block) {
    if (rows >= cols) {
        JM_NAME(jm_interleave)(count * cols, begin * cols, items, 1, block);
    } else {
        for (ptrdiff_t i = 0; i < rows; i++)
            JM_NAME(jm_interleave)(count, i * cols + begin, items, rows, block + i * JM_VW);
    }
}

/* Every lane of block (n, JM_VW) times its two factors; scales (2, JM_VW). */
static void JM_NAME(gram_scale)(ptrdiff_t n, const JM_T *scales, JM_T *block) {
    const JM_V scale = JM_LOAD(scales), more = JM_LOAD(scales + JM_VW);
    for (ptrdiff_t i = 0; i < n; i++)
        JM_STORE(block + i * JM_VW, JM_LOAD(block + i * JM_VW) * scale * more);
}

/* The largest |entry| of each lane of block (n, JM_VW), infinity where one is not finite. */
static void JM_NAME(gram_peaks)(ptrdiff_t n, const JM_T *block, JM_T *peaks) {
    JM_V largest = JM_SPLAT(0), fault = JM_SPLAT(0);
    for (ptrdiff_t i = 0; i < n; i++) {
        const JM_V x = JM_LOAD(block + i * JM_VW);
        largest = JM_VMAX_ABS(x, largest);
        fault = fault + (x - x); /* 0, or NaN where x is not finite */
    }
    JM_STORE(peaks, JM_VLESS(fault, JM_SPLAT(1), largest, JM_SPLAT(INFINITY)));
}

/*
 * G[i0.., j0..] (+)= block^T block for a tile of r x c entries; r and c are literals at every
 * call.
 */
JM_INLINE void JM_NAME(gram_tile)(const int r, const int c, ptrdiff_t size, ptrdiff_t count,
                                  const JM_T *block, ptrdiff_t i0, ptrdiff_t j0, int first,
                                  JM_T *g) {
    JM_V sum[4][4];
    for (int x = 0; x < r; x++)
        for (int y = 0; y < c; y++)
            sum[x][y] = JM_SPLAT(0);
    const JM_T *row = block + i0 * JM_VW;
    const JM_T *column = block + j0 * JM_VW;
    for (ptrdiff_t k = 0; k < count; k++) {
        JM_V b[4];
        for (int y = 0; y < c; y++)
            b[y] = JM_LOAD(column + y * JM_VW);
        for (int x = 0; x < r; x++) {
            const JM_V a = JM_LOAD(row + x * JM_VW);
            for (int y = 0; y < c; y++)
                sum[x][y] = JM_FMADD(a, b[y], sum[x][y]);
        }
        row += size * JM_VW;
        column += size * JM_VW;
    }
    for (int x = 0; x < r; x++)
        for (int y = 0; y < c; y++) {
            JM_T *entry = g + ((i0 + x) * size + j0 + y) * JM_VW;
            JM_STORE(entry, first ? sum[x][y] : JM_LOAD(entry) + sum[x][y]);
        }
}

/* A row of tiles, r high, up to and including the diagonal. */
JM_INLINE void JM_NAME(gram_tiles)(const int r, ptrdiff_t size, ptrdiff_t count, const JM_T *block,
                                   ptrdiff_t i0, int first, JM_T *g) {
    ptrdiff_t j0 = 0;
    for (; j0 + 4 <= i0 + r; j0 += 4)
        JM_NAME(gram_tile)(r, 4, size, count, block, i0, j0, first, g);
    if (j0 + 2 <= i0 + r) {
        JM_NAME(gram_tile)(r, 2, size, count, block, i0, j0, first, g);
        j0 += 2;
    }
    if (j0 < i0 + r)
        JM_NAME(gram_tile)(r, 1, size, count, block, i0, j0, first, g);
}

/*
 * G (size, size, JM_VW) (+)= block^T block, lower triangle; entries above the diagonal are
 * undefined.
 */
static void JM_NAME(gram_accumulate)(ptrdiff_t size, ptrdiff_t count, const JM_T *block, int first,
                                     JM_T *g) {
    ptrdiff_t i0 = 0;
    for (; i0 + JM_GRAM_TILE <= size; i0 += JM_GRAM_TILE)
        JM_NAME(gram_tiles)(JM_GRAM_TILE, size, count, block, i0, first, g);
    for (; i0 < size; i0++)
        JM_NAME(gram_tiles)(1, size, count, block, i0, first, g);
}

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
 * S (size, size, JM_VW), lower triangle, becomes tridiagonal: diagonal (size, JM_VW) and the
 * squares of the off-diagonals, off_square[h] between h - 1 and h.  vectors (4, size, JM_VW) is
 * scratch.
 */
static void JM_NAME(tridiagonalise)(ptrdiff_t size, JM_T *s, JM_T *diagonal, JM_T *off_square,
                                    JM_T *vectors) {
    JM_T *u = vectors, *w = u + size * JM_VW, *x = w + size * JM_VW, *y = x + size * JM_VW;
    memset(vectors, 0, (size_t)(2 * size * JM_VW) * sizeof(JM_T));
    const JM_V zero = JM_SPLAT(0);
    /* a row of squared norm below this is not reflected: its reciprocal could overflow */
    const JM_V negligible = JM_SPLAT(JM_LDEXP((JM_T)1, JM_MIN_EXP + JM_GRAM_GUARD));
    JM_STORE(off_square, zero);
    for (ptrdiff_t h = size - 1; h > 0; h--) {
        const JM_T *row = s + h * size * JM_VW;
        const JM_V u_h = JM_LOAD(u + h * JM_VW), w_h = JM_LOAD(w + h * JM_VW);
        JM_V square = zero;
        for (ptrdiff_t j = 0; j < h; j++) {
            const JM_V value = JM_LOAD(row + j * JM_VW) -
                               (u_h * JM_LOAD(w + j * JM_VW) + w_h * JM_LOAD(u + j * JM_VW));
            JM_STORE(x + j * JM_VW, value);
            square = JM_FMADD(value, value, square);
        }
        const JM_V uw = u_h * w_h;
        JM_STORE(diagonal + h * JM_VW, JM_LOAD(row + h * JM_VW) - (uw + uw));
        JM_STORE(off_square + h * JM_VW, square);

        /* x - alpha e_{h-1}, alpha of the sign that does not cancel; half its squared norm */
        const JM_V last = JM_LOAD(x + (h - 1) * JM_VW);
        const JM_V norm = JM_VSQRT(square);
        const JM_V shift = JM_VLESS(last, zero, -norm, norm);
        JM_STORE(x + (h - 1) * JM_VW, last + shift);
        const JM_V half = JM_FMADD(last, shift, square);
        const JM_V inverse = JM_VLESS(negligible, half, JM_SPLAT(1) / half, zero);

        memset(y, 0, (size_t)(h * JM_VW) * sizeof(JM_T));
        ptrdiff_t i0 = 0;
        for (; i0 + JM_GRAM_TILE <= h; i0 += JM_GRAM_TILE)
            JM_NAME(reflect_rows)(JM_GRAM_TILE, size, i0, u, w, x, y, s);
        for (; i0 < h; i0++)
            JM_NAME(reflect_rows)(1, size, i0, u, w, x, y, s);

        JM_V along = zero;
        for (ptrdiff_t j = 0; j < h; j++) {
            const JM_V p = JM_LOAD(y + j * JM_VW) * inverse;
            JM_STORE(y + j * JM_VW, p);
            along = JM_FMADD(p, JM_LOAD(x + j * JM_VW), along);
        }
        along = -(along * inverse * JM_SPLAT(0.5));
        for (ptrdiff_t j = 0; j < h; j++)
            JM_STORE(y + j * JM_VW,
                     JM_FMADD(along, JM_LOAD(x + j * JM_VW), JM_LOAD(y + j * JM_VW)));
        JM_T *const old_u = u, *const old_w = w;
        u = x;
        w = y;
        x = old_u;
        y = old_w;
    }
    const JM_V uw = JM_LOAD(u) * JM_LOAD(w);
    JM_STORE(diagonal, JM_LOAD(s) - (uw + uw));
}

/*
 * The largest eigenvalue of the tridiagonal matrix of each lane, approached from above.
 *
 * At x above all eigenvalues the pivots d_i of x I - T and their two derivatives give
 * S1 = sum 1 / (x - lambda_i) and S2 = sum 1 / (x - lambda_i)^2.  The distance to the largest
 * eigenvalue lies between Laguerre's step n / (S1 + sqrt((n - 1)(n S2 - S1^2))) and Schroeder's, S1
 * / S2; S1^2 / S2 estimates its multiplicity.  For a simple root Laguerre's step is taken; for a
 * cluster, where it is slow, a point near the other end of the bracket is tried, and given up if a
 * pivot is not positive.  The start is Laguerre's step from infinity (Samuelson's inequality) or
 * Gershgorin's bound.
 *
 * For a simple root at distance e, with t the sum of 1 / (x - lambda_i) over the others, the
 * bracket has width w = e^2 t and Laguerre's step is short by at most e^3 t^2 / 2 = w^2 / (2 e), to
 * leading order: the iteration ends where that is within rounding, without an evaluation to see it.
 * (What is too soon, or too late, costs width, not truth.)  A lane that is done is left alone, so
 * it does not depend on its neighbours.
 */
static JM_V JM_NAME(largest_eigenvalue)(ptrdiff_t size, const JM_T *diagonal,
                                        const JM_T *off_square) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1), n = JM_SPLAT((JM_T)size);
    JM_V gershgorin = zero, frobenius = zero, below = zero, trace = zero;
    JM_V before = zero;
    for (ptrdiff_t i = 0; i < size; i++) {
        const JM_V a = JM_LOAD(diagonal + i * JM_VW);
        const JM_V square = i + 1 < size ? JM_LOAD(off_square + (i + 1) * JM_VW) : zero;
        const JM_V after = JM_VSQRT(square);
        gershgorin = JM_VMAX(gershgorin, a + (before + after));
        frobenius = JM_FMADD(a, a, frobenius + (square + square));
        below = JM_VMAX(below, a);
        trace = trace + a;
        before = after;
    }
    const JM_V ulps = JM_SPLAT(4 * JM_U);
    /* what rounding can hide is added, or the start could lie below a cluster */
    const JM_V rounding = JM_SPLAT((JM_T)(4 * (size + 4)) * JM_U);
    const JM_V sums = n * frobenius;
    const JM_V excess = JM_VMAX(JM_FMADD(sums, rounding, sums - trace * trace), zero);
    const JM_V samuelson = (trace + JM_VSQRT((n - one) * excess)) / n;
    JM_V safe = JM_VMIN(gershgorin, samuelson);
    safe = JM_FMADD(safe, JM_SPLAT((JM_T)(2 * (size + 4)) * JM_U), safe);
    JM_V x = safe, active = JM_VLESS(zero, safe, one, zero);
    for (int evaluation = 0; evaluation < JM_GRAM_EVALUATIONS; evaluation++) {
        if (!JM_ANY_ABOVE(active, zero))
            break;
        JM_V d = x - JM_LOAD(diagonal), first = one, second = zero;
        JM_V least = d;
        JM_V inverse = one / d;
        JM_V s1 = inverse, s2 = inverse * inverse;
        for (ptrdiff_t i = 1; i < size; i++) {
            /* d' and d'' over d: d_i = (x - a_i) - b^2 / d_{i-1} */
            const JM_V ratio = JM_LOAD(off_square + i * JM_VW) * inverse;
            const JM_V g1 = first * inverse, g2 = second * inverse;
            d = (x - JM_LOAD(diagonal + i * JM_VW)) - ratio;
            first = JM_FMADD(ratio, g1, one);
            second = ratio * (g2 - (g1 * g1 + g1 * g1));
            inverse = one / d;
            least = JM_VMIN(d, least);
            const JM_V f1 = first * inverse;
            s1 = s1 + f1;
            s2 = JM_FMADD(f1, f1, s2 - second * inverse);
        }
        const JM_V spread = JM_VMAX(n * s2 - s1 * s1, zero);
        const JM_V laguerre = n / (s1 + JM_VSQRT((n - one) * spread));
        const JM_V schroeder = s1 / s2;
        const JM_V tolerance = ulps * x;

        /* x proved to lie above: the bracket becomes [x - schroeder, x - laguerre] */
        JM_V above = JM_VLESS(zero, least, active, zero);
        above = JM_VLESS(zero, laguerre, above, zero); /* a NaN proves nothing */
        const JM_V new_safe = x - laguerre;
        const JM_V new_below = JM_VMAX(x - schroeder - tolerance, below);
        const JM_V lean = JM_FMADD(JM_SPLAT(JM_GRAM_LEAN), new_safe - new_below, new_below);
        const JM_V trial = JM_VLESS(s1 * s1, JM_SPLAT(JM_GRAM_SIMPLE) * s2, new_safe, lean);
        /* x not above: it is the lower end, and the last safe point is next */
        const JM_V next_x = JM_VLESS(zero, above, trial, safe);
        const JM_V next_safe = JM_VLESS(zero, above, new_safe, safe);
        const JM_V next_below = JM_VLESS(zero, above, new_below, x);
        const JM_V moved = JM_VLESS(zero, above, laguerre, safe - x);
        const JM_V width = next_safe - next_below;
        safe = JM_VLESS(zero, active, next_safe, safe);
        below = JM_VLESS(zero, active, next_below, below);
        x = JM_VLESS(zero, active, next_x, x);
        active = JM_VLESS(tolerance, width, active, zero);
        active = JM_VLESS(tolerance, moved, active, zero);
        const JM_V slow = JM_VLESS(tolerance * (moved + moved), width * width, active, zero);
        active = JM_VLESS(s1 * s1, JM_SPLAT(JM_GRAM_SIMPLE) * s2, slow, active);
    }
    return safe;
}

/*
 * Cholesky's factor of theta I - G: factor (size, size, JM_VW), lower triangle, the reciprocals of
 * its diagonal in `inverse` (size, JM_VW).  Returns one in the lanes that ran to completion, zero
 * elsewhere.
 */
JM_INLINE JM_V JM_NAME(cholesky_rows)(const int r, ptrdiff_t size, ptrdiff_t i0, JM_V theta,
                                      const JM_T *g, JM_T *factor, JM_T *inverse, JM_V complete) {
    for (ptrdiff_t j = 0; j < i0; j++) {
        JM_V value[4];
        for (int a = 0; a < r; a++)
            value[a] = JM_LOAD(g + ((i0 + a) * size + j) * JM_VW);
        const JM_T *row_j = factor + j * size * JM_VW;
        const JM_T *row_i = factor + i0 * size * JM_VW;
        for (ptrdiff_t k = 0; k < j; k++) {
            const JM_V l = JM_LOAD(row_j + k * JM_VW);
            for (int a = 0; a < r; a++)
                value[a] = JM_FMADD(JM_LOAD(row_i + (a * size + k) * JM_VW), l, value[a]);
        }
        const JM_V negated = -JM_LOAD(inverse + j * JM_VW);
        for (int a = 0; a < r; a++)
            JM_STORE(factor + ((i0 + a) * size + j) * JM_VW, value[a] * negated);
    }
    for (int a = 0; a < r; a++) {
        const ptrdiff_t i = i0 + a;
        const JM_T *row_i = factor + i * size * JM_VW;
        for (ptrdiff_t j = i0; j < i; j++) {
            const JM_T *row_j = factor + j * size * JM_VW;
            JM_V value = JM_LOAD(g + (i * size + j) * JM_VW);
            for (ptrdiff_t k = 0; k < j; k++)
                value = JM_FMADD(JM_LOAD(row_i + k * JM_VW), JM_LOAD(row_j + k * JM_VW), value);
            JM_STORE(factor + (i * size + j) * JM_VW, -(value * JM_LOAD(inverse + j * JM_VW)));
        }
        JM_V pivot = theta - JM_LOAD(g + (i * size + i) * JM_VW);
        for (ptrdiff_t k = 0; k < i; k++) {
            const JM_V l = JM_LOAD(row_i + k * JM_VW);
            pivot = JM_FMADD(-l, l, pivot);
        }
        complete = JM_VLESS(JM_SPLAT(0), pivot, complete, JM_SPLAT(0));
        JM_STORE(inverse + i * JM_VW, JM_SPLAT(1) / JM_VSQRT(pivot));
    }
    return complete;
}

static JM_V JM_NAME(cholesky)(ptrdiff_t size, JM_V theta, const JM_T *g, JM_T *factor,
                              JM_T *inverse) {
    JM_V complete = JM_SPLAT(1);
    ptrdiff_t i0 = 0;
    for (; i0 + 4 <= size; i0 += 4)
        complete = JM_NAME(cholesky_rows)(4, size, i0, theta, g, factor, inverse, complete);
    for (; i0 < size; i0++)
        complete = JM_NAME(cholesky_rows)(1, size, i0, theta, g, factor, inverse, complete);
    return complete;
}

/*
 * v (size, JM_VW) <- L^-1 x, rescaled to a largest entry of one.  x is v, or, to start, +-1 of the
 * sign of what it is added to; is_start is a literal at every call.
 */
JM_INLINE void JM_NAME(forward_solve)(const int is_start, ptrdiff_t size, const JM_T *factor,
                                      const JM_T *inverse, JM_T *v) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1);
    JM_V largest = zero;
    for (ptrdiff_t i0 = 0; i0 < size; i0 += 4) {
        const ptrdiff_t r = size - i0 < 4 ? size - i0 : 4;
        JM_V value[4];
        for (int a = 0; a < 4; a++)
            value[a] = is_start ? zero : JM_LOAD(v + (i0 + (a < r ? a : 0)) * JM_VW);
        if (r == 4) {
            const JM_T *row = factor + i0 * size * JM_VW;
            for (ptrdiff_t k = 0; k < i0; k++) {
                const JM_V x = -JM_LOAD(v + k * JM_VW);
                for (int a = 0; a < 4; a++)
                    value[a] = JM_FMADD(JM_LOAD(row + (a * size + k) * JM_VW), x, value[a]);
            }
        } else {
            for (int a = 0; a < r; a++)
                for (ptrdiff_t k = 0; k < i0; k++)
                    value[a] = JM_FMADD(JM_LOAD(factor + ((i0 + a) * size + k) * JM_VW),
                                        -JM_LOAD(v + k * JM_VW), value[a]);
        }
        for (int a = 0; a < r; a++) {
            if (is_start)
                value[a] = value[a] + JM_VLESS(value[a], zero, -one, one);
            const JM_V x = value[a] * JM_LOAD(inverse + (i0 + a) * JM_VW);
            JM_STORE(v + (i0 + a) * JM_VW, x);
            largest = JM_VMAX(JM_VABS(x), largest);
            for (int b = a + 1; b < r; b++)
                value[b] =
                    JM_FMADD(JM_LOAD(factor + ((i0 + b) * size + i0 + a) * JM_VW), -x, value[b]);
        }
    }
    const JM_V scale = one / largest;
    for (ptrdiff_t i = 0; i < size; i++)
        JM_STORE(v + i * JM_VW, JM_LOAD(v + i * JM_VW) * scale);
}

/* v (size, JM_VW) <- L^-T v; the squared norm of the result. */
static JM_V JM_NAME(backward_solve)(ptrdiff_t size, const JM_T *factor, const JM_T *inverse,
                                    JM_T *v) {
    JM_V square = JM_SPLAT(0);
    for (ptrdiff_t i = size - 1; i >= 0; i--) {
        const JM_T *row = factor + i * size * JM_VW;
        const JM_V value = JM_LOAD(v + i * JM_VW) * JM_LOAD(inverse + i * JM_VW);
        square = JM_FMADD(value, value, square);
        for (ptrdiff_t k = 0; k < i; k++)
            JM_STORE(v + k * JM_VW,
                     JM_FMADD(JM_LOAD(row + k * JM_VW), -value, JM_LOAD(v + k * JM_VW)));
    }
    return square;
}

/*
 * theta above lambda by Cholesky's factorisation, zero in the lanes where no trial succeeds, and
 * the square of ||w|| / ||v|| of the head of this file.  factor, inverse, v are scratch.
 */
static JM_V JM_NAME(gram_theta)(ptrdiff_t size, JM_V lambda, const JM_T *g, JM_T *factor,
                                JM_T *inverse, JM_T *v, JM_V *quotient) {
    const JM_V zero = JM_SPLAT(0);
    const JM_V pending = JM_VLESS(zero, lambda, JM_SPLAT(1), zero);
    JM_V theta = zero;
    double inflation = JM_GRAM_INFLATION * (double)(size + 4) * (double)JM_U;
    for (int trial = 0; trial < JM_GRAM_TRIALS; trial++) {
        const JM_V candidate = JM_FMADD(lambda, JM_SPLAT((JM_T)inflation), lambda);
        /* a lane that has succeeded repeats its factorisation, to the same digits */
        const JM_V tried = JM_VLESS(zero, theta, theta, candidate);
        const JM_V complete = JM_NAME(cholesky)(size, tried, g, factor, inverse);
        theta = JM_VLESS(zero, complete, tried, zero);
        if (!JM_ANY_ABOVE(JM_VLESS(zero, theta, zero, pending), zero))
            break;
        inflation *= JM_GRAM_INFLATE;
    }
    JM_NAME(forward_solve)(1, size, factor, inverse, v);
    for (int solve = 1; solve < JM_GRAM_SOLVES; solve++) {
        (void)JM_NAME(backward_solve)(size, factor, inverse, v);
        JM_NAME(forward_solve)(0, size, factor, inverse, v);
    }
    JM_V w_square = zero;
    for (ptrdiff_t i = 0; i < size; i++)
        w_square = JM_FMADD(JM_LOAD(v + i * JM_VW), JM_LOAD(v + i * JM_VW), w_square);
    *quotient = w_square / JM_NAME(backward_solve)(size, factor, inverse, v);
    return theta;
}

/*
 * The bounds of every lane, lower, value and upper, by the inequalities at the head of this file.
 * peak is the largest entry, scaled.
 */
static void JM_NAME(gram_bounds)(ptrdiff_t size, ptrdiff_t length, JM_V peak, JM_V lambda,
                                 JM_V theta, JM_V trace, JM_V quotient, JM_V *lower, JM_V *value,
                                 JM_V *upper) {
    const ptrdiff_t block = length < JM_GRAM_BLOCK ? length : JM_GRAM_BLOCK;
    const double u = (double)JM_U, p = (double)size;
    const double k = (double)(block + (length + block - 1) / block + 1); /* a spare: underflow */
    const double forming = JM_NAME(gamma)(k), c = JM_NAME(gamma)(p + 4);
    const int is_closed = size <= JM_GRAM_CLOSED;
    const double eta = is_closed ? JM_GRAM_CLOSED_ETA * u : u + p * c / (1 - c);
    const double in_quotient = is_closed ? 0 : JM_NAME(gamma)(2 * p + 8);
    const double in_solve = is_closed ? 0 : c * sqrt(p / (1 - c));
    const JM_V outward = JM_SPLAT((JM_T)(1 + JM_GRAM_OUTWARD * u));
    const JM_V inward = JM_SPLAT((JM_T)(1 - JM_GRAM_OUTWARD * u));

    const JM_V square_sum = trace * JM_SPLAT((JM_T)(1 / (1 - JM_NAME(gamma)(k + p)))) * outward;
    const JM_V loss = JM_SPLAT((JM_T)forming) * square_sum * outward;
    const JM_V frobenius = JM_VSQRT(square_sum) * outward;
    const JM_V above = JM_VSQRT(JM_FMADD(theta, JM_SPLAT((JM_T)eta), theta) + loss) * outward;
    *upper = JM_VLESS(JM_SPLAT(0), theta, JM_VMIN(above, frobenius), frobenius);

    const JM_V root = JM_VSQRT(quotient * JM_SPLAT((JM_T)(1 + in_quotient)));
    const JM_V off = JM_FMADD(JM_VSQRT(theta), JM_SPLAT((JM_T)in_solve), root) * outward;
    const JM_V share = theta * JM_SPLAT((JM_T)(1 - eta - JM_GRAM_OUTWARD * u));
    const JM_V below = JM_VSQRT(share - off * off * outward - loss) * inward;
    /* NaN gives the peak */
    *lower = JM_VLESS(JM_SPLAT(0), theta, JM_VMAX(below, peak), peak);
    *value = JM_VMIN(JM_VMAX(JM_VSQRT(lambda), *lower), *upper);
}

/*
 * One item's bounds times 2^e, rounded outward where that leaves the normal range: what bounds of
 * a kernel become for whoever does not want the exponent.
 */
static void JM_NAME(outward_ends)(const JM_T *bounds, int e, JM_T *ends) {
    for (int side = 0; side < 3; side++) {
        ends[side] = JM_LDEXP(bounds[side], e);
        const JM_T back = JM_LDEXP(ends[side], -e); /* differs where it was rounded */
        if (side == 0 && back > bounds[side])
            ends[side] = JM_NEXT(ends[side], (JM_T)-INFINITY);
        if (side == 2 && back < bounds[side])
            ends[side] = JM_NEXT(ends[side], (JM_T)INFINITY);
    }
    ends[1] = ends[1] < ends[0] ? ends[0] : ends[1] > ends[2] ? ends[2] : ends[1];
}

/* Matrices per call of spectral_norm_gram that share the work of one. */
static ptrdiff_t JM_NAME(spectral_norm_gram_group)(void) { return JM_VW; }

/* Bytes of workspace for spectral_norm_gram. */
static size_t JM_NAME(spectral_norm_gram_work)(ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t size = rows < cols ? rows : cols, length = rows < cols ? cols : rows;
    const ptrdiff_t block = length < JM_GRAM_BLOCK ? length : JM_GRAM_BLOCK;
    return (size_t)((block + 2 * size + 7) * size * JM_VW) * sizeof(JM_T) + JM_ALIGNMENT;
}

/*
 * Certain bounds on the 2-norms of n_items <= spectral_norm_gram_group() matrices.
 *
 * a         (n_items, rows, cols)     row-major, contiguous
 * rtol                                what is asked for
 * bounds    (3, stride)               lower, value, upper in double, each times 2^exponent
 * ends      (3, stride)               the same as numbers of JM_T, rounded outward
 * stride                              from row to row of bounds and ends
 * exponent  (n_items)
 * status    (n_items)                 JM_OK; JM_NOT_CONVERGED where upper > lower (1 + rtol);
 *                                     JM_NON_FINITE with bounds NaN
 * work                                spectral_norm_gram_work(rows, cols) bytes
 *
 * Requires rows, cols, n_items >= 1.  Never allocates.  An item's digits do not depend on its
 * neighbours.  Returns JM_OK; what became of each item is in status.
 */
static int JM_NAME(spectral_norm_gram)(ptrdiff_t n_items, ptrdiff_t rows, ptrdiff_t cols,
                                       const void *a_, double rtol, double *bounds, void *ends_,
                                       ptrdiff_t stride, int64_t *exponent, int *status,
                                       void *work) {
    const JM_T *const a = (const JM_T *)a_;
    JM_T *const ends = (JM_T *)ends_;
    const ptrdiff_t size = rows < cols ? rows : cols, length = rows < cols ? cols : rows;
    const ptrdiff_t block_rows = length < JM_GRAM_BLOCK ? length : JM_GRAM_BLOCK;
    JM_T *const block = JM_NAME(aligned_work)(work);
    JM_T *const g = block + block_rows * size * JM_VW;
    JM_T *const factor = g + size * size * JM_VW;
    JM_T *const v = factor + size * size * JM_VW;
    JM_T *const inverse = v + size * JM_VW;
    JM_T *const diagonal = inverse + size * JM_VW;
    JM_T *const vectors = diagonal + size * JM_VW; /* (4, size) */

    const JM_T *items[JM_VW];
    JM_T peaks[JM_VW], scales[2 * JM_VW], back[2 * JM_VW];
    for (int j = 0; j < JM_VW; j++) /* spare lanes repeat the first matrix */
        items[j] = a + (j < n_items ? j : 0) * rows * cols;
    const int is_fine = rows * cols <= JM_GRAM_FINE && length <= JM_GRAM_BLOCK;
    if (is_fine) {
        JM_NAME(gram_load)(rows, cols, items, 0, length, block);
        JM_NAME(gram_peaks)(rows * cols, block, peaks);
    } else {
        const JM_T first = JM_NAME(peak)(rows * cols, items[0]);
        for (int j = 0; j < JM_VW; j++)
            peaks[j] = 0 < j && j < n_items ? JM_NAME(peak)(rows * cols, items[j]) : first;
    }
    int is_plain = 1; /* no bound can leave the normal range */
    for (int j = 0; j < JM_VW; j++) {
        const int is_usual = peaks[j] > 0 && isfinite(peaks[j]);
        const int e = is_usual ? JM_NAME(exponent_of)(peaks[j]) : 0;
        scales[j] = JM_NAME(power_of_two)(-e / 2);
        scales[JM_VW + j] = JM_NAME(power_of_two)(-e - -e / 2);
        back[j] = JM_NAME(power_of_two)(e / 2);
        back[JM_VW + j] = JM_NAME(power_of_two)(e - e / 2);
        is_plain &= is_usual && e < JM_MAX_EXP - JM_GRAM_BLOCK && e > JM_MIN_EXP + 1;
        if (j < n_items)
            exponent[j] = e;
    }

    for (ptrdiff_t begin = 0; begin < length; begin += JM_GRAM_BLOCK) {
        const ptrdiff_t left = length - begin, count = left < JM_GRAM_BLOCK ? left : JM_GRAM_BLOCK;
        if (!is_fine)
            JM_NAME(gram_load)(rows, cols, items, begin, count, block);
        JM_NAME(gram_scale)(count * size, scales, block);
        JM_NAME(gram_accumulate)(size, count, block, begin == 0, g);
    }
    JM_V trace = JM_LOAD(g), lambda = trace, theta = trace, quotient = JM_SPLAT(0);
    for (ptrdiff_t i = 1; i < size; i++)
        trace = trace + JM_LOAD(g + i * (size + 1) * JM_VW);
    if (size == 2) {
        const JM_V corner = JM_LOAD(g + 2 * JM_VW), half = JM_SPLAT(0.5);
        const JM_V difference = (JM_LOAD(g) - JM_LOAD(g + 3 * JM_VW)) * half;
        const JM_V square = JM_FMADD(corner, corner, difference * difference);
        theta = lambda = JM_FMADD(trace, half, JM_VSQRT(square));
    } else if (size > 2) {
        for (ptrdiff_t i = 0; i < size; i++)
            for (ptrdiff_t j = 0; j <= i; j++)
                JM_STORE(factor + (i * size + j) * JM_VW, JM_LOAD(g + (i * size + j) * JM_VW));
        JM_NAME(tridiagonalise)(size, factor, diagonal, inverse, vectors);
        lambda = JM_NAME(largest_eigenvalue)(size, diagonal, inverse);
        theta = JM_NAME(gram_theta)(size, lambda, g, factor, inverse, v, &quotient);
    }
    const JM_V peak = JM_LOAD(peaks) * JM_LOAD(scales) * JM_LOAD(scales + JM_VW);
    JM_V found[3], moved[3];
    JM_NAME(gram_bounds)(size, length, peak, lambda, theta, trace, quotient, &found[0], &found[1],
                         &found[2]);
    for (int side = 0; side < 3; side++)
        moved[side] = found[side] * JM_LOAD(back) * JM_LOAD(back + JM_VW);
    JM_T own[3][JM_VW], their[3][JM_VW];
    for (int side = 0; side < 3; side++) {
        JM_STORE(own[side], found[side]);
        JM_STORE(their[side], moved[side]);
    }
    for (ptrdiff_t j = 0; j < n_items; j++) {
        JM_T bound[3] = {own[0][j], own[1][j], own[2][j]};
        JM_T end[3] = {their[0][j], their[1][j], their[2][j]};
        status[j] = (double)bound[2] > (double)bound[0] * (1 + rtol) ? JM_NOT_CONVERGED : JM_OK;
        if (!is_plain) {
            if (peaks[j] == 0 || !isfinite(peaks[j])) {
                status[j] = peaks[j] == 0 ? JM_OK : JM_NON_FINITE;
                bound[0] = bound[1] = bound[2] = peaks[j] == 0 ? (JM_T)0 : (JM_T)NAN;
            }
            JM_NAME(outward_ends)(bound, (int)exponent[j], end);
        }
        for (int side = 0; side < 3; side++) {
            bounds[side * stride + j] = (double)bound[side];
            ends[side * stride + j] = end[side];
        }
    }
    return JM_OK;
}
