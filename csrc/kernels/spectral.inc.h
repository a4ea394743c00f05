/*
 * What the norm kernels share.
 *
 * Rounding.  u is JM_U and gamma(k) = k u / (1 - k u) (Higham, "Accuracy and Stability of Numerical
 * Algorithms", 2002, section 3.1): a sum of products in which each term passes through at most k
 * roundings has an error of at most gamma(k) times the sum of magnitudes.  Matrices are scaled by a
 * power of two until the largest entry lies in [1/2, 1), so a norm is at least 1/2 and what gradual
 * underflow can add, at most (rows + cols)^2 subnormals, is less than u / 2 of it for any matrix
 * that fits in memory: each constant below carries one spare unit for it.  Bounds are put together
 * in double, whatever JM_T is, and moved outward by JM_OUTWARD for those few operations.
 *
 * Every norm is reported as bounds * 2^exponent, so that no scale is lost.
 */
#ifndef JM_OUTWARD
#define JM_OUTWARD 0x1p-48 /* 32 roundings in double */
/* bounds of one item: what the kernels write, in this order */
enum { JM_LOWER, JM_VALUE, JM_PROBABLE_UPPER, JM_CERTAIN_UPPER, JM_N_BOUNDS };
/* workspace is aligned to this by the kernels, which ask for as many bytes more */
#define JM_ALIGNMENT 64
#endif

/* gamma(k) of JM_T, rounded up; infinite where the theory ends. */
static JM_MAYBE_UNUSED double JM_NAME(gamma)(double k) {
    const double ku = k * (double)JM_U;
    return ku < 0.5 ? ku / (1 - ku) * (1 + JM_OUTWARD) : (double)INFINITY;
}

static JM_MAYBE_UNUSED JM_T *JM_NAME(aligned_work)(void *work) {
    const uintptr_t address = (uintptr_t)work + (JM_ALIGNMENT - 1);
    return (JM_T *)(address - address % JM_ALIGNMENT);
}

/* Largest |x[i]|; infinity if an entry is not finite. */
static JM_MAYBE_UNUSED JM_T JM_NAME(peak)(ptrdiff_t n, const JM_T *x) {
    JM_V largest = JM_SPLAT(0), other = JM_SPLAT(0);
    JM_V fault = JM_SPLAT(0); /* x - x is 0, or NaN where x is not finite */
    ptrdiff_t i = 0;
    for (; i + 2 * JM_VW <= n; i += 2 * JM_VW) {
        const JM_V a = JM_LOAD(x + i), b = JM_LOAD(x + i + JM_VW);
        largest = JM_VMAX(largest, JM_VABS(a));
        other = JM_VMAX(other, JM_VABS(b));
        fault = fault + ((a - a) + (b - b));
    }
    JM_T lanes[JM_VW], faults[JM_VW];
    JM_STORE(lanes, JM_VMAX(largest, other));
    JM_STORE(faults, fault);
    JM_T peak = 0, total = 0;
    for (int j = 0; j < JM_VW; j++) {
        peak = lanes[j] > peak ? lanes[j] : peak;
        total += faults[j];
    }
    for (; i < n; i++) {
        peak = JM_ABS(x[i]) > peak ? JM_ABS(x[i]) : peak;
        total += x[i] - x[i];
    }
    return total == 0 ? peak : (JM_T)INFINITY;
}

/* The exponent that brings `peak` into [1/2, 1); 0 for a zero or non-finite matrix. */
static JM_MAYBE_UNUSED int JM_NAME(norm_exponent)(JM_T peak) {
    int e = 0;
    if (peak > 0 && isfinite(peak))
        (void)JM_FREXP(peak, &e);
    return e;
}

/* The bounds of a zero matrix (`peak` 0) or of one that holds a NaN or an infinity. */
static JM_MAYBE_UNUSED int JM_NAME(trivial_bounds)(JM_T peak, double *bounds) {
    for (int side = 0; side < JM_N_BOUNDS; side++)
        bounds[side] = peak == 0 ? 0.0 : (double)NAN;
    return peak == 0 ? JM_OK : JM_NON_FINITE;
}
