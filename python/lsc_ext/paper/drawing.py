"""Pictures of the figures' numbers, as read back from their JSON. Needs matplotlib, imported when called."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.plot import new_figure, save_figure

COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#9c6644", "#7b5ea7", "#9c9c9c")
GREY = "#b8b8b8"


def draw_grid(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Paths on both grids; the single path of a feed-forward network and of one layer in grey."""
    figure, axes = new_figure(len(data["grids"]))
    columns, layers = data["config"]["time_steps"], data["config"]["layers"]
    for axis, grid in zip(axes, data["grids"], strict=True):
        axis.plot(
            [t for t in range(columns) for _ in range(layers)],
            list(range(layers)) * columns,
            "o",
            color="white",
            markeredgecolor="black",
            markersize=5,
            zorder=3,
        )
        for name in ("feed_forward", "one_layer"):
            axis.plot(*zip(*data[name], strict=True), color=GREY, linewidth=5, alpha=0.6, solid_capstyle="round")
        for number, (nodes, colour) in enumerate(zip(grid["paths"], COLOURS, strict=False)):
            shift = 0.05 * (number - (len(grid["paths"]) - 1) / 2)  # paths share moves
            axis.plot([t + shift for t, _ in nodes], [layer + shift for _, layer in nodes], color=colour)
        axis.set_xticks(range(columns), [str(t + 1) for t in range(columns)])
        axis.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
        axis.set_xlabel("time step")
        axis.set_ylabel("layer")
        axis.set_title(f"{grid['grid']}: {grid['path_count']} paths from corner to corner", fontsize=10)
    return picture(figure, path, data)


def draw_growth(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """log10 of the number of paths, one panel per curve."""
    figure, axes = new_figure(len(data["curves"]), width=3.6)
    for axis, curve in zip(axes, data["curves"], strict=True):
        axis.plot(curve["size"], curve["log10_count"], color=COLOURS[0])
        axis.set_xlabel(curve["letter"])
        axis.set_ylabel("log10 of the number of paths")
        axis.set_title(curve["name"], fontsize=10)
        axis.set_ylim(bottom=0)
    return picture(figure, path, data)


def draw_pascal(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Gradients and outputs of the PascalRNN, and gradients of ReLU networks."""
    figure, axes = new_figure(3, width=3.9)
    panels = (
        ("gradient", "PascalRNN", "| d sum of top outputs / d x(t) |"),
        ("output", "PascalRNN", "| top output(t) |"),
        ("relu_gradient", "ReLU, He scale times rho", "| d sum of top outputs / d x(t) |"),
    )
    for axis, (key, title, label) in zip(axes, panels, strict=True):
        for arm, colour in zip(data["arms"], COLOURS, strict=False):
            axis.plot(range(1, len(arm[key]) + 1), arm[key], color=colour, label=f"rho = {arm['target']}")
        _log_scale(axis, [arm[key] for arm in data["arms"]])
        axis.set_xlabel("time step t")
        axis.set_ylabel(label)
        axis.set_title(title, fontsize=10)
    legend_below(figure, axes[0], 6)
    return picture(figure, path, data)


def draw_profiles(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Gradient profiles, one row per network: before training, and after where there was any."""
    moments = [("before_training", "before training")]
    if data["config"]["train_steps"] > 0:
        moments.append(("after_training", f"after {data['config']['train_steps']} steps of training"))
    figure, axes = new_figure(len(moments), len(data["networks"]))
    panels = iter(axes)
    for name, arms in data["networks"].items():
        for moment, title in moments:
            axis = next(panels)
            for arm, colour in zip(arms, (COLOURS[-1], *COLOURS), strict=False):
                values = arm[moment]["gradient"]
                axis.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.2, label=arm["name"])
            _log_scale(axis, [arm[moment]["gradient"] for arm in arms])
            axis.set_xlabel("time step t of the input")
            axis.set_ylabel("| d sum of top outputs / d x(t) |")
            axis.set_title(f"{data['config']['layers']}-layer {name}, {title}", fontsize=10)
    legend_below(figure, axes[0], len(next(iter(data["networks"].values()))))
    return picture(figure, path, data)


def draw_covariance(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """|Covariance|, r and p-value against the distance in time, one row per layer."""
    layers = data["config"]["layers"]
    figure, axes = new_figure(3, layers, width=3.6, height=2.7)
    panels = (("covariance", "|covariance|"), ("correlation", "Pearson's r"), ("p_value", "p-value"))
    names = list(dict.fromkeys(_name(curve) for curve in data["curves"]))
    for layer in range(layers):
        for column, (key, label) in enumerate(panels):
            axis = axes[3 * layer + column]
            for curve in (c for c in data["curves"] if c["layer"] == layer):
                values = [math.nan if v is None else v for v in curve[key]]
                if key == "covariance":
                    values = [abs(v) for v in values]
                colour = COLOURS[names.index(_name(curve)) % len(COLOURS)]
                axis.plot(values, color=colour, linewidth=1.0, label=_name(curve))
            if key == "covariance":
                axis.set_yscale("log")
            if key == "p_value":
                axis.axhline(data["level"], color="black", linewidth=0.8, linestyle="--")
            if key == "correlation":
                axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xlabel("distance in steps")
            axis.set_ylabel(label)
            axis.set_title(f"layer {layer + 1}", fontsize=10)
    legend_below(figure, axes[0], len(names))
    return picture(figure, path, data)


def draw_dominance(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Interactions of each order: a bar for the mean over seeds, its upper standard deviation, a dot for each seed."""
    figure, axes = new_figure(1, width=5.2)
    axis, orders = axes[0], data["orders"]
    for number, (bar, colour) in enumerate(zip(data["bars"], COLOURS, strict=False)):
        width = 0.8 / len(data["bars"])
        places = [k + (number - (len(data["bars"]) - 1) / 2) * width for k in range(len(orders))]
        above = [[0.0] * len(orders), bar["std"]]  # mean - std is below zero where one seed is most of the mean
        axis.bar(places, bar["mean"], width, yerr=above, color=colour, alpha=0.7, capsize=2, label=bar["architecture"])
        for seed in bar["interactions"]:
            axis.plot(places, seed, ".", color="black", markersize=3)
    axis.set_yscale("log")
    axis.set_xticks(range(len(orders)), [f"order {k}" for k in orders])
    axis.set_ylabel("|interaction|, seeds and their mean")
    legend_below(figure, axis, len(data["bars"]))
    return picture(figure, path, data)


def picture(figure: Any, path: str | os.PathLike[str], data: Mapping[str, Any]) -> Path:
    """Writes a figure with the digest of its numbers in it."""
    return save_figure(figure, path, f"of numbers with SHA-256 {digest(data)}")


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of numbers as JSON has them, which a picture of them carries in its description."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _name(curve: Mapping[str, Any]) -> str:
    return str(curve["architecture"]) + ("" if curve["target"] is None else f", rho = {curve['target']}")


def _log_scale(axis: Any, curves: list[list[float]]) -> None:
    """Logarithmic where there is anything to show; a curve of zeros alone has no place on it."""
    if any(value > 0 for curve in curves for value in curve):
        axis.set_yscale("log")


def legend_below(figure: Any, axis: Any, columns: int) -> None:
    """One legend for all panels, of what ``axis`` shows."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, 6), frameon=False, fontsize=8)
