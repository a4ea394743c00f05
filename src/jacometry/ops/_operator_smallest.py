"""Smallest singular values and condition numbers of what is given by its products."""

from dataclasses import dataclass

import numpy as np

from ._operator_products import (
    ADJOINT_SLACK,
    OperatorProducts,
    default_matvec_rtol,
    gamma,
    is_operator,
)
from ._spectral_operator import (
    EPS,
    SVD_ERROR,
    Interval,
    Run,
    count_items,
    lanczos_norm,
    norm_interval,
    read,
    resolved,
    written_out,
)


def smallest_singular_value(
    a, *, rtol, failure_prob, rng, method, max_iter, matvec_rtol, check_finite, check_adjoint,
    solve=None,
):  # fmt: skip
    """`spectral.smallest_singular_value` of an operator, sparse matrix, Chain or factor.

    Products with A alone give an upper bound, ``||A x|| / ||x||``, and nothing below: `lower` is 0
    unless the matrix is small enough to be written out or `solve` applies the inverse.
    """
    rng = np.random.default_rng(rng)
    products = read(a, "a", matvec_rtol, check_finite, check_adjoint, rng)
    inverse = read_solve(solve, products, check_finite, check_adjoint, rng)
    found = smallest_interval(products, inverse, rtol, failure_prob, rng, method, max_iter)
    return found.bounds(products, rtol, failure_prob)


def condition_number(
    a, *, rtol, failure_prob, rng, method, max_iter, matvec_rtol, check_finite, check_adjoint,
    solve=None,
):  # fmt: skip
    """`spectral.condition_number` of an operator, sparse matrix, Chain or factor.

    The interval of the largest over that of the smallest singular value, each with half of
    `failure_prob`; without a bound below the latter, `upper` is inf.
    """
    rng = np.random.default_rng(rng)
    products = read(a, "a", matvec_rtol, check_finite, check_adjoint, rng)
    inverse = read_solve(solve, products, check_finite, check_adjoint, rng)
    n_items = count_items(products)
    if 0 in products.shape:
        return Interval.of(n_items, method).bounds(products, rtol, failure_prob)
    if is_direct(products, inverse, method):
        values, exponent, error = singular_values(products)
        top = Interval.of(n_items, "svd")
        top.value = values[:, 0]
        top.lower, top.upper = values[:, 0] - error, values[:, 0] + error
        top.exponent = exponent
        bottom = smallest_of(values, exponent, error)
    else:
        share = (rtol / 3, failure_prob / 2, rng)
        top = norm_interval(products, *share, "lanczos", max_iter)
        bottom = smallest_interval(products, inverse, *share, "lanczos", max_iter)
    found = Interval.of(n_items, bottom.method)
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, over in (("lower", "upper"), ("value", "value"), ("upper", "lower")):
            below = getattr(bottom, over)
            ratio = getattr(top, name) / below * (1 + 2 * EPS * (name == "upper"))
            setattr(found, name, np.where(below == 0, np.inf, ratio))
    found.lower *= 1 - 2 * EPS
    found.exponent = top.exponent - bottom.exponent
    found.lower_certain = top.lower_certain & bottom.upper_certain
    found.upper_certain = np.isinf(found.upper) | (top.upper_certain & bottom.lower_certain)
    found.n_iter = top.n_iter + bottom.n_iter
    return found.bounds(products, rtol, failure_prob)


def is_direct(products, inverse, method):
    """Whether the matrix is written out."""
    return resolved(products, method) != "lanczos" and inverse is None


def singular_values(products):
    """All singular values of the matrix written out, its exponent, and their error."""
    matrices, exponent, off, lost = written_out(products)
    is_finite = np.isfinite(matrices).all(axis=(1, 2))
    values = np.linalg.svd(np.where(is_finite[:, None, None], matrices, 0), compute_uv=False)
    values[~is_finite] = np.nan
    error = (SVD_ERROR * max(products.shape) * EPS + off) * values[:, 0] + lost
    return values, exponent, error


def smallest_of(values, exponent, error):
    """The interval of the last of `values`; 0 where it is no more than its error."""
    found = Interval.of(len(values), "svd")
    last = values[:, -1]
    found.lower = np.maximum(last - error, 0)
    found.upper = last + error
    found.value = np.where(last <= error, 0.0, last)
    found.exponent = exponent
    is_zero = found.upper == 0
    found.lower_certain = found.upper_certain = is_zero
    return found


def smallest_interval(products, inverse, rtol, failure_prob, rng, method, max_iter):
    """Bounds on the smallest singular value before they are handed out."""
    if 0 in products.shape:
        return Interval.of(count_items(products), resolved(products, method))
    if inverse is not None:
        return _through_solve(products, inverse, rtol, failure_prob, rng, max_iter)
    if is_direct(products, inverse, method):
        return smallest_of(*singular_values(products))
    return _from_above(products, rtol, failure_prob, rng, max_iter)


def _from_above(products, rtol, failure_prob, rng, max_iter):
    """The smallest Ritz value of a bidiagonalisation, and the bound that its vector proves."""
    run = Run(products, rng, max_iter, keep_left=True)
    n_items = count_items(products)
    found = Interval.of(n_items, "lanczos")
    vectors, is_open = np.zeros((n_items, run.size)), np.ones(n_items, bool)
    norms = np.zeros(n_items)
    for k, values in run.looks():
        residual = run.residual(-1)
        slack = run.slack(k, values[:, 0])
        closes = (residual <= np.maximum(rtol * values[:, -1], slack)) & (k > 1)
        closes |= run.is_exhausted(k) | np.isnan(residual) | (k == run.max_iter)
        closes &= is_open
        if closes.any():
            vectors[closes] = run.right_vectors(-1)[closes]
            found.value[closes] = np.where(values[:, -1] <= slack, 0.0, values[:, -1])[closes]
            norms[closes] = run.upper(k, values, failure_prob)[closes]
            found.n_iter[closes] = k
            is_open &= ~closes
        if not is_open.any():
            break
    found.exponent = run.lanczos.exponent
    image, length = run.image(vectors)
    found.upper = _from_image(run, image, length, np.minimum(norms, run.cap()))
    found.value = np.minimum(found.value, found.upper)
    found.lower = np.where(np.isnan(found.upper), np.nan, 0.0)
    found.upper_certain[:] = products.matvec_rtol == 0
    return found


def _from_image(run, image, length, norms):
    """||A x|| / ||x|| and its rounding, given a bound on ||A||."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = image / length * (1 + 2 * run.in_norms)
    return (ratio + run.rounding() + run.products.matvec_rtol * norms) * (1 + 4 * EPS)


@dataclass(slots=True)
class InverseProducts(OperatorProducts):
    """Solves with A and with its transpose."""

    backward_error: float = 0.0


def read_solve(solve, products, check_finite, check_adjoint, rng):
    """The products of the inverse that `solve` applies, tested to be one; None where None."""
    if solve is None:
        return None
    m, n = products.shape
    if m != n or products.n_samples is not None:
        raise ValueError(
            f"solve needs one square matrix, got a of shape {products.shape}"
            + ("" if products.n_samples is None else f" and {products.n_samples} samples")
        )
    if callable(getattr(solve, "solve", None)):  # SuperLU, as splu and factorized make it
        calls = (solve.solve, lambda b: solve.solve(b, "T"))
        names = ("solve", "solve(trans='T')")
    elif isinstance(solve, tuple) and len(solve) == 2 and all(map(callable, solve)):
        calls, names = solve, ("solve", "solve_transposed")
    elif is_operator(solve) and hasattr(solve, "rmatvec"):
        if tuple(solve.shape) != (n, n):
            raise ValueError(f"solve must have the shape {(n, n)} of a, got {tuple(solve.shape)}")
        calls, names = (solve.matvec, solve.rmatvec), ("matvec", "rmatvec")
    else:
        raise TypeError(
            "solve must be a LinearOperator that applies the inverse, a factorisation with "
            "solve(b, trans) as scipy.sparse.linalg.splu makes it, or a pair of functions (solve, "
            f"solve_transposed), got {type(solve).__name__}"
        )
    dtype = np.dtype(np.float64)
    inverse = InverseProducts(
        shape=(n, n),
        dtype=dtype,
        matvec_rtol=max(products.matvec_rtol, default_matvec_rtol((n, n), dtype)),
        name="solve",
        names=names,
        calls=calls,
        check_finite=check_finite,
    )
    if n:
        inverse.backward_error = _test_solve(products, inverse, check_adjoint, rng)
    return inverse


def _test_solve(products, inverse, check_adjoint, rng):
    """``||A x - b|| / (||A|| ||x||)`` of one solve; raise if that is more than rounding.

    Two such solves, for matrices A + E, of which one is transposed, differ in ``c^T A^-1 b`` by
    ``||E|| ||x|| ||z||``, x and z the solutions.
    """
    b, c = rng.standard_normal((2, 1, products.shape[0]))
    x, top = inverse.forward(b)
    image, up = products.forward(x)
    with np.errstate(over="ignore", invalid="ignore"):
        image = np.ldexp(image, int(top[0]) + int(up[0]))
        residual = image - b
        back, up = products.adjoint(residual)
        # ||A|| is at least either quotient; at the scale of A x / x
        off, length = float(np.linalg.norm(residual)), float(np.linalg.norm(x))
        norms = [np.linalg.norm(image) / length]
        if off:
            norms.append(np.ldexp(np.linalg.norm(back) / off, int(up[0]) + int(top[0])))
        error = off / (max(norms) * length)
    allowed = ADJOINT_SLACK * inverse.matvec_rtol
    if not error <= allowed:
        raise ValueError(
            f"solve must apply the inverse of a: A solve(b) is off b by {error:.1e} of "
            f"||A|| ||solve(b)||, rounding explains {allowed:.1e}"
        )
    if check_adjoint:
        z, other = inverse.adjoint(c)
        with np.errstate(over="ignore", invalid="ignore"):
            z = np.ldexp(z, int(other[0]) - int(top[0]))
            gap = abs(float(np.sum(c * x)) - float(np.sum(z * b)))
            bound = allowed * max(norms) * length * float(np.linalg.norm(z))
        if not gap <= bound:
            raise ValueError(
                f"{inverse.name}.{inverse.names[1]} must be the transpose of {inverse.names[0]}: "
                f"c^T solve(b) differs by {gap:.1e} from what it gives, rounding explains "
                f"{bound:.1e} (check_adjoint=False leaves the test out)"
            )
    return error


def _through_solve(products, inverse, rtol, failure_prob, rng, max_iter):
    """``1 / ||A^-1||``, where a solve counts as exact for a matrix off by its backward error."""
    backward = inverse.backward_error + inverse.matvec_rtol
    share = (failure_prob / 2, rng, max_iter)
    top, _ = lanczos_norm(products, 0.5, *share)
    inner, vectors = lanczos_norm(inverse, rtol / 2, *share)
    found = Interval.of(1, "lanczos", n_iter=0)
    found.exponent, found.n_iter = -inner.exponent, top.n_iter + inner.n_iter
    shift = np.clip(top.exponent - found.exponent, -(2**14), 2**14).astype(np.int32)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        norms = np.ldexp(top.upper, shift)
        found.lower = np.fmax(1 / inner.upper * (1 - 2 * EPS) - backward * norms, 0.0)
        x, _ = inverse.forward(vectors)
        rows, up = products.forward(x / np.linalg.norm(x, axis=1, keepdims=True))
        shift = np.clip(up - found.exponent, -(2**14), 2**14).astype(np.int32)
        image = np.ldexp(np.linalg.norm(rows, axis=1), shift)
        lost = np.ldexp(products.rounding, products.scale - found.exponent)
        found.upper = image * (1 + 4 * gamma(sum(products.shape))) + lost
        found.upper = (found.upper + products.matvec_rtol * norms) * (1 + 4 * EPS)
        found.value = np.clip(1 / inner.value, found.lower, found.upper)
    found.value = np.where(found.lower > 0, found.value, 0.0)
    found.lower_certain[:] = False
    found.upper_certain[:] = products.matvec_rtol == 0
    return found
