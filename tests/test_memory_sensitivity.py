"""How far states move with parameters: against differences, whole Jacobians and closed forms."""

import math
import re

import pytest
import torch
from measured import Leaky, correlated, diagonal, gate_of, generator, rows_of
from networks import RECURRENT_CELLS, normal, stack
from step_modules import gru_model, lstm_model
from torch import Tensor, nn
from torch.nn.utils import parametrize

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.cells import CELLS, layer_step

F64 = torch.float64
STEPS, COUNT = 6, 3


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
