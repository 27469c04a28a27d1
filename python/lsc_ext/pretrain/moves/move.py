"""What a move is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lsc_ext.pretrain.measurement import Measurement


@dataclass(frozen=True)
class Change:
    """What a move is going to do, once every move has looked at the measurement.

    Attributes:
        apply: does it.
        scaled: the weights, by module and name, that it multiplies.
        unless_scaled: whether it is left out where another change multiplies one of them.
    """

    apply: Callable[[], None]
    scaled: tuple[tuple[nn.Module, str], ...] = ()
    unless_scaled: bool = False


class Move(ABC):
    """A way to change weights, given what was measured."""

    @abstractmethod
    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """What is to be done at a step. Nothing is changed yet, so every move sees the weights that were measured."""


def carry_out(changes: list[Change]) -> None:
    """Applies changes in order; a weight that one multiplied is not multiplied again by one that minds."""
    scaled: set[tuple[nn.Module, str]] = set()
    for change in changes:
        if change.unless_scaled and not scaled.isdisjoint(change.scaled):
            continue
        change.apply()
        scaled.update(change.scaled)
