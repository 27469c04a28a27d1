"""python/lsc_ext/_C/*.pyi say what the compiled module has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest

from lsc_ext import _C

STUBS = Path(__file__).parent.parent / "python" / "lsc_ext" / "_C"
# What the emulated module has beside the functions of a device.
EMULATION = {"set_mishaps", "set_seed", "set_tensor_cores"}


def _signatures(source: str) -> dict[str, list[str]]:
    """Names of functions, methods, properties and classes (with their bases), and what they take by name."""
    found: dict[str, list[str]] = {}

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = [ast.unparse(base) for base in node.bases]
                collect(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                arguments = node.args
                every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
                found[prefix + node.name] = [argument.arg for argument in every]

    collect(ast.parse(source).body, "")
    return found


def differences(stub: str, compiled: str) -> list[str]:
    """Each name whose signature differs, with both."""
    ours, theirs = _signatures(stub), _signatures(compiled)
    names = sorted(ours.keys() | theirs.keys())
    return [f"{n}: stub {ours.get(n)}, compiled {theirs.get(n)}" for n in names if ours.get(n) != theirs.get(n)]


def _compiled(name: str, folder: Path, search: Path | None = None) -> Path:
    """The stubs that pybind11-stubgen reads from a compiled module: a file, or a folder where it has modules inside."""
    pytest.importorskip("pybind11_stubgen")
    command = [sys.executable, "-m", "pybind11_stubgen", name, "--output-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*([search] if search else []), *sys.path]))}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    return folder.joinpath(*name.split("."))


def test_the_stub_matches_the_compiled_module(tmp_path: Path) -> None:
    found = _compiled("lsc_ext._C", tmp_path)
    with_cuda = hasattr(_C, "cuda")
    compiled = (found / "__init__.pyi" if with_cuda else found.with_suffix(".pyi")).read_text()
    assert len(_signatures(compiled)) > 10
    assert differences((STUBS / "__init__.pyi").read_text(), compiled) == []
    if with_cuda:
        assert differences((STUBS / "cuda.pyi").read_text(), (found / "cuda.pyi").read_text()) == []


def test_the_stub_of_the_cuda_backend_matches_its_emulation(tmp_path: Path) -> None:
    folder = Path(emulated.module().__file__).parent
    compiled = _compiled("_emulated", tmp_path, folder).with_suffix(".pyi").read_text()
    assert len(_signatures(compiled)) > 10
    differing = differences((STUBS / "cuda.pyi").read_text(), compiled)
    assert [line for line in differing if line.split(":")[0] not in EMULATION] == []


@pytest.mark.parametrize(
    "compiled",
    [
        "def forward(x, threads): ...",
        "def forward(threads, x, y): ...",
        "def forward(x, y, threads): ...\ndef backward(): ...",
        "class forward: ...",
    ],
)
def test_a_planted_difference_is_found(compiled: str) -> None:
    assert len(differences("def forward(x: int, y: int, threads: int) -> None: ...", compiled)) == 1
