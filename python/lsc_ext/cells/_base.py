"""What a cell is, and the table of all cells.

Letters: B batch, I input size, H hidden size, S state variables per unit, n = S * H, Q parameters of a unit's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, cat
from torch.nn.functional import linear

Tensors = tuple[Tensor, ...]
Step = Callable[[Tensors, Tensors, Tensors, Tensors], Tensors]


class UnitParameter(NamedTuple):
    """A parameter that each unit has of its own; it starts uniform in [low, high].

    ``role`` is what it does: "recurrent", "timescale", "threshold" or "other".
    """

    name: str
    low: float
    high: float
    role: str = "other"


@dataclass(frozen=True)
class Cell:
    """A gated cell: a per-unit function of gates and states around two matrix products.

    ``step(input_gates, recurrent_gates, states, unit)`` maps the blocks of ``W_ih x + b_ih`` (``input_blocks`` tensors
    [..., H]), the blocks of ``W_hh h + b_hh`` (``recurrent_blocks`` tensors), the S states and the Q
    ``unit_parameters`` [H] to the S next states. State 0 is what the layer hands up and feeds back.

    ``derive(states, unit)``, where there is one, gives state 0 from the others; then the Jacobians are those of the
    others, with the path through state 0 inside. ``in_time`` is False for a layer that never reads its state.

    ``carry_gate`` names the gate that multiplies a unit's own past: (k, s) where that factor is sigmoid(s a), a being
    block k of the input gates plus that of the recurrent ones, and s 1 or -1. ``gates`` are the names of the blocks,
    where there are several.
    """

    name: str
    states: tuple[str, ...]
    input_blocks: int
    recurrent_blocks: int
    step: Step
    reference: str
    unit_parameters: tuple[UnitParameter, ...] = ()
    derive: Callable[[Tensors, Tensors], Tensor] | None = None
    in_time: bool = True
    carry_gate: tuple[int, int] | None = None
    gates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name in CELLS:
            raise ValueError(f"name: expected a cell name that is not taken, got {self.name!r}")
        CELLS[self.name] = self

    @property
    def free_states(self) -> tuple[str, ...]:
        """The states that the Jacobians are about: all that are not derived."""
        return self.states if self.derive is None else self.states[1:]


CELLS: dict[str, Cell] = {}


def layer_step(
    cell: Cell,
    inputs: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor | None = None,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    unit: Tensor | None = None,
) -> Tensor:
    """One step of one layer, in plain differentiable torch.

    Args:
        cell: which cell.
        inputs: [..., I], what the layer is fed.
        state: [..., S * H], all states side by side.
        weight_ih: [input_blocks * H, I].
        weight_hh: [recurrent_blocks * H, H], None for a cell without recurrent products.
        bias_ih: [input_blocks * H] or None.
        bias_hh: [recurrent_blocks * H] or None.
        unit: [Q, H], None for a cell without parameters of the units.

    Returns:
        The next state, [..., S * H].
    """
    states = state.tensor_split(len(cell.states), dim=-1)
    input_gates = linear(inputs, weight_ih, bias_ih).tensor_split(cell.input_blocks, dim=-1)
    recurrent_gates: Sequence[Tensor] = ()
    if weight_hh is not None and cell.recurrent_blocks > 0:
        recurrent_gates = linear(states[0], weight_hh, bias_hh).tensor_split(cell.recurrent_blocks, dim=-1)
    own = () if unit is None else unit.unbind(0)
    return cat(cell.step(tuple(input_gates), tuple(recurrent_gates), tuple(states), tuple(own)), dim=-1)


def all_states(cell: Cell, free: Tensor, unit: Tensor | None = None) -> Tensor:
    """The whole state [..., S * H] from the free states side by side, [..., V * H]."""
    if cell.derive is None:
        return free
    states = tuple(free.tensor_split(len(cell.free_states), dim=-1))
    return cat((cell.derive(states, () if unit is None else tuple(unit.unbind(0))), free), dim=-1)
