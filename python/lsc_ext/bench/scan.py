"""A complex diagonal scan against what torch offers and against the memory's speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C, ops
from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.measure import relative_error
from lsc_ext.scan import scan

LOOP, DOUBLING, FRESH = "torch loop", "torch doubling", "writing as much memory that is new"
CHECKED = 4096  # steps that are checked, and that doubling is timed on, which takes seconds for them all
Way = Callable[[Tensor, Tensor], Tensor]


def cases(quick: bool) -> list[Case]:
    """The group "scan", timed per step."""
    steps, width = (64, 8) if quick else (65536, 256)
    sizes = {"T": steps, "B": 1, "N": width}
    return [
        Case("scan", "forward", sizes | {"dtype": "float32"}, lambda: _forward(steps, width), "step"),
        Case("scan", "backward", sizes | {"dtype": "float32"}, lambda: _backward(steps, width), "step", grad=True),
        Case("scan", "forward, into memory that is there", sizes, lambda: _kernel(steps, width), "step"),
    ]


def torch_loop(transition: Tensor, inputs: Tensor) -> Tensor:
    """Step by step."""
    state, states = torch.zeros_like(inputs[0]), []
    for row in inputs.unbind(0):
        state = torch.addcmul(row, transition, state)
        states.append(state)
    return torch.stack(states)


def torch_doubling(transition: Tensor, inputs: Tensor) -> Tensor:
    """log2 T passes: after pass p a state holds the inputs of the last 2^p steps."""
    states, power, distance = inputs, transition, 1
    while distance < inputs.shape[0]:
        states = torch.cat((states[:distance], states[distance:] + power * states[:-distance]))
        power, distance = power * power, 2 * distance
    return states


WAYS: dict[str, Way] = {"lsc_ext": scan, DOUBLING: torch_doubling, LOOP: torch_loop}


def _data(steps: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    modulus, angle = (torch.rand(width, generator=generator) for _ in range(2))
    inputs, upstream = (torch.randn(steps, 1, width, dtype=torch.complex64, generator=generator) for _ in range(2))
    return torch.polar(0.9 + 0.099 * modulus, angle), inputs, upstream


def pulled(way: Way, transition: Tensor, inputs: Tensor, upstream: Tensor) -> tuple[Callable[[], Any], Tensor]:
    """What computes gradients, and the states."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (transition, inputs)]
    states = way(*leaves)
    return lambda: torch.autograd.grad(states, leaves, upstream, retain_graph=True), states.detach()


def _errors(way: Way, data: tuple[Tensor, Tensor, Tensor], gradients: bool) -> Callable[[], Errors]:
    """Against a loop in complex128."""

    def errors() -> Errors:
        transition, few, upstream = data[0], data[1][:CHECKED], data[2][:CHECKED]
        wide = [t.to(torch.complex128) for t in (transition, few, upstream)]
        with torch.set_grad_enabled(gradients):
            if not gradients:
                return {"relative error": relative_error(way(transition, few), torch_loop(*wide[:2]))}
            found, expected = pulled(way, transition, few, upstream)[0](), pulled(torch_loop, *wide)[0]()
        return {"relative error": max(relative_error(a, e) for a, e in zip(found, expected, strict=True))}

    return errors


def _race(
    data: tuple[Tensor, Tensor, Tensor],
    gradients: bool,
    run: Callable[[Way, Tensor, Tensor, Tensor], Callable[[], Any]],
) -> Race:
    transition, inputs, upstream = data

    def contender(name: str, steps: int) -> Contender:
        way = WAYS[name]
        timed = run(way, transition, inputs[:steps], upstream[:steps])
        return Contender(name, timed, steps, _errors(way, data, gradients))

    steps = inputs.shape[0]
    peers = [contender(DOUBLING, min(CHECKED, steps)), contender(LOOP, steps)]
    if not gradients:
        peers.append(Contender(FRESH, lambda: torch.empty_like(inputs).fill_(0), steps))
    # Backward reads states and upstream, and writes the gradients of the inputs; the transition is one row.
    moved = (3.0 if gradients else 2.0) * inputs.nbytes / steps
    return Race(contender("lsc_ext", steps), peers, {"relative error": 1e-5}, None, moved)


def _forward(steps: int, width: int) -> Race:
    def run(way: Way, transition: Tensor, inputs: Tensor, upstream: Tensor) -> Callable[[], Any]:
        return lambda: way(transition, inputs)

    return _race(_data(steps, width), False, run)


def _backward(steps: int, width: int) -> Race:
    return _race(_data(steps, width), True, lambda *parts: pulled(*parts)[0])


def _kernel(steps: int, width: int) -> Race:
    transition, inputs, _ = _data(steps, width)
    target, threads = torch.zeros_like(inputs), torch.get_num_threads()
    memory = [ops.buffer(t) for t in (transition, inputs, target)]

    def run() -> None:
        sizes = [steps, 1, width]
        _C.scan("complex64", sizes, memory[0], memory[1], None, memory[2], True, False, False, threads)

    def errors() -> Errors:
        run()
        return {"relative error": relative_error(target, scan(transition, inputs))}

    ours = Contender("lsc_ext", run, steps, errors)
    return Race(ours, (), {"relative error": 1e-5}, None, 2.0 * inputs.nbytes / steps)
