"""Figure 1c, first rows: gradients of the PascalRNN, in closed form and by autograd, and of ReLU networks.

Letters: T time steps, L layers, B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least
from lsc_ext.theory import PascalRNN, gradient_limit, gradient_profile, unbalanced_target

WIDTH = 10  # of the ReLU networks, the paper's


def pascal_profiles(
    *,
    layers: int = 10,
    time_steps: int = 100,
    batch_size: int = 6,
    targets: Sequence[float | str] = (0.3, 0.5, 0.7, 1.0, 1.2, "unbalanced"),
    seed: int = 0,
) -> dict[str, Any]:
    """|d sum of top outputs / d x_t| for each target, and the outputs themselves.

    Args:
        layers: L.
        time_steps: T.
        batch_size: B.
        targets: radii along time and depth, or "unbalanced".
        seed: of the inputs, 2 times normal numbers, and of the ReLU networks' weights.
    """
    check_at_least(1, layers=layers, time_steps=time_steps, batch_size=batch_size)
    if len(targets) == 0:
        raise ValueError("targets: expected at least one, got none")
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(time_steps, batch_size, generator=generator, dtype=torch.float64)
    wide = 2 * torch.randn(time_steps, batch_size, WIDTH, generator=generator, dtype=torch.float64)
    arms = []
    for target in targets:
        time, depth = _pair(target, layers, time_steps)
        model = PascalRNN(layers, time, depth)
        measured = model.gradient_profile(x)
        closed = gradient_profile(time, depth, layers, time_steps).unsqueeze(1)
        error = ((measured - closed).abs() / closed).max()
        arms.append(
            {
                "target": str(target),
                "rho_time": time,
                "rho_depth": depth,
                "gradient": rounded(measured[:, 0]),
                "closed_form_at_0": float(closed[0]),
                "limit": gradient_limit(time, depth, layers),
                "largest_relative_error": float(error),
                "output": rounded(model(x).abs().mean(1)),
                "relu_gradient": rounded(_relu_profile(layers, time, depth, wide, seed)),
            }
        )
    return {
        "config": {
            "layers": layers,
            "time_steps": time_steps,
            "batch_size": batch_size,
            "targets": [str(target) for target in targets],
            "seed": seed,
        },
        "arms": arms,
        "findings": [
            f"rho {a['target']}: G(0) = {a['closed_form_at_0']:.4g}, autograd within "
            f"{a['largest_relative_error']:.0e} of the closed form at every step"
            for a in arms
        ],
    }


def _pair(target: float | str, layers: int, time_steps: int) -> tuple[float, float]:
    if isinstance(target, str):
        if target != "unbalanced":
            raise ValueError(f"targets: expected numbers or 'unbalanced', got {target!r}")
        both = unbalanced_target(layers, time_steps)
        return both["time"], both["depth"]
    return float(target), float(target)


def _relu_profile(layers: int, time: float, depth: float, x: Tensor, seed: int) -> Tensor:
    """|d sum of outputs / d x_t| [T], mean over sequences, of a ReLU RNN with He-uniform weights times the radii."""
    model = nn.RNN(x.shape[2], WIDTH, layers, nonlinearity="relu", bias=False, dtype=x.dtype)
    nn.initialize(model, "he_uniform", generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(time if "_hh_" in name else depth)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[0].sum(), leaf)
    profile: Tensor = torch.linalg.vector_norm(gradient, dim=2).mean(1)
    return profile
