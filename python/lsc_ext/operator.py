"""Batches of Jacobians known by their products alone.

Letters: N Jacobians ("points"), [m, n] the shape of each; K pairs of vectors.
"""

from __future__ import annotations

import contextlib
import contextvars
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import backends, ops

#: How many products show which points an iteration works on.
_WINDOW = 4
DIRECTIONS = ("time", "depth", "diagonal", "input", "output")


_MEASURED: contextvars.ContextVar[tuple[nn.Module, ...]] = contextvars.ContextVar("measured", default=())


@contextlib.contextmanager
def eval_mode(*modules: Any) -> Iterator[None]:
    """Puts modules into eval mode and each of their parts back into its own.

    A :class:`JacobianOperator` that is built inside evaluates its function in it ever after: a backward pass comes
    when the modules may be training again.
    """
    own = tuple(module for module in modules if isinstance(module, nn.Module))
    # A Submodule has the whole as a property; a child of that name is only a part.
    wholes = [m.whole if isinstance(getattr(type(m), "whole", None), property) else m for m in own]
    parts = [part for whole in wholes for part in whole.modules()]  # type: ignore[union-attr]
    modes = [part.training for part in parts]
    token = _MEASURED.set((*_MEASURED.get(), *own))
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        _MEASURED.reset(token)
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _recordable(tensor: Tensor) -> Tensor:
    """Data that autograd can record, which it cannot from ``torch.inference_mode``."""
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


def _add_rows(target: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``target[index[k]] += rows[k]``, with the same bits every time: on CUDA ``index_add_`` has atomic sums."""
    if target.device.type == "cpu":
        return target.index_add_(0, index, rows)
    return target.index_put_((index,), rows, accumulate=True)


class _Linearization:
    """A batched function at some of its points; products by reverse passes over two kept graphs.

    J' u is a reverse pass over the function. That pass is linear in u, so J v is a reverse pass over it. So no forward
    mode is asked for, which custom ``autograd.Function``s rarely have, and nothing is evaluated twice.
    """

    def __init__(self, function: Callable[..., Tensor], arguments: Sequence[Tensor], index: Tensor | None) -> None:
        count = arguments[0].shape[0]
        self.size = count if index is None else index.shape[0]
        #: The row of each of all the points, -1 where it is not held; None where all are.
        self.place: Tensor | None = None
        if index is not None:
            self.place = torch.full((count,), -1, device=index.device)
            self.place[index] = torch.arange(self.size, device=index.device)
        with torch.inference_mode(False), torch.enable_grad():
            taken = [_recordable(a) for a in arguments]
            point, *data = taken if index is None else [a[index] for a in taken]
            self._point = point.requires_grad_()
            self.value = function(self._point, *data)
            self._upstream = torch.zeros_like(self.value, requires_grad=True)
            self._pulled = self._pull(self._upstream, keep_graph=True)

    def _pull(self, u: Tensor, keep_graph: bool) -> Tensor | None:
        if not self.value.requires_grad:
            return None
        (pulled,) = torch.autograd.grad(
            self.value, self._point, u, retain_graph=True, create_graph=keep_graph, allow_unused=True
        )
        return pulled

    def product(self, v: Tensor, transpose: bool) -> Tensor:
        """J v, or J' v, for each of the points."""
        with torch.inference_mode(False):
            return self._product(_recordable(v), transpose)

    def _product(self, v: Tensor, transpose: bool) -> Tensor:
        if transpose:
            pulled = self._pull(v, keep_graph=False)
            return torch.zeros_like(self._point) if pulled is None else pulled
        if self._pulled is None or not self._pulled.requires_grad:
            return torch.zeros_like(self.value)
        (pushed,) = torch.autograd.grad(self._pulled, self._upstream, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.value) if pushed is None else pushed


class JacobianOperator:
    """N Jacobians [m, n] of a batched function, given by their products; no matrix is formed.

    Built from a function, the products are reverse passes of torch's autograd over all points at once, so the function
    must be twice differentiable by it (a backward made of torch operations is). Subclasses bring their own.

    On CUDA the function and its products run there, and the iteration for a radius on the host: the vectors of every
    product are copied to the device and back, and every copy waits for it.

    Args:
        function: maps [N, n] (and, one after the other, each of ``data``) to [N, m], row i of the result depending on
            row i of the arguments alone. It is evaluated again by later products and by backward passes, so it must be
            the same function then.
        point: [N, n], where to differentiate.
        parameters: tensors that ``function`` reads and that gradients of a radius are wanted for; ``point`` and each of
            ``data`` are more where they require a gradient.
        data: tensors [N, ...], the rest of what each point needs.

    Raises:
        ValueError: ``point`` or what ``function`` returns is not two-dimensional, or their N differ.
        TypeError: ``point`` is neither float32 nor float64.
        RuntimeError: the backward pass cannot be differentiated.
    """

    num_points: int
    rows: int
    columns: int
    dtype: torch.dtype
    device: torch.device
    #: The operator as the compiled module knows it; None where the Jacobians are not square.
    compiled: Any = None
    #: What runs ``compiled``, and so where it wants the memory that it is called with.
    backend: backends.CpuBackend | backends.CudaBackend
    #: What a radius is differentiated with respect to.
    parameters: Sequence[Tensor] = ()
    #: Whether every Jacobian is diagonal, so that its radius has a closed form.
    is_diagonal = False
    #: All eigenvalues [N, k] where they have a closed form; differentiable.
    eigenvalues: Tensor | None = None

    def __init__(
        self,
        function: Callable[..., Tensor],
        point: Tensor,
        parameters: Sequence[Tensor] = (),
        data: Sequence[Tensor] = (),
    ) -> None:
        if point.dim() != 2:
            raise ValueError(f"point: expected shape (N, n), got {tuple(point.shape)}")
        ops.dtype_name(point)
        for tensor in data:
            if tensor.dim() < 1 or tensor.shape[0] != point.shape[0]:
                raise ValueError(f"data: expected tensors of shape ({point.shape[0]}, ...), got {tuple(tensor.shape)}")
        self._bare = function
        self._modules = _MEASURED.get()
        self._arguments = (point, *data)
        self._read = tuple({id(p): p for p in parameters}.values())  # each once, or its gradient would count twice
        self.parameters = (*self._read, *(a for a in self._arguments if a.requires_grad))
        self._held: _Linearization | None = None
        self._recent: list[Tensor] = []
        value = self._linearized(None).value
        if value.dim() != 2 or value.shape[0] != point.shape[0]:
            raise ValueError(f"function: expected a result of shape ({point.shape[0]}, m), got {tuple(value.shape)}")
        self._check_adjoint()
        self.num_points, self.columns = point.shape
        self.rows = value.shape[1]
        self.dtype, self.device = point.dtype, point.device
        self._connect()

    def _function(self, *arguments: Tensor) -> Tensor:
        # Modules as when this was built, and no torch.compile, whose products have no second derivative.
        with eval_mode(*self._modules), ops.eagerly():
            return self._bare(*arguments)

    def _check_adjoint(self) -> None:
        """Products are right only where the backward pass is one: a step that detaches something has J v = 0."""
        held = self._linearized(None)
        generator = torch.Generator().manual_seed(0)
        u, v = (
            torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device) for z in (held.value, held._point)
        )
        pushed, pulled = held.product(v, False), held.product(u, True)
        left, right = (u * pushed).sum(1), (pulled * v).sum(1)
        size = pushed.norm(dim=1) * u.norm(dim=1) + pulled.norm(dim=1) * v.norm(dim=1)
        width = max(u.shape[1], v.shape[1], 1)
        # What rounding leaves of a Jacobian that is zero.
        rounding = 1e3 * torch.finfo(u.dtype).eps * u.norm(dim=1) * v.norm(dim=1)
        if bool(((left - right).abs() > 0.01 * size / width**0.5 + rounding).any()):
            raise RuntimeError(
                "function: expected a backward pass that autograd can differentiate, got products J v and J' u that "
                "contradict each other; is a custom autograd.Function once_differentiable or does it detach?"
            )

    def _connect(self) -> None:
        """Lets the compiled iteration of the host call this operator's products."""
        if self.rows != self.columns:
            return
        shape = (self.num_points, self.columns)
        index = torch.zeros(self.num_points, dtype=torch.int64)
        v, out = torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype)
        owner = weakref.ref(self)  # the compiled operator must not keep its owner alive

        def fill(transpose: bool, count: int) -> None:
            held = owner()
            assert held is not None
            rows, chosen = (z[:count].to(held.device, copy=True) for z in (v, index))
            out[:count] = held._product(rows, transpose, chosen)

        self._buffers = (index, v, out)
        self.backend = backends.CpuBackend()
        self.compiled = self.backend.functions.callback_operator(
            ops.dtype_name(v), *shape, ops.buffer(index), ops.buffer(v), ops.buffer(out), fill
        )

    def _linearized(self, index: Tensor | None) -> _Linearization:
        """At the points ``index`` or more, for which it was made last where that serves.

        An iteration asks for the points at work, in turns for J v and J' v, fewer and fewer; beyond the width of its
        blocks it goes on to the points that follow. Few products of either kind show all that are at work.
        """
        held = self._held
        if index is None:
            if held is None or held.place is not None:
                self._held = _Linearization(self._function, self._arguments, None)
            return self._held  # type: ignore[return-value]
        self._recent = [*self._recent[1 - _WINDOW :], index]
        if held is None:
            used = index
        elif held.place is None or bool((held.place[index] >= 0).all()):
            if len(self._recent) < _WINDOW or 2 * index.shape[0] >= held.size:
                return held
            used = torch.cat(self._recent).unique()
            if 2 * used.shape[0] >= held.size:
                return held
        else:
            used = torch.cat(self._recent).unique()
            begin, end = int(used[-1]) + 1, self._arguments[0].shape[0]
            ahead = torch.arange(begin, min(end, begin + index.shape[0]), device=used.device)
            used = torch.cat((used, ahead))
        self._held = _Linearization(self._function, self._arguments, used)
        self._recent = [index]
        return self._held

    def release(self) -> None:
        """Forgets what is kept between products; the next product builds it again."""
        self._held = None
        self._recent = []

    @staticmethod
    def from_model(
        model: Any,
        inputs: Tensor,
        direction: str,
        *,
        layer: int | None = None,
        initial_state: Any = None,
        readout: Callable[[Tensor], Tensor] | None = None,
    ) -> JacobianOperator:
        """The Jacobians of a network's step along one direction of the grid, at every point of a trajectory.

        Args:
            model: as for :func:`lsc_ext.radii`.
            inputs: what the model reads, in its own layout; [T, B, I] unless ``batch_first``.
            direction: "time", "depth", "diagonal", "input" or "output".
            layer: one layer, from 0; None for all that have the direction, one after the other.
            initial_state: as the model takes it; None for zeros.
            readout: for "output": maps what the top layer hands up, [.., H], to outputs [.., O].

        Returns:
            An operator over N = (layers) * T * B points, layer-major, then t, then b.

        Raises:
            ValueError: unknown direction or layer; or "output" without ``readout``.
            TypeError: a model of another kind.
        """
        from lsc_ext.trajectory import grid_points, trajectory_of

        with eval_mode(model, readout):
            trajectory = trajectory_of(model, inputs, initial_state)
            layers = trajectory.layers_of(direction)
            if layer is not None and layer not in layers:
                raise ValueError(f"layer: expected one of {list(layers)} for direction {direction!r}, got {layer}")
            points = grid_points(trajectory.time_steps, trajectory.batch)
            chosen = layers if layer is None else [layer]
            parts = [trajectory.operator(direction, i, points, readout=readout) for i in chosen]
        if not parts:
            raise ValueError(f"direction: expected one that this model has, got {direction!r} with one layer")
        return parts[0] if len(parts) == 1 else ConcatenatedOperator(parts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, m, n)."""
        return (self.num_points, self.rows, self.columns)

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        if index is None:
            return self._linearized(None).product(v, transpose).detach()
        if index.unique().shape[0] < index.shape[0]:  # a point twice: one row for each time
            repeated = [a.detach()[index] for a in self._arguments]
            return _Linearization(self._function, repeated, None).product(v, transpose).detach()
        linearized = self._linearized(index)
        where = index if linearized.place is None else linearized.place[index]
        spread = v.new_zeros(linearized.size, v.shape[1])
        spread[where] = v
        return linearized.product(spread, transpose)[where].detach()

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Gradients of sum_k left[k]' J[index[k]] right[k] with respect to each of ``parameters``.

        Args:
            left: [K, m].
            right: [K, n].
            index: [K] int64.
        """
        index = index.to(self.device)
        wanted = [p for p in self._read if p.requires_grad]
        with torch.inference_mode(False), torch.enable_grad():
            rows = [
                _recordable(a)[index].requires_grad_(a.requires_grad or i == 0) for i, a in enumerate(self._arguments)
            ]
            value = self._function(*rows)
            pulled = None
            if value.requires_grad:
                (pulled,) = torch.autograd.grad(value, rows[0], left, create_graph=True, allow_unused=True)
            if pulled is None or not pulled.requires_grad:
                return [torch.zeros_like(p) for p in self.parameters]
            leaves = [*wanted, *(r for r in rows if r.requires_grad)]
            found = torch.autograd.grad((pulled * right).sum(), leaves, allow_unused=True)
        by_id = {id(leaf): g for leaf, g in zip(leaves, found, strict=True)}
        gradients = [by_id.get(id(p)) for p in self._read]
        for row, argument in zip(rows, self._arguments, strict=True):
            if argument.requires_grad:
                whole, change = torch.zeros_like(argument), by_id.get(id(row))
                gradients.append(whole if change is None else _add_rows(whole, index, change))
        return gradients

    def _checked(self, name: str, v: Tensor, size: int, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
        count = self.num_points if index is None else index.shape[0]
        if index is not None:
            if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool or index.dim() != 1:
                raise ValueError(f"index: expected integers (K,), got {index.dtype} {tuple(index.shape)}")
            if index.device.type == "cpu":  # elsewhere, to look at the values is to wait for them
                outside = index[(index < 0) | (index >= self.num_points)]
                if outside.numel():
                    raise ValueError(f"index: expected 0 .. {self.num_points - 1}, got {int(outside[0])}")
            index = index.to(self.device)
        if v.dtype != self.dtype or v.device != self.device:
            raise TypeError(f"{name}: expected {self.dtype} on {self.device}, got {v.dtype} on {v.device}")
        if v.shape != (count, size):
            raise ValueError(f"{name}: expected shape ({count}, {size}), got {tuple(v.shape)}")
        return v.detach().contiguous(), index

    def matvec(self, v: Tensor, index: Tensor | None = None) -> Tensor:
        """J v for each point.

        Args:
            v: [N, n], or [K, n] with ``index``.
            index: [K] int64, which point each row belongs to; on the CPU, where the values are checked, or on the
                operator's device, where the caller vouches for them.

        Returns:
            [N, m] or [K, m]. Not differentiable.

        Raises:
            TypeError: dtype or device differ from the operator's.
            ValueError: the shape is wrong.
        """
        v, index = self._checked("v", v, self.columns, index)
        return self._product(v, False, index)

    def rmatvec(self, u: Tensor, index: Tensor | None = None) -> Tensor:
        """J' u for each point: [N, m] -> [N, n]; otherwise as :meth:`matvec`."""
        u, index = self._checked("u", u, self.rows, index)
        return self._product(u, True, index)

    def to_dense(self) -> Tensor:
        """The matrices themselves, [N, m, n]: n products, for small n and for tests."""
        dense = torch.empty(self.num_points, self.rows, self.columns, dtype=self.dtype, device=self.device)
        unit = torch.zeros(self.num_points, self.columns, dtype=self.dtype, device=self.device)
        for column in range(self.columns):
            unit[:, column] = 1
            dense[:, :, column] = self.matvec(unit)
            unit[:, column] = 0
        return dense


class _CompiledOperator(JacobianOperator):
    """Products by the compiled module."""

    def release(self) -> None:
        """Nothing is kept."""

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        index = None if index is None else index.to(torch.int64).contiguous()
        out = v.new_empty(v.shape[0], self.columns if transpose else self.rows)
        self.backend.call(
            self.compiled.apply,
            transpose,
            None if index is None else ops.buffer(index),
            v.shape[0],
            ops.buffer(v),
            ops.buffer(out),
        )
        return out


class MatrixOperator(_CompiledOperator):
    """Matrices that exist: [N, m, n]."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices.detach().contiguous()
        self.parameters = (matrices,)
        self.num_points, self.rows, self.columns = self.matrices.shape
        self.dtype, self.device = matrices.dtype, matrices.device
        self.backend = backends.backend_of(self.matrices)
        self.compiled = self.backend.functions.matrix_operator(
            ops.dtype_name(matrices), self.num_points, self.rows, self.columns, ops.buffer(self.matrices)
        )

    def to_dense(self) -> Tensor:
        """The matrices themselves."""
        return self.matrices.clone()

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Outer products."""
        outer = left.unsqueeze(2) * right.unsqueeze(1)
        return [_add_rows(torch.zeros_like(self.matrices), index.to(self.device), outer)]


class StepOperator(_CompiledOperator):
    """Jacobians of one layer's step of a compiled cell, at points (t, b) of a trajectory.

    Args:
        cell: the cell's name.
        x: [T, B, I].
        states: [L, T + 1, S, B, H] from :func:`lsc_ext.ops.recurrent`.
        gates: [L, T, B, P, H], likewise.
        weights: the flat list of parameters, see :mod:`lsc_ext.ops`.
        layer: which layer, from 0.
        direction: "time", "depth", "diagonal" or "input".
        points: [N, 2] int64 pairs (t, b); on the CPU, where the values are checked, or with ``x``, where the caller
            vouches for them.
        through_states: whether gradients also flow into ``x`` and ``states``.

    The weights are those of this moment: a change of their memory does not reach the operator.

    Raises:
        ValueError: a point outside the grid, an unknown direction, or a layer that does not have it.
        RuntimeError: tensors of several devices.
    """

    def __init__(
        self,
        cell: str,
        x: Tensor,
        states: Tensor,
        gates: Tensor,
        weights: Sequence[Tensor],
        layer: int,
        direction: str,
        points: Tensor,
        through_states: bool = False,
    ) -> None:
        self.cell, self.layer, self.direction, self.through_states = cell, layer, direction, through_states
        self.x, self.states, self.gates = x.detach().contiguous(), states.detach().contiguous(), gates.detach()
        self.backend = backends.backend_of(x)
        for name, tensors in (("states", [states]), ("gates", [gates]), ("weights", weights)):
            for tensor in tensors:
                if tensor.device != x.device:
                    raise RuntimeError(f"{name}: expected tensors on {x.device} as x is, got {tensor.device}")
        self.time, self.batch = (points[:, i].to(x.device, torch.int64).contiguous() for i in range(2))
        self._layers = [layer] + ([layer - 1] if direction == "diagonal" else [])
        held = [w.detach().contiguous() for w in weights]
        if self.backend.name == "cuda":  # the CPU's operator packs its own
            self._weights = held = [w.clone() if i // ops.PER_LAYER in self._layers else w for i, w in enumerate(held)]
        arguments = (
            cell,
            ops.dtype_name(x),
            ops.sizes(self.x, self.states[:, 0]),
            ops.buffer(self.x),
            ops.layer_buffers(held),
            ops.buffer(self.states),
            ops.buffer(self.gates),
            layer,
            direction,
            ops.buffer(self.time),
            ops.buffer(self.batch),
            points.shape[0],
        )
        if self.backend.name == "cuda":
            self._check_points(points)
            self._memory = self._memory_on_device(points.shape[0])
            self.compiled = self.backend.functions.step_operator(*arguments, *(ops.buffer(m) for m in self._memory))
            self.backend.call(self.compiled.linearize)
        else:
            self.compiled = self.backend.functions.step_operator(*arguments, torch.get_num_threads())
        self.num_points, self.rows, self.columns = self.compiled.points, self.compiled.rows, self.compiled.columns
        self.dtype, self.device = x.dtype, x.device
        self._own = ops.of_layer(weights, layer)
        self._below = ops.of_layer(weights, layer - 1) if direction == "diagonal" else []
        data = [x, states] if through_states else []
        self.parameters = (*self._own, *self._below, *data)
        self.is_diagonal = (
            direction == "time" and states.shape[2] == 1 and ops.CELL_SHAPES[cell]["recurrent_blocks"] == 0
        )

    def _check_points(self, points: Tensor) -> None:
        if points.device.type == "cpu":  # elsewhere, to look at the values is to wait for them
            outside = points[((points < 0) | (points >= points.new_tensor(self.x.shape[:2]))).any(dim=1)]
            if outside.numel():
                t, b = outside[0].tolist()
                raise ValueError(f"points: expected 0 <= t < T and 0 <= b < B, got ({t}, {b})")

    def _memory_on_device(self, points: int) -> list[Tensor]:
        """For what the CPU's operator keeps by itself: coefficients and slopes, of this layer and of that below."""
        shape, hidden = ops.CELL_SHAPES[self.cell], self.states.shape[4]
        states, units = shape["states"], shape["unit_parameters"]
        coefficients = (points, states, shape["preactivations"] + states + units, hidden)
        slopes = (points, (states - 1 + units) * shape["derived"], hidden)
        unused = [(0,)] * (4 - 2 * len(self._layers))
        return [self.x.new_empty(sizes) for sizes in [coefficients, slopes] * len(self._layers) + unused]

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Gradients of the layer's parameters, of the layer's below (diagonal), of x and states (through_states)."""
        own = [torch.zeros_like(w, memory_format=torch.contiguous_format) for w in self._own]
        below = [torch.zeros_like(w, memory_format=torch.contiguous_format) for w in self._below]
        count, hidden = left.shape[0], self.states.shape[4]
        left, right, index = left.contiguous(), right.contiguous(), index.to(left.device).contiguous()
        changes: list[Tensor] = []
        if self.through_states:
            for layer in self._layers:
                fed = self.x.shape[2] if layer == 0 else hidden
                changes += [left.new_empty(count, self.states.shape[2], hidden), left.new_empty(count, fed)]
        data: list[ops.Buffer | None] = [ops.buffer(c) for c in changes]
        data += [None] * (4 - len(data))
        self.backend.call(
            self.compiled.bilinear_gradient,
            ops.buffer(index),
            count,
            ops.buffer(left),
            ops.buffer(right),
            ops.layer_buffers(own)[0],
            ops.layer_buffers(below)[0] if below else [],
            *data,
        )
        gradients: list[Tensor | None] = [*own, *below]
        if self.through_states:
            gradients += self._scatter(changes, index)
        return gradients

    def _scatter(self, changes: list[Tensor], index: Tensor) -> list[Tensor | None]:
        grad_x, grad_states = torch.zeros_like(self.x), torch.zeros_like(self.states)
        t, b = self.time[index], self.batch[index]
        for i, layer in enumerate(self._layers):
            state_change, input_change = changes[2 * i], changes[2 * i + 1]
            for s in range(self.states.shape[2]):
                grad_states[layer, :, s].index_put_((t, b), state_change[:, s], accumulate=True)
            if layer == 0:
                grad_x.index_put_((t, b), input_change, accumulate=True)
            else:
                grad_states[layer - 1, :, 0].index_put_((t + 1, b), input_change, accumulate=True)
        return [grad_x, grad_states]


class ConstantOperator(JacobianOperator):
    """The same Jacobian at every point, as a linear layer has it: what is found for one holds for all.

    Args:
        one: the operator at one point.
        num_points: N.
    """

    def __init__(self, one: JacobianOperator, num_points: int) -> None:
        self.one, self.num_points = one, num_points
        self.rows, self.columns, self.dtype, self.device = one.rows, one.columns, one.dtype, one.device
        self.parameters, self.eigenvalues = one.parameters, one.eigenvalues
        self._connect()

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        return self.one._product(v, transpose, torch.zeros(v.shape[0], dtype=torch.int64, device=v.device))

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Those of the one Jacobian."""
        return self.one.bilinear_gradients(left, right, torch.zeros_like(index))

    def release(self) -> None:
        """As the base."""
        self.one.release()


class ConcatenatedOperator(JacobianOperator):
    """Operators of one shape, one after the other."""

    def __init__(self, parts: Sequence[JacobianOperator]) -> None:
        first = parts[0]
        for part in parts:
            if part.shape[1:] != first.shape[1:]:
                raise ValueError(f"parts: expected Jacobians of one shape, got {first.shape[1:]} and {part.shape[1:]}")
        self.parts = list(parts)
        self.num_points = sum(part.num_points for part in parts)
        _, self.rows, self.columns = first.shape
        self.dtype, self.device = first.dtype, first.device
        self.parameters = tuple(p for part in parts for p in part.parameters)
        self._offsets = torch.tensor([0] + [part.num_points for part in parts]).cumsum(0).tolist()

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        index = torch.arange(self.num_points, device=v.device) if index is None else index
        out = v.new_empty(v.shape[0], self.columns if transpose else self.rows)
        for part, offset in zip(self.parts, self._offsets[:-1], strict=True):
            mine = (index >= offset) & (index < offset + part.num_points)
            out[mine] = part._product(v[mine].contiguous(), transpose, index[mine] - offset)
        return out

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Each part's own."""
        gradients: list[Tensor | None] = []
        index = index.to(self.device)
        for part, offset in zip(self.parts, self._offsets[:-1], strict=True):
            mine = (index >= offset) & (index < offset + part.num_points)
            gradients += part.bilinear_gradients(left[mine], right[mine], index[mine] - offset)
        return gradients

    def release(self) -> None:
        """As the parts."""
        for part in self.parts:
            part.release()


class SubmatrixOperator(JacobianOperator):
    """Chosen rows and columns of other Jacobians.

    Args:
        whole: the operator to cut from.
        rows: [m'] int64, which rows to keep.
        columns: [n'] int64, which columns to keep.
    """

    def __init__(self, whole: JacobianOperator, rows: Tensor, columns: Tensor) -> None:
        self.whole, self._rows, self._columns = whole, rows.to(whole.device), columns.to(whole.device)
        self.num_points, self.rows, self.columns = whole.num_points, rows.numel(), columns.numel()
        self.dtype, self.device, self.parameters = whole.dtype, whole.device, whole.parameters
        self._connect()

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        fed, size, taken = self._columns, self.whole.columns, self._rows
        if transpose:
            fed, size, taken = self._rows, self.whole.rows, self._columns
        return self.whole._product(_embed(v, fed, size), transpose, index)[:, taken].contiguous()

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """The whole's, with zeros where it was cut."""
        return self.whole.bilinear_gradients(
            _embed(left, self._rows, self.whole.rows), _embed(right, self._columns, self.whole.columns), index
        )

    def release(self) -> None:
        """As the whole."""
        self.whole.release()


def _embed(v: Tensor, where: Tensor, size: int) -> Tensor:
    whole = v.new_zeros(v.shape[0], size)
    whole[:, where] = v
    return whole
