"""decorrelation on a phase diagram's points, beside quadrature in NumPy.

`harness` has the command line.  The peer is the trapezoidal rule in the plane, exact for smooth
activations; a grid of c and one q would share its nodes, points of different q do not.
"""

import math
import sys

import harness
import numpy as np
from scipy import special

from jacometry.ops.correlations import decorrelation

VALUES = {"tanh": np.tanh, "gelu": lambda x: x * special.ndtr(x)}
ACCURACY = {"f64": 1e-9, "f32": 1e-5}


def _plane(name, e, q, step):
    """E (phi(u1) - phi(u2))^2 / (2 e), u = sqrt(q) (cos(x / 2) a +- sin(x / 2) b)."""
    a = np.arange(-round(8.5 / step), round(8.5 / step) + 1) * step
    weights = np.exp(-a * a / 2) * step / math.sqrt(2 * math.pi)
    weights = weights[:, None] * weights
    out = np.empty(q.size)
    for i in range(q.size):
        cosine, sine = math.sqrt(q[i] * (1 - e[i] / 2)), math.sqrt(q[i] * e[i] / 2)
        middle = cosine * a[:, None]
        gap = VALUES[name](middle + sine * a) - VALUES[name](middle - sine * a)
        out[i] = np.sum(weights * gap * gap) / (2 * e[i])
    return out


def make_cases(options, notes):
    """Points as the solver of a phase diagram asks for them."""
    n_points = 1000 if options.quick else 100_000
    rng = np.random.default_rng(1)
    q = rng.uniform(0.05, 4, n_points).astype(options.numpy_dtype)
    e = (10 ** rng.uniform(-4, 0, n_points)).astype(options.numpy_dtype)
    n_checked = 100
    for name in VALUES:
        checked = q[:n_checked].astype(float), e[:n_checked].astype(float)
        expected = _plane(name, checked[1], checked[0], 0.05)

        def error(found, expected=expected):
            return np.max(np.abs(found[:n_checked] / expected - 1))

        def ours(name=name):
            return decorrelation(name, e, q, n_threads=options.n_threads)

        def peer(name=name, checked=checked):
            return _plane(name, checked[1], checked[0], 0.15)

        yield harness.Case(
            job=f"decorrelation of {n_points} points",
            sizes={"activation": name},
            contestants={"ours": ours},
            error=error,
            tolerance=ACCURACY[options.dtype],
            n_units=n_points,
            unit="point",
        )
        yield harness.Case(
            job=f"decorrelation of {n_checked} points",
            sizes={"activation": name},
            contestants={
                "ours": lambda name=name: decorrelation(
                    name, e[:n_checked], q[:n_checked], n_threads=options.n_threads
                ),
                "numpy, trapezoidal rule": peer,
            },
            error=error,
            tolerance=ACCURACY[options.dtype],
            n_units=n_checked,
            unit="point",
        )


if __name__ == "__main__":
    sys.exit(harness.main("correlations", make_cases))
