/* gaussian_fill against Threefry4x64-20 word by word and Box and Muller in long double. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "check.h"

enum { TILE = 128, N_TILES = 40, N_NUMBERS = TILE * N_TILES, ROUNDINGS = 8 };

static const uint64_t KEYS[][2] = {{0, 0}, {~(uint64_t)0, ~(uint64_t)0}, {0x0123456789ABCDEF, 7}};

static uint64_t rotated(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

/* The words of the counter (block, 0, 0, 0) under the key (key[0], key[1], 0, 0). */
static void threefry(const uint64_t *key, uint64_t block, uint64_t *x) {
    static const int rotations[8][2] = {{14, 16}, {52, 57}, {23, 40}, {5, 37},
                                        {25, 33}, {46, 12}, {58, 22}, {32, 32}};
    const uint64_t keys[5] = {key[0], key[1], 0, 0, 0x1BD11BDAA9FC1A22 ^ key[0] ^ key[1]};
    for (int i = 0; i < 4; i++)
        x[i] = keys[i] + (i == 0 ? block : 0);
    for (int n = 0; n < 20; n++) {
        const int odd = n % 2 ? 2 : 0; /* words 1 and 3 change places after every round */
        uint64_t *const one = x + (1 + odd) % 4, *const other = x + (3 + odd) % 4;
        x[0] += *one;
        *one = rotated(*one, rotations[n % 8][0]) ^ x[0];
        x[2] += *other;
        *other = rotated(*other, rotations[n % 8][1]) ^ x[2];
        for (int i = 0; i < 4 && n % 4 == 3; i++)
            x[i] += keys[(n / 4 + 1 + i) % 5] + (i == 3 ? (uint64_t)(n / 4 + 1) : 0);
    }
}

/* Half of a word, or all of it. */
static uint64_t bits_of(uint64_t word, int dtype, int half) {
    return dtype == JM_F64 ? word : half ? word >> 32 : word & 0xFFFFFFFF;
}

/* The numbers `pair` and `pair` + 64 of a tile, before the scale. */
static void expected_pair(const uint64_t *key, int dtype, uint64_t tile, int pair,
                          long double *numbers) {
    const int n_bits = dtype == JM_F64 ? 64 : 32, n_blocks = n_bits / 2;
    const int word = dtype == JM_F64 ? pair : pair / 2;
    uint64_t x[4];
    threefry(key, tile * (uint64_t)n_blocks + (uint64_t)(word % n_blocks), x);
    const uint64_t a = bits_of(x[word / n_blocks], dtype, pair % 2);
    const uint64_t b = bits_of(x[word / n_blocks + 2], dtype, pair % 2);
    const uint64_t angle = b & (((uint64_t)1 << (n_bits - 2)) - 1);
    /* The integers fit the 64 bits of a long double, but not 2^64 - 1 plus 1. */
    const long double wide_u = ldexpl((long double)a, -n_bits) + ldexpl(1, -n_bits);
    const long double wide_y = ldexpl((long double)angle, 2 - n_bits) - 0.5L;
    const double u = dtype == JM_F64 ? (double)wide_u : (double)(float)wide_u;
    const double y = dtype == JM_F64 ? (double)wide_y : (double)(float)wide_y;
    const long double half_turn = 1.57079632679489661923132169163975144L * y;
    const long double radius = sqrtl(-2 * logl(u));
    const long double cosine = radius * cosl(half_turn) * (b >> (n_bits - 1) ? -1 : 1);
    const long double sine = radius * sinl(half_turn);
    const int exchanged = (b >> (n_bits - 2)) & 1;
    numbers[0] = exchanged ? sine : cosine;
    numbers[1] = exchanged ? cosine : sine;
}

static void test_numbers(const jm_table *table, int dtype, const uint64_t *key, int64_t tile) {
    const double scale = 0.37, u = unit_roundoff(dtype);
    const long double factor = dtype == JM_F64 ? (long double)scale : (long double)(float)scale;
    void *out = buffer(N_NUMBERS, dtype);
    check(table->moments->gaussian_fill[dtype](key, TILE * tile, N_NUMBERS, scale, out) == JM_OK,
          "status");
    for (int i = 0; i < N_NUMBERS / 2; i++) {
        const int at = i / 64 * TILE + i % 64;
        long double numbers[2];
        expected_pair(key, dtype, (uint64_t)(tile + i / 64), i % 64, numbers);
        for (int side = 0; side < 2; side++) {
            const long double value = factor * numbers[side];
            const double found = get(out, dtype, at + 64 * side);
            const long double allowed = ROUNDINGS * (u + LDBL_EPSILON) * fabsl(value);
            check(fabsl(found - value) <= allowed, "number %d of tile %lld: %.17g for %.17Lg",
                  at + 64 * side, (long long)tile, found, value);
        }
    }
    buffer_free(out, dtype);
}

/* Any part of the stream is a part of the whole, and nothing is written beside it. */
static void test_parts(const jm_table *table, int dtype) {
    static const ptrdiff_t parts[][2] = {{0, 0},   {0, 1},   {1, 1},   {127, 1},   {127, 2},
                                         {64, 64}, {3, 125}, {3, 126}, {128, 128}, {5, 700}};
    void *whole = buffer(6 * TILE, dtype);
    table->moments->gaussian_fill[dtype](KEYS[2], 0, 6 * TILE, 1.0, whole);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const ptrdiff_t first = parts[i][0], count = parts[i][1];
        void *out = buffer(count, dtype);
        table->moments->gaussian_fill[dtype](KEYS[2], first, count, 1.0, out);
        check(same_bits(out, (char *)whole + (size_t)first * size_of(dtype),
                        (size_t)count * size_of(dtype)),
              "numbers from %td to %td", first, first + count);
        buffer_free(out, dtype);
    }
    buffer_free(whole, dtype);
}

void test_gaussian(const jm_table *table, int dtype) {
    for (size_t i = 0; i < sizeof(KEYS) / sizeof(KEYS[0]); i++) {
        test_numbers(table, dtype, KEYS[i], 0);
        test_numbers(table, dtype, KEYS[i], (int64_t)1 << 40);
    }
    test_parts(table, dtype);
}
