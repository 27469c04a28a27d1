"""minGRU: update gate z and candidate see the input only, so the recurrence is diagonal."""

import torch

from lsc_ext.cells._base import Cell, Tensors


def _step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    update = torch.sigmoid(input_gates[0])
    return ((1 - update) * states[0] + update * input_gates[1],)


MIN_GRU = Cell(
    "min_gru",
    ("h",),
    2,
    0,
    _step,
    "Feng et al., Were RNNs all we needed?, 2024",
    carry_gate=(0, -1),
    gates=("z", "n"),
)
