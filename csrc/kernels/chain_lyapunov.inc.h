/*
 * The Lyapunov spectrum of a chain: Q_{t+1} R_t = F_t Q_t, exponent i the mean of log R_ii
 * (Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov characteristic exponents for smooth
 * dynamical systems, 1980); see lyapunov_columns.inc.h for how the columns are kept.
 *
 * Small square chains go with JM_VW items in lanes, for any number of items: then nothing is summed
 * across lanes and no width is odd.  Others go one item at a time, with the columns in panels as in
 * chain_product.  Both ways are Gram-Schmidt in its modified form, between items or columns alike.
 */

/* Bytes of workspace, of 64-byte alignment, that lyapunov_spectrum needs. */
static size_t JM_NAME(lyapunov_spectrum_work)(const jm_lyapunov *job) {
    return JM_NAME(lyapunov_layout)(job, NULL, NULL);
}

/* ---- items in lanes --------------------------------------------------------------------- */

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

/* ---- one item, columns in panels -------------------------------------------------------- */

/* The factor as a dense matrix: W itself, or the copy with slopes and shortcut. */
static const JM_T *JM_NAME(lyapunov_factor)(const JM_NAME(chain_step) * step, JM_T *factor) {
    if (step->weights && !step->slopes && step->shortcut == 0)
        return step->weights;
    for (ptrdiff_t r = 0; r < step->rows; r++) {
        JM_T *row = factor + r * step->cols;
        if (step->weights)
            memcpy(row, step->weights + r * step->cols, (size_t)step->cols * sizeof(JM_T));
        for (ptrdiff_t c = 0; !step->weights && c < step->cols; c++)
            row[c] = r == c;
        if (step->slopes && step->slopes_first)
            for (ptrdiff_t c = 0; c < step->cols; c++)
                row[c] *= step->slopes[c];
        else if (step->slopes)
            for (ptrdiff_t c = 0; c < step->cols; c++)
                row[c] *= step->slopes[r];
        if (step->shortcut != 0)
            row[r] += step->shortcut;
    }
    return factor;
}

/* A panel of columns of a block. */
typedef struct {
    JM_T *entries;          /* (rows, width) */
    ptrdiff_t first, width; /* in columns */
} JM_NAME(lyapunov_panel);

/* Panel p of a block. */
static JM_NAME(lyapunov_panel)
    JM_NAME(lyapunov_panel_of)(const JM_NAME(lyapunov_space) * space, JM_T *block, ptrdiff_t rows,
                               ptrdiff_t p) {
    const ptrdiff_t first = JM_NAME(lyapunov_first_vector)(space->n_vectors, p) * JM_VW;
    const ptrdiff_t end = JM_NAME(lyapunov_first_vector)(space->n_vectors, p + 1) * JM_VW;
    const JM_NAME(lyapunov_panel) panel = {block + first * rows, first, end - first};
    return panel;
}

/* Panels that hold the first n_live columns. */
static ptrdiff_t JM_NAME(lyapunov_n_panels)(const JM_NAME(lyapunov_space) * space,
                                            ptrdiff_t n_live) {
    ptrdiff_t p = 0;
    while (p * JM_PANEL < space->n_vectors &&
           JM_NAME(lyapunov_first_vector)(space->n_vectors, p) * JM_VW < n_live)
        p++;
    return p;
}

/* Squared lengths of the columns, and whether a plain step stands. */
static int JM_NAME(lyapunov_lengths)(JM_T *block, ptrdiff_t rows,
                                     const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t n_live = space->live[0];
    const ptrdiff_t n_panels = JM_NAME(lyapunov_n_panels)(space, n_live);
    for (ptrdiff_t p = 0; p < n_panels; p++) {
        const JM_NAME(lyapunov_panel) panel = JM_NAME(lyapunov_panel_of)(space, block, rows, p);
        for (ptrdiff_t c = 0; c < panel.width; c += JM_VW) {
            JM_V even = JM_SPLAT(0), odd = JM_SPLAT(0);
            for (ptrdiff_t r = 0; r < rows; r++) {
                const JM_V x = JM_LOAD(panel.entries + r * panel.width + c);
                if (r % 2)
                    odd = JM_FMADD(x, x, odd);
                else
                    even = JM_FMADD(x, x, even);
            }
            JM_STORE(space->original + panel.first + c, even + odd);
        }
    }
    const JM_T low = JM_LDEXP((JM_T)1, -JM_STANDS), high = JM_LDEXP((JM_T)1, JM_STANDS);
    int stands = 1;
    for (ptrdiff_t j = 0; j < n_live; j++)
        stands &= space->original[j] > low && space->original[j] < high;
    return stands;
}

/* Columns [first, first + JM_VW) of a panel, made orthogonal among themselves. */
static void JM_NAME(lyapunov_within)(const JM_NAME(chain_step) * step, JM_T *in, JM_T *out,
                                     ptrdiff_t rows, const JM_NAME(lyapunov_panel) * panel,
                                     ptrdiff_t first, const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t width = panel->width;
    JM_T *a = panel->entries + (first - panel->first);
    JM_V sum[4] = {JM_SPLAT(0), JM_SPLAT(0), JM_SPLAT(0), JM_SPLAT(0)};
    for (int c = 0; c < JM_VW && first + c < space->live[0]; c++) {
        JM_T products[JM_VW], share[JM_VW];
        for (int is_again = 0;; is_again = 1) {
            if (c == 0 || is_again) {
                for (int i = 0; i < 4; i++)
                    sum[i] = JM_SPLAT(0);
                ptrdiff_t r = 0;
                for (; r + 4 <= rows; r += 4)
                    for (int i = 0; i < 4; i++) {
                        const JM_T *row = a + (r + i) * width;
                        sum[i] = JM_FMADD(JM_SPLAT(row[c]), JM_LOAD(row), sum[i]);
                    }
                for (; r < rows; r++)
                    sum[0] = JM_FMADD(JM_SPLAT(a[r * width + c]), JM_LOAD(a + r * width), sum[0]);
            }
            JM_STORE(products, (sum[0] + sum[1]) + (sum[2] + sum[3]));
            space->square[first + c] = products[c];
            if (is_again || products[c] >= (JM_T)(JM_AGAIN * JM_AGAIN) * space->original[first + c])
                break;
            JM_NAME(lyapunov_again)(step, space, in, out, rows, 0, first + c, products[c]);
            if (first + c >= space->live[0])
                return;
        }
        for (int j = 0; j < JM_VW; j++)
            share[j] = j > c ? -products[j] / products[c] : 0;
        if (c + 1 == JM_VW)
            break;
        /* The products with the next column are summed on the way. */
        const JM_V shares = JM_LOAD(share);
        for (int i = 0; i < 4; i++)
            sum[i] = JM_SPLAT(0);
        ptrdiff_t r = 0;
        for (; r + 4 <= rows; r += 4)
            for (int i = 0; i < 4; i++) {
                JM_T *row = a + (r + i) * width;
                const JM_V x = JM_FMADD(JM_SPLAT(row[c]), shares, JM_LOAD(row));
                JM_STORE(row, x);
                sum[i] = JM_FMADD(JM_SPLAT(row[c + 1]), x, sum[i]);
            }
        for (; r < rows; r++) {
            JM_T *row = a + r * width;
            const JM_V x = JM_FMADD(JM_SPLAT(row[c]), shares, JM_LOAD(row));
            JM_STORE(row, x);
            sum[0] = JM_FMADD(JM_SPLAT(row[c + 1]), x, sum[0]);
        }
    }
}

/* nc orthogonal columns at `a` taken out of nv vectors of columns at `b`. */
JM_INLINE void JM_NAME(lyapunov_tile_out)(const int nc, const int nv, ptrdiff_t rows, const JM_T *a,
                                          ptrdiff_t a_width, const JM_T *inverse, JM_T *b,
                                          ptrdiff_t b_width) {
    JM_V share[4][JM_PANEL];
    JM_UNROLL
    for (int i = 0; i < nc; i++)
        for (int v = 0; v < nv; v++)
            share[i][v] = JM_SPLAT(0);
    for (ptrdiff_t r = 0; r < rows; r++) {
        JM_V x[JM_PANEL];
        for (int v = 0; v < nv; v++)
            x[v] = JM_LOAD(b + r * b_width + v * JM_VW);
        JM_UNROLL
        for (int i = 0; i < nc; i++) {
            const JM_V y = JM_SPLAT(a[r * a_width + i]);
            for (int v = 0; v < nv; v++)
                share[i][v] = JM_FMADD(y, x[v], share[i][v]);
        }
    }
    JM_UNROLL
    for (int i = 0; i < nc; i++)
        for (int v = 0; v < nv; v++)
            share[i][v] *= JM_SPLAT(inverse[i]);
    for (ptrdiff_t r = 0; r < rows; r++) {
        JM_V x[JM_PANEL];
        for (int v = 0; v < nv; v++)
            x[v] = JM_LOAD(b + r * b_width + v * JM_VW);
        JM_UNROLL
        for (int i = 0; i < nc; i++) {
            const JM_V y = JM_SPLAT(a[r * a_width + i]);
            for (int v = 0; v < nv; v++)
                x[v] = JM_FMADD(y, share[i][v], x[v]);
        }
        for (int v = 0; v < nv; v++)
            JM_STORE(b + r * b_width + v * JM_VW, x[v]);
    }
}

/* JM_VW orthogonal columns, a few at a time, taken out of nv vectors of columns. */
static void JM_NAME(lyapunov_take_out)(int nv, ptrdiff_t rows, const JM_T *a, ptrdiff_t a_width,
                                       const JM_T *square, JM_T *b, ptrdiff_t b_width) {
    enum { N_AT_ONCE = JM_VW < 4 ? JM_VW : 4 };
    for (int c = 0; c < JM_VW; c += N_AT_ONCE) {
        JM_T inverse[N_AT_ONCE];
        for (int i = 0; i < N_AT_ONCE; i++) /* a zero column has zero products */
            inverse[i] = square[c + i] > 0 ? -1 / square[c + i] : 0;
        switch (nv) {
#define JM_WIDTH(n)                                                                                \
    case n:                                                                                        \
        if (n <= JM_PANEL)                                                                         \
            JM_NAME(lyapunov_tile_out)                                                             \
        (N_AT_ONCE, n <= JM_PANEL ? n : 1, rows, a + c, a_width, inverse, b, b_width);             \
        break;
            JM_WIDTH(1)
            JM_WIDTH(2)
            JM_WIDTH(3)
            JM_WIDTH(4)
#undef JM_WIDTH
        }
    }
}

/* Makes the live columns of the one item orthogonal and leaves their squared lengths. */
static void JM_NAME(lyapunov_orthogonalize)(const JM_NAME(chain_step) * step, JM_T *in, JM_T *out,
                                            ptrdiff_t rows, const JM_NAME(lyapunov_space) * space) {
    for (ptrdiff_t p = 0; p < JM_NAME(lyapunov_n_panels)(space, space->live[0]); p++) {
        const JM_NAME(lyapunov_panel) panel = JM_NAME(lyapunov_panel_of)(space, out, rows, p);
        for (ptrdiff_t c = 0; c < panel.width && panel.first + c < space->live[0]; c += JM_VW) {
            const JM_T *a = panel.entries + c, *square = space->square + panel.first + c;
            JM_NAME(lyapunov_within)(step, in, out, rows, &panel, panel.first + c, space);
            const int n_after = (int)((panel.width - c) / JM_VW - 1);
            if (n_after > 0)
                JM_NAME(lyapunov_take_out)
            (n_after, rows, a, panel.width, square, panel.entries + c + JM_VW, panel.width);
            const ptrdiff_t n_panels = JM_NAME(lyapunov_n_panels)(space, space->live[0]);
            for (ptrdiff_t later = p + 1; later < n_panels; later++) {
                const JM_NAME(lyapunov_panel) other =
                    JM_NAME(lyapunov_panel_of)(space, out, rows, later);
                JM_NAME(lyapunov_take_out)
                ((int)(other.width / JM_VW), rows, a, panel.width, square, other.entries,
                 other.width);
            }
        }
    }
    for (ptrdiff_t j = 0; j < space->live[0]; j++)
        if (space->square[j] > JM_LDEXP((JM_T)1, JM_KEEPS) ||
            space->square[j] < JM_LDEXP((JM_T)1, -JM_KEEPS)) {
            JM_NAME(lyapunov_rescale)(space, out, rows, 0);
            break;
        }
}

/* Steps [t, end) of one item. */
static void JM_NAME(lyapunov_rows)(const jm_chain *chain, ptrdiff_t t, ptrdiff_t end,
                                   ptrdiff_t sample, const JM_NAME(lyapunov_space) * space) {
    for (; t < end; t++) {
        const JM_NAME(chain_step) step = JM_NAME(chain_step_of)(chain, t, sample, 0);
        JM_T *in = space->block[space->state->current];
        JM_T *out = space->block[1 - space->state->current];
        if (space->live[0] == 0) {
            JM_NAME(lyapunov_scan)(chain, t, sample, 0, space);
            continue;
        }
        JM_NAME(chain_range) ignored = JM_NAME(chain_no_range)();
        JM_NAME(chain_step) dense = {.rows = step.rows, .cols = step.cols};
        dense.weights = JM_NAME(lyapunov_factor)(&step, space->factor);
        dense.row_stride = step.cols;
        dense.col_stride = 1;
        const ptrdiff_t n_panels = JM_NAME(lyapunov_n_panels)(space, space->live[0]);
        for (ptrdiff_t p = 0; p < n_panels; p++) {
            const JM_NAME(lyapunov_panel) from =
                JM_NAME(lyapunov_panel_of)(space, in, step.cols, p);
            const JM_NAME(lyapunov_panel) to = JM_NAME(lyapunov_panel_of)(space, out, step.rows, p);
            JM_NAME(chain_panel)
            (&dense, (int)(from.width / JM_VW), from.entries, to.entries, NULL, &ignored);
        }
        if (!JM_NAME(lyapunov_lengths)(out, step.rows, space)) {
            JM_NAME(lyapunov_careful)(chain, t, sample, 0, space->factor, space);
            (void)JM_NAME(lyapunov_lengths)(out, step.rows, space);
        }
        JM_NAME(lyapunov_orthogonalize)(&step, in, out, step.rows, space);
        space->state->current = 1 - space->state->current;
    }
}

/* ---- the kernel ------------------------------------------------------------------------- */

/* The columns of the start block, orthogonal; nothing has been counted. */
static void JM_NAME(lyapunov_start)(const jm_chain *chain, const jm_lyapunov *job, ptrdiff_t n,
                                    const ptrdiff_t *sample,
                                    const JM_NAME(lyapunov_space) * space) {
    const JM_T *start = job->start;
    const ptrdiff_t k = job->n_columns, n_items = space->n_items;
    const ptrdiff_t padded = space->is_in_lanes ? k : space->n_vectors * JM_VW;
    const JM_NAME(lyapunov_state) state = {.current = 1};
    *space->state = state;
    memset(space->block[0], 0, (size_t)(padded * n_items * n) * sizeof(JM_T));
    for (ptrdiff_t at = 0; at < padded * n_items; at++) {
        space->exponent[at] = space->mean[at] = space->spread[at] = 0;
        for (int which = 0; which < 2; which++)
            space->base_log[which][at] = space->base_exponent[which][at] = 0;
        space->square[at] = space->original[at] = 0;
        space->low[at] = JM_LDEXP((JM_T)1, -JM_STANDS);
    }
    for (ptrdiff_t i = 0; i < n_items; i++) {
        space->live[i] = k;
        space->bad_layer[i] = -1;
        for (ptrdiff_t j = 0; j < k; j++) {
            ptrdiff_t stride;
            JM_T *x = JM_NAME(lyapunov_column)(space, space->block[0], n, i, j, &stride);
            JM_T largest = 0;
            for (ptrdiff_t r = 0; r < n; r++) {
                x[r * stride] = start[r * k + j];
                largest = JM_ABS(x[r * stride]) > largest ? JM_ABS(x[r * stride]) : largest;
            }
            JM_NAME(lyapunov_shift)
            (space, j * n_items + i, x, stride, n, JM_NAME(exponent_of)(largest));
        }
    }
    if (space->is_in_lanes) {
        const int nv = (int)JM_NAME(lyapunov_lane_vectors)(n);
        (void)JM_NAME(lyapunov_lane_lengths)(n, nv, k, space->block[0], space);
        JM_NAME(lyapunov_lane_orthogonalize)
        (n, nv, k, chain, -1, sample, space->block[0], space);
    } else {
        (void)JM_NAME(lyapunov_lengths)(space->block[0], n, space);
        JM_NAME(lyapunov_orthogonalize)(NULL, space->block[1], space->block[0], n, space);
    }
    space->state->current = 0;
}

/* Writes exponents and standard errors. */
static void JM_NAME(lyapunov_finish)(const jm_lyapunov *job, ptrdiff_t n_counted, ptrdiff_t first,
                                     ptrdiff_t count, const JM_NAME(lyapunov_space) * space) {
    const ptrdiff_t k = job->n_columns;
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t j = 0; j < k; j++) {
            const ptrdiff_t at = j * space->n_items + i, to = (first + i) * k + j;
            const double freedom = (double)(job->n_batches - 1) * (double)n_counted;
            job->exponents[to] = space->mean[at];
            job->standard_errors[to] =
                freedom > 0 ? sqrt(space->spread[at] / freedom) : (double)NAN;
            if (space->bad_layer[i] >= 0) {
                job->exponents[to] = job->standard_errors[to] = (double)NAN;
            } else if (j >= space->live[i]) {
                job->exponents[to] = -(double)INFINITY;
                job->standard_errors[to] = 0;
            }
        }
}

/*
 * Growth rates of the columns of J = F_{end-1} ... F_begin for the items [first, first + count).
 *
 * job        results are written when end == n_layers, the history as it comes
 * bad_layer  (count)  first layer with a NaN or infinity, -1 if there is none
 * work       lyapunov_spectrum_work(job) bytes; begin == 0 starts it anew, a later range goes on
 *            from where the last one ended
 *
 * Requires 0 <= begin < end <= n_layers, 1 <= count <= lyapunov_spectrum_group(job), 1 <= n_columns
 * <= every width, 0 <= burn_in < n_layers, 1 <= n_batches <= n_layers - burn_in, and a finite
 * start without a zero column.  Never allocates.  Cost 2 n_{t+1} n_t k + 2 n_{t+1} k^2 flops a step
 * and item.  Returns JM_OK, or JM_NON_FINITE; the other items of the group are then still right.
 */
static int JM_NAME(lyapunov_spectrum)(const jm_chain *chain, const jm_lyapunov *job,
                                      ptrdiff_t first, ptrdiff_t count, ptrdiff_t begin,
                                      ptrdiff_t end, ptrdiff_t *bad_layer, void *work) {
    const ptrdiff_t n_counted = chain->n_layers - job->burn_in;
    JM_NAME(lyapunov_space) space;
    JM_NAME(lyapunov_layout)(job, work, &space);
    ptrdiff_t sample[2 * JM_VW];
    for (ptrdiff_t i = 0; i < space.n_items; i++)
        sample[i] = first + (i < count ? i : count - 1);
    if (begin == 0) {
        const ptrdiff_t n = JM_NAME(chain_layer)(chain, 0).cols;
        JM_NAME(lyapunov_start)(chain, job, n, sample, &space);
        JM_NAME(lyapunov_read)(job, n_counted, 0, first, count, &space);
    }
    for (ptrdiff_t t = begin; t < end;) {
        ptrdiff_t due = job->burn_in;
        if (t >= job->burn_in)
            due += JM_NAME(lyapunov_batch_end)(job, n_counted, space.state->batch);
        if (job->history && t >= job->burn_in)
            due = t + 1;
        due = due < end ? due : end;
        if (space.is_in_lanes)
            JM_NAME(lyapunov_lanes)(chain, job->max_width, t, due, sample, &space);
        else
            JM_NAME(lyapunov_rows)(chain, t, due, sample[0], &space);
        t = due;
        JM_NAME(lyapunov_read)(job, n_counted, t, first, count, &space);
    }
    if (end == chain->n_layers)
        JM_NAME(lyapunov_finish)(job, n_counted, first, count, &space);
    int status = JM_OK;
    for (ptrdiff_t i = 0; i < count; i++) {
        bad_layer[i] = space.bad_layer[i];
        if (bad_layer[i] >= 0)
            status = JM_NON_FINITE;
    }
    return status;
}
