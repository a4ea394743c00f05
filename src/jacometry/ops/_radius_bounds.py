"""Proved lower bounds on the spectral radius of a product of given matrices.

A computed eigenvalue proves nothing: a defective one of multiplicity m is off by the m-th root of
the rounding.  Two proofs are here.  `disc_bound` is Gershgorin's theorem after an approximate
diagonalisation, in floating point, rounding included: any size, good to rounding where the
eigenvectors are well conditioned.  `exact_bound` works in integers, for floats are integers times
powers of two: the product and its characteristic polynomial exactly, then a disc about a root.
"""

import math

import numpy as np

EPS = float(np.finfo(np.float64).eps)

# The exact proof is tried where n^5 times the bits of the product's entries stay below this
# (some half a second).
MAX_EXACT_COST = 2e9

# Bits of a root and of its disc's radius, and steps of Newton's method to reach them.
ROOT_BITS = 80
DISC_BITS = 20
MAX_NEWTON_STEPS = 60

# A radius this close to a number of few bits is asked whether it is that number.
FEW_BITS = 24
NEAR_FEW_BITS = 2.0**-40


def gamma(n):
    """Bound on the relative rounding error of n operations in a row, complex ones at that."""
    return 4 * (n + 4) * EPS


def scaled_product(matrices, word):
    """Product of the matrices of a word, the first applied first: mantissa, exponent, error.

    ``|exact - mantissa * 2**exponent| <= error * 2**exponent`` in every norm that the Frobenius
    norm bounds.  The matrices' entries are at most 1 in magnitude.
    """
    n = matrices.shape[-1]
    sizes = np.linalg.norm(matrices, axis=(1, 2)) * (1 + gamma(n * n))
    product, exponent, error = np.eye(n), 0, 0.0
    for letter in word:
        size = np.linalg.norm(product) * (1 + gamma(n * n))
        product = matrices[letter] @ product
        error = sizes[letter] * (error + gamma(n) * size) + tiny(n)
        shift = int(np.frexp(max(np.abs(product).max(), error))[1])
        product, error = np.ldexp(product, -shift), math.ldexp(error, -shift) * (1 + EPS) + tiny(n)
        exponent += shift
    return product, exponent, error


def tiny(n):
    """What underflow can add to the norm of an n x n matrix, with room."""
    return n * n * 2.0**-1060


def disc_bound(matrices, word):
    """A proved lower bound on the radius of a product, as ``bound * 2**exponent``.

    With X the computed eigenvectors, Y their inverse and D the eigenvalues, ``X^-1 P X = D +
    X^-1 (P X - X D)``; as many eigenvalues lie in a connected set of Gershgorin discs as there are
    discs in it.
    """
    product, exponent, error = scaled_product(matrices, word)
    n = len(product)
    try:
        values, x = np.linalg.eig(product)
        y = np.linalg.inv(x)
    except np.linalg.LinAlgError:
        return 0.0, 0
    magnitude, ones = np.abs(x), np.ones(n)
    defect = np.abs(np.eye(n) - y @ x).sum(axis=1).max()
    defect += gamma(n) * (np.abs(y) @ (magnitude @ ones)).max()
    if not defect < 0.5:
        return 0.0, 0
    # row sums of |P X - X D|, what rounding hides included
    rest = np.abs(product @ x - x * values) @ ones
    rest += gamma(n) * (np.abs(product) @ (magnitude @ ones) + magnitude @ np.abs(values))
    rest += error * (magnitude @ ones).sum()
    radii = np.abs(y) @ rest
    radii = (radii + defect / (1 - defect) * radii.max()) * (1 + gamma(n)) + tiny(n)

    inside = np.abs(values) == np.abs(values).max()
    while True:
        gaps = np.abs(values[:, None] - values[inside]) * (1 - gamma(1))
        reached = (gaps <= radii[:, None] + radii[inside]).any(axis=1) | inside
        if (reached == inside).all():
            break
        inside = reached
    bound = (np.abs(values[inside]) * (1 - gamma(1)) - radii[inside]).min()
    return max(float(bound), 0.0), exponent


def root_below(bound, exponent, k):
    """A float at most ``(bound * 2**exponent)**(1/k)``, nearly the largest; `bound` an integer."""
    if bound <= 0:
        return 0.0
    size = bound.bit_length()
    whole, part = divmod(exponent + size, k)
    log2 = math.log2(bound / (1 << size)) / k + part / k
    root = 2.0**log2 * (1 + 8 * EPS)
    for _ in range(100):
        numerator, denominator = root.as_integer_ratio()
        shift = exponent - k * (whole - denominator.bit_length() + 1)
        if _at_most(numerator**k, bound, shift):
            return _ldexp_down(root, whole)
        root = math.nextafter(root, 0.0)
    return _ldexp_down(root * (1 - 1e-9), whole)


def _at_most(left, right, shift):
    """``left <= right * 2**shift`` for integers."""
    return left <= (right << shift) if shift >= 0 else (left << -shift) <= right


def _ldexp_down(value, exponent):
    """``value * 2**exponent`` rounded towards zero, for a positive value."""
    try:
        result = math.ldexp(value, exponent)
    except OverflowError:
        return float(np.finfo(np.float64).max)
    return math.nextafter(result, 0.0) if math.ldexp(result, -exponent) > value else result


def exact_bound(matrices, word):
    """A lower bound on ``radius**(1/k)`` of a product of k matrices, proved in exact arithmetic.

    Returns None where that would take too long.  Eigenvalue zero is removed from the
    characteristic polynomial p exactly, so that a nilpotent product gives 0.  About a point z
    near a root, the disc of radius ``n |p(z) / p'(z)|`` holds one of the n roots (Laguerre); the
    points come from Newton's method, on the square-free part of p where p has multiple roots.
    Where the bound lies just below a number c of few bits, such as 1, and p shares a factor with
    its reflection in the circle ``|z| = c**k``, a root lies on or outside that circle: the bound is
    c.
    """
    n, k = matrices.shape[-1], len(word)
    letters = {letter: _as_integers(matrices[letter]) for letter in set(word)}
    bits = sum(max(int(e).bit_length() for e in letters[i][0].flat) for i in word)
    bits += k * n.bit_length()
    if n**5 * bits > MAX_EXACT_COST:
        return None
    product, exponent = letters[word[0]]
    for letter in word[1:]:
        integers, own = letters[letter]
        product, exponent = integers.dot(product), exponent + own
    p = _characteristic_polynomial(product)
    while p[-1] == 0:
        p.pop()
    if len(p) == 1:
        return 0.0

    estimate, scale, _ = scaled_product(matrices, word)
    values = np.linalg.eigvals(estimate)
    start = complex(values[np.argmax(np.abs(values))])
    bound, is_tight = _root_modulus(p, start, scale - exponent)
    if not is_tight:
        factor = _gcd(p, _derivative(p))
        if len(factor) > 1:
            bound = max(bound, _root_modulus(_quotient(p, factor), start, scale - exponent)[0])
    root = root_below(bound, scale - ROOT_BITS - DISC_BITS, k)

    if root > 0:
        digits, size = math.frexp(root)
        rounded = math.ldexp(round(math.ldexp(digits, FEW_BITS)), size - FEW_BITS)
        if root < rounded <= root * (1 + NEAR_FEW_BITS) and _reaches(p, rounded, k, exponent):
            return rounded
    return root


def _as_integers(matrix):
    """The entries as Python integers, and the exponent of two that they are to be scaled by."""
    digits, exponents = np.frexp(matrix)
    digits = np.ldexp(digits, 53).astype(np.int64)
    if not digits.any():
        return digits.astype(object), 0
    lowest = int(exponents[digits != 0].min())
    pairs = zip(digits.flat, exponents.flat, strict=True)
    entries = [int(d) << int(e - lowest) if d else 0 for d, e in pairs]
    common = math.gcd(*entries)
    zeros = (common & -common).bit_length() - 1
    integers = np.array([e >> zeros for e in entries], dtype=object)
    return integers.reshape(matrix.shape), lowest - 53 + zeros


def _characteristic_polynomial(a):
    """Coefficients of det(z I - A), the highest first (Faddeev and Le Verrier), in integers."""
    n = len(a)
    coefficients, adjugate = [1], a * 0
    for k in range(1, n + 1):
        adjugate = adjugate + np.diag(np.array([coefficients[-1]] * n, dtype=object))
        adjugate = a.dot(adjugate)
        coefficients.append(-sum(int(adjugate[i, i]) for i in range(n)) // k)
    return coefficients


def _derivative(p):
    degree = len(p) - 1
    return [c * (degree - i) for i, c in enumerate(p[:-1])]


def _primitive(p):
    """The polynomial without leading zeros, over the common divisor of its coefficients."""
    first = next((i for i, c in enumerate(p) if c), len(p))
    content = math.gcd(*p[first:])
    return [c // content for c in p[first:]]


def _gcd(p, q):
    """Greatest common divisor of integer polynomials, up to a factor (Euclid, primitive)."""
    p, q = _primitive(p), _primitive(q)
    while q:
        while len(p) >= len(q):
            lead, own = q[0], p[0]
            p = [lead * c for c in p]
            for i, c in enumerate(q):
                p[i] -= own * c
            p = _primitive(p)
        p, q = q, p
    return p


def _quotient(p, q):
    """p / q where q, primitive, divides p."""
    rest, found = list(p), []
    for i in range(len(p) - len(q) + 1):
        c = rest[i] // q[0]
        found.append(c)
        for j, d in enumerate(q):
            rest[i + j] -= c * d
    return found


def _root_modulus(p, start, exponent):
    """A lower bound on the modulus of some root near ``start * 2**exponent``, and if it is tight.

    An integer, in units of 2**(exponent - ROOT_BITS - DISC_BITS).
    """
    degree, unit = len(p) - 1, exponent - ROOT_BITS
    # in units of 2**unit the roots are those of the integer polynomial d
    d = [c << (-unit * j if unit < 0 else unit * (degree - j)) for j, c in enumerate(p)]
    a, b = (int(math.ldexp(part, ROOT_BITS)) for part in (start.real, start.imag))
    best, tight = 0, False
    for _ in range(MAX_NEWTON_STEPS):
        (u, v), (s, t) = _value_and_slope(d, a, b)
        slope = s * s + t * t
        if slope == 0 and (u or v):
            break
        squared = (degree * degree * (u * u + v * v)) << (2 * DISC_BITS)
        radius = math.isqrt(squared // slope) + 1 if u or v else 0
        modulus = math.isqrt((a * a + b * b) << (2 * DISC_BITS))
        best = max(best, modulus - radius)
        tight = tight or radius <= modulus >> (ROOT_BITS - 8)
        if not (u or v):
            break
        step = _rounded(u * s + v * t, slope), _rounded(v * s - u * t, slope)
        if step == (0, 0):
            break
        a, b = a - step[0], b - step[1]
    return best, tight


def _rounded(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)


def _value_and_slope(d, a, b):
    """d and its derivative at a + i b, by Horner's rule in Gaussian integers."""
    u, v, s, t = d[0], 0, 0, 0
    for c in d[1:]:
        s, t = s * a - t * b + u, s * b + t * a + v
        u, v = u * a - v * b + c, u * b + v * a
    return (u, v), (s, t)


def _reaches(p, c, k, exponent):
    """Whether p shares a factor with its reflection in the circle of radius c**k 2**-exponent.

    Its roots are then on the circle, or in pairs of which one is outside.
    """
    degree = len(p) - 1
    numerator, denominator = c.as_integer_ratio()
    square, shift = numerator ** (2 * k), 2 * (-k * (denominator.bit_length() - 1) - exponent)
    reflected = []
    for i in range(degree + 1):
        scale = shift * i if shift >= 0 else -shift * (degree - i)
        reflected.append((p[degree - i] * square**i) << scale)
    return len(_gcd(p, reflected)) > 1
