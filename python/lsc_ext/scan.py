"""Linear recurrences over time as torch operators.

Letters: T time, B batch, N states of a step, K blocks of size m, K * m = N.

``scan``: h_t = a_t h_{t-1} + b_t, number by number; ``block_scan``: h_t = A h_{t-1} + b_t with A block diagonal. Every
derivative of such a recurrence is the same recurrence on other numbers and element-wise arithmetic. The derivatives
here are written with the operators themselves, so those of any order, forward and reverse, run compiled.

``lsc_ext::scan`` has the recurrence that carries gradients back under its flag ``adjoint``: step t multiplies by the
conjugate of the transition at the step it comes from, and there is no initial state. Each is the transpose of the
other in the opposite direction of time, so shifted or conjugated copies of the transition are never made.
Why a ``Function`` stands at the Autograd key: docs/design/0002.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsc_ext import backends, ops

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.complex64: "complex64",
    torch.complex128: "complex128",
}
_SLICE_NUMBERS, _MOST_SLICES = 2**17, 256


def memory_of(tensor: Tensor) -> Tensor:
    """The tensor as its numbers lie in memory: contiguous, no conjugation or sign put off."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def _check_tensors(name: str, transition: Tensor, inputs: Tensor, initial: Tensor | None) -> None:
    """``name`` is that of the first."""
    for what, tensor in ((name, transition), ("initial", initial)):
        if tensor is None:
            continue
        if tensor.device != inputs.device:
            raise RuntimeError(f"{what}: expected a tensor on {inputs.device} as inputs is, got {tensor.device}")
        if tensor.dtype != inputs.dtype:
            raise TypeError(f"{what}: expected {inputs.dtype} as inputs has, got {tensor.dtype}")


def _check_inputs(inputs: Tensor, initial: Tensor | None) -> None:
    if inputs.dim() != 3:
        raise ValueError(f"inputs: expected shape (T, B, N), got {tuple(inputs.shape)}")
    if inputs.dtype not in DTYPES:
        raise TypeError(f"dtype: expected float32, float64, complex64 or complex128, got {inputs.dtype}")
    if initial is not None and initial.shape != inputs.shape[1:]:
        raise ValueError(f"initial: expected shape {tuple(inputs.shape[1:])}, got {tuple(initial.shape)}")


def _check_scan(transition: Tensor, inputs: Tensor, initial: Tensor | None, adjoint: bool) -> None:
    _check_inputs(inputs, initial)
    if transition.shape != inputs.shape[2:] and transition.shape != inputs.shape:
        expected = f"{tuple(inputs.shape[2:])} or {tuple(inputs.shape)}"
        raise ValueError(f"transition: expected shape {expected}, got {tuple(transition.shape)}")
    if adjoint and initial is not None:
        raise ValueError("initial: expected None for the adjoint, got a tensor")


def _check_blocks(blocks: Tensor, inputs: Tensor, initial: Tensor | None) -> None:
    _check_inputs(inputs, initial)
    if blocks.dim() != 3 or blocks.shape[1] != blocks.shape[2] or blocks.shape[0] * blocks.shape[1] != inputs.shape[2]:
        expected = f"(K, m, m) with K * m == {inputs.shape[2]}"
        raise ValueError(f"blocks: expected shape {expected}, got {tuple(blocks.shape)}")


def _scan_compiled(transition: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool, adjoint: bool) -> Tensor:
    _check_scan(transition, inputs, initial, adjoint)
    _check_tensors("transition", transition, inputs, initial)
    transition, inputs = memory_of(transition), memory_of(inputs)
    start = None if initial is None else memory_of(initial)
    states = torch.empty_like(inputs)
    backend = backends.backend_of(inputs)
    backend.call(
        backend.functions.scan,
        DTYPES[inputs.dtype],
        list(inputs.shape),
        ops.buffer(transition),
        ops.buffer(inputs),
        None if start is None else ops.buffer(start),
        ops.buffer(states),
        transition.dim() == 1,
        reverse,
        adjoint,
    )
    return states


def _block_scan_compiled(blocks: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    _check_blocks(blocks, inputs, initial)
    _check_tensors("blocks", blocks, inputs, initial)
    blocks, inputs = memory_of(blocks), memory_of(inputs)
    start = None if initial is None else memory_of(initial)
    states = torch.empty_like(inputs)
    backend = backends.backend_of(inputs)
    backend.call(
        backend.functions.block_scan,
        DTYPES[inputs.dtype],
        [*inputs.shape[:2], *blocks.shape[:2]],
        ops.buffer(blocks),
        ops.buffer(inputs),
        None if start is None else ops.buffer(start),
        ops.buffer(states),
        reverse,
    )
    return states


def _first(tensor: Tensor, reverse: bool) -> Tensor:
    """The first step that is taken, [1, B, N]; nothing of no steps."""
    return tensor[-1:] if reverse else tensor[:1]


def _pairs(before: Tensor, after: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Both [T - 1, B, N]: ``before`` at each step but the last that is taken, ``after`` at the step that follows."""
    return (before[1:], after[:-1]) if reverse else (before[:-1], after[1:])


def _shifted(states: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """What each step starts from, [T, B, N]: ``states`` one step later, ``initial`` or zeros in front."""
    front = torch.zeros_like(states[:1]) if initial is None else initial.unsqueeze(0)
    if reverse:
        return torch.cat((states[1:], front[: states.shape[0]]))
    return torch.cat((front[: states.shape[0]], states[:-1]))


def _sum(terms: list[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


def _sum_of_products(one: Tensor, other: Tensor) -> Tensor:
    """The sum over [T, B] of one conj(other), [N]; in slices of time, whose products stay in cache."""
    steps, row = one.shape[0], one.shape[1] * one.shape[2]
    rows = max(1, _SLICE_NUMBERS // max(1, row), -(-steps // _MOST_SLICES))
    parts = [(a * b.conj()).sum((0, 1)) for a, b in zip(one.split(rows), other.split(rows), strict=True)]
    return _sum(parts)


def _fold(tensor: Tensor, batch_dim: int | None, batch_size: int, at: int) -> Tensor:
    """Makes the dimension of a vmap part of dimension ``at``, in front of what is there."""
    if batch_dim is None:
        batched = tensor.unsqueeze(at).expand(*tensor.shape[:at], batch_size, *tensor.shape[at:])
    else:
        batched = tensor.movedim(batch_dim, at)
    return batched.flatten(at, at + 1)


class _Scan(torch.autograd.Function):
    """Derivatives of the diagonal recurrence, by itself."""

    @staticmethod
    def forward(transition: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool, adjoint: bool) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.lsc_ext.scan(transition, inputs, initial, reverse, adjoint)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        transition, _, initial, ctx.reverse, ctx.adjoint = inputs
        ctx.save_for_backward(transition, initial, output)
        ctx.save_for_forward(transition, initial, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        transition, initial, states = ctx.saved_tensors
        reverse, adjoint = ctx.reverse, ctx.adjoint
        delta = _scan(transition, grads[0], None, not reverse, not adjoint)
        grad_transition = grad_initial = None
        if ctx.needs_input_grad[0]:
            pairs = _pairs(states, delta, reverse)
            one, other = pairs if adjoint else pairs[::-1]
            rest = torch.zeros_like(delta[:1]) if initial is None else _first(delta, reverse) * initial.conj()
            if transition.dim() == 1:
                grad_transition = _sum_of_products(one, other) + rest.sum((0, 1))
            else:
                moved = one * other.conj()
                # The direct recurrence uses the transition where a step arrives, the adjoint where it leaves.
                front, back = (moved, rest[: states.shape[0]]), (rest[: states.shape[0]], moved)
                grad_transition = torch.cat(front if reverse != adjoint else back)
        if initial is not None and ctx.needs_input_grad[2]:
            factor = transition if transition.dim() == 1 else _first(transition, reverse)
            grad_initial = (_first(delta, reverse) * factor.conj()).sum(0)
        return grad_transition, delta, grad_initial, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        with ops.outer_tangents(ctx.saved_tensors) as (transition, initial, states):
            by_transition, by_inputs, by_initial = tangents[:3]
            terms = [] if by_inputs is None else [by_inputs]
            if by_transition is not None:
                if ctx.adjoint:
                    terms.append(_shifted(by_transition.conj() * states, None, ctx.reverse))
                else:
                    terms.append(by_transition * _shifted(states, initial, ctx.reverse))
            moved = _sum(terms) if terms else torch.zeros_like(states)
            return _scan(transition, moved, by_initial, ctx.reverse, ctx.adjoint)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        transition: Tensor,
        inputs: Tensor,
        initial: Tensor | None,
        reverse: bool,
        adjoint: bool,
    ) -> tuple[Tensor, int]:
        size, per_step = info.batch_size, transition.dim() - (in_dims[0] is not None) == 3
        constants = in_dims[0] is not None and not per_step
        at = 2 if constants else 1  # several constant transitions are more states, anything else more sequences
        if constants:
            transition = _fold(transition, in_dims[0], size, 0)
        elif per_step:
            transition = _fold(transition, in_dims[0], size, 1)
        inputs = _fold(inputs, in_dims[1], size, at)
        if initial is not None:
            initial = _fold(initial, in_dims[2], size, at - 1)
        states = _scan(transition, inputs, initial, reverse, adjoint)
        return states.unflatten(at, (size, states.shape[at] // size)), at


def _by_block(rows: Tensor, blocks: Tensor) -> Tensor:
    """[T, B, K * m] as [K, T * B, m], ready for products with each of ``blocks`` [K, m, m]."""
    return rows.reshape(rows.shape[0] * rows.shape[1], *blocks.shape[:2]).transpose(0, 1)


def _from_blocks(rows: Tensor, shape: torch.Size) -> Tensor:
    """[K, T * B, m] as [T, B, K * m], whose ``shape`` is given."""
    return rows.transpose(0, 1).reshape(shape)


class _BlockScan(torch.autograd.Function):
    """Derivatives of the block diagonal recurrence, by itself."""

    @staticmethod
    def forward(blocks: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.lsc_ext.block_scan(blocks, inputs, initial, reverse)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        blocks, _, initial, ctx.reverse = inputs
        ctx.save_for_backward(blocks, initial, output)
        ctx.save_for_forward(blocks, initial, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        blocks, initial, states = ctx.saved_tensors
        delta = _block_scan(blocks.mH, grads[0], None, not ctx.reverse)
        first = _by_block(_first(delta, ctx.reverse), blocks)
        grad_blocks = grad_initial = None
        if ctx.needs_input_grad[0]:
            before, after = (_by_block(part, blocks) for part in _pairs(states, delta, ctx.reverse))
            grad_blocks = after.mT @ before.conj()
            if initial is not None and states.shape[0] > 0:
                grad_blocks = grad_blocks + first.mT @ _by_block(initial.unsqueeze(0), blocks).conj()
        if initial is not None and ctx.needs_input_grad[2]:
            grad_initial = _from_blocks(first @ blocks.conj(), delta[:1].shape).sum(0)
        return grad_blocks, delta, grad_initial, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        with ops.outer_tangents(ctx.saved_tensors) as (blocks, initial, states):
            by_blocks, by_inputs, by_initial = tangents[:3]
            terms = [] if by_inputs is None else [by_inputs]
            if by_blocks is not None:
                before = _by_block(_shifted(states, initial, ctx.reverse), blocks)
                terms.append(_from_blocks(before @ by_blocks.mT, states.shape))
            moved = _sum(terms) if terms else torch.zeros_like(states)
            return _block_scan(blocks, moved, by_initial, ctx.reverse)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        blocks: Tensor,
        inputs: Tensor,
        initial: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        at = 1 if in_dims[0] is None else 2  # several transitions are more blocks, anything else more sequences
        if in_dims[0] is not None:
            blocks = _fold(blocks, in_dims[0], size, 0)
        inputs = _fold(inputs, in_dims[1], size, at)
        if initial is not None:
            initial = _fold(initial, in_dims[2], size, at - 1)
        states = _block_scan(blocks, inputs, initial, reverse)
        return states.unflatten(at, (size, states.shape[at] // size)), at


_library = torch.library.Library("lsc_ext", "FRAGMENT")
_library.define("scan(Tensor transition, Tensor inputs, Tensor? initial, bool reverse, bool adjoint) -> Tensor")
_library.define("block_scan(Tensor blocks, Tensor inputs, Tensor? initial, bool reverse) -> Tensor")
for _device in ("CPU", "CUDA"):
    _library.impl("scan", _scan_compiled, _device)
    _library.impl("block_scan", _block_scan_compiled, _device)


def _scan_fake(transition: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool, adjoint: bool) -> Tensor:
    _check_scan(transition, inputs, initial, adjoint)
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _block_scan_fake(blocks: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    _check_blocks(blocks, inputs, initial)
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _scan_autograd(transition: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool, adjoint: bool) -> Tensor:
    return _Scan.apply(transition, inputs, initial, reverse, adjoint)  # type: ignore[no-any-return, no-untyped-call]


def _block_scan_autograd(blocks: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    return _BlockScan.apply(blocks, inputs, initial, reverse)  # type: ignore[no-any-return, no-untyped-call]


torch.library.register_fake("lsc_ext::scan", _scan_fake, lib=_library)
torch.library.register_fake("lsc_ext::block_scan", _block_scan_fake, lib=_library)
_library.impl("scan", _scan_autograd, "Autograd")
_library.impl("block_scan", _block_scan_autograd, "Autograd")


def _scan(transition: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool, adjoint: bool) -> Tensor:
    if torch._C._are_functorch_transforms_active():  # torch.func works on Functions, and refuses operators
        return _scan_autograd(transition, inputs, initial, reverse, adjoint)
    return torch.ops.lsc_ext.scan(transition, inputs, initial, reverse, adjoint)  # type: ignore[no-any-return]


def _block_scan(blocks: Tensor, inputs: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    if torch._C._are_functorch_transforms_active():
        return _block_scan_autograd(blocks, inputs, initial, reverse)
    return torch.ops.lsc_ext.block_scan(blocks, inputs, initial, reverse)  # type: ignore[no-any-return]


def _promoted(name: str, transition: Tensor, inputs: Tensor, initial: Tensor | None) -> list[Tensor | None]:
    """The three in the dtype that holds them all; ``name`` is that of the first."""
    dtype = None
    for what, tensor in ((name, transition), ("inputs", inputs), ("initial", initial)):
        if tensor is None and what == "initial":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{what}: expected a torch.Tensor, got {type(tensor).__qualname__}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{what}: expected float32, float64, complex64 or complex128, got {tensor.dtype}")
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    return [None if tensor is None else tensor.to(dtype) for tensor in (transition, inputs, initial)]


def scan(transition: Tensor, inputs: Tensor, initial: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """h_t = a_t h_{t-1} + b_t, each of the B * N numbers by itself.

    Args:
        transition: a, [N] where it is the same at every step and for every sequence, or [T, B, N].
        inputs: b, [T, B, N].
        initial: h_0, [B, N]; None for zeros.
        reverse: h_t = a_t h_{t+1} + b_t, from the last step, which starts from ``initial``, to the first.

    Each is float32, float64, complex64 or complex128; they are promoted to one dtype. Differentiable to any order, in
    reverse and forward mode, under ``torch.func`` and ``torch.compile``. Work T B N, no matrix, nothing kept but the
    states.

    Returns:
        h, [T, B, N].

    Raises:
        ValueError: a shape is wrong.
        TypeError: another dtype, or no tensor.
        RuntimeError: a device that this build has no backend for, or several devices.
    """
    a, b, h = _promoted("transition", transition, inputs, initial)
    assert a is not None
    assert b is not None
    return _scan(a, b, h, reverse, False)


def block_scan(blocks: Tensor, inputs: Tensor, initial: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """h_t = A h_{t-1} + b_t with A block diagonal, the same at every step and for every sequence.

    Args:
        blocks: A, [K, m, m].
        inputs: b, [T, B, K * m].
        initial: h_0, [B, K * m]; None for zeros.
        reverse: h_t = A h_{t+1} + b_t, as in :func:`scan`.

    Dtypes, derivatives and errors are those of :func:`scan`.

    Returns:
        h, [T, B, K * m].
    """
    a, b, h = _promoted("blocks", blocks, inputs, initial)
    assert a is not None
    assert b is not None
    return _block_scan(a, b, h, reverse)
