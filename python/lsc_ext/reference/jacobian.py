"""Step Jacobians as matrices, by automatic differentiation of the cell's step.

Letters as in forward.py; n = V * H for the V states that are not derived from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from lsc_ext.cells import all_states, layer_step
from lsc_ext.reference.forward import Trajectory, layer_weights

Readout = Callable[[Tensor], Tensor]


def layers_of(direction: str, num_layers: int, in_time: bool = True) -> Sequence[int]:
    """The layers that have Jacobians along ``direction``; raises ValueError for an unknown name."""
    table = {
        "time": range(num_layers if in_time else 0),
        "depth": range(1, num_layers),
        "diagonal": range(1, num_layers if in_time else 1),
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
        "output"; [B, H, n] for "handed up", d y[t] / d s[t-1].
    """
    cell, hidden = trajectory.cell, trajectory.states.shape[-1]
    derived = len(cell.states) - len(cell.free_states)
    before, after = (_flat(trajectory.states[layer, t + i, derived:]) for i in range(2))
    fed = trajectory.x[t] if layer == 0 else trajectory.states[layer - 1, t + 1, 0]

    def step(inputs: Tensor, state: Tensor) -> Tensor:
        weights = layer_weights(trajectory.weights, layer)
        return layer_step(cell, inputs, all_states(cell, state, weights[4]), *weights)

    def along(argument: int) -> Tensor:
        """Of all next states, [B, S * H, .]."""
        jacobian: Tensor = vmap(jacrev(step, argnums=argument))(fed, before)
        return jacobian

    if direction == "handed up":
        return along(1)[:, :hidden]
    if direction in ("time", "input"):
        return along(1 if direction == "time" else 0)[:, derived * hidden :]
    if direction == "depth":
        return along(0)[:, :hidden]
    if direction == "diagonal":  # the chain rule, so that what the layer is fed is one of the states
        return along(0)[:, derived * hidden :] @ jacobians(trajectory, "handed up", layer - 1, t)
    if readout is None:
        raise ValueError("readout: expected a module for direction 'output', got None")
    read = _in_double(readout)
    unit = layer_weights(trajectory.weights, layer)[4]
    jacobian: Tensor = vmap(jacrev(lambda state: read(all_states(cell, state, unit)[:hidden])))(after)
    return jacobian


def _flat(states: Tensor) -> Tensor:
    """[S, B, H] -> [B, S * H]."""
    return torch.cat(tuple(states), dim=-1)


def _in_double(readout: Readout) -> Readout:
    if not isinstance(readout, nn.Module):
        return readout
    wide = {name: parameter.double() for name, parameter in readout.named_parameters()}
    return lambda y: functional_call(readout, wide, (y,))
