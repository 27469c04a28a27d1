"""Losses of students, and what Adam leaves of its rate. Needs matplotlib, imported when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.experiments.identification.grid import Identification
from lsc_ext.experiments.identification.summary import Results, Summary, best, cells, label
from lsc_ext.plot import new_figure, save_figure

_COLOURS = {"dense": "#c8553d", "blocks": "#9c6644", "diagonal": "#588157", "normalized": "#7b5ea7", "lru": "#1f6f8b"}
Planned = Mapping[str, Sequence[Identification]]


def draw_identification(results: Mapping[str, Results], planned: Planned, path: Path) -> Path:
    """A panel for each experiment: means of seeds that did not diverge, with lines from the lowest to the highest."""
    figure, axes = new_figure(3, 2, width=4.0, height=3.1)
    _over(axes[0], results, planned, "long_memory", lambda run: 1 / (1 - run.memory), "teacher's memory 1 / (1 - nu_0)")
    _bars(axes[1], results, planned)
    _over(axes[2], results, planned, "angles", lambda run: run.angle, "largest phase / pi", relative=True)
    _over(axes[3], results, planned, "heads", lambda run: run.heads, "blocks of the recurrence")
    _shares(axes[4], results, planned, "scale", "share of the rate, 1 / (sqrt(v) + eps)")
    _shares(axes[5], results, planned, "probe", "share of the rate, as published")
    for axis in (axes[0], axes[2]):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7, loc="upper left" if axis is axes[0] else "center left")
    counts = ", ".join(f"{name} {len(found)}" for name, found in sorted(results.items()))
    return save_figure(figure, path, f"runs: {counts}")


def _interval(axis: Any, at: float, summary: Summary, colour: str) -> None:
    axis.plot([at, at], [summary.reached[0], summary.reached[-1]], color=colour, linewidth=1.2, alpha=0.6)


def _over(
    axis: Any, results: Mapping[str, Results], planned: Planned, name: str, at: Any, title: str, relative: bool = False
) -> None:
    """Losses over a number of the teacher or student, a line for each student."""
    found: dict[str, list[tuple[float, Summary]]] = {}
    names: dict[str, str] = {}
    for group in cells(planned.get(name, ())).values():
        summary = best(results.get(name, {}), group, relative=relative)
        if summary is not None and summary.reached:
            found.setdefault(group[0].student, []).append((float(at(group[0])), summary))
            names[group[0].student] = label(group[0])
    for student, points in found.items():
        colour = _COLOURS[student]
        axis.plot(
            [x for x, _ in points],
            [s.rank[1] for _, s in points],
            "o-",
            color=colour,
            markersize=4,
            label=names[student],
        )
        for x, summary in points:
            _interval(axis, x, summary, colour)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(title)
    axis.set_ylabel("loss / that of silence" if relative else "loss")


def _bars(axis: Any, results: Mapping[str, Results], planned: Planned) -> None:
    groups = [group for group in cells(planned.get("ablation", ())).values() if group[0].memory == 0.99]
    names = []
    for place, group in enumerate(groups):
        names.append(label(group[0]).replace("complex diagonal, ", "diagonal,\n"))
        summary = best(results.get("ablation", {}), group)
        if summary is not None and summary.reached:
            axis.plot([summary.rank[1]], [place], "o", color=_COLOURS[group[0].student])
            axis.plot([summary.reached[0], summary.reached[-1]], [place, place], color=_COLOURS[group[0].student])
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("loss, nu_0 = 0.99")


def _shares(axis: Any, results: Mapping[str, Results], planned: Planned, kind: str, title: str) -> None:
    """Of every tensor, from the smallest to the largest share of any seed."""
    names: list[str] = []
    for group in cells(planned.get("adam", ())).values():
        rates = [results["adam"][run.key]["result"]["rates"] for run in group if run.key in results.get("adam", {})]
        rates = [found for found in rates if found]
        for tensor in rates[0] if rates else ():
            rows = [found[tensor][kind] for found in rates if "smallest" in found[tensor][kind]]
            if rows:
                ends = [min(row["smallest"] for row in rows), max(row["largest"] for row in rows)]
                axis.plot(ends, [len(names)] * 2, color=_COLOURS[group[0].student], linewidth=3, alpha=0.5)
                means = [row["geometric mean"] for row in rows]
                axis.plot(means, [len(names)] * len(means), "|", color=_COLOURS[group[0].student], markersize=9)
                names.append(f"{label(group[0]).replace('complex ', '')}, {tensor}")
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names, fontsize=6)
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axis.set_xlabel(title)
