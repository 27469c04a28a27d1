"""Steps in plain torch as a user would write them, and Jacobians of them formed by autograd, for tests."""

import itertools

import torch
from torch import Tensor, nn

import lsc_ext as lsc


class LayerNormGRU(nn.Module):
    """A GRU step whose recurrent pre-activations are normalised."""

    def __init__(self, inputs: int, hidden: int, gain: float = 1.0):
        super().__init__()
        self.input, self.recurrent = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.norm = nn.LayerNorm(3 * hidden)
        with torch.no_grad():
            self.norm.weight.mul_(gain)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a, b = self.input(x).chunk(3, -1), self.norm(self.recurrent(h)).chunk(3, -1)
        z, r = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        return (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h


class TwoStates(nn.Module):
    """An LSTM step with h and c side by side."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.cell, self.hidden = nn.LSTMCell(inputs, hidden), hidden

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.cat(self.cell(x, state.split(self.hidden, -1)), -1)

    def output(self, state: Tensor) -> Tensor:
        return state[:, : self.hidden]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_double(build, *arguments, seed: int = 0, **options):
    """A module with float64 weights that are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*arguments, **options).double()


def lstm_model(inputs: int, hidden: int, seed: int = 0) -> lsc.StepModel:
    cell = in_double(TwoStates, inputs, hidden, seed=seed)
    return lsc.StepModel(cell.step, 2 * hidden, output=cell.output, input_size=inputs)


def gru_model(inputs: int, hidden: int, seed: int = 0, **options) -> lsc.StepModel:
    return lsc.StepModel(in_double(LayerNormGRU, inputs, hidden, seed=seed, **options), hidden, input_size=inputs)


def gru_stack(inputs: int, sizes, **options) -> lsc.StepModel:
    widths = [inputs, *sizes]
    pairs = enumerate(itertools.pairwise(widths))
    return lsc.StepModel([gru_model(i, n, seed=k, **options) for k, (i, n) in pairs])


def _identity(state: Tensor) -> Tensor:
    return state


def step_and_output(model: lsc.StepModel):
    """The two functions of a layer as its user gave them."""
    step, output = model._functions
    return step, output or _identity


def formed(model: lsc.StepModel, x: Tensor, direction: str, layer: int, readout=None, through_states=True) -> Tensor:
    """The Jacobians of one layer [T * B, m, n], a row at a time by autograd, as differentiable functions."""
    layers = [step_and_output(m) for m in model.layers]
    fed, beneath, found = x, (), []
    for k, (step, output) in enumerate(layers):
        state, befores, handed = x.new_zeros(x.shape[1], model.layers[k].state_size), [], []
        for t in range(x.shape[0]):
            if k == layer:
                given = [fed[t], state, *(z[t] for z in beneath)]
                given = given if through_states else [g.detach() for g in given]
                found.append(_formed_at(direction, (step, output), layers[k - 1], given, readout, through_states))
            befores.append(state)
            state = step(fed[t], state)
            handed.append(output(state))
        beneath, fed = (fed, befores), torch.stack(handed)
    return torch.cat(found)


def _formed_at(direction, own, below, given, readout, through_states) -> Tensor:
    (step, output), (x, s) = own, given[:2]
    if direction == "time":
        return rows_of(lambda z: step(x, z), s)
    if direction == "depth":
        return rows_of(lambda z: output(step(z, s)), x)
    if direction == "input":
        return rows_of(lambda z: step(z, s), x)
    if direction == "output":
        after = step(x, s)
        return rows_of(lambda z: readout(output(z)), after if through_states else after.detach())
    lower, hand_up = below
    return rows_of(lambda z: step(hand_up(lower(given[2], z)), s), given[3])


def rows_of(function, point: Tensor) -> Tensor:
    """Jacobians [N, m, n] of a batched function, one output at a time."""
    point = point.clone() if point.requires_grad else point.clone().requires_grad_()  # its own part alone
    value = function(point)
    rows = [torch.autograd.grad(value[:, i].sum(), point, create_graph=True)[0] for i in range(value.shape[1])]
    return torch.stack(rows, 1)


def expected_radius(matrices: Tensor, direction: str) -> Tensor:
    """What a formed Jacobian's number is, from torch.linalg alone."""
    if matrices.shape[1] == matrices.shape[2] and direction not in ("input", "output"):
        return torch.linalg.eigvals(matrices).abs().amax(1)
    return torch.linalg.matrix_norm(matrices) / max(matrices.shape[1:]) ** 0.5


def hand_loop(model: lsc.StepModel, x: Tensor, states=None):
    """What the top layer hands up [T, B, .] and the last states."""
    last = []
    for k, layer in enumerate(model.layers):
        step, output = step_and_output(layer)
        state = x.new_zeros(x.shape[1], layer.state_size) if states is None else states[k]
        handed = []
        for row in x:
            state = step(row, state)
            handed.append(output(state))
        x = torch.stack(handed)
        last.append(state)
    return x, last
