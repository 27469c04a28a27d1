"""How states of networks move with their parameters: against differences, Jacobians, closed forms, and remedies."""

import copy
import json
import math
import re

import pytest
import torch
from networks import RECURRENT_CELLS, normal, stack
from step_modules import gru_model, lstm_model
from torch import Tensor, nn
from torch.nn.utils import parametrize

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.cells import CELLS, layer_step
from lsc_ext.cli import main
from lsc_ext.memory.report import HYPERSENSITIVE

F64 = torch.float64
STEPS, COUNT = 6, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(report, layer=0):
    return {row["name"]: row for row in report.rows() if row["layer"] == layer}


def last_state(model: nn.Module, x: Tensor) -> Tensor:
    """The last states of one layer, [B, n] real, as its forward pass hands them over."""
    last = model(x)[1]
    parts = last if isinstance(last, tuple) else (last,)
    flat = torch.cat([part[0] if part.dim() == 3 else part for part in parts], -1)
    return torch.cat((flat.real, flat.imag), -1) if flat.is_complex() else flat


def by_differences(model: nn.Module, x: Tensor, step: float = 1e-5) -> dict[str, Tensor]:
    """E |d h / d theta_j|^2 of every entry of every parameter, each of the parameter's shape."""
    found = {}
    for name, parameter in model.named_parameters():
        each = torch.zeros_like(parameter)
        for j in range(parameter.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[j] += sign * step
                    ends.append(last_state(model, x))
                    parameter.view(-1)[j] -= sign * step
            each.view(-1)[j] = ((ends[0] - ends[1]) / (2 * step)).square().sum(1).mean()
        found[name] = each
    return found


def gate_of(name: str, values: Tensor, cell: str) -> Tensor:
    """The part of a parameter that a group's name means."""
    gate = re.search(r"\[(\w)\]$", name)
    if gate is None:
        return values
    names = CELLS[cell].gates
    return values.chunk(len(names))[names.index(gate[1])]


LAYERS = {
    "torch GRU": lambda: nn.GRU(2, 3, dtype=F64),
    "torch LSTM": lambda: nn.LSTM(2, 3, dtype=F64),
    "torch RNN": lambda: nn.RNN(2, 3, dtype=F64),
    "torch LSTM with a projection": lambda: nn.LSTM(2, 4, proj_size=2, dtype=F64),
    "GRU": lambda: lsc.nn.GRU(2, 3, dtype=F64),
    "LSTM": lambda: lsc.nn.LSTM(2, 3, dtype=F64),
    "IndRNN": lambda: lsc.nn.IndRNN(2, 5, dtype=F64),
    "min_gru": lambda: lsc.nn.Recurrent("min_gru", 2, 5, dtype=F64),
    "LRU": lambda: lsc.nn.LRU(2, 3, state_size=4, dtype=F64),
    "ComplexDiagonalRNN": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, state_size=4, dtype=F64),
    "normalised": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, normalization="learned", dtype=F64),
    "BlockDiagonalRNN": lambda: lsc.nn.BlockDiagonalRNN(2, 3, heads=2, state_size=4, dtype=F64),
    "ResLRU": lambda: lsc.nn.ResLRU(2, 3, state_size=2, dtype=F64),
    "StepModel": lambda: gru_model(2, 3),
    "StepModel of two variables": lambda: lstm_model(2, 3),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_every_group_of_every_layer_is_the_sum_of_squared_differences(name):
    model, x = LAYERS[name](), normal(STEPS, COUNT, 2)
    expected, found = by_differences(model, x), rows_of(memory.measure(model, x))
    assert {re.sub(r"\[\w\]$", "", key) for key in found} == set(expected)
    cell = "lstm" if "LSTM" in name else name.split()[-1].lower()
    for key, row in found.items():
        each = gate_of(key, expected[re.sub(r"\[\w\]$", "", key)], cell)
        assert row["count"] == each.numel()
        if row["sensitivity"] is None:
            assert float(each.abs().max()) == 0
            continue
        assert row["exact"]
        assert row["sensitivity"] == pytest.approx(float(each.sum()), rel=1e-6, abs=1e-12)
        assert row["per_parameter"] == pytest.approx(float(each.mean()), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("cell", RECURRENT_CELLS)
def test_every_cell_has_the_norm_of_its_whole_jacobian(cell):
    """Formed by torch.autograd.functional.jacobian through the plain step; with the surrogate of a spike."""
    model, x = stack(cell, 2, 3, 1, seed=4), 2 * normal(STEPS, COUNT, 2)
    shape = CELLS[cell]
    names = [f"{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if hasattr(model, f"{n}_l0")]
    plain = [n.removesuffix("_l0") for n in names]
    own = [f"{p.name}_l0" for p in shape.unit_parameters]
    given = {n: getattr(model, n).detach() for n in (*names, *own)}

    def state(*values: Tensor) -> Tensor:
        by_name = dict(zip(given, values, strict=True))
        weights = {p: by_name[n] for p, n in zip(plain, names, strict=True)}
        unit = torch.stack([by_name[n] for n in own]) if own else None
        h = x.new_zeros(COUNT, len(shape.states) * 3)
        for step in x:
            h = layer_step(shape, step, h, unit=unit, **weights)
        return h[:, (len(shape.states) - len(shape.free_states)) * 3 :]

    jacobians = torch.autograd.functional.jacobian(state, tuple(given.values()))
    found = rows_of(memory.measure(model, x))
    for key, jacobian in zip(given, jacobians, strict=True):
        squares = jacobian.square().sum((0, 1)) / COUNT
        for name, row in found.items():
            if re.sub(r"\[\w\]$", "", name) == key:
                part = gate_of(name, squares, cell)
                if row["sensitivity"] is None:
                    assert float(part.abs().max()) == 0
                else:
                    assert row["sensitivity"] == pytest.approx(float(part.sum()), rel=1e-9, abs=1e-15)
    assert {re.sub(r"\[\w\]$", "", name) for name in found} == set(given)


def test_layers_are_measured_at_what_they_are_fed():
    model, x = nn.GRU(2, 3, 2, dtype=F64), normal(STEPS, COUNT, 2)
    upper = nn.GRU(3, 3, dtype=F64)
    upper.load_state_dict({n.replace("l1", "l0"): p for n, p in model.state_dict().items() if n.endswith("l1")})
    lower = nn.GRU(2, 3, dtype=F64)
    lower.load_state_dict({n: p for n, p in model.state_dict().items() if n.endswith("l0")})
    whole = memory.measure(model, x)
    with torch.no_grad():
        alone = memory.measure(upper, lower(x)[0])
    for name, row in rows_of(alone).items():
        other = rows_of(whole, 1)[name.replace("l0", "l1")]
        for key in ("sensitivity", "reference", "against_others"):
            assert other[key] == pytest.approx(row[key], rel=1e-9)
    assert whole.layers[1].state == pytest.approx(alone.layers[0].state, rel=1e-9)
    assert whole.layers[1].median == pytest.approx(alone.layers[0].median, rel=1e-9)


def test_the_second_direction_runs_from_the_end():
    model, x = nn.LSTM(2, 3, bidirectional=True, dtype=F64), normal(STEPS, COUNT, 2)
    back = nn.LSTM(2, 3, dtype=F64)
    back.load_state_dict({n.removesuffix("_reverse"): p for n, p in model.state_dict().items() if "reverse" in n})
    found, alone = rows_of(memory.measure(model, x), 1), rows_of(memory.measure(back, x.flip(0)))
    for name, row in alone.items():
        twin = re.sub("_l0", "_l0_reverse", name)
        assert found[twin]["sensitivity"] == pytest.approx(row["sensitivity"], rel=1e-9)


def test_initial_states_count():
    x = normal(STEPS, COUNT, 2)
    for model, start in (
        (lsc.nn.LRU(2, 3, dtype=F64), normal(1, COUNT, 3, seed=8) + 1j * normal(1, COUNT, 3, seed=9)),
        (nn.GRU(2, 3, dtype=F64), normal(1, COUNT, 3, seed=8)),
    ):
        longer = memory.measure(model, x)
        # The last steps alone, from the state that the first ones leave.
        state = model(x[:2])[1].detach()
        rest = memory.measure(model, x[2:], state)
        assert rest.layers[0].state == pytest.approx(longer.layers[0].state, rel=1e-9)
        assert rows_of(rest) != rows_of(memory.measure(model, x[2:]))
        found = rows_of(memory.measure(model, x[2:], start))
        for name, parameter in model.named_parameters():
            if name not in ("nu_log_l0", "bias_ih_l0"):
                continue
            total = 0.0
            for j in range(parameter.numel()):
                ends = []
                for sign in (1, -1):
                    with torch.no_grad():
                        parameter[j] += sign * 1e-5
                        ends.append(model(x[2:], start)[1])
                        parameter[j] -= sign * 1e-5
                total += float(((ends[0] - ends[1]) / 2e-5).abs().square().sum()) / COUNT
            own = [row["sensitivity"] for key, row in found.items() if key.startswith(name)]
            assert sum(own) == pytest.approx(total, rel=1e-6)


def test_late_steps_and_some_of_the_sequences():
    model, x = lsc.nn.LRU(2, 3, dtype=F64), normal(STEPS, COUNT, 2)
    gru = nn.GRU(2, 3, dtype=F64)
    for layer, name in ((model, "nu_log_l0"), (gru, "weight_hh_l0[n]")):
        ends = [rows_of(memory.measure(layer, x[:end]))[name]["sensitivity"] for end in (STEPS - 2, STEPS - 1, STEPS)]
        found = memory.measure(layer, x, num_steps=3)
        assert rows_of(found)[name]["sensitivity"] == pytest.approx(sum(ends) / 3, rel=1e-9)
        assert found.steps == 3
        each = [rows_of(memory.measure(layer, x[:, [b]]))[name]["sensitivity"] for b in range(COUNT)]
        one = memory.measure(layer, x, max_sequences=1)
        assert one.sequences == 1
        assert min(abs(rows_of(one)[name]["sensitivity"] / value - 1) for value in each) < 1e-9
        two = rows_of(memory.measure(layer, x[:, :2]))[name]
        assert two["sensitivity"] == pytest.approx((each[0] + each[1]) / 2, rel=1e-9)
        assert two["stderr"] == pytest.approx(abs(each[0] - each[1]) / 2, rel=1e-9)


def test_pieces_of_a_long_pass_are_the_whole(monkeypatch):
    from lsc_ext.memory import sensitivity

    model, x = lsc.nn.LRU(2, 3, dtype=F64), normal(23, COUNT, 2)
    whole = rows_of(memory.measure(model, x, num_steps=2))
    monkeypatch.setattr(sensitivity, "_CHUNK", 5)
    for name, row in rows_of(memory.measure(model, x, num_steps=2)).items():
        if whole[name]["sensitivity"] is None:
            assert row["sensitivity"] is None
        else:
            assert row["sensitivity"] == pytest.approx(whole[name]["sensitivity"], rel=1e-12)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_probes_find_the_norm_within_their_error(kind):
    torch.manual_seed(1)
    model, x = kind(2, 12, dtype=F64), normal(8, 6, 2)
    exact = rows_of(memory.measure(model, x, num_probes=24))
    probed = rows_of(memory.measure(model, x, num_probes=8, generator=generator(5)))
    for name, row in probed.items():
        assert exact[name]["exact"]
        assert not row["exact"]
        assert row["sensitivity"] == pytest.approx(exact[name]["sensitivity"], abs=4 * row["stderr"])
        assert row["sensitivity"] != exact[name]["sensitivity"]
    alone = rows_of(memory.measure(model, x[:, :1], num_probes=8))
    assert all(row["stderr"] > 0 for row in alone.values())
    assert rows_of(memory.measure(model, x, num_probes=8, generator=generator(5))) == probed
    assert rows_of(memory.measure(model, x, num_probes=8, generator=generator(6))) != probed


def test_a_parametrisation_that_mixes_units_is_left_to_probes():
    class Mixed(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight + 0.1 * weight.mean()

    model, x = lsc.nn.LRU(1, 1, state_size=2, dtype=F64), normal(STEPS, 2, 1)
    assert rows_of(memory.measure(model, x, num_probes=2))["nu_log_l0"]["exact"]
    parametrize.register_parametrization(model, "nu_log_l0", Mixed())
    for seed in range(4):
        found = rows_of(memory.measure(model, x, num_probes=2, generator=generator(seed)))
        assert not found["nu_log_l0.original"]["exact"]
    model, x = lsc.nn.LRU(1, 1, state_size=12, dtype=F64), normal(STEPS, 8, 1)
    parametrize.register_parametrization(model, "nu_log_l0", Mixed())
    found = rows_of(memory.measure(model, x, generator=generator(2)))["nu_log_l0.original"]
    expected = by_differences(model, x)["parametrizations.nu_log_l0.original"]
    assert not found["exact"]
    assert found["sensitivity"] == pytest.approx(float(expected.sum()), abs=4 * found["stderr"])


# Closed forms


def diagonal(moduli, phases, inputs: Tensor | None = None) -> lsc.nn.ComplexDiagonalRNN:
    """Units that each read one input as it is."""
    lam = torch.polar(torch.tensor(moduli, dtype=F64), torch.tensor(phases, dtype=F64))
    model = lsc.nn.ComplexDiagonalRNN(1, 1, state_size=len(lam), dtype=F64)
    with torch.no_grad():
        model.lambda_l0.copy_(torch.stack((lam.real, lam.imag)))
        model.B_l0.copy_(torch.tensor([1.0, 0.0], dtype=F64).view(2, 1, 1).expand_as(model.B_l0))
    return model


def correlated(rho: float, steps: int, count: int, features: int = 1) -> Tensor:
    x = [torch.randn(count, features, dtype=F64)]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(count, features, dtype=F64))
    return torch.stack(x)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_linear_units_have_the_moments_of_the_theory(rho):
    steps, count = 120, 300
    model, x = diagonal([0.9, 0.97, 0.5], [0.3, 0.05, 1.0]), correlated(rho, steps, count)
    lam = model.eigenvalues(0).detach()
    report = memory.measure(model, x, max_sequences=None)
    layer, found = report.layers[0], rows_of(report)
    S = memory.sensitivity_second_moment(lam, rho, horizon=steps)
    f = memory.state_second_moment(lam, rho, horizon=steps)
    row = found["lambda_l0"]
    assert row["sensitivity"] == pytest.approx(2 * float(S.sum()), abs=4 * row["stderr"])
    assert row["stderr"] < 0.1 * row["sensitivity"]
    row = found["B_l0"]
    assert row["sensitivity"] == pytest.approx(2 * float(f.sum()), abs=4 * row["stderr"])
    assert layer.measured == pytest.approx(float(S.mean()), rel=0.25)
    assert layer.closed_form.sensitivity == pytest.approx(float(S.mean()), rel=0.25)
    assert layer.closed_form.state == pytest.approx(float(f.mean()), rel=0.25)
    assert layer.state_ratio == pytest.approx(1, abs=0.2)
    assert layer.sensitivity_ratio == pytest.approx(1, abs=0.25)
    gamma = memory.input_normalization(lam).square()
    for name in ("lambda_l0", "B_l0"):
        assert found[name]["reference"] == pytest.approx(float((gamma * f).mean()), rel=0.2)


def test_an_lru_has_its_groups_by_the_chain_rule():
    steps, count = 200, 300
    model = lsc.nn.LRU(1, 1, state_size=3, min_modulus=0.8, max_modulus=0.95, dtype=F64)
    with torch.no_grad():
        model.B_l0.copy_(torch.tensor([1.0, 0.0], dtype=F64).view(2, 1, 1).expand_as(model.B_l0))
    found = rows_of(memory.measure(model, correlated(0.0, steps, count), max_sequences=None))
    lam, gamma = model.eigenvalues(0).detach(), model.gamma_log_l0.detach().exp()
    S = memory.sensitivity_second_moment(lam, 0.0) * gamma**2
    f = memory.state_second_moment(lam, 0.0) * gamma**2
    nu, theta = lam.abs(), lam.angle()
    expected = {
        "nu_log_l0": ((nu * nu.log()) ** 2 * S).sum(),
        "theta_log_l0": ((nu * theta) ** 2 * S).sum(),
        "gamma_log_l0": f.sum(),
        "B_l0": 2 * f.sum(),
    }
    for name, value in expected.items():
        assert found[name]["sensitivity"] == pytest.approx(float(value), abs=4 * found[name]["stderr"])
    assert len({round(row["sensitivity"] or 0, 6) for row in found.values()}) > len(expected)
    assert all(found[name]["sensitivity"] is None for name in ("C_l0", "D_l0"))


def constant_gates(z: float, scale: float, kind=nn.GRU) -> nn.Module:
    """Update gates that see nothing, candidates that see little of the input, so that tanh is straight."""
    model = kind(1, 4, dtype=F64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.weight_ih_l0[8:] = scale
        model.bias_ih_l0[4:8] = math.log(z / (1 - z))
    return model


@pytest.mark.parametrize(("kind", "rho"), [(nn.GRU, 0.0), (lsc.nn.GRU, 0.9)])
def test_a_gru_of_constant_gates_has_the_moments_of_the_theory(rho, kind):
    z, scale, steps, count = 1 - 1 / 12, 1e-3, 150, 200
    expected = memory.gated_second_moments(z, rho)
    report = memory.measure(constant_gates(z, scale, kind), correlated(rho, steps, count), max_sequences=None)
    layer, row = report.layers[0], rows_of(report)["bias_ih_l0[z]"]
    wanted = 4 * float(expected.sensitivity) * scale**2
    assert row["sensitivity"] == pytest.approx(wanted, abs=4 * row["stderr"])
    assert row["stderr"] < 0.15 * row["sensitivity"]
    assert (layer.source, layer.median, layer.largest) == ("gates", pytest.approx(12), pytest.approx(12))
    assert layer.state_ratio == pytest.approx(1, abs=0.3)
    assert layer.sensitivity_ratio == pytest.approx(1, abs=0.3)
    assert layer.closed_form.state == pytest.approx(float(expected.state) * scale**2, rel=0.2)
    assert layer.closed_form.sensitivity == pytest.approx(float(expected.sensitivity) * scale**2, rel=0.2)


GRU_STATE = torch.tensor([0.02011621, 0.04882922], dtype=F64)
GRU_STATE_SLOPE = torch.tensor([[0.31193203, -0.04514401], [0.0079632, 0.46540471]], dtype=F64)
GRU_GATE_SLOPE = torch.tensor([[0.00216599, 0.00051552], [0.00145151, -0.03418847]], dtype=F64)


@pytest.mark.parametrize("kind", [nn.GRU, lsc.nn.GRU])
def test_a_gru_of_two_units_written_out(kind):
    """A cell with given weights over five given inputs, computed by a second implementation of the equations."""
    model = kind(1, 2, dtype=F64)
    with torch.no_grad():
        by_state = [[0.1, 0.2], [-0.3, 0.4], [0.3, -0.1], [0.2, 0.5], [0.6, -0.2], [0.1, -0.4]]
        model.weight_hh_l0.copy_(torch.tensor(by_state, dtype=F64))
        model.weight_ih_l0.copy_(torch.tensor([[0.5], [-0.3], [0.2], [0.4], [1.0], [-0.7]], dtype=F64))
        model.bias_ih_l0.copy_(torch.tensor([0.05, -0.05, 1.0, 2.0, 0.0, 0.1], dtype=F64))
        model.bias_hh_l0.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, -0.1], dtype=F64))
    x = torch.tensor([1.0, -1.0, 0.5, 0.2, -0.3], dtype=F64).view(5, 1, 1)
    start = torch.zeros(1, 1, 2, dtype=F64, requires_grad=True)
    last = model(x, start)[1].flatten()
    torch.testing.assert_close(last, GRU_STATE, rtol=0, atol=6e-9)
    by_start, by_bias = [], []
    for unit in last:
        a, b = torch.autograd.grad(unit, (start, model.bias_ih_l0), retain_graph=True)
        by_start.append(a.flatten())
        by_bias.append(b[2:4])
    torch.testing.assert_close(torch.stack(by_start), GRU_STATE_SLOPE, rtol=0, atol=6e-9)
    torch.testing.assert_close(torch.stack(by_bias), GRU_GATE_SLOPE, rtol=0, atol=6e-9)
    assert float(torch.linalg.eigvals(torch.stack(by_start)).abs().max()) == pytest.approx(0.4630254449, abs=1e-9)
    assert float(torch.linalg.matrix_norm(torch.stack(by_start), 2)) == pytest.approx(0.4685304948, abs=1e-9)
    report = memory.measure(model, x)
    found = rows_of(report)["bias_ih_l0[z]"]
    assert found["sensitivity"] == pytest.approx(float(GRU_GATE_SLOPE.square().sum()), rel=1e-6)
    assert report.layers[0].state == pytest.approx(float(GRU_STATE.square().mean()), rel=1e-6)


# Memories


def test_memories_in_steps():
    x = torch.rand(20, 2, 4, dtype=F64)
    dense = nn.RNN(4, 4, nonlinearity="relu", bias=False, dtype=F64)
    with torch.no_grad():
        dense.weight_hh_l0.copy_(0.9 * torch.eye(4))
        dense.weight_ih_l0.copy_(torch.eye(4))
    layer = memory.measure(dense, x).layers[0]
    assert (layer.source, layer.median, layer.largest) == ("radii", pytest.approx(10), pytest.approx(10))
    with_one = memory.measure(dense, x, radius_report=lsc.radii(dense, x, directions=("time",))).layers[0]
    assert with_one.median == pytest.approx(10)
    layer = memory.measure(diagonal([0.5, 0.9, 0.98], [0.0, 1.0, -2.0]), x[..., :1]).layers[0]
    assert (layer.source, layer.median, layer.largest) == ("eigenvalues", pytest.approx(10), pytest.approx(50))
    independent = lsc.nn.IndRNN(4, 2, dtype=F64)
    assert memory.measure(independent, x).layers[0].largest == math.inf
    with torch.no_grad():
        independent.recurrent_weight_l0.copy_(torch.tensor([-0.8, 0.5]))
    layer = memory.measure(independent, x).layers[0]
    assert (layer.source, layer.median, layer.largest) == ("eigenvalues", pytest.approx(2), pytest.approx(5))


@pytest.mark.parametrize(("name", "block", "sign"), [("LSTM", 1, 1), ("GRU", 1, 1), ("min_gru", 0, -1)])
def test_memories_of_gates_are_those_of_the_data(name, block, sign):
    model = stack(name.lower(), 2, 3, 1, gain=2.0)
    x, size = normal(9, 4, 2), 3
    rows = slice(block * size, (block + 1) * size)
    outputs = model(x)[0].detach()
    before = torch.cat((torch.zeros(1, 4, size, dtype=F64), outputs[:-1]))
    total = x @ model.weight_ih_l0[rows].T + model.bias_ih_l0[rows]
    if name != "min_gru":
        total = total + before @ model.weight_hh_l0[rows].T + model.bias_hh_l0[rows]
    tau = 1 / (1 - torch.sigmoid(sign * total).mean((0, 1)).detach())
    layer = memory.measure(model, x).layers[0]
    assert layer.source == "gates"
    assert layer.median == pytest.approx(float(tau.median()))
    assert layer.largest == pytest.approx(float(tau.max()))


def test_references_are_those_of_a_normalised_unit_of_the_same_memory():
    z, rho, x = 0.9, 0.8, correlated(0.8, 400, 40)
    measured = [(1.0, rho)]
    f = float(memory.state_second_moment(z, measured))
    gru = memory.measure(constant_gates(z, 1e-3), x)
    by_role = {row["role"]: row["reference"] for row in gru.rows()}
    assert by_role["input"] == pytest.approx((1 - z) ** 2 * f, rel=0.2)
    assert by_role["bias"] == pytest.approx(1, rel=1e-6)
    assert by_role["recurrent"] == pytest.approx(gru.layers[0].state, rel=1e-9)
    dense = nn.RNN(1, 2, bias=True, dtype=F64)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.zero_()
        dense.weight_ih_l0.fill_(1e-3)
        dense.weight_hh_l0.copy_(z * torch.eye(2))
    rnn = memory.measure(dense, x)
    by_role = {row["role"]: row["reference"] for row in rnn.rows()}
    assert by_role["input"] == pytest.approx((1 - z**2) * f, rel=0.2)
    assert by_role["bias"] == pytest.approx((1 + z) / (1 - z), rel=1e-3)
    assert by_role["recurrent"] == pytest.approx(rnn.layers[0].state, rel=1e-9)
    # A residual block's recurrence reads what the norm makes of the stream.
    block = lsc.nn.ResLRU(4, 4, dtype=F64)
    wide = [memory.measure(block, scale * normal(50, 4, 4)).rows()[0]["reference"] for scale in (1.0, 100.0)]
    assert wide[1] == pytest.approx(wide[0], rel=0.1)
    # Nothing is known of a step's parameters: the mildest. As much of memories longer than the data: that of the data.
    step = memory.measure(lsc.StepModel(Leaky(z), 1), x)
    (row,) = step.rows()
    assert row["reference"] == pytest.approx(max((1 + z) / (1 - z), step.layers[0].state), rel=1e-3)
    short = memory.measure(diagonal([0.9999], [0.0]), correlated(0.0, 10, 300), max_sequences=None)
    assert short.rows()[0]["reference"] == pytest.approx(1 - 0.9**20, rel=0.2)


class Leaky(nn.Module):
    def __init__(self, z: float) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(z, dtype=F64))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.decay * h + x


# Verdicts and remedies


def applied(layer: nn.Module, remedy: str) -> nn.Module:
    """The calls that a remedy consists of, on a copy."""
    layer = copy.deepcopy(layer)
    calls = re.sub(r": of white noise.*", "", remedy).split(", then ")
    for call in calls:
        call = call.partition(": ")[2] or call if not call.startswith("lsc.") else call
        eval(call, {"lsc": lsc, "layer": layer})
    return layer


def worst(report) -> float:
    return max(row["excess"] for row in report.rows() if row["excess"] is not None)


def long_lstm() -> nn.LSTM:
    """Forget gates of 400 steps with input gates that are half open."""
    torch.manual_seed(0)
    model = nn.LSTM(2, 8, dtype=F64)
    with torch.no_grad():
        model.bias_ih_l0[8:16] = 6.0
        model.bias_hh_l0[8:16] = 0.0
    return model


def long_independent() -> lsc.nn.IndRNN:
    torch.manual_seed(0)
    model = lsc.nn.IndRNN(2, 8, dtype=F64)
    with torch.no_grad():
        model.recurrent_weight_l0.copy_(torch.linspace(0.95, 0.995, 8))
    return model


HYPER = {
    "exp": (lambda: diagonal([0.99, 0.98, 0.995], [0.01, 0.005, 0.02]), '"exp"'),
    "optimal": (lambda: diagonal([0.99, 0.98, 0.995], [0.001, -0.001, -0.002]), '"optimal"'),
    "real": (long_independent, '"recurrent_weight_l0", "exp")'),
    "gates": (long_lstm, "lsc.memory.chrono_initialize(layer, 300)"),
}


@pytest.mark.parametrize("name", HYPER)
def test_the_remedy_that_is_named_makes_the_finding_go_away(name):
    build, words = HYPER[name]
    model = build()
    x = correlated(0.9, 300, 8, model.input_size)
    before = memory.measure(model, x)
    assert before.findings
    assert before.findings[0].excess > HYPERSENSITIVE
    assert words in before.findings[0].remedy
    after = memory.measure(applied(model, before.findings[0].remedy), x)
    assert after.findings == []
    assert worst(after) < 0.01 * worst(before)
    assert "Nothing stands out" in str(after)
    assert "Nothing stands out" not in str(before)


def test_normalisation_alone_is_named_where_phases_are_large():
    model = diagonal([0.97, 0.97, 0.97], [1.5, -2.0, 2.9])
    x = correlated(0.0, 300, 8)
    before = memory.measure(model, x)
    remedy = before.findings[0].remedy
    assert remedy.startswith("lsc.memory.normalize_input")
    after = memory.measure(applied(model, remedy), x)
    left = float(re.search(r"leaves (\S+) times", remedy)[1])
    assert worst(after) == pytest.approx(left, rel=0.5)
    assert worst(after) < 0.1 * worst(before)
    for name in ("exp", "optimal"):
        other = memory.parametrize_eigenvalues(copy.deepcopy(model), "lambda_l0", name, layout="parts")
        memory.normalize_input(other, "B_l0", lambda m: m.eigenvalues(0), dim=1)
        assert worst(memory.measure(other, x)) > worst(after)


def test_input_weights_that_are_not_normalised_are_named():
    model, x = diagonal([0.998, 0.999], [0.001, 0.001]), correlated(0.0, 1500, 6)
    memory.parametrize_eigenvalues(model, "lambda_l0", "exp", layout="parts")
    before = memory.measure(model, x)
    assert "B_l0" in before.findings[0].groups
    assert all(finding.remedy.startswith("lsc.memory.normalize_input") for finding in before.findings)
    after = memory.measure(applied(model, before.findings[0].remedy), x)
    assert after.findings == []


def test_large_phases_of_long_memories_are_named():
    def build(phase: float) -> lsc.nn.LRU:
        torch.manual_seed(0)
        return lsc.nn.LRU(1, 8, min_modulus=0.99, max_modulus=0.995, max_phase=phase, dtype=F64)

    x = correlated(0.0, 600, 6)
    before = memory.measure(build(1.0), x)
    assert before.findings[0].groups == ["theta_log_l0"]
    limit = float(re.search(r"phases below (\S+):", before.findings[0].remedy)[1])
    assert memory.measure(build(limit), x).findings == []


def test_biases_are_normalised_as_weights_are():
    torch.manual_seed(0)
    model, x = lsc.nn.IndRNN(2, 4, dtype=F64), torch.rand(2000, 2, 2, dtype=F64)
    with torch.no_grad():
        model.weight_ih_l0.abs_()
        model.recurrent_weight_l0.fill_(0.999)
    memory.parametrize_eigenvalues(model, "recurrent_weight_l0", "exp")
    memory.normalize_input(model, "weight_ih_l0", lambda m: m.recurrent_weight_l0)
    before = memory.measure(model, x)
    (finding,) = before.findings
    assert finding.groups == ["bias_ih_l0"]
    after = memory.measure(applied(model, finding.remedy), x)
    assert after.findings == []


def test_a_gru_that_feeds_back_too_much():
    torch.manual_seed(0)
    model, x = nn.GRU(2, 16, dtype=F64), normal(80, 4, 2)
    with torch.no_grad():
        model.weight_hh_l0.mul_(12)
    before = memory.measure(model, x)
    assert any("weight_hh_l0" in name for finding in before.findings for name in finding.groups)
    assert all("lsc.pretrain" in finding.remedy for finding in before.findings)
    lsc.pretrain(model, x, target=0.9, batch_size=2, max_points=16, seed=0)
    assert memory.measure(model, x).findings == []


def test_a_dense_recurrence_is_to_be_replaced_by_a_diagonal_one():
    torch.manual_seed(0)
    x = correlated(0.9, 200, 6, 2)
    dense = lsc.nn.BlockDiagonalRNN(2, 8, min_modulus=0.985, max_modulus=0.99, dtype=F64)
    before = memory.measure(dense, x)
    assert "A_l0" in before.findings[0].groups
    assert "lsc.nn.LRU" in before.findings[0].remedy
    instead = lsc.nn.LRU(2, 8, min_modulus=0.985, max_modulus=0.99, max_phase=0.05, dtype=F64)
    after = memory.measure(instead, x)
    assert after.findings == []
    assert after.layers[0].largest == pytest.approx(before.layers[0].largest, rel=0.4)


def test_default_layers_are_sound_and_one_finding_stands_for_many():
    torch.manual_seed(0)
    x = torch.randn(50, 4, 3)
    for model in (nn.GRU(3, 10, 2), nn.LSTM(3, 10), nn.RNN(3, 10), lsc.nn.LRU(3, 10, 2), lsc.nn.ResLRU(3, 10, 2)):
        assert memory.measure(model, x, num_probes=4).findings == []
    deep = memory.measure(nn.Sequential(long_independent(), lsc.nn.IndRNN(8, 8, 2, dtype=F64)), x.double()[..., :2])
    assert sorted({layer for finding in deep.findings for layer in finding.layers}) == [0, 1, 2]
    assert [finding.excess for finding in deep.findings] == sorted((f.excess for f in deep.findings), reverse=True)
    assert len({finding.remedy for finding in deep.findings}) == len(deep.findings)


def test_states_that_overflow_are_reported_and_not_refused():
    model, x = nn.RNN(2, 4, nonlinearity="relu"), 10 * torch.rand(400, 2, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    report = memory.measure(model, x)
    assert json.dumps(report.to_dict(), allow_nan=False)
    assert report.findings[0].excess == math.inf
    linear = lsc.nn.ComplexDiagonalRNN(2, 4)
    with torch.no_grad():
        linear.lambda_l0.fill_(2.0)
    assert json.dumps(memory.measure(linear, x).to_dict(), allow_nan=False)


# Gradients


@pytest.mark.parametrize("given", [False, True])
def test_gradients_are_those_of_the_loss(given):
    model, x = nn.GRU(2, 3, 2, dtype=F64), normal(STEPS, COUNT, 2)
    if given:
        target = normal(STEPS, COUNT, 3, seed=9)

        def loss(output: Tensor) -> Tensor:
            return (output - target).abs().sum()

        value = loss(model(x)[0])
    else:
        outputs = model(x)[0].shape
        # The seed is drawn from the generator, and the target is the first that is drawn from the seed.
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator(3), dtype=torch.int64))
        own = torch.Generator().manual_seed(seed)
        loss = None
        value = (model(x)[0] - torch.randn(outputs, generator=own, dtype=F64)).square().mean() / 2
    expected = dict(zip(dict(model.named_parameters()), torch.autograd.grad(value, model.parameters()), strict=True))
    report = memory.measure(model, x, loss=loss, generator=generator(3))
    rows = report.rows()
    assert len(rows) == 2 * 12
    for row in rows:
        part = gate_of(row["name"], expected[re.sub(r"\[\w\]$", "", row["name"])], "gru")
        assert row["gradient"] == pytest.approx(float(part.square().mean()), rel=1e-9)


# What stays as it was


def test_the_model_its_gradients_and_the_random_numbers_stay():
    model, x = nn.GRU(2, 3, 2, dropout=0.5, dtype=F64).train(), normal(STEPS, COUNT, 2)
    model.weight_ih_l0.grad = torch.ones_like(model.weight_ih_l0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = memory.measure(model, x), memory.measure(model, x)
    assert first.to_dict() == second.to_dict()
    assert model.training
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.weight_ih_l0.grad, torch.ones_like(model.weight_ih_l0))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "weight_ih_l0")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        assert memory.measure(model, x).to_dict() == first.to_dict()


def test_inside_inference_mode_it_is_the_same():
    model, x = nn.GRU(2, 3, dtype=F64), normal(STEPS, COUNT, 2)
    expected, whole = memory.measure(model, x).to_dict(), lsc.diagnose(model, x, generator=generator()).memory
    with torch.inference_mode():
        assert memory.measure(model, x.clone()).to_dict() == expected
        assert lsc.diagnose(model, x.clone(), generator=generator()).memory.to_dict() == whole.to_dict()


def test_what_is_not_learned_is_left_out():
    model, x = lsc.nn.LRU(2, 3, dtype=F64), normal(STEPS, COUNT, 2)
    whole = rows_of(memory.measure(model, x))
    model.nu_log_l0.requires_grad_(False)
    found = rows_of(memory.measure(model, x))
    assert set(whole) - set(found) == {"nu_log_l0"}
    assert found["B_l0"]["sensitivity"] == pytest.approx(whole["B_l0"]["sensitivity"], rel=1e-12)
    model.requires_grad_(False)
    report = memory.measure(model, x)
    assert report.rows() == []
    assert report.layers[0].state > 0


def test_models_of_every_kind():
    x = normal(STEPS, COUNT, 4)
    mixed = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), lsc.nn.LRU(4, 3), nn.Linear(3, 2), nn.GRU(2, 3)).double()
    report = memory.measure(mixed, x)
    assert [layer.layer for layer in report.layers] == [1, 3]
    assert "4.weight_hh_l0[n]" in rows_of(report, 3)

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(11, 4), nn.GRU(4, 5, batch_first=True)

        def forward(self, tokens):
            return self.rnn(self.embedding(tokens))[0]

    tagger = Tagger().double()
    tokens = torch.randint(11, (COUNT, STEPS), generator=generator())
    inner = rows_of(memory.measure(lsc.Submodule(tagger, "rnn", batch_first=True), tokens))
    alone = rows_of(memory.measure(tagger.rnn, tagger.embedding(tokens).detach()))
    for name, row in alone.items():
        for key in ("sensitivity", "reference", "gradient"):
            assert inner[name][key] == pytest.approx(row[key], rel=1e-9)
    one = memory.measure(nn.GRU(4, 3, dtype=F64), x[:, 0])
    assert one.sequences == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: memory.measure(m, x, num_probes=0), "num_probes: expected at least 1, got 0"),
        (lambda m, x: memory.measure(m, x, num_steps=STEPS + 1), f"num_steps: expected at most {STEPS}, got"),
        (lambda m, x: memory.measure(m, x, max_sequences=0), "max_sequences: expected at least 1, got 0"),
        (lambda m, x: memory.measure(m, x, max_points=0), "max_points: expected at least 1, got 0"),
        (lambda m, x: memory.measure(m, x[:0]), "inputs: expected at least one step of one sequence"),
        (lambda m, x: memory.measure(m, x / 0), "inputs: expected finite numbers"),
        (lambda m, x: memory.measure(m, x, loss=lambda y: y), "loss: expected one number as a tensor, got (6, 3, 3)"),
        (lambda m, x: memory.measure(m, x, loss=lambda y: 1.0), "loss: expected one number as a tensor, got float"),
        (
            lambda m, x: memory.measure(nn.Sequential(nn.Linear(2, 2)).double(), x[0]),
            "model: expected a layer with a state",
        ),
    ],
)
def test_bad_values_are_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(nn.GRU(2, 3, dtype=F64), normal(STEPS, COUNT, 2))


def test_bad_types_are_refused():
    x = normal(STEPS, COUNT, 2)
    with pytest.raises(TypeError, match="model: expected"):
        memory.measure(nn.Linear(2, 2), x)
    with pytest.raises(TypeError, match="loss: expected a function of the output, got str"):
        memory.measure(nn.GRU(2, 3, dtype=F64), x, loss="mse")


# Reports


def test_a_report_says_its_numbers(tmp_path):
    report = memory.measure(long_lstm(), correlated(0.9, 300, 4, 2))
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["threshold"] == HYPERSENSITIVE
    assert [row["name"] for row in content["rows"]] == [row["name"] for row in report.rows()]
    assert content["findings"][0]["remedy"] == report.findings[0].remedy
    text = str(report)
    assert all(group.name in text for layer in report.layers for group in layer.groups)
    assert report.findings[0].text in text
    for name in ("memory.svg", "memory.png"):
        assert report.plot(tmp_path / name).stat().st_size > 1000
    with pytest.raises(ValueError, match="path: expected a file that ends in"):
        report.plot(tmp_path / "memory.txt")


def test_a_diagnosis_has_it_unless_told_otherwise(capsys):
    model, x = diagonal([0.99, 0.98], [0.01, 0.02]), correlated(0.9, 200, 4)
    found = lsc.diagnose(model, x, generator=generator())
    (finding,) = [each for each in found.findings if each.kind == "hypersensitive"]
    assert finding.text == found.memory.findings[0].text
    assert finding.advice == found.memory.findings[0].remedy
    assert found.memory.summary() in str(found)
    assert "lambda_l0" in found.memory.summary()
    assert found.to_dict()["memory"]["rows"]
    without = lsc.diagnose(model, x, memory=False, generator=generator())
    assert without.memory is None
    assert without.to_dict()["memory"] is None
    assert "hypersensitive" not in [each.kind for each in without.findings]
    layers = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 2))
    assert lsc.diagnose(layers.double(), x[0], generator=generator()).memory is None
    small = ["--cell", "gru", "--layers", "1", "--hidden-size", "4", "--input-size", "3", "--time-steps", "6"]
    assert main(["diagnose", *small, "--batch-size", "2"]) == 0
    assert "memory in steps" in capsys.readouterr().out
    assert main(["diagnose", *small, "--batch-size", "2", "--no-memory"]) == 0
    assert "memory in steps" not in capsys.readouterr().out
