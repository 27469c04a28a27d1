"""The schedules of the paper by name, on small networks of their kind."""

import itertools
import json

import pytest
import torch
from networks import linear, normal
from torch import nn

import lsc_ext as lsc
from lsc_ext.cli import main
from lsc_ext.pretrain import PRESETS, resolve_target

INPUTS, HIDDEN = 6, 10


def recurrent(cell="GRU", hidden=HIDDEN, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lsc.nn.initialize(getattr(lsc.nn, cell)(INPUTS, hidden, 2, **options), "paper")


def residual(layers=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lsc.nn.ResLRU(6, 6, layers)


def dense(layers=6, activation=nn.ReLU):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = [INPUTS, *[16] * layers]
        model = nn.Sequential(
            *[part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), activation())]
        )
        return lsc.nn.initialize(model, "glorot_normal")


def parameters_of(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def sequences(batch=24):
    return normal(12, batch, INPUTS, dtype=torch.float32)


def test_every_preset_is_a_constructor_of_the_configuration():
    for name, make in PRESETS.items():
        assert make() == getattr(lsc.PretrainConfig, name)()
        assert make(steps=3).steps == 3
        assert make() != lsc.PretrainConfig()
    assert len({make() for make in PRESETS.values()}) == len(PRESETS) == 3


def test_the_presets_have_the_numbers_of_the_published_code():
    rnn, lru, ffn = (make() for make in PRESETS.values())
    assert (rnn.optimizer, rnn.lookahead, rnn.lr, rnn.weight_decay) == ("adabelief", 6, 7.2e-3, 1e-4)
    assert (rnn.tolerance, rnn.patience, rnn.stop) == (0.08, 21, "paper")
    assert (rnn.rescale_rule, rnn.rescale_limit, rnn.shuffle_probability) == ("paper_2023", 0.15, 0.34)
    assert (lru.steps, lru.batch_size, lru.rescale_limit, lru.shuffle_probability) == (500, 8, 0.05, 1.0)
    assert (lru.states, lru.stop, lru.moves) == ("normal", "never", ("rescale", "shuffle", "swap"))
    assert (ffn.lr, ffn.rescale_probability, ffn.shuffle_probability) == (1e-4, 0.34, 0.2)
    assert (ffn.tolerance, ffn.patience, ffn.stop, ffn.schedule) == (0.02, 11, "paper_average", "pair")
    assert all(preset.anneal is None and preset.plateau is None for preset in (rnn, lru, ffn))


def test_a_preset_is_what_its_options_say():
    results = [
        lsc.pretrain(recurrent(), sequences(), 0.5, steps=6, max_points=4, **how)
        for how in ({"preset": "paper_rnn"}, {"config": lsc.PretrainConfig.paper_rnn()}, {})
    ]
    assert results[0].history == results[1].history != results[2].history
    assert results[0].config.rescale_rule == "paper_2023"


def test_a_preset_beside_a_config_and_an_unknown_one_are_refused():
    with pytest.raises(ValueError, match="preset: expected None beside a config, got both"):
        lsc.pretrain(recurrent(), sequences(), preset="paper_rnn", config=lsc.PretrainConfig())
    with pytest.raises(ValueError, match="preset: expected one of paper_rnn, paper_lru, paper_ffn, got 'paper'"):
        lsc.pretrain(recurrent(), sequences(), preset="paper")


@pytest.mark.slow
def test_the_recurrent_preset_brings_a_relu_network_to_one_half_by_its_own_stop_rule():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = lsc.nn.initialize(lsc.nn.RNN(20, 30, 2, nonlinearity="relu"), "paper")
    x = normal(12, 64, 20, dtype=torch.float32)
    result = lsc.pretrain(model, x, 0.5, preset="paper_rnn", max_points=24, tol=0.03)
    assert result.targets == {"time": 0.5, "input": 0.5, "depth": 0.5}
    assert result.converged
    assert len(result.history) >= 21
    rows = [row["mean"] for row in result.after.rows()]
    assert rows == pytest.approx([0.5] * len(rows), abs=0.12)


def test_the_recurrent_preset_takes_a_readout():
    model, readout = recurrent("RNN", nonlinearity="relu"), linear(HIDDEN, 40, dtype=torch.float32)
    before = readout.weight.detach().clone()
    result = lsc.pretrain(model, sequences(), 0.5, preset="paper_rnn", readout=readout, max_points=4, steps=12)
    assert result.targets == {"time": 0.5, "input": 0.5, "depth": 0.5, "output": 1.0}
    assert not torch.equal(before, readout.weight)
    first, last = (max(result.history[i].means["output"]) for i in (0, -1))
    assert abs(last - 1) < abs(first - 1)


def test_the_linear_preset_needs_no_data_and_brings_the_moduli_down():
    result = lsc.pretrain(residual(2), None, 0.5, preset="paper_lru", steps=80, certify_points=8)
    assert len(result.history) == 80
    assert not result.converged
    first, last = result.history[0].means, result.history[-1].means
    assert min(first["time"]) > 0.9
    assert last["time"] == pytest.approx([0.5] * 2, abs=0.03)
    later = [mean for step in result.history[-30:] for mean in step.means["diagonal"]]
    assert sum(later) / len(later) == pytest.approx(0.5, abs=0.1)


def test_the_feed_forward_preset_brings_a_relu_network_to_one_and_stops():
    model = dense(4)
    x = normal(300, INPUTS, dtype=torch.float32)
    result = lsc.pretrain(model, x, preset="paper_ffn", max_points=12, batch_size=32, seed=0)
    assert result.targets == {"depth": 1.0}
    assert result.converged
    before = sum(row["mean"] for row in result.before.rows()) / 3
    after = sum(row["mean"] for row in result.after.rows()) / 3
    assert before < 0.8
    assert after == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_interrupted_preset_leaves_the_best_weights(preset):
    model, data = {
        "paper_rnn": (recurrent("LSTM"), sequences()),
        "paper_lru": (residual(), None),
        "paper_ffn": (dense(), normal(60, INPUTS, dtype=torch.float32)),
    }[preset]
    seen, deviations = [], []

    def callback(step):
        seen.append(parameters_of(model))
        deviations.append(step.deviation)
        if step.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lsc.pretrain(model, data, 0.5, preset=preset, max_points=4, callback=callback)
    best = seen[deviations.index(min(deviations))]
    assert torch.equal(best, parameters_of(model))
    assert not all(torch.equal(seen[0], later) for later in seen)


@pytest.mark.parametrize(
    ("target", "directions", "layers", "expected"),
    [
        (None, ("time", "depth", "input"), 3, {"time": 0.5, "depth": 0.5, "input": 1.0}),
        (0.5, ("time", "input", "output"), 3, {"time": 0.5, "input": 0.5, "output": 1.0}),
        (None, ("time", "output"), 1, {"time": 1.0, "output": 1.0}),
        (
            "unbalanced",
            ("time", "diagonal", "input", "output"),
            5,
            {"time": 0.75, "diagonal": 0.25, "input": 1.0, "output": 1.0},
        ),
        ({"time": 0.5, "output": 0.7}, ("time", "output"), 3, {"time": 0.5, "output": 0.7}),
    ],
)
def test_input_and_output_have_their_own_targets(target, directions, layers, expected):
    assert resolve_target(target, directions, layers, 15) == expected


SMALL = ["--hidden-size", "8", "--layers", "2", "--time-steps", "5", "--batch-size", "8", "--input-size", "8"]


@pytest.mark.parametrize(
    ("preset", "architecture"), [("paper_rnn", "lstm"), ("paper_lru", "res_lru"), ("paper_ffn", "feed_forward_relu")]
)
def test_the_command_line_takes_presets(preset, architecture, capsys):
    given = ["pretrain", "--architecture", architecture, *SMALL, "--preset", preset, "--json"]
    assert main([*given, "--steps", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = PRESETS[preset](steps=3)
    assert printed["config"]["rescale_rule"] == expected.rescale_rule
    assert printed["config"]["moves"] == list(expected.moves)
    assert printed["config"]["stop"] == expected.stop
    assert main([*given, "--steps", "2", "--moves", "shuffle", "--stop", "mean", "--tolerance", "0.3"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["moves"], config["stop"], config["tolerance"]) == (["shuffle"], "mean", 0.3)


def test_the_command_line_has_the_defaults_of_the_library_without_a_preset(capsys):
    assert main(["pretrain", "--cell", "gru", *SMALL, "--json", "--tolerance", "9"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    defaults = lsc.PretrainConfig(tolerance=9)
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()} == vars(defaults)
