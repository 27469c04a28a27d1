"""What a test of this package, or of code that builds on it, needs: tolerances, a comparison, random matrices.

Letters: C matrices of one kind, [n, n] each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lsc_ext.estimate import Status
from lsc_ext.spectral import spectral_radius

MatrixKind = Callable[[int, int, torch.Generator], Tensor]


class Tolerance(NamedTuple):
    """Largest relative error, |actual - expected| / |expected| in the Frobenius norm, by what is compared."""

    forward: float
    gradient: float
    jacobian: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float32: Tolerance(forward=1e-5, gradient=1e-5, jacobian=1e-5),
    torch.float64: Tolerance(forward=1e-12, gradient=1e-12, jacobian=1e-10),
}

#: Largest relative error of a result on CUDA against a float64 reference, by the precision of its products.
PARITY: dict[str, float] = {"float64": 1e-12, "fp32": 1e-5, "tf32": 1e-3, "fp16": 1e-3, "bf16": 1e-2}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected| in the Frobenius norm, in float64; 0 where both are zero.

    Args:
        actual: [...], real or complex.
        expected: [...], the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"actual: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    wide = torch.complex128 if actual.is_complex() or expected.is_complex() else torch.float64
    a, e = (z.detach().cpu().to(wide).reshape(-1) for z in (actual, expected))
    error, size = (float(torch.linalg.vector_norm(z)) for z in (a - e, e))
    if error == 0:
        return 0.0
    return error / size if size > 0 else math.inf


def assert_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Holds the relative error of ``actual`` [...] against ``expected`` [...] to ``tolerance``.

    Raises:
        AssertionError: the error is larger or not a number; the message has it as a multiple of the tolerance.
        ValueError: the shapes differ.
    """
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise AssertionError(
            f"{name}: relative error {error:.3g} is {error / tolerance:.3g} times the tolerance {tolerance:.3g}"
        )


def matrix_from_eigenvalues(eigenvalues: Tensor, basis: Tensor | None = None) -> Tensor:
    """Real matrices basis D basis^-1 with given eigenvalues, D block diagonal.

    Args:
        eigenvalues: [C, n], real, or complex with each complex pair as neighbours (a + bi, a - bi), b > 0.
        basis: [C, n, n]; None for the identity.

    Returns:
        [C, n, n] float64.

    Raises:
        ValueError: a complex eigenvalue without its conjugate next to it.
    """
    values = eigenvalues.to(torch.complex128)
    real, imag = values.real, values.imag
    matrix = torch.diag_embed(real)
    n = real.shape[-1]
    upper = imag[:, : n - 1] * (imag[:, : n - 1] > 0)
    if n:
        paired = torch.zeros_like(imag)
        paired[:, : n - 1] += upper
        paired[:, 1:] -= upper
        same = (upper == 0) | (real[:, : n - 1] == real[:, 1:])
        if not torch.equal(paired, imag) or not bool(same.all()):
            raise ValueError("eigenvalues: expected complex pairs as neighbours (a + bi, a - bi), got another order")
        matrix = matrix + torch.diag_embed(upper, 1) - torch.diag_embed(upper, -1)
    if basis is None:
        return matrix
    return _similar(matrix, basis)


def _similar(matrix: Tensor, basis: Tensor) -> Tensor:
    transposed: Tensor = torch.linalg.solve(basis.mT, (basis @ matrix).mT)
    return transposed.mT


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _power_of_ten(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.pow(10.0, _uniform(shape, low, high, generator))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _gaussian_unit(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Gaussian matrices of spectral radius about 1."""
    return _normal((count, n, n), generator) / math.sqrt(max(n, 1))


def _gaussian(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Independent normal entries: the circular law, with the gain drawn in (0.3, 3)."""
    gain = _power_of_ten((count, 1, 1), -0.5, 0.5, generator)
    return gain * _gaussian_unit(count, n, generator)


def _orthogonal(count: int, n: int, generator: torch.Generator) -> Tensor:
    factor, upper = torch.linalg.qr(_normal((count, n, n), generator))
    signed: Tensor = factor * upper.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
    return signed


def _orthogonal_masked(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Slopes times orthogonal weights: a quarter all 1, a quarter 0 or 1, the others in (0, 1] with many close to 1."""
    draw = torch.rand(count, n, generator=generator, dtype=torch.float64)
    share = _uniform((count, 1), 0.3, 1.0, generator)
    zero_one = (draw < share).double()
    slope = 1 - draw ** (1 / (1.001 - share))
    choice = torch.randint(4, (count, 1), generator=generator)
    mask = torch.where(choice == 0, torch.ones_like(draw), torch.where(choice == 1, zero_one, slope))
    return mask.unsqueeze(2) * _orthogonal(count, n, generator)


def _gated_cell(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Step Jacobians of a GRU and, every second one, of an LSTM of n // 2 units (an odd n leaves a zero row)."""
    gain = _power_of_ten((count, 1, 1), -0.5, 0.7, generator)

    def weight(size: int) -> Tensor:
        return gain * _gaussian_unit(count, size, generator)

    def gate(size: int) -> Tensor:
        return torch.sigmoid(2 * _normal((count, size, 1), generator) + 2 * _normal((count, 1, 1), generator))

    h, z, r = torch.tanh(_normal((count, n, 1), generator)), gate(n), gate(n)
    candidate = torch.tanh(_normal((count, n, 1), generator))
    change = (1 - z) * (1 - candidate**2)
    gru = torch.diag_embed(z.squeeze(2)) + (h - candidate) * z * (1 - z) * weight(n)
    gru = gru + change * (weight(n) * r.mT + (weight(n) @ h) * r * (1 - r) * weight(n))
    half = n // 2
    c, i, f, o = _normal((count, half, 1), generator), gate(half), gate(half), gate(half)
    g = torch.tanh(_normal((count, half, 1), generator))
    cell = i * (1 - i) * g * weight(half) + f * (1 - f) * c * weight(half) + i * (1 - g**2) * weight(half)
    forget = torch.diag_embed(f.squeeze(2))
    slope = o * (1 - torch.tanh(c) ** 2)
    lstm = torch.zeros_like(gru)
    lstm[:, :half, :half] = o * (1 - o) * torch.tanh(c) * weight(half) + slope * cell
    lstm[:, :half, half : 2 * half] = slope * forget
    lstm[:, half : 2 * half, :half] = cell
    lstm[:, half : 2 * half, half : 2 * half] = forget
    odd = (torch.arange(count) % 2 == 1).view(-1, 1, 1)
    return torch.where(odd & (half > 0), lstm, gru)


def _low_rank(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Products [n, r] [r, n] with r from 1 to n / 3; every second one with a small full-rank part."""
    rank = torch.randint(1, max(n // 3, 1) + 1, (count, 1), generator=generator)
    kept = (torch.arange(n).unsqueeze(0) < rank).double().unsqueeze(1)
    matrix = (_normal((count, n, n), generator) * kept) @ _normal((count, n, n), generator) / max(n, 1)
    noise = _power_of_ten((count, 1, 1), -8, -1, generator) * (torch.arange(count) % 2).view(-1, 1, 1)
    return matrix + noise * _gaussian_unit(count, n, generator)


def _graded(count: int, n: int, generator: torch.Generator) -> Tensor:
    """D1 G D2, the diagonals over up to six decades each; every third one a similarity, D G D^-1, over up to three."""
    width = _uniform((count, 2, 1), 0, 6, generator)
    left, right = (width * (_uniform((count, 2, n), -0.5, 0.5, generator))).unbind(1)
    similar = (torch.arange(count) % 3 == 0).unsqueeze(1)
    left = torch.where(similar, left / 2, left)
    right = torch.where(similar, -left, right)
    body = _gaussian_unit(count, n, generator)
    return torch.pow(10.0, left).unsqueeze(2) * body * torch.pow(10.0, right).unsqueeze(1)


def _near_defective(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Jordan blocks of 2 to 5 at the top, their corner perturbed by 1e-14 to 1e-1; a mild similarity around it."""
    size = torch.randint(2, 6, (count, 1), generator=generator).clamp(max=max(n, 1))
    position = torch.arange(n).unsqueeze(0)
    top = position < size
    rest = _uniform((count, n), -1, 1, generator) * _uniform((count, 1), 0.3, 1, generator)
    sign = torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.0).double()
    matrix = torch.diag_embed(torch.where(top, sign.expand(count, n), rest))
    if n > 1:
        coupling = _power_of_ten((count, 1), -2, 0, generator)
        link = coupling * (position[:, : n - 1] < size - 1)
        matrix = matrix + torch.diag_embed(link, 1)
    corner = _power_of_ten((count,), -14, -1, generator)
    corner = corner * torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    if n:
        matrix[torch.arange(count), size.squeeze(1) - 1, 0] += corner
    return _similarity(matrix, 0.3, generator)


def _triangular(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Upper triangular with the diagonal in (-1, 1); the part above from nearly normal to very non-normal."""
    strength = _power_of_ten((count, 1, 1), -3, 0, generator)
    above = _normal((count, n, n), generator).triu(1)
    return torch.diag_embed(_uniform((count, n), -1, 1, generator)) + strength * above


def _clustered_moduli(count: int, n: int, generator: torch.Generator) -> Tensor:
    """Of the eigenvalues 2 to 24 have moduli within 0.1 to 5 percent of the largest; a mild similarity around them."""
    members = torch.randint(2, 25, (count, 1), generator=generator)
    spread = _power_of_ten((count, 1), -3, math.log10(0.05), generator)
    pairs = n // 2
    top = 1 - spread * torch.rand(count, pairs + 1, generator=generator, dtype=torch.float64)
    rest = _uniform((count, pairs + 1), 0, 0.95, generator)
    modulus = torch.where(torch.arange(pairs + 1).unsqueeze(0) * 2 < members, top, rest)
    angle = _uniform((count, pairs + 1), 0, math.pi, generator)
    real = torch.rand(count, pairs + 1, generator=generator) < 0.15
    values = torch.zeros(count, n, dtype=torch.complex128)
    value = torch.polar(modulus, angle)
    second = torch.where(torch.rand(count, pairs + 1, generator=generator) < 0.5, -1.0, 1.0) * rest
    values[:, 0 : 2 * pairs : 2] = torch.where(real, modulus.to(torch.complex128), value)[:, :pairs]
    values[:, 1 : 2 * pairs : 2] = torch.where(real, second.to(torch.complex128), value.conj())[:, :pairs]
    if n % 2:
        values[:, -1] = modulus[:, -1].to(torch.complex128)
    return _similarity(matrix_from_eigenvalues(values), 0.4, generator)


def _similarity(matrix: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """X A X^-1 with X = Q (I + strength G), G Gaussian of spectral radius about 1."""
    count, n = matrix.shape[0], matrix.shape[-1]
    drawn = strength * _gaussian_unit(count, n, generator)
    basis = _orthogonal(count, n, generator) @ (torch.eye(n, dtype=torch.float64) + drawn)
    return _similar(matrix, basis)


#: Random matrices by kind; each draws [C, n, n] float64 from (C, n, generator).
MATRIX_KINDS: dict[str, MatrixKind] = {
    "gaussian": _gaussian,
    "orthogonal_masked": _orthogonal_masked,
    "gated_cell": _gated_cell,
    "low_rank": _low_rank,
    "graded": _graded,
    "near_defective": _near_defective,
    "triangular": _triangular,
    "clustered_moduli": _clustered_moduli,
}


@dataclass(frozen=True)
class CertificateCounts:
    """How the converged radii of random matrices compare with LAPACK's. Counts add up: ``a + b``.

    Attributes:
        matrices: how many were measured.
        converged: how many of them converged.
        off: converged ones that are off by more than 10 tol, relative.
        far_off: converged ones that are off by more than 5 percent.
        worst: largest relative error of a converged one.
        matvecs: products that each matrix took.
        status: how many ended with each status.
    """

    matrices: int
    converged: int
    off: int
    far_off: int
    worst: float
    matvecs: tuple[int, ...]
    status: dict[str, int]

    def __add__(self, other: CertificateCounts) -> CertificateCounts:
        return CertificateCounts(
            self.matrices + other.matrices,
            self.converged + other.converged,
            self.off + other.off,
            self.far_off + other.far_off,
            max(self.worst, other.worst),
            self.matvecs + other.matvecs,
            {name: count + other.status[name] for name, count in self.status.items()},
        )

    @property
    def median_matvecs(self) -> float:
        """Median of ``matvecs``."""
        return float(torch.tensor(self.matvecs, dtype=torch.float64).median()) if self.matvecs else math.nan


def count_certificate(
    kind: str, count: int, n: int, dtype: torch.dtype, *, seed: int = 0, tol: float = 1e-3
) -> CertificateCounts:
    """Radii of random matrices by the "krylov" method against LAPACK on the same matrices, in float64.

    Args:
        kind: a key of :data:`MATRIX_KINDS`.
        count: how many matrices.
        n: their size, at least 1.
        dtype: float32 or float64; LAPACK sees the matrices after they were rounded to it.
        seed: of the matrices and of the start vectors.
        tol: as for :func:`lsc_ext.spectral_radius`.

    Raises:
        ValueError: an unknown kind.
        TypeError: another dtype.
    """
    if kind not in MATRIX_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(MATRIX_KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    matrices = MATRIX_KINDS[kind](count, n, generator).to(dtype)
    estimate = spectral_radius(matrices, method="krylov", tol=tol, generator=generator)
    expected = torch.linalg.eigvals(matrices.double()).abs().amax(dim=1)
    difference = (estimate.radius.double() - expected).abs()
    error = torch.where(difference == 0, difference, difference / expected)
    error = error[estimate.status == Status.converged].nan_to_num(nan=math.inf)
    return CertificateCounts(
        matrices=count,
        converged=error.numel(),
        off=int((error > 10 * tol).sum()),
        far_off=int((error > 0.05).sum()),
        worst=float(error.max()) if error.numel() else 0.0,
        matvecs=tuple(estimate.num_matvecs.tolist()),
        status=estimate.counts(),
    )
