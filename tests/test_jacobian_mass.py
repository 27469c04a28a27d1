"""Products of step Jacobians on and off the diagonal: against autograd, closed forms, and all probes that there are."""

import itertools
import math

import pytest
import torch
from networks import normal, stack
from torch import nn

import lsc_ext as lsc
from lsc_ext.memory import JacobianMass, jacobian_mass
from lsc_ext.memory.jacobian_moments import exact_moments, probed_moments

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layer_of(kind, hidden, **options):
    torch.manual_seed(1)
    return getattr(nn, kind)(4, hidden, dtype=F64, **options)


def states_of(model, batch, layers=1):
    count = 2 if isinstance(model, nn.LSTM) else 1
    return tuple(normal(layers, batch, model.hidden_size, seed=7 + k) for k in range(count))


def autograd_products(model, x, states, steps):
    """d s[t] / d s[0] of a torch.nn layer [B, n, n], all state variables stacked, by autograd over the whole run."""
    found = []
    for b in range(x.shape[1]):

        def run(flat, b=b):
            start = tuple(part.view(1, 1, -1) for part in flat.chunk(len(states)))
            last = model(x[:steps, b : b + 1], start if len(start) > 1 else start[0])[1]
            return torch.cat([part.flatten() for part in (last if len(start) > 1 else (last,))])

        found.append(torch.autograd.functional.jacobian(run, torch.cat([part[0, b] for part in states])))
    return torch.stack(found)


def assert_moments(report, number, J, rtol=1e-9):
    """All numbers of one checkpoint are those of explicit matrices [B, n, n]."""
    n = J.shape[-1]
    assert report.size == n
    diagonal = J.diagonal(dim1=1, dim2=2)
    off = J[:, ~torch.eye(n, dtype=torch.bool)]
    close = {"rtol": rtol, "atol": 1e-14}
    torch.testing.assert_close(report.diagonal[number], diagonal, **close)
    torch.testing.assert_close(report.diagonal_mean[number], diagonal.mean(1), **close)
    torch.testing.assert_close(report.diagonal_rms[number], diagonal.square().mean(1).sqrt(), **close)
    if n > 1:
        torch.testing.assert_close(report.off_diagonal_rms[number], off.square().mean(1).sqrt(), **close)
        torch.testing.assert_close(report.off_diagonal_max[number], off.abs().amax(1), **close)
    else:
        assert report.off_diagonal_rms[number].eq(0).all()
    torch.testing.assert_close(report.ratio[number], off.norm(dim=1) / diagonal.norm(dim=1), **close)
    torch.testing.assert_close(report.radius[number], torch.linalg.eigvals(J).abs().amax(1), **close)
    torch.testing.assert_close(report.gain[number], torch.linalg.svdvals(J)[:, 0], **close)
    chosen = J[:, report.pairs[:, 0], report.pairs[:, 1]]
    torch.testing.assert_close(report.entries[number], chosen, **close)
    assert report.log_scale.eq(0).all()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("hidden", [1, 3, 17])
def test_products_are_those_of_autograd(kind, hidden):
    model, x = layer_of(kind, hidden), normal(9, 2, 4)
    states = states_of(model, 2)
    n = hidden * len(states)
    report = jacobian_mass(
        model, x, states if len(states) > 1 else states[0], steps=(1, 2, 7), entries=5 if n > 1 else 0
    )
    assert report.steps == [1, 2, 7]
    for number, steps in enumerate(report.steps):
        assert_moments(report, number, autograd_products(model, x, states, steps))


def test_a_layer_of_a_stack_is_measured_on_what_the_one_below_hands_up():
    model, x = layer_of("GRU", 5, num_layers=2), normal(6, 3, 4)
    torch.manual_seed(0)
    upper = nn.GRU(5, 5, dtype=F64)
    upper.load_state_dict({f"{name[:-1]}0": v for name, v in model.state_dict().items() if name.endswith("1")})
    lower = nn.GRU(4, 5, dtype=F64)
    lower.load_state_dict({name: v for name, v in model.state_dict().items() if name.endswith("0")})
    handed_up = lower(x)[0].detach()
    zero = (torch.zeros(1, 3, 5, dtype=F64),)
    report = jacobian_mass(model, x, layer=1, steps=[6])
    assert_moments(report, 0, autograd_products(upper, handed_up, zero, 6))
    with pytest.raises(ValueError, match=r"layer: expected one of \[0, 1\], got 2"):
        jacobian_mass(model, x, layer=2)


def test_a_layer_that_runs_backward_starts_from_the_end():
    both, x = layer_of("GRU", 5, bidirectional=True), normal(8, 2, 4)
    ahead = nn.GRU(4, 5, dtype=F64)
    ahead.load_state_dict({n[:-8]: v for n, v in both.state_dict().items() if n.endswith("_reverse")})
    zero = (torch.zeros(1, 2, 5, dtype=F64),)
    assert_moments(jacobian_mass(both, x, layer=1, steps=[3]), 0, autograd_products(ahead, x.flip(0), zero, 3))


def test_the_document_s_cell():
    cell = nn.GRU(1, 2, dtype=F64)
    values = {
        "weight_ih_l0": [[0.5], [-0.3], [0.2], [0.4], [1.0], [-0.7]],
        "weight_hh_l0": [[0.1, 0.2], [-0.3, 0.4], [0.3, -0.1], [0.2, 0.5], [0.6, -0.2], [0.1, -0.4]],
        "bias_ih_l0": [0.05, -0.05, 1.0, 2.0, 0.0, 0.1],
        "bias_hh_l0": [0.0, 0.0, 0.0, 0.0, 0.1, -0.1],
    }
    cell.load_state_dict({name: torch.tensor(value, dtype=F64) for name, value in values.items()})
    x = torch.tensor([1, -1, 0.5, 0.2, -0.3], dtype=F64).view(5, 1, 1)
    report = jacobian_mass(cell, x, steps=[5], entries=40)
    assert report.diagonal.flatten().tolist() == pytest.approx([0.31193203, 0.46540471], abs=1e-8)
    off = {(0, 1): -0.04514401, (1, 0): 0.0079632}
    places = [tuple(pair) for pair in report.pairs.tolist()]
    assert set(places) == set(off)
    assert report.entries.flatten().tolist() == pytest.approx([off[place] for place in places], abs=1e-8)
    assert float(report.off_diagonal_max) == pytest.approx(0.04514401, abs=1e-8)
    assert float(report.radius) == pytest.approx(0.4630254449, abs=1e-10)
    assert float(report.gain) == pytest.approx(0.4685304948, abs=1e-10)


def constant_gates(memory, dtype):
    """A GRU whose gates know neither inputs nor states."""
    layer = nn.GRU(2, len(memory), dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0[len(memory) : 2 * len(memory)] = torch.tensor(memory, dtype=F64).log()
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_constant_gates_have_powers_of_the_gate_and_nothing_else(dtype):
    memory = [1.0, 16.0, 256.0]
    report = jacobian_mass(constant_gates(memory, dtype), normal(512, 1, 2, dtype=dtype), steps=[1, 16, 512])
    z = torch.tensor(memory, dtype=F64) / (1 + torch.tensor(memory, dtype=F64))
    expected = torch.stack([z**t for t in report.steps]).unsqueeze(1)
    torch.testing.assert_close(report.diagonal, expected, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=0)
    assert float(report.diagonal[1, 0, 1]) == pytest.approx(0.379, abs=5e-4)
    assert float(report.diagonal[2, 0, 2]) == pytest.approx(0.1359, abs=5e-4)
    assert report.off_diagonal_max.eq(0).all()
    assert report.ratio.eq(0).all()
    torch.testing.assert_close(report.radius, report.gain)


@pytest.mark.parametrize("cell", ["min_gru", "ind_rnn"])
def test_units_that_do_not_know_each_other_have_nothing_off_the_diagonal(cell):
    report = jacobian_mass(stack(cell, 4, 9, 1), normal(8, 3, 4), steps=[1, 8])
    assert report.off_diagonal_max.eq(0).all()
    assert report.off_diagonal_square.eq(0).all()
    assert report.diagonal.abs().amax(2).min() > 0


def test_a_complex_eigenvalue_is_a_pair_of_real_numbers():
    torch.manual_seed(0)
    model, t = lsc.nn.LRU(3, 5).double(), 11
    report = jacobian_mass(model, normal(t, 2, 3), steps=[t])
    power = model.eigenvalues(0).detach() ** t
    blocks = torch.cat((torch.cat((power.real.diag(), -power.imag.diag()), 1), power.imag.diag().repeat(1, 2)))
    blocks[5:, 5:] = power.real.diag()
    assert_moments(report, 0, blocks.expand(2, 10, 10))


def test_a_step_in_plain_torch_has_the_numbers_of_the_compiled_layer():
    cell, layer, x = nn.GRUCell(4, 7, dtype=F64), nn.GRU(4, 7, dtype=F64), normal(6, 2, 4)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    step = lsc.StepModel(lambda inputs, state: cell(inputs, state), state_size=7, module=cell)
    first, second = (jacobian_mass(model, x, steps=[6]) for model in (step, layer))
    torch.testing.assert_close(first.diagonal, second.diagonal)
    torch.testing.assert_close(first.off_diagonal_square, second.off_diagonal_square)


def test_pieces_of_a_trajectory_change_no_bit():
    model, x = stack("lstm", 4, 5, 2), normal(20, 3, 4)
    first, second = (jacobian_mass(model, x, layer=1, steps=[3, 19], time_chunk=chunk) for chunk in (None, 4))
    assert torch.equal(first.diagonal, second.diagonal)
    assert torch.equal(first.gain, second.gain)


@pytest.mark.parametrize(("factor", "probes"), [(0.5, None), (2.0, None), (0.5, 3), (2.0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_leaves_the_range_is_told_by_its_logarithm(dtype, factor, probes):
    turned = torch.tensor([[1.0, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    model = lsc.StepModel(lambda inputs, state: factor * state @ turned.T + inputs, state_size=3)
    steps = 1200  # float64 has 1074 powers of two below 1, and 1024 above
    report = jacobian_mass(model, torch.zeros(steps, 1, 3, dtype=dtype), steps=[4, steps], probes=probes)
    short, long = report.log_scale.flatten().tolist()
    assert short == 0
    mass = 3 * report.diagonal_square + 6 * report.off_diagonal_square
    logarithm = long + math.log(float(mass[1])) / 2
    assert logarithm == pytest.approx(steps * math.log(factor) + math.log(3 + (steps / 4) ** 2) / 2, abs=0.01)
    if probes is None:
        assert float(report.diagonal_mean[0]) == factor**4
        assert long + math.log(float(report.diagonal_mean[1])) == pytest.approx(steps * math.log(factor), rel=1e-12)
        assert float(report.ratio[1]) == pytest.approx(steps / 4 / 3**0.5, rel=1e-5)
    row = report.rows()[1]
    assert row["log10"] == pytest.approx(long / math.log(10))


def test_columns_of_very_different_size_keep_their_digits():
    """In float32 0.3^200 is 0, and 0.9^200 is not."""
    model = nn.RNN(1, 2, nonlinearity="relu", bias=False)
    with torch.no_grad():
        model.weight_hh_l0.copy_(torch.diag(torch.tensor([0.3, 0.9])))
        model.weight_ih_l0.fill_(1)
    report = jacobian_mass(model, torch.ones(200, 1, 1), steps=[200])
    expected = [0.3**200, 0.9**200]
    assert report.diagonal.flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_products_that_are_no_numbers_are_nan_and_lost_ones_0():
    columns = torch.stack((torch.full((2, 2), math.nan), torch.zeros(2, 2), torch.eye(2))).double()
    found = exact_moments(columns, torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))
    for name in ("radius", "gain", "diagonal_mean", "off_diagonal_square"):
        assert found[name].isnan().tolist() == [True, False, False], name
    assert found["radius"][1:].tolist() == [0, 1]
    assert found["log_scale"].tolist() == [0, 0, 0]


def test_a_row_of_a_report_is_not_lost_beside_a_product_that_is_0():
    model = lsc.StepModel(lambda inputs, state: inputs * state, state_size=1)
    x = torch.tensor([2.0**-6, 0.0], dtype=F64).view(1, 2, 1).expand(200, 2, 1)
    (row,) = jacobian_mass(model, x, steps=[200]).rows()
    assert row["log10"] + math.log10(row["gain"]) == pytest.approx(-1200 * math.log10(2) - math.log10(2))


def test_no_sequence_is_no_row_of_numbers():
    report = jacobian_mass(stack("gru", 4, 3, 1), normal(4, 0, 4), steps=[1, 4], entries=2)
    assert report.diagonal.shape == (2, 0, 3)
    assert report.radius.shape == (2, 0)


@pytest.mark.parametrize("size", [1, 2])
def test_estimates_are_unbiased_over_all_probes_that_there_are(size):
    J = normal(size, size, seed=5)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3 * size)), dtype=F64).view(-1, 3, size)
    found = probed_moments(signs, signs @ J.T, torch.zeros(signs.shape[:2], dtype=torch.int64))
    columns = J.T.unsqueeze(0)
    exact = exact_moments(columns, torch.zeros(1, size, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))
    for name in ("diagonal", "diagonal_mean", "diagonal_square", "off_diagonal_square"):
        torch.testing.assert_close(found[name].mean(0), exact[name][0], rtol=1e-12, atol=1e-12)


def test_standard_errors_are_the_spread_of_estimates():
    J, count, m = normal(6, 6, seed=5), 4000, 12
    signs = 2.0 * torch.randint(2, (count, m, 6), generator=generator(3)) - 1
    found = probed_moments(signs.double(), signs.double() @ J.T, torch.zeros(count, m, dtype=torch.int64))
    for name in ("diagonal_mean", "diagonal_square", "off_diagonal_square"):
        spread, told = found[name].std(), found[f"{name}_error"].square().mean().sqrt()
        assert float(told / spread) == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_probes_agree_with_exact_numbers_within_their_errors(kind):
    model, x = layer_of(kind, 15), normal(10, 3, 4)
    exact = jacobian_mass(model, x, steps=[1, 10])
    found = jacobian_mass(model, x, steps=[1, 10], probes=200, generator=generator(4))
    again = jacobian_mass(model, x, steps=[1, 10], probes=200, generator=generator(4))
    assert set(found.standard_error) == {"diagonal_mean", "diagonal_square", "off_diagonal_square"}
    for name, error in found.standard_error.items():
        estimate = getattr(found, name)
        assert ((estimate - getattr(exact, name)).abs() < 4.5 * error).all(), name
        assert torch.equal(estimate, getattr(again, name))
        assert not torch.equal(estimate, getattr(exact, name))
    torch.testing.assert_close(found.diagonal, exact.diagonal, rtol=0, atol=0.15)
    torch.testing.assert_close(found.ratio, exact.ratio, rtol=0.3, atol=0)
    assert found.radius is None
    assert found.gain is None
    assert exact.standard_error == {}


def test_random_entries_come_from_all_rows_and_never_from_the_diagonal():
    report = jacobian_mass(stack("gru", 4, 20, 1), normal(2, 1, 4), steps=[1], entries=2000, generator=generator())
    row, column = report.pairs.unbind(1)
    assert (row != column).all()
    assert len({tuple(pair) for pair in report.pairs.tolist()}) > 380 * 0.98  # of 380 places
    assert row.bincount().min() > 60
    assert column.bincount().min() > 60


def test_reports_say_what_they_have():
    model, x = stack("gru", 4, 9, 1), normal(12, 3, 4)
    report = jacobian_mass(model, x)
    assert isinstance(report, JacobianMass)
    assert report.steps == [1, 2, 4, 8]
    assert [row["steps"] for row in report.rows()] == report.steps
    assert report.rows()[2]["radius"] == pytest.approx(float(report.radius[2].mean()))
    assert len(str(report).splitlines()) == 5
    probed = jacobian_mass(model, x, probes=4)
    assert probed.rows()[0]["radius"] is None
    assert "off/on" in str(probed)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": [13]}, ValueError, r"steps: expected increasing numbers of 1 .. 12, got \[13\]"),
        ({"steps": [2, 2]}, ValueError, r"steps: expected increasing numbers of 1 .. 12, got \[2, 2\]"),
        ({"steps": []}, ValueError, r"steps: expected increasing numbers of 1 .. 12, got \[\]"),
        ({"steps": [0, 2]}, ValueError, "steps: expected at least 1, got 0"),
        ({"steps": [1.0]}, TypeError, "steps: expected an int, got float"),
        ({"probes": 2}, ValueError, "probes: expected at least 3, got 2"),
        ({"entries": -1}, ValueError, "entries: expected at least 0, got -1"),
        ({"probes": 3, "entries": 1}, ValueError, "entries: expected 0 where there are probes"),
        ({"layer": 1}, ValueError, r"layer: expected one of \[0\], got 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        jacobian_mass(stack("gru", 4, 9, 1), normal(12, 3, 4), **options)


def test_models_without_a_state_or_an_entry_are_refused():
    with pytest.raises(ValueError, match="model: expected one with a state"):
        jacobian_mass(nn.Sequential(nn.Linear(4, 4).double()), normal(3, 4))
    with pytest.raises(ValueError, match="entries: expected 0 for a state of one number, got 2"):
        jacobian_mass(stack("gru", 4, 1, 1), normal(3, 2, 4), entries=2)
    with pytest.raises(ValueError, match="inputs: expected at least one step"):
        jacobian_mass(stack("gru", 4, 3, 1), normal(0, 2, 4))
