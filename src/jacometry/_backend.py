"""Whether the operations run the compiled kernels or their references."""

import os

BACKENDS = ("compiled", "reference")
name = os.environ.get("JACOMETRY_BACKEND", "compiled")
if name not in BACKENDS:
    raise ImportError(f"JACOMETRY_BACKEND must be one of {BACKENDS}, got {name!r}")


def is_reference() -> bool:
    """Whether operations are routed to the NumPy references, for debugging."""
    return name == "reference"
