"""The input of a recurrence as its autocorrelation R(d) = E x[t] x[t + d], means not removed, and what it does to sums.

Letters: R autocorrelation, d lag, rho the ratio of an exponential R(d) = rho^|d|, A(z) = sum over d >= 1 of R(d) z^d,
u(z) = 1 / (1 - rho z), k(x, y) = 1 / (1 - x y), e = 1 - rho^2. [x, y] behind a function is its divided difference
(F(x) - F(y)) / (x - y), or its derivative where x = y.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsc_ext.memory.eigenvalue import Point, one_minus, read_eigenvalue


class Autocorrelation(Protocol):
    """What every kind of autocorrelation gives; all results complex128."""

    def at(self, lags: Tensor) -> Tensor:
        """R at whole lags [T] >= 0, float64 [.., T]."""

    def onesided(self, x: Point) -> Tensor:
        """R(0) + A(x) = E h[t] x[t]."""

    def state(self, x: Point, y: Point) -> Tensor:
        """f(x, y) = (R(0) + A(x) + A(y)) k(x, y), the product of the states of two recurrences."""

    def state_slope(self, x: Point, y: Point) -> Tensor:
        """The derivative of f by its first argument."""

    def difference(self, m: Point, q: Point, y: Point) -> Tensor:
        """The divided difference of f(., y) over m and q."""

    def differences(self, m: Point, q: Point, x: Point, y: Point) -> Tensor:
        """That of f over m and q in its first argument, x and y in its second."""

    def sensitivity(self, x: Point, y: Point) -> Tensor:
        """S(x, y), the derivative of f by both arguments."""


@dataclass(frozen=True)
class Exponentials:
    """R(d) = sum of weight * rho^|d|. rho = 0 is white noise, rho = 1 a constant.

    Attributes:
        terms: pairs of weight and rho, whose |rho| <= 1; tensors broadcast with eigenvalues.
    """

    terms: tuple[tuple[Tensor, Point], ...]

    def at(self, lags: Tensor) -> Tensor:
        """See :class:`Autocorrelation`."""
        return sum_of(w.unsqueeze(-1) * rho.value.real.unsqueeze(-1) ** lags for w, rho in self.terms)

    def onesided(self, x: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        return sum_of(w / one_minus(rho, x) for w, rho in self.terms)

    def state(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`. f = u(x) u(y) (1 + e x y k(x, y)): no two terms cancel as |x y| tends to 1."""
        p, q = x.value * y.value, one_minus(x, y)
        return sum_of(w * (1 + _e(rho) * p / q) / (one_minus(rho, x) * one_minus(rho, y)) for w, rho in self.terms)

    def state_slope(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        p, q = x.value * y.value, one_minus(x, y)
        total = []
        for w, rho in self.terms:
            a, b = one_minus(rho, x), one_minus(rho, y)
            total.append(w * (rho.value + _e(rho) * y.value * (q + p * a) / q.square()) / (a.square() * b))
        return sum_of(total)

    def difference(self, m: Point, q: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`. From f = rho^2 u(x) u(y) + e u(x) u(y) k(x, y) by the product rule."""
        km, kq = 1 / one_minus(m, y), 1 / one_minus(q, y)
        total = []
        for w, rho in self.terms:
            um, uq, uy = (1 / one_minus(rho, z) for z in (m, q, y))
            r = rho.value
            total.append(w * uq * uy * (r**3 * um + _e(rho) * km * (r * um + y.value * kq)))
        return sum_of(total)

    def differences(self, m: Point, q: Point, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`. The product rule once more; equal arguments need no case of their own."""
        kmx, kmy = 1 / one_minus(m, x), 1 / one_minus(m, y)
        kqx, kqy = 1 / one_minus(q, x), 1 / one_minus(q, y)
        total = []
        for w, rho in self.terms:
            um, uq, ux, uy = (1 / one_minus(rho, z) for z in (m, q, x, y))
            r = rho.value
            v = r * um + x.value * kqx
            mixed = r * ux * uy * kmx * v + uy * kmy * (m.value * kmx * v + kqx * kqy)
            total.append(w * uq * (r**4 * um * ux * uy + _e(rho) * mixed))
        return sum_of(total)

    def sensitivity(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`.

        S = (q^3 + e p (q (q + w) + 2 a b)) / (q^3 a^2 b^2), p = x y, q = 1 - p, w = 1 - rho^2 p, a = 1 - rho x, b = 1 -
        rho y. For y the conjugate of x every term is positive, so that nothing cancels.
        """
        p, q = x.value * y.value, one_minus(x, y)
        total = []
        for w, rho in self.terms:
            ab = one_minus(rho, x) * one_minus(rho, y)
            both = q + one_minus(rho, rho, x, y)
            total.append(w * (1 + _e(rho) * p * (both / q.square() + 2 * ab / q**3)) / ab.square())
        return sum_of(total)


@dataclass(frozen=True)
class Lags:
    """R(0), R(1), .., such as :func:`lsc_ext.memory.autocorrelation` measures; 0 beyond the last.

    Attributes:
        values: [L] float64.

    Raises:
        ValueError: no vector, none in it, or not finite.
    """

    values: Tensor

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.values, dtype=torch.float64)
        if values.dim() != 1 or values.numel() == 0:
            raise ValueError(f"values: expected shape (L,) with at least one lag, got {tuple(values.shape)}")
        if not bool(values.isfinite().all()):
            raise ValueError("values: expected finite numbers, got NaN or infinity")
        object.__setattr__(self, "values", values)

    def at(self, lags: Tensor) -> Tensor:
        """See :class:`Autocorrelation`."""
        known = lags < len(self.values)
        return torch.where(known, self.values[torch.where(known, lags, 0).long()], 0.0)

    def _sum(self, x: Point) -> Tensor:
        """A(x), by Horner's rule."""
        total = torch.zeros_like(x.value)
        for r in self.values[1:].flip(0):
            total = (total + r) * x.value
        return total

    def _difference(self, x: Point, y: Point) -> Tensor:
        """A[x, y]: Horner's rule at x over the quotient that Horner's rule leaves at y."""
        quotient = total = torch.zeros_like(x.value * y.value)
        for r in self.values[1:].flip(0):
            quotient = quotient * y.value + r
            total = total * x.value + quotient
        return total

    def onesided(self, x: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        return self.values[0] + self._sum(x)

    def state(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        return (self.values[0] + self._sum(x) + self._sum(y)) / one_minus(x, y)

    def state_slope(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        return self.difference(x, x, y)

    def difference(self, m: Point, q: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        km, kq = 1 / one_minus(m, y), 1 / one_minus(q, y)
        return km * (self._difference(m, q) + (self.onesided(q) + self._sum(y)) * y.value * kq)

    def differences(self, m: Point, q: Point, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        kmx, kmy = 1 / one_minus(m, x), 1 / one_minus(m, y)
        kqx, kqy = 1 / one_minus(q, x), 1 / one_minus(q, y)
        at_q, ay, wx = self.onesided(q), self._sum(y), x.value * kqx
        v = self._difference(m, q) + (at_q + self._sum(x)) * wx
        return kmy * (m.value * kmx * v + self._difference(x, y) * wx + (at_q + ay) * kqx * kqy)

    def sensitivity(self, x: Point, y: Point) -> Tensor:
        """See :class:`Autocorrelation`."""
        return self.differences(x, x, y, y)


def _e(rho: Point) -> Tensor:
    return one_minus(rho) * (1 + rho.value)


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(torch.add, terms)


Rho = float | Tensor | Sequence[tuple[float | Tensor, float | Tensor]] | Exponentials | Lags


def read_rho(rho: Rho) -> Exponentials | Lags:
    """``rho`` as functions of this package take it.

    Raises:
        ValueError: |rho| above 1, no term, or a number that is not finite.
        TypeError: of another kind.
    """
    if isinstance(rho, Exponentials | Lags):
        return rho
    if isinstance(rho, bool) or not isinstance(rho, int | float | Tensor | Sequence) or isinstance(rho, str):
        raise TypeError(f"rho: expected a number, a tensor, (weight, rho) pairs or Lags, got {type(rho).__name__}")
    pairs: list[tuple[float | Tensor, float | Tensor]] = (
        [(1.0, rho)] if isinstance(rho, int | float | Tensor) else [*rho]
    )
    if not pairs:
        raise ValueError("rho: expected at least one (weight, rho) pair, got none")
    terms = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"rho: expected (weight, rho) pairs, got {pair!r}")
        weight = torch.as_tensor(pair[0], dtype=torch.float64)
        if not bool(weight.isfinite().all()):
            raise ValueError(f"rho: expected finite weights, got {pair[0]}")
        point = read_eigenvalue("rho", pair[1], inside=False)
        if not point.real or not bool((point.modulus <= 1).all()):
            raise ValueError(f"rho: expected real numbers between -1 and 1, got {pair[1]}")
        terms.append((weight, point))
    return Exponentials(tuple(terms))
