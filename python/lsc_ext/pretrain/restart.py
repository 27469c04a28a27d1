"""One step from standard normal states, instead of a run from zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.trajectory import Trajectory, sample_dim, trajectory_of


def restarted(model: nn.Module, x: Tensor, generator: torch.Generator) -> Trajectory:
    """The model on the first step of x from states whose real numbers are standard normal.

    Raises:
        ValueError: the model hands no states back that it could be given.
    """
    time_dim = 1 - sample_dim(model)
    first = x.narrow(time_dim, 0, 1) if x.dim() > 2 else x
    with torch.no_grad():
        handed = model(first)
    if not (isinstance(handed, tuple) and len(handed) == 2) or isinstance(model, nn.Sequential):
        raise ValueError(
            f"states: expected 'reached' for a model without states, got 'normal' for {type(model).__qualname__}"
        )
    return trajectory_of(model, first, _normal_like(handed[1], generator))


def _normal_like(states: Any, generator: torch.Generator) -> Any:
    if isinstance(states, Tensor):
        real = torch.view_as_real(states) if states.is_complex() else states
        drawn = torch.randn(real.shape, generator=generator, dtype=real.dtype).to(real.device)
        return torch.view_as_complex(drawn) if states.is_complex() else drawn
    return tuple(_normal_like(state, generator) for state in states)
