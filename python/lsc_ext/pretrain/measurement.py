"""What one step of pre-training measures: radii of fresh points from fresh start vectors.

Letters: P points of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.restart import restarted
from lsc_ext.radii import estimate_along
from lsc_ext.trajectory import Kernel, Readout, Trajectory, grid_points, kernel_of, trajectory_of
from lsc_ext.weights import Weight

#: Radii within one layer; all others are of what comes from the layer below.
_WITHIN = ("time", "input", "output")


@dataclass(frozen=True)
class LayerRadius:
    """The radii of one layer along one direction.

    Attributes:
        layer: which.
        estimate: of P points.
        error: standard error of their mean.
        kernel: the weights whose scale moves this Jacobian; None where there are none.
        carries: kind -> what carries the state on, in time; see :meth:`lsc_ext.trajectory.Trajectory.carry`.
    """

    layer: int
    estimate: RadiusEstimate
    error: float
    kernel: Kernel | None
    carries: dict[str, Kernel]


@dataclass(frozen=True)
class Measurement:
    """Radii of one step.

    Attributes:
        rows: direction -> the layers that were measured.
        targets: direction -> target radius.
        weights: layer -> its parameters, of the layers that may be moved.
        num_layers: of the whole network.
        readout: the module behind the last layer; None where it is none.
    """

    rows: dict[str, list[LayerRadius]]
    targets: dict[str, float]
    weights: dict[int, Sequence[Weight]]
    num_layers: int
    readout: nn.Module | None

    def means(self) -> dict[str, dict[int, float]]:
        """Direction -> layer -> mean radius."""
        return {d: {row.layer: float(row.estimate.mean().detach()) for row in rows} for d, rows in self.rows.items()}

    def errors(self) -> dict[str, dict[int, float]]:
        """Direction -> layer -> standard error of the mean radius."""
        return {d: {row.layer: row.error for row in rows} for d, rows in self.rows.items()}

    @property
    def nothing(self) -> bool:
        """Whether no layer was measured: a pair may have no Jacobian of the directions asked for."""
        return not any(self.rows.values())

    @property
    def certified(self) -> float:
        """Fraction of the points that converged."""
        found = [row.estimate for rows in self.rows.values() for row in rows]
        return concatenate(found).certified_fraction if found else float("nan")

    def loss(self) -> Tensor:
        """Mean over points of (radius - target)^2, summed over directions; 0 where nothing was measured."""
        parts = [torch.zeros(())] if self.nothing else []
        for direction, rows in self.rows.items():
            if not rows:
                continue
            radius = torch.stack([row.estimate.radius for row in rows])
            finite = radius.isfinite()
            distance = torch.where(finite, radius - self.targets[direction], torch.zeros_like(radius))
            parts.append(distance.square().sum() / finite.sum())
        return torch.stack(parts).sum()


def measure(
    model: nn.Module,
    x: Tensor,
    targets: dict[str, float],
    settings: PretrainConfig,
    generator: torch.Generator,
    states: torch.Generator,
    layers: Callable[[Trajectory], Collection[int]],
    readout: Readout | None = None,
    population: int | None = None,
) -> Measurement:
    """Radii of the model on one batch, with their graph where a move asks for gradients.

    Args:
        model: what :func:`lsc_ext.radii` takes.
        x: a batch in the model's own layout.
        targets: direction -> target radius.
        settings: how many points, and how their radii are estimated.
        generator: draws the points and the seeds of the start vectors.
        states: draws the states where they are not to be reached.
        layers: which layers of a trajectory to measure.
        readout: for "output".
        population: sequences that the batch was drawn from; None for no end of them.
    """
    trajectory = trajectory_of(model, x) if settings.states == "reached" else restarted(model, x, states)
    chosen = layers(trajectory)
    grid = grid_points(trajectory.time_steps, trajectory.batch)
    rows: dict[str, list[LayerRadius]] = {}
    with torch.set_grad_enabled(settings.needs_gradients):
        for direction in targets:
            rows[direction] = []
            for layer in trajectory.layers_of(direction):
                if layer not in chosen or not (direction in _WITHIN or layer - 1 in chosen):
                    continue
                points = grid[torch.randperm(grid.shape[0], generator=generator)[: settings.max_points]]
                seed = int(torch.randint(2**62, (1,), generator=generator))
                operator = trajectory.operator(direction, layer, points, readout=readout)
                estimate = estimate_along(
                    operator, direction, settings.method, settings.num_matvecs, settings.tol, seed, settings.square
                )
                whole = None if population is None else population * trajectory.time_steps
                rows[direction].append(
                    LayerRadius(
                        layer,
                        estimate,
                        _error(estimate, points, whole),
                        _kernel(trajectory, direction, layer, readout),
                        _carries(trajectory, layer) if direction == "time" else {},
                    )
                )
    weights = {layer: trajectory.weights_of(layer) for layer in sorted(chosen)}
    module = readout if isinstance(readout, nn.Module) else None
    return Measurement(rows, targets, weights, trajectory.num_layers, module)


def _kernel(trajectory: Trajectory, direction: str, layer: int, readout: Readout | None) -> Kernel | None:
    if direction == "output":
        return kernel_of(readout, "weight") if isinstance(readout, nn.Linear) else None
    return trajectory.kernel(direction, layer)


def _carries(trajectory: Trajectory, layer: int) -> dict[str, Kernel]:
    found = {kind: trajectory.carry(kind, layer) for kind in ("gate_bias", "timescale")}
    return {kind: kernel for kind, kernel in found.items() if kernel is not None}


def _error(estimate: RadiusEstimate, points: Tensor, population: int | None) -> float:
    """Standard error of the mean of one layer's radii at points [P, 2] as one of all points that could be drawn."""
    index = points.unsqueeze(0).to(estimate.radius.device)
    layer = replace(estimate.reshape(1, points.shape[0]), index=index, population=population)
    return float(layer.stderr())
