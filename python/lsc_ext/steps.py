"""Layers given by a step in plain torch: their trajectory and Jacobians, by autograd over all points at once.

Letters: T time, B batch, N points, n size of the state, H size of what a layer hands up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lsc_ext.operator import ConstantOperator, JacobianOperator
from lsc_ext.rerun import Diagonal, LayerRun
from lsc_ext.trajectory import Kernel, Readout, Trajectory, check_direction
from lsc_ext.weights import Weight

#: (inputs [N, ...], state [N, n]) -> next state [N, n]
Advance = Callable[[Tensor, Tensor], Tensor]
#: (inputs [N, ...], next state [N, n]) -> handed up [N, ...]
HandUp = Callable[[Tensor, Tensor], Tensor]


@dataclass
class StepLayer:
    """One layer that was run over a sequence.

    Attributes:
        advance: one step; a layer without a state (n = 0) returns none.
        hand_up: what the layer hands up after the step.
        inputs: [T, B, ...], what it was fed.
        before: [T, B, n], its state before each step.
        handed_up: [T, B, ...].
        parameters: what the two functions read.
        linear: whether the step is linear, so that its Jacobians are the same everywhere.
        eigenvalues: of the Jacobian in time [k], where they have a closed form and are the same everywhere.
        kernels: direction -> the weights whose scale moves the Jacobian.
        carries: kind -> what carries the state on, as :meth:`lsc_ext.trajectory.Trajectory.carry` has it.
        weights: its parameters with their roles.
        kind: as :class:`lsc_ext.rerun.LayerRun` has it.
        diagonal: its recurrence, where that is linear and diagonal.
        run: (inputs [T, K, ...], initial [K, n]) -> states [T, K, n] where that is faster than step by step.
    """

    advance: Advance
    hand_up: HandUp
    inputs: Tensor
    before: Tensor
    handed_up: Tensor
    parameters: Sequence[Tensor]
    linear: bool = False
    eigenvalues: Tensor | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)
    carries: dict[str, Kernel] = field(default_factory=dict)
    weights: Sequence[Weight] = ()
    kind: str = "step"
    diagonal: Diagonal | None = None
    run: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def state_size(self) -> int:
        """n, 0 for a layer without a state."""
        return self.before.shape[2]


def run_layer(
    advance: Advance, hand_up: HandUp, inputs: Tensor, initial: Tensor, parameters: Sequence[Tensor]
) -> tuple[StepLayer, Tensor]:
    """Runs a layer over inputs [T, B, ...] from ``initial`` [B, n], step by step; returns it and its last state.

    Without a state all steps are one call.

    Raises:
        ValueError: the step changes the shape of the state.
        TypeError: the state is not of real numbers, or the step returns no tensor.
    """
    if initial.shape[1] == 0:
        rows = inputs.flatten(0, 1)
        up = hand_up(rows, rows.new_zeros(rows.shape[0], 0)).unflatten(0, inputs.shape[:2])
        before = initial.expand(inputs.shape[0], *initial.shape)
        return StepLayer(advance, hand_up, inputs, before, up, parameters), initial
    if not initial.is_floating_point():
        raise TypeError(f"initial_state: expected real numbers, got {initial.dtype}")
    state = initial
    states: list[Tensor] = []
    handed: list[Tensor] = []
    for fed in inputs:
        states.append(state)
        following = advance(fed, state)
        if not isinstance(following, Tensor):
            raise TypeError(f"step: expected the next state as one Tensor, got {type(following).__qualname__}")
        if following.shape != state.shape:
            raise ValueError(f"step: expected the next state as {tuple(state.shape)}, got {tuple(following.shape)}")
        state = following
        handed.append(hand_up(fed, state))
    if not states:
        empty = hand_up(inputs.new_zeros(initial.shape[0], *inputs.shape[2:]), initial)
        before, up = initial.new_zeros(0, *initial.shape), empty.new_zeros(0, *empty.shape)
    else:
        before, up = torch.stack(states), torch.stack(handed)
    return StepLayer(advance, hand_up, inputs, before, up, parameters), state


class StepTrajectory(Trajectory):
    """A stack of such layers, each fed what the one below hands up.

    Args:
        layers: from the bottom to the top.
        through_states: whether gradients also flow into the inputs and states of the points.
        pretrained: see :class:`lsc_ext.trajectory.Trajectory`.
    """

    def __init__(
        self, layers: Sequence[StepLayer], through_states: bool, pretrained: tuple[str, ...] = ("time", "depth")
    ) -> None:
        self.layers, self.through_states, self.pretrained = list(layers), through_states, pretrained
        self.num_layers = len(self.layers)
        self.time_steps, self.batch = self.layers[0].inputs.shape[:2]

    def layers_of(self, direction: str) -> Sequence[int]:
        """time: those with a state; depth: all but the first; diagonal: those with a state above one with a state."""
        check_direction(direction)
        stateful = [i for i, layer in enumerate(self.layers) if layer.state_size > 0]
        if direction == "time":
            return stateful
        if direction == "depth":
            return range(1, self.num_layers)
        if direction == "diagonal":
            return [i for i in stateful if i - 1 in stateful]
        return [0] if direction == "input" else [self.num_layers - 1]

    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Readout | None = None
    ) -> JacobianOperator:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        own = self.layers[layer]
        if direction == "output":
            if readout is None:
                raise ValueError("readout: expected a module for direction 'output', got None")
            return self._output(own, points, readout)
        if direction == "diagonal" and own.state_size != self.layers[layer - 1].state_size:
            raise ValueError(
                f"direction: expected layers of one state size for 'diagonal', got {self.layers[layer - 1].state_size} "
                f"and {own.state_size}"
            )
        linear = own.linear and (direction != "diagonal" or self.layers[layer - 1].linear)
        if linear and points.shape[0] > 0:
            return ConstantOperator(self._along(direction, layer, points[:1]), points.shape[0])
        return self._along(direction, layer, points)

    def _along(self, direction: str, layer: int, points: Tensor) -> JacobianOperator:
        own = self.layers[layer]
        inputs, state = self._at(own.inputs, points), self._at(own.before, points)
        if direction == "time":
            operator = JacobianOperator(lambda s, x: own.advance(x, s), state, own.parameters, [inputs])
            if own.eigenvalues is not None:
                operator.eigenvalues = own.eigenvalues.expand(points.shape[0], -1)
            return operator
        if direction == "diagonal":
            below = self.layers[layer - 1]
            data = [self._at(below.inputs, points), state]
            return JacobianOperator(
                lambda s, x, upper: own.advance(below.hand_up(x, below.advance(x, s)), upper),
                self._at(below.before, points),
                (*own.parameters, *below.parameters),
                data,
            )
        shape = inputs.shape[1:]

        def ahead(flat: Tensor, s: Tensor) -> Tensor:
            fed = flat.reshape(flat.shape[0], *shape)
            following = own.advance(fed, s)
            if direction == "input" and own.state_size > 0:
                return following
            return own.hand_up(fed, following).flatten(1)

        return JacobianOperator(ahead, inputs.flatten(1), own.parameters, [state])

    def _output(self, own: StepLayer, points: Tensor, readout: Readout) -> JacobianOperator:
        inputs, before = self._at(own.inputs, points), self._at(own.before, points)
        parameters = [*own.parameters, *(readout.parameters() if isinstance(readout, nn.Module) else [])]
        if own.state_size == 0:
            handed = self._at(own.handed_up, points)
            shape = handed.shape[1:]
            return JacobianOperator(
                lambda y: readout(y.reshape(y.shape[0], *shape)).flatten(1), handed.flatten(1), parameters
            )
        with torch.set_grad_enabled(self.through_states and torch.is_grad_enabled()):
            after = own.advance(inputs, before)
        return JacobianOperator(lambda s, x: readout(own.hand_up(x, s)).flatten(1), after, parameters, [inputs])

    def _at(self, values: Tensor, points: Tensor) -> Tensor:
        t, b = points.to(values.device).unbind(1)
        rows = values[t, b]
        return rows if self.through_states else rows.detach()

    def rerun(self, layer: int) -> LayerRun | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        own = self.layers[layer]
        if own.state_size == 0 or own.before.shape[0] == 0:
            return None
        inputs, initial = own.inputs.detach(), own.before[0].detach()

        def states(index: Tensor) -> Tensor:
            fed, state = inputs[:, index], initial[index]
            if own.run is not None:
                return own.run(fed, state)
            found = []
            for step in fed:
                state = own.advance(step, state)
                found.append(state)
            return torch.stack(found)

        if own.diagonal is None:
            return LayerRun(own.kind, inputs, states, own.state_size)
        units = own.diagonal.initial.shape[1]
        return LayerRun("diagonal", inputs, states, units, own.state_size // units, own.diagonal)

    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.layers[layer].kernels.get(direction)

    def carry(self, kind: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.layers[layer].carries.get(kind)

    def weights_of(self, layer: int) -> Sequence[Weight]:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.layers[layer].weights
