"""Eigenvalues near the unit circle, kept as logarithms so that 1 - lambda does not lose its digits.

Letters: lambda = nu exp(i theta) an eigenvalue, a = -log nu its decay, tau = 1 / (1 - nu) its memory in steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_NEAR = -0.5  # logarithm of the modulus above which 1 - z goes through expm1


@dataclass(frozen=True)
class LogEigenvalue:
    """lambda = exp(-decay + i phase): what to pass for lambda where 1 - |lambda| is below 1e-6 or so.

    A complex number of two floats knows 1 - |lambda| to 1e-16, which is 1e-16 tau of it; this knows 16 digits of it.

    Attributes:
        decay: a = -log |lambda|, above 0 inside the unit circle; a number or a tensor.
        phase: theta in radians, broadcast with ``decay``; None for a real positive lambda.
    """

    decay: float | Tensor
    phase: float | Tensor | None = None

    @classmethod
    def of_memory(cls, tau: float | Tensor, phase: float | Tensor | None = None) -> LogEigenvalue:
        """|lambda| = 1 - 1 / tau.

        Raises:
            ValueError: a memory of 1 step or less.
        """
        steps = torch.as_tensor(tau, dtype=torch.float64)
        if not bool((steps > 1).all()):
            raise ValueError(f"tau: expected more than 1 step, got {tau}")
        return cls(-torch.log1p(-1 / steps), phase)


Eigenvalue = complex | Tensor | LogEigenvalue


class Point(NamedTuple):
    """An eigenvalue as functions of this package compute with it; complex128 tensors of one shape.

    Attributes:
        value: lambda.
        log: its logarithm; far below :data:`_NEAR` where lambda is 0.
        real: whether it was given as a real number.
    """

    value: Tensor
    log: Tensor
    real: bool

    def conj(self) -> Point:
        """That of the complex conjugate."""
        return Point(self.value.conj(), self.log.conj(), self.real)

    def unsqueeze(self, dim: int) -> Point:
        """With one more dimension."""
        return Point(self.value.unsqueeze(dim), self.log.unsqueeze(dim), self.real)

    @property
    def decay(self) -> Tensor:
        """-log |lambda|, float64."""
        return -self.log.real

    @property
    def modulus(self) -> Tensor:
        """|lambda|, float64."""
        return self.value.abs()

    @property
    def phase(self) -> Tensor:
        """Theta, float64."""
        return self.log.imag


def read_eigenvalue(name: str, given: Eigenvalue, *, inside: bool = True) -> Point:
    """``given`` as a point.

    Raises:
        ValueError: not finite, or with ``inside`` a modulus of 1 or more.
        TypeError: neither a number, a tensor, nor a :class:`LogEigenvalue`.
    """
    if isinstance(given, LogEigenvalue):
        point = _from_log(name, given)
    elif isinstance(given, bool) or not isinstance(given, int | float | complex | Tensor):
        raise TypeError(f"{name}: expected a number, a tensor or a LogEigenvalue, got {type(given).__name__}")
    else:
        real = not (given.is_complex() if isinstance(given, Tensor) else isinstance(given, complex))
        value = torch.as_tensor(given, dtype=torch.complex128)
        zero = value == 0
        log = torch.where(zero, -1e3, torch.where(zero, 1.0, value).log())
        point = Point(value, log, real)
    if not bool(point.value.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if inside and not bool((point.decay > 0).all()):
        largest = float(point.value.detach().abs().max())
        raise ValueError(f"{name}: expected moduli below 1, got {largest:.17g}; finite horizons may have more")
    return point


def _from_log(name: str, given: LogEigenvalue) -> Point:
    decay = torch.as_tensor(given.decay, dtype=torch.float64)
    phase = torch.as_tensor(0.0 if given.phase is None else given.phase, dtype=torch.float64)
    if not bool(decay.isfinite().all()) or not bool(phase.isfinite().all()):
        raise ValueError(f"{name}: expected a finite decay and phase, got NaN or infinity")
    log = torch.complex(*torch.broadcast_tensors(-decay, phase))
    return Point(log.exp(), log, given.phase is None)


def complex_expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 for complex128 z, without cancellation at 0 or at the multiples of 2 pi i that floats can tell."""
    x, y = z.real, z.imag
    return torch.complex(x.expm1() * y.cos() - 2 * (y / 2).sin().square(), x.exp() * y.sin())


def one_minus(*factors: Point) -> Tensor:
    """1 minus the product of eigenvalues, complex128, to rounding however close the product is to 1."""
    log, value = factors[0].log, factors[0].value
    for factor in factors[1:]:
        log, value = log + factor.log, value * factor.value
    near = log.real > _NEAR
    return torch.where(near, -complex_expm1(torch.where(near, log, -1.0)), 1 - value)


def difference(first: Point, second: Point) -> Tensor:
    """First minus second, complex128, to rounding where they are close to each other and to the unit circle."""
    log = first.log - second.log
    near = (log.real.abs() < -_NEAR) & (second.log.real > 2 * _NEAR)
    through_log = second.value * complex_expm1(torch.where(near, log, 0.0))
    return torch.where(near, through_log, first.value - second.value)


def real_where_real(value: Tensor, *points: Point) -> Tensor:
    """The real part where all that it was computed from was real."""
    return value.real if all(point.real for point in points) else value
