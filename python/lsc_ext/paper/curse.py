"""Figure 1 of arXiv 2405.21064: sensitivity against memory, and the loss of one unit that learns another.

Letters: lambda the eigenvalue, rho the ratio of the input's autocorrelation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lsc_ext.memory import sensitivity_second_moment, state_second_moment, unit_loss
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least

RHOS = (0.0, 0.9, 0.99, 0.999, 1.0)
TEACHERS = (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99)


def memory_curse(
    *, points: int = 121, rhos: Sequence[float] = RHOS, teachers: Sequence[float] = TEACHERS
) -> dict[str, Any]:
    """E (d h / d lambda)^2 over lambda = 1 - 10^-u, u from 0 to 4; losses over the modulus, and over the angle.

    Args:
        points: of every curve.
        rhos: inputs of the first panel; the losses are those of white noise.
        teachers: eigenvalues to be learned, real, between 0 and 1.
    """
    check_at_least(2, points=points)
    digits = torch.linspace(0, 4, points, dtype=torch.float64)
    lam = 1 - 10**-digits
    modulus = torch.linspace(0, 1, points + 1, dtype=torch.float64)[:-1]
    angle = torch.linspace(-math.pi, math.pi, points, dtype=torch.float64)
    curves = [{"rho": rho, "sensitivity": rounded(sensitivity_second_moment(lam, rho))} for rho in rhos]
    losses = []
    for teacher in teachers:
        turned = torch.polar(torch.full_like(angle, teacher), angle)
        losses.append(
            {
                "teacher": teacher,
                "by_modulus": rounded(unit_loss(modulus, teacher)),
                "by_angle": rounded(unit_loss(turned, teacher)),
                "curvature": float(sensitivity_second_moment(teacher, 0.0)),
            }
        )
    ends = [f"{float(sensitivity_second_moment(0.9999, rho)):.3g} at rho = {rho:g}" for rho in rhos]
    return {
        "config": {"points": points, "rhos": [str(rho) for rho in rhos], "teachers": [str(z) for z in teachers]},
        "digits": rounded(digits),
        "modulus": rounded(modulus),
        "angle": rounded(angle),
        "state": rounded(state_second_moment(lam, 1.0)),
        "sensitivities": curves,
        "losses": losses,
        "findings": [
            f"lambda = 0.9999: E (d h / d lambda)^2 is {', '.join(ends)}",
            f"E h^2 is {float(state_second_moment(0.9999, 1.0)):.3g} there at rho = 1",
            "curvature at the teacher: "
            + ", ".join(f"{loss['curvature']:.3g} for {loss['teacher']:g}" for loss in losses),
        ],
    }
