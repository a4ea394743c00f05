/*
 * Elementary functions in lanes, float64 only: what the activations of moments.inc.h are made of.
 *
 * Both rest on expm1 of the reduced argument: y = k ln 2 + r with |r| <= ln(2)/2, where ln 2 is the
 * sum of LN2_HIGH, whose last 20 bits are zero so that k LN2_HIGH is exact, and LN2_LOW (Cody and
 * Waite 1980), and expm1(r) is its Taylor polynomial of degree 14, whose remainder is below r
 * 2e-18.
 */
#if JM_IS_F64

enum { JM_EXP_DEGREE = 14 };

/* expm1(r) of the reduced argument, and the power 2^k, of y in [-708, 708]. */
typedef struct {
    JM_V expm1;
    JM_V power;
} JM_NAME(reduced_exp);

JM_INLINE JM_NAME(reduced_exp) JM_NAME(reduce_exp)(JM_V y) {
    static const double LOG2_E = 0x1.71547652b82fep+0;
    static const double LN2_HIGH = 0x1.62e42feep-1;
    static const double LN2_LOW = 0x1.a39ef35793c76p-33;
    static const double inverse_factorial[JM_EXP_DEGREE + 1] = {
        1.0,
        1.0,
        1.0 / 2,
        1.0 / 6,
        1.0 / 24,
        1.0 / 120,
        1.0 / 720,
        1.0 / 5040,
        1.0 / 40320,
        1.0 / 362880,
        1.0 / 3628800,
        1.0 / 39916800,
        1.0 / 479001600,
        1.0 / 6227020800,
        1.0 / 87178291200,
    };
    const JM_V shifted = JM_FMADD(y, JM_SPLAT(LOG2_E), JM_SPLAT(JM_ROUNDER));
    const JM_V k = shifted - JM_SPLAT(JM_ROUNDER);
    const JM_V r = JM_FMADD(k, JM_SPLAT(-LN2_LOW), JM_FMADD(k, JM_SPLAT(-LN2_HIGH), y));
    JM_V series = JM_SPLAT(inverse_factorial[JM_EXP_DEGREE]);
    for (int n = JM_EXP_DEGREE - 1; n >= 2; n--)
        series = JM_FMADD(series, r, JM_SPLAT(inverse_factorial[n]));
    const JM_NAME(reduced_exp) reduced = {JM_FMADD(r * r, series, r), JM_VPOW2(shifted)};
    return reduced;
}

/* exp(y) for y <= 0, within 2 u; below -708, where it would leave the normal range, exp(-708). */
JM_INLINE JM_V JM_NAME(exp_negative)(JM_V y) {
    const JM_NAME(reduced_exp) e = JM_NAME(reduce_exp)(JM_VMAX(JM_SPLAT(-708.0), y));
    return JM_FMADD(e.power, e.expm1, e.power);
}

/* tanh(x) for 0 <= x <= 350, within 5 u: -m / (2 + m) with m = expm1(-2 x). */
JM_INLINE JM_V JM_NAME(tanh_positive)(JM_V x) {
    const JM_NAME(reduced_exp) e = JM_NAME(reduce_exp)(JM_SPLAT(-2.0) * x);
    const JM_V m = JM_FMADD(e.power, e.expm1, e.power - JM_SPLAT(1.0));
    return -m / (JM_SPLAT(2.0) + m);
}

#endif
