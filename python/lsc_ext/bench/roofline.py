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
