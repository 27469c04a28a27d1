"""minGRU: update gate z and candidate see the input only, so the recurrence is diagonal."""

import torch
from torch import Tensor

from lsc_ext.cells._base import Cell


def _step(
    input_gates: tuple[Tensor, ...], recurrent_gates: tuple[Tensor, ...], states: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    update = torch.sigmoid(input_gates[0])
    return ((1 - update) * states[0] + update * input_gates[1],)


MIN_GRU = Cell("min_gru", ("h",), 2, 0, _step, "Feng et al., Were RNNs all we needed?, 2024")
