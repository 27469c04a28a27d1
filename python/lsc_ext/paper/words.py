"""Figure 12 of arXiv 2405.21064: the autocorrelation of embedded words, and exponentials through it.

The paper measured it on articles of Wikipedia, embedded by BERT; neither ships with this package. What is measured here
are random sequences of the law that was published.

Letters: R autocorrelation, d lag.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lsc_ext.memory import Lags, autocorrelation, fit_exponentials, state_second_moment, stationary_inputs
from lsc_ext.memory.autocorrelation import Rho
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.sequences import check_at_least

#: (weight, rho) pairs that the paper fits to words, in the digits of its code.
WORDS = ((0.043056426671195004, 0.9970052541497257), (0.332, 0.0))
GATE = 0.99  # of a unit that remembers 100 steps


def word_autocorrelation(
    *, sequences: int = 16, features: int = 768, steps: int = 512, seed: int = 0
) -> dict[str, Any]:
    """R(d) of each sequence, the mean and its standard error, and ``fit_exponentials`` of the mean.

    Args:
        sequences: random ones, at least 2.
        features: of each step, independent of each other.
        steps: of each, at least 4; lags are 0 to steps - 2.
        seed: of the sequences.
    """
    check_at_least(2, sequences=sequences)
    check_at_least(1, features=features)
    check_at_least(4, steps=steps)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(sequences):
        x = stationary_inputs(WORDS, (steps, features), generator=generator, dtype=torch.float64)
        rows.append(autocorrelation(x, steps - 1))
    measured = torch.stack(rows)  # [sequences, lags]
    mean, error = measured.mean(0), measured.std(0) / math.sqrt(sequences)
    lags = torch.arange(steps - 1, dtype=torch.float64)
    law = torch.stack([weight * rho**lags for weight, rho in WORDS]).sum(0)
    (weight, rho), (white, _) = fit_exponentials(mean)
    within = ((mean - law).abs() <= 2 * error).double().mean()
    inputs: dict[str, Rho] = {"published": WORDS, "fitted": ((weight, rho), (white, 0.0)), "measured lags": Lags(mean)}
    moments = {name: float(state_second_moment(GATE, R)) for name, R in inputs.items()}
    return {
        "config": {"sequences": sequences, "features": features, "steps": steps, "seed": seed},
        "law": rounded(law),
        "mean": rounded(mean),
        "standard_error": rounded(error),
        "fit": {"weight": weight, "rho": rho, "white": white},
        "within_two_errors": float(within),
        "moments": moments,
        "findings": [
            f"published: {WORDS[0][0]:.4f} * {WORDS[0][1]:.4f}^d, and {WORDS[1][0]:.3f} more at 0",
            f"fitted to {sequences} random sequences of it: {weight:.4f} * {rho:.4f}^d, and {white:.3f} more at 0",
            f"{100 * float(within):.0f} percent of {len(law)} lags are within two standard errors of the law",
            f"E h^2 of lambda = {GATE:g}: " + ", ".join(f"{value:.4g} by {name}" for name, value in moments.items()),
        ],
    }
