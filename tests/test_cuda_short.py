"""Each operation of the device once, at small odd sizes: for tools that slow kernels down a hundredfold."""

import copy

import pytest
import torch
from emulated import CudaDevice
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext import backends
from lsc_ext.nn.architectures import build
from lsc_ext.testing import TOLERANCES, assert_close

STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 3, 2, 3, 5, 2


def outcome(model: nn.Module, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Output and gradients of x and of the parameters."""
    output = model(x)
    output = output[0] if isinstance(output, tuple) else output
    return [output, *torch.autograd.grad(output.square().sum(), [x, *parameters])]


@pytest.mark.parametrize(
    "name", ["rnn_tanh", "gru", "lstm", "min_gru", "ind_rnn", "alif", "complex_diagonal", "block_diagonal"]
)
def test_forward_and_backward(cuda_device: CudaDevice, name: str) -> None:
    model = build(name, INPUTS, HIDDEN, LAYERS).eval()
    x = torch.randn(STEPS, BATCH, INPUTS, requires_grad=True)
    with backends.emulated(None):
        expected = outcome(model, x, list(model.parameters()))
    twin = copy.deepcopy(model)
    twin = twin if cuda_device.name == "emulated" else twin.cuda()
    found = outcome(twin, cuda_device.tensor(x), list(twin.parameters()))
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert_close(f"{name}, {i}", ours.cpu(), theirs, TOLERANCES[torch.float32].gradient)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_radii_and_their_gradients(cuda_device: CudaDevice, precision: str) -> None:
    model = lsc.nn.GRU(INPUTS, 33, LAYERS)
    lsc.nn.initialize(model, "paper", generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(model)
    twin = twin if cuda_device.name == "emulated" else twin.cuda()
    x = torch.randn(STEPS, BATCH, INPUTS)
    options = {"directions": ("time", "depth", "diagonal"), "max_points": 2, "method": "krylov"}
    with backends.emulated(None):
        expected = lsc.radii(model, x, generator=torch.Generator().manual_seed(0), **options)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = lsc.radii(twin, cuda_device.tensor(x), generator=torch.Generator().manual_seed(0), **options)
        sum(found[direction].mean() for direction in found).backward()
    finally:
        torch.set_float32_matmul_precision(before)
    for direction, estimate in expected.items():
        tolerance = {"highest": 2e-3, "high": 1e-2, "medium": 5e-2}[precision]
        assert_close(direction, found[direction].radius.detach().cpu(), estimate.radius.detach(), tolerance)
    assert all(p.grad.isfinite().all() for p in twin.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radii_of_matrices(cuda_device: CudaDevice, dtype: torch.dtype) -> None:
    matrices = torch.randn(3, 35, 35, dtype=dtype) / 6
    found = lsc.spectral_radius(cuda_device.tensor(matrices), method="krylov")
    truth = torch.linalg.eigvals(matrices.double()).abs().amax(-1)
    assert_close("radius", found.radius.cpu(), truth.to(dtype), 2e-3)
