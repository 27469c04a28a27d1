"""What a move is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from lsc_ext.pretrain.measurement import Measurement

#: Done once every move has looked at the measurement, in the order of the moves.
Change = Callable[[], None]


class Move(ABC):
    """A way to change weights, given what was measured."""

    @abstractmethod
    def plan(self, measured: Measurement) -> list[Change]:
        """What is to be done. Nothing is changed yet, so every move sees the weights that were measured."""
