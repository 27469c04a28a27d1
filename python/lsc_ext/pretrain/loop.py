"""The optimisation: measure, remember the best, move."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import nn

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.kept import Kept
from lsc_ext.pretrain.measurement import Measurement, measure
from lsc_ext.pretrain.moves import (
    Chance,
    GateBias,
    Gradient,
    Move,
    PaperRescale,
    Rescale,
    Shuffle,
    Swap,
    Timescale,
    carry_out,
)
from lsc_ext.pretrain.result import PretrainStep
from lsc_ext.pretrain.split import Sequences
from lsc_ext.pretrain.stop import RULES
from lsc_ext.trajectory import Readout, Trajectory

#: By direction, then by layer.
_ByLayer = dict[str, dict[int, float]]


class Loop:
    """Steps until the stop rule is met, or until there are no more.

    Attributes:
        history: one record per step.
        converged: whether the stop rule was met.
        best_step: at which the kept weights were measured.
        kept: the best weights so far.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: PretrainConfig,
        targets: dict[str, float],
        source: Sequences,
        readout: Readout | None,
    ) -> None:
        self.model, self.settings, self.targets, self.source = model, settings, targets, source
        self.readout = readout
        self.history: list[PretrainStep] = []
        self.converged = False
        self.best_step = 0
        modules = [model, readout] if isinstance(readout, nn.Module) else [model]
        self.kept = Kept(modules)
        self._best_deviation = math.inf
        self._means: _ByLayer = {}
        self._errors: _ByLayer = {}
        # Each kind of choice has numbers of its own, so that no option changes what the others draw.
        self._points, self._layers, self._states = (self._generator(i) for i in (1, 2, 3))
        self._gradient: Gradient | None = None
        if "gradient" in settings.moves:
            self._gradient = Gradient((p for module in modules for p in module.parameters()), settings)
        self._moves = self._make_moves()

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.settings.seed + number)

    def _make_moves(self) -> list[Move]:
        settings = self.settings
        until = None if settings.anneal is None else settings.anneal * settings.steps
        rescaling, shuffling, swapping = (self._generator(i) for i in (4, 5, 6))
        made: dict[str, Callable[[], Move]] = {
            "rescale": lambda: PaperRescale(settings, Chance(settings.rescale_probability, None, rescaling)),
            "gate_bias": lambda: GateBias(settings, self._calm),
            "timescale": lambda: Timescale(settings, self._calm),
            "shuffle": lambda: Shuffle(settings, Chance(settings.shuffle_probability, until, shuffling), shuffling),
            "swap": lambda: Swap(Chance(settings.swap_probability, until, swapping), swapping),
        }
        if settings.rescale_rule == "response":
            made["rescale"] = lambda: Rescale(settings, self._calm)
        first: list[Move] = [] if self._gradient is None else [self._gradient]
        return first + [make() for name, make in made.items() if name in settings.moves]

    def _calm(self) -> float:
        return 1.0 if self._gradient is None else self._gradient.calm

    def run(self) -> Iterator[PretrainStep]:
        """One record per step."""
        rule = RULES[self.settings.stop](self.settings, self.targets)
        for step in range(self.settings.steps):
            measured = self._measure(step)
            record = self._record(step, measured)
            self.history.append(record)
            if record.deviation < self._best_deviation:
                self._best_deviation, self.best_step = record.deviation, step
                self.kept.take()
            if rule.met(record):
                self.converged = True
                yield record
                return
            yield record
            carry_out([change for move in self._moves for change in move.plan(measured, step)])
            if self._gradient is not None:
                self._gradient.heard(record.deviation)

    def _measure(self, step: int) -> Measurement:
        """Of every layer at the first step and where all are scheduled, else of a random pair."""

        def chosen(trajectory: Trajectory) -> Collection[int]:
            if step == 0 or self.settings.schedule == "all" or trajectory.num_layers < 2:
                return range(trajectory.num_layers)
            lower = int(torch.randint(trajectory.num_layers - 1, (1,), generator=self._layers))
            return lower, lower + 1

        return measure(
            self.model,
            self.source.batch(),
            self.targets,
            self.settings,
            self._points,
            self._states,
            chosen,
            self.readout,
            self.source.population,
        )

    def _record(self, step: int, measured: Measurement) -> PretrainStep:
        """What is known of every layer, measured now or the last time that it was."""
        _update(self._means, measured.means())
        _update(self._errors, measured.errors())
        means = {direction: list(row.values()) for direction, row in self._means.items()}
        errors = {direction: list(row.values()) for direction, row in self._errors.items()}
        deviation = largest_distance(means, self.targets, step)
        return PretrainStep(step, float(measured.loss().detach()), deviation, means, measured.certified, errors)


def _update(known: _ByLayer, found: _ByLayer) -> None:
    for direction, row in found.items():
        known.setdefault(direction, {}).update(row)


def largest_distance(means: dict[str, list[float]], targets: dict[str, float], step: int) -> float:
    """Of a layer's mean radius to its target.

    Raises:
        FloatingPointError: a mean is not finite.
    """
    distances = [abs(mean - targets[d]) for d, row in means.items() for mean in row]
    if not all(math.isfinite(value) for value in distances):
        raise FloatingPointError(
            f"model: expected finite radii in every layer, got none in some at step {step}; "
            "do the states overflow at these weights?"
        )
    return max(distances)
