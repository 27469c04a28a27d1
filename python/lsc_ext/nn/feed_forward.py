"""Feed-forward layers on the compiled kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.cells import CELLS
from lsc_ext.nn.arguments import check_features
from lsc_ext.nn.eager import run_stack
from lsc_ext.nn.precision import check_dtype
from lsc_ext.nn.recurrent import Recurrent, read_weights
from lsc_ext.nn.stack import StackTrajectory
from lsc_ext.trajectory import Trajectory, register_reader

_PREFIX = "feed_forward_"
ACTIVATIONS = tuple(sorted(name.removeprefix(_PREFIX) for name in CELLS if name.startswith(_PREFIX)))


class FeedForward(Recurrent):
    """A stack of dense layers, y = phi(W x + b), whose depth Jacobians are compiled.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        activation: phi: "identity", "tanh", "relu", "sigmoid", "sin", "cos", "gelu" (exact) or "swish".
        bias: whether layers have biases.
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Parameters of layer k: ``weight_ih_l{k}`` [H, I or H], ``bias_ih_l{k}`` [H], uniform in +-1/sqrt(fan_in) to start
    with, as ``torch.nn.Linear``'s.

    Raises:
        ValueError: unknown activation, or a size below 1.
        TypeError: dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        activation: str = "relu",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        super().__init__(_PREFIX + activation, input_size, hidden_size, num_layers, bias, device=device, dtype=dtype)
        del self.batch_first  # there is no time axis

    def reset_parameters(self) -> None:
        """As ``torch.nn.Linear``: uniform in +-1/sqrt(fan_in), biases too."""
        for name, parameter in self.named_parameters():
            fan_in = self.input_size if name.endswith("_l0") else self.hidden_size
            nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("num_layers", 1), ("activation", "relu"), ("bias", True)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        return text

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Runs the layers: input [..., I] -> [..., H].

        Raises:
            ValueError: the last dimension is not I.
            TypeError: another dtype than the weights', or ``input`` is not a tensor.
            RuntimeError: another device than the weights'.
        """
        x = self._rows(input)
        weights = read_weights(self, range(self.num_layers))
        output, _ = run_stack(x, None, weights, self.cell, self.hidden_size)
        return output.reshape(*input.shape[:-1], self.hidden_size)

    def _rows(self, input: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise TypeError(f"input: expected a torch.Tensor, got {type(input).__qualname__}")
        if input.dim() < 1:
            raise ValueError("input: expected shape (..., input_size), got a number")
        check_features(self, input, self.weight_ih_l0, None)  # type: ignore[arg-type]
        return input.reshape(1, -1, self.input_size)


def _read_feed_forward(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, FeedForward):
        return None
    if initial_state is not None:
        raise ValueError("initial_state: expected None for a feed-forward model, got states")
    x = model._rows(inputs)
    if inputs.dim() == 3:  # [T, B, I]
        x = x.reshape(inputs.shape)
    initial = x.new_zeros(model.num_layers, 1, x.shape[1], model.hidden_size)
    check_dtype(x)
    return StackTrajectory(model, x, initial, range(model.num_layers), "", through_states)


register_reader(_read_feed_forward, FeedForward)
