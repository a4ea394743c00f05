/* Whole products of up to JM_RESIDENT rows, one sample at a time: nothing leaves the registers. */

/*
 * The whole product where it stays in registers from the first factor to the result, which is most
 * of the time of a small item.  Returns how many layers stand: all of them, and the result is
 * written; or fewer, and what they give is the current block.
 */
JM_INLINE ptrdiff_t JM_NAME(chain_product_resident)(const int n, const jm_chain *chain,
                                                    ptrdiff_t sample,
                                                    const JM_NAME(chain_product_space) * space,
                                                    JM_T *mantissa, int64_t *exponent) {
    const JM_NAME(chain_window) window = JM_NAME(chain_window_of)(n);
    JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, 0, sample, 0);
    const JM_T *s_first = step.slopes_first ? step.slopes : NULL;
    const JM_T *s_last = step.slopes_first ? NULL : step.slopes;
    JM_V row[JM_RESIDENT], largest = JM_SPLAT(0), between = JM_SPLAT(0);
    if (s_first)
        between = JM_VABS(JM_LOAD_FIRST(s_first, n));
    JM_UNROLL
    for (int i = 0; i < n; i++) {
        row[i] = JM_LOAD_FIRST(step.weights + i * n, n);
        if (s_first)
            row[i] *= JM_LOAD_FIRST(s_first, n);
        if (s_last) {
            between = JM_VMAX_ABS(row[i], between);
            row[i] *= JM_SPLAT(s_last[i]);
        }
        largest = JM_VMAX_ABS(row[i], largest);
    }
    if (JM_NAME(chain_leaves)(&window, largest, step.slopes != NULL, between))
        return 0;
    step.weights += chain->weights_layer_stride;
    if (step.slopes)
        step.slopes += chain->slopes_layer_stride;
    const ptrdiff_t k =
        JM_NAME(chain_run_resident)(n, chain, 1, chain->n_layers, &step, row, &largest);
    const JM_T top = JM_NAME(largest_lane)(largest);
    const int e = JM_NAME(exponent_of)(top);
    if (k < chain->n_layers) {
        const JM_NAME(chain_state) state = {.largest = top, .rows = n, .bad_layer = -1};
        *space->state = state;
        JM_UNROLL
        for (int i = 0; i < n; i++)
            JM_STORE(space->block[0] + i * JM_VW, row[i]);
        return k;
    }
    const JM_V factor = JM_SPLAT(JM_NAME(power_of_two)(-e));
    JM_V poison = JM_SPLAT(0);
    JM_UNROLL
    for (int i = 0; i < n; i++) {
        row[i] *= factor;
        poison = JM_FMADD(row[i], JM_SPLAT(0), poison);
        JM_STORE_FIRST(mantissa + i * n, row[i], n);
    }
    *exponent = e;
    return JM_ANY_NAN(poison) ? 0 : k;
}

/* chain_product_resident for a chain of that kind; 0, which promises nothing, for any other. */
static ptrdiff_t JM_NAME(chain_product_in_registers)(const jm_chain *chain, ptrdiff_t sample,
                                                     const JM_NAME(chain_product_space) * space,
                                                     JM_T *mantissa, int64_t *exponent) {
    if (!JM_NAME(chain_is_stacked)(chain) || chain->shortcuts || chain->first.shortcut != 0)
        return 0;
    switch (chain->first.rows) {
#define JM_SIZE(n)                                                                                 \
    case n:                                                                                        \
        if (n <= JM_RESIDENT)                                                                      \
            return JM_NAME(chain_product_resident)(n <= JM_RESIDENT ? n : 1, chain, sample, space, \
                                                   mantissa, exponent);                            \
        break;
        JM_SIZE(1)
        JM_SIZE(2)
        JM_SIZE(3)
        JM_SIZE(4)
        JM_SIZE(5)
        JM_SIZE(6)
        JM_SIZE(7)
        JM_SIZE(8)
#undef JM_SIZE
    }
    return 0;
}
