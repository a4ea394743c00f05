"""The decimal oracle of chain_log_svdvals against mpmath and exact values."""

import mpmath
import numpy as np

from jacometry.reference.chain_spectra import chain_log_svdvals


def test_the_oracle_agrees_with_mpmath_on_a_graded_product():
    rng = np.random.default_rng(1)
    weights = [np.diag(10.0 ** np.arange(0, -40, -10)) @ rng.standard_normal((4, 4))] * 5
    with mpmath.workdps(600):
        product = mpmath.eye(4)
        for w in weights:
            product = mpmath.matrix(w.tolist()) * product
        values = [mpmath.log(s) for s in mpmath.svd_r(product, compute_uv=False)]
        truth = np.array(sorted((float(x) for x in values), reverse=True))
    np.testing.assert_allclose(chain_log_svdvals(weights, digits=600), truth, rtol=1e-15)


def test_the_oracle_knows_slopes_shortcuts_and_zeros():
    weights, slopes = [np.diag([2.0, 3.0])], [np.array([5.0, 0.0])]
    expected = [np.log(11.0), 0.0]
    np.testing.assert_allclose(chain_log_svdvals(weights, slopes, shortcut=1.0), expected)
    wide = [np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])]
    np.testing.assert_array_equal(chain_log_svdvals(wide), [np.log(5.0), -np.inf])
