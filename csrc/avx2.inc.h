/* The kernels of JM_FAMILY for x86-64 with AVX2 and FMA; nothing elsewhere. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define JM_ISA avx2
#define JM_VECTOR_BYTES 32
#include "families/variant.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int jm_avx2_is_empty;
#endif
