"""Layers on the compiled kernels. Those that torch.nn has too take its arguments, state dicts, inputs and outputs."""

from lsc_ext.nn.convert import convert
from lsc_ext.nn.recurrent import GRU, LSTM, RNN, Recurrent, StackTrajectory, flat_weights

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "StackTrajectory", "convert", "flat_weights"]
