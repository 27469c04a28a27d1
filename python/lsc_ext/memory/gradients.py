"""How large a loss's gradients are, by group of parameters: the statistic that shows in training what a memory does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from lsc_ext.memory.groups import Group
from lsc_ext.sequential import output_of

Loss = Callable[[Tensor], Tensor]


def gradient_moments(
    model: Any,
    inputs: Tensor,
    initial_state: Any,
    loss: Loss | None,
    groups: Sequence[Sequence[Group]],
    generator: Generator,
) -> dict[str, float]:
    """Mean square of the entries of the loss's gradient, by group; without those that it does not depend on."""
    tensors = list({id(group.tensor): group.tensor for own in groups for group in own}.values())
    if not tensors:
        return {}
    state = () if initial_state is None else (initial_state,)
    with torch.enable_grad():
        output = output_of(model, inputs, *state)
        if loss is not None:
            value = loss(output)
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__qualname__
                raise ValueError(f"loss: expected one number as a tensor, got {got}")
        elif not isinstance(output, Tensor) or not output.requires_grad:
            return {}
        else:
            target = torch.randn(output.shape, generator=generator, dtype=torch.float64)
            value = (output - target.to(output)).square().mean() / 2
        if not value.requires_grad:
            return {}
        found = torch.autograd.grad(value.reshape(()), tensors, allow_unused=True)
    by_tensor = {id(tensor): gradient for tensor, gradient in zip(tensors, found, strict=True)}
    moments = {}
    for group in (group for own in groups for group in own):
        gradient = by_tensor[id(group.tensor)]
        if gradient is not None:
            moments[group.name] = float(group.part(gradient).abs().double().square().sum()) / max(1, group.count)
    return moments
