/*
 * The functions of jacometry/functions.h as this build has them, and the struct behind the capsule.
 * Each calls the table in use, in the default floating-point environment.  For _kernels.pyx alone.
 */
#ifndef JM_EXPORTS_H
#define JM_EXPORTS_H

#include "host.h"
#include "jacometry/capi.h"
#include "jm_kernels.h"

/* The table in use by Python, C and Cython alike. */
static const jm_table *jm_active;

#define JM_T void
#define JM_EXPORT(result, name, type, parameters, arguments)                                       \
    static result jm_export_##name##_##type parameters {                                           \
        const jm_fp_environment saved = jm_fp_enter();                                             \
        const result returned = jm_active->name[type] arguments;                                   \
        jm_fp_leave(saved);                                                                        \
        return returned;                                                                           \
    }
#define JM_FUNCTION(result, name, parameters, arguments)                                           \
    JM_EXPORT(result, name, JM_F32, parameters, arguments)                                         \
    JM_EXPORT(result, name, JM_F64, parameters, arguments)
#include "jacometry/functions.h"
#undef JM_FUNCTION
#undef JM_EXPORT
#undef JM_T

#define JM_FUNCTION(result, name, parameters, arguments)                                           \
    .name = {jm_export_##name##_JM_F32, jm_export_##name##_JM_F64},
static const jm_capi jm_exports = {
    .abi_version = JM_ABI_VERSION,
    .struct_size = sizeof(jm_capi),
#include "jacometry/functions.h"
};
#undef JM_FUNCTION

#endif
