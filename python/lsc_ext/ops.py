"""The compiled forward and backward pass as torch operators.

Letters: T time, B batch, I input size, H hidden size, L layers, S state variables, P pre-activations and Q parameters
per unit.

``lsc_ext::recurrent(x, initial, weights, cell)`` returns the whole trajectory, ``states`` [L, T + 1, S, B, H]
(slot 0 is ``initial``), and the pre-activations ``gates`` [L, T, B, P, H]. ``weights`` is a flat list with the tensors
of ``PARAMETERS`` for each layer: weight_ih, weight_hh, bias_ih, bias_hh, unit [Q, H]; an absent one has no elements.
Why the operator is registered this way, with an ``autograd.Function`` at the Autograd key: docs/design/0002.

On CUDA, float16 and bfloat16 are computed in float32, with operands of products rounded to that type; states, gates and
gradients are rounded when they are returned, so that backward starts from rounded states and gates.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsc_ext import _C, backends

P = ParamSpec("P")
R = TypeVar("R")
Buffer = tuple[int, int]
# A step in plain torch: (inputs [.., I], state [.., S * H], *parameters of the layer or None) -> [.., S * H].
TorchStep = Callable[..., Tensor]

#: What a layer has, in the order of the flat list of weights.
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "unit")
PER_LAYER = len(PARAMETERS)
CELL_SHAPES: dict[str, dict[str, int]] = _C.cells()
_TORCH_STEPS: dict[str, TorchStep] = {}
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
#: The precision of products of what CUDA computes in float32.
_HALVES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def register_torch_step(cell: str, step: TorchStep) -> None:
    """Gives ``cell`` its differentiable torch step; forward-mode and second derivatives go through it."""
    _TORCH_STEPS[cell] = step


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.disable`` that does not import the compiler, which takes a second, before it is in use."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-any-return]

    return run


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Inside, what ``torch.compile`` made runs as it was written; where torch can do that (2.6)."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]


def buffer(tensor: Tensor) -> Buffer:
    """Address and number of elements of contiguous memory; the caller keeps the tensor alive."""
    return (tensor.data_ptr(), tensor.numel())


def optional_buffer(tensor: Tensor | None) -> Buffer | None:
    """As :func:`buffer`; an absent or empty tensor is None."""
    return None if tensor is None or tensor.numel() == 0 else buffer(tensor)


def dtype_name(tensor: Tensor) -> str:
    """The compiled module's name for a dtype.

    Raises:
        TypeError: for another dtype than float32 and float64.
    """
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {tensor.dtype}")
    return _DTYPES[tensor.dtype]


def layer_buffers(weights: Sequence[Tensor]) -> list[list[Buffer | None]]:
    """The flat list of parameters, layer by layer."""
    return [[optional_buffer(w) for w in weights[i : i + PER_LAYER]] for i in range(0, len(weights), PER_LAYER)]


def of_layer(weights: Sequence[Tensor], layer: int) -> list[Tensor]:
    """The part of the flat list that is one layer's."""
    return list(weights[PER_LAYER * layer : PER_LAYER * (layer + 1)])


def sizes(x: Tensor, initial: Tensor) -> list[int]:
    """[T, B, I, H, L] from x [T, B, I] and initial [L, S, B, H]."""
    return [x.shape[0], x.shape[1], x.shape[2], initial.shape[3], initial.shape[0]]


def _backend_of(x: Tensor, *others: Tensor) -> backends.CpuBackend | backends.CudaBackend:
    """What runs the operator; refuses what the compiled module, which sees addresses alone, would misread."""
    backend = backends.backend_of(x)
    if not (backend.name == "cuda" and x.dtype in _HALVES):
        dtype_name(x)
    for tensor in others:
        if tensor.device != x.device:
            raise RuntimeError(f"device: expected every tensor on {x.device} as x is, got {tensor.device}")
        if tensor.dtype != x.dtype:
            raise TypeError(f"dtype: expected {x.dtype} as x has, got {tensor.dtype}")
    return backend


def _widened(tensor: Tensor) -> Tensor:
    """``tensor`` in one piece, in a type that the compiled module computes in."""
    return tensor.to(torch.float32 if tensor.dtype in _HALVES else tensor.dtype).contiguous()


def result_shapes(x: Tensor, initial: Tensor, cell: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the states and gates that the operator returns.

    Raises:
        ValueError: an unknown cell, or shapes that contradict each other.
    """
    if cell not in CELL_SHAPES:
        raise ValueError(f"cell: expected one of {', '.join(sorted(CELL_SHAPES))}, got {cell!r}")
    shape = CELL_SHAPES[cell]
    if x.dim() != 3:
        raise ValueError(f"x: expected shape (T, B, I), got {tuple(x.shape)}")
    if initial.dim() != 4 or initial.shape[0] < 1 or initial.shape[1:3] != (shape["states"], x.shape[1]):
        expected = f"(L, {shape['states']}, {x.shape[1]}, H)"
        raise ValueError(f"initial: expected shape {expected}, got {tuple(initial.shape)}")
    time_steps, batch, _, hidden, layers = sizes(x, initial)
    states = (layers, time_steps + 1, shape["states"], batch, hidden)
    return states, (layers, time_steps, batch, shape["preactivations"], hidden)


def _empty_results(x: Tensor, initial: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    states, gates = result_shapes(x, initial, cell)
    return x.new_empty(states), x.new_empty(gates)


def _recurrent_compiled(x: Tensor, initial: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    states, gates = _empty_results(x, initial, cell)
    run_recurrent(x, initial, weights, cell, states, gates)
    return states, gates


def run_recurrent(
    x: Tensor, initial: Tensor, weights: Sequence[Tensor], cell: str, states: Tensor, gates: Tensor
) -> None:
    """The compiled pass into ``states`` and ``gates``, of :func:`result_shapes`; autograd does not see it."""
    backend = _backend_of(x, initial, *weights)
    precision = _HALVES.get(x.dtype)
    found = [r if precision is None else torch.empty_like(r, dtype=torch.float32) for r in (states, gates)]
    found[0][:, 0] = initial
    x, weights = _widened(x), [_widened(w) for w in weights]
    backend.call(
        backend.functions.forward,
        cell,
        dtype_name(x),
        sizes(x, initial),
        buffer(x),
        layer_buffers(weights),
        buffer(found[0]),
        buffer(found[1]),
        precision=precision,
    )
    if precision is not None:
        states.copy_(found[0])
        gates.copy_(found[1])


def _recurrent_backward_compiled(
    grad_states: Tensor,
    x: Tensor,
    states: Tensor,
    gates: Tensor,
    weights: list[Tensor],
    cell: str,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    backend = _backend_of(x, grad_states, states, gates, *weights)
    dtype, precision = x.dtype, _HALVES.get(x.dtype)
    # Held by name: of a temporary, only the address would be left.
    x, states, gates, weights = _widened(x), _widened(states), _widened(gates), [_widened(w) for w in weights]
    flowing = grad_states.to(x.dtype, copy=True, memory_format=torch.contiguous_format)
    grad_x = torch.empty_like(x)
    grad_weights = [torch.empty_like(w) for w in weights]
    backend.call(
        backend.functions.backward,
        cell,
        dtype_name(x),
        sizes(x, states[:, 0]),
        buffer(x),
        layer_buffers(weights),
        buffer(states),
        buffer(gates),
        buffer(flowing),
        buffer(grad_x),
        layer_buffers(grad_weights),
        precision=precision,
    )
    return grad_x.to(dtype), flowing[:, 0].to(dtype, copy=True), [g.to(dtype) for g in grad_weights]


def torch_trajectory(x: Tensor, initial: Tensor, weights: Sequence[Tensor], cell: str) -> Tensor:
    """``states`` of the operator by a loop over the cell's torch step: slow, differentiable to any order."""
    step = _TORCH_STEPS[cell]
    n_states, hidden = CELL_SHAPES[cell]["states"], initial.shape[3]
    layers = []
    fed = x
    for layer in range(initial.shape[0]):
        parameters = [w if w.numel() > 0 else None for w in of_layer(weights, layer)]
        state = torch.cat(tuple(initial[layer].unbind(0)), dim=-1)  # [B, S * H]
        trajectory = [state]
        for t in range(x.shape[0]):
            state = step(fed[t], state, *parameters)
            trajectory.append(state)
        stacked = torch.stack(trajectory)  # [T + 1, B, S * H]
        layers.append(stacked.unflatten(-1, (n_states, hidden)).movedim(-2, 1))
        fed = stacked[1:, :, :hidden]
    return torch.stack(layers)


def _torch_backward(cell: str, grad_states: Tensor, x: Tensor, initial: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, initial and weights by the torch step: slow, differentiable to any order."""
    pull = torch.func.vjp(
        lambda x, initial, *weights: torch_trajectory(x, initial, weights, cell), x, initial, *weights
    )
    return pull[1](grad_states)  # type: ignore[no-any-return]


def is_batched(*tensors: Tensor | None) -> bool:
    """Whether ``is_grads_batched`` of ``torch.autograd.grad`` is at work, whose vmap is not that of ``torch.func``."""
    return any(t is not None and torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)


def _torch_gradients(
    cell: str, grad_states: Tensor, x: Tensor, initial: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What :class:`_Recurrent` returns from its backward pass, by plain torch alone."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        own = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (x, initial, *weights)]
        states = torch_trajectory(own[0], own[1], own[2:], cell)
        found = torch.autograd.grad(states, own, grad_states, create_graph=create_graph, allow_unused=True)
    return found[0], found[1], None, *found[2:]


def _push_forward(function: Callable[..., Any], primals: Sequence[Tensor], directions: Sequence[Tensor]) -> Any:
    """J v as the transpose of w -> J' w: two reverse passes, no nested forward mode."""
    value, pull = torch.func.vjp(function, *primals)[:2]
    at = torch.zeros_like(value) if isinstance(value, Tensor) else tuple(torch.zeros_like(v) for v in value)
    push = torch.func.vjp(pull, at)[1]
    return push(tuple(directions))[0]


def _or_zeros(given: Sequence[Tensor | None], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(p) if t is None else t for p, t in zip(like, given, strict=True))


def _one_by_one(
    function: Any, count: int, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The rule of vmap that is a loop: where weights differ, or each member has weight gradients of its own."""
    rows = [
        function.apply(*(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)))
        for i in range(count)
    ]
    stacked = tuple(torch.stack(row) for row in zip(*rows, strict=True))
    return stacked, (0,) * len(stacked)


@contextlib.contextmanager
def outer_tangents(saved: tuple[Tensor | None, ...]) -> Iterator[list[Any]]:
    """What a ``jvp`` saved, free of the tangent that it computes, while those of forward modes around it are kept.

    torch calls a ``jvp`` with forward mode switched off, and one inside another would find its tangents constant.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield [None if tensor is None else forward_ad.unpack_dual(tensor).primal for tensor in saved]


class _Recurrent(torch.autograd.Function):
    """Derivatives of the operator: compiled backward; forward mode through the torch step."""

    @staticmethod
    def forward(x: Tensor, initial: Tensor, cell: str, *weights: Tensor) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            states, gates = torch.ops.lsc_ext.recurrent(x, initial, list(weights), cell)
        return states, gates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, initial, ctx.cell, *weights = inputs
        states, gates = output
        ctx.mark_non_differentiable(gates)
        ctx.save_for_backward(x, states, gates, *weights)
        ctx.save_for_forward(x, initial, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, states, gates, *weights = ctx.saved_tensors
        arguments = (grads[0], x, states, gates)
        if is_batched(*grads):
            return _torch_gradients(ctx.cell, grads[0], x, states[:, 0], weights)
        if torch._C._are_functorch_transforms_active():
            grad_x, grad_initial, *grad_weights = _RecurrentBackward.apply(*arguments, ctx.cell, *weights)  # type: ignore[no-untyped-call]
        else:
            grad_x, grad_initial, grad_weights = torch.ops.lsc_ext.recurrent_backward(
                *arguments, list(weights), ctx.cell
            )
        return grad_x, grad_initial, None, *grad_weights

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        cell = ctx.cell

        def trajectory(x: Tensor, initial: Tensor, *weights: Tensor) -> Tensor:
            return torch_trajectory(x, initial, weights, cell)

        with outer_tangents(ctx.saved_tensors) as primals:
            directions = _or_zeros((tangents[0], tangents[1], *tangents[3:]), primals)
            return _push_forward(trajectory, primals, directions), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        if any(dim is not None for dim in in_dims[3:]):
            return _one_by_one(_Recurrent, info.batch_size, in_dims, arguments)
        x, initial, cell, *weights = arguments
        x, initial = (
            tensor.unsqueeze(batch).expand(*tensor.shape[:batch], info.batch_size, *tensor.shape[batch:])
            if dim is None
            else tensor.movedim(dim, batch)
            for tensor, dim, batch in ((x, in_dims[0], 1), (initial, in_dims[1], 2))
        )
        extent = (info.batch_size, x.shape[2])
        states, gates = _Recurrent.apply(x.flatten(1, 2), initial.flatten(2, 3), cell, *weights)  # type: ignore[no-untyped-call]
        return (states.unflatten(3, extent), gates.unflatten(2, extent)), (3, 2)


class _Once(torch.autograd.Function):
    """Hands a derivative of ``sources`` on; asked for that derivative's own, it raises where there would be silence."""

    @staticmethod
    def forward(derivative: Tensor, name: str, *sources: Tensor) -> Tensor:
        return derivative.view_as(derivative)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.name = inputs[1]

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], derivative: Tensor, name: str, *sources: Tensor
    ) -> tuple[Tensor, Any]:
        return _Once.apply(derivative, name, *sources), in_dims[0]  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(f"{ctx.name}: expected no further derivative, this one is not differentiable")


def once(derivative: Tensor, sources: Sequence[Tensor], name: str) -> Tensor:
    """``derivative``, whose own derivative with respect to any of ``sources`` raises instead of being zero."""
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        return _Once.apply(derivative, name, *sources)  # type: ignore[no-any-return, no-untyped-call]
    return derivative


class _RecurrentBackward(torch.autograd.Function):
    """The compiled backward pass; its own derivatives, to any order, go through the torch step."""

    @staticmethod
    def forward(
        grad_states: Tensor,
        x: Tensor,
        states: Tensor,
        gates: Tensor,
        cell: str,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            grad_x, grad_initial, grad_weights = torch.ops.lsc_ext.recurrent_backward(
                grad_states, x, states, gates, list(weights), cell
            )
        return grad_x, grad_initial, *grad_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_states, x, states, gates, ctx.cell, *weights = inputs
        ctx.save_for_backward(grad_states, x, states, gates, *weights)
        ctx.save_for_forward(grad_states, x, states, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, x, states, _, *weights = ctx.saved_tensors
        function = functools.partial(_torch_backward, ctx.cell)
        pull = torch.func.vjp(function, grad_states, x, states[:, 0], *weights)[1]
        grad_upstream, grad_x, grad_initial, *grad_weights = pull(grads)
        # States and gates are functions of the other inputs; what their slot 0 passes on is the initial state's part.
        grad_of_states = torch.cat((grad_initial.unsqueeze(1), torch.zeros_like(states[:, 1:])), dim=1)
        return grad_upstream, grad_x, grad_of_states, None, None, *grad_weights

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        with outer_tangents(ctx.saved_tensors) as (grad_states, x, states, *weights):
            primals = (grad_states, x, states[:, 0], *weights)
            initial = None if tangents[2] is None else tangents[2][:, 0]
            directions = _or_zeros((tangents[0], tangents[1], initial, *tangents[5:]), primals)
            return _push_forward(functools.partial(_torch_backward, ctx.cell), primals, directions)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _one_by_one(_RecurrentBackward, info.batch_size, in_dims, arguments)


_library = torch.library.Library("lsc_ext", "DEF")
_library.define("recurrent(Tensor x, Tensor initial, Tensor[] weights, str cell) -> (Tensor states, Tensor gates)")
_library.define(
    "recurrent_backward(Tensor grad_states, Tensor x, Tensor states, Tensor gates, Tensor[] weights, str cell) "
    "-> (Tensor grad_x, Tensor grad_initial, Tensor[] grad_weights)"
)
for _key in ("CPU", "CUDA"):
    _library.impl("recurrent", _recurrent_compiled, _key)
    _library.impl("recurrent_backward", _recurrent_backward_compiled, _key)


def _recurrent_fake(x: Tensor, initial: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    return _empty_results(x, initial, cell)


def _recurrent_backward_fake(
    grad_states: Tensor, x: Tensor, states: Tensor, gates: Tensor, weights: list[Tensor], cell: str
) -> tuple[Tensor, Tensor, list[Tensor]]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        states.new_empty(states[:, 0].shape),
        [torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights],
    )


def _recurrent_autograd(x: Tensor, initial: Tensor, weights: list[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    states, gates = _Recurrent.apply(x, initial, cell, *weights)  # type: ignore[no-untyped-call]
    return states, gates


def _recurrent_backward_autograd(
    grad_states: Tensor, x: Tensor, states: Tensor, gates: Tensor, weights: list[Tensor], cell: str
) -> tuple[Tensor, Tensor, list[Tensor]]:
    grad_x, grad_initial, *grad_weights = _RecurrentBackward.apply(grad_states, x, states, gates, cell, *weights)  # type: ignore[no-untyped-call]
    return grad_x, grad_initial, list(grad_weights)


torch.library.register_fake("lsc_ext::recurrent", _recurrent_fake, lib=_library)
torch.library.register_fake("lsc_ext::recurrent_backward", _recurrent_backward_fake, lib=_library)
_library.impl("recurrent", _recurrent_autograd, "Autograd")
_library.impl("recurrent_backward", _recurrent_backward_autograd, "Autograd")


def recurrent(x: Tensor, initial: Tensor, weights: Sequence[Tensor], cell: str) -> tuple[Tensor, Tensor]:
    """The operator. x [T, B, I], initial [L, S, B, H] -> states, gates as in the module text."""
    if torch._C._are_functorch_transforms_active():  # torch.func works on Functions, and refuses operators
        states, gates = _Recurrent.apply(x, initial, cell, *weights)  # type: ignore[no-untyped-call]
    else:
        states, gates = torch.ops.lsc_ext.recurrent(x, initial, list(weights), cell)
    return states, gates
