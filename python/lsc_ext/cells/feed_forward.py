"""A layer without recurrence, y = phi(W x + b): a cell that never reads its state."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lsc_ext.cells._base import Cell, Step, Tensors


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": _identity,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "gelu": functional.gelu,
    "swish": functional.silu,
}


def _step_with(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
        return (activation(input_gates[0]),)

    return step


for _name, _activation in ACTIVATIONS.items():
    Cell(f"feed_forward_{_name}", ("y",), 1, 0, _step_with(_activation), "a dense layer", in_time=False)
