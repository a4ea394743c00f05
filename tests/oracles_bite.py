"""Shows that the oracle tests bite: a kernel perturbed in one line must fail its oracle test.

Run by .ci/run as ``python tests/oracles_bite.py``.  Only the baseline variant is compiled, and for
a perturbation only the family of its kernel, so that it costs seconds.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COMPILE = ["cc", "-std=gnu11", "-O0", "-ffp-contract=off", "-fPIC"]
# pytest's exit status when tests failed; anything else (a crash, no tests) shows nothing.
TESTS_FAILED = 1


class Perturbation(NamedTuple):
    """`old`, which stands once in csrc/kernels/`file`, becomes `new`."""

    kernel: str
    file: str
    old: str
    new: str


ORACLE_TESTS = {
    "chain_product": ("test_chain.py", "chain_product_agrees or rectangular_mixed"),
    "chain_jvp": ("test_chain.py", "vectors_agree_with_the_oracle and False"),
    "chain_vjp": ("test_chain.py", "vectors_agree_with_the_oracle and True"),
    "lyapunov_spectrum": ("test_lyapunov.py", "agrees_with_the_oracle"),
    "chain_log_svdvals": (
        "test_chain_spectra.py",
        "agrees_with_the_oracle or rectangular or dead_units or zero_rows or short_products",
    ),
    "gaussian_moments": ("test_moments.py", "gaussian_moments_agree_with_the_oracle"),
    "variance_map": ("test_moments.py", "variance_map_agrees_with_the_oracle"),
    "two_point_table": ("test_correlations.py", "table_agrees_with_the_oracle"),
    "spectral_norm_gram": ("test_spectral.py", "gram_value_agrees_with_the_oracle"),
    "sum_squares": ("test_conditioning.py", "sums_of_squares_agree_with_the_oracle"),
    "gaussian_fill": ("test_draws.py", "numbers_agree_with_the_oracle"),
    "spectral_norm_lanczos": ("test_spectral.py", "lanczos_agrees_with_the_textbook_oracle"),
}

PERTURBATIONS = [
    # A slope of the next row; an exponent off by one, in both writers; a layer too few in a sum.
    Perturbation(
        "chain_product",
        "chain_step.inc.h",
        "JM_SPLAT(step->slopes[i + r])",
        "JM_SPLAT(step->slopes[i])",
    ),
    Perturbation(
        "chain_product",
        "chain_product.inc.h",
        "state->largest > 0 ? state->exponent + e : 0;",
        "state->largest > 0 ? state->exponent + e + 1 : 0;",
    ),
    Perturbation(
        "chain_product",
        "product_registers.inc.h",
        "    *exponent = e;",
        "    *exponent = e + 1;",
    ),
    Perturbation(
        "chain_product",
        "chain_step.inc.h",
        "for (ptrdiff_t k = 0; k < depth; k++) {",
        "for (ptrdiff_t k = 0; k < depth - (depth > 8); k++) {",
    ),
    Perturbation(
        "chain_product",
        "chain_product.inc.h",
        "(first + j + l) * rows + i",
        "(first + j) * rows + i",
    ),
    Perturbation(
        "chain_product",
        "product_lanes.inc.h",
        "exponent[l] = exponents[l];",
        "exponent[l] = exponents[0];",
    ),
    # The shortcut's sign; a log-norm in the wrong unit; slopes of the wrong vector.
    Perturbation(
        "chain_jvp",
        "vector_rows.inc.h",
        "JM_FMADD(JM_SPLAT(job->shortcut), JM_LOAD(original",
        "JM_FMADD(JM_SPLAT(-job->shortcut), JM_LOAD(original",
    ),
    Perturbation(
        "chain_jvp",
        "chain_vectors.inc.h",
        "log_norm[j] = JM_LOG_2_HIGH * total",
        "log_norm[j] = total",
    ),
    Perturbation(
        "chain_jvp",
        "vector_rows.inc.h",
        "job->slopes + job->sample[row + r] * job->slopes_stride + col",
        "job->slopes + job->sample[row] * job->slopes_stride + col",
    ),
    # A dot product that loses a vector of W; a column of W in the wrong lane.
    Perturbation(
        "chain_jvp",
        "vector_rows.inc.h",
        "for (ptrdiff_t k = 0; k < job->in_pad; k += JM_VW) {",
        "for (ptrdiff_t k = JM_VW; k < job->in_pad; k += JM_VW) {",
    ),
    Perturbation(
        "chain_jvp",
        "vector_rows.inc.h",
        "items[l] = weights + (whole + l) * step->row_stride;",
        "items[l] = weights + whole * step->row_stride;",
    ),
    # F instead of its transpose; an exponent left out.
    Perturbation(
        "chain_vjp",
        "chain_step.inc.h",
        "step.slopes_first = (chain->slope_side == JM_SLOPE_INPUT) != transposed;",
        "step.slopes_first = (chain->slope_side == JM_SLOPE_INPUT);",
    ),
    Perturbation(
        "chain_vjp",
        "chain_vectors.inc.h",
        "out_exponent[vector] = is_plain ? exponent : 0;",
        "out_exponent[vector] = 0;",
    ),
    # A share taken out that is too small; an exponent left out of the growth.
    Perturbation(
        "lyapunov_spectrum",
        "lyapunov_panels.inc.h",
        "share[i][v] *= JM_SPLAT(inverse[i]);",
        "share[i][v] *= JM_SPLAT(inverse[i] * (JM_T)0.99);",
    ),
    Perturbation(
        "lyapunov_spectrum",
        "lyapunov_columns.inc.h",
        "const double exponent = space->exponent[at] + 0.5 * e;",
        "const double exponent = space->exponent[at] + e;",
    ),
    # A shortcut lost; a power of two of a row of T lost; a rotation by too little.
    Perturbation(
        "chain_log_svdvals",
        "chain_svdvals.inc.h",
        "x = fma(w, s, ldexp(c, lift - e));",
        "x = fma(w, s, ldexp(c, lift - e - 1));",
    ),
    Perturbation(
        "chain_log_svdvals",
        "chain_svdvals.inc.h",
        "state->exponent_new[i] = own + shift;",
        "state->exponent_new[i] = own + shift + (i > 2);",
    ),
    Perturbation(
        "chain_log_svdvals",
        "svdvals_lanes.inc.h",
        "const JM_V inverse = JM_SPLAT(1) / JM_LOAD(lanes->mantissa + at);",
        "const JM_V inverse = JM_SPLAT(1.001) / JM_LOAD(lanes->mantissa + at);",
    ),
    Perturbation(
        "chain_log_svdvals",
        "graded.inc.h",
        "const double t = tau * ratio, cosine",
        "const double t = 0.999 * tau * ratio, cosine",
    ),
    # One moment of one activation each, by a few parts in a million or a term.
    Perturbation(
        "gaussian_moments",
        "moments.inc.h",
        "for (int k = JM_TABLE_TERMS - 2; k >= 0; k--)",
        "for (int k = JM_TABLE_TERMS - 4; k >= 0; k--)",
    ),
    Perturbation(
        "gaussian_moments",
        "moments.inc.h",
        "out->dphi2[i] = value2 + density2 * spread + missing;",
        "out->dphi2[i] = value2 + density2 * share + missing;",
    ),
    Perturbation(
        "gaussian_moments",
        "moments.inc.h",
        "(2.0 * share + spread) / (1.0 + finite)",
        "(2.0 * share + spread) / (1.0 + half)",
    ),
    Perturbation(
        "variance_map",
        "moments.inc.h",
        "t[i] = 8.0 * t[i] - 9.0;",
        "t[i] = 8.0 * t[i] - 9.000001;",
    ),
    Perturbation(
        "variance_map",
        "moments.inc.h",
        "out[from + i] = w * moments.phi2[i] * w + b * b;",
        "out[from + i] = w * moments.phi2[i] + b * b;",
    ),
    # A piece of s that begins where the one before does; the other sign's means.
    Perturbation(
        "two_point_table",
        "correlation.inc.h",
        "piece > 0 ? ldexp(0.5, piece) : 0.0;",
        "piece > 0 ? ldexp(0.25, piece) : 0.0;",
    ),
    Perturbation(
        "two_point_table",
        "correlation.inc.h",
        "signbit(near) ? 2 : 0;",
        "near < 0.0 ? 0 : 2;",
    ),
    # The norm from its square; a row of B; the eigenvalue (what is left is the Frobenius norm); the
    # quotient that the lower bound rests on.
    Perturbation(
        "spectral_norm_gram",
        "spectral_gram.inc.h",
        "JM_VMIN(JM_VMAX(JM_VSQRT(lambda), found[0]), found[2])",
        "JM_SPLAT(1.001) * JM_VSQRT(lambda)",
    ),
    Perturbation(
        "spectral_norm_gram",
        "spectral_gram.inc.h",
        "const JM_V a = JM_SPLAT(row[i0 + x]);",
        "const JM_V a = JM_SPLAT(row[i0 + x] * (JM_T)(k == 3 ? 1.001 : 1));",
    ),
    Perturbation(
        "spectral_norm_gram",
        "spectral_eigenvalue.inc.h",
        "lambda[k] = safe[k];",
        "lambda[k] = JM_SPLAT(0.999) * safe[k];",
    ),
    Perturbation(
        "spectral_norm_gram",
        "spectral_proof.inc.h",
        "y = t * JM_LOAD(inverse + i * JM_VW);",
        "y = t;",
    ),
    Perturbation(
        "sum_squares",
        "sum_squares.inc.h",
        "square += (double)x[i] * (double)x[i];",
        "square += (double)x[i];",
    ),
    # A rotation; what the key adds to another word; the wrong bit of two; the low part of 2 ln 2.
    Perturbation(
        "gaussian_fill",
        "gaussian.inc.h",
        "JM_NAME(threefry_rounds)(x, keys, 4, 25, 33, 46, 12, 58, 22, 32, 32);",
        "JM_NAME(threefry_rounds)(x, keys, 4, 25, 33, 46, 12, 58, 22, 32, 31);",
    ),
    Perturbation(
        "gaussian_fill",
        "gaussian.inc.h",
        "x[3] += (uint64_t)i;",
        "x[2] += (uint64_t)i;",
    ),
    Perturbation(
        "gaussian_fill",
        "gaussian.inc.h",
        "((b >> (n_bits - 2)) & 1);",
        "((b >> (n_bits - 1)) & 1);",
    ),
    Perturbation(
        "gaussian_fill",
        "gaussian.inc.h",
        "JM_FMADD(e, JM_SPLAT(-JM_TWO_LOG_2_LOW), log_m);",
        "log_m;",
    ),
    Perturbation(
        "spectral_norm_lanczos",
        "spectral_lanczos.inc.h",
        "const double excess = log_p - log_level;",
        "const double excess = log_p - 0.9 * log_level;",
    ),
    Perturbation(
        "spectral_norm_lanczos",
        "spectral_lanczos.inc.h",
        "off[k + 1] = beta;",
        "off[k + 1] = 1.1 * beta;",
    ),
]


def run(command, **options):
    """A command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def families():
    """The kernels of the registry that are called on their own, by family."""
    found = {}
    for registry in sorted((ROOT / "csrc" / "families").glob("*.def")):
        names = re.findall(r"^JM_KERNEL\(int, (\w+),", registry.read_text("utf-8"), re.MULTILINE)
        # What a kernel is called by in parts begins with its name, and its test runs them.
        parts = tuple(f"{name}_" for name in names)
        found[registry.stem] = [name for name in names if not name.startswith(parts)]
    return found


def compile_object(source, target, csrc):
    headers = [csrc, ROOT / "src/jacometry/include", sysconfig.get_path("include")]
    run([*COMPILE, "-DJM_BASELINE_ONLY", *(f"-I{h}" for h in headers), "-c", source, "-o", target])
    return target


def compile_unperturbed(folder):
    """The binding, and the kernels by family."""
    binding, csrc = folder / "_kernels.c", ROOT / "csrc"
    run([sys.executable, "-m", "cython", "-3", ROOT / "src/jacometry/_kernels.pyx", "-o", binding])
    sources = {"binding": binding, "dispatch": csrc / "dispatch.c"}
    sources.update({f: csrc / "units" / f"{f}_baseline.c" for f in families()})
    return {what: compile_object(s, folder / f"{what}.o", csrc) for what, s in sources.items()}


def package_with(folder, objects, perturbation):
    """A copy of the package whose baseline kernels hold the perturbation; its parent folder."""
    if perturbation:
        csrc = folder / "csrc"
        shutil.copytree(ROOT / "csrc", csrc)
        path = csrc / "kernels" / perturbation.file
        text = path.read_text(encoding="utf-8")
        if text.count(perturbation.old) != 1:
            found = text.count(perturbation.old)
            sys.exit(f"stands {found} times in {perturbation.file}: {perturbation.old!r}")
        path.write_text(text.replace(perturbation.old, perturbation.new), encoding="utf-8")
        family = next(f for f, kernels in families().items() if perturbation.kernel in kernels)
        unit = csrc / "units" / f"{family}_baseline.c"
        objects = {**objects, family: compile_object(unit, folder / "perturbed.o", csrc)}
    shutil.copytree(
        ROOT / "src" / "jacometry",
        folder / "jacometry",
        ignore=shutil.ignore_patterns("*.so", "*.pyx", "_kernels.c", "__pycache__", "*.npz"),
    )
    extension = folder / "jacometry" / f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
    run(["cc", "-shared", *objects.values(), "-lm", "-o", extension])
    return folder


def oracle_test(package, kernel):
    """Exit status and output of a kernel's oracle test on a copy of the package."""
    file, selection = ORACLE_TESTS[kernel]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "ops" / file), "-k", selection],
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def check(job):
    """One line on a perturbation, and whether its oracle test did what it must."""
    objects, perturbation, kernels = job
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        package = package_with(Path(folder), objects, perturbation)
        if perturbation is None:
            results = {kernel: oracle_test(package, kernel) for kernel in kernels}
            is_right = all(status == 0 for status, _ in results.values())
            what = "unperturbed: every oracle test passes"
            output = "".join(text for status, text in results.values() if status)
        else:
            status, output = oracle_test(package, perturbation.kernel)
            is_right = status == TESTS_FAILED
            what = f"{perturbation.kernel}: {' '.join(perturbation.new.split())}"
    seconds = time.perf_counter() - began
    line = f"{'ok' if is_right else 'NOT NOTICED':12s}{seconds:5.1f} s  {what}"
    return is_right, line if is_right else f"{line}\n{output}"


def main():
    kernels = [name for names in families().values() for name in names]
    unperturbed = set(kernels) - {p.kernel for p in PERTURBATIONS}
    if unperturbed or set(kernels) - set(ORACLE_TESTS):
        sys.exit(f"no perturbation or no oracle test for {unperturbed or set(kernels)}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = compile_unperturbed(Path(folder))
        jobs = [(objects, perturbation, kernels) for perturbation in [None, *PERTURBATIONS]]
        results = []
        for is_right, line in pool.map(check, jobs):
            print(line, flush=True)
            results.append(is_right)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
