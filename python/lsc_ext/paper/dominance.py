"""Does the expectation of a product of radii hang on pairs of steps, or on triples and quadruples too?

Letters: T time steps, B sequences, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.operator import JacobianOperator
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least, pixels
from lsc_ext.spectral import spectral_radius
from lsc_ext.theory import interactions

ORDERS = (2, 3, 4)


def covariance_dominance(
    *,
    architectures: Sequence[str] = ("lstm", "gru", "alif"),
    time_steps: int = 100,
    hidden_size: int = 16,
    batch_size: int = 32,
    seeds: int = 6,
    data: str = "normal",
    seed: int = 0,
) -> dict[str, Any]:
    """Interactions of order 2, 3 and 4 of the radii of d y[t+1] / d x[t] of one layer, t = 0 .. T-2.

    A pixel per step goes through a random dense layer of H units with a softmax, so that input and output are equally
    wide.

    Args:
        architectures: names of ``lsc_ext.nn.ARCHITECTURES``.
        time_steps: T; a square number where ``data`` are images.
        hidden_size: H.
        batch_size: B, at least 2.
        seeds: networks and batches.
        data: "normal" for uniform noise, or images of sqrt(T) x sqrt(T) pixels.
        seed: of the first; the others follow.
    """
    check_at_least(1, hidden_size=hidden_size, seeds=seeds)
    check_at_least(2, batch_size=batch_size)
    check_at_least(max(ORDERS) + 1, time_steps=time_steps)
    for name in architectures:
        model = nn.build(name, 1, 1, 1)
        if not isinstance(model, nn.Recurrent) or isinstance(model, nn.FeedForward):
            raise ValueError(f"architectures: expected recurrent cells, got {name!r}")
    bars = []
    for name in architectures:
        found, means = [], []
        for number in range(seed, seed + seeds):
            radius = _radii(name, hidden_size, _inputs(data, time_steps, batch_size, hidden_size, number), number)
            found.append(interactions(radius, ORDERS))
            means.append(radius.mean())
        values = torch.stack(found)  # [seeds, orders]
        bars.append(
            {
                "architecture": name,
                "mean_radius": float(torch.stack(means).mean()),
                "interactions": rounded(values),
                "mean": rounded(values.mean(0)),
                "std": rounded(values.std(0, unbiased=seeds > 1)),
            }
        )
    return {
        "config": {
            "architectures": list(architectures),
            "time_steps": time_steps,
            "hidden_size": hidden_size,
            "batch_size": batch_size,
            "seeds": seeds,
            "data": data,
            "seed": seed,
        },
        "orders": list(ORDERS),
        "bars": bars,
        "findings": [
            f"{bar['architecture']}: "
            + ", ".join(f"order {k} {v:.3g}" for k, v in zip(ORDERS, bar["mean"], strict=True))
            for bar in bars
        ],
    }


def _inputs(data: str, time_steps: int, batch_size: int, width: int, seed: int) -> Tensor:
    """[T, B, H]: pixels through a random dense layer, Glorot-uniform, with a softmax."""
    generator = torch.Generator().manual_seed(seed)
    bound = (6 / (1 + width)) ** 0.5
    weight = bound * (2 * torch.rand(width, generator=generator) - 1)
    mixed: Tensor = (pixels(data, time_steps, batch_size, generator).unsqueeze(2) * weight).softmax(2)
    return mixed


@torch.no_grad()
def _radii(name: str, width: int, x: Tensor, seed: int) -> Tensor:
    """Radii [T-1, B] of d y[t+1] / d x[t], [H, H] each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.build(name, width, width, 1)
    states: Any = None
    before: list[tuple[Tensor, ...]] = []  # the states [B, H] that step t reads
    for step in x:
        _, after = model(step.unsqueeze(0), states)
        held = after if isinstance(after, tuple) else (after,)
        if states is None:
            before.append(tuple(torch.zeros_like(s[0]) for s in held))
        states = after
        before.append(tuple(s[0] for s in held))

    def two_steps(first: Tensor, second: Tensor, *start: Tensor) -> Tensor:
        given = tuple(s.unsqueeze(0) for s in start)
        output: Tensor = model(torch.stack((first, second)), given if len(given) > 1 else given[0])[0]
        return output[1]

    count = x.shape[0] - 1
    start = [torch.cat([held[k] for held in before[:count]]) for k in range(len(before[0]))]
    operator = JacobianOperator(two_steps, x[:-1].flatten(0, 1), data=(x[1:].flatten(0, 1), *start))
    return spectral_radius(operator, generator=torch.Generator().manual_seed(seed)).radius.view(count, -1)
