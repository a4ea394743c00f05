"""What else a Python user can call for a chain: NumPy, and torch or numba where installed.

Every function allocates once and returns a solver without arguments, whose answer is a buffer that
its next call overwrites.  ``weights`` and ``slopes`` are sequences with one array per layer, in the
layout that suits the peer best; for numba they are whole arrays.
"""

import numpy as np


def numpy_own(weights):
    """Product of L arrays ``(B, n, n)``, one batched product per layer."""
    buffers = np.empty_like(weights[0]), np.empty_like(weights[0])

    def solve():
        now, after = buffers
        np.matmul(weights[1], weights[0], out=now)
        for weight in weights[2:]:
            np.matmul(weight, now, out=after)
            now, after = after, now
        return now

    return solve


def numpy_shared(weights, slopes):
    """Product of ``diag(slopes[k][b]) weights[k]``, batched: slopes ``(B, n)`` per layer."""
    n_samples, n = slopes[0].shape
    buffers = np.empty((2, n_samples, n, n), weights[0].dtype)

    def solve():
        now, after = buffers
        np.multiply(slopes[0][:, :, None], weights[0], out=now)
        for weight, slope in zip(weights[1:], slopes[1:], strict=True):
            np.matmul(weight, now, out=after)
            np.multiply(after, slope[:, :, None], out=after)
            now, after = after, now
        return now

    return solve


def numpy_shared_one_gemm(weights, slopes):
    """The same with the batch in the columns, one large product per layer: slopes ``(n, B)``."""
    n, n_samples = slopes[0].shape
    buffers = np.empty((2, n, n_samples, n), weights[0].dtype)

    def solve():
        now, after = buffers
        np.multiply(slopes[0][:, :, None], weights[0][:, None, :], out=now)
        for weight, slope in zip(weights[1:], slopes[1:], strict=True):
            np.matmul(weight, now.reshape(n, -1), out=after.reshape(n, -1))
            np.multiply(after, slope[:, :, None], out=after)
            now, after = after, now
        return now.transpose(1, 0, 2)

    return solve


def numpy_vjp(weights, slopes, cotangent):
    """Cotangent ``(B, n)`` pulled back, and its log-norm at every interface."""
    vector, sloped = np.empty_like(cotangent), np.empty_like(cotangent)
    squares = np.empty((len(weights) + 1, len(cotangent)), cotangent.dtype)

    def solve():
        now = cotangent
        np.einsum("bi,bi->b", now, now, out=squares[-1])
        for k in reversed(range(len(weights))):
            np.multiply(now, slopes[k], out=sloped)
            now = np.matmul(sloped, weights[k], out=vector)
            np.einsum("bi,bi->b", now, now, out=squares[k])
        return vector, 0.5 * np.log(squares.T)

    return solve


def numpy_jvp(weights, slopes, tangent):
    """Tangent ``(B, n)`` pushed forwards, and its log-norm at every interface."""
    vector, product = np.empty_like(tangent), np.empty_like(tangent)
    squares = np.empty((len(weights) + 1, len(tangent)), tangent.dtype)

    def solve():
        now = tangent
        np.einsum("bi,bi->b", now, now, out=squares[0])
        for k, weight in enumerate(weights):
            np.matmul(now, weight.T, out=product)
            now = np.multiply(product, slopes[k], out=vector)
            np.einsum("bi,bi->b", now, now, out=squares[k + 1])
        return vector, 0.5 * np.log(squares.T)

    return solve


class Torch:
    """The same jobs in torch; arrays are shared with NumPy."""

    def __init__(self, torch, n_threads):
        torch.set_num_threads(n_threads)
        self.torch = torch

    def own(self, weights):
        bmm = self.torch.bmm
        layers = [self.torch.from_numpy(weight) for weight in weights]
        buffers = self.torch.empty_like(layers[0]), self.torch.empty_like(layers[0])

        def solve():
            now, after = buffers
            bmm(layers[1], layers[0], out=now)
            for layer in layers[2:]:
                bmm(layer, now, out=after)
                now, after = after, now
            return now.numpy()

        return solve

    def shared(self, weights, slopes):
        torch = self.torch
        n, n_samples = slopes[0].shape
        layers = [torch.from_numpy(weight) for weight in weights]
        scales = [torch.from_numpy(slope)[:, :, None] for slope in slopes]
        buffers = torch.empty((2, n, n_samples, n), dtype=layers[0].dtype)

        def solve():
            now, after = buffers
            torch.mul(scales[0], layers[0][:, None, :], out=now)
            for layer, scale in zip(layers[1:], scales[1:], strict=True):
                torch.mm(layer, now.view(n, -1), out=after.view(n, -1))
                after.mul_(scale)
                now, after = after, now
            return now.numpy().transpose(1, 0, 2)

        return solve

    def vjp(self, weights, slopes, cotangent):
        torch = self.torch
        layers = [torch.from_numpy(weight) for weight in weights]
        scales = [torch.from_numpy(slope) for slope in slopes]
        start = torch.from_numpy(cotangent)
        vector, sloped = torch.empty_like(start), torch.empty_like(start)
        norms = torch.empty((len(layers) + 1, len(start)), dtype=start.dtype)

        def solve():
            now = start
            torch.linalg.vector_norm(now, dim=1, out=norms[-1])
            for k in reversed(range(len(layers))):
                torch.mul(now, scales[k], out=sloped)
                now = torch.mm(sloped, layers[k], out=vector)
                torch.linalg.vector_norm(now, dim=1, out=norms[k])
            return vector.numpy(), norms.T.log().numpy()

        return solve

    def jvp(self, weights, slopes, tangent):
        torch = self.torch
        layers = [torch.from_numpy(weight).T for weight in weights]
        scales = [torch.from_numpy(slope) for slope in slopes]
        start = torch.from_numpy(tangent)
        vector, product = torch.empty_like(start), torch.empty_like(start)
        norms = torch.empty((len(layers) + 1, len(start)), dtype=start.dtype)

        def solve():
            now = start
            torch.linalg.vector_norm(now, dim=1, out=norms[0])
            for k, layer in enumerate(layers):
                torch.mm(now, layer, out=product)
                now = torch.mul(product, scales[k], out=vector)
                torch.linalg.vector_norm(now, dim=1, out=norms[k + 1])
            return vector.numpy(), norms.T.log().numpy()

        return solve


class Numba:
    """The same jobs as plain loops over samples, compiled with reassociation allowed."""

    def __init__(self, numba, n_threads):
        numba.set_num_threads(n_threads)
        prange = numba.prange
        compiled = numba.njit(fastmath=True, parallel=n_threads > 1)

        @compiled
        def own(weights, out):
            n_samples, n_layers, n = weights.shape[:3]
            for b in prange(n_samples):
                now, after = weights[b, 0].copy(), np.empty((n, n), weights.dtype)
                for k in range(1, n_layers):
                    for i in range(n):
                        after[i, :] = 0
                        for m in range(n):
                            entry = weights[b, k, i, m]
                            for j in range(n):
                                after[i, j] += entry * now[m, j]
                    now, after = after, now
                out[b] = now

        @compiled
        def shared(weights, slopes, out):
            n_samples, n_layers, n = slopes.shape
            for b in prange(n_samples):
                now, after = np.empty((n, n), weights.dtype), np.empty((n, n), weights.dtype)
                for i in range(n):
                    for j in range(n):
                        now[i, j] = slopes[b, 0, i] * weights[0, i, j]
                for k in range(1, n_layers):
                    for i in range(n):
                        after[i, :] = 0
                        for m in range(n):
                            entry = slopes[b, k, i] * weights[k, i, m]
                            for j in range(n):
                                after[i, j] += entry * now[m, j]
                    now, after = after, now
                out[b] = now

        @compiled
        def vjp(weights, slopes, cotangent, out, log_norms):
            n_samples, n_layers, n = slopes.shape
            for b in prange(n_samples):
                now, after = cotangent[b].copy(), np.empty(n, cotangent.dtype)
                log_norms[b, n_layers] = 0.5 * np.log(np.sum(now * now))
                for back in range(n_layers):
                    k = n_layers - 1 - back
                    after[:] = 0
                    for i in range(n):
                        entry = now[i] * slopes[b, k, i]
                        for j in range(n):
                            after[j] += entry * weights[k, i, j]
                    now, after = after, now
                    log_norms[b, k] = 0.5 * np.log(np.sum(now * now))
                out[b] = now

        @compiled
        def jvp(weights, slopes, tangent, out, log_norms):
            n_samples, n_layers, n = slopes.shape
            for b in prange(n_samples):
                now, after = tangent[b].copy(), np.empty(n, tangent.dtype)
                log_norms[b, 0] = 0.5 * np.log(np.sum(now * now))
                for k in range(n_layers):
                    for i in range(n):
                        total = now[0] * weights[k, i, 0]
                        for j in range(1, n):
                            total += now[j] * weights[k, i, j]
                        after[i] = total * slopes[b, k, i]
                    now, after = after, now
                    log_norms[b, k + 1] = 0.5 * np.log(np.sum(now * now))
                out[b] = now

        self._own, self._shared, self._vjp, self._jvp = own, shared, vjp, jvp

    def own(self, weights):
        out = np.empty_like(weights[:, 0])

        def solve():
            self._own(weights, out)
            return out

        return solve

    def shared(self, weights, slopes):
        n_samples, _, n = slopes.shape
        out = np.empty((n_samples, n, n), weights.dtype)

        def solve():
            self._shared(weights, slopes, out)
            return out

        return solve

    def vjp(self, weights, slopes, cotangent):
        return self._vectors(self._vjp, weights, slopes, cotangent)

    def jvp(self, weights, slopes, tangent):
        return self._vectors(self._jvp, weights, slopes, tangent)

    def _vectors(self, push, weights, slopes, start):
        out = np.empty_like(start)
        log_norms = np.empty((slopes.shape[0], slopes.shape[1] + 1))

        def solve():
            push(weights, slopes, start, out, log_norms)
            return out, log_norms

        return solve
