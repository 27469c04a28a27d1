"""Layers and inputs that tests of lsc.memory.measure share."""

import math
import re

import torch
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.cells import CELLS

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(report, layer=0):
    return {row["name"]: row for row in report.rows() if row["layer"] == layer}


def diagonal(moduli, phases, inputs: Tensor | None = None) -> lsc.nn.ComplexDiagonalRNN:
    """Units that each read one input as it is."""
    lam = torch.polar(torch.tensor(moduli, dtype=F64), torch.tensor(phases, dtype=F64))
    model = lsc.nn.ComplexDiagonalRNN(1, 1, state_size=len(lam), dtype=F64)
    with torch.no_grad():
        model.lambda_l0.copy_(torch.stack((lam.real, lam.imag)))
        model.B_l0.copy_(torch.tensor([1.0, 0.0], dtype=F64).view(2, 1, 1).expand_as(model.B_l0))
    return model


def correlated(rho: float, steps: int, count: int, features: int = 1) -> Tensor:
    x = [torch.randn(count, features, dtype=F64)]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(count, features, dtype=F64))
    return torch.stack(x)


class Leaky(nn.Module):
    def __init__(self, z: float) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(z, dtype=F64))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.decay * h + x


def long_lstm() -> nn.LSTM:
    """Forget gates of 400 steps with input gates that are half open."""
    torch.manual_seed(0)
    model = nn.LSTM(2, 8, dtype=F64)
    with torch.no_grad():
        model.bias_ih_l0[8:16] = 6.0
        model.bias_hh_l0[8:16] = 0.0
    return model


def long_independent() -> lsc.nn.IndRNN:
    torch.manual_seed(0)
    model = lsc.nn.IndRNN(2, 8, dtype=F64)
    with torch.no_grad():
        model.recurrent_weight_l0.copy_(torch.linspace(0.95, 0.995, 8))
    return model


def worst(report) -> float:
    return max(row["excess"] for row in report.rows() if row["excess"] is not None)


def gate_of(name: str, values: Tensor, cell: str) -> Tensor:
    """The part of a parameter that a group's name means."""
    gate = re.search(r"\[(\w)\]$", name)
    if gate is None:
        return values
    names = CELLS[cell].gates
    return values.chunk(len(names))[names.index(gate[1])]
