"""IndRNN: each unit feeds back to itself alone, with a weight of its own; relu, as the paper."""

import torch

from lsc_ext.cells._base import Cell, Tensors, UnitParameter


def _step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    return (torch.relu(input_gates[0] + unit[0] * states[0]),)


IND_RNN = Cell(
    "ind_rnn",
    ("h",),
    1,
    0,
    _step,
    "Li et al., Independently recurrent neural network (IndRNN): building a longer and deeper RNN, 2018",
    unit_parameters=(UnitParameter("recurrent_weight", 1.0, 1.0, "recurrent"),),
)
