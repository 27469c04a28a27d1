"""A network given by a step function of one's own."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.steps import StepLayer, StepTrajectory, run_layer
from lsc_ext.trajectory import Trajectory, register_reader
from lsc_ext.weights import weights_in

Step = Callable[[Tensor, Tensor], Tensor]
LayerStates = Tensor | Sequence[Tensor]


class StepModel(nn.Module):
    """A recurrent layer made of a step function in plain torch, or a stack of such layers.

    Radii, their gradients and pre-training need nothing else. Products with the step's Jacobians are reverse passes of
    autograd over many points at once, so the step must be twice differentiable by torch; row i of what it returns may
    depend on row i of its arguments alone.

    Args:
        step: ``step(input [N, I], state [N, n]) -> next state [N, n]``; or a sequence of StepModels, the lowest first,
            each fed what the one below hands up.
        state_size: n. Several state variables are put side by side.
        module: the module whose parameters ``step`` and ``output`` read; by default ``step`` itself where it is a
            module, or the module that it is a method of. An ``output`` that is a module is registered beside it. A
            copy of a function that holds a module would go on reading that one, so ``copy.deepcopy`` refuses it.
        output: ``output(state [N, n]) -> [N, H]``, what the layer hands up after a step; None: the whole state.
        input_size: I, needed only where random inputs are to be drawn.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].

    Raises:
        TypeError: ``step`` is neither callable nor a sequence of StepModels.
        ValueError: ``state_size`` is missing or below 1; or ``step`` reads a module that ``module`` does not name.
    """

    def __init__(
        self,
        step: Step | Sequence[StepModel],
        state_size: int | None = None,
        *,
        module: nn.Module | None = None,
        output: Callable[[Tensor], Tensor] | None = None,
        input_size: int | None = None,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.input_size, self.state_size = batch_first, input_size, state_size
        self.stack: nn.ModuleList | None = None
        self.module: nn.Module | None = None
        if isinstance(step, Sequence):
            self._take_stack(step, state_size, module, output)
            return
        if not callable(step):
            raise TypeError(f"step: expected a function or a sequence of StepModels, got {type(step).__qualname__}")
        if not isinstance(state_size, int) or state_size < 1:
            raise ValueError(f"state_size: expected an int of at least 1, got {state_size!r}")
        owner = step if isinstance(step, nn.Module) else getattr(step, "__self__", None)
        self.module = module if module is not None else owner if isinstance(owner, nn.Module) else None
        if self.module is None and isinstance(step, types.FunctionType) and _reads_a_module(step):
            raise ValueError("module: expected the module that the step reads, so that its parameters count, got None")
        self.head: nn.Module | None = None
        inside = [] if self.module is None else list(self.module.modules())
        if isinstance(output, nn.Module) and not any(output is part for part in inside):
            self.head = output
        # Kept out of the module tree, which has them by `module` and `head`.
        self._functions: tuple[Step, Callable[[Tensor], Tensor] | None] = (step, output)

    def _take_stack(self, stack: Sequence[Any], *others: object) -> None:
        for i, layer in enumerate(stack):
            if not isinstance(layer, StepModel) or layer.stack is not None:
                raise TypeError(f"step[{i}]: expected a StepModel of one layer, got {type(layer).__qualname__}")
            if layer.batch_first and not self.batch_first:
                raise ValueError(f"step[{i}]: expected batch_first of the stack instead of the layer, got the layer's")
        if not stack or any(other is not None for other in others):
            raise ValueError("step: expected at least one StepModel and no other argument about a step, got a stack")
        self.stack = nn.ModuleList(stack)
        if self.input_size is None:
            self.input_size = stack[0].input_size

    def __deepcopy__(self, memo: dict[int, Any]) -> StepModel:
        for function in () if self.stack is not None else self._functions:
            if isinstance(function, types.FunctionType) and _reads_a_module(function):
                raise TypeError(
                    "step: expected a module or a method of one in a model that is copied, got a function, which would "
                    f"read the first model's parameters: {function.__qualname__}"
                )
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    @property
    def layers(self) -> list[StepModel]:
        """The layers from the bottom; itself where it is one."""
        return [self] if self.stack is None else list(self.stack)  # type: ignore[arg-type]

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layers)

    def extra_repr(self) -> str:
        """The size of the state."""
        return "" if self.state_size is None else f"state_size={self.state_size}"

    def _run(self, input: Tensor, hx: LayerStates | None) -> tuple[list[StepLayer], list[Tensor]]:
        if not isinstance(input, Tensor):
            raise TypeError(f"input: expected a torch.Tensor, got {type(input).__qualname__}")
        if input.dim() < 2:
            raise ValueError(f"input: expected shape (T, B, ...), got {tuple(input.shape)}")
        fed = input.transpose(0, 1) if self.batch_first else input
        if hx is not None and not isinstance(hx, Tensor | Sequence):
            raise TypeError(f"hx: expected a torch.Tensor or a sequence of them, got {type(hx).__qualname__}")
        states = [None] * self.num_layers if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
        if len(states) != self.num_layers:
            raise ValueError(f"hx: expected {self.num_layers} states, one for each layer, got {len(states)}")
        dtype = next((p.dtype for p in self.parameters()), fed.dtype if fed.is_floating_point() else torch.float32)
        layers, last = [], []
        for number, (model, given) in enumerate(zip(self.layers, states, strict=True)):
            shape = (fed.shape[1], model.state_size or 0)
            if given is not None and not isinstance(given, Tensor):
                raise TypeError(f"hx[{number}]: expected a torch.Tensor, got {type(given).__qualname__}")
            if given is not None and tuple(given.shape) != shape:
                raise ValueError(f"hx[{number}]: expected shape {shape}, got {tuple(given.shape)}")
            initial = fed.new_zeros(shape, dtype=dtype) if given is None else given
            step, output = model._functions
            layer, end = run_layer(step, functools.partial(_hand_up, output), fed, initial, list(model.parameters()))
            layer.weights = tuple(weights_in([model]))
            layers.append(layer)
            last.append(end)
            fed = layer.handed_up
        return layers, last

    def forward(self, input: Tensor, hx: LayerStates | None = None) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Runs the steps.

        Args:
            input: [T, B, ...], or [B, T, ...] with ``batch_first``.
            hx: initial state [B, n], of a stack a sequence of them; None for zeros.

        Returns:
            What the top layer hands up, in the input's layout, and the last state, of a stack a tuple of them.

        Raises:
            TypeError: ``input`` is not a tensor.
            ValueError: a shape is wrong.
        """
        layers, last = self._run(input, hx)
        output = layers[-1].handed_up
        if self.batch_first:
            output = output.transpose(0, 1)
        return output, last[0] if self.stack is None else tuple(last)


def _reads_a_module(function: types.FunctionType) -> bool:
    found = inspect.getclosurevars(function)
    return any(isinstance(value, nn.Module) for value in (*found.nonlocals.values(), *found.globals.values()))


def _hand_up(output: Callable[[Tensor], Tensor] | None, inputs: Tensor, state: Tensor) -> Tensor:
    return state if output is None else output(state)


def _read_step_model(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, StepModel):
        return None
    with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
        layers, _ = model._run(inputs, initial_state)
    ops.dtype_name(layers[0].before)
    return StepTrajectory(layers, through_states)


register_reader(_read_step_model, StepModel)
