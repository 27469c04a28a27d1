"""LIF and ALIF: leaky integrate-and-fire neurons, the second with a threshold that adapts.

    a' = r a + (1 - r) z          what the neuron's own spikes raise the threshold by
    v' = d v + i - [(thr + beta a') z]    [.] passes no derivative: the reset is data
    z' = 1 where v' > thr + beta a', else 0

The derivative of a spike is a surrogate, 0.5 / (1 + 2 |v - thr - beta a|)^2. z follows from v and a, so the Jacobians
are those of (v, a) with the path through z inside. arXiv 2308.12075; without a, LIF.
"""

import torch
from torch import Tensor

from lsc_ext.cells._base import Cell, Tensors, UnitParameter


def spike(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; its derivative is 0.5 / (1 + 2 |x|)^2."""
    soft = 0.5 * x / (1 + 2 * x.abs())
    fired = torch.where(x.isnan(), x, (x > 0).to(x.dtype)).detach()
    return fired + (soft - soft.detach())


def _lif_spike(states: Tensors, unit: Tensors) -> Tensor:
    return spike(states[0] - unit[1])


def _lif_step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    (z, v), (decay, threshold) = states, unit
    v = decay * v + input_gates[0] + recurrent_gates[0] - (threshold * z).detach()
    return _lif_spike((v,), unit), v


def _alif_spike(states: Tensors, unit: Tensors) -> Tensor:
    return spike(states[0] - (unit[2] + unit[3] * states[1]))


def _alif_step(input_gates: Tensors, recurrent_gates: Tensors, states: Tensors, unit: Tensors) -> Tensors:
    (z, v, a), (decay, adaptation_decay, threshold, beta) = states, unit
    a = adaptation_decay * a + (1 - adaptation_decay) * z
    v = decay * v + input_gates[0] + recurrent_gates[0] - ((threshold + beta * a) * z).detach()
    return _alif_spike((v, a), unit), v, a


_DECAY, _THRESHOLD = UnitParameter("decay", 0.8, 0.95, "timescale"), UnitParameter("threshold", 1.0, 1.0, "threshold")
_ADAPTATION = (
    UnitParameter("adaptation_decay", 0.98, 0.995, "timescale"),
    _THRESHOLD,
    UnitParameter("beta", 1.8, 1.8, "threshold"),
)

LIF = Cell(
    "lif",
    ("z", "v"),
    1,
    1,
    _lif_step,
    "Lapicque, 1907; surrogate derivative: Zenke & Ganguli, SuperSpike, 2018",
    unit_parameters=(_DECAY, _THRESHOLD),
    derive=_lif_spike,
)
ALIF = Cell(
    "alif",
    ("z", "v", "a"),
    1,
    1,
    _alif_step,
    "Bellec et al., Long short-term memory and learning-to-learn in networks of spiking neurons, 2018",
    unit_parameters=(_DECAY, *_ADAPTATION),
    derive=_alif_spike,
)
