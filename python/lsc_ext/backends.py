"""Which compiled code runs the operations of a tensor, and what each of its calls takes beside the data.

A CPU call ends with a number of threads. A CUDA call ends with an ``Execution``: device, stream, precision of products
and a workspace; without a workspace it does nothing and tells how many bytes it needs.
"""

from __future__ import annotations

import contextlib
import contextvars
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

    def call(self, function: Callable[..., Any], *arguments: Any, precision: str | None = None) -> None:
        """Runs a function of :attr:`functions`, or a method of what one returned; blocks until it is done."""
        function(*arguments, torch.get_num_threads())


class CudaBackend:
    """The compiled code of one CUDA device, on torch's current stream.

    Args:
        functions: the module that holds the compiled functions.
        device: of the tensors.
    """

    name = "cuda"

    def __init__(self, functions: Any, device: torch.device) -> None:
        self.functions, self.device = functions, device

    def call(self, function: Callable[..., Any], *arguments: Any, precision: str | None = None) -> None:
        """Queues a function of :attr:`functions`, or a method of what one returned.

        Args:
            function: what to call.
            *arguments: what it takes, but for the execution.
            precision: of float32 products, "fp32", "tf32", "fp16" or "bf16"; None for torch's own setting.
        """
        precision = _PRECISIONS[torch.get_float32_matmul_precision()] if precision is None else precision
        needed = function(*arguments, self._execution(precision, None))
        workspace = torch.empty(max(1, needed), dtype=torch.uint8, device=self.device)
        function(*arguments, self._execution(precision, (workspace.data_ptr(), workspace.numel())))

    def _execution(self, precision: str, workspace: tuple[int, int] | None) -> Any:
        index, stream = 0, 0
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device).cuda_stream
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
        return self.functions.Execution(index, stream, precision, workspace)


_EMULATED: contextvars.ContextVar[Any] = contextvars.ContextVar("emulated", default=None)


@contextlib.contextmanager
def emulated(functions: Any) -> Iterator[None]:
    """Inside, CPU tensors stand for CUDA tensors and ``functions`` for the compiled functions of the device."""
    token = _EMULATED.set(functions)
    try:
        yield
    finally:
        _EMULATED.reset(token)


def emulating() -> bool:
    """Whether CPU tensors stand for CUDA tensors (:func:`emulated`)."""
    return _EMULATED.get() is not None


def backend_of(tensor: Tensor) -> CpuBackend | CudaBackend:
    """What runs the operations of a tensor.

    Raises:
        RuntimeError: this build has no backend for the tensor's device.
    """
    if tensor.device.type == "cpu":
        functions = _EMULATED.get()
        return _CPU if functions is None else CudaBackend(functions, tensor.device)
    if tensor.device.type == "cuda" and hasattr(_C, "cuda"):
        return CudaBackend(_C.cuda, tensor.device)
    known = "cpu or cuda tensors" if hasattr(_C, "cuda") else "cpu tensors (this build has no other backend)"
    raise RuntimeError(f"device: expected {known}, got {tensor.device}")


_CPU = CpuBackend()
