"""The modules of examples/embedding, compiled against the jacometry that these tests run on.

`.ci/run` runs them on the installed wheel.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import jacometry as jm

SOURCES = Path(__file__).parents[2] / "examples" / "embedding"
EPS = np.finfo(np.float64).eps
CONSUMERS = ("cython_consumer", "c_consumer")

CALL = """
import importlib, json, sys
import numpy as np
import jacometry

consumer = importlib.import_module(sys.argv[1])
weights, cotangent = np.load("weights.npy"), np.load("cotangent.npy")
messages = []
spoilt = weights.copy()
spoilt[-1, 0, 0] = np.nan
for bad in ((spoilt, cotangent), (weights[:, :-1].copy(), cotangent), (weights, cotangent[:-1])):
    try:
        messages.append(list(consumer.gradient_log_norms(*bad)))
    except ValueError as error:
        messages.append(str(error))
print(json.dumps({
    "jacometry": jacometry.__file__,
    "isa": jacometry.show_config(mode="dicts")["isa"],
    "product": consumer.product_log_norm(weights),
    "gradients": list(consumer.gradient_log_norms(weights, cotangent)),
    "messages": messages,
}))
"""


def run(folder, *arguments, **environment):
    """Python with the jacometry at hand, whose path may be relative to where we are."""
    path = os.pathsep.join([str(Path(jm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the consumers, built in it."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if os.name != "nt" and not (shutil.which(compiler) and headers.exists()):
        pytest.skip("needs a C compiler and Python.h")
    folder = tmp_path_factory.mktemp("embedding") / "sources"
    shutil.copytree(SOURCES, folder)
    run(folder, "setup.py", "--quiet", "build_ext", "--inplace")
    return folder


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize(("n_layers", "n"), [(1, 1), (300, 7), (2000, 33)])
def test_a_consumer_computes_what_python_does(folder, consumer, isa, rng, n_layers, n):
    weights = 10 * rng.standard_normal((n_layers, n, n))
    cotangent = rng.standard_normal(n)
    np.save(folder / "weights.npy", weights)
    np.save(folder / "cotangent.npy", cotangent)
    found = json.loads(run(folder, "-c", CALL, consumer, JACOMETRY_ISA=isa))

    assert Path(found["jacometry"]).samefile(jm.__file__)
    assert found["isa"] == isa
    # The mantissas are the same, their n^2 squares are summed in another order.
    log_norm = float(jm.chain_product(weights).log_norm())
    assert found["product"] == pytest.approx(log_norm, rel=2 * EPS, abs=(n * n + 4) * EPS)
    assert found["gradients"] == list(jm.chain_vjp(weights, cotangent).log_norms)


def test_a_cython_module_refuses_structs_of_another_version(folder):
    code = """
import ctypes
from jacometry import cython_api
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
later = b"int (jm_chain_v2 const *, Py_ssize_t)"
cython_api.__pyx_capi__["jm_chain_product_f64"] = new(1, later, None)
try:
    import cython_consumer
except TypeError as error:
    print(error)
"""
    message = run(folder, "-c", code)
    assert "jm_chain_product_f64 has wrong signature" in message
    assert "jm_chain_v1" in message
    assert "jm_chain_v2" in message


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_consumer_names_what_is_wrong(folder, consumer, rng):
    np.save(folder / "weights.npy", rng.standard_normal((5, 4, 4)))
    np.save(folder / "cotangent.npy", rng.standard_normal(4))
    not_finite, not_square, too_short = json.loads(run(folder, "-c", CALL, consumer))["messages"]
    assert not_finite == "layer 4 is not finite"
    assert not_square.startswith("weights must")
    assert too_short.startswith("cotangent must have shape")
