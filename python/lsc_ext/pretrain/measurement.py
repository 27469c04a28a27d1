"""What one step of pre-training measures: radii of fresh points from fresh start vectors.

Letters: P points of a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.radii import estimate_along
from lsc_ext.trajectory import Kernel, grid_points, trajectory_of


@dataclass(frozen=True)
class LayerRadius:
    """The radii of one layer along one direction.

    Attributes:
        layer: which.
        estimate: of P points.
        kernel: the weights whose scale moves this Jacobian; None where there are none.
    """

    layer: int
    estimate: RadiusEstimate
    kernel: Kernel | None


@dataclass(frozen=True)
class Measurement:
    """Radii of one step.

    Attributes:
        rows: direction -> its layers.
        targets: direction -> target radius.
    """

    rows: dict[str, list[LayerRadius]]
    targets: dict[str, float]

    def means(self) -> dict[str, list[float]]:
        """Direction -> mean radius of each layer."""
        return {d: [float(row.estimate.mean().detach()) for row in rows] for d, rows in self.rows.items()}

    @property
    def certified(self) -> float:
        """Fraction of the points that converged."""
        return concatenate([row.estimate for rows in self.rows.values() for row in rows]).certified_fraction

    def loss(self) -> Tensor:
        """Mean over points of (radius - target)^2, summed over directions."""
        parts = []
        for direction, rows in self.rows.items():
            radius = torch.stack([row.estimate.radius for row in rows])
            finite = radius.isfinite()
            distance = torch.where(finite, radius - self.targets[direction], torch.zeros_like(radius))
            parts.append(distance.square().sum() / finite.sum())
        return torch.stack(parts).sum()


def measure(
    model: nn.Module, x: Tensor, targets: dict[str, float], settings: PretrainConfig, generator: torch.Generator
) -> Measurement:
    """Radii of the model on one batch, with their graph where a move asks for gradients.

    Args:
        model: what :func:`lsc_ext.radii` takes.
        x: a batch in the model's own layout.
        targets: direction -> target radius.
        settings: how many points, and how their radii are estimated.
        generator: draws the points and the seeds of the start vectors.
    """
    trajectory = trajectory_of(model, x)
    grid = grid_points(trajectory.time_steps, trajectory.batch)
    rows: dict[str, list[LayerRadius]] = {}
    with torch.set_grad_enabled("gradient" in settings.moves):
        for direction in targets:
            rows[direction] = []
            for layer in trajectory.layers_of(direction):
                points = grid[torch.randperm(grid.shape[0], generator=generator)[: settings.max_points]]
                seed = int(torch.randint(2**62, (1,), generator=generator))
                operator = trajectory.operator(direction, layer, points)
                estimate = estimate_along(
                    operator, direction, settings.method, settings.num_matvecs, settings.tol, seed
                )
                rows[direction].append(LayerRadius(layer, estimate, trajectory.kernel(direction, layer)))
    return Measurement(rows, targets)


def largest_distance(means: dict[str, list[float]], targets: dict[str, float], step: int) -> float:
    """Of a layer's mean radius to its target.

    Raises:
        FloatingPointError: a mean is not finite.
    """
    distances = [abs(mean - targets[d]) for d, row in means.items() for mean in row]
    if not all(math.isfinite(value) for value in distances):
        raise FloatingPointError(
            f"model: expected finite radii in every layer, got none in some at step {step}; "
            "do the states overflow at these weights?"
        )
    return max(distances)
