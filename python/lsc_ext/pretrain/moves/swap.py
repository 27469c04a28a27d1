"""Exchange halves of weights between layers."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.chance import Chance
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.weights import Weight


class Swap(Move):
    """The first half of the entries of every weight of one layer for that of the weight in the same place of another.

    The layers are two of the measured ones, drawn at random; a weight without one of its role and shape there stays.

    Args:
        chance: whether a step swaps.
        generator: draws the two layers.
    """

    def __init__(self, chance: Chance, generator: torch.Generator) -> None:
        self._chance, self._generator = chance, generator

    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """One exchange for each pair of weights."""
        layers = list(measured.weights)
        if not self._chance.taken(step) or len(layers) < 2:
            return []
        first, second = torch.randperm(len(layers), generator=self._generator)[:2].tolist()
        pairs = partners(measured.weights[layers[first]], measured.weights[layers[second]])
        return [Change(functools.partial(_exchange, *pair)) for pair in pairs]


def partners(first: Sequence[Weight], second: Sequence[Weight]) -> list[tuple[Weight, Weight]]:
    """Weights of two layers that stand in the same place: the n-th of a role and shape with the n-th."""
    waiting: dict[tuple[str, torch.Size], list[Weight]] = {}
    for weight in second:
        waiting.setdefault((weight.role, weight.value.shape), []).append(weight)
    pairs = []
    for weight in first:
        others = waiting.get((weight.role, weight.value.shape), [])
        if others:
            pairs.append((weight, others.pop(0)))
    return [(a, b) for a, b in pairs if not (a.frozen or b.frozen)]


def _exchange(first: Weight, second: Weight) -> None:
    a, b = first.value.clone().flatten(), second.value.clone().flatten()
    half = a.numel() // 2
    a[:half], b[:half] = b[:half].clone(), a[:half].clone()
    first.assign(a.view_as(first.value), "swap")
    second.assign(b.view_as(second.value), "swap")
