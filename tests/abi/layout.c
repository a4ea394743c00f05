/*
 * The layout of the structs that cross into other people's modules, frozen.  Compiling this file is
 * the test.  A change here comes with a new JM_ABI_VERSION.  For 64-bit machines.
 */
#define PY_SSIZE_T_CLEAN
#include "jacometry/capi.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define FIELD(type, name, offset, bytes)                                                           \
    _Static_assert(offsetof(type, name) == (offset) && sizeof(((type *)0)->name) == (bytes),       \
                   #type "." #name)

_Static_assert(JM_ABI_VERSION == 1, "a new version freezes its layout here");

FIELD(jm_layer, weights, 0, 8);
FIELD(jm_layer, slopes, 8, 8);
FIELD(jm_layer, weights_stride, 16, 8);
FIELD(jm_layer, slopes_stride, 24, 8);
FIELD(jm_layer, rows, 32, 8);
FIELD(jm_layer, cols, 40, 8);
FIELD(jm_layer, shortcut, 48, 8);
SIZE(jm_layer, 56);

FIELD(jm_chain, n_layers, 0, 8);
FIELD(jm_chain, n_distinct, 8, 8);
FIELD(jm_chain, slope_side, 16, 4);
FIELD(jm_chain, from_last, 20, 4);
FIELD(jm_chain, layers, 24, 8);
FIELD(jm_chain, first, 32, 56);
FIELD(jm_chain, weights_layer_stride, 88, 8);
FIELD(jm_chain, slopes_layer_stride, 96, 8);
FIELD(jm_chain, shortcuts, 104, 8);
SIZE(jm_chain, 112);

FIELD(jm_vectors, n_vectors, 0, 8);
FIELD(jm_vectors, per_sample, 8, 8);
FIELD(jm_vectors, has_shared_weights, 16, 4);
FIELD(jm_vectors, start, 24, 8);
FIELD(jm_vectors, log_norms, 32, 8);
FIELD(jm_vectors, kept, 40, 8);
FIELD(jm_vectors, kept_exponents, 48, 8);
SIZE(jm_vectors, 56);

FIELD(jm_lyapunov, max_width, 0, 8);
FIELD(jm_lyapunov, is_square, 8, 4);
FIELD(jm_lyapunov, n_columns, 16, 8);
FIELD(jm_lyapunov, burn_in, 24, 8);
FIELD(jm_lyapunov, n_batches, 32, 8);
FIELD(jm_lyapunov, start, 40, 8);
FIELD(jm_lyapunov, exponents, 48, 8);
FIELD(jm_lyapunov, standard_errors, 56, 8);
FIELD(jm_lyapunov, history, 64, 8);
SIZE(jm_lyapunov, 72);

/* The start of the capsule's struct; the slots that follow grow at the end, in signatures.txt. */
FIELD(jm_capi, abi_version, 0, 4);
FIELD(jm_capi, struct_size, 4, 4);
FIELD(jm_capi, chain_product_work, 8, 16);

_Static_assert(JM_F32 == 0 && JM_F64 == 1, "jm_dtype");
_Static_assert(JM_OK == 0 && JM_NON_FINITE == 1 && JM_NOT_CONVERGED == 2, "jm_status");
_Static_assert(JM_SLOPE_OUTPUT == 0 && JM_SLOPE_INPUT == 1, "jm_slope_side");
