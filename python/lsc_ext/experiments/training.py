"""One run: a network, an arm, a learning rate and a seed, from drawing the weights to the test set.

Letters: T time steps, B samples, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from lsc_ext.experiments.environment import environment
from lsc_ext.experiments.grid import Run
from lsc_ext.experiments.networks import Model, build_model, detached, pretrained
from lsc_ext.experiments.tasks import Part, Task, load_task, windows

_EVALUATED = 250  # samples at once
_PRETRAINED = 1000  # most samples or windows that pre-training sees


def run(configuration: Run, folder: Path | None = None) -> dict[str, Any]:
    """Draws, pre-trains if the arm says so, trains and measures, on one thread.

    The weights, the order of batches and dropout depend on the seed and not on the arm. The number of epochs is fixed:
    the validation set is measured after each and decides nothing, the test set after the last.

    Args:
        configuration: what to do.
        folder: where files of published data sets are.

    Returns:
        Numbers for JSON: "test" and "validation" (accuracy, or perplexity), "loss", "diverged", "clipped" (the share of
        steps), "guessing" (as "test", of knowing nothing), "pretraining", "seconds", "data" and "environment".

    Raises:
        ValueError: data that is not here, or a text too short for a piece of every column.
    """
    words = configuration.task == "language"
    task = load_task(
        configuration.task, configuration.source, folder, words=configuration.words, samples=configuration.samples
    )
    _check_length(task, configuration)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(configuration.seed)
            sample = _pretraining_data(task, configuration)
            model = build_model(
                configuration.network,
                configuration.arm,
                features=task.features,
                classes=task.classes,
                words=words,
                hidden_size=configuration.hidden_size,
                num_layers=configuration.layers,
                time_steps=sample.shape[0],
                dropout=configuration.dropout,
            )
            clock = time.perf_counter()
            stability = _pretrain(model, configuration, sample)
            middle = time.perf_counter()
            torch.manual_seed(configuration.seed)  # pre-training has drawn numbers, or not
            trained = _train(model, task, configuration)
    finally:
        torch.set_num_threads(threads)
    seconds = {"pretraining": round(middle - clock, 2), "training": round(time.perf_counter() - middle, 2)}
    numbers = {**trained, "guessing": round(task.guessing, 4), "pretraining": stability, "seconds": seconds}
    return {**numbers, "data": task.sha256, "environment": environment()}


def _check_length(task: Task, configuration: Run) -> None:
    for name, columns in (("train", configuration.batch_size), ("validation", 1), ("test", 1)):
        part = getattr(task, name)
        if isinstance(part, Tensor) and part.numel() // columns <= configuration.time_steps:
            raise ValueError(
                f"time_steps: expected fewer than the {part.numel() // columns} words of a column of the {name} part, "
                f"got {configuration.time_steps}"
            )


def _pretraining_data(task: Task, configuration: Run) -> Tensor:
    """Samples of the training part, [N, I] or [T, N, I], or windows of words [T, N]."""
    if isinstance(task.train, Tensor):
        count = min(_PRETRAINED, task.train.numel() // configuration.time_steps)
        return task.train[: count * configuration.time_steps].reshape(count, configuration.time_steps).T
    return task.train.take(torch.arange(min(_PRETRAINED, task.train.labels.numel())))


def _pretrain(model: Model, configuration: Run, sample: Tensor) -> dict[str, Any] | None:
    result = pretrained(
        model,
        configuration.arm,
        sample,
        steps=configuration.pretrain_steps,
        batch_size=configuration.pretrain_batch,
        max_points=configuration.pretrain_points,
        lr=configuration.pretrain_lr,
        tolerance=configuration.tolerance,
        patience=configuration.patience,
        certify_points=64,
        seed=configuration.seed,
    )
    if result is None:
        return None

    def means(report: Any) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {direction: [] for direction in result.targets}
        for row in report.rows():
            found[row["direction"]].append(round(row["mean"], 3))
        return found

    return {
        "targets": {direction: round(target, 4) for direction, target in result.targets.items()},
        "steps": len(result.history),
        "converged": result.converged,
        "deviation": round(result.deviation(), 4),
        "before": means(result.before),
        "after": means(result.after),
    }


def _train(model: Model, task: Task, configuration: Run) -> dict[str, Any]:
    """Adam on the cross entropy: of logits averaged over time for labels, of every step for words."""
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=configuration.lr)
    order = torch.Generator().manual_seed(configuration.seed)
    losses: list[float | None] = []
    validation: list[float | None] = []
    clipped, steps, diverged = 0, 0, False
    for _ in range(configuration.epochs):
        model.train()
        total, count, state = 0.0, 0, None
        for x, labels in _batches(task, configuration, order):
            logits, state = model(x, detached(state) if configuration.carry else None)
            loss = functional.cross_entropy(*_scored(logits, labels, task))
            optimizer.zero_grad()
            loss.backward()
            value = float(loss.detach())
            norm = _clip(parameters, configuration.clip)
            if not math.isfinite(value + norm):
                diverged = True
                break
            optimizer.step()
            clipped += configuration.clip is not None and norm > configuration.clip
            total, count, steps = total + value, count + 1, steps + 1
        if diverged:
            break
        losses.append(round(total / count, 4))
        validation.append(_measure(model, task.validation, task, configuration))
    test = None if diverged else _measure(model, task.test, task, configuration)
    share = None if configuration.clip is None or steps == 0 else round(clipped / steps, 4)
    return {"test": test, "validation": validation, "loss": losses, "diverged": diverged, "clipped": share}


def _clip(parameters: list[Any], limit: float | None) -> float:
    """The norm of the gradient as it came; it is scaled down to ``limit`` where it is longer."""
    return float(clip_grad_norm_(parameters, math.inf if limit is None else limit))


def _batches(task: Task, configuration: Run, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs with labels: of words in order, of samples in an order drawn anew."""
    if isinstance(task.train, Tensor):
        yield from windows(task.train, configuration.batch_size, configuration.time_steps)
        return
    for chosen in torch.randperm(task.train.labels.numel(), generator=order).split(configuration.batch_size):
        yield task.train.take(chosen), task.train.labels[chosen]


def _scored(logits: Tensor, labels: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Logits and labels that belong together: [T * B, C] of words, [B, C] of samples, averaged over time."""
    if isinstance(task.train, Tensor):
        return logits.flatten(0, 1), labels.flatten()
    return logits if logits.dim() == 2 else logits.mean(0), labels


def _measure(model: Model, part: Part | Tensor, task: Task, configuration: Run) -> float | None:
    """Accuracy, or perplexity; None where it is not finite."""
    model.eval()
    total, count, state = 0.0, 0, None
    with torch.no_grad():
        if isinstance(part, Tensor):
            columns = max(1, min(configuration.batch_size, part.numel() // (configuration.time_steps + 1)))
            for x, labels in windows(part, columns, configuration.time_steps):
                logits, state = model(x, state if configuration.carry else None)
                scored, flat = _scored(logits, labels, task)
                total += float(functional.cross_entropy(scored, flat, reduction="sum"))
                count += flat.numel()
            perplexity = math.exp(min(total / count, 700.0)) if math.isfinite(total) else math.inf
            return round(perplexity, 3) if math.isfinite(perplexity) else None
        for chosen in torch.arange(part.labels.numel()).split(_EVALUATED):
            scored, flat = _scored(model(part.take(chosen))[0], part.labels[chosen], task)
            total += float((scored.argmax(1) == flat).sum())
            count += flat.numel()
    return round(total / count, 4)
