"""The import law: who may know whom, in Python and in C++."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module may import what stands on a line before its own. `files` is a leaf that anyone may use.
LAYERS = (
    ("_C", "files"),
    ("backends",),
    ("ops",),
    ("operator", "scan"),
    ("impulse",),
    ("estimate", "chain"),
    ("estimators",),
    ("radius_gradient", "fused"),
    ("spectral", "frobenius"),
    ("weights", "rerun"),
    ("trajectory",),
    ("steps",),
    ("nn",),
    ("step_model", "sequential", "submodule"),
    ("radii", "lyapunov"),
    ("explain",),
    ("pretrain",),
    ("theory", "memory", "plot", "data"),
    ("diagnose",),
    ("__init__",),
    ("demo", "bench", "paper"),
    ("experiments",),
    ("cli",),
    ("__main__",),
)
TRUTH = ("cells", "reference")  # judged against, so the compiled column never learns from it
OPTIONAL = ("matplotlib", "sklearn", "mlxtend", "rich", "scipy", "jax", "matfree", "h5py")
# Who may import these, beside the rule of the layers.
ONLY_BY = {
    "cells": {"nn", "cells", "reference"},
    "reference": {"reference"},
    "data": {"demo", "cli", "bench", "paper", "experiments"},
    "testing": set(),
}
# A result draws itself, and an operator reads a model: both import what stands higher when they are called.
LAZY = {("pretrain", "plot"), ("memory", "plot"), ("operator", "trajectory")}
CPP = {
    "csrc/include/lsc": ("lsc/",),
    "csrc/src/algorithms": ("lsc/", "algorithms/"),
    "csrc/src/cpu": ("lsc/", "algorithms/", "cpu/"),
    "csrc/src/cuda": ("lsc/", "algorithms/", "cuda/", "emulator/device.h", "emulator/mma.h"),
    "csrc/src/emulator": ("lsc/", "cuda/", "emulator/", "sanitizer/"),
    "csrc/src/python": ("lsc/", "algorithms/", "cpu/", "cuda/", "emulator/", "python/", "pybind11/"),
    "csrc/tests": ("lsc/", "algorithms/", "cpu/", "cuda/", "emulator/", "check.h", "model.h"),
}


def _module(path: str) -> str:
    """The part of the package that a file belongs to: cells/gru.py is cells, __init__.py is __init__."""
    first = Path(path).parts[0]
    return first.removesuffix(".py")


def _imports(source: str) -> list[tuple[str, bool]]:
    """Every imported name, dotted, and whether it is imported as the module loads."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, eager: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.extend((f"{node.module}.{alias.name}", eager) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, eager and not function)

    visit(ast.parse(source), True)
    return found


def python_violations(sources: dict[str, str]) -> list[str]:
    """What breaks the law, one sentence each, in files by their path inside the package."""
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    violations = []
    for path, source in sources.items():
        module = _module(path)
        if module not in rank and module not in (*TRUTH, "testing"):
            violations.append(f"{path}: {module} has no place in the layers")
            continue
        for name, eager in _imports(source):
            top, _, rest = name.partition(".")
            if top in OPTIONAL and eager and module not in ("plot", "demo"):
                violations.append(f"{path} imports {name} as it loads")
            if top != "lsc_ext":
                continue
            target = rest.split(".")[0]
            if target not in rank and target not in ONLY_BY:
                target = "__init__"
            inside = (*TRUTH, "nn", "theory", "memory", "testing", "bench", "paper", "pretrain", "experiments")
            if target == module and module in inside:
                continue
            if target in ONLY_BY:
                allowed = module in ONLY_BY[target]
            elif module in TRUTH:
                allowed = target == "files"
            elif module == "testing":
                allowed = target not in ("__main__", "cli")
            else:
                allowed = rank[target] < rank[module] or ((module, target) in LAZY and not eager)
            if not allowed:
                violations.append(f"{path} imports {target}")
    return violations


def cpp_violations(sources: dict[str, str]) -> list[str]:
    """As above for includes, in files by their path from the root; <standard> headers without a folder are free."""
    violations = []
    for path, source in sources.items():
        folder = next((folder for folder in CPP if path.startswith(folder + "/")), None)
        if folder is None:
            violations.append(f"{path} has no place in the layers")
            continue
        for bracket, header in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', source, re.MULTILINE):
            system = bracket == "<" and ("/" not in header or header.startswith("sys/"))
            if not system and not header.startswith(CPP[folder]):
                violations.append(f"{path} includes {header}")
            if header.split("/")[0] in ("torch", "ATen", "c10") or (
                header.startswith(("pybind11", "Python.h")) and folder != "csrc/src/python"
            ):
                violations.append(f"{path} includes {header}")
    return violations


def _read(folder: Path, relative_to: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(suffixes)]
    return {path.relative_to(relative_to).as_posix(): path.read_text() for path in files}


def test_python_imports_run_one_way() -> None:
    package = ROOT / "python" / "lsc_ext"
    sources = _read(package, package, (".py",))
    assert {"ops.py", "operator.py", "spectral.py", "nn/recurrent.py", "cells/gru.py"} <= sources.keys()
    assert python_violations(sources) == []


def test_cpp_includes_run_one_way() -> None:
    sources = _read(ROOT / "csrc", ROOT, (".h", ".cpp", ".cpp.in"))
    assert {"csrc/include/lsc/dual.h", "csrc/src/python/module.cpp"} <= sources.keys()
    assert cpp_violations(sources) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops.py", "from lsc_ext.operator import JacobianOperator"),
        ("ops.py", "def f():\n    from lsc_ext import spectral"),
        ("ops.py", "import lsc_ext"),
        ("spectral.py", "from lsc_ext.cells import CELLS"),
        ("radii.py", "def f():\n    import lsc_ext.reference.forward"),
        ("pretrain.py", "from lsc_ext.plot import plot_radii"),
        ("pretrain.py", "from rich.console import Console"),
        ("cells/gru.py", "from lsc_ext import ops"),
        ("reference/radius.py", "from lsc_ext.estimate import RadiusEstimate"),
        ("demo.py", "from lsc_ext.testing import TOLERANCES"),
        ("nn/recurrent.py", "from lsc_ext import data"),
        ("radii.py", "if True:\n    import matplotlib.pyplot"),
        ("utils.py", ""),
    ],
)
def test_a_planted_python_violation_is_caught(path: str, source: str) -> None:
    assert len(python_violations({path: source})) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops.py", "from lsc_ext import _C"),
        ("nn/recurrent.py", "from lsc_ext import ops\nfrom lsc_ext.cells import CELLS"),
        ("reference/radius.py", "from lsc_ext.reference.forward import run\nfrom lsc_ext.cells import CELLS"),
        ("pretrain.py", "def plot():\n    from lsc_ext.plot import plot_pretraining\n    import rich"),
        ("operator.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lsc_ext.nn import GRU"),
        ("__init__.py", "from lsc_ext import nn\nfrom lsc_ext._C import build_info"),
    ],
)
def test_what_the_law_allows_passes(path: str, source: str) -> None:
    assert python_violations({path: source}) == []


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("csrc/include/lsc/dual.h", '"algorithms/stack.h"'),
        ("csrc/src/algorithms/forward.h", '"cpu/dispatch.h"'),
        ("csrc/src/cpu/linear.cpp", '"python/buffers.h"'),
        ("csrc/src/cpu/linear.cpp", "<ATen/ATen.h>"),
        ("csrc/src/elsewhere/new.h", "<vector>"),
    ],
)
def test_a_planted_cpp_violation_is_caught(path: str, header: str) -> None:
    assert cpp_violations({path: f"#pragma once\n#include {header}\n"})


@pytest.mark.parametrize("header", ["<torch/extension.h>", "<c10/util/Half.h>"])
def test_nothing_includes_torch(header: str) -> None:
    assert cpp_violations({"csrc/src/python/module.cpp": f"#include {header}"})


def test_pybind11_stays_in_its_folder() -> None:
    assert cpp_violations({"csrc/src/python/module.cpp": "#include <pybind11/stl.h>"}) == []
    assert cpp_violations({"csrc/src/cpu/linear.cpp": "#include <pybind11/stl.h>"})
