"""When pre-training is done."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.result import PretrainStep

#: Standard errors within which the mean over all points lies, for about 95 percent of samples.
_ERRORS = 2.0
_MEMORY = 0.9
#: The paper's bounds on the moving variance: at first, and after its second best step.
_SPREAD, _SPREAD_LATER, _BEST_STEPS = 0.5, 0.1, 2
_AVERAGE_SPREAD = 0.4


class StopRule(ABC):
    """Whether ``patience`` steps in a row were good enough.

    Args:
        settings: the tolerance and the patience.
        targets: direction -> target radius.
    """

    def __init__(self, settings: PretrainConfig, targets: dict[str, float]) -> None:
        self._tolerance, self._patience, self._targets = settings.tolerance, settings.patience, targets
        self._in_a_row = 0

    def met(self, record: PretrainStep) -> bool:
        """Takes note of a step; returns whether it was the last one needed."""
        self._in_a_row = self._in_a_row + 1 if self._good(record) else 0
        return self._in_a_row >= self._patience

    @abstractmethod
    def _good(self, record: PretrainStep) -> bool:
        """Whether every layer is there at this step."""

    def _distances(self, record: PretrainStep) -> list[float]:
        """Mean radius minus target of each layer and direction, without "output"."""
        return [m - self._targets[d] for d, row in record.means.items() if d != "output" for m in row]


class Mean(StopRule):
    """Every mean is within the tolerance."""

    def _good(self, record: PretrainStep) -> bool:
        return record.deviation <= self._tolerance


class Certain(Mean):
    """And two standard errors of every mean are; a mean whose error is not known is not there."""

    def _good(self, record: PretrainStep) -> bool:
        errors = [error for row in record.errors.values() for error in row]
        return super()._good(record) and all(_ERRORS * error <= self._tolerance for error in errors)


class Paper(StopRule):
    """Every mean but "output" is within the tolerance, and the moving variance over them is small.

    The variance starts at 1 and keeps 0.9 of itself at each step. It is small below 0.5, and after the second time that
    the mean over all came nearer to its target than ever, while it was, below 0.1. Herranz-Celotti & Rouat, arXiv
    2308.12075, their code of the recurrent networks; here the variance is that of the distances to the targets, which
    is the same where all have one target.
    """

    def __init__(self, settings: PretrainConfig, targets: dict[str, float]) -> None:
        super().__init__(settings, targets)
        self._variance, self._bound = 1.0, _SPREAD
        self._nearest = math.inf
        self._best_steps = 0

    def _good(self, record: PretrainStep) -> bool:
        distances = self._distances(record)
        if not distances:
            return False
        mean = sum(distances) / len(distances)
        variance = sum((d - mean) ** 2 for d in distances) / len(distances)
        self._variance = _MEMORY * self._variance + (1 - _MEMORY) * variance
        self._remember(abs(mean))
        return all(abs(d) <= self._tolerance for d in distances) and self._variance < self._bound

    def _remember(self, distance: float) -> None:
        if distance < self._nearest and self._variance < self._bound:
            self._nearest = distance
            self._best_steps += 1
            if self._best_steps == _BEST_STEPS:
                self._bound = _SPREAD_LATER


class PaperAverage(Paper):
    """The moving average of the mean over all layers is within the tolerance, and that of its squared distance small.

    As the code of the feed-forward networks has it, with the memory of the recurrent ones; theirs counts weights.
    """

    def __init__(self, settings: PretrainConfig, targets: dict[str, float]) -> None:
        super().__init__(settings, targets)
        self._bound = _AVERAGE_SPREAD
        self._average: float | None = None

    def _good(self, record: PretrainStep) -> bool:
        distances = self._distances(record)
        if not distances:
            return False
        mean = sum(distances) / len(distances)
        self._average = mean if self._average is None else _MEMORY * self._average + (1 - _MEMORY) * mean
        self._variance = _MEMORY * self._variance + (1 - _MEMORY) * mean**2
        self._remember(abs(self._average))
        return abs(self._average) <= self._tolerance and self._variance < self._bound


class Never(StopRule):
    """All steps are taken."""

    def _good(self, record: PretrainStep) -> bool:
        return False


RULES: dict[str, type[StopRule]] = {
    "mean": Mean,
    "certain": Certain,
    "paper": Paper,
    "paper_average": PaperAverage,
    "never": Never,
}
