"""The extensions, the kernels once per instruction set, and the OpenMP probe."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The longest to compile first, for the sake of processors that would wait for it.
FAMILIES = ["chains", "spectra", "norms", "moments"]
C_SOURCES = [
    *(f"csrc/units/{f}_{isa}.c" for f in FAMILIES for isa in ("avx512", "avx2", "baseline")),
    "csrc/dispatch.c",
]
C_HEADERS = [
    *map(str, Path("csrc").glob("**/*.h")),
    *map(str, Path("csrc").glob("**/*.def")),
    *map(str, Path("src/jacometry/include/jacometry").glob("*.h")),
]
CYTHON_PARTS = [*map(str, Path("src/jacometry").glob("*.px[di]"))]
# One wheel serves every later CPython through the stable ABI; free-threaded builds have none yet.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
LIMITED_API = None if FREE_THREADED else "0x030B0000"

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


class BuildExt(build_ext):
    """build_ext with this project's compiler flags, an OpenMP probe and all processors at work."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            compile_args, openmp, libraries = ["/O2", "/std:c11", "/fp:precise"], "/openmp", []
        else:
            compile_args = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"]
            openmp, libraries = "-fopenmp", ["m"]
        openmp_args, link_args = [], []
        if self.compiles_with(openmp):
            openmp_args = [openmp]
            link_args = [] if self.compiler.compiler_type == "msvc" else [openmp]
        else:
            print(
                f"jacometry: NOTICE: the compiler does not build OpenMP programs with {openmp}; "
                "building without it: everything works, on one thread.",
                file=sys.stderr,
            )
        for extension in self.extensions:
            extension.extra_compile_args += compile_args
            extension.libraries += libraries
        kernels.extra_compile_args += openmp_args
        kernels.extra_link_args += link_args
        if self.compiler.compiler_type != "msvc":
            self.compiler.compile = side_by_side(self.compiler.compile)
        super().build_extensions()

    def compiles_with(self, flag):
        """Whether the compiler builds and links an OpenMP program with `flag`."""
        if os.environ.get("JACOMETRY_NO_OPENMP"):
            return False
        folder = tempfile.mkdtemp()
        try:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[flag])
            link_flags = [] if self.compiler.compiler_type == "msvc" else [flag]
            self.compiler.link_executable(
                objects, str(Path(folder, "probe")), extra_postargs=link_flags
            )
            return subprocess.run([str(Path(folder, "probe"))], check=False).returncode == 0
        except Exception:  # the compiler's own error types differ by platform; any means "no"
            return False
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def side_by_side(compile_sources):
    """The compiler's `compile`, with a thread for each of its sources."""

    def compile_each(sources, *args, **kwargs):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(lambda source: compile_sources([source], *args, **kwargs), sources)
            return [name for names in objects for name in names]

    return compile_each


def compiled(name, *c_sources):
    """The extension jacometry.`name`, of a Cython file and C files."""
    return Extension(
        f"jacometry.{name}",
        sources=[f"src/jacometry/{name}.pyx", *c_sources],
        depends=[*C_HEADERS, *CYTHON_PARTS],
        include_dirs=["csrc", "src/jacometry/include"],
        define_macros=[("Py_LIMITED_API", LIMITED_API)] if LIMITED_API else [],
        py_limited_api=LIMITED_API is not None,
    )


kernels = compiled("_kernels", *C_SOURCES)

setup(
    ext_modules=[kernels, compiled("cython_api")],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
