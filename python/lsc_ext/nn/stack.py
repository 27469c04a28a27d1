"""Trajectories of stacks of one compiled cell: of layers in one direction or two, with or without a projection."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.cells import CELLS, all_states
from lsc_ext.estimators import Found
from lsc_ext.fused import DIRECTIONS, Points, forward_radii, why_not_fused
from lsc_ext.nn.arguments import States, check_states, time_first
from lsc_ext.nn.gate_bias import GateBias
from lsc_ext.nn.precision import widened
from lsc_ext.nn.recurrent import Recurrent, cell_name, projected_step, read_weights
from lsc_ext.operator import JacobianOperator, StepOperator
from lsc_ext.rerun import LayerRun
from lsc_ext.spectral import DENSE_LIMIT
from lsc_ext.steps import StepTrajectory, run_layer
from lsc_ext.trajectory import PIECE_BYTES, Kernel, Readout, Trajectory, check_direction, kernel_of, register_reader
from lsc_ext.weights import Weight

_POINTS_PER_THREAD = 96  # four tiles of radius_batch.h


class StackTrajectory(Trajectory):
    """Compiled layers over x, run when their states are first asked for; those of half numbers in float32.

    Args:
        module: holds the parameters, which are read here and now.
        x: [T, B, I].
        initial: [L, S, B, H].
        layers: which layers of the module, from the bottom.
        suffix: what the parameters' names end with, "_reverse" for the other direction.
        through_states: whether gradients also flow into the states and inputs of the points.
    """

    def __init__(
        self, module: Any, x: Tensor, initial: Tensor, layers: Sequence[int], suffix: str, through_states: bool
    ) -> None:
        self.module, self.cell = module, cell_name(module) or ""
        self.num_layers = len(layers)
        self.through_states = through_states
        self._layers, self._suffix = list(layers), suffix
        self._ends = [f"_l{layer}{suffix}" for layer in layers]
        x, initial = widened(x), widened(initial)
        self.weights = self._read(layers)
        self._run_recorded = through_states and torch.is_grad_enabled()
        self._start(x, initial)

    def _read(self, layers: Sequence[int]) -> list[Tensor]:
        """The parameters of these layers of the module, those that are absent without elements."""
        absent = torch.empty(0)
        found = read_weights(self.module, layers, self._suffix)
        first = next(w for w in found if w is not None)
        return [absent.to(widened(first)) if w is None else widened(w) for w in found]

    def _start(self, x: Tensor, initial: Tensor) -> None:
        self.x, self.initial = x, initial
        self.time_steps, self.batch = x.shape[0], x.shape[1]
        self._ran: tuple[Tensor, Tensor] | None = None
        self._memory: tuple[Tensor, Tensor] | None = None  # of a piece: what it writes states and gates to

    def _run(self) -> tuple[Tensor, Tensor]:
        if self._ran is None and self._memory is not None:
            ops.run_recurrent(self.x, self.initial, self.weights, self.cell, *self._memory)
            self._ran = self._memory
        if self._ran is None:
            with torch.set_grad_enabled(self._run_recorded):
                self._ran = ops.recurrent(self.x, self.initial, self.weights, self.cell)
        return self._ran

    def _piece(self, x: Tensor, initial: Tensor, memory: Sequence[Tensor]) -> StackTrajectory:
        """The same layers over other inputs, its states and gates at the start of ``memory``."""
        piece = copy.copy(self)
        piece._start(x.contiguous(), initial)
        shapes = ops.result_shapes(x, initial, self.cell)
        states, gates = (m[: math.prod(shape)].view(shape) for m, shape in zip(memory, shapes, strict=True))
        piece._memory = states, gates
        return piece

    @property
    def states(self) -> Tensor:
        """Before and after every step, [L, T + 1, S, B, H]."""
        return self._run()[0]

    @property
    def gates(self) -> Tensor:
        """Pre-activations, [L, T, B, P, H]."""
        return self._run()[1]

    @property
    def handed_up(self) -> Tensor:
        """What the top layer hands up, [T, B, H]."""
        return self.states[-1, 1:, 0]

    @property
    def recorded(self) -> bool:
        """See :class:`lsc_ext.trajectory.Trajectory`; not where nothing that is read requires a gradient."""
        read = [*self.weights, self.x, self.initial] if self.through_states else self.weights
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in read)

    def pieces(self, time_chunk: int | None = None) -> Iterator[tuple[int, Trajectory]]:
        """See :class:`lsc_ext.trajectory.Trajectory`; each piece goes on from the last states of the one before."""
        time_chunk = self._steps_at_once() if time_chunk is None else time_chunk
        if time_chunk >= self.time_steps:
            yield 0, self
            return
        # Pieces share memory: what is freed and taken anew for each leaves holes in the heap.
        shapes = ops.result_shapes(self.x[:time_chunk], self.initial, self.cell)
        memory = [self.x.new_empty(math.prod(shape)) for shape in shapes]
        state = self.initial
        for first in range(0, self.time_steps, time_chunk):
            piece = self._piece(self.x[first : first + time_chunk], state, memory)
            yield first, piece
            state = piece.states[:, -1].clone()

    def _steps_at_once(self) -> int:
        shape = ops.CELL_SHAPES[self.cell]
        numbers = self.num_layers * (shape["states"] + shape["preactivations"]) * self.initial.shape[3]
        return max(1, _points_in_budget(numbers, self.x.dtype) // max(1, self.batch))

    def why_not_fused(self, direction: str, method: str) -> str:
        """See :class:`lsc_ext.trajectory.Trajectory`; of radii that an iteration finds."""
        shape, cell = ops.CELL_SHAPES[self.cell], CELLS[self.cell]
        diagonal = direction == "time" and shape["states"] == 1 and shape["recurrent_blocks"] == 0
        states = 1 if direction == "depth" else len(cell.free_states)
        iterated = states * self.initial.shape[3] > DENSE_LIMIT and not diagonal
        if direction not in DIRECTIONS or not cell.in_time:
            return f"direction {direction!r}"
        if method != "krylov" and not (method == "auto" and iterated):
            return f"radii by method {method!r} without an iteration"
        if self._ran is not None:
            return "states that are known already"
        if self._run_recorded:
            return "gradients through the states"
        return why_not_fused(self.x, self.initial, self.cell)

    def fused_radii(self, direction: str, points: Points, num_matvecs: int, tol: float, pairs: bool) -> Found:
        """See :class:`lsc_ext.trajectory.Trajectory`; the states stay for what is asked next."""
        with torch.no_grad():
            states, gates, found = forward_radii(
                self.x,
                self.initial,
                self.weights,
                self.cell,
                points,
                direction=direction,
                num_matvecs=num_matvecs,
                tol=tol,
                pairs=pairs,
                memory=self._memory,
            )
        self._ran = states, gates
        return found

    def points_at_once(self, direction: str, layer: int) -> int | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        if direction == "output":
            return None
        shape = ops.CELL_SHAPES[self.cell]
        kept = shape["states"] * (shape["preactivations"] + shape["states"] + shape["unit_parameters"])
        numbers = kept * self.initial.shape[3] * (2 if direction == "diagonal" else 1)
        return _points_in_budget(numbers, self.x.dtype)

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
        self, direction: str, layer: int, points: Tensor, *, readout: Readout | None = None
    ) -> JacobianOperator:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        if direction != "output":
            return StepOperator(
                self.cell, self.x, self.states, self.gates, self.weights, layer, direction, points, self.through_states
            )
        return self.output(layer, points, readout)

    def output(
        self, layer: int, points: Tensor, readout: Readout | None, beside: Tensor | None = None, before: bool = False
    ) -> JacobianOperator:
        """D readout / d the states after the step; ``beside`` [N, .] is what else the readout reads."""
        if readout is None:
            raise ValueError("readout: expected a module for direction 'output', got None")
        read = readout
        cell, hidden = CELLS[self.cell], self.states.shape[4]
        derived = len(cell.states) - len(cell.free_states)
        states = self.states if self.through_states else self.states.detach()
        t, b = points.to(states.device).unbind(1)
        after = states[layer, t + 1, derived:, b]  # [N, V, H]
        unit = ops.of_layer(self.weights, layer)[-1]
        parameters: list[Tensor] = list(readout.parameters()) if isinstance(readout, nn.Module) else []
        if derived:
            parameters.append(unit)

        def ahead(s: Tensor, *other: Tensor) -> Tensor:
            own = all_states(cell, s, unit)[:, :hidden]
            parts = (*other, own) if before else (own, *other)
            return read(torch.cat(parts, dim=-1))

        return JacobianOperator(ahead, after.flatten(1), parameters, [] if beside is None else [beside])

    def rerun(self, layer: int) -> LayerRun | None:
        """See :class:`lsc_ext.trajectory.Trajectory`; the state is that of all variables that are not derived."""
        cell = CELLS[self.cell]
        if not cell.in_time:
            return None
        ran, number = self.states.detach(), self._layers[layer]
        fed = self.x.detach() if layer == 0 else ran[layer - 1, 1:, 0]
        initial, derived = ran[layer, 0], len(cell.states) - len(cell.free_states)

        def states(index: Tensor) -> Tensor:
            start = initial[:, index].contiguous().unsqueeze(0)
            found, _ = ops.recurrent(fed[:, index].contiguous(), start, self._read([number]), self.cell)
            return found[0, 1:, derived:].transpose(1, 2).flatten(2)

        carry = None if cell.carry_gate is None else functools.partial(self._carry, layer, fed, ran[layer, :-1, 0])
        alone = cell.recurrent_blocks == 0 and len(cell.states) == 1
        own = [p.name for p in cell.unit_parameters]
        moduli = ops.of_layer(self.weights, layer)[-1][0].detach().abs() if own == ["recurrent_weight"] else None
        units = len(cell.free_states) * initial.shape[-1]
        return LayerRun(self.cell, fed, states, units, 1 if alone else None, carry=carry, moduli=moduli)

    def _carry(self, layer: int, fed: Tensor, before: Tensor) -> Tensor:
        """The gate that multiplies each unit's own past, [T, B, H]."""
        assert CELLS[self.cell].carry_gate is not None
        block, sign = CELLS[self.cell].carry_gate  # type: ignore[misc]
        size, terms = before.shape[-1], []
        weights = [w.detach() for w in ops.of_layer(self.weights, layer)]
        for x, weight, bias in ((fed, weights[0], weights[2]), (before, weights[1], weights[3])):
            if weight.numel() > 0:
                rows = slice(block * size, (block + 1) * size)
                terms.append(nn.functional.linear(x, weight[rows], bias[rows] if bias.numel() else None))
        return torch.sigmoid(sign * torch.stack(terms).sum(0))

    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """The weight whose scale moves this Jacobian: in time the recurrent one, along depth the input's."""
        if direction == "output":
            return None
        own = ops.of_layer(self.weights, layer)
        if direction == "time" and hasattr(self.module, "time_kernel"):
            return self.module.time_kernel(self._ends[layer], own[1], own[-1])  # type: ignore[no-any-return]
        name: str | None = "weight_hh" if direction == "time" else "weight_ih"
        if direction == "time" and CELLS[self.cell].recurrent_blocks == 0:
            own_names = [p.name for p in CELLS[self.cell].unit_parameters]
            name = "recurrent_weight" if own_names == ["recurrent_weight"] else None
        if name is None:
            return None
        value = own[ops.PARAMETERS.index(name)] if name in ops.PARAMETERS else own[-1]
        return kernel_of(self.module, name + self._ends[layer], value)

    def carry(self, kind: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        own = ops.of_layer(self.weights, layer)
        if kind == "timescale":
            found = getattr(self.module, "timescale", None)
            return None if found is None else found(self._ends[layer], own[1], own[-1])
        return gate_bias(self.module, self.cell, self._ends[layer], own[2]) if kind == "gate_bias" else None

    def weights_of(self, layer: int) -> Sequence[Weight]:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return stack_weights(self.module, self.cell, self._ends[layer])


def gate_bias(module: Any, cell: str, end: str, value: Tensor) -> GateBias | None:
    """Of the gate that multiplies a layer's own past; None without such a gate or without biases.

    ``value`` is the tensor of ``bias_ih`` that operators differentiate.
    """
    gate = CELLS[cell].carry_gate
    if gate is None or not module.bias:
        return None
    block, sign = gate
    size = module.hidden_size
    others = ((module, f"bias_hh{end}"),) if CELLS[cell].recurrent_blocks > 0 else ()
    weights = ((module, f"bias_ih{end}"),)
    return GateBias(weights, (value,), block * size, (block + 1) * size, sign, others)


def stack_weights(module: Any, cell: str, end: str) -> tuple[Weight, ...]:
    """The parameters of one layer of a stack, whose names end with ``end``."""
    shape = CELLS[cell]
    found = [
        Weight(module, f"weight_ih{end}", "input", shape.input_blocks, gate_names=shape.gates),
        Weight(module, f"weight_hh{end}", "recurrent", shape.recurrent_blocks, gate_names=shape.gates),
        Weight(module, f"bias_ih{end}", "bias", shape.input_blocks, gate_names=shape.gates),
        Weight(module, f"bias_hh{end}", "bias", shape.recurrent_blocks, gate_names=shape.gates),
        Weight(module, f"weight_hr{end}", "other"),
    ]
    roles = module.own_roles if isinstance(module, Recurrent) else {}
    found += [Weight(module, name + end, role) for name, role in roles.items()]
    return tuple(weight for weight in found if hasattr(module, weight.name))


def _points_in_budget(numbers: int, dtype: torch.dtype) -> int:
    """How many points of so many numbers take ``PIECE_BYTES``, but enough to keep every thread busy for a while."""
    return max(_POINTS_PER_THREAD * torch.get_num_threads(), PIECE_BYTES // max(1, numbers * dtype.itemsize))


class BidirectionalTrajectory(Trajectory):
    """Layers with two directions each; direction d of layer l counts as layer 2 l + d.

    Args:
        parts: a trajectory of one layer for each; those of the second direction ran from the end to the start.
    """

    def __init__(self, parts: Sequence[StackTrajectory | StepTrajectory]) -> None:
        self.parts = list(parts)
        self.num_layers = len(self.parts)
        self.time_steps, self.batch = self.parts[0].time_steps, self.parts[0].batch

    def layers_of(self, direction: str) -> Sequence[int]:
        """time: all; depth: all but the first two; input: these; output: the last two; diagonal: none."""
        check_direction(direction)
        if direction == "time":
            return range(self.num_layers)
        if direction == "depth":
            return range(2, self.num_layers)
        if direction == "diagonal":
            return range(0)
        return [0, 1] if direction == "input" else [self.num_layers - 2, self.num_layers - 1]

    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Readout | None = None
    ) -> JacobianOperator:
        """See :class:`lsc_ext.trajectory.Trajectory`; points count time as the inputs do."""
        part = self.parts[layer]
        own = self._turned(points) if layer % 2 else points
        if direction != "output":
            return part.operator(direction, 0, own)
        if isinstance(part, StepTrajectory):
            raise ValueError("directions: expected no 'output' for a bidirectional layer with a projection, got it")
        other = self.parts[layer - 1 if layer % 2 else layer + 1]
        assert isinstance(other, StackTrajectory)
        t, b = (points if layer % 2 else self._turned(points)).to(other.handed_up.device).unbind(1)
        beside = other.handed_up[t, b]
        beside = beside if part.through_states else beside.detach()
        return part.output(0, own, readout, beside, before=bool(layer % 2))

    @property
    def recorded(self) -> bool:
        """See :class:`lsc_ext.trajectory.Trajectory`; the states are kept whole: one direction starts at the end."""
        return any(part.recorded for part in self.parts)

    def points_at_once(self, direction: str, layer: int) -> int | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.parts[layer].points_at_once(direction, 0)

    def _turned(self, points: Tensor) -> Tensor:
        return torch.stack((self.time_steps - 1 - points[:, 0], points[:, 1]), dim=1)

    def rerun(self, layer: int) -> LayerRun | None:
        """See :class:`lsc_ext.trajectory.Trajectory`; every other layer runs over time turned round."""
        return self.parts[layer].rerun(0)

    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.parts[layer].kernel(direction, 0)

    def carry(self, kind: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.parts[layer].carry(kind, 0)

    def weights_of(self, layer: int) -> Sequence[Weight]:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        return self.parts[layer].weights_of(0)


def _projected_layer(
    module: Any, x: Tensor, initial: tuple[Tensor, ...], layer: int, suffix: str, through_states: bool
) -> StepTrajectory:
    """One LSTM layer with a projection, by its torch step: state (h [P], c [H])."""
    end = f"_l{layer}{suffix}"
    names = [f"{name}{end}" for name in (*ops.PARAMETERS[:-1], "weight_hr") if hasattr(module, name + end)]

    def advance(fed: Tensor, state: Tensor) -> Tensor:
        h, c = projected_step(CELLS["lstm"], fed, state, read_weights(module, [layer], suffix), module.proj_size)
        return torch.cat((nn.functional.linear(h, getattr(module, f"weight_hr{end}")), c), dim=-1)

    parameters = [getattr(module, name) for name in names]
    with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
        ran, _ = run_layer(advance, functools.partial(_first, module.proj_size), x, torch.cat(initial, -1), parameters)
    ran.kernels = {"time": kernel_of(module, f"weight_hh{end}"), "depth": kernel_of(module, f"weight_ih{end}")}
    bias = gate_bias(module, "lstm", end, getattr(module, f"bias_ih{end}")) if module.bias else None
    ran.carries = {} if bias is None else {"gate_bias": bias}
    ran.weights = stack_weights(module, "lstm", end)
    ran.kind = "lstm"
    return StepTrajectory([ran], through_states)


def _first(count: int, inputs: Tensor, state: Tensor) -> Tensor:
    return state[:, :count]


def _read_stack(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    name = cell_name(model)
    if name is None:
        return None
    x, initial = prepare(model, inputs, initial_state)
    suffixes = ("", "_reverse") if model.bidirectional else ("",)
    if len(suffixes) == 1 and model.proj_size == 0:
        return StackTrajectory(model, x, torch.stack(initial, dim=1), range(model.num_layers), "", through_states)
    parts: list[StackTrajectory | StepTrajectory] = []
    for layer in range(model.num_layers):
        sides = []
        for d, suffix in enumerate(suffixes):
            start = tuple(s[len(suffixes) * layer + d] for s in initial)
            fed = x.flip(0) if d else x
            if model.proj_size > 0:
                part: Any = _projected_layer(model, fed, start, layer, suffix, through_states)
                handed_up = part.layers[0].handed_up
            else:
                part = StackTrajectory(model, fed, torch.stack(start).unsqueeze(0), [layer], suffix, through_states)
                handed_up = part.handed_up
            parts.append(part)
            sides.append(handed_up.flip(0) if d else handed_up)
        x = sides[0] if len(sides) == 1 else torch.cat(sides, dim=-1)
    if len(suffixes) == 2:
        return BidirectionalTrajectory(parts)
    return StepTrajectory([part.layers[0] for part in parts if isinstance(part, StepTrajectory)], through_states)


def prepare(module: Any, input: Tensor, hx: States | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Checks the arguments of a trajectory; returns x [T, B, I] and the S initial states [L * D, B, .]."""
    weight = module.weight_ih_l0
    x, batched = time_first(module, input, weight, None)
    names = CELLS[cell_name(module) or ""].states
    states = check_states(module, names, hx, x.shape[1], batched, weight, None)
    if states is not None:
        return x, states
    rows = module.num_layers * (2 if module.bidirectional else 1)
    widths = [module.proj_size or module.hidden_size] + [module.hidden_size] * (len(names) - 1)
    return x, tuple(x.new_zeros(rows, x.shape[1], width) for width in widths)


register_reader(_read_stack, nn.RNN, nn.GRU, nn.LSTM, Recurrent)
