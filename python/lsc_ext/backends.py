"""Which compiled code runs the operations of a tensor, and what each of its calls takes beside the data.

A CPU call ends with a number of threads. A CUDA call ends with an ``Execution``: device, stream, precision of products,
a workspace and the state of grid barriers; without a workspace it does nothing and tells how many bytes it needs. What
is wrong with a device is said before anything is launched on it. docs/howto/cuda.md
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C

#: How float32 products round their operands, by ``torch.get_float32_matmul_precision``.
_PRECISIONS = {"highest": "fp32", "high": "tf32", "medium": "bf16"}


class CpuBackend:
    """The compiled code of the processor."""

    name = "cpu"
    #: The module that holds the compiled functions.
    functions: Any = _C

    def call(self, function: Callable[..., Any], *arguments: Any, precision: str | None = None, **options: Any) -> None:
        """Runs a function of :attr:`functions`, or a method of what one returned; blocks until it is done."""
        function(*arguments, torch.get_num_threads(), **options)


class CudaBackend:
    """The compiled code of one CUDA device, on torch's current stream.

    Args:
        functions: the module that holds the compiled functions.
        device: of the tensors.
    """

    name = "cuda"

    def __init__(self, functions: Any, device: torch.device) -> None:
        self.functions, self.device = functions, device

    def call(self, function: Callable[..., Any], *arguments: Any, precision: str | None = None, **options: Any) -> None:
        """Queues a function of :attr:`functions`, or a method of what one returned; waits for nothing.

        Args:
            function: what to call.
            *arguments: what it takes, but for the execution.
            precision: of float32 products, "fp32", "tf32", "fp16" or "bf16"; None for torch's own setting.
            **options: what it takes by name.

        Raises:
            torch.OutOfMemoryError: the device has no room for the function's workspace.
        """
        needed = function(*arguments, self.execution(precision), **options)
        # Freed when this returns, before it is used: torch gives memory away again in the order of the stream.
        workspace = self._workspace(function, max(1, needed))
        function(*arguments, self.execution(precision, (workspace.data_ptr(), workspace.numel())), **options)

    def _workspace(self, function: Callable[..., Any], needed: int) -> Tensor:
        try:
            return torch.empty(needed, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError as error:
            name = getattr(function, "__name__", str(function))
            raise torch.OutOfMemoryError(
                f"workspace: expected {needed} bytes of free memory on {self.device} for {name}, got too little; take "
                "fewer points or sequences at once"
            ) from error

    def stream(self) -> int:
        """Torch's current stream of the device, as CUDA has it."""
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def execution(self, precision: str | None = None, workspace: tuple[int, int] | None = None) -> Any:
        """What a function of :attr:`functions` ends in: ``workspace`` is address and size in bytes, None to count."""
        barrier = None if _APART.get() else self._barrier().data_ptr()
        precision = _PRECISIONS[torch.get_float32_matmul_precision()] if precision is None else precision
        index = 0
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
        return self.functions.Execution(index, self.stream(), precision, workspace, barrier)

    def _barrier(self) -> Tensor:
        place = self.device, self.stream()
        if place not in _BARRIERS:
            _BARRIERS[place] = torch.zeros(2, dtype=torch.int32, device=self.device)
        return _BARRIERS[place]


#: Of every device and stream, the state of its grid barrier, which a launch leaves as it found it.
_BARRIERS: dict[tuple[torch.device, int], Tensor] = {}
_APART: contextvars.ContextVar[bool] = contextvars.ContextVar("apart", default=False)


@contextlib.contextmanager
def launches_apart() -> Iterator[None]:
    """Inside, no CUDA launch does the work of several: each step of a layer has launches of its own.

    For comparisons; the numbers are the same.
    """
    token = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(token)


_EMULATED: contextvars.ContextVar[tuple[Any, str] | None] = contextvars.ContextVar("emulated", default=None)


@contextlib.contextmanager
def emulated(functions: Any, device_type: str = "cpu") -> Iterator[None]:
    """Inside, ``functions`` are the compiled functions of CUDA devices, and tensors of ``device_type`` are on one."""
    token = _EMULATED.set((functions, device_type))
    try:
        yield
    finally:
        _EMULATED.reset(token)


def emulating() -> bool:
    """Whether CPU tensors stand for CUDA tensors (:func:`emulated`)."""
    emulated = _EMULATED.get()
    return emulated is not None and emulated[1] == "cpu"


def backend_of(tensor: Tensor, *others: Tensor) -> CpuBackend | CudaBackend:
    """What runs the operations of a tensor.

    Args:
        tensor: one of the operands.
        *others: those that must be on the same device.

    Raises:
        RuntimeError: this build has no backend for the tensor's device, or none for its architecture; the driver is too
            old or there is none; or tensors of several devices.
    """
    device = tensor.device
    for other in others:
        if other.device != device:
            raise RuntimeError(f"device: expected tensors of one device, got {device} and {other.device}")
    functions, on_cuda = getattr(_C, "cuda", None), device.type == "cuda"
    emulated = _EMULATED.get()
    if emulated is not None:
        functions, on_cuda = emulated[0], device.type == emulated[1]
    if on_cuda and functions is not None:
        _check_device(functions, device.index or 0)
        return CudaBackend(functions, device)
    if device.type == "cpu":
        return _CPU
    if device.type == "cuda":
        raise RuntimeError(
            f"device: expected cpu tensors, got {device}; this build has no CUDA backend: install with nvcc at hand, "
            "see docs/howto/cuda.md"
        )
    known = "cpu tensors" if functions is None else "cpu or cuda tensors"
    raise RuntimeError(f"device: expected {known}, got {device}")


@functools.cache
def _check_device(functions: Any, index: int) -> None:
    """Refuses a device that the compiled functions have no code for; what passes is not asked again."""
    compiled = list(functions.architectures())
    if not compiled:  # the device code on the host
        return
    major, minor = functions.device_info(index)["capability"]
    if not any(_runs(architecture, (major, minor)) for architecture in compiled):
        raise RuntimeError(
            f"device: expected one of [{', '.join(compiled)}], which this build has, got cuda:{index}, which is "
            f"sm_{major}{minor}; build it again with LSC_CUDA=ON LSC_CUDA_ARCHITECTURES={major}{minor}, "
            "see docs/howto/cuda.md"
        )


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether a device can run what was compiled for ``sm_XY`` (its generation, no older) or ``compute_XY`` (newer)."""
    kind, _, number = architecture.partition("_")
    exact = number.endswith(("a", "f"))
    number = number.rstrip("af")
    compiled = int(number[:-1]), int(number[-1])
    if exact:
        return capability == compiled
    return capability >= compiled and (kind == "compute" or capability[0] == compiled[0])


_CPU = CpuBackend()
