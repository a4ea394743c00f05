/* The way back of svdvals_lanes.inc.h, which bounds the error, and whole groups of samples. */

#if JM_IS_F64

/* Adds |X|_ab <= alpha_a beta_b to the sums, by quotients of neighbours from the bottom. */
JM_INLINE void svdvals_lane_charge(const ptrdiff_t n, const svdvals_lanes *lanes,
                                   const double *quotient) {
    const JM_V one = JM_SPLAT(1);
    JM_V alpha = JM_LOAD(lanes->alpha + (n - 1) * JM_VW),
         beta = JM_LOAD(lanes->beta + (n - 1) * JM_VW);
    JM_V alphas = alpha * alpha, betas = beta * beta, below = JM_SPLAT(0), beyond = JM_SPLAT(0);
    JM_V most_below = JM_SPLAT(0), most_beyond = JM_SPLAT(0), worst = JM_LOAD(lanes->worst);
    JM_V g = JM_LOAD(lanes->g + (n - 1) * JM_VW);
    JM_V e = JM_LOAD(lanes->exponent + (n - 1) * JM_VW) - g;
    double *diagonal = lanes->order;
    JM_STORE(diagonal + (n - 1) * JM_VW,
             JM_FMADD(alpha, beta, JM_LOAD(diagonal + (n - 1) * JM_VW)));
    for (ptrdiff_t i = n - 2; i >= 0; i--) {
        const ptrdiff_t at = i * JM_VW;
        const JM_V g_i = JM_LOAD(lanes->g + at), e_i = JM_LOAD(lanes->exponent + at) - g_i;
        const JM_V left = svdvals_lane_power(g - g_i);
        const JM_V right = svdvals_lane_power(e - e_i) * JM_LOAD(quotient + at);
        below = (alpha + below) * left;
        beyond = (beta + beyond) * right;
        most_below = JM_VMAX(most_below, one) * left;
        most_beyond = JM_VMAX(most_beyond, one) * right;
        worst = JM_VMAX(JM_VMAX(most_below, most_beyond), worst);
        alpha = JM_LOAD(lanes->alpha + at);
        beta = JM_LOAD(lanes->beta + at);
        alphas = JM_FMADD(alpha, alpha, alphas);
        betas = JM_FMADD(beta, beta, betas);
        JM_STORE(lanes->low + at, JM_FMADD(beta, below, JM_LOAD(lanes->low + at)));
        JM_STORE(lanes->up + at, JM_FMADD(alpha, beyond, JM_LOAD(lanes->up + at)));
        JM_STORE(diagonal + at, JM_FMADD(alpha, beta, JM_LOAD(diagonal + at)));
        g = g_i;
        e = e_i;
    }
    JM_STORE(lanes->sum, JM_FMADD(JM_VSQRT(alphas), JM_VSQRT(betas), JM_LOAD(lanes->sum)));
    JM_STORE(lanes->worst, worst);
}

/* `count` columns of V become those of R^-1 V; entries below `end` are zero. */
JM_INLINE void svdvals_lane_solve(const ptrdiff_t n, const int count, double *r,
                                  const double *inverse, double *v, ptrdiff_t end) {
    for (ptrdiff_t j = end - 1; j >= 0; j--) {
        JM_V x[4];
        for (int h = 0; h < count; h++) {
            double *at = v + (h * n + j) * JM_VW;
            x[h] = JM_LOAD(at) * JM_LOAD(inverse + j * JM_VW);
            JM_STORE(at, x[h]);
            x[h] = -x[h];
        }
        for (ptrdiff_t i = 0; i < j; i++) {
            const JM_V y = JM_LOAD(svdvals_lane_entry(n, r, i, j));
            for (int h = 0; h < count; h++) {
                double *at = v + (h * n + i) * JM_VW;
                JM_STORE(at, JM_FMADD(x[h], y, JM_LOAD(at)));
            }
        }
    }
}

/* `count` rows of U become those of U R; entries before `begin` are zero. */
JM_INLINE void svdvals_lane_extend(const ptrdiff_t n, const int count, double *r, double *u,
                                   ptrdiff_t begin) {
    for (ptrdiff_t j = n - 1; j >= begin; j--) {
        JM_V sum[4];
        for (int h = 0; h < count; h++)
            sum[h] = JM_SPLAT(0);
        for (ptrdiff_t i = begin; i <= j; i++) {
            const JM_V y = JM_LOAD(svdvals_lane_entry(n, r, i, j));
            for (int h = 0; h < count; h++)
                sum[h] = JM_FMADD(y, JM_LOAD(u + (h * n + i) * JM_VW), sum[h]);
        }
        for (int h = 0; h < count; h++)
            JM_STORE(u + (h * n + j) * JM_VW, sum[h]);
    }
}

/* Puts entry j of each row to order[j]; returns whether any moved. */
static int svdvals_lane_permute(ptrdiff_t n, const double *order, double *u, double *v) {
    int has_moved = 0;
    double kept[JM_LANES_MOST];
    for (ptrdiff_t l = 0; l < JM_VW; l++) {
        int moves = 0;
        for (ptrdiff_t j = 0; j < n; j++)
            moves |= order[j * JM_VW + l] != (double)j;
        has_moved |= moves;
        for (ptrdiff_t a = 0; moves && a < 2 * n; a++) {
            double *row = (a < n ? u + a * n * JM_VW : v + (a - n) * n * JM_VW) + l;
            for (ptrdiff_t j = 0; j < n; j++)
                kept[(ptrdiff_t)order[j * JM_VW + l]] = row[j * JM_VW];
            for (ptrdiff_t j = 0; j < n; j++)
                row[j * JM_VW] = kept[j];
        }
    }
    return has_moved;
}

/* Adds the errors of T of one layer, in units of u, as they come to the rows of the last T. */
static void svdvals_lane_theta(const svdvals_lanes *lanes, const double *theta,
                               const double *exponent) {
    const ptrdiff_t n = lanes->n;
    for (ptrdiff_t b = 0; b < n; b++) {
        const JM_V error = JM_LOAD(theta + b * JM_VW) * JM_SPLAT(0x1p-53);
        if (!JM_ANY_ABOVE(error, JM_SPLAT(0)))
            continue;
        /* A mantissa is below 2 here, and what is in `up` will be taken twice, as T's rows are. */
        const JM_V e = JM_LOAD(exponent + b * JM_VW);
        for (ptrdiff_t a = 0; a < n; a++) {
            const ptrdiff_t at = a * JM_VW;
            const JM_V d = JM_LOAD(lanes->exponent + at) - JM_LOAD(lanes->g + at);
            JM_STORE(lanes->up + at,
                     JM_FMADD(JM_VABS(JM_LOAD(lanes->u + (a * n + b) * JM_VW)) * error,
                              svdvals_lane_power(e - d), JM_LOAD(lanes->up + at)));
        }
    }
}

/* What the layers before the store had left, through the layers of the store. */
static void svdvals_lane_before(const svdvals_lanes *lanes, const double *quotient) {
    const ptrdiff_t n = lanes->n;
    const JM_V zero = JM_SPLAT(0);
    JM_V most_row = zero, most_column = zero, sum = JM_LOAD(lanes->sum);
    double *const columns = lanes->square;
    for (ptrdiff_t b = 0; b < n; b++) {
        JM_V beta = zero;
        for (ptrdiff_t c = 0; c < n; c++)
            beta = JM_FMADD(JM_LOAD(lanes->left_columns + c * JM_VW),
                            JM_VABS(JM_LOAD(lanes->v + (b * n + c) * JM_VW)), beta);
        JM_STORE(lanes->beta + b * JM_VW, beta);
        JM_STORE(columns + b * JM_VW, zero);
    }
    for (ptrdiff_t a = 0; a < n; a++) {
        const JM_V g = JM_LOAD(lanes->g + a * JM_VW);
        const JM_V d = JM_LOAD(lanes->exponent + a * JM_VW) - g;
        const JM_V m = JM_LOAD(lanes->mantissa + a * JM_VW);
        JM_V row = zero;
        for (ptrdiff_t b = 0; b < n; b++) {
            JM_V x = zero;
            for (ptrdiff_t c = 0; c < n; c++)
                x = JM_FMADD(JM_VABS(JM_LOAD(lanes->u + (a * n + c) * JM_VW)) *
                                 JM_LOAD(lanes->diagonal + c * JM_VW),
                             JM_VABS(JM_LOAD(lanes->v + (b * n + c) * JM_VW)), x);
            const JM_V g_b = JM_LOAD(lanes->g + b * JM_VW);
            double *to = a == b ? lanes->order + a * JM_VW
                                : (a > b ? lanes->low + b * JM_VW : lanes->up + a * JM_VW);
            JM_V weight = JM_SPLAT(1);
            if (a > b)
                weight = svdvals_lane_power(g - g_b);
            else if (a < b)
                weight = svdvals_lane_power(JM_LOAD(lanes->exponent + b * JM_VW) - g_b - d) *
                         (JM_LOAD(lanes->mantissa + b * JM_VW) / m);
            sum += x;
            JM_STORE(to, JM_FMADD(x, weight, JM_LOAD(to)));
            const JM_V e = JM_LOAD(lanes->began + b * JM_VW);
            const JM_V began = JM_LOAD(lanes->began_mantissa + b * JM_VW);
            x = JM_VABS(JM_LOAD(lanes->u + (a * n + b) * JM_VW)) * (began / m) *
                svdvals_lane_power(e - d);
            row += x;
            JM_STORE(columns + b * JM_VW, x + JM_LOAD(columns + b * JM_VW));
        }
        most_row = JM_VMAX(row, most_row);
    }
    for (ptrdiff_t b = 0; b < n; b++)
        most_column = JM_VMAX(JM_LOAD(columns + b * JM_VW), most_column);
    JM_STORE(lanes->right, JM_LOAD(lanes->right) * JM_VSQRT(most_row * most_column));
    JM_STORE(lanes->sum, sum);
    svdvals_lane_charge(n, lanes, quotient);
}

/* Takes the layers of the store, last first, and empties it. */
JM_INLINE void svdvals_lane_sweep(const ptrdiff_t n, const svdvals_lanes *lanes, int is_last) {
    const JM_V zero = JM_SPLAT(0), one = JM_SPLAT(1);
    double *const quotient = lanes->old_mantissa, *const inverse = lanes->old_exponent;
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = i * JM_VW;
        for (ptrdiff_t j = 0; j < n; j++) {
            JM_STORE(lanes->u + (i * n + j) * JM_VW, JM_SPLAT(i == j));
            JM_STORE(lanes->v + (i * n + j) * JM_VW, JM_SPLAT(i == j));
        }
        JM_STORE(lanes->g + at, zero);
        JM_STORE(lanes->alpha + at, one);
        JM_STORE(lanes->low + at, zero);
        JM_STORE(lanes->up + at, zero);
        JM_STORE(lanes->order + at, zero);
        if (i + 1 < n)
            JM_STORE(quotient + at,
                     JM_LOAD(lanes->mantissa + at + JM_VW) / JM_LOAD(lanes->mantissa + at));
    }
    int is_triangular = 1;
    for (ptrdiff_t k = lanes->progress->stored - 1; k >= 0; k--) {
        double *const r = lanes->store + k * lanes->layer_size;
        const double *const delta = r + n * (n + 1) / 2 * JM_VW, *const order = delta + n * JM_VW;
        const double *const theta = order + n * JM_VW;
        svdvals_lane_theta(lanes, theta, theta + n * JM_VW);
        for (ptrdiff_t j = 0; j < n; j++)
            JM_STORE(inverse + j * JM_VW, one / JM_LOAD(svdvals_lane_entry(n, r, j, j)));
        ptrdiff_t b = 0;
        for (; b + 4 <= n; b += 4)
            svdvals_lane_solve(n, 4, r, inverse, lanes->v + b * n * JM_VW,
                               is_triangular ? b + 4 : n);
        for (; b < n; b++)
            svdvals_lane_solve(n, 1, r, inverse, lanes->v + b * n * JM_VW,
                               is_triangular ? b + 1 : n);
        for (b = 0; b < n; b++) {
            const double *v = lanes->v + b * n * JM_VW;
            JM_V sum = zero;
            for (ptrdiff_t j = 0; j < (is_triangular ? b + 1 : n); j++)
                sum = JM_FMADD(JM_LOAD(delta + j * JM_VW), JM_VABS(JM_LOAD(v + j * JM_VW)), sum);
            JM_STORE(lanes->beta + b * JM_VW, sum);
        }
        svdvals_lane_charge(n, lanes, quotient);
        ptrdiff_t a = 0;
        for (; a + 4 <= n; a += 4)
            svdvals_lane_extend(n, 4, r, lanes->u + a * n * JM_VW, is_triangular ? a : 0);
        for (; a < n; a++)
            svdvals_lane_extend(n, 1, r, lanes->u + a * n * JM_VW, is_triangular ? a : 0);
        if (svdvals_lane_permute(n, order, lanes->u, lanes->v))
            is_triangular = 0;
        for (a = 0; a < n; a++) {
            double *u = lanes->u + a * n * JM_VW, *v = lanes->v + a * n * JM_VW;
            const JM_V norm =
                JM_VSQRT(JM_VMAX(lyapunov_lane_dot_f64(n, JM_VW, u, u), JM_SPLAT(0x1p-900)));
            const JM_V e = JM_VEXPONENT(norm);
            const JM_V back = svdvals_lane_power(-e), forth = svdvals_lane_power(e);
            for (ptrdiff_t j = 0; j < n * JM_VW; j += JM_VW) {
                JM_STORE(u + j, JM_LOAD(u + j) * back);
                JM_STORE(v + j, JM_LOAD(v + j) * forth);
            }
            JM_STORE(lanes->alpha + a * JM_VW, norm * back);
            JM_STORE(lanes->g + a * JM_VW, JM_LOAD(lanes->g + a * JM_VW) + e);
        }
    }
    if (lanes->progress->is_later)
        svdvals_lane_before(lanes, quotient);
    JM_V low = zero, up = zero;
    for (ptrdiff_t at = 0; at < n * JM_VW; at += JM_VW) {
        const JM_V x = JM_LOAD(lanes->low + at), y = JM_LOAD(lanes->up + at);
        JM_STORE(lanes->left_columns + at, x);
        low = JM_FMADD(x, x, low);
        up = JM_FMADD(y, y, up);
        JM_STORE(lanes->diagonal + at, JM_LOAD(lanes->order + at));
        JM_STORE(lanes->began + at, JM_LOAD(lanes->exponent + at));
        JM_STORE(lanes->began_mantissa + at, JM_LOAD(lanes->mantissa + at));
    }
    JM_STORE(lanes->left, JM_VSQRT(low));
    /* Rows of T are shorter than 2.  The last ones have their own places in T^-1. */
    JM_V right = JM_LOAD(lanes->right);
    if (!is_last)
        right = JM_FMADD(JM_SPLAT(2 * sqrt((double)n)), JM_VSQRT(up), right);
    JM_STORE(lanes->right, right);
    lanes->progress->stored = 0;
    lanes->progress->is_later = 1;
}

/* Layers [t, end) of a group; n is a constant where that is worth the code. */
JM_INLINE void svdvals_lane_run(const ptrdiff_t n, const jm_chain *chain, ptrdiff_t t,
                                ptrdiff_t end, const ptrdiff_t *sample, int is_f64,
                                svdvals_lanes *lanes) {
    for (; t < end; t++) {
        if (is_f64)
            lyapunov_lane_factor_f64(n, 1, chain, t, sample, lanes->factor);
        else
            svdvals_lane_factor_f32(n, JM_VW, chain, t, sample, lanes->factor);
        const jm_layer layer = chain_layer_f64(chain, t);
        svdvals_lane_step(n, lanes, &layer);
        double *const q = lanes->q;
        lanes->q = lanes->c;
        lanes->c = q;
        lanes->progress->n_layers++;
        const int is_last = t + 1 == chain->n_layers;
        if (++lanes->progress->stored == lanes->capacity || is_last)
            svdvals_lane_sweep(n, lanes, is_last);
    }
}

/* Values and errors of one sample of the group. */
static void svdvals_lane_finish(const svdvals_lanes *lanes, ptrdiff_t lane, svdvals_state *state,
                                double *values, double *errors) {
    const ptrdiff_t n = lanes->n;
    double worst_angle = 0;
    svdvals_start(state);
    for (ptrdiff_t i = 0; i < n; i++) {
        const double *q = lanes->q + i * n * JM_VW + lane;
        double sum = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            const double *other = lanes->q + j * n * JM_VW + lane;
            double dot = i == j ? -1 : 0;
            for (ptrdiff_t x = 0; x < n * JM_VW; x += JM_VW)
                dot += q[x] * other[x];
            sum += fabs(dot);
        }
        worst_angle = sum > worst_angle ? sum : worst_angle;
        const double m = lanes->mantissa[i * JM_VW + lane] / 4;
        for (ptrdiff_t j = 0; j < n; j++)
            state->t[i * state->ld_t + j] = lanes->t[(i * n + j) * JM_VW + lane] * m;
        state->exponent[i] = (int64_t)lanes->exponent[i * JM_VW + lane] + 2;
    }
    svdvals_decompose(state);
    (void)graded_jacobi(&state->jacobi, PTRDIFF_MAX);
    const double own = svdvals_values(state, values), condition = state->condition;
    const double sum = lanes->sum[lane], worst = lanes->worst[lane];
    const double second = 6 * worst * worst * sum * sum;
    const double width = (double)n, u = 0x1p-53;
    double right = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        right +=
            lanes->up[i * JM_VW + lane] * 0.5 * lanes->mantissa[i * JM_VW + lane] * state->f[i];
    const double common = lanes->left[lane] + second + right +
                          (lanes->right[lane] + 2 * sqrt(width) * second) * condition +
                          worst_angle + width * (width + 2) * u +
                          2 * u * (double)lanes->progress->n_layers + own;
    for (ptrdiff_t i = 0; i < n; i++) {
        double most = 0, rest = 0;
        for (ptrdiff_t b = 0; b < n; b++) {
            const double error = lanes->diagonal[b * JM_VW + lane];
            const int64_t above =
                (int64_t)lanes->exponent[b * JM_VW + lane] - state->exponent_new[i];
            if (above < -12)
                rest += error * graded_power(above + 3);
            else
                most = error > most ? error : most;
        }
        double error = 1.1 * (common + most + rest);
        if (!(error < JM_FIRST_ORDER))
            error = INFINITY;
        errors[i] = error + 0x1p-51 * fabs(values[i]) + 0x1p-51;
    }
    svdvals_sort(n, values, errors);
}

/* Whether every factor is square of this width. */
static int svdvals_is_square(const jm_chain *chain, ptrdiff_t n) {
    for (ptrdiff_t k = 0; k < chain->n_distinct; k++) {
        const jm_layer layer = chain_layer_f64(chain, k);
        if (layer.rows != n || layer.cols != n)
            return 0;
    }
    return 1;
}

/* How many samples chain_log_svdvals_lanes takes at a time; 0 for chains that it does not take. */
static ptrdiff_t chain_log_svdvals_group_f64(const jm_chain *chain, ptrdiff_t max_width) {
    return max_width <= JM_LANES_MOST && svdvals_is_square(chain, max_width) ? JM_VW : 0;
}

static size_t svdvals_lane_size(ptrdiff_t n) {
    svdvals_lanes lanes;
    return svdvals_lane_layout(n, NULL, &lanes);
}

/* Bytes of workspace, of 64-byte alignment, that chain_log_svdvals_lanes needs. */
static size_t chain_log_svdvals_lanes_work_f64(ptrdiff_t n) {
    svdvals_state state;
    return svdvals_layout(n, n, NULL, &state) + svdvals_lane_size(n);
}

static int svdvals_lane_items(const jm_chain *chain, ptrdiff_t first, ptrdiff_t count,
                              ptrdiff_t begin, ptrdiff_t end, double *values, double *errors,
                              ptrdiff_t *undone, char *work, int is_f64) {
    const ptrdiff_t n = chain_layer_f64(chain, 0).rows;
    svdvals_state *state = (svdvals_state *)(void *)work;
    const size_t size = svdvals_layout(n, n, work, state);
    svdvals_lanes lanes;
    (void)svdvals_lane_layout(n, work + size, &lanes);
    ptrdiff_t sample[JM_VW];
    for (ptrdiff_t l = 0; l < JM_VW; l++)
        sample[l] = first + (l < count ? l : count - 1);
    if (begin == 0)
        svdvals_lane_start(&lanes);
    if (lanes.progress->n_layers % 2) { /* the blocks of Q change places */
        double *const q = lanes.q;
        lanes.q = lanes.c;
        lanes.c = q;
    }
    switch (n) {
#define JM_SIZE(size)                                                                              \
    case size:                                                                                     \
        svdvals_lane_run(size, chain, begin, end, sample, is_f64, &lanes);                         \
        break;
        JM_SIZE(1)
        JM_SIZE(2)
        JM_SIZE(3)
        JM_SIZE(4)
#undef JM_SIZE
    default:
        svdvals_lane_run(n, chain, begin, end, sample, is_f64, &lanes);
    }
    for (ptrdiff_t l = 0; l < count; l++) {
        undone[l] = lanes.undone[l] > 0;
        if (end == chain->n_layers && !undone[l])
            svdvals_lane_finish(&lanes, l, state, values + l * n, errors + l * n);
    }
    return JM_OK;
}

/*
 * chain_log_svdvals of samples [first, first + count), count at most chain_log_svdvals_group; the
 * arguments otherwise as there, of `count` samples each.
 *
 * undone  (count)  nonzero: the sample has a zero row or column, a factor of extreme size or
 * doubtful rank, or is not finite, and nothing was written: chain_log_svdvals_one takes it
 */
static int chain_log_svdvals_lanes_f64(const jm_chain *chain, ptrdiff_t first, ptrdiff_t count,
                                       ptrdiff_t begin, ptrdiff_t end, double *values,
                                       double *errors, ptrdiff_t *undone, void *work) {
    return svdvals_lane_items(chain, first, count, begin, end, values, errors, undone, work, 1);
}

static int chain_log_svdvals_lanes_f32(const jm_chain *chain, ptrdiff_t first, ptrdiff_t count,
                                       ptrdiff_t begin, ptrdiff_t end, double *values,
                                       double *errors, ptrdiff_t *undone, void *work) {
    return svdvals_lane_items(chain, first, count, begin, end, values, errors, undone, work, 0);
}

static ptrdiff_t chain_log_svdvals_group_f32(const jm_chain *chain, ptrdiff_t max_width) {
    return chain_log_svdvals_group_f64(chain, max_width);
}

static size_t chain_log_svdvals_lanes_work_f32(ptrdiff_t n) {
    return chain_log_svdvals_lanes_work_f64(n);
}

#endif
