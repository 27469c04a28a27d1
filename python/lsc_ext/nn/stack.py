"""The trajectory of a stack of one compiled cell, and its Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.cells import CELLS, all_states
from lsc_ext.nn.arguments import States
from lsc_ext.nn.recurrent import Recurrent, cell_name, check_supported, flat_weights, prepare
from lsc_ext.operator import JacobianOperator, StepOperator
from lsc_ext.trajectory import Kernel, Trajectory, check_direction, kernel_of, register_reader


class StackTrajectory(Trajectory):
    """A stack of compiled cells run over x."""

    def __init__(self, module: Any, input: Tensor, hx: States | None, through_states: bool) -> None:
        self.module, self.cell = module, cell_name(module) or ""
        x, initial = prepare(module, input, hx)
        self.num_layers, self.time_steps, self.batch = module.num_layers, x.shape[0], x.shape[1]
        self.through_states = through_states
        with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
            self.weights = flat_weights(module, module.num_layers)
            self.x = x
            self.states, self.gates = ops.recurrent(x, initial, self.weights, self.cell)
        if not through_states and torch.is_grad_enabled():
            self.weights = flat_weights(module, module.num_layers)  # parametrised weights need their graph

    def layers_of(self, direction: str) -> Sequence[int]:
        """time: all; depth and diagonal: all but the first; input: the first; output: the last."""
        check_direction(direction)
        in_time = CELLS[self.cell].in_time
        if direction == "time":
            return range(self.num_layers if in_time else 0)
        if direction == "diagonal" and not in_time:
            return range(0)
        if direction in ("depth", "diagonal"):
            return range(1, self.num_layers)
        return [0] if direction == "input" else [self.num_layers - 1]

    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Callable[[Tensor], Tensor] | None = None
    ) -> JacobianOperator:
        """See :class:`lsc_ext.operator.Trajectory`."""
        if direction != "output":
            return StepOperator(
                self.cell, self.x, self.states, self.gates, self.weights, layer, direction, points, self.through_states
            )
        if readout is None:
            raise ValueError("readout: expected a module for direction 'output', got None")
        hidden = self.states.shape[4]
        states = self.states if self.through_states else self.states.detach()
        cell = CELLS[self.cell]
        derived = len(cell.states) - len(cell.free_states)
        after = states[layer, points[:, 0] + 1, derived:, points[:, 1]]  # [N, V, H]
        unit = ops.of_layer(self.weights, layer)[-1]
        parameters: list[Tensor] = list(readout.parameters()) if isinstance(readout, nn.Module) else []
        if derived:
            parameters.append(unit)
        return JacobianOperator(lambda s: readout(all_states(cell, s, unit)[:, :hidden]), after.flatten(1), parameters)

    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """The weight whose scale moves this Jacobian: in time the recurrent one, along depth the input's."""
        if direction == "output":
            return None
        names = ["weight_hh"] if direction == "time" else ["weight_ih"]
        if direction == "time" and CELLS[self.cell].recurrent_blocks == 0:
            names = [p.name for p in CELLS[self.cell].unit_parameters if p.name == "recurrent_weight"]
        if not names:
            return None
        own = ops.of_layer(self.weights, layer)
        value = own[ops.PARAMETERS.index(names[0])] if names[0] in ops.PARAMETERS else own[-1]
        return kernel_of(self.module, f"{names[0]}_l{layer}", value)


def _read_stack(model: Any, inputs: Tensor, initial_state: Any, through_states: bool) -> Trajectory | None:
    if cell_name(model) is None:
        return None
    check_supported(model)
    return StackTrajectory(model, inputs, initial_state, through_states)


register_reader(_read_stack, nn.RNN, nn.GRU, nn.LSTM, Recurrent)
