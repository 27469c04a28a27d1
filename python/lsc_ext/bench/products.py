"""Jacobian products of a step in plain torch: ours by kept graphs against what torch.func offers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lsc_ext
from lsc_ext.bench.case import Case, Contender, Race
from lsc_ext.bench.measure import relative_error


class LayerNormGRU(nn.Module):
    """A GRU whose gates are normalised: what no fused kernel has."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.by_input, self.by_state = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.norm = nn.LayerNorm(3 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state [N, H]."""
        a, b = self.norm(self.by_input(x)).chunk(3, -1), self.by_state(h).chunk(3, -1)
        update, reset = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        return update * h + (1 - update) * torch.tanh(a[2] + reset * b[2])


def cases(quick: bool) -> list[Case]:
    """The group "products"."""
    sizes = ((8, 16),) if quick else ((48, 128), (256, 256))
    return [_case(hidden, points, transposed) for hidden, points in sizes for transposed in (False, True)]


def _case(hidden: int, points: int, transposed: bool) -> Case:
    def build() -> Race:
        torch.manual_seed(0)
        step = LayerNormGRU(hidden)
        x, s, v = (torch.randn(points, hidden) for _ in range(3))
        operator = lsc_ext.JacobianOperator(lambda s, x: step(x, s), s, list(step.parameters()), [x])
        wide = LayerNormGRU(hidden).double()
        wide.load_state_dict(step.state_dict())
        dense = torch.func.vmap(torch.func.jacrev(lambda s, x: wide(x, s)))(s.double(), x.double())
        matrices = dense.mT if transposed else dense
        truth = (matrices @ v.double().unsqueeze(2)).squeeze(2)

        def contender(name: str, run: Callable[[], Tensor]) -> Contender:
            return Contender(name, run, errors=lambda: {"relative error": relative_error(run().detach(), truth)})

        def function(s: Tensor) -> Tensor:
            return step(x, s)  # type: ignore[no-any-return]

        if transposed:
            pull = torch.func.vjp(function, s)[1]
            ours = contender("lsc_ext", lambda: operator.rmatvec(v))
            others = [
                contender("torch.func.vjp", lambda: torch.func.vjp(function, s)[1](v)[0]),
                contender("torch.func.vjp, kept", lambda: pull(v)[0]),
            ]
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.fx about its own graph
                linear = torch.func.linearize(function, s)[1]
            ours = contender("lsc_ext", lambda: operator.matvec(v))
            others = [
                contender("torch.func.jvp", lambda: torch.func.jvp(function, (s,), (v,))[1]),
                contender("torch.func.linearize, kept", lambda: linear(v)),
            ]
        return Race(ours, others, {"relative error": 1e-5}, 2.0 * 3 * hidden * hidden * points)

    product = "J' v" if transposed else "J v"
    sizes = {"H": hidden, "N": points, "product": product, "dtype": "float32"}
    return Case("products", f"{product}, H={hidden}, N={points}", sizes, build, "call", 41, grad=True)
