"""How time and memory of radii grow with H, L, T and N, each size in a process of its own."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

from lsc_ext.bench.case import Case, Findings, Study

BASE = {"H": 64, "L": 2, "T": 64, "B": 8, "N": None}
FULL = {"H": (32, 64, 128, 256, 512), "L": (1, 2, 4, 8), "T": (16, 64, 256, 1024), "N": (64, 256, 1024, 4096)}
QUICK = {"H": (8, 16), "L": (1, 2), "T": (4, 8), "N": (4, 8)}
QUICK_BASE = {"H": 8, "L": 1, "T": 4, "B": 2, "N": None}


def cases(quick: bool) -> list[Case]:
    """The group "growth": one curve per letter, the others as in ``BASE``."""
    return [_curve(letter, values, quick) for letter, values in (QUICK if quick else FULL).items()]


def _curve(letter: str, values: Sequence[int], quick: bool) -> Case:
    base: dict[str, Any] = dict(QUICK_BASE if quick else BASE)
    if letter == "N":
        base |= {"L": 1} if quick else {"L": 1, "B": 64}

    def run() -> Findings:
        found = [_probe(json.dumps(base | {letter: value, "threads": torch.get_num_threads()})) for value in values]
        seconds, peaks = [f["seconds"] for f in found], [f["peak_bytes"] for f in found]
        numbers = {
            "letter": letter,
            "values": list(values),
            "seconds": seconds,
            "peak_bytes": peaks,
            "trajectory_bytes": [f["trajectory_bytes"] for f in found],
            "time_exponent": exponent(values, seconds),
            "memory_exponent": exponent(values, peaks),
        }
        errors = {
            "relative error": max(f["error"] for f in found),
            "not certified": 1 - min(f["certified"] for f in found),
        }
        return Findings(numbers, errors, errors["relative error"] < 1e-2 and errors["not certified"] < 0.1)

    shown = {name: value for name, value in base.items() if value is not None and name != letter}
    return Case("growth", f"radii against {letter}", {"cell": "GRU", **shown}, lambda: Study(run), "call")


@functools.cache
def _probe(sizes: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "lsc_ext.bench.probe", sizes]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"probe: expected numbers for {sizes}, got\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def exponent(sizes: Sequence[float], costs: Sequence[float | None]) -> float | None:
    """The p of cost = c * size^p, by least squares on logarithms of what is positive; None for fewer than two of it."""
    points = [(math.log(s), math.log(c)) for s, c in zip(sizes, costs, strict=True) if c is not None and c > 0]
    if len(points) < 2:
        return None
    center = [sum(values) / len(points) for values in zip(*points, strict=True)]
    spread = sum((a - center[0]) ** 2 for a, _ in points)
    return float(sum((a - center[0]) * (b - center[1]) for a, b in points) / spread)
