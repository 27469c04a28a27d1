"""Layers made of linear recurrences: on the device what they are on the processor."""

import copy
import functools

import pytest
import torch
from emulated import cuda_devices, on_device

import lsc_ext as lsc
from lsc_ext import backends
from lsc_ext.testing import TOLERANCES, assert_close, relative_error

# The recurrence that the layer must run, and how the layer is made.
LAYERS = {
    "LRU": ("scan", functools.partial(lsc.nn.LRU, 3, 5, 2, state_size=7)),
    "ComplexDiagonalRNN": ("scan", functools.partial(lsc.nn.ComplexDiagonalRNN, 3, 5, 2, max_modulus=0.9)),
    "normalized": ("scan", functools.partial(lsc.nn.ComplexDiagonalRNN, 3, 5, 2, normalization="learned")),
    "BlockDiagonalRNN": ("block_scan", functools.partial(lsc.nn.BlockDiagonalRNN, 3, 5, 2, heads=3, state_size=9)),
    "one large block": ("block_scan", functools.partial(lsc.nn.BlockDiagonalRNN, 3, 5, 2, state_size=33)),
    "ResLRU": ("scan", functools.partial(lsc.nn.ResLRU, 3, 4, 2, dropout=0)),
}

every_layer = pytest.mark.parametrize("name", LAYERS)
every_device = pytest.mark.parametrize("device", cuda_devices())


@pytest.fixture
def ran(monkeypatch):
    """Names of the recurrences that the device ran."""
    names = set()
    original = backends.CudaBackend.call

    def noted(self, function, *arguments, **options):
        names.add(function.__name__)
        return original(self, function, *arguments, **options)

    monkeypatch.setattr(backends.CudaBackend, "call", noted)
    return names


def moved(module, device):
    module = copy.deepcopy(module)
    return module.to("cuda:0") if device.name == "cuda" else module


def outputs_and_gradients(module, x):
    """The output, the last states, and the gradients of x and of every parameter."""
    output, last = module(x)
    loss = output.square().sum() + last.abs().square().sum()
    names = ("output", "last states", "gradient of x", *(f"gradient of {n}" for n, _ in module.named_parameters()))
    values = (output, last, *torch.autograd.grad(loss, (x, *module.parameters())))
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 7, 130])
@every_layer
@every_device
def test_outputs_and_gradients_are_those_of_the_processor(device, ran, name, steps, dtype):
    recurrence, make = LAYERS[name]
    module = make(dtype=dtype)
    x = torch.randn(steps, 2, 3, dtype=dtype, requires_grad=True)
    expected = outputs_and_gradients(copy.deepcopy(module).double(), x.detach().double().requires_grad_())
    with on_device(device) as place:
        found = outputs_and_gradients(moved(module, place), place.tensor(x))
    assert recurrence in ran
    # Where a gradient is a small difference of large terms, the processor's own rounding exceeds the table too.
    processor = outputs_and_gradients(module, x)
    for what, value in found.items():
        own = relative_error(processor[what], expected[what])
        assert_close(what, value, expected[what], max(TOLERANCES[dtype].gradient, 1.5 * own))


@every_layer
@every_device
def test_radii_are_those_of_the_processor(device, ran, name):
    recurrence, make = LAYERS[name]
    module = make(dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    directions = ("time", "depth", "diagonal")
    reports = [lsc.radii(module, x, directions=directions, generator=torch.Generator().manual_seed(1))]
    with on_device(device) as place:
        generator = torch.Generator().manual_seed(1)
        module = moved(module, place)
        reports.append(lsc.radii(module, place.tensor(x), directions=directions, generator=generator))
        reports[1]["time"].radius.sum().backward()
    assert recurrence in ran
    for direction in directions:
        processor, found = (report[direction] for report in reports)
        assert torch.equal(found.status.cpu(), processor.status)
        assert_close(direction, found.radius, processor.radius, 1e-10)
