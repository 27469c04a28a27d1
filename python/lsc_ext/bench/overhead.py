"""What a call of a layer costs beside its arithmetic: one step of one sequence through 32 units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C, nn, ops
from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.measure import relative_error
from lsc_ext.nn import eager, flat_weights

HIDDEN = 32
MODES = ("forward, no grad", "forward, recorded", "forward and backward")
TORCH, KERNEL = "torch.nn", "our kernel alone, into memory that is there"


def cases(quick: bool) -> list[Case]:
    """The group "overhead"; a turn is a block of calls."""
    calls, blocks = (2, 3) if quick else (50, 60)
    return [_case(kind, mode, calls, blocks) for kind in ("RNN", "GRU", "LSTM") for mode in MODES]


def _case(kind: str, mode: str, calls: int, blocks: int) -> Case:
    def build() -> Race:
        torch.manual_seed(0)
        theirs = getattr(torch.nn, kind)(HIDDEN, HIDDEN)
        ours = getattr(nn, kind).from_torch(theirs)
        x = torch.randn(1, 1, HIDDEN)
        expected_route = "KERNEL" if mode == MODES[0] else "RECORDED"

        def errors() -> Errors:
            pairs = zip(results(ours, x, mode), results(theirs, x, mode), strict=True)
            route = eager.route((x, *ours.parameters())).name
            worst = max(relative_error(a, b) for a, b in pairs)
            return {"relative error": worst, "calls that took the long way": float(route != expected_route)}

        return Race(
            Contender("lsc_ext", repeated(call_of(ours, x, mode), calls), calls, errors),
            [
                Contender(TORCH, repeated(call_of(theirs, x, mode), calls), calls),
                Contender(KERNEL, repeated(kernel(ours, x), calls), calls),
            ],
            {"relative error": 1e-5, "calls that took the long way": 0.0},
        )

    sizes = {"cell": kind, "mode": mode, "H": HIDDEN, "B": 1, "T": 1, "dtype": "float32"}
    return Case("overhead", f"{kind}, {mode}", sizes, build, "call", blocks, 4.0, grad=mode != MODES[0])


def call_of(module: torch.nn.Module, x: Tensor, mode: str) -> Callable[[], Any]:
    """One call of a layer."""

    def both() -> Tensor:
        output: Tensor = module(x)[0]
        output.sum().backward()
        return output

    return both if mode == MODES[2] else lambda: module(x)[0]


def repeated(call: Callable[[], Any], calls: int) -> Callable[[], None]:
    """A block of calls."""

    def block() -> None:
        for _ in range(calls):
            call()

    return block


def results(module: torch.nn.Module, x: Tensor, mode: str) -> list[Tensor]:
    """What a call computes."""
    module.zero_grad()
    output = call_of(module, x, mode)().detach()
    return [output, *(p.grad for p in module.parameters() if p.grad is not None)]


def kernel(model: nn.Recurrent, x: Tensor) -> Callable[[], Any]:
    """The compiled forward pass alone."""
    weights, shape = [w.detach() for w in flat_weights(model, 1)], ops.CELL_SHAPES[model.cell]
    states = x.new_zeros(1, 2, shape["states"], 1, HIDDEN)
    sizes, threads = ops.sizes(x, states[:, 0]), torch.get_num_threads()
    buffers = (ops.buffer(x), ops.layer_buffers(weights), ops.buffer(states))

    def run(held: object = (x, weights, states)) -> None:  # the buffers are addresses only
        _C.forward(model.cell, "float32", sizes, *buffers, None, threads)

    return run
