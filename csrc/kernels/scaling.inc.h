/*
 * Exact scaling: a quantity is held as mantissa * 2^exponent and only ever rescaled by powers of two.
 *
 * Multiplying by 2^k is exact unless it under- or overflows, so the digits of a scaled product are the
 * digits of the plain one.  In every function e is such that 2^(e-1) <= |x| < 2^e, as in frexp.
 */

/* x[0..n) *= 2^k, in two factors because 2^k itself may not be representable. */
static JM_MAYBE_UNUSED void JM_NAME(scale_by_power)(ptrdiff_t n, JM_T *x, int k) {
    const JM_T half = JM_LDEXP((JM_T)1, k / 2);
    const JM_T rest = JM_LDEXP((JM_T)1, k - k / 2);
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] = x[i] * half * rest;
}

/*
 * out = x * 2^k element by element, rounded once.
 */
static JM_MAYBE_UNUSED void JM_NAME(copy_scaled)(ptrdiff_t n, const JM_T *x, int k, JM_T *out) {
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = JM_LDEXP(x[i], k);
}

/* Largest |x[i]|; infinity if an entry is not finite. */
static JM_MAYBE_UNUSED JM_T JM_NAME(max_abs)(ptrdiff_t n, const JM_T *x) {
    JM_T largest = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const JM_T magnitude = JM_ABS(x[i]);
        if (!(magnitude <= largest)) /* also true of a NaN */
            largest = isfinite(magnitude) ? magnitude : (JM_T)INFINITY;
        if (isinf(largest))
            break;
    }
    return largest;
}

/* The exponent e of x > 0. */
static JM_MAYBE_UNUSED int JM_NAME(exponent_of)(JM_T x) {
    int e;
    (void)JM_FREXP(x, &e);
    return e;
}

/* Largest lane of a vector without NaN. */
static JM_MAYBE_UNUSED JM_T JM_NAME(largest_lane)(JM_V v) {
    JM_T lanes[JM_VW];
    JM_STORE(lanes, v);
    JM_T largest = lanes[0];
    for (int j = 1; j < JM_VW; j++)
        largest = lanes[j] > largest ? lanes[j] : largest;
    return largest;
}
