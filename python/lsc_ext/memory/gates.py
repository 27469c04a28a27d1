"""A gate that is constant: h[t+1] = z h[t] + (1 - z) x[t+1], z = sigmoid(b), which LSTM and GRU units are at rest.

The weight 1 - z of the input normalises the state, and z (1 - z) = d z / d b its sensitivity. arXiv 2405.21064, section
on gated networks; what the paper's notebook draws as the sensitivity to b has two terms too many (docs/math/memory.md).

Letters: z the gate, b its bias, f and S the moments of the recurrence without the weight, f' the slope of f.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lsc_ext.memory.autocorrelation import Rho, read_rho
from lsc_ext.memory.eigenvalue import Eigenvalue, one_minus, read_eigenvalue


class GatedMoments(NamedTuple):
    """Float64 tensors of the broadcast shape.

    Attributes:
        state: E h^2, at most E x^2.
        sensitivity: E (d h / d b)^2.
    """

    state: Tensor
    sensitivity: Tensor


def gated_second_moments(gate: Eigenvalue, rho: Rho) -> GatedMoments:
    """E h^2 = (1 - z)^2 f and E (d h / d b)^2 = (z (1 - z))^2 (f - 2 (1 - z) f' + (1 - z)^2 S).

    Args:
        gate: z, a real number or tensor in [0, 1), or a :class:`LogEigenvalue` without phase: the update gate of a GRU
            that keeps the old state at 1, the forget gate of an LSTM whose input gate is 1 minus it.
        rho: as :func:`state_second_moment` has it, of the candidate state.

    Returns:
        Both, differentiable. The error of the sensitivity is that of rounding relative to the state's moment.

    Raises:
        ValueError: a gate out of range or complex, |rho| > 1, or numbers that are not finite.
        TypeError: an argument of another kind.
    """
    z = read_eigenvalue("gate", gate)
    if not z.real or not bool((z.value.real >= 0).all()):
        raise ValueError("gate: expected real numbers in [0, 1), got complex or negative ones")
    R, open_ = read_rho(rho), one_minus(z)
    state = open_.square() * R.state(z, z)
    change = open_.square() * (open_.square() * R.sensitivity(z, z) - 2 * open_ * R.state_slope(z, z)) + state
    return GatedMoments(state.real, (z.value.square() * change).real)
