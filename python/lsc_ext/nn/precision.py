"""What ``torch.autocast`` asks of a layer: weights and inputs of a lower type, states of the layer's own."""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext import ops


def autocast_type(weight: Tensor) -> torch.dtype | None:
    """The type that products are asked to be in; None for the layer's own."""
    if weight.dtype != torch.float32 or not torch.is_autocast_enabled("cpu"):
        return None
    return torch.get_autocast_dtype("cpu")


def rounded(tensor: Tensor, lower: torch.dtype | None) -> Tensor:
    """``tensor`` in float32, with no more than the precision of ``lower``."""
    return tensor if lower is None else tensor.to(lower).to(torch.float32)


def round_weights(weights: list[Tensor | None], lower: torch.dtype | None) -> list[Tensor | None]:
    """All but the units' own parameters, which no product reads."""
    if lower is None:
        return weights
    own = ops.PER_LAYER - 1
    return [w if w is None or i % ops.PER_LAYER == own else rounded(w, lower) for i, w in enumerate(weights)]
