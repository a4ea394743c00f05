"""A chain of rectangular factors multiplied in the order of least cost: as runs of the kernel."""

from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import numpy as np

from .. import _kernels
from ._chain_arrays import ChainArrays
from ._parenthesise import fan_splits, least_cost_order, narrowest

# What a product of its own must save, in multiply-adds per sample: about what its call costs, where
# tens of samples share it (bench/fit_call_cost.py), and what planning costs per layer.
CALL_COST = 1 << 14
# Products that wait for their run, of as many samples as fit, take this many bytes.
WAITING_BYTES = 1 << 23


class Run(NamedTuple):
    """One call of the kernel: the product from interface points[0] to points[-1].

    Neighbours among the points span its factors: layers, or products of earlier runs.
    """

    points: list
    from_last: bool
    is_own: bool  # whether each sample has its own

    @property
    def ends(self):
        """The interfaces that the product spans."""
        return self.points[0], self.points[-1]


def runs_of(chain: ChainArrays):
    """The runs that give the product of a chain, the whole last; None for one plain run.

    They depend on the widths and on which layers are per sample, never on how many samples.
    """
    widths, n_layers = chain.widths, chain.n_layers
    if widths is None or n_layers < 3:
        return None
    is_own = [False] * n_layers
    if chain.n_samples is not None:
        for name, core_ndim in (("weights", 2), ("slopes", 1)):
            arrays = getattr(chain, name) or [None]
            has_own = [a is not None and a.ndim > core_ndim for a in arrays]
            is_own = [own or has_own[k % len(arrays)] for k, own in enumerate(is_own)]
    n_own = [0, *accumulate(is_own)]
    shared = _shared_parts(widths, n_own) if chain.n_samples is not None else []
    if len(set(widths)) == 1 and not shared:
        return None
    runs = _runs(widths, _splits(widths, shared), n_own)
    return None if len(runs) == 1 and not runs[0].from_last else runs


def _shared_parts(widths, n_own):
    """Parts (i, j) of shared layers only that are products of their own in some cheapest order.

    Any two narrowest interfaces are joined in some cheapest order, so a part between two of them
    costs no sample anything, and is multiplied once.
    """
    narrowest = min(widths)
    at = [k for k, width in enumerate(widths) if width == narrowest]
    parts = []
    for _, group in groupby(at, key=n_own.__getitem__):
        first, *rest = group
        if rest and _is_worth_a_call(widths, first, rest[-1]):
            parts.append((first, rest[-1]))
    return parts


def _is_worth_a_call(widths, first, last):
    """Whether the product from `first` to `last`, taken plainly, costs more than a call."""
    narrower = min(widths[first], widths[last])
    cost = narrower * sum(a * b for a, b in pairwise(widths[first : last + 1]))
    return last - first > 1 and cost > CALL_COST


def _splits(widths, parts):
    """Where each product of the cheapest order is split, the given parts products in it."""
    inside = {k for i, j in parts for k in range(i + 1, j)}
    splits = {}
    for piece in (
        *(range(i, j + 1) for i, j in parts),
        [k for k in range(len(widths)) if k not in inside],
    ):
        if len(piece) > 2:
            found = _cheap_splits([widths[k] for k in piece])
            splits.update({(piece[i], piece[j]): piece[k] for (i, j), k in found.items()})
    return splits


def _cheap_splits(widths):
    """The cheapest order, or one run from an end of the chain where no other is worth its calls.

    Each layer is in one triangle of the polygon and a triangle holds at most two of them, so no
    order costs less than half of the `fan` from the narrowest interface.
    """
    n_layers = len(widths) - 1
    edges = [a * b for a, b in pairwise(widths)]
    from_first, from_last = widths[0] * sum(edges[1:]), widths[-1] * sum(edges[:-1])
    end, one_run = (0, from_first) if from_first <= from_last else (n_layers, from_last)
    apex = narrowest(widths)
    fan = widths[apex] * sum(edges)
    if 2 * (one_run - CALL_COST) <= fan:
        return fan_splits(n_layers, end)
    if fan < n_layers * CALL_COST:
        least = fan + widths[0] * widths[apex] * widths[-1]
        splits = fan_splits(n_layers, apex)
    else:
        least, splits = least_cost_order(widths, CALL_COST)
    if 0 < apex < n_layers:  # a run to each end, and the two of them multiplied
        least += 2 * CALL_COST
    return splits if least < one_run else fan_splits(n_layers, end)


def _runs(widths, splits, n_own):
    """A tree of products as runs, each after those it needs.

    A run of own products does not begin with layers that all samples share: they are one of theirs.
    """
    waiting = [(0, len(n_own) - 1)]
    found = []
    while waiting:
        first, last = waiting.pop()
        middle = splits[first, last]
        from_last = (first, middle) not in splits and (middle, last) in splits
        is_own = n_own[last] > n_own[first]
        points = [first if from_last else last]
        i, j = first, last
        while (i, j) in splits:
            if is_own and n_own[i] == n_own[j] and _is_worth_a_call(widths, i, j):
                break
            middle = splits[i, j]
            points.append(middle)
            i, j = (middle, j) if from_last else (i, middle)
        points.append(j if from_last else i)
        if not from_last:
            points.reverse()
        found.append(Run(points, from_last, is_own))
        waiting.extend(pair for pair in pairwise(points) if pair in splits)
    return found[::-1]


def multiply(chain: ChainArrays, runs, mantissa, exponent, n_threads, check_finite):
    """Write the product of a chain, taken in these runs, into mantissa and exponent.

    Products of shared layers are formed once and kept; of the others, those of a group of samples
    at a time.  Raises for non-finite input as `ChainArrays.raise_non_finite` does.
    """
    products: dict = {}
    for run in runs:
        if not run.is_own:
            products[run.ends] = _multiply_run(
                chain, run, 0, 1, products, (mantissa, exponent), n_threads, check_finite
            )
    if not runs[-1].is_own:
        return
    widths = [chain.width(k) for k in range(chain.n_layers + 1)]
    per_sample = sum(
        widths[run.points[0]] * widths[run.points[-1]] * chain.dtype.itemsize + 8
        for run in runs[:-1]
        if run.is_own
    )
    n_items = len(exponent)
    step = max(n_threads, WAITING_BYTES // per_sample) if per_sample else n_items
    for lo in range(0, n_items, step):
        hi = min(lo + step, n_items)
        waiting = dict(products)
        for run in runs:
            if run.is_own:
                waiting[run.ends] = _multiply_run(
                    chain, run, lo, hi, waiting, (mantissa, exponent), n_threads, check_finite
                )


def _multiply_run(chain, run, lo, hi, products, out, n_threads, check_finite):
    """Mantissas and exponents of one run for samples [lo, hi), in `out` if it is the whole."""
    widths, points = chain.widths, run.points
    n_items, n_in, n_out = hi - lo, widths[points[0]], widths[points[-1]]
    if run.ends == (0, chain.n_layers):
        mantissa, exponent = out[0][lo:hi], out[1][lo:hi]
    else:
        mantissa = np.empty((n_items, n_out, n_in), chain.dtype)
        exponent = np.empty(n_items, np.int64)

    layers = chain.layers[np.array(points[:-1]) % len(chain.layers)]
    for name in ("weights", "slopes"):
        offset = lo * layers[f"{name}_stride"] * chain.dtype.itemsize
        layers[name] += offset.astype(np.uintp)
    factors = [products.pop(ends, None) for ends in pairwise(points)]
    extra = np.zeros(n_items, np.int64)
    for t, factor in enumerate(factors):
        if factor is not None:
            _, rows, cols = factor[0].shape
            stride = rows * cols if len(factor[1]) > 1 else 0
            layers[t] = (_kernels.address_of(factor[0]), 0, stride, 0, rows, cols, 0.0)
            extra += factor[1]

    bad_layer = np.empty(n_items, np.intp)
    part = ChainArrays()
    part.read_table(chain, layers, n_in, n_out, max(widths[k] for k in points))
    bad = _kernels.chain_product(
        part, n_items, mantissa, exponent, n_threads, run.from_last, bad_layer
    )
    if bad is not None and check_finite:
        chain.raise_non_finite(lo + bad[0], points[bad[1]])
    if extra.any():
        is_plain = bad_layer >= 0
        for i in np.flatnonzero(is_plain):
            mantissa[i] = np.ldexp(mantissa[i], int(np.clip(extra[i], -(1 << 14), 1 << 14)))
        exponent += np.where(is_plain | ~mantissa.any(axis=(1, 2)), 0, extra)
    return mantissa, exponent
