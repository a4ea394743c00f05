"""Two modules on jacometry's kernels, one in Cython and one in C: ``pip install .``

jacometry is needed to compile, for its headers, and at run time, for the functions; nothing is
linked.  What is compiled against one jacometry runs with every later one of the same ABI version,
so ask for at least the version compiled against.
"""

from setuptools import Extension, setup

import jacometry

setup(
    name="jacometry-embedding",
    version="1.0",
    py_modules=[],
    install_requires=[f"jacometry>={jacometry.__version__}"],
    ext_modules=[
        Extension(name, [source], include_dirs=[jacometry.get_include()])
        for name, source in (
            ("cython_consumer", "cython_consumer.pyx"),
            ("c_consumer", "c_consumer.c"),
        )
    ],
)
