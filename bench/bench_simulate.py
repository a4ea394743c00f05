"""simulate beside NumPy and torch doing the same job: an ensemble of He-ReLU networks.

`harness` has the command line.  The job is the log-norm of the signal and of the gradient at every
interface of every net, the nets drawn anew.  The peers draw a layer of a block of nets at a time,
push the block through it by a batched product and keep its weights for the way back; they do not
scale, so depths are such that nothing underflows.  The truth is the exact law of the growth of the
signal, and theirs and our mean growth must lie within 6 standard errors of it.
"""

import math
import sys

import harness
import numpy as np

from jacometry import initializers
from jacometry.meanfield import log_norm_law, simulate

# Width, layers, nets.
SIZES = ((8, 50, 4000), (16, 50, 2000), (32, 50, 1000), (64, 50, 400), (128, 30, 100), (512, 8, 16))
QUICK = ((16, 20, 400), (64, 20, 50))
# Weights that a peer holds: beyond some MB it does not matter.
BLOCK_BYTES = 1 << 25
STANDARD_ERRORS = 6.0


def make_cases(options, notes):
    """The cases of the command line's options."""
    torch = harness.optional("torch", notes=notes).get("torch")
    if torch:
        torch.set_num_threads(options.n_threads)
    for width, n_layers, n_nets in QUICK if options.quick else SIZES:
        yield _case(width, n_layers, n_nets, options, torch)


def _case(width, n_layers, n_nets, options, torch):
    law = log_norm_law("relu", [width] * n_layers)
    rng = np.random.default_rng(0)

    def ours():
        found = simulate(
            [width] * (n_layers + 1), "relu", initializer=initializers.he_normal, n_nets=n_nets,
            rng=rng, dtype=options.numpy_dtype, n_threads=options.n_threads,
        )  # fmt: skip
        return found.activations.log_norms, found.gradient.log_norms

    contestants = {"ours": ours, "numpy": lambda: _in_blocks(_by_numpy, rng, options, n_nets)}
    if torch:
        generator = torch.Generator().manual_seed(0)
        contestants["torch"] = lambda: _in_blocks(_by_torch, (torch, generator), options, n_nets)

    def _in_blocks(solve, source, options, n_nets):
        per_net = n_layers * width**2 * options.numpy_dtype.itemsize
        block = min(n_nets, max(1, BLOCK_BYTES // per_net))
        parts = [
            solve(source, min(block, n_nets - first), width, n_layers, options.dtype)
            for first in range(0, n_nets, block)
        ]
        return tuple(np.concatenate(logs) for logs in zip(*parts, strict=True))

    def error(found):
        """Standard errors of the mean growth, and gradients that are no plausible ones."""
        activations, gradient = found
        if gradient.shape != (n_nets, n_layers + 1):
            return math.nan
        errors = []
        # The gradient's law is that of the signal to leading order; one layer more is linear.
        for grown in (2 * (activations[:, -1] - activations[:, 0]), 2 * gradient[:, 1]):
            alive = grown[np.isfinite(grown)]
            errors.append(abs(alive.mean() - law.mean) / math.sqrt(law.variance / len(alive)))
        return max(errors[0], errors[1] / 3)

    return harness.Case(
        job="simulate, He-ReLU",
        sizes={"n": width, "L": n_layers, "nets": n_nets},
        contestants=contestants,
        error=error,
        tolerance=STANDARD_ERRORS,
        n_units=n_nets * n_layers * width**2,
        unit="weight",
    )


def _by_numpy(rng, n_nets, width, n_layers, dtype):
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    scale = kind(math.sqrt(2 / width))
    h = rng.standard_normal((n_nets, width), dtype=kind)
    weights, slopes = [], []
    activations, gradient = np.empty((n_nets, n_layers)), np.empty((n_nets, n_layers + 1))
    with np.errstate(divide="ignore"):
        for k in range(n_layers):
            activations[:, k] = np.log(np.linalg.norm(h, axis=1))
            w = rng.standard_normal((n_nets, width, width), dtype=kind)
            w *= scale
            z = np.matvec(w, h)
            weights.append(w)
            slopes.append((z > 0).astype(kind))
            h = np.maximum(z, 0)
        g = rng.standard_normal((n_nets, width), dtype=kind)
        gradient[:, n_layers] = np.log(np.linalg.norm(g, axis=1))
        for k in range(n_layers - 1, -1, -1):
            g = np.vecmat(g, weights[k])
            if k:
                g *= slopes[k - 1]
            gradient[:, k] = np.log(np.linalg.norm(g, axis=1))
    return activations, gradient - gradient[:, -1:]


def _by_torch(source, n_nets, width, n_layers, dtype):
    torch, generator = source
    kind = {"f32": torch.float32, "f64": torch.float64}[dtype]
    options = {"generator": generator, "dtype": kind}
    h = torch.randn(n_nets, width, 1, **options)
    weights, slopes, activations = [], [], []
    for _ in range(n_layers):
        activations.append(torch.linalg.vector_norm(h, dim=(1, 2)).log())
        w = torch.randn(n_nets, width, width, **options).mul_(math.sqrt(2 / width))
        z = torch.bmm(w, h)
        weights.append(w)
        slopes.append((z > 0).to(kind))
        h = z.clamp_min(0)
    g = torch.randn(n_nets, 1, width, **options)
    gradient = [torch.linalg.vector_norm(g, dim=(1, 2)).log()]
    for k in range(n_layers - 1, -1, -1):
        g = torch.bmm(g, weights[k])
        if k:
            g = g * slopes[k - 1].transpose(1, 2)
        gradient.append(torch.linalg.vector_norm(g, dim=(1, 2)).log())
    gradient = torch.stack(gradient[::-1], dim=1).double().numpy()
    activations = torch.stack(activations, dim=1).double().numpy()
    return activations, gradient - gradient[:, -1:]


if __name__ == "__main__":
    sys.exit(harness.main("simulate", make_cases))
