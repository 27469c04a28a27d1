"""Linear networks whose eigenvalues are where they are asked to be.

Letters: n states, nu_0 the smallest modulus, l an eigenvalue as drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lsc_ext.memory import DenseSystem

F64 = torch.float64


def with_eigenvalues(matrices: Tensor, smallest: float, angle: float) -> Tensor:
    """Real matrices with the eigenvectors of others, and eigenvalues moved into a ring and a sector.

    Moduli become nu_0 + (1 - nu_0) tanh |l|, phases those of l times ``angle``. A real eigenvalue below 0 stays real:
    it keeps its sign where the sector is the whole circle and becomes positive in a narrower one. (The official code
    turns -r into a phase without its conjugate, whose real part, r cos(angle pi), is all that is left: a shorter memory
    than nu_0 says.)

    Args:
        matrices: [.., n, n] float64.
        smallest: nu_0.
        angle: the largest phase in units of pi, at most 1.

    Returns:
        [.., n, n] float64.
    """
    values, vectors = torch.linalg.eig(matrices)
    modulus = smallest + (1 - smallest) * values.abs().tanh()
    alone = values.imag == 0
    phase = torch.where(alone & (values.real < 0), math.pi * (angle == 1), values.angle() * angle)
    moved = vectors * torch.polar(modulus, phase).unsqueeze(-2)
    found: Tensor = torch.linalg.solve(vectors, moved, left=False).real
    return found


def draw_teacher(states: int, memory: float, angle: float, generator: Generator) -> DenseSystem:
    """A dense network of one input and output: A from a normal matrix of variance 1 / n, B and D normal, C of variance
    1 / n.

    Args:
        states: n.
        memory: nu_0.
        angle: as :func:`with_eigenvalues` has it.
        generator: the only source of random numbers.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=generator)

    A = with_eigenvalues(normal(states, states) / math.sqrt(states), memory, angle)
    B, C, D = normal(states), normal(states) / math.sqrt(states), normal(1, 1)
    return DenseSystem(A, B, C, D)
