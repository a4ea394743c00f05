"""Time a kernel and its peers side by side: answers first, then interleaved rounds, then JSON.

A bench file yields `Case` objects and hands them to `main`, which owns the command line:

``python bench/bench_X.py [--quick] [--json FILE] [--threads N] [--dtype f32|f64] [--isa NAME]``
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import best_roofs, describe_machine, measure_roofs

from jacometry import _kernels

try:
    import threadpoolctl
except ImportError:
    threadpoolctl = None

FORMAT = "jacometry-bench-1"
OURS = "ours"

# Read by OpenMP, OpenBLAS, MKL, BLIS, Accelerate and numba when they load, so set before that.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Idle teams sleep: one contestant's threads would spin through the next one's turn.
SLEEP_WHEN_IDLE = {
    "OMP_WAIT_POLICY": "passive",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
PINNED = "JACOMETRY_BENCH_PINNED"

MAX_SECONDS = 20.0
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    quick: bool = False
    n_threads: int = 1
    dtype: str = "f64"
    n_rounds: int = 15
    min_seconds: float = 0.01

    @property
    def numpy_dtype(self):
        return np.dtype({"f32": np.float32, "f64": np.float64}[self.dtype])


@dataclass(frozen=True)
class Case:
    """One job at one size, with everybody who does it.

    Attributes
    ----------
    job : str
        The kernel, and what distinguishes this use of it.
    sizes : dict
        What identifies the case within its job: JSON scalars only.
    contestants : dict of str to callable
        No arguments, returns the answer.  One is named "ours"; the others are peers, and one that
        raises an exception is treated as wrong.
    error : callable
        Takes an answer and returns how far it is off a truth that belongs to no contestant.
    tolerance : float
        The largest error at which an answer counts.
    n_units, unit : int, str
        What the time is quoted per, such as 4096 times "layer".
    flops, n_bytes : float, optional
        Work that no method avoids, and bytes of input and output.
    working_set : str, optional
        The key of `roofs` whose bandwidth bounds the case.
    is_self_timed : bool
        The contestants return their own seconds; nothing is checked.
    """

    job: str
    sizes: dict
    contestants: dict[str, Callable]
    error: Callable | None
    tolerance: float
    n_units: int = 1
    unit: str = "call"
    flops: float | None = None
    n_bytes: float | None = None
    working_set: str | None = None
    is_self_timed: bool = False


def optional(*names, notes):
    """Import the peers that are there; a note for each that is not."""
    found = {}
    for name in names:
        try:
            found[name] = __import__(name)
        except ImportError:
            notes.append(f"{name} is not installed: its column is skipped")
    return found


def measure(case, n_rounds, min_seconds):
    """Check every answer, then time those that are right.

    Parameters
    ----------
    case : Case
    n_rounds : int
        Rounds; in each, every contestant has one turn, and the first turn goes round.  Fewer once
        they have taken MAX_SECONDS.
    min_seconds : float
        A turn repeats the call until it lasts about as long.

    Returns
    -------
    dict
        The case as it goes into JSON.  ``ratio`` is the median over rounds of best peer / ours,
        with quartiles; None where ours is wrong or no peer is right.
    """
    record = {"job": case.job, **_kept_fields(case), "contestants": {}}
    if OURS not in case.contestants:
        raise ValueError(f"no contestant of {case.job} is named {OURS!r}")
    right = {}
    for name, solve in case.contestants.items():
        # The call that is checked is the first part of the warm-up.
        try:
            answer = solve()
        except Exception as exception:
            if name == OURS:
                raise
            error, failure = math.nan, f"{type(exception).__name__}: {exception}"
        else:
            error, failure = (0.0 if case.is_self_timed else float(case.error(answer))), None
        is_right = error <= case.tolerance  # False for NaN
        record["contestants"][name] = {
            "error": error if math.isfinite(error) else None,
            "is_right": is_right,
        } | ({"failure": failure} if failure else {})
        if is_right:
            right[name] = solve

    turns = {name: _n_calls(case, solve, min_seconds) for name, solve in right.items()}
    seconds = {name: [] for name in right}
    names = list(right)
    end = time.perf_counter() + MAX_SECONDS
    for i in range(n_rounds if names else 0):
        if i >= MIN_ROUNDS and time.perf_counter() > end:
            break
        first = i % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_one_turn(case, right[name], turns[name]))

    for name, taken in seconds.items():
        record["contestants"][name].update(_summary(taken), n_calls=turns[name])
    record["best_peer"], record["ratio"] = _ratio(seconds)
    return record


def _kept_fields(case):
    return {
        "sizes": case.sizes,
        "tolerance": case.tolerance,
        "n_units": case.n_units,
        "unit": case.unit,
        "flops": case.flops,
        "n_bytes": case.n_bytes,
        "working_set": case.working_set,
    }


def _n_calls(case, solve, min_seconds):
    if case.is_self_timed:
        return 1
    start, n_calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < min_seconds or not n_calls:
        solve()
        n_calls += 1
    return max(1, round(n_calls * min_seconds / taken))


def _one_turn(case, solve, n_calls):
    if case.is_self_timed:
        return solve()
    start = time.perf_counter()
    for _ in range(n_calls):
        solve()
    return (time.perf_counter() - start) / n_calls


def _summary(values):
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "q1": float(q1), "q3": float(q3), "n_rounds": len(values)}


def _ratio(seconds):
    peers = {name: taken for name, taken in seconds.items() if name != OURS}
    if OURS not in seconds or not peers or not seconds[OURS]:
        return None, None
    best = min(peers, key=lambda name: statistics.median(peers[name]))
    return best, _summary([p / o for p, o in zip(peers[best], seconds[OURS], strict=True)])


def document(bench, cases, options, *, notes=(), has_roofs=False, report=None):
    """Measure all cases and return what `write` writes.

    Parameters
    ----------
    bench : str
        Name of the bench file without ``bench_``.
    cases : iterable of Case
        A generator, so that one case's arrays live at a time.
    options : Options
    notes : list of str
        May grow while `cases` is consumed.
    has_roofs : bool
        Whether to measure roofs, before and after.
    report : callable, optional
        Called with each record.
    """
    records = []
    roofs = measure_roofs(options.numpy_dtype) if has_roofs else None
    for case in cases:
        record = measure(case, options.n_rounds, options.min_seconds)
        records.append(record)
        if report:
            report(record)
    if has_roofs:
        roofs = best_roofs(roofs, measure_roofs(options.numpy_dtype))
    return {
        "format": FORMAT,
        "bench": bench,
        "command": _command(bench, options),
        "quick": options.quick,
        "n_threads": options.n_threads,
        "dtype": options.dtype,
        "machine": describe_machine(),
        "roofs": roofs,
        "notes": list(notes),
        "cases": records,
    }


def _command(bench, options):
    words = ["python", f"bench/bench_{bench}.py", *(["--quick"] if options.quick else [])]
    words += ["--threads", str(options.n_threads), "--dtype", options.dtype]
    return " ".join([*words, "--isa", _kernels.active_isa()])


def write(path, found):
    """Write a document as JSON."""
    Path(path).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def read(path):
    """Read a document that `write` wrote."""
    found = json.loads(Path(path).read_text())
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} file")
    return found


def describe(sizes):
    """Sizes in one line."""
    return ", ".join(f"{name}={value}" for name, value in sizes.items())


def _print_record(record):
    parts = []
    for name, column in record["contestants"].items():
        if column["is_right"]:
            per_unit = column["median"] / record["n_units"] * 1e9
            parts.append(f"{name} {per_unit:.4g} ns/{record['unit']}")
        else:
            parts.append(f"{name} WRONG ({column.get('failure') or column['error']})")
    ratio = record["ratio"]
    gain = f"  x{ratio['median']:.2f}" if ratio else ""
    print(f"{record['job']} [{describe(record['sizes'])}]: {'; '.join(parts)}{gain}", flush=True)


def parse(arguments):
    """The common command line."""
    parser = argparse.ArgumentParser(description="Time the kernels beside their peers.")
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds, about a minute")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="for all (default 1)")
    parser.add_argument("--dtype", choices=("f32", "f64"), default="f64")
    parser.add_argument(
        "--isa",
        choices=_kernels.available_isas(),
        help="our variant (default: the best); OPENBLAS_CORETYPE sets that of OpenBLAS",
    )
    parsed = parser.parse_args(arguments)
    if parsed.threads < 1:
        parser.error(f"--threads must be at least 1, got {parsed.threads}")
    return parsed


def main(bench, make_cases, *, has_roofs=False, arguments=None):
    """Run a bench file.

    Parameters
    ----------
    bench : str
        Its name without ``bench_``.
    make_cases : callable
        Takes `Options` and a list for notes, yields `Case`.
    has_roofs : bool
        Whether its cases state flops and bytes.
    arguments : list of str, optional
        Default: the command line.

    Returns
    -------
    int
        Exit status: 1 if an answer of ours is wrong.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = parse(arguments)
    if os.environ.get(PINNED) != str(parsed.threads):
        # NumPy is loaded by now and its BLAS has read the environment: start over with it set.
        count = str(parsed.threads)
        pinned = os.environ | SLEEP_WHEN_IDLE | dict.fromkeys((*THREAD_VARIABLES, PINNED), count)
        command = [sys.executable, sys.argv[0], *arguments]
        if os.name == "posix":
            os.execve(sys.executable, command, pinned)
        return subprocess.run(command, env=pinned).returncode
    if threadpoolctl is not None:
        threadpoolctl.threadpool_limits(limits=parsed.threads)
    if parsed.isa:
        _kernels.select_isa(parsed.isa)

    cut = {"n_rounds": 5, "min_seconds": 0.001} if parsed.quick else {}
    options = Options(parsed.quick, parsed.threads, parsed.dtype, **cut)
    notes = []
    cases = make_cases(options, notes)
    found = document(bench, cases, options, notes=notes, has_roofs=has_roofs, report=_print_record)
    for note in notes:
        print(f"note: {note}")
    if parsed.json:
        write(parsed.json, found)
    wrong = [r for r in found["cases"] if not r["contestants"][OURS]["is_right"]]
    for record in wrong:
        print(f"WRONG: {record['job']} [{describe(record['sizes'])}]", file=sys.stderr)
    return 1 if wrong else 0
