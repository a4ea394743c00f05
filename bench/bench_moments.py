"""gaussian_moments and variance_map on a phase diagram's grid, beside NumPy, numba and JAX.

Ours keeps its tables from one call to the next, as it does for any user: filling them, 3 ms for
each octave of q, is not timed.  Panelled Gauss-Legendre is what papers' code uses; the trapezoidal
rule is the best that NumPy and numba can do here, and it is wrong for activations with kinks.
`harness` has the command line.
"""

import math
import os
import sys

import harness
import numpy as np
from scipy import special

from jacometry.ops.moments import gaussian_moments, variance_map

ACTIVATIONS = ("tanh", "sigmoid", "erf", "gelu", "relu", "silu", "elu", "mish")
N_LAYERS = 30

# The largest relative error at which an answer counts; float32 rounds once a layer.
ACCURACY = {"f64": 1e-9, "f32": 1e-5}

VALUES = {
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "erf": special.erf,
    "gelu": lambda x: x * special.ndtr(x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * special.expit(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
}

# The same one number at a time, for numba, which compiles functions of Python only.
SCALAR_VALUES = {
    "tanh": lambda x: math.tanh(x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "erf": lambda x: math.erf(x),
    "gelu": lambda x: x * 0.5 * math.erfc(-x * math.sqrt(0.5)),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
}


def _sech2(x):
    decay = np.exp(-2 * np.abs(x))
    return 4 * decay / (1 + decay) ** 2


def _density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def _silu_parts(x):
    s = special.expit(x)
    w1 = s * (1 - s)
    return s, w1, w1 * (1 - 2 * s)


def _mish_parts(x):
    s, w = special.expit(x), np.tanh(np.logaddexp(x, 0))
    w1 = (1 - w * w) * s
    return w, w1, w1 * (1 - s - 2 * w * s)


SLOPES = {
    "tanh": _sech2,
    "sigmoid": lambda x: _sech2(x / 2) / 4,
    "erf": lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x),
    "gelu": lambda x: special.ndtr(x) + x * _density(x),
    "relu": lambda x: (x > 0).astype(x.dtype),
    "silu": lambda x: _silu_parts(x)[0] + x * _silu_parts(x)[1],
    "elu": lambda x: np.exp(np.minimum(x, 0)),
    "mish": lambda x: _mish_parts(x)[0] + x * _mish_parts(x)[1],
}
CURVATURES = {
    "tanh": lambda x: -2 * np.tanh(x) * _sech2(x),
    "sigmoid": lambda x: -np.tanh(x / 2) * _sech2(x / 2) / 4,
    "erf": lambda x: -4 * x / np.sqrt(np.pi) * np.exp(-x * x),
    "gelu": lambda x: (2 - x * x) * _density(x),
    "relu": lambda x: np.full_like(x, np.inf),
    "silu": lambda x: 2 * _silu_parts(x)[1] + x * _silu_parts(x)[2],
    "elu": lambda x: np.where(x > 0, 0, np.exp(np.minimum(x, 0))),
    "mish": lambda x: 2 * _mish_parts(x)[1] + x * _mish_parts(x)[2],
}


def _gauss_legendre(edges, n_nodes):
    z, w = np.polynomial.legendre.leggauss(n_nodes)
    centre, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    z = (centre[:, None] + half[:, None] * z).ravel()
    return z, np.outer(half, w).ravel() * _density(z)


def _true_rule():
    """Belongs to nobody: panels that halve towards 0 resolve a bend at any scale of the input."""
    right = np.concatenate([[0], np.geomspace(2.0**-30, 0.5, 30), np.arange(1, 20) / 2 + 0.5])
    return _gauss_legendre(np.concatenate([-right[:0:-1], right]), 20)


def _trapezoid(step, end=8.5):
    z = np.arange(-np.floor(end / step), end / step + 1) * step
    return z, step * _density(z)


RULES = {
    "numpy, Gauss-Legendre": _gauss_legendre(np.linspace(-9.5, 9.5, 41), 16),
    "numpy, trapezoid": _trapezoid(1 / 16),
}
TRUE_RULE = _true_rule()


def _map_by_rule(activation, rule, q, sigma_w, sigma_b):
    z, weights = (part.astype(q.dtype) for part in rule)
    shape = q.shape
    for _ in range(N_LAYERS):
        phi = VALUES[activation](np.sqrt(q).reshape(-1, 1) * z)
        q = sigma_w**2 * ((phi * phi) @ weights).reshape(shape) + sigma_b**2
    return q


def _moments_by_rule(activation, rule, q):
    z, weights = (part.astype(q.dtype) for part in rule)
    x = np.sqrt(q)[:, None] * z
    phi, dphi = VALUES[activation](x), SLOPES[activation](x)
    d2phi = CURVATURES[activation](x)
    terms = phi, phi * phi, dphi, dphi * dphi, d2phi * d2phi, x * phi * dphi / q[:, None]
    return np.stack([f @ weights for f in terms])


def _numba_map(numba, activation):
    """The trapezoidal rule as loops, compiled with reassociation allowed."""
    value = numba.njit(fastmath=True)(SCALAR_VALUES[activation])

    @numba.njit(fastmath=True, parallel=numba.get_num_threads() > 1)
    def push(q, sigma_w, sigma_b, z, weights, out):
        for i in numba.prange(q.shape[0]):
            for j in range(q.shape[1]):
                now = q[i, j]
                for _ in range(N_LAYERS):
                    root, total = math.sqrt(now), 0.0
                    for k in range(len(z)):
                        phi = value(root * z[k])
                        total += weights[k] * phi * phi
                    now = sigma_w[i, 0] ** 2 * total + sigma_b[j] ** 2
                out[i, j] = now

    return push


def _jax_map(jax, activation):
    """The trapezoidal rule on the whole grid, compiled by XLA."""
    jnp, nn = jax.numpy, jax.nn
    value = {
        "tanh": jnp.tanh,
        "sigmoid": nn.sigmoid,
        "erf": jax.scipy.special.erf,
        "gelu": lambda x: x * jax.scipy.special.ndtr(x),
        "relu": nn.relu,
        "silu": nn.silu,
        "elu": nn.elu,
        "mish": nn.mish,
    }[activation]

    @jax.jit
    def push(q, sigma_w, sigma_b, z, weights):
        def layer(_, now):
            phi = value(jnp.sqrt(now)[..., None] * z)
            return sigma_w**2 * ((phi * phi) @ weights) + sigma_b**2

        return jax.lax.fori_loop(0, N_LAYERS, layer, q)

    return push


def _import_jax(options, notes):
    """JAX in float64, kept to one processor where one thread is asked for."""
    if options.n_threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax = harness.optional("jax", notes=notes).get("jax")
    if jax:
        jax.config.update("jax_enable_x64", True)
    return jax


def _error(found, expected):
    """Largest relative error; zeros by symmetry and infinities by kinks are left out."""
    is_plain = np.isfinite(expected) & (np.abs(expected) > 1e-13)
    return float(np.max(np.abs(found[is_plain] / expected[is_plain] - 1)))


def make_cases(options, notes):
    """The map over a whole depth, then all moments once, for every activation."""
    numba = harness.optional("numba", notes=notes).get("numba")
    if numba:
        numba.set_num_threads(options.n_threads)
    jax = _import_jax(options, notes)
    side = 24 if options.quick else 96
    for activation in ACTIVATIONS:
        yield _variance_map(activation, side, options, numba, jax)
    for activation in ACTIVATIONS:
        yield _gaussian_moments(activation, side, options)


def _variance_map(activation, side, options, numba, jax):
    dtype = options.numpy_dtype
    q = np.ones((side, side), dtype)
    sigma_w = np.linspace(0.5, 3.0, side)[:, None].astype(dtype)
    sigma_b = np.linspace(0.0, 1.0, side).astype(dtype)
    wide = [array.astype(np.float64) for array in (q, sigma_w, sigma_b)]
    expected = _map_by_rule(activation, TRUE_RULE, *wide)

    def ours():
        now = q
        for _ in range(N_LAYERS):
            now = variance_map(
                activation, now, sigma_w=sigma_w, sigma_b=sigma_b, n_threads=options.n_threads
            )
        return now

    contestants = {"ours": ours}
    for name, rule in RULES.items():
        contestants[name] = lambda rule=rule: _map_by_rule(activation, rule, q, sigma_w, sigma_b)
    if numba:
        push, out = _numba_map(numba, activation), np.empty_like(q)
        z, weights = _trapezoid(1 / 16)

        def by_numba():
            push(q, sigma_w, sigma_b, z, weights, out)
            return out

        contestants["numba, trapezoid"] = by_numba
    if jax:
        push_by_xla = _jax_map(jax, activation)
        rule = [part.astype(dtype) for part in _trapezoid(1 / 16)]
        contestants["jax, trapezoid"] = lambda: np.asarray(
            push_by_xla(q, sigma_w, sigma_b, *rule).block_until_ready()
        )
    return harness.Case(
        job="variance_map",
        sizes={"activation": activation, "grid": f"{side} x {side}", "L": N_LAYERS},
        contestants=contestants,
        error=lambda found: _error(found, expected),
        tolerance=ACCURACY[options.dtype],
        n_units=side * side * N_LAYERS,
        unit="point",
    )


def _gaussian_moments(activation, side, options):
    q = np.geomspace(1e-3, 25.0, side**2).astype(options.numpy_dtype)
    expected = _moments_by_rule(activation, TRUE_RULE, q.astype(np.float64))

    def ours():
        found = gaussian_moments(activation, q, n_threads=options.n_threads)
        return np.stack([getattr(found, name) for name in found.__slots__])

    contestants = {"ours": ours}
    for name, rule in RULES.items():
        contestants[name] = lambda rule=rule: _moments_by_rule(activation, rule, q)
    return harness.Case(
        job="gaussian_moments (all six)",
        sizes={"activation": activation, "n_q": q.size},
        contestants=contestants,
        error=lambda found: _error(found, expected),
        tolerance=ACCURACY[options.dtype],
        n_units=q.size,
        unit="point",
    )


if __name__ == "__main__":
    sys.exit(harness.main("moments", make_cases))
