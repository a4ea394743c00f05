/*
 * The registry: families/<family>.def has a line for each kernel of a family,
 * JM_KERNEL(return type, name, (arguments)).  A kernel is compiled for float32 and float64 and for
 * every instruction set; a slot holds the two instances.
 */
#ifndef JM_KERNELS_H
#define JM_KERNELS_H

#include "jacometry/types.h"

#define JM_KERNEL(result, name, arguments) result(*name[2]) arguments;
typedef struct {
#include "families/chains.def"
} jm_chains_kernels;
typedef struct {
#include "families/spectra.def"
} jm_spectra_kernels;
typedef struct {
#include "families/norms.def"
} jm_norms_kernels;
typedef struct {
#include "families/moments.def"
} jm_moments_kernels;
#undef JM_KERNEL

typedef struct {
    const char *isa;
    const jm_chains_kernels *chains;
    const jm_spectra_kernels *spectra;
    const jm_norms_kernels *norms;
    const jm_moments_kernels *moments;
} jm_table;

/* The tables in this build, best last, and the number of them that this machine can run. */
extern const jm_table jm_tables[];
int jm_n_tables(void);

#endif
