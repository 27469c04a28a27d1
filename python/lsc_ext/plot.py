"""Pictures of results, from the same plain numbers that are written as JSON. Needs matplotlib, imported when called.

A path's ending chooses the format, .png or .svg.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.files import write_whole

BEFORE, AFTER = "#9c9c9c", "#1f6f8b"
_COLOURS = ("#9c9c9c", "#1f6f8b", "#c8553d", "#588157")
FORMATS = ("png", "svg")


def new_figure(columns: int, rows: int = 1, *, width: float = 4.6, height: float = 3.4) -> tuple[Any, Any]:
    """An empty figure and its axes, row by row in one list; ``width`` and ``height`` in inches of each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: str | os.PathLike[str], description: str | None = None) -> Path:
    """Writes PNG or SVG by the path's ending, with a description inside; the same figure gives the same bytes.

    Raises:
        ValueError: another ending.
    """
    import matplotlib

    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"path: expected a file that ends in .png or .svg, got {path}")
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lsc_ext"}):
        metadata: dict[str, str | None] = {} if description is None else {"Description": description}
        if kind == "svg":
            metadata = {"Date": None, **metadata}
        figure.savefig(content, format=kind, dpi=130, metadata=metadata)
    written = content.getvalue()
    if kind == "svg":  # a hundredth of a point is enough for a line, and half the bytes
        written = re.sub(rb' d="[^"]*"', lambda line: re.sub(rb"(\.\d\d)\d+", rb"\1", line[0]), written)
    return write_whole(path, written)


def _draw_radii(axis: Any, result: Mapping[str, Any], direction: str) -> None:
    """Mean and standard deviation of each layer, before and after, and the target."""
    for offset, key, colour in ((-0.08, "before", BEFORE), (0.08, "after", AFTER)):
        rows = [row for row in result[key]["rows"] if row["direction"] == direction]
        axis.errorbar(
            [row["layer"] + 1 + offset for row in rows],
            [row["mean"] for row in rows],
            yerr=[row["std"] for row in rows],
            fmt="o",
            color=colour,
            capsize=3,
            label=f"{key} pre-training",
        )
    axis.axhline(result["targets"][direction], color="black", linewidth=0.8, linestyle="--", label="target")
    layers = sorted({row["layer"] + 1 for row in result["after"]["rows"]})
    axis.set_xticks(layers)
    axis.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("layer")
    axis.set_ylabel("radius, mean and std over points")
    axis.set_title(f"along {direction}")


def plot_radii(results: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Radii before and after, one panel per network and direction.

    Args:
        results: network name -> what ``PretrainResult.to_dict`` returns.
        path: file to write.
    """
    panels = [(name, result, d) for name, result in results.items() for d in result["targets"]]
    figure, axes = new_figure(len(panels))
    for axis, (name, result, direction) in zip(axes, panels, strict=True):
        _draw_radii(axis, result, direction)
        axis.set_title(f"{name}, along {direction}")
    axes[0].legend(frameon=False)
    return save_figure(figure, path)


def plot_pretraining(result: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Radii before and after by layer and direction, and how far the worst layer was from the target at each step.

    Args:
        result: what ``PretrainResult.to_dict`` returns.
        path: file to write.
    """
    directions = list(result["targets"])
    figure, axes = new_figure(len(directions) + 1)
    for axis, direction in zip(axes, directions, strict=False):
        _draw_radii(axis, result, direction)
    axes[0].legend(frameon=False)
    axes[-1].plot([row["deviation"] for row in result["history"]], color=AFTER)
    axes[-1].axhline(result["config"]["tolerance"], color="black", linewidth=0.8, linestyle="--", label="tolerance")
    axes[-1].set_yscale("log")
    axes[-1].set_xlabel("step")
    axes[-1].set_ylabel("largest |mean radius - target|")
    axes[-1].legend(frameon=False)
    return save_figure(figure, path)


def plot_diagnosis(result: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Radii by layer, and the gradients with respect to each step's input beside what the radii let expect.

    Args:
        result: what ``Diagnosis.to_dict`` returns.
        path: file to write.
    """
    rows = result["radii"]["rows"]
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    figure, (left, right) = new_figure(2)
    for offset, (direction, colour) in enumerate(zip(directions, _COLOURS[1:], strict=False)):
        own = [row for row in rows if row["direction"] == direction]
        left.errorbar(
            [row["layer"] + 1 + 0.08 * offset for row in own],
            [row["mean"] for row in own],
            yerr=[row["std"] for row in own],
            fmt="o",
            color=colour,
            capsize=3,
            label=f"along {direction}",
        )
    left.set_ylim(bottom=0)
    left.set_xticks(sorted({row["layer"] + 1 for row in rows}))
    left.set_xlabel("layer")
    left.set_ylabel("radius, mean and std over points")
    left.legend(frameon=False)
    expected = [10**value for value in result["expected_log10_gradient"]]
    curves = {"expected from radii": expected, "all outputs": result["gradient"]}
    curves["last output"] = result["gradient_from_last"]
    for (name, values), colour in zip(curves.items(), _COLOURS, strict=False):
        if values is not None:
            right.plot(range(1, len(values) + 1), values, "o-" if len(values) == 1 else "-", color=colour, label=name)
    right.set_yscale("log")
    right.set_xlabel("time step t of the input")
    right.set_ylabel("norm of the gradient at x(t)")
    right.legend(frameon=False)
    return save_figure(figure, path)


def plot_memory(result: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """By layer and role: how much more than it need each group moves the state, and the gradients that it gets.

    Args:
        result: what ``MemoryReport.to_dict`` returns.
        path: file to write.
    """
    roles = list(dict.fromkeys(row["role"] for row in result["rows"]))
    figure, axes = new_figure(2)
    for axis, key in zip(axes, ("excess", "gradient"), strict=True):
        for offset, role in enumerate(roles):
            own = [row for row in result["rows"] if row["role"] == role and row[key]]
            places = [row["layer"] + 1 + 0.1 * (offset - (len(roles) - 1) / 2) for row in own]
            colour = _COLOURS[offset % len(_COLOURS)]
            axis.plot(places, [row[key] for row in own], "os^vDPX*<"[offset // len(_COLOURS)], color=colour, label=role)
        axis.set_yscale("log")
        axis.set_xticks(sorted({row["layer"] + 1 for row in result["rows"]}))
        axis.set_xlabel("layer")
    axes[0].axhline(result["threshold"], color="black", linewidth=0.8, linestyle="--", label="hypersensitive")
    axes[0].set_ylabel("E|dh|^2 of one number, by a tamed one's")
    axes[1].set_ylabel("mean square of the gradient")
    axes[0].legend(frameon=False)
    return save_figure(figure, path)


def plot_gradient_profiles(profiles: Mapping[str, Mapping[str, Sequence[float]]], path: str | os.PathLike[str]) -> Path:
    """Gradient norms over time, one panel per network.

    Args:
        profiles: network name -> curve name -> norm of the gradient with respect to the input at each time step.
        path: file to write.
    """
    figure, axes = new_figure(len(profiles))
    for axis, (name, curves) in zip(axes, profiles.items(), strict=True):
        for (curve, values), colour in zip(curves.items(), _COLOURS, strict=False):
            axis.plot(range(1, len(values) + 1), values, color=colour, label=curve)
        axis.set_yscale("log")
        axis.set_xlabel("time step t of the input")
        axis.set_ylabel("| d sum of top outputs / d x(t) |")
        axis.set_title(name)
        axis.legend(frameon=False)
    return save_figure(figure, path)


def plot_accuracy(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], path: str | os.PathLike[str]) -> Path:
    """Accuracy over training, a line per seed and their mean, one panel per network.

    Args:
        curves: network name -> arm -> seed -> test accuracy after each epoch.
        path: file to write.
    """
    figure, axes = new_figure(len(curves))
    for axis, (name, arms) in zip(axes, curves.items(), strict=True):
        for (arm, seeds), colour in zip(arms.items(), _COLOURS, strict=False):
            epochs = range(1, len(seeds[0]) + 1)
            for seed in seeds:
                axis.plot(epochs, seed, color=colour, linewidth=0.7, alpha=0.5)
            mean = [sum(values) / len(values) for values in zip(*seeds, strict=True)]
            axis.plot(epochs, mean, color=colour, linewidth=2.2, label=f"{arm}, mean of {len(seeds)} seeds")
        axis.set_xlabel("epoch")
        axis.set_ylabel("test accuracy")
        axis.set_ylim(0, 1)
        axis.set_title(name)
        axis.legend(frameon=False, loc="lower right")
    return save_figure(figure, path)
