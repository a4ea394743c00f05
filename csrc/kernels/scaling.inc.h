/*
 * Exact scaling: a quantity is held as mantissa * 2^exponent and rescaled by powers of two only.
 *
 * Multiplying by 2^k is exact unless it under- or overflows, so the digits of a scaled product are
 * the digits of the plain one.  In every function e is such that 2^(e-1) <= |x| < 2^e, as in frexp.
 */

/* 2^k; by its bits where it is a normal number. */
static JM_MAYBE_UNUSED JM_T JM_NAME(power_of_two)(int k) {
    if (k < JM_MIN_EXP - 1 || k >= JM_MAX_EXP)
        return JM_LDEXP((JM_T)1, k);
    union {
        JM_INT bits;
        JM_T value;
    } power = {(JM_INT)(k + JM_MAX_EXP - 1) << JM_FRACTION_BITS};
    return power.value;
}

/* The exponent e of x > 0, finite; from its bits where it is a normal number. */
static JM_MAYBE_UNUSED int JM_NAME(exponent_of)(JM_T x) {
    union {
        JM_T value;
        JM_INT bits;
    } number = {x};
    int e = (int)(number.bits >> JM_FRACTION_BITS);
    if (e > 0)
        return e - JM_MAX_EXP + 2;
    (void)JM_FREXP(x, &e);
    return e;
}

/* x[0..n) *= 2^k, in two factors because 2^k itself may not be representable. */
static JM_MAYBE_UNUSED void JM_NAME(scale_by_power)(ptrdiff_t n, JM_T *x, int k) {
    const JM_T half = JM_NAME(power_of_two)(k / 2);
    const JM_T rest = JM_NAME(power_of_two)(k - k / 2);
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

/* Largest lane of a vector without NaN. */
static JM_MAYBE_UNUSED JM_T JM_NAME(largest_lane)(JM_V v) {
    JM_T lanes[JM_VW];
    JM_STORE(lanes, v);
    JM_T largest = lanes[0];
    for (int j = 1; j < JM_VW; j++)
        largest = lanes[j] > largest ? lanes[j] : largest;
    return largest;
}

/* Largest |x[i]|; infinity if an entry is not finite. */
static JM_MAYBE_UNUSED JM_T JM_NAME(max_abs)(ptrdiff_t n, const JM_T *x) {
    /* poison: NaN once an entry is not finite.  Four of each hide the latency. */
    JM_V largest[4], poison[4];
    for (int j = 0; j < 4; j++)
        largest[j] = poison[j] = JM_SPLAT(0);
    ptrdiff_t i = 0;
    for (; i + 4 * JM_VW <= n; i += 4 * JM_VW)
        for (int j = 0; j < 4; j++) {
            const JM_V v = JM_LOAD(x + i + j * JM_VW);
            largest[j] = JM_VMAX_ABS(v, largest[j]);
            poison[j] = JM_FMADD(v, JM_SPLAT(0), poison[j]);
        }
    for (; i + JM_VW <= n; i += JM_VW) {
        const JM_V v = JM_LOAD(x + i);
        largest[0] = JM_VMAX_ABS(v, largest[0]);
        poison[0] = JM_FMADD(v, JM_SPLAT(0), poison[0]);
    }
    for (int j = 1; j < 4; j++) {
        largest[0] = JM_VMAX(largest[j], largest[0]);
        poison[0] += poison[j];
    }
    JM_T top = JM_NAME(largest_lane)(largest[0]), bad = 0, lanes[JM_VW];
    JM_STORE(lanes, poison[0]);
    for (int j = 0; j < JM_VW; j++)
        bad += lanes[j];
    for (; i < n; i++) {
        top = JM_ABS(x[i]) > top ? JM_ABS(x[i]) : top;
        bad += x[i] * 0;
    }
    return isnan(bad) ? (JM_T)INFINITY : top;
}
