"""Each move of pre-training by what it does to the weights in one step, and what keeps it apart from the others."""

import importlib
import itertools
import math

import pytest
import torch
from networks import linear, normal, stack
from torch import nn
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext.pretrain.config import MOVES, RESCALE_RULES
from lsc_ext.pretrain.moves import Chance, Gradient
from lsc_ext.trajectory import trajectory_of

STEPS, BATCH, INPUTS, HIDDEN = 8, 12, 6, 10
SINGLE = {"dtype": torch.float32}
LIMIT = 1.15


def sequences(batch=BATCH):
    return normal(STEPS, batch, INPUTS, dtype=torch.float32)


def build(name, layers=3, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lsc.nn.build(name, INPUTS, HIDDEN, layers, **options)


def data_for(model):
    return sequences() if hasattr(model, "batch_first") else sequences().flatten(0, 1)


def weights_of(*modules):
    return {name: p.detach().clone() for module in modules for name, p in module.named_parameters()}


def one_step(model, target=0.5, *, step=1, readout=None, data="own", **options):
    """Weights before and after a step's moves (after step ``step`` - 1), and what was measured before them."""
    modules = [model] if readout is None else [model, readout]
    seen, records = [], []

    def note(record):
        seen.append(weights_of(*modules))
        records.append(record)

    quick = {"steps": step + 1, "max_points": 8, "stop": "never", "anneal": None, "certify_points": 1}
    options = {**quick, **options}
    data = data_for(model) if isinstance(data, str) else data
    lsc.pretrain(model, data, target, readout=readout, callback=note, **options)
    return seen[step - 1], seen[step], records[step - 1]


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# What each move touches in each kind of network, by the beginnings of the names; the layers' numbers follow them.
TOUCHED = {
    ("gate_bias", "lstm"): ["bias_ih"],
    ("gate_bias", "gru"): ["bias_ih"],
    ("gate_bias", "min_gru"): ["bias_ih"],
    ("timescale", "lru"): ["nu_log"],
    ("timescale", "alif"): ["tau", "tau_a"],
    ("timescale", "lif"): ["tau"],
    ("rescale", "lru"): ["nu_log", "B"],
    ("rescale", "alif"): ["tau", "tau_a", "weight_hh", "weight_ih"],
    ("rescale", "lstm"): ["weight_hh", "weight_ih"],
    ("shuffle", "lstm"): ["weight_hh", "weight_ih"],
    ("shuffle", "lru"): ["B", "C", "D"],
    ("swap", "lstm"): ["weight_hh", "bias_ih", "bias_hh"],
}


@pytest.mark.parametrize(("move", "name"), TOUCHED)
def test_a_move_touches_its_own_weights_and_no_others(move, name):
    before, after, _ = one_step(build(name), moves=(move,), swap_probability=1.0, shuffle_probability=1.0)
    kinds = {key.rsplit("_l", 1)[0] for key in changed(before, after)}
    if move == "swap":  # of two layers that read as much, weight_ih is swapped too
        kinds -= {"weight_ih"}
    assert kinds == set(TOUCHED[move, name])


def test_the_gradient_touches_what_the_loss_depends_on():
    before, after, _ = one_step(build("lstm"), moves=("gradient",))
    assert {"bias_ih_l0", "weight_hh_l2", "weight_ih_l1"} <= changed(before, after)


@pytest.mark.parametrize(("name", "block", "sign"), [("lstm", 1, 1), ("gru", 1, 1), ("min_gru", 0, -1)])
@pytest.mark.parametrize("target", [0.2, 1.5])
def test_a_gate_bias_moves_the_gate_that_carries_the_past_towards_the_target(name, block, sign, target):
    before, after, record = one_step(build(name), {"time": target}, moves=("gate_bias",), directions=("time",))
    for layer in range(3):
        change = after[f"bias_ih_l{layer}"] - before[f"bias_ih_l{layer}"]
        rows = torch.zeros(change.shape[0], dtype=torch.bool)
        rows[block * HIDDEN : (block + 1) * HIDDEN] = True
        assert torch.equal(change[~rows], torch.zeros_like(change[~rows]))
        assert float(change[rows].std()) < 1e-6
        shift = float(change[rows].mean())
        assert math.copysign(1, shift) == math.copysign(1, sign * (target - record.means["time"][layer]))
        total = before[f"bias_ih_l{layer}"][rows]
        if name != "min_gru":
            total = total + before[f"bias_hh_l{layer}"][rows]
        rest = 1 - float(torch.sigmoid(sign * total).mean())
        assert abs(shift) <= math.log(LIMIT) / rest * 1.001


def test_a_gate_bias_brings_down_a_radius_that_rescaling_cannot():
    options = {"steps": 60, "tolerance": 0.03, "patience": 2, "directions": ("time",), "max_points": 16}
    for cell in ("gru", "lstm"):
        results = [
            lsc.pretrain(stack(cell, INPUTS, 12, 1, **SINGLE), sequences(24), 0.3, moves=moves, **options)
            for moves in (("rescale",), ("gate_bias",), ("rescale", "gate_bias"))
        ]
        assert results[0].deviation() > 0.1
        assert all(result.converged and result.deviation() < 0.05 for result in results[1:])


@pytest.mark.parametrize("target", [0.5, 0.985])
def test_a_timescale_multiplies_the_moduli_of_an_lru(target):
    before, after, record = one_step(build("lru"), {"time": target}, moves=("timescale",), directions=("time",))
    for layer, mean in enumerate(record.means["time"]):
        moduli = [(-w[f"nu_log_l{layer}"].exp()).exp() for w in (before, after)]
        factor = min(max(target / mean, 1 / LIMIT), LIMIT)
        assert (moduli[1] / moduli[0]).tolist() == pytest.approx([factor] * HIDDEN, rel=1e-4)


def test_what_rescaling_moves_the_timescale_does_not_move_again():
    results = [one_step(build("lru"), moves=moves)[1] for moves in (("rescale",), ("rescale", "timescale"))]
    assert changed(*results) == set()
    torch.manual_seed(0)
    alone = one_step(build("alif"), moves=("rescale",), rescale_rule="paper_2023")[1]
    both = one_step(build("alif"), moves=("rescale", "timescale"), rescale_rule="paper_2023")[1]
    assert changed(alone, both) == set()


def sorted_blocks(weight, count):
    return weight.reshape(count, -1).sort(1).values


def test_a_shuffle_keeps_the_entries_of_every_gate():
    before, after, _ = one_step(build("lstm"), moves=("shuffle",), shuffle_probability=1.0)
    for name in changed(before, after):
        assert torch.equal(sorted_blocks(before[name], 4), sorted_blocks(after[name], 4))


def test_a_shuffle_of_the_weight_mixes_gates_and_vectors_where_they_are_wanted():
    options = {"moves": ("shuffle",), "shuffle_probability": 1.0, "shuffle_scope": "weight"}
    before, after, _ = one_step(build("lstm"), **options)
    assert changed(before, after) == {f"weight_{part}_l{k}" for part in ("ih", "hh") for k in range(3)}
    for name in changed(before, after):
        assert torch.equal(sorted_blocks(before[name], 1), sorted_blocks(after[name], 1))
        assert not torch.equal(sorted_blocks(before[name], 4), sorted_blocks(after[name], 4))
    before, after, _ = one_step(build("lstm"), **options, shuffle_vectors=True)
    assert changed(before, after) == set(before)


def test_a_shuffle_never_mixes_real_and_imaginary_parts():
    before, after, _ = one_step(build("lru"), moves=("shuffle",), shuffle_probability=1.0, shuffle_scope="weight")
    names = changed(before, after)
    assert names == {"D_l0"} | {f"{matrix}_l{k}" for matrix in ("B", "C") for k in range(3)}
    for name in names - {"D_l0"}:
        assert torch.equal(sorted_blocks(before[name], 2), sorted_blocks(after[name], 2))


def test_a_chance_falls_linearly_and_draws_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    chance = Chance(0.34, 100, generator)
    assert [chance.at(step) for step in (0, 50, 100, 500)] == pytest.approx([0.34, 0.17, 0, 0])
    constant = Chance(0.34, None, generator)
    assert [constant.at(step) for step in (0, 500)] == [0.34, 0.34]
    taken = sum(constant.taken(0) for _ in range(5000)) / 5000
    assert taken == pytest.approx(0.34, abs=0.02)
    assert not any(chance.taken(100) for _ in range(1000))


@pytest.mark.parametrize(("anneal", "last"), [(0.25, 4), (1.0, 16), (None, 16)])
@pytest.mark.parametrize("move", ["shuffle", "swap"])
def test_shuffling_and_swapping_end_where_annealing_says(move, anneal, last):
    seen = []
    model = build("rnn_tanh")
    options = {"shuffle_probability": 1.0, "swap_probability": 1.0, "steps": 16, "stop": "never", "max_points": 2}
    lsc.pretrain(
        model, sequences(), 0.5, moves=(move,), anneal=anneal, callback=lambda _: seen.append(weights_of(model)),
        **options
    )  # fmt: skip
    steps = [bool(changed(a, b)) for a, b in itertools.pairwise(seen)]
    assert steps[0]
    assert not any(steps[last:])
    assert any(steps[4:]) == (anneal != 0.25)


def test_a_swap_exchanges_the_first_halves_of_two_layers():
    model = build("gru", layers=2)
    before, after, _ = one_step(model, moves=("swap",), swap_probability=1.0)
    assert changed(before, after) == {f"{w}_l{k}" for w in ("weight_hh", "bias_ih", "bias_hh") for k in (0, 1)}
    for name in ("weight_hh", "bias_ih", "bias_hh"):
        (a, b), (c, d) = ([w[f"{name}_l{k}"].flatten() for k in (0, 1)] for w in (before, after))
        half = a.numel() // 2
        assert torch.equal(c, torch.cat((b[:half], a[half:])))
        assert torch.equal(d, torch.cat((a[:half], b[half:])))


def clipped(ratio, limit=0.15, largest=None):
    return min(max(ratio, 1 - limit), largest or 1 + limit)


# rule, network, directions -> beginning of a name -> what its factor is taken from; the others stay.
RULES = {
    ("paper_2023", "lstm"): {"weight_ih": "in", "weight_hh": "time", "bias_ih": "in", "bias_hh": "in"},
    ("paper_2023", "gru"): {"weight_ih": "in", "weight_hh": "time", "bias_ih": "in", "bias_hh": "in"},
    ("paper_2025", "lstm"): {"weight_ih": "in", "weight_hh": "time"},
    ("paper_2025", "gru"): {"weight_hh": "time"},
    ("paper_2025", "rnn_tanh"): {"weight_hh": "time"},
    ("paper_2023", "alif"): {
        "weight_ih": "in", "weight_hh": "time", "tau": "time", "tau_a": "time", "threshold": "in", "beta": "in"
    },
    ("paper_2025", "alif"): {
        "weight_ih": "in", "weight_hh": "time", "tau": "time", "tau_a": "time", "threshold": "in", "beta": "in"
    },
    ("paper_2023", "lru"): {"nu_log": "time", "B": "in", "C": "in"},
    ("paper_lru", "lru"): {"nu_log": "time", "B": "in", "C": "in"},
    ("paper_2025", "complex_diagonal"): {"lambda": "time", "B": "in", "C": "in"},
}  # fmt: skip


@pytest.mark.parametrize(("rule", "name"), RULES)
def test_a_published_rule_multiplies_each_weight_by_what_it_says(rule, name):
    limit = 0.05 if rule == "paper_lru" else 0.15
    linear_units = name in ("lru", "complex_diagonal")
    along = "diagonal" if linear_units else "depth"
    directions = ("time", along) if rule == "paper_lru" else ("time", "input", along)
    options = {"moves": ("rescale",), "directions": directions, "rescale_limit": limit}
    targets = {"time": 0.8, along: 0.5, "input": 0.6}
    before, after, record = one_step(build(name), {d: targets[d] for d in directions}, rescale_rule=rule, **options)
    for key, old in before.items():
        kind, layer = key.rsplit("_l", 1)
        source = RULES[rule, name].get(kind)
        if source == "in":
            source = along if int(layer) > 0 else "input"
        factor = 1.0
        if source in directions:
            row = record.means[source]
            mean = row[int(layer) - (1 if source == along else 0)]
            factor = clipped(targets[source] / mean, limit)
        torch.testing.assert_close(after[key], old * factor, rtol=1e-5, atol=1e-7)
        assert (source in directions) == (not torch.equal(after[key], old)) or factor == 1.0 or not bool(old.any())


def test_the_gated_map_of_a_residual_block_is_scaled_by_two_of_the_rules():
    for rule, touched in (("paper_2023", True), ("paper_2025", True), ("paper_lru", False)):
        options = {"moves": ("rescale",), "directions": ("time", "diagonal"), "rescale_rule": rule}
        before, after, _ = one_step(build("res_lru", 2, state_size=6), **options)
        assert ("blocks.1.gate.weight" in changed(before, after)) == touched
        assert "blocks.1.lru.B_l0" in changed(before, after)
        assert ("blocks.1.gate.bias" in changed(before, after)) is False  # biases start at 0


def dense(scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(INPUTS, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Linear(20, 4))
    with torch.no_grad():
        model[2].weight.mul_(scale)
    return model


def test_the_feed_forward_rule_takes_the_ends_by_their_spread_and_may_jump():
    model = dense(0.6)
    with torch.no_grad():
        model[4].weight.mul_(1.6)
    options = {"moves": ("rescale",), "rescale_rule": "paper_ffn", "directions": ("depth",)}
    before, after, record = one_step(model, 1.0, **options)
    radii = [1.0, *record.means["depth"]]
    assert radii[1] < 0.5 < radii[2]
    for layer, radius in enumerate(radii):
        name = f"{2 * layer}.weight"
        old = before[name]
        ends = {0: 20, 3: 20}  # what the first hands up, what the last reads
        ratio = 1 / (float(old.std(correction=0)) * ends[layer] ** 0.5) if layer in ends else 1 / radius
        factor = clipped(ratio, largest=3.0 if radius < 0.5 else None)
        torch.testing.assert_close(after[name], old * factor, rtol=1e-5, atol=0)
        assert torch.equal(before[f"{2 * layer}.bias"], after[f"{2 * layer}.bias"])


def test_the_rules_differ_from_one_another():
    found = {}
    for rule in RESCALE_RULES:
        options = {"moves": ("rescale",), "rescale_rule": rule, "directions": ("time", "depth")}
        found[rule] = one_step(build("lstm"), **options)[1]
    for i, a in enumerate(RESCALE_RULES):
        for b in RESCALE_RULES[:i]:
            if {a, b} != {"paper_2025", "paper_lru"}:
                assert changed(found[a], found[b]), (a, b)
    assert changed(found["paper_2025"], found["paper_lru"]) == {f"weight_hh_l{k}" for k in range(3)}


def test_rescaling_happens_as_often_as_it_is_told():
    model, seen = build("rnn_tanh"), []
    options = {"moves": ("rescale",), "rescale_rule": "paper_2023", "rescale_probability": 0.34, "stop": "never"}
    lsc.pretrain(
        model, sequences(), 1.0, steps=60, max_points=1, callback=lambda _: seen.append(weights_of(model)), **options
    )
    moved = sum(bool(changed(a, b)) for a, b in itertools.pairwise(seen))
    assert 10 < moved < 32


def gradient_change(**options):
    before, after, _ = one_step(build("rnn_tanh"), moves=("gradient",), **options)
    return {name: (after[name] - before[name]).abs() for name in before}


def test_the_two_rates_differ_by_the_fan_in():
    by_fan, equal = (gradient_change(rates=rates, lr=1e-3) for rates in ("fan_in", "equal"))
    torch.testing.assert_close(equal["bias_ih_l1"], by_fan["bias_ih_l1"])
    torch.testing.assert_close(equal["weight_hh_l1"], by_fan["weight_hh_l1"] * HIDDEN, rtol=1e-2, atol=1e-7)


def test_the_optimisers_differ_and_decay_is_decoupled():
    adam, belief = (gradient_change(optimizer=name, rates="equal", lr=1e-3) for name in ("adamw", "adabelief"))
    flat = adam["weight_hh_l1"][adam["weight_hh_l1"] > 0]
    assert flat.tolist() == pytest.approx([1e-3] * flat.numel(), rel=0.05)  # a sign step
    assert float(belief["weight_hh_l1"].max() / belief["weight_hh_l1"].median()) > 2  # along the gradient itself
    plain, decayed = (
        one_step(build("rnn_tanh"), moves=("gradient",), optimizer="adabelief", lr=0.01, weight_decay=w, rates="equal")
        for w in (0.0, 0.5)
    )
    expected = plain[1]["weight_hh_l0"] - 0.01 * 0.5 * plain[0]["weight_hh_l0"]
    torch.testing.assert_close(decayed[1]["weight_hh_l0"], expected)


def test_lookahead_goes_back_half_of_the_way_at_its_step():
    options = {"moves": ("gradient",), "max_points": 4, "lr": 1e-3}
    free, held = ([], [])
    for seen, lookahead in ((free, None), (held, 2)):
        model = build("rnn_tanh")
        lsc.pretrain(
            model, sequences(), 0.5, steps=3, lookahead=lookahead, callback=lambda _, m=model, s=seen: s.append(
                weights_of(m)
            ), **options
        )  # fmt: skip
    assert changed(free[1], held[1]) == set()
    for name in changed(free[0], free[2]):
        torch.testing.assert_close(held[2][name], (free[0][name] + free[2][name]) / 2)


@pytest.mark.parametrize(("plateau", "calm"), [(3, 0.25), (7, 0.5), (None, 1.0)])
def test_the_rate_falls_after_a_plateau_only_where_there_is_one(plateau, calm):
    move = Gradient(build("rnn_relu").parameters(), lsc.PretrainConfig(plateau=plateau))
    for _ in range(10):
        move.heard(1.0)
    assert move.calm == calm


def test_a_pair_moves_two_consecutive_layers_and_the_record_keeps_the_others():
    model, seen, records = build("lstm", layers=5), [], []

    def note(record):
        seen.append(weights_of(model))
        records.append(record)

    options = {"moves": ("rescale",), "rescale_rule": "paper_2023", "schedule": "pair", "stop": "never"}
    lsc.pretrain(model, sequences(), 0.5, steps=12, max_points=4, callback=note, **options)
    pairs = set()
    for before, after in itertools.pairwise(seen[1:]):
        layers = {int(name.rsplit("_l", 1)[1]) for name in changed(before, after)}
        assert len(layers) == 2
        assert max(layers) - min(layers) == 1
        pairs.add(min(layers))
    assert len(pairs) > 2
    assert all([len(r.means["time"]), len(r.means["depth"])] == [5, 4] for r in records)
    kept = [a == b for a, b in zip(records[3].means["time"], records[4].means["time"], strict=True)]
    assert kept.count(True) == 3


@pytest.mark.parametrize("moves", [("gradient",), ("rescale",), ("gradient", "shuffle")])
def test_a_pair_without_a_jacobian_of_the_directions_asked_for_moves_nothing_by_it(moves):
    model = build("gru", layers=5)
    options = {"directions": ("input",), "schedule": "pair", "stop": "never", "max_points": 4, "steps": 8}
    result = lsc.pretrain(model, sequences(), {"input": 0.5}, moves=moves, **options)
    assert len({step.means["input"][0] for step in result.history}) < 8
    assert any(math.isnan(step.certified) for step in result.history)


def test_states_from_a_normal_distribution_are_not_those_that_are_reached():
    model = build("lstm")
    means = {}
    for states in ("reached", "normal"):
        means[states] = one_step(model, states=states, moves=("rescale",))[2].means["time"]
    assert means["reached"] != pytest.approx(means["normal"], rel=1e-3)


@pytest.mark.parametrize("name", ["lstm", "gru", "alif", "lru", "res_lru", "block_diagonal"])
def test_normal_states_have_variance_one_and_every_recurrent_layer_takes_them(name, monkeypatch):
    model, given = build(name, batch_first=True), []
    read = trajectory_of
    monkeypatch.setattr(
        importlib.import_module("lsc_ext.pretrain.restart"),
        "trajectory_of",
        lambda m, x, s: given.append((x, s)) or read(m, x, s),
    )
    one_step(model, states="normal", moves=("rescale",), data=normal(40, 4, INPUTS, dtype=torch.float32))
    x, states = given[0]
    assert x.shape[1] == 1
    for state in states if isinstance(states, tuple) else (states,):
        real = torch.view_as_real(state) if state.is_complex() else state
        assert float(real.square().mean()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("model", [dense(), lsc.nn.FeedForward(INPUTS, 8, 2)], ids=["Sequential", "FeedForward"])
def test_a_model_without_states_is_refused_normal_ones(model):
    before = weights_of(model)
    with pytest.raises(ValueError, match="states: expected 'reached' for a model without states"):
        one_step(model, 1.0, states="normal")
    assert changed(before, weights_of(model)) == set()


def test_input_and_output_are_brought_to_their_targets_and_the_readout_moves(tmp_path):
    model, readout = build("gru", layers=2), linear(HIDDEN, 4, **SINGLE)
    before = weights_of(readout)
    result = lsc.pretrain(
        model, sequences(24), 0.5, readout=readout, directions=("time", "depth", "input"), steps=120, max_points=16,
        tolerance=0.03, patience=3,
    )  # fmt: skip
    assert result.targets == {"time": 0.5, "depth": 0.5, "input": 0.5, "output": 1.0}
    assert result.converged
    assert result.deviation() < 0.06
    assert changed(before, weights_of(readout))
    assert result.plot(tmp_path / "radii.png").read_bytes().startswith(b"\x89PNG")


def test_the_output_is_measured_by_the_frobenius_norm_of_the_readout():
    """The Jacobian of a linear readout of a one-state layer is its matrix: |W|_F / sqrt(max(m, n))."""
    model, readout = build("gru"), linear(HIDDEN, 4, **SINGLE)
    before = weights_of(readout)
    record = one_step(model, {"output": 0.2}, readout=readout, directions=("output",), moves=("rescale",))[2]
    assert record.means["output"] == pytest.approx([float(before["weight"].norm()) / HIDDEN**0.5], rel=1e-5)


def test_a_published_rule_scales_a_readout_to_unit_spread():
    model, readout = build("gru"), linear(HIDDEN, 4, **SINGLE)
    before, after, _ = one_step(
        model, readout=readout, moves=("rescale",), rescale_rule="paper_2025", rescale_limit=0.9
    )
    factor = clipped(1 / (float(before["weight"].std(correction=0)) * HIDDEN**0.5), 0.9)
    torch.testing.assert_close(after["weight"], before["weight"] * factor)
    assert torch.equal(after["bias"], before["bias"])


def test_the_two_ways_to_square_a_jacobian_differ():
    found = {
        square: one_step(build("lstm"), {"input": 0.5}, directions=("input",), moves=("rescale",), square=square)[2]
        for square in ("frobenius", "subsample")
    }
    assert found["frobenius"].means["input"] != pytest.approx(found["subsample"].means["input"], rel=1e-3)


USELESS = {
    "gate_bias": lambda: build("rnn_tanh"),
    "timescale": lambda: build("gru"),
    "swap": lambda: build("gru", layers=1),
    "shuffle": lambda: lsc.StepModel(Scale(), 3),
}


class Scale(nn.Module):
    """A step whose one parameter is a vector."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([0.3, 0.4, 0.5]))

    def forward(self, x, state):
        return torch.tanh(self.factor * state + x[:, :3])


@pytest.mark.parametrize("move", USELESS)
def test_a_move_that_would_never_do_anything_is_refused(move):
    model = USELESS[move]()
    before = weights_of(model)
    with pytest.raises(ValueError, match=f"moves: expected such as change something in this model, got '{move}'"):
        lsc.pretrain(model, sequences(), 0.5, moves=("gradient", move), steps=2)
    assert changed(before, weights_of(model)) == set()


def test_a_rule_by_roles_is_refused_where_no_roles_are_known():
    with pytest.raises(ValueError, match="moves: expected such as change something .*, got 'rescale'"):
        lsc.pretrain(lsc.StepModel(Scale(), 3), sequences(), 0.5, moves=("rescale",), rescale_rule="paper_2023")


BAD = {
    "optimizer": ({"optimizer": "sgd"}, ValueError, "optimizer: expected one of adamw, adabelief, got 'sgd'"),
    "rule": ({"rescale_rule": "paper"}, ValueError, "rescale_rule: expected one of response, .*, got 'paper'"),
    "schedule": ({"schedule": "one"}, ValueError, "schedule: expected one of all, pair, got 'one'"),
    "scope": ({"shuffle_scope": "row"}, ValueError, "shuffle_scope: expected one of gate, weight, got 'row'"),
    "vectors": ({"shuffle_vectors": 1}, TypeError, "shuffle_vectors: expected a bool, got int"),
    "states": ({"states": "zero"}, ValueError, "states: expected one of reached, normal, got 'zero'"),
    "square": ({"square": "none"}, ValueError, "square: expected one of frobenius, subsample, got 'none'"),
    "stop": ({"stop": "soon"}, ValueError, "stop: expected one of mean, certain, .*, got 'soon'"),
    "rates": ({"rates": "fast"}, ValueError, "rates: expected one of fan_in, equal, got 'fast'"),
    "chance": (
        {"shuffle_probability": 1.5},
        ValueError,
        "shuffle_probability: expected a probability above 0, got 1.5",
    ),
    "swaps": ({"swap_probability": 0}, ValueError, "swap_probability: expected a probability above 0, got 0"),
    "anneal": ({"anneal": 0.0}, ValueError, "anneal: expected None or a number above 0 and at most 1, got 0.0"),
    "lookahead": ({"lookahead": 0}, ValueError, "lookahead: expected at least 1 or None, got 0"),
    "plateau": ({"plateau": 0}, ValueError, "plateau: expected at least 1 or None, got 0"),
    "limit": ({"rescale_limit": 1.0, "rescale_rule": "paper_2023"}, ValueError, "rescale_limit: expected less than 1"),
    "output": ({"directions": ("output",)}, ValueError, "readout: expected a module for direction 'output', got None"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_out_of_range_are_refused(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        lsc.pretrain(build("gru"), sequences(), 0.5, **options)


def test_a_readout_that_is_not_finite_is_refused():
    readout = linear(HIDDEN, 4, **SINGLE)
    with torch.no_grad():
        readout.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="readout: expected finite weights, got NaN or infinity in weight"):
        lsc.pretrain(build("gru"), sequences(), 0.5, readout=readout)


RANDOM = {
    "shuffle_probability": 1.0,
    "swap_probability": 1.0,
    "anneal": None,
    "stop": "never",
    "max_points": 4,
    "certify_points": 1,
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_restores_the_best_weights_of_model_and_readout(move, error):
    model, readout = build("alif" if move == "timescale" else "lstm"), linear(HIDDEN, 4, **SINGLE)
    seen, deviations = [], []

    def callback(step):
        seen.append(weights_of(model, readout))
        deviations.append(step.deviation)
        if step.step == 5:
            raise error

    with pytest.raises(error):
        lsc.pretrain(model, sequences(), 0.5, readout=readout, moves=(move,), steps=9, callback=callback, **RANDOM)
    best = seen[deviations.index(min(deviations))]
    assert changed(best, weights_of(model, readout)) == set()


@pytest.mark.parametrize("move", MOVES)
def test_frozen_weights_stay(move):
    model = build("alif" if move == "timescale" else "lstm", layers=5)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("_l0"))
    before, after, _ = one_step(model, step=3, moves=(move,), **{**RANDOM, "steps": 4})
    touched = changed(before, after)
    assert touched
    assert not any(name.endswith("_l0") for name in touched)


@pytest.mark.parametrize("move", ["shuffle", "swap", "rescale", "gate_bias"])
def test_the_same_seed_gives_the_same_moves(move):
    found = []
    for seed in (3, 3, 4):
        options = {**RANDOM, "steps": 4, "rescale_limit": 0.9}
        found.append(one_step(build("lstm", layers=5), step=3, moves=(move,), seed=seed, **options)[1])
    assert changed(found[0], found[1]) == set()
    assert changed(found[0], found[2])


def test_weight_norm_is_shuffled_and_orthogonal_weights_are_refused():
    model = build("rnn_tanh")
    parametrizations.weight_norm(model, "weight_hh_l1")
    before = model.weight_hh_l1.detach().clone()
    lsc.pretrain(model, sequences(), 0.5, moves=("shuffle",), steps=6, **{**RANDOM, "stop": "mean"})
    torch.testing.assert_close(sorted_blocks(model.weight_hh_l1.detach(), 1), sorted_blocks(before, 1))
    parametrizations.orthogonal(model, "weight_hh_l0")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="moves: expected no 'shuffle', got it for weight_hh_l0"):
        lsc.pretrain(model, sequences(), 0.5, moves=("shuffle",), steps=6, **RANDOM)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
