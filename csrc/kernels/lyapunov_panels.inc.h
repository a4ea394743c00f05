/* lyapunov_spectrum of one item whose columns are kept in panels; see lyapunov_columns.inc.h. */

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
