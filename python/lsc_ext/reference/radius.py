"""Spectral radii from the eigenvalues of formed matrices; gradients by autograd through the eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsc_ext.reference.forward import run
from lsc_ext.reference.jacobian import jacobians, layers_of


@dataclass(frozen=True)
class RadiusEstimate:
    """Radii and the eigenvalues that they are the moduli of (NaN where the radius is a scaled Frobenius norm)."""

    radius: Tensor
    eigenvalue: Tensor


def spectral_radius(
    operator: Any,
    *,
    method: str = "auto",
    num_matvecs: int | None = None,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> RadiusEstimate:
    """The spectral radius of each matrix of a batch.

    Args:
        operator: matrices [..., n, n], or anything with ``to_dense()``.
        method: no effect.
        num_matvecs: no effect.
        tol: no effect.
        generator: no effect.

    Returns:
        Radii [...] float64, differentiable where the leading eigenvalue is simple.
    """
    matrices = (operator if isinstance(operator, Tensor) else operator.to_dense()).double()
    if matrices.numel() == 0:
        return RadiusEstimate(matrices.new_zeros(matrices.shape[:-2]), matrices.new_zeros(matrices.shape[:-2]) + 0j)
    values = torch.linalg.eigvals(matrices)
    leading = values.gather(-1, values.detach().abs().argmax(-1, keepdim=True)).squeeze(-1)
    return RadiusEstimate(leading.abs(), torch.where(leading.imag < 0, leading.conj(), leading).detach())


def _frobenius_radius(matrices: Tensor) -> RadiusEstimate:
    radius = torch.linalg.matrix_norm(matrices) / max(*matrices.shape[-2:]) ** 0.5
    return RadiusEstimate(radius, torch.full_like(radius, float("nan"), dtype=torch.complex128))


def radii(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    directions: Sequence[str] = ("time", "depth"),
    method: str = "auto",
    num_matvecs: int | None = None,
    tol: float = 1e-3,
    max_points: int | None = None,
    generator: torch.Generator | None = None,
    impl: str = "auto",
    through_states: bool = False,
    readout: Callable[[Tensor], Tensor] | None = None,
    square: str = "frobenius",
    time_chunk: int | None = None,
) -> dict[str, RadiusEstimate]:
    """The spectral radii of a network's own step Jacobians along a trajectory, every point of it.

    Args:
        model: a ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or a recurrent module of ``lsc_ext.nn``.
        inputs: in the model's own layout.
        initial_state: as the model takes it; None for zeros.
        directions: among "time", "depth", "diagonal", "input", "output".
        method: no effect.
        num_matvecs: no effect.
        tol: no effect.
        max_points: None; the oracle measures every point.
        generator: no effect.
        impl: no effect.
        through_states: False holds the states constant when differentiating, True adds the path through the trajectory.
        readout: maps [.., H] to [.., O], for "output".
        square: "frobenius": |J|_F / sqrt(max(m, n)) for "input" and "output".
        time_chunk: no effect.

    Returns:
        direction -> radii [L, T, B] ("time"), [L - 1, T, B] ("depth", "diagonal") or [1, T, B] ("input", "output").

    Raises:
        ValueError: an unknown direction, or an option that draws at random.
    """
    if max_points is not None or square != "frobenius":
        raise ValueError("max_points, square: expected None and 'frobenius', which draw nothing at random")
    trajectory = run(model, inputs, initial_state, through_states)
    time_steps, batch = trajectory.x.shape[:2]
    report = {}
    for direction in directions:
        layers = layers_of(direction, trajectory.states.shape[0], trajectory.cell.in_time)
        measure = _frobenius_radius if direction in ("input", "output") else spectral_radius
        rows = [measure(jacobians(trajectory, direction, k, t, readout)) for k in layers for t in range(time_steps)]
        shape = (len(layers), time_steps, batch)
        none = torch.zeros(0, dtype=torch.float64)
        report[direction] = RadiusEstimate(
            torch.cat([none, *(row.radius for row in rows)]).reshape(shape),
            torch.cat([none + 0j, *(row.eigenvalue for row in rows)]).reshape(shape),
        )
    return report
