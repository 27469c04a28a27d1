"""Picture of Hessians at a solution, from its numbers. Needs matplotlib, imported when called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.paper.drawing import COLOURS, picture
from lsc_ext.plot import new_figure

_MARKS = ("o", "s", "^", "D")


def draw_hessians(data: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Four Hessians as images; their spectra and eigenvectors; spectra for small angles; kappa_D of random networks."""
    panels = data["panels"]
    figure, axes = new_figure(4, 2, width=3.3, height=2.9)
    limit = max(abs(z) for panel in panels for row in panel["signed_log10"] for z in row)
    image = None
    for axis, panel in zip(axes, panels, strict=False):
        image = axis.imshow(panel["signed_log10"], vmin=-limit, vmax=limit, cmap="RdBu_r")
        axis.axhline(panel["recurrence"] - 0.5, color="black", linewidth=0.5)
        axis.axvline(panel["recurrence"] - 0.5, color="black", linewidth=0.5)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"{panel['parametrization']}, {panel['parameters']} parameters", fontsize=9)
    figure.colorbar(image, ax=list(axes[:4]), label="sign(H) log10(1 + |H|)", shrink=0.9)
    spectrum, vectors, angles, alignment = axes[4:]
    for panel, colour, mark in zip(panels, COLOURS, _MARKS, strict=False):
        style = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 0.8, "label": panel["parametrization"]}
        spectrum.plot(range(1, panel["rank"] + 1), panel["eigenvalues"], **style)
        vectors.plot(range(1, len(panel["participation"]) + 1), panel["participation"], **style)
    spectrum.set_yscale("log")
    spectrum.set_ylabel("eigenvalue")
    vectors.set_ylabel("participation of the eigenvector")
    vectors.set_ylim(bottom=0)
    spectrum.legend(frameon=False, fontsize=7)
    spreads = list(dict.fromkeys(row["spread"] for row in data["angles"]))
    for row in data["angles"]:
        values = row["median_eigenvalues"]
        angles.plot(
            range(1, len(values) + 1),
            values,
            color=COLOURS[spreads.index(row["spread"])],
            linestyle="-" if row["rho"] else "--",
            label=f"angles to {row['spread']}, rho = {row['rho']:g}",
        )
    angles.set_yscale("log")
    angles.set_ylabel("median eigenvalue over lambda")
    angles.legend(frameon=False, fontsize=6)
    for axis in (spectrum, vectors, angles):
        axis.set_xlabel("number of the eigenvalue")
    _draw_alignment(alignment, data["recurrences"])
    return picture(figure, path, data)


def _draw_alignment(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Medians and quartiles of kappa_D, a place for each kind of network."""
    kinds = (("dense", "A", COLOURS[0]), ("diagonal", "lambda", COLOURS[1]))
    for number, (kind, variable, colour) in enumerate(kinds):
        low, middle, high = zip(*(row[kind]["alignment"] for row in rows), strict=True)
        axis.errorbar(
            [place + 0.16 * (number - 0.5) for place in range(len(rows))],
            middle,
            yerr=[
                [m - z for m, z in zip(middle, low, strict=True)],
                [z - m for m, z in zip(middle, high, strict=True)],
            ],
            fmt=_MARKS[number],
            color=colour,
            markersize=4,
            capsize=3,
            label=f"{kind}, over {variable}",
        )
    axis.set_yscale("log")
    axis.set_ylim(1, 300)
    axis.set_xticks(range(len(rows)), [f"{row['modulus']:g}\n{row['rho']:g}" for row in rows], fontsize=8)
    axis.set_xlabel("nu0, rho")
    axis.set_ylabel("kappa_D, median and quartiles")
    axis.legend(frameon=False, fontsize=7, loc="upper left")
