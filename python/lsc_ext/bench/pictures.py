"""Pictures of cost, log against log, from the rows of a report. Needs matplotlib, imported when called."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.files import write_whole

Rows = Sequence[Mapping[str, Any]]
COLOURS = ("#1f6f8b", "#9c9c9c", "#c8553d", "#588157", "#d4a017", "#6d597a", "#333333")


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Writes the pictures whose rows are there; returns their files, named after their group."""
    correct = [row for row in rows if row.get("correct", False)]
    panels = {"radii": _radii(correct), **_growth(correct)}
    drawn = []
    for name, axes in panels.items():
        if axes:
            folder.mkdir(exist_ok=True)
            drawn.append(_save(axes, folder / f"{name}.svg"))
    return drawn


def _radii(rows: Rows) -> list[dict[str, Any]]:
    """A panel per cell: time per point against H, at the fewest points, where everybody is measured."""
    fixed = [r for r in rows if r["group"] == "radii" and "products" in r["sizes"]]
    fixed = [r for r in fixed if (r["sizes"]["direction"], r["sizes"]["dtype"]) == ("time", "float32")]
    panels = []
    for cell in dict.fromkeys(row["sizes"]["cell"] for row in fixed):
        of_cell = [row for row in fixed if row["sizes"]["cell"] == cell]
        fewest = min(row["sizes"]["N"] for row in of_cell)
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in sorted((r for r in of_cell if r["sizes"]["N"] == fewest), key=lambda r: r["sizes"]["H"]):
            times = {"lsc_ext": row["ours"], **{n: p["time"] for n, p in row["peers"].items() if "time" in p}}
            for name, time in times.items():
                curves.setdefault(name, []).append((row["sizes"]["H"], time["median"]))
        panels.append({"title": f"{cell}, N = {fewest}", "x": "H", "y": "seconds per point", "curves": curves})
    return panels


def _growth(rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """A panel per letter, for time and for memory."""
    kinds = {"growth_time": ("seconds", "time_exponent"), "growth_memory": ("peak_bytes", "memory_exponent")}
    panels: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for row in rows:
        numbers = row.get("numbers", {})
        if row["group"] != "growth":
            continue
        for name, (key, exponent) in kinds.items():
            points = [(v, c) for v, c in zip(numbers["values"], numbers[key], strict=True) if c]
            if len(points) > 1:
                title = f"exponent {numbers[exponent]:.2f}"
                label = "seconds" if key == "seconds" else "peak bytes above the input"
                panels[name].append({"title": title, "x": numbers["letter"], "y": label, "curves": {"lsc_ext": points}})
    return panels


def _save(panels: Sequence[Mapping[str, Any]], path: Path) -> Path:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lsc_ext"}):
        figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for (name, points), colour in zip(panel["curves"].items(), COLOURS, strict=False):
                axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=colour, label=name)
            axis.set_xscale("log", base=2)
            sizes = sorted({size for points in panel["curves"].values() for size, _ in points})
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.set_yscale("log")
            axis.set_xlabel(panel["x"])
            axis.set_ylabel(panel["y"])
            axis.set_title(panel["title"], fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        if len(panels[0]["curves"]) > 1:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return write_whole(path, content.getvalue())
