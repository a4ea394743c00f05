"""Errors and warnings of the package."""


class JacometryError(Exception):
    """Base of the package's own errors."""


class UnsupportedModelError(JacometryError, ValueError):
    """A model holds a part that is not understood; the message names it."""


class ModelFileError(JacometryError, ValueError):
    """A file is not the model it claims to be; the message says what was found."""


class NoEdgeOfChaosError(JacometryError, ValueError):
    """The activation has no initialisation with chi_1 = 1 where one was asked for."""


class JacometryWarning(UserWarning):
    """Something the caller should know although a result is returned."""
