"""What a cell is, and the table of all cells.

Letters: B batch, I input size, H hidden size, S state variables per unit, n = S * H.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, cat
from torch.nn.functional import linear

Step = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Cell:
    """A gated cell: a per-unit function of gates and states around two matrix products.

    ``step(input_gates, recurrent_gates, states)`` maps the blocks of ``W_ih x + b_ih`` (``input_blocks`` tensors
    [..., H]), the blocks of ``W_hh h + b_hh`` (``recurrent_blocks`` tensors) and the S states to the S next states.
    State 0 is what the layer hands up and feeds back.
    """

    name: str
    states: tuple[str, ...]
    input_blocks: int
    recurrent_blocks: int
    step: Step
    reference: str

    def __post_init__(self) -> None:
        if self.name in CELLS:
            raise ValueError(f"name: expected a cell name that is not taken, got {self.name!r}")
        CELLS[self.name] = self


CELLS: dict[str, Cell] = {}


def layer_step(
    cell: Cell,
    inputs: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
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

    Returns:
        The next state, [..., S * H].
    """
    states = state.tensor_split(len(cell.states), dim=-1)
    input_gates = linear(inputs, weight_ih, bias_ih).tensor_split(cell.input_blocks, dim=-1)
    recurrent_gates: tuple[Tensor, ...] = ()
    if weight_hh is not None and cell.recurrent_blocks > 0:
        recurrent_gates = linear(states[0], weight_hh, bias_hh).tensor_split(cell.recurrent_blocks, dim=-1)
    return cat(cell.step(tuple(input_gates), tuple(recurrent_gates), tuple(states)), dim=-1)
