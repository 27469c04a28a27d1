"""Diagnoses of networks whose illness is known."""

import json
import math

import pytest
import torch
from networks import normal, stack
from torch import nn

import lsc_ext as lsc
from lsc_ext.cli import main


def generator():
    return torch.Generator().manual_seed(0)


def linear(time, depth, layers=3, hidden=4):
    """A ReLU RNN whose Jacobians are ``time`` and ``depth`` times the identity, on positive inputs."""
    model = nn.RNN(hidden, hidden, layers, nonlinearity="relu", bias=False).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.eye(hidden, dtype=torch.float64) * (time if "_hh_" in name else depth))
    return model


def diagnosed(model, inputs, **options):
    return lsc.diagnose(model, inputs, generator=generator(), **options)


def kinds(found):
    return [finding.kind for finding in found.findings]


@pytest.mark.parametrize(("time", "depth", "layers"), [(0.5, 0.5, 3), (0.9, 0.7, 2), (1.1, 1.0, 1)])
def test_gradients_and_their_expectation_are_the_closed_form(time, depth, layers):
    steps = 30
    found = diagnosed(linear(time, depth, layers), torch.rand(steps, 2, 4, dtype=torch.float64))
    # Of one layer no depth is measured: what it is fed counts as it is.
    profile = lsc.theory.gradient_profile(time, depth, layers, steps)
    torch.testing.assert_close(found.gradient, 2 * profile)  # the norm over 4 inputs
    shown = lsc.theory.gradient_profile(time, depth if layers > 1 else 1.0, layers, steps)
    torch.testing.assert_close(10**found.expected, shown)
    last = torch.tensor([math.comb(d + layers - 1, d) * time**d * depth**layers for d in range(steps)]).flip(0)
    torch.testing.assert_close(found.from_last, 2 * last.double())


def test_a_gradient_that_explodes_is_the_first_finding():
    found = diagnosed(linear(1.0, 1.0), torch.rand(60, 2, 4, dtype=torch.float64))
    assert kinds(found)[:2] == ["explodes", "expected to explode"]
    assert "times larger at the first step" in found.findings[0].text
    assert found.findings[0].advice == "pre-train: lsc.pretrain(model, data, target=0.5)"
    assert found.horizon == 60


def test_a_gradient_that_vanishes():
    found = diagnosed(linear(0.3, 0.3), torch.rand(60, 2, 4, dtype=torch.float64))
    assert "expected to vanish" in kinds(found)
    assert "forgets" in kinds(found)
    assert 3 < found.horizon < 15
    dead = linear(0.0, 1.0, 1)
    assert diagnosed(dead, torch.rand(9, 2, 4, dtype=torch.float64)).horizon == 1


def test_one_layer_is_to_be_brought_to_one():
    found = diagnosed(linear(1.3, 1.0, 1), torch.rand(60, 2, 4, dtype=torch.float64))
    assert found.findings[0].advice.endswith("target=1.0)")


def test_a_network_that_was_repaired_is_sound():
    torch.manual_seed(0)
    model, data = nn.GRU(8, 20, 2), torch.randn(12, 20, 8)
    lsc.pretrain(model, data, target=0.5, batch_size=16, max_points=16, seed=0)
    assert kinds(diagnosed(model, data)) in (["sound"], ["forgets"])


def test_layers_that_differ_and_points_that_are_not_certified():
    model = linear(0.5, 0.5, 2)
    with torch.no_grad():
        model.weight_hh_l1.mul_(1.6)
    found = diagnosed(model, torch.rand(8, 2, 4, dtype=torch.float64))
    assert "uneven" in kinds(found)
    assert "from 0.50 to 0.80" in next(f.text for f in found.findings if f.kind == "uneven")
    hard = diagnosed(nn.RNN(3, 40), torch.randn(20, 2, 3), tol=1e-12)
    assert "uncertified" in kinds(hard)


def test_products_that_single_steps_mislead_about():
    """Nilpotent layers: every radius is 0, and the gain is not."""
    model = linear(0.0, 1.0, 1)
    with torch.no_grad():
        model.weight_hh_l0.copy_(torch.diag(torch.ones(3), 1))
    found = diagnosed(model, torch.rand(8, 2, 4, dtype=torch.float64), steps=2)
    assert "misleading" in kinds(found)


@pytest.mark.parametrize("cell", ["gru", "lstm", "alif", "rnn_tanh"])
def test_gradients_are_those_of_autograd(cell):
    model, x = stack(cell, 4, 9, 2), normal(6, 3, 4)
    found = diagnosed(model, x, steps=4)
    leaf = x.clone().requires_grad_()
    (every,) = torch.autograd.grad(model(leaf)[0].sum(), leaf)
    (last,) = torch.autograd.grad(model(leaf)[0][-1].sum(), leaf)
    torch.testing.assert_close(found.gradient, every.norm(dim=2).mean(1))
    torch.testing.assert_close(found.from_last, last.norm(dim=2).mean(1))
    assert found.products.steps == 4
    assert found.exponents.layers == [0, 1]


def test_layouts_say_the_same():
    torch.manual_seed(0)
    model, x = nn.GRU(4, 9, 2).double(), normal(6, 3, 4)
    turned = nn.GRU(4, 9, 2, batch_first=True).double()
    turned.load_state_dict(model.state_dict())
    found = diagnosed(model, x)
    torch.testing.assert_close(diagnosed(turned, x.transpose(0, 1)).from_last, found.from_last)
    one = diagnosed(model, x[:, 0])
    (gradient,) = torch.autograd.grad(model(leaf := x[:, :1].clone().requires_grad_())[0].sum(), leaf)
    torch.testing.assert_close(one.gradient, gradient.norm(dim=2).squeeze(1))


def test_every_kind_of_model_has_a_diagnosis():
    torch.manual_seed(0)
    x = torch.randn(20, 3, 4)
    cell = nn.GRUCell(4, 5)
    recurrent = [
        nn.LSTM(4, 5, 2, bidirectional=True),
        lsc.nn.LRU(4, 6, 2),
        lsc.nn.ResLRU(4, 6, 2),
        lsc.StepModel(lambda inputs, state: cell(inputs, state), state_size=5, module=cell),
    ]
    for model in recurrent:
        found = diagnosed(model, x)
        assert found.gradient.shape == found.from_last.shape == found.expected.shape == (20,)
        assert found.exponents is not None
        assert found.findings
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
    found = diagnosed(layers, x[0])
    assert found.gradient.shape == found.expected.shape == (1,)
    assert found.exponents is None
    assert found.products is None


def test_a_module_of_a_model_that_reads_tokens_has_no_gradient_of_its_input():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(11, 4), nn.GRU(4, 5, 2)

        def forward(self, tokens):
            return self.rnn(self.embedding(tokens))[0]

    torch.manual_seed(0)
    found = diagnosed(lsc.Submodule(Tagger(), "rnn"), torch.randint(11, (20, 3)))
    assert found.gradient is None
    assert found.from_last is None
    assert found.horizon is None
    assert found.expected.shape == (20,)
    assert json.loads(json.dumps(found.to_dict()))["gradient"] is None


def test_recurrent_layers_in_sequence():
    torch.manual_seed(0)
    x = torch.randn(20, 3, 4)
    recurrent, linear = nn.GRU(4, 5), nn.Linear(5, 2)
    found = diagnosed(nn.Sequential(recurrent, linear), x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(linear(recurrent(leaf)[0]).sum(), leaf)
    torch.testing.assert_close(found.gradient, expected.double().norm(dim=2).mean(1))


def test_short_sequences_have_no_products():
    assert diagnosed(nn.GRU(4, 5), torch.randn(3, 2, 4)).products is None
    assert diagnosed(nn.GRU(4, 5), torch.randn(3, 2, 4), steps=3).products.steps == 3


def test_the_model_stays_as_it_was():
    model = nn.GRU(4, 5, 2, dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(20, 3, 4)
    first, second = diagnosed(model, x), diagnosed(model, x)
    assert model.training
    assert x.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (torch.zeros(0, 2, 4), {}, "inputs: expected at least one step of one sequence"),
        (torch.zeros(5, 2, 4), {"steps": 0}, "steps: expected at least 1, got 0"),
        (torch.zeros(5, 2, 4), {"max_points": 0}, "max_points: expected at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(inputs, options, words):
    with pytest.raises(ValueError, match=words):
        lsc.diagnose(nn.GRU(4, 5), inputs, **options)


def test_the_command_says_the_same_as_the_function(capsys, tmp_path):
    arguments = ["diagnose", "--cell", "rnn_tanh", "--layers", "2", "--hidden-size", "8", "--input-size", "4"]
    arguments += ["--time-steps", "20", "--batch-size", "3", "--max-points", "9"]
    picture = tmp_path / "d.svg"
    assert main([*arguments, "--plot", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "rates per step of products of 16 steps" in text
    assert "1. " in text
    assert picture.read_text().count("<svg") == 1
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    torch.manual_seed(0)
    x = torch.randn(20, 3, 4)
    model = lsc.nn.build("rnn_tanh", 4, 8, 2)
    assert content == json.loads(json.dumps(lsc.diagnose(model, x, max_points=9, generator=generator()).to_dict()))
    assert main([*arguments, "--max-points", "0"]) == 2
    assert main([*arguments, "--plot", str(tmp_path / "none" / "d.svg")]) == 2
