/* The kernels for the least machine of this architecture: SSE2, NEON, or plain C. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define JM_VECTOR_BYTES 16
#elif defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#define JM_VECTOR_BYTES 16
#endif

#define JM_ISA baseline
#include "variant.inc.h"
