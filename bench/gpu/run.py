"""Everything that needs a GPU, in stages that each take at most eight minutes and can be run alone.

python bench/gpu/run.py [stage ...] --folder build/gpu
python bench/gpu/run.py --keep build/gpu      puts what was measured there into bench/results, to be committed

The interpreter that runs this must have torch, numpy, pytest, scikit-build-core, pybind11, cmake and ninja; nvcc must
be on the PATH or named by CUDACXX. Nothing is fetched. The folder gets a log, and of each stage a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 480
#: The exit code that says that there is no device.
NO_DEVICE = 3
PROBE = "import torch; print('%d%d' % torch.cuda.get_device_capability()) if torch.cuda.is_available() else None"
#: Each operation once at small sizes, for tools that slow a kernel down a hundredfold.
SHORT_TESTS = ("tests/test_cuda_short.py",)


class StageError(Exception):
    """A stage went wrong; the text says how."""


class NoDeviceError(StageError):
    """There is no CUDA device."""


@dataclass(frozen=True)
class Stage:
    """A part of the work.

    Attributes:
        about: one line.
        prepare: what needs no device.
        measure: what does; returns what is kept.
    """

    about: str
    prepare: Callable[[Workplace], None]
    measure: Callable[[Workplace], dict[str, Any]]


class Workplace:
    """A folder with its log, and commands that end in time.

    Args:
        folder: where everything goes; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"
        self._end = time.monotonic() + SECONDS
        self._capability: str | None = None

    def begin_stage(self) -> None:
        """Starts the clock of a stage."""
        self._end = time.monotonic() + SECONDS

    def say(self, text: str) -> None:
        """Prints a line and writes it to the log."""
        print(text, flush=True)
        with self.log.open("a") as file:
            file.write(text + "\n")

    def run(self, command: Sequence[str], **environment: str) -> str:
        """Runs a command for what is left of the stage's time, its output going to the log too.

        Returns:
            Standard output.

        Raises:
            NoDeviceError: the command says that there is no device.
            StageError: it failed, or its time was up; it and what it started are gone then.
        """
        self.say(f"$ {' '.join(command)}")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                out = process.communicate(timeout=max(1.0, self._end - time.monotonic()))[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out = process.communicate()[0]
                log.write(out)
                raise StageError(f"{command[0]}: not done after the stage's {SECONDS} s") from None
            log.write(out)
        if process.returncode == NO_DEVICE:
            raise NoDeviceError("no CUDA device")
        if process.returncode != 0:
            raise StageError(f"{command[0]}: exit code {process.returncode}; {self.log} has its output")
        return out.decode()

    def capability(self) -> str:
        """The device's architecture as nvcc numbers it, such as "90"."""
        if self._capability is None:
            self._capability = self.run([sys.executable, "-c", PROBE]).strip().replace("None", "")
        if not self._capability:
            raise NoDeviceError("no CUDA device")
        return self._capability

    def architecture(self) -> str:
        """As :meth:`capability`; where there is no device, what one most likely has."""
        try:
            return self.capability()
        except NoDeviceError:
            return "90"

    def site(self) -> dict[str, str]:
        """The environment in which the package that was built here is imported, and its device code is asked for."""
        return {"PYTHONPATH": str(self.folder / "site"), "LSC_FAIL_WITHOUT_CUDA": "1"}

    def keep(self, stage: str, found: Mapping[str, Any]) -> None:
        """Writes a stage's JSON."""
        (self.folder / f"{stage}.json").write_text(json.dumps(found, indent=1) + "\n")


def _compile_constants(place: Workplace) -> None:
    arch = place.architecture()
    place.run(
        [
            _nvcc(),
            "-std=c++17",
            "-O3",
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "-Xptxas=-v",
            "-o",
            str(place.folder / "constants"),
            str(ROOT / "bench" / "gpu" / "constants.cu"),
        ]
    )


def _measure_constants(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.run([str(place.folder / "constants")]))
    for name, value in found["figures"].items():
        place.say(f"  {name:<40}{value:>12.4g}")
    return found


def _build(place: Workplace) -> None:
    nvcc, site = _nvcc(), place.folder / "site"
    options = {"LSC_CUDA": "ON", "CMAKE_CUDA_ARCHITECTURES": f"{place.architecture()}-real"}
    place.run(
        [
            *(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "--upgrade"),
            *("--target", str(site), "--config-settings", f"build-dir={place.folder / 'build'}"),
            *(x for key, value in options.items() for x in ("--config-settings", f"cmake.define.{key}={value}")),
            str(ROOT),
        ],
        CUDACXX=nvcc,
    )
    place.run([sys.executable, "-c", "import lsc_ext; print(lsc_ext.build_info())"], **place.site())


def _see_device(place: Workplace) -> dict[str, Any]:
    place.capability()
    code = "import json, lsc_ext; print(json.dumps(lsc_ext.build_info()))"
    return {"build": json.loads(place.run([sys.executable, "-c", code], **place.site()))}


def _nothing(place: Workplace) -> None:
    """Needs no preparation."""


def _pytest(place: Workplace, stage: str, tests: Sequence[str], *front: str, **environment: str) -> dict[str, Any]:
    place.capability()
    report = place.folder / f"{stage}.xml"
    command = [*front, sys.executable, "-m", "pytest", "-q", "-k", "not emulated", f"--junitxml={report}", *tests]
    place.run(command, **place.site(), **environment)
    return {"junit": report.name}


def _test(place: Workplace) -> dict[str, Any]:
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_cuda_*.py"))
    # How it is compiled, and the package on a fake device, are for machines without a GPU.
    return _pytest(place, "test", [t for t in tests if not t.endswith(("_build.py", "_package.py"))])


def _sanitizer(place: Workplace) -> dict[str, Any]:
    place.capability()
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"missing": "compute-sanitizer is not on the PATH"}
    found: dict[str, Any] = {}
    # Without torch's cache every tensor has bounds of its own.
    plain = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for check in ("memcheck", "racecheck", "synccheck"):
        options = ("--tool", check, "--error-exitcode", "1", "--target-processes", "all")
        found[check] = _pytest(place, check, SHORT_TESTS, tool, *options, **plain)
    return found


def _bench(group: str) -> Callable[[Workplace], dict[str, Any]]:
    def run(place: Workplace) -> dict[str, Any]:
        place.capability()
        path = place.folder / f"{group}-rows.json"  # written case by case: what is there stays when time is up
        code = "import sys; from lsc_ext.bench.cuda import main; sys.exit(main(*sys.argv[1:]))"
        constants = place.folder / "constants.json"
        place.run([sys.executable, "-c", code, group, str(path), str(constants)], **place.site())
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    return run


STAGES: Mapping[str, Stage] = {
    "constants": Stage("what kernel design rests on", _compile_constants, _measure_constants),
    "build": Stage("the package for this device, into the folder", _build, _see_device),
    "test": Stage("the parity suite on the device", _nothing, _test),
    "sanitizer": Stage("compute-sanitizer over a short suite", _nothing, _sanitizer),
    "layers": Stage("layers against cuDNN", _nothing, _bench("layers")),
    "radii": Stage("radii against a closed-form torch loop", _nothing, _bench("radii")),
}


def _nvcc() -> str:
    found = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if found is None:
        raise StageError("nvcc: expected it on the PATH or named by CUDACXX, got neither")
    return found


def run(stages: Sequence[str], folder: Path) -> int:
    """Runs stages in their order; returns 0, 1 where one failed, ``NO_DEVICE`` where only a device was missing."""
    place = Workplace(folder)
    code = 0
    for name in stages:
        stage = STAGES[name]
        place.begin_stage()
        place.say(f"== {name}: {stage.about}")
        start = time.monotonic()
        found: dict[str, Any] = {"stage": name}
        try:
            stage.prepare(place)
            found |= stage.measure(place)
            verdict = "done"
        except NoDeviceError:
            verdict, code = "prepared; not run: no CUDA device", code or NO_DEVICE
        except StageError as error:
            verdict, code = f"FAILED: {error}", 1
        found |= {"verdict": verdict, "seconds": round(time.monotonic() - start, 1)}
        place.keep(name, found)
        place.say(f"== {name}: {verdict}, {found['seconds']} s")
        if code == 1 and name == "build":
            break  # what follows would test another build
    return code


def keep(folder: Path) -> Path:
    """Puts the stages' findings into bench/results, in one file of the device's name.

    Raises:
        StageError: the device was not measured.
    """
    found = {name: json.loads(path.read_text()) for name in STAGES if (path := folder / f"{name}.json").exists()}
    device = found.get("constants", {}).get("device")
    if device is None:
        raise StageError(f"{folder}: expected the findings of a device, got none")
    path = ROOT / "bench" / "results" / f"{device.lower().replace(' ', '-')}.json"
    path.write_text(json.dumps({"device": device, "stages": found}, indent=1) + "\n")
    return path


def main(arguments: Sequence[str]) -> int:
    """The command line; returns an exit code."""
    parser = argparse.ArgumentParser(description="Everything that needs a GPU.")
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}; none: all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "gpu", help="where everything goes")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put what was measured there into bench/results")
    given = parser.parse_args(arguments)
    if given.keep is not None:
        try:
            print(keep(given.keep))
        except StageError as error:
            parser.error(str(error))
        return 0
    for name in given.stages:
        if name not in STAGES:
            parser.error(f"stage: expected one of {', '.join(STAGES)}, got {name!r}")
    return run(given.stages or list(STAGES), given.folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
