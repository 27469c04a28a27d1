"""Spectral radii of batches of Jacobians, with a residual and a verdict for each, and their gradients.

The radius is the largest modulus of an eigenvalue; it is not a norm. Letters: N points, [n, n] each, K pairs of
vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsc_ext import _C, ops
from lsc_ext.operator import ConcatenatedOperator, ConstantOperator, JacobianOperator, MatrixOperator

METHODS = ("auto", "krylov", "power", "dense")
DENSE_LIMIT = 32  # largest n for which "auto" asks LAPACK
DEFAULT_MATVECS = 600
DEFAULT_POWER_MATVECS = 128
FROBENIUS_LIMIT, FROBENIUS_SAMPLE = 1024, 256
_GROWTH_FILTER, _GROWTH_STEPS = 32, 16


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
        population: points that each layer has; the measured ones may be fewer.
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
        1 - measured / all, so 0 where every point was measured. Cochran, Sampling Techniques, 1977, ch. 9 and 2.
        """
        radius = self.radius.detach()
        if radius.dim() < 2 or self.population is None:
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
        if measured > 0 and measured == layers * self.population:
            return radius.new_zeros(())
        if clusters < 2:
            return radius.new_tensor(float("nan"))
        correction = 1 - measured / (layers * self.population)
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

    def reshape(self, *shape: int) -> RadiusEstimate:
        """Every tensor in another shape."""
        names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
        marks = self.growth_gradient
        return replace(
            self,
            growth_gradient=marks.view(shape) if marks.numel() == self.radius.numel() else marks,
            **{name: getattr(self, name).reshape(shape) for name in names},
        )


def seed_from(generator: torch.Generator | None) -> int:
    """One 64-bit seed (63 bits used) from a generator, torch's default one where None."""
    return int(torch.randint(2**63 - 1, (1,), generator=generator, dtype=torch.int64))


def check_options(method: str, num_matvecs: int | None, tol: float) -> None:
    """Raises ValueError for an unknown method, num_matvecs < 1 or tol outside (0, 1)."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if num_matvecs is not None and num_matvecs < 1:
        raise ValueError(f"num_matvecs: expected at least 1, got {num_matvecs}")
    if not 0 < tol < 1:
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
            128 products, no bound), "dense" (LAPACK), or "auto": a closed form where there is one, dense for n <= 32,
            else krylov.
        num_matvecs: most products of one side; None for 600 (128 for "power").
        tol: relative residual at which a point is called converged.
        generator: draws one seed for the start vectors.

    Returns:
        A :class:`RadiusEstimate` with tensors of shape [...] (or [N]). ``radius`` is differentiable with respect to the
        matrices or the operator's ``parameters``: d rho = Re(conj(lambda) / |lambda| y' dJ x / (y' x)), x and y right
        and left vectors of the same eigenvalue (docs/math/radius-gradient.md).

    Raises:
        ValueError: an option out of range, or matrices that are not square.
        TypeError: another dtype than float32 and float64.
    """
    check_options(method, num_matvecs, tol)
    if isinstance(operator, Tensor):
        matrices = operator
        if matrices.dim() < 2 or matrices.shape[-1] != matrices.shape[-2]:
            raise ValueError(f"matrices: expected shape (..., n, n), got {tuple(matrices.shape)}")
        ops.dtype_name(matrices)
        if matrices.device.type != "cpu":
            raise RuntimeError(
                f"device: expected cpu matrices (this build has no other backend), got {matrices.device}"
            )
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


def _refuse_tangents(operator: JacobianOperator) -> None:
    """A radius has reverse-mode derivatives alone: a tangent would be lost without a word."""
    for parameter in operator.parameters:
        if forward_ad.unpack_dual(parameter).tangent is not None:
            raise NotImplementedError(
                "operator: expected no forward-mode tangents, use reverse mode (backward) instead"
            )


def concatenate(parts: Sequence[RadiusEstimate]) -> RadiusEstimate:
    """Estimates [N_i] side by side."""
    marks = torch.cat([part.growth_gradient for part in parts])
    offset = 0
    for part in parts:  # backward passes to come fill the parts' marks, so these become views of the whole
        count = part.growth_gradient.numel()
        one_for_all = count > 1 and part.growth_gradient.stride(0) == 0  # of a constant Jacobian; marked at its first
        filled: Any = part.growth_gradient._base if one_for_all else part.growth_gradient
        filled.set_(marks[offset : offset + (1 if one_for_all else count)])
        offset += count
    names = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
    joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
    methods = sorted({part.method for part in parts})
    return replace(parts[0], method=" + ".join(methods), growth_gradient=marks, **joined)


def estimate_radius(
    operator: JacobianOperator, method: str, num_matvecs: int | None, tol: float, seed: int
) -> RadiusEstimate:
    """:func:`spectral_radius` of one operator with square Jacobians, options checked, for a given seed."""
    if isinstance(operator, ConstantOperator) and operator.num_points > 0:
        one = estimate_radius(operator.one, method, num_matvecs, tol, seed)
        return one.expand(operator.num_points)
    if method == "auto" and operator.eigenvalues is not None:
        return _from_eigenvalues(operator.eigenvalues)
    if method == "auto":
        exact = "dense" if operator.columns <= DENSE_LIMIT else "krylov"
        method = "closed form" if operator.is_diagonal else exact
    _refuse_tangents(operator)
    differentiable = torch.is_grad_enabled() and any(p.requires_grad for p in operator.parameters)
    budget = num_matvecs or (DEFAULT_POWER_MATVECS if method == "power" else DEFAULT_MATVECS)
    with torch.no_grad():
        if method == "closed form":
            found = _closed_form(operator)
        elif method == "dense":
            found = _dense(operator, tol)
        elif method == "power":
            found = _power(operator, budget, seed)
        else:
            found = _krylov(operator, budget, tol, seed, differentiable)
    operator.release()
    estimate = found.estimate
    if not differentiable:
        return estimate
    estimate = replace(estimate, growth_gradient=torch.zeros(operator.num_points, dtype=torch.bool))
    problem = _GradientProblem(operator, found, estimate, budget, tol, seed)
    return replace(estimate, radius=_Radius.apply(problem, *operator.parameters))  # type: ignore[no-untyped-call]


@dataclass
class _Found:
    """An estimate and, where they are known, its vectors as [N, 2, n]: real part, imaginary part."""

    estimate: RadiusEstimate
    right: Tensor | None = None
    left: Tensor | None = None


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _krylov(operator: JacobianOperator, budget: int, tol: float, seed: int, vectors: bool) -> _Found:
    estimate, right = _run_krylov(operator, budget, tol, seed, vectors=vectors)
    return _Found(estimate, right)


def _run_krylov(
    operator: JacobianOperator,
    budget: int,
    tol: float,
    seed: int,
    *,
    vectors: bool,
    index: Tensor | None = None,
    targets: Tensor | None = None,
) -> tuple[RadiusEstimate, Tensor | None]:
    """The compiled iteration; with ``targets`` [K] complex, the left vectors nearest to them at points ``index``."""
    count = operator.num_points if index is None else index.shape[0]
    radius, residual, condition = (torch.empty(count, dtype=torch.float64) for _ in range(3))
    eigenvalue = torch.empty(count, dtype=torch.complex128)
    num_matvecs, status = torch.empty(count, dtype=torch.int32), torch.empty(count, dtype=torch.uint8)
    found = torch.zeros(count, 2, operator.columns, dtype=operator.dtype) if vectors else None
    goals = None if targets is None else torch.view_as_real(targets.to(torch.complex128)).contiguous()
    wanted = None if index is None else index.contiguous()
    out = _C.ResultBuffers(
        ops.buffer(radius),
        (eigenvalue.data_ptr(), 2 * count),
        ops.buffer(residual),
        ops.buffer(condition),
        ops.buffer(num_matvecs),
        ops.buffer(status),
        None if found is None else ops.buffer(found),
    )
    operator.compiled.radii(
        tol,
        budget,
        seed,
        None if wanted is None else ops.buffer(wanted),
        count,
        None if goals is None else ops.buffer(goals),
        targets is not None,
        out,
        torch.get_num_threads(),
    )
    dtype = operator.dtype
    estimate = RadiusEstimate(
        radius.to(dtype),
        residual.to(dtype),
        status,
        num_matvecs,
        eigenvalue.to(_complex(dtype)),
        condition.to(dtype),
        "krylov",
    )
    return estimate, found


def _from_eigenvalues(values: Tensor) -> RadiusEstimate:
    """All eigenvalues [N, k] are known, as differentiable functions of the parameters."""
    count, dtype = values.shape[0], values.real.dtype
    moduli = values.abs()
    radius = moduli.amax(dim=1) if values.shape[1] else moduli.new_zeros(count)
    with torch.no_grad():
        largest = moduli.argmax(dim=1, keepdim=True) if values.shape[1] else None
        leading = radius if largest is None else values.gather(1, largest).squeeze(1)
        leading = leading.to(_complex(dtype))
        finite = radius.isfinite()
        zero = torch.where(finite, torch.zeros_like(radius), torch.full_like(radius, float("nan")))
    return RadiusEstimate(
        torch.where(finite, radius, torch.full_like(radius, float("nan"))),
        zero,
        torch.where(finite, Status.converged.value, Status.nonfinite.value).to(torch.uint8),
        torch.zeros(count, dtype=torch.int32),
        torch.where(leading.imag < 0, leading.conj(), leading),
        zero + 1,
        "closed form",
        growth_gradient=torch.zeros(count, dtype=torch.bool),
    )


def _closed_form(operator: JacobianOperator) -> _Found:
    """A diagonal Jacobian: J 1 is its diagonal."""
    count, n, dtype = operator.num_points, operator.columns, operator.dtype
    diagonal = operator.matvec(torch.ones(count, n, dtype=dtype))
    finite = diagonal.isfinite().all(dim=1)
    radius, where = diagonal.abs().max(dim=1) if n else (diagonal.new_zeros(count), None)
    right = torch.zeros(count, 2, n, dtype=dtype)
    value = diagonal.new_zeros(count)
    if where is not None:
        right[torch.arange(count), 0, where] = 1
        value = diagonal.gather(1, where.unsqueeze(1)).squeeze(1)
    nan = torch.full_like(radius, float("nan"))
    estimate = RadiusEstimate(
        torch.where(finite, radius, nan),
        torch.where(finite, torch.zeros_like(radius), nan),
        torch.where(finite, Status.converged.value, Status.nonfinite.value).to(torch.uint8),
        torch.ones(count, dtype=torch.int32),
        torch.where(finite, value, nan).to(_complex(dtype)),
        torch.where(finite, torch.ones_like(radius), nan),
        "closed form",
    )
    return _Found(estimate, right, right)


def _dense(operator: JacobianOperator, tol: float) -> _Found:
    """LAPACK in float64 on the matrices themselves. The residual is LAPACK's backward error, of the order of n eps."""
    matrices = operator.to_dense()
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
        best = values.abs().argmax(dim=1)
        value, right = values[rows, best], vectors[rows, :, best]
        values_left, vectors_left = torch.linalg.eig(usable.mT)
        nearest = (values_left - value[:, None]).abs().argmin(dim=1)
        left = vectors_left[rows, :, nearest]
        condition = 1 / (left * right).sum(1).abs()
        backward = eps * torch.linalg.matrix_norm(usable)
        residual = torch.where(backward == 0, 0.0, backward / value.abs())
    flip = value.imag < 0
    value, right, left = (torch.where(flip.view(-1, *[1] * (z.dim() - 1)), z.conj(), z) for z in (value, right, left))
    certain = (residual < tol) & ((residual == 0) | (residual * condition < tol))
    status = torch.where(certain, Status.converged.value, Status.ill_conditioned.value)
    status = torch.where(finite, status, Status.nonfinite.value).to(torch.uint8)
    masked = [torch.where(finite, z, nan).to(dtype) for z in (value.abs(), residual, condition)]
    estimate = RadiusEstimate(
        masked[0],
        masked[1],
        status,
        torch.full((count,), n, dtype=torch.int32),
        torch.where(finite, value, nan.to(torch.complex128)).to(_complex(dtype)),
        masked[2],
        "dense",
    )
    return _Found(estimate, _split(right, dtype), _split(left, dtype))


def _split(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.stack((vectors.real, vectors.imag), dim=1).to(dtype)


def _power(operator: JacobianOperator, budget: int, seed: int) -> _Found:
    """Geometric mean of the growth over the last half of the steps."""
    v = _normal(operator, seed)
    half = budget // 2
    log_growth = torch.zeros(operator.num_points, dtype=torch.float64)
    dead = torch.zeros(operator.num_points, dtype=torch.bool)
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
        torch.full((operator.num_points,), budget, dtype=torch.int32),
        nan.to(_complex(dtype)),
        nan.to(dtype),
        "power",
    )
    return _Found(estimate)


def _normal(operator: JacobianOperator, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(operator.num_points, operator.columns, generator=generator, dtype=torch.float64)
    return v.to(operator.dtype)


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
    _refuse_tangents(operator)
    dtype, count = operator.dtype, operator.num_points
    short = min(operator.rows, operator.columns)
    positions = torch.arange(short)
    if short > FROBENIUS_LIMIT:
        positions = torch.randperm(short, generator=torch.Generator().manual_seed(seed))[:FROBENIUS_SAMPLE]
    used = positions.shape[0]
    with torch.no_grad():
        size, squares = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
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
        torch.full((count,), used, dtype=torch.int32),
        nan.to(_complex(dtype)),
        torch.where(finite, torch.ones_like(radius), nan),
        "frobenius" if used == short else f"frobenius, {used} of {short}",
        growth_gradient=torch.zeros(count, dtype=torch.bool),
    )
    if not (torch.is_grad_enabled() and any(p.requires_grad for p in operator.parameters)):
        return estimate
    problem = _FrobeniusProblem(operator, estimate, positions)
    return replace(estimate, radius=_Radius.apply(problem, *operator.parameters))  # type: ignore[no-untyped-call]


def _unit_products(operator: JacobianOperator, positions: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """(unit vectors, their products, whether transposed) at positions along the shorter side of J."""
    transpose = operator.rows < operator.columns
    count, short = operator.num_points, min(operator.rows, operator.columns)
    for i in positions.tolist():
        unit = torch.zeros(count, short, dtype=operator.dtype)
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
        index = torch.arange(self.operator.num_points)
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


@dataclass
class _GradientProblem:
    """What the backward pass needs; the left vectors are computed there, when it is known that they are wanted."""

    operator: JacobianOperator
    found: _Found
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
            none = torch.zeros(0, self.operator.columns, dtype=self.operator.dtype)
            return none, none, index
        return torch.cat(lefts), torch.cat(rights), torch.cat(points)

    def _eigenvector_pairs(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which points have left and right vectors of one eigenvalue; u and x [K, 2, n] of all K points."""
        assert self.found.right is not None
        right = torch.view_as_complex(self.found.right[index].double().movedim(1, -1).contiguous())
        value = self.estimate.eigenvalue[index].to(torch.complex128)
        if self.found.left is not None:
            left = torch.view_as_complex(self.found.left[index].double().movedim(1, -1).contiguous())
            agreed = torch.ones(index.shape[0], dtype=torch.bool)
            residual = torch.zeros(index.shape[0], dtype=torch.float64)
        else:
            known = value.isfinite() & (torch.linalg.vector_norm(right, dim=1) > 0)
            estimate, vectors = _run_krylov(
                self.operator,
                self.budget,
                self.tol,
                self.seed + 1,
                vectors=True,
                index=index,
                targets=torch.where(known, value, torch.zeros_like(value)),
            )
            assert vectors is not None
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
        return agreed, _split(scaled, self.operator.dtype), _split(right, self.operator.dtype)

    def _growth_pairs(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The relative derivative of (|J^k v| / |v|)^(1/k), v held fixed, times the radius: k pairs for each point."""
        v = _normal(self.operator, self.seed + 2)[index]
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
    def forward(ctx: Any, problem: _GradientProblem | _FrobeniusProblem, *parameters: Tensor) -> Tensor:
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
