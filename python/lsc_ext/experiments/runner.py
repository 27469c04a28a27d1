"""Runs what has no result yet, in parallel processes, and keeps each result as it comes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lsc_ext.experiments.identification import Identification, identify
from lsc_ext.experiments.results import AnyRun, Result, is_done, read_results, write_results
from lsc_ext.experiments.tasks import missing_data
from lsc_ext.experiments.training import run as train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """What came of the runs that were asked for.

    Attributes:
        results: key -> result, of everything in the file.
        missing: run -> why its data cannot be read.
        failed: run -> the error that it ended with.
    """

    results: dict[str, Result]
    missing: dict[AnyRun, str]
    failed: dict[AnyRun, str]


def execute(
    experiment: str,
    runs: Sequence[AnyRun],
    folder: Path,
    *,
    data: Path | None = None,
    workers: int = 1,
    say: Say = print,
) -> Progress:
    """Computes the runs that have no result of their configuration in ``folder`` and writes each as it ends.

    Args:
        experiment: names the file.
        runs: in the order to go through.
        folder: made where it does not exist.
        data: folder with files of published data sets.
        workers: processes, of one thread each; 1 for none but this.
        say: called with a line after each run.

    Raises:
        ValueError: fewer than one worker, or a results file of another kind.
        KeyboardInterrupt: after the processes were stopped; runs that had ended are kept.
        RuntimeError: a process died.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(folder, experiment)
    todo: list[AnyRun] = []
    missing: dict[AnyRun, str] = {}
    failed: dict[AnyRun, str] = {}
    for run in runs:
        if is_done(run, results):
            continue
        reason = None if isinstance(run, Identification) else missing_data(run.task, run.source, data)
        if reason is None:
            todo.append(run)
        else:
            missing[run] = reason
    started = time.perf_counter()
    with closing(_outcomes(todo, data, workers)) as outcomes:
        for number, (run, outcome) in enumerate(outcomes, 1):
            if isinstance(outcome, str):
                failed[run] = text = outcome
            else:
                results[run.key] = {"config": run.config(), "result": outcome}
                write_results(folder, experiment, results)
                measured = "loss" if isinstance(run, Identification) else "test"
                text = f"{measured} {outcome[measured]}, {sum(outcome['seconds'].values()):.1f} s"
            say(f"{experiment} {number}/{len(todo)}, {time.perf_counter() - started:.0f} s: {run.key}: {text}")
    return Progress(results, missing, failed)


Outcome = dict[str, Any] | str


def _outcomes(todo: Sequence[AnyRun], data: Path | None, workers: int) -> Generator[tuple[AnyRun, Outcome], None, None]:
    if workers == 1 or len(todo) < 2:
        for run in todo:
            yield run, _attempt(run, data)
        return
    context = multiprocessing.get_context("spawn")  # a forked child cannot use the parent's OpenMP threads
    pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=context, initializer=_prepare)
    waiting: dict[Future[Outcome], AnyRun] = {}
    try:
        waiting = {pool.submit(_attempt, run, data): run for run in todo}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise RuntimeError("workers: expected the processes to live, one has died (too little memory?)") from error
    finally:
        if not all(future.done() for future in waiting):
            for child in list((pool._processes or {}).values()):
                child.terminate()
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """In a worker: one thread, Ctrl-C is the parent's affair, and without the parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def compute(run: AnyRun, data: Path | None) -> dict[str, Any]:
    """The numbers of a run."""
    return identify(run) if isinstance(run, Identification) else train(run, data)


def _attempt(run: AnyRun, data: Path | None) -> Outcome:
    """The result, or what the error that ended the run says: text can travel between processes."""
    try:
        return compute(run, data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
