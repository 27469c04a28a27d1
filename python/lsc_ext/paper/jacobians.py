"""Figure 14 of arXiv 2405.21064: the recurrent Jacobian of a GRU over time, on and off its diagonal.

Letters: J = d h[t] / d h[0], z the update gate, b_z its bias, T = exp(b_z) what a unit remembers for, H units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsc_ext.memory import jacobian_mass, stationary_inputs
from lsc_ext.nn import GRU
from lsc_ext.paper.deep_block import draw_gru
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.propagation import FEATURES, WORDS
from lsc_ext.paper.sequences import check_at_least

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
#: Random entries off the diagonal, as many as the paper draws.
ENTRIES = 512
CURVES = 12  # of them, kept one by one


class Condition(NamedTuple):
    """How a GRU is drawn, see :func:`lsc_ext.paper.deep_block.draw_gru`."""

    row: str
    memory: tuple[float, float]
    input_variance: float
    recurrent_scale: float


CONDITIONS = (
    *(Condition("constant gates", (1.0, longest), 0.0, 0.0) for longest in (1.0, 16.0, 256.0)),
    *(Condition("gates of inputs and states", (1.0, longest), 1.0, 1.0) for longest in (1.0, 16.0, 256.0)),
    *(Condition("strength of states", (1.0, 16.0), 1.0, scale) for scale in (0.0, 1.0, 3.0)),
)


def gru_jacobians(
    *,
    hidden_size: int = 256,
    features: int = FEATURES,
    time_steps: int = 512,
    points: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """What d h[t] / d h[0] is made of along one sequence from h[0] = 0, nine ways to draw a GRU.

    Weights, inputs and products are float32, moments float64. Entries off the diagonal are drawn from all rows; the
    paper's code draws them from the first 8 only.

    Args:
        hidden_size: H, at least 2.
        features: of the input, Gaussian with the autocorrelation of words.
        time_steps: the largest t, at least 2.
        points: checkpoints t, floor(2^u) with u evenly spaced; equal ones count once.
        seed: of inputs, which all conditions share; weights and entries have the one after it.
    """
    check_at_least(1, features=features)
    check_at_least(2, hidden_size=hidden_size, time_steps=time_steps, points=points)
    steps = checkpoints(time_steps, points)
    generator = torch.Generator().manual_seed(seed)
    x = stationary_inputs(WORDS, (time_steps, 1, features), generator=generator, dtype=torch.float32)
    panels = [_panel(condition, hidden_size, x, steps, seed) for condition in CONDITIONS]
    return {
        "config": {
            "hidden_size": hidden_size,
            "features": features,
            "time_steps": time_steps,
            "points": points,
            "seed": seed,
        },
        "steps": steps,
        "quantiles": list(QUANTILES),
        "panels": panels,
        "findings": [_finding(panel, steps) for panel in panels],
    }


def checkpoints(time_steps: int, points: int) -> list[int]:
    """Different numbers floor(2^u), u evenly spaced from 0 to log2 of ``time_steps``."""
    exponents = torch.linspace(0, 1, points, dtype=torch.float64)
    values = torch.floor(time_steps**exponents + 1e-9).long()
    return [int(value) for value in values.unique()]


def _panel(condition: Condition, hidden_size: int, x: Tensor, steps: list[int], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed + 1)  # not the numbers that the inputs are made of
    layer = GRU(x.shape[2], hidden_size)
    draw_gru(layer, condition.input_variance, condition.recurrent_scale, condition.memory, generator)
    found = jacobian_mass(layer, x, steps=steps, entries=ENTRIES, generator=generator)
    unit = found.log_scale.exp()  # [C, 1]
    diagonal, entries = found.diagonal[:, 0] * unit, found.entries[:, 0] * unit  # [C, H], [C, K]
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    assert found.off_diagonal_max is not None
    assert found.radius is not None
    assert found.gain is not None
    scalars = {
        "diagonal_mean": found.diagonal_mean,
        "diagonal_rms": found.diagonal_rms,
        "off_diagonal_rms": found.off_diagonal_rms,
        "off_diagonal_max": found.off_diagonal_max,
        "radius": found.radius,
        "gain": found.gain,
    }
    return {
        **condition._asdict(),
        "memory": list(condition.memory),
        "diagonal": rounded(diagonal.quantile(levels, dim=1)),
        "off_diagonal": rounded(entries.quantile(levels, dim=1)),
        "curves": rounded(entries[:, :CURVES].mT),
        "ratio": rounded(found.ratio[:, 0]),
        **{name: rounded((values * unit)[:, 0]) for name, values in scalars.items()},
    }


def _finding(panel: dict[str, Any], steps: list[int]) -> str:
    low, high = panel["memory"]
    near = min(range(len(steps)), key=lambda k: abs(steps[k] - high))
    return (
        f"T {low:g} to {high:g}, sigma_x {panel['input_variance']:g}, sigma_h {panel['recurrent_scale']:g}, "
        f"{steps[near]} steps: diagonal {panel['diagonal_mean'][near]:.3g}, largest entry off it "
        f"{panel['off_diagonal_max'][near]:.2g}, mass off it {panel['ratio'][near]:.2g} times that on it, radius "
        f"{panel['radius'][near]:.3g}; after {steps[-1]} steps {panel['ratio'][-1]:.2g} times"
    )
