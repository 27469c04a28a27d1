"""Spectral radii over the whole grid of a network: every layer, time step and sequence, along every direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.frobenius import frobenius_radius
from lsc_ext.operator import DIRECTIONS, JacobianOperator, SubmatrixOperator, eval_mode
from lsc_ext.spectral import check_options, estimate_radius, seed_from
from lsc_ext.trajectory import grid_points, trajectory_of

SQUARES = ("frobenius", "subsample")
IMPLEMENTATIONS = ("auto", "generic")


@dataclass(frozen=True)
class RadiusReport(Mapping[str, RadiusEstimate]):
    """Estimates by direction. ``report["time"].radius`` is [L, T, B]; "depth" and "diagonal" [L-1, T, B]; "input" and
    "output" [1, T, B]; [.., P] in place of [.., T, B] where ``max_points`` sampled P points per layer.

    Attributes:
        estimates: direction -> estimate.
        layers: direction -> which layer each row belongs to, from 0.
        implementation: what ran.
    """

    estimates: dict[str, RadiusEstimate]
    layers: dict[str, list[int]]
    implementation: str

    def __getitem__(self, direction: str) -> RadiusEstimate:
        return self.estimates[direction]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each direction and layer: mean, standard deviation, extremes, certified fraction, matvecs."""
        rows = []
        for direction, estimate in self.estimates.items():
            for row, layer in enumerate(self.layers[direction]):
                radius = estimate.radius[row].detach().double().flatten()
                finite = radius[radius.isfinite()]
                status = estimate.status[row].flatten()
                rows.append(
                    {
                        "direction": direction,
                        "layer": layer,
                        "points": radius.numel(),
                        "mean": float(finite.mean()) if finite.numel() else float("nan"),
                        "std": float(finite.std()) if finite.numel() > 1 else 0.0,
                        "min": float(finite.min()) if finite.numel() else float("nan"),
                        "max": float(finite.max()) if finite.numel() else float("nan"),
                        "certified": float((status == 0).double().mean()) if status.numel() else float("nan"),
                        "matvecs": float(estimate.num_matvecs[row].double().mean()) if status.numel() else 0.0,
                        "method": estimate.method,
                    }
                )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Numbers for JSON: the rows, the count of each status, and how the radii were computed."""
        return {
            "implementation": self.implementation,
            "status": {direction: estimate.counts() for direction, estimate in self.estimates.items()},
            "rows": self.rows(),
        }

    def __str__(self) -> str:
        lines = [
            f"{'direction':<10}{'layer':>6}{'mean':>9}{'std':>9}{'min':>9}{'max':>9}{'certified':>11}{'points':>8}"
        ]
        for row in self.rows():
            lines.append(
                f"{row['direction']:<10}{row['layer']:>6}{row['mean']:>9.4f}{row['std']:>9.4f}{row['min']:>9.4f}"
                f"{row['max']:>9.4f}{row['certified']:>10.1%} {row['points']:>7}"
            )
        return "\n".join(lines)


def check_directions(directions: Sequence[str]) -> tuple[str, ...]:
    """The directions as a tuple; raises ValueError for an unknown or repeated one, TypeError for a bare string."""
    if isinstance(directions, str):
        raise TypeError(f"directions: expected a sequence of names, got the string {directions!r}")
    for direction in directions:
        if direction not in DIRECTIONS:
            raise ValueError(f"directions: expected names among {', '.join(DIRECTIONS)}, got {direction!r}")
    if len(set(directions)) != len(directions) or not directions:
        raise ValueError(f"directions: expected distinct names, at least one, got {tuple(directions)}")
    return tuple(directions)


@ops.uncompiled
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
) -> RadiusReport:
    """The spectral radii of a network's own step Jacobians along a trajectory.

    Args:
        model: a ``torch.nn.RNN``, ``GRU`` or ``LSTM``, a module of ``lsc_ext.nn``, a :class:`lsc_ext.StepModel`, an
            ``nn.Sequential`` of such and of feed-forward or convolutional layers, or a :class:`lsc_ext.Submodule` of
            another model. Dropout is off.
        inputs: in the model's own layout: [T, B, I], [B, T, I] if batch_first, or [T, I]; samples [B, ...] for a
            feed-forward model, which count as one step (T = 1).
        initial_state: as the model takes it; None for zeros.
        directions: among "time" d s[t,l] / d s[t-1,l], "depth" d y[t,l] / d y[t,l-1], "diagonal" d s[t,l] / d
            s[t-1,l-1], "input" d s[t,1] / d x[t], "output" d readout(y[t,L]) / d s[t,L]. s are all states of a layer,
            y what it hands up.
        method: "auto", "krylov", "power" or "dense"; see :func:`lsc_ext.spectral_radius`.
        num_matvecs: most products of one side for each point.
        tol: relative residual at which a point counts as converged.
        max_points: measure this many points (t, b) of each layer, drawn without replacement; None for all.
        generator: draws one seed for the start vectors and the sample.
        impl: "auto" or "generic": forward pass and radii as separate compiled calls, the only one that is built.
        through_states: False differentiates the explicit dependence on the weights, states being data; True adds the
            path through the trajectory.
        readout: maps [N, H] to [N, O], for "output".
        square: how rectangular Jacobians ("input", "output", and between layers of unequal width) become one number:
            "frobenius", |J|_F / sqrt(max(m, n)), the radius that a random square sub-matrix with independent entries
            would have; "subsample", the radius of such a sub-matrix, rows or columns drawn once.

    Returns:
        A :class:`RadiusReport`. Radii are differentiable with respect to the weights where gradients are enabled.

    Raises:
        ValueError: an option, a shape or a name is wrong, or ``inputs`` is not finite.
        TypeError: the model is of another kind, or a dtype is wrong.
    """
    names = check_directions(directions)
    check_options(method, num_matvecs, tol)
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if square not in SQUARES:
        raise ValueError(f"square: expected one of {', '.join(SQUARES)}, got {square!r}")
    if max_points is not None and max_points < 1:
        raise ValueError(f"max_points: expected at least 1, got {max_points}")
    if "output" in names and readout is None:
        raise ValueError("readout: expected a module for direction 'output', got None")
    if isinstance(inputs, Tensor) and not bool(inputs.detach().isfinite().all()):
        raise ValueError("inputs: expected finite numbers, got NaN or infinity")
    seed = seed_from(generator)
    sampler = torch.Generator().manual_seed(seed)
    with eval_mode(model, readout):
        trajectory = trajectory_of(model, inputs, initial_state, through_states)
        grid = grid_points(trajectory.time_steps, trajectory.batch)
        sampled = max_points is not None and max_points < grid.shape[0]
        shape = (max_points,) if sampled else (trajectory.time_steps, trajectory.batch)
        estimates: dict[str, RadiusEstimate] = {}
        layers: dict[str, list[int]] = {}
        for number, direction in enumerate(names):
            layers[direction] = list(trajectory.layers_of(direction))
            parts, indices = [], []
            for layer in layers[direction]:
                points = grid
                if sampled:
                    points = grid[torch.randperm(grid.shape[0], generator=sampler)[:max_points]]
                indices.append(points)
                operator = trajectory.operator(direction, layer, points, readout=readout)
                own_seed = (seed + 1_000_003 * number + layer) % 2**63
                parts.append(estimate_along(operator, direction, method, num_matvecs, tol, own_seed, square))
            estimate = concatenate(parts) if parts else _nothing(inputs, method)
            estimates[direction] = replace(
                estimate.reshape(len(parts), *shape),
                index=torch.stack(indices) if sampled and indices else None,
                population=grid.shape[0],
            )
    return RadiusReport(estimates, layers, "generic")


def estimate_along(
    operator: JacobianOperator,
    direction: str,
    method: str,
    num_matvecs: int | None,
    tol: float,
    seed: int,
    square: str = "frobenius",
) -> RadiusEstimate:
    """The radii of one layer; ``square`` says how rectangular Jacobians become one number, as :func:`radii` has it."""
    if operator.rows == operator.columns and direction not in ("input", "output"):
        return estimate_radius(operator, method, num_matvecs, tol, seed)
    if square == "frobenius":
        return frobenius_radius(operator, tol=tol, seed=seed)
    size = min(operator.rows, operator.columns)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (
        torch.randperm(extent, generator=generator)[:size].sort().values for extent in (operator.rows, operator.columns)
    )
    return estimate_radius(SubmatrixOperator(operator, rows, columns), method, num_matvecs, tol, seed)


def _nothing(inputs: Tensor, method: str) -> RadiusEstimate:
    dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()  # tokens are no radii
    empty = inputs.new_empty(0, dtype=dtype)
    return RadiusEstimate(
        radius=empty,
        residual=empty,
        status=torch.empty(0, dtype=torch.uint8),
        num_matvecs=torch.empty(0, dtype=torch.int32),
        eigenvalue=empty.to(torch.complex64 if dtype == torch.float32 else torch.complex128),
        condition=empty,
        method=method,
    )
