"""Do the radii of distant steps forget each other? Covariance, correlation and p-value against the first kept step.

Letters: T time steps, B sequences, L layers, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lsc_ext import nn
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least, rows
from lsc_ext.pretrain import pretrain
from lsc_ext.radii import radii
from lsc_ext.theory import covariance_decay

LEVEL = 0.05


def decaying_covariance(
    *,
    architectures: Sequence[str] = ("lstm", "gru", "alif"),
    layers: int = 2,
    time_steps: int = 100,
    hidden_size: int = 32,
    batch_size: int = 128,
    targets: Sequence[float | str] = (),
    steps: int = 300,
    skip: int = 1,
    data: str = "normal",
    seed: int = 0,
) -> dict[str, Any]:
    """Of every layer's radii along time, over the sequences of a batch.

    Args:
        architectures: names of ``lsc_ext.nn.ARCHITECTURES``.
        layers: L.
        time_steps: T.
        hidden_size: H.
        batch_size: B, at least 3.
        targets: radii to pre-train to first; none for the default initialisation.
        steps: most steps of pre-training.
        skip: first steps to leave out.
        data: "normal", or images read row by row, one after another.
        seed: of weights and data.
    """
    check_at_least(1, layers=layers, hidden_size=hidden_size, steps=steps)
    check_at_least(3, batch_size=batch_size)
    check_at_least(0, skip=skip)
    check_at_least(skip + 2, time_steps=time_steps)
    for name in architectures:
        if name not in nn.ARCHITECTURES or name.startswith("feed_forward"):
            raise ValueError(f"architectures: expected recurrent ones of lsc_ext.nn.ARCHITECTURES, got {name!r}")
    generator = torch.Generator().manual_seed(seed)
    x = rows(data, time_steps, batch_size, generator)
    curves = []
    for name in architectures:
        for target in targets or (None,):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = nn.build(name, x.shape[2], hidden_size, layers)
            if target is not None:
                pretrain(model, x, target, steps=steps, seed=seed, progress=False)
            with torch.no_grad():
                start = torch.Generator().manual_seed(seed)
                estimate = radii(model, x, directions=("time",), generator=start)["time"]
            decay = covariance_decay(estimate, skip=skip)
            for layer in range(layers):
                correlation, p_value = decay.correlation[layer], decay.p_value[layer]
                known = ~correlation[1:].isnan()
                curves.append(
                    {
                        "architecture": name,
                        "target": None if target is None else str(target),
                        "layer": layer,
                        "mean_radius": float(estimate.radius[layer].mean()),
                        "certified": estimate.certified_fraction,
                        "covariance": rounded(decay.covariance[layer]),
                        "correlation": rounded(correlation),
                        "p_value": rounded(p_value),
                        "significant": float((p_value[1:] < LEVEL)[known].double().mean()) if known.any() else None,
                        "steps_to_a_tenth": _reach(correlation.abs().tolist(), 0.1),
                    }
                )
    return {
        "config": {
            "architectures": list(architectures),
            "layers": layers,
            "time_steps": time_steps,
            "hidden_size": hidden_size,
            "batch_size": batch_size,
            "targets": [str(target) for target in targets],
            "steps": steps,
            "skip": skip,
            "data": data,
            "seed": seed,
        },
        "level": LEVEL,
        "curves": curves,
        "findings": [_finding(curve) for curve in curves],
    }


def _reach(values: list[float], level: float) -> int | None:
    """The first distance at which a value is below the level; None where none is."""
    return next((distance for distance, value in enumerate(values) if value < level), None)


def _finding(curve: dict[str, Any]) -> str:
    reach, significant = curve["steps_to_a_tenth"], curve["significant"]
    started = "" if curve["target"] is None else f", rho = {curve['target']}"
    name = f"{curve['architecture']}{started}, layer {curve['layer'] + 1}"
    if significant is None:
        return f"{name}: the radii of the first kept step or of all others do not differ between sequences"
    fall = "never below 0.1" if reach is None else f"below 0.1 first after {reach} steps"
    return f"{name}: |r| {fall}, p < {LEVEL} at {significant:.0%} of the later steps"
