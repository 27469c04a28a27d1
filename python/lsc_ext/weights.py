"""The parameters of a layer by what they do there, so that nobody has to guess from their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

#: input: multiplies what a layer is fed. recurrent: multiplies its own past. timescale: sets how fast a state decays.
#: threshold: of a spiking unit, and what raises it. readout: makes what is handed up from a linear state. gating: of
#: the gated map behind it. adapter: changes the width of what comes in. other: anything else.
ROLES = ("input", "recurrent", "bias", "timescale", "threshold", "readout", "gating", "adapter", "other")


@dataclass(frozen=True)
class Weight:
    """One parameter of a layer.

    Attributes:
        module: the module that holds it.
        name: its name there.
        role: one of ``ROLES``.
        gates: how many matrices, one for each gate, stand one above the other in it.
        gate_names: of these gates, where they have names.
        parts: how many tensors its first dimension holds that are one complex one: real and imaginary part, or 1.
    """

    module: nn.Module
    name: str
    role: str
    gates: int = 1
    parts: int = 1
    gate_names: tuple[str, ...] = ()

    @property
    def value(self) -> Tensor:
        """As it is now, without its graph; of a parametrised one what its parametrisation makes."""
        held: Tensor = getattr(self.module, self.name)
        return held.detach()

    @property
    def frozen(self) -> bool:
        """Whether it must not change."""
        return is_frozen(self.module, self.name)

    def assign(self, value: Tensor, move: str) -> None:
        """Gives it another value; see :func:`assign`."""
        assign(self.module, self.name, value, move)


def is_frozen(module: nn.Module, name: str) -> bool:
    """Whether a weight must not change: it, or all that its parametrisation is made of, requires no gradient."""
    if parametrize.is_parametrized(module, name):
        return not any(p.requires_grad for p in module.parametrizations[name].parameters())  # type: ignore[index,union-attr]
    return not getattr(module, name).requires_grad


def assign(module: nn.Module, name: str, value: Tensor, move: str) -> None:
    """Gives a weight another value, through its parametrisation where it has one.

    Raises:
        ValueError: the parametrisation makes something else of the value; the message names ``move``.
    """
    with torch.no_grad():
        if not parametrize.is_parametrized(module, name):
            getattr(module, name).copy_(value)
            return
        setattr(module, name, value)
        if not torch.allclose(getattr(module, name), value, rtol=1e-3):
            kept = "its scale" if move == "rescale" else "it from taking any value"
            raise ValueError(f"moves: expected no {move!r}, got it for {name}, whose parametrisation keeps {kept}")


def weights_in(modules: Iterable[nn.Module], role: str = "other") -> Iterator[Weight]:
    """Every parameter of some modules and of what they contain; of a parametrised one, what the module reads."""
    for module in modules:
        inner = {
            id(part)
            for owner in module.modules()
            if parametrize.is_parametrized(owner)
            for part in owner.parametrizations.modules()  # type: ignore[union-attr]
        }
        for part in module.modules():
            if id(part) in inner:
                continue
            names = [name for name, _ in part.named_parameters(recurse=False)]
            if parametrize.is_parametrized(part):
                names += list(part.parametrizations)  # type: ignore[arg-type]
            for name in names:
                yield Weight(part, name, role)
