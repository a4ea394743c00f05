"""Whether a wheel holds what it should and nothing else: ``python .ci/check_wheel.py WHEEL``."""

import sys
import sysconfig
import zipfile
from pathlib import Path

NEEDED = [
    "jacometry/__init__.py",
    "jacometry/__init__.pxd",
    "jacometry/_kernels.pyi",
    "jacometry/cython_api.pxd",
    "jacometry/cython_api.pyi",
    "jacometry/py.typed",
    "jacometry/include/jacometry/capi.h",
    "jacometry/include/jacometry/functions.h",
    "jacometry/include/jacometry/types.h",
    "jacometry/data/README.md",
    "jacometry/data/digits_heldout.npz",
    "jacometry/reference/chain.py",
]
EXTENSIONS = ["jacometry/_kernels", "jacometry/cython_api"]
# C sources and what tests, benches and builds leave behind.
UNWANTED = (".c", ".o", ".def", ".inc.h", ".pyc")


def main(path):
    wheel = Path(path)
    tag = wheel.name.removesuffix(".whl").split("-")[2:4]
    expected = ["cp311", "abi3"]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        expected = [f"cp3{sys.version_info.minor}", f"cp3{sys.version_info.minor}t"]
    names = zipfile.ZipFile(wheel).namelist()
    faults = [f"the tag is {tag}, not {expected}"] * (tag != expected)
    faults += [f"{name} is missing" for name in NEEDED if name not in names]
    faults += [f"{name} does not belong" for name in names if name.endswith(UNWANTED)]
    faults += [
        f"{name} does not belong"
        for name in names
        if not name.startswith(("jacometry/", "jacometry-"))
    ]
    extensions = sorted(n.split(".")[0] for n in names if n.endswith((".so", ".pyd")))
    faults += [f"the extensions are {extensions}"] * (extensions != EXTENSIONS)
    licences = [n for n in names if "/licenses/" in n and n.endswith("LICENSE")]
    faults += ["the licence is missing"] * (not licences)
    for fault in faults:
        print(f"{wheel.name}: {fault}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 2**20:.2f} MB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
