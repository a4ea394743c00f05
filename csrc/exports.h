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

/* jm_slot_<kernel>(): its two instances there, whichever family it is of. */
#define JM_KERNEL(result, name, arguments)                                                         \
    static inline result(*const *jm_slot_##name(void)) arguments { return JM_SLOTS->name; }
#define JM_SLOTS jm_active->chains
#include "families/chains.def"
#undef JM_SLOTS
#define JM_SLOTS jm_active->spectra
#include "families/spectra.def"
#undef JM_SLOTS
#undef JM_KERNEL

#define JM_T void
#define JM_EXPORT(result, name, type, parameters, arguments)                                       \
    static result jm_export_##name##_##type parameters {                                           \
        const jm_fp_environment saved = jm_fp_enter();                                             \
        const result returned = jm_slot_##name()[type] arguments;                                  \
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
