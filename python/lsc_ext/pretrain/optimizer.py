"""AdaBelief, and Lookahead around any optimiser's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

#: RAdam's threshold: with less, the variance of the adaptive step is too large for it to be taken.
_RECTIFIED_FROM = 5.0


class AdaBelief(torch.optim.Optimizer):
    """AdaBelief with RAdam's rectification and decoupled weight decay.

    With g the gradient, t the step from 1, m and s moving averages of g and of (g - m)^2:

        m = b1 m + (1 - b1) g,    s = b2 s + (1 - b2) (g - m)^2 + eps
        M = m / (1 - b1^t),       S = s / (1 - b2^t)
        w = w - lr (r M / (sqrt(S) + eps) + decay w)

    Zhuang et al., "AdaBelief Optimizer", arXiv 2010.07468, algorithm 2. r is the rectification of Liu et al., "On the
    Variance of the Adaptive Learning Rate and Beyond", arXiv 1908.03265: with R = 2 / (1 - b2) - 1 and
    q = R - 2 t b2^t / (1 - b2^t),

        r = sqrt((q - 4) (q - 2) R / ((R - 4) (R - 2) q))

    and where q < 5 the step is M itself.

    Args:
        params: parameters, or groups of them, as ``torch.optim`` takes them.
        lr: the learning rate.
        betas: b1 and b2.
        eps: added to s and to its root.
        weight_decay: decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-14,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step along the gradients that the parameters have; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), spread=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["step"] += 1
        step, mean, spread = state["step"], state["mean"], state["spread"]
        mean.mul_(first).add_(gradient, alpha=1 - first)
        spread.mul_(second).add_((gradient - mean).square_(), alpha=1 - second).add_(group["eps"])
        update = mean / (1 - first**step)
        decayed = second**step
        limit = 2 / (1 - second) - 1
        length = limit - 2 * step * decayed / (1 - decayed)
        if length >= _RECTIFIED_FROM:
            share = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
            update = math.sqrt(share) * update / ((spread / (1 - decayed)).sqrt_() + group["eps"])
        parameter.sub_(update + group["weight_decay"] * parameter, alpha=group["lr"])


class Lookahead:
    """Every k steps of an optimiser, the weights go back to the part alpha of the way since the last time.

    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", arXiv 1907.08610, algorithm 1. What is kept is
    the way itself and not where it began, so that what else changes the weights between the steps is left as it is;
    where nothing does, the two are the same.

    Args:
        optimizer: takes the steps.
        steps: k.
        share: alpha.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int = 6, share: float = 0.5) -> None:
        self.optimizer, self._steps, self._share = optimizer, steps, share
        self._taken = 0
        self._way: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """One step of the optimiser, at every k-th followed by the way back."""
        moved = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [p.clone() for p in moved]
        self.optimizer.step()
        for parameter, old in zip(moved, before, strict=True):
            self._way[parameter] = self._way.get(parameter, torch.zeros_like(old)) + parameter - old
        self._taken += 1
        if self._taken % self._steps == 0:
            for parameter, way in self._way.items():
                parameter.sub_(way, alpha=1 - self._share)
            self._way.clear()
