"""What other people's modules were compiled against stays: signatures, slots, layouts, versions.

A line may be added to signatures.txt, and then a slot has been added at the end.  Any other change
of it or of layout.c breaks what is already compiled, and comes with a new JM_ABI_VERSION.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import jacometry as jm
from jacometry import _kernels, cython_api

HERE = Path(__file__).parent
HEADERS = Path(jm.get_include())
NAME = b"jacometry._kernels.c_api"

capsule_name = ctypes.pythonapi.PyCapsule_GetName
capsule_name.restype, capsule_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def frozen():
    """Name and C signature of each function, in the order of the slots."""
    lines = (HERE / "signatures.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ") for line in lines)


def compiles(source, *flags, include=HEADERS):
    """Whether the compiler of that language accepts a file; all of its words if it does not."""
    compiler = shutil.which("cc" if source.suffix == ".c" else "c++")
    python = Path(sysconfig.get_path("include"))
    if os.name == "nt" or compiler is None or not (python / "Python.h").exists():
        pytest.skip("needs a compiler with options like GCC's, and Python.h")
    done = subprocess.run(
        [compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags,
         f"-I{include}", "-isystem", python, source],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode == 0, done.stderr


def test_the_signatures_to_cimport_are_the_frozen_ones():
    found = {name: capsule_name(c).decode() for name, c in cython_api.__pyx_capi__.items()}
    assert found == frozen()


def test_every_struct_in_a_signature_carries_the_version():
    structs = {s for signature in frozen().values() for s in re.findall(r"jm_\w+", signature)}
    assert structs == {"jm_chain_v1", "jm_vectors_v1", "jm_lyapunov_v1"}
    types = (HEADERS / "jacometry" / "types.h").read_text(encoding="utf-8")
    assert "#define JM_ABI_VERSION 1\n" in types


def test_the_slots_stand_in_the_frozen_order():
    header = (HEADERS / "jacometry" / "functions.h").read_text(encoding="utf-8")
    listed = re.findall(r"^JM_FUNCTION\(\w+, (\w+),", header, re.MULTILINE)
    assert [f"jm_{name}_{t}" for name in listed for t in ("f32", "f64")] == list(frozen())


def test_the_capsule_says_its_version_and_size_and_has_every_slot():
    where = capsule_pointer(_kernels.c_api, NAME)
    version, size = (ctypes.c_uint32 * 2).from_address(where)
    n_slots = len(frozen())
    assert version == 1
    assert size == 8 + ctypes.sizeof(ctypes.c_void_p) * n_slots
    assert all((ctypes.c_void_p * n_slots).from_address(where + 8))


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="frozen for 64-bit machines")
def test_the_layout_of_the_structs_is_the_frozen_one():
    is_right, words = compiles(HERE / "layout.c", "-std=c11")
    assert is_right, words


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="frozen for 64-bit machines")
def test_a_field_more_does_not_pass_for_the_frozen_layout(tmp_path):
    shutil.copytree(HEADERS / "jacometry", tmp_path / "jacometry")
    types = tmp_path / "jacometry" / "types.h"
    text = types.read_text(encoding="utf-8")
    types.write_text(text.replace("    ptrdiff_t n_layers;", "    ptrdiff_t n_layers, depth;"))
    is_right, words = compiles(HERE / "layout.c", "-std=c11", include=tmp_path)
    assert not is_right
    assert "jm_chain.n_distinct" in words


def test_the_headers_serve_cpp(tmp_path):
    source = tmp_path / "consumer.cpp"
    source.write_text('#include "jacometry/capi.h"\nint main() { return jm_import(); }\n')
    is_right, words = compiles(source, "-std=c++11")
    assert is_right, words


def test_the_cython_side_is_up_to_date_with_the_list():
    done = subprocess.run(
        [sys.executable, HERE / "write_cython_api.py", "--check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def import_with_another_capsule(change):
    """What importing cython_api says once `change` has been at the capsule's copy."""
    code = f"""
import ctypes
from jacometry import _kernels
name = {NAME!r}
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
where = pointer_of(_kernels.c_api, name)
copy = ctypes.create_string_buffer(ctypes.string_at(where, {8 * (len(frozen()) + 1)}) + bytes(64))
header = (ctypes.c_uint32 * 2).from_buffer(copy)
_kernels.c_api = new(ctypes.addressof(copy), name, None)
{change}
import jacometry.cython_api
"""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("header[0] = 2", "compiled for version 1 of jacometry's C API.*has version 2"),
        ("header[0] = 0", "compiled for version 1 of jacometry's C API.*has version 0"),
        ("header[1] -= 8", "compiled against a later jacometry than the one installed"),
        ("del _kernels.c_api", "the jacometry installed has no C API"),
        ("_kernels.c_api = None", "the jacometry installed has no C API"),
    ],
)
def test_a_jacometry_that_does_not_fit_is_refused(change, words):
    done = import_with_another_capsule(change)
    assert done.returncode == 1
    assert re.search(f"^ImportError: .*{words}", done.stderr, re.MULTILINE), done.stderr


@pytest.mark.parametrize("change", ["", "header[1] += 64"])
def test_a_later_jacometry_with_more_functions_is_accepted(change):
    done = import_with_another_capsule(change)
    assert done.returncode == 0, done.stderr
