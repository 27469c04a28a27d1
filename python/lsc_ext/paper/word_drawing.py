"""Pictures of words and of gates over them, from their numbers. Needs matplotlib, imported when called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.paper.drawing import COLOURS, GREY, legend_below, picture
from lsc_ext.plot import new_figure


def draw_words(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """R(d) as published, as measured with its standard error, and as fitted; on the right what is off."""
    figure, (left, right) = new_figure(2)
    lags = list(range(len(data["law"])))
    band = list(zip(data["mean"], data["standard_error"], strict=True))
    fit = data["fit"]
    fitted = [fit["weight"] * fit["rho"] ** d + (fit["white"] if d == 0 else 0) for d in lags]
    left.plot(lags, data["mean"], color=COLOURS[0], linewidth=1.0, label="measured")
    left.plot(lags, fitted, color=COLOURS[1], linewidth=1.2, linestyle="--", label="fitted to it")
    left.plot(lags, data["law"], color="black", linewidth=0.8, linestyle=":", label="published law")
    left.set_yscale("log")
    left.set_ylabel("R(d)")
    low, high = ([m + sign * e for m, e in band] for sign in (-1, 1))
    left.fill_between(lags, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    for bound, shade in ((2, 0.25), (1, 0.45)):
        edge = [bound * e for e in data["standard_error"]]
        label = f"{bound} standard error{'s' if bound > 1 else ''}"
        right.fill_between(lags, [-e for e in edge], edge, color=GREY, alpha=shade, linewidth=0, label=label)
    off = [m - z for m, z in zip(data["mean"], data["law"], strict=True)]
    right.plot(lags, off, color=COLOURS[0], linewidth=0.8)
    right.plot(lags, [m - z for m, z in zip(fitted, data["law"], strict=True)], color=COLOURS[1], linestyle="--")
    right.axhline(0, color="black", linewidth=0.8, linestyle=":")
    room = max(data["standard_error"][: len(lags) // 2])  # at long lags few pairs are left
    right.set_ylim(-4 * room, 6 * room)
    right.set_ylabel("difference from the law")
    for axis in (left, right):
        axis.set_xlabel("lag d")
        axis.legend(frameon=False, fontsize=8)
    return picture(figure, path, data)


def draw_gates(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """A column for each kind of gate: squares of states above, of their sensitivity to the gate's bias below."""
    panels = data["panels"]
    figure, axes = new_figure(len(panels), 2, width=3.7, height=2.8)
    rows = (("state", "h^2"), ("sensitivity", "(d h / d b)^2"))
    for number, (kind, label) in enumerate(rows):
        own = axes[number * len(panels) : (number + 1) * len(panels)]
        for axis, panel in zip(own, panels, strict=True):
            found = panel[kind]
            dots = {"color": COLOURS[0], "alpha": 0.35, "markersize": 4, "label": "units, means of sequences"}
            axis.plot(data["memory"], found["units"], ".", **dots)
            axis.plot(data["grid"], found["smoothed"], color=COLOURS[0], label="smoothed mean of units")
            axis.plot(data["grid"], data["theory"][kind], color="black", linewidth=1.1, label="theory")
            after = f"theory after {data['config']['steps']} steps"
            axis.plot(data["grid"], data["after"][kind], color="black", linewidth=1.1, linestyle="--", label=after)
            if kind == "sensitivity":
                style = {"color": COLOURS[1], "linewidth": 1.8, "linestyle": ":"}
                axis.plot(data["grid"], data["notebook"], **style, label="the notebook's curve")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("memory 1 / (1 - sigmoid(b))")
            axis.set_ylabel(label)
            if number == 0:
                axis.set_title(f"{panel['condition']} gates", fontsize=10)
        low = min(z for panel in panels for z in panel[kind]["units"])
        high = max(z for panel in panels for z in panel[kind]["units"])
        for axis in own:
            axis.set_ylim(0.7 * low, 1.5 * high)
    legend_below(figure, axes[len(panels)], 5)
    return picture(figure, path, data)
