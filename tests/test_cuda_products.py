"""Dense products of the device code against numpy's in float64."""

import numpy as np
import pytest
import torch
from emulated import CudaDevice, emulated_cuda, module
from torch import Tensor

from lsc_ext import backends
from lsc_ext.testing import relative_error

PARITY = {"fp32": 1e-5, "tf32": 1e-3, "fp16": 1e-3, "bf16": 1e-2}
SIZES = [(1, 33, 31), (3, 65, 33), (31, 1, 65), (33, 31, 7), (65, 65, 133)]


def _multiply(a: Tensor, b: Tensor, precision: str | None = None) -> Tensor:
    """a [m, k] b [k, n] by the compiled code, of views with any strides."""
    (m, k), n = a.shape, b.shape[1]
    c = torch.full((m, n), torch.nan, dtype=a.dtype, device=a.device)

    def reach(x: Tensor) -> tuple[int, int]:
        elements = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        return x.data_ptr(), 0 if x.numel() == 0 else elements

    backend = backends.backend_of(a)
    backend.call(
        backend.functions.multiply,
        *(str(a.dtype).removeprefix("torch."), m, n, k),
        *(reach(a), *a.stride(), reach(b), *b.stride(), (c.data_ptr(), c.numel())),
        precision=precision,
    )
    return c


def _operands(device: CudaDevice, m: int, n: int, k: int, dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor]:
    """a [m, k] and b [k, n] of random numbers: as they are, transposed, or with gaps and from an odd element on."""
    if layout == "transposed":
        a, b = device.tensor(torch.randn(k, m, dtype=dtype)), device.tensor(torch.randn(n, k, dtype=dtype))
        return a.T, b.T
    gap = 3 if layout == "gaps" else 0
    a, b = torch.randn(m, k + gap, dtype=dtype), torch.randn(k, n + gap, dtype=dtype)
    return device.tensor(a)[:, gap:], device.tensor(b)[:, gap:]


def _expected(a: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(a.cpu().double().numpy() @ b.cpu().double().numpy())


@pytest.mark.parametrize("layout", ["plain", "transposed", "gaps"])
@pytest.mark.parametrize("precision", PARITY)
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_float32_products_are_those_of_numpy(cuda_device, m, n, k, precision, layout):
    a, b = _operands(cuda_device, m, n, k, torch.float32, layout)
    assert relative_error(_multiply(a, b, precision), _expected(a, b)) <= PARITY[precision]


@pytest.mark.parametrize("layout", ["plain", "transposed", "gaps"])
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_float64_products_are_those_of_numpy(cuda_device, m, n, k, layout):
    a, b = _operands(cuda_device, m, n, k, torch.float64, layout)
    assert relative_error(_multiply(a, b), _expected(a, b)) <= 1e-12


def test_full_precision_is_float32s(cuda_device):
    a, b = _operands(cuda_device, 9, 17, 1025, torch.float32, "plain")
    a *= torch.tensor([1e-30, 1, 1e30], device=a.device).repeat(3)[:, None]
    error = (_multiply(a, b, "fp32").cpu() - _expected(a, b)).norm(dim=1) / _expected(a, b).norm(dim=1)
    assert float(error.max()) <= 1e-6


def test_what_is_not_finite_stays_in_its_row(cuda_device):
    a, b = _operands(cuda_device, 33, 9, 65, torch.float32, "plain")
    a[3, 40], a[17, 1] = torch.inf, torch.nan
    with np.errstate(invalid="ignore"):
        expected = _expected(a, b)
    result = _multiply(a, b, "fp32").cpu()
    finite = [i for i in range(33) if i not in (3, 17)]
    assert torch.equal(result[3].double(), expected[3])
    assert result[17].isnan().all()
    assert relative_error(result[finite], expected[finite]) <= PARITY["fp32"]


@pytest.mark.parametrize("precision", PARITY)
def test_a_row_depends_on_itself_alone(cuda_device, precision):
    a, b = _operands(cuda_device, 70, 31, 133, torch.float32, "plain")
    alone = _multiply(a[5:6], b, precision)
    for m in (8, 33, 70):
        assert torch.equal(_multiply(a[:m], b, precision)[5:6], alone)


@pytest.mark.parametrize(("m", "n", "k"), [(0, 3, 5), (3, 0, 5), (3, 5, 0)])
def test_empty_products(cuda_device, m, n, k):
    a, b = _operands(cuda_device, m, n, k, torch.float32, "plain")
    assert torch.equal(_multiply(a, b, "fp32").cpu(), torch.zeros(m, n))


def test_a_short_precision_takes_tensor_cores():
    a, b = torch.randn(3, 7), torch.randn(7, 5)
    module().set_tensor_cores(False)
    try:
        with emulated_cuda():
            assert relative_error(_multiply(a, b, "fp32"), _expected(a, b)) <= PARITY["fp32"]
            with pytest.raises(ValueError, match=r"precision: expected fp32, or .* 8\.0 or newer, got tf32 .* 7\.5"):
                _multiply(a, b, "tf32")
    finally:
        module().set_tensor_cores(True)
