/*
 * Normal numbers by position: the words of Threefry4x64-20 (Salmon, Moraes, Dror and Shaw, Parallel
 * random numbers: as easy as 1, 2, 3, 2011) and the transform of Box and Muller (A note on the
 * generation of random normal deviates, 1958).
 *
 * Numbers come in tiles of 128, of which p and p + 64 make a pair.  A pair takes two strings of B
 * bits, a and b, B = 64 or 32 as in JM_T; a word of 64 bits serves two pairs in float32, low half
 * first.  Tile t has n = 32 (float32: 16) blocks: the cipher of the counters (n t + c, 0, 0, 0),
 * each of four words.  The bits a of the tile's pairs are the first words of its blocks, then the
 * second ones; the bits b the third, then the fourth ones.  With them
 *
 *   u = (a + 1) / 2^B and y = (b mod 2^(B-2)) / 2^(B-2) - 1/2, each rounded once;
 *   sqrt(-2 ln u) (cos, sin)(pi y / 2) lies in a quarter of the plane;
 *   bit B-1 of b turns the sign of the cosine, then bit B-2 exchanges the two.
 */
#ifndef JM_GAUSSIAN_TILE
#define JM_GAUSSIAN_TILE 128                   /* numbers */
#define JM_THREEFRY_PARITY 0x1BD11BDAA9FC1A22u /* Salmon et al., C_240 */
#endif

/*
 * Constants in JM_T: powers of two in whose low bits integers are numbers, and the bits of 2/3;
 * 2 ln 2 in two parts, the first of so few bits that its products with exponents are exact;
 * polynomials of least relative error, which is below u / 15, for
 *
 *   -2 ln m = -4 s + s sum LOG[k] s^(2k+2), s = (m - 1) / (m + 1), s^2 <= 1/25,
 *   sin(pi y / 2) = y sum SIN[k] y^(2k) and cos(pi y / 2) = 1 + sum COS[k] y^(2k+2), |y| <= 1/2.
 */
#undef JM_GAUSSIAN_HALF
#undef JM_GAUSSIAN_LOW_ONE
#undef JM_GAUSSIAN_HIGH_ONE
#undef JM_GAUSSIAN_STEP
#undef JM_GAUSSIAN_TWO_THIRDS
#undef JM_TWO_LOG_2_HIGH
#undef JM_TWO_LOG_2_LOW
#undef JM_GAUSSIAN_LOG_TERMS
#undef JM_GAUSSIAN_SIN_TERMS
#undef JM_GAUSSIAN_COS_TERMS
#if JM_IS_F64
#define JM_GAUSSIAN_HALF 32
#define JM_GAUSSIAN_STEP 0x1p-64
#define JM_GAUSSIAN_LOW_ONE 0x1p-12
#define JM_GAUSSIAN_HIGH_ONE 0x1p20
#define JM_GAUSSIAN_TWO_THIRDS 0x3FE5555555555555u
#define JM_TWO_LOG_2_HIGH 0x1.62e42fefa38p+0
#define JM_TWO_LOG_2_LOW 0x1.ef35793c76730p-44
#define JM_GAUSSIAN_LOG_TERMS 8
#define JM_GAUSSIAN_SIN_TERMS 7
#define JM_GAUSSIAN_COS_TERMS 7
static const double JM_NAME(gaussian_log)[JM_GAUSSIAN_LOG_TERMS] = {
    -0x1.555555555554fp+0, -0x1.999999999c0f7p-1, -0x1.24924921ec0cfp-1, -0x1.c71c7488d9324p-2,
    -0x1.745c4c7ae008dp-2, -0x1.3b358baf1eb4ep-2, -0x1.0dcf13b918664p-2, -0x1.1b69ec7b5ecdfp-2};
static const double JM_NAME(gaussian_sin)[JM_GAUSSIAN_SIN_TERMS] = {
    0x1.921fb54442d18p+0,  -0x1.4abbce625be46p-1,  0x1.466bc67758cb2p-4, -0x1.32d2cce324134p-8,
    0x1.5078300c421f3p-13, -0x1.e3009897605b2p-19, 0x1.e3ff27bdadb4fp-25};
static const double JM_NAME(gaussian_cos)[JM_GAUSSIAN_COS_TERMS] = {
    -0x1.3bd3cc9be45dep+0,  0x1.03c1f081b5aaep-2,  -0x1.55d3c7e3c9280p-6, 0x1.e1f5068367b24p-11,
    -0x1.a6d1ec7e0bd9ap-16, 0x1.f9cc40acf508ep-22, -0x1.b263c362f0d8dp-28};
#else
#define JM_GAUSSIAN_HALF 16
#define JM_GAUSSIAN_STEP 0x1p-32f
#define JM_GAUSSIAN_LOW_ONE 0x1p-9f
#define JM_GAUSSIAN_HIGH_ONE 0x1p7f
#define JM_GAUSSIAN_TWO_THIRDS 0x3F2AAAABu
#define JM_TWO_LOG_2_HIGH 0x1.62e4p+0f
#define JM_TWO_LOG_2_LOW 0x1.7f7d1cp-19f
#define JM_GAUSSIAN_LOG_TERMS 3
#define JM_GAUSSIAN_SIN_TERMS 4
#define JM_GAUSSIAN_COS_TERMS 4
static const float JM_NAME(gaussian_log)[JM_GAUSSIAN_LOG_TERMS] = {-0x1.5555b4p+0f, -0x1.992b0ap-1f,
                                                                   -0x1.36e464p-1f};
static const float JM_NAME(gaussian_sin)[JM_GAUSSIAN_SIN_TERMS] = {0x1.921fb6p+0f, -0x1.4abbbep-1f,
                                                                   0x1.466004p-4f, -0x1.2dc84cp-8f};
static const float JM_NAME(gaussian_cos)[JM_GAUSSIAN_COS_TERMS] = {
    -0x1.3bd3ccp+0f, 0x1.03c1dep-2f, -0x1.55c5e0p-6f, 0x1.d9d57ep-11f};
#endif

/* Two of the four words through a round. */
JM_INLINE void JM_NAME(threefry_mix)(JM_W *a, JM_W *b, const int rotation) {
    *a += *b;
    *b = JM_ROTATE(*b, rotation) ^ *a;
}

/* Four rounds, by the rotations of the two pairs in each, and the key for the i-th time. */
JM_INLINE void JM_NAME(threefry_rounds)(JM_W x[4], const JM_W keys[3], const int i, const int a,
                                        const int b, const int c, const int d, const int e,
                                        const int f, const int g, const int h) {
    JM_NAME(threefry_mix)(&x[0], &x[1], a);
    JM_NAME(threefry_mix)(&x[2], &x[3], b);
    JM_NAME(threefry_mix)(&x[0], &x[3], c);
    JM_NAME(threefry_mix)(&x[2], &x[1], d);
    JM_NAME(threefry_mix)(&x[0], &x[1], e);
    JM_NAME(threefry_mix)(&x[2], &x[3], f);
    JM_NAME(threefry_mix)(&x[0], &x[3], g);
    JM_NAME(threefry_mix)(&x[2], &x[1], h);
    for (int k = 0; k < 4; k++) {
        const int place = (i + k) % 5;
        if (place != 2 && place != 3) /* where the key is zero */
            x[k] += keys[place == 4 ? 2 : place];
    }
    x[3] += (uint64_t)i;
}

/*
 * Threefry4x64-20 of JM_WW counters (block, 0, 0, 0) under the key (keys[0], keys[1], 0, 0), whose
 * fifth word is keys[2].  Held in every lane, which keeps their broadcasts out of the loop.
 */
JM_INLINE void JM_NAME(threefry)(JM_W block, const JM_W keys[3], JM_W x[4]) {
    x[0] = block + keys[0];
    x[1] = keys[1];
    x[2] = x[3] = block ^ block;
    JM_NAME(threefry_rounds)(x, keys, 1, 14, 16, 52, 57, 23, 40, 5, 37);
    JM_NAME(threefry_rounds)(x, keys, 2, 25, 33, 46, 12, 58, 22, 32, 32);
    JM_NAME(threefry_rounds)(x, keys, 3, 14, 16, 52, 57, 23, 40, 5, 37);
    JM_NAME(threefry_rounds)(x, keys, 4, 25, 33, 46, 12, 58, 22, 32, 32);
    JM_NAME(threefry_rounds)(x, keys, 5, 14, 16, 52, 57, 23, 40, 5, 37);
}

/*
 * bits widen / 2^B + more - half, rounded once, for bits widen < 2^B: the low and the high half of
 * the bits, and what is added to each, are exact.
 */
JM_INLINE JM_V JM_NAME(gaussian_fraction)(JM_VBITS bits, const JM_T widen, const JM_T half,
                                          const JM_T more) {
    const JM_T high_one = JM_GAUSSIAN_HIGH_ONE * widen, low_one = JM_GAUSSIAN_LOW_ONE * widen;
    const JM_UINT low_half = ((JM_UINT)1 << JM_GAUSSIAN_HALF) - 1;
    const JM_VBITS high = (bits >> JM_GAUSSIAN_HALF) | JM_TO_BITS(JM_SPLAT(high_one));
    const JM_VBITS low = (bits & low_half) | JM_TO_BITS(JM_SPLAT(low_one));
    return (JM_FROM_BITS(high) - (high_one + half)) + (JM_FROM_BITS(low) - (low_one - more));
}

/*
 * sqrt(-2 ln u), 2^-B <= u <= 1, with an error of at most 2.95 u.
 *
 * Let u = 2^e m, m in [2/3, 4/3).  Three roundings and 0.15 u make up the error of ln m, which is
 * all there is where e = 0.  Elsewhere |ln u| >= 1.4 |ln m|, and two more roundings, of sums, make
 * 3.9 u at most; the square root halves that and adds one.
 */
JM_INLINE JM_V JM_NAME(gaussian_radius)(JM_V u) {
    const JM_UINT one = (JM_UINT)(JM_MAX_EXP - 1) << JM_FRACTION_BITS;
    const JM_UINT fraction = ((JM_UINT)1 << JM_FRACTION_BITS) - 1;
    const JM_T large = (JM_T)((JM_UINT)1 << JM_FRACTION_BITS);
    const JM_VBITS offset = JM_TO_BITS(u) + (one - JM_GAUSSIAN_TWO_THIRDS);
    const JM_V e = JM_FROM_BITS((offset >> JM_FRACTION_BITS) | JM_TO_BITS(JM_SPLAT(large))) -
                   (large + (JM_MAX_EXP - 1));
    const JM_V m = JM_FROM_BITS((offset & fraction) + JM_GAUSSIAN_TWO_THIRDS);
    const JM_V s = (m - 1) / (m + 1), s2 = s * s;
    JM_V series = JM_SPLAT(JM_NAME(gaussian_log)[JM_GAUSSIAN_LOG_TERMS - 1]);
    for (int k = JM_GAUSSIAN_LOG_TERMS - 2; k >= 0; k--)
        series = JM_FMADD(series, s2, JM_SPLAT(JM_NAME(gaussian_log)[k]));
    const JM_V log_m = JM_FMADD(s, s2 * series, -4 * s);
    const JM_V rest = JM_FMADD(e, JM_SPLAT(-JM_TWO_LOG_2_LOW), log_m);
    return JM_VSQRT(JM_FMADD(e, JM_SPLAT(-JM_TWO_LOG_2_HIGH), rest));
}

/* scale times the numbers of pairs with bits a and b. */
JM_INLINE void JM_NAME(gaussian_pairs)(JM_VBITS a, JM_VBITS b, JM_V scale, JM_V *first,
                                       JM_V *second) {
    const int n_bits = 2 * JM_GAUSSIAN_HALF;
    const JM_UINT sign = (JM_UINT)1 << (n_bits - 1), below = ((JM_UINT)1 << (n_bits - 2)) - 1;
    const JM_V u = JM_NAME(gaussian_fraction)(a, 1, 0, JM_GAUSSIAN_STEP);
    const JM_V y = JM_NAME(gaussian_fraction)(b & below, 4, (JM_T)0.5, 0);
    const JM_V radius = JM_NAME(gaussian_radius)(u) * scale, y2 = y * y;
    JM_V sine = JM_SPLAT(JM_NAME(gaussian_sin)[JM_GAUSSIAN_SIN_TERMS - 1]);
    JM_V cosine = JM_SPLAT(JM_NAME(gaussian_cos)[JM_GAUSSIAN_COS_TERMS - 1]);
    for (int k = JM_GAUSSIAN_SIN_TERMS - 2; k >= 0; k--)
        sine = JM_FMADD(sine, y2, JM_SPLAT(JM_NAME(gaussian_sin)[k]));
    for (int k = JM_GAUSSIAN_COS_TERMS - 2; k >= 0; k--)
        cosine = JM_FMADD(cosine, y2, JM_SPLAT(JM_NAME(gaussian_cos)[k]));
    cosine = JM_FMADD(cosine, y2, JM_SPLAT(1));
    const JM_VBITS x = JM_TO_BITS(radius * cosine) ^ (b & sign);
    const JM_VBITS z = JM_TO_BITS(radius * (y * sine));
    const JM_VBITS all = (b ^ b) - ((b >> (n_bits - 2)) & 1); /* ones where they change places */
    const JM_VBITS change = (x ^ z) & all;
    *first = JM_FROM_BITS(x ^ change);
    *second = JM_FROM_BITS(z ^ change);
}

/* scale times the numbers of tiles [tile, tile + n_tiles). */
static void JM_NAME(gaussian_tiles)(const JM_W keys[3], uint64_t tile, ptrdiff_t n_tiles,
                                    JM_T scale, JM_T *out) {
    enum { PER_WORD = 8 / sizeof(JM_T), N_BLOCKS = JM_GAUSSIAN_TILE / (4 * PER_WORD) };
    uint64_t counters[JM_WW];
    for (int k = 0; k < JM_WW; k++)
        counters[k] = tile * N_BLOCKS + (uint64_t)k;
    JM_W block, x[4];
    memcpy(&block, counters, sizeof(block));
    for (ptrdiff_t t = 0; t < n_tiles; t++)
        for (int c = 0; c < N_BLOCKS; c += JM_WW) {
            JM_NAME(threefry)(block, keys, x);
            block += JM_WW;
            for (int i = 0; i < 2; i++)
                for (int k = 0; k < JM_PARTS; k++) {
                    JM_T *const at = out + t * JM_GAUSSIAN_TILE + (i * N_BLOCKS + c) * PER_WORD + k;
                    JM_V first, second;
                    JM_NAME(gaussian_pairs)
                    (JM_PART(x[i], k), JM_PART(x[i + 2], k), JM_SPLAT(scale), &first, &second);
                    JM_STORE(at, first);
                    JM_STORE(at + JM_GAUSSIAN_TILE / 2, second);
                }
        }
}

/*
 * scale times the numbers [first, first + count) of the stream of a key.
 *
 * key   (2)
 * out   (count)
 *
 * Requires first, count >= 0.  Never allocates.  A number is a function of key and position alone;
 * its error is at most 8 u (2.95 u of the radius, 2.9 u of sine or cosine, two products), where
 * nothing underflows.  The largest possible is sqrt(2 B ln 2) scale: 9.42 in float64, 6.66 in
 * float32; a pair is zero where u rounds to 1, of probability 2^-54 and 2^-25.  Returns JM_OK.
 */
static int JM_NAME(gaussian_fill)(const uint64_t *key, int64_t first, ptrdiff_t count, double scale,
                                  void *out_) {
    JM_T *const out = (JM_T *)out_;
    const JM_W zero = {0};
    const JM_W keys[3] = {zero + key[0], zero + key[1],
                          zero + (JM_THREEFRY_PARITY ^ key[0] ^ key[1])};
    ptrdiff_t done = 0;
    while (done < count) {
        const uint64_t number = (uint64_t)first + (uint64_t)done, tile = number / JM_GAUSSIAN_TILE;
        const ptrdiff_t from = (ptrdiff_t)(number % JM_GAUSSIAN_TILE), left = count - done;
        ptrdiff_t n = left - left % JM_GAUSSIAN_TILE;
        if (from == 0 && n > 0) {
            JM_NAME(gaussian_tiles)(keys, tile, n / JM_GAUSSIAN_TILE, (JM_T)scale, out + done);
        } else {
            JM_T numbers[JM_GAUSSIAN_TILE];
            n = left < JM_GAUSSIAN_TILE - from ? left : JM_GAUSSIAN_TILE - from;
            JM_NAME(gaussian_tiles)(keys, tile, 1, (JM_T)scale, numbers);
            memcpy(out + done, numbers + from, (size_t)n * sizeof(JM_T));
        }
        done += n;
    }
    return JM_OK;
}
