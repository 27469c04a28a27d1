"""One run: a teacher, a student, and Adam on the loss that infinitely many sequences of white noise would have."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from lsc_ext.experiments.environment import environment
from lsc_ext.experiments.identification.grid import Identification
from lsc_ext.experiments.identification.students import build_student
from lsc_ext.experiments.identification.teacher import draw_teacher
from lsc_ext.memory import PopulationLoss, effective_learning_rates

#: Experiments whose results have the rates.
RATED = ("heads", "adam")
#: A loss so many times that of a student that is silent counts as diverged.
DIVERGED = 1e3
#: Iterations at the end whose mean loss is the result, as in the paper.
LAST = 100
_FINAL_RATE = 1e-7
_POINTS = 40  # of a curve, evenly spread over the logarithm of the iteration


def identify(configuration: Identification) -> dict[str, Any]:
    """Draws teacher and student and trains, on one thread.

    Returns:
        Numbers for JSON: "loss" (the mean of the last 100 iterations; None where it diverged), "power" (the loss of a
        student that is silent), "curve" of (iteration, loss), "diverged", "rates" (of the experiments in
        :data:`RATED`: by tensor, the share of its learning rate that Adam leaves at the end, by both definitions of
        :func:`lsc_ext.memory.effective_learning_rates`), "seconds" and "environment".

    Raises:
        ValueError: an unknown student or schedule, or fewer than one iteration.
    """
    if configuration.schedule not in ("cosine", "constant"):
        raise ValueError(f"schedule: expected 'cosine' or 'constant', got {configuration.schedule!r}")
    if configuration.iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {configuration.iterations}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _identify(configuration)
    finally:
        torch.set_num_threads(threads)


def _identify(configuration: Identification) -> dict[str, Any]:
    # The teacher is that of the seed, whatever learns it.
    draws = [Generator().manual_seed(2 * configuration.seed + k) for k in range(2)]
    place = configuration.memory, configuration.angle
    teacher = draw_teacher(configuration.teacher_states, *place, draws[0])
    student = build_student(configuration.student, configuration.states, configuration.heads, *place, draws[1])
    loss_of = PopulationLoss(teacher, horizon=configuration.horizon)
    parameters = dict(student.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=configuration.lr, fused=True)
    started = time.perf_counter()
    losses: list[float] = []
    for iteration in range(configuration.iterations):
        _set_rate(optimizer, configuration, iteration)
        optimizer.zero_grad()
        loss = loss_of(student)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
        loss.backward()
        optimizer.step()
    power, reached = loss_of.power(), statistics.fmean(losses[-LAST:])
    diverged = not reached <= DIVERGED * power
    return {
        "loss": None if diverged else _digits(reached),
        "power": _digits(power),
        "curve": [[k, _digits(losses[k])] for k in _marks(len(losses)) if math.isfinite(losses[k])],
        "diverged": diverged,
        "rates": _rates(optimizer, parameters) if configuration.experiment in RATED and not diverged else {},
        "seconds": {"training": round(time.perf_counter() - started, 2)},
        "environment": environment(),
    }


def _set_rate(optimizer: torch.optim.Optimizer, configuration: Identification, iteration: int) -> None:
    if configuration.schedule == "cosine":
        part = (1 + math.cos(math.pi * iteration / configuration.iterations)) / 2
        for group in optimizer.param_groups:
            group["lr"] = _FINAL_RATE + (configuration.lr - _FINAL_RATE) * part


def _marks(count: int) -> list[int]:
    spread = {round(count ** (k / (_POINTS - 1))) - 1 for k in range(_POINTS)}
    return sorted({0, count - 1, *spread} & set(range(count)))


def _rates(optimizer: torch.optim.Adam, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of every tensor: smallest, geometric mean and largest of the shares that are positive, and how many are not."""
    found: dict[str, Any] = {}
    lr = float(optimizer.param_groups[0]["lr"])
    for kind in ("probe", "scale"):
        for name, rates in zip(parameters, effective_learning_rates(optimizer, kind), strict=True):
            positive = rates[rates > 0].double() / lr
            row: dict[str, float] = {"count": rates.numel(), "not positive": int((rates <= 0).sum())}
            if positive.numel():
                row |= {
                    "smallest": _digits(float(positive.min())),
                    "geometric mean": _digits(float(positive.log().mean().exp())),
                    "largest": _digits(float(positive.max())),
                }
            found.setdefault(name.removesuffix("_l0"), {})[kind] = row
    return found


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
