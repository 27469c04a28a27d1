"""Figure 8 of arXiv 2405.21064: how strongly eigenvalues pull on each other, |S(lambda, lambda0)|.

Letters: lambda = nu exp(i theta) an eigenvalue, lambda0 another, rho the ratio of the input's autocorrelation.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import sensitivity_cross_moment
from lsc_ext.paper.curse import RHOS
from lsc_ext.paper.sequences import check_at_least

OTHER = cmath.rect(0.99, math.pi / 4)


def eigenvalue_coupling(*, points: int = 17, rhos: Sequence[float] = RHOS) -> dict[str, Any]:
    """log10 |S(lambda, lambda0)| for lambda0 = 0.99 exp(i pi/4) over nu up to 0.99 and theta around the circle.

    By the exact formula; that of the paper's notebook is half as large near the peak for 0 < rho < 1.

    Args:
        points: moduli; angles are 2 points + 15, 49 by default, among which are pi/4 and -pi/4.
        rhos: inputs.
    """
    check_at_least(2, points=points)
    modulus = torch.linspace(0, 0.99, points, dtype=torch.float64)
    angle = torch.linspace(-math.pi, math.pi, 2 * points + 15, dtype=torch.float64)
    lam = torch.polar(*torch.broadcast_tensors(modulus.unsqueeze(1), angle))
    maps, findings = [], []
    for rho in rhos:
        size = sensitivity_cross_moment(lam, OTHER, rho).abs()
        peak = float(sensitivity_cross_moment(OTHER.conjugate(), OTHER, rho).abs())
        one = float(sensitivity_cross_moment(0.99, OTHER, rho).abs())
        maps.append({"rho": rho, "log10": _thousandths(size.log10()), "at_conjugate": peak, "at_one": one})
        findings.append(f"rho = {rho:g}: {peak:.4g} at the conjugate of lambda0, {one:.4g} at 0.99")
    return {
        "config": {"points": points, "rhos": [str(rho) for rho in rhos]},
        "modulus": _thousandths(modulus),
        "angle": _thousandths(angle),
        "maps": maps,
        "findings": findings,
    }


def _thousandths(values: Tensor) -> Any:
    return [round(z, 3) for z in values.tolist()] if values.dim() == 1 else [_thousandths(row) for row in values]
