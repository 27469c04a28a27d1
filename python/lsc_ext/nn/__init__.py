"""Layers on the compiled kernels. Those that torch.nn has too take its arguments, state dicts, inputs and outputs."""

from lsc_ext.nn.architectures import ARCHITECTURES, build
from lsc_ext.nn.convert import convert
from lsc_ext.nn.feed_forward import FeedForward
from lsc_ext.nn.independent import IndRNN
from lsc_ext.nn.initialization import INITIALIZATIONS, initialize
from lsc_ext.nn.linear import LRU, BlockDiagonalRNN, ComplexDiagonalRNN
from lsc_ext.nn.linear_trajectory import _read_linear as _read_linear
from lsc_ext.nn.recurrent import GRU, LSTM, RNN, Recurrent, flat_weights
from lsc_ext.nn.residual import ResLRU
from lsc_ext.nn.spiking import ALIF, LIF
from lsc_ext.nn.stack import BidirectionalTrajectory, StackTrajectory

__all__ = [
    "ALIF",
    "ARCHITECTURES",
    "GRU",
    "INITIALIZATIONS",
    "LIF",
    "LRU",
    "LSTM",
    "RNN",
    "BidirectionalTrajectory",
    "BlockDiagonalRNN",
    "ComplexDiagonalRNN",
    "FeedForward",
    "IndRNN",
    "Recurrent",
    "ResLRU",
    "StackTrajectory",
    "build",
    "convert",
    "flat_weights",
    "initialize",
]
