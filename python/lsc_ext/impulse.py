"""What a linear recurrence answers to an impulse, as a function of its matrices: g[k] = C A^k B, A block diagonal.

On the CPU the response and its derivatives are compiled chains of matrix-vector products. Derivatives of derivatives,
transforms of ``torch.func`` and other devices go through products of powers in torch.

Letters: K blocks of m states, n = K m, I inputs, O outputs, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext import backends, ops
from lsc_ext.scan import memory_of

_DTYPES = (torch.float32, torch.float64)


def impulse_response(A: Tensor, B: Tensor, C: Tensor, steps: int) -> Tensor:
    """C A^k B for k = 0 .. steps - 1.

    Args:
        A: [K, m, m].
        B: [n, I].
        C: [O, n].
        steps: T, at least 1. All tensors are of one dtype, float32 or float64, and on one device.

    Returns:
        [T, O, I], differentiable to any order. In reverse mode a derivative takes about twice the time of the response.

    Raises:
        ValueError: a shape is wrong, or fewer than 1 step.
        TypeError: another dtype.
        RuntimeError: tensors of several devices.
    """
    _check(A, B, C, steps)
    if torch._C._are_functorch_transforms_active() or not _is_compiled_for(A):
        return _by_doubling(A, B, C, steps)
    response: Tensor = _Response.apply(A, B, C, steps)[0]  # type: ignore[no-untyped-call]
    return response


def impulse_mismatch(
    A: Tensor, B: Tensor, C: Tensor, D: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Tensor:
    """Half of the sum of e W e, where e [T, O, I] is :func:`impulse_response`, D added to its first step, less
    ``target``.

    Args:
        A: as there.
        B: as there.
        C: as there.
        D: [O, I], what passes at once.
        target: [T, O, I]; T is that of the response.
        weigh: e -> W e, linear and symmetric.

    Returns:
        A number, differentiable to any order. The gradient by the matrices is computed with it.

    Raises:
        As :func:`impulse_response`; also ValueError for D or a target of another shape.
    """
    _check(A, B, C, 1)
    shape = (C.shape[0], B.shape[1])
    if D.shape != shape:
        raise ValueError(f"D: expected shape {shape}, got {tuple(D.shape)}")
    if target.dim() != 3 or target.shape[1:] != shape or len(target) < 1:
        raise ValueError(f"target: expected shape (T, {shape[0]}, {shape[1]}), T at least 1, got {tuple(target.shape)}")
    if torch._C._are_functorch_transforms_active() or not _is_compiled_for(A):
        return _mismatch_by_doubling(A, B, C, D, target, weigh)
    found: Tensor = _Mismatch.apply(A, B, C, D, target, weigh)  # type: ignore[no-untyped-call]
    return found


def push_impulse(matrices: tuple[Tensor, Tensor, Tensor], changes: tuple[Tensor, Tensor, Tensor], steps: int) -> Tensor:
    """The derivative of :func:`impulse_response` along changes of (A, B, C), [T, O, I]; not differentiable.

    Raises:
        As :func:`impulse_response`, of either.
    """
    _check(*matrices, steps, "matrices: ")
    _check(*changes, steps, "changes: ")
    for letter, value, change in zip("ABC", matrices, changes, strict=True):
        if change.shape != value.shape:
            raise ValueError(f"changes: {letter}: expected shape {tuple(value.shape)}, got {tuple(change.shape)}")
    if not _is_compiled_for(matrices[0]):
        found: Tensor = torch.func.jvp(lambda A, B, C: _by_doubling(A, B, C, steps), matrices, changes)[1]
        return found
    A, B, C = (memory_of(z.detach()) for z in matrices)
    moved = [memory_of(z.detach().to(A)) for z in changes]
    _, states = _compiled(A, B, C, steps)
    change = A.new_empty(steps, C.shape[0], B.shape[1])
    _call("impulse_push", A, B, C, steps, (A, C, *moved, states, change))
    return change


def _is_compiled_for(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and backends.backend_of(tensor).name == "cpu"


def _check(A: Tensor, B: Tensor, C: Tensor, steps: int, name: str = "") -> None:
    """``name`` is that of the argument that the tensors are members of."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps: expected an int, got {type(steps).__name__}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if A.dim() != 3 or A.shape[1] != A.shape[2] or A.numel() == 0:
        raise ValueError(f"{name}A: expected shape (K, m, m) with K and m of at least 1, got {tuple(A.shape)}")
    n = A.shape[0] * A.shape[1]
    if B.dim() != 2 or B.shape[0] != n:
        raise ValueError(f"{name}B: expected shape ({n}, I), got {tuple(B.shape)}")
    if C.dim() != 2 or C.shape[1] != n:
        raise ValueError(f"{name}C: expected shape (O, {n}), got {tuple(C.shape)}")
    if A.dtype not in _DTYPES:
        raise TypeError(f"{name}A: expected float32 or float64, got {A.dtype}")
    for letter, tensor in (("B", B), ("C", C)):
        if tensor.dtype != A.dtype:
            raise TypeError(f"{name}{letter}: expected {A.dtype} as A has, got {tensor.dtype}")
        if tensor.device != A.device:
            raise RuntimeError(f"{name}{letter}: expected a tensor on {A.device} as A is, got {tensor.device}")


def _by_doubling(A: Tensor, B: Tensor, C: Tensor, steps: int) -> Tensor:
    """With A^1, A^2, A^4, .., each of which doubles how many steps are there."""
    K, m, _ = A.shape
    inputs = B.shape[1]
    power, reached = A, B.reshape(K, m, inputs)
    known = 1
    while known < steps:
        reached = torch.cat((reached, power @ reached), -1)
        power = power @ power
        known *= 2
    states = reached[..., : steps * inputs].reshape(K * m, steps * inputs)
    return (C @ states).view(len(C), steps, inputs).transpose(0, 1)


def _sizes(A: Tensor, B: Tensor, C: Tensor, steps: int) -> list[int]:
    return [steps, A.shape[0], A.shape[1], B.shape[1], C.shape[0]]


def _call(name: str, A: Tensor, B: Tensor, C: Tensor, steps: int, memory: tuple[Tensor, ...]) -> None:
    backend = backends.backend_of(A)
    function = getattr(backend.functions, name)
    backend.call(function, ops.dtype_name(A), _sizes(A, B, C, steps), *(ops.buffer(tensor) for tensor in memory))


def _compiled(A: Tensor, B: Tensor, C: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The response, and the states as the compiled code keeps them."""
    kept = backends.backend_of(A).functions.impulse_states_size(ops.dtype_name(A), _sizes(A, B, C, steps))
    states, response = A.new_empty(kept), A.new_empty(steps, C.shape[0], B.shape[1])
    _call("impulse_response", A, B, C, steps, (A, B, C, states, response))
    return response, states


class _Response(torch.autograd.Function):
    @staticmethod
    def forward(A: Tensor, B: Tensor, C: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        return _compiled(memory_of(A), memory_of(B), memory_of(C), steps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *matrices, ctx.steps = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*matrices, output[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        A, B, C, states = ctx.saved_tensors
        if torch.is_grad_enabled() or ops.is_batched(*slopes):
            found = _in_torch(lambda A, B, C: _by_doubling(A, B, C, ctx.steps), (A, B, C), slopes[0])
            return *found, None
        A, B, C = memory_of(A), memory_of(B), memory_of(C)
        gradients = torch.empty_like(A), torch.empty_like(B), torch.empty_like(C)
        _call("impulse_pull", A, B, C, ctx.steps, (A, C, memory_of(slopes[0]), states, *gradients))
        return *gradients, None


class _Mismatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, A: Tensor, B: Tensor, C: Tensor, D: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor]
    ) -> Tensor:
        a, b, c = memory_of(A), memory_of(B), memory_of(C)
        error, states = _compiled(a, b, c, len(target))
        error -= target
        error[0] += D
        slope = memory_of(weigh(error))
        ctx.weigh = weigh
        ctx.save_for_backward(A, B, C, D, target)
        if any(ctx.needs_input_grad):
            by_target = -slope if ctx.needs_input_grad[4] else None
            gradients = torch.empty_like(a), torch.empty_like(b), torch.empty_like(c)
            _call("impulse_pull", a, b, c, len(target), (a, c, slope, states, *gradients))
            ctx.gradients = (*gradients, slope[0].clone(), by_target)
        return torch.dot(error.flatten(), slope.flatten()) / 2

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled() or ops.is_batched(*upstream):
            weigh = ctx.weigh
            found = _in_torch(
                lambda A, B, C, D, target: _mismatch_by_doubling(A, B, C, D, target, weigh), tensors, upstream[0]
            )
            return *found, None
        return *(None if gradient is None else gradient * upstream[0] for gradient in ctx.gradients), None


def _mismatch_by_doubling(
    A: Tensor, B: Tensor, C: Tensor, D: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Tensor:
    response = _by_doubling(A, B, C, len(target))
    error = torch.cat((response[:1] + D, response[1:])) - target
    return (error * weigh(error)).sum() / 2


def _in_torch(function: Callable[..., Tensor], given: Sequence[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    """Gradients of ``function`` by plain torch, which can be differentiated again, or are of a batch of slopes.

    By views of what is given: of tensors that depend on each other each gets its own part alone.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        own = [z.view_as(z) if z.requires_grad else z.detach().requires_grad_() for z in given]
        return torch.autograd.grad(function(*own), own, slope, create_graph=create_graph, materialize_grads=True)
