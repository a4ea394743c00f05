/*
 * The kernels of one family, for float32 and float64, compiled for one instruction set.
 * The including file defines JM_FAMILY, JM_ISA, the variant's name, and JM_VECTOR_BYTES.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "jm_kernels.h"

#define JM_CAT_(a, b) a##b
#define JM_CAT(a, b) JM_CAT_(a, b)
#define JM_STRING_(a) #a
#define JM_STRING(a) JM_STRING_(a)

#define JM_T float
#define JM_IS_F64 0
#define JM_NAME(name) JM_CAT(name, _f32)
#include JM_STRING(JM_FAMILY.inc.h)
#undef JM_T
#undef JM_IS_F64
#undef JM_NAME

#define JM_T double
#define JM_IS_F64 1
#define JM_NAME(name) JM_CAT(name, _f64)
#include JM_STRING(JM_FAMILY.inc.h)
#undef JM_T
#undef JM_IS_F64
#undef JM_NAME

#define JM_KERNEL(result, name, arguments) .name = {JM_CAT(name, _f32), JM_CAT(name, _f64)},
#define JM_KERNELS(family, isa) const jm_##family##_kernels jm_##family##_##isa
#define JM_KERNELS_OF(family, isa) JM_KERNELS(family, isa)
JM_KERNELS_OF(JM_FAMILY, JM_ISA) = {
#include JM_STRING(JM_FAMILY.def)
};
#undef JM_KERNEL
