"""How pre-training goes about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from lsc_ext.spectral import METHODS

MOVES = ("gradient", "rescale")
PRETRAINED_DIRECTIONS = ("time", "depth", "diagonal")


@dataclass(frozen=True)
class PretrainConfig:
    """How :func:`pretrain` goes about it.

    Attributes:
        directions: which Jacobians to bring to the target; None for the model's own: time and depth, of layers with a
            linear recurrence time and diagonal, of feed-forward ones depth.
        moves: "gradient" (AdamW on the mean squared distance of the radii to the target) and "rescale" (multiply a
            layer's kernel by target / measured radius, clipped); together, rescaling is damped by how far the kernel's
            scale moves the radius at all, so that it leaves alone what only the gates can change.
        steps: most steps to take.
        batch_size: sequences per step.
        max_points: P, points (t, b) measured per layer and direction in one step.
        lr: AdamW's learning rate for vectors (biases); matrices get lr / (fan in), since a change of all their entries
            by one size moves eigenvalues by fan in times it. It is halved after 30 steps without progress, which
            quiets the noise of fresh points where a target is hard to reach.
        weight_decay: AdamW's.
        rescale_limit: largest relative change of a kernel in one step (the paper's 0.15).
        method: how radii are estimated, see :func:`lsc_ext.spectral_radius`.
        num_matvecs: most products of one side per point; None for the method's default.
        tol: relative residual wanted while optimising.
        tolerance: distance to the target at which a layer's mean radius counts as there.
        patience: consecutive steps that all layers and directions must be there.
        holdout: fraction of the sequences kept for ``before`` and ``after``.
        certify_tol: relative residual wanted of the held-out points.
        certify_points: held-out points measured per layer and direction; None for all.
        time_steps: T of the random sequences where there is no data.
        max_sequences: most sequences taken from a loader or iterator.
        seed: of the split, the batches, the points and the start vectors.
    """

    directions: tuple[str, ...] | None = None
    moves: tuple[str, ...] = ("gradient", "rescale")
    steps: int = 300
    batch_size: int = 64
    max_points: int = 32
    lr: float = 0.02
    weight_decay: float = 0.0
    rescale_limit: float = 0.15
    method: str = "auto"
    num_matvecs: int | None = None
    tol: float = 1e-2
    tolerance: float = 0.02
    patience: int = 5
    holdout: float = 0.2
    certify_tol: float = 1e-3
    certify_points: int | None = 256
    time_steps: int = 32
    max_sequences: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("directions", PRETRAINED_DIRECTIONS), ("moves", MOVES)):
            given = getattr(self, name)
            if given is None and name == "directions":
                continue
            if isinstance(given, str):
                raise TypeError(f"{name}: expected a sequence of names, got the string {given!r}")
            object.__setattr__(self, name, tuple(given))
            if not given or len(set(given)) != len(given) or not set(given) <= set(allowed):
                raise ValueError(f"{name}: expected distinct names among {', '.join(allowed)}, got {tuple(given)}")
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        for name in ("steps", "batch_size", "max_points", "patience", "time_steps", "max_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("num_matvecs", "certify_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1 or None, got {value}")
        for name in ("lr", "tolerance", "rescale_limit"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay: expected a number >= 0, got {self.weight_decay}")
        for name in ("tol", "certify_tol", "holdout"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number between 0 and 1, got {getattr(self, name)}")


def settings_of(config: PretrainConfig | None, options: dict[str, Any]) -> PretrainConfig:
    """The configuration with these fields changed; raises TypeError for an unknown one."""
    known = {f.name for f in fields(PretrainConfig)}
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: expected an option among {', '.join(sorted(known))}, got an unknown one")
    if config is None:
        return PretrainConfig(**options)
    return PretrainConfig(**{**{f.name: getattr(config, f.name) for f in fields(config)}, **options})
