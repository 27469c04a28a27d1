"""Pictures of deep networks at initialisation and of a GRU's Jacobians, from their numbers.

Needs matplotlib, imported when called.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.paper.drawing import COLOURS, GREY, legend_below, picture
from lsc_ext.paper.propagation import curves_of
from lsc_ext.plot import new_figure

_NAMES = {"crnn": "complex RNN", "lru": "LRU", "gru": "GRU"}


def draw_propagation(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """A row for each norm: streams, and gradients by group; a last row, gradients of the LRU block by block."""
    curves, norms = curves_of(data["arms"]), data["config"]["norms"]
    of_lru = [curve for curve in curves if curve[0]["recurrence"] == "lru"]
    figure, axes = new_figure(3, len(norms) + len(of_lru[:1]), width=4.0, height=3.1)
    for row, norm in enumerate(norms):
        panels = axes[3 * row : 3 * row + 3]
        for curve in curves:
            if curve[0]["norm"] == norm:
                _draw_memories(panels, curve, data["config"]["layers"])
        labels = ("mean square of the stream", "squared gradient, recurrence", "squared gradient, rest")
        for axis, label in zip(panels, labels, strict=True):
            axis.set_xscale("log")
            axis.set_xlabel("memory t")
            axis.set_ylabel(label)
            axis.set_title(_norm(norm), fontsize=10)
            _log_scale(axis)
    axes[0].legend(frameon=False, fontsize=7, handlelength=3)
    axes[1].legend(frameon=False, fontsize=7, handlelength=3)
    if of_lru:
        _draw_blocks(axes[-3:], of_lru[0])
        legend_below(figure, axes[-1], len(of_lru[0]))
    return picture(figure, path, data)


def _draw_memories(panels: Sequence[Any], curve: Sequence[Mapping[str, Any]], layers: int) -> None:
    """One network's streams, gradients of its recurrence and of the rest, over its memory."""
    streams, recurrence, rest = panels
    kind, x = curve[0]["recurrence"], [arm["memory"] for arm in curve]
    style = {"color": COLOURS[list(_NAMES).index(kind)], "markersize": 3}
    for block, line in ((1, "o--"), (layers, "o-")):
        streams.plot(x, [arm["output"][block] for arm in curve], line, label=f"{_NAMES[kind]}, block {block}", **style)
    for own in curve[0]["gradient"]:
        values = [arm["gradient"][own] for arm in curve]
        if own == "rest":
            rest.plot(x, values, "o-", **style)
        else:
            label = f"{_NAMES[kind]}, {'all of it' if own == 'own' else own}"
            recurrence.plot(x, values, "o--" if own == "nu" else "o-", label=label, **style)


def _draw_blocks(axes: Sequence[Any], curve: Sequence[Mapping[str, Any]]) -> None:
    """Squared gradients of one network's groups by block, a line for each memory."""
    for axis, own in zip(axes, ("theta", "nu", "rest"), strict=True):
        for arm, colour in zip(curve, COLOURS, strict=False):
            values = arm["by_layer"][own]
            blocks = range(1, len(values) + 1)
            axis.plot(blocks, values, "o-", color=colour, label=f"t = {arm['memory']:.3g}", markersize=3)
            axis.set_xticks(blocks)
        axis.set_xlabel("block")
        axis.set_ylabel(f"squared gradient, {own}")
        axis.set_title(f"LRU, {_norm(curve[0]['norm'])}, by block", fontsize=10)
        _log_scale(axis)


def _norm(name: str) -> str:
    return "no norm" if name == "none" else f"{name} norm"


def _log_scale(axis: Any) -> None:
    """Logarithmic, of two decades at least: less would make a line that is flat look steep."""
    axis.set_yscale("log")
    low, high = (math.log10(end) for end in axis.get_ylim())
    missing = max(0.0, 2 - (high - low)) / 2
    axis.set_ylim(10 ** (low - missing), 10 ** (high + missing))


def draw_jacobians(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """A row for each three conditions: entries on and off the diagonal, and the mass off it over that on it."""
    rows = list(dict.fromkeys(panel["row"] for panel in data["panels"]))
    figure, axes = new_figure(4, len(rows), width=3.4, height=2.7)
    for number, name in enumerate(rows):
        *entries, ratio = axes[4 * number : 4 * number + 4]
        panels = [panel for panel in data["panels"] if panel["row"] == name]
        for axis, panel in zip(entries, panels, strict=True):
            _draw_entries(axis, data["steps"], panel)
        entries[0].set_ylabel("d h[t] / d h[0]")
        _draw_ratios(ratio, data["steps"], panels)
    legend_below(figure, axes[0], 2)
    return picture(figure, path, data)


def _draw_entries(axis: Any, steps: Sequence[int], panel: Mapping[str, Any]) -> None:
    """Bands from the least to the largest and from 5 to 95 percent, medians, and some entries off the diagonal."""
    for key, colour, label in (("diagonal", COLOURS[0], "diagonal"), ("off_diagonal", COLOURS[1], "off the diagonal")):
        low, lower, middle, upper, high = panel[key]
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.fill_between(steps, lower, upper, color=colour, alpha=0.35, linewidth=0)
        axis.plot(steps, middle, color=colour, linewidth=1.2, label=label)
    for entry in panel["curves"]:
        axis.plot(steps, entry, color=COLOURS[1], linewidth=0.4)
    axis.axhline(0, color=GREY, linewidth=0.6)
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xlabel("t")
    axis.set_title(_condition(panel), fontsize=9)


def _draw_ratios(axis: Any, steps: Sequence[int], panels: Sequence[Mapping[str, Any]]) -> None:
    """The mass off the diagonal over that on it, of three conditions."""
    axis.set_xscale("log")
    axis.set_xlim(steps[0] / 1.2, steps[-1] * 1.2)
    axis.set_xlabel("t")
    axis.set_ylabel("|off|_F / |diagonal|_F")
    changing = "recurrent_scale" if len({panel["recurrent_scale"] for panel in panels}) > 1 else "memory"
    some = any(value > 0 for panel in panels for value in panel["ratio"])
    axis.set_yscale("log" if some else "linear")
    for panel, colour in zip(panels, COLOURS[2:], strict=False):
        label = f"T 1 to {panel['memory'][1]:g}" if changing == "memory" else f"sigma_h {panel['recurrent_scale']:g}"
        zero = not any(panel["ratio"])
        shown = [math.nan] * len(steps) if some and zero else panel["ratio"]
        axis.plot(steps, shown, color=colour, label=f"{label}: 0" if zero else label)
    if not some:
        axis.set_ylim(-0.05, 1)
    axis.legend(frameon=False, fontsize=7)


def _condition(panel: Mapping[str, Any]) -> str:
    low, high = panel["memory"]
    return f"T {low:g} to {high:g}, sigma_x {panel['input_variance']:g}, sigma_h {panel['recurrent_scale']:g}"
