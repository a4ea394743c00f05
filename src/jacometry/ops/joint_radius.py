"""The joint spectral radius: how fast products of given matrices, in any order, can grow."""

import math
from dataclasses import dataclass

import numpy as np

from .. import _threads
from .._validate import as_array, count, finite_scan, real_scalar
from ._gripenberg import LOG_ERROR, Search
from ._radius_bounds import exact_bound, tiny


@dataclass(frozen=True, slots=True)
class JSRBounds:
    """An interval that contains a joint spectral radius, rounding included.

    Attributes
    ----------
    lower, upper : float
        ``lower <= radius <= upper``.
    product : tuple of int
        Indices of the matrices, the first applied first, of the product P of k of them with
        ``radius(P)**(1/k) >= lower``.  Empty where no product is known to grow (lower is 0).
    contractive : bool or None
        True if upper < 1: all products vanish, in any order.  False if lower >= 1: some do not.
        None if these bounds leave it open.
    converged : bool
        Whether ``upper - lower <= delta``.
    n_products : int
        Products formed.
    length : int
        Matrices in the longest of them.
    """

    lower: float
    upper: float
    product: tuple[int, ...]
    contractive: bool | None
    converged: bool
    n_products: int
    length: int


def joint_spectral_radius(matrices, *, delta=1e-3, norm=2, max_products=10**6, n_threads=None):
    """Joint spectral radius of a set of matrices, between bounds that hold.

    ``lim_k max ||A_1 A_2 ... A_k||**(1/k)`` over all products of k matrices of the set, repeats
    allowed: the fastest rate at which a product can grow whatever the order.  All products vanish
    if and only if it is below 1; that every matrix has a spectral radius below 1 says nothing.

    Parameters
    ----------
    matrices : array_like, shape (m, n, n), or sequence of m arrays (n, n)
        The set; taken as float64.
    delta : float
        Width asked for: ``upper - lower <= delta``, in the units of the matrices.
    norm : {1, 2, numpy.inf} or array_like, shape (n, n)
        The norm that products are measured in; a matrix T stands for ``||T A T^-1||_2``.  It
        decides how long the search takes, not what is true.
    max_products : int
        Products that may be formed; at least m.
    n_threads : int, optional
        Threads of the 2-norms; None takes the smaller of OpenMP's limit and the CPU quota.

    Returns
    -------
    JSRBounds
        Valid wherever the search ended; `converged` says whether the width was reached.

    Raises
    ------
    ValueError
        If `matrices` is empty, its items are not square or not of one size, or an entry is not
        finite, naming the item; if `delta`, `norm` or `max_products` is out of range; if T is
        singular to working precision.
    TypeError
        If `matrices` does not hold real numbers.

    Notes
    -----
    Gripenberg's branch and bound (Computing the joint spectral radius, Linear Algebra Appl. 234,
    1996): a product is continued only while the smallest of ``||P_j||**(1/j)`` over its beginnings
    P_j exceeds ``lower + delta``.  The upper bound is the largest of these numbers over the
    products where the search stopped; ``radius(P)**(1/k)`` of any product is a lower bound.  Where
    `max_products` does not suffice, those with the largest numbers are continued first.

    Both bounds include rounding.  Above: the error of every product is bounded step by step, ``||M
    P - fl(M P)|| <= gamma_n ||M||_F ||P||_F``, and carried on by the norms of all products of the
    remaining length that the search has bounded; nothing is added while the products of integers
    (times a power of two) are exact.  The 2-norm is proved as in `spectral_norm`.  Below: the
    characteristic polynomial of the best product in integer arithmetic, which defective eigenvalues
    cannot fool, or for large matrices Gershgorin discs after an approximate diagonalisation, which
    they leave with a poor bound or none.

    Deciding whether the radius is at most 1 is impossible in general (Blondel and Tsitsiklis,
    2000), and the search is exponential in ``log(norms) / delta`` at worst: in the 2-norm often,
    when another norm ends it at once.  `jacometry.ops.radius.adapted_norm` makes one from a matrix.

    Cost per product ``2 n^3`` flops, a norm, and rarely an eigenvalue problem.  Products of 128 MB
    are held, of at most 2**14 matrices; with working copies memory stays below 1 GB.  Matrices are
    scaled by a power of two, exactly.

    Examples
    --------
    Two nilpotent matrices whose product doubles, twice:

    >>> from jacometry import joint_spectral_radius
    >>> bounds = joint_spectral_radius([[[0, 2], [0, 0]], [[0, 0], [2, 0]]])
    >>> round(bounds.lower, 9), bounds.product, bounds.contractive
    (2.0, (0, 1), False)

    A set whose radius is the golden ratio:

    >>> bounds = joint_spectral_radius([[[1, 1], [0, 1]], [[1, 0], [1, 1]]], delta=1e-2)
    >>> bounds.lower <= (1 + 5**0.5) / 2 <= bounds.upper, bounds.converged
    (True, True)
    """
    given = _read(matrices)
    n_matrices, n = given.shape[:2]
    delta = real_scalar("delta", delta, low=0.0, open_low=True, open_high=True)
    measure, similarity = _read_norm(norm, n)
    max_products = count("max_products", max_products, low=1)
    if max_products < n_matrices:
        raise ValueError(
            f"max_products must be at least the number of matrices, {n_matrices}, "
            f"got {max_products}"
        )
    n_threads = _threads.resolve(n_threads)

    if not given.any():
        return JSRBounds(0.0, 0.0, (), True, True, n_matrices, 1)
    exponent = int(np.frexp(np.abs(given).max())[1])
    with np.errstate(under="ignore", over="ignore"):
        scaled = np.ldexp(given, -exponent)
        is_exact = np.ldexp(scaled, exponent) == given
        threshold = float(np.ldexp(delta, -exponent))
    errors = np.where(is_exact.all(axis=(1, 2)), 0.0, tiny(n))
    search = Search(scaled, errors, threshold, measure, similarity, max_products, n_threads)
    search.run()

    lower, word = search.lower, search.word
    if word:
        proved = exact_bound(scaled, word)
        lower = lower if proved is None else max(proved, lower)
    lower = _outward(lower, exponent, 0.0)
    upper = _outward(2.0**search.upper_log * (1 + LOG_ERROR), exponent, math.inf)
    contractive = True if upper < 1 else False if lower >= 1 else None
    return JSRBounds(
        lower=lower,
        upper=upper,
        product=tuple(word) if lower > 0 else (),
        contractive=contractive,
        converged=upper - lower <= delta,
        n_products=search.n_products,
        length=search.length,
    )


def _read(matrices):
    """The set as one float64 array (m, n, n)."""
    if isinstance(matrices, (list, tuple)):
        items = [as_array(f"matrices[{i}]", item) for i, item in enumerate(matrices)]
        shapes = sorted({item.shape for item in items})
        if len(shapes) > 1:
            raise ValueError(f"matrices must be of one shape (n, n), got {shapes}")
        array = np.array(items) if items else np.empty((0, 0, 0))
    else:
        array = as_array("matrices", matrices)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ValueError(
            f"matrices must have shape (m, n, n) with m and n at least 1, got {array.shape}"
        )
    finite_scan("matrices", array)
    return np.ascontiguousarray(array, dtype=np.float64)


def _read_norm(norm, n):
    """The number 1, 2 or inf, and the similarity or None."""
    if isinstance(norm, (int, float, np.number)) and not isinstance(norm, bool):
        if norm not in (1, 2, np.inf):
            raise ValueError(f"norm must be 1, 2, inf or an ({n}, {n}) matrix, got {norm}")
        return float(norm), None
    similarity = as_array("norm", norm)
    if similarity.shape != (n, n):
        raise ValueError(
            f"norm must be 1, 2, inf or a matrix of shape ({n}, {n}), got shape {similarity.shape}"
        )
    finite_scan("norm", similarity)
    return 2.0, np.asarray(similarity, dtype=np.float64)


def _outward(value, exponent, towards):
    """``value * 2**exponent``, rounded towards 0 or inf."""
    with np.errstate(over="ignore", under="ignore"):
        result = float(np.ldexp(value, exponent))
        if towards == 0.0:
            result = min(result, float(np.finfo(np.float64).max))
        back = float(np.ldexp(result, -exponent))
    is_wrong = back > value if towards == 0.0 else back < value
    return math.nextafter(result, towards) if is_wrong else result
