"""Multiply a layer's kernel by target / measured radius."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.move import Change, Move


class Rescale(Move):
    """The factor is clipped, and damped by how far the kernel's scale moves the radius at all (docs/design/0006).

    Args:
        settings: the largest factor.
        calm: what the largest factor's logarithm is multiplied with.
    """

    def __init__(self, settings: PretrainConfig, calm: Callable[[], float]) -> None:
        self._limit, self._calm = math.log1p(settings.rescale_limit), calm

    def plan(self, measured: Measurement) -> list[Change]:
        """One scaling for each kernel."""
        changes: list[Change] = []
        limit = self._limit * self._calm()
        for direction, rows in measured.rows.items():
            for row in rows:
                mean = row.estimate.mean()
                level = float(mean.detach())
                if row.kernel is None or level <= 0 or row.kernel.frozen:
                    continue
                wanted = math.log(measured.targets[direction] / level)
                damping = 1.0
                if mean.requires_grad:
                    # d log(mean radius) / d log(scale): 1 where the Jacobian is proportional to the kernel, 0 where the
                    # gates alone set the radius and no scale would help.
                    damping = min(max(row.kernel.response(mean), 0.0), 1.0)
                factor = math.exp(damping * min(max(wanted, -limit), limit))
                changes.append(functools.partial(row.kernel.scale, factor))
        return changes
