"""lsc.memory.measure as a whole: gradients, what it leaves alone, what it refuses, reports."""

import json
import re

import pytest
import torch
from measured import correlated, diagonal, gate_of, generator, long_lstm, rows_of
from networks import normal
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.cli import main
from lsc_ext.memory.report import HYPERSENSITIVE

F64 = torch.float64
STEPS, COUNT = 6, 3


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
