"""Sequences as a layer walks over them: all of one length, or packed.

Letters: T time, B batch, F features, N rows of packed data.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor

Initial = tuple[Tensor, ...] | None
#: Maps x [T, B, F] and initial states [L, B, .] to the output [T, B, .] and the last states.
Walk = Callable[[Tensor, Initial], tuple[Tensor, tuple[Tensor, ...]]]


class Steps:
    """Sequences of one length, ``data`` [T, B, F]."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    @property
    def batch(self) -> int:
        """B."""
        return self.data.shape[1]

    @property
    def any_step(self) -> bool:
        """Whether T > 0."""
        return self.data.shape[0] > 0

    def holding(self, data: Tensor) -> Steps:
        """The same sequences with other features."""
        return Steps(data)

    def reversed(self) -> Steps:
        """Each sequence from its end to its start."""
        return Steps(self.data.flip(0))

    def split_first(self) -> tuple[Tensor, Steps]:
        """The first step [B, F], and what follows it."""
        return self.data[0], Steps(self.data[1:])

    def joined(self, first: Tensor, rest: Tensor) -> Tensor:
        """The data of a first step [B, F] and of what follows it; the reverse of :meth:`split_first`."""
        return torch.cat((first.unsqueeze(0), rest))

    def run(self, walk: Walk, initial: Initial) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output [T, B, .] and the last states of ``walk``."""
        return walk(self.data, initial)


class Packed:
    """Sequences of falling lengths, ``data`` [N, F]: all first steps, then all second ones, as ``torch.nn`` packs them.

    ``sizes``: how many sequences have a step t; they never rise. They are walked over in pieces of one size, each piece
    a slice of the data: no step is computed that no sequence has.
    """

    def __init__(self, data: Tensor, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    @property
    def batch(self) -> int:
        """B."""
        return self.sizes[0]

    @property
    def any_step(self) -> bool:
        """Whether T > 0."""
        return len(self.sizes) > 0

    def holding(self, data: Tensor) -> Packed:
        """The same sequences with other features."""
        return Packed(data, self.sizes)

    def reversed(self) -> Packed:
        """Each sequence from its end to its start; lengths stay, so the sizes do too."""
        sizes = torch.tensor(self.sizes)
        offsets = sizes.cumsum(0) - sizes
        step = torch.arange(len(self.sizes)).repeat_interleave(sizes)  # [N]: row -> t
        sequence = torch.arange(len(step)) - offsets[step]
        length = (sizes.unsqueeze(1) > torch.arange(self.batch)).sum(0)  # [B]
        rows = offsets[length[sequence] - 1 - step] + sequence
        return self.holding(self.data.index_select(0, rows.to(self.data.device)))

    def split_first(self) -> tuple[Tensor, Packed]:
        """The first step [B, F], and what follows it."""
        return self.data[: self.batch], Packed(self.data[self.batch :], self.sizes[1:])

    def joined(self, first: Tensor, rest: Tensor) -> Tensor:
        """The data of a first step [B, F] and of what follows it; the reverse of :meth:`split_first`."""
        return torch.cat((first, rest))

    def run(self, walk: Walk, initial: Initial) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output [N, .] and the last states of ``walk``, those of each sequence after its own last step.

        ``initial`` may hold more sequences than have a step; those keep their state.
        """
        outputs, ended, row, states = [], [], 0, initial
        for batch, run in groupby(self.sizes):
            steps = len(list(run))
            if states is not None and batch < states[0].shape[1]:
                ended.append([state[:, batch:] for state in states])
                states = tuple(state[:, :batch] for state in states)
            piece = self.data[row : row + steps * batch].unflatten(0, (steps, batch))
            output, states = walk(piece, states)
            outputs.append(output.flatten(0, 1))
            row += steps * batch
        assert states is not None, "no step and no initial state"
        if not outputs:
            return states[0].new_empty(0, states[0].shape[2]), states
        ended.append(list(states))
        last = tuple(torch.cat(parts[::-1], dim=1) for parts in zip(*ended, strict=True))
        return torch.cat(outputs), last


Sequences = Steps | Packed
