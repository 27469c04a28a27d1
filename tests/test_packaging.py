"""What a user gets with the package, and what importing it costs."""

import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import lsc_ext
from lsc_ext import _C

ROOT = Path(__file__).parent.parent

_MEASURE_IMPORT = """
import json, threading, time
import torch

def threads():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
    except FileNotFoundError:
        return threading.active_count()

before = threads()
start = time.perf_counter()
import lsc_ext
seconds = time.perf_counter() - start
print(json.dumps({
    "seconds": seconds,
    "threads": threads() - before,
    "cuda": torch.cuda.is_initialized(),
    "heavy": sorted({"matplotlib", "sklearn", "mlxtend", "rich", "scipy", "lsc_ext.memory"} & set(sys.modules)),
}))
""".replace("import json,", "import json, sys,")


@pytest.fixture(scope="module")
def imports() -> list[dict[str, object]]:
    """What three fresh interpreters see when they import the package after torch."""
    command = [sys.executable, "-c", _MEASURE_IMPORT]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=120) for _ in range(3)]
    return [json.loads(run.stdout) for run in runs]


def test_import_is_cheap(imports: list[dict[str, object]]) -> None:
    """The best of three: a busy machine only ever adds to the time. Torch's own import is not counted."""
    seconds = [run["seconds"] for run in imports]
    assert min(seconds) < 0.1, f"seconds to import lsc_ext after torch: {seconds}"


def test_import_starts_no_thread_and_no_cuda_context(imports: list[dict[str, object]]) -> None:
    assert [run["threads"] for run in imports] == [0, 0, 0]
    assert not any(run["cuda"] for run in imports)


def test_import_loads_no_optional_package(imports: list[dict[str, object]]) -> None:
    assert all(run["heavy"] == [] for run in imports)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF headers")
def test_compiled_module_links_no_torch() -> None:
    """The names of needed libraries stand in the file as plain strings."""
    with open(_C.__file__, "rb") as file:
        content = file.read()
    assert b"libstdc++.so" in content or b"libc++.so" in content
    for library in (b"libtorch", b"libc10", b"libtorch_python"):
        assert library not in content


def test_a_source_distribution_has_all_that_a_build_reads(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    suffixes = (".h", ".cpp", ".cu", ".in", ".cmake", ".sh", ".txt")
    read = {
        path.relative_to(ROOT).as_posix()
        for folder in ("csrc", "cmake")
        for path in (ROOT / folder).rglob("*")
        if path.name.endswith(suffixes)
    }
    assert {Path(name).suffix for name in read} == set(suffixes)
    assert read - names == set()


def test_the_package_is_typed() -> None:
    files = importlib.resources.files(lsc_ext)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_C", "__init__.pyi").is_file()
    assert files.joinpath("_C", "cuda.pyi").is_file()


def test_one_version() -> None:
    version = importlib.metadata.version("lsc_ext")
    assert lsc_ext.__version__ == version
    assert _C.build_info()["version"] == version


def test_build_info_names_what_is_in_use() -> None:
    info = _C.build_info()
    assert info["instruction_set"] in info["instruction_sets"]
    assert info["backends"][0] == "cpu"
    assert info["thread_runtime"] in ("openmp", "serial")


def test_every_compiled_cell_has_its_truth() -> None:
    from lsc_ext.cells import CELLS

    compiled = _C.cells()
    assert compiled.keys() == CELLS.keys()
    for name, cell in CELLS.items():
        assert compiled[name]["states"] == len(cell.states)
        assert compiled[name]["input_blocks"] == cell.input_blocks
        assert compiled[name]["recurrent_blocks"] == cell.recurrent_blocks
