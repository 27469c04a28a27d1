"""Pictures of the figures of arXiv 2405.21064, from their numbers. Needs matplotlib, imported when called."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.paper.drawing import COLOURS, GREY, legend_below, picture
from lsc_ext.plot import new_figure

_TICKS = ((0, 1, 2, 3, 4), ("0", "0.9", "0.99", "0.999", "0.9999"))
_FLOOR = 1e-6  # of losses: where a teacher is met they are 0


def draw_curse(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Sensitivity against memory, and losses over modulus and angle."""
    figure, axes = new_figure(3, width=3.9)
    for curve, colour in zip(data["sensitivities"], COLOURS, strict=False):
        axes[0].plot(data["digits"], curve["sensitivity"], color=colour, label=f"rho = {curve['rho']:g}")
    axes[0].plot(data["digits"], data["state"], color=GREY, label="E h^2, rho = 1")
    _memory_axis(axes[0], "E (d h / d lambda)^2")
    panels = (("by_modulus", data["modulus"], "lambda"), ("by_angle", data["angle"], "angle"))
    for axis, (key, x, label) in zip(axes[1:], panels, strict=True):
        for loss, shade in zip(data["losses"], _shades(len(data["losses"])), strict=True):
            axis.plot(x, [y if y > 0 else math.nan for y in loss[key]], color=shade, label=f"{loss['teacher']:g}")
        axis.set_yscale("log")
        axis.set_ylim(bottom=_FLOOR)
        axis.set_xlabel(label)
        axis.set_ylabel("loss")
    axes[0].legend(frameon=False, fontsize=7)
    axes[1].legend(frameon=False, fontsize=7, title="teacher", title_fontsize=7)
    return picture(figure, path, data)


def draw_tamed(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Normalised states, and the sensitivity to the parameter of an exponential."""
    figure, axes = new_figure(2)
    panels = (("state", "bare_state", "E |gamma h|^2"), ("learned", "bare_sensitivity", "E |d (gamma h) / d w|^2"))
    for axis, (key, bare, label) in zip(axes, panels, strict=True):
        for curve, colour in zip(data["curves"], COLOURS, strict=False):
            axis.plot(data["digits"], curve[key], color=colour, label=f"rho = {curve['rho']:g}")
        axis.plot(data["digits"], data[bare], color=GREY, label="without, rho = 1")
        _memory_axis(axis, label)
    axes[0].legend(frameon=False, fontsize=7)
    return picture(figure, path, data)


def draw_landscapes(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """A row for each parametrisation: loss and second derivative over modulus and phase."""
    figure, axes = new_figure(4, len(data["rows"]), width=3.2, height=2.4)
    panels = (
        ("loss_by_modulus", "modulus", "loss"),
        ("curvature_by_modulus", "modulus", "second derivative"),
        ("loss_by_phase", "phase", "loss"),
        ("curvature_by_phase", "phase", "second derivative"),
    )
    for number, row in enumerate(data["rows"]):
        for axis, (key, x, label) in zip(axes[4 * number :], panels, strict=False):
            for curve, shade in zip(row["curves"], _shades(len(row["curves"])), strict=True):
                axis.plot(row[x], curve[key], color=shade, linewidth=1.1, label=f"teacher {curve['teacher']:g}")
            if label != "loss":
                axis.set_yscale("symlog", linthresh=0.1)
            axis.set_xlabel("w" if x == "modulus" else "v / pi")
            axis.set_ylabel(label)
            axis.set_title(row["parametrization"], fontsize=9)
    legend_below(figure, axes[0], 6)
    return picture(figure, path, data)


def draw_coupling(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """|S(lambda, lambda0)| over modulus and angle, a panel for each input."""
    figure, axes = new_figure(len(data["maps"]), width=2.6, height=2.6)
    image = None
    for axis, panel in zip(axes, data["maps"], strict=True):
        image = axis.imshow(
            panel["log10"],
            origin="lower",
            aspect="auto",
            extent=(data["angle"][0], data["angle"][-1], data["modulus"][0], data["modulus"][-1]),
            vmin=-2,
            vmax=5,
            cmap="viridis",
        )
        axis.set_title(f"rho = {panel['rho']:g}", fontsize=10)
        axis.set_xlabel("angle")
    axes[0].set_ylabel("modulus")
    figure.colorbar(image, ax=list(axes), label="log10 |S|")
    return picture(figure, path, data)


def _memory_axis(axis: Any, label: str) -> None:
    axis.set_yscale("log")
    axis.set_xticks(*_TICKS)
    axis.set_xlabel("lambda")
    axis.set_ylabel(label)


def _shades(count: int) -> list[tuple[float, float, float]]:
    """From light to dark, one for each teacher."""
    return [(0.75 - 0.65 * k / max(count - 1, 1), 0.8 - 0.5 * k / max(count - 1, 1), 0.85) for k in range(count)]
