"""A chain longer than one machine: Dask multiplies its segments, `@` folds their products.

Run ``python examples/long_chain_dask.py`` with Dask installed; give `product_of_segments` the
scheduler or client of your cluster.
"""

import dask
import numpy as np

from jacometry import chain_product


@dask.delayed
def segment_product(load, index):
    """The product of one segment, which is loaded where it is multiplied."""
    return chain_product(load(index), n_threads=1)


@dask.delayed
def joined(earlier, later):
    """Two neighbours as one: the later segment acts second, so it stands on the left."""
    return later @ earlier


def product_of_segments(load, n_segments, **compute_options):
    """The product of all segments as a ScaledArray, folded pairwise in an order that is fixed.

    `load(index)` gives the weights of a segment; the first segment is applied first.  The tree
    depends on the number of segments alone, so every scheduler gives the same bits.
    """
    products = [segment_product(load, index) for index in range(n_segments)]
    while len(products) > 1:
        pairs = [joined(*products[i : i + 2]) for i in range(0, len(products) - 1, 2)]
        products = pairs + products[len(products) // 2 * 2 :]
    return products[0].compute(**compute_options)


def random_segment(index, n_layers=1000, n=8):
    """Stands for a file: 1000 layers of Gaussian factors of unit gain."""
    rng = np.random.default_rng(index)
    return rng.standard_normal((n_layers, n, n)) / np.sqrt(n)


if __name__ == "__main__":
    product = product_of_segments(random_segment, 100, scheduler="threads")
    print(f"100000 layers: log norm {float(product.log_norm()):.6f}")
