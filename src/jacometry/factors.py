"""Descriptions of layer Jacobians: factors, and chains of them."""

import numpy as np
from scipy.sparse.linalg import LinearOperator


def _read_only(name, array, core_ndim):
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.char == "g":
        raise TypeError(f"{name} must have a real floating dtype up to float64, got {array.dtype}")
    if array.ndim not in (core_ndim, core_ndim + 1):
        raise ValueError(
            f"{name} must have {core_ndim} axes, or {core_ndim + 1} with one matrix per sample, "
            f"got shape {array.shape}"
        )
    view = array.view()
    view.flags.writeable = False
    return view


class Dense:
    """A factor given by its matrix.

    Parameters
    ----------
    weights : array_like, shape (n_out, n_in) or (B, n_out, n_in)
        The matrix, shared or one per sample.  Kept as a read-only view, not copied.
    """

    def __init__(self, weights):
        self.weights = _read_only("weights", weights, 2)
        self.shape = self.weights.shape[-2:]
        self.n_samples = None if self.weights.ndim == 2 else self.weights.shape[0]
        self.dtype = self.weights.dtype

    def jvp(self, tangent):
        """``weights @ tangent`` for a tangent of shape (..., n_in)."""
        return np.einsum("...ij,...j->...i", self.weights, tangent)

    def vjp(self, cotangent):
        """``weights.T @ cotangent`` for a cotangent of shape (..., n_out)."""
        return np.einsum("...ij,...i->...j", self.weights, cotangent)

    def __repr__(self):
        return f"Dense(shape={self.weights.shape})"


class Diagonal:
    """A factor that multiplies every unit by its slope.

    Parameters
    ----------
    slopes : array_like, shape (n,) or (B, n)
        The diagonal, shared or one per sample.  Kept as a read-only view, not copied.
    """

    def __init__(self, slopes):
        self.slopes = _read_only("slopes", slopes, 1)
        self.shape = (self.slopes.shape[-1],) * 2
        self.n_samples = None if self.slopes.ndim == 1 else self.slopes.shape[0]
        self.dtype = self.slopes.dtype

    def jvp(self, tangent):
        """``slopes * tangent`` for a tangent of shape (..., n)."""
        return self.slopes * tangent

    vjp = jvp

    def __repr__(self):
        return f"Diagonal(shape={self.slopes.shape})"


class Chain(LinearOperator):
    """The product of factors, the first one applied first.

    A description: nothing is multiplied until an operation is asked for.  Without per-sample
    factors it is a SciPy ``LinearOperator``; with them, use the functions of
    ``jacometry.ops.chain``.

    Parameters
    ----------
    factors : sequence of Dense, Diagonal or Chain
        At least one; a nested chain is spliced in.

    Attributes
    ----------
    factors : tuple
    shape : tuple of int
        (n_out, n_in).
    n_samples : int or None
        B, or None if every factor is shared.
    widths : tuple of int
        The width of each interface, the input's first.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import Chain, Dense, Diagonal
    >>> chain = Chain([Dense([[1.0, 2.0]]), Diagonal([3.0])])
    >>> chain.shape
    (1, 2)
    >>> chain @ np.array([1.0, 1.0])
    array([9.])
    """

    def __init__(self, factors):
        flat: list[Dense | Diagonal] = []
        for position, factor in enumerate(factors):
            if isinstance(factor, Chain):
                flat.extend(factor.factors)
            elif isinstance(factor, (Dense, Diagonal)):
                flat.append(factor)
            else:
                raise TypeError(
                    f"factors[{position}] must be Dense, Diagonal or Chain, "
                    f"got {type(factor).__name__}"
                )
        if not flat:
            raise ValueError("factors must hold at least one factor: an empty chain has no size")
        n_samples = None
        for k, factor in enumerate(flat):
            if k and factor.shape[1] != flat[k - 1].shape[0]:
                raise ValueError(
                    f"factors[{k}] must have {flat[k - 1].shape[0]} columns to follow "
                    f"factors[{k - 1}], got shape {factor.shape}"
                )
            if factor.n_samples is not None:
                if n_samples not in (None, factor.n_samples):
                    raise ValueError(
                        f"factors[{k}] must hold {n_samples} samples as the factors before it, "
                        f"got {factor.n_samples}"
                    )
                n_samples = factor.n_samples
        self.factors: tuple[Dense | Diagonal, ...] = tuple(flat)
        self.n_samples = n_samples
        self.widths = (flat[0].shape[1], *(factor.shape[0] for factor in flat))
        super().__init__(
            np.result_type(*(factor.dtype for factor in flat)), (self.widths[-1], self.widths[0])
        )

    def _require_shared(self):
        if self.n_samples is not None:
            raise ValueError(
                f"a chain of {self.n_samples} samples is not one linear operator; "
                "use jacometry.ops.chain, or take one sample"
            )

    def _matvec(self, x):
        self._require_shared()
        x = np.ravel(x)
        for factor in self.factors:
            x = factor.jvp(x)
        return x

    def _rmatvec(self, y):
        self._require_shared()
        y = np.ravel(y)
        for factor in reversed(self.factors):
            y = factor.vjp(y)
        return y

    def __len__(self):
        return len(self.factors)

    def __getitem__(self, index):
        return Chain(self.factors[index]) if isinstance(index, slice) else self.factors[index]

    def __repr__(self):
        batch = "" if self.n_samples is None else f", n_samples={self.n_samples}"
        return f"Chain({len(self)} factors, widths {self.widths[0]}..{self.widths[-1]}{batch})"
