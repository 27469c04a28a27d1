"""Figure 6 of arXiv 2405.21064: the normalised loss of one unit that learns another, in three parametrisations.

Letters: w and v the parameters of modulus and phase; white noise comes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import LogEigenvalue, parameters_of, sensitivity_matrix, unit_landscape
from lsc_ext.paper.curse import TEACHERS
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least

# Ends of w, and of v / pi.
RANGES = {
    "polar": ((0.005, 0.995), (-1.0, 1.0)),
    "exp": ((-9.0, 2.0), (-3.0, math.log10(math.pi))),
    "optimal": ((-2.0, 5.0), (-5.0, 5.0)),
}
ANGLE = math.pi / 100


def loss_landscapes(*, points: int = 97, teachers: Sequence[float] = TEACHERS[::2]) -> dict[str, Any]:
    """Loss and second derivative over w for real eigenvalues, and over v / pi at the teacher's modulus.

    Args:
        points: of every curve.
        teachers: moduli to be learned, between 0 and 1, of which the document has 7; angles are 0, and pi / 100 where
            v moves.
    """
    check_at_least(2, points=points)
    rows, findings = [], []
    for name, (moduli, phases) in RANGES.items():
        w, v = (torch.linspace(*ends, points, dtype=torch.float64) for ends in (moduli, phases))
        curves = [_curve(name, teacher, w, v) for teacher in teachers]
        rows.append({"parametrization": name, "modulus": rounded(w), "phase": rounded(v), "curves": curves})
        last = sensitivity_matrix(
            LogEigenvalue(-math.log(teachers[-1]), ANGLE), 0.0, parametrization=name, normalization="l2"
        )
        real = sensitivity_matrix(teachers[-1], 0.0, parametrization=name, normalization="l2")
        findings.append(
            f"{name}: curvature at {teachers[-1]:g} {float(real[0, 0]):.4g} in w, "
            f"{math.pi**2 * float(last[1, 1]):.4g} in v / pi at the angle pi / 100"
        )
    config = {"points": points, "teachers": [str(teacher) for teacher in teachers]}
    return {"config": config, "rows": rows, "findings": findings}


def _curve(name: str, teacher: float, w: Tensor, v: Tensor) -> dict[str, Any]:
    # An angle that both have does not matter, and the logarithm of none does not exist.
    angle = ANGLE if name == "exp" else 0.0
    start = math.log(ANGLE) if name == "exp" else 0.0
    over_w = unit_landscape(name, w, start, LogEigenvalue(-math.log(teacher), angle))
    turned = LogEigenvalue(-math.log(teacher), ANGLE)
    fixed = parameters_of(name, turned)[0]
    over_v = unit_landscape(name, fixed, math.pi * v, turned)
    return {
        "teacher": teacher,
        "loss_by_modulus": rounded(over_w.loss),
        "curvature_by_modulus": rounded(over_w.modulus),
        "loss_by_phase": rounded(over_v.loss),
        "curvature_by_phase": rounded(math.pi**2 * over_v.phase),
    }
