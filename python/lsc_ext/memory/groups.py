"""The parameters of a layer in groups: a tensor each, and one for each gate where several stand in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lsc_ext.weights import Weight

#: What parameters named as torch.nn's cells name theirs do, in a module of which nothing else is known.
_KNOWN = {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias", "bias_hh": "bias"}


@dataclass(frozen=True)
class Group:
    """Parameters that are learned, of one layer.

    Attributes:
        name: that of ``model.named_parameters()``, and [gate] where it is one gate's part.
        tensor: the parameter.
        weight: what it is, or what the parametrisation behind it makes.
        role: what it does, one of ``lsc_ext.weights.ROLES``.
        rows: of the tensor that are meant; None for all.
        original: which of a parametrisation's tensors it is, "" for a plain parameter.
    """

    name: str
    tensor: Tensor
    weight: Weight
    role: str
    rows: slice | None = None
    original: str = ""

    def part(self, values: Tensor) -> Tensor:
        """What of a tensor of the parameter's shape is meant."""
        return values if self.rows is None else values[self.rows]

    @property
    def count(self) -> int:
        """How many real numbers it has."""
        return self.part(self.tensor).numel() * (2 if self.tensor.is_complex() else 1)


def groups_of(weights: Sequence[Weight], paths: dict[int, str]) -> list[Group]:
    """Groups of those of a layer's parameters that are learned.

    Args:
        weights: the layer's.
        paths: where in the model each module is, by its id.
    """
    return [group for weight in weights for group in _of_weight(weight, paths.get(id(weight.module), ""))]


def paths_in(model: nn.Module) -> dict[int, str]:
    """Dotted name of every module inside a model, by its id."""
    return {id(module): name for name, module in model.named_modules()}


def _of_weight(weight: Weight, path: str) -> Iterator[Group]:
    role = _KNOWN.get(weight.name, weight.role) if weight.role == "other" else weight.role
    name = f"{path}.{weight.name}" if path else weight.name
    if parametrize.is_parametrized(weight.module, weight.name):
        made: nn.Module = weight.module.parametrizations[weight.name]  # type: ignore[index,assignment]
        for inner, tensor in made.named_parameters():
            if tensor.requires_grad:
                yield Group(f"{name}.{inner}", tensor, weight, role, original=inner)
        return
    tensor = getattr(weight.module, weight.name)
    if not isinstance(tensor, Tensor) or not tensor.requires_grad:
        return
    if not (torch.is_floating_point(tensor) or tensor.is_complex()):
        return
    if weight.gates < 2 or not weight.gate_names:
        yield Group(name, tensor, weight, role)
        return
    size = len(tensor) // weight.gates
    for number, gate in enumerate(weight.gate_names[: weight.gates]):
        yield Group(f"{name}[{gate}]", tensor, weight, role, slice(number * size, (number + 1) * size))
