"""Small networks and their parameters, for tests."""

import torch
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.cells import CELLS

CELL_NAMES = sorted(CELLS)
SIZES = (1, 3, 31, 33, 65)
DTYPES = (torch.float32, torch.float64)
DIRECTIONS = ("time", "depth", "diagonal", "input", "output")
TORCH_KINDS = {
    "rnn_tanh": (lsc.nn.RNN, nn.RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (lsc.nn.RNN, nn.RNN, {"nonlinearity": "relu"}),
    "gru": (lsc.nn.GRU, nn.GRU, {}),
    "lstm": (lsc.nn.LSTM, nn.LSTM, {}),
}


def stack(
    cell: str, inputs: int, hidden: int, layers: int = 2, *, gain: float = 1.0, seed: int = 0, **options
) -> lsc.nn.Recurrent:
    """A stack with weights ``gain`` times the default ones; float64 unless ``dtype`` says otherwise."""
    options.setdefault("dtype", torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = lsc.nn.Recurrent(cell, inputs, hidden, layers, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    return model


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def states_of(model: lsc.nn.Recurrent, batch: int, seed: int = 2) -> tuple[Tensor, ...]:
    """Random initial states, one tensor [L, B, H] for each state variable."""
    count, dtype = len(CELLS[model.cell].states), next(model.parameters()).dtype
    shape = (model.num_layers, batch, model.hidden_size)
    return tuple(normal(*shape, seed=seed + i, dtype=dtype) for i in range(count))


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
