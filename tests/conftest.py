"""Fixtures of the whole suite."""

import numpy as np
import pytest

from jacometry import _kernels


@pytest.fixture(params=_kernels.available_isas())
def isa(request):
    """Every instruction set that this machine runs, one after the other."""
    before = _kernels.active_isa()
    _kernels.select_isa(request.param)
    yield request.param
    _kernels.select_isa(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """The two dtypes that kernels compute in."""
    return np.dtype(request.param)


@pytest.fixture
def rng(request):
    """A generator whose seed is the test's name: fixed, and not chosen."""
    return np.random.default_rng(list(request.node.name.encode()))
