"""When pre-training is done: each stop rule on records made up for it, and the standard errors on fresh points."""

import math

import pytest
import torch
from networks import normal, stack

import lsc_ext as lsc
from lsc_ext.pretrain import PretrainStep
from lsc_ext.pretrain.config import STOPS
from lsc_ext.pretrain.stop import RULES

TARGETS = {"time": 0.5, "depth": 0.5, "output": 1.0}
SINGLE = {"dtype": torch.float32}


def record(time, depth, output=1.0, error=0.0):
    means = {"time": list(time), "depth": list(depth), "output": [output]}
    distances = [abs(mean - TARGETS[d]) for d, row in means.items() for mean in row]
    errors = {d: [error] * len(row) for d, row in means.items()}
    return PretrainStep(0, 0.0, max(distances), means, 1.0, errors)


def steps_until_met(stop, records, **options):
    """How many of the records the rule needs; None where it is never met."""
    options = {"tolerance": 0.05, "patience": 3, **options}
    rule = RULES[stop](lsc.PretrainConfig(stop=stop, **options), TARGETS)
    return next((i for i, given in enumerate(records, 1) if rule.met(given)), None)


THERE = record((0.5, 0.52), (0.49,))
UNSURE = record((0.5, 0.52), (0.49,), error=0.03)
UNKNOWN = record((0.5, 0.52), (0.49,), error=math.nan)
AWAY_OUTPUT = record((0.5, 0.52), (0.49,), output=3.0)
BALANCED = record((0.3, 0.7), (0.5,))  # right on average, and nowhere else
FAR = record((0.9, 0.9), (0.9,))
FARTHER = record((2.0, 2.0), (2.0,))

# How many of 60 equal records each rule needs, in the order of the rules' names below.
NEEDED = {
    "there": (THERE, {"mean": 3, "certain": 3, "paper": 9, "paper_average": 11, "never": None}),
    "unsure": (UNSURE, {"mean": 3, "certain": None, "paper": 9, "paper_average": 11, "never": None}),
    "unknown error": (UNKNOWN, {"mean": 3, "certain": None, "paper": 9, "paper_average": 11, "never": None}),
    "output away": (AWAY_OUTPUT, {"mean": None, "certain": None, "paper": 9, "paper_average": 11, "never": None}),
    "balanced": (BALANCED, {"mean": None, "certain": None, "paper": None, "paper_average": 11, "never": None}),
    "far": (FAR, dict.fromkeys(STOPS)),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("case", NEEDED)
def test_a_rule_needs_as_many_steps_as_it_says(case, stop):
    """The moving variance falls as 0.9^t from 1: below 0.5 at the 7th step, below 0.4 at the 9th."""
    given, needed = NEEDED[case]
    assert steps_until_met(stop, [given] * 60) == needed[stop]


@pytest.mark.parametrize("stop", ["mean", "certain", "paper", "paper_average"])
def test_a_step_that_is_not_there_begins_the_count_anew(stop):
    patient = {"patience": 21, "tolerance": 0.08}
    alone = steps_until_met(stop, [THERE] * 100, **patient)
    broken = steps_until_met(stop, [THERE] * 15 + [FARTHER] + [THERE] * 85, **patient)
    assert alone is not None
    assert broken is not None
    assert broken >= 16 + 21


def test_after_its_second_best_step_the_paper_wants_a_tenth_of_the_variance():
    """Each of these is nearer on average than any before while the variance is below 0.5; then it must be below 0.1."""
    spread = math.sqrt(0.3)
    wide = [record((0.5 - spread, 0.5 + spread), (0.5 + 0.01 / k,)) for k in range(1, 40)]
    near = [record((0.5,), (0.5 + 1e-4 / k,)) for k in range(1, 40)]
    assert steps_until_met("paper", wide + near, tolerance=1.0, patience=20) > 39
    assert steps_until_met("paper", wide[:1] * 39, tolerance=1.0, patience=20) is not None  # one best step: bound 0.5
    assert steps_until_met("paper", near, tolerance=1.0, patience=1) >= 7


def test_the_variance_of_the_paper_is_that_of_the_distances_to_the_targets():
    rule = RULES["paper"](lsc.PretrainConfig(tolerance=0.05, patience=1), {"time": 0.95, "depth": 0.05})
    given = PretrainStep(0, 0.0, 0.0, {"time": [0.95] * 2, "depth": [0.05]}, 1.0, {})
    assert any(rule.met(given) for _ in range(60))


@pytest.mark.parametrize("cell", ["gru", "rnn_relu"])
def test_the_error_of_a_mean_is_how_much_it_scatters_over_fresh_points(cell):
    """Weights stand still (a learning rate of nothing), so all that changes is the points."""
    model, x = stack(cell, 6, 12, 2, gain=2.0, **SINGLE), normal(20, 400, 6, dtype=torch.float32)
    options = {"moves": ("gradient",), "lr": 1e-12, "steps": 60, "stop": "never", "directions": ("time",)}
    result = lsc.pretrain(model, x, 0.5, max_points=24, batch_size=24, **options)
    for layer in range(2):
        means = torch.tensor([step.means["time"][layer] for step in result.history])
        claimed = torch.tensor([step.errors["time"][layer] for step in result.history]).square().mean().sqrt()
        assert float(claimed / means.std()) == pytest.approx(1, abs=0.35)


def test_certainty_takes_more_points_and_not_more_luck():
    options = {"steps": 150, "tolerance": 0.01, "patience": 2, "directions": ("time",), "batch_size": 200}
    x = normal(12, 250, 6, dtype=torch.float32)

    def run(stop, points):
        return lsc.pretrain(stack("rnn_relu", 6, 12, 1, **SINGLE), x, 0.5, stop=stop, max_points=points, **options)

    few, many = run("certain", 12), run("certain", 600)
    assert run("mean", 12).converged
    assert not few.converged
    assert many.converged
    assert all(2 * step.errors["time"][0] <= 0.01 for step in many.history[-2:])
    assert many.deviation() < 0.02


def test_a_single_sequence_has_no_certainty():
    with pytest.raises(ValueError, match="stop: expected 'certain' for several sequences"):
        lsc.pretrain(stack("gru", 6, 8, 2, **SINGLE), normal(20, 1, 6, dtype=torch.float32), 0.5, stop="certain")


def test_errors_of_a_single_sequence_are_not_known_and_saved_as_null(tmp_path):
    x = normal(20, 1, 6, dtype=torch.float32)
    result = lsc.pretrain(stack("gru", 6, 8, 2, **SINGLE), x, 0.5, steps=2, max_points=4)
    assert all(math.isnan(error) for error in result.history[0].errors["time"])
    assert '"errors"' in result.save(tmp_path / "r.json").read_text()
