"""Golub-Kahan bidiagonalisation from a Gaussian start, and Hochstenbach's bound from it.

``A V_k = U_k B_k`` and ``A^T U_k = V_k B_k^T + beta_k v_{k+1} e_k^T`` (Golub and Kahan, Calculating
the singular values and pseudo-inverse of a matrix, SIAM J. Numer. Anal. 2, 1965).  V is kept
orthonormal by Gram-Schmidt; then ``A^T A V_k = V_k B_k^T B_k + alpha_k beta_k v_{k+1} e_k^T`` holds
to rounding whatever becomes of U (Simon and Zha, Low-rank matrix approximation using the Lanczos
bidiagonalization process, SIAM J. Sci. Comput. 21, 2000): U_k stands in it only times B_k.  That is
enough for large singular values.  Small ones keep their digits below sqrt(u) only with both bases
orthonormal.  Rows of arrays are items, each with a scale of its own.
"""

import numpy as np

# Twice is enough, and once where so much of the length is kept (Giraud, Langou, Rozloznik, van den
# Eshof, Rounding error analysis of the classical Gram-Schmidt orthogonalization process, Numer.
# Math. 101, 2005).
PASSES = 2
KEPT = 0.7

FIRST_CAPACITY = 16
NEWTON_STEPS = 200
NEWTON_CHANGE = 1e-10
LEAST_LOG = -600.0  # exp of it is still a normal number


def shifted(number, exponent):
    """``number * 2**exponent`` for exponents of any size: zeros and infinities stay."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(number, np.clip(exponent, -(2**14), 2**14).astype(np.int32))


class Bidiagonalisation:
    """The bases and the bidiagonal of B items after `n_steps` steps.

    Parameters
    ----------
    forward, adjoint : callable
        Products with rows (B, n), giving rows and exponents.
    shape : tuple of int
    starts : ndarray, shape (B, n)
    keep_left : bool
        Keep U too, and orthonormal.

    Attributes
    ----------
    alphas, betas : ndarray, shape (B, n_steps)
        Diagonal of B_k; what stands right of it, of which the last is the remainder.  Times
        ``2**exponent``.
    exponent : ndarray of int64, shape (B,)
    """

    def __init__(self, forward, adjoint, shape, starts, *, keep_left=False):
        self._forward, self._adjoint = forward, adjoint
        n_items = len(starts)
        self.n_steps, self.shape = 0, shape
        self._left = np.empty((n_items, FIRST_CAPACITY if keep_left else 0, shape[0]))
        self._last = np.zeros((n_items, shape[0]))
        self._right = np.empty((n_items, FIRST_CAPACITY, shape[1]))
        self._alphas, self._betas = (np.empty((n_items, FIRST_CAPACITY)) for _ in range(2))
        starts = starts / np.max(np.abs(starts), axis=1, keepdims=True)
        self._right[:, 0] = starts / np.linalg.norm(starts, axis=1, keepdims=True)
        self.exponent = np.zeros(n_items, np.int64)

    @property
    def alphas(self):
        """See the class."""
        return self._alphas[:, : self.n_steps]

    @property
    def betas(self):
        """See the class."""
        return self._betas[:, : self.n_steps]

    def step(self):
        """One more column of each basis; two products."""
        k = self.n_steps
        if k + 1 == self._right.shape[1]:
            self._grow()
        v = self._right[:, k]
        image, top = self._forward(v)
        if k == 0:
            length = np.max(np.abs(image), axis=1, initial=0.0)
            self.exponent = np.where(length > 0, top + np.frexp(length)[1], 0)
        image = self._at_scale(image, top)
        if k:
            image = image - self._betas[:, k - 1, None] * self._last
        self._alphas[:, k], self._last = _orthonormal(image, self._left[:, :k])
        if self._left.size:
            self._left[:, k] = self._last
        back, top = self._adjoint(self._last)
        back = self._at_scale(back, top) - self._alphas[:, k, None] * v
        self._betas[:, k], self._right[:, k + 1] = _orthonormal(back, self._right[:, : k + 1])
        self.n_steps = k + 1

    def right_vectors(self, coordinates):
        """``V_k y`` for every item, y (B, k)."""
        basis = self._right[:, : coordinates.shape[1]]
        return (coordinates[:, None, :] @ basis)[:, 0]

    def bidiagonals(self):
        """B_k of every item, (B, k, k)."""
        k = self.n_steps
        matrices = np.zeros((len(self.exponent), k, k))
        index = np.arange(k)
        matrices[:, index, index] = self.alphas
        matrices[:, index[:-1], index[1:]] = self.betas[:, :-1]
        return matrices

    def _at_scale(self, rows, top):
        shift = top - self.exponent
        if not shift.any():
            return rows
        return rows * shifted(1.0, shift)[:, None]

    def _grow(self):
        for name in ("_left", "_right", "_alphas", "_betas"):
            old = getattr(self, name)
            if not old.size:
                continue
            size = min(2 * old.shape[1], self.shape[1] + 1)
            new = np.empty((old.shape[0], max(size, old.shape[1] + 1), *old.shape[2:]))
            new[:, : old.shape[1]] = old
            setattr(self, name, new)


def _orthonormal(rows, basis):
    """Lengths of the rows off their bases, and the rows there at unit length (or zero)."""
    length = np.linalg.norm(rows, axis=1)
    for _ in range(PASSES if basis.shape[1] else 0):
        before = length
        along = basis @ rows[:, :, None]
        rows = rows - (along.transpose(0, 2, 1) @ basis)[:, 0]
        length = np.linalg.norm(rows, axis=1)
        if (length > KEPT * before).all():
            break
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(length[:, None] == 0, 0.0, rows / length[:, None])
    return length, unit


def probable_upper(values, alphas, betas, log_level):
    """Hochstenbach's bound on the largest singular value, for every item.

    ``v_{k+1} = p_k(A^T A) v_1`` with ``p_k(t) = prod_i (t - theta_i^2) / prod_i alpha_i beta_i``,
    so that ``1 >= |gamma| p_k(sigma^2)``, gamma the coordinate of v_1 along the top right singular
    vector: unless ``|gamma| < exp(-log_level)``, sigma^2 is at most the root beyond theta_1^2 of
    ``log p_k(t) = log_level`` (Hochstenbach, Probabilistic upper bounds for the matrix two-norm, J.
    Sci. Comput. 57, 2013).  In ``z = log(t - theta_1^2)`` the left side is convex with slopes
    between 1 and k, and the Newton iterates from the right descend to the root.

    values (B, k) descending are the singular values of B_k; alphas and betas (B, k).
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        target = log_level + np.log(alphas).sum(axis=1) + np.log(betas).sum(axis=1)
        gaps = (values[:, :1] - values) * (values[:, :1] + values)
        is_open = np.isfinite(target)  # else a coefficient is zero: the space is invariant
        target = np.where(is_open, target, 0.0)
        z = np.maximum(target / values.shape[1], LEAST_LOG)
        for _ in range(NEWTON_STEPS):
            distance = np.exp(z)[:, None] + gaps
            change = (np.log(distance).sum(axis=1) - target) / (np.exp(z)[:, None] / distance).sum(
                axis=1
            )
            z = np.maximum(z - np.maximum(change, 0.0), LEAST_LOG)
            if not (change > NEWTON_CHANGE).any():
                break
        excess = np.where(is_open, np.exp(z), 0.0)
        upper = np.sqrt(values[:, 0] ** 2 + excess)
    return np.where(np.isnan(alphas).any(axis=1), np.nan, upper)
