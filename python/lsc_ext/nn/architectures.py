"""Every network of this package by name, for the command line, the benchmarks and the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lsc_ext.cells import CELLS
from lsc_ext.nn.feed_forward import ACTIVATIONS, FeedForward
from lsc_ext.nn.independent import IndRNN
from lsc_ext.nn.linear import LRU, BlockDiagonalRNN, ComplexDiagonalRNN
from lsc_ext.nn.recurrent import GRU, LSTM, RNN, Recurrent
from lsc_ext.nn.residual import ResLRU
from lsc_ext.nn.spiking import ALIF, LIF

#: name -> constructor with (input_size, hidden_size, num_layers, dtype=...).
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "rnn_tanh": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
    "rnn_sigmoid": partial(RNN, nonlinearity="sigmoid"),
    "gru": GRU,
    "lstm": LSTM,
    "ind_rnn": IndRNN,
    "lif": LIF,
    "alif": ALIF,
    "alif_bipolar": partial(ALIF, bipolar=True),
    "lru": LRU,
    "res_lru": ResLRU,
    "complex_diagonal": ComplexDiagonalRNN,
    "block_diagonal": BlockDiagonalRNN,
    **{f"feed_forward_{activation}": partial(FeedForward, activation=activation) for activation in ACTIVATIONS},
}
for _cell in CELLS:
    ARCHITECTURES.setdefault(_cell, partial(Recurrent, _cell))


def build(name: str, input_size: int, hidden_size: int, num_layers: int, **options: Any) -> nn.Module:
    """A network by name.

    Raises:
        ValueError: an unknown name, or what the network's constructor refuses.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"name: expected one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name](input_size, hidden_size, num_layers, **options)
