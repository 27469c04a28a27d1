"""One stack run over sequences, and the shortest way there.

Letters: T time, B batch, I input size, H hidden size, L layers, S state variables per unit.

The operator of :mod:`lsc_ext.ops` is right in every mode of torch, and dispatching it costs more than a small network's
step. In plain eager mode nobody is there to see a dispatch: :func:`route` says so, and the kernel is called directly,
under grad through an ``autograd.Function`` of our own. Anything else goes through the operator. What each way costs:
docs/design/0002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from lsc_ext import _C, backends, ops

#: A layer's parameters in the order of ``ops.PARAMETERS``, layer after layer; None for an absent one.
Weights = Sequence[Tensor | None]
#: What the top layer hands up, [T, B, H], and the last states, S tensors [L, B, H].
Walked = tuple[Tensor, tuple[Tensor, ...]]


class Route(Enum):
    """The ways to the compiled forward pass."""

    OPERATOR = "through torch's dispatcher: right in every mode"
    KERNEL = "straight to the kernel: nothing is recorded"
    RECORDED = "straight to the kernel, inside an autograd.Function"


_PLAIN = (Tensor, Parameter)


def route(tensors: Sequence[Tensor | None]) -> Route:
    """Which way a call with these tensors takes.

    A short way is open where no transform, mode, tracer, compiler or forward-mode level watches, and where every tensor
    is exactly a Tensor or a Parameter on the CPU, of the first one's dtype, whose memory holds its values (no lazy
    negation, no lazy zeros). What is wrong with a tensor, the operator says.
    """
    if watched():
        return Route.OPERATOR
    wanted, dtype = False, None
    for tensor in tensors:
        if tensor is None:
            continue
        if dtype is None:
            dtype = tensor.dtype
        if (
            type(tensor) not in _PLAIN
            or tensor.dtype is not dtype
            or not tensor.is_cpu
            or tensor.is_neg()
            or tensor._is_zerotensor()
        ):
            return Route.OPERATOR
        wanted = wanted or tensor.requires_grad
    return Route.RECORDED if wanted and torch.is_grad_enabled() else Route.KERNEL


def watched() -> bool:
    """Whether a transform, mode, tracer, compiler or forward-mode level would miss a call that torch does not see.

    Or where the CPU's kernels are not the ones to call, for CPU tensors stand for others.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        or backends.emulating()
    )


@dataclass(frozen=True)
class Plan:
    """What never changes about a stack whose layers are all one kernel call, so that a call need not find it out.

    Attributes:
        cell: the cell's name.
        hidden: H.
        layers: L.
        names: the parameters in the order of ``ops.PARAMETERS``, layer after layer; None for an absent one.
        count: S.
        preactivations: P.
    """

    cell: str
    hidden: int
    layers: int
    names: tuple[str | None, ...]
    count: int
    preactivations: int


def from_zero(plan: Plan, module: Any, input: Tensor) -> Walked | None:
    """The shortest way, from zero states; None where it is not open (see :func:`route`) or something is to be said.

    Args:
        plan: of the module.
        module: holds the parameters.
        input: what is to be [T, B, I] in one piece.
    """
    if watched() or type(input) is not Tensor or input.dim() != 3:
        return None
    held = module._parameters
    weights: list[Any] = []
    wanted, dtype = input.requires_grad, input.dtype
    for name in plan.names:
        if name is None:
            weights.append(None)
            continue
        weight = held.get(name)
        if weight is None or not _is_plain(weight, dtype):
            return None
        wanted = wanted or weight.requires_grad
        weights.append(weight)
    steps, batch, inputs = input.shape
    if inputs != module.input_size or not _is_plain(input, dtype) or (dtype is torch.float32 and _autocast()):
        return None
    if wanted and torch.is_grad_enabled():
        output, *last = _apply_recorded(plan.cell, plan.hidden, 0, input, *weights)
        return output, tuple(last)
    output, last, _, _ = _kernel(plan, input, weights, steps, batch, inputs, False)
    return output, last


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    return (
        type(tensor) in _PLAIN
        and tensor.dtype is dtype
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
    )


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu")


def _kernel(
    plan: Plan, x: Tensor, weights: Weights, steps: int, batch: int, inputs: int, recorded: bool
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None, Tensor | None]:
    """Output, last states and, ``recorded``, states and gates; everything given is plain and in one piece."""
    hidden, layers, count = plan.hidden, plan.layers, plan.count
    states = gates = None
    memory = [x.data_ptr(), x.numel()]
    for weight in weights:
        memory += (0, 0) if weight is None else (weight.data_ptr(), weight.numel())
    if recorded:
        states = x.new_empty((layers, steps + 1, count, batch, hidden))
        gates = x.new_empty((layers, steps, batch, plan.preactivations, hidden))
        memory += (states.data_ptr(), states.numel(), gates.data_ptr(), gates.numel())
    else:
        memory += (0, 0, 0, 0)
    output = x.new_empty((steps, batch, hidden))
    last = tuple([x.new_empty((layers, batch, hidden)) for _ in range(count)])
    for tensor in (output, *last):
        memory += (tensor.data_ptr(), tensor.numel())
    _C.forward_from_zero(
        plan.cell, ops.dtype_name(x), (steps, batch, inputs, hidden, layers), memory, torch.get_num_threads()
    )
    return output, last, states, gates


def run_stack(x: Tensor, initial: tuple[Tensor, ...] | None, weights: Weights, cell: str, hidden: int) -> Walked:
    """Runs a stack of layers of ``cell`` with ``hidden`` units each.

    Args:
        x: [T, B, I].
        initial: S tensors [L, B, H]; None for zeros.
        weights: every layer's parameters.
        cell: the cell's name.
        hidden: H.

    Returns:
        What the top layer hands up, [T, B, H], and the last states, S tensors [L, B, H] in memory of their own.
    """
    tensors = (x, *(initial or ()), *weights)
    way = route(tensors)
    if way is Route.OPERATOR:
        return _through_operator(x, initial, weights, cell, hidden)
    if way is Route.KERNEL:
        output, last, _, _ = _forward(x, initial, weights, cell, hidden, False)
        return output, last
    given = 0 if initial is None else len(initial)
    output, *last = _apply_recorded(cell, hidden, given, *tensors)
    return output, tuple(last)


def _through_operator(
    x: Tensor, initial: tuple[Tensor, ...] | None, weights: Weights, cell: str, hidden: int
) -> Walked:
    layers = len(weights) // ops.PER_LAYER
    if initial is None:
        start = x.new_zeros(layers, ops.CELL_SHAPES[cell]["states"], x.shape[1], hidden)
    else:
        start = torch.stack(initial, dim=1)
    absent = x.new_empty(0)
    states, _ = ops.recurrent(x, start, [absent if w is None else w for w in weights], cell)
    last = states.select(1, -1).unbind(1)
    return states[-1, 1:, 0], tuple(part.clone(memory_format=torch.contiguous_format) for part in last)


def _ends(states: Tensor, copied: bool) -> Walked:
    """As :func:`_through_operator` ends, with the fewest calls of torch.

    The last states are copies: they must not share memory with the output, which may be changed in place. The output is
    one where ``copied``, and else a view of the states.
    """
    layers, slots, count, batch, hidden = states.shape
    state, step = batch * hidden, count * batch * hidden
    cut = torch.as_strided_copy if copied else torch.as_strided
    output = cut(states, (slots - 1, batch, hidden), (step, hidden, 1), ((layers - 1) * slots + 1) * step)
    extent, strides, after = (layers, batch, hidden), (slots * step, hidden, 1), (slots - 1) * step
    if count == 1:
        return output, (torch.as_strided_copy(states, extent, strides, after),)
    return output, tuple(torch.as_strided_copy(states, extent, strides, after + s * state) for s in range(count))


def _layer_buffers(weights: Weights) -> list[list[ops.Buffer | None]]:
    flat = [None if w is None else (w.data_ptr(), w.numel()) for w in weights]
    return [flat[i : i + ops.PER_LAYER] for i in range(0, len(flat), ops.PER_LAYER)]


def _contiguous(weights: Weights) -> Weights:
    return [w if w is None or w.is_contiguous() else w.contiguous() for w in weights]


def _forward(
    x: Tensor, initial: tuple[Tensor, ...] | None, weights: Weights, cell: str, hidden: int, recorded: bool
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None, Tensor | None]:
    """Output and last states as :data:`Walked`, states [L, T + 1, S, B, H] and, ``recorded``, gates [L, T, B, P, H].

    Without initial states and unless ``recorded``, there are no states.
    """
    x, weights = x.contiguous(), _contiguous(weights)
    steps, batch, inputs = x.shape
    layers, shape = len(weights) // ops.PER_LAYER, ops.CELL_SHAPES[cell]
    count = shape["states"]
    if initial is None:
        plan = Plan(cell, hidden, layers, (), count, shape["preactivations"])
        return _kernel(plan, x, weights, steps, batch, inputs, recorded)
    sizes = (steps, batch, inputs, hidden, layers)
    states = x.new_empty(layers, steps + 1, count, batch, hidden)
    gates = x.new_empty(layers, steps, batch, shape["preactivations"], hidden) if recorded else None
    for place, given in zip(states.select(1, 0).unbind(1), initial, strict=True):
        place.copy_(given)
    _C.forward(
        cell,
        ops.dtype_name(x),
        sizes,
        ops.buffer(x),
        _layer_buffers(weights),
        ops.buffer(states),
        None if gates is None else ops.buffer(gates),
        torch.get_num_threads(),
    )
    output, last = _ends(states, recorded)
    return output, last, states, gates


class _Recorded(torch.autograd.Function):
    """The kernel's forward and backward pass, for eager mode alone.

    Without ``setup_context``, which costs more than a small step; no functorch transform comes here. A backward pass
    that is itself recorded, or watched by anything, is that of the operator, on a graph made anew.
    """

    @staticmethod
    def forward(ctx: Any, cell: str, hidden: int, given: int, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        initial: Any = tensors[:given] or None
        weights = tensors[given:]
        # The output is a copy: states are kept for the backward pass, and what is handed out may be changed in place.
        output, last, states, gates = _forward(x, initial, weights, cell, hidden, True)
        ctx.call = cell, hidden, given
        ctx.save_for_backward(x, *tensors, states, gates)
        ctx.set_materialize_grads(False)
        return output, *last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, states, gates = ctx.saved_tensors
        if torch.is_grad_enabled() or ops.is_batched(*grads) or route((*inputs, *grads)) is Route.OPERATOR:
            found = _recorded_backward(ctx, inputs, grads)
        else:
            found = _backward(ctx, inputs, states, gates, grads)
        return None, None, None, *found


_apply_recorded: Any = super(torch.autograd.Function, _Recorded).apply  # past Function.apply, which readies functorch


def _backward(
    ctx: Any, inputs: list[Tensor | None], states: Tensor, gates: Tensor, grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    cell, hidden, given = ctx.call
    x: Any = inputs[0]
    x, weights = x.contiguous(), _contiguous(inputs[1 + given :])
    layers, slots, count, batch, _ = states.shape
    grad_x = torch.empty_like(x)
    grad_weights = [None if w is None else torch.empty_like(w) for w in weights]
    starts = [x.new_empty((layers, batch, hidden)) for _ in range(given)]
    ends = [None if g is None else g.contiguous() for g in grads]
    memory: list[int] = []
    for tensor in (x, *weights, states, gates, *ends, grad_x, *grad_weights, *(starts or [None] * count)):
        memory += (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel())
    sizes = (slots - 1, batch, x.shape[2], hidden, layers)
    _C.backward_from_ends(cell, ops.dtype_name(x), sizes, memory, torch.get_num_threads())
    return [grad_x, *starts, *grad_weights]


def _recorded_backward(ctx: Any, inputs: list[Tensor | None], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    create_graph, (cell, hidden, given) = torch.is_grad_enabled(), ctx.call
    with torch.enable_grad():
        # Views, so that a tensor which is given twice gets two gradients.
        own: list[Any] = [None if t is None else t.view_as(t) for t in inputs]
        initial = tuple(own[1 : 1 + given]) or None
        output, last = _through_operator(own[0], initial, own[1 + given :], cell, hidden)
        reached = [(end, g) for end, g in zip((output, *last), grads, strict=True) if g is not None]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        found = torch.autograd.grad(
            [end for end, _ in reached],
            [own[i] for i in wanted],
            [g for _, g in reached],
            create_graph=create_graph,
            allow_unused=True,
        )
    result: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        result[i] = gradient
    return result
