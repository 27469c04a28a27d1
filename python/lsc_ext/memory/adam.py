"""What Adam leaves of its learning rate, number by number.

The second moment of a gradient decides how far Adam moves a parameter: where a network is hypersensitive the step is
small. Zucchet and Orvieto, arXiv 2405.21064, figures 4C, 4D and 9. Adam: Kingma and Ba, ICLR 2015.

Letters: m and v the first and second moment as Adam keeps them, t the steps taken.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KINDS = ("scale", "probe")


def effective_learning_rates(optimizer: torch.optim.Optimizer, kind: str = "scale") -> list[Tensor]:
    """The learning rate of every number that an Adam or AdamW optimizer moves, from what it has seen.

    Args:
        optimizer: of ``torch.optim``, after at least one step; "amsgrad", "maximize" and weight decay are not read.
        kind: "scale" for lr / (sqrt(v / (1 - beta2^t)) + eps), what a gradient is multiplied with; "probe" for the
            paper's definition, how far the next step would go were the next gradient 1: lr (beta1 m + 1 - beta1) / (1 -
            beta1^(t+1)) over the root of (beta2 v + 1 - beta2) / (1 - beta2^(t+1)), and eps. Where gradients are large
            that is the momentum of the past, of either sign.

    Returns:
        A tensor for each parameter, in the order of the optimizer.

    Raises:
        ValueError: an unknown kind, or a parameter that has taken no step.
        TypeError: another optimizer.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise TypeError(f"optimizer: expected Adam or AdamW of torch.optim, got {type(optimizer).__qualname__}")
    rate: Callable[..., Tensor] = scale_rate if kind == "scale" else probe_rate
    found = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if not state:
                raise ValueError("optimizer: expected a step of every parameter, got one that has taken none")
            moments, steps = (state["exp_avg"], state["exp_avg_sq"]), float(state["step"])
            found.append(rate(*moments, steps, float(group["lr"]), betas=group["betas"], eps=group["eps"]))
    return found


def scale_rate(
    m: Tensor, v: Tensor, t: float, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Tensor:
    """What a gradient is multiplied with, of the shape of ``v``; lr / eps before the first step. ``m`` is not read."""
    known = 1 - betas[1] ** t
    return lr / ((v / known).sqrt() + eps) if known > 0 else torch.full_like(v, lr / eps)


def probe_rate(
    m: Tensor, v: Tensor, t: float, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Tensor:
    """Minus the next step, were the next gradient 1, of the shape of ``v``."""
    first = (betas[0] * m + 1 - betas[0]) / (1 - betas[0] ** (t + 1))
    second = (betas[1] * v + 1 - betas[1]) / (1 - betas[1] ** (t + 1))
    rate: Tensor = lr * first / (second.sqrt() + eps)
    return rate
