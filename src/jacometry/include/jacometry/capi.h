/*
 * jacometry for C and C++ extension modules.
 *
 * Compile with jacometry.get_include() among the include directories; nothing is linked.  Call
 * jm_import() once when the module is initialised, in every source file that includes this header;
 * after that the functions of functions.h are there as jm_<name>_f32 and jm_<name>_f64.  Before it
 * they crash.
 *
 *     PyMODINIT_FUNC PyInit_my_module(void) {
 *         if (jm_import() < 0)
 *             return NULL;
 *         ...
 *
 * A module works with the jacometry it was compiled against and with every later one of the same
 * JM_ABI_VERSION; with any other, jm_import() raises ImportError.
 */
#ifndef JACOMETRY_CAPI_H
#define JACOMETRY_CAPI_H

#include <Python.h>

#include "jacometry/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define JM_CAPSULE "jacometry._kernels.c_api"

/* What the capsule points to; a slot holds the float32 and the float64 function. */
typedef struct {
    uint32_t abi_version;
    uint32_t struct_size; /* in bytes: grows with the list of functions */
#define JM_T void
#define JM_FUNCTION(result, name, parameters, arguments) result(*name[2]) parameters;
#include "jacometry/functions.h"
#undef JM_FUNCTION
#undef JM_T
} jm_capi;

/* Set by jm_import; one in every source file. */
static const jm_capi *jm_api;

/* Imports jacometry.  Returns 0, or -1 with ImportError set.  Needs the GIL. */
static inline int jm_import(void) {
    const jm_capi *found = (const jm_capi *)PyCapsule_Import(JM_CAPSULE, 0);
    if (!found) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_SetString(PyExc_ImportError,
                            "the jacometry installed has no C API: install a later one");
        return -1;
    }
    if (found->abi_version != JM_ABI_VERSION) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled for version %u of jacometry's C API, and the "
                     "jacometry installed has version %u: compile the module again",
                     (unsigned)JM_ABI_VERSION, (unsigned)found->abi_version);
        return -1;
    }
    if (found->struct_size < sizeof(jm_capi)) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled against a later jacometry than the one installed "
                     "(%u bytes of C API, which has %u): install a later jacometry",
                     (unsigned)sizeof(jm_capi), (unsigned)found->struct_size);
        return -1;
    }
    jm_api = found;
    return 0;
}

#define JM_T float
#define JM_FUNCTION(result, name, parameters, arguments)                                           \
    static inline result jm_##name##_f32 parameters { return jm_api->name[JM_F32] arguments; }
#include "jacometry/functions.h"
#undef JM_FUNCTION
#undef JM_T

#define JM_T double
#define JM_FUNCTION(result, name, parameters, arguments)                                           \
    static inline result jm_##name##_f64 parameters { return jm_api->name[JM_F64] arguments; }
#include "jacometry/functions.h"
#undef JM_FUNCTION
#undef JM_T

#ifdef __cplusplus
}
#endif

#endif
