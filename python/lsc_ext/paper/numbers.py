"""Numbers as a figure keeps them in JSON."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def rounded(values: Tensor) -> Any:
    """A tensor as nested lists of six significant digits."""
    if values.dim() == 0:
        return float(f"{float(values):.6g}")
    return [rounded(row) for row in values.detach()]
