# Address and C signature of each function, for whoever does not cimport: numba, LowLevelCallable.
__pyx_capi__: dict[str, object]
