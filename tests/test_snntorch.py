"""snnTorch as an outside witness: its neurons against our LIF layer, and measured and trained as steps of one's own."""

import pytest
import snntorch
import torch
from networks import flat, gradients, normal
from torch import nn

import lsc_ext as lsc
from lsc_ext.testing import TOLERANCES, assert_close

HIDDEN = 6
EXACT = TOLERANCES[torch.float64]


class SuperSpike(torch.autograd.Function):
    """As snnTorch writes its surrogates: spikes ahead, 0.5 / (1 + 2 |x|)^2 back."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * 0.5 / (1 + 2 * x.abs()) ** 2


def twins(dtype):
    """Our layer without recurrent weights, and snnTorch's neurons with the same decays and thresholds."""
    beta = torch.linspace(0.5, 0.95, HIDDEN, dtype=dtype)
    threshold = torch.linspace(0.5, 1.5, HIDDEN, dtype=dtype)
    model = lsc.nn.LIF(4, HIDDEN, dtype=dtype)
    with torch.no_grad():
        model.weight_ih_l0.copy_(normal(HIDDEN, 4, seed=3))
        model.weight_hh_l0.zero_()
        model.tau_l0.copy_(-1 / beta.double().log())
        model.threshold_l0.copy_(threshold)
    return model, snntorch.Leaky(beta, threshold, spike_grad=SuperSpike.apply, reset_mechanism="subtract")


def walked(neurons, currents):
    """Spikes and voltages after every step, from rest."""
    voltage, spikes, voltages = torch.zeros_like(currents[0]), [], []
    for current in currents:
        spike, voltage = neurons(current, voltage)
        spikes.append(spike)
        voltages.append(voltage)
    return torch.stack(spikes), torch.stack(voltages)


@pytest.mark.parametrize("dtype", TOLERANCES)
@torch.no_grad()
def test_lif_spikes_when_leaky_does_and_has_its_voltages(dtype):
    model, neurons = twins(dtype)
    x = normal(50, 3, 4, dtype=dtype)
    spikes, voltages = walked(neurons, x @ model.weight_ih_l0.T)
    found, states = [], None
    for step in x:
        output, states = model(step.unsqueeze(0), states)
        found.append((output[0], states[1][0]))
    whole, last = model(x)
    assert torch.equal(whole, spikes)
    assert torch.equal(torch.stack([z for z, _ in found]), spikes)
    assert 0.1 < spikes.mean() < 0.9
    assert_close("voltage", torch.stack([v for _, v in found]), voltages, TOLERANCES[dtype].forward)
    assert_close("last voltage", last[1][0], voltages[-1], TOLERANCES[dtype].forward)


def test_lif_passes_back_what_leaky_does_with_the_same_surrogate():
    model, neurons = twins(torch.float64)
    x, weights = normal(50, 3, 4), normal(50, 3, HIDDEN, seed=5)
    spikes, _ = walked(neurons, x @ model.weight_ih_l0.T)
    (expected,) = torch.autograd.grad((spikes * weights).sum(), model.weight_ih_l0)
    (found,) = torch.autograd.grad((model(x)[0] * weights).sum(), model.weight_ih_l0)
    assert_close("gradient", found, expected, EXACT.gradient)


class Spiking(nn.Module):
    """snnTorch neurons with input and recurrent weights; the state is their voltage, or current and voltage."""

    def __init__(self, neurons, inputs, hidden):
        super().__init__()
        self.neurons, self.hidden = neurons, hidden
        self.fed, self.back = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden, bias=False)

    def spikes(self, state):
        # snnTorch's spikes are float32 whatever the voltages are.
        return self.neurons.fire(state[..., -self.hidden :]).to(state.dtype)

    def step(self, x, state):
        current = self.fed(x) + self.back(self.spikes(state))
        _, *following = self.neurons(current, *state.split(self.hidden, -1))
        return torch.cat(following, -1)


NEURONS = {
    "Leaky": (1, lambda: snntorch.Leaky(beta=0.9, threshold=0.5)),
    "Synaptic": (2, lambda: snntorch.Synaptic(alpha=0.6, beta=0.8, threshold=0.5)),
}


def stack(kind, dtype=torch.float64, inputs=4):
    """Two layers as a StepModel, and the layers."""
    variables, make = NEURONS[kind]
    layers = [Spiking(make(), fed, HIDDEN).to(dtype) for fed in (inputs, HIDDEN)]
    steps = [lsc.StepModel(layer.step, variables * HIDDEN, output=layer.spikes) for layer in layers]
    return lsc.StepModel(steps), layers


def formed(function, point, *data):
    """Jacobians [N, m, n], row by row, by autograd."""
    point = point.detach().requires_grad_()
    value = function(point, *data)
    rows = [torch.autograd.grad(column.sum(), point, create_graph=True)[0] for column in value.unbind(1)]
    return torch.stack(rows, dim=1)


def expected_radii(layers, x, direction, variables):
    """[layers, T, B], states as data."""
    found = []
    for number, layer in enumerate(layers):
        state, radii, handed_up = x.new_zeros(x.shape[1], variables * HIDDEN), [], []
        for fed in x:
            if direction == "time":
                matrices = formed(lambda s, u, layer=layer: layer.step(u, s), state, fed)
            else:
                matrices = formed(lambda u, s, layer=layer: layer.spikes(layer.step(u, s)), fed, state)
            if direction == "time" or number > 0:
                radii.append(torch.linalg.eigvals(matrices).abs().amax(-1))
            state = layer.step(fed, state).detach()
            handed_up.append(layer.spikes(state).detach())
        x = torch.stack(handed_up)
        found += [torch.stack(radii)] if radii else []
    return torch.stack(found)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("method", ["auto", "krylov"])
@pytest.mark.parametrize("kind", NEURONS)
def test_radii_of_snntorch_neurons_are_the_eigenvalues_of_their_formed_jacobians(kind, method, dtype):
    model, layers = stack(kind, dtype)
    x = 2 * normal(5, 3, 4, dtype=dtype)
    with torch.no_grad():
        report = lsc.radii(model, x, method=method, tol=1e-6)
    for direction, rows in (("time", 2), ("depth", 1)):
        expected = expected_radii(layers, x, direction, NEURONS[kind][0]).detach()
        assert report[direction].radius.shape == expected.shape == (rows, 5, 3)
        # The slopes are passed through float32 spikes.
        assert_close(direction, report[direction].radius, expected, TOLERANCES[torch.float32].jacobian)


@pytest.mark.parametrize("kind", NEURONS)
def test_recurrent_spikes_are_inside_the_jacobian_in_time(kind):
    model, layers = stack(kind)
    x = 2 * normal(5, 3, 4)
    estimate = lsc.radii(model, x, directions=("time",))["time"]
    for layer, parameter in zip(
        layers, gradients(estimate.radius, [layer.back.weight for layer in layers]), strict=True
    ):
        assert parameter.any()
        with torch.no_grad():
            layer.back.weight.zero_()
    alone = lsc.radii(model, x, directions=("time",))["time"].radius
    own = layers[0].neurons.beta.expand_as(alone).double()  # nothing but the neurons' slowest decay
    assert_close("radius", alone, own, EXACT.jacobian)
    assert (estimate.radius - own).abs().max() > 0.05


@pytest.mark.parametrize("direction", ["time", "depth"])
@pytest.mark.parametrize("kind", NEURONS)
def test_gradients_of_the_radii_are_those_through_the_formed_jacobians(kind, direction):
    model, layers = stack(kind)
    x, leaves = 2 * normal(5, 3, 4), list(model.parameters())
    found = gradients(lsc.radii(model, x, directions=(direction,))[direction].radius.mean(), leaves)
    expected = gradients(expected_radii(layers, x, direction, NEURONS[kind][0]).mean(), leaves)
    # Slopes in single precision, and eigenvectors that are further from orthogonal than eigenvalues show.
    assert_close("gradient", flat(found), flat(expected), 10 * TOLERANCES[torch.float32].gradient)


@pytest.mark.parametrize("kind", NEURONS)
def test_pretraining_brings_snntorch_neurons_to_the_target(kind):
    model, _ = stack(kind, torch.float32)
    data = 2 * normal(5, 100, 4, dtype=torch.float32)
    options = {"steps": 150, "max_points": 40, "batch_size": 32, "holdout": 0.4, "lr": 0.05, "patience": 2}
    result = lsc.pretrain(model, data, {"time": 1.05, "depth": 0.5}, certify_points=None, **options)
    assert result.before["depth"].mean() < 0.3
    assert result.before["time"].radius[1].mean() < 0.95
    for row in result.after.rows():
        assert row["certified"] == 1
        assert row["mean"] == pytest.approx(result.targets[row["direction"]], abs=0.05)
