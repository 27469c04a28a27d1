"""Forward and backward passes of whole layers against torch.nn's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.measure import relative_error

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TORCH = "torch.nn"


def cases(quick: bool) -> list[Case]:
    """The group "layers"."""
    hidden, layers, steps = ((16,), (1, 2), 4) if quick else ((64, 128, 256, 512), (1, 2, 4), 64)
    batches = (8, 1) if quick else (32, 1)
    return [
        _case(kind, h, count, batch, steps, backward)
        for backward in (False, True)
        for batch in batches
        for kind in GATES
        for h in hidden
        for count in layers
    ]


def _case(kind: str, hidden: int, layers: int, batch: int, steps: int, backward: bool) -> Case:
    def build() -> Race:
        torch.manual_seed(0)
        theirs = getattr(torch.nn, kind)(hidden, hidden, layers)
        ours = getattr(nn, kind).from_torch(theirs)
        x = torch.randn(steps, batch, hidden)

        def results(module: torch.nn.Module) -> list[Tensor]:
            y = module(x)[0]
            if not backward:
                return [y]
            return [y.detach(), *torch.autograd.grad(y.square().sum(), list(module.parameters()))]

        def errors() -> Errors:
            pairs = zip(results(ours), results(theirs), strict=True)
            return {"relative error": max(relative_error(a, b) for a, b in pairs)}

        def run(module: torch.nn.Module) -> Callable[[], list[Tensor]]:
            return lambda: results(module)

        passes = 3 if backward else 1  # the backward pass has two products for each of the forward one
        flops = 2.0 * 2 * GATES[kind] * hidden * hidden * layers * steps * batch * passes
        peers = [Contender(TORCH, run(theirs))]
        return Race(Contender("lsc_ext", run(ours), errors=errors), peers, {"relative error": 1e-5}, flops)

    passes = "forward and backward" if backward else "forward"
    sizes = {"cell": kind, "H": hidden, "L": layers, "B": batch, "T": steps, "passes": passes, "dtype": "float32"}
    name = f"{passes}, {kind}, H={hidden}, L={layers}, B={batch}, T={steps}"
    return Case("layers", name, sizes, build, "call", seconds=0.45, grad=backward)
