"""Inputs that tests of lsc.memory share."""

import cmath

import pytest
import torch
from torch import Tensor

from lsc_ext import memory

F64, C128 = torch.float64, torch.complex128
INPUTS = {
    "white": 0.0,
    "coloured": 0.7,
    "alternating": -0.6,
    "constant": 1.0,
    "mixture": [(0.3, 0.9), (0.5, 0.0), (0.2, 1.0)],
    "lags": memory.Lags(torch.tensor([1.0, 0.6, 0.3, 0.1])),
}
inputs = pytest.mark.parametrize("rho", INPUTS.values(), ids=INPUTS)
few_inputs = pytest.mark.parametrize("rho", [INPUTS[name] for name in ("mixture", "lags")])


def polar(modulus: float, phase: float) -> complex:
    return cmath.rect(modulus, phase)


def autocorrelation_at(rho, lags: Tensor) -> Tensor:
    """R, from what a user gives."""
    if isinstance(rho, memory.Lags):
        return torch.cat((rho.values, torch.zeros(int(lags.max()) + 1)))[lags]
    pairs = [(1.0, rho)] if isinstance(rho, float) else rho
    return sum(w * torch.tensor(r, dtype=F64) ** lags for w, r in pairs)
