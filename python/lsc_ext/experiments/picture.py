"""Shares of wins with their intervals. Needs matplotlib, imported when called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lsc_ext.experiments.grid import COMPARISONS, EXPERIMENTS
from lsc_ext.experiments.statistics import Share, shares
from lsc_ext.experiments.table import ARM_NAMES, Results
from lsc_ext.plot import new_figure, save_figure

SURE, UNSURE = "#1f6f8b", "#9c9c9c"
_NAMES = {"ffn": "feed-forward, 30 layers", "recurrent": "deep recurrent", "reslru": "ResLRU"}


def draw_shares(results: Mapping[str, Results], path: Path) -> Path:
    """A panel per experiment, a line per comparison: grey where the interval includes one half."""
    figure, axes = new_figure(len(EXPERIMENTS), width=4.0, height=2.6)
    for axis, experiment in zip(axes, EXPERIMENTS, strict=True):
        lines = _lines(results.get(experiment, {}), experiment)
        for place, (_, share) in enumerate(lines):
            if share.pairs == 0:
                continue
            colour = UNSURE if share.verdict == "no claim" else SURE
            axis.plot([share.low, share.high], [place, place], color=colour, linewidth=2)
            axis.plot([share.share], [place], "o", color=colour, markersize=5, clip_on=False)
        axis.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(lines)), [_label(name, share) for name, share in lines])
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of wins, 95% interval")
        axis.set_title(_NAMES[experiment], fontsize=10)
    counts = {name: len(found) for name, found in results.items()}
    return save_figure(figure, path, "runs: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))


def _lines(results: Results, experiment: str) -> list[tuple[str, Share]]:
    return [
        (f"{ARM_NAMES[first]} over {ARM_NAMES[second]}", shares(results.values(), first, second)["all"])
        for first, second in COMPARISONS[experiment]
    ]


def _label(name: str, share: Share) -> str:
    return f"{name}\n{share.wins} of {share.pairs}" if share.pairs else f"{name}\nnot run"
