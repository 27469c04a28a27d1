"""The ways to a spectral radius: the compiled Krylov iteration, growth, LAPACK, and closed forms.

Letters: N points, [n, n] each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.estimate import RadiusEstimate, Status, complex_type
from lsc_ext.operator import JacobianOperator


@dataclass
class Found:
    """An estimate and, where they are known, its vectors as [N, 2, n]: real part, imaginary part.

    Left vectors that an iteration found have an estimate of their own.
    """

    estimate: RadiusEstimate
    right: Tensor | None = None
    left: Tensor | None = None
    left_estimate: RadiusEstimate | None = None

    def __getitem__(self, points: slice) -> Found:
        return Found(
            self.estimate.select(points),
            None if self.right is None else self.right[points],
            None if self.left is None else self.left[points],
            None if self.left_estimate is None else self.left_estimate.select(points),
        )


def krylov(operator: JacobianOperator, budget: int, tol: float, seed: int, first: int, vectors: bool) -> Found:
    """Filtered Arnoldi with thick restarts, compiled; with its right vectors where ``vectors``."""
    estimate, right = run_krylov(operator, budget, tol, seed, vectors=vectors, first=first)
    return Found(estimate, right)


def run_krylov(
    operator: JacobianOperator,
    budget: int,
    tol: float,
    seed: int,
    *,
    vectors: bool,
    index: Tensor | None = None,
    targets: Tensor | None = None,
    first: int = 0,
) -> tuple[RadiusEstimate, Tensor | None]:
    """The compiled iteration; with ``targets`` [K] complex, the left vectors nearest to them at points ``index``.

    Point i starts from vector ``first`` + i of ``seed``.
    """
    count = operator.num_points if index is None else index.shape[0]
    place = place_of(operator)
    results = KrylovResults(count, operator.columns if vectors else None, operator.dtype, place)
    goals = None if targets is None else torch.view_as_real(targets.to(place, torch.complex128)).contiguous()
    wanted = None if index is None else index.to(place).contiguous()
    operator.backend.call(
        operator.compiled.radii,
        tol,
        budget,
        seed,
        None if wanted is None else ops.buffer(wanted),
        count,
        None if goals is None else ops.buffer(goals),
        targets is not None,
        results.buffers(operator.backend.functions),
        first=first,
    )
    found = results.vectors
    return results.estimate(operator.device), None if found is None else found.to(operator.device)


class KrylovResults:
    """What the compiled iteration writes of ``count`` points; Ritz vectors [count, 2, n] where ``columns`` is n."""

    def __init__(self, count: int, columns: int | None, dtype: torch.dtype, place: torch.device) -> None:
        self.dtype = dtype
        self.radius, self.residual, self.condition = (
            torch.empty(count, dtype=torch.float64, device=place) for _ in range(3)
        )
        self.eigenvalue = torch.empty(count, dtype=torch.complex128, device=place)
        self.num_matvecs = torch.empty(count, dtype=torch.int32, device=place)
        self.status = torch.empty(count, dtype=torch.uint8, device=place)
        self.vectors = None if columns is None else torch.zeros(count, 2, columns, dtype=dtype, device=place)

    def buffers(self, functions: Any) -> Any:
        """The same for the compiled ``functions``, valid as long as this is held."""
        return functions.ResultBuffers(
            ops.buffer(self.radius),
            (self.eigenvalue.data_ptr(), 2 * self.eigenvalue.numel()),
            ops.buffer(self.residual),
            ops.buffer(self.condition),
            ops.buffer(self.num_matvecs),
            ops.buffer(self.status),
            None if self.vectors is None else ops.buffer(self.vectors),
        )

    def estimate(self, device: torch.device) -> RadiusEstimate:
        """On ``device``, in the points' own type."""
        return RadiusEstimate(
            self.radius.to(device, self.dtype),
            self.residual.to(device, self.dtype),
            self.status.to(device),
            self.num_matvecs.to(device),
            self.eigenvalue.to(device, complex_type(self.dtype)),
            self.condition.to(device, self.dtype),
            "krylov",
        )


def from_eigenvalues(values: Tensor) -> RadiusEstimate:
    """All eigenvalues [N, k] are known, as differentiable functions of the parameters."""
    count, dtype = values.shape[0], values.real.dtype
    moduli = values.abs()
    radius = moduli.amax(dim=1) if values.shape[1] else moduli.new_zeros(count)
    with torch.no_grad():
        largest = moduli.argmax(dim=1, keepdim=True) if values.shape[1] else None
        leading = radius if largest is None else values.gather(1, largest).squeeze(1)
        leading = leading.to(complex_type(dtype))
        finite = radius.isfinite()
        zero = torch.where(finite, torch.zeros_like(radius), torch.full_like(radius, float("nan")))
    return RadiusEstimate(
        torch.where(finite, radius, torch.full_like(radius, float("nan"))),
        zero,
        torch.where(finite, Status.converged.value, Status.nonfinite.value).to(torch.uint8),
        torch.zeros(count, dtype=torch.int32, device=values.device),
        torch.where(leading.imag < 0, leading.conj(), leading),
        zero + 1,
        "closed form",
        growth_gradient=torch.zeros(count, dtype=torch.bool, device=values.device),
    )


def closed_form(operator: JacobianOperator) -> Found:
    """A diagonal Jacobian: J 1 is its diagonal."""
    count, n, dtype, device = operator.num_points, operator.columns, operator.dtype, operator.device
    diagonal = operator.matvec(torch.ones(count, n, dtype=dtype, device=device))
    finite = diagonal.isfinite().all(dim=1)
    radius, where = diagonal.abs().max(dim=1) if n else (diagonal.new_zeros(count), None)
    right = torch.zeros(count, 2, n, dtype=dtype, device=device)
    value = diagonal.new_zeros(count)
    if where is not None:
        right[torch.arange(count, device=device), 0, where] = 1
        value = diagonal.gather(1, where.unsqueeze(1)).squeeze(1)
    nan = torch.full_like(radius, float("nan"))
    estimate = RadiusEstimate(
        torch.where(finite, radius, nan),
        torch.where(finite, torch.zeros_like(radius), nan),
        torch.where(finite, Status.converged.value, Status.nonfinite.value).to(torch.uint8),
        torch.ones(count, dtype=torch.int32, device=device),
        torch.where(finite, value, nan).to(complex_type(dtype)),
        torch.where(finite, torch.ones_like(radius), nan),
        "closed form",
    )
    return Found(estimate, right, right)


def dense(operator: JacobianOperator, tol: float) -> Found:
    """LAPACK in float64 on the matrices themselves, on the host wherever they are.

    The residual is LAPACK's backward error, of the order of n eps.
    """
    device = operator.device
    matrices = operator.to_dense().cpu()
    count, n, dtype = operator.num_points, operator.columns, operator.dtype
    eps = torch.finfo(dtype).eps
    finite = matrices.flatten(1).isfinite().all(dim=1)
    usable = torch.where(finite[:, None, None], matrices, torch.zeros_like(matrices)).double()
    nan = torch.full((count,), float("nan"), dtype=torch.float64)
    if n == 0 or count == 0:
        value, residual = torch.zeros(count, dtype=torch.complex128), torch.zeros(count, dtype=torch.float64)
        condition = torch.ones_like(residual)
        right = left = torch.zeros(count, 0, dtype=torch.complex128)
    else:
        rows = torch.arange(count)
        values, vectors = torch.linalg.eig(usable)
        best = _modulus(values).argmax(dim=1)
        value, right = values[rows, best], vectors[rows, :, best]
        values_left, vectors_left = torch.linalg.eig(usable.mT)
        nearest = _modulus(values_left - value[:, None]).argmin(dim=1)
        left = vectors_left[rows, :, nearest]
        overlap = left.real * right.real - left.imag * right.imag, left.real * right.imag + left.imag * right.real
        condition = 1 / _modulus(torch.complex(overlap[0].sum(1), overlap[1].sum(1)))
        backward = eps * torch.linalg.matrix_norm(usable)
        residual = torch.where(backward == 0, 0.0, backward / _modulus(value))
    flip = value.imag < 0
    value, right, left = (torch.where(flip.view(-1, *[1] * (z.dim() - 1)), z.conj(), z) for z in (value, right, left))
    certain = (residual < tol) & ((residual == 0) | (residual * condition < tol))
    status = torch.where(certain, Status.converged.value, Status.ill_conditioned.value)
    status = torch.where(finite, status, Status.nonfinite.value).to(torch.uint8)
    masked = [torch.where(finite, z, nan).to(device, dtype) for z in (_modulus(value), residual, condition)]
    estimate = RadiusEstimate(
        masked[0],
        masked[1],
        status.to(device),
        torch.full((count,), n, dtype=torch.int32, device=device),
        torch.where(finite, value, nan.to(torch.complex128)).to(device, complex_type(dtype)),
        masked[2],
        "dense",
    )
    return Found(estimate, split(right, dtype).to(device), split(left, dtype).to(device))


def _modulus(z: Tensor) -> Tensor:
    """As ``z.abs()``, in operations whose last bit does not depend on where in the tensor a number is."""
    largest = torch.maximum(z.real.abs(), z.imag.abs())
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    return scale * ((z.real / scale).square() + (z.imag / scale).square()).sqrt()


def split(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex vectors [N, n] as [N, 2, n]: real part, imaginary part."""
    return torch.stack((vectors.real, vectors.imag), dim=1).to(dtype)


def power(operator: JacobianOperator, budget: int, seed: int, first: int) -> Found:
    """Geometric mean of the growth over the last half of the steps."""
    v = start_vectors(operator, seed, first)
    half = budget // 2
    log_growth = torch.zeros(operator.num_points, dtype=torch.float64, device=operator.device)
    dead = torch.zeros(operator.num_points, dtype=torch.bool, device=operator.device)
    for step in range(budget):
        v = operator.matvec(v)
        length = torch.linalg.vector_norm(v, dim=1)
        dead |= length == 0
        v = v / torch.where(dead, torch.ones_like(length), length).unsqueeze(1)
        if step >= half:
            log_growth += torch.where(dead, torch.zeros_like(length), length).double().log()
    radius = torch.where(dead, 0.0, (log_growth / max(budget - half, 1)).exp())
    finite = radius.isfinite()
    nan = torch.full_like(radius, float("nan"))
    dtype = operator.dtype
    estimate = RadiusEstimate(
        torch.where(finite, radius, nan).to(dtype),
        nan.to(dtype),
        torch.where(finite, Status.max_matvecs.value, Status.nonfinite.value).to(torch.uint8),
        torch.full((operator.num_points,), budget, dtype=torch.int32, device=operator.device),
        nan.to(complex_type(dtype)),
        nan.to(dtype),
        "power",
    )
    return Found(estimate)


def start_vectors(operator: JacobianOperator, seed: int, first: int = 0) -> Tensor:
    """Standard normal, [N, n]: vectors ``first``, ``first`` + 1, .. of ``seed``."""
    backend, count, n = operator.backend, operator.num_points, operator.columns
    v = torch.empty(count, n, dtype=operator.dtype, device=place_of(operator))
    backend.call(backend.functions.start_vectors, ops.dtype_name(v), seed, first, count, n, ops.buffer(v))
    return v.to(operator.device)


def place_of(operator: JacobianOperator) -> torch.device:
    """Where the compiled code iterates: a user's operator on the host, wherever its function runs."""
    return operator.device if operator.backend.name == "cuda" else torch.device("cpu")
