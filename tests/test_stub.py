"""python/lsc_ext/_C.pyi says what the compiled module has."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).parent.parent / "python" / "lsc_ext" / "_C.pyi"


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


def test_the_stub_matches_the_compiled_module(tmp_path: Path) -> None:
    pytest.importorskip("pybind11_stubgen")
    command = [sys.executable, "-m", "pybind11_stubgen", "lsc_ext._C", "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    compiled = (tmp_path / "lsc_ext" / "_C.pyi").read_text()
    assert len(_signatures(compiled)) > 10
    assert differences(STUB.read_text(), compiled) == []


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
