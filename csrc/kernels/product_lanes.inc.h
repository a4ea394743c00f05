/* Whole products of tiny matrices, a sample in each lane. */

/* The greatest width at which samples go in lanes: beyond it one sample fills the registers as
 * well, and reads memory in a straight line. */
#undef JM_LANES_WIDTH
#if JM_IS_F64
#define JM_LANES_WIDTH 3
#else
#define JM_LANES_WIDTH 4
#endif

/*
 * Whole products of JM_VW samples of a stacked chain, a lane each: of the weights alone, each
 * sample's own.  Returns whether every lane stayed in the window, where chain_product gives the
 * same bits; if not, what was written does not stand.
 *
 * Bound: the shuffles that bring the entries into lanes, about as many as fused operations; from
 * main memory, its bandwidth.
 */
JM_INLINE int JM_NAME(chain_product_lanes)(const int n, const jm_chain *chain, ptrdiff_t first,
                                           JM_T *mantissa, int64_t *exponent) {
    const ptrdiff_t stride = chain->first.weights_stride;
    const ptrdiff_t group_bytes = JM_VW * stride * (ptrdiff_t)sizeof(JM_T);
    /* The groups to come or, where a sample is long, the layers to come. */
    const ptrdiff_t ahead = group_bytes > 4 * JM_AHEAD || group_bytes <= 0
                                ? JM_AHEAD
                                : (JM_AHEAD + group_bytes - 1) / group_bytes * group_bytes;
    /* Not as low as for one sample: on the bound itself that one decides. */
    const JM_V low = JM_SPLAT(JM_LDEXP((JM_T)1, 1 - JM_LAZY));
    const JM_V high = JM_SPLAT(JM_LDEXP((JM_T)1, JM_LAZY));
    const JM_T *w = (const JM_T *)chain->first.weights + first * stride;
    ptrdiff_t at[JM_VW];
    JM_V product[JM_LANES_WIDTH * JM_LANES_WIDTH], next[JM_LANES_WIDTH * JM_LANES_WIDTH];
    JM_V largest = JM_SPLAT(0), poison = JM_SPLAT(0);
    JM_T lanes[JM_VW], powers[JM_VW];
    int exponents[JM_VW];

    for (int l = 0; l < JM_VW; l++)
        at[l] = l * stride;
    JM_UNROLL
    for (int i = 0; i < n * n; i++) {
        product[i] = JM_GATHER(w + i, at);
        largest = JM_VMAX_ABS(product[i], largest);
    }
    for (ptrdiff_t k = 1; k < chain->n_layers; k++) {
        if (JM_ANY_ABOVE(low, largest) || JM_ANY_ABOVE(largest, high))
            return 0;
        w += chain->weights_layer_stride;
        largest = JM_SPLAT(0);
        for (int l = 0; l < JM_VW; l++)
            for (size_t line = 0; line < n * n * sizeof(JM_T); line += 64)
                JM_PREFETCH((const char *)(w + at[l]) + ahead + line);
        JM_UNROLL
        for (int i = 0; i < n; i++) {
            JM_UNROLL
            for (int j = 0; j < n; j++)
                next[i * n + j] = JM_SPLAT(0);
            JM_UNROLL
            for (int m = 0; m < n; m++) {
                const JM_V a = JM_GATHER(w + i * n + m, at);
                JM_UNROLL
                for (int j = 0; j < n; j++)
                    next[i * n + j] = JM_FMADD(a, product[m * n + j], next[i * n + j]);
            }
        }
        JM_UNROLL
        for (int i = 0; i < n * n; i++) {
            product[i] = next[i];
            largest = JM_VMAX_ABS(product[i], largest);
        }
    }
    if (JM_ANY_ABOVE(low, largest) || JM_ANY_ABOVE(largest, high))
        return 0;
    JM_STORE(lanes, largest);
    for (int l = 0; l < JM_VW; l++) {
        exponents[l] = JM_NAME(exponent_of)(lanes[l]);
        powers[l] = JM_NAME(power_of_two)(-exponents[l]);
    }
    const JM_V factor = JM_LOAD(powers);
    JM_UNROLL
    for (int i = 0; i < n * n; i++) {
        product[i] *= factor;
        poison = JM_FMADD(product[i], JM_SPLAT(0), poison);
        JM_STORE(lanes, product[i]);
        for (int l = 0; l < JM_VW; l++)
            mantissa[l * n * n + i] = lanes[l];
    }
    for (int l = 0; l < JM_VW; l++)
        exponent[l] = exponents[l];
    return !JM_ANY_NAN(poison);
}
