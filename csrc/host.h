/*
 * What the binding needs of the machine it runs on: the floating-point environment of a thread, and
 * OpenMP's idea of a team.  For _kernels.pyx alone.
 */
#ifndef JM_HOST_H
#define JM_HOST_H

#include <fenv.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <xmmintrin.h>
/* The control register alone, 11 ns; fesetenv does the x87 unit too and takes 300. */
typedef unsigned int jm_fp_environment;
#define JM_MXCSR_DEFAULT 0x1F80u
static inline jm_fp_environment jm_fp_enter(void) {
    const jm_fp_environment saved = _mm_getcsr();
    _mm_setcsr(JM_MXCSR_DEFAULT);
    return saved;
}
static inline void jm_fp_leave(jm_fp_environment saved) { _mm_setcsr(saved); }
#else
typedef fenv_t jm_fp_environment;
static inline jm_fp_environment jm_fp_enter(void) {
    jm_fp_environment saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}
static inline void jm_fp_leave(jm_fp_environment saved) { fesetenv(&saved); }
#endif

static inline int jm_openmp_max_threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static inline int jm_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* n bytes at a multiple of 64; jm_free releases them.  NULL when there is no memory. */
static inline void *jm_malloc(size_t n) {
    char *block = malloc(n + 64 + sizeof(void *));
    if (!block)
        return NULL;
    char *aligned = block + sizeof(void *);
    aligned += 64 - (size_t)aligned % 64;
    ((void **)aligned)[-1] = block;
    return aligned;
}
static inline void jm_free(void *aligned) {
    if (aligned)
        free(((void **)aligned)[-1]);
}

#endif
