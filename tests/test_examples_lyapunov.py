"""The Lyapunov examples run, and print the published exponents."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("matplotlib")
EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not part of this copy of the tests", allow_module_level=True)

NUMBER = r"(-?\d+\.\d+) \+- (\d+\.\d+)"


def run(name, folder):
    """Exponents and standard errors that a script prints."""
    import jacometry

    figure = folder / f"{name}.png"
    path = os.pathsep.join([str(Path(jacometry.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", figure], capture_output=True, text=True,
        check=True, timeout=300, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert figure.stat().st_size > 1000
    return np.array(re.findall(NUMBER, done.stdout), float)


def t_bound(freedom):
    """Standard errors within which a mean lies but for one run in 10^7."""
    return stats.t.isf(0.5e-7, freedom)


def test_henon(tmp_path):
    value, error = run("henon", tmp_path).T
    # 32 batches; half a unit of the fifth digit in what is published, printed, and its error.
    half = 5e-6
    assert (np.abs(value - [0.41922, -1.62319]) <= t_bound(31) * (error + half) + 2 * half).all()


def test_lorenz(tmp_path):
    value, error = run("lorenz", tmp_path).T
    # 16 orbits of 32 batches; digits printed and published; and a step of dt = 0.01, which takes a
    # mode of rate r for one of r - r (r dt)^4 / 120, with |r| < 23 on the attractor.
    half, step = 5e-5, 23 * 0.23**4 / 120
    bound = t_bound(16 * 31) * (error + half) + 2 * half + step
    assert (np.abs(value - [0.9056, 0, -14.5723]) <= bound).all()


def test_reservoir(tmp_path):
    value, error = run("reservoir", tmp_path).T
    assert value[0] + t_bound(31) * error[0] < 0 < value[2] - t_bound(31) * error[2]
