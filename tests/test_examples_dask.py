"""The recipe for chains longer than one machine gives what one machine gives."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jacometry import chain_product

RECIPE = Path(__file__).parents[1] / "examples" / "long_chain_dask.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("long_chain_dask", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n_segments", [1, 2, 7, 8])
def test_folded_segments_are_the_product_of_the_whole(recipe, n_segments):
    def load(index):
        return recipe.random_segment(index, n_layers=3, n=4)

    folded = recipe.product_of_segments(load, n_segments, scheduler="synchronous")
    threaded = recipe.product_of_segments(load, n_segments, scheduler="threads")
    np.testing.assert_array_equal(threaded.mantissa, folded.mantissa)
    assert threaded.exponent == folded.exponent

    weights = np.concatenate([load(i) for i in range(n_segments)])
    whole = chain_product(weights)
    magnitude = chain_product(np.abs(weights))
    # Each of the two within sum_k (n + 2) u |F| ... |F|; the last factor for u of the bound itself.
    bound = 2 * 1.01 * len(weights) * (4 + 2) * 2.0**-53 * magnitude.to_array()
    assert (np.abs(folded.to_array() - whole.to_array()) <= bound).all()


def test_the_recipe_goes_where_no_float_goes(recipe):
    product = recipe.product_of_segments(
        lambda i: 1e-30 * recipe.random_segment(i, 200, 4), 10, scheduler="threads"
    )
    assert float(product.log_norm()) < -2000 * 60
