"""The gate of a cell that multiplies a unit's own past, moved by its bias.

Letters: H hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsc_ext.trajectory import Kernel
from lsc_ext.weights import assign

#: A gate that is nearly open counts as this open, so that a small change of it asks for a bounded change of the bias.
_WIDEST = 0.9


@dataclass(frozen=True)
class GateBias(Kernel):
    """The bias of one gate, all of its units together.

    A gate sigmoid(s b) at zero drive grows by the relative amount e where s b grows by e / (1 - sigmoid(s b)). All
    units get the same change, that of their mean gate, so that what tells them apart stays.

    Attributes:
        first: row of the bias at which the gate begins.
        last: row behind its end.
        sign: s.
        others: module and name of the biases that are added to this one.
    """

    first: int = 0
    last: int = 0
    sign: int = 1
    others: tuple[tuple[nn.Module, str], ...] = ()

    def _rest(self) -> float:
        """1 - the mean gate at zero drive, at least 1 - ``_WIDEST``."""
        with torch.no_grad():
            held = (
                getattr(module, name)[self.first : self.last].double() for module, name in self.weights + self.others
            )
            gate = torch.sigmoid(self.sign * torch.stack(list(held)).sum(0))
            return 1 - min(float(gate.mean()), _WIDEST)

    def response(self, mean: Tensor) -> float:
        """D log mean / d log gate."""
        if not all(value.requires_grad for value in self.values):
            return 1.0
        (gradient,) = torch.autograd.grad(mean, self.values, retain_graph=True, allow_unused=True)
        if gradient is None:
            return 0.0
        change = self.sign * float(gradient[self.first : self.last].sum())
        return change / (self._rest() * float(mean.detach()))

    def scale(self, factor: float) -> None:
        """Multiplies the mean gate at zero drive by ``factor``, to first order."""
        ((module, name),) = self.weights
        bias: Tensor = getattr(module, name).detach().clone()
        bias[self.first : self.last] += self.sign * math.log(factor) / self._rest()
        assign(module, name, bias, "gate_bias")
