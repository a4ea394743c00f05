/* The kernels of JM_FAMILY for x86-64 with AVX-512 F, DQ, VL, BW and FMA; nothing elsewhere. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#endif

#define JM_ISA avx512
#define JM_VECTOR_BYTES 64
/* What takes rows that fill half a vector, in the same workspace, which is larger than its own. */
#include "jm_kernels.h"
extern const jm_chains_kernels jm_chains_avx2;
#define JM_NARROW jm_chains_avx2
#include "families/variant.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int jm_avx512_is_empty;
#endif
