"""What the device compiler says of each function: registers, stack frame, spills. ``python ptxas_report.py FOLDER``"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_FUNCTION = re.compile(r"Function properties for (\w+)")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class Function:
    """A kernel, or a function that a kernel calls; sizes in bytes, ``registers`` 0 for what is no kernel."""

    name: str
    architecture: str
    stack: int
    spill_stores: int
    spill_loads: int
    registers: int

    @property
    def lean(self) -> bool:
        """Nothing of it lives in local memory."""
        return self.stack == self.spill_stores == self.spill_loads == 0


def parse(report: str) -> list[Function]:
    """The functions of what ``ptxas -v`` printed.

    Raises:
        ValueError: a function without its frame, or a kernel without its registers.
    """
    found: list[Function] = []
    entry = architecture = name = ""
    frames: dict[str, tuple[int, int, int]] = {}
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            _require_complete(entry, name)
            entry, architecture = match.groups()
        elif match := _FUNCTION.search(line):
            _require_complete("", name)
            name = match[1]
        elif match := _FRAME.search(line):
            frames[name] = (int(match[1]), int(match[2]), int(match[3]))
            name = ""
        elif match := _USED.search(line):
            for function, frame in frames.items():
                found.append(Function(function, architecture, *frame, int(match[1]) if function == entry else 0))
            if entry not in frames:
                raise ValueError(f"report: expected the stack frame of {entry}, got none")
            entry, frames = "", {}
    _require_complete(entry, name)
    return found


def _require_complete(entry: str, name: str) -> None:
    if entry:
        raise ValueError(f"report: expected the registers of {entry}, got none")
    if name:
        raise ValueError(f"report: expected the stack frame of {name}, got none")


def read(folder: Path) -> dict[str, list[Function]]:
    """The functions of every compiled file, from what a build with LSC_CUDA_REPORT=ON left in its folder."""
    return {path.name: parse(path.read_text()) for path in sorted(folder.rglob("*.cu.o.report"))}


if __name__ == "__main__":
    for file, functions in read(Path(sys.argv[1])).items():
        for f in functions:
            print(f"{f.architecture:8} {f.registers:4} registers {f.stack:6} bytes of stack  {file}  {f.name}")
