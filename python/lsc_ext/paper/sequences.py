"""Sequences for the figures: normal numbers, or images that installed packages ship.

Letters: T time steps, B sequences, I features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lsc_ext.data import SOURCES, load_images

DATA = ("normal", *sorted(SOURCES))
NORMAL_FEATURES = 28


def check_at_least(least: int, **sizes: int) -> None:
    """Raises ValueError for the first that is smaller."""
    for name, value in sizes.items():
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def _check(data: str) -> None:
    if data not in DATA:
        raise ValueError(f"data: expected one of {', '.join(DATA)}, got {data!r}")


def rows(data: str, time_steps: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """[T, B, I]: "normal" numbers, I = 28; or the rows of images, one randomly drawn image after another."""
    _check(data)
    if data == "normal":
        return torch.randn(time_steps, batch_size, NORMAL_FEATURES, generator=generator)
    images = load_images(data).x  # [rows, N, I]
    height, count, width = images.shape
    each = math.ceil(time_steps / height)
    drawn = torch.randint(count, (batch_size * each,), generator=generator)
    chained = images[:, drawn].reshape(height, batch_size, each, width).permute(2, 0, 1, 3)
    return chained.reshape(each * height, batch_size, width)[:time_steps].contiguous()


def pixels(data: str, time_steps: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """[T, B], one pixel per step: uniform numbers for "normal", or images made sqrt(T) pixels wide and high.

    Raises:
        ValueError: unknown ``data``, or a T that is no square where images are asked for.
    """
    _check(data)
    if data == "normal":
        return torch.rand(time_steps, batch_size, generator=generator)
    side = math.isqrt(time_steps)
    if side * side != time_steps:
        raise ValueError(f"time_steps: expected a square number for images, got {time_steps}")
    images = load_images(data).x
    drawn = torch.randint(images.shape[1], (batch_size,), generator=generator)
    chosen = images[:, drawn].transpose(0, 1).unsqueeze(1)  # [B, 1, rows, columns]
    return torch.nn.functional.adaptive_avg_pool2d(chosen, side).reshape(batch_size, time_steps).T.contiguous()
