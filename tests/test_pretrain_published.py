"""What the published rules do, as ranges: an independent implementation of them in numpy gave the figures beside them.

Of these, `rec` are radii in time, `enc` along the input, `depth` along depth, all after 400 steps without a gradient.
"""

import pytest
import torch
from networks import normal

import lsc_ext as lsc
from lsc_ext.demo import gradient_profile

SINGLE = {"dtype": torch.float32}


def published(cell, target, moves=("rescale", "shuffle"), steps=400, **options):
    """The rescaling of July 2023 and shuffling alone, on 2 layers of 32 units that read 40 normal numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = lsc.nn.initialize(getattr(lsc.nn, cell)(40, 32, 2, **options), "keras")
    config = lsc.PretrainConfig.paper_rnn(moves=moves, steps=steps, tol=0.03, max_points=16)
    return lsc.pretrain(model, normal(20, 64, 40, dtype=torch.float32), target, config=config)


def late_means(result, direction, steps=50):
    """Of each layer over the last steps."""
    rows = [step.means[direction] for step in result.history[-steps:]]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_gates_leave_the_published_rules_above_one_half():
    """LSTM rec .995, .948, GRU .94, .735, with enc and depth at .50: a rule that multiplies cannot lower a gate."""
    for cell, floor in (("LSTM", 0.94), ("GRU", 0.66)):
        result = published(cell, 0.5, steps=50)
        assert not result.converged
        assert min(late_means(result, "time", 20)) > floor
        assert late_means(result, "input", 20) + late_means(result, "depth", 20) == pytest.approx([0.5] * 2, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_a_gate_bias_brings_the_published_rules_to_one_half(cell):
    result = published(cell, 0.5, moves=("rescale", "gate_bias", "shuffle"), steps=250)
    assert late_means(result, "time", 20) == pytest.approx([0.5] * 2, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "nonlinearity", "spread"), [("LSTM", None, 0.02), ("GRU", None, 0.02), ("RNN", "relu", 0.06)]
)
def test_the_published_rules_reach_one(cell, nonlinearity, spread):
    """LSTM rec 1.002, 1.002, GRU .999, 1.0, ReLU .98 to 1.0; enc and depth 1.00 to 1.01."""
    options = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
    result = published(cell, 1.0, steps=200, **options)
    assert late_means(result, "time") == pytest.approx([1.0] * 2, abs=spread)
    assert late_means(result, "input") + late_means(result, "depth") == pytest.approx([1.0] * 2, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("nonlinearity", "first"), [("relu", (0.6, 0.9)), ("sigmoid", (0.18, 0.27))])
def test_elman_networks_reach_one_half_by_the_stop_rule_of_the_paper(nonlinearity, first):
    """ReLU rec .68, .76 before, all .50 after, the rule met at step 125 of 400; sigmoid .22 before, .50 after."""
    result = published("RNN", 0.5, nonlinearity=nonlinearity)
    assert all(first[0] < mean < first[1] for mean in result.history[0].means["time"])
    assert result.converged
    assert late_means(result, "time", 20) == pytest.approx([0.5] * 2, abs=0.06)


def test_a_clipped_factor_takes_as_many_steps_as_its_powers():
    """Sigmoid .25 to .5: at least 5 steps of 1.15; to 1: at least 10."""
    counts = []
    for target in (0.5, 1.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = lsc.nn.initialize(lsc.nn.RNN(40, 32, nonlinearity="sigmoid"), "keras")
        config = lsc.PretrainConfig.paper_rnn(moves=("rescale",), steps=16, directions=("time",), max_points=8)
        result = lsc.pretrain(model, normal(6, 40, 40, dtype=torch.float32), target, config=config)
        means = [step.means["time"][0] for step in result.history]
        counts.append(next(i for i, mean in enumerate(means) if mean > 0.95 * target))
    assert counts[0] in range(5, 8)
    assert counts[1] in range(10, 15)


def residual_means(layers, target, steps, sequence=32):
    """Mean radius in time and along diagonal at each of some steps of the schedule for linear recurrent units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = lsc.nn.ResLRU(16, 16, layers)
    config = lsc.PretrainConfig.paper_lru(steps=max(steps) + 1, time_steps=sequence, tol=0.05, certify_points=2)
    history = lsc.pretrain(model, None, target, config=config).history
    return [tuple(sum(row) / len(row) for row in history[step].means.values()) for step in steps]


@pytest.mark.slow
def test_linear_units_come_to_one_half_as_fast_as_their_rule_allows():
    """Width 32, 3 layers: (.989, .115) at first, (.72, .36) at step 50, (.502, .544) at 100."""
    first, middle, last = residual_means(3, 0.5, (0, 50, 100))
    assert first[0] == pytest.approx(0.985, abs=0.01)
    assert 0.06 < first[1] < 0.16
    assert middle[0] == pytest.approx(0.72, abs=0.08)
    assert 0.25 < middle[1] < 0.55
    assert last[0] == pytest.approx(0.5, abs=0.03)
    assert last[1] == pytest.approx(0.5, abs=0.2)


@pytest.mark.slow
def test_linear_units_come_near_one_and_stay_below():
    """3 layers: (.998, 1.06) at step 100; the radius in time stays below 1."""
    (last,) = residual_means(3, 1.0, (120,))
    assert 0.99 < last[0] < 1
    assert last[1] == pytest.approx(1.0, abs=0.35)


@pytest.mark.slow
def test_the_unbalanced_target_is_near_where_linear_units_start():
    """3 layers, 100 steps: (.971, .031) by step 50."""
    (last,) = residual_means(3, "unbalanced", (60,), sequence=100)
    assert last[0] == pytest.approx(100 / 103, abs=0.01)
    assert last[1] == pytest.approx(3 / 103, abs=0.02)


@pytest.mark.slow
def test_gradients_over_time_are_flat_at_one_half_and_front_loaded_at_one():
    """7 GRU layers: the norm of d (sum of outputs) / d x[t] over t."""
    profiles = []
    for target in (0.5, 1.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = lsc.nn.GRU(8, 24, 7)
        x, options = normal(60, 32, 8, dtype=torch.float32), {"max_points": 16, "certify_points": 16, "batch_size": 16}
        lsc.pretrain(model, x, target, steps=100, tolerance=0.05, tol=0.03, **options)
        profile = gradient_profile(model, x)
        profiles.append([sum(profile[t : t + 12]) / 12 for t in range(0, 60, 12)])
    half, one = profiles
    assert max(half[:4]) < 1.3 * min(half[:4])
    assert one == sorted(one, reverse=True)
    assert one[0] > 2 * one[4]
    assert one[0] > 30 * half[0]
