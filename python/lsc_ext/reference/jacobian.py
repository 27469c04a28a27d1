"""Step Jacobians as matrices, by automatic differentiation of the cell's step.

Letters as in forward.py; n = S * H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from lsc_ext.cells import layer_step
from lsc_ext.reference.forward import Trajectory, layer_weights

Readout = Callable[[Tensor], Tensor]


def layers_of(direction: str, num_layers: int) -> Sequence[int]:
    """The layers that have Jacobians along ``direction``; raises ValueError for an unknown name."""
    table = {
        "time": range(num_layers),
        "depth": range(1, num_layers),
        "diagonal": range(1, num_layers),
        "input": range(1),
        "output": range(num_layers - 1, num_layers),
    }
    if direction not in table:
        raise ValueError(f"direction: expected one of {', '.join(table)}, got {direction!r}")
    return table[direction]


def jacobians(trajectory: Trajectory, direction: str, layer: int, t: int, readout: Readout | None = None) -> Tensor:
    """The Jacobians of one layer at step ``t``, for every sequence.

    Returns:
        [B, m, n]: [B, n, n] for "time" and "diagonal", [B, H, H] for "depth", [B, n, I] for "input", [B, O, n] for
        "output".
    """
    cell, hidden = trajectory.cell, trajectory.states.shape[-1]
    before, after = (_flat(trajectory.states[layer, t + i]) for i in range(2))
    fed = trajectory.x[t] if layer == 0 else trajectory.states[layer - 1, t + 1, 0]

    def step(inputs: Tensor, state: Tensor) -> Tensor:
        return layer_step(cell, inputs, state, *layer_weights(trajectory.weights, layer))

    def along(argument: int) -> Tensor:
        jacobian: Tensor = vmap(jacrev(step, argnums=argument))(fed, before)
        return jacobian

    if direction in ("time", "input"):
        return along(1 if direction == "time" else 0)
    if direction == "depth":
        return along(0)[:, :hidden]
    if direction == "diagonal":  # the chain rule, so that what the layer is fed is one of the states
        return along(0) @ jacobians(trajectory, "time", layer - 1, t)[:, :hidden]
    if readout is None:
        raise ValueError("readout: expected a module for direction 'output', got None")
    read = _in_double(readout)
    jacobian: Tensor = vmap(jacrev(lambda state: read(state[:hidden])))(after)
    return jacobian


def _flat(states: Tensor) -> Tensor:
    """[S, B, H] -> [B, S * H]."""
    return torch.cat(tuple(states), dim=-1)


def _in_double(readout: Readout) -> Readout:
    if not isinstance(readout, nn.Module):
        return readout
    wide = {name: parameter.double() for name, parameter in readout.named_parameters()}
    return lambda y: functional_call(readout, wide, (y,))
