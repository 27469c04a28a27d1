"""Figures 12 and 15 of arXiv 2405.21064: the autocorrelation of words, and gates that read them."""

import json
import math
from pathlib import Path

import pytest
import torch

from lsc_ext import memory
from lsc_ext.paper import gate_moments as gates
from lsc_ext.paper.words import WORDS, word_autocorrelation

FOLDER = Path(__file__).parent.parent / "docs" / "memory"
GATES = json.loads((FOLDER / "gates.json").read_text())
F64 = torch.float64


# Words


def test_words_are_measured_sequence_by_sequence():
    sequences, features, steps, seed = 3, 4, 9, 5
    data = word_autocorrelation(sequences=sequences, features=features, steps=steps, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(sequences):
        x = memory.stationary_inputs(WORDS, (steps, features), generator=generator, dtype=F64)
        rows.append([float((x[: steps - d] * x[d:]).mean()) for d in range(steps - 1)])
    table = torch.tensor(rows, dtype=F64)
    assert data["mean"] == pytest.approx(table.mean(0).tolist(), rel=1e-5)
    error = [math.sqrt(sum((a - sum(c) / 3) ** 2 for a in c) / 2 / 3) for c in table.T.tolist()]
    assert data["standard_error"] == pytest.approx(error, rel=1e-5)


def test_the_published_law_is_found_again_within_its_error():
    data = json.loads((FOLDER / "words.json").read_text())
    law, mean, error = (torch.tensor(data[key], dtype=F64) for key in ("law", "mean", "standard_error"))
    assert len(law) == 511
    assert float(law[0]) == pytest.approx(0.375, abs=5e-4)
    assert float(law[100]) == pytest.approx(0.0430564 * 0.99700525**100, rel=1e-5)
    assert float(((mean - law) / error).square().mean().sqrt()) < 3
    fit = data["fit"]
    assert fit["rho"] == pytest.approx(0.997, abs=5e-4)
    assert fit["weight"] == pytest.approx(0.0431, abs=3 * data["standard_error"][1])
    assert fit["white"] == pytest.approx(0.332, abs=3 * data["standard_error"][0])
    expected = float(memory.state_second_moment(0.99, WORDS))
    assert data["moments"]["published"] == pytest.approx(expected)
    assert data["moments"]["fitted"] == pytest.approx(expected, rel=0.05)
    assert data["moments"]["measured lags"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("option", "value", "least"), [("sequences", 1, 2), ("features", 0, 1), ("steps", 3, 4)])
def test_bad_sizes_of_words(option, value, least):
    with pytest.raises(ValueError, match=f"{option}: expected at least {least}, got {value}"):
        word_autocorrelation(**{option: value})


# Gates


@pytest.mark.parametrize("reads_states", [False, True])
def test_slopes_carried_along_time_are_autograd_s(reads_states):
    steps, sequences, units = 6, 2, 3
    candidates, drive = torch.randn(2, steps, sequences, units, dtype=F64)
    bias = torch.tensor([0.3, 1.5, -0.4], dtype=F64)
    U = torch.randn(units, units, dtype=F64)

    def last(b):
        h = torch.zeros(sequences, units, dtype=F64)
        for n, g in zip(candidates, drive, strict=True):
            z = torch.sigmoid(b + g + (h @ U.mT if reads_states else 0))
            h = z * h + (1 - z) * n
        return h

    found = gates._simulated(candidates, bias + drive, U if reads_states else None)
    slope = torch.autograd.functional.jacobian(last, bias)  # [sequences, units, units]
    assert float(slope[:, 0, 1].abs().max() > 0) == reads_states
    torch.testing.assert_close(found["state"], last(bias).square(), rtol=1e-12, atol=0)
    expected = slope.diagonal(dim1=1, dim2=2).square()
    torch.testing.assert_close(found["sensitivity"], expected, rtol=1e-11, atol=1e-15)


def test_closed_forms_after_512_steps():
    T = torch.tensor([2.0, 100.0, 256.0], dtype=F64)
    found = gates._after((T - 1).log(), 512)
    theory = memory.gated_second_moments(1 - 1 / T, WORDS)
    assert found["state"][1:].tolist() == pytest.approx([0.034713, 0.022307], rel=3e-5)
    assert found["sensitivity"][1:].tolist() == pytest.approx([0.0044105, 0.0043462], rel=3e-5)
    assert float(found["state"][0]) == pytest.approx(float(theory.state[0]), rel=1e-9)
    assert float(found["sensitivity"][0]) == pytest.approx(float(theory.sensitivity[0]), rel=1e-9)
    states = memory.state_second_moment(1 - 1 / T, WORDS, horizon=512) / T**2
    torch.testing.assert_close(found["state"], states, rtol=1e-10, atol=0)


def test_theory_and_the_notebook_s_curve_on_the_page():
    assert [GATES["grid"][0], GATES["grid"][-1]] == pytest.approx([2, 257], rel=1e-5)
    assert GATES["theory"]["state"][0] == pytest.approx(0.15355, rel=5e-5)
    assert GATES["theory"]["sensitivity"][0] == pytest.approx(0.024640, rel=5e-5)
    assert GATES["notebook"][0] == pytest.approx(0.01576, abs=5e-6)
    found = gates._notebook(torch.tensor([1 - 1 / 256], dtype=F64))
    right = memory.gated_second_moments(1 - 1 / 256, WORDS).sensitivity
    assert float(found / right) == pytest.approx(1 - 0.008, abs=5e-4)


def test_constant_gates_agree_and_others_are_within_a_small_factor():
    constant, by_input, by_state = GATES["panels"]
    assert [p["condition"] for p in GATES["panels"]] == list(gates.CONDITIONS)
    for kind in ("state", "sensitivity"):
        ratio = constant[kind]["ratio"]
        assert ratio["standard_error"] < 0.05
        assert abs(ratio["mean"] - 1) < 3 * ratio["standard_error"]
        for panel in (by_input, by_state):
            assert 1.1 < panel[kind]["ratio"]["mean"] < 1.5
            low, high = panel[kind]["factors"]
            assert 0.9 < low < high < 2.2


def test_units_of_short_memory_tell_the_theory_from_the_notebook_s_curve():
    short = GATES["panels"][0]["short"]
    assert short["units"] == sum(memory <= 8 for memory in GATES["memory"])
    off = {name: abs(short[name]["mean"] - 1) / short[name]["standard_error"] for name in ("theory", "notebook")}
    assert off["theory"] < 2.5
    assert off["notebook"] > 4


def test_a_network_of_other_sizes_agrees_too():
    data = gates.gate_moments(hidden_size=40, sequences=40, features=16, steps=60, points=3, seed=1)
    for kind in ("state", "sensitivity"):
        found = data["panels"][0][kind]
        assert abs(found["ratio"]["mean"] - 1) < 3.5 * found["ratio"]["standard_error"] < 0.3
        assert len(found["units"]) == 40
        low, high = found["factors"]
        assert low <= high
    again = gates.gate_moments(hidden_size=40, sequences=40, features=16, steps=60, points=3, seed=2)
    assert again["memory"] != data["memory"]


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("hidden_size", 0, 1), ("features", 0, 1), ("steps", 0, 1), ("sequences", 1, 2), ("points", 1, 2)],
)
def test_bad_sizes_of_gates(option, value, least):
    with pytest.raises(ValueError, match=f"{option}: expected at least {least}, got {value}"):
        gates.gate_moments(**{option: value})
