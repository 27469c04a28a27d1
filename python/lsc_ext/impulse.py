"""What a linear recurrence answers to an impulse, as a function of its matrices: g[k] = C A^k B, A block diagonal.

On the CPU the response and its derivatives are compiled chains of matrix-vector products. Derivatives of derivatives,
transforms of ``torch.func`` and other devices go through products of powers in torch.

Letters: K blocks of m states, n = K m, I inputs, O outputs, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lsc_ext import backends, ops

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
    steps, shape = len(target), (C.shape[0], B.shape[1])
    _check(A, B, C, steps)
    if D.shape != shape or target.shape[1:] != shape:
        raise ValueError(f"D, target: expected {shape} and (T, *{shape}), got {tuple(D.shape)}, {tuple(target.shape)}")
    if target.requires_grad or torch._C._are_functorch_transforms_active() or not _is_compiled_for(A):
        return _mismatch_by_doubling(A, B, C, D, target, weigh)
    found: Tensor = _Mismatch.apply(A, B, C, D, target, weigh)  # type: ignore[no-untyped-call]
    return found


def push_impulse(matrices: tuple[Tensor, Tensor, Tensor], changes: tuple[Tensor, Tensor, Tensor], steps: int) -> Tensor:
    """The derivative of :func:`impulse_response` along changes of (A, B, C), [T, O, I]; not differentiable.

    Raises:
        As :func:`impulse_response`, of either.
    """
    for tensors in (matrices, changes):
        _check(*tensors, steps)
    for name, value, change in zip("ABC", matrices, changes, strict=True):
        if change.shape != value.shape:
            raise ValueError(f"changes: expected {name} of shape {tuple(value.shape)}, got {tuple(change.shape)}")
    if not _is_compiled_for(matrices[0]):
        found: Tensor = torch.func.jvp(lambda A, B, C: _by_doubling(A, B, C, steps), matrices, changes)[1]
        return found
    A, B, C = (z.detach().contiguous() for z in matrices)
    moved = [z.detach().to(A).contiguous() for z in changes]
    _, states = _compiled(A, B, C, steps)
    change = A.new_empty(steps, C.shape[0], B.shape[1])
    _call("impulse_push", A, B, C, steps, (A, C, *moved, states, change))
    return change


def _is_compiled_for(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and backends.backend_of(tensor).name == "cpu"


def _check(A: Tensor, B: Tensor, C: Tensor, steps: int) -> None:
    if A.dim() != 3 or A.shape[1] != A.shape[2] or A.numel() == 0:
        raise ValueError(f"A: expected shape (K, m, m) with K and m of at least 1, got {tuple(A.shape)}")
    n = A.shape[0] * A.shape[1]
    if B.dim() != 2 or B.shape[0] != n:
        raise ValueError(f"B: expected shape ({n}, I), got {tuple(B.shape)}")
    if C.dim() != 2 or C.shape[1] != n:
        raise ValueError(f"C: expected shape (O, {n}), got {tuple(C.shape)}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if A.dtype not in _DTYPES:
        raise TypeError(f"A: expected float32 or float64, got {A.dtype}")
    for name, tensor in (("B", B), ("C", C)):
        if tensor.dtype != A.dtype:
            raise TypeError(f"{name}: expected {A.dtype} as A has, got {tensor.dtype}")
        if tensor.device != A.device:
            raise RuntimeError(f"{name}: expected a tensor on {A.device} as A is, got {tensor.device}")


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
        return _compiled(A.contiguous(), B.contiguous(), C.contiguous(), steps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *matrices, ctx.steps = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*matrices, output[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        A, B, C, states = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate the derivative
            response = _by_doubling(A, B, C, ctx.steps)
            return *_gradients(response, (A, B, C), slopes[0], ctx.needs_input_grad), None
        A, B, C = (z.contiguous() for z in (A, B, C))
        gradients = torch.empty_like(A), torch.empty_like(B), torch.empty_like(C)
        _call("impulse_pull", A, B, C, ctx.steps, (A, C, slopes[0].contiguous(), states, *gradients))
        return *gradients, None


class _Mismatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, A: Tensor, B: Tensor, C: Tensor, D: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor]
    ) -> Tensor:
        a, b, c = A.contiguous(), B.contiguous(), C.contiguous()
        error, states = _compiled(a, b, c, len(target))
        error -= target
        error[0] += D
        slope = weigh(error).contiguous()
        ctx.weigh = weigh
        ctx.save_for_backward(A, B, C, D, target)
        if any(ctx.needs_input_grad):
            ctx.gradients = torch.empty_like(a), torch.empty_like(b), torch.empty_like(c), slope[0].clone()
            _call("impulse_pull", a, b, c, len(target), (a, c, slope, states, *ctx.gradients[:3]))
        return torch.dot(error.flatten(), slope.flatten()) / 2

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            A, B, C, D, target = ctx.saved_tensors
            loss = _mismatch_by_doubling(A, B, C, D, target, ctx.weigh)
            return *_gradients(loss, (A, B, C, D), upstream[0], ctx.needs_input_grad), None, None
        return *(gradient * upstream[0] for gradient in ctx.gradients), None, None


def _mismatch_by_doubling(
    A: Tensor, B: Tensor, C: Tensor, D: Tensor, target: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Tensor:
    response = _by_doubling(A, B, C, len(target))
    error = torch.cat((response[:1] + D, response[1:])) - target
    return (error * weigh(error)).sum() / 2


def _gradients(
    value: Tensor, matrices: tuple[Tensor, ...], slope: Tensor, needed: tuple[bool, ...]
) -> Iterator[Tensor | None]:
    """Those of the matrices that need one, differentiable."""
    wanted = [z for z, want in zip(matrices, needed, strict=False) if want]
    found = iter(torch.autograd.grad(value, wanted, slope, create_graph=True, materialize_grads=True))
    return (next(found) if want else None for _, want in zip(matrices, needed, strict=False))
