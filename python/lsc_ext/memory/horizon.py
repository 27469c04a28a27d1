"""The same moments a finite number of steps after a state of zero, where |lambda| may be 1 or more.

Letters: T steps, d the distance of two of them, j the age of the later one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext.memory.autocorrelation import Exponentials, Lags
from lsc_ext.memory.eigenvalue import Point


def state_after(x: Point, R: Exponentials | Lags, steps: int) -> Tensor:
    """E |h[T]|^2 = sum over k, l < T of lambda^k conj(lambda)^l R(k - l), in O(T)."""
    age = torch.arange(steps, dtype=torch.float64)
    powers, square = _powers(x, steps)
    return _over_lags(powers, square.cumsum(-1).flip(-1), R, age)


def sensitivity_after(x: Point, R: Exponentials | Lags, steps: int) -> Tensor:
    """E |d h[T] / d lambda|^2 = sum over k, l < T of k l lambda^(k-1) conj(lambda)^(l-1) R(k - l), in O(T)."""
    powers, square = _powers(x, steps)
    lag = torch.arange(steps - 1, dtype=torch.float64)
    age = lag + 1
    square = square[..., : steps - 1]  # |lambda|^(2 (j - 1)) for ages j = 1 .. T-1
    first, second = ((age**power * square).cumsum(-1).flip(-1) for power in (1, 2))
    return _over_lags(powers[..., : steps - 1], second + lag * first, R, lag)


def _powers(x: Point, steps: int) -> tuple[Tensor, Tensor]:
    """lambda^j and |lambda|^(2 j) for j < T, [.., T]."""
    one = torch.ones_like(x.value).unsqueeze(-1)
    powers = torch.cat((one, x.value.unsqueeze(-1).expand(*x.value.shape, steps - 1)), -1).cumprod(-1)
    return powers, powers.real.square() + powers.imag.square()


def _over_lags(powers: Tensor, pairs: Tensor, R: Exponentials | Lags, lag: Tensor) -> Tensor:
    """Sum over lags of R(d) Re lambda^d times the weight of all pairs at that distance, both orders."""
    twice = torch.where(lag == 0, 1.0, 2.0)
    return (R.at(lag) * twice * powers.real * pairs).sum(-1)
