"""LSTM with torch's gate order i, f, g, o; states h and c."""

import torch

from lsc_ext.cells._base import Cell, Tensors


def _step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    i, f, g, o = (a + b for a, b in zip(input_gates, recurrent_gates, strict=True))
    c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


LSTM = Cell(
    "lstm",
    ("h", "c"),
    4,
    4,
    _step,
    "Hochreiter & Schmidhuber, 1997; forget gates: Gers et al., 2000",
    carry_gate=(1, 1),
    gates=("i", "f", "g", "o"),
)
