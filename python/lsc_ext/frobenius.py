"""A number for Jacobians that are not square, by their Frobenius norm.

Letters: N points, [m, n] each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate, Status, complex_type
from lsc_ext.operator import ConstantOperator, JacobianOperator
from lsc_ext.radius_gradient import refuse_tangents, with_gradient

FROBENIUS_LIMIT, FROBENIUS_SAMPLE = 1024, 256


@ops.uncompiled
def frobenius_radius(operator: JacobianOperator, *, tol: float = 1e-3, seed: int = 0) -> RadiusEstimate:
    """|J|_F / sqrt(max(m, n)): what the radius of a random square sub-matrix tends to for independent entries.

    Differentiable with respect to the operator's ``parameters``. Exact, by min(m, n) products, up to 1,024 of them.
    With more, the rows (outputs) or columns of 256 positions stand for all, drawn by ``seed`` without replacement and
    the same for every point; then ``residual`` is the relative standard error of that sampling, and a point has
    converged where it is below ``tol``.
    """
    if isinstance(operator, ConstantOperator) and operator.num_points > 0:
        return frobenius_radius(operator.one, tol=tol, seed=seed).expand(operator.num_points)
    refuse_tangents(operator)
    dtype, count, device = operator.dtype, operator.num_points, operator.device
    short = min(operator.rows, operator.columns)
    positions = torch.arange(short)
    if short > FROBENIUS_LIMIT:
        positions = torch.randperm(short, generator=torch.Generator().manual_seed(seed))[:FROBENIUS_SAMPLE]
    used = positions.shape[0]
    with torch.no_grad():
        size, squares = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
        for _, product, _ in _unit_products(operator, positions):
            part = product.double().square().sum(1)
            size += part
            squares += part.square()
        radius = (size * (short / max(used, 1)) / max(operator.rows, operator.columns, 1)).sqrt().to(dtype)
        # Relative: the radius is a root, so half of the sum's; with the finite-population correction.
        variance = (squares / max(used, 1) - (size / max(used, 1)).square()).clamp(min=0) * (1 - used / max(short, 1))
        error = torch.where(size > 0, 0.5 * (variance * used).sqrt() / size, 0.0).to(dtype)
    operator.release()
    finite = radius.isfinite()
    nan = torch.full_like(radius, float("nan"))
    status = torch.where(error < tol, Status.converged.value, Status.max_matvecs.value)
    estimate = RadiusEstimate(
        torch.where(finite, radius, nan),
        torch.where(finite, error, nan),
        torch.where(finite, status, Status.nonfinite.value).to(torch.uint8),
        torch.full((count,), used, dtype=torch.int32, device=device),
        nan.to(complex_type(dtype)),
        torch.where(finite, torch.ones_like(radius), nan),
        "frobenius" if used == short else f"frobenius, {used} of {short}",
        growth_gradient=torch.zeros(count, dtype=torch.bool, device=device),
    )
    if not (torch.is_grad_enabled() and any(p.requires_grad for p in operator.parameters)):
        return estimate
    problem = _FrobeniusProblem(operator, estimate, positions)
    return with_gradient(problem, operator.parameters)


def _unit_products(operator: JacobianOperator, positions: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """(unit vectors, their products, whether transposed) at positions along the shorter side of J."""
    transpose = operator.rows < operator.columns
    count, short = operator.num_points, min(operator.rows, operator.columns)
    for i in positions.tolist():
        unit = torch.zeros(count, short, dtype=operator.dtype, device=operator.device)
        unit[:, i] = 1
        yield unit, operator.rmatvec(unit) if transpose else operator.matvec(unit), transpose


@dataclass
class _FrobeniusProblem:
    operator: JacobianOperator
    estimate: RadiusEstimate
    positions: Tensor

    def gradients(self, upstream: Tensor) -> list[Tensor | None]:
        """D |J|_F / c = sum_i (J e_i)' dJ e_i / (c |J|_F), c = sqrt(max(m, n)); sampled i stand for all."""
        radius = self.estimate.radius
        share = self.positions.shape[0] / min(self.operator.rows, self.operator.columns)
        scale = share * max(self.operator.rows, self.operator.columns) * radius
        usable = radius.isfinite() & (radius > 0)
        weight = torch.where(usable, upstream / torch.where(usable, scale, torch.ones_like(scale)), 0.0)
        index = torch.arange(self.operator.num_points, device=self.operator.device)
        total = [torch.zeros_like(p) for p in self.operator.parameters]
        for unit, product, transpose in _unit_products(self.operator, self.positions):
            weighted = product * weight.unsqueeze(1)
            pair = (unit, weighted) if transpose else (weighted, unit)
            found = self.operator.bilinear_gradients(*pair, index)
            for whole, part in zip(total, found, strict=True):
                if part is not None:
                    whole += part
        self.operator.release()
        return [*total]
