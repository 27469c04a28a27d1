import importlib
import json
import math

import pytest
import torch
from networks import linear, normal, stack
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

import lsc_ext as lsc
from lsc_ext.pretrain import PRETRAINED_DIRECTIONS, resolve_target

STEPS, BATCH, INPUTS = 10, 16, 6
SINGLE = {"dtype": torch.float32}


def sequences(batch=BATCH, steps=STEPS, seed=1):
    return normal(steps, batch, INPUTS, seed=seed, dtype=torch.float32)


def small(cell="gru", hidden=16, layers=3, gain=1.0, **options):
    return stack(cell, INPUTS, hidden, layers, gain=gain, **SINGLE, **options)


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def assert_same_weights(model, weights):
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        assert torch.equal(parameter, weight)


def quick(model, data, target=0.5, **options):
    options.setdefault("steps", 3)
    options.setdefault("max_points", 8)
    return lsc.pretrain(model, data, target, **options)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("cell", ["rnn_relu", "gru", "lstm"])
def test_a_stack_reaches_one_half_in_every_layer_on_held_out_points(cell, gain):
    model = small(cell, gain=gain)
    result = lsc.pretrain(model, sequences(32), 0.5, steps=400, max_points=16, tolerance=0.03, patience=3)
    assert result.converged
    assert result.deviation() < 0.05


@pytest.mark.parametrize("cell", ["rnn_relu", "gru"])
def test_a_stack_reaches_one(cell):
    result = lsc.pretrain(small(cell), sequences(32), 1.0, steps=400, max_points=16, tolerance=0.04, patience=3)
    assert result.deviation() < 0.08


def test_a_torch_layer_is_changed_in_place():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.GRU(INPUTS, 16, 2)
    weights = weights_of(model)
    result = lsc.pretrain(model, sequences(32), 0.5, steps=300, max_points=16, tolerance=0.03, patience=3)
    assert result.deviation() < 0.05
    assert not torch.equal(model.weight_hh_l0, weights[1])


def test_directions_may_have_their_own_targets():
    targets = {"time": 0.8, "depth": 0.4}
    result = lsc.pretrain(small(), sequences(32), targets, steps=400, max_points=16, tolerance=0.03, patience=3)
    assert result.targets == targets
    assert result.deviation() < 0.06


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_rescaling_alone_stops_at_the_floor_of_the_gates_and_the_default_moves_pass_it(cell):
    options = {"steps": 250, "max_points": 16, "directions": ("time",), "tolerance": 0.02, "patience": 3}
    rescaled = lsc.pretrain(small(cell, layers=1), sequences(32), 0.3, moves=("rescale",), **options)
    default = lsc.pretrain(small(cell, layers=1), sequences(32), 0.3, **options)
    assert float(rescaled.after["time"].mean()) > 0.3 + 0.08
    assert default.deviation() < 0.05


@pytest.mark.parametrize(
    ("target", "layers", "expected"),
    [
        (None, 1, {"time": 1.0, "depth": 1.0}),
        (None, 3, {"time": 0.5, "depth": 0.5}),
        (0.7, 3, {"time": 0.7, "depth": 0.7}),
        (1, 3, {"time": 1.0, "depth": 1.0}),
        ("unbalanced", 5, {"time": 0.75, "depth": 0.25}),
        ({"depth": 0.2, "time": 0.9}, 3, {"time": 0.9, "depth": 0.2}),
    ],
)
def test_targets_are_resolved_for_each_direction(target, layers, expected):
    assert resolve_target(target, ("time", "depth"), layers, 15) == expected


@pytest.mark.parametrize("target", [0, -1.0, math.inf, math.nan, True, "half", {"time": 0.5}, {"time": 1, "up": 1}])
def test_targets_that_make_no_sense_are_refused(target):
    model = small()
    weights = weights_of(model)
    with pytest.raises(ValueError, match="target"):
        quick(model, sequences(), target)
    assert_same_weights(model, weights)


def test_a_single_layer_is_pretrained_in_time_alone():
    result = quick(small(layers=1), sequences(), None)
    assert result.targets == {"time": 1.0}
    assert list(result.after) == ["time"]


def test_a_single_layer_has_no_depth_to_pretrain():
    with pytest.raises(ValueError, match="directions: expected one that this model has"):
        quick(small(layers=1), sequences(), directions=("depth",))


@pytest.mark.parametrize("direction", PRETRAINED_DIRECTIONS)
def test_every_direction_alone_is_brought_nearer(direction):
    model = small("rnn_tanh")
    readout = linear(16, 4, **SINGLE) if direction == "output" else None
    target = {direction: 0.5}
    result = lsc.pretrain(model, sequences(), target, readout=readout, directions=(direction,), steps=40, max_points=16)
    before = max(abs(row["mean"] - 0.5) for row in result.before.rows())
    assert result.deviation() < before


def loader(batch_first):
    x = sequences(12)
    rows = x.transpose(0, 1)
    return DataLoader(TensorDataset(rows, torch.arange(12)), batch_size=5) if batch_first else [x[:, :5], x[:, 5:]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (loader(True), True),
        lambda: (loader(False), False),
        lambda: (iter(loader(False)), False),
        lambda: ([(batch, "label") for batch in loader(False)], False),
        lambda: ((batch for batch in loader(True)), True),
    ],
    ids=["DataLoader of tuples", "list", "iterator", "tuples", "generator"],
)
def test_sequences_come_from_any_iterable(make):
    data, batch_first = make()
    result = quick(small(batch_first=batch_first), data)
    assert result.before["time"].radius.shape == (3, STEPS, 2)  # a fifth of 12 sequences


def test_batch_first_and_time_first_data_give_the_same_result():
    x = sequences()
    first, second = small(), small(batch_first=True)
    results = [quick(first, x), quick(second, x.transpose(0, 1))]
    assert [s.means for s in results[0].history] == [s.means for s in results[1].history]
    assert_same_weights(first, weights_of(second))


def test_no_data_means_standard_normal_sequences():
    result = quick(small(), None, time_steps=7, batch_size=4)
    assert result.before["time"].radius.shape == (3, 7, 4)


def test_an_endless_iterator_is_read_to_the_limit():
    def endless():
        while True:
            yield sequences(8)

    result = quick(small(), endless(), max_sequences=20, certify_points=None)
    assert result.before["time"].radius.shape == (3, STEPS, 5)  # a fifth of 24


def test_held_out_sequences_are_not_used_by_the_optimiser(monkeypatch):
    measurement, run = (importlib.import_module(f"lsc_ext.pretrain.{name}") for name in ("measurement", "run"))
    measured, certified = [], []
    optimise, certify = measurement.trajectory_of, run.radii
    monkeypatch.setattr(measurement, "trajectory_of", lambda m, x, *a: measured.append(x.clone()) or optimise(m, x, *a))
    monkeypatch.setattr(run, "radii", lambda m, x, **o: certified.append(x.clone()) or certify(m, x, **o))
    quick(small(), sequences(), batch_size=5, steps=4)
    held_out = {tuple(row.flatten().tolist()) for row in certified[0].unbind(1)}
    used = {tuple(row.flatten().tolist()) for x in measured for row in x.unbind(1)}
    assert len(held_out) == 3
    assert used
    assert not used & held_out
    assert torch.equal(*certified)


@pytest.mark.parametrize("unbatched", [True, False])
def test_of_a_single_sequence_the_last_fifth_is_held_out(unbatched):
    x = sequences(1, steps=20)
    result = quick(small(), x.squeeze(1) if unbatched else x)
    assert result.before["time"].radius.shape == (3, 4, 1)


def test_before_is_measured_with_the_weights_that_came_in():
    model, twin = small(gain=2), small(gain=2)
    first, second = quick(model, sequences()), quick(twin, sequences(), steps=1)
    assert torch.equal(first.before["time"].radius, second.before["time"].radius)
    assert not torch.equal(first.before["time"].radius, first.after["time"].radius)


def test_the_model_ends_with_the_weights_of_the_best_step():
    model, seen = small(gain=3), []
    result = quick(model, sequences(), steps=12, lr=0.3, callback=lambda step: seen.append(weights_of(model)))
    deviations = [step.deviation for step in result.history]
    assert result.best_step == deviations.index(min(deviations))
    assert_same_weights(model, seen[result.best_step])


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_exception_in_the_callback_restores_the_best_weights(error):
    model, seen, deviations = small(gain=3), [], []

    def callback(step):
        seen.append(weights_of(model))
        deviations.append(step.deviation)
        if step.step == 7:
            raise error

    with pytest.raises(error):
        quick(model, sequences(), steps=20, lr=0.3, callback=callback)
    assert len(seen) == 8
    assert_same_weights(model, seen[deviations.index(min(deviations))])
    assert model.training


def test_an_exception_within_a_step_restores_the_best_weights(monkeypatch):
    model, seen = small(), []
    step = torch.optim.AdamW.step

    def broken(self, *arguments):
        step(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(KeyboardInterrupt):
        quick(model, sequences(), callback=lambda _: seen.append(weights_of(model)))
    assert_same_weights(model, seen[0])


BAD_OPTIONS = {
    "unknown": ({"learning_rate": 1}, TypeError, "learning_rate: expected an option among .*lr"),
    "steps": ({"steps": 0}, ValueError, "steps: expected at least 1, got 0"),
    "batch_size": ({"batch_size": -1}, ValueError, "batch_size: expected at least 1, got -1"),
    "moves": (
        {"moves": ("jump",)},
        ValueError,
        r"moves: expected distinct names among gradient, rescale, .*, swap, got \('jump',\)",
    ),
    "no moves": ({"moves": ()}, ValueError, r"moves: expected distinct names .*, got \(\)"),
    "string": ({"moves": "rescale"}, TypeError, "moves: expected a sequence of names, got the string 'rescale'"),
    "directions": ({"directions": ("up",)}, ValueError, "directions: expected distinct names among time, depth"),
    "method": ({"method": "lanczos"}, ValueError, "method: expected one of auto"),
    "lr": ({"lr": math.nan}, ValueError, "lr: expected a positive number, got nan"),
    "weight_decay": ({"weight_decay": -1}, ValueError, "weight_decay: expected a number >= 0, got -1"),
    "holdout": ({"holdout": 1.0}, ValueError, "holdout: expected a number between 0 and 1, got 1.0"),
    "tol": ({"tol": 0}, ValueError, "tol: expected a number between 0 and 1, got 0"),
    "num_matvecs": ({"num_matvecs": 0}, ValueError, "num_matvecs: expected at least 1 or None, got 0"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_out_of_range_are_refused(case):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        quick(small(), sequences(), **options)


def with_nan(x):
    x = x.clone()
    x[3, 0, 0] = math.nan
    return x


BAD_DATA = {
    "nan": (lambda: with_nan(sequences()), ValueError, "data: expected finite numbers, got NaN or infinity"),
    "no sequences": (lambda: sequences(0), ValueError, "data: expected at least one sequence"),
    "no steps": (lambda: sequences(steps=0), ValueError, "data: expected at least one sequence of at least one step"),
    "one step": (lambda: sequences(1, steps=1), ValueError, "data: expected at least two steps of a single sequence"),
    "empty": (lambda: [], ValueError, "data: expected at least one batch, got an empty iterable"),
    "lengths": (lambda: [sequences(), sequences(steps=9)], ValueError, "data: expected sequences of one length"),
    "kind": (lambda: ["text"], TypeError, "data: expected tensors or tuples that begin with one, got str"),
    "dimensions": (lambda: torch.zeros(5), ValueError, "data: expected at least 2 dimensions, got shape"),
    "width": (lambda: torch.zeros(4, 3, 2), ValueError, "input: expected .* got 2"),
    "dtype": (lambda: sequences().double(), TypeError, "input: expected torch.float32"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_before_anything_changes(case):
    make, error, message = BAD_DATA[case]
    model = small()
    weights = weights_of(model)
    with pytest.raises(error, match=message):
        quick(model, make())
    assert_same_weights(model, weights)
    assert model.training


def test_weights_that_are_nan_are_refused_by_name():
    model = small()
    with torch.no_grad():
        model.weight_hh_l1[0, 0] = math.nan
    with pytest.raises(ValueError, match="model: expected finite weights, got NaN or infinity in weight_hh_l1"):
        quick(model, sequences())


def test_models_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="model: expected a torch.nn.RNN, .*, got Linear"):
        quick(linear(INPUTS, 3, dtype=torch.float32), sequences())


def test_radii_that_overflow_raise_and_leave_the_weights():
    model = small("rnn_relu", gain=1e25)
    weights = weights_of(model)
    with pytest.raises(FloatingPointError, match="model: expected finite radii"):
        quick(model, sequences())
    assert_same_weights(model, weights)


def test_saved_result_is_valid_json(tmp_path):
    result = quick(small(), sequences())
    path = result.save(tmp_path / "result.json")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["config"]["seed"] == 0
    assert content["targets"] == {"time": 0.5, "depth": 0.5}
    assert len(content["history"]) == len(result.history)
    assert content["after"]["rows"][0]["direction"] == "time"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_history_has_a_row_for_each_step_and_a_mean_for_each_layer():
    result = quick(small(), sequences(), steps=4)
    assert [step.step for step in result.history] == [0, 1, 2, 3]
    for step in result.history:
        assert {d: len(m) for d, m in step.means.items()} == {"time": 3, "depth": 2}
        distances = [abs(m - 0.5) for means in step.means.values() for m in means]
        assert step.deviation == max(distances)
        assert 0 <= step.certified <= 1
        assert step.loss > 0


def test_callback_receives_the_history():
    received = []
    result = quick(small(), sequences(), callback=received.append)
    assert received == result.history


def test_pretraining_stops_once_every_layer_has_stayed_there():
    result = quick(small(), sequences(), steps=50, tolerance=5.0, patience=4)
    assert result.converged
    assert len(result.history) == 4


def test_result_prints_what_happened():
    text = str(quick(small(), sequences()))
    assert text.startswith("pre-training to time 0.5, depth 0.5: stopped at the step limit after 3 steps")


@pytest.mark.parametrize("data", [True, False])
def test_the_same_seed_gives_the_same_weights(data):
    models = [small(), small(), small()]
    x = sequences() if data else None
    for model, seed in zip(models, (3, 3, 4), strict=True):
        torch.rand(1)  # the global generator has no say
        quick(model, x, seed=seed, batch_size=5)
    assert_same_weights(models[0], weights_of(models[1]))
    assert not torch.equal(models[0].weight_hh_l0, models[2].weight_hh_l0)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    quick(small(), sequences())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode(training):
    model = small().train(training)
    quick(model, sequences())
    assert model.training == training


def test_no_gradient_is_left_behind():
    model = small()
    quick(model, sequences())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("moves", [("gradient",), ("rescale",), ("gradient", "rescale")])
def test_frozen_parameters_stay(moves):
    model = small()
    model.weight_hh_l0.requires_grad_(False)
    model.weight_ih_l1.requires_grad_(False)
    weights = dict(zip((n for n, _ in model.named_parameters()), weights_of(model), strict=True))
    quick(model, sequences(), moves=moves)
    for name in ("weight_hh_l0", "weight_ih_l1"):
        assert torch.equal(model.get_parameter(name), weights[name])
    assert not torch.equal(model.weight_hh_l1, weights["weight_hh_l1"])


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="model: expected parameters that require gradients"):
        quick(small().requires_grad_(False), sequences())


def test_weight_norm_is_kept_and_helps():
    model = small()
    for layer in range(3):
        parametrizations.weight_norm(model, f"weight_hh_l{layer}")
    result = lsc.pretrain(model, sequences(32), 0.5, steps=200, max_points=16, tolerance=0.03, patience=3)
    assert result.deviation() < 0.08
    assert nn.utils.parametrize.is_parametrized(model, "weight_hh_l0")


def test_orthogonal_weights_stay_orthogonal():
    model = small("rnn_tanh")
    for layer in range(3):
        parametrizations.orthogonal(model, f"weight_hh_l{layer}")
    quick(model, sequences(), steps=10, moves=("gradient",))
    weight = model.weight_hh_l1.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(16), atol=1e-5, rtol=0)


def test_orthogonal_weights_cannot_be_rescaled_in_silence():
    model = small("rnn_tanh")
    parametrizations.orthogonal(model, "weight_hh_l0")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="moves: expected no 'rescale', got it for weight_hh_l0"):
        quick(model, sequences(), steps=10)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_config_and_options_may_be_mixed():
    config = lsc.PretrainConfig(steps=2, seed=5)
    result = lsc.pretrain(small(), sequences(), 0.5, config=config, max_points=8, steps=1)
    assert (result.config.steps, result.config.seed, result.config.max_points) == (1, 5, 8)


class Keeping(nn.Module):
    """A step that keeps its last result in a buffer, of another shape for every batch, as snnTorch's neurons do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(INPUTS + 4, 4)
        self.register_buffer("last", torch.zeros(0), persistent=False)

    def step(self, x, state):
        self.last = torch.tanh(self.linear(torch.cat((x, state), 1)))
        return self.last


def test_the_best_weights_are_restored_beside_buffers_that_change_their_shape():
    module, best = Keeping(), []
    model = lsc.StepModel(module.step, 4, module=module)

    def watch(step):
        if not best or step.deviation < best[-1][0]:
            best.append((step.deviation, weights_of(module)))
        model(sequences(3))
        if step.step == 5:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        quick(model, sequences(), 0.9, steps=6, lr=2.0, callback=watch)
    assert_same_weights(module, best[-1][1])


def test_layers_of_two_directions_reach_one_half_by_the_frobenius_norm_along_depth():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.GRU(INPUTS, 8, 2, bidirectional=True)
    result = lsc.pretrain(model, sequences(32), 0.5, steps=150, max_points=16, tolerance=0.03, patience=2)
    assert result.after.layers == {"time": [0, 1, 2, 3], "depth": [2, 3]}
    assert result.deviation() < 0.05
