"""Gripenberg's search for the joint spectral radius, with every rounding error accounted for."""

import math

import numpy as np

from .. import _backend, _kernels
from ._radius_bounds import EPS, disc_bound, exact_bound, gamma, root_below, tiny

# Products formed at once: about so many numbers, which stay in the cache.
CHUNK_SIZE = 2**17

# Numbers in the products held to be continued (128 MB), and factors in the longest one.
MAX_HELD = 2**24
MAX_LENGTH = 2**14

# Error of log2 and exp2, relative to an argument or result of about one.
LOG_ERROR = 8 * EPS

# An estimated lower bound is worth a proof if it is larger by so much, relatively.
GAIN = 1e-12

# Squarings that bound the radius of a product from above before its eigenvalues are computed.
N_SQUARINGS = 4


def _transform(matrices, errors, similarity):
    """``T A T^-1`` of every matrix, and bounds on the 2-norm of what is missing.

    With S the computed inverse and ``F = I - T S``, ``T A T^-1 = (T A S) (I - F)^-1``.
    """
    n = len(similarity)
    scale = int(np.frexp(np.abs(similarity).max())[1])
    t = np.ldexp(similarity, -scale)
    try:
        s = np.linalg.inv(t)
    except np.linalg.LinAlgError:
        raise ValueError("norm must be an invertible matrix, got a singular one") from None
    slack, size = 1 + gamma(n * n), np.linalg.norm
    rounding = gamma(n) * size(np.abs(t) @ np.abs(s))
    defect = (size(np.eye(n) - t @ s) + rounding) * slack
    if not defect < 0.25:
        raise ValueError(
            "norm must be an invertible matrix, got one that is singular to working precision"
        )
    moved = t @ matrices @ s
    products = np.abs(t) @ np.abs(matrices) @ np.abs(s)
    missing = 2 * gamma(n) * size(products, axis=(1, 2)) + tiny(n) * (1 + size(s))
    missing += defect / (1 - defect) * (size(moved, axis=(1, 2)) + missing)
    missing += errors * size(t) * size(s) / (1 - defect)
    return moved, missing * slack


class Search:
    """Gripenberg's search: the products under way, and what is known.

    All logs are to base 2.  A product is ``mantissa * 2**exponent`` with an error bound in the
    units of its mantissa; `bound` is the log of the smallest ``||P_j||**(1/j)`` of its beginnings.
    """

    def __init__(self, matrices, errors, delta, norm, similarity, max_products, n_threads):
        self.given, self.delta, self.norm = matrices, delta, norm
        self.max_products, self.n_threads = max_products, n_threads
        self.lower, self.word = 0.0, ()
        self.best_estimate = -math.inf
        self.closed_log = -math.inf  # the largest bound among the products not continued
        self.n_products, self.length = 0, 0
        self.parents, self.letters = [], []  # of the products continued, length by length
        self.matrices, self.errors = matrices, errors
        if similarity is not None:
            self.matrices, self.errors = _transform(matrices, errors, similarity)
        self.n_exact = 0 if self.errors.any() else _exact_length(self.matrices)
        self.gamma = gamma(matrices.shape[-1])
        self.norms = self._norms(self.matrices) + self.errors
        self.sizes = self._sizes(self.matrices)
        self.growth = _Growth()

    @property
    def upper_log(self):
        return max(self.closed_log, self.open_log)

    @property
    def threshold(self):
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.log2((self.lower + self.delta) * (1 - 4 * LOG_ERROR)))

    def run(self):
        """Search until nothing is left to continue, or the budget is used up."""
        n_matrices, n, _ = self.matrices.shape
        self._open(n_matrices)
        exponent = np.zeros(n_matrices)
        letters = np.arange(n_matrices, dtype=np.int32)
        self.growth.add_step(_log2(self.errors.max()))
        self._take(self.matrices, exponent, self.errors, np.full(n_matrices, np.inf), None, letters)
        self._close_level(n)
        while len(self.bound) and self.length < MAX_LENGTH:
            n_parents = min((self.max_products - self.n_products) // n_matrices, len(self.bound))
            if not n_parents:
                break
            self._level(n_parents)

    def _level(self, n_parents):
        """Continue the first products by every matrix."""
        n_matrices, n, _ = self.matrices.shape
        mantissa, exponent, error, bound = self.mantissa, self.exponent, self.error, self.bound
        self.closed_log = max(self.closed_log, np.max(bound[n_parents:], initial=-math.inf))
        step = max(1, CHUNK_SIZE // (n_matrices * n * n))
        sizes = self._sizes(mantissa[:n_parents])
        is_exact = self.length + 1 <= self.n_exact
        per_matrix = self.errors + (0.0 if is_exact else self.gamma) * self.sizes
        step_error = per_matrix.max() * sizes + (0.0 if is_exact else 2 * tiny(n))
        self.growth.add_step(float((_log2(step_error) + exponent[:n_parents]).max()))
        by_growth = self.growth.error()
        self._open(n_matrices * n_parents)
        letters = np.tile(np.arange(n_matrices, dtype=np.int32), step)
        for begin in range(0, n_parents, step):
            own = slice(begin, min(begin + step, n_parents))
            n_own = own.stop - begin
            products = np.matmul(self.matrices, mantissa[own, None])
            rounded = self.norms * error[own, None] + per_matrix * sizes[own, None]
            if not is_exact:
                rounded = rounded * (1 + 8 * EPS) + tiny(n)
                with np.errstate(over="ignore"):
                    known = np.exp2(by_growth - exponent[own])
                rounded = np.minimum(rounded, known[:, None])
            self._take(
                products.reshape(-1, n, n),
                np.repeat(exponent[own], n_matrices),
                rounded.ravel(),
                np.repeat(bound[own], n_matrices),
                np.repeat(np.arange(begin, own.stop, dtype=np.int32), n_matrices),
                letters[: n_own * n_matrices],
            )
        self._close_level(n)

    def _open(self, n_products):
        self.length += 1
        self.n_products += n_products
        self.kept, self.stopped, self.cycles = [], -math.inf, np.empty(0, np.int64)

    def _take(self, products, exponent, error, bound, parents, letters):
        """Measure a chunk of new products; keep those to continue."""
        norm_log = _log2(self._norms(products) + error) + exponent
        slack = LOG_ERROR * (1 + np.abs(norm_log) + 2 * np.abs(exponent))
        np.add(norm_log, slack, out=norm_log, where=norm_log > -math.inf)
        bound = np.minimum(bound, norm_log / self.length * (1 + np.sign(norm_log) * EPS))
        self._raise_lower(products, exponent, norm_log, parents, letters)
        keep = bound > self.threshold
        self._close(bound[~keep], norm_log[~keep])
        if keep.any():
            origin = np.zeros(int(keep.sum()), np.int32) if parents is None else parents[keep]
            self.kept.append(
                (products[keep], exponent[keep], error[keep], bound[keep], norm_log[keep],
                 origin, letters[keep])
            )  # fmt: skip
        if sum(chunk[0].size for chunk in self.kept) > 1.5 * MAX_HELD:
            self.kept = [self._merged(products.shape[-1])]

    def _close(self, bound, norm_log):
        """These products are not continued."""
        self.closed_log = max(self.closed_log, float(np.max(bound, initial=-math.inf)))
        self.stopped = max(self.stopped, float(np.max(norm_log, initial=-math.inf)))

    def _merged(self, n):
        """What is kept in one chunk, the largest bound first, and no more than may be held."""
        if not self.kept:
            return [np.empty((0, n, n)), *(np.empty(0) for _ in range(6))]
        columns = [np.concatenate(column) for column in zip(*self.kept, strict=True)]
        bound, norm_log = columns[3:5]
        order = np.argsort(-bound, kind="stable")
        is_open = bound[order] > self.threshold  # which may have risen since
        is_open[MAX_HELD // (n * n) :] = False
        ended = order[~is_open]
        self._close(bound[ended], norm_log[ended])
        return [column[order[is_open]] for column in columns]

    def _close_level(self, n):
        """Make what is kept the products to continue."""
        mantissa, exponent, error, bound, norm_log, parents, letters = self._merged(n)
        self.kept = []
        peak = np.abs(mantissa).max(axis=(1, 2)) if len(mantissa) else np.empty(0)
        if len(peak) and not (peak.max() < 2.0**100 and peak.min() > 2.0**-100):
            shift = np.frexp(np.maximum(peak, error))[1]
            mantissa = np.ldexp(mantissa, -shift[:, None, None])
            error = np.ldexp(error, -shift) * (1 + EPS) + tiny(n)
            exponent = exponent + shift
        self.mantissa, self.exponent, self.error, self.bound = mantissa, exponent, error, bound
        self.parents.append(parents)
        self.letters.append(letters)
        self.growth.add_length(float(np.max(norm_log, initial=-math.inf)), self.stopped)

    @property
    def open_log(self):
        return float(np.max(self.bound, initial=-math.inf))

    def _norms(self, products):
        """Upper bounds on the norms, rounding included."""
        n = products.shape[-1]
        if self.norm != 2:
            axis = 1 if self.norm == 1 else 2
            return np.abs(products).sum(axis=axis).max(axis=1) * (1 + (n + 2) * EPS)
        n_items = len(products)
        bounds, exponent = np.zeros((3, n_items)), np.zeros(n_items, np.int64)
        if _backend.is_reference():
            reference = _backend.reference("spectral")
            for i, item in enumerate(products):
                bounds[:, i], exponent[i] = reference.spectral_norm_gram(item)
        elif n_items:
            _kernels.spectral_norm_gram(
                1,
                products,
                math.inf,
                bounds,
                np.empty((3, n_items)),
                exponent,
                np.empty(n_items, np.intc),
                self.n_threads,
            )
        return np.ldexp(bounds[-1], exponent)

    def _sizes(self, products):
        """Norms for the rounding of a product: Frobenius for 2, else the norm itself."""
        n = products.shape[-1]
        if self.norm != 2:
            return self._norms(products)
        rows = products.reshape(len(products), -1)
        return np.sqrt(np.vecdot(rows, rows)) * (1 + (n * n + 2) * EPS)

    def _raise_lower(self, products, exponent, norm_log, parents, letters):
        """Look for a product whose spectral radius proves a better lower bound."""
        some = np.flatnonzero(norm_log / self.length > self._wanted())
        if products.shape[-1] > 2:
            some = some[self._new_cycles(None if parents is None else parents[some], letters[some])]
        estimates = np.full(len(products), -math.inf)
        estimates[some] = _radius_estimates(
            products[some], exponent[some], self.length, self._wanted()
        )
        while len(estimates):
            best = int(np.argmax(estimates))
            if not estimates[best] > self._wanted():
                return
            self.best_estimate = float(estimates[best])
            word = self._word(None if parents is None else parents[best], letters[best])
            bound = self._prove(word, 2.0 ** estimates[best])
            if bound > self.lower:
                self.lower, self.word = bound, word

    def _new_cycles(self, parents, letters):
        """Where the word is not a rotation of one before it: rotations have one spectral radius."""
        n_letters = len(self.matrices)
        if n_letters**self.length > 2**62:
            return np.arange(len(letters))
        code, power = letters.astype(np.int64), 1
        for own_parents, own_letters in zip(self.parents[::-1], self.letters[::-1], strict=True):
            power *= n_letters
            code += power * own_letters[parents].astype(np.int64)
            parents = own_parents[parents]
        least = code
        for _ in range(self.length - 1):
            code = code // n_letters + power * (code % n_letters)
            least = np.minimum(least, code)
        unique, first = np.unique(least, return_index=True)
        is_new = ~np.isin(unique, self.cycles)
        self.cycles = np.concatenate([self.cycles, unique[is_new]])
        return np.sort(first[is_new])

    def _wanted(self):
        return self.best_estimate + GAIN

    def _prove(self, word, estimate):
        """A lower bound on the joint spectral radius from one product."""
        bound, exponent = disc_bound(self.given, word)
        digits, shift = math.frexp(bound)
        proved = root_below(int(math.ldexp(digits, 53)), exponent + shift - 53, len(word))
        if proved < estimate * (1 - 1e-9):
            exact = exact_bound(self.given, word)
            proved = proved if exact is None else max(proved, exact)
        return proved

    def _word(self, parent, letter):
        word = [int(letter)]
        for parents, letters in zip(self.parents[::-1], self.letters[::-1], strict=True):
            word.append(int(letters[parent]))
            parent = parents[parent]
        return tuple(word[::-1])


class _Growth:
    """Logs of bounds on the norms and on the rounding errors of all products of each length.

    Rounding carried on factor by factor, ``||M_k|| ... ||M_j||``, may grow faster than the products
    do.  Here the error of each step is carried on by the largest norm of the products of as many
    matrices as follow it.
    """

    def __init__(self):
        self.length = 0
        # by length: the largest norm of any product, of one not continued, rounding of a step
        self.norm, self.stopped, self.rounding = np.empty((3, MAX_LENGTH + 1))
        self.norm[0] = 0.0

    def add_step(self, rounding):
        """The largest error of forming a product of the next length from its beginning."""
        self.rounding[self.length + 1] = rounding

    def add_length(self, longest, stopped):
        """The largest norms of that length, of products continued and of those that are not."""
        self.length = k = self.length + 1
        self.stopped[k] = stopped
        # every product of this length is continued, or begins with one that was not
        tails = self.stopped[1 : k + 1] + self.norm[k - 1 :: -1]
        self.norm[k] = max(longest, tails.max())

    def error(self):
        """A bound on the error of any product of the next length, with room for its own."""
        k = self.length + 1
        terms = self.rounding[1 : k + 1] + self.norm[k - 1 :: -1]
        largest = terms.max()
        if not math.isfinite(largest):
            return largest
        return float(largest + math.log2(np.exp2(terms - largest).sum())) + 0.1


def _log2(x):
    with np.errstate(divide="ignore"):
        return np.log2(x)


def _exact_length(matrices):
    """How many matrices can be multiplied without any rounding: entries of few bits."""
    digits = matrices
    for n_bits in range(1, 27):
        digits = digits * 2
        if (digits == np.rint(digits)).all():
            return int(53 // (n_bits + math.log2(matrices.shape[-1])))
    return 0


def _radius_estimates(products, exponent, length, wanted):
    """Log of ``radius**(1/length)`` of the products that may exceed `wanted`; -inf for others."""
    estimates = np.full(len(products), -math.inf)
    some, n = np.arange(len(products)), products.shape[-1]
    if n > 2:
        # ||P**(2**j)||**(2**-j) >= radius
        power, power_log = products, np.zeros(len(products))
        for j in range(N_SQUARINGS):
            peak = np.abs(power).max(axis=(1, 2), initial=0.0)
            power = power / np.where(peak > 0, peak, 1.0)[:, None, None]
            power_log = 2 * (power_log + _log2(peak))
            power = power @ power
            rows = power.reshape(len(power), n * n)
            size_log = power_log + 0.5 * _log2(np.vecdot(rows, rows))
            is_open = (size_log * 2.0 ** -(j + 1) + exponent[some]) / length > wanted
            some, power, power_log = some[is_open], power[is_open], power_log[is_open]
    if len(some):
        radius = _radius_of_two(products[some]) if n <= 2 else _radius(products[some])
        estimates[some] = (_log2(radius) + exponent[some]) / length
    return estimates


def _radius(products):
    return np.abs(np.linalg.eigvals(products)).max(axis=1)


def _radius_of_two(products):
    if products.shape[-1] == 1:
        return np.abs(products[:, 0, 0])
    half = 0.5 * (products[:, 0, 0] + products[:, 1, 1])
    spread = 0.5 * (products[:, 0, 0] - products[:, 1, 1])
    square = spread * spread + products[:, 0, 1] * products[:, 1, 0]
    root = np.sqrt(np.abs(square))
    return np.where(square >= 0, np.abs(half) + root, np.hypot(half, root))
