"""The optimisation: measure, remember the best, move."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.kept import Kept
from lsc_ext.pretrain.measurement import Measurement, largest_distance, measure
from lsc_ext.pretrain.moves import Gradient, Move, Rescale
from lsc_ext.pretrain.result import PretrainStep
from lsc_ext.pretrain.split import Sequences


class Loop:
    """Steps until the stop rule is met, or until there are no more.

    Attributes:
        history: one record per step.
        converged: whether the stop rule was met.
        best_step: at which the kept weights were measured.
        kept: the best weights so far.
    """

    def __init__(
        self, model: nn.Module, settings: PretrainConfig, targets: dict[str, float], source: Sequences
    ) -> None:
        self.model, self.settings, self.targets, self.source = model, settings, targets, source
        self.history: list[PretrainStep] = []
        self.converged = False
        self.best_step = 0
        self.kept = Kept([model])
        self._best_deviation = math.inf
        self._generator = torch.Generator().manual_seed(settings.seed + 1)
        self._gradient = Gradient(model, settings) if "gradient" in settings.moves else None
        self._moves: list[Move] = [] if self._gradient is None else [self._gradient]
        if "rescale" in settings.moves:
            self._moves.append(Rescale(settings, self._calm))

    def _calm(self) -> float:
        return 1.0 if self._gradient is None else self._gradient.calm

    def run(self) -> Iterator[PretrainStep]:
        """One record per step."""
        there = 0
        for step in range(self.settings.steps):
            measured = measure(self.model, self.source.batch(), self.targets, self.settings, self._generator)
            record = self._record(step, measured)
            self.history.append(record)
            if record.deviation < self._best_deviation:
                self._best_deviation, self.best_step = record.deviation, step
                self.kept.take()
            there = there + 1 if record.deviation <= self.settings.tolerance else 0
            if there >= self.settings.patience:
                self.converged = True
                yield record
                return
            yield record
            for change in [change for move in self._moves for change in move.plan(measured)]:
                change()
            if self._gradient is not None:
                self._gradient.heard(record.deviation)

    def _record(self, step: int, measured: Measurement) -> PretrainStep:
        means = measured.means()
        deviation = largest_distance(means, self.targets, step)
        return PretrainStep(step, float(measured.loss().detach()), deviation, means, measured.certified)
