"""Permute the entries of weights."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.measurement import Measurement
from lsc_ext.pretrain.moves.chance import Chance
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.weights import Weight


class Shuffle(Move):
    """A random permutation of each weight of the measured layers: its entries stay, all else about it is drawn anew.

    Real and imaginary parts are permuted each by itself; with the scope "gate" the matrix of every gate too.

    Args:
        settings: the scope, and whether vectors are shuffled.
        chance: whether a step shuffles.
        generator: draws the permutations.
    """

    def __init__(self, settings: PretrainConfig, chance: Chance, generator: torch.Generator) -> None:
        self._by_gate, self._least = settings.shuffle_scope == "gate", 1 if settings.shuffle_vectors else 2
        self._chance, self._generator = chance, generator

    def plan(self, measured: Measurement, step: int) -> list[Change]:
        """One permutation for each weight."""
        if not self._chance.taken(step):
            return []
        return [
            Change(functools.partial(self._permute, weight))
            for weights in measured.weights.values()
            for weight in weights
            if not weight.frozen and weight.value.dim() - (weight.parts > 1) >= self._least
        ]

    def _permute(self, weight: Weight) -> None:
        value = weight.value.clone()
        count = weight.parts * (weight.gates if self._by_gate else 1)
        blocks = value.view(weight.parts, -1).view(count, -1)
        for block in blocks:
            block.copy_(block[self._order(block)])
        weight.assign(value, "shuffle")

    def _order(self, block: Tensor) -> Tensor:
        return torch.randperm(block.numel(), generator=self._generator).to(block.device)
