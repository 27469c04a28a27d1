"""Figure 1c, last row: gradient profiles of deep networks over long sequences, as they come, pre-trained, and trained.

Does a target of 1/2 keep the gradient of a 7-layer GRU over 500 steps flat where 1 does not? Letters: T time steps,
B sequences, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least, rows
from lsc_ext.pretrain import pretrain
from lsc_ext.radii import radii

KEPT = 0.9  # of the steps: near the end every profile falls, since few outputs are left


def network_profiles(
    *,
    architectures: Sequence[str] = ("gru",),
    layers: int = 7,
    time_steps: int = 500,
    hidden_size: int = 64,
    batch_size: int = 16,
    targets: Sequence[float | str] = (1.0, 0.5, "unbalanced"),
    steps: int = 300,
    train_steps: int = 60,
    data: str = "normal",
    seed: int = 0,
) -> dict[str, Any]:
    """|d sum of top outputs / d x_t|, the mean over sequences that pre-training did not see.

    Each network starts from the same weights, is pre-trained on the whole length T, and then trained to predict the
    next row of its input from the top layer (Adam on the mean squared error).

    Args:
        architectures: names of ``lsc_ext.nn.ARCHITECTURES``.
        layers: L.
        time_steps: T.
        hidden_size: H.
        batch_size: B of pre-training, training and measuring.
        targets: what to pre-train to; the default initialisation always comes first.
        steps: most steps of pre-training.
        train_steps: steps of training; 0 for none.
        data: "normal", or images read row by row, one after another.
        seed: of weights, data and pre-training.
    """
    check_at_least(1, layers=layers, hidden_size=hidden_size, batch_size=batch_size, steps=steps)
    check_at_least(2, time_steps=time_steps)
    check_at_least(0, train_steps=train_steps)
    for name in architectures:
        if name not in nn.ARCHITECTURES or name.startswith("feed_forward"):
            raise ValueError(f"architectures: expected recurrent ones of lsc_ext.nn.ARCHITECTURES, got {name!r}")
    generator = torch.Generator().manual_seed(seed)
    seen = rows(data, time_steps, 4 * batch_size, generator)
    unseen = rows(data, time_steps, batch_size, generator)
    networks: dict[str, list[dict[str, Any]]] = {}
    for name in architectures:
        networks[name] = []
        for target in (None, *targets):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = nn.build(name, seen.shape[2], hidden_size, layers)
                readout = torch.nn.Linear(hidden_size, seen.shape[2])
            networks[name].append(_arm(model, readout, target, seen, unseen, steps, train_steps, seed))
    return {
        "config": {
            "architectures": list(architectures),
            "layers": layers,
            "time_steps": time_steps,
            "hidden_size": hidden_size,
            "batch_size": batch_size,
            "targets": [str(target) for target in targets],
            "steps": steps,
            "train_steps": train_steps,
            "data": data,
            "seed": seed,
        },
        "networks": networks,
        "findings": [_finding(name, arm) for name, arms in networks.items() for arm in arms],
    }


def _arm(
    model: Any,
    readout: torch.nn.Linear,
    target: float | str | None,
    seen: Tensor,
    unseen: Tensor,
    steps: int,
    train_steps: int,
    seed: int,
) -> dict[str, Any]:
    arm: dict[str, Any] = {"name": "default" if target is None else f"rho = {target}", "pretraining": None}
    if target is not None:
        result = pretrain(model, seen, target, progress=False, batch_size=unseen.shape[1], steps=steps, seed=seed)
        arm["pretraining"] = {
            "targets": result.targets,
            "converged": result.converged,
            "steps": len(result.history),
            "deviation": result.deviation(),
        }
    arm["before_training"] = _measured(model, unseen, seed)
    arm["after_training"] = None
    if train_steps > 0:
        losses = _train(model, readout, seen, unseen.shape[1], train_steps, seed)
        arm["after_training"] = {**_measured(model, unseen, seed), "first_loss": losses[0], "last_loss": losses[-1]}
    return arm


def _measured(model: Any, x: Tensor, seed: int) -> dict[str, Any]:
    with torch.no_grad():
        report = radii(model, x, max_points=64, generator=torch.Generator().manual_seed(seed))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[0].sum(), leaf)
    profile = torch.linalg.vector_norm(gradient.double(), dim=2).mean(1)
    early = profile[: max(1, int(KEPT * len(profile)))]
    return {
        "gradient": rounded(profile),
        "largest_over_smallest": float(early.max() / early.min()),
        "first_over_last": float(early[0] / early[-1]),
        "mean_radius": {direction: float(estimate.mean()) for direction, estimate in report.items()},
        "certified": {direction: estimate.certified_fraction for direction, estimate in report.items()},
    }


def _train(
    model: Any, readout: torch.nn.Linear, x: Tensor, batch_size: int, train_steps: int, seed: int
) -> list[float]:
    """Adam on the next row, from the top layer; the loss before each step."""
    optimizer = torch.optim.Adam([*model.parameters(), *readout.parameters()], lr=1e-3)
    order = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(train_steps):
        batch = x[:, torch.randint(x.shape[1], (batch_size,), generator=order)]
        loss = torch.nn.functional.mse_loss(readout(model(batch[:-1])[0]), batch[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _finding(name: str, arm: dict[str, Any]) -> str:
    def text(measured: dict[str, Any]) -> str:
        means = ", ".join(f"{direction} {mean:.2f}" for direction, mean in measured["mean_radius"].items())
        return f"largest gradient {measured['largest_over_smallest']:.3g} times the smallest (radii: {means})"

    line = f"{name}, {arm['name']}, first {KEPT:.0%} of the steps: {text(arm['before_training'])}"
    if arm["after_training"] is not None:
        line += f"; after training: {text(arm['after_training'])}"
    return line
