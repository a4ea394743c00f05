from typing import Any

import numpy as np

c_api: Any

def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def select_isa(name: str) -> None: ...
def openmp_max_threads() -> int: ...
def has_openmp() -> bool: ...
def address_of(array: np.ndarray) -> int: ...

class ChainLayout:
    n_layers: int
    n_in: int
    n_out: int
    max_width: int
    slope_side: int
    has_empty_width: bool
    has_shared_weights: bool
    n_samples: int | None
    widths: list[int] | None
    layers: np.ndarray | None
    weights: Any
    slopes: Any
    shortcut: Any
    origins: list[tuple[int, int]] | None
    path: str
    factors_per_period: int
    first_factor: int
    @property
    def dtype(self) -> np.dtype: ...
    def read_stacked(self, weights: Any, slopes: Any, slope_side: int, vectors: Any) -> bool: ...
    def set_shortcut(self, shortcut: float | np.ndarray) -> None: ...
    def read_listed(
        self,
        weights: list,
        slopes: list | None,
        slope_side: int,
        shortcut: float | np.ndarray,
        vectors: Any,
        layers: np.ndarray,
        n_repeats: int,
        has_identities: bool,
    ) -> bool: ...
    def takes(self, vectors: Any, transposed: bool) -> bool: ...
    def read_table(
        self, other: ChainLayout, layers: np.ndarray, n_in: int, n_out: int, max_width: int
    ) -> None: ...

def chain_product(
    spec: ChainLayout,
    n_samples: int,
    mantissa: np.ndarray,
    exponent: np.ndarray,
    n_threads: int,
    from_last: bool,
    bad_layer: np.ndarray | None,
) -> tuple[int, int] | None: ...
def chain_vectors(
    spec: ChainLayout,
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
    spec: ChainLayout,
    n_samples: int,
    values: np.ndarray,
    errors: np.ndarray,
    bad_layer: np.ndarray,
    layer_cost: float,
    n_threads: int,
) -> int: ...
def lyapunov_spectrum(
    dtype: int,
    spec: ChainLayout,
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
    table: tuple[np.ndarray, ...] | None,
    q: np.ndarray,
    moments: Any,
    n_threads: int,
) -> bool: ...
def two_point_table(
    dtype: int,
    coefficients: np.ndarray,
    patches: np.ndarray,
    n_octaves: int,
    low_octave: int,
    first_log2: int,
    q: np.ndarray,
    near: np.ndarray,
    which: int,
    out: np.ndarray,
    n_threads: int,
) -> bool: ...
def variance_map(
    dtype: int,
    activation_id: int,
    parameters: tuple[float, ...],
    table: tuple[np.ndarray, ...] | None,
    q: np.ndarray,
    sigma_w: np.ndarray,
    sigma_b: np.ndarray,
    out: np.ndarray,
    n_threads: int,
) -> bool: ...
def call_function(
    function: int,
    wants_data: bool,
    user_data: int,
    x: np.ndarray,
    out: np.ndarray,
) -> None: ...
def spectral_norm_gram(
    dtype: int,
    a: np.ndarray,
    rtol: float,
    bounds: np.ndarray | None,
    ends: np.ndarray,
    exponent: np.ndarray | None,
    status: np.ndarray | None,
    n_threads: int,
) -> bool: ...
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
def sum_squares(dtype: int, a: np.ndarray, squares: np.ndarray, n_threads: int) -> None: ...
def gaussian_fill(
    dtype: int, keys: np.ndarray, first: int, scale: float, out: np.ndarray, n_threads: int
) -> None: ...
