"""Sequences to optimise on and sequences held out, from whatever a user hands in.

Letters: T time steps, I input size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.submodule import Submodule
from lsc_ext.trajectory import sample_dim


class Sequences:
    """Training batches and held-out sequences, both in the model's layout."""

    def __init__(self, model: Any, data: Tensor | Iterable[Any] | None, settings: PretrainConfig) -> None:
        self.sample_dim = sample_dim(model)
        self._batch_size = settings.batch_size
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._fresh: Callable[[int], Tensor] | None = None
        if data is None:
            self._fresh = _random_inputs(model, settings, self._generator, self._device)
            self.held_out = self._fresh(settings.batch_size)
            return
        one_sequence = hasattr(model, "batch_first") and not isinstance(model, Submodule)  # what [T, I] means
        x = _gather(data, settings.max_sequences, self.sample_dim, one_sequence).to(self._device)
        if x.numel() == 0:
            raise ValueError(f"data: expected at least one sequence of at least one step, got shape {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("data: expected finite numbers, got NaN or infinity")
        count = x.shape[self.sample_dim]
        if count == 1:
            if self.sample_dim == 0 and not hasattr(model, "batch_first"):
                raise ValueError("data: expected at least two samples, got one")
            time_dim = 1 - self.sample_dim
            steps = x.shape[time_dim]
            if steps < 2:
                raise ValueError("data: expected at least two steps of a single sequence, got one")
            cut = steps - max(1, round(settings.holdout * steps))
            self.held_out, self._training = x.narrow(time_dim, cut, steps - cut), x.narrow(time_dim, 0, cut)
        else:
            order = torch.randperm(count, generator=self._generator).to(self._device)
            kept = min(max(1, round(settings.holdout * count)), count - 1)
            self.held_out = x.index_select(self.sample_dim, order[:kept])
            self._training = x.index_select(self.sample_dim, order[kept:])

    @property
    def population(self) -> int | None:
        """Sequences that batches are drawn from; None where they are drawn afresh."""
        return None if self._fresh is not None else self._training.shape[self.sample_dim]

    def batch(self) -> Tensor:
        """The next training batch."""
        if self._fresh is not None:
            return self._fresh(self._batch_size)
        count = self._training.shape[self.sample_dim]
        chosen = torch.randperm(count, generator=self._generator)[: self._batch_size].to(self._device)
        return self._training.index_select(self.sample_dim, chosen)


def _random_inputs(
    model: Any, settings: PretrainConfig, generator: torch.Generator, device: torch.device
) -> Callable[[int], Tensor]:
    """Draws standard normal sequences (or samples, for a model without a time axis) for a model that says its width."""
    width = getattr(model, "input_size", None)
    if not isinstance(width, int):
        raise ValueError(
            f"data: expected sequences, got None for a model without input_size, {type(model).__qualname__}"
        )
    dtype = next((p.dtype for p in model.parameters()), torch.float32)

    def fresh(count: int) -> Tensor:
        if not hasattr(model, "batch_first"):
            return torch.randn(count, width, generator=generator, dtype=dtype).to(device)
        x = torch.randn(settings.time_steps, count, width, generator=generator, dtype=dtype).to(device)
        return x.transpose(0, 1).contiguous() if model.batch_first else x

    return fresh


def _gather(data: Tensor | Iterable[Any], limit: int, sample_dim: int, one_sequence: bool) -> Tensor:
    """Sequences in one tensor; from an iterable, at most ``limit`` of them. [T, I] is one where ``one_sequence``."""

    def batched(x: Tensor) -> Tensor:
        return x.unsqueeze(sample_dim) if one_sequence and x.dim() == 2 else x

    if isinstance(data, Tensor):
        batches = [batched(data)]
    else:
        batches, held = [], 0
        for item in data:
            first = item[0] if isinstance(item, (tuple, list)) else item
            if not isinstance(first, Tensor):
                raise TypeError(f"data: expected tensors or tuples that begin with one, got {type(first).__qualname__}")
            batches.append(batched(first))
            held += batches[-1].shape[sample_dim] if batches[-1].dim() > sample_dim else 1
            if held >= limit:
                break
        if not batches:
            raise ValueError("data: expected at least one batch, got an empty iterable")
    for batch in batches:
        if batch.dim() < 2:
            raise ValueError(f"data: expected at least 2 dimensions, got shape {tuple(batch.shape)}")
        shapes = [list(b.shape) for b in (batch, batches[0])]
        for shape in shapes:
            shape[sample_dim] = 0
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"data: expected sequences of one length and width, got batches of {tuple(batches[0].shape)} and "
                f"{tuple(batch.shape)}"
            )
    return torch.cat(batches, dim=sample_dim).detach()
