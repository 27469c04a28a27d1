"""Figure 2 of arXiv 2405.21064: normalised states, and their sensitivity to the parameter of an exponential.

Letters: lambda = exp(-exp(w)) the eigenvalue, rho the ratio of the input's autocorrelation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lsc_ext.memory import (
    input_normalization,
    sensitivity_matrix,
    sensitivity_second_moment,
    state_second_moment,
)
from lsc_ext.paper.curse import RHOS
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least


def tamed_memory(*, points: int = 121, rhos: Sequence[float] = RHOS) -> dict[str, Any]:
    """E |gamma h|^2, and E |d (gamma h) / d w|^2 with gamma a parameter of its own, over lambda = 1 - 10^-u.

    Args:
        points: of every curve; u from 0.01 to 4.
        rhos: inputs.
    """
    check_at_least(2, points=points)
    digits = torch.linspace(0.01, 4, points, dtype=torch.float64)
    lam = 1 - 10**-digits
    options = {"parametrization": "exp", "normalization": "l2"}
    curves = []
    for rho in rhos:
        learned = sensitivity_matrix(lam, rho, learned=True, **options)[:, 0, 0]  # type: ignore[arg-type]
        following = sensitivity_matrix(lam, rho, **options)[:, 0, 0]  # type: ignore[arg-type]
        state = input_normalization(lam).square() * state_second_moment(lam, rho)
        curves.append(
            {"rho": rho, "state": rounded(state), "learned": rounded(learned), "following": rounded(following)}
        )
    return {
        "config": {"points": points, "rhos": [str(rho) for rho in rhos]},
        "digits": rounded(digits),
        "bare_state": rounded(state_second_moment(lam, 1.0)),
        "bare_sensitivity": rounded(sensitivity_second_moment(lam, 1.0)),
        "curves": curves,
        "findings": [
            f"rho = {curve['rho']:g}, lambda = 0.9999: E |gamma h|^2 is {curve['state'][-1]:.4g}, the sensitivity "
            f"{curve['learned'][-1]:.4g}, {curve['following'][-1]:.4g} where gamma follows lambda"
            for curve in curves
        ],
    }
