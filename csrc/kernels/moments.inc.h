/*
 * Gaussian moments of an activation: E of phi, phi^2, phi', phi'^2 and phi''^2 at
 * x = sqrt(q) z, z ~ N(0, 1), and the slope d E phi^2 / dq = E[x phi phi'] / q of the second.
 *
 * Every function of q is evaluated in float64; the float32 kernels widen on the way in and round
 * once on the way out.  Items stand in lanes and no operation mixes lanes, so an item depends on
 * its own q alone.
 *
 * identity, leaky ReLU, the square: powers of sqrt(q).  sin: exponentials of q.  erf: Williams,
 * Computing with infinite networks (1997).  GELU: from
 * E[Phi(x)^2] = 1/4 + asin(q / (1 + q)) / (2 pi) and Gaussian integration by parts (Stein's lemma).
 * Each is a sum of terms of one sign, and asin(s) is taken as atan(s / sqrt(1 - s^2)) with 1 - s^2
 * in closed form, so nothing cancels at any q: error below 10 u.
 *
 * Every other activation: polynomials of a table, by Horner's rule, whose rounding is below 2 u of
 * the sum of the terms' absolute values, the first of which is the largest by far.
 */
#if JM_IS_F64

enum {
    JM_MOMENT_VECTORS = 2, /* taken together, to hide the latency of Horner's rule */
    JM_MOMENT_BLOCK = JM_MOMENT_VECTORS * JM_VW,
    JM_TABLE_MOMENTS = 6,
    JM_TABLE_TERMS = 16
};

static const double JM_PI = 0x1.921fb54442d18p+1;
static const double JM_INV_SQRT_2PI = 0x1.9884533d43651p-2;

/* The six moments of a block of items. */
typedef struct {
    double phi[JM_MOMENT_BLOCK];
    double phi2[JM_MOMENT_BLOCK];
    double dphi[JM_MOMENT_BLOCK];
    double dphi2[JM_MOMENT_BLOCK];
    double d2phi2[JM_MOMENT_BLOCK];
    double phi2_slope[JM_MOMENT_BLOCK];
} jm_moment_block;

JM_INLINE void jm_identity_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        out->phi2[i] = q[i];
        if (only_phi2)
            continue;
        out->phi[i] = isnan(q[i]) ? q[i] : 0.0;
        out->dphi[i] = out->dphi2[i] = isnan(q[i]) ? q[i] : 1.0;
        out->d2phi2[i] = isnan(q[i]) ? q[i] : 0.0;
        out->phi2_slope[i] = out->dphi[i];
    }
}

/* phi = x above 0, a x below; at q = 0, x is 0 and phi' the slope chosen there. */
JM_INLINE void jm_leaky_relu_moments(const double *q, double a, double slope_at_zero, int only_phi2,
                                     jm_moment_block *out) {
    const double curvature2 = a == 1.0 ? 0.0 : (double)INFINITY;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        const int at_zero = q[i] == 0.0;
        const double missing = isnan(q[i]) ? q[i] : 0.0;
        out->phi2[i] = 0.5 * (1.0 + a * a) * q[i];
        if (only_phi2)
            continue;
        out->phi[i] = a == 1.0 ? missing : (1.0 - a) * JM_INV_SQRT_2PI * sqrt(q[i]);
        out->dphi[i] = (at_zero ? slope_at_zero : 0.5 * (1.0 + a)) + missing;
        out->dphi2[i] = (at_zero ? slope_at_zero * slope_at_zero : 0.5 * (1.0 + a * a)) + missing;
        out->d2phi2[i] = curvature2 + missing;
        out->phi2_slope[i] = 0.5 * (1.0 + a * a) + missing;
    }
}

JM_INLINE void jm_erf_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        const double missing = isnan(q[i]) ? q[i] : 0.0;
        const double finite = q[i] < DBL_MAX ? q[i] : DBL_MAX; /* inf / inf is not the limit */
        const double quarter = finite + 0.25;
        const double root = sqrt(quarter);
        out->phi2[i] = 2.0 / JM_PI * atan(finite / root) + missing;
        if (only_phi2)
            continue;
        const double unscaled = isinf(q[i]) ? 0.0 : 2.0 / (JM_PI * root);
        out->phi[i] = missing;
        out->dphi[i] = 2.0 * JM_INV_SQRT_2PI / sqrt(q[i] + 0.5);
        out->dphi2[i] = unscaled + missing;
        out->d2phi2[i] = unscaled * (finite / quarter) + missing;
        out->phi2_slope[i] = unscaled / (0.5 + finite) * 0.5 + missing;
    }
}

/*
 * With p the normal density and P its distribution function:
 *
 *     E p^2 = 1 / (2 pi sqrt(1 + 2 q)),  E[x p P] = q / (1 + q) E p^2,
 *     E[x^2 p^2] = q / (1 + 2 q) E p^2,  E[x^4 p^2] = 3 (q / (1 + 2 q))^2 E p^2,
 *     E[x^2 P^2] = q E P^2 + q^2 E[(P^2)''],  E[(P^2)''] = 2 E p^2 / (1 + q),
 *     E[x^3 p P] = q / (1 + q) (2 E[x p P] + E[x^2 p^2]).
 */
JM_INLINE void jm_gelu_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        const double missing = isnan(q[i]) ? q[i] : 0.0;
        const double finite = q[i] < DBL_MAX ? q[i] : DBL_MAX;
        const double half = finite + 0.5;
        const double root = sqrt(half); /* sqrt(1 + 2 q) / sqrt(2), which cannot overflow */
        const double density2 = isinf(q[i]) ? 0.0 : 1.0 / (sqrt(8.0) * JM_PI * root);
        const double share = finite / (1.0 + finite); /* q / (1 + q) */
        const double below2 = 0.25 + atan(finite / (sqrt(2.0) * root)) / (2.0 * JM_PI);
        const double value2 = below2 + 2.0 * density2 * share;
        out->phi2[i] = value2 * q[i];
        if (only_phi2)
            continue;
        const double spread = 0.5 * finite / half; /* q / (1 + 2 q) */
        const double limit = isinf(q[i]) ? q[i] : finite / sqrt(1.0 + finite);
        out->phi[i] = JM_INV_SQRT_2PI * limit + missing;
        out->dphi[i] = 0.5 + missing;
        out->dphi2[i] = value2 + density2 * spread + missing;
        out->d2phi2[i] = density2 * (4.0 - spread * (4.0 - 3.0 * spread)) + missing;
        out->phi2_slope[i] = value2 + density2 * (2.0 * share + spread) / (1.0 + finite) + missing;
    }
}

JM_INLINE void jm_sin_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        out->phi2[i] = -0.5 * expm1(-2.0 * q[i]);
        if (only_phi2)
            continue;
        const double decay = exp(-0.5 * q[i]);
        out->phi[i] = isnan(q[i]) ? q[i] : 0.0;
        out->dphi[i] = decay;
        out->phi2_slope[i] = (decay * decay) * (decay * decay);
        out->dphi2[i] = 0.5 + 0.5 * out->phi2_slope[i];
        out->d2phi2[i] = out->phi2[i];
    }
}

JM_INLINE void jm_quadratic_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        const double missing = isnan(q[i]) ? q[i] : 0.0;
        out->phi2[i] = 3.0 * q[i] * q[i];
        if (only_phi2)
            continue;
        out->phi[i] = q[i];
        out->dphi[i] = missing;
        out->dphi2[i] = 4.0 * q[i];
        out->d2phi2[i] = 4.0 + missing;
        out->phi2_slope[i] = 6.0 * q[i];
    }
}

/* From a table; returns whether it lacks a panel for one of the items. */
JM_INLINE int jm_table_moments(const jm_moment_table *table, const double *q, int only_phi2,
                               jm_moment_block *out) {
    double *const moments[JM_TABLE_MOMENTS] = {out->phi,   out->phi2,   out->dphi,
                                               out->dphi2, out->d2phi2, out->phi2_slope};
    double t[JM_MOMENT_BLOCK];
    ptrdiff_t at[JM_MOMENT_BLOCK];
    int is_lacking = 0;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        uint64_t bits, in_panel; /* the latter of 1 + (t + 1) / 8 */
        memcpy(&bits, &q[i], sizeof bits);
        in_panel = (bits & 0x3FFFFFFFFFFFF) | 0x3FF0000000000000;
        memcpy(&t[i], &in_panel, sizeof bits);
        t[i] = 8.0 * t[i] - 9.0;
        const int32_t panel = table->panels[(bits >> 50) & 8191];
        is_lacking |= panel == 0 && q[i] > 0.0 && q[i] <= DBL_MAX;
        at[i] = (ptrdiff_t)panel * (JM_TABLE_MOMENTS * JM_TABLE_TERMS);
    }
    for (int m = only_phi2; m < (only_phi2 ? 2 : JM_TABLE_MOMENTS); m++) {
        const double *coefficients = table->polynomials + m * JM_TABLE_TERMS;
        JM_V sum[JM_MOMENT_VECTORS];
        for (int v = 0; v < JM_MOMENT_VECTORS; v++)
            sum[v] = JM_GATHER(coefficients + JM_TABLE_TERMS - 1, at + v * JM_VW);
        for (int k = JM_TABLE_TERMS - 2; k >= 0; k--)
            for (int v = 0; v < JM_MOMENT_VECTORS; v++)
                sum[v] = JM_FMADD(sum[v], JM_LOAD(t + v * JM_VW),
                                  JM_GATHER(coefficients + k, at + v * JM_VW));
        for (int v = 0; v < JM_MOMENT_VECTORS; v++)
            JM_STORE(moments[m] + v * JM_VW, sum[v]);
    }
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        for (int m = 0; m < JM_TABLE_MOMENTS; m++)
            if (q[i] == 0.0 || isinf(q[i]))
                moments[m][i] = table->ends[q[i] == 0.0 ? m : JM_TABLE_MOMENTS + m];
    return is_lacking;
}

/* The moments of one block; with only_phi2 the others may be left undefined.  Returns a status. */
JM_INLINE int jm_block_moments(const jm_activation *activation, const double *q, int only_phi2,
                               jm_moment_block *out) {
    switch (activation->id) {
    case JM_IDENTITY:
        jm_identity_moments(q, only_phi2, out);
        return JM_OK;
    case JM_LEAKY_RELU:
        jm_leaky_relu_moments(q, activation->parameters[0], activation->parameters[1], only_phi2,
                              out);
        return JM_OK;
    case JM_ERF:
        jm_erf_moments(q, only_phi2, out);
        return JM_OK;
    case JM_GELU:
        jm_gelu_moments(q, only_phi2, out);
        return JM_OK;
    case JM_SIN:
        jm_sin_moments(q, only_phi2, out);
        return JM_OK;
    case JM_QUADRATIC:
        jm_quadratic_moments(q, only_phi2, out);
        return JM_OK;
    case JM_TABULATED:
        return jm_table_moments(activation->table, q, only_phi2, out) ? JM_NOT_TABULATED : JM_OK;
    }
    return JM_OK;
}

/* Items of q from `from` on as one block, padded with its last; returns how many there are. */
static int jm_load_block(const double *q, ptrdiff_t from, ptrdiff_t end, double *block) {
    const ptrdiff_t left = end - from;
    const int n_items = left < JM_MOMENT_BLOCK ? (int)left : JM_MOMENT_BLOCK;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        block[i] = q[from + (i < n_items ? i : n_items - 1)];
    return n_items;
}

/*
 * The six moments of items begin..end-1.
 *
 * q                                (n)  >= 0; NaN gives NaN, infinity the limit
 * phi, phi2, dphi, dphi2, d2phi2,
 * phi2_slope                       (n)  of the kernel's type; none may overlap q or another
 *
 * Requires begin <= end and a known activation.  Never allocates.  Cost: 50 to
 * 200 operations an item.  At q = 0 these are phi(0), phi(0)^2,
 * phi'(0), ...; d2phi2 is infinite where the slope has a kink at 0, and phi2_slope is its limit.
 * Error: see the top of this file.  Returns JM_OK, or JM_NOT_TABULATED if the table of the
 * activation lacks a panel for an item, whose moments are then NaN.
 */
static int gaussian_moments_f64(const jm_activation *activation, const void *q_,
                                const jm_moments *moments, ptrdiff_t begin, ptrdiff_t end) {
    const double *JM_RESTRICT q = (const double *)q_;
    int status = JM_OK;
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_BLOCK) {
        double block[JM_MOMENT_BLOCK];
        jm_moment_block out;
        const size_t n_bytes = (size_t)jm_load_block(q, from, end, block) * sizeof(double);
        status |= jm_block_moments(activation, block, 0, &out);
        memcpy((double *)moments->phi + from, out.phi, n_bytes);
        memcpy((double *)moments->phi2 + from, out.phi2, n_bytes);
        memcpy((double *)moments->dphi + from, out.dphi, n_bytes);
        memcpy((double *)moments->dphi2 + from, out.dphi2, n_bytes);
        memcpy((double *)moments->d2phi2 + from, out.d2phi2, n_bytes);
        memcpy((double *)moments->phi2_slope + from, out.phi2_slope, n_bytes);
    }
    return status;
}

/*
 * Next variance of items begin..end-1: out = sigma_w phi2(q) sigma_w + sigma_b^2, phi2 as in
 * gaussian_moments.
 *
 * arguments  q, sigma_w, sigma_b of the kernel's type, each with a stride in elements from one item
 * to
 *            the next, 0 for one number
 * out        (n)  may not overlap them
 *
 * Requires begin <= end and a known activation.  Never allocates.  Error: that of phi2 and 3 u.
 * Returns as gaussian_moments does.
 */
static int variance_map_f64(const jm_activation *activation, const jm_variance_arguments *arguments,
                            void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const double *JM_RESTRICT q = (const double *)arguments->q;
    const double *JM_RESTRICT sigma_w = (const double *)arguments->sigma_w;
    const double *JM_RESTRICT sigma_b = (const double *)arguments->sigma_b;
    double *JM_RESTRICT out = (double *)out_;
    int status = JM_OK;
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_BLOCK) {
        double block[JM_MOMENT_BLOCK];
        jm_moment_block moments;
        const ptrdiff_t left = end - from;
        const int n_items = left < JM_MOMENT_BLOCK ? (int)left : JM_MOMENT_BLOCK;
        for (int i = 0; i < JM_MOMENT_BLOCK; i++)
            block[i] = q[(from + (i < n_items ? i : n_items - 1)) * arguments->q_stride];
        status |= jm_block_moments(activation, block, 1, &moments);
        for (int i = 0; i < n_items; i++) {
            const double w = sigma_w[(from + i) * arguments->sigma_w_stride];
            const double b = sigma_b[(from + i) * arguments->sigma_b_stride];
            out[from + i] = w * moments.phi2[i] * w + b * b;
        }
    }
    return status;
}

/* The float32 kernels: the float64 ones on pieces widened and rounded. */
enum { JM_MOMENT_PIECE = 256 };

static int gaussian_moments_f32(const jm_activation *activation, const void *q_,
                                const jm_moments *moments, ptrdiff_t begin, ptrdiff_t end) {
    const float *q = (const float *)q_;
    float *out[6] = {(float *)moments->phi,    (float *)moments->phi2,
                     (float *)moments->dphi,   (float *)moments->dphi2,
                     (float *)moments->d2phi2, (float *)moments->phi2_slope};
    double wide_q[JM_MOMENT_PIECE], wide[6][JM_MOMENT_PIECE];
    const jm_moments wide_moments = {wide[0], wide[1], wide[2], wide[3], wide[4], wide[5]};
    int status = JM_OK;
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_PIECE) {
        const ptrdiff_t left = end - from;
        const ptrdiff_t n_items = left < JM_MOMENT_PIECE ? left : JM_MOMENT_PIECE;
        for (ptrdiff_t i = 0; i < n_items; i++)
            wide_q[i] = q[from + i];
        status |= gaussian_moments_f64(activation, wide_q, &wide_moments, 0, n_items);
        for (int moment = 0; moment < 6; moment++)
            for (ptrdiff_t i = 0; i < n_items; i++)
                out[moment][from + i] = (float)wide[moment][i];
    }
    return status;
}

static int variance_map_f32(const jm_activation *activation, const jm_variance_arguments *arguments,
                            void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const float *q = (const float *)arguments->q;
    const float *sigma_w = (const float *)arguments->sigma_w;
    const float *sigma_b = (const float *)arguments->sigma_b;
    float *out = (float *)out_;
    double wide[4][JM_MOMENT_PIECE];
    int status = JM_OK;
    const jm_variance_arguments wide_arguments = {wide[0], wide[1], wide[2], 1, 1, 1};
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_PIECE) {
        const ptrdiff_t left = end - from;
        const ptrdiff_t n_items = left < JM_MOMENT_PIECE ? left : JM_MOMENT_PIECE;
        for (ptrdiff_t i = 0; i < n_items; i++) {
            wide[0][i] = q[(from + i) * arguments->q_stride];
            wide[1][i] = sigma_w[(from + i) * arguments->sigma_w_stride];
            wide[2][i] = sigma_b[(from + i) * arguments->sigma_b_stride];
        }
        status |= variance_map_f64(activation, &wide_arguments, wide[3], 0, n_items);
        for (ptrdiff_t i = 0; i < n_items; i++)
            out[from + i] = (float)wide[3][i];
    }
    return status;
}

#endif
