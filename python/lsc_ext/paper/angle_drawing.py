"""Picture of an angle that is learned, from its numbers. Needs matplotlib, imported when called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.paper.angle import OPTIMIZERS
from lsc_ext.paper.drawing import COLOURS, legend_below, picture
from lsc_ext.plot import new_figure

_STYLES = {"adam": (COLOURS[1], "-"), "sign": ("black", "--")}
_START: dict[str, Any] = {"marker": "o", "color": "white", "markeredgecolor": "black", "markersize": 6}
_TEACHER: dict[str, Any] = {"marker": "*", "color": "#f2c14e", "markeredgecolor": "black", "markersize": 12}


def draw_angle(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """A column for each parametrisation: paths over the loss, and the loss against the step."""
    panels = data["panels"]
    figure, axes = new_figure(len(panels), 2, width=3.7, height=3.0)
    image = None
    for axis, panel in zip(axes, panels, strict=False):
        field = panel["landscape"]
        image = axis.imshow(
            [list(row) for row in zip(*field["log10"], strict=True)],
            origin="lower",
            aspect="auto",
            extent=(field["w"][0], field["w"][-1], field["v"][0], field["v"][-1]),
            vmin=0,
            vmax=2,
            cmap="GnBu_r",
            interpolation="bilinear",
        )
        for run in panel["runs"]:
            colour, line = _STYLES[run["optimizer"]]
            axis.plot(run["w"], run["v"], color=colour, linestyle=line, linewidth=1.2)
        first = panel["runs"][0]
        axis.plot(first["w"][0], first["v"][0], **_START)
        axis.plot(*panel["teacher"], **_TEACHER)
        axis.set_xlabel("w, lambda of modulus tanh(w)")
        axis.set_ylabel("v")
        axis.set_title(panel["parametrization"], fontsize=10)
    figure.colorbar(image, ax=list(axes[: len(panels)]), label="log10 loss")
    for axis, panel in zip(axes[len(panels) :], panels, strict=True):
        for run in panel["runs"]:
            colour, line = _STYLES[run["optimizer"]]
            label = OPTIMIZERS[run["optimizer"]]
            axis.plot(data["steps"], run["loss"], color=colour, linestyle=line, linewidth=1.2, label=label)
        axis.set_yscale("log")
        axis.set_ylim(1e-7, 200)
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
    for label, style in (("start", _START), ("teacher", _TEACHER)):
        axes[len(panels)].plot([], [], linestyle="none", label=label, **style)
    legend_below(figure, axes[len(panels)], 4)
    return picture(figure, path, data)
