"""The oracle of the normal numbers against published words and the laws they promise."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from jacometry.reference import gaussian as reference

ONES = (2**64 - 1,) * 4
PI = [
    0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89,
    0x452821E638D01377, 0xBE5466CF34E90C6C, 0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917,
]  # fmt: skip
# Key, counter and words that Random123 publishes for Threefry4x64-20.
KNOWN = [
    (
        (0,) * 4,
        (0,) * 4,
        (0x09218EBDE6C85537, 0x55941F5266D86105, 0x4BD25E16282434DC, 0xEE29EC846BD2E40B),
    ),
    (
        ONES,
        ONES,
        (0x29C24097942BBA1B, 0x0371BBFB0F6F4E11, 0x3C231FFA33F83A1C, 0xCD29113FDE32D168),
    ),
    (
        (PI[4], PI[5], PI[5], PI[6]),
        PI[:4],
        (0xA7E8FDE591651BD9, 0xBAAFD0C30138319B, 0x84A5C1A729E685B9, 0x901D406CCEBC1BA4),
    ),
]


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN, ids=["zeros", "ones", "pi"])
def test_threefry_gives_the_published_words(key, counter, words):
    assert tuple(reference.threefry4x64(key, counter)) == words


@pytest.mark.parametrize("n_bits", [32, 64])
def test_every_word_of_a_block_is_used_once(n_bits):
    a, b = reference.pair_bits((3, 4), 5, n_bits)
    n_blocks = n_bits // 2
    words = [
        word
        for c in range(n_blocks)
        for word in reference.threefry4x64((3, 4, 0, 0), (5 * n_blocks + c, 0, 0, 0))
    ]
    halves = [word >> s & 2**n_bits - 1 for word in words for s in range(0, 64, n_bits)]
    assert sorted(a + b) == sorted(halves)


@pytest.mark.parametrize("n_bits", [32, 64])
def test_four_pairs_of_signs_share_the_circle(n_bits):
    """The four settings of the two top bits turn one quarter into the others."""
    seen = set()
    for top in range(4):
        b = (top << n_bits - 2) + 12345
        u, y, sign, exchange = reference.uniforms(2 ** (n_bits - 1), b, n_bits)
        point = (sign * math.cos(math.pi * y / 2), math.sin(math.pi * y / 2))
        x, z = point[::-1] if exchange else point
        seen.add(round(math.degrees(math.atan2(z, x)) / 90) % 4)
        assert -0.5 <= y < 0.5
        assert 0 < u <= 1
    assert seen == {0, 1, 2, 3}


def test_numbers_are_those_of_box_and_muller_in_mpmath():
    a, b = reference.pair_bits((1, 2), 0, 64)
    numbers = reference.gaussian_fill((1, 2), 0, 128, 2.0, np.float64)
    with mpmath.workdps(40):
        for p in range(64):
            u = float(Fraction(a[p] + 1, 2**64))
            y = float(Fraction(b[p] % 2**62, 2**62) - Fraction(1, 2))
            radius = 2 * mpmath.sqrt(-2 * mpmath.log(u))
            x, z = (
                radius * mpmath.cospi(mpmath.mpf(y) / 2),
                radius * mpmath.sinpi(mpmath.mpf(y) / 2),
            )
            x = -x if b[p] >> 63 else x
            x, z = (z, x) if b[p] >> 62 & 1 else (x, z)
            assert numbers[p] == pytest.approx(float(x), rel=2e-15)
            assert numbers[p + 64] == pytest.approx(float(z), rel=2e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_part_of_the_stream_is_a_part_of_the_whole(dtype):
    whole = reference.gaussian_fill((7, 9), 0, 400, 1.5, dtype)
    for first, count in ((0, 0), (0, 1), (127, 2), (128, 128), (5, 395)):
        part = reference.gaussian_fill((7, 9), first, count, 1.5, dtype)
        np.testing.assert_array_equal(part, whole[first : first + count])
