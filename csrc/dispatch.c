/* Which tables this build holds, and how many of them this machine can run. */
#include "jm_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(JM_BASELINE_ONLY)
#define JM_IS_X86 1
#else
#define JM_IS_X86 0
#endif

#define JM_DECLARE(isa)                                                                            \
    extern const jm_chains_kernels jm_chains_##isa;                                                \
    extern const jm_spectra_kernels jm_spectra_##isa;                                              \
    extern const jm_norms_kernels jm_norms_##isa;                                                  \
    extern const jm_moments_kernels jm_moments_##isa;
#define JM_TABLE(isa)                                                                              \
    {#isa, &jm_chains_##isa, &jm_spectra_##isa, &jm_norms_##isa, &jm_moments_##isa}

JM_DECLARE(baseline)
#if JM_IS_X86
JM_DECLARE(avx2)
JM_DECLARE(avx512)
#endif

const jm_table jm_tables[] = {
    JM_TABLE(baseline),
#if JM_IS_X86
    JM_TABLE(avx2),
    JM_TABLE(avx512),
#endif
};

int jm_n_tables(void) {
    int n_tables = 1;
#if JM_IS_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        n_tables = 2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
            n_tables = 3;
    }
#endif
    return n_tables;
}
