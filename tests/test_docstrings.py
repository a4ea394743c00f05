"""Every public function says what it takes and gives, in numpydoc's form."""

import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

import jacometry

validate = pytest.importorskip("numpydoc.validate", reason="needs numpydoc").validate

ROOT = Path(__file__).parents[1]
PACKAGE = Path(jacometry.__file__).parent
CHECKS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "numpydoc_validation"
    ]["checks"]
)
# A result's class lists its attributes, and a method with a plain name may say it all in one line.
OF_FUNCTIONS_ONLY = {"PR01", "RT01"}
# Written for the package's own use, though their names have no underscore.
INTERNAL = {"data", "reference", "report", "plots", "cli"}


def public_modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if not any(p.startswith("_") for p in parts) and parts[0] not in INTERNAL:
            yield importlib.import_module(".".join(("jacometry", *parts)))


def public_functions():
    """Dotted names of what a user may call, and the checks for each."""
    found = {getattr(jacometry, name) for name in jacometry.__all__}
    for module in public_modules():
        for name, value in vars(module).items():
            home = getattr(value, "__module__", None) or ""
            is_own = home == module.__name__ or home.startswith(f"{module.__name__}._")
            if not name.startswith("_") and is_own:
                found.add(value)
    for value in sorted(found, key=lambda v: (v.__module__, v.__qualname__)):
        if inspect.isfunction(value):
            yield f"{value.__module__}.{value.__qualname__}", CHECKS
        if inspect.isclass(value):
            yield f"{value.__module__}.{value.__qualname__}", CHECKS - OF_FUNCTIONS_ONLY
            for name, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if not name.startswith("_") and inspect.isfunction(function):
                    full_name = f"{value.__module__}.{value.__qualname__}.{name}"
                    yield full_name, CHECKS - OF_FUNCTIONS_ONLY


@pytest.mark.parametrize(
    ("name", "checks"), [pytest.param(*p, id=p[0]) for p in public_functions()]
)
def test_docstring_is_complete(name, checks):
    assert [f"{code} {text}" for code, text in validate(name)["errors"] if code in checks] == []
