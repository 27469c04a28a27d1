"""What goes along a sequence on a device: exponents, products of steps, and states with their sensitivities."""

import pytest
import torch
from emulated import on_processor
from networks import normal
from torch import nn

import lsc_ext as lsc
from lsc_ext.memory import SensitivityScan
from lsc_ext.testing import TOLERANCES, assert_close


@pytest.mark.parametrize("what", ["exponents", "gain", "radius"])
def test_products_of_steps_are_those_of_the_processor(cuda_device, what):
    x = normal(9, 2, 4)
    layer = nn.GRU(4, 35).double()

    def measure(model, inputs):
        seed = torch.Generator().manual_seed(0)
        if what == "exponents":
            return lsc.lyapunov(model, inputs, num_exponents=2, generator=seed).exponents
        return getattr(lsc.products(model, inputs, steps=4, tol=1e-9, generator=seed), what).radius

    moved = cuda_device.tensor(x)
    found = measure(layer.to(moved.device), moved)
    with on_processor():
        expected = measure(layer.cpu(), x)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_states_and_sensitivities_are_those_of_the_processor(cuda_device, dtype):
    a = torch.polar(torch.linspace(0.1, 0.9, 33), torch.linspace(0, 3, 33)).to(torch.complex128)
    a = a.to(dtype) if dtype.is_complex else a.real.to(dtype)
    x = torch.randn(1100, 2, 33, dtype=dtype)
    found = SensitivityScan(cuda_device.tensor(a), 2).feed(cuda_device.tensor(x))
    with on_processor():
        expected = SensitivityScan(a, 2).feed(x)
    for part in ("state_second_moment", "sensitivity_second_moment"):
        wanted = getattr(expected, part)()
        assert_close(part, getattr(found, part)().cpu(), wanted, TOLERANCES[a.real.dtype].forward)
