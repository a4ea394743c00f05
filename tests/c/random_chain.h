/*
 * Chains with random entries, and the oracle of the tests of chain_product, chain_jvp and
 * chain_vjp: loops in long double, whose range (2^16384) takes any of these chains without scaling.
 */
#ifndef RANDOM_CHAIN_H
#define RANDOM_CHAIN_H

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MAX_LAYERS = 5, MAX_WIDTH = 65, N_SAMPLES = 2 };

/* Where long double is software of 113 bits (aarch64), every third size. */
enum { SIZE_STEP = LDBL_MANT_DIG > 64 ? 3 : 1 };
static const ptrdiff_t SIZES[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 40};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES };

/* What a test chain is made of. */
typedef struct {
    int n_layers;
    ptrdiff_t widths[MAX_LAYERS + 1];
    int is_listed; /* one jm_layer each, else first and strides */
    int has_slopes, has_own_weights, has_own_slopes;
    int n_distinct; /* listed chains: the entries, which repeat; 0: one for every layer */
    int diagonal;   /* the layer whose W is the identity, or -1; listed chains only */
    enum jm_slope_side side;
    int from_last; /* products only */
    double shortcut;
    double weight_scale, slope_scale;
} recipe;

/* A chain in exactly sized buffers, one per array. */
typedef struct {
    jm_chain chain;
    jm_layer layers[MAX_LAYERS];
    void *weights[MAX_LAYERS], *slopes[MAX_LAYERS]; /* entry 0 holds all of a uniform chain */
    double *shortcuts;
    ptrdiff_t max_width;
    int dtype;
} test_chain;

static inline recipe square(ptrdiff_t n, int n_layers) {
    recipe r = {.n_layers = n_layers, .diagonal = -1, .weight_scale = 1, .slope_scale = 1};
    for (int k = 0; k <= n_layers; k++)
        r.widths[k] = n;
    return r;
}

/* Which of the chain's buffers holds layer k: a list may repeat, a uniform chain has one. */
static inline int block_of(const recipe *r, int k) {
    return !r->is_listed ? 0 : r->n_distinct ? k % r->n_distinct : k;
}

static inline void fill(void *entries, int dtype, ptrdiff_t n, double scale) {
    for (ptrdiff_t i = 0; i < n; i++)
        set(entries, dtype, i, normal() * scale);
}

static inline test_chain build(const recipe *r, int dtype) {
    test_chain t = {.dtype = dtype};
    for (int k = 0; k <= r->n_layers; k++)
        t.max_width = r->widths[k] > t.max_width ? r->widths[k] : t.max_width;
    const int n_blocks = !r->is_listed ? 1 : r->n_distinct ? r->n_distinct : r->n_layers;
    const ptrdiff_t per_block = r->is_listed ? 1 : r->n_layers;
    for (int k = 0; k < n_blocks; k++) {
        const ptrdiff_t rows = r->widths[k + 1], cols = r->widths[k];
        const ptrdiff_t n_slopes = r->side == JM_SLOPE_OUTPUT ? rows : cols;
        jm_layer *layer = &t.layers[k];
        layer->rows = rows;
        layer->cols = cols;
        layer->shortcut = r->shortcut;
        if (k != r->diagonal) {
            const ptrdiff_t n = per_block * rows * cols;
            t.weights[k] = buffer(n * (r->has_own_weights ? N_SAMPLES : 1), dtype);
            fill(t.weights[k], dtype, n * (r->has_own_weights ? N_SAMPLES : 1),
                 r->weight_scale / sqrt((double)cols));
            layer->weights = t.weights[k];
            layer->weights_stride = r->has_own_weights ? n : 0;
        }
        if (r->has_slopes || k == r->diagonal) {
            const ptrdiff_t n = per_block * n_slopes;
            t.slopes[k] = buffer(n * (r->has_own_slopes ? N_SAMPLES : 1), dtype);
            fill(t.slopes[k], dtype, n * (r->has_own_slopes ? N_SAMPLES : 1), r->slope_scale);
            layer->slopes = t.slopes[k];
            layer->slopes_stride = r->has_own_slopes ? n : 0;
        }
    }
    t.chain.n_layers = r->n_layers;
    t.chain.n_distinct = n_blocks;
    t.chain.slope_side = r->side;
    t.chain.from_last = r->from_last;
    if (!r->is_listed) {
        t.chain.first = t.layers[0];
        t.chain.weights_layer_stride = r->widths[0] * r->widths[0];
        t.chain.slopes_layer_stride = r->widths[0];
        if (r->shortcut != 0) {
            t.shortcuts = buffer(r->n_layers, JM_F64);
            for (int k = 0; k < r->n_layers; k++)
                t.shortcuts[k] = k % 2 ? -r->shortcut : r->shortcut;
            t.chain.shortcuts = t.shortcuts;
        }
    }
    return t;
}

/* The pointer to the list is set here, since a test_chain moves when it is returned. */
static inline const jm_chain *described(test_chain *t, const recipe *r) {
    t->chain.layers = r->is_listed ? t->layers : NULL;
    return &t->chain;
}

static inline void release(test_chain *t) {
    for (int k = 0; k < MAX_LAYERS; k++) {
        buffer_free(t->weights[k], t->dtype);
        buffer_free(t->slopes[k], t->dtype);
    }
    buffer_free(t->shortcuts, JM_F64);
}

/* Two listed layers, from width n to m and back, that repeat through an odd number of layers. */
static inline recipe repeating(ptrdiff_t n, ptrdiff_t m, int variant) {
    recipe r = square(n, MAX_LAYERS);
    for (int k = 1; k <= MAX_LAYERS; k += 2)
        r.widths[k] = m;
    r.is_listed = 1;
    r.n_distinct = 2;
    r.has_slopes = variant & 1;
    r.side = variant & 2 ? JM_SLOPE_INPUT : JM_SLOPE_OUTPUT;
    r.has_own_weights = variant & 4;
    r.has_own_slopes = 1;
    return r;
}

/* ---- the oracle ------------------------------------------------------------------------- */

typedef long double matrix[MAX_WIDTH][MAX_WIDTH];

/* Layer k for one sample as a matrix, and the sum of the magnitudes that each entry is made of. */
static inline void factor(const test_chain *t, const recipe *r, int k, ptrdiff_t sample, matrix f,
                          matrix magnitude) {
    const ptrdiff_t rows = r->widths[k + 1], cols = r->widths[k];
    const int block = block_of(r, k);
    const ptrdiff_t w_at =
        (r->is_listed ? 0 : k * rows * cols) + sample * t->layers[block].weights_stride;
    const ptrdiff_t n_slopes = r->side == JM_SLOPE_OUTPUT ? rows : cols;
    const ptrdiff_t s_at =
        (r->is_listed ? 0 : k * n_slopes) + sample * t->layers[block].slopes_stride;
    const double c = t->shortcuts ? t->shortcuts[k] : r->shortcut;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++) {
            long double x = t->weights[block]
                                ? get(t->weights[block], t->dtype, w_at + i * cols + j)
                                : (long double)(i == j);
            if (t->slopes[block])
                x *= get(t->slopes[block], t->dtype, s_at + (r->side == JM_SLOPE_OUTPUT ? i : j));
            f[i][j] = x + (i == j ? c : 0);
            magnitude[i][j] = fabsl(x) + (i == j ? fabs(c) : 0);
        }
}

/* out = f x, and the same of the magnitudes with the rounding of one layer added. */
static inline void apply(ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t cols, const matrix f,
                         const matrix magnitude, matrix x, matrix size) {
    static matrix y, y_size;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++) {
            long double sum = 0, sum_size = 0;
            for (ptrdiff_t k = 0; k < depth; k++) {
                sum += f[i][k] * x[k][j];
                sum_size += magnitude[i][k] * size[k][j];
            }
            y[i][j] = sum;
            y_size[i][j] = sum_size;
        }
    memcpy(x, y, sizeof y);
    memcpy(size, y_size, sizeof y_size);
}

static inline void transpose(ptrdiff_t rows, ptrdiff_t cols, matrix f) {
    static matrix g;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++)
            g[j][i] = f[i][j];
    memcpy(f, g, sizeof g);
}

#endif
