"""A gradient is a sum over paths: its mean cancels, its variance does not.

dz_L/dx of a small linear or ReLU-masked net is the sum, over all paths from an input to an output
unit, of the products of the weights along them.  With weights of either sign at equal chance all
nets can be enumerated: the mean is exactly 0, the variance n_paths sigma^(2 L) = (n sigma^2)^L / n.
"""

import itertools
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jacometry as jm

WIDTH, DEPTH = 2, 3


def paths(width, depth):
    """Units visited from input unit 0 to output unit 0, one row per path."""
    inner = itertools.product(range(width), repeat=depth - 1)
    return np.array([(0, *units, 0) for units in inner])


def every_net(width, depth, sigma):
    """All nets with weights +-sigma: (2**(depth width**2), depth, width, width)."""
    n_weights = depth * width * width
    bits = (np.arange(2**n_weights)[:, None] >> np.arange(n_weights)) & 1
    return (sigma * (2.0 * bits - 1)).reshape(-1, depth, width, width)


def path_products(weights):
    """The products of the weights along each path: (nets, paths)."""
    width, depth = weights.shape[-1], weights.shape[1]
    units = paths(width, depth)
    products = np.ones((len(weights), len(units)))
    for k in range(depth):
        products *= weights[:, k, units[:, k + 1], units[:, k]]
    return products


def main(path="path_sums.png"):
    """Print mean and variance by enumeration and by recursion; save the law of the sum."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    for ax, energy in zip(axes, (0.5, 1.0, 2.0), strict=True):
        sigma = np.sqrt(energy / WIDTH)
        weights = every_net(WIDTH, DEPTH, sigma)
        products = path_products(weights)
        gradient = products.sum(axis=1)
        by_chain = jm.chain_product(weights).to_array()[:, 0, 0]
        recursion = energy**DEPTH / WIDTH
        print(
            f"n sigma^2 = {energy}: {products.shape[1]} paths in {len(weights)} nets, "
            f"mean {gradient.mean():.1e}, variance {gradient.var():.12f}, "
            f"recursion {recursion:.12f}, chain_product differs by "
            f"{np.abs(by_chain - gradient).max():.1e}"
        )
        values, counts = np.unique(gradient.round(9), return_counts=True)
        ax.bar(values, counts / counts.sum(), width=0.3 * sigma**DEPTH, color="#2563eb")
        ax.axvspan(-np.sqrt(recursion), np.sqrt(recursion), color="#d97706", alpha=0.2)
        ax.set(title=f"$n\\,\\sigma^2$ = {energy}", xlabel="gradient, +- its standard deviation")
    axes[0].set_ylabel("share of nets")
    figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
