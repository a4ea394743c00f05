# Marks the package for cimport; what there is to cimport stands in cython_api.pxd.
