"""Which figure is computed and drawn by what, and what it stands for in the paper."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsc_ext.files import write_json
from lsc_ext.paper import drawing
from lsc_ext.paper.covariance import decaying_covariance
from lsc_ext.paper.dominance import covariance_dominance
from lsc_ext.paper.grid import gradient_grid
from lsc_ext.paper.growth import binomial_growth
from lsc_ext.paper.pascal import pascal_profiles
from lsc_ext.paper.profiles import network_profiles
from lsc_ext.plot import FORMATS


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: on the command line, and of its files.
        element: what it stands for in its paper.
        compute: keyword options -> plain numbers, with "config" and "findings", a list of sentences.
        draw: those numbers and a path -> the path.
    """

    name: str
    element: str
    compute: Callable[..., dict[str, Any]]
    draw: Callable[[Mapping[str, Any], str | os.PathLike[str]], Path]

    @property
    def options(self) -> tuple[str, ...]:
        """What ``compute`` takes."""
        return tuple(inspect.signature(self.compute).parameters)


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("grid", "Figure 1a: paths of a gradient over time and depth", gradient_grid, drawing.draw_grid),
        Figure("growth", "Figure 1b: growth of the number of paths", binomial_growth, drawing.draw_growth),
        Figure("pascal", "Figure 1c, first row: PascalRNN", pascal_profiles, drawing.draw_pascal),
        Figure("profiles", "Figure 1c, last row: pre-trained networks", network_profiles, drawing.draw_profiles),
        Figure("covariance", "appendix: decaying covariance", decaying_covariance, drawing.draw_covariance),
        Figure("dominance", "appendix: covariance dominance", covariance_dominance, drawing.draw_dominance),
    )
}
#: A name for several figures.
FIGURE_GROUPS = {"fig1": ("grid", "growth", "pascal", "profiles"), "all": tuple(FIGURES)}


def chosen_figures(
    names: Sequence[str],
    options: Sequence[str],
    table: Mapping[str, Figure] = FIGURES,
    groups: Mapping[str, Sequence[str]] = FIGURE_GROUPS,
) -> list[Figure]:
    """The figures of ``names`` in a table, groups spelled out, each once, in the table's order.

    Raises:
        ValueError: an unknown name, or an option that none of the figures takes.
    """
    for name in names:
        if name not in table and name not in groups:
            raise ValueError(f"figure: expected names among {', '.join((*table, *groups))}, got {name!r}")
    wanted = {figure for name in names for figure in groups.get(name, (name,))}
    figures = [figure for figure in table.values() if figure.name in wanted]
    for option in options:
        if not any(option in figure.options for figure in figures):
            takers = [figure.name for figure in table.values() if option in figure.options]
            raise ValueError(
                f"{option}: expected an option of {', '.join(f.name for f in figures)}, got one of {', '.join(takers)}"
            )
    return figures


def run_figure(
    figure: Figure, folder: str | os.PathLike[str], *, file_format: str = "svg", **options: Any
) -> tuple[dict[str, Any], list[Path]]:
    """Computes a figure, writes its numbers and draws it.

    Args:
        figure: one of :data:`FIGURES` or :data:`MEMORY_FIGURES`.
        folder: made where it does not exist.
        file_format: "svg" or "png".
        **options: of ``figure.compute``; those that it does not take are left out, see :func:`chosen_figures`.

    Returns:
        The numbers as the JSON file has them, and the files written: JSON first, then the picture.

    Raises:
        ValueError: an option out of range.
        ModuleNotFoundError: matplotlib, or the package with the data, is missing.
    """
    import matplotlib  # noqa: F401, a missing package is worth knowing before the work, not after

    if file_format not in FORMATS:
        raise ValueError(f"file_format: expected one of {', '.join(FORMATS)}, got {file_format!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = figure.compute(**{name: value for name, value in options.items() if name in figure.options})
    file = write_json(folder / f"{figure.name}.json", {"figure": figure.name, "element": figure.element, **numbers})
    data = json.loads(file.read_text())
    return data, [file, figure.draw(data, folder / f"{figure.name}.{file_format}")]
