"""Batches of Jacobians known by their products alone.

Letters: N Jacobians ("points"), [m, n] the shape of each; K pairs of vectors.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lsc_ext import _C, ops

DIRECTIONS = ("time", "depth", "diagonal", "input", "output")


class JacobianOperator:
    """N Jacobians [m, n] of a batched function, given by their products; no matrix is formed.

    Built from a function, the products go through ``torch.func``. Subclasses bring their own.

    Args:
        function: maps [N, n] to [N, m], row i of the result depending on row i of the argument alone.
        point: [N, n], where to differentiate.
        parameters: tensors that ``function`` reads and that gradients of a radius are wanted for; ``point`` is one more
            where it requires a gradient.

    Raises:
        ValueError: ``point`` or what ``function`` returns is not two-dimensional, or their N differ.
        TypeError: ``point`` is neither float32 nor float64.
    """

    num_points: int
    rows: int
    columns: int
    dtype: torch.dtype
    device: torch.device
    #: The operator as the compiled module knows it; None where the Jacobians are not square.
    compiled: Any = None
    #: What a radius is differentiated with respect to.
    parameters: Sequence[Tensor] = ()
    #: Whether every Jacobian is diagonal, so that its radius has a closed form.
    is_diagonal = False

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor, parameters: Sequence[Tensor] = ()) -> None:
        if point.dim() != 2:
            raise ValueError(f"point: expected shape (N, n), got {tuple(point.shape)}")
        self._function, self._point = function, point.detach()
        self.parameters = (*parameters, point) if point.requires_grad else tuple(parameters)
        self._at_point = point.requires_grad
        ops.dtype_name(point)
        with torch.no_grad():
            value = function(self._point)
        if value.dim() != 2 or value.shape[0] != point.shape[0]:
            raise ValueError(f"function: expected a result of shape ({point.shape[0]}, m), got {tuple(value.shape)}")
        self.num_points, self.columns = point.shape
        self.rows = value.shape[1]
        self.dtype, self.device = point.dtype, point.device
        self._connect()

    def _connect(self) -> None:
        """Lets the compiled iteration call this operator's products."""
        if self.rows != self.columns:
            return
        self._v, self._out = (torch.zeros(self.num_points, self.columns, dtype=self.dtype) for _ in range(2))
        owner = weakref.ref(self)  # the compiled operator must not keep its owner alive

        def fill(transpose: bool) -> None:
            held = owner()
            assert held is not None
            held._out.copy_(held._product(held._v.clone(), transpose, None))

        self.compiled = _C.callback_operator(
            ops.dtype_name(self._v), self.num_points, self.columns, ops.buffer(self._v), ops.buffer(self._out), fill
        )

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
            model: a ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or a module of ``lsc_ext.nn``.
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
        trajectory = trajectory_of(model, inputs, initial_state)
        layers = trajectory.layers_of(direction)
        if layer is not None and layer not in layers:
            raise ValueError(f"layer: expected one of {list(layers)} for direction {direction!r}, got {layer}")
        points = grid_points(trajectory.time_steps, trajectory.batch)
        parts = [
            trajectory.operator(direction, i, points, readout=readout) for i in (layers if layer is None else [layer])
        ]
        if not parts:
            raise ValueError(f"direction: expected one that this model has, got {direction!r} with one layer")
        return parts[0] if len(parts) == 1 else ConcatenatedOperator(parts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, m, n)."""
        return (self.num_points, self.rows, self.columns)

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        point = self._point if index is None else self._point[index]
        if transpose:
            pull = torch.func.vjp(self._function, point)[1]
            (result,) = pull(v)
        else:
            result = torch.func.jvp(self._function, (point,), (v,))[1]
        return result.detach()  # type: ignore[no-any-return]

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Gradients of sum_k left[k]' J[index[k]] right[k] with respect to each of ``parameters``.

        Args:
            left: [K, m].
            right: [K, n].
            index: [K] int64.
        """
        read = self.parameters[:-1] if self._at_point else self.parameters
        wanted = [p for p in read if p.requires_grad]
        with torch.enable_grad():
            point = self._point[index].detach().requires_grad_()
            value = self._function(point)
            (pulled,) = torch.autograd.grad(value, point, left, create_graph=True, allow_unused=True)
            if pulled is None or not pulled.requires_grad:
                return [torch.zeros_like(p) for p in self.parameters]
            found = torch.autograd.grad((pulled * right).sum(), [*wanted, point], allow_unused=True)
        by_id = {id(p): g for p, g in zip(wanted, found[:-1], strict=True)}
        gradients = [by_id.get(id(p)) for p in read]
        if self._at_point:
            whole = torch.zeros_like(self._point)
            gradients.append(whole if found[-1] is None else whole.index_add_(0, index, found[-1]))
        return gradients

    def _checked(self, name: str, v: Tensor, size: int, index: Tensor | None) -> Tensor:
        count = self.num_points if index is None else index.shape[0]
        if v.dtype != self.dtype or v.device != self.device:
            raise TypeError(f"{name}: expected {self.dtype} on {self.device}, got {v.dtype} on {v.device}")
        if v.shape != (count, size):
            raise ValueError(f"{name}: expected shape ({count}, {size}), got {tuple(v.shape)}")
        return v.detach().contiguous()

    def matvec(self, v: Tensor, index: Tensor | None = None) -> Tensor:
        """J v for each point.

        Args:
            v: [N, n], or [K, n] with ``index``.
            index: [K] int64, which point each row belongs to.

        Returns:
            [N, m] or [K, m]. Not differentiable.

        Raises:
            TypeError: dtype or device differ from the operator's.
            ValueError: the shape is wrong.
        """
        return self._product(self._checked("v", v, self.columns, index), False, index)

    def rmatvec(self, u: Tensor, index: Tensor | None = None) -> Tensor:
        """J' u for each point: [N, m] -> [N, n]; otherwise as :meth:`matvec`."""
        return self._product(self._checked("u", u, self.rows, index), True, index)

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

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        index = None if index is None else index.to(torch.int64).contiguous()
        out = v.new_empty(v.shape[0], self.columns if transpose else self.rows)
        self.compiled.apply(
            transpose,
            None if index is None else ops.buffer(index),
            v.shape[0],
            ops.buffer(v),
            ops.buffer(out),
            torch.get_num_threads(),
        )
        return out


class MatrixOperator(_CompiledOperator):
    """Matrices that exist: [N, m, n]."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices.detach().contiguous()
        self.parameters = (matrices,)
        self.num_points, self.rows, self.columns = self.matrices.shape
        self.dtype, self.device = matrices.dtype, matrices.device
        self.compiled = _C.matrix_operator(
            ops.dtype_name(matrices), self.num_points, self.rows, self.columns, ops.buffer(self.matrices)
        )

    def to_dense(self) -> Tensor:
        """The matrices themselves."""
        return self.matrices.clone()

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Outer products."""
        gradient = torch.zeros_like(self.matrices)
        gradient.index_add_(0, index, left.unsqueeze(2) * right.unsqueeze(1))
        return [gradient]


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
        points: [N, 2] int64 pairs (t, b).
        through_states: whether gradients also flow into ``x`` and ``states``.
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
        self.time, self.batch = (points[:, i].to(torch.int64).contiguous() for i in range(2))
        held = [w.detach().contiguous() for w in weights]
        self.compiled = _C.step_operator(
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
            torch.get_num_threads(),
        )
        self.num_points, self.rows, self.columns = self.compiled.points, self.compiled.rows, self.compiled.columns
        self.dtype, self.device = x.dtype, x.device
        self._own = ops.of_layer(weights, layer)
        self._below = ops.of_layer(weights, layer - 1) if direction == "diagonal" else []
        data = [x, states] if through_states else []
        self.parameters = (*self._own, *self._below, *data)
        self.is_diagonal = (
            direction == "time" and states.shape[2] == 1 and ops.CELL_SHAPES[cell]["recurrent_blocks"] == 0
        )

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Gradients of the layer's parameters, of the layer's below (diagonal), of x and states (through_states)."""
        own = [torch.zeros_like(w, memory_format=torch.contiguous_format) for w in self._own]
        below = [torch.zeros_like(w, memory_format=torch.contiguous_format) for w in self._below]
        count, hidden = left.shape[0], self.states.shape[4]
        left, right, index = left.contiguous(), right.contiguous(), index.contiguous()
        layers = [self.layer] + ([self.layer - 1] if below else [])
        changes: list[Tensor] = []
        if self.through_states:
            for layer in layers:
                fed = self.x.shape[2] if layer == 0 else hidden
                changes += [left.new_empty(count, self.states.shape[2], hidden), left.new_empty(count, fed)]
        data: list[ops.Buffer | None] = [ops.buffer(c) for c in changes]
        data += [None] * (4 - len(data))
        self.compiled.bilinear_gradient(
            ops.buffer(index),
            count,
            ops.buffer(left),
            ops.buffer(right),
            ops.layer_buffers(own)[0],
            ops.layer_buffers(below)[0] if below else [],
            *data,
            torch.get_num_threads(),
        )
        gradients: list[Tensor | None] = [*own, *below]
        if self.through_states:
            gradients += self._scatter(layers, changes, index)
        return gradients

    def _scatter(self, layers: list[int], changes: list[Tensor], index: Tensor) -> list[Tensor | None]:
        grad_x, grad_states = torch.zeros_like(self.x), torch.zeros_like(self.states)
        t, b = self.time[index], self.batch[index]
        for i, layer in enumerate(layers):
            state_change, input_change = changes[2 * i], changes[2 * i + 1]
            for s in range(self.states.shape[2]):
                grad_states[layer, :, s].index_put_((t, b), state_change[:, s], accumulate=True)
            if layer == 0:
                grad_x.index_put_((t, b), input_change, accumulate=True)
            else:
                grad_states[layer - 1, :, 0].index_put_((t + 1, b), input_change, accumulate=True)
        return [grad_x, grad_states]


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
        index = torch.arange(self.num_points) if index is None else index
        out = v.new_empty(v.shape[0], self.columns if transpose else self.rows)
        for part, offset in zip(self.parts, self._offsets[:-1], strict=True):
            mine = (index >= offset) & (index < offset + part.num_points)
            out[mine] = part._product(v[mine].contiguous(), transpose, index[mine] - offset)
        return out

    def bilinear_gradients(self, left: Tensor, right: Tensor, index: Tensor) -> list[Tensor | None]:
        """Each part's own."""
        gradients: list[Tensor | None] = []
        for part, offset in zip(self.parts, self._offsets[:-1], strict=True):
            mine = (index >= offset) & (index < offset + part.num_points)
            gradients += part.bilinear_gradients(left[mine], right[mine], index[mine] - offset)
        return gradients


class SubmatrixOperator(JacobianOperator):
    """Chosen rows and columns of other Jacobians.

    Args:
        whole: the operator to cut from.
        rows: [m'] int64, which rows to keep.
        columns: [n'] int64, which columns to keep.
    """

    def __init__(self, whole: JacobianOperator, rows: Tensor, columns: Tensor) -> None:
        self.whole, self._rows, self._columns = whole, rows, columns
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


def _embed(v: Tensor, where: Tensor, size: int) -> Tensor:
    whole = v.new_zeros(v.shape[0], size)
    whole[:, where] = v
    return whole


class Kernel(NamedTuple):
    """A weight by its name, and the tensor that operators differentiate: of a parametrised weight, its value."""

    module: nn.Module
    name: str
    value: Tensor


class Trajectory(ABC):
    """A model run over inputs: the grid of points that it visited, and its Jacobians there."""

    num_layers: int
    time_steps: int
    batch: int

    @abstractmethod
    def layers_of(self, direction: str) -> Sequence[int]:
        """The layers that have Jacobians along ``direction``; raises ValueError for an unknown name."""

    @abstractmethod
    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Callable[[Tensor], Tensor] | None = None
    ) -> JacobianOperator:
        """The Jacobians of one layer at ``points`` [N, 2], pairs (t, b)."""

    @abstractmethod
    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """The weight whose scale moves this Jacobian; None where there is none."""


TrajectoryReader = Callable[[Any, Tensor, Any, bool], Trajectory | None]
_READERS: list[TrajectoryReader] = []


def register_reader(reader: TrajectoryReader) -> None:
    """Teaches :func:`trajectory_of` a kind of model; a reader returns None for a model that is not of its kind."""
    _READERS.append(reader)


def trajectory_of(model: Any, inputs: Tensor, initial_state: Any = None, through_states: bool = False) -> Trajectory:
    """Runs ``model`` in eval mode over ``inputs``.

    Raises:
        TypeError: no reader knows the model.
    """
    for reader in _READERS:
        trajectory = reader(model, inputs, initial_state, through_states)
        if trajectory is not None:
            return trajectory
    raise TypeError(
        f"model: expected a torch.nn.RNN, GRU or LSTM or a module of lsc_ext.nn, got {type(model).__qualname__}"
    )


@contextlib.contextmanager
def eval_mode(*modules: Any) -> Iterator[None]:
    """Puts modules into eval mode and each of their parts back into its own."""
    parts = [part for module in modules if isinstance(module, nn.Module) for part in module.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def grid_points(time_steps: int, batch: int) -> Tensor:
    """All pairs (t, b), t-major: [T * B, 2]."""
    return torch.cartesian_prod(torch.arange(time_steps), torch.arange(batch)).reshape(-1, 2)
