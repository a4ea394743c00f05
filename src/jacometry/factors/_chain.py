"""Chains of factors, and what is made of chains: repeats, slices, shortcuts, whole batches."""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from ._base import Dense, Factor, Operator, float_dtype, real_number


class Chain(LinearOperator):
    """The product of factors, the first one applied first.

    A description: nothing is multiplied until an operation is asked for.  Every function of
    ``jacometry.ops.chain`` takes it.  Without per-sample factors it is a SciPy ``LinearOperator``;
    with them, `over_batch` makes one of the whole batch.  It is also the sequence of its factors:
    ``len``, iteration, indices and slices.

    Parameters
    ----------
    factors : sequence, or a single factor
        At least one: of this module's factors; chains, which are spliced in, repeats included;
        and what ``scipy.sparse.linalg.aslinearoperator`` takes (sparse matrices, operators, arrays
        of two axes).

    Attributes
    ----------
    shape : tuple of int
        (n_out, n_in), of one sample.
    n_samples : int or None
        B, or None if every factor is shared.
    couples_samples : bool
        Whether a factor mixes the samples of the batch, as `BatchNorm` does while training.
    runs : tuple of (tuple of factors, int)
        The factors as they are held: periods and how often each is repeated.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import Chain, Dense, Diagonal
    >>> chain = Chain([Dense([[1.0, 2.0]]), Diagonal([3.0])])
    >>> chain.shape
    (1, 2)
    >>> chain @ np.array([1.0, 1.0])
    array([9.])
    >>> len(Chain([Diagonal([0.5])]).repeat(10**6)[5:])
    999995
    """

    def __init__(self, factors: Iterable[Any]) -> None:
        if isinstance(factors, (Factor, LinearOperator)):
            factors = [factors]
        runs: list[tuple[tuple[Factor, ...], int]] = []
        loose: list[Factor] = []
        for position, given in enumerate(factors):
            if isinstance(given, Chain):
                for period, n_repeats in given.runs:
                    if n_repeats == 1:
                        loose.extend(period)
                        continue
                    if loose:
                        runs.append((tuple(loose), 1))
                        loose = []
                    runs.append((period, n_repeats))
            else:
                loose.append(_as_factor(f"factors[{position}]", given))
        if loose:
            runs.append((tuple(loose), 1))
        if not runs:
            raise ValueError("factors must hold at least one factor: an empty chain has no size")
        self._set(tuple(runs))

    def _set(self, runs: tuple[tuple[tuple[Factor, ...], int], ...]) -> None:
        self.runs = runs
        self._ends = np.cumsum([len(period) * n for period, n in runs]).tolist()
        self.n_samples = self._check()
        first, last = runs[0][0][0], runs[-1][0][-1]
        every = [factor for period, _ in runs for factor in period]
        self.couples_samples = any(factor.couples_samples for factor in every)
        dtype = float_dtype(*(factor.dtype for factor in every))
        super().__init__(dtype, (last.shape[0], first.shape[1]))

    def _check(self) -> int | None:
        """Raise where factors do not follow each other; how many samples there are."""
        n_samples = None
        previous: Factor | None = None
        start = 0
        for (period, n_repeats), end in zip(self.runs, self._ends, strict=True):
            for k, factor in enumerate(period, start):
                if previous is not None and factor.shape[1] != previous.shape[0]:
                    raise ValueError(
                        f"factors[{k}] must have {previous.shape[0]} columns to follow "
                        f"factors[{k - 1}], got shape {factor.shape}"
                    )
                if factor.n_samples is not None:
                    if n_samples not in (None, factor.n_samples):
                        raise ValueError(
                            f"factors[{k}] must hold {n_samples} samples as the factors before it, "
                            f"got {factor.n_samples}"
                        )
                    n_samples = factor.n_samples
                previous = factor
            n_out, n_in = period[-1].shape[0], period[0].shape[1]
            if n_repeats > 1 and n_out != n_in:
                raise ValueError(
                    f"a repeated chain must be as wide at its output as at its input, "
                    f"got shape ({n_out}, {n_in})"
                )
            start = end
        return n_samples

    @classmethod
    def _of_runs(cls, runs: Any) -> Chain:
        chain = cls.__new__(cls)
        chain._set(tuple(runs))
        return chain

    @property
    def factors(self) -> tuple[Factor, ...]:
        """All factors in a tuple, repeats written out."""
        return tuple(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each of the ``len(chain) + 1`` interfaces, the input's first."""
        return (self.shape[1], *(factor.shape[0] for factor in self))

    def repeat(self, n_repeats: int) -> Chain:
        """The chain `n_repeats` times over, without copies.

        Parameters
        ----------
        n_repeats : int
            At least 1.

        Returns
        -------
        Chain
            It holds one period, however often that is repeated.

        Raises
        ------
        ValueError
            If `n_repeats` is less than 1, or the chain is not square.
        """
        n_repeats = operator.index(n_repeats)
        if n_repeats < 1:
            raise ValueError(f"n_repeats must be at least 1, got {n_repeats}")
        if n_repeats == 1:
            return self
        if len(self.runs) == 1:
            period, already = self.runs[0]
            return Chain._of_runs([(period, already * n_repeats)])
        return Chain._of_runs([(tuple(self), n_repeats)])

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """The chain applied to tangents of shape (..., n_in), plainly; cf. `chain_jvp`."""
        for factor in self:
            tangent = factor.jvp(tangent)
        return tangent

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """Its transpose applied to cotangents of shape (..., n_out), plainly; cf. `chain_vjp`."""
        for factor in reversed(self):
            cotangent = factor.vjp(cotangent)
        return cotangent

    def over_batch(self) -> LinearOperator:
        """The chain of a whole batch as one linear operator.

        Returns
        -------
        LinearOperator
            Of shape (B n_out, B n_in), on the flattened (B, n) array: block diagonal, or coupled
            where a factor mixes the samples.

        Raises
        ------
        ValueError
            If the chain has no samples.
        """
        return _BatchOperator(self)

    def _require_shared(self) -> None:
        if self.n_samples is not None:
            raise ValueError(
                f"a chain of {self.n_samples} samples is not one linear operator: use "
                "chain.over_batch(), the functions of jacometry.ops.chain, or one sample"
            )

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        self._require_shared()
        return self.jvp(np.asarray(x).T).T

    def _rmatmat(self, y: np.ndarray) -> np.ndarray:
        self._require_shared()
        return self.vjp(np.asarray(y).T).T

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        self._require_shared()
        return self.jvp(np.ravel(x))

    def _rmatvec(self, y: np.ndarray) -> np.ndarray:
        self._require_shared()
        return self.vjp(np.ravel(y))

    def _transpose(self) -> Chain:
        return Chain._of_runs(
            (tuple(factor.T for factor in reversed(period)), n) for period, n in reversed(self.runs)
        )

    def _adjoint(self) -> Chain:
        return self._transpose()

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Factor]:
        return itertools.chain.from_iterable(
            period for run, n in self.runs for period in itertools.repeat(run, n)
        )

    def __reversed__(self) -> Iterator[Factor]:
        backwards = ((run[::-1], n) for run, n in reversed(self.runs))
        return itertools.chain.from_iterable(
            period for run, n in backwards for period in itertools.repeat(run, n)
        )

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            position = operator.index(index)
            position += len(self) if position < 0 else 0
            if not 0 <= position < len(self):
                raise IndexError(f"factor {index} of a chain of {len(self)}")
            run = bisect_right(self._ends, position)
            period, _ = self.runs[run]
            return period[(position - self._ends[run]) % len(period)]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return Chain([self[k] for k in range(start, stop, step)])
        if start >= stop:
            raise ValueError(f"a chain must hold at least one factor, got the slice {index}")
        parts: list[Chain] = []
        begin = 0
        for (period, _), end in zip(self.runs, self._ends, strict=True):
            low, high = max(start, begin) - begin, min(stop, end) - begin
            parts.extend(_cut(period, low, high))
            begin = end
        return Chain(parts)

    def __repr__(self) -> str:
        batch = "" if self.n_samples is None else f", n_samples={self.n_samples}"
        return f"Chain({len(self)} factors, widths {self.shape[1]}..{self.shape[0]}{batch})"


class Residual(Factor):
    """A shortcut around a chain: ``I + scale * J``.

    Parameters
    ----------
    chain : Chain, factor or sequence of factors
        The branch; as wide at its output as at its input.
    scale : float
        Multiplies the branch.

    Examples
    --------
    >>> import numpy as np
    >>> from jacometry.factors import Dense, Residual
    >>> Residual(Dense([[1.0, 2.0], [0.0, 1.0]]), scale=0.5).jvp(np.ones(2))
    array([2.5, 1.5])
    """

    def __init__(self, chain: Any, scale: float = 1.0) -> None:
        if not isinstance(chain, Chain):
            chain = Chain([chain] if isinstance(chain, np.ndarray) else chain)
        if chain.shape[0] != chain.shape[1]:
            raise ValueError(
                f"chain must be as wide at its output as at its input, got shape {chain.shape}"
            )
        self.chain = chain
        self.scale = real_number("scale", scale)
        self.shape = chain.shape
        self.n_samples = chain.n_samples
        self.dtype = chain.dtype
        self.couples_samples = chain.couples_samples

    def jvp(self, tangent: np.ndarray) -> np.ndarray:
        """``tangent + scale * (chain @ tangent)`` for a tangent of shape (..., n)."""
        return tangent + self._times_scale(self.chain.jvp(tangent))

    def vjp(self, cotangent: np.ndarray) -> np.ndarray:
        """``cotangent + scale * (chain.T @ cotangent)`` for a cotangent of shape (..., n)."""
        return cotangent + self._times_scale(self.chain.vjp(cotangent))

    def _times_scale(self, branch: np.ndarray) -> np.ndarray:
        return branch if self.scale == 1 else self.scale * branch

    @property
    def T(self) -> Residual:
        """The transposed factor."""
        return Residual(self.chain.T, self.scale)

    def __repr__(self) -> str:
        return f"Residual({self.chain!r}, scale={self.scale:g})"


class _BatchOperator(LinearOperator):
    """A chain of B samples on flattened (B, n) arrays."""

    def __init__(self, chain: Chain) -> None:
        if chain.n_samples is None:
            raise ValueError("the chain has no samples: it is a linear operator as it stands")
        self.chain, self.n_samples = chain, int(chain.n_samples)
        n_out, n_in = chain.shape
        super().__init__(chain.dtype, (chain.n_samples * n_out, chain.n_samples * n_in))

    def _apply(self, push: Any, x: np.ndarray, n_in: int, n_out: int) -> np.ndarray:
        x = np.asarray(x)
        blocks = x.T.reshape(x.shape[1], self.n_samples, n_in).swapaxes(0, 1)
        return push(blocks).swapaxes(0, 1).reshape(x.shape[1], self.n_samples * n_out).T

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        return self._apply(self.chain.jvp, x, *self.chain.shape[::-1])

    def _rmatmat(self, y: np.ndarray) -> np.ndarray:
        return self._apply(self.chain.vjp, y, *self.chain.shape)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, y: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(y, (-1, 1)))[:, 0]

    def _transpose(self) -> _BatchOperator:
        return _BatchOperator(self.chain.T)

    def _adjoint(self) -> _BatchOperator:
        return self._transpose()


def _as_factor(name: str, given: Any) -> Factor:
    if isinstance(given, Factor):
        return given
    if isinstance(given, np.ndarray) and given.ndim in (2, 3):
        return Dense(given)
    if isinstance(given, LinearOperator) or issparse(given):
        return Operator(given)
    if hasattr(given, "shape") and hasattr(given, "matvec"):
        return Operator(given)
    raise TypeError(
        f"{name} must be a factor, a Chain, a LinearOperator or a sparse matrix, "
        f"got {type(given).__name__}"
    )


def _cut(period: tuple[Factor, ...], low: int, high: int) -> list[Any]:
    """Factors [low, high) of a repeated period: its loose ends, and what remains of the run."""
    if low >= high:
        return []
    size = len(period)
    first, last = -(-low // size), high // size
    if first > last:  # all within one repeat
        return list(period[low % size : high % size])
    whole = [Chain._of_runs([(period, last - first)])] if last > first else []
    head = period[low % size :] if low % size else ()
    return [*head, *whole, *period[: high % size]]
