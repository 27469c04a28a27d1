"""The device code on the host: ``with emulated_cuda(): ...`` runs what CPU tensors ask for as a GPU would."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C, backends

_BUILDS = ("build/native", "build/dev")


@functools.cache
def module() -> Any:
    """The compiled module ``_emulated``, from LSC_EMULATED_BUILD or a build folder of this checkout."""
    root = Path(__file__).parent.parent
    named = os.environ.get("LSC_EMULATED_BUILD")
    for folder in [Path(named)] if named else [root / build for build in _BUILDS]:
        for path in folder.glob("_emulated.*.so"):
            spec = importlib.util.spec_from_file_location("_emulated", path)
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            return loaded
    raise RuntimeError("the emulated CUDA backend is not built: make emulated")


@contextlib.contextmanager
def emulated_cuda(seed: int = 0) -> Iterator[None]:
    """Inside, CPU tensors are run by the device code, its threads taking turns in an order that ``seed`` decides."""
    module().set_seed(seed)
    with backends.emulated(module()):
        yield


@contextlib.contextmanager
def on_processor() -> Iterator[None]:
    """Inside, CPU tensors are the processor's, also where they stand for a device's outside."""
    with backends.emulated(None, "nowhere"):
        yield


@contextlib.contextmanager
def mishap(stalled: int = -1, lost: int = -1) -> Iterator[None]:
    """Inside, a block hardly gets a turn, or the publication of that number, counted from 0, is not written."""
    module().set_mishaps(stalled, lost)
    try:
        yield
    finally:
        module().set_mishaps(-1, -1)


@dataclass(frozen=True)
class CudaDevice:
    """What runs the device code of a test: "emulated", where CPU tensors stand for the device's, or "cuda"."""

    name: str

    def tensor(self, tensor: Tensor) -> Tensor:
        """A copy of ``tensor`` on the device, a leaf that wants a gradient where ``tensor`` does."""
        moved = tensor.detach().clone() if self.name == "emulated" else tensor.detach().to("cuda:0")
        return moved.requires_grad_(tensor.requires_grad)

    def reseed(self, seed: int) -> None:
        """Has the emulator's threads take turns in the order that ``seed`` decides; a GPU has its own."""
        if self.name == "emulated":
            module().set_seed(seed)


def cuda_devices() -> list[str]:
    """The names of the devices that a test can have: "cuda" where there is one, and where LSC_FAIL_WITHOUT_CUDA=1."""
    here = torch.cuda.is_available() and hasattr(_C, "cuda")
    return ["emulated", *(["cuda"] if here or os.environ.get("LSC_FAIL_WITHOUT_CUDA") == "1" else [])]


@contextlib.contextmanager
def on_device(name: str) -> Iterator[CudaDevice]:
    """The device of that name; inside, the emulation is on if it is the emulated one."""
    if name == "emulated":
        with emulated_cuda():
            yield CudaDevice(name)
        return
    assert hasattr(_C, "cuda"), "LSC_FAIL_WITHOUT_CUDA=1: this build has no CUDA backend"
    assert torch.cuda.is_available(), "LSC_FAIL_WITHOUT_CUDA=1: torch sees no CUDA device"
    yield CudaDevice(name)
