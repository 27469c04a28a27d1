"""What is called hypersensitive, and that the remedy that is named mends it."""

import copy
import json
import math
import re

import pytest
import torch
from measured import correlated, diagonal, long_independent, long_lstm, worst
from networks import normal
from torch import nn

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.memory.report import HYPERSENSITIVE

F64 = torch.float64
STEPS, COUNT = 6, 3


def applied(layer: nn.Module, remedy: str) -> nn.Module:
    """The calls that a remedy consists of, on a copy."""
    layer = copy.deepcopy(layer)
    calls = re.sub(r": of white noise.*", "", remedy).split(", then ")
    for call in calls:
        call = call.partition(": ")[2] or call if not call.startswith("lsc.") else call
        eval(call, {"lsc": lsc, "layer": layer})
    return layer


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
