"""Small networks and their parameters, for tests."""

import torch
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.cells import CELLS

ACTIVATIONS = [name for name in sorted(CELLS) if not CELLS[name].in_time]
# Feed-forward cells differ in their activation alone: one of them stands for all where that does not matter.
CELL_NAMES = [name for name in sorted(CELLS) if name not in ACTIVATIONS] + ["feed_forward_gelu"]
RECURRENT_CELLS = [name for name in CELL_NAMES if CELLS[name].in_time]
SPIKING_CELLS = [name for name in CELL_NAMES if CELLS[name].derive is not None]
SMOOTH_CELLS = [name for name in CELL_NAMES if name not in SPIKING_CELLS]  # a surrogate is no finite difference
SIZES = (1, 3, 31, 33, 65)
DTYPES = (torch.float32, torch.float64)
DIRECTIONS = ("time", "depth", "diagonal", "input", "output")
#: Every cell with every direction that it has.
CELL_DIRECTIONS = [(c, d) for c in CELL_NAMES for d in DIRECTIONS if CELLS[c].in_time or d not in ("time", "diagonal")]
STEP_DIRECTIONS = [(c, d) for c, d in CELL_DIRECTIONS if d != "output"]
TORCH_KINDS = {
    "rnn_tanh": (lsc.nn.RNN, nn.RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (lsc.nn.RNN, nn.RNN, {"nonlinearity": "relu"}),
    "gru": (lsc.nn.GRU, nn.GRU, {}),
    "lstm": (lsc.nn.LSTM, nn.LSTM, {}),
}


def stack(
    cell: str, inputs: int, hidden: int, layers: int = 2, *, gain: float = 1.0, seed: int = 0, **options
) -> lsc.nn.Recurrent:
    """A stack with weights ``gain`` times the default ones, and units that differ; float64 unless ``dtype`` says so."""
    options.setdefault("dtype", torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = lsc.nn.Recurrent(cell, inputs, hidden, layers, **options)
    own = {p.name for p in CELLS[cell].unit_parameters}
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            spread = torch.linspace(0.4, 1.0, hidden, dtype=parameter.dtype).roll(i)
            parameter.mul_(spread if name.rsplit("_l", 1)[0] in own else gain)
    return model


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def states_of(model: lsc.nn.Recurrent, batch: int, seed: int = 2) -> tuple[Tensor, ...]:
    """Random initial states, one tensor [L, B, H] for each state variable."""
    count, dtype = len(CELLS[model.cell].states), next(model.parameters()).dtype
    shape = (model.num_layers, batch, model.hidden_size)
    states = tuple(normal(*shape, seed=seed + i, dtype=dtype) for i in range(count))
    derive = CELLS[model.cell].derive
    if derive is None:
        return states
    with torch.no_grad():
        own = torch.stack([model.unit_parameters(k) for k in range(model.num_layers)], dim=1).unsqueeze(
            2
        )  # [Q, L, 1, H]
        return derive(states[1:], tuple(own)), *states[1:]


def linear(inputs: int, outputs: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs, dtype=dtype)


def gradients(value: Tensor, parameters) -> list[Tensor]:
    """Gradients of the sum, zeros where a parameter has no part in it."""
    parameters = list(parameters)
    found = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def flat(tensors) -> Tensor:
    return torch.cat([t.reshape(-1).double() for t in tensors])
