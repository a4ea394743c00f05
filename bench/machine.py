"""The machine that makes the figures: what it is, what it runs, and what it can do at best."""

import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import scipy

import jacometry
from jacometry import _kernels

try:
    import threadpoolctl
except ImportError:
    threadpoolctl = None

MAIN_MEMORY_BYTES = 32 * 2**20
FALLBACK_L2_BYTES = 2**20


def l2_bytes():
    """Size of the second-level cache of one core: Linux says, others are taken to have 1 MB."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return FALLBACK_L2_BYTES


def working_sets():
    """Bytes of input and output per regime: half of L2 leaves room for everybody's scratch."""
    return {"L2": l2_bytes() // 2, "32 MB": MAIN_MEMORY_BYTES}


def measure_roofs(dtype):
    """What the machine gives: GF/s of a large matrix product, GB/s of reading each working set.

    Both are the best of several turns of the BLAS at hand, with its threads as they are pinned.
    """

    def best(solve, n_turns=9, n_calls=1):
        taken = []
        for _ in range(n_turns):
            start = time.perf_counter()
            for _ in range(n_calls):
                solve()
            taken.append((time.perf_counter() - start) / n_calls)
        return min(taken)

    a = np.full((1024, 1024), 0.5, dtype)
    out = np.empty_like(a)
    roofs = {"gflops": 2 * 1024**3 / best(lambda: np.matmul(a, a, out=out)) / 1e9, "gbytes": {}}
    for name, n_bytes in working_sets().items():
        x = np.full(n_bytes // dtype.itemsize, 0.5, dtype)
        n_calls = max(1, 2**25 // n_bytes)
        roofs["gbytes"][name] = n_bytes / best(lambda x=x: np.dot(x, x), n_calls=n_calls) / 1e9
    return roofs


def best_roofs(first, second):
    """The higher of two measurements: what other processes take away is no part of a roof."""
    return {
        "gflops": max(first["gflops"], second["gflops"]),
        "gbytes": {k: max(rate, second["gbytes"][k]) for k, rate in first["gbytes"].items()},
    }


def describe_machine():
    """The processor, the instruction sets and the versions that made the figures."""
    versions = {"jacometry": jacometry.__version__, "python": platform.python_version()}
    versions |= {"numpy": np.__version__, "scipy": scipy.__version__}
    for name in ("torch", "numba"):
        if name in sys.modules:
            versions[name] = sys.modules[name].__version__
    return {
        "cpu": _cpu_model(),
        "n_cpus": os.cpu_count(),
        "l2_bytes": l2_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "isa": _kernels.active_isa(),
        "openmp": _kernels.has_openmp(),
        "versions": versions,
        "blas": _blas(),
    }


def _cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _blas():
    """Every BLAS that is loaded: which one, its version, the kernel it chose and its threads."""
    if threadpoolctl is None:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return [{"name": built["name"], "version": built["version"], "kernel": "unknown"}]
    return [
        {
            "name": library["prefix"],
            "version": library["version"],
            "kernel": library.get("architecture", "unknown"),
            "n_threads": library["num_threads"],
        }
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
