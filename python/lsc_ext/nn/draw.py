"""Random initial values, the same for a seed wherever a parameter is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def draw_into(parameter: Tensor, draw: Callable[[Tensor], object], generator: Generator | None) -> None:
    """Fills ``parameter`` with what ``draw`` writes into memory where the generator is (None: torch's, of the CPU)."""
    place = torch.device("cpu") if generator is None else generator.device
    if parameter.is_meta or parameter.device == place:
        draw(parameter)
        return
    values = torch.empty(parameter.shape, dtype=parameter.dtype, device=place)
    draw(values)
    parameter.copy_(values)
