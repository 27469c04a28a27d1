"""Independently recurrent layers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, nn

from lsc_ext.nn.draw import draw_into
from lsc_ext.nn.recurrent import Recurrent


class IndRNN(Recurrent):
    """h' = relu(W_ih x + b_ih + u h) with one recurrent weight u for each unit (Li et al. 2018).

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        bias: whether layers have biases.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Parameters of layer k: ``weight_ih_l{k}`` [H, I or H], ``bias_ih_l{k}`` [H], uniform in +-1/sqrt(H) to start with,
    and u, ``recurrent_weight_l{k}`` [H], 1 to start with. :func:`initialize` with "paper" draws the weights normal of
    standard deviation 1e-3 and the biases uniform in +-sqrt(3/H).

    Raises:
        ValueError: a size below 1.
        TypeError: dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = (num_layers, bias, batch_first)
        super().__init__("ind_rnn", input_size, hidden_size, *options, device=device, dtype=dtype)

    def initialize_parameters(self, scheme: str, generator: Generator | None) -> bool:
        """The scheme "paper"; others leave u alone."""
        if scheme != "paper":
            return False
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("weight_ih"):
                    draw_into(parameter, partial(nn.init.normal_, std=1e-3, generator=generator), generator)
                elif name.startswith("bias"):
                    bound = (3 / self.hidden_size) ** 0.5
                    draw_into(parameter, partial(nn.init.uniform_, a=-bound, b=bound, generator=generator), generator)
                else:
                    nn.init.ones_(parameter)
        return True
