"""What the input of a recurrence is multiplied by, h[t+1] = lambda h[t] + gamma x[t+1], so that states stay bounded.

Letters: nu = |lambda|, gamma the factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext.memory.eigenvalue import Eigenvalue, Point, one_minus, read_eigenvalue

NORMALIZATIONS = {
    None: "gamma = 1",
    "l2": "gamma = sqrt(1 - nu^2): white noise of variance 1 gives states of variance 1",
    "l1": "gamma = 1 - nu: states are at most as large as inputs, as behind a gate",
}
"""What a normalisation is."""


def check_normalization(normalization: str | None) -> None:
    """Raises ValueError for an unknown normalisation."""
    if normalization not in NORMALIZATIONS:
        names = ", ".join(repr(name) for name in NORMALIZATIONS)
        raise ValueError(f"normalization: expected one of {names}, got {normalization!r}")


def input_normalization(lam: Eigenvalue, normalization: str | None = "l2") -> Tensor:
    """gamma(lambda).

    Args:
        lam: as :func:`state_second_moment` has it.
        normalization: one of ``NORMALIZATIONS``: "l2", that of the LRU, "l1", or None for 1.

    Returns:
        float64 of the shape of ``lam``, differentiable.

    Raises:
        ValueError: an unknown name, a modulus of 1 or more, or numbers that are not finite.
        TypeError: ``lam`` of another kind.
    """
    check_normalization(normalization)
    return factor(read_eigenvalue("lam", lam), normalization)


def factor(x: Point, normalization: str | None) -> Tensor:
    """gamma, float64."""
    if normalization is None:
        return torch.ones_like(x.value.real)
    if normalization == "l2":
        return one_minus(x, x.conj()).real.sqrt()
    return -torch.expm1(-x.decay.clamp(max=700.0))


def factor_slope(x: Point, normalization: str | None) -> Tensor:
    """Its derivative by nu, float64."""
    if normalization is None:
        return torch.zeros_like(x.value.real)
    if normalization == "l2":
        return -x.modulus / factor(x, "l2")
    return -torch.ones_like(x.value.real)
