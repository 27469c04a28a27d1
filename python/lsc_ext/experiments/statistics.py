"""How often an arm wins, and how sure one can be of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lsc_ext.experiments.grid import Run
from lsc_ext.experiments.results import Result

#: Of two networks that learnt nothing none wins: accuracies below 1.25 times that of guessing count as that, and
#: perplexities above 0.98 times that of word frequencies.
LEAST_ACCURACY, LARGEST_PERPLEXITY = 1.25, 0.98
LEVEL = 0.05
NORMAL_95 = 1.959963984540054  # 97.5 percent of the standard normal distribution lie below


@dataclass(frozen=True)
class Share:
    """Pairs of runs that differ in their arm alone.

    Attributes:
        wins: of the first arm.
        losses: of the first arm.
        ties: neither; they do not count.
        low: lower end of the Wilson interval of the share of wins, at 95 percent.
        high: its upper end.
        p: of the two-sided binomial test of a share of one half.
    """

    wins: int
    losses: int
    ties: int
    low: float
    high: float
    p: float

    @property
    def pairs(self) -> int:
        """That count."""
        return self.wins + self.losses

    @property
    def share(self) -> float:
        """Of wins; NaN without pairs."""
        return self.wins / self.pairs if self.pairs else math.nan

    @property
    def verdict(self) -> str:
        """What may be claimed: nothing where the interval includes one half, or p is above 0.05.

        Of few pairs the interval is too narrow: with 4 wins of 4 it begins at 0.51, with p = 0.125.
        """
        if self.p > LEVEL or self.low <= 0.5 <= self.high:
            return "no claim"
        return "wins" if self.low > 0.5 else "loses"


def wilson(wins: int, pairs: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Wilson's interval of a share (E. B. Wilson, 1927, "Probable inference"); (0, 1) without pairs.

    Raises:
        ValueError: more wins than pairs, or a negative number.
    """
    if not 0 <= wins <= pairs:
        raise ValueError(f"wins: expected between 0 and the {pairs} pairs, got {wins}")
    if pairs == 0:
        return 0.0, 1.0
    share, square = wins / pairs, z * z / pairs
    middle = share + square / 2
    spread = z * math.sqrt(share * (1 - share) / pairs + square / (4 * pairs))
    low, high = (middle - spread) / (1 + square), (middle + spread) / (1 + square)
    return (0.0 if wins == 0 else low), (1.0 if wins == pairs else high)


def binomial_p(wins: int, pairs: int) -> float:
    """Two-sided p-value of a share of one half: the chance of a result at least as far from it; 1 without pairs."""
    far = max(wins, pairs - wins)
    tail: float = sum(math.comb(pairs, k) for k in range(far, pairs + 1)) / 2**pairs
    return min(1.0, 2 * tail)


def count(pairs: Iterable[tuple[float, float]]) -> Share:
    """Of pairs (score of the first arm, score of the second), where more is better."""
    wins = losses = ties = 0
    for first, second in pairs:
        wins, losses, ties = wins + (first > second), losses + (first < second), ties + (first == second)
    low, high = wilson(wins, wins + losses)
    return Share(wins, losses, ties, low, high, binomial_p(wins, wins + losses))


def score(run: Run, result: Mapping[str, Any]) -> float:
    """Accuracy or minus perplexity, but no less than guessing has, which is the score of training that diverged too."""
    value: float | None = result["test"]
    if run.task == "language":
        least = -LARGEST_PERPLEXITY * float(result["guessing"])
        return least if value is None else max(least, -value)
    least = LEAST_ACCURACY * float(result["guessing"])
    return least if value is None else max(least, value)


def pairs_of(results: Iterable[Result], first: str, second: str) -> list[tuple[Run, float, float]]:
    """Runs of the first arm with the scores of both arms, where both have run."""
    scores: dict[tuple[Any, ...], dict[str, tuple[Run, float]]] = {}
    for entry in results:
        run = Run(**entry["config"])
        scores.setdefault((*run.cell, run.seed), {})[run.arm] = (run, score(run, entry["result"]))
    found = [arms for arms in scores.values() if first in arms and second in arms]
    return [(arms[first][0], arms[first][1], arms[second][1]) for arms in found]


def shares(results: Iterable[Result], first: str, second: str) -> dict[str, Share]:
    """Group of runs -> how often ``first`` wins over ``second``: of all, by task, by network, depth and clipping.

    A kind of group that all pairs share is left out, and one that makes the same groups as a kind before it.
    """
    pairs = pairs_of(results, first, second)
    grouped: dict[str, list[tuple[float, float]]] = {"all": [(a, b) for _, a, b in pairs]}
    kinds = (
        lambda run: run.task,
        lambda run: run.source,
        lambda run: run.network,
        lambda run: f"{run.layers} layers",
        lambda run: f"learning rate {run.lr:g}",
        lambda run: "not clipped" if run.clip is None else "clipped",
    )
    partitions: list[list[list[int]]] = []
    for kind in kinds:
        names = sorted({kind(run) for run, _, _ in pairs})
        partition = sorted([i for i, (run, _, _) in enumerate(pairs) if kind(run) == name] for name in names)
        if len(names) > 1 and partition not in partitions:
            partitions.append(partition)
            for name in names:
                grouped[name] = [(a, b) for run, a, b in pairs if kind(run) == name]
    return {name: count(chosen) for name, chosen in grouped.items()}
