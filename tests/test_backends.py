"""What is wrong with a device is said before anything is launched on it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import fake_cuda
from torch import Tensor

from lsc_ext import backends


class Functions:
    """A module of compiled functions for devices that are described rather than there."""

    def __init__(self, capability: tuple[int, int] = (9, 0), architectures: tuple[str, ...] = ("sm_90",)) -> None:
        self._capability, self._architectures = capability, architectures
        self.asked: list[int] = []
        self.calls: list[Any] = []

    def device_info(self, index: int) -> dict[str, Any]:
        self.asked.append(index)
        return {"name": "described", "capability": self._capability}

    def architectures(self) -> list[str]:
        return list(self._architectures)

    def Execution(  # noqa: N802
        self, device: int, stream: int, precision: str, workspace: Any, barrier: int | None
    ) -> Any:
        return SimpleNamespace(device=device, stream=stream, precision=precision, workspace=workspace, barrier=barrier)

    def product(self, x: Any, execution: Any) -> int:
        self.calls.append(execution)
        return 1000


@pytest.fixture
def tensor() -> Any:
    with fake_cuda() as device:
        yield torch.zeros(3, device="cuda")
        assert device.reads == []


def _backend(functions: Functions, *tensors: Tensor) -> Any:
    with backends.emulated(functions, "cuda"):
        return backends.backend_of(*tensors)


def test_a_build_without_cuda_says_how_to_get_one(tensor: Tensor) -> None:
    with (
        backends.emulated(None, "cuda"),
        pytest.raises(RuntimeError, match=r"expected cpu tensors, got cuda:0; this build has no CUDA .*nvcc at hand"),
    ):
        backends.backend_of(tensor)


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ("sm_90",), True),
        ((8, 6), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((9, 0), ("sm_80", "compute_80"), True),
        ((10, 0), ("sm_90a",), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 1), ("sm_90", "compute_120"), True),
        ((12, 0), ("sm_120",), True),
        ((7, 0), ("sm_75", "sm_80", "compute_90"), False),
    ],
)
def test_an_architecture_that_the_build_lacks_is_refused(
    tensor: Tensor, capability: tuple[int, int], architectures: tuple[str, ...], runs: bool
) -> None:
    functions = Functions(capability, architectures)
    if runs:
        assert _backend(functions, tensor).name == "cuda"
        return
    with pytest.raises(RuntimeError) as raised:
        _backend(functions, tensor)
    message = str(raised.value)
    assert f"sm_{capability[0]}{capability[1]}" in message
    assert ", ".join(architectures) in message
    assert "LSC_CUDA_ARCHITECTURES" in message
    assert functions.calls == []


def test_a_device_is_asked_once(tensor: Tensor) -> None:
    functions = Functions()
    for _ in range(3):
        _backend(functions, tensor)
        _backend(functions, torch.zeros(1, device="cuda:1"))
    assert sorted(functions.asked) == [0, 1]


def test_what_the_driver_says_comes_before_anything_is_launched(tensor: Tensor) -> None:
    class Old(Functions):
        def device_info(self, index: int) -> dict[str, Any]:
            raise RuntimeError("device: CUDA driver version is insufficient for CUDA runtime version (CUDA error 35)")

    functions = Old()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="CUDA error 35"):
            _backend(functions, tensor)
    assert functions.calls == []


def test_the_device_code_on_the_host_has_no_architecture(tensor: Tensor) -> None:
    functions = Functions(architectures=())
    assert _backend(functions, tensor).name == "cuda"
    assert functions.asked == []


def test_tensors_of_two_devices_are_refused(tensor: Tensor) -> None:
    functions = Functions()
    for other in (torch.zeros(3), torch.zeros(3, device="cuda:1")):
        with pytest.raises(
            RuntimeError, match=f"device: expected tensors of one device, got cuda:0 and {other.device}"
        ):
            _backend(functions, tensor, other)


def test_too_little_memory_says_how_much_was_asked_for_by_what(tensor: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = Functions()
    backend = _backend(functions, tensor)
    reason = torch.OutOfMemoryError("CUDA out of memory.")

    def full(*_: Any, **__: Any) -> Tensor:
        raise reason

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"1000 bytes of free memory on cuda:0 for product") as raised:
        backend.call(functions.product, 1)
    assert raised.value.__cause__ is reason
    assert [call.workspace for call in functions.calls] == [None], "something ran without its workspace"


def test_a_call_has_the_device_its_stream_and_the_workspace_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda() as device:
        functions = Functions()
        streams = {torch.device("cuda:0"): 10, torch.device("cuda:1"): 11}
        monkeypatch.setattr(torch.cuda, "current_stream", lambda of: SimpleNamespace(cuda_stream=streams[of]))
        for index in range(2):
            _backend(functions, torch.zeros(3, device=f"cuda:{index}")).call(functions.product, 1)
            counted, ran = functions.calls[-2:]
            assert counted.workspace is None
            assert ran.workspace[1] == 1000
            assert (ran.device, ran.stream) == (index, 10 + index)
            assert ran.barrier == counted.barrier
        first, second = functions.calls[1].barrier, functions.calls[3].barrier
        assert None not in (first, second)
        assert first != second, "launches of two streams would wait for each other"
        with backends.launches_apart():
            _backend(functions, torch.zeros(3, device="cuda:0")).call(functions.product, 1)
        assert functions.calls[-1].barrier is None
        _backend(functions, torch.zeros(3, device="cuda:0")).call(functions.product, 1)
        assert functions.calls[-1].barrier == first
        assert device.reads + device.uploads == [], "a call must be capturable in a CUDA graph"


@pytest.mark.parametrize(("setting", "precision"), [("highest", "fp32"), ("high", "tf32"), ("medium", "bf16")])
def test_torch_decides_the_precision_of_products(
    tensor: Tensor, setting: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: setting)
    functions = Functions()
    _backend(functions, tensor).call(functions.product, 1)
    assert [call.precision for call in functions.calls] == [precision, precision]
    _backend(functions, tensor).call(functions.product, 1, precision="fp16")
    assert functions.calls[-1].precision == "fp16"


def test_another_kind_of_device_is_refused() -> None:
    with pytest.raises(RuntimeError, match="got meta"):
        backends.backend_of(torch.zeros(1, device="meta"))
