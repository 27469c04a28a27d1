"""What is compared with what: a case of the table, and who takes part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Errors = Mapping[str, float]


@dataclass(frozen=True)
class Contender:
    """Somebody who does the work of a case.

    Attributes:
        name: as the report shows it.
        run: does the work once.
        units: how many of the case's units one run does; times are divided by it.
        errors: measures the result against the truth; None for what has no result to check.
        missing: why it cannot run here; empty where it can.
    """

    name: str
    run: Callable[[], Any] = field(default=lambda: None)
    units: int = 1
    errors: Callable[[], Errors] | None = None
    missing: str = ""


@dataclass(frozen=True)
class Race:
    """Ours against the others, in turns.

    Attributes:
        ours: the contender of this package.
        peers: the others.
        allowed: the largest error of each name that counts as correct, of anybody.
        flops: useful floating-point operations per unit; None where they say nothing.
        bytes: useful bytes read and written per unit, likewise.
    """

    ours: Contender
    peers: Sequence[Contender] = ()
    allowed: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Findings:
    """What a study found: numbers to show, errors, and whether these are small enough."""

    numbers: Mapping[str, Any]
    errors: Errors
    correct: bool


@dataclass(frozen=True)
class Study:
    """A measurement that is no race."""

    run: Callable[[], Findings]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        group: which part of the report it belongs to.
        name: unique in its group.
        sizes: what it was measured at, by letter or name.
        build: makes everything that is needed; called when its turn comes, so that one case is in memory at a time.
        unit: what a time is of.
        pairs: how often each contender has its turn where a turn is cheap.
        seconds: for about how long each contender runs at most where it is not.
        grad: whether autograd records.
    """

    group: str
    name: str
    sizes: Mapping[str, Any]
    build: Callable[[], Race | Study]
    unit: str = "call"
    pairs: int = 15
    seconds: float = 2.0
    grad: bool = False
