"""The structure of the source tree: who may import whom, and what every kernel comes with."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "jacometry"
CSRC = ROOT / "csrc"

# Every module in its layer.  A new module has no place until it is entered here.
LAYERS = {
    "kernels": {"_kernels", "cython_api"},
    "base": {"_status", "_validate"},
    "descriptions": {"activations", "activations.*", "factors", "factors.*"},
    "reference": {"reference", "reference.*"},
    "policy": {"_backend", "_config", "_threads"},
    "ops": {"ops", "ops.*"},
    "domain": {
        "_network_arguments",
        "_npz",
        "initializers",
        "initializers.*",
        "meanfield",
        "meanfield.*",
        "network",
    },
    "diagnostics": {"_advice", "_losses", "_matrices", "_measure", "_verdict", "diagnostics"},
    "surface": {"_html", "cli", "interop", "interop.*", "plots", "plots.*", "report"},
    "data": {"data"},
    "package": {"", "__main__"},
}
# What the modules of a layer import of ours when they are loaded, or inside a function.
MAY_IMPORT = {
    "kernels": set(),
    "base": {"base"},
    "descriptions": {"descriptions"},
    "reference": set(),
    "policy": {"kernels", "policy"},
    "ops": {"kernels", "base", "descriptions", "reference", "policy", "ops"},
    "domain": {"base", "descriptions", "ops", "domain"},
    "diagnostics": {"base", "descriptions", "ops", "domain", "diagnostics"},
    "surface": {"base", "descriptions", "ops", "domain", "diagnostics", "surface", "package"},
    "data": set(),
    "package": {"base", "descriptions", "policy", "ops", "domain", "diagnostics", "surface"},
}
# Methods that hand their object to a later layer, which they import when called.
HANDED_ON = {
    ("meanfield._field", "plots._field"),
    ("meanfield._phase_diagram", "plots._field"),
    ("_config", ""),  # the version
    ("activations._table", "ops.moments"),  # a summary, not part of a description
    ("network", "interop.sklearn"),
    ("network", "interop.torch"),
    ("diagnostics", "report"),
    ("diagnostics", "plots"),
}
COMPILED = {"_kernels", "cython_api"}
OPTIONAL = ("matplotlib", "pandas", "torch", "sklearn", "mpmath")

FORBIDDEN_IN_CSRC = r"#\s*pragma\s+omp|\b(?:malloc|calloc|realloc|free|alloca|printf|rand)\("

# Kernels return a status; the functions beside them say how much workspace or how large a group.
KERNEL = re.compile(r"^JM_KERNEL\((\w+), (\w+),", re.MULTILINE)


def modules():
    """Dotted name below the package ('' for the package itself) of every module, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found | {name: PACKAGE / f"{name}.pyx" for name in sorted(COMPILED)}


MODULES = modules()


def layer_of(module):
    for layer, members in LAYERS.items():
        if module in members or ("." in module and f"{module.split('.')[0]}.*" in members):
            return layer
    return None


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(module):
    """Pairs (our module imported, whether inside a function) of a module, types aside."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()

    def resolve(base, name):
        full = ".".join(p for p in (*base, name) if p)
        found.add((full if full in MODULES else ".".join(p for p in base if p), inside))

    def visit(node):
        nonlocal inside
        if is_type_checking(node):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "jacometry":
                    resolve(parts[1:], "")
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                base = [p for p in package if p][: len(package) - (node.level - 1)] + parts
            elif parts and parts[0] == "jacometry":
                base = parts[1:]
            else:
                return
            for alias in node.names:
                resolve(base, alias.name)
        was_inside = inside
        inside = inside or isinstance(node, FUNCTION | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child)
        inside = was_inside

    inside = False
    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


# The parts that chain_log_svdvals is called by from Python, which looks at Ctrl-C between them.
PARTS = ("_lanes", "_one", "_end")


def registry():
    families = sorted((CSRC / "families").glob("*.def"))
    return "".join(path.read_text(encoding="utf-8") for path in families)


def kernels():
    """The kernels of the registry: what returns a status and is not a part of another one."""
    names = [name for result, name in KERNEL.findall(registry()) if result == "int"]
    return [n for n in names if not n.endswith(PARTS)]


def names_in(path):
    """Every name and attribute that a Python file mentions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }


def functions_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_layer(module):
    assert layer_of(module), f"enter {module!r} in LAYERS: say what it stands on and who may use it"


@pytest.mark.parametrize("module", [m for m in MODULES if m not in COMPILED])
def test_imports_go_one_way(module):
    allowed = MAY_IMPORT[layer_of(module)]
    for imported, inside in imports(module):
        if inside and (module, imported) in HANDED_ON:
            continue
        assert layer_of(imported) in allowed, (
            f"{module or 'the package'} ({layer_of(module)}) imports "
            f"{imported or 'the package'} ({layer_of(imported)})"
        )


def test_no_modules_import_each_other_when_loaded():
    graph = {m: {i for i, inside in imports(m) if not inside} for m in MODULES if m not in COMPILED}
    settled = set(COMPILED)
    while graph:
        ready = [m for m, needs in graph.items() if needs <= settled]
        assert ready, f"an import cycle among {sorted(graph)}"
        settled.update(ready)
        for module in ready:
            del graph[module]


def test_only_ops_and_the_policy_import_the_kernels():
    python = [m for m in MODULES if m not in COMPILED]
    users = {m for m in python if COMPILED & {i for i, _ in imports(m)}}
    assert {layer_of(m) for m in users} <= {"ops", "policy"}


def test_csrc_knows_nothing_of_python_threads_or_memory():
    allowed = {"float.h", "math.h", "string.h", "stddef.h", "stdint.h", "immintrin.h", "arm_neon.h"}
    headers = sorted((PACKAGE / "include").rglob("*.h"))
    of_the_binding = ("host.h", "exports.h", "capi.h")  # where these things belong
    for path in [*sorted(CSRC.rglob("*.[ch]")), *headers]:
        if path.name in of_the_binding:
            continue
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        included = set(re.findall(r"#\s*include\s*<([^>]+)>", text))
        assert included <= allowed, f"{path.name} includes {included - allowed}"
        words = re.findall(FORBIDDEN_IN_CSRC, text)
        assert not words, f"{path.name} uses {words}"
        for name in of_the_binding:
            assert name not in text, f"{path.name} includes {name}"


def binding():
    """The text of _kernels.pyx and of the parts it includes."""
    parts = [PACKAGE / "_kernels.pyx", *sorted(PACKAGE.glob("_kernels_*.pxi"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in parts)


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_has_a_binding(name):
    picked = rf"\bactive\.\w+\.{name}(_one)?\["
    assert re.search(picked, binding()), f"the binding never picks {name}"


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_has_one_oracle(name):
    oracles = [p.stem for p in (PACKAGE / "reference").glob("*.py") if name in functions_in(p)]
    assert len(oracles) == 1, f"reference/ defines {name} in {oracles}"


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_has_a_test_against_its_oracle(name):
    tests = [p for p in (ROOT / "tests" / "ops").glob("test_*.py") if name in names_in(p)]
    assert tests, f"no test in tests/ops names {name}"


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_is_run_by_the_c_tests(name):
    drivers = (ROOT / "tests" / "c").glob("*.[ch]")
    assert any(re.search(rf"\b{name}\b", p.read_text(encoding="utf-8")) for p in drivers)


@pytest.mark.parametrize("name", [n for n in kernels() if n.startswith("chain_")])
def test_every_chain_kernel_is_in_the_c_api(name):
    listed = (PACKAGE / "include" / "jacometry" / "functions.h").read_text(encoding="utf-8")
    assert re.search(rf"^JM_FUNCTION\(int, {name},", listed, re.MULTILINE)


def test_every_slot_of_the_table_is_declared_in_the_binding():
    for _, name in KERNEL.findall(registry()):
        assert re.search(rf"\b{name}\[2\]", binding()), f"the binding does not declare {name}"


def test_importing_the_package_imports_no_optional_dependency():
    code = f"import jacometry, sys; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "[]"


def test_the_stub_declares_what_the_binding_defines():
    stub = ast.parse((PACKAGE / "_kernels.pyi").read_text(encoding="utf-8"))
    declared = {f.name: [a.arg for a in f.args.args] for f in stub.body if isinstance(f, FUNCTION)}
    defined = {}
    for name, arguments in re.findall(r"^def (\w+)\(([^)]*)\)", binding(), re.MULTILINE):
        defined[name] = [a.split()[-1] for a in arguments.split(",") if a.strip()]
    assert declared == defined
