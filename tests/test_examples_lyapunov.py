"""The Lyapunov examples run, and print the published exponents."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def test_henon(tmp_path):
    value, error = run("henon", tmp_path).T
    assert (np.abs(value - [0.41922, -1.62319]) <= 5.5 * error + 2e-5).all()


def test_lorenz(tmp_path):
    value, error = run("lorenz", tmp_path).T
    # A fourth-order step of 0.01 moves the fast exponent by some 1e-3.
    assert (np.abs(value - [0.9056, 0, -14.5723]) <= 5.5 * error + 3e-3).all()


def test_reservoir(tmp_path):
    value, error = run("reservoir", tmp_path).T
    assert value[0] + 5 * error[0] < 0 < value[2] - 5 * error[2]
