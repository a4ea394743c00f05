/* lyapunov_spectrum of small square chains: JM_VW items a vector, side by side in lanes. */

/* The factor of layer t for a group, (n, n, items), from the samples that `sample` names. */
JM_INLINE void JM_NAME(lyapunov_lane_factor)(const ptrdiff_t n, const int nv, const jm_chain *chain,
                                             ptrdiff_t t, const ptrdiff_t *sample, JM_T *factor) {
    const jm_layer layer = JM_NAME(chain_layer)(chain, t);
    const JM_T *w = layer.weights, *s = layer.slopes;
    const int on_input = chain->slope_side == JM_SLOPE_INPUT;
    const ptrdiff_t width = nv * JM_VW;
    for (int v = 0; v < nv; v++) {
        ptrdiff_t w_at[JM_VW], s_at[JM_VW];
        for (int l = 0; l < JM_VW; l++) {
            w_at[l] = sample[v * JM_VW + l] * layer.weights_stride;
            s_at[l] = sample[v * JM_VW + l] * layer.slopes_stride;
        }
        for (ptrdiff_t r = 0; r < n; r++) {
            const JM_V row_slope = s && !on_input ? JM_GATHER(s + r, s_at) : JM_SPLAT(1);
            for (ptrdiff_t c = 0; c < n; c++) {
                JM_V x = JM_SPLAT(r == c);
                if (w)
                    x = layer.weights_stride ? JM_GATHER(w + r * n + c, w_at)
                                             : JM_SPLAT(w[r * n + c]);
                if (s)
                    x *= on_input ? JM_GATHER(s + c, s_at) : row_slope;
                if (r == c && layer.shortcut != 0)
                    x += JM_SPLAT(layer.shortcut);
                JM_STORE(factor + (r * n + c) * width + v * JM_VW, x);
            }
        }
    }
}

/* Rows and columns of a tile of out = factor in, all (., items). */
JM_INLINE void JM_NAME(lyapunov_lane_tile)(const int n_rows, const int n_cols, const ptrdiff_t n,
                                           ptrdiff_t width, const JM_T *factor, const JM_T *in,
                                           JM_T *JM_RESTRICT out) {
    JM_V sum[4][3] = {{JM_SPLAT(0)}};
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < n_cols; j++)
            sum[r][j] = JM_SPLAT(0);
    JM_UNROLL
    for (ptrdiff_t c = 0; c < n; c++) {
        JM_V x[3];
        for (int j = 0; j < n_cols; j++)
            x[j] = JM_LOAD(in + (j * n + c) * width);
        JM_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const JM_V f = JM_LOAD(factor + (r * n + c) * width);
            for (int j = 0; j < n_cols; j++)
                sum[r][j] = JM_FMADD(f, x[j], sum[r][j]);
        }
    }
    JM_UNROLL
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < n_cols; j++)
            JM_STORE(out + (j * n + r) * width, sum[r][j]);
}

/* Columns [j, j + n_cols) of out = factor in. */
JM_INLINE void JM_NAME(lyapunov_lane_columns)(const int n_cols, const ptrdiff_t n, ptrdiff_t width,
                                              const JM_T *factor, const JM_T *in, JM_T *out) {
    const int height = n == 3 ? 3 : n < 4 ? (int)n : 4;
    ptrdiff_t r = 0;
    for (; r + height <= n; r += height)
        JM_NAME(lyapunov_lane_tile)
    (height, n_cols, n, width, factor + r * n * width, in, out + r * width);
    for (; r < n; r++)
        JM_NAME(lyapunov_lane_tile)(1, n_cols, n, width, factor + r * n * width, in,
                                    out + r * width);
}

/* Dot product of two columns lane by lane, even and odd terms apart. */
JM_INLINE JM_V JM_NAME(lyapunov_lane_dot)(const ptrdiff_t n, ptrdiff_t width, const JM_T *a,
                                          const JM_T *b) {
    JM_V even = JM_LOAD(a) * JM_LOAD(b);
    if (n == 1)
        return even;
    JM_V odd = JM_LOAD(a + width) * JM_LOAD(b + width);
    ptrdiff_t r = 2;
    JM_UNROLL
    for (; r + 2 <= n; r += 2) {
        even = JM_FMADD(JM_LOAD(a + r * width), JM_LOAD(b + r * width), even);
        odd = JM_FMADD(JM_LOAD(a + (r + 1) * width), JM_LOAD(b + (r + 1) * width), odd);
    }
    if (r < n)
        even = JM_FMADD(JM_LOAD(a + r * width), JM_LOAD(b + r * width), even);
    return even + odd;
}

/* One where a squared length does not let a plain step stand. */
JM_INLINE JM_V JM_NAME(lyapunov_lane_falls)(JM_V square, JM_V low, JM_T high) {
    const JM_V one = JM_SPLAT(1), is_long = JM_VLESS(square, JM_SPLAT(high), JM_SPLAT(0), one);
    return JM_VLESS(low, square, is_long, one);
}

/* Squared lengths of k columns, and whether a plain step stands for all lanes. */
JM_INLINE int JM_NAME(lyapunov_lane_lengths)(const ptrdiff_t n, const int nv, const ptrdiff_t k,
                                             const JM_T *columns,
                                             const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    const JM_T high = JM_LDEXP((JM_T)1, JM_STANDS);
    JM_V falls = JM_SPLAT(0);
    for (ptrdiff_t j = 0; j < k; j++)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t at = j * width + v * JM_VW;
            const JM_T *a = columns + j * n * width + v * JM_VW;
            const JM_V square = JM_NAME(lyapunov_lane_dot)(n, width, a, a);
            JM_STORE(space->original + at, square);
            falls = JM_VMAX(JM_NAME(lyapunov_lane_falls)(square, JM_LOAD(space->low + at), high),
                            falls);
        }
    return !JM_ANY_ABOVE(falls, JM_SPLAT(0));
}

/* Has the items whose column i cancelled make it orthogonal again; `step_of` their layer. */
static void JM_NAME(lyapunov_lane_again)(const jm_chain *chain, ptrdiff_t t,
                                         const ptrdiff_t *sample, ptrdiff_t n, ptrdiff_t i,
                                         const JM_NAME(lyapunov_space) * space) {
    JM_T *in = space->block[space->state->current], *out = space->block[1 - space->state->current];
    for (ptrdiff_t item = 0; item < space->n_items; item++) {
        const ptrdiff_t at = i * space->n_items + item;
        if (i >= space->live[item] ||
            !((JM_T)(JM_AGAIN * JM_AGAIN) * space->original[at] > space->square[at]))
            continue;
        JM_NAME(chain_step) step;
        if (t >= 0)
            step = JM_NAME(chain_step_of)(chain, t, sample[item], 0);
        JM_NAME(lyapunov_again)(t >= 0 ? &step : NULL, space, in, out, n, item, i,
                                space->square[at]);
    }
}

/* Makes k columns of every lane orthogonal and leaves their squared lengths. */
JM_INLINE void JM_NAME(lyapunov_lane_orthogonalize)(const ptrdiff_t n, const int nv,
                                                    const ptrdiff_t k, const jm_chain *chain,
                                                    ptrdiff_t t, const ptrdiff_t *sample,
                                                    JM_T *columns,
                                                    const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    const JM_T smallest = JM_LDEXP((JM_T)1, JM_MIN_EXP - 1);
    const JM_V limit = JM_SPLAT(JM_AGAIN * JM_AGAIN);
    for (ptrdiff_t i = 0; i < k; i++) {
        JM_T *a = columns + i * n * width;
        JM_V cancelled = JM_SPLAT(0);
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t at = i * width + v * JM_VW;
            const JM_V original = JM_LOAD(space->original + at);
            JM_V square = original;
            if (i > 0)
                square = JM_NAME(lyapunov_lane_dot)(n, width, a + v * JM_VW, a + v * JM_VW);
            cancelled = JM_VMAX(limit * original - square, cancelled);
            JM_STORE(space->square + at, square);
        }
        if (JM_ANY_ABOVE(cancelled, JM_SPLAT(0)))
            JM_NAME(lyapunov_lane_again)(chain, t, sample, n, i, space);
        for (int v = 0; v < nv && i + 1 < k; v++) {
            /* A zero column has zero products: any divisor will do. */
            const JM_V square = JM_LOAD(space->square + i * width + v * JM_VW);
            const JM_V inverse = JM_SPLAT(-1) / JM_VMAX(square, JM_SPLAT(smallest));
            for (ptrdiff_t j = i + 1; j < k; j++) {
                JM_T *b = columns + j * n * width + v * JM_VW;
                const JM_V share = JM_NAME(lyapunov_lane_dot)(n, width, a + v * JM_VW, b) * inverse;
                for (ptrdiff_t r = 0; r < n; r++)
                    JM_STORE(b + r * width, JM_FMADD(share, JM_LOAD(a + r * width + v * JM_VW),
                                                     JM_LOAD(b + r * width)));
            }
        }
    }
}

/* Rescales the columns of lanes that have left the window. */
JM_INLINE void JM_NAME(lyapunov_lane_rescale)(const ptrdiff_t n, const int nv, const ptrdiff_t k,
                                              JM_T *columns,
                                              const JM_NAME(lyapunov_space) * space) {
    const JM_V high = JM_SPLAT(JM_LDEXP((JM_T)1, JM_KEEPS));
    JM_V longest = JM_SPLAT(0), inverse_shortest = JM_SPLAT(0);
    const JM_T low = JM_LDEXP((JM_T)1, -JM_KEEPS);
    for (ptrdiff_t at = 0; at < k * nv * JM_VW; at += JM_VW) {
        const JM_V square = JM_LOAD(space->square + at);
        longest = JM_VMAX(square, longest);
        inverse_shortest =
            JM_VMAX(JM_VLESS(square, JM_SPLAT(low), JM_LOAD(space->low + at), JM_SPLAT(0)),
                    inverse_shortest);
    }
    if (!JM_ANY_ABOVE(longest, high) && !JM_ANY_ABOVE(inverse_shortest, JM_SPLAT(0)))
        return;
    for (ptrdiff_t item = 0; item < space->n_items; item++)
        JM_NAME(lyapunov_rescale)(space, columns, n, item);
}

/* Steps [t, end) of a group; n, nv and k are constants where that is worth the code. */
JM_INLINE void JM_NAME(lyapunov_lane_run)(const ptrdiff_t n, const int nv, const ptrdiff_t k,
                                          const jm_chain *chain, ptrdiff_t t, ptrdiff_t end,
                                          const ptrdiff_t *sample,
                                          const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t width = nv * JM_VW;
    for (; t < end; t++) {
        const JM_T *in = space->block[space->state->current];
        JM_T *out = space->block[1 - space->state->current];
        JM_NAME(lyapunov_lane_factor)(n, nv, chain, t, sample, space->factor);
        for (int v = 0; v < nv; v++) {
            const JM_T *factor = space->factor + v * JM_VW;
            const int n_cols = n == 3 ? 3 : 2;
            ptrdiff_t j = 0;
            for (; j + n_cols <= k; j += n_cols)
                JM_NAME(lyapunov_lane_columns)
            (n_cols, n, width, factor, in + j * n * width + v * JM_VW,
             out + j * n * width + v * JM_VW);
            for (; j < k; j++)
                JM_NAME(lyapunov_lane_columns)
            (1, n, width, factor, in + j * n * width + v * JM_VW, out + j * n * width + v * JM_VW);
        }
        if (!JM_NAME(lyapunov_lane_lengths)(n, nv, k, out, space)) {
            const JM_T high = JM_LDEXP((JM_T)1, JM_STANDS);
            for (ptrdiff_t item = 0; item < space->n_items; item++) {
                int stands = 1;
                for (ptrdiff_t j = 0; j < k; j++) {
                    const ptrdiff_t at = j * width + item;
                    stands &= space->original[at] > space->low[at] && space->original[at] < high;
                }
                if (!stands)
                    JM_NAME(lyapunov_careful)
                (chain, t, sample[item], item, space->factor, space);
            }
            (void)JM_NAME(lyapunov_lane_lengths)(n, nv, k, out, space);
        }
        JM_NAME(lyapunov_lane_orthogonalize)(n, nv, k, chain, t, sample, out, space);
        JM_NAME(lyapunov_lane_rescale)(n, nv, k, out, space);
        space->state->current = 1 - space->state->current;
    }
}

/* Most columns that an item of the group has left. */
static ptrdiff_t JM_NAME(lyapunov_most_live)(const JM_NAME(lyapunov_space) * space) {
    ptrdiff_t most = 0;
    for (ptrdiff_t i = 0; i < space->n_items; i++)
        most = space->live[i] > most ? space->live[i] : most;
    return most;
}

static void JM_NAME(lyapunov_lanes)(const jm_chain *chain, ptrdiff_t n, ptrdiff_t t, ptrdiff_t end,
                                    const ptrdiff_t *sample,
                                    const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t k = JM_NAME(lyapunov_most_live)(space);
    for (; k == 0 && t < end; t++)
        for (ptrdiff_t i = 0; i < space->n_items; i++)
            JM_NAME(lyapunov_scan)(chain, t, sample[i], i, space);
    switch (k == n ? n : 0) {
#define JM_SIZE(size)                                                                              \
    case size:                                                                                     \
        JM_NAME(lyapunov_lane_run)                                                                 \
        (size, size <= 4 ? 2 : 1, size, chain, t, end, sample, space);                             \
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
    default:
        JM_NAME(lyapunov_lane_run)
        (n, (int)JM_NAME(lyapunov_lane_vectors)(n), k, chain, t, end, sample, space);
    }
}
