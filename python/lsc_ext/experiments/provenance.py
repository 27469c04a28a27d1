"""How much of an experiment has run, where and for how long, as pages say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def provenance(results: Mapping[str, Mapping[str, Any]], runs: int, kind: str = "", data: str = "") -> str:
    """One paragraph on the results that are there.

    Args:
        results: key -> result.
        runs: how many there are to be.
        kind: of runs, to go on after their number.
        data: a sentence on what they read.
    """
    left = runs - len(results)
    state = f"{len(results)} runs" if left == 0 else f"**{len(results)} of {runs} runs; {left} have not been run**"
    if not results:
        return f"{state}."
    entries = [entry["result"] for entry in results.values()]
    minutes = sum(sum(entry["seconds"].values()) for entry in entries) / 60
    places = "; ".join(sorted({entry["environment"] for entry in entries}))
    seeds = sorted({entry["config"]["seed"] for entry in results.values()})
    diverged = sum(entry["diverged"] for entry in entries)
    return (
        f"{state}{kind}, seeds {', '.join(map(str, seeds))}, {minutes:.1f} minutes on one thread in all. {data}"
        f"Diverged: {diverged}. Measured on {places}."
    )
