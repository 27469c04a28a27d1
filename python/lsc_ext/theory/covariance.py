"""How radii of one time step go with those of another, over the sequences of a batch.

Letters: T time steps, B sequences.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lsc_ext.estimate import RadiusEstimate

_NODES = 128


class CovarianceDecay(NamedTuple):
    """For each kept step, against the reference step. All tensors [..., T - skip], float64.

    Attributes:
        covariance: over sequences, with B - 1.
        correlation: Pearson's r; NaN where the radii of a step are all the same.
        p_value: two-sided, of no correlation between normal numbers; NaN where r is.
    """

    covariance: Tensor
    correlation: Tensor
    p_value: Tensor


def sequences_of(radii: Tensor | RadiusEstimate, least: int) -> Tensor:
    """Radii [..., T, B] as float64 without a gradient, B at least ``least``.

    Raises:
        ValueError: too few dimensions, steps or sequences, radii that are not finite, or a report that sampled points.
        TypeError: neither a tensor nor an estimate.
    """
    if isinstance(radii, RadiusEstimate):
        if radii.index is not None:
            raise ValueError("radii: expected those of all points, got a sample; measure without max_points")
        radii = radii.radius
    if not isinstance(radii, Tensor):
        raise TypeError(f"radii: expected a tensor or a RadiusEstimate, got {type(radii).__name__}")
    if radii.dim() < 2 or radii.shape[-1] < least or radii.shape[-2] < 1:
        raise ValueError(f"radii: expected shape (..., T, B) with at least {least} sequences, got {tuple(radii.shape)}")
    values = radii.detach().double()
    if not bool(values.isfinite().all()):
        raise ValueError("radii: expected finite numbers, got NaN or infinity")
    return values


def covariance_decay(radii: Tensor | RadiusEstimate, *, reference: int | None = None, skip: int = 0) -> CovarianceDecay:
    """Covariance and correlation of each step's radii with those of one step, as the distance in time grows.

    The law of large numbers behind the mean radius needs covariances that decay with the distance of two factors.

    Args:
        radii: [..., T, B], such as ``report["time"]`` of :func:`lsc_ext.radii` without ``max_points`` or its ``radius``
            [L, T, B].
        reference: number of the step to compare with, counted from 0 before any are skipped; None for the first kept.
        skip: how many of the first steps to leave out, while states settle.

    Raises:
        ValueError: fewer than three sequences, radii that are not finite or a sample, or a step that is not there.
        TypeError: ``radii`` is neither a tensor nor an estimate.
    """
    values = sequences_of(radii, 3)
    steps, count = values.shape[-2:]
    if not 0 <= skip < steps:
        raise ValueError(f"skip: expected 0 to {steps - 1}, got {skip}")
    reference = skip if reference is None else reference
    if not skip <= reference < steps:
        raise ValueError(f"reference: expected {skip} to {steps - 1}, got {reference}")
    kept = values[..., skip:, :]
    centred = kept - kept.mean(-1, keepdim=True)
    # Radii that are equal up to rounding have no correlation.
    varies = centred.abs().amax(-1) > 1e-12 * kept.abs().amax(-1)
    anchor = centred[..., reference - skip, :].unsqueeze(-2)
    covariance = (centred * anchor).sum(-1) / (count - 1)
    sizes = torch.linalg.vector_norm(centred, dim=-1)
    unit = sizes * sizes[..., reference - skip].unsqueeze(-1)
    known = varies & varies[..., reference - skip].unsqueeze(-1)
    correlation = torch.where(known, (covariance * (count - 1) / unit).clamp(-1, 1), math.nan)
    return CovarianceDecay(covariance, correlation, _p_value(correlation, count))


def _p_value(correlation: Tensor, count: int) -> Tensor:
    """P(|r| at least as large) for independent normal numbers, ``count`` pairs.

    r = sin u has a density proportional to cos(u)^m in u, m = count - 3 (Fisher, Biometrika 10, 1915). The tail is
    integrated by Gauss-Legendre, up to where the density has fallen by e^-80.
    """
    power = count - 3
    nodes, weights = (torch.from_numpy(z) for z in np.polynomial.legendre.leggauss(_NODES))
    low = correlation.abs().asin()
    fall = math.exp(-80 / power) if power > 0 else 0.0
    high = (low.cos() * fall).clamp(max=1).acos()
    half = ((high - low) / 2).unsqueeze(-1)
    angle = low.unsqueeze(-1) + half * (nodes + 1)
    tail = ((angle.cos().clamp(min=0).pow(power) * half) @ weights.unsqueeze(-1)).squeeze(-1)
    log_half = math.lgamma(0.5) + math.lgamma((power + 1) / 2) - math.lgamma(power / 2 + 1) - math.log(2)
    return (tail / math.exp(log_half)).clamp(max=1)
