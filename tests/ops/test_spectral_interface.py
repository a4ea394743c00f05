"""spectral_norm as its callers see it: dispatch, shapes, dtypes, seeds and rejections."""

import numpy as np
import pytest

from jacometry import _backend
from jacometry.ops.spectral import NormBounds, spectral_norm


def test_auto_chooses_by_shape_alone():
    assert spectral_norm(np.ones((64, 64))).method == "gram"
    assert spectral_norm(np.ones((65, 65))).method == "lanczos"
    assert spectral_norm(np.ones((3, 2, 64, 5000))).method == "lanczos"
    assert spectral_norm(np.ones((0, 64, 64))).method == "gram"


@pytest.mark.parametrize("method", ["auto", "lanczos", "gram", "svd"])
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3), (2, 3, 0), (0, 0), (2, 0, 5, 5)])
def test_empty_input_gives_the_batch_shape_and_zeros(method, shape):
    result = spectral_norm(np.ones(shape), method=method)
    for name in ("lower", "value", "upper", "converged", "n_iter", "failure_prob", "log_upper"):
        assert np.shape(getattr(result, name)) == shape[:-2]
    assert (np.asarray(result) == 0).all()
    assert np.all(result.log_upper == -np.inf)
    assert np.all(result.converged)


def test_layouts_and_dtypes_of_the_input_do_not_matter(rng):
    a = rng.standard_normal((4, 6, 5))
    expected = spectral_norm(a).value
    strided = np.zeros((4, 12, 10))
    strided[:, ::2, ::2] = a
    read_only = a.copy()
    read_only.flags.writeable = False
    views = [np.asfortranarray(a), strided[:, ::2, ::2], a.astype(">f8"), read_only, a.tolist()]
    for other in views:
        assert (spectral_norm(other).value == expected).all()
    assert spectral_norm(a.astype(np.float16)).value.dtype == np.float32
    assert spectral_norm([[1, 2], [3, 4]]).value.dtype == np.float64


def test_scalars_come_back_without_a_batch():
    result = spectral_norm(np.diag([3.0, 4.0]))
    assert isinstance(result, NormBounds)
    assert isinstance(result.value, np.float64)
    assert isinstance(result.converged, np.bool_)
    assert float(result) == pytest.approx(4)
    assert np.asarray(result) == result.value


def test_probability_is_reported_for_the_uncertain_side_only(rng):
    a = rng.standard_normal((2, 80, 80))
    a[1] = np.outer(a[1, 0], a[1, 1])  # the Frobenius norm, certain, is the better bound
    result = spectral_norm(a, failure_prob=1e-5, rng=rng)
    assert result.lower_certain.all()
    assert result.upper_certain.tolist() == [False, True]
    assert result.failure_prob.tolist() == [1e-5, 0.0]
    assert not spectral_norm(a, method="svd").upper_certain.any()


def test_same_seed_gives_the_same_result_and_no_seed_another(rng):
    a = rng.standard_normal((100, 100))
    one, two = (spectral_norm(a, rng=3) for _ in range(2))
    assert one.upper == two.upper
    assert spectral_norm(a).upper != spectral_norm(a).upper


@pytest.mark.parametrize("method", ["gram", "lanczos"])
def test_reference_backend_gives_overlapping_bounds(monkeypatch, method, rng):
    a = rng.standard_normal((3, 12, 10))
    compiled = spectral_norm(a, method=method, rng=1)
    monkeypatch.setattr(_backend, "name", "reference")
    routed = spectral_norm(a, method=method, rng=1)
    assert (routed.lower <= compiled.upper).all()
    assert (compiled.lower <= routed.upper).all()
    np.testing.assert_allclose(routed.value, compiled.value, rtol=1e-6)
    assert routed.converged.all()


@pytest.mark.parametrize("method", ["auto", "lanczos", "gram", "svd"])
@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf])
def test_non_finite_entries_are_named_by_item(method, entry, rng):
    a = rng.standard_normal((2, 3, 70, 66))
    a[1, 2, 5, 7] = entry
    where = r"in item \(1, 2\), row 5, column 7"
    with pytest.raises(ValueError, match=f"a must be finite, got .* {where}"):
        spectral_norm(a, method=method)
    result = spectral_norm(a, method=method, check_finite=False)
    assert np.isnan(result.value[1, 2])
    assert np.isfinite(result.value[0]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a": np.ones(3)}, ValueError, r"a must have shape \(..., m, n\), got \(3,\)"),
        ({"a": 1.0}, ValueError, "a must have shape"),
        ({"a": None}, TypeError, "a must be an array, got None"),
        ({"a": np.ones((2, 2), complex)}, TypeError, "a must have a real floating dtype"),
        ({"matvec_rtol": 0.0}, ValueError, "matvec_rtol declares the rounding of an operator"),
        ({"rtol": 0.0}, ValueError, "rtol must lie in"),
        ({"rtol": -1.0}, ValueError, "rtol must lie in"),
        ({"rtol": np.nan}, ValueError, "rtol must lie in"),
        ({"rtol": "1"}, TypeError, "rtol must be a real number"),
        ({"failure_prob": 0.0}, ValueError, r"failure_prob must lie in \(0, 1\)"),
        ({"failure_prob": 1.0}, ValueError, r"failure_prob must lie in \(0, 1\)"),
        ({"method": "power"}, ValueError, "method must be one of 'auto', 'lanczos', 'gram', 'svd'"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
    ],
)
def test_wrong_arguments_are_rejected_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        spectral_norm(**{"a": np.eye(3), **arguments})
