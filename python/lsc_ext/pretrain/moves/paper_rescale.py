"""The rescaling rules of the paper's code, weight by weight.

Herranz-Celotti & Rouat, arXiv 2308.12075; the code of July 2023 and the one published last differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from lsc_ext.nn.linear import LinearRecurrent
from lsc_ext.nn.recurrent import cell_name
from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.chance import Chance
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.weights import Weight

#: What a weight is multiplied by, from the radii of its layer by direction; None: it is left alone.
Rule = Callable[[Weight, int, dict[str, float], Measurement], "float | None"]

_RECURRENT_SIDE = ("recurrent", "timescale")
_SCALED_INPUT = ("lstm", "lif", "alif")
_LARGEST_JUMP, _SMALL = 3.0, 0.5


def _ratio(side: str, radii: dict[str, float], measured: Measurement) -> float | None:
    """Target / radius in time, or of the first direction that leads into the layer."""
    for direction in ("time",) if side == "time" else ("input", "depth", "diagonal"):
        if radii.get(direction, 0.0) > 0:
            return measured.targets[direction] / radii[direction]
    return None


def _july_2023(weight: Weight, layer: int, radii: dict[str, float], measured: Measurement) -> float | None:
    if weight.role in _RECURRENT_SIDE:
        return _ratio("time", radii, measured)
    return None if weight.role == "other" else _ratio("input", radii, measured)


def _published_last(weight: Weight, layer: int, radii: dict[str, float], measured: Measurement) -> float | None:
    if weight.role in _RECURRENT_SIDE:
        return _ratio("time", radii, measured)
    linear = isinstance(weight.module, LinearRecurrent)
    named = weight.role == "input" and (linear or cell_name(weight.module) in _SCALED_INPUT)
    if named or weight.role in ("threshold", "readout", "gating", "adapter"):
        return _ratio("input", radii, measured)
    return None


def _linear_units(weight: Weight, layer: int, radii: dict[str, float], measured: Measurement) -> float | None:
    if weight.role == "timescale":
        return _ratio("time", radii, measured)
    return _ratio("input", radii, measured) if weight.role in ("input", "readout") else None


def _feed_forward(weight: Weight, layer: int, radii: dict[str, float], measured: Measurement) -> float | None:
    if weight.role != "input":
        return None
    if layer in (0, measured.num_layers - 1):
        value = weight.value
        fan = value.shape[0] if layer == 0 else value[0].numel()
        return _to_unit_scale(value, fan)
    return _ratio("input", radii, measured)


def _to_unit_scale(value: torch.Tensor, fan: int) -> float | None:
    """1 / (std sqrt(fan)), which makes that product 1."""
    std = float(value.double().std(correction=0))
    return 1 / (std * fan**0.5) if std > 0 else None


_RULES: dict[str, Rule] = {
    "paper_2023": _july_2023,
    "paper_2025": _published_last,
    "paper_lru": _linear_units,
    "paper_ffn": _feed_forward,
}


class PaperRescale(Move):
    """Each weight by what its rule says, clipped to 1 +- the limit; a readout's matrix by 1 / (std sqrt(fan in)).

    Time constants are multiplied themselves: tau of spiking neurons, nu_log of an LRU, which is negative above a
    modulus of 0.37 and moves the other way below.

    Args:
        settings: the rule and the limit.
        chance: whether a step rescales.
    """

    def __init__(self, settings: PretrainConfig, chance: Chance) -> None:
        self._rule, self._limit, self._chance = _RULES[settings.rescale_rule], settings.rescale_limit, chance
        self._jumps = settings.rescale_rule == "paper_ffn"

    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """One multiplication for each weight that the rule names."""
        if not self._chance.taken(step):
            return []
        changes = []
        means = measured.means()
        for layer, weights in measured.weights.items():
            radii = {d: row[layer] for d, row in means.items() if layer in row}
            for weight in weights:
                factor = None if weight.frozen else self._rule(weight, layer, radii, measured)
                if factor is not None:
                    largest = 1 + self._limit
                    if self._jumps and radii.get("depth", _SMALL) < _SMALL:
                        largest = _LARGEST_JUMP
                    changes.append(self._change(weight, factor, largest))
        if isinstance(measured.readout, nn.Linear) and "output" in measured.targets:
            readout = Weight(measured.readout, "weight", "readout")
            factor = _to_unit_scale(readout.value, measured.readout.in_features)
            if factor is not None and not readout.frozen:
                changes.append(self._change(readout, factor, 1 + self._limit))
        return changes

    def _change(self, weight: Weight, factor: float, largest: float) -> Change:
        clipped = min(max(factor, 1 - self._limit), largest)
        return Change(functools.partial(_multiply, weight, clipped), ((weight.module, weight.name),))


def _multiply(weight: Weight, factor: float) -> None:
    weight.assign(weight.value * factor, "rescale")
