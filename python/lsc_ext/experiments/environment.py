"""What a run was computed on, as its result says it."""

from __future__ import annotations

import platform

import torch

import lsc_ext
from lsc_ext.bench.machine import machine


def environment() -> str:
    """Processor, system, instruction set and versions."""
    found = machine()
    return (
        f"{found['processor']} ({found['system']}), instruction set {lsc_ext.build_info()['instruction_set']}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, lsc_ext {lsc_ext.__version__}"
    )
