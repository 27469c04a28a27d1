"""Lower precision: of a layer whose parameters are half numbers, and what ``torch.autocast`` asks of another.

Under autocast weights and inputs are rounded to a lower type and states are of the layer's own. Half layers are for
CUDA alone; their radii are those of the weights widened to float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext import ops

HALVES = (torch.float16, torch.bfloat16)


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor holds half numbers where layers may: off the CPU."""
    return tensor.dtype in HALVES and tensor.device.type != "cpu"


def check_dtype(parameter: Tensor) -> None:
    """Refuses a parameter of a dtype that layers do not have where it is.

    Raises:
        TypeError: neither float32 nor float64, nor, off the CPU, float16 or bfloat16.
    """
    if not is_half(parameter):
        ops.dtype_name(parameter)


def widened(tensor: Tensor) -> Tensor:
    """Half numbers as float32, differentiably; others, and those of the CPU, as they are."""
    if not is_half(tensor):
        return tensor
    with torch.enable_grad():
        return tensor.to(torch.float32)


def autocast_type(weight: Tensor) -> torch.dtype | None:
    """The type that products are asked to be in; None for the layer's own."""
    if weight.dtype != torch.float32 or not torch.is_autocast_enabled(weight.device.type):
        return None
    return torch.get_autocast_dtype(weight.device.type)


def rounded(tensor: Tensor, lower: torch.dtype | None) -> Tensor:
    """``tensor`` in float32, with no more than the precision of ``lower``."""
    return tensor if lower is None else tensor.to(lower).to(torch.float32)


def round_weights(weights: list[Tensor | None], lower: torch.dtype | None) -> list[Tensor | None]:
    """All but the units' own parameters, which no product reads."""
    if lower is None:
        return weights
    own = ops.PER_LAYER - 1
    return [w if w is None or i % ops.PER_LAYER == own else rounded(w, lower) for i, w in enumerate(weights)]
