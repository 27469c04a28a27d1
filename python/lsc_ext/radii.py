"""Spectral radii over the whole grid of a network: every layer, time step and sequence, along every direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.frobenius import frobenius_radius
from lsc_ext.fused import Points
from lsc_ext.operator import DIRECTIONS, JacobianOperator, SubmatrixOperator, eval_mode
from lsc_ext.spectral import DEFAULT_MATVECS, check_options, estimate_radius, seed_from, with_found
from lsc_ext.trajectory import Trajectory, trajectory_of

SQUARES = ("frobenius", "subsample")
IMPLEMENTATIONS = ("auto", "generic", "fused")


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
    time_chunk: int | None = None,
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
        impl: "generic": forward pass and radii as separate compiled calls; "fused": on CUDA, the forward pass and the
            radii of the first direction that allows it in one launch; "auto": fused where that is possible. All give
            the same bits.
        through_states: False differentiates the explicit dependence on the weights, states being data; True adds the
            path through the trajectory.
        readout: maps [N, H] to [N, O], for "output".
        square: how rectangular Jacobians ("input", "output", and between layers of unequal width) become one number:
            "frobenius", |J|_F / sqrt(max(m, n)), the radius that a random square sub-matrix with independent entries
            would have; "subsample", the radius of such a sub-matrix, rows or columns drawn once.
        time_chunk: how many time steps of a trajectory to hold at once, which changes no number; None for as many as
            take 32 MiB, or all where that is not possible. Possible for compiled layers (not linear ones) of one
            direction without a projection, alone or as a :class:`lsc_ext.Submodule`, while no gradient is recorded.

    Returns:
        A :class:`RadiusReport`. Radii are differentiable with respect to the weights where gradients are enabled.

    Raises:
        ValueError: an option, a shape or a name is wrong, ``inputs`` is not finite, or ``time_chunk`` is given where
            the trajectory is kept whole.
        TypeError: the model is of another kind, or a dtype is wrong.
    """
    names = check_directions(directions)
    check_options(method, num_matvecs, tol)
    check_implementation(impl, square)
    if max_points is not None and max_points < 1:
        raise ValueError(f"max_points: expected at least 1, got {max_points}")
    if "output" in names and readout is None:
        raise ValueError("readout: expected a module for direction 'output', got None")
    if time_chunk is not None and time_chunk < 1:
        raise ValueError(f"time_chunk: expected at least 1, got {time_chunk}")
    if isinstance(inputs, Tensor) and not _is_finite(inputs.detach()):
        raise ValueError("inputs: expected finite numbers, got NaN or infinity")
    seed = seed_from(generator)
    sampler = torch.Generator().manual_seed(seed)
    with eval_mode(model, readout):
        trajectory = trajectory_of(model, inputs, initial_state, through_states)
        recorded = trajectory.recorded or _is_recorded(readout)
        if recorded and time_chunk is not None:
            raise ValueError(
                f"time_chunk: expected None while gradients are recorded, try torch.no_grad(); got {time_chunk}"
            )
        population = trajectory.time_steps * trajectory.batch
        sampled = max_points is not None and max_points < population
        layers = {direction: list(trajectory.layers_of(direction)) for direction in names}
        chosen: dict[tuple[str, int], Tensor] = {}
        parts: dict[tuple[str, int], list[RadiusEstimate]] = {(d, k): [] for d in names for k in layers[d]}
        if sampled:
            chosen = {key: torch.randperm(population, generator=sampler)[:max_points].sort().values for key in parts}
        launched, _ = launched_direction(trajectory, [d for d in names if layers[d]], method, impl, recorded, tol)
        pieces = iter([(0, trajectory)]) if recorded else trajectory.pieces(time_chunk)
        for first_step, piece in pieces:
            of_piece = {key: _points_of(piece, first_step, chosen.get(key)) for key in parts}
            seeds = {key: _seed_of(seed, names.index(key[0]), key[1]) for key in parts}
            if launched is not None:
                own = {key: points for key, points in of_piece.items() if key[0] == launched}
                in_one = _points_in_one(own, seeds)
                found_in_one = piece.fused_radii(launched, in_one, num_matvecs or DEFAULT_MATVECS, tol, recorded)
            taken = 0
            for (direction, layer), found in parts.items():
                points, number = of_piece[direction, layer]
                if points.shape[0] == 0 < population:
                    continue
                if direction == launched:
                    these = found_in_one[taken : taken + points.shape[0]]
                    taken += points.shape[0]
                    found.append(
                        with_found(
                            piece.operator(direction, layer, points), these, num_matvecs, tol, seeds[direction, layer]
                        )
                        if recorded
                        else these.estimate
                    )
                    continue
                most = None if recorded else piece.points_at_once(direction, layer)
                for block in points.split(most or max(1, points.shape[0])):
                    # No name for the operator: it would keep this piece's states while the next one runs.
                    found.append(
                        estimate_along(
                            piece.operator(direction, layer, block, readout=readout),
                            direction,
                            method,
                            num_matvecs,
                            tol,
                            seeds[direction, layer],
                            square,
                            number,
                        )
                    )
                    number += block.shape[0]
    shape = (max_points,) if sampled else (trajectory.time_steps, trajectory.batch)
    estimates: dict[str, RadiusEstimate] = {}
    for direction in names:
        found = [part for layer in layers[direction] for part in parts[direction, layer]]
        joined = concatenate(found) if found else _nothing(inputs, method)
        indices = [_pairs(chosen[direction, layer], trajectory.batch) for layer in layers[direction]] if sampled else []
        estimates[direction] = replace(
            joined.reshape(len(layers[direction]), *shape),
            index=torch.stack(indices).to(joined.radius.device) if indices else None,
            population=population,
        )
    return RadiusReport(estimates, layers, "generic" if launched is None else "fused")


def check_implementation(impl: str, square: str) -> None:
    """Raises ValueError for an unknown name of either."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if square not in SQUARES:
        raise ValueError(f"square: expected one of {', '.join(SQUARES)}, got {square!r}")


def launched_direction(
    trajectory: Trajectory, names: Sequence[str], method: str, impl: str, recorded: bool, tol: float
) -> tuple[str | None, dict[str, str]]:
    """The first direction whose radii are found in one launch with the forward pass, None for two passes; and for each
    why it cannot be, "" where it could.

    Raises:
        ValueError: ``impl`` is "fused" and none can.
    """
    if impl == "generic":
        return None, dict.fromkeys(names, "impl is 'generic'")
    # Left vectors, which have a tolerance of their own then, are found in that launch too.
    whole = "a tol of 0 while gradients are recorded" if recorded and tol == 0 else ""
    reasons = {direction: whole or trajectory.why_not_fused(direction, method) for direction in names}
    launched = next((direction for direction, reason in reasons.items() if not reason), None)
    if impl == "fused" and launched is None:
        raise ValueError(
            "impl: expected a measurement that one launch can hold for 'fused', got "
            + "; ".join(f"{direction}: {reason}" for direction, reason in reasons.items())
        )
    return launched, reasons


def _points_in_one(
    points: Mapping[tuple[str, int], tuple[Tensor, int]], seeds: Mapping[tuple[str, int], int]
) -> Points:
    """The points of several layers, each (t, b) and the number of the first, for one launch."""
    return Points(
        torch.cat([nn.functional.pad(each, (1, 0), value=layer) for (_, layer), (each, _) in points.items()]),
        torch.cat([torch.arange(number, number + len(each)) for each, number in points.values()]),
        torch.cat([torch.full((len(each),), seeds[key]) for key, (each, _) in points.items()]),
    )


def _seed_of(seed: int, direction: int, layer: int) -> int:
    """Of the start vectors of a layer's points."""
    return (seed + 1_000_003 * direction + layer) % 2**63


def estimate_along(
    operator: JacobianOperator,
    direction: str,
    method: str,
    num_matvecs: int | None,
    tol: float,
    seed: int,
    square: str = "frobenius",
    first: int = 0,
) -> RadiusEstimate:
    """The radii of one layer; ``square`` says how rectangular Jacobians become one number, as :func:`radii` has it.

    Point i of the operator counts as number ``first`` + i of the layer.
    """
    if whole_direction(operator, direction):
        return estimate_radius(operator, method, num_matvecs, tol, seed, first)
    if square == "frobenius":
        return frobenius_radius(operator, tol=tol, seed=seed)
    size = min(operator.rows, operator.columns)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (
        torch.randperm(extent, generator=generator)[:size].sort().values for extent in (operator.rows, operator.columns)
    )
    return estimate_radius(SubmatrixOperator(operator, rows, columns), method, num_matvecs, tol, seed, first)


def whole_direction(operator: JacobianOperator, direction: str) -> bool:
    """Whether Jacobians are square as they are, so that a radius is one of theirs."""
    return operator.rows == operator.columns and direction not in ("input", "output")


def _is_finite(values: Tensor) -> bool:
    """Whether all are, found without a second tensor of that size."""
    if values.numel() == 0:
        return True
    values = torch.view_as_real(values) if values.is_complex() else values
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())  # NaN is both extremes


def _is_recorded(readout: Any) -> bool:
    parameters = readout.parameters() if isinstance(readout, nn.Module) else ()
    return torch.is_grad_enabled() and any(p.requires_grad for p in parameters)


def _pairs(flat: Tensor, batch: int) -> Tensor:
    """(t, b) [N, 2] of points numbered t B + b."""
    return torch.stack((flat // max(batch, 1), flat % max(batch, 1)), dim=1)


def _points_of(piece: Trajectory, first_step: int, chosen: Tensor | None) -> tuple[Tensor, int]:
    """Those of the chosen points (None: of all) that lie in a piece, with its own t; and how many came before."""
    begin, end = (step * piece.batch for step in (first_step, first_step + piece.time_steps))
    if chosen is None:
        return _pairs(torch.arange(end - begin), piece.batch), begin
    before, through = torch.searchsorted(chosen, torch.tensor([begin, end])).tolist()
    return _pairs(chosen[before:through] - begin, piece.batch), before


def _nothing(inputs: Tensor, method: str) -> RadiusEstimate:
    # Tokens are no radii, and those of half numbers are in float32.
    dtype = inputs.dtype if inputs.dtype in (torch.float32, torch.float64) else torch.get_default_dtype()
    empty = inputs.new_empty(0, dtype=dtype)
    return RadiusEstimate(
        radius=empty,
        residual=empty,
        status=inputs.new_empty(0, dtype=torch.uint8),
        num_matvecs=inputs.new_empty(0, dtype=torch.int32),
        eigenvalue=empty.to(torch.complex64 if dtype == torch.float32 else torch.complex128),
        condition=empty,
        method=method,
    )
