"""Which runs the identification experiments have: a small grid by default, the paper's where it is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lsc_ext.experiments.grid import check_grid

IDENTIFICATIONS = {
    "long_memory": "Figure 3A: dense recurrence and LRU, over the teacher's memory",
    "ablation": "Figure 3B: from a dense recurrence to the LRU, a change at a time",
    "angles": "Figure 10: eigenvalues in a narrower and narrower sector",
    "heads": "Figure 11: from a dense recurrence to blocks of 2 x 2",
    "adam": "Figures 4C, 4D and 9: the learning rates that Adam leaves",
}
MEMORIES = (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99)
ANGLES = (0.01, 0.0316, 0.1, 0.316, 1.0)
HEADS = (1, 2, 4, 8, 16, 32)
#: Student -> the learning rates of its runs, as many for each; the second tuple with ``full``, after the paper's.
RATES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "dense": ((1e-3, 3.2e-4), (3.2e-3, 1e-3, 3.2e-4, 1e-4, 3.2e-5)),
    "blocks": ((1e-2, 3.2e-3), (1e-2, 3.2e-3, 1e-3, 3.2e-4)),
    "diagonal": ((1e-2, 3.2e-3), (1e-1, 3.2e-2, 1e-2, 3.2e-3, 1e-3, 3.2e-4)),
    "normalized": ((1e-2, 3.2e-3), (1e-1, 3.2e-2, 1e-2, 3.2e-3, 1e-3, 3.2e-4)),
    "lru": ((3.2e-2, 1e-2), (3.2e-1, 1e-1, 3.2e-2, 1e-2, 3.2e-3, 1e-3)),
}
#: The same for any number of heads, for the best rate falls as blocks grow; then those of the paper among others.
HEAD_RATES = ((3.2e-3, 1e-3, 3.2e-4), (3.2e-2, 1e-2, 3.2e-3, 1e-3, 3.2e-4, 1e-4))


@dataclass(frozen=True)
class Identification:
    """Everything that decides what a run computes.

    Attributes:
        experiment: one of :data:`IDENTIFICATIONS`.
        student: one of ``students.STUDENTS``.
        states: of the student.
        heads: blocks of its recurrence; 1 where it is not in blocks.
        memory: nu_0, the smallest modulus of the teacher's eigenvalues.
        angle: the largest phase of an eigenvalue, in units of pi.
        lr: Adam's learning rate.
        seed: of teacher and student.
        schedule: "cosine", down to 1e-7, or "constant".
        iterations: of Adam.
        horizon: steps over which the loss is averaged.
        teacher_states: how many.
    """

    experiment: str
    student: str
    states: int
    heads: int
    memory: float
    angle: float
    lr: float
    seed: int
    schedule: str = "cosine"
    iterations: int = 10_000
    horizon: int = 300
    teacher_states: int = 10

    @property
    def cell(self) -> tuple[Any, ...]:
        """What runs of different learning rates and seeds have in common where they belong together."""
        return (self.student, self.states, self.heads, self.memory, self.angle, self.schedule)

    @property
    def key(self) -> str:
        """A name of its own within an experiment."""
        return "-".join(map(str, (*self.cell, self.lr, self.seed)))

    def config(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def identification_grid(
    experiment: str, *, full: bool, seeds: Sequence[int], iterations: int = 10_000
) -> list[Identification]:
    """The runs of an experiment, seed by seed.

    Args:
        experiment: one of :data:`IDENTIFICATIONS`.
        full: all learning rates; of "adam" there is one.
        seeds: of all of them.
        iterations: of Adam.

    Raises:
        ValueError: an unknown experiment, or seeds that are none or not distinct.
    """
    check_grid(experiment, IDENTIFICATIONS, seeds)
    return [
        Identification(experiment=experiment, seed=seed, lr=lr, iterations=iterations, **cell)
        for seed in seeds
        for cell, rates in _cells(experiment, full)
        for lr in rates
    ]


Cells = list[tuple[dict[str, Any], tuple[float, ...]]]


def _cells(experiment: str, full: bool) -> Cells:
    def cell(
        student: str, heads: int = 1, memory: float = 0.99, angle: float = 1.0, states: int = 64
    ) -> tuple[dict[str, Any], tuple[float, ...]]:
        sizes = {"student": student, "states": states, "heads": heads, "memory": memory, "angle": angle}
        return sizes, RATES[student][full]

    if experiment == "long_memory":
        return [cell(student, memory=memory) for memory, student in itertools.product(MEMORIES, ("dense", "lru"))]
    if experiment == "ablation":
        wide = cell("blocks", heads=64, states=128)
        return [
            cell("dense"),
            cell("blocks", heads=32),
            wide,
            *(cell(student) for student in ("diagonal", "normalized", "lru")),
            # Where little is remembered, to see that it is memory that tells them apart.
            cell("dense", memory=0.36),
            cell("blocks", heads=32, memory=0.36),
        ]
    if experiment == "angles":
        students = ("dense", "diagonal", "lru")
        return [cell(student, angle=angle) for angle, student in itertools.product(ANGLES, students)]
    if experiment == "heads":
        return [(cell("blocks", heads=heads)[0], HEAD_RATES[full]) for heads in HEADS]
    constant: Cells = []
    for student in ("dense", "diagonal", "lru"):
        sizes, _ = cell(student)
        constant.append((sizes | {"schedule": "constant"}, (1e-3,)))
    return constant
