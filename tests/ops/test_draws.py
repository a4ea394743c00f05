"""Normal numbers by position: exact against the oracle, and of the law they promise.

False alarms: each statistical check is two-sided and rejects the right law with a probability of
1e-7; there are fewer than 100.  Seeds are fixed by the tests' names.
"""

from functools import lru_cache

import mpmath
import numpy as np
import pytest
from scipy import stats

from jacometry import _kernels
from jacometry.ops._draws import gaussian_rows
from jacometry.reference import gaussian as reference

ALPHA = 1e-7
KEY = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
# Radius, angle and two products: see csrc/kernels/gaussian.inc.h.
ROUNDINGS = 8
N_EXACT = 1280


def drawn(keys, first, count, dtype, **options):
    keys = np.array(keys, np.uint64).reshape(-1, 2)
    out = np.full((len(keys), count), np.nan, dtype)
    gaussian_rows(keys, first, out, **options)
    return out


@lru_cache
def truths(n_bits):
    """The first numbers of KEY's stream at forty digits, rounded to longer than any dtype."""
    kind = np.float32 if n_bits == 32 else np.float64
    numbers = []
    for tile in range(N_EXACT // 128):
        firsts, seconds = [], []
        for a, b in zip(*reference.pair_bits(KEY, tile, n_bits), strict=True):
            u, y, sign, exchange = reference.uniforms(a, b, n_bits)
            with mpmath.workdps(40):
                radius = mpmath.sqrt(-2 * mpmath.log(float(kind(u))))
                half = mpmath.mpf(float(kind(y))) / 2
                point = (sign * radius * mpmath.cospi(half), radius * mpmath.sinpi(half))
            x, z = point[::-1] if exchange else point
            firsts.append(x)
            seconds.append(z)
        numbers += firsts + seconds
    return numbers


def test_numbers_agree_with_the_oracle(isa, dtype):
    scale = 0.75
    found = drawn(KEY, 0, N_EXACT, dtype, scale=scale)[0]
    rounding = np.finfo(dtype).eps / 2
    with mpmath.workdps(40):
        exact = truths(8 * dtype.itemsize)
        errors = [abs(float(x) / (scale * t) - 1) for x, t in zip(found, exact, strict=True)]
    assert max(errors) <= ROUNDINGS * rounding
    # The oracle, in float64, has as many roundings.
    oracle = reference.gaussian_fill(KEY, 0, N_EXACT, scale, dtype)
    np.testing.assert_allclose(found, oracle, rtol=2 * ROUNDINGS * rounding)


@pytest.mark.parametrize("first", [0, 1, 63, 128, 1000, 2**40 + 5, 2**62])
def test_gaussian_fill_begins_and_ends_anywhere(isa, dtype, first):
    keys = np.array([KEY, (0, 0)], np.uint64)
    whole = drawn(keys, first, 700, dtype)
    for begin, end in ((0, 0), (0, 1), (1, 2), (5, 700), (127, 130), (128, 256), (300, 301)):
        part = drawn(keys, first + begin, end - begin, dtype)
        np.testing.assert_array_equal(part, whole[:, begin:end])
    oracle = reference.gaussian_fill((0, 0), first, 10, 1.0, dtype)
    rtol = 2 * ROUNDINGS * np.finfo(dtype).eps / 2
    np.testing.assert_allclose(whole[1, :10], oracle, rtol=rtol)


def test_rows_depend_on_neither_threads_nor_their_neighbours(dtype, rng):
    keys = rng.integers(0, 2**64, (5, 2), np.uint64)
    whole = drawn(keys, 7, 50_001, dtype, n_threads=1)
    np.testing.assert_array_equal(drawn(keys, 7, 50_001, dtype, n_threads=3), whole)
    np.testing.assert_array_equal(drawn(keys[3:4], 7, 50_001, dtype), whole[3:4])
    room = np.zeros((5, 1000), dtype)
    gaussian_rows(keys, 7, room[:, 10:900], n_threads=2)
    np.testing.assert_array_equal(room[:, 10:900], whole[:, :890])
    assert not room[:, :10].any()
    assert not room[:, 900:].any()


def test_gaussian_fill_takes_what_the_binding_gives(dtype):
    out = np.zeros((1, 3), dtype)
    _kernels.gaussian_fill(int(dtype == np.float64), np.array([KEY], np.uint64), 0, 2.0, out, 1)
    np.testing.assert_array_equal(out, 2 * drawn(KEY, 0, 3, dtype))


def test_a_power_of_two_scales_exactly(isa, dtype):
    once = drawn(KEY, 0, 300, dtype)
    np.testing.assert_array_equal(drawn(KEY, 0, 300, dtype, scale=0.125), 0.125 * once)
    np.testing.assert_array_equal(drawn(KEY, 0, 300, dtype, scale=-1.0), -once)
    assert not drawn(KEY, 0, 300, dtype, scale=0.0).any()


def two_sided(statistic, law):
    return 2 * min(law.cdf(statistic), law.sf(statistic))


def test_numbers_are_normal(isa, dtype, rng):
    """Moments by their limiting laws at 2^20 numbers, and Kolmogorov and Smirnov's distance."""
    n = 1 << 20
    x = drawn(rng.integers(0, 2**64, 2, np.uint64), 0, n, dtype)[0].astype(float)
    # Variances of the powers of a standard normal number.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        z = (np.mean(x**power) - mean) / np.sqrt(variance / n)
        assert two_sided(z, stats.norm) > ALPHA
    assert stats.kstest(x, stats.norm.cdf).pvalue > ALPHA
    assert two_sided(np.count_nonzero(np.abs(x) > 4), stats.binom(n, 2 * stats.norm.sf(4))) > ALPHA


def test_places_of_a_tile_are_independent(dtype, rng):
    """Places are uncorrelated within a tile and with the next tile, and so are magnitudes."""
    n_tiles = 1 << 13
    x = drawn(rng.integers(0, 2**64, 2, np.uint64), 0, 128 * n_tiles, dtype)[0].astype(float)
    x = x.reshape(n_tiles, 128)
    assert two_sided(np.sum(x**2), stats.chi2(x.size)) > ALPHA
    centred = (np.abs(x) - np.sqrt(2 / np.pi)) / np.sqrt(1 - 2 / np.pi)
    for y in (x, centred):  # of mean 0 and variance 1: the sums of products are nearly normal
        within = (y.T @ y / np.sqrt(n_tiles))[np.triu_indices(128, 1)]
        across = np.sum(y[1:] * y[:-1], axis=0) / np.sqrt(n_tiles - 1)
        for sums in (within, across):
            assert 2 * sums.size * stats.norm.sf(np.abs(sums).max()) > ALPHA


def test_a_pair_has_a_uniform_angle_and_a_radius_independent_of_it(dtype, rng):
    n = 1 << 19
    x = drawn(rng.integers(0, 2**64, 2, np.uint64), 0, 2 * n, dtype)[0].astype(float)
    x, z = x.reshape(-1, 2, 64).swapaxes(0, 1).reshape(2, n)
    turn = np.arctan2(z, x) / (2 * np.pi) % 1
    assert stats.kstest(turn, stats.uniform.cdf).pvalue > ALPHA
    square = x**2 + z**2
    assert stats.kstest(square, stats.chi2(2).cdf).pvalue > ALPHA
    table = np.histogram2d(turn, square, [np.linspace(0, 1, 9), [0, 0.5, 1, 2, 4, np.inf]])[0]
    assert stats.chi2_contingency(table).pvalue > ALPHA


def test_keys_that_differ_in_a_bit_give_independent_numbers(dtype):
    """Streams of 128 keys beside the stream of 0, each a bit away, and beside each other."""
    keys = np.zeros((129, 2), np.uint64)
    for bit in range(128):
        keys[bit + 1, bit // 64] = np.uint64(1) << np.uint64(bit % 64)
    n = 1 << 12
    x = drawn(keys, 0, n, dtype).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    # The angles between any two directions are independent, their cosines of variance 1 / n.
    cosines = (x @ x.T)[np.triu_indices(129, 1)]
    assert two_sided(n * np.sum(cosines**2), stats.chi2(cosines.size)) > ALPHA
