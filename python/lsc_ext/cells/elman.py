"""Elman cells: h' = phi(W_ih x + b_ih + W_hh h + b_hh), as ``torch.nn.RNN`` has them, and with a sigmoid."""

from collections.abc import Callable

import torch
from torch import Tensor

from lsc_ext.cells._base import Cell, Step, Tensors


def _step(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
        return (activation(input_gates[0] + recurrent_gates[0]),)

    return step


_REFERENCE = "Elman, Finding structure in time, 1990"
RNN_TANH = Cell("rnn_tanh", ("h",), 1, 1, _step(torch.tanh), _REFERENCE)
RNN_RELU = Cell("rnn_relu", ("h",), 1, 1, _step(torch.relu), _REFERENCE)
RNN_SIGMOID = Cell("rnn_sigmoid", ("h",), 1, 1, _step(torch.sigmoid), _REFERENCE)
