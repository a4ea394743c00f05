/*
 * Gaussian moments of an activation: E of phi, phi^2, phi', phi'^2 and phi''^2 at
 * x = sqrt(q) z, z ~ N(0, 1).
 *
 * Every function of q is evaluated in float64; the float32 kernels widen on the way in and round
 * once on the way out.  Items stand in lanes and no operation mixes lanes, so an item depends on
 * its own q alone.
 *
 * identity, leaky ReLU: powers of sqrt(q).  erf: Williams, Computing with infinite networks (1997).
 * GELU: from E[Phi(x)^2] = 1/4 + asin(q / (1 + q)) / (2 pi) and Gaussian integration by parts
 * (Stein's lemma).  Each is a sum of terms of one sign, and asin(s) is taken as
 * atan(s / sqrt(1 - s^2)) with 1 - s^2 in closed form, so nothing cancels at any q: error below 10
 * u.
 *
 * tanh and, through sigmoid(x) = (1 + tanh(x / 2)) / 2, sigmoid: the trapezoidal rule.  Its nodes
 * are x = j h with one h where q >= TANH_Q_SPLIT, so that their tanh is computed once per call and
 * the weights exp(-x^2 / (2 q)) by recurrence, and z = j h_z below.  Both steps are the same at the
 * split.  The integrand has its nearest poles, of order m = 2 (phi^2, phi') to 6 (phi''^2), at
 * x = +-i pi / 2, so the rule errs by
 *
 *     2 (2 pi / h)^(m - 1) / (m - 1)!  exp(-pi^2 / h + pi^2 / (8 q)) / sqrt(2 pi q)
 *
 * up to a factor of the order of one (Trefethen and Weideman, The exponentially convergent
 * trapezoidal rule, 2014, theorem 5.1).  Largest at the split: measured relative 3e-18, 6e-19,
 * 9e-17, 4e-14 for phi^2, phi', phi'^2, phi''^2.  The tails left out are below 1e-15 relative.
 * Rounding: below 100 u, from the recurrence.
 */
#if JM_IS_F64

enum {
    JM_MOMENT_VECTORS = 2, /* taken together, to hide the latency of the recurrence */
    JM_MOMENT_BLOCK = JM_MOMENT_VECTORS * JM_VW,
    JM_TANH_NODES = 96, /* in x, up to 17.8: sech(x)^2 < 2e-15 */
    JM_TANH_STRIDE = 8, /* nodes between two looks at what is left */
    JM_GAUSS_NODES = 24 /* in z, from h_z to 9 */
};

static const double JM_TANH_Q_SPLIT = 0.25;
static const double JM_TANH_STEP = 0.1875; /* h */
static const double JM_GAUSS_STEP = 0.375; /* h_z = h / sqrt(JM_TANH_Q_SPLIT) */
static const double JM_PI = 0x1.921fb54442d18p+1;
static const double JM_INV_SQRT_2PI = 0x1.9884533d43651p-2;

/* The five moments of a block of items. */
typedef struct {
    double phi[JM_MOMENT_BLOCK];
    double phi2[JM_MOMENT_BLOCK];
    double dphi[JM_MOMENT_BLOCK];
    double dphi2[JM_MOMENT_BLOCK];
    double d2phi2[JM_MOMENT_BLOCK];
} jm_moment_block;

/* Node values of the trapezoidal rules for tanh: tables to be filled by whole vectors. */
typedef struct {
    double slope[JM_TANH_NODES];      /* tanh' at j h, j = 0, 1, ...; entry 0 is halved */
    double slope2[JM_TANH_NODES];     /* tanh'^2, the same */
    double curvature2[JM_TANH_NODES]; /* tanh''^2, the same */
    double z[JM_GAUSS_NODES];         /* j h_z, j = 1, 2, ... */
    double weight[JM_GAUSS_NODES];    /* of z and -z together: 2 h_z exp(-z^2 / 2) / sqrt(2 pi) */
} jm_tanh_rule;

static void jm_fill_tanh_rule(jm_tanh_rule *rule) {
    double step[JM_VW];
    for (int i = 0; i < JM_VW; i++)
        step[i] = i;
    const JM_V steps = JM_LOAD(step);
    for (int j = 0; j < JM_TANH_NODES; j += JM_VW) {
        const JM_V x = (steps + JM_SPLAT(j)) * JM_SPLAT(JM_TANH_STEP);
        const JM_V decay = JM_NAME(exp_negative)(JM_SPLAT(-2.0) * x);
        const JM_V sum = JM_SPLAT(1.0) + decay;
        const JM_V value = (JM_SPLAT(1.0) - decay) / sum;
        const JM_V slope = JM_SPLAT(4.0) * decay / (sum * sum);
        const JM_V curvature = JM_SPLAT(2.0) * value * slope;
        JM_STORE(rule->slope + j, slope);
        JM_STORE(rule->slope2 + j, slope * slope);
        JM_STORE(rule->curvature2 + j, curvature * curvature);
    }
    rule->slope[0] *= 0.5;
    rule->slope2[0] *= 0.5;
    rule->curvature2[0] *= 0.5;
    for (int j = 0; j < JM_GAUSS_NODES; j += JM_VW) {
        const JM_V z = (steps + JM_SPLAT(j + 1)) * JM_SPLAT(JM_GAUSS_STEP);
        const JM_V density =
            JM_SPLAT(JM_INV_SQRT_2PI) * JM_NAME(exp_negative)(JM_SPLAT(-0.5) * z * z);
        JM_STORE(rule->z + j, z);
        JM_STORE(rule->weight + j, JM_SPLAT(2.0 * JM_GAUSS_STEP) * density);
    }
}

/*
 * tanh at q >= JM_TANH_Q_SPLIT (a lane with less is undefined).  The weights are g^(j^2),
 * g = exp(-h^2 / (2 q)), by w_{j+1} = w_j r_j, r_{j+1} = r_j g^2.  Stops once no later term can
 * change a bit of any lane: terms fall with j, and one below u / 2 of its sum is rounded away.
 */
JM_INLINE void jm_tanh_large(const jm_tanh_rule *rule, const JM_V *q, int only_phi2,
                             jm_moment_block *out) {
    JM_V weight[JM_MOMENT_VECTORS], ratio[JM_MOMENT_VECTORS], square[JM_MOMENT_VECTORS];
    JM_V slope[JM_MOMENT_VECTORS], slope2[JM_MOMENT_VECTORS], curvature2[JM_MOMENT_VECTORS];
    for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
        ratio[v] = JM_NAME(exp_negative)(JM_SPLAT(-0.5 * JM_TANH_STEP * JM_TANH_STEP) / q[v]);
        square[v] = ratio[v] * ratio[v];
        weight[v] = JM_SPLAT(1.0);
        slope[v] = slope2[v] = curvature2[v] = JM_SPLAT(0.0);
    }
    for (int begin = 0; begin < JM_TANH_NODES; begin += JM_TANH_STRIDE) {
        JM_V last[JM_MOMENT_VECTORS];
        int is_more_to_come = 0;
        for (int j = begin; j < begin + JM_TANH_STRIDE; j++) {
            for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
                last[v] = weight[v];
                slope[v] = JM_FMADD(weight[v], JM_SPLAT(rule->slope[j]), slope[v]);
                if (!only_phi2) {
                    slope2[v] = JM_FMADD(weight[v], JM_SPLAT(rule->slope2[j]), slope2[v]);
                    curvature2[v] =
                        JM_FMADD(weight[v], JM_SPLAT(rule->curvature2[j]), curvature2[v]);
                }
                weight[v] = weight[v] * ratio[v];
                ratio[v] = ratio[v] * square[v];
            }
        }
        for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
            const JM_V term = last[v] * JM_SPLAT(rule->slope[begin + JM_TANH_STRIDE - 1]);
            is_more_to_come |= JM_ANY_ABOVE(term, JM_SPLAT(0.5 * JM_U) * slope[v]);
        }
        if (!is_more_to_come)
            break;
    }
    for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
        const JM_V norm = JM_SPLAT(2.0 * JM_TANH_STEP * JM_INV_SQRT_2PI) / JM_VSQRT(q[v]);
        const JM_V mean_slope = norm * slope[v];
        JM_STORE(out->phi2 + v * JM_VW, JM_SPLAT(1.0) - mean_slope);
        if (!only_phi2) {
            JM_STORE(out->dphi + v * JM_VW, mean_slope);
            JM_STORE(out->dphi2 + v * JM_VW, norm * slope2[v]);
            JM_STORE(out->d2phi2 + v * JM_VW, norm * curvature2[v]);
        }
    }
}

/*
 * tanh at 0 <= q < JM_TANH_Q_SPLIT (a lane with more is undefined).  phi' and phi'^2 are summed as
 * what they lack to 1, so that they are 1 at q = 0.
 */
JM_INLINE void jm_tanh_small(const jm_tanh_rule *rule, const JM_V *q, int only_phi2,
                             jm_moment_block *out) {
    JM_V root[JM_MOMENT_VECTORS];
    JM_V value2[JM_MOMENT_VECTORS], lack2[JM_MOMENT_VECTORS], curvature2[JM_MOMENT_VECTORS];
    for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
        root[v] = JM_VSQRT(q[v]);
        value2[v] = lack2[v] = curvature2[v] = JM_SPLAT(0.0);
    }
    for (int j = 0; j < JM_GAUSS_NODES; j++) {
        for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
            const JM_V weight = JM_SPLAT(rule->weight[j]);
            const JM_V value = JM_NAME(tanh_positive)(root[v] * JM_SPLAT(rule->z[j]));
            const JM_V square = value * value;
            value2[v] = JM_FMADD(weight, square, value2[v]);
            if (!only_phi2) {
                const JM_V slope = JM_SPLAT(1.0) - square;
                const JM_V lack = square * (JM_SPLAT(1.0) + slope); /* 1 - slope^2 */
                lack2[v] = JM_FMADD(weight, lack, lack2[v]);
                curvature2[v] = JM_FMADD(weight, square * (slope * slope), curvature2[v]);
            }
        }
    }
    for (int v = 0; v < JM_MOMENT_VECTORS; v++) {
        JM_STORE(out->phi2 + v * JM_VW, value2[v]);
        if (!only_phi2) {
            JM_STORE(out->dphi + v * JM_VW, JM_SPLAT(1.0) - value2[v]);
            JM_STORE(out->dphi2 + v * JM_VW, JM_SPLAT(1.0) - lack2[v]);
            JM_STORE(out->d2phi2 + v * JM_VW, JM_SPLAT(4.0) * curvature2[v]);
        }
    }
}

/* tanh at any q: each lane from the rule its q belongs to. */
JM_INLINE void jm_tanh_block(const jm_tanh_rule *rule, const double *q, int only_phi2,
                             jm_moment_block *out) {
    int n_small = 0;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        n_small += q[i] < JM_TANH_Q_SPLIT;
    JM_V item[JM_MOMENT_VECTORS], part[JM_MOMENT_VECTORS];
    const JM_V split = JM_SPLAT(JM_TANH_Q_SPLIT);
    jm_moment_block small;
    for (int v = 0; v < JM_MOMENT_VECTORS; v++)
        item[v] = JM_LOAD(q + v * JM_VW);
    if (n_small > 0) {
        for (int v = 0; v < JM_MOMENT_VECTORS; v++)
            part[v] = JM_VLESS(item[v], split, item[v], split);
        jm_tanh_small(rule, part, only_phi2, n_small == JM_MOMENT_BLOCK ? out : &small);
    }
    if (n_small < JM_MOMENT_BLOCK) {
        for (int v = 0; v < JM_MOMENT_VECTORS; v++)
            part[v] = JM_VLESS(item[v], split, split, item[v]);
        jm_tanh_large(rule, part, only_phi2, out);
    }
    if (n_small == 0 || n_small == JM_MOMENT_BLOCK)
        return;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        if (!(q[i] < JM_TANH_Q_SPLIT))
            continue;
        out->phi2[i] = small.phi2[i];
        if (!only_phi2) {
            out->dphi[i] = small.dphi[i];
            out->dphi2[i] = small.dphi2[i];
            out->d2phi2[i] = small.d2phi2[i];
        }
    }
}

JM_INLINE void jm_identity_moments(const double *q, int only_phi2, jm_moment_block *out) {
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        out->phi2[i] = q[i];
        if (only_phi2)
            continue;
        out->phi[i] = isnan(q[i]) ? q[i] : 0.0;
        out->dphi[i] = out->dphi2[i] = isnan(q[i]) ? q[i] : 1.0;
        out->d2phi2[i] = isnan(q[i]) ? q[i] : 0.0;
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
    }
}

/*
 * With p the normal density and P its distribution function:
 *
 *     E p^2 = 1 / (2 pi sqrt(1 + 2 q)),  E[x p P] = q / (1 + q) E p^2,
 *     E[x^2 p^2] = q / (1 + 2 q) E p^2,  E[x^4 p^2] = 3 (q / (1 + 2 q))^2 E p^2,
 *     E[x^2 P^2] = q E P^2 + q^2 E[(P^2)''],  E[(P^2)''] = 2 E p^2 / (1 + q).
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
    }
}

JM_INLINE void jm_sigmoid_moments(const jm_tanh_rule *rule, const double *q, int only_phi2,
                                  jm_moment_block *out) {
    double quarter[JM_MOMENT_BLOCK];
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        quarter[i] = 0.25 * q[i];
    jm_tanh_block(rule, quarter, only_phi2, out);
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        out->phi2[i] = 0.25 + 0.25 * out->phi2[i];
    if (only_phi2)
        return;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++) {
        out->phi[i] = isnan(q[i]) ? q[i] : 0.5;
        out->dphi[i] *= 0.25;
        out->dphi2[i] *= 1.0 / 16;
        out->d2phi2[i] *= 1.0 / 64;
    }
}

JM_INLINE void jm_tanh_moments(const jm_tanh_rule *rule, const double *q, int only_phi2,
                               jm_moment_block *out) {
    jm_tanh_block(rule, q, only_phi2, out);
    if (only_phi2)
        return;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        out->phi[i] = isnan(q[i]) ? q[i] : 0.0;
}

/* The moments of one block; with only_phi2 the others may be left undefined. */
JM_INLINE void jm_block_moments(const jm_activation *activation, const jm_tanh_rule *rule,
                                const double *q, int only_phi2, jm_moment_block *out) {
    switch (activation->id) {
    case JM_IDENTITY:
        jm_identity_moments(q, only_phi2, out);
        return;
    case JM_LEAKY_RELU:
        jm_leaky_relu_moments(q, activation->parameters[0], activation->parameters[1], only_phi2,
                              out);
        return;
    case JM_TANH:
        jm_tanh_moments(rule, q, only_phi2, out);
        return;
    case JM_SIGMOID:
        jm_sigmoid_moments(rule, q, only_phi2, out);
        return;
    case JM_ERF:
        jm_erf_moments(q, only_phi2, out);
        return;
    case JM_GELU:
        jm_gelu_moments(q, only_phi2, out);
        return;
    }
}

/* Fills the rule if the activation needs one. */
static void jm_prepare_moments(const jm_activation *activation, jm_tanh_rule *rule) {
    if (activation->id == JM_TANH || activation->id == JM_SIGMOID)
        jm_fill_tanh_rule(rule);
}

/* Items of q from `from` on as one block, padded with ones; returns how many there are. */
static int jm_load_block(const double *q, ptrdiff_t from, ptrdiff_t end, double *block) {
    const ptrdiff_t left = end - from;
    const int n_items = left < JM_MOMENT_BLOCK ? (int)left : JM_MOMENT_BLOCK;
    for (int i = 0; i < JM_MOMENT_BLOCK; i++)
        block[i] = i < n_items ? q[from + i] : 1.0;
    return n_items;
}

/*
 * The five moments of items begin..end-1.
 *
 * q                                (n)  >= 0; NaN gives NaN, infinity the limit
 * phi, phi2, dphi, dphi2, d2phi2   (n)  of the kernel's type; none may overlap q or another
 *
 * Requires begin <= end and a known activation.  Never allocates.  Cost: for tanh and sigmoid at
 * most 500 operations an item, for the others about 50.  At q = 0 these are phi(0), phi(0)^2,
 * phi'(0), ...; d2phi2 is infinite where the slope has a kink at 0.  Error: see the top of this
 * file. Returns JM_OK.
 */
static int gaussian_moments_f64(const jm_activation *activation, const void *q_,
                                const jm_moments *moments, ptrdiff_t begin, ptrdiff_t end) {
    const double *JM_RESTRICT q = (const double *)q_;
    jm_tanh_rule rule;
    jm_prepare_moments(activation, &rule);
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_BLOCK) {
        double block[JM_MOMENT_BLOCK];
        jm_moment_block out;
        const size_t n_bytes = (size_t)jm_load_block(q, from, end, block) * sizeof(double);
        jm_block_moments(activation, &rule, block, 0, &out);
        memcpy((double *)moments->phi + from, out.phi, n_bytes);
        memcpy((double *)moments->phi2 + from, out.phi2, n_bytes);
        memcpy((double *)moments->dphi + from, out.dphi, n_bytes);
        memcpy((double *)moments->dphi2 + from, out.dphi2, n_bytes);
        memcpy((double *)moments->d2phi2 + from, out.d2phi2, n_bytes);
    }
    return JM_OK;
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
 * Returns JM_OK.
 */
static int variance_map_f64(const jm_activation *activation, const jm_variance_arguments *arguments,
                            void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const double *JM_RESTRICT q = (const double *)arguments->q;
    const double *JM_RESTRICT sigma_w = (const double *)arguments->sigma_w;
    const double *JM_RESTRICT sigma_b = (const double *)arguments->sigma_b;
    double *JM_RESTRICT out = (double *)out_;
    jm_tanh_rule rule;
    jm_prepare_moments(activation, &rule);
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_BLOCK) {
        double block[JM_MOMENT_BLOCK];
        jm_moment_block moments;
        const ptrdiff_t left = end - from;
        const int n_items = left < JM_MOMENT_BLOCK ? (int)left : JM_MOMENT_BLOCK;
        for (int i = 0; i < JM_MOMENT_BLOCK; i++)
            block[i] = i < n_items ? q[(from + i) * arguments->q_stride] : 1.0;
        jm_block_moments(activation, &rule, block, 1, &moments);
        for (int i = 0; i < n_items; i++) {
            const double w = sigma_w[(from + i) * arguments->sigma_w_stride];
            const double b = sigma_b[(from + i) * arguments->sigma_b_stride];
            out[from + i] = w * moments.phi2[i] * w + b * b;
        }
    }
    return JM_OK;
}

/* The float32 kernels: the float64 ones on pieces widened and rounded. */
enum { JM_MOMENT_PIECE = 256 };

static int gaussian_moments_f32(const jm_activation *activation, const void *q_,
                                const jm_moments *moments, ptrdiff_t begin, ptrdiff_t end) {
    const float *q = (const float *)q_;
    float *out[5] = {(float *)moments->phi, (float *)moments->phi2, (float *)moments->dphi,
                     (float *)moments->dphi2, (float *)moments->d2phi2};
    double wide_q[JM_MOMENT_PIECE], wide[5][JM_MOMENT_PIECE];
    const jm_moments wide_moments = {wide[0], wide[1], wide[2], wide[3], wide[4]};
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_PIECE) {
        const ptrdiff_t left = end - from;
        const ptrdiff_t n_items = left < JM_MOMENT_PIECE ? left : JM_MOMENT_PIECE;
        for (ptrdiff_t i = 0; i < n_items; i++)
            wide_q[i] = q[from + i];
        (void)gaussian_moments_f64(activation, wide_q, &wide_moments, 0, n_items);
        for (int moment = 0; moment < 5; moment++)
            for (ptrdiff_t i = 0; i < n_items; i++)
                out[moment][from + i] = (float)wide[moment][i];
    }
    return JM_OK;
}

static int variance_map_f32(const jm_activation *activation, const jm_variance_arguments *arguments,
                            void *out_, ptrdiff_t begin, ptrdiff_t end) {
    const float *q = (const float *)arguments->q;
    const float *sigma_w = (const float *)arguments->sigma_w;
    const float *sigma_b = (const float *)arguments->sigma_b;
    float *out = (float *)out_;
    double wide[4][JM_MOMENT_PIECE];
    const jm_variance_arguments wide_arguments = {wide[0], wide[1], wide[2], 1, 1, 1};
    for (ptrdiff_t from = begin; from < end; from += JM_MOMENT_PIECE) {
        const ptrdiff_t left = end - from;
        const ptrdiff_t n_items = left < JM_MOMENT_PIECE ? left : JM_MOMENT_PIECE;
        for (ptrdiff_t i = 0; i < n_items; i++) {
            wide[0][i] = q[(from + i) * arguments->q_stride];
            wide[1][i] = sigma_w[(from + i) * arguments->sigma_w_stride];
            wide[2][i] = sigma_b[(from + i) * arguments->sigma_b_stride];
        }
        (void)variance_map_f64(activation, &wide_arguments, wide[3], 0, n_items);
        for (ptrdiff_t i = 0; i < n_items; i++)
            out[from + i] = (float)wide[3][i];
    }
    return JM_OK;
}

#endif
