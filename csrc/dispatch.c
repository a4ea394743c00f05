/* Which tables this build holds, and how many of them this machine can run. */
#include "jm_kernels.h"

extern const jm_table jm_table_baseline;
#if defined(__x86_64__) && defined(__GNUC__)
extern const jm_table jm_table_avx2;
extern const jm_table jm_table_avx512;
#endif

const jm_table *const jm_tables[] = {
    &jm_table_baseline,
#if defined(__x86_64__) && defined(__GNUC__)
    &jm_table_avx2,
    &jm_table_avx512,
#endif
};

int jm_n_tables(void) {
    int n_tables = 1;
#if defined(__x86_64__) && defined(__GNUC__)
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
