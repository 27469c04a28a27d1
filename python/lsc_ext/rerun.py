"""A layer that is run again, alone, over what it was fed: its states as a function of its parameters.

Letters: T time, B batch, K of its sequences, n size of the state in real numbers, N units, I features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Diagonal:
    """A linear recurrence x' = lambda x + W u whose units know nothing of each other.

    Attributes:
        eigenvalues: reads lambda [N] off the parameters, real or complex.
        input_matrix: reads W [N, I] off them.
        features: u [T, B, I], data.
        initial: [B, N], data.
    """

    eigenvalues: Callable[[], Tensor]
    input_matrix: Callable[[], Tensor]
    features: Tensor
    initial: Tensor


@dataclass(frozen=True)
class LayerRun:
    """One layer and the data that it runs over.

    Attributes:
        kind: the cell's name, "diagonal", "linear" or "step".
        fed: [T, B, ...], data.
        states: (indices [K]) -> the states of these sequences after each step, [T, K, n], differentiable by the layer's
            parameters alone.
        units: how many numbers the state has, a complex one counting as one.
        parts: how many real numbers each unit has, all first ones before all second ones, where no parameter moves two
            units; None where one may.
        diagonal: the recurrence, where it is one.
        carry: gives the gate that multiplies each unit's own past, [T, B, H], where there is one.
        moduli: of the eigenvalues of the recurrence alone, [N], where these are parameters.
    """

    kind: str
    fed: Tensor
    states: Callable[[Tensor], Tensor]
    units: int
    parts: int | None = None
    diagonal: Diagonal | None = None
    carry: Callable[[], Tensor] | None = None
    moduli: Tensor | None = None

    @property
    def sequences(self) -> int:
        """B."""
        return self.fed.shape[1]

    def select(self, index: Tensor) -> LayerRun:
        """The same over some of the sequences, [K]."""
        states, carry, diagonal = self.states, self.carry, self.diagonal
        if diagonal is not None:
            diagonal = replace(diagonal, features=diagonal.features[:, index], initial=diagonal.initial[index])
        return replace(
            self,
            fed=self.fed[:, index],
            states=lambda some: states(index[some]),
            carry=None if carry is None else lambda: carry()[:, index],
            diagonal=diagonal,
        )
