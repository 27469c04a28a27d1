"""Autocorrelations of data, and exponentials through them.

Letters: R autocorrelation, d lag, L lags, T steps, D features, K exponentials w rho^d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext.nn.arguments import check_int

_ITERATIONS = 200


def autocorrelation(
    x: Tensor, num_lags: int, *, biased: bool = False, remove_mean: bool = False, per_feature: bool = False
) -> Tensor:
    """R(d) = mean of x[t] x[t + d] for d = 0 .. num_lags - 1, by FFT.

    Args:
        x: data [T, ..], time first, as inputs of a network are; the last dimension is that of features.
        num_lags: L, at most T.
        biased: divide by T at every lag, which keeps R positive definite, instead of by the T - d pairs there are.
        remove_mean: subtract the mean over time of every sequence and feature first. The moments of this package are
            for R with the mean in it, which counts as a constant: a term of rho = 1.
        per_feature: a row for each feature instead of the mean over all.

    Returns:
        float64 [L], or [D, L] with ``per_feature``; in units of x^2. :class:`Lags` takes the former as it is.

    Raises:
        ValueError: too few steps, no data, or numbers that are not finite.
        TypeError: ``x`` is no tensor of real numbers, or ``num_lags`` no int.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"x: expected a tensor of real numbers, got {x.dtype if isinstance(x, Tensor) else type(x)}")
    check_int("num_lags", num_lags, 1)
    if x.dim() < (2 if per_feature else 1) or x.shape[0] < num_lags or x.numel() == 0:
        raise ValueError(f"x: expected shape (T, ..) with at least {num_lags} steps and data, got {tuple(x.shape)}")
    data = x.detach().double()
    if not bool(data.isfinite().all()):
        raise ValueError("x: expected finite numbers, got NaN or infinity")
    if remove_mean:
        data = data - data.mean(0)
    steps = len(data)
    power = torch.fft.rfft(data, 2 * steps, dim=0).abs().square()
    sums = torch.fft.irfft(power, 2 * steps, dim=0)[:num_lags]
    rows = (num_lags, -1, x.shape[-1]) if per_feature else (num_lags, -1, 1)
    kept = sums.reshape(rows).mean(1)  # [L, D], or [L, 1]
    pairs = steps - torch.zeros(num_lags) if biased else steps - torch.arange(num_lags)
    found: Tensor = (kept / pairs.to(kept).unsqueeze(1)).mT.contiguous()
    return found if per_feature else found.squeeze(0)


def fit_exponentials(values: Tensor, count: int = 1, *, white: bool = True) -> list[tuple[float, float]]:
    """The sum of exponentials w rho^d nearest to an autocorrelation in least squares.

    Ratios start from the matrix pencil of the values (Hua and Sarkar, IEEE Transactions on Acoustics, Speech, and
    Signal Processing 38, 1990) and are refined by Levenberg-Marquardt steps, weights being the best for given ratios
    (variable projection).

    Args:
        values: R(0), R(1), .., [L], such as :func:`autocorrelation` finds.
        count: K, how many exponentials.
        white: whether white noise, a term of rho = 0, takes up the rest at lag 0; the others are fitted from lag 1 on.

    Returns:
        (weight, rho) pairs by falling rho, white noise last, as :func:`state_second_moment` takes them; |rho| <= 1.

    Raises:
        ValueError: fewer lags than 2 K (one more with ``white``), or numbers that are not finite.
        TypeError: ``values`` is no vector of real numbers, or ``count`` no int.
    """
    if not isinstance(values, Tensor) or values.is_complex() or values.dim() != 1:
        raise TypeError("values: expected a vector of real numbers")
    check_int("count", count, 1)
    first = 1 if white else 0
    if len(values) < 2 * count + first:
        raise ValueError(f"values: expected at least {2 * count + first} lags for {count} terms, got {len(values)}")
    R = values.detach().double()
    if not bool(R.isfinite().all()):
        raise ValueError("values: expected finite numbers, got NaN or infinity")
    target, lags = R[first:], torch.arange(first, len(R), dtype=torch.float64)
    ratios = _refined(_pencil(target, count), lags, target)
    weights = _weights(ratios, lags, target)
    terms = sorted(zip(weights.tolist(), ratios.tolist(), strict=True), key=lambda term: -term[1])
    if white:
        terms.append((float(R[0] - weights.sum()), 0.0))
    return terms


def _pencil(target: Tensor, count: int) -> Tensor:
    """Ratios of consecutive values in the leading ``count`` directions of their Hankel matrix, [K]."""
    columns = max(count + 1, len(target) // 3) if len(target) > 2 * count else count + 1
    hankel = target.unfold(0, columns, 1)
    leading = torch.linalg.svd(hankel, full_matrices=False).Vh[:count].mT  # [columns, K]
    ratios = torch.linalg.eigvals(torch.linalg.lstsq(leading[:-1], leading[1:], driver="gelsd").solution).real
    # Two that are equal would be one.
    spread: Tensor = ratios.clamp(-0.999, 1.0) - 1e-3 * torch.arange(count) / count
    return spread


def _weights(ratios: Tensor, lags: Tensor, target: Tensor) -> Tensor:
    powers = ratios ** lags.unsqueeze(1)
    found: Tensor = torch.linalg.lstsq(powers, target.unsqueeze(1), driver="gelsd").solution
    return found.squeeze(1)


def _refined(ratios: Tensor, lags: Tensor, target: Tensor) -> Tensor:
    """Levenberg-Marquardt in the ratios, kept in [-1, 1]; the Jacobian is Kaufman's, by projection."""

    def residual(r: Tensor) -> Tensor:
        return target - (r ** lags.unsqueeze(1)) @ _weights(r, lags, target)

    error, damping = residual(ratios), 1e-3
    for _ in range(_ITERATIONS):
        powers = ratios ** lags.unsqueeze(1)
        slopes = lags.unsqueeze(1) * ratios ** (lags - 1).clamp(min=0).unsqueeze(1)
        basis = torch.linalg.qr(powers).Q
        jacobian = slopes * _weights(ratios, lags, target)
        jacobian = jacobian - basis @ (basis.mT @ jacobian)
        normal = jacobian.mT @ jacobian
        ridge = damping * normal.diagonal().clamp(min=1e-300)
        step = torch.linalg.solve(normal + torch.diag(ridge), jacobian.mT @ error)
        tried = (ratios + step).clamp(-1.0, 1.0)
        found = residual(tried)
        if float(found.square().sum()) < float(error.square().sum()):
            moved = float((tried - ratios).abs().max())
            ratios, error, damping = tried, found, damping / 10
            if moved < 1e-15:
                break
        elif damping > 1e12:
            break
        else:
            damping *= 10
    return ratios
