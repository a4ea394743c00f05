/*
 * The one place that knows vector types.  For the current JM_T it defines
 *
 *   JM_V, JM_VW            a vector of JM_VW lanes; + - * / and unary - work lane by lane
 *   JM_LOAD, JM_STORE      unaligned access
 *   JM_LOAD_FIRST(p, n)    p[0..n) and zeros, 1 <= n <= JM_VW; reads no further
 *   JM_STORE_FIRST(p, v, n)   the first n lanes to p, for a constant n
 *   JM_LANE_SUM(a)         sum over the lanes, halves first
 *   JM_SPLAT(x)            x in every lane
 *   JM_GATHER(p, at)       p[at[0]], p[at[1]], ...
 *   JM_FMADD(a, b, c)      a * b + c, fused exactly where the instruction set fuses
 *   JM_IS_FUSED            whether it is
 *   JM_FMADD_S(a, b, c)    the same for one JM_T: bit for bit what a lane gives
 *   JM_VMAX(a, b)          lane maximum; a NaN in `a` gives b
 *   JM_VMIN(a, b)          lane minimum; a NaN in `a` gives b
 *   JM_VABS(a)             absolute value
 *   JM_VMAX_ABS(a, b)      lane maximum of |a| and b >= 0; a NaN in `a` gives b
 *   JM_VSQRT(a)            square root
 *   JM_VLESS(a, b, x, y)   per lane a < b ? x : y
 *   JM_ANY_ABOVE(a, b)     whether a > b in some lane
 *   JM_ANY_NAN(a)          whether some lane is NaN
 *   JM_ROUNDER             (x + JM_ROUNDER) - JM_ROUNDER is x rounded to an integer
 *   JM_VPOW2(s)            2^k, s = k + JM_ROUNDER, where that is a normal number
 *   JM_VEXPONENT(a)        the integer k with 2^k <= a < 2^(k+1), for a positive normal number
 *   JM_UINT, JM_VBITS      bits of one lane and of a JM_V, unsigned; operators on integers work
 *   JM_TO_BITS, JM_FROM_BITS       a JM_V as JM_VBITS, and back
 *   JM_W, JM_WW            a vector of JM_WW words of 64 bits; operators on integers work
 *   JM_PARTS, JM_PART(w, k)        the JM_PARTS JM_VBITS that a JM_W fills, low halves first
 *   JM_ROTATE(w, k)        the words rotated to the left, 0 < k < 64
 *   jm_interleave(n, from, items, step, out)   out[i * step][lane] = items[lane][from + i], i < n
 *   JM_U, JM_MIN_EXP, JM_MAX_EXP   unit roundoff; exponents of the normal range as in float.h
 *   JM_INT, JM_FRACTION_BITS       the integer of this size; bits of the fraction in it
 *   JM_FREXP, JM_LDEXP, JM_ABS, JM_SQRT, JM_LOG, JM_NEXT   libm at JM_T
 *
 * and, once, JM_INLINE and JM_RESTRICT.  A compiler without vector types gets JM_VW == 1.
 */
#undef JM_V
#undef JM_VW
#undef JM_LOAD
#undef JM_LOAD_FIRST
#undef JM_STORE_FIRST
#undef JM_STORE
#undef JM_LANE_SUM
#undef JM_SPLAT
#undef JM_GATHER
#undef JM_FMADD
#undef JM_FMADD_S
#undef JM_IS_FUSED
#undef JM_VMAX
#undef JM_VMIN
#undef JM_VABS
#undef JM_VMAX_ABS
#undef JM_VSQRT
#undef JM_VLESS
#undef JM_ANY_ABOVE
#undef JM_ANY_NAN
#undef JM_ROUNDER
#undef JM_VPOW2
#undef JM_VEXPONENT
#undef JM_VBITS
#undef JM_UINT
#undef JM_TO_BITS
#undef JM_FROM_BITS
#undef JM_W
#undef JM_WW
#undef JM_PARTS
#undef JM_PART
#undef JM_ROTATE
#undef JM_U
#undef JM_MIN_EXP
#undef JM_INT
#undef JM_FRACTION_BITS
#undef JM_MAX_EXP
#undef JM_FREXP
#undef JM_LDEXP
#undef JM_ABS
#undef JM_SQRT
#undef JM_LOG
#undef JM_NEXT

#ifndef JM_INLINE
#if defined(__GNUC__) || defined(__clang__)
#define JM_INLINE static inline __attribute__((always_inline))
#define JM_MAYBE_UNUSED __attribute__((unused))
#define JM_RESTRICT restrict
#else
#define JM_INLINE static __forceinline
#define JM_MAYBE_UNUSED
#define JM_RESTRICT __restrict
#endif
#endif

#if JM_IS_F64
#define JM_U 0x1p-53
#define JM_ROUNDER 0x1.8p52
#define JM_INT int64_t
#define JM_UINT uint64_t
#define JM_FRACTION_BITS 52
#define JM_MIN_EXP (-1021)
#define JM_MAX_EXP 1024
#define JM_FREXP frexp
#define JM_LDEXP ldexp
#define JM_ABS fabs
#define JM_SQRT sqrt
#define JM_LOG log
#define JM_NEXT nextafter
#else
#define JM_U 0x1p-24f
#define JM_ROUNDER 0x1.8p23f
#define JM_INT int32_t
#define JM_UINT uint32_t
#define JM_FRACTION_BITS 23
#define JM_MIN_EXP (-125)
#define JM_MAX_EXP 128
#define JM_FREXP frexpf
#define JM_LDEXP ldexpf
#define JM_ABS fabsf
#define JM_SQRT sqrtf
#define JM_LOG logf
#define JM_NEXT nextafterf
#endif

#if defined(JM_VECTOR_BYTES)

#if JM_IS_F64
#define JM_VW (JM_VECTOR_BYTES / 8)
#else
#define JM_VW (JM_VECTOR_BYTES / 4)
#endif
#define JM_V JM_NAME(jm_vector)
typedef JM_T JM_V __attribute__((vector_size(JM_VECTOR_BYTES)));
/* The same vector at any address, allowed to alias JM_T. */
typedef JM_T JM_NAME(jm_vector_at)
    __attribute__((vector_size(JM_VECTOR_BYTES), aligned(sizeof(JM_T)), may_alias));

#define JM_LOAD(p) ((JM_V) * (const JM_NAME(jm_vector_at) *)(p))
#define JM_STORE(p, v) (*(JM_NAME(jm_vector_at) *)(p) = (v))
/* x - 0 is x for every x, -0 and NaN included, so this is a broadcast and nothing else. */
#define JM_SPLAT(x) ((JM_T)(x) - (JM_V){0})

JM_INLINE JM_V JM_NAME(jm_gather)(const JM_T *p, const ptrdiff_t *at) {
#if JM_VW == 2
    return (JM_V){p[at[0]], p[at[1]]};
#elif JM_VW == 4
    return (JM_V){p[at[0]], p[at[1]], p[at[2]], p[at[3]]};
#elif JM_VW == 8
    return (JM_V){p[at[0]], p[at[1]], p[at[2]], p[at[3]], p[at[4]], p[at[5]], p[at[6]], p[at[7]]};
#else
    return (JM_V){p[at[0]],  p[at[1]],  p[at[2]],  p[at[3]], p[at[4]],  p[at[5]],
                  p[at[6]],  p[at[7]],  p[at[8]],  p[at[9]], p[at[10]], p[at[11]],
                  p[at[12]], p[at[13]], p[at[14]], p[at[15]]};
#endif
}
#define JM_GATHER(p, at) JM_NAME(jm_gather)((p), (at))

/* Intrinsic of this element type, for x86: JM_MM(fmadd) is _mm256_fmadd_pd or _mm256_fmadd_ps. */
#if defined(__x86_64__)
#undef JM_MM
#if JM_VECTOR_BYTES == 64 && JM_IS_F64
#define JM_MM(op) _mm512_##op##_pd
#elif JM_VECTOR_BYTES == 64
#define JM_MM(op) _mm512_##op##_ps
#elif JM_VECTOR_BYTES == 32 && JM_IS_F64
#define JM_MM(op) _mm256_##op##_pd
#elif JM_VECTOR_BYTES == 32
#define JM_MM(op) _mm256_##op##_ps
#elif JM_IS_F64
#define JM_MM(op) _mm_##op##_pd
#else
#define JM_MM(op) _mm_##op##_ps
#endif
#if JM_VECTOR_BYTES >= 32
#define JM_FMADD(a, b, c) JM_MM(fmadd)((a), (b), (c))
#else
#define JM_FMADD(a, b, c) ((a) * (b) + (c))
#endif
#define JM_VMAX(a, b) JM_MM(max)((a), (b))
#define JM_VMIN(a, b) JM_MM(min)((a), (b))
#define JM_VSQRT(a) JM_MM(sqrt)(a)
#if JM_VECTOR_BYTES == 64 && JM_IS_F64
#define JM_ANY_ABOVE(a, b) (_mm512_cmp_pd_mask((a), (b), _CMP_GT_OQ) != 0)
#define JM_ANY_NAN(a) (_mm512_cmp_pd_mask((a), (a), _CMP_UNORD_Q) != 0)
#elif JM_VECTOR_BYTES == 64
#define JM_ANY_ABOVE(a, b) (_mm512_cmp_ps_mask((a), (b), _CMP_GT_OQ) != 0)
#define JM_ANY_NAN(a) (_mm512_cmp_ps_mask((a), (a), _CMP_UNORD_Q) != 0)
#elif JM_VECTOR_BYTES == 32
#define JM_ANY_ABOVE(a, b) (JM_MM(movemask)(JM_MM(cmp)((a), (b), _CMP_GT_OQ)) != 0)
#define JM_ANY_NAN(a) (JM_MM(movemask)(JM_MM(cmp)((a), (a), _CMP_UNORD_Q)) != 0)
#else
#define JM_ANY_ABOVE(a, b) (JM_MM(movemask)(JM_MM(cmpgt)((a), (b))) != 0)
#define JM_ANY_NAN(a) (JM_MM(movemask)(JM_MM(cmpunord)((a), (a))) != 0)
#endif
#elif defined(__aarch64__)
#define JM_ANY_ABOVE(a, b) (vmaxvq_u32((uint32x4_t)((a) > (b))) != 0)
#define JM_ANY_NAN(a) (vmaxvq_u32((uint32x4_t)((a) != (a))) != 0)
#if JM_IS_F64
#define JM_FMADD(a, b, c) vfmaq_f64((c), (a), (b))
#define JM_VMAX(a, b) vmaxnmq_f64((a), (b))
#define JM_VMIN(a, b) vminnmq_f64((a), (b))
#define JM_VSQRT(a) vsqrtq_f64(a)
#else
#define JM_FMADD(a, b, c) vfmaq_f32((c), (a), (b))
#define JM_VMAX(a, b) vmaxnmq_f32((a), (b))
#define JM_VMIN(a, b) vminnmq_f32((a), (b))
#define JM_VSQRT(a) vsqrtq_f32(a)
#endif
#endif

#if (defined(__x86_64__) && JM_VECTOR_BYTES >= 32) || defined(__aarch64__)
#define JM_IS_FUSED 1
#if JM_IS_F64
#define JM_FMADD_S(a, b, c) __builtin_fma((a), (b), (c))
#else
#define JM_FMADD_S(a, b, c) __builtin_fmaf((a), (b), (c))
#endif
#else
#define JM_IS_FUSED 0
#define JM_FMADD_S(a, b, c) ((a) * (b) + (c))
#endif

/* Bits of a vector, for the operations that are easier there. */
#define JM_BITS JM_NAME(jm_bits)
#if JM_IS_F64
typedef int64_t JM_BITS __attribute__((vector_size(JM_VECTOR_BYTES)));
#define JM_ABS_BITS INT64_MAX
#else
typedef int32_t JM_BITS __attribute__((vector_size(JM_VECTOR_BYTES)));
#define JM_ABS_BITS INT32_MAX
#endif
JM_INLINE JM_V JM_NAME(jm_vabs)(JM_V a) { return (JM_V)((JM_BITS)a & JM_ABS_BITS); }
JM_INLINE JM_V JM_NAME(jm_vless)(JM_V a, JM_V b, JM_V x, JM_V y) {
    const JM_BITS mask = a < b;
    return (JM_V)((mask & (JM_BITS)x) | (~mask & (JM_BITS)y));
}
/* The low bits of k + JM_ROUNDER are those of k; with the bias they move to the exponent. */
#if JM_IS_F64
typedef uint64_t JM_NAME(jm_word) __attribute__((vector_size(JM_VECTOR_BYTES)));
JM_INLINE JM_V JM_NAME(jm_vpow2)(JM_V s) { return (JM_V)(((JM_NAME(jm_word))s + 1023) << 52); }
/* The exponent's bits below the one of 2^52, whose unit is 1. */
JM_INLINE JM_V JM_NAME(jm_vexponent)(JM_V a) {
    return (JM_V)((((JM_NAME(jm_word))a) >> 52) | 0x4330000000000000) - (0x1p52 + 1023);
}
#else
typedef uint32_t JM_NAME(jm_word) __attribute__((vector_size(JM_VECTOR_BYTES)));
JM_INLINE JM_V JM_NAME(jm_vpow2)(JM_V s) { return (JM_V)(((JM_NAME(jm_word))s + 127) << 23); }
JM_INLINE JM_V JM_NAME(jm_vexponent)(JM_V a) {
    return (JM_V)((((JM_NAME(jm_word))a) >> 23) | 0x4B000000) - (0x1p23f + 127);
}
#endif
#undef JM_ABS_BITS
/* By a mask, or over the stack: a copy of variable length that the reader waits for. */
JM_INLINE JM_V JM_NAME(jm_load_first)(const JM_T *p, ptrdiff_t n) {
#if defined(__x86_64__) && JM_VECTOR_BYTES == 64
    return JM_MM(maskz_loadu)((1u << n) - 1, p);
#elif defined(__x86_64__) && JM_VECTOR_BYTES == 32
#if JM_IS_F64
    const JM_BITS lane = {0, 1, 2, 3};
#else
    const JM_BITS lane = {0, 1, 2, 3, 4, 5, 6, 7};
#endif
    return JM_MM(maskload)(p, (__m256i)(lane < (JM_BITS){0} + (int)n));
#else
    JM_T lanes[JM_VW] = {0};
    for (ptrdiff_t i = 0; i < JM_VW && i < n; i++)
        lanes[i] = p[i];
    return JM_LOAD(lanes);
#endif
}
/* Not by a mask, which costs AMD's processors a dozen cycles. */
JM_INLINE void JM_NAME(jm_store_first)(JM_T *p, JM_V v, const int n) {
    JM_T lanes[JM_VW];
    JM_STORE(lanes, v);
    memcpy(p, lanes, (size_t)n * sizeof(JM_T));
}
#undef JM_BITS
#define JM_STORE_FIRST(p, v, n) JM_NAME(jm_store_first)((p), (v), (n))
JM_INLINE JM_T JM_NAME(jm_lane_sum)(JM_V a) {
#if defined(__x86_64__) && JM_VECTOR_BYTES == 64
    return JM_MM(reduce_add)(a);
#elif defined(__x86_64__) && JM_VECTOR_BYTES == 32 && JM_IS_F64
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
#elif defined(__x86_64__) && JM_VECTOR_BYTES == 32
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
#else
    JM_T lanes[JM_VW];
    JM_STORE(lanes, a);
    for (int half = JM_VW / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}
#define JM_LANE_SUM(a) JM_NAME(jm_lane_sum)(a)
#define JM_LOAD_FIRST(p, n) JM_NAME(jm_load_first)((p), (n))
#define JM_VABS(a) JM_NAME(jm_vabs)(a)
#if defined(__x86_64__) && JM_VECTOR_BYTES == 64
#define JM_RANGE_MAX_ABS 0x0B /* larger magnitude, sign cleared */
#define JM_VMAX_ABS(a, b) JM_MM(range)((a), (b), JM_RANGE_MAX_ABS)
#else
#define JM_VMAX_ABS(a, b) JM_VMAX(JM_VABS(a), (b))
#endif
#define JM_VLESS(a, b, x, y) JM_NAME(jm_vless)((a), (b), (x), (y))
#define JM_VPOW2(s) JM_NAME(jm_vpow2)(s)
#define JM_VEXPONENT(a) JM_NAME(jm_vexponent)(a)
#define JM_VBITS JM_NAME(jm_word)
#define JM_TO_BITS(a) ((JM_VBITS)(a))
#define JM_FROM_BITS(a) ((JM_V)(a))
#define JM_WW (JM_VECTOR_BYTES / 8)
#define JM_W JM_NAME(jm_words)
typedef uint64_t JM_W __attribute__((vector_size(JM_VECTOR_BYTES)));
#define JM_PARTS 1
#define JM_PART(w, k) ((void)(k), (JM_VBITS)(w))

#else /* no vector types: one lane, plain C */

#define JM_VW 1
#define JM_V JM_T
#define JM_LOAD(p) (*(p))
#define JM_LOAD_FIRST(p, n) ((void)(n), *(p))
#define JM_STORE_FIRST(p, v, n) ((void)(n), *(p) = (v))
#define JM_STORE(p, v) (*(p) = (v))
#define JM_LANE_SUM(a) (a)
#define JM_SPLAT(x) ((JM_T)(x))
#define JM_GATHER(p, at) ((p)[(at)[0]])
#define JM_IS_FUSED 0
#define JM_FMADD(a, b, c) ((a) * (b) + (c))
#define JM_FMADD_S(a, b, c) ((a) * (b) + (c))
#define JM_VMAX(a, b) ((a) > (b) ? (a) : (b))
#define JM_VMIN(a, b) ((a) < (b) ? (a) : (b))
#define JM_VABS(a) JM_ABS(a)
#define JM_VMAX_ABS(a, b) (JM_ABS(a) > (b) ? JM_ABS(a) : (b))
#define JM_VSQRT(a) JM_SQRT(a)
#define JM_VLESS(a, b, x, y) ((a) < (b) ? (x) : (y))
#define JM_VPOW2(s) JM_LDEXP((JM_T)1, (int)((s) - JM_ROUNDER))
#define JM_VEXPONENT(a) JM_NAME(jm_exponent)(a)
JM_INLINE JM_T JM_NAME(jm_exponent)(JM_T a) {
    int k = 0;
    (void)JM_FREXP(a, &k);
    return (JM_T)(k - 1);
}
#define JM_ANY_ABOVE(a, b) ((a) > (b))
#define JM_ANY_NAN(a) isnan(a)
#define JM_VBITS JM_UINT
#define JM_TO_BITS(a) JM_NAME(jm_to_bits)(a)
#define JM_FROM_BITS(a) JM_NAME(jm_from_bits)(a)
JM_INLINE JM_UINT JM_NAME(jm_to_bits)(JM_T a) {
    JM_UINT bits;
    memcpy(&bits, &a, sizeof(bits));
    return bits;
}
JM_INLINE JM_T JM_NAME(jm_from_bits)(JM_UINT bits) {
    JM_T a;
    memcpy(&a, &bits, sizeof(a));
    return a;
}
#define JM_W uint64_t
#define JM_WW 1
#define JM_PARTS ((int)(8 / sizeof(JM_T)))
#define JM_PART(w, k) ((JM_UINT)((w) >> ((k) * 8 * (int)sizeof(JM_T))))

#endif

/* The words rotated to the left. */
JM_INLINE JM_W JM_NAME(jm_rotate)(JM_W w, const int k) {
#if defined(__x86_64__) && defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 32
    if (k % 8 == 0) { /* by whole bytes: one shuffle, of the bytes that their own numbers say */
        const uint64_t low = 0x0706050403020100, high = 0x0F0E0D0C0B0A0908;
        const JM_W bytes = {low, high, low, high};
        return (JM_W)_mm256_shuffle_epi8((__m256i)w, (__m256i)((bytes << k) | (bytes >> (64 - k))));
    }
#endif
    return (w << k) | (w >> (64 - k));
}
#define JM_ROTATE(w, k) JM_NAME(jm_rotate)((w), (k))

/* JM_VW x JM_VW entries at a time are transposed in registers where that is known to pay. */
static JM_MAYBE_UNUSED void JM_NAME(jm_interleave)(ptrdiff_t n, ptrdiff_t from,
                                                   const JM_T *const *items, ptrdiff_t step,
                                                   JM_T *JM_RESTRICT out) {
    ptrdiff_t i = 0;
#if defined(__x86_64__) && defined(JM_VECTOR_BYTES) && JM_VECTOR_BYTES == 32
    for (; i + JM_VW <= n; i += JM_VW) {
        JM_V t[JM_VW];
        for (int j = 0; j < JM_VW; j++)
            t[j] = JM_LOAD(items[j] + from + i);
        JM_T *const to = out + i * step * JM_VW;
#if JM_IS_F64
        for (int half = 0; half < 2; half++) {
            const JM_V p = half ? _mm256_unpackhi_pd(t[0], t[1]) : _mm256_unpacklo_pd(t[0], t[1]);
            const JM_V q = half ? _mm256_unpackhi_pd(t[2], t[3]) : _mm256_unpacklo_pd(t[2], t[3]);
            JM_STORE(to + half * step * JM_VW, _mm256_permute2f128_pd(p, q, 0x20));
            JM_STORE(to + (half + 2) * step * JM_VW, _mm256_permute2f128_pd(p, q, 0x31));
        }
#else
        JM_V s[8];
        for (int j = 0; j < 8; j += 2) {
            s[j] = _mm256_unpacklo_ps(t[j], t[j + 1]);
            s[j + 1] = _mm256_unpackhi_ps(t[j], t[j + 1]);
        }
        for (int half = 0; half < 2; half++) {
            const JM_V a = s[half], b = s[half + 2], c = s[half + 4], d = s[half + 6];
            const JM_V p = _mm256_shuffle_ps(a, b, 0x44), q = _mm256_shuffle_ps(c, d, 0x44);
            const JM_V r = _mm256_shuffle_ps(a, b, 0xEE), z = _mm256_shuffle_ps(c, d, 0xEE);
            JM_STORE(to + (2 * half) * step * JM_VW, _mm256_permute2f128_ps(p, q, 0x20));
            JM_STORE(to + (2 * half + 1) * step * JM_VW, _mm256_permute2f128_ps(r, z, 0x20));
            JM_STORE(to + (2 * half + 4) * step * JM_VW, _mm256_permute2f128_ps(p, q, 0x31));
            JM_STORE(to + (2 * half + 5) * step * JM_VW, _mm256_permute2f128_ps(r, z, 0x31));
        }
#endif
    }
#endif
    for (; i < n; i++)
        for (int j = 0; j < JM_VW; j++)
            out[i * step * JM_VW + j] = items[j][from + i];
}
