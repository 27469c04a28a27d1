"""Follow the gradient of the squared distance of the radii to their targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.move import Change, Move

_PLATEAU_STEPS, _PLATEAU_FACTOR, _LOWEST_RATE = 30, 0.5, 1e-6


class Gradient(Move):
    """AdamW; docs/design/0006 says why a matrix gets the learning rate divided by its fan-in.

    Raises:
        ValueError: no parameter requires gradients.
    """

    def __init__(self, model: nn.Module, settings: PretrainConfig) -> None:
        vectors = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
        groups: list[dict[str, Any]] = [{"params": vectors, "lr": settings.lr}] if vectors else []
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() >= 2:
                groups.append({"params": [parameter], "lr": settings.lr / parameter[0].numel()})
        for group in groups:
            group["initial_lr"] = group["lr"]
        if not groups:
            raise ValueError("model: expected parameters that require gradients for the move 'gradient', got none")
        self._optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer, factor=_PLATEAU_FACTOR, patience=_PLATEAU_STEPS, min_lr=_LOWEST_RATE
        )

    @property
    def calm(self) -> float:
        """How far the learning rate has fallen, 1 at first: rescaling slows down with it."""
        group = self._optimizer.param_groups[-1]
        return float(group["lr"]) / float(group["initial_lr"])

    def plan(self, measured: Measurement) -> list[Change]:
        """One step of the optimiser; the backward pass frees what the radii were computed from."""

        def step() -> None:
            self._optimizer.zero_grad(set_to_none=True)
            measured.loss().backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

        return [step]

    def heard(self, deviation: float) -> None:
        """Halves the learning rate after 30 steps without progress of the largest distance to a target."""
        self._schedule.step(deviation)
