"""What runs the operations: which instruction set, or the references instead of the kernels."""

import os
from importlib import import_module

from . import _kernels

BACKENDS = ("compiled", "reference")
name = os.environ.get("JACOMETRY_BACKEND") or "compiled"
if name not in BACKENDS:
    raise ImportError(f"JACOMETRY_BACKEND must be one of {BACKENDS}, got {name!r}")

_isa = os.environ.get("JACOMETRY_ISA")
if _isa:
    try:
        _kernels.select_isa(_isa)
    except ValueError as error:
        raise ImportError(f"JACOMETRY_ISA: {error}") from None


def is_reference() -> bool:
    """Whether operations are routed to the NumPy references, for debugging."""
    return name == "reference"


def reference(family):
    """The module of a family's references, imported when first used."""
    return import_module(f"jacometry.reference.{family}")
