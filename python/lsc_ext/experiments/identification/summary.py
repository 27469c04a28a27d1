"""What the results of identification come to: of every cell the better of its learning rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsc_ext.experiments.identification.grid import Identification

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Summary:
    """A cell at one learning rate.

    Attributes:
        lr: Adam's learning rate.
        losses: of its seeds that are there, from the lowest; infinite where training diverged.
        missing: how many seeds are not there.
    """

    lr: float
    losses: tuple[float, ...]
    missing: int

    @property
    def reached(self) -> tuple[float, ...]:
        """The losses of seeds that did not diverge."""
        return tuple(loss for loss in self.losses if math.isfinite(loss))

    @property
    def mean(self) -> float:
        """Of all losses: infinite where one diverged."""
        return statistics.fmean(self.losses)

    @property
    def rank(self) -> tuple[int, float]:
        """The smaller, the better: how many diverged, then the mean of the others."""
        return len(self.losses) - len(self.reached), statistics.fmean(self.reached or (math.inf,))


def best(results: Results, runs: Iterable[Identification], *, relative: bool = False) -> Summary | None:
    """The learning rate of least mean loss over seeds, or of fewest that diverged; None where none of a cell has run.

    Args:
        results: key -> result.
        runs: of the cell.
        relative: losses divided by that of a student that is silent.
    """
    by_rate: dict[float, list[Identification]] = {}
    for run in runs:
        by_rate.setdefault(run.lr, []).append(run)
    found = []
    for lr, members in by_rate.items():
        losses = [_loss(results[run.key]["result"], relative) for run in members if run.key in results]
        if losses:
            found.append(Summary(lr, tuple(sorted(losses)), len(members) - len(losses)))
    # A rate with fewer seeds than another cannot be compared with it.
    fewest = min((summary.missing for summary in found), default=0)
    return min((s for s in found if s.missing == fewest), key=lambda s: s.rank, default=None)


def _loss(result: Mapping[str, Any], relative: bool) -> float:
    if result["loss"] is None:
        return math.inf
    return float(result["loss"]) / (float(result["power"]) if relative else 1.0)


def cells(runs: Sequence[Identification]) -> dict[tuple[Any, ...], list[Identification]]:
    """Cell -> its runs, in their order."""
    found: dict[tuple[Any, ...], list[Identification]] = {}
    for run in runs:
        found.setdefault(run.cell, []).append(run)
    return found


def label(run: Identification) -> str:
    """What a student is called: "dense", "32 blocks of 2 x 2", "complex diagonal", .."""
    size = run.states // run.heads
    names = {
        "dense": "dense",
        "blocks": f"{run.heads} blocks of {size} x {size}" if run.heads > 1 else "dense",
        "diagonal": "complex diagonal",
        "normalized": "complex diagonal, normalised",
        "lru": "LRU",
    }
    return names[run.student]


def findings(results: Mapping[str, Results], planned: Mapping[str, Sequence[Identification]]) -> list[tuple[str, str]]:
    """(experiment, line): the comparisons that the paper makes, as ratios of mean losses."""
    lines = []
    pairs = (
        ("ablation", 0.99, ("dense", 1), ("blocks", 32)),
        ("ablation", 0.36, ("dense", 1), ("blocks", 32)),
        ("ablation", 0.99, ("dense", 1), ("lru", 1)),
        ("ablation", 0.99, ("diagonal", 1), ("normalized", 1)),
        ("ablation", 0.99, ("normalized", 1), ("lru", 1)),
    )
    for experiment, memory, *students in pairs:
        found = []
        for student, heads in students:
            runs = [
                run
                for run in planned.get(experiment, ())
                if (run.student, run.heads, run.memory, run.states) == (student, heads, memory, 64)
            ]
            found.append((label(runs[0]), best(results.get(experiment, {}), runs)) if runs else ("", None))
        (first, one), (second, other) = found
        if one is not None and other is not None and other.mean > 0:
            ratio = one.mean / other.mean
            lines.append((experiment, f"nu_0 = {memory}: {first} ends at {ratio:.3g} times the loss of {second}"))
    return lines
