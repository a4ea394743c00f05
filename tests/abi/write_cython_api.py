"""Writes the Cython side of the C API from the list in jacometry/functions.h.

``python tests/abi/write_cython_api.py`` writes what follows the marker in cython_api.pxd, and all
of cython_api.pyx; with ``--check`` it only says, by its exit status, whether they are up to date.
"""

import re
import sys
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "jacometry"
MARKER = "# From here on written by tests/abi/write_cython_api.py.\n"
PYX_HEAD = '''# cython: language_level=3, freethreading_compatible=True
# Written by tests/abi/write_cython_api.py from jacometry/functions.h.
"""The C API as functions to cimport: each is one of the capsule's."""

cdef extern from "jacometry/capi.h":
    int jm_import() except -1

'''
ENTRY = re.compile(r"^JM_FUNCTION\((\w+), (\w+),\s*\((.*?)\),\s*\((.*?)\)\)$", re.M | re.S)
TYPES = {"_f32": "float", "_f64": "double"}


def functions():
    """Result, name, parameters and their names of each function, in the words of Cython."""
    listed = (PACKAGE / "include" / "jacometry" / "functions.h").read_text(encoding="utf-8")
    for result, name, parameters, arguments in ENTRY.findall(listed):
        for suffix, real in TYPES.items():
            words = " ".join(parameters.split()).replace("JM_T", real)
            words = words.replace("ptrdiff_t", "Py_ssize_t").removeprefix("void")
            cython_result = result.replace("ptrdiff_t", "Py_ssize_t")
            yield cython_result, f"jm_{name}{suffix}", words, " ".join(arguments.split())


def wrapped(opening, items, closing, indent):
    """`opening(items)closing`, the items on lines of their own where one line is too long."""
    line = f"{indent}{opening}({items}){closing}\n"
    if len(line) <= 100:
        return line
    inner = f"{indent}    "
    items = items.replace(" ", "\0").replace(",\0", ", ")  # a type stays with its name
    body = textwrap.fill(items, 100, initial_indent=inner, subsequent_indent=inner)
    return f"{indent}{opening}(\n{body}\n{indent}){closing}\n".replace("\0", " ")


def written():
    """The two files as they should be."""
    pxd, pyx = PACKAGE / "cython_api.pxd", PACKAGE / "cython_api.pyx"
    declared = pxd.read_text(encoding="utf-8").split(MARKER)[0] + MARKER
    imported, defined = PYX_HEAD + 'cdef extern from "jacometry/capi.h" nogil:\n', ""
    for result, name, parameters, arguments in functions():
        heading = f"cdef {result} {name}"
        declared += wrapped(heading, parameters, " noexcept nogil", "")
        imported += wrapped(f'{result} c_{name} "{name}"', parameters, "", "    ")
        defined += "\n\n" + wrapped(heading, parameters, " noexcept nogil:", "")
        defined += wrapped(f"return c_{name}", arguments, "", "    ")
    return {pxd: declared, pyx: f"{imported}\njm_import()\n{defined}"}


def main(arguments):
    stale = {p: t for p, t in written().items() if not p.exists() or p.read_text("utf-8") != t}
    for path, text in stale.items():
        if arguments == ["--check"]:
            print(f"{path.name} is not what python tests/abi/write_cython_api.py writes")
        else:
            path.write_text(text, encoding="utf-8", newline="\n")
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
