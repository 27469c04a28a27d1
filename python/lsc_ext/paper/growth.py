"""Figure 1b: how the number of paths grows with time, with depth, and with both.

Letters: T steps back in time, D moves down in depth.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least
from lsc_ext.theory import log_path_count

FIXED, RATIO = 5, 100


def binomial_growth(*, time_steps: int = 10_000, layers: int = 100) -> dict[str, Any]:
    """log10 C(T + D, T): for D = 5 up to ``time_steps``, for T = 5 up to ``layers``, and for D = T / 100.

    Args:
        time_steps: largest T, at least 200.
        layers: largest D.
    """
    check_at_least(2 * RATIO, time_steps=time_steps)
    check_at_least(2, layers=layers)
    steps, depth = _spread(time_steps), _spread(layers)
    both = RATIO * _spread(time_steps // RATIO)
    curves = [
        _curve(f"D = {FIXED}", "T", steps, torch.full_like(steps, FIXED)),
        _curve(f"T = {FIXED}", "D", torch.full_like(depth, FIXED), depth),
        _curve(f"D = T / {RATIO}", "T", both, both // RATIO),
    ]
    p = 1 / (RATIO + 1)
    entropy = -p * math.log(p) - (1 - p) * math.log1p(-p)
    slope = (RATIO + 1) / RATIO * entropy
    return {
        "config": {"time_steps": time_steps, "layers": layers},
        "curves": curves,
        "slope": {"nats_per_step": slope, "decades_per_1000_steps": 1000 * slope / math.log(10)},
        "findings": [
            *(f"{c['name']}: 10^{c['log10_count'][-1]:.2f} paths at {c['letter']} = {c['size'][-1]}" for c in curves),
            f"D = T / {RATIO} grows by {1000 * slope / math.log(10):.1f} decades in 1000 steps for large T; "
            "the others by powers of T and D",
        ],
    }


def _spread(largest: int) -> Tensor:
    """Whole numbers from 1, at most 120, about evenly on a logarithmic axis."""
    sizes: Tensor = torch.logspace(0, math.log10(largest), 120, dtype=torch.float64).round().long().unique()
    return sizes


def _curve(name: str, letter: str, steps: Tensor, layers: Tensor) -> dict[str, Any]:
    count = log_path_count(steps, layers) / math.log(10)
    size = steps if letter == "T" else layers
    return {"name": name, "letter": letter, "size": size.tolist(), "log10_count": rounded(count)}
