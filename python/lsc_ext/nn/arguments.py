"""What a layer is given, checked; and its parameters, read as they are now.

Letters: T time, B batch, I input size, H hidden size, L layers, D directions, P projection size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

States = Tensor | tuple[Tensor, ...]


def check_int(name: str, value: int, least: int) -> None:
    """Raises TypeError and ValueError for what is not an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def read(module: Any, name: str) -> Any:
    """An attribute that may be a parameter; the dictionary is several times faster than ``Module.__getattr__``."""
    parameter = module._parameters.get(name)
    return getattr(module, name, None) if parameter is None else parameter


def check_features(module: Any, data: Tensor, weight: Tensor, lower: torch.dtype | None) -> None:
    """Checks what is fed, [.., I]; with ``lower``, any floating type will do."""
    if data.shape[-1] != module.input_size:
        raise ValueError(f"input: expected input.size(-1) == input_size == {module.input_size}, got {data.shape[-1]}")
    if data.dtype != weight.dtype and (lower is None or not data.is_floating_point()):
        raise TypeError(f"input: expected {weight.dtype} as the weights are, got {data.dtype}; convert one of them")
    if data.device != weight.device:
        raise RuntimeError(f"input: expected device {weight.device} where the weights are, got {data.device}")


def time_first(module: Any, input: Tensor, weight: Tensor, lower: torch.dtype | None) -> tuple[Tensor, bool]:
    """The checked input as [T, B, I], and whether it was batched."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input: expected a torch.Tensor, got {type(input).__qualname__}")
    if input.dim() not in (2, 3):
        raise ValueError(f"input: expected 2 (unbatched) or 3 dimensions, got shape {tuple(input.shape)}")
    check_features(module, input, weight, lower)
    if input.dim() == 2:
        return input.unsqueeze(1), False
    return input.transpose(0, 1) if module.batch_first else input, True


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


def check_states(
    module: Any,
    names: tuple[str, ...],
    hx: States | None,
    batch: int,
    batched: bool,
    weight: Tensor,
    lower: torch.dtype | None,
) -> tuple[Tensor, ...] | None:
    """The checked initial states ``names``, each [L * D, B, .]."""
    if hx is None:
        return None
    given = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if len(given) != len(names):
        raise ValueError(f"hx: expected {len(names)} state tensor(s) ({', '.join(names)}), got {len(given)}")
    count, size = module.num_layers * (2 if module.bidirectional else 1), module.proj_size or module.hidden_size
    for name, state in zip(names, given, strict=True):
        expected = (count, batch, size) if batched else (count, size)
        if not isinstance(state, Tensor):
            raise TypeError(f"hx ({name}): expected a torch.Tensor, got {type(state).__qualname__}")
        if tuple(state.shape) != expected:
            raise ValueError(f"hx ({name}): expected shape {expected}, got {tuple(state.shape)}")
        lowered = lower is not None and state.is_floating_point()
        if (state.dtype != weight.dtype and not lowered) or state.device != weight.device:
            raise TypeError(
                f"hx ({name}): expected {weight.dtype} on {weight.device}, got {state.dtype} on {state.device}"
            )
        size = module.hidden_size
    return given if batched else tuple(state.unsqueeze(1) for state in given)
