"""The best weights so far, so that nothing is lost on an error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Kept:
    """A copy of every parameter and buffer of some modules."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list(modules)
        self.take()

    def take(self) -> None:
        """Copies the values that the modules have now."""
        self._values: list[tuple[nn.Module, str, Tensor]] = [
            (part, name, held.detach().clone())
            for module in self._modules
            for part in module.modules()
            for named in (part.named_parameters(recurse=False), part.named_buffers(recurse=False))
            for name, held in named
        ]

    def put_back(self) -> None:
        """Gives the modules the values of the copy."""
        with torch.no_grad():
            for module, name, value in self._values:
                held = getattr(module, name)
                if held.shape == value.shape:
                    held.copy_(value)
                else:  # a buffer that the module replaces as it runs, such as the last state of one batch
                    setattr(module, name, value.clone())
