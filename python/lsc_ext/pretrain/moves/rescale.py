"""Multiply a kernel by target / measured radius, damped by how far the radius follows it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from torch import Tensor

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import LayerRadius, Measurement
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.trajectory import Kernel


class Damped(Move):
    """One kernel of each measured radius, clipped, and damped as docs/design/0006 has it.

    Args:
        settings: the largest factor.
        calm: what the largest factor's logarithm is multiplied with.
    """

    #: Whether the kernel is left alone where another move multiplies it.
    unless_scaled = False

    def __init__(self, settings: PretrainConfig, calm: Callable[[], float]) -> None:
        self._limit, self._calm = math.log1p(settings.rescale_limit), calm

    def _kernel(self, row: LayerRadius) -> Kernel | None:
        raise NotImplementedError

    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """One scaling for each kernel."""
        return [
            Change(functools.partial(kernel.scale, factor), kernel.weights, self.unless_scaled)
            for kernel, factor in self.factors(measured)
        ]

    def factors(self, measured: Measurement) -> list[tuple[Kernel, float]]:
        """What each kernel is to be multiplied with."""
        found: list[tuple[Kernel, float]] = []
        limit = self._limit * self._calm()
        for direction, rows in measured.rows.items():
            for row in rows:
                kernel = self._kernel(row)
                mean = row.estimate.mean()
                level = float(mean.detach())
                if kernel is None or level <= 0 or kernel.frozen:
                    continue
                wanted = math.log(measured.targets[direction] / level)
                found.append((kernel, math.exp(_damping(kernel, mean) * min(max(wanted, -limit), limit))))
        return found


def _damping(kernel: Kernel, mean: Tensor) -> float:
    """D log(mean radius) / d log(scale), within [0, 1].

    1 where the Jacobian is proportional to the kernel, 0 where it has no part in the radius; 1 too where no gradients
    are recorded.
    """
    return min(max(kernel.response(mean), 0.0), 1.0) if mean.requires_grad else 1.0


class Rescale(Damped):
    """The kernels: recurrent weights in time, input weights along depth."""

    def _kernel(self, row: LayerRadius) -> Kernel | None:
        return row.kernel
