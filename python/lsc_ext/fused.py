"""The forward pass of a stack and the radii of its steps in one launch of a CUDA device.

Letters: T time, B batch, L layers, S states, P pre-activations, H units, N points. docs/design/0015-one-launch.md
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lsc_ext import backends, ops
from lsc_ext.estimate import RadiusEstimate
from lsc_ext.estimators import KrylovResults

#: Which points one launch can have.
DIRECTIONS = ("time", "diagonal")
#: Of every device and stream that had a launch, the state of its grid barrier, which a launch leaves as it found it.
_BARRIERS: dict[tuple[torch.device, int], Tensor] = {}


def why_not_fused(x: Tensor, initial: Tensor, cell: str) -> str:
    """Why one launch cannot hold a stack, "" where it can.

    Args:
        x: input [T, B, I].
        initial: states before the first step [L, S, B, H].
        cell: the cell's name.
    """
    backend = backends.backend_of(x, initial)
    if not isinstance(backend, backends.CudaBackend):
        return "a tensor of the CPU"
    if x.dtype not in (torch.float32, torch.float64):
        return f"a layer of {x.dtype}"
    execution = backend.execution()
    reason: str = backend.functions.why_not_fused(cell, ops.dtype_name(x), ops.sizes(x, initial), execution)
    return reason


def forward_radii(
    x: Tensor,
    initial: Tensor,
    weights: Sequence[Tensor],
    cell: str,
    points: Tensor,
    *,
    direction: str = "time",
    vectors: Tensor | None = None,
    seeds: Tensor | None = None,
    num_matvecs: int = 600,
    tol: float = 1e-3,
) -> tuple[Tensor, Tensor, RadiusEstimate]:
    """The trajectory of a stack and the radii of its steps at some points, in one cooperative launch.

    Bit for bit what :func:`lsc_ext.ops.recurrent` and then the compiled iteration give. Autograd sees nothing of it.

    Args:
        x: input [T, B, I], float32 or float64, on a CUDA device.
        initial: states before the first step [L, S, B, H].
        weights: of every layer, as :func:`lsc_ext.ops.recurrent` takes them.
        cell: the cell's name.
        points: layer, step and batch row of each point, [N, 3] int64.
        direction: "time", or "diagonal" for points of layers above the first.
        vectors: the number of each point's start vector, [N] int64; None for 0, 1, ..
        seeds: the seed of each point's start vector, [N] int64; None for 0.
        num_matvecs: most products with the Jacobian at a point.
        tol: relative residual at which a point is called converged.

    Returns:
        states [L, T + 1, S, B, H], pre-activations [L, T, B, P, H], and the estimate of the N points.

    Raises:
        ValueError: a point that is not of the stack, another direction, or a stack that one launch cannot hold
            (:func:`why_not_fused`).
        RuntimeError: tensors that are not on one CUDA device.
    """
    reason = why_not_fused(x, initial, cell)
    if reason:
        raise ValueError(f"forward_radii: expected a stack that one launch can hold, got {reason}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected time or diagonal, got {direction!r}")
    points = points.cpu()
    least = torch.tensor([0 if direction == "time" else 1, 0, 0])
    sizes = torch.tensor([initial.shape[0], x.shape[0], x.shape[1]])
    if points.dim() != 2 or points.shape[1] != 3 or ((points < least) | (points >= sizes)).any():
        raise ValueError(
            f"points: expected [N, 3] of layers {int(least[0])} .. {initial.shape[0] - 1}, steps below {x.shape[0]} "
            f"and batch rows below {x.shape[1]}, got {tuple(points.shape)} or one that is outside"
        )
    backend = backends.backend_of(x, initial, *weights)
    assert isinstance(backend, backends.CudaBackend)
    vectors = torch.arange(len(points)) if vectors is None else vectors.cpu()
    seeds = torch.zeros(len(points), dtype=torch.int64) if seeds is None else seeds.cpu()
    # In the order in which steps are done: layer l reaches step t at about t + l.
    order = torch.argsort(points[:, 0] + points[:, 1], stable=True)
    columns = [*points[order].unbind(1), seeds[order], vectors[order], order]
    items = [column.to(torch.int64).contiguous().to(x.device) for column in columns]
    shapes = ops.result_shapes(x, initial, cell)
    states, gates = (x.new_empty(shape) for shape in shapes)
    states[:, 0] = initial
    x, held = x.contiguous(), [w.contiguous() for w in weights]
    # Held by name: of a temporary, only the address would be left.
    results, barrier = KrylovResults(len(points), None, x.dtype, x.device), _barrier(backend)
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
        len(points),
        [ops.buffer(item) for item in items],
        tol,
        num_matvecs,
        results.buffers(backend.functions),
        ops.buffer(barrier),
    )
    return states, gates, results.estimate(x.device)


def _barrier(backend: backends.CudaBackend) -> Tensor:
    place = backend.device, backend.stream()
    if place not in _BARRIERS:
        _BARRIERS[place] = torch.zeros(2, dtype=torch.int32, device=backend.device)
    return _BARRIERS[place]
