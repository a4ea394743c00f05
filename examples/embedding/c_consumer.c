/*
 * jacometry's kernels from a C extension module: import the functions when the module is
 * initialised, describe a chain, bring the workspace, call without the GIL.  The module does what
 * cython_consumer.pyx does, and takes any object that has a buffer of doubles.
 */
#define PY_SSIZE_T_CLEAN
#include "jacometry/capi.h"

#include <math.h>
#include <string.h>

static const double LOG_2 = 0.693147180559945309417;

/* Square factors that lie one after the other, without slopes or shortcuts. */
static jm_chain chain_of(const Py_buffer *weights) {
    const ptrdiff_t n = weights->shape[1];
    jm_chain chain;
    memset(&chain, 0, sizeof chain); /* what is not set is absent */
    chain.n_layers = weights->shape[0];
    chain.first.weights = weights->buf;
    chain.first.rows = chain.first.cols = n;
    chain.weights_layer_stride = n * n;
    return chain;
}

/* The first multiple of 64 in a block. */
static void *aligned(char *block) { return (void *)(((uintptr_t)block + 63) / 64 * 64); }

/* A contiguous buffer of doubles.  Returns 0, or -1 with an exception set. */
static int read_doubles(PyObject *object, const char *name, int ndim, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return -1;
    int is_right = view->ndim == ndim && view->format && !strcmp(view->format, "d");
    for (int axis = 0; is_right && axis < ndim; axis++)
        is_right = view->shape[axis] >= 1;
    if (is_right && ndim == 3)
        is_right = view->shape[1] == view->shape[2];
    if (!is_right) {
        PyBuffer_Release(view);
        PyErr_Format(PyExc_ValueError, "%s must be float64 of shape %s", name,
                     ndim == 3 ? "(L, n, n)" : "(n,)");
        return -1;
    }
    return 0;
}

/* product_log_norm(weights): log of the Frobenius norm of weights[-1] @ ... @ weights[0]. */
static PyObject *product_log_norm(PyObject *module, PyObject *object) {
    Py_buffer weights;
    (void)module;
    if (read_doubles(object, "weights", 3, &weights) < 0)
        return NULL;
    const jm_chain chain = chain_of(&weights);
    const ptrdiff_t n = weights.shape[1];
    double *mantissa = (double *)PyMem_Malloc((size_t)(n * n) * sizeof(double));
    char *block = (char *)PyMem_Malloc(jm_chain_product_work_f64(n, n) + 63);
    int64_t exponent = 0;
    ptrdiff_t bad_layer = -1;
    double square = 0;
    int status = JM_OK;
    if (mantissa && block) {
        Py_BEGIN_ALLOW_THREADS;
        status = jm_chain_product_f64(&chain, 0, n, 0, chain.n_layers, mantissa, &exponent,
                                      &bad_layer, aligned(block));
        for (ptrdiff_t i = 0; i < n * n; i++)
            square += mantissa[i] * mantissa[i];
        Py_END_ALLOW_THREADS;
    }
    const int has_memory = mantissa && block;
    PyMem_Free(mantissa);
    PyMem_Free(block);
    PyBuffer_Release(&weights);
    if (!has_memory)
        return PyErr_NoMemory();
    if (status != JM_OK)
        return PyErr_Format(PyExc_ValueError, "layer %zd is not finite", (Py_ssize_t)bad_layer);
    return PyFloat_FromDouble(log(sqrt(square)) + (double)exponent * LOG_2);
}

/* The backpropagated norms into a list, or NULL with an exception set. */
static PyObject *backpropagated(const Py_buffer *weights, const Py_buffer *cotangent) {
    const jm_chain chain = chain_of(weights);
    const ptrdiff_t n = weights->shape[1], n_interfaces = chain.n_layers + 1;
    double *log_norms = (double *)PyMem_Malloc((size_t)n_interfaces * sizeof(double));
    void **kept = (void **)PyMem_Calloc((size_t)n_interfaces, sizeof(void *));
    int64_t **kept_exponents = (int64_t **)PyMem_Calloc((size_t)n_interfaces, sizeof(int64_t *));
    char *block = (char *)PyMem_Malloc(jm_chain_vectors_work_f64(n) + 63);
    PyObject *list = NULL;
    if (log_norms && kept && kept_exponents && block) {
        jm_vectors vectors;
        ptrdiff_t bad_layer;
        int status;
        vectors.n_vectors = vectors.per_sample = vectors.has_shared_weights = 1;
        vectors.start = cotangent->buf;
        vectors.log_norms = log_norms;
        vectors.kept = kept; /* all NULL: keep no vectors */
        vectors.kept_exponents = kept_exponents;
        Py_BEGIN_ALLOW_THREADS;
        status = jm_chain_vjp_f64(&chain, &vectors, n, 0, 1, 0, chain.n_layers, &bad_layer,
                                  aligned(block));
        Py_END_ALLOW_THREADS;
        if (status != JM_OK)
            PyErr_Format(PyExc_ValueError, "layer %zd is not finite", (Py_ssize_t)bad_layer);
        else
            list = PyList_New(n_interfaces);
        for (ptrdiff_t k = 0; list && k < n_interfaces; k++) {
            PyObject *item = PyFloat_FromDouble(log_norms[k]);
            if (!item || PyList_SetItem(list, k, item) < 0)
                Py_CLEAR(list);
        }
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(block);
    PyMem_Free(kept_exponents);
    PyMem_Free(kept);
    PyMem_Free(log_norms);
    return list;
}

/* gradient_log_norms(weights, cotangent): logs of the backpropagated norms at all interfaces. */
static PyObject *gradient_log_norms(PyObject *module, PyObject *arguments) {
    PyObject *objects[2], *list = NULL;
    Py_buffer weights, cotangent;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO", &objects[0], &objects[1]) ||
        read_doubles(objects[0], "weights", 3, &weights) < 0)
        return NULL;
    if (read_doubles(objects[1], "cotangent", 1, &cotangent) == 0) {
        if (cotangent.shape[0] == weights.shape[1])
            list = backpropagated(&weights, &cotangent);
        else
            PyErr_SetString(PyExc_ValueError, "cotangent must have shape (n,)");
        PyBuffer_Release(&cotangent);
    }
    PyBuffer_Release(&weights);
    return list;
}

static PyMethodDef methods[] = {
    {"product_log_norm", product_log_norm, METH_O, NULL},
    {"gradient_log_norms", gradient_log_norms, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "c_consumer", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_c_consumer(void) {
    if (jm_import() < 0)
        return NULL;
    return PyModule_Create(&definition);
}
