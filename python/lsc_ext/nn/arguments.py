"""What every layer of this package checks of its arguments, in one wording: name, what was expected, what came."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_sizes(**sizes: Any) -> None:
    """Refuses what is no positive int.

    Raises:
        TypeError: no int.
        ValueError: below 1.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name}: expected an int, got {type(size).__name__}")
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")


def checked_input(module: Any, input: Tensor, weight: Tensor) -> tuple[Tensor, bool]:
    """``input`` as x [T, B, I], and whether it came with a batch.

    Args:
        module: has ``input_size`` and ``batch_first``.
        input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I].
        weight: a parameter, whose dtype and device are expected.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape.
        RuntimeError: another device.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input: expected a torch.Tensor, got {type(input).__qualname__}")
    if input.dim() not in (2, 3):
        raise ValueError(f"input: expected 2 (unbatched) or 3 dimensions, got shape {tuple(input.shape)}")
    batched = input.dim() == 3
    if input.shape[-1] != module.input_size:
        raise ValueError(f"input: expected input.size(-1) == input_size == {module.input_size}, got {input.shape[-1]}")
    if input.dtype != weight.dtype:
        raise TypeError(f"input: expected {weight.dtype} as the weights are, got {input.dtype}; convert one of them")
    if input.device != weight.device:
        raise RuntimeError(f"input: expected device {weight.device} where the weights are, got {input.device}")
    x = input if batched else input.unsqueeze(1)
    return (x.transpose(0, 1) if batched and module.batch_first else x), batched


def check_state(name: str, state: Any, expected: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """Refuses a state of another kind, shape, dtype or device.

    Raises:
        TypeError: no tensor, or another dtype or device.
        ValueError: another shape.
    """
    if not isinstance(state, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(state).__qualname__}")
    if tuple(state.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(state.shape)}")
    if state.dtype != dtype or state.device != device:
        raise TypeError(f"{name}: expected {dtype} on {device}, got {state.dtype} on {state.device}")
