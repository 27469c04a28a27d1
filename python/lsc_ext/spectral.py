"""Spectral radii of batches of Jacobians, with a residual and a verdict for each.

The radius is the largest modulus of an eigenvalue; it is not a norm. Letters: N points, [n, n]
each.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.estimators import Found, closed_form, dense, from_eigenvalues, krylov, power
from lsc_ext.operator import ConcatenatedOperator, ConstantOperator, JacobianOperator, MatrixOperator
from lsc_ext.radius_gradient import GradientProblem, refuse_tangents, with_gradient

METHODS = ("auto", "krylov", "power", "dense")
DENSE_LIMIT = 32  # largest n for which "auto" asks LAPACK
DEFAULT_MATVECS = 600
DEFAULT_POWER_MATVECS = 128


#: How well a left vector must fit the right one where ``tol`` is 0.
PAIRING_TOL = 1e-3


def seed_from(generator: torch.Generator | None) -> int:
    """One 64-bit seed (63 bits used) from a generator, torch's default one where None."""
    return int(torch.randint(2**63 - 1, (1,), generator=generator, dtype=torch.int64))


def check_options(method: str, num_matvecs: int | None, tol: float) -> None:
    """Raises ValueError for an unknown method, num_matvecs < 1 or tol outside [0, 1)."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if num_matvecs is not None and num_matvecs < 1:
        raise ValueError(f"num_matvecs: expected at least 1, got {num_matvecs}")
    if not 0 <= tol < 1:
        raise ValueError(f"tol: expected a number between 0 and 1, got {tol}")


@ops.uncompiled
def spectral_radius(
    operator: JacobianOperator | Tensor,
    *,
    method: str = "auto",
    num_matvecs: int | None = None,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> RadiusEstimate:
    """The spectral radius of each matrix of a batch.

    Args:
        operator: a :class:`JacobianOperator`, or matrices [..., n, n] of float32 or float64.
        method: "krylov" (filtered Arnoldi with thick restarts), "power" (geometric growth; cheap, about 1 percent at
            128 products, no bound), "dense" (LAPACK, on the CPU wherever the matrices are), or "auto": a closed form
            where there is one, dense for n <= 32, else krylov.
        num_matvecs: most products of one side; None for 600 (128 for "power").
        tol: relative residual at which a point is called converged. 0 asks for no certificate: "krylov" then spends
            exactly ``num_matvecs`` products on every point, M // 5 but at most 32 of them on one Arnoldi factorisation
            and the others on the filter before it.
        generator: draws one seed for the start vectors.

    Returns:
        A :class:`RadiusEstimate` with tensors of shape [...] (or [N]). ``radius`` is differentiable with respect to the
        matrices or the operator's ``parameters``: d rho = Re(conj(lambda) / |lambda| y' dJ x / (y' x)), x and y right
        and left vectors of the same eigenvalue (docs/math/radius-gradient.md).

    Raises:
        ValueError: an option out of range, or matrices that are not square.
        TypeError: another dtype than float32 and float64.
        RuntimeError: matrices on a device that this build has no backend for.
    """
    check_options(method, num_matvecs, tol)
    if isinstance(operator, Tensor):
        matrices = operator
        if matrices.dim() < 2 or matrices.shape[-1] != matrices.shape[-2]:
            raise ValueError(f"matrices: expected shape (..., n, n), got {tuple(matrices.shape)}")
        ops.dtype_name(matrices)
        lead, n = matrices.shape[:-2], matrices.shape[-1]
        flat = MatrixOperator(
            matrices.reshape(-1, n, n) if matrices.numel() else matrices.new_empty(lead.numel(), n, n)
        )
        return spectral_radius(flat, method=method, num_matvecs=num_matvecs, tol=tol, generator=generator).reshape(
            *lead
        )
    if operator.rows != operator.columns:
        raise ValueError(f"operator: expected square Jacobians, got {operator.rows} x {operator.columns}")
    seed = seed_from(generator)
    if isinstance(operator, ConcatenatedOperator):
        parts = [estimate_radius(part, method, num_matvecs, tol, seed + i) for i, part in enumerate(operator.parts)]
        return concatenate(parts)
    return estimate_radius(operator, method, num_matvecs, tol, seed)


def estimate_radius(
    operator: JacobianOperator, method: str, num_matvecs: int | None, tol: float, seed: int, first: int = 0
) -> RadiusEstimate:
    """:func:`spectral_radius` of one operator with square Jacobians, options checked, for a given seed.

    Point i counts as number ``first`` + i of its batch, by which it gets its start vector.
    """
    if isinstance(operator, ConstantOperator) and operator.num_points > 0:
        one = estimate_radius(operator.one, method, num_matvecs, tol, seed)
        return one.expand(operator.num_points)
    if method == "auto" and operator.eigenvalues is not None:
        return from_eigenvalues(operator.eigenvalues)
    method = method_of(operator, method)
    refuse_tangents(operator)
    differentiable = _is_differentiable(operator)
    budget = num_matvecs or (DEFAULT_POWER_MATVECS if method == "power" else DEFAULT_MATVECS)
    with torch.no_grad():
        if method == "closed form":
            found = closed_form(operator)
        elif method == "dense":
            found = dense(operator, tol)
        elif method == "power":
            found = power(operator, budget, seed, first)
        else:
            found = krylov(operator, budget, tol, seed, first, differentiable)
    operator.release()
    return with_found(operator, found, budget, tol, seed)


def method_of(operator: JacobianOperator, method: str) -> str:
    """What "auto" stands for with square Jacobians; any other method for itself."""
    if isinstance(operator, ConstantOperator):
        return method_of(operator.one, method)
    if method != "auto":
        return method
    if operator.eigenvalues is not None or operator.is_diagonal:
        return "closed form"
    return "dense" if operator.columns <= DENSE_LIMIT else "krylov"


def _is_differentiable(operator: JacobianOperator) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in operator.parameters)


def with_found(operator: JacobianOperator, found: Found, budget: int | None, tol: float, seed: int) -> RadiusEstimate:
    """What was found of an operator, differentiable with respect to its parameters."""
    estimate = found.estimate
    if not _is_differentiable(operator):
        return estimate
    estimate = replace(estimate, growth_gradient=torch.zeros_like(estimate.status, dtype=torch.bool))
    problem = GradientProblem(operator, found, estimate, budget or DEFAULT_MATVECS, tol or PAIRING_TOL, seed)
    return with_gradient(problem, operator.parameters)
