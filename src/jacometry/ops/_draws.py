"""Random numbers drawn for many items at once, each from a stream of its own."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .. import _threads


@contextmanager
def drawing_threads(n_threads):
    """A function that calls ``draw(i)`` for each of many i, on as many threads as a call may use.

    `draw` spends its time in a NumPy generator, which lets other threads run; what it draws must
    depend on i alone.
    """
    n_threads = _threads.resolve(n_threads)
    if n_threads == 1:
        yield _one_after_the_other
        return
    with ThreadPoolExecutor(n_threads) as pool:
        yield lambda draw, items: list(pool.map(draw, items))


def _one_after_the_other(draw, items):
    for i in items:
        draw(i)
