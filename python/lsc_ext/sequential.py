"""``nn.Sequential`` as a network of layers: feed-forward or convolutional blocks, recurrent layers, and mixtures.

A block begins at each module with a matrix or a larger tensor among its parameters (a dense layer, a convolution, a
block of one's own) and goes on over the modules after it that have none (activations, norms, pooling, dropout). Nested
``nn.Sequential``s are read as if they were not nested. Recurrent layers are layers of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lsc_ext.nn.initialization import CONVOLUTIONS
from lsc_ext.operator import JacobianOperator
from lsc_ext.rerun import LayerRun
from lsc_ext.steps import StepLayer, StepTrajectory, run_layer
from lsc_ext.trajectory import (
    Kernel,
    Readout,
    Trajectory,
    check_direction,
    is_recurrent,
    kernel_of,
    leaves_of,
    read,
    register_reader,
)
from lsc_ext.weights import Weight, weights_in


class SequentialTrajectory(Trajectory):
    """Trajectories one above the other; the layers of all of them are counted from the bottom."""

    def __init__(self, parts: Sequence[Trajectory]) -> None:
        self.parts = list(parts)
        self._places = [(part, i) for part in self.parts for i in range(part.num_layers)]
        self.num_layers = len(self._places)
        self.time_steps, self.batch = self.parts[0].time_steps, self.parts[0].batch

    def layers_of(self, direction: str) -> Sequence[int]:
        """As the parts have them; depth: all but the first."""
        check_direction(direction)
        if direction == "depth":
            return range(1, self.num_layers)
        if direction in ("input", "output"):
            return [0] if direction == "input" else [self.num_layers - 1]
        return [k for k, (part, i) in enumerate(self._places) if i in part.layers_of(direction)]

    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Readout | None = None
    ) -> JacobianOperator:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        part, own = self._places[layer]
        return part.operator(direction, own, points, readout=readout)

    def rerun(self, layer: int) -> LayerRun | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        part, own = self._places[layer]
        return part.rerun(own)

    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        part, own = self._places[layer]
        return part.kernel(direction, own)

    def carry(self, kind: str, layer: int) -> Kernel | None:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        part, own = self._places[layer]
        return part.carry(kind, own)

    def weights_of(self, layer: int) -> Sequence[Weight]:
        """See :class:`lsc_ext.trajectory.Trajectory`."""
        part, own = self._places[layer]
        return part.weights_of(own)


def _begins_block(module: nn.Module) -> bool:
    return any(p.dim() >= 2 for p in module.parameters())


def _blocks(leaves: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Runs of modules that are one layer each; what comes before the first matrix joins the first block."""
    blocks: list[list[nn.Module]] = [[]]
    started = False
    for leaf in leaves:
        if _begins_block(leaf) and started:
            blocks.append([])
        started = started or _begins_block(leaf)
        blocks[-1].append(leaf)
    return blocks


def _weight_kernel(block: Sequence[nn.Module]) -> dict[str, Kernel]:
    """The block's matrix, where it is one of a dense layer or a convolution."""
    module = next(module for module in block if _begins_block(module))
    if parametrize.is_parametrized(module, "weight"):
        # Operators differentiate what the weight is made of, so how it moves a radius is not known to them.
        return {"depth": kernel_of(module, "weight", module.weight.detach())}  # type: ignore[operator]
    weight = module._parameters.get("weight")
    return {} if weight is None or weight.dim() < 2 else {"depth": kernel_of(module, "weight")}


def _feed_forward(block: Sequence[nn.Module], inputs: Tensor) -> StepLayer:
    modules = list(block)

    def apply(rows: Tensor, state: Tensor) -> Tensor:
        for module in modules:
            rows = module(rows)
        return rows

    parameters = [p for module in modules for p in module.parameters()]
    nothing = inputs.new_zeros(inputs.shape[1], 0)
    layer, _ = run_layer(lambda rows, state: state, apply, inputs, nothing, parameters)
    if any(_begins_block(module) for module in modules):
        layer.kernels = _weight_kernel(modules)
        first = next(module for module in modules if _begins_block(module))
        layer.weights = tuple(replace(w, role=_role(w, first)) for w in weights_in(modules))
    return layer


def _role(weight: Weight, first: nn.Module) -> str:
    """Of a weight of a block whose matrix is that of ``first``."""
    if weight.module is first and isinstance(first, (nn.Linear, *CONVOLUTIONS)):
        return {"weight": "input", "bias": "bias"}.get(weight.name, "other")
    return "other"


def output_of(model: Any, inputs: Tensor, *state: Any) -> Any:
    """What a model hands up, without the states that it may return beside; also of recurrent layers in sequence."""
    if type(model) is nn.Sequential:
        for module in model:
            inputs = output_of(module, inputs, *state)
        return inputs
    result = model(inputs, *state)
    return result[0] if isinstance(result, tuple) else result


def _read_sequential(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        return None
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: expected a torch.Tensor, got {type(inputs).__qualname__}")
    if initial_state is not None:
        raise ValueError("initial_state: expected None for an nn.Sequential, whose layers start from zero")
    leaves = leaves_of(model)
    if not any(_begins_block(leaf) for leaf in leaves):
        raise ValueError("model: expected an nn.Sequential with at least one weight matrix, got none")
    recurrent = [leaf for leaf in leaves if is_recurrent(leaf)]
    layouts = {bool(leaf.batch_first) for leaf in recurrent}
    if len(layouts) > 1:
        raise ValueError("model: expected recurrent layers with one batch_first, got both")
    parts: list[Trajectory] = []
    with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
        in_time = bool(recurrent) or (isinstance(leaves[0], nn.Linear) and inputs.dim() == 3)
        fed = inputs if in_time else inputs.unsqueeze(0)  # [T, B, ...]; samples alone are one step of many sequences
        if layouts == {True}:
            fed = fed.transpose(0, 1)
        waiting: list[nn.Module] = []

        def close() -> None:
            nonlocal fed
            if not waiting:
                return
            if not any(_begins_block(leaf) for leaf in waiting):
                fed = _feed_forward(waiting, fed).handed_up  # nothing to measure between two recurrent layers
            else:
                layers = []
                for block in _blocks(waiting):
                    layers.append(_feed_forward(block, fed))
                    fed = layers[-1].handed_up
                parts.append(StepTrajectory(layers, through_states))
            waiting.clear()

        for leaf in leaves:
            if not is_recurrent(leaf):
                waiting.append(leaf)
                continue
            close()
            own = fed.transpose(0, 1) if leaf.batch_first else fed
            part = read(leaf, own, None, through_states)
            if part is None:
                raise TypeError(f"model: expected recurrent layers that are known, got {type(leaf).__qualname__}")
            parts.append(part)
            fed = output_of(leaf, own)
            fed = fed.transpose(0, 1) if leaf.batch_first else fed
        close()
    return SequentialTrajectory(parts)


register_reader(_read_sequential, nn.Sequential)
