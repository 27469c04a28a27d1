"""Whether a random move is made at a step."""

from __future__ import annotations

import torch


class Chance:
    """A probability that may fall linearly to 0.

    Args:
        probability: at step 0.
        until: the step at which it is 0; None for a constant one.
        generator: draws one number a step, whatever comes of it.
    """

    def __init__(self, probability: float, until: float | None, generator: torch.Generator) -> None:
        self._probability, self._until, self._generator = probability, until, generator

    def at(self, step: int) -> float:
        """The probability at a step."""
        share = 1.0 if self._until is None else max(0.0, 1 - step / self._until)
        return self._probability * share

    def taken(self, step: int) -> bool:
        """Draws."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64)) < self.at(step)
