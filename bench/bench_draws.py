"""The normal numbers that simulate draws, beside the generators of NumPy and torch.

`harness` has the command line.  Mean and mean square of each draw must lie within 6 standard errors
of 0 and 1.
"""

import math
import sys

import harness
import numpy as np

from jacometry.ops._draws import gaussian_rows

STANDARD_ERRORS = 6.0
N_ROWS, N_NUMBERS = 16, 65536


def make_cases(options, notes):
    """The cases of the command line's options."""
    out = np.empty((N_ROWS, N_NUMBERS), options.numpy_dtype)
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, (N_ROWS, 2), np.uint64)
    fast = np.random.Generator(np.random.SFC64(0))

    def ours():
        keys[:, 0] += np.uint64(1)
        gaussian_rows(keys, 0, out, n_threads=options.n_threads)
        return out

    contestants = {
        "ours": ours,
        "numpy": lambda: fast.standard_normal(out=out, dtype=options.numpy_dtype.type),
    }
    if torch := harness.optional("torch", notes=notes).get("torch"):
        torch.set_num_threads(options.n_threads)
        tensor = torch.from_numpy(np.empty_like(out))
        generator = torch.Generator().manual_seed(0)
        contestants["torch"] = lambda: tensor.normal_(generator=generator).numpy()
    yield harness.Case(
        job="normal numbers",
        sizes={"rows": N_ROWS, "numbers": N_NUMBERS},
        contestants=contestants,
        error=error,
        tolerance=STANDARD_ERRORS,
        n_units=N_ROWS * N_NUMBERS,
        unit="number",
    )


def error(drawn):
    """Standard errors of the mean and of the mean square."""
    drawn = np.asarray(drawn, np.float64)
    return max(abs(drawn.mean()), abs((drawn**2).mean() - 1) / math.sqrt(2)) * math.sqrt(drawn.size)


if __name__ == "__main__":
    sys.exit(harness.main("draws", make_cases))
