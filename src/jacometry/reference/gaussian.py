"""Oracle of the normal numbers by position: Threefry4x64-20, and Box and Muller in float64."""

import numpy as np

# Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, 2011: left rotations
# of the two pairs of words in rounds 0, 1, ..., 7, which repeat, and what makes a fifth key word.
ROTATIONS = ((14, 16), (52, 57), (23, 40), (5, 37), (25, 33), (46, 12), (58, 22), (32, 32))
PARITY = 0x1BD11BDAA9FC1A22
N_ROUNDS = 20
MASK = 2**64 - 1


def threefry4x64(key, counter):
    """Four words of 64 bits from four words of key and four of counter, as integers."""
    keys = [*key, PARITY ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [(c + k) & MASK for c, k in zip(counter, keys[:4], strict=True)]
    for n in range(N_ROUNDS):
        for (to, other), r in zip(((0, 1), (2, 3)), ROTATIONS[n % 8], strict=True):
            x[to] = (x[to] + x[other]) & MASK
            x[other] = (x[other] << r | x[other] >> (64 - r)) & MASK ^ x[to]
        x[1], x[3] = x[3], x[1]
        if n % 4 == 3:
            turn = (n + 1) // 4
            x = [(w + keys[(turn + i) % 5]) & MASK for i, w in enumerate(x)]
            x[3] = (x[3] + turn) & MASK
    return x


def pair_bits(key, tile, n_bits):
    """The bits a and b of the 64 pairs of a tile."""
    n_blocks = n_bits // 2
    blocks = [threefry4x64([*key, 0, 0], [tile * n_blocks + c, 0, 0, 0]) for c in range(n_blocks)]
    words = [block[i] for i in range(4) for block in blocks]
    bits = [word >> shift & 2**n_bits - 1 for word in words for shift in range(0, 64, n_bits)]
    return bits[:64], bits[64:]


def uniforms(a, b, n_bits):
    """u and y of a pair, not rounded but to float64, and the sign and the exchange it takes."""
    quarter = 2 ** (n_bits - 2)
    u, y = (a + 1) / 2**n_bits, (2 * (b % quarter) - quarter) / (2 * quarter)
    return u, y, 1 - 2 * (b >> n_bits - 1), b >> n_bits - 2 & 1


def gaussian_fill(key, first, count, scale, dtype):
    """`scale` times the numbers [first, first + count) of a stream, in float64."""
    kind, n_bits = np.dtype(dtype).type, 8 * np.dtype(dtype).itemsize
    begin, end = first // 128, -(-(first + count) // 128)
    tiles = []
    for tile in range(begin, end):
        pairs = [uniforms(a, b, n_bits) for a, b in zip(*pair_bits(key, tile, n_bits), strict=True)]
        u, y, sign, exchange = np.array(pairs).T
        radius = np.sqrt(-2 * np.log(kind(u).astype(float)))
        angle = np.pi / 2 * kind(y).astype(float)
        x, z = radius * sign * np.cos(angle), radius * np.sin(angle)
        tiles.append(np.where(exchange, (z, x), (x, z)).ravel())
    numbers = np.concatenate([np.empty(0), *tiles])
    return scale * numbers[first - 128 * begin :][:count]
