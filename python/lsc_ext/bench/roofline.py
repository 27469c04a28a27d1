"""The machine's limits, measured in the same run as everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lsc_ext import _C

COPY_BYTES = 1 << 28  # far beyond any cache


def measure_roofline(quick: bool) -> dict[str, Any]:
    """Peak multiply-adds [flops/s] by dtype and copy rate [bytes/s, read and written], by number of threads."""
    seconds, copied = (0.02, COPY_BYTES >> 5) if quick else (0.3, COPY_BYTES)
    counts = sorted({1, torch.get_num_threads()})
    return {
        "fma": {d: {str(n): _C.fma_rate(d, n, seconds) for n in counts} for d in ("float32", "float64")},
        "copy": {str(n): _C.copy_rate(n, copied, seconds) for n in counts},
        "copy_bytes": copied,
    }


def fma_peak(roofline: Mapping[str, Any], dtype: str, threads: int) -> float:
    """Floating-point operations per second."""
    return float(roofline["fma"][dtype][str(threads)])


def copy_peak(roofline: Mapping[str, Any], threads: int) -> float:
    """Bytes per second."""
    return float(roofline["copy"][str(threads)])


def fractions(row: Mapping[str, Any], roofline: Mapping[str, Any], threads: int) -> dict[str, float]:
    """How much of the machine's limits the rates of a row are."""
    found = {}
    if "flops_per_second" in row:
        peak = fma_peak(roofline, row["sizes"].get("dtype", "float32"), threads)
        found["fraction_of_fma_peak"] = row["flops_per_second"] / peak
    if "bytes_per_second" in row:
        found["fraction_of_copy_rate"] = row["bytes_per_second"] / copy_peak(roofline, threads)
    return found


def higher(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The higher of two measurements of each limit: what disturbs a measurement only takes away."""
    return {
        "fma": {d: {n: max(r, other["fma"][d][n]) for n, r in rates.items()} for d, rates in one["fma"].items()},
        "copy": {n: max(r, other["copy"][n]) for n, r in one["copy"].items()},
        "copy_bytes": one["copy_bytes"],
    }
