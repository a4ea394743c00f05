/*
 * The kernels of JM_FAMILY for the least machine of this architecture: SSE2, NEON, or plain C.
 * JM_PLAIN_C asks for the last everywhere, so that what MSVC gets can be tested.
 */
#if defined(JM_PLAIN_C)
/* no vector types */
#elif defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define JM_VECTOR_BYTES 16
#elif defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#define JM_VECTOR_BYTES 16
#endif

#define JM_ISA baseline
#include "families/variant.inc.h"
