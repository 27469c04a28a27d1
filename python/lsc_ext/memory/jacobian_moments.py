"""Mean squares on and off the diagonal of a batch of matrices, from their columns or from products with random signs.

Letters: J [n, n], B of them; v [m, n] probes, x = v o (J v) their estimates of the diagonal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Powers of two between which numbers and their squares are far from the ends of float64.
_RANGE = 400


def exact_moments(columns: Tensor, exponents: Tensor, pairs: Tensor) -> dict[str, Tensor]:
    """Of matrices whose column k is ``columns[:, k] 2^exponents[:, k]``.

    Args:
        columns: [B, n, n] float64.
        exponents: [B, n] int64.
        pairs: (i, j) of entries to look up, [K, 2].

    Returns:
        The fields of :class:`lsc_ext.memory.JacobianMass` by name, [B], [B, n] or [B, K].
    """
    scaled, unit = _in_one_unit(columns, exponents)
    J = scaled.mT
    size = J.shape[-1]
    diagonal = J.diagonal(dim1=1, dim2=2)
    off = J - torch.diag_embed(diagonal)
    finite = J.isfinite().flatten(1).all(dim=1)
    whole = torch.where(finite[:, None, None], J, 0.0)
    nothing = torch.full((len(J),), math.nan, dtype=torch.float64)
    return {
        "log_scale": unit,
        "diagonal": diagonal.clone(),
        "diagonal_mean": diagonal.mean(1),
        "diagonal_square": diagonal.square().mean(1),
        "off_diagonal_square": off.square().sum((1, 2)) / max(size * (size - 1), 1),
        "off_diagonal_max": off.abs().amax((1, 2)),
        "radius": torch.where(finite, torch.linalg.eigvals(whole).abs().amax(1), nothing),
        "gain": torch.where(finite, torch.linalg.matrix_norm(whole, 2), nothing),
        "entries": J[:, pairs[:, 0], pairs[:, 1]],
    }


def probed_moments(probes: Tensor, images: Tensor, exponents: Tensor) -> dict[str, Tensor]:
    """Unbiased estimates from J v = ``images 2^exponents``, and their jackknife standard errors.

    Args:
        probes: v [B, m, n] of random signs, float64.
        images: [B, m, n] float64.
        exponents: [B, m] int64.

    Returns:
        As :func:`exact_moments`, with "_error" behind the name of what has one, and without what probes do not see.
    """
    scaled, unit = _in_one_unit(images, exponents)
    x, squares = probes * scaled, scaled.square().sum(2)  # [B, m, n], [B, m]
    m, size = x.shape[1:]
    sums, sums_of_squares = x.sum(1), x.square().sum(1)  # [B, n]

    def on(s: Tensor, q: Tensor, count: int) -> Tensor:
        """Mean over i of the mean of x_ki x_li over the pairs k != l."""
        return ((s.square() - q) / (count * (count - 1))).mean(-1)

    def off(mean_square: Tensor, total: Tensor) -> Tensor:
        return (total - size * mean_square) / max(size * (size - 1), 1)

    diagonal_square = on(sums, sums_of_squares, m)
    without = on(sums.unsqueeze(1) - x, sums_of_squares.unsqueeze(1) - x.square(), m - 1)  # [B, m], one probe left out
    totals = (squares.sum(1, keepdim=True) - squares) / (m - 1)
    return {
        "log_scale": unit,
        "diagonal": sums / m,
        "diagonal_mean": sums.mean(1) / m,
        "diagonal_mean_error": x.mean(2).std(1) / m**0.5,
        "diagonal_square": diagonal_square,
        "diagonal_square_error": _jackknife(without),
        "off_diagonal_square": off(diagonal_square, squares.mean(1)),
        "off_diagonal_square_error": _jackknife(off(without, totals)),
    }


def _jackknife(without: Tensor) -> Tensor:
    """Standard errors [B] from estimates [B, m], each without one of the draws."""
    m = without.shape[1]
    return ((m - 1) * without.var(1, unbiased=False)).sqrt()


def _in_one_unit(vectors: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """``vectors 2^exponents`` [B, k, n] in units of exp(log_scale), and log_scale [B]: 0 where float64 holds all."""
    lost = torch.iinfo(torch.int64).min // 2
    largest = vectors.abs().amax(2)
    top = torch.where(largest > 0, exponents, lost).amax(1)
    top = torch.where(top == lost, 0, top)
    unit = torch.where(top.abs() <= _RANGE, 0, top)
    powers = torch.exp2((exponents - unit.unsqueeze(1)).double())
    return vectors * powers.unsqueeze(2), unit.double() * math.log(2)
