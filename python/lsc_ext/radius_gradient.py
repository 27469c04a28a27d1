"""Gradients of radii: bilinear forms of left and right vectors, found when the backward pass asks for them.

docs/math/radius-gradient.md. Letters: N points, [n, n] each, K pairs of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate
from lsc_ext.estimators import Found, run_krylov, split, start_vectors
from lsc_ext.operator import JacobianOperator

_GROWTH_FILTER, _GROWTH_STEPS = 32, 16


class Problem(Protocol):
    """What a backward pass needs."""

    estimate: RadiusEstimate

    def gradients(self, upstream: Tensor) -> list[Tensor | None]:
        """Gradients of sum(upstream * radius) with respect to the operator's parameters."""


def refuse_tangents(operator: JacobianOperator) -> None:
    """A radius has reverse-mode derivatives alone: a tangent would be lost without a word."""
    for parameter in operator.parameters:
        if forward_ad.unpack_dual(parameter).tangent is not None:
            raise NotImplementedError(
                "operator: expected no forward-mode tangents, use reverse mode (backward) instead"
            )


@dataclass
class GradientProblem:
    """What the backward pass needs; the left vectors are computed there, when it is known that they are wanted."""

    operator: JacobianOperator
    found: Found
    estimate: RadiusEstimate
    budget: int
    tol: float
    seed: int
    pairs: tuple[Tensor, Tensor, Tensor] | None = None

    def gradients(self, upstream: Tensor) -> list[Tensor | None]:
        """Gradients of sum(upstream * radius) with respect to the operator's parameters."""
        if self.pairs is None:
            self.pairs = self._find_pairs()
            self.operator.release()
        left, right, index = self.pairs
        chosen = upstream[index] != 0
        left, right, index = left[chosen], right[chosen], index[chosen]
        return self.operator.bilinear_gradients(left * upstream[index].unsqueeze(1), right, index)

    def _find_pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """left, right [K, n] and index [K] with d rho_i = sum over k with index_k = i of left_k' dJ_i right_k."""
        wanted = self.estimate.radius.isfinite() & (self.estimate.radius > 0)
        index = wanted.nonzero().squeeze(1)
        lefts, rights, points = [], [], []
        missing = index
        if self.found.right is not None and index.numel() > 0:
            agreed, left, right = self._eigenvector_pairs(index)
            missing = index[~agreed]
            # Re(u' J x) with u = conj(lambda)/|lambda| y / (y' x) is two real bilinear forms.
            for part, sign in ((0, 1.0), (1, -1.0)):
                used = right[agreed, part].abs().amax(dim=1) > 0 if right.shape[2] else agreed[agreed]
                lefts.append(sign * left[agreed, part][used])
                rights.append(right[agreed, part][used])
                points.append(index[agreed][used])
        if missing.numel() > 0:
            self.estimate.growth_gradient[missing] = True
            left, right, repeated = self._growth_pairs(missing)
            lefts.append(left)
            rights.append(right)
            points.append(repeated)
        if not points:
            none = torch.zeros(0, self.operator.columns, dtype=self.operator.dtype, device=self.operator.device)
            return none, none, index
        return torch.cat(lefts), torch.cat(rights), torch.cat(points)

    def _eigenvector_pairs(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which points have left and right vectors of one eigenvalue; u and x [K, 2, n] of all K points."""
        assert self.found.right is not None
        right = torch.view_as_complex(self.found.right[index].double().movedim(1, -1).contiguous())
        value = self.estimate.eigenvalue[index].to(torch.complex128)
        if self.found.left is not None and self.found.left_estimate is None:
            left = torch.view_as_complex(self.found.left[index].double().movedim(1, -1).contiguous())
            agreed = torch.ones(index.shape[0], dtype=torch.bool, device=index.device)
            residual = torch.zeros(index.shape[0], dtype=torch.float64, device=index.device)
        else:
            known = value.isfinite() & (torch.linalg.vector_norm(right, dim=1) > 0)
            estimate, vectors = self._left_vectors(index, torch.where(known, value, torch.zeros_like(value)))
            left = torch.view_as_complex(vectors.double().movedim(1, -1).contiguous())
            agreed = known & (estimate.residual < self.tol)
            agreed &= (estimate.eigenvalue - value).abs() <= 2 * self.tol * value.abs()
            residual = torch.maximum(estimate.residual, self.estimate.residual[index]).double()
        overlap = (left * right).sum(1)
        # The error of the gradient is about residual times condition, 1 / |overlap|.
        agreed &= overlap.abs() > 10 * residual
        agreed &= overlap.abs() > torch.finfo(self.operator.dtype).eps ** 0.75
        safe = torch.where(agreed, overlap, torch.ones_like(overlap))
        scaled = left * (value.conj() / value.abs() / safe).unsqueeze(1)
        return agreed, split(scaled, self.operator.dtype), split(right, self.operator.dtype)

    def _left_vectors(self, index: Tensor, targets: Tensor) -> tuple[RadiusEstimate, Tensor]:
        """Of those points, of eigenvalues near ``targets``: found before with the radii, or now."""
        if self.found.left is not None and self.found.left_estimate is not None:
            return self.found.left_estimate.select(index), self.found.left[index]
        estimate, vectors = run_krylov(
            self.operator, self.budget, self.tol, self.seed + 1, vectors=True, index=index, targets=targets
        )
        assert vectors is not None
        return estimate, vectors

    def _growth_pairs(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The relative derivative of (|J^k v| / |v|)^(1/k), v held fixed, times the radius: k pairs for each point."""
        v = start_vectors(self.operator, self.seed + 2)[index]
        radius = self.estimate.radius.detach()[index]
        forward = []
        for step in range(_GROWTH_FILTER + _GROWTH_STEPS):
            v = torch.nn.functional.normalize(v, dim=1)
            if step >= _GROWTH_FILTER:
                forward.append(v)
            v = self.operator.matvec(v, index)
        u = torch.nn.functional.normalize(v, dim=1)
        lefts = []
        for v in reversed(forward):
            pulled = self.operator.rmatvec(u, index)
            slope = (pulled * v).sum(1)  # u' J v
            weight = torch.where(slope == 0, 0.0, radius / (_GROWTH_STEPS * slope))
            lefts.append(weight.unsqueeze(1) * u)
            u = torch.nn.functional.normalize(pulled, dim=1)
        lefts.reverse()
        return torch.cat(lefts), torch.cat(forward), index.repeat(_GROWTH_STEPS)


class _Radius(torch.autograd.Function):
    """Radius as a function of the operator's parameters."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, *parameters: Tensor) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(*parameters)  # so that a parameter changed in place is noticed
        return problem.estimate.radius.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors
        with torch.no_grad():
            found = ctx.problem.gradients(upstream.detach().contiguous())
        sources = (upstream, *parameters)
        return (None, *(None if g is None else ops.once(g, sources, "gradient of radius") for g in found))


def with_gradient(problem: Problem, parameters: Sequence[Tensor]) -> RadiusEstimate:
    """The problem's estimate with a radius that autograd knows as a function of ``parameters``."""
    radius: Tensor = _Radius.apply(problem, *parameters)  # type: ignore[no-untyped-call]
    return replace(problem.estimate, radius=radius)
