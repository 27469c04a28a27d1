"""The forward pass of a stack and the radii of its steps in one launch of a CUDA device.

Letters: T time, B batch, L layers, S states, P pre-activations, H units, N points. docs/design/0015-one-launch.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsc_ext import backends, ops
from lsc_ext.estimators import Found, KrylovResults

#: Which points one launch can have.
DIRECTIONS = ("time", "depth", "diagonal")


@dataclass
class Points:
    """Where radii are wanted, and what they start from.

    Attributes:
        index: layer, step and batch row of each point, [N, 3] int64.
        vectors: the number of each point's start vector, [N] int64; None for 0, 1, ..
        seeds: the seed of each point's start vector, [N] int64; None for 0.
    """

    index: Tensor
    vectors: Tensor | None = None
    seeds: Tensor | None = None

    def columns(self, direction: str, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Checked against the sizes of (layers, steps, batch), on the host."""
        index = self.index.cpu()
        least = torch.tensor([0 if direction == "time" else 1, 0, 0])
        if index.dim() != 2 or index.shape[1] != 3 or ((index < least) | (index >= torch.tensor(sizes))).any():
            raise ValueError(
                f"points: expected [N, 3] of layers {int(least[0])} .. {sizes[0] - 1}, steps below {sizes[1]} "
                f"and batch rows below {sizes[2]}, got {tuple(index.shape)} or one that is outside"
            )
        vectors = torch.arange(len(index)) if self.vectors is None else self.vectors.cpu()
        seeds = torch.zeros(len(index), dtype=torch.int64) if self.seeds is None else self.seeds.cpu()
        return index, vectors, seeds


def why_not_fused(x: Tensor, initial: Tensor, cell: str) -> str:
    """Why one launch cannot hold a stack and radii, "" where it can.

    Args:
        x: input [T, B, I].
        initial: states before the first step [L, S, B, H].
        cell: the cell's name.
    """
    if not isinstance(backends.backend_of(x, initial), backends.CudaBackend):
        return "a tensor of the CPU"
    if x.dtype not in (torch.float32, torch.float64):
        return f"a layer of {x.dtype}"
    reason: str = plan("forward_radii", x, initial, cell)["reason"]
    return reason


def plan(what: str, x: Tensor, initial: Tensor, cell: str) -> dict[str, Any]:
    """How one launch shares out a stack, of tensors on a CUDA device.

    Args:
        what: "forward", "backward" or "forward_radii".
        x: input [T, B, I], float32 or float64.
        initial: states before the first step [L, S, B, H].
        cell: the cell's name.

    Returns:
        reason: why it is not one launch, or "". pays: whether the model of docs/design/0015-one-launch.md says that it
        is shorter than launches for every step, which run otherwise; "forward_radii" runs either way. units: of a
        block; slices: of a layer; parts: of the batch; apart: whether a block has one of a layer's two products;
        walking and blocks: how many walk, and there are; shared_bytes: of shared memory in each.
    """
    backend = backends.backend_of(x, initial)
    assert isinstance(backend, backends.CudaBackend), "a tensor of the CPU"
    sizes = ops.sizes(x, initial)
    found: dict[str, Any] = backend.functions.plan(what, cell, ops.dtype_name(x), sizes, backend.execution())
    return found


def forward_radii(
    x: Tensor,
    initial: Tensor,
    weights: Sequence[Tensor],
    cell: str,
    points: Points,
    *,
    direction: str = "time",
    num_matvecs: int = 600,
    tol: float = 1e-3,
    pairs: bool = False,
    memory: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Found]:
    """The trajectory of a stack and the radii of its steps at some points, in one cooperative launch.

    Bit for bit what :func:`lsc_ext.ops.recurrent` and then the compiled iteration give. Autograd sees nothing of it.

    Args:
        x: input [T, B, I], float32 or float64, on a CUDA device.
        initial: states before the first step [L, S, B, H].
        weights: of every layer, as :func:`lsc_ext.ops.recurrent` takes them.
        cell: the cell's name.
        points: where.
        direction: "time"; "depth" or "diagonal" for points of layers above the first.
        num_matvecs: most products with the Jacobian at a point.
        tol: relative residual at which a point is called converged.
        pairs: whether the left and right vectors of each point are found too.
        memory: what to write states and pre-activations to; None for new tensors.

    Returns:
        states [L, T + 1, S, B, H], pre-activations [L, T, B, P, H], and what was found at the N points. Left vectors
        are found, and their estimate is filled, where the radius is finite and above zero.

    Raises:
        ValueError: a point that is not of the stack, another direction, or a stack that one launch cannot hold
            (:func:`why_not_fused`).
        RuntimeError: tensors that are not on one CUDA device.
    """
    reason = why_not_fused(x, initial, cell)
    if reason:
        raise ValueError(f"forward_radii: expected a stack that one launch can hold, got {reason}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected time, depth or diagonal, got {direction!r}")
    index, vectors, seeds = points.columns(direction, (initial.shape[0], x.shape[0], x.shape[1]))
    backend = backends.backend_of(x, initial, *weights)
    # In the order in which steps are done: layer l reaches step t at about t + l.
    order = torch.argsort(index[:, 0] + index[:, 1], stable=True)
    columns = [*index[order].unbind(1), seeds[order], vectors[order], order]
    items = [column.to(torch.int64).contiguous().to(x.device) for column in columns]
    states, gates = memory or tuple(x.new_empty(shape) for shape in ops.result_shapes(x, initial, cell))
    states[:, 0] = initial
    x, held = x.contiguous(), [w.contiguous() for w in weights]
    shape = ops.CELL_SHAPES[cell]
    n = (1 if direction == "depth" else shape["states"] - shape["derived"]) * initial.shape[3]
    # Held by name: of a temporary, only the address would be left.
    right, left = (KrylovResults(len(index), n if pairs else None, x.dtype, x.device) for _ in range(2))
    backend.call(
        backend.functions.forward_radii,
        cell,
        ops.dtype_name(x),
        ops.sizes(x, initial),
        ops.buffer(x),
        ops.layer_buffers(held),
        ops.buffer(states),
        ops.buffer(gates),
        direction,
        len(index),
        [ops.buffer(item) for item in items],
        tol,
        num_matvecs,
        right.buffers(backend.functions),
        left.buffers(backend.functions) if pairs else None,
    )
    found = Found(right.estimate(x.device), right.vectors)
    if pairs:
        found.left, found.left_estimate = left.vectors, left.estimate(x.device)
    return states, gates, found
