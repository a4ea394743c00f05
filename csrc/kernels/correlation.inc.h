/*
 * Two-point Gaussian means of an activation at equal variances, from a table of Chebyshev
 * polynomials.
 *
 * With |c| = 1 - r, s = sqrt(q r) and t = sqrt(q (1 - r)) the means vary at the scales of the
 * activation, of t and of s.  A patch is
 *
 *     middle, r >= 1/2    an octave of sqrt(q)    by |c| from 0 to 1/2
 *     near, r < 1/2       an octave of t          by a piece of s
 *
 * The pieces of an octave from 2^k begin with [0, 2^f], f = min(k, first_log2), and double:
 * [2^f, 2^(f+1)], ...  Patches are numbered: the middle ones by octave, then by octave the pieces.
 */
#if JM_IS_F64

enum {
    JM_PATCH_TERMS = 20, /* coefficients in either direction */
    JM_PATCH_ROW = 24,   /* as stored, filled up with zeros to whole vectors */
    JM_PATCH_SIZE = JM_PATCH_TERMS * JM_PATCH_ROW
};

/* T_0(x), T_1(x), ... */
JM_INLINE void jm_chebyshev(double x, double *terms) {
    terms[0] = 1.0;
    terms[1] = x;
    for (int i = 2; i < JM_PATCH_TERMS; i++)
        terms[i] = JM_FMADD_S(2.0 * x, terms[i - 1], -terms[i - 2]);
}

/* sum_ij coefficients[i][j] T_i(y) T_j(x) */
JM_INLINE double jm_patch_value(const double *coefficients, double x, double y) {
    double of_x[JM_PATCH_ROW] = {0}, of_y[JM_PATCH_TERMS];
    jm_chebyshev(x, of_x);
    jm_chebyshev(y, of_y);
    JM_V sums[JM_PATCH_ROW / JM_VW];
    for (int v = 0; v < JM_PATCH_ROW / JM_VW; v++)
        sums[v] = JM_LOAD(coefficients + v * JM_VW);
    for (int i = 1; i < JM_PATCH_TERMS; i++)
        for (int v = 0; v < JM_PATCH_ROW / JM_VW; v++)
            sums[v] = JM_FMADD(JM_SPLAT(of_y[i]),
                               JM_LOAD(coefficients + i * JM_PATCH_ROW + v * JM_VW), sums[v]);
    JM_V total = sums[0] * JM_LOAD(of_x);
    for (int v = 1; v < JM_PATCH_ROW / JM_VW; v++)
        total = JM_FMADD(sums[v], JM_LOAD(of_x + v * JM_VW), total);
    return JM_LANE_SUM(total);
}

/* One item: see two_point_table.  A patch that is not there is counted. */
JM_INLINE double jm_two_point(const jm_two_point_table *table, double q, double near, int which,
                              int *n_lacking) {
    const double distance = fabs(near);
    if (!(q >= 0.0 && q <= DBL_MAX && distance <= 1.0))
        return NAN;
    const double low = ldexp(1.0, 2 * table->low_octave + 2);
    const double high = ldexp(1.0, 2 * (table->low_octave + (int)table->n_octaves) - 1);
    q = q < low ? low : q > high ? high : q;
    int octave, piece;
    double x, y;
    ptrdiff_t number;
    if (distance >= 0.5) {
        x = 4.0 * frexp(sqrt(q), &octave) - 3.0;
        y = 3.0 - 4.0 * distance;
        number = octave - 1 - table->low_octave;
    } else {
        x = 4.0 * frexp(sqrt(q * (1.0 - distance)), &octave) - 3.0;
        octave -= 1;
        const ptrdiff_t place = octave - table->low_octave;
        const int excess = octave > table->first_log2 ? octave - table->first_log2 : 0;
        const double u = ldexp(sqrt(q * distance), excess - octave);
        (void)frexp(u, &piece);
        piece = u < 1.0 ? 0 : piece;
        const double start = piece > 0 ? ldexp(0.5, piece) : 0.0;
        y = 2.0 * (u - start) / (piece > 0 ? start : 1.0) - 1.0;
        number = table->n_octaves + 2 * place + (ptrdiff_t)excess * (excess - 1) / 2 + piece;
    }
    const ptrdiff_t row = table->patches[number];
    if (row < 0) {
        *n_lacking += 1;
        return NAN;
    }
    const int side = signbit(near) ? 2 : 0;
    return jm_patch_value(table->coefficients + (row * 4 + side + which) * JM_PATCH_SIZE, x, y);
}

/*
 * K = E phi'(u1) phi'(u2), or S = E (phi(u1) - phi(u2))^2 / (2 q (1 - c)), of items begin..end-1:
 * u1, u2 have variance q and correlation c.
 *
 * q      (n)  >= 0; below or above the table's range, its ends
 * near   (n)  1 - |c| with the sign of c, which -0 has too
 * which       0 for K, 1 for S
 * out    (n)  may not overlap q or near; NaN for an item with a NaN and for one without a patch
 *
 * All in float64; the float32 kernel widens and rounds once.  Never allocates.  Cost: about 1000
 * flops an item.  Error: that of the table and 40 u of the sum of |coefficients|.
 * Returns JM_OK, or JM_NOT_TABULATED if a patch is not there.
 */
static int two_point_table_f64(const jm_two_point_table *table, const void *q_, const void *near_,
                               int which, void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const double *JM_RESTRICT q = (const double *)q_;
    const double *JM_RESTRICT near = (const double *)near_;
    double *JM_RESTRICT out = (double *)out_;
    int n_lacking = 0;
    for (ptrdiff_t i = begin; i < end; i++)
        out[i] = jm_two_point(table, q[i], near[i], which, &n_lacking);
    return n_lacking ? JM_NOT_TABULATED : JM_OK;
}

static int two_point_table_f32(const jm_two_point_table *table, const void *q_, const void *near_,
                               int which, void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const float *JM_RESTRICT q = (const float *)q_;
    const float *JM_RESTRICT near = (const float *)near_;
    float *JM_RESTRICT out = (float *)out_;
    int n_lacking = 0;
    for (ptrdiff_t i = begin; i < end; i++)
        out[i] = (float)jm_two_point(table, q[i], near[i], which, &n_lacking);
    return n_lacking ? JM_NOT_TABULATED : JM_OK;
}

#endif
