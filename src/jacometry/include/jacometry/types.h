/*
 * The C types shared by every kernel of jacometry: item statuses and the description of a chain.
 * Plain C11, no Python.
 */
#ifndef JACOMETRY_TYPES_H
#define JACOMETRY_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* Which of a pair of functions: that for float32, or that for float64. */
enum jm_dtype { JM_F32 = 0, JM_F64 = 1 };

/* What became of one item.  Kernels return one of these; statuses are never combined. */
enum jm_status {
    JM_OK = 0,
    JM_NON_FINITE = 1,    /* an input entry that the item depends on is NaN or infinite */
    JM_NOT_CONVERGED = 2, /* the iteration limit came first; the bounds returned still hold */
    JM_NOT_TABULATED = 3  /* the table has no panel for the item, whose results are NaN */
};

/* Which side of W the slopes stand on: F = c I + diag(s) W, or F = c I + W diag(s). */
enum jm_slope_side { JM_SLOPE_OUTPUT = 0, JM_SLOPE_INPUT = 1 };

/*
 * One factor F (rows x cols) of a chain, for all samples.
 *
 * weights  (n_samples or 1, rows, cols) row-major; NULL stands for the identity (slopes then stand)
 * slopes   (n_samples or 1, rows on the output side, cols on the input side); NULL stands for ones
 *
 * Strides are in elements from one sample to the next; 0 shares the array.
 */
typedef struct {
    const void *weights;
    const void *slopes;
    ptrdiff_t weights_stride;
    ptrdiff_t slopes_stride;
    ptrdiff_t rows;
    ptrdiff_t cols;
    double shortcut;
} jm_layer;

/*
 * A chain J = F_{L-1} ... F_0.  Either `layers` points to n_distinct entries, which repeat until
 * there are L, and what follows it is not read; or it is NULL and layer k is `first`, which is
 * square, moved on by k layer strides (in elements).
 */
typedef struct {
    ptrdiff_t n_layers;
    ptrdiff_t n_distinct; /* entries of `layers`: layer k is layers[k % n_distinct] */
    enum jm_slope_side slope_side;
    int from_last; /* chain_product multiplies from the last layer on; other kernels need 0 */
    const jm_layer *layers;
    jm_layer first;
    ptrdiff_t weights_layer_stride;
    ptrdiff_t slopes_layer_stride;
    const double *shortcuts; /* (L,), or NULL: first.shortcut in every layer */
} jm_chain;

/*
 * Vectors to be taken through a chain, and where the results go.  Vector i belongs to sample
 * i / per_sample.  Interface 0 is the chain's input, interface L its output.
 *
 * has_shared_weights  no layer has weights of its own for each sample
 * start               (n_vectors, width at the near end)
 * log_norms           (n_vectors, L + 1)   natural log of the 2-norm at every interface
 * kept                L + 1 pointers, entry k NULL or (n_vectors, width of interface k): mantissas
 * kept_exponents      L + 1 pointers, entry k NULL or (n_vectors,): their exponents; or NULL, which
 *                     keeps the far end alone: kept then is two pointers, mantissas and exponents
 */
typedef struct {
    ptrdiff_t n_vectors;
    ptrdiff_t per_sample;
    int has_shared_weights;
    const void *start;
    double *log_norms;
    void *const *kept;
    int64_t *const *kept_exponents;
} jm_vectors;

/*
 * What is asked of the Lyapunov spectrum of a chain, and where it goes.
 *
 * is_square        every width is max_width
 * n_columns        exponents per item, at most the smallest width
 * burn_in          steps that are taken but not counted
 * n_batches        batches of nearly equal length for the standard errors
 * start            (width of the input, n_columns): columns to start from, the same for all items
 * exponents        (n_items, n_columns)   natural log of the growth per step
 * standard_errors  (n_items, n_columns)   of them, from the means of the batches
 * history          (n_items, n_layers - burn_in, n_columns)   growth in each step; or NULL
 */
typedef struct {
    ptrdiff_t max_width;
    int is_square;
    ptrdiff_t n_columns;
    ptrdiff_t burn_in;
    ptrdiff_t n_batches;
    const void *start;
    double *exponents;
    double *standard_errors;
    double *history;
} jm_lyapunov;

/* The activations that have a kernel. */
enum jm_activation_id {
    JM_IDENTITY = 0,
    JM_LEAKY_RELU = 1, /* x above 0, parameters[0] x below, slope parameters[1] at 0 */
    JM_ERF = 2,
    JM_GELU = 3,
    JM_SIN = 4,
    JM_QUADRATIC = 5, /* x^2 */
    JM_TABULATED = 6  /* whatever jm_activation.table was made for */
};

/*
 * A table of six moments as functions of q.  A panel is a quarter of an octave, from 1 + j / 4 to
 * 1 + (j + 1) / 4 times 2^e, j in 0..3, and has a polynomial of degree 15 for each moment, in
 * t = 8 (q / 2^e - 1 - j / 4) - 1, which runs from -1 to 1.
 *
 * polynomials  (n_panels, 6, 16)  coefficients of 1, t, t^2, ...; moments in the order of
 *                                 jm_moments; panel 0 is NaN throughout
 * panels       (8192,)            entry 4 (e + 1023) + j: the panel's place in polynomials, 0 if
 *                                 there is none
 * ends         (2, 6)             the moments at q = 0 and their limits at infinity
 */
typedef struct {
    const double *polynomials;
    const int32_t *panels;
    const double *ends;
} jm_moment_table;

/*
 * A table of two-point means at equal variances: see csrc/kernels/correlation.inc.h.
 *
 * coefficients  (n_patches, 4, 20, 24)  K and S of c >= 0, K and S of c < 0: coefficients of
 *                                       T_i(y) T_j(x), zero for j >= 20
 * patches       by the number of a patch its place in coefficients, -1 where it is not there
 *
 * The n_octaves octaves of sqrt(q) and of t begin at 2^low_octave; q is taken to
 * [4^(low_octave + 1), 4^(low_octave + n_octaves) / 2].
 */
typedef struct {
    const double *coefficients;
    const int32_t *patches;
    ptrdiff_t n_octaves;
    int low_octave;
    int first_log2; /* log2 of the end of the first piece of s */
} jm_two_point_table;

/*
 * An activation: which one, and its parameters or, for JM_TABULATED, its table; those it does not
 * have are not read.
 */
typedef struct {
    enum jm_activation_id id;
    double parameters[2];
    const jm_moment_table *table;
} jm_activation;

/*
 * Where the Gaussian moments of an activation go, one entry per item, of the kernel's type:
 * E of phi, phi^2, phi', phi'^2 and phi''^2, and d E phi^2 / dq.
 */
typedef struct {
    void *phi;
    void *phi2;
    void *dphi;
    void *dphi2;
    void *d2phi2;
    void *phi2_slope;
} jm_moments;

/* Arguments of the variance map, of the kernel's type; strides in elements, 0 for one number. */
typedef struct {
    const void *q;
    const void *sigma_w;
    const void *sigma_b;
    ptrdiff_t q_stride;
    ptrdiff_t sigma_w_stride;
    ptrdiff_t sigma_b_stride;
} jm_variance_arguments;

/*
 * Changes with the layout of a struct that functions.h takes, and with the parameters of a function
 * there.  capi.h compares it when a C module is imported; Cython compares signatures instead, by
 * the names of their types, hence the structs' names that carry it.
 */
#define JM_ABI_VERSION 1
typedef jm_chain jm_chain_v1;
typedef jm_vectors jm_vectors_v1;
typedef jm_lyapunov jm_lyapunov_v1;

#endif
