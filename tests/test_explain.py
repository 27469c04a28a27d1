"""What lsc.explain says before a measurement, against what the measurement then did."""

import json

import pytest
import torch
from emulated import emulated_cuda
from networks import normal

import lsc_ext as lsc
from lsc_ext.cli import main
from lsc_ext.nn import ARCHITECTURES, build


def methods_of(report):
    """(direction, layer) -> method, of what was measured."""
    return {(row["direction"], row["layer"]): row["method"] for row in report.rows()}


def expected_of(found):
    return {(row.direction, row.layer): row.method for row in found.layers}


@pytest.mark.parametrize("method", ["auto", "power"])
@pytest.mark.parametrize("hidden", [7, 36])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_methods_are_those_that_a_measurement_names(name, hidden, method):
    torch.manual_seed(0)
    model = build(name, hidden, hidden, 2, dtype=torch.float64)
    x = normal(3, 2, hidden) if name != "feed_forward" else normal(4, hidden)
    options = {"directions": ["time", "depth", "diagonal", "input"], "method": method}
    with torch.no_grad():
        found, report = lsc.explain(model, x, **options), lsc.radii(model, x, num_matvecs=5, **options)
    assert expected_of(found) == methods_of(report)
    assert found.implementation == report.implementation == "generic"
    shapes = {(row.direction, row.layer): (row.rows, row.columns) for row in found.layers}
    assert all(rows > 0 and columns > 0 for rows, columns in shapes.values())
    assert all(row.why for row in found.layers)


def test_sizes_around_the_limit_of_dense_ones():
    for hidden, method in ((32, "dense"), (33, "krylov")):
        (row,) = lsc.explain(torch.nn.RNN(3, hidden), torch.randn(2, 1, 3), directions=["time"]).layers
        assert (row.method, row.rows, row.columns) == (method, hidden, hidden)
        assert f"n = {hidden}" in row.why


def test_products_are_compiled_or_of_torch():
    stack, step = torch.nn.GRU(3, 4), lsc.StepModel(lambda x, s: torch.tanh(x + s), state_size=3)
    x = torch.randn(2, 1, 3)
    assert {row.products for row in lsc.explain(stack, x, directions=["time"]).layers} == {"compiled, cpu"}
    assert {row.products for row in lsc.explain(step, x, directions=["time"]).layers} == {"torch"}


def test_rectangular_jacobians_by_their_norm_or_a_square_part():
    model, x = torch.nn.GRU(3, 40), torch.randn(2, 1, 3)
    found = {
        square: lsc.explain(model, x, directions=["input"], square=square).layers[0].method
        for square in ("frobenius", "subsample")
    }
    assert found == {"frobenius": "frobenius", "subsample": "dense"}
    report = lsc.radii(model, x, directions=["input"], square="subsample")
    assert report["input"].method == "dense"


def test_steps_that_are_held_at_once_are_those_of_the_pieces():
    model = torch.nn.GRU(4, 64)
    x = torch.randn(6000, 8, 4)
    with torch.no_grad():
        found = lsc.explain(model, x, directions=["time"])
    assert 0 < found.steps_at_once < 6000
    assert found.why_at_once == "32 MiB of a trajectory"
    short = lsc.explain(model, x[:5], directions=["time"])
    assert (short.steps_at_once, short.time_steps) == (5, 5)
    assert "gradients are recorded" in short.why_at_once


@pytest.mark.parametrize("directions", [["time", "depth"], ["depth", "time"], ["input", "depth"]])
def test_on_a_device_the_direction_of_the_one_launch_is_named(directions):
    model, x = lsc.nn.GRU(3, 40, 2), torch.randn(3, 2, 3)
    with emulated_cuda(), torch.no_grad():
        found = lsc.explain(model, x, directions=directions)
        report = lsc.radii(model, x, directions=directions, num_matvecs=4)
        apart = lsc.explain(model, x, directions=directions, impl="generic")
    assert found.implementation == report.implementation == "fused"
    launched = next(name for name in directions if name != "input")
    assert [name for name, reason in found.fused.items() if not reason] == [launched]
    assert all(found.fused[name] for name in directions if name != launched)
    assert apart.implementation == "generic"
    assert set(apart.fused.values()) == {"impl is 'generic'"}
    assert {row.products for row in found.layers} == {"compiled, cuda"}


def test_the_model_stays_as_it_is_and_nothing_is_drawn():
    model = torch.nn.LSTM(3, 5, 2, dropout=0.5)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    lsc.explain(model, torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"impl": "fused"}, {"impl": "fast"}, {"method": "qr"}, {"square": "round"},
                                     {"directions": ["up"]}, {"directions": ["output"]}])  # fmt: skip
def test_what_a_measurement_refuses_is_refused(options):
    model, x = torch.nn.GRU(3, 4), torch.randn(2, 1, 3)
    with pytest.raises(ValueError, match="expected") as refused:
        lsc.radii(model, x, **options)
    with pytest.raises(ValueError, match="expected") as explained:
        lsc.explain(model, x, **options)
    assert str(explained.value) == str(refused.value)


def test_sequences_without_a_step_and_models_that_nobody_knows():
    found = lsc.explain(torch.nn.GRU(3, 4), torch.randn(0, 2, 3))
    assert found.time_steps == 0
    with pytest.raises(TypeError, match="model: expected a torch.nn.RNN"):
        lsc.explain(torch.nn.Bilinear(2, 2, 2), torch.randn(2, 2))


def test_the_command_explains_instead_of_measuring(capsys):
    arguments = ["radii", "--cell", "lstm", "--layers", "2", "--hidden-size", "20", "--time-steps", "3", "--explain"]
    assert main(arguments) == 0
    assert "krylov" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["implementation"] == "generic"
    assert [row["columns"] for row in content["layers"]] == [40, 40, 20]
