"""The thread policy: how many threads a call may use."""

import math
import operator
import os
from pathlib import Path

from . import _kernels

MAX_THREADS = 1024
_forked = False
_most = 0  # what None may take; 0 until it is first asked for


def _after_fork_in_child():
    # An OpenMP runtime that had a team before fork() would wait for threads that do not exist.
    global _forked, _most
    _forked, _most = True, 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _cgroup_quota() -> int:
    """CPUs granted by the control group (v2, then v1), rounded up; MAX_THREADS without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return MAX_THREADS
    try:
        cpus = math.ceil(int(quota) / int(period))
    except (ValueError, ZeroDivisionError):  # "max"
        return MAX_THREADS
    return cpus if cpus > 0 else MAX_THREADS


def resolve(n_threads) -> int:
    """The team size for `n_threads`: None is the smaller of OpenMP's limit and the CPU quota."""
    global _most
    if n_threads is None:
        if not _most:
            _most = _cgroup_quota()
        limit = _kernels.openmp_max_threads()
        return limit if limit < _most else _most
    if isinstance(n_threads, bool):
        raise TypeError("n_threads must be a positive integer or None, got a bool")
    try:
        count = operator.index(n_threads)
    except TypeError:
        raise TypeError(
            f"n_threads must be a positive integer or None, got {type(n_threads).__name__}"
        ) from None
    if count < 1:
        raise ValueError(f"n_threads must be at least 1, got {count}")
    return 1 if _forked else min(count, MAX_THREADS)
