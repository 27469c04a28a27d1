"""Figure 1a: gradient paths on the grid of time and depth.

Letters: T columns (time steps), L rows (layers).
"""

from __future__ import annotations

from typing import Any

import torch

from lsc_ext.paper.sequences import check_at_least
from lsc_ext.theory import path_count

Path = list[tuple[int, int]]


def gradient_grid(*, time_steps: int = 6, layers: int = 4, draws: int = 3, seed: int = 0) -> dict[str, Any]:
    """Some paths from the last step of the top layer to the first of the bottom one, on both grids, and how many exist.

    Args:
        time_steps: T; at least L, for the parallelogram to have a path.
        layers: L.
        draws: different paths to draw on each grid, at most as many as there are.
        seed: of the choice.
    """
    check_at_least(2, layers=layers)
    check_at_least(1, draws=draws)
    check_at_least(layers, time_steps=time_steps)
    generator = torch.Generator().manual_seed(seed)
    back, down = time_steps - 1, layers - 1
    grids = []
    for grid in ("parallelogram", "rectangle"):
        moves = back if grid == "parallelogram" else back + down
        count = path_count(back, down, grid=grid)
        paths: list[Path] = []
        while len(paths) < min(draws, count):
            falls = set(torch.randperm(moves, generator=generator)[:down].tolist())
            path = _walk(back, down, moves, falls, grid)
            if path not in paths:
                paths.append(path)
        grids.append({"grid": grid, "path_count": count, "paths": paths})
    feed_forward = [(back, layer) for layer in range(down, -1, -1)]
    one_layer = [(step, 0) for step in range(back, -1, -1)]
    return {
        "config": {"time_steps": time_steps, "layers": layers, "draws": draws, "seed": seed},
        "grids": grids,
        "feed_forward": feed_forward,
        "one_layer": one_layer,
        "findings": [
            f"{g['grid']}, {time_steps} steps and {layers} layers: {g['path_count']} paths from corner to corner; "
            "a feed-forward network and a single layer have one"
            for g in grids
        ],
    }


def _walk(step: int, layer: int, moves: int, falls: set[int], grid: str) -> Path:
    """Nodes (step, layer) of the path that goes down at the moves ``falls``."""
    path = [(step, layer)]
    for move in range(moves):
        if move in falls:
            layer -= 1
        if move not in falls or grid == "parallelogram":
            step -= 1
        path.append((step, layer))
    return path
