"""A stack of cells run step by step in float64.

Letters: T time, B batch, I input size, H hidden size, L layers, S state variables per unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.cells import CELLS, Cell, layer_step

#: Weights, biases and parameters of the units of one layer, None for an absent one.
Layer = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def recurrent(x: Tensor, initial: Tensor, weights: Sequence[Tensor], cell: str) -> Tensor:
    """The whole trajectory of a stack; differentiable.

    Args:
        x: [T, B, I].
        initial: [L, S, B, H].
        weights: five per layer: weight_ih, weight_hh, bias_ih, bias_hh, unit; an absent one has no elements.
        cell: the cell's name.

    Returns:
        States [L, T + 1, S, B, H] float64, slot 0 being ``initial``.
    """
    fed = x.double()
    layers = []
    for layer, start in enumerate(initial.double()):
        state = torch.cat(tuple(start), dim=-1)  # [B, S * H]
        trajectory = [state]
        for t in range(x.shape[0]):
            state = layer_step(CELLS[cell], fed[t], state, *layer_weights(weights, layer))
            trajectory.append(state)
        stacked = torch.stack(trajectory).reshape(-1, start.shape[1], start.shape[0], start.shape[2]).movedim(2, 1)
        layers.append(stacked)
        fed = stacked[1:, 0]
    return torch.stack(layers)


def layer_weights(weights: Sequence[Tensor], layer: int) -> Layer:
    """The parameters of a layer in float64, None for an absent one."""
    own = weights[5 * layer : 5 * layer + 5]
    ih, hh, bias_ih, bias_hh, unit = (w.double() if w.numel() > 0 else None for w in own)
    assert ih is not None
    return ih, hh, bias_ih, bias_hh, unit


@dataclass(frozen=True)
class Trajectory:
    """A model run over inputs: x [T, B, I], states [L, T + 1, S, B, H]; weights as :func:`recurrent` has them."""

    cell: Cell
    weights: list[Tensor]
    x: Tensor
    states: Tensor


def run(model: Any, inputs: Tensor, initial_state: Any, through_states: bool) -> Trajectory:
    """Reads a layer's weights by attribute name and runs it; without ``through_states``, states are constants."""
    cell = CELLS[cell_name(model)]
    x = inputs.unsqueeze(1) if inputs.dim() == 2 else inputs.transpose(0, 1) if model.batch_first else inputs
    weights = [w for k in range(model.num_layers) for w in _layer_of(model, cell, k)]
    if initial_state is None:
        initial = x.new_zeros(model.num_layers, len(cell.states), x.shape[1], model.hidden_size)
    else:
        given = (initial_state,) if isinstance(initial_state, Tensor) else tuple(initial_state)
        initial = torch.stack([s.unsqueeze(1) if inputs.dim() == 2 else s for s in given], dim=1)
    states = recurrent(x, initial, weights, cell.name)
    if not through_states:
        x, states = x.detach(), states.detach()
    return Trajectory(cell, weights, x.double(), states)


def _layer_of(model: Any, cell: Cell, layer: int) -> list[Tensor]:
    absent = torch.zeros(0, dtype=torch.float64)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [getattr(model, f"{name}_l{layer}", absent) for name in names]
    if hasattr(model, f"tau_l{layer}"):  # spiking layers keep time constants, and no neuron excites itself
        weights[1] = weights[1] - torch.diag(weights[1].diagonal())
        decays = [
            (-1 / getattr(model, f"{name}_l{layer}").clamp(min=0.01)).exp()
            for name in ("tau", "tau_a")[: len(cell.states) - 1]
        ]
        others = [getattr(model, f"{own.name}_l{layer}") for own in cell.unit_parameters[len(decays) :]]
        return [*weights, torch.stack([*decays, *others])]
    own = [getattr(model, f"{parameter.name}_l{layer}") for parameter in cell.unit_parameters]
    return [*weights, torch.stack(own) if own else absent]


def cell_name(model: Any) -> str:
    """Which cell a module of ``torch.nn`` or ``lsc_ext.nn`` is made of; raises TypeError for another module."""
    if isinstance(getattr(model, "cell", None), str):
        return str(model.cell)
    if isinstance(model, nn.RNN):
        return f"rnn_{model.nonlinearity}"
    for kind, name in ((nn.GRU, "gru"), (nn.LSTM, "lstm")):
        if isinstance(model, kind):
            return name
    raise TypeError(f"model: expected a recurrent layer, got {type(model).__qualname__}")
