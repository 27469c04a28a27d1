"""Figure 7 of arXiv 2405.21064: learning the angle of an eigenvalue, by Adam and by steps of one size.

The paper's code discards the state of its optimiser after each step; what is left of Adam then is a step of the
learning rate against the sign of each derivative. Both are here.

Letters: lambda = nu exp(i theta) the student, made of w and v; lambda* the teacher; L the loss, of white noise.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import unit_loss
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least

MODULUS, START, TEACHER = 0.99, math.pi / 4, math.pi / 100
LEARNING_RATE = 1e-3
LEARNED = 1.0  # a loss below it counts as on the way down to the teacher, 1/50 of that at the start
_LAST = 1000  # steps over which the end of a run is judged
_LEAST = 1e-12  # what a smaller loss counts as: below it is rounding

_Phase = tuple[float, float, float]


def _unit(nu: float) -> float:
    return (1 - nu * nu) / (nu * math.sqrt(1 + nu * nu))


def _polar(nu: float, v: float) -> _Phase:
    return v, 0.0, 1.0


def _exp(nu: float, v: float) -> _Phase:
    return math.exp(v), 0.0, math.exp(v)


def _optimal(nu: float, v: float) -> _Phase:
    unit = _unit(nu)
    return v * unit, -v * unit * (2 * nu / (1 - nu * nu) + 1 / nu + nu / (1 + nu * nu)), unit


#: v -> theta and its derivatives by nu and v, where nu = tanh(w) in all three, as in this figure alone.
PHASES: dict[str, Callable[[float, float], _Phase]] = {"polar": _polar, "exp": _exp, "optimal": _optimal}
#: theta -> v, at the modulus of start and teacher.
_INVERSE: dict[str, Callable[[float], float]] = {
    "polar": lambda theta: theta,
    "exp": math.log,
    "optimal": lambda theta: theta / _unit(MODULUS),
}
#: Ends of w and v of the landscapes.
RANGES = {"polar": ((0.8, 3.2), (-0.1, 0.85)), "exp": ((0.8, 3.2), (-4.5, 0.5)), "optimal": ((0.8, 3.2), (-5, 65))}
#: Optimisers by name.
OPTIMIZERS = {"adam": "Adam", "sign": "steps against the sign"}


def learned_angle(*, steps: int = 5000, points: int = 121) -> dict[str, Any]:
    """Paths from 0.99 exp(i pi/4) to 0.99 exp(i pi/100) by each optimiser in each parametrisation, and losses around.

    Args:
        steps: of each run, at a learning rate of 1e-3.
        points: kept of each path, evenly spaced; landscapes have points // 5 + 1 moduli and
            points // 2 + 1 angles.
    """
    check_at_least(1, steps=steps)
    check_at_least(5, points=points)
    teacher = cmath.rect(MODULUS, TEACHER)
    kept = torch.linspace(0, steps, points, dtype=torch.float64).round().unique().long()
    paths = {optimizer: run(optimizer, steps) for optimizer in OPTIMIZERS}  # [steps + 1, 3, 2]
    panels, findings = [], []
    for number, name in enumerate(PHASES):
        runs = [_summary(name, optimizer, path[:, number], kept, teacher) for optimizer, path in paths.items()]
        findings += [_finding(name, summary, steps) for summary in runs]
        start = {"parametrization": name, "teacher": rounded(_start(name, TEACHER))}
        panels.append({**start, "runs": runs, "landscape": _landscape(name, teacher, points)})
    return {
        "config": {"steps": steps, "points": points},
        "learning_rate": LEARNING_RATE,
        "steps": kept.tolist(),
        "panels": panels,
        "findings": findings,
    }


def run(optimizer: str, steps: int) -> Tensor:
    """(w, v) before each step and after the last, [steps + 1, 3, 2] float64, by parametrisation.

    Raises:
        ValueError: an unknown optimiser.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    p = torch.stack([_start(name, START) for name in PHASES])
    adam = torch.optim.Adam([p], lr=LEARNING_RATE) if optimizer == "adam" else None
    path = [p.clone()]
    for _ in range(steps):
        slope = torch.tensor([gradient(name, *at) for name, at in zip(PHASES, p.tolist(), strict=True)], dtype=p.dtype)
        if adam is None:
            p -= LEARNING_RATE * slope.sign()
        else:
            p.grad = slope
            adam.step()
        path.append(p.clone())
    return torch.stack(path)


def gradient(name: str, w: float, v: float) -> tuple[float, float]:
    """The slopes of L by w and v, L = (1 / (1 - nu^2) + 1 / (1 - nu*^2)) / 2 - Re 1 / (1 - lambda conj(lambda*))."""
    nu = math.tanh(w)
    theta, by_nu, by_v = PHASES[name](nu, v)
    z = nu * MODULUS * cmath.exp(1j * (theta - TEACHER))
    pull = z / (1 - z) ** 2
    modulus, phase = nu / (1 - nu * nu) ** 2 - pull.real / nu, pull.imag
    return (modulus + phase * by_nu) * (1 - nu * nu), phase * by_v


def eigenvalues(name: str, parameters: Tensor) -> Tensor:
    """Lambda of (w, v) [.., 2], complex128."""
    pairs = parameters.reshape(-1, 2).tolist()
    found = [cmath.rect(math.tanh(w), PHASES[name](math.tanh(w), v)[0]) for w, v in pairs]
    return torch.tensor(found, dtype=torch.complex128).view(parameters.shape[:-1])


def _start(name: str, theta: float) -> Tensor:
    return torch.tensor([math.atanh(MODULUS), _INVERSE[name](theta)], dtype=torch.float64)


def _summary(name: str, optimizer: str, path: Tensor, kept: Tensor, teacher: complex) -> dict[str, Any]:
    """What stays of a path [steps + 1, 2]."""
    loss = unit_loss(eigenvalues(name, path), teacher).clamp(min=_LEAST)
    turn, below, tail = int(path[:, 0].argmin()), (loss < LEARNED).nonzero(), loss[1:][-_LAST:]
    return {
        "optimizer": optimizer,
        "w": rounded(path[kept, 0]),
        "v": rounded(path[kept, 1]),
        "loss": rounded(loss[kept]),
        "turn": {"step": turn, "at": rounded(path[turn])},
        "first_step_below_1": int(below[0]) if len(below) else None,
        "last_loss": {"least": rounded(tail.min()), "largest": rounded(tail.max())},
    }


def _finding(name: str, summary: dict[str, Any], steps: int) -> str:
    (w, v), step, first = summary["turn"]["at"], summary["turn"]["step"], summary["first_step_below_1"]
    learned = "the loss stays above 1" if first is None else f"the loss is below 1 first at step {first}"
    least, largest = summary["last_loss"]["least"], summary["last_loss"]["largest"]
    end = f"{least:.3g} to {largest:.3g}" if largest > _LEAST else f"at most {_LEAST:g}"
    return (
        f"{name}, {OPTIMIZERS[summary['optimizer']]}: least w at step {step}, (w, v) = ({w:.3f}, {v:.3f}); {learned}, "
        f"{end} in the last {min(_LAST, steps)} of {steps} steps"
    )


def _landscape(name: str, teacher: complex, points: int) -> dict[str, Any]:
    sizes = (points // 5 + 1, points // 2 + 1)  # the valley is narrow in the angle
    w, v = (torch.linspace(*ends, n, dtype=torch.float64) for ends, n in zip(RANGES[name], sizes, strict=True))
    grid = torch.stack(torch.meshgrid(w, v, indexing="ij"), -1)
    loss = unit_loss(eigenvalues(name, grid), teacher).clamp(min=_LEAST)
    return {"w": rounded(w), "v": rounded(v), "log10": [[round(z, 2) for z in row] for row in loss.log10().tolist()]}
