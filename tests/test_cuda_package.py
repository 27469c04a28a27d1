"""Public functions on models and data of a CUDA device: right, on that device, from the seeds of the CPU.

The device is a fake one whose compiled operators are the device code on the host; the witness is the same call on the
CPU.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fake_cuda import FakeCuda, FakeCudaTensor, fake_cuda
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.nn.architectures import ARCHITECTURES, build
from lsc_ext.testing import PARITY, assert_close

INPUTS, HIDDEN, STEPS, BATCH = 3, 5, 4, 2
PARTS = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")


class Step(nn.Module):
    """A cell of a user's own."""

    def __init__(self, fed: int = INPUTS) -> None:
        super().__init__()
        self.linear = nn.Linear(fed + HIDDEN, HIDDEN)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.linear(torch.cat((x, state), dim=1)).tanh()


def _sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())


def _mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.GRU(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN))


def _steps() -> nn.Module:
    return lsc.StepModel([lsc.StepModel(Step(), HIDDEN), lsc.StepModel(Step(HIDDEN), HIDDEN)], input_size=INPUTS)


def _submodule() -> nn.Module:
    whole = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Flatten(0, 0), lsc.nn.LSTM(HIDDEN, HIDDEN, 2))
    return lsc.Submodule(whole, lsc.nn.LSTM)


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: build(name, INPUTS, HIDDEN, 2) for name in ARCHITECTURES},
    **{f"torch.nn.{c.__name__}": lambda c=c: c(INPUTS, HIDDEN, 2) for c in (nn.RNN, nn.GRU, nn.LSTM)},
    "torch.nn.GRU, bidirectional": lambda: nn.GRU(INPUTS, HIDDEN, 2, bidirectional=True),
    "LSTM with projections": lambda: lsc.nn.LSTM(INPUTS, HIDDEN, 2, proj_size=3),
    "nn.Sequential": _sequential,
    "nn.Sequential with a GRU": _mixed,
    "StepModel": _steps,
}
SAMPLES = {name for name in MODELS if name.startswith("feed_forward")} | {"nn.Sequential"}


@pytest.fixture
def device() -> Iterator[FakeCuda]:
    with fake_cuda() as fake:
        yield fake


def _inputs(name: str) -> Tensor:
    return torch.randn(*(() if name in SAMPLES else (STEPS,)), BATCH, INPUTS)


def _pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A model on the CPU and its copy on the device."""
    model = MODELS[name]().eval()
    twin = copy.deepcopy(model)
    return model, twin.to("cuda")


def _output(model: nn.Module, x: Tensor) -> Tensor:
    result = model(x)
    return result[0] if isinstance(result, tuple) else result


def _assert_gradients(model: nn.Module, twin: nn.Module, tolerance: float = 1e-4) -> None:
    for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            assert isinstance(other.grad, FakeCudaTensor), f"{name}: its gradient is on the CPU"
            torch.testing.assert_close(other.grad.cpu(), own.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "nn.Sequential with a GRU"])
def test_a_model_runs_forward_and_backward_and_waits_for_nothing(name: str, device: FakeCuda) -> None:
    model, twin = _pair(name)
    x = _inputs(name)
    y = x.cuda()
    device.clear()
    output = _output(twin, y)
    output.square().sum().backward()
    assert device.reads + device.uploads + device.draws == [], "a forward or backward pass is not capturable in a graph"
    expected = _output(model, x)
    expected.square().sum().backward()
    assert_close("output", output.detach().cpu(), expected.detach(), PARITY["fp32"])
    _assert_gradients(model, twin)


def _radii(model: Any, x: Tensor, **options: Any) -> lsc.RadiusReport:
    return lsc.radii(model, x, generator=torch.Generator().manual_seed(7), **options)


def _directions(name: str) -> tuple[str, ...]:
    return ("depth",) if name in SAMPLES else ("time", "depth")


def _assert_report(found: lsc.RadiusReport, expected: lsc.RadiusReport, tolerance: float = 1e-3) -> None:
    assert list(found) == list(expected)
    for direction, estimate in found.items():
        for part in PARTS:
            assert getattr(estimate, part).device.type == "cuda", f"{direction}.{part}"
        other = expected[direction]
        torch.testing.assert_close(estimate.radius.detach().cpu(), other.radius.detach(), rtol=tolerance, atol=1e-5)
        assert estimate.certified_fraction == other.certified_fraction
        if other.index is not None:
            assert torch.equal(estimate.index.cpu(), other.index), "a seed means other points on the device"
        for ours, theirs in ((estimate.mean(), other.mean()), (estimate.stderr(), other.stderr())):
            torch.testing.assert_close(ours.detach().cpu(), theirs.detach(), rtol=tolerance, atol=1e-5, equal_nan=True)
    assert [row["layer"] for row in found.rows()] == [row["layer"] for row in expected.rows()]
    assert str(found).splitlines()[0] == str(expected).splitlines()[0]


@pytest.mark.parametrize("name", MODELS)
def test_radii_and_their_gradients_are_those_of_the_cpu(name: str, device: FakeCuda) -> None:
    model, twin = _pair(name)
    x = _inputs(name)
    options: dict[str, Any] = {"directions": _directions(name)}
    found, expected = _radii(twin, x.cuda(), **options), _radii(model, x, **options)
    _assert_report(found, expected)
    for report in (found, expected):
        sum(report[d].mean() for d in report).backward()
    _assert_gradients(model, twin, 1e-3)
    assert device.draws == [], "random numbers are to be drawn on the CPU"


@pytest.mark.parametrize("method", ["auto", "krylov", "power", "dense"])
@pytest.mark.parametrize("through_states", [False, True])
def test_every_method_of_radii_on_sampled_points(method: str, through_states: bool, device: FakeCuda) -> None:
    model, twin = _pair("gru")
    x = _inputs("gru")
    options = {"method": method, "through_states": through_states, "max_points": 3, "directions": ("time", "diagonal")}
    found, expected = _radii(twin, x.cuda(), **options), _radii(model, x, **options)
    _assert_report(found, expected)
    for report in (found, expected):
        sum(report[d].mean() for d in report).backward()
    _assert_gradients(model, twin, 1e-3)


@pytest.mark.parametrize("square", ["frobenius", "subsample"])
@pytest.mark.parametrize("name", ["gru", "lru", "StepModel", "torch.nn.GRU, bidirectional"])
def test_rectangular_directions(name: str, square: str, device: FakeCuda) -> None:
    model, twin = _pair(name)
    x = _inputs(name)
    width = _output(model, x).shape[-1]
    readout = nn.Linear(width, 3)
    options: dict[str, Any] = {"directions": ("input", "output"), "square": square}
    found = _radii(twin, x.cuda(), readout=copy.deepcopy(readout).cuda(), **options)
    _assert_report(found, _radii(model, x, readout=readout, **options))
    sum(found[d].mean() for d in found).backward()


def test_a_submodule_of_a_model_on_the_device(device: FakeCuda) -> None:
    whole = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.GRU(HIDDEN, HIDDEN, 2))
    twin = copy.deepcopy(whole).cuda()
    x = _inputs("gru")
    found, expected = (_radii(lsc.Submodule(m, nn.GRU), z) for m, z in ((twin, x.cuda()), (whole, x)))
    _assert_report(found, expected)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [(name, False) for name in ("gru", "torch.nn.LSTM", "lru", "nn.Sequential", "StepModel", "alif")]
    + [(name, True) for name in ("gru", "torch.nn.LSTM", "lru", "StepModel", "alif")],
)
def test_pretraining_takes_the_steps_of_the_cpu(name: str, drawn: bool, device: FakeCuda) -> None:
    model, twin = _pair(name)
    options: dict[str, Any] = {"steps": 2, "batch_size": 3, "max_points": 4, "time_steps": STEPS, "progress": False}
    data = None if drawn else torch.randn(*(() if name in SAMPLES else (STEPS,)), 6, INPUTS)
    found, expected = (lsc.pretrain(m, data, **options) for m in (twin, model))
    assert all(isinstance(p, FakeCudaTensor) for p in twin.parameters()), "a weight left the device"
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert isinstance(ours.loss, float)
        for direction, means in theirs.means.items():
            assert ours.means[direction] == pytest.approx(means, rel=2e-3)
    assert found.to_dict()["targets"] == expected.to_dict()["targets"]
    assert device.draws == [], "random numbers are to be drawn on the CPU"


@pytest.mark.parametrize("method", ["auto", "krylov", "power", "dense"])
@pytest.mark.parametrize("n", [1, 7, 35])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radii_of_matrices(method: str, n: int, dtype: torch.dtype, device: FakeCuda) -> None:
    matrices = torch.randn(2, 3, n, n, dtype=dtype) / n**0.5
    own = matrices.cuda().requires_grad_()
    found = lsc.spectral_radius(own, method=method, generator=torch.Generator().manual_seed(1))
    for part in PARTS:
        assert getattr(found, part).device.type == "cuda", part
    assert found.radius.shape == (2, 3)
    truth = torch.linalg.eigvals(matrices.double()).abs().amax(-1)
    tolerance = 0.2 if method == "power" else 1e-3
    torch.testing.assert_close(found.radius.detach().cpu().double(), truth, rtol=tolerance, atol=1e-6)
    found.radius.sum().backward()
    assert isinstance(own.grad, FakeCudaTensor)
    assert bool(own.grad.isfinite().all())


def test_an_operator_of_a_users_function(device: FakeCuda) -> None:
    point, weight = torch.randn(4, 6), torch.randn(6, 6)
    results = []
    for place in ("cpu", "cuda"):
        own = weight.detach().to(place).requires_grad_()
        operator = lsc.JacobianOperator(lambda s, own=own: (s @ own).tanh(), point.to(place), [own])
        v = torch.ones(4, 6, device=place)
        estimate = lsc.spectral_radius(operator, method="krylov", generator=torch.Generator().manual_seed(0))
        estimate.radius.sum().backward()
        results.append([z.detach().cpu() for z in (operator.matvec(v), operator.rmatvec(v), estimate.radius, own.grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["gru", "lstm", "alif", "feed_forward_tanh"])
def test_half_layers_run_and_are_measured_in_float32(name: str, dtype: torch.dtype, device: FakeCuda) -> None:
    model, x = MODELS[name](), _inputs(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    twin, x = copy.deepcopy(model).to(dtype).cuda(), x.to(dtype)
    output = _output(twin, x.cuda())
    assert output.dtype == dtype
    rounding = 4 * PARITY["fp16" if dtype == torch.float16 else "bf16"]
    if name != "alif":  # a spike may come a step later
        assert_close("output", output.detach().cpu(), _output(model, x.float()).detach(), rounding)
    found, truth = (_radii(m, z, directions=_directions(name)) for m, z in ((twin, x.cuda()), (model, x.float())))
    # The decays that ALIF reads are rounded, and not only the time constants that they are made of.
    _assert_report(found, truth, rounding if name == "alif" else 1e-3)
    for report in (found, truth):
        sum(report[d].mean() for d in report).backward()
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        if theirs.grad is not None:
            assert ours.grad is not None
            assert ours.grad.dtype == dtype
            torch.testing.assert_close(ours.grad.float().cpu(), theirs.grad, rtol=2e-2, atol=1e-3)


def test_half_layers_are_built_and_converted_on_the_device_and_refused_on_the_cpu(device: FakeCuda) -> None:
    own = lsc.nn.GRU(INPUTS, HIDDEN, dtype=torch.half, device="cuda")
    theirs = own.to_torch()
    assert theirs.weight_hh_l0.dtype == torch.half
    assert lsc.nn.GRU.from_torch(theirs).weight_hh_l0.device == torch.device("cuda:0")
    with pytest.raises(TypeError, match=r"dtype: expected torch.float32 or torch.float64, got torch.float16"):
        lsc.nn.GRU(INPUTS, HIDDEN, dtype=torch.half)
    with pytest.raises(TypeError, match=r"dtype: expected torch.float32 or torch.float64, got torch.float16"):
        own.cpu()(torch.zeros(STEPS, BATCH, INPUTS, dtype=torch.half))


@pytest.mark.parametrize("name", ["rnn_tanh", "gru", "lstm"])
def test_autocast_rounds_as_it_does_on_the_cpu(name: str, device: FakeCuda) -> None:
    model, twin = _pair(name)
    x = _inputs(name)
    with torch.autocast("cuda", dtype=torch.float16):
        found = _output(twin, x.cuda())
        assert _output(model, x).dtype == torch.float32, "autocast of the device reached the CPU"
    with torch.autocast("cpu", dtype=torch.float16):
        expected = _output(model, x)
    assert found.dtype == expected.dtype
    assert_close("output", found.detach().float().cpu(), expected.detach().float(), PARITY["fp16"])
    exact = _output(twin, x.cuda()).detach().cpu()
    assert not torch.equal(found.detach().float().cpu(), exact), "nothing was rounded"


def test_packed_sequences(device: FakeCuda) -> None:
    model = lsc.nn.GRU(INPUTS, HIDDEN, 2, bidirectional=True)
    twin = copy.deepcopy(model).cuda()
    x, lengths = torch.randn(STEPS, 3, INPUTS), torch.tensor([2, 4, 1])
    outputs = []
    for m, z in ((twin, x.cuda()), (model, x)):
        packed = nn.utils.rnn.pack_padded_sequence(z, lengths, enforce_sorted=False)
        output, last = m(packed)
        outputs.append((nn.utils.rnn.pad_packed_sequence(output)[0].detach().cpu(), last.detach().cpu()))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["ind_rnn", "lif", "alif_bipolar", "gru", "lru"])
def test_a_seed_initializes_the_same_weights_on_every_device(name: str, device: FakeCuda) -> None:
    model, twin = _pair(name)
    for scheme in ("paper", "orthogonal") if name != "lru" else ():
        for m in (model, twin):
            lsc.nn.initialize(m, scheme, generator=torch.Generator().manual_seed(3))
        for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours.detach().cpu(), theirs.detach())
    assert device.draws == []


def test_conversion_keeps_the_device_and_the_values(device: FakeCuda) -> None:
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.LSTM(HIDDEN, HIDDEN)).cuda()
    weights = [p.detach().cpu() for p in model.parameters()]
    converted = lsc.nn.convert(model)
    assert isinstance(converted[1], lsc.nn.LSTM)
    back = lsc.nn.convert(converted, reverse=True)
    assert all(isinstance(p, FakeCudaTensor) for p in back.parameters())
    for kept, parameter in zip(weights, back.parameters(), strict=True):
        assert torch.equal(parameter.detach().cpu(), kept)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: model(x),
        lambda model, x: lsc.radii(model, x),
        lambda model, x: model(x.cuda(), torch.zeros(2, BATCH, HIDDEN)),
    ],
    ids=["forward", "radii", "state"],
)
def test_tensors_of_two_devices_are_refused_by_name(call: Callable[[Any, Tensor], object], device: FakeCuda) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"(input|hx).*expected.*cuda:0.*got.*cpu"):
        call(lsc.nn.GRU(INPUTS, HIDDEN, 2).cuda(), _inputs("gru"))
