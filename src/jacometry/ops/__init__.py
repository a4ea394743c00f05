"""The operations: convert, check, allocate, call a kernel, report."""

from .. import _kernels
from ..activations._low_level import LowLevelFunction

# Activations may be C functions, and descriptions know no compiled code.
LowLevelFunction.loop = staticmethod(_kernels.call_function)
