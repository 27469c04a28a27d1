"""What learns: layers of this package as the paper starts them, with one input and one output.

Letters: N states, nu_0 the smallest modulus to start from.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from lsc_ext import nn
from lsc_ext.experiments.identification.teacher import with_eigenvalues
from lsc_ext.nn.linear import LinearRecurrent

F64 = torch.float64
#: Name -> what it is.
STUDENTS = {
    "dense": "dense recurrence",
    "blocks": "blocks",
    "diagonal": "complex diagonal",
    "normalized": "complex diagonal, normalised input",
    "lru": "LRU: normalised input, exponential eigenvalues",
}


def build_student(
    name: str, states: int, heads: int, memory: float, angle: float, generator: Generator
) -> LinearRecurrent:
    """A newly drawn student, float64.

    Dense recurrences and blocks start from eigenvalues of any modulus below 1, as the paper found to be better than to
    start from the teacher's; diagonal ones on the ring between nu_0 and 1.

    Args:
        name: one of :data:`STUDENTS`.
        states: N.
        heads: blocks; 1 but for "blocks".
        memory: nu_0.
        angle: the largest phase to start from, in units of pi.
        generator: the only source of random numbers.

    Raises:
        ValueError: an unknown name, or heads that do not divide the states.
    """
    if name not in STUDENTS:
        raise ValueError(f"student: expected one of {', '.join(STUDENTS)}, got {name!r}")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=F64, generator=generator)

    with torch.random.fork_rng(devices=[]):  # the layers' own draws, which are replaced
        layer = _LAYERS[name](states, heads)
    if isinstance(layer, nn.BlockDiagonalRNN):
        size = states // layer.heads
        values = {
            "A": with_eigenvalues(normal(layer.heads, size, size) / math.sqrt(size), 0.0, angle),
            "B": normal(states, 1),
            "C": normal(1, states) / math.sqrt(states),
        }
    else:
        square = (1 - uniform(states)) * (1 - memory**2) + memory**2
        phase = math.pi * angle * (2 * uniform(states) - 1)
        log_modulus = square.log() / 2
        values = {"B": normal(2, states, 1) / math.sqrt(states), "C": normal(2, 1, states)}
        if isinstance(layer, nn.LRU):
            values |= {"nu_log": (-log_modulus).log(), "theta_log": (phase % (2 * math.pi)).log()}
        else:
            values["lambda"] = torch.stack((square.sqrt() * phase.cos(), square.sqrt() * phase.sin()))
        if name != "diagonal":
            values["gamma_log"] = (-torch.expm1(2 * log_modulus)).log() / 2
    values["D"] = normal(1)
    with torch.no_grad():
        for key, value in values.items():
            layer.get_parameter(f"{key}_l0").copy_(value)
    return layer


_LAYERS: dict[str, Callable[[int, int], LinearRecurrent]] = {
    "dense": lambda n, heads: nn.BlockDiagonalRNN(1, 1, state_size=n, dtype=F64),
    "blocks": lambda n, heads: nn.BlockDiagonalRNN(1, 1, heads=heads, state_size=n, dtype=F64),
    "diagonal": lambda n, heads: nn.ComplexDiagonalRNN(1, 1, state_size=n, dtype=F64),
    "normalized": lambda n, heads: nn.ComplexDiagonalRNN(1, 1, state_size=n, normalization="learned", dtype=F64),
    "lru": lambda n, heads: nn.LRU(1, 1, state_size=n, dtype=F64),
}
