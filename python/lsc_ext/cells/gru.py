"""GRU in torch's form: gates r, z, n; r multiplies the recurrent product of n after its bias is added."""

import torch

from lsc_ext.cells._base import Cell, Tensors


def _step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    reset = torch.sigmoid(input_gates[0] + recurrent_gates[0])
    update = torch.sigmoid(input_gates[1] + recurrent_gates[1])
    candidate = torch.tanh(input_gates[2] + reset * recurrent_gates[2])
    return ((1 - update) * candidate + update * states[0],)


GRU = Cell(
    "gru",
    ("h",),
    3,
    3,
    _step,
    "Cho et al., Learning phrase representations using RNN encoder-decoder, 2014",
    carry_gate=(1, 1),
    gates=("r", "z", "n"),
)
