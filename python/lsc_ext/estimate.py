"""What an estimated spectral radius is: numbers, how far each can be trusted, and what became of it.

Letters: L layers, P points sampled per layer, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Status(IntEnum):
    """What became of a point; see docs/math/radius.md."""

    converged = 0
    max_matvecs = 1
    ill_conditioned = 2
    breakdown = 3
    nonfinite = 4


@dataclass(frozen=True)
class RadiusEstimate:
    """Radii of a batch of points and how far each can be trusted. All tensors have one shape.

    Attributes:
        radius: largest modulus of an eigenvalue; differentiable. NaN where a product was not finite.
        residual: |J x - lambda x| / |lambda| for the Ritz vector x of unit length; of the growth rate's bracket where
            the growth is the answer; NaN for "power", which has none.
        status: uint8, :class:`Status`.
        num_matvecs: int32, products with J.
        eigenvalue: complex, of non-negative imaginary part; NaN where the radius is a growth rate.
        condition: 1 / |cosine of the angle between the left and right vector| in the space that was searched.
        method: "krylov", "power", "dense", "closed form" or "frobenius".
        index: [L, P, 2] pairs (t, b) where points were sampled; else None.
        population: points that each layer has, of which the measured ones may be some; None for not known.
        growth_gradient: bool, filled by the backward pass: points whose gradient is the growth estimator's, because no
            left vector agreed with the right one.
    """

    radius: Tensor
    residual: Tensor
    status: Tensor
    num_matvecs: Tensor
    eigenvalue: Tensor
    condition: Tensor
    method: str
    index: Tensor | None = None
    population: int | None = None
    growth_gradient: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    @property
    def certified_fraction(self) -> float:
        """The part of the points that converged; NaN without points."""
        if self.status.numel() == 0:
            return float("nan")
        return float((self.status == Status.converged).double().mean())

    def counts(self) -> dict[str, int]:
        """How many points ended with each status."""
        return {status.name: int((self.status == status).sum()) for status in Status}

    def mean(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Mean radius over the finite points; differentiable. ``dim``: which axes to average, all by default."""
        finite = self.radius.isfinite()
        kept = torch.where(finite, self.radius, torch.zeros_like(self.radius))
        if dim is None:
            return kept.sum() / finite.sum()
        return kept.sum(dim) / finite.sum(dim)

    def stderr(self) -> Tensor:
        """Standard error of :meth:`mean` as an estimate of the mean over all points of these inputs.

        Clustered by sequence (points of one sequence are not independent), with the finite-population correction
        1 - measured / all, so 0 where every point was measured; without it where the population has no end (None).
        Cochran, Sampling Techniques, 1977, ch. 9 and 2.
        """
        radius = self.radius.detach()
        if radius.dim() < 2 or (self.population is None and self.index is None):
            values = radius[radius.isfinite()]
            return torch.as_tensor(values.std() / values.numel() ** 0.5)
        layers = radius.shape[0]
        if self.index is None:
            sequence = torch.arange(radius.shape[-1], device=radius.device).expand_as(radius)
        else:
            sequence = self.index[..., 1]
        finite = radius.isfinite()
        measured = int(finite.sum())
        residual = torch.where(finite, radius - self.mean().detach(), torch.zeros_like(radius))
        totals = radius.new_zeros(int(sequence.max()) + 1 if sequence.numel() else 0)
        totals.index_add_(0, sequence.reshape(-1), residual.reshape(-1))
        clusters = sequence.unique().numel()
        whole = math.inf if self.population is None else layers * self.population
        if measured > 0 and measured == whole:
            return radius.new_zeros(())
        if clusters < 2:
            return radius.new_tensor(float("nan"))
        correction = 1 - measured / whole
        variance = clusters / (clusters - 1) * totals.square().sum() / measured**2
        return torch.as_tensor((variance * correction).sqrt())

    def expand(self, count: int) -> RadiusEstimate:
        """One point's tensors [1], repeated to [count]."""
        names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
        marks = self.growth_gradient
        return replace(
            self,
            growth_gradient=marks.expand(count) if marks.numel() == 1 else marks,
            **{name: getattr(self, name).expand(count) for name in names},
        )

    def select(self, points: Tensor | slice) -> RadiusEstimate:
        """Some of N points."""
        names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
        return replace(self, **{name: getattr(self, name)[points] for name in names})

    def reshape(self, *shape: int) -> RadiusEstimate:
        """Every tensor in another shape."""
        names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
        marks = self.growth_gradient
        return replace(
            self,
            growth_gradient=marks.view(shape) if marks.numel() == self.radius.numel() else marks,
            **{name: getattr(self, name).reshape(shape) for name in names},
        )


def concatenate(parts: Sequence[RadiusEstimate]) -> RadiusEstimate:
    """Estimates [N_i] side by side."""
    marked = [part for part in parts if part.growth_gradient.numel() > 0]
    marks = torch.cat([part.growth_gradient for part in marked]) if marked else parts[0].growth_gradient
    offset = 0
    for part in marked:  # backward passes to come fill the parts' marks, so these become views of the whole
        count = part.growth_gradient.numel()
        one_for_all = count > 1 and part.growth_gradient.stride(0) == 0  # of a constant Jacobian; marked at its first
        filled: Any = part.growth_gradient._base if one_for_all else part.growth_gradient
        filled.set_(marks[offset : offset + (1 if one_for_all else count)])
        offset += count
    names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
    joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
    methods = sorted({part.method for part in parts})
    return replace(parts[0], method=" + ".join(methods), growth_gradient=marks, **joined)


def complex_type(dtype: torch.dtype) -> torch.dtype:
    """The complex type of a real one's precision."""
    return torch.complex64 if dtype == torch.float32 else torch.complex128
