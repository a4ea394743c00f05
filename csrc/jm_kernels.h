/* The table of kernels, from the registry: a slot holds the float32 and the float64 instance. */
#ifndef JM_KERNELS_H
#define JM_KERNELS_H

#include "jacometry/types.h"

#define JM_KERNEL(result, name, arguments) result(*name[2]) arguments;
typedef struct {
    const char *isa;
#include "kernels.def"
} jm_table;
#undef JM_KERNEL

/* The tables in this build, best last, and the number of them that this machine can run. */
extern const jm_table *const jm_tables[];
int jm_n_tables(void);

#endif
