"""What the parameters of a layer do there, and what carries its state on."""

import pytest
import torch
from networks import normal, stack
from step_modules import gru_model
from torch import nn
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext.cells import CELLS
from lsc_ext.spectral import estimate_radius
from lsc_ext.trajectory import trajectory_of
from lsc_ext.weights import ROLES, Weight, assign, weights_in

T, B, I, H, L = 4, 3, 5, 7, 2


def trajectory(name, **options):
    model = lsc.nn.build(name, I, H, L, dtype=torch.float64, **options)
    return model, trajectory_of(model, normal(T, B, I) if hasattr(model, "batch_first") else normal(B, I))


@pytest.mark.parametrize("name", sorted(lsc.nn.ARCHITECTURES))
def test_every_parameter_of_every_architecture_has_one_role(name):
    model, found = trajectory(name)
    weights = [weight for layer in range(L) for weight in found.weights_of(layer)]
    assert {w.role for w in weights} <= set(ROLES)
    assert sum(w.value.numel() for w in weights) == sum(p.numel() for p in model.parameters())
    held = {getattr(w.module, w.name).data_ptr() for w in weights}
    assert held == {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("lstm", {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias", "bias_hh": "bias"}),
        ("ind_rnn", {"weight_ih": "input", "recurrent_weight": "recurrent", "bias_ih": "bias"}),
        ("alif", {"weight_hh": "recurrent", "tau": "timescale", "tau_a": "timescale", "beta": "threshold"}),
        ("lru", {"nu_log": "timescale", "theta_log": "other", "B": "input", "C": "readout", "D": "other"}),
        ("block_diagonal", {"A": "recurrent", "B": "input", "C": "readout"}),
        ("complex_diagonal", {"lambda": "recurrent", "B": "input"}),
        ("feed_forward_cos", {"weight_ih": "input", "bias_ih": "bias"}),
    ],
)
def test_roles_are_what_the_equations_say(name, roles):
    _, found = trajectory(name)
    named = {w.name.removesuffix("_l1"): w.role for w in found.weights_of(1)}
    assert {key: named[key] for key in roles} == roles


def test_a_residual_block_has_gating_and_an_adapter_where_widths_differ():
    _, found = trajectory("res_lru")
    roles = [[w.role for w in found.weights_of(layer)] for layer in range(L)]
    assert [row.count("gating") for row in roles] == [2, 2]
    assert [row.count("adapter") for row in roles] == [1, 0]


def test_blocks_are_counted():
    _, lstm = trajectory("lstm")
    _, lru = trajectory("lru")
    assert {w.name: w.gates for w in lstm.weights_of(0)}["weight_hh_l0"] == 4
    assert {w.name: w.parts for w in lru.weights_of(0)} == {
        "nu_log_l0": 1, "theta_log_l0": 1, "gamma_log_l0": 1, "B_l0": 2, "C_l0": 2, "D_l0": 1
    }  # fmt: skip


def test_sequences_both_directions_projections_and_steps_of_ones_own_have_roles_too():
    dense = nn.Sequential(nn.Linear(I, H), nn.LayerNorm(H), nn.Tanh(), nn.Linear(H, H)).double()
    found = trajectory_of(dense, normal(B, I))
    assert [[w.role for w in found.weights_of(k)] for k in (0, 1)] == [
        ["input", "bias", "other", "other"],
        ["input", "bias"],
    ]
    both = lsc.nn.LSTM(I, H, L, bidirectional=True, proj_size=3, dtype=torch.float64)
    found = trajectory_of(both, normal(T, B, I))
    assert [w.name for w in found.weights_of(3)][:2] == ["weight_ih_l1_reverse", "weight_hh_l1_reverse"]
    assert found.carry("gate_bias", 3).weights == ((both, "bias_ih_l1_reverse"),)
    own = gru_model(I, H)
    roles = {w.role for w in trajectory_of(own, normal(T, B, I)).weights_of(0)}
    assert roles == {"other"}
    mixed = nn.Sequential(nn.Linear(I, H), nn.GRU(H, H)).double()
    found = trajectory_of(mixed, normal(T, B, I))
    assert found.carry("gate_bias", 0) is None
    assert found.carry("gate_bias", 1).weights == ((mixed[1], "bias_ih_l0"),)
    assert [w.role for w in found.weights_of(1)] == ["input", "recurrent", "bias", "bias"]


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.carry_gate is not None])
def test_the_carry_gate_multiplies_the_past(name):
    """With no weights, d s' / d s of the last state is sigmoid(sign * bias), whatever the other biases are."""
    model = stack(name, I, H, 1)
    gate, sign = CELLS[name].carry_gate
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0)
        model.bias_ih_l0.copy_(normal(*model.bias_ih_l0.shape, seed=4))
    largest = float(torch.sigmoid(sign * model.bias_ih_l0.detach()[gate * H : (gate + 1) * H]).max())
    report = lsc.radii(model, normal(1, 2, I), directions=("time",), method="dense")
    assert report["time"].radius.flatten().tolist() == pytest.approx([largest] * 2)


@pytest.mark.parametrize("name", ["gru", "lstm", "min_gru", "alif", "lif", "lru", "res_lru"])
def test_scaling_a_carry_changes_the_mean_radius_as_its_response_says(name):
    kind = "gate_bias" if name in ("gru", "lstm", "min_gru") else "timescale"
    torch.manual_seed(0)
    options = {"tau": 2.0} if name in ("lif", "alif") else {}
    model = lsc.nn.ARCHITECTURES[name](I, H, 1, dtype=torch.float64, **options)
    x = normal(1, 6, I)  # of one step, so that states do not depend on the weights

    def mean():
        return lsc.radii(model, x, directions=("time",), method="dense")["time"].mean()

    found, points = trajectory_of(model, x), torch.tensor([[0, b] for b in range(6)])
    carry = found.carry(kind, 0)
    estimate = estimate_radius(found.operator("time", 0, points), "dense", None, 1e-6, 0)
    response = carry.response(estimate.mean())
    with torch.no_grad():
        before, step = mean(), 1e-5
        carry.scale(1 + step)
        slope = float((mean().log() - before.log()) / step)
    assert response == pytest.approx(slope, rel=1e-3, abs=1e-6)
    assert abs(slope) > 0.05


def test_cells_without_gates_or_biases_have_no_gate_bias():
    for model in (stack("rnn_tanh", I, H), stack("gru", I, H, bias=False), stack("alif", I, H)):
        assert trajectory_of(model, normal(T, B, I)).carry("gate_bias", 0) is None
    for name in ("gru", "complex_diagonal", "rnn_relu"):
        assert trajectory(name)[1].carry("timescale", 0) is None


def test_weights_in_reads_through_parametrisations():
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh())
    found = {w.name: w.value.shape for w in weights_in([module])}
    assert found == {"weight": (4, 3), "bias": (4,)}


def test_a_parametrisation_that_cannot_take_a_value_is_refused_with_the_name_of_the_move():
    module = parametrizations.orthogonal(nn.Linear(4, 4))
    weight = Weight(module, "weight", "input")
    with pytest.raises(ValueError, match="moves: expected no 'shuffle', got it for weight"):
        weight.assign(torch.full((4, 4), 0.5), "shuffle")
    assign(module, "weight", torch.eye(4), "swap")
    torch.testing.assert_close(module.weight, torch.eye(4))
