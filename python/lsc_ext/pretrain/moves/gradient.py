"""Follow the gradient of the squared distance of the radii to their targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.pretrain.optimizer import AdaBelief, Lookahead

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adabelief": AdaBelief}
_PLATEAU_FACTOR, _LOWEST_RATE = 0.5, 1e-6


class Gradient(Move):
    """An optimiser's step; docs/design/0006 says why a matrix gets the learning rate divided by its fan-in.

    Args:
        parameters: what may be moved; those that require no gradients are left alone.
        settings: which optimiser, and its options.

    Raises:
        ValueError: no parameter requires gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: PretrainConfig) -> None:
        free = [p for p in dict.fromkeys(parameters) if p.requires_grad]
        vectors = [p for p in free if p.dim() < 2]
        groups: list[dict[str, Any]] = [{"params": vectors, "lr": settings.lr}] if vectors else []
        for parameter in free:
            if parameter.dim() >= 2:
                fan_in = parameter[0].numel() if settings.rates == "fan_in" else 1
                groups.append({"params": [parameter], "lr": settings.lr / fan_in})
        for group in groups:
            group["initial_lr"] = group["lr"]
        if not groups:
            raise ValueError("model: expected parameters that require gradients for the move 'gradient', got none")
        self._optimizer = _OPTIMIZERS[settings.optimizer](groups, weight_decay=settings.weight_decay)
        self._step = self._optimizer.step
        if settings.lookahead is not None:
            self._step = Lookahead(self._optimizer, settings.lookahead).step
        self._schedule = None
        if settings.plateau is not None:
            self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self._optimizer, factor=_PLATEAU_FACTOR, patience=settings.plateau, min_lr=_LOWEST_RATE
            )

    @property
    def calm(self) -> float:
        """How far the learning rate has fallen, 1 at first: rescaling slows down with it."""
        group = self._optimizer.param_groups[-1]
        return float(group["lr"]) / float(group["initial_lr"])

    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """One step of the optimiser; the backward pass frees what the radii were computed from."""

        def follow() -> None:
            self._optimizer.zero_grad(set_to_none=True)
            measured.loss().backward()
            self._step()
            self._optimizer.zero_grad(set_to_none=True)

        return [] if measured.nothing else [Change(follow)]

    def heard(self, deviation: float) -> None:
        """Halves the learning rate after ``plateau`` steps without progress of the largest distance to a target."""
        if self._schedule is not None:
            self._schedule.step(deviation)
