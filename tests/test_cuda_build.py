"""How the CUDA backend is compiled, where nothing of it can run.

Tests of the compiled module look into the folder that LSC_CUDA_BUILD names, as `make cuda-check` builds it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ptxas_report
import pytest

ROOT = Path(__file__).parent.parent
BUILD = os.environ.get("LSC_CUDA_BUILD")
MOST_BYTES = 20 * 2**20
# Kernels that may keep something in local memory, and why: a part of the name, then the reason.
SERIAL = "one lane runs the small eigenproblems as a serial program, which keeps more values than there are registers"
REDUCTION = "CUDA's sine and cosine reduce large arguments by a table in local memory"
MAY_USE_LOCAL_MEMORY = {
    "radius_kernel": SERIAL,
    "forward_radii_kernel": SERIAL,
    "walk_kernel": REDUCTION,
    "walk_back_kernel": REDUCTION,
    "RadiusIteration": SERIAL,
    "feed_forward3Sin": REDUCTION,
    "feed_forward3Cos": REDUCTION,
    "start_vectors_kernel": REDUCTION,
}

compiled = pytest.mark.skipif(BUILD is None, reason="reads what `make cuda-check` builds")


def leaky(functions: list[ptxas_report.Function]) -> list[str]:
    """Those that use local memory and have no reason to, one sentence each."""
    return [
        f"{f.name} for {f.architecture}: {f.stack} bytes of stack, {f.spill_stores} and {f.spill_loads} of spills"
        for f in functions
        if not f.lean and not any(part in f.name for part in MAY_USE_LOCAL_MEMORY)
    ]


def needed(module: Path) -> list[str]:
    """The libraries that a compiled module asks the loader for."""
    said = subprocess.run(["readelf", "--dynamic", str(module)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\)\s+Shared library: \[([^]]+)]", said)


def forbidden(libraries: list[str]) -> list[str]:
    """Those that only a machine with a driver, a toolkit or torch has."""
    return [name for name in libraries if re.match(r"lib(cuda|cudart|nv|torch|c10)", name)]


def cached(folder: Path, name: str) -> str:
    """A variable of CMake's cache, "" where it is not there."""
    found = re.search(rf"^{name}:\w+=(.*)$", (folder / "CMakeCache.txt").read_text(), re.MULTILINE)
    return found[1] if found else ""


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs CMake in a fresh folder; CUDACXX names no compiler unless ``environment`` says otherwise."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ninja = shutil.which("ninja", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if cmake is None or ninja is None:
        pytest.skip("needs CMake and Ninja")
    defined = [f"-D{option}" for option in ("LSC_PYTHON=OFF", "SKBUILD_PROJECT_VERSION=0", *options)]
    command = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", str(ROOT), "-B", str(folder), *defined]
    inherited = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "CUDAARCHS")}
    env = {**inherited, "CUDACXX": str(folder / "no" / "nvcc"), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def builds_cuda(folder: Path) -> bool:
    """Whether a configured folder has rules for the device code."""
    return "lsc_cuda.dir" in (folder / "build.ninja").read_text()


@pytest.fixture(scope="module")
def build() -> Path:
    assert BUILD is not None
    return Path(BUILD)


@pytest.fixture(scope="module")
def module(build: Path) -> Path:
    (path,) = build.glob("_C.*.so")
    return path


REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 52 registers, used 1 barriers, 4096 bytes smem
ptxas info    : Compile time = 223.376 ms
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for second
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 24 bytes cumulative stack size
"""


def test_a_report_is_read() -> None:
    assert ptxas_report.parse(REPORT) == [
        ptxas_report.Function("first", "sm_80", 0, 0, 0, 52),
        ptxas_report.Function("helper", "sm_90", 16, 0, 0, 0),
        ptxas_report.Function("second", "sm_90", 8, 12, 4, 255),
    ]
    assert len(leaky(ptxas_report.parse(REPORT))) == 2


@pytest.mark.parametrize("line", [2, 3, 4, 8, 10, 11])
def test_a_report_with_a_line_missing_is_refused(line: int) -> None:
    lines = REPORT.splitlines()
    with pytest.raises(ValueError, match="report: expected the"):
        ptxas_report.parse("\n".join(lines[:line] + lines[line + 1 :]))


@pytest.mark.parametrize("what", ["stack", "spill_stores", "spill_loads"])
def test_a_planted_spill_is_found(what: str) -> None:
    lean = ptxas_report.parse(REPORT)[0]
    assert leaky([lean]) == []
    assert len(leaky([lean, replace(lean, **{what: 4})])) == 1


@pytest.mark.parametrize("library", ["libcuda.so.1", "libcudart.so.13", "libtorch.so", "libc10.so", "libnvrtc.so.13"])
def test_a_planted_library_is_found(library: str) -> None:
    assert forbidden(["libc.so.6", "libstdc++.so.6", library, "libgomp.so.1"]) == [library]


def test_asking_for_cuda_without_a_compiler_names_the_remedy(tmp_path: Path) -> None:
    run = configure(tmp_path, "LSC_CUDA=ON")
    assert run.returncode != 0, "LSC_CUDA=ON without nvcc: expected an error, got a build"
    said = " ".join(run.stderr.split())
    for part in ("there is no nvcc", "install the CUDA toolkit", "nvidia-cuda-nvcc", "CUDACXX", "LSC_CUDA=OFF"):
        assert part in said


def test_without_a_compiler_the_build_is_for_the_cpu_and_says_so(tmp_path: Path) -> None:
    run = configure(tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(re.findall("lsc_ext: .*CPU alone", run.stdout)) == 1
    assert not builds_cuda(tmp_path)


def test_off_looks_for_no_compiler(tmp_path: Path) -> None:
    run = configure(tmp_path, "LSC_CUDA=OFF")
    assert run.returncode == 0, run.stderr
    assert "CUDA" not in run.stdout
    assert not builds_cuda(tmp_path)


def test_another_value_is_an_error(tmp_path: Path) -> None:
    run = configure(tmp_path, "LSC_CUDA=maybe")
    assert run.returncode != 0
    assert "LSC_CUDA: expected AUTO, ON or OFF, got 'maybe'" in " ".join(run.stderr.split())


@compiled
def test_no_kernel_uses_local_memory(build: Path) -> None:
    reports = ptxas_report.read(build)
    compiled_files = sorted(path.name for path in build.rglob("*.cu.o"))
    assert compiled_files, f"{build}: expected compiled device code, got none"
    assert sorted(reports) == [f"{name}.report" for name in compiled_files]
    functions = [function for each in reports.values() for function in each]
    assert leaky(functions) == []
    unused = [part for part in MAY_USE_LOCAL_MEMORY if all(f.lean for f in functions if part in f.name)]
    assert unused == [], "they need no exception"


@compiled
def test_every_kernel_is_compiled_for_every_architecture(build: Path, module: Path) -> None:
    wanted = cached(build, "LSC_CUDA_ARCHITECTURES").split(";")
    names = {f"sm_{re.match('[0-9]+[af]?', each)[0]}" for each in wanted}  # type: ignore[index]
    for name, functions in ptxas_report.read(build).items():
        kernels: dict[str, set[str]] = {}
        for function in functions:
            if function.registers:
                kernels.setdefault(function.name, set()).add(function.architecture)
        assert all(found == names for found in kernels.values()), name


@compiled
def test_the_module_is_small_and_asks_for_no_cuda_library(module: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "-o", str(stripped), str(module)], check=True)
    assert stripped.stat().st_size < MOST_BYTES
    libraries = needed(module)
    assert "libc.so.6" in libraries
    assert forbidden(libraries) == []


_ASK = """
import json, lsc_ext, torch
from lsc_ext import _C
error = ""
try:
    _C.cuda.device_info(_C.cuda.device_count())
except (RuntimeError, ValueError) as raised:
    error = str(raised)
print(json.dumps({
    "file": lsc_ext.__file__, "info": lsc_ext.build_info(), "count": _C.cuda.device_count(),
    "why": _C.cuda.why_no_device(), "architectures": _C.cuda.architectures(), "error": error,
    "initialized": torch.cuda.is_initialized(),
}))
"""


@compiled
def test_the_module_imports_and_answers_without_a_driver(build: Path, module: Path, tmp_path: Path) -> None:
    package = tmp_path / "lsc_ext"
    package.mkdir()
    for path in (*(ROOT / "python" / "lsc_ext").iterdir(), module):
        if path == module or path.suffix != ".so":
            (package / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", _ASK.replace("import json, lsc_ext", _METADATA + "import json, lsc_ext")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert Path(told["file"]).parent == package
    info = told["info"]
    assert info["backends"] == ["cpu", "cuda"]
    assert info["cuda_architectures"] == told["architectures"]
    assert re.fullmatch(r"\d+\.\d+", info["cuda_runtime"])
    assert re.fullmatch(r"nvcc \d+\.\d+\.\d+", info["cuda_compiler"])
    expected = []
    for wanted in cached(build, "LSC_CUDA_ARCHITECTURES").split(";"):
        number, _, kind = wanted.partition("-")
        expected += [] if kind == "virtual" else [f"sm_{number}"]
        expected += [] if kind == "real" else [f"compute_{number}"]
    assert info["cuda_architectures"] == expected
    assert told["count"] == 0
    assert re.search("no NVIDIA driver was found: install one|check nvidia-smi and CUDA_VISIBLE_DEVICES", told["why"])
    assert told["why"] in told["error"]
    assert not told["initialized"]


# The version of a package that is only lying there.
_METADATA = "import importlib.metadata; importlib.metadata.version = lambda name: '0'\n"


@compiled
@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("", "80-real"), ("native", "80-real"), ("75-virtual;90", "75-virtual;90")],
)
def test_architectures_are_those_of_the_visible_gpus_or_named(
    build: Path, tmp_path: Path, wanted: str, chosen: str
) -> None:
    run = _configure_beside_gpus(build, tmp_path, f"LSC_CUDA_ARCHITECTURES={wanted}", capabilities=("8.0", "8.0"))
    assert run.returncode == 0, run.stderr
    names = ";".join(
        f"{kind}_{each.partition('-')[0]}"
        for each in chosen.split(";")
        for kind, other in (("sm", "virtual"), ("compute", "real"))
        if not each.endswith(other)
    )
    assert f"for {names}\n" in run.stdout


@compiled
def test_without_a_gpu_the_release_is_built(build: Path, tmp_path: Path) -> None:
    run = _configure_beside_gpus(build, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "for sm_75;sm_80;sm_86;sm_89;sm_90;compute_90;sm_100;sm_120;compute_120\n" in run.stdout


@compiled
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("native", "nvidia-smi shows no GPU; name its architecture"),
        ("ninety", "expected native, release or a list such as 80-real;90, got ninety"),
        ("80-real;999", "does not know the architectures 999; use a newer CUDA toolkit"),
    ],
)
def test_architectures_that_cannot_be_built_are_an_error(
    build: Path, tmp_path: Path, wanted: str, message: str
) -> None:
    run = _configure_beside_gpus(build, tmp_path, f"LSC_CUDA_ARCHITECTURES={wanted}")
    assert run.returncode != 0
    assert message in " ".join(run.stderr.split())


def _configure_beside_gpus(
    build: Path, folder: Path, *options: str, capabilities: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """With the compiler of ``build``, on a machine whose nvidia-smi shows GPUs of these compute capabilities."""
    tools = folder / "tools"
    tools.mkdir()
    lines = "".join(f"echo {capability}\n" for capability in capabilities)
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}exit {0 if capabilities else 9}\n")
    (tools / "nvidia-smi").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    return configure(folder / "build", *options, PATH=path, CUDACXX=cached(build, "CMAKE_CUDA_COMPILER"))
