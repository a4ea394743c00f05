from typing import Any

import numpy as np

from .ops._chain_arrays import ChainArrays

c_api: Any

def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def select_isa(name: str) -> None: ...
def openmp_max_threads() -> int: ...
def has_openmp() -> bool: ...
def address_of(array: np.ndarray) -> int: ...
def chain_product(
    dtype: int,
    spec: ChainArrays,
    n_samples: int,
    mantissa: np.ndarray,
    exponent: np.ndarray,
    bad_layer: np.ndarray,
    layer_cost: float,
    n_threads: int,
    from_last: bool,
) -> int: ...
def chain_vectors(
    dtype: int,
    spec: ChainArrays,
    transposed: bool,
    start: np.ndarray,
    n_vectors: int,
    per_sample: int,
    log_norms: np.ndarray,
    last: np.ndarray,
    last_exponents: np.ndarray,
    kept: np.ndarray | None,
    kept_exponents: np.ndarray | None,
    n_threads: int,
) -> tuple[int, int] | None: ...
def chain_log_svdvals(
    dtype: int,
    spec: ChainArrays,
    n_samples: int,
    values: np.ndarray,
    errors: np.ndarray,
    bad_layer: np.ndarray,
    layer_cost: float,
    n_threads: int,
) -> int: ...
def lyapunov_spectrum(
    dtype: int,
    spec: ChainArrays,
    is_square: bool,
    n_columns: int,
    burn_in: int,
    n_batches: int,
    start: np.ndarray,
    exponents: np.ndarray,
    standard_errors: np.ndarray,
    history: np.ndarray | None,
    bad_layer: np.ndarray,
    layer_cost: float,
    n_threads: int,
) -> int: ...
def gaussian_moments(
    dtype: int,
    activation_id: int,
    parameters: tuple[float, ...],
    q: np.ndarray,
    moments: Any,
    n_threads: int,
) -> None: ...
def variance_map(
    dtype: int,
    activation_id: int,
    parameters: tuple[float, ...],
    q: np.ndarray,
    sigma_w: np.ndarray,
    sigma_b: np.ndarray,
    out: np.ndarray,
    n_threads: int,
) -> None: ...
def spectral_norm_gram(
    dtype: int,
    a: np.ndarray,
    bounds: np.ndarray,
    exponent: np.ndarray,
    status: np.ndarray,
    n_threads: int,
) -> None: ...
def spectral_norm_lanczos(
    dtype: int,
    a: np.ndarray,
    start: np.ndarray,
    rtol: float,
    log_level: float,
    max_iter: int,
    bounds: np.ndarray,
    exponent: np.ndarray,
    n_iter: np.ndarray,
    status: np.ndarray,
    n_threads: int,
) -> None: ...
