"""What this build and this machine are, for bug reports, and where its C headers are."""

import os
import platform
from pathlib import Path

import numpy as np
import scipy

from . import _backend, _kernels, _threads


def show_config(mode="stdout"):
    """Show the build, the instruction sets and the thread policy.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary, as ``numpy.show_config`` does.

    Returns
    -------
    dict or None
        With ``mode="dicts"``.

    Examples
    --------
    >>> import jacometry as jm
    >>> sorted(jm.show_config(mode="dicts"))[:3]
    ['backend', 'cpus', 'isa']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    from . import __version__

    config = {
        "jacometry": __version__,
        "isa": _kernels.active_isa(),
        "isas_available": _kernels.available_isas(),
        "backend": _backend.name,
        "openmp": _kernels.has_openmp(),
        "threads": _threads.resolve(None),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:15s} {', '.join(value) if isinstance(value, list) else value}")
    return None


def get_include():
    """Folder of jacometry's C headers, for compiling against them.

    Modules in Cython ``cimport jacometry.cython_api``; modules in C include ``jacometry/capi.h``.
    Both find what they need with this folder among their include directories, and link nothing.
    The headers say what each function takes and promises.

    Returns
    -------
    str
        The absolute path of a folder that holds ``jacometry/capi.h``.

    Examples
    --------
    >>> from pathlib import Path
    >>> import jacometry
    >>> Path(jacometry.get_include(), "jacometry", "capi.h").exists()
    True
    """
    return str(Path(__file__).resolve().parent / "include")
