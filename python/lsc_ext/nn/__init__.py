"""Layers on the compiled kernels. Those that torch.nn has too take its arguments, state dicts, inputs and outputs."""

from lsc_ext.nn.initialization import INITIALIZATIONS, initialize
from lsc_ext.nn.recurrent import GRU, LSTM, RNN, Recurrent, flat_weights

__all__ = ["GRU", "INITIALIZATIONS", "LSTM", "RNN", "Recurrent", "flat_weights", "initialize"]
