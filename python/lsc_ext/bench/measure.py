"""A case becomes a row: the check first, then times of everybody in turns.

Contenders take turns in one process after a warm-up, A B A B, so that whatever disturbs the machine disturbs all of
them; a ratio is the median of the ratios within a turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.roofline import fractions

LEAST_PAIRS = 3


def measure(case: Case, roofline: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """One case as plain numbers. Where ``correct`` is false there are no times."""
    row: dict[str, Any] = {"group": case.group, "case": case.name, "sizes": dict(case.sizes), "unit": case.unit}
    with torch.set_grad_enabled(case.grad):
        work = case.build()
        if not isinstance(work, Race):
            found = work.run()
            row |= {"correct": found.correct, "errors": {"lsc_ext": dict(found.errors)}}
            if found.correct:
                row["numbers"] = dict(found.numbers)
            return row
        present = [c for c in (work.ours, *work.peers) if not c.missing]
        errors = {c.name: dict(c.errors()) for c in present if c.errors is not None}
        row |= {"correct": all(within(e, work.allowed) for e in errors.values()), "errors": errors}
        if not row["correct"]:
            return row
        times = take_turns(present, case.pairs, case.seconds)
    ours = times[work.ours.name]
    row |= {"ours": spread(ours), "pairs": len(ours), "peers": {}}
    for c in work.peers:
        if c.missing:
            row["peers"][c.name] = {"missing": c.missing}
            continue
        ratios = [theirs / mine for theirs, mine in zip(times[c.name], ours, strict=False)]
        row["peers"][c.name] = {
            "time": spread(times[c.name]),
            "ratio": spread(ratios),
            "pairs": len(ratios),
            "units": c.units,
        }
    seconds = row["ours"]["median"]
    if work.flops is not None:
        row["flops_per_second"] = work.flops / seconds
    if work.bytes is not None:
        row["bytes_per_second"] = work.bytes / seconds
    return row | fractions(row, roofline, threads)


def within(errors: Errors, allowed: Mapping[str, float]) -> bool:
    """Whether every error that has a limit keeps it; NaN does not."""
    return all(errors[name] <= limit for name, limit in allowed.items() if name in errors)


def seconds_of(run: Callable[[], Any]) -> float:
    """Of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(contenders: Sequence[Contender], pairs: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per unit of each contender's turns, the first one's setting the number of rounds."""
    rounds: dict[str, int] = {}
    for c in contenders:
        spent = seconds_of(c.run)
        if spent < seconds / 2:
            spent = seconds_of(c.run)
        rounds[c.name] = min(pairs, max(LEAST_PAIRS, int(seconds / spent)))
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for i in range(rounds[contenders[0].name]):
        for c in contenders:
            if i < rounds[c.name]:
                times[c.name].append(seconds_of(c.run) / c.units)
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected|, in float64."""
    wide = torch.complex128 if expected.is_complex() else torch.float64
    found, expected = found.detach().to(wide), expected.detach().to(wide)
    return float((found - expected).norm() / expected.norm())
