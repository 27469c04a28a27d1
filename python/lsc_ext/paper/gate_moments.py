"""Figure 15 of arXiv 2405.21064: second moments of gated units, in theory and over random words.

The unit is a GRU's without reset gate, whose candidate is linear: h[t] = z h[t-1] + (1 - z) W x[t], z = sigmoid(b + V
x[t] + U h[t-1]), z constant where V = U = 0.

Letters: T = 1 / (1 - sigmoid(b)) the memory in steps, S = d h / d b, w the weight of an input k steps ago.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import gated_second_moments, stationary_inputs
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least
from lsc_ext.paper.words import WORDS

LONGEST = 256
SHORT = 8.0  # memories up to which the paper's curve is far from the right one
_WIDTH = 0.25  # standard deviation, in log T, of the kernel that measurements are smoothed by
# Whether gates read inputs, and states.
CONDITIONS = {"constant": (False, False), "input-dependent": (True, False), "input- and state-dependent": (True, True)}


def gate_moments(
    *,
    hidden_size: int = 128,
    sequences: int = 16,
    features: int = 768,
    steps: int = 512,
    points: int = 65,
    seed: int = 0,
) -> dict[str, Any]:
    """h[i]^2 and (d h[i] / d b[i])^2 after the last step, mean over sequences, against closed forms of constant gates.

    As in the paper: entries of W of variance 1 / features, of V 2 / features, U orthogonal, b the log of 1 to 256, and
    words of figure 12's law; but b itself is uniform, so that short memories are as many as long ones. S is carried
    along time, all of it where gates read states.

    Args:
        hidden_size: units.
        sequences: at least 2.
        features: of each input.
        steps: of each sequence, from a state of 0.
        points: of the curves, over T from 2 to 257 in equal ratios.
        seed: of weights and inputs.
    """
    check_at_least(1, hidden_size=hidden_size, features=features, steps=steps)
    check_at_least(2, sequences=sequences, points=points)
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    x = stationary_inputs(WORDS, (steps, sequences, features), **options)
    W, V = (torch.randn(hidden_size, features, **options) * math.sqrt(k / features) for k in (1, 2))
    U = torch.nn.init.orthogonal_(torch.empty(hidden_size, hidden_size, dtype=torch.float64), generator=generator)
    bias = math.log(LONGEST) * torch.rand(hidden_size, **options)
    candidates, drive = x @ W.mT, x @ V.mT
    memory = 1 + bias.exp()
    grid = torch.linspace(math.log(2), math.log(LONGEST + 1), points, dtype=torch.float64).exp()
    distance = (memory.log() - grid.log().unsqueeze(1)) / _WIDTH
    smooth = torch.softmax(-distance.square() / 2, 1)  # [points, units]
    # A candidate is a sum of inputs, so its autocorrelation is theirs times |W_i|^2.
    expected = {name: W.square().sum(1) * values for name, values in _after(bias, steps).items()}
    panels: list[dict[str, Any]] = []
    for name, (by_input, by_state) in CONDITIONS.items():
        gates = bias + (drive if by_input else torch.zeros_like(drive))
        found = _simulated(candidates, gates, U if by_state else None)
        moments = {kind: _compared(squares, expected[kind], smooth) for kind, squares in found.items()}
        panels.append({"condition": name, **moments})
        short = memory <= SHORT
        if name == "constant" and bool(short.any()):
            curves = {"theory": expected["sensitivity"], "notebook": W.square().sum(1) * _notebook(bias.sigmoid())}
            ratios = {curve: _ratio((found["sensitivity"] / values)[:, short]) for curve, values in curves.items()}
            panels[-1]["short"] = {"units": int(short.sum()), **ratios}
    theory = gated_second_moments(1 - 1 / grid, WORDS)
    after = _after((grid - 1).log(), steps)
    return {
        "config": {
            "hidden_size": hidden_size,
            "sequences": sequences,
            "features": features,
            "steps": steps,
            "points": points,
            "seed": seed,
        },
        "memory": rounded(memory),
        "grid": rounded(grid),
        "theory": {"state": rounded(theory.state), "sensitivity": rounded(theory.sensitivity)},
        "after": {name: rounded(values) for name, values in after.items()},
        "notebook": rounded(_notebook(1 - 1 / grid)),
        "panels": panels,
        "findings": [_finding(panel) for panel in panels],
    }


def _compared(squares: Tensor, expected: Tensor, smooth: Tensor) -> dict[str, Any]:
    """What stays of measurements [sequences, units] beside what is expected of each unit."""
    curve = smooth @ squares.mean(0)
    factors = curve / (smooth @ expected)
    return {
        "units": rounded(squares.mean(0)),
        "smoothed": rounded(curve),
        "ratio": _ratio(squares / expected),
        "factors": [rounded(factors.min()), rounded(factors.max())],
    }


def _ratio(ratios: Tensor) -> dict[str, float]:
    """The mean over units [sequences, units], and its standard error over sequences."""
    each = ratios.mean(1)
    return {"mean": float(each.mean()), "standard_error": float(each.std() / math.sqrt(len(each)))}


def _simulated(candidates: Tensor, gates: Tensor, U: Tensor | None) -> dict[str, Tensor]:
    """Squares of h and of d h[i] / d b[i] after the last step, [sequences, units] each.

    S[t] = diag(z) S[t-1] + diag((h[t-1] - n) z (1 - z)) (1 + U S[t-1]); without U its diagonal is all there is.
    """
    _, count, units = candidates.shape
    h = candidates.new_zeros(count, units)
    S = h.clone() if U is None else h.new_zeros(units, count, units)  # the index of b first, then that of h last
    for n, drive in zip(candidates, gates, strict=True):
        z = torch.sigmoid(drive if U is None else drive + h @ U.mT)
        change = (h - n) * z * (1 - z)
        h = n + z * (h - n)
        if U is None:
            S = z * S + change
        else:
            S = z * S + change * (S @ U.mT)
            S.diagonal(dim1=0, dim2=2).add_(change)
    slope = S if U is None else S.diagonal(dim1=0, dim2=2)
    return {"state": h.square(), "sensitivity": slope.square()}


def _after(bias: Tensor, steps: int) -> dict[str, Tensor]:
    """What both moments of a constant gate are ``steps`` steps after a state of 0: w^T R w, w = (1 - z) z^k."""
    z = bias.sigmoid().unsqueeze(-1)
    k = torch.arange(steps, dtype=torch.float64)
    lag = (k.unsqueeze(1) - k).abs()
    R = torch.stack([weight * rho**lag for weight, rho in WORDS]).sum(0)
    w = (1 - z) * z**k
    slope = w * ((1 - z) * k - z)  # of w by b
    return {"state": ((w @ R) * w).sum(-1), "sensitivity": ((slope @ R) * slope).sum(-1)}


def _notebook(gate: Tensor) -> Tensor:
    """The curve in the paper's notebook: (z (1 - z))^2 (m + d m / d z) too much, m = E h^2."""
    z = gate.clone().requires_grad_()
    moments = gated_second_moments(z, WORDS)
    (slope,) = torch.autograd.grad(moments.state.sum(), z)
    return (moments.sensitivity + (z * (1 - z)).square() * (moments.state + slope)).detach()


def _finding(panel: dict[str, Any]) -> str:
    parts = []
    for kind, text in (("state", "E h^2"), ("sensitivity", "E (d h / d b)^2")):
        part = panel[kind]
        (low, high), ratio = part["factors"], part["ratio"]
        parts.append(
            f"{text} is {ratio['mean']:.3f} +- {ratio['standard_error']:.3f} times the theory in the mean over units, "
            f"{low:.2f} to {high:.2f} times along the smoothed curve"
        )
    if "short" in panel:
        found = " and ".join(
            f"{panel['short'][curve]['mean']:.3f} +- {panel['short'][curve]['standard_error']:.3f} times {text}"
            for curve, text in (("theory", "the theory"), ("notebook", "the notebook's curve"))
        )
        parts.append(f"of {panel['short']['units']} units that remember at most {SHORT:g} steps, {found}")
    return f"{panel['condition']} gates: {'; '.join(parts)}"
