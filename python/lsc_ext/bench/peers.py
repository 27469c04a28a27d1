"""The rivals of our radii: the same filter and the same Arnoldi in torch and in jax, and what needs no writing at all.

Each takes points and returns how to run it; a run returns radii [N].
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsc_ext.bench.closed_form import Points, Product

FILTER, ORDER = 64, 16  # power iterations, then steps of Arnoldi

MKL = "closed-form torch loop, MKL"
ONEDNN = "closed-form torch loop, oneDNN packed"
JVP = "torch.func.jvp loop"
DENSE = "torch.func.jacrev + eigvals"
ARPACK = "scipy ARPACK, tol 1e-3"
MATFREE = "matfree Arnoldi, jax"

Radii = Callable[[], Tensor]


def start_vectors(points: Points) -> Tensor:
    """Standard normal, [N, n]."""
    drawn = torch.randn(points.point.shape, generator=torch.Generator().manual_seed(1), dtype=points.point.dtype)
    return drawn.to(points.point.device)


def projected(product: Product, start: Tensor) -> Tensor:
    """Normalised power iteration, then Arnoldi with modified Gram-Schmidt, for all points at once.

    Returns:
        The Jacobians in the Krylov spaces, [N, m, m].
    """
    v, w = start.clone(), torch.empty_like(start)
    length, scratch = start.new_empty(start.shape[0], 1), torch.empty_like(start)
    torch.linalg.vector_norm(v, dim=1, keepdim=True, out=length)
    v.div_(length)
    for _ in range(FILTER):
        product(v, w)
        torch.linalg.vector_norm(w, dim=1, keepdim=True, out=length)
        v, w = w.div_(length), v
    order = min(ORDER, start.shape[1])
    basis = start.new_empty(order, *start.shape)
    hessenberg = start.new_zeros(order, order, start.shape[0], 1)
    basis[0] = v
    for j in range(order):
        product(basis[j], w)
        for i in range(j + 1):
            entry = hessenberg[i, j]
            torch.mul(basis[i], w, out=scratch)
            torch.sum(scratch, 1, keepdim=True, out=entry)
            w.addcmul_(basis[i], entry, value=-1)
        if j + 1 < order:
            torch.linalg.vector_norm(w, dim=1, keepdim=True, out=hessenberg[j + 1, j])
            torch.div(w, hessenberg[j + 1, j].clamp_min(torch.finfo(w.dtype).tiny), out=basis[j + 1])
    return hessenberg.squeeze(3).permute(2, 0, 1)


def filtered_arnoldi(product: Product, start: Tensor) -> Tensor:
    """Radii [N]: those of :func:`projected`."""
    values: Tensor = torch.linalg.eigvals(projected(product, start))
    return values.abs().amax(1)


def mkl_loop(points: Points) -> Radii:
    """One product for all gates into memory that is there."""
    gates = points.point.new_empty(len(points), points.weight.shape[0])
    transposed = points.weight.t()
    product = points.product(lambda v: torch.mm(v, transposed, out=gates))
    start = start_vectors(points)
    return lambda: filtered_arnoldi(product, start)


def onednn_missing(dtype: torch.dtype) -> str:
    """Why oneDNN's packed product cannot be had; empty where it can."""
    if not torch.backends.mkldnn.is_available():
        return "this torch has no oneDNN"
    return "" if dtype == torch.float32 else "oneDNN packs float32 only"


def onednn_loop(points: Points) -> Radii:
    """As :func:`mkl_loop`, with weights that oneDNN packed before."""
    packed = torch.ops.mkldnn._reorder_linear_weight(points.weight.contiguous(), len(points))
    multiply = torch.ops.mkldnn._linear_pointwise
    product = points.product(lambda v: multiply(v.contiguous(), packed, None, "none", [], ""))
    start = start_vectors(points)
    return lambda: filtered_arnoldi(product, start)


def jvp_loop(points: Points) -> Radii:
    """What forward mode gives without any derivation."""

    def function(v: Tensor) -> Tensor:
        return points.function(v, *points.data)

    def product(v: Tensor, out: Tensor) -> None:
        out.copy_(torch.func.jvp(function, (points.point,), (v,))[1])

    start = start_vectors(points)
    return lambda: filtered_arnoldi(product, start)


def dense(points: Points) -> Radii:
    """Jacobians by reverse mode and all their eigenvalues by LAPACK."""

    def run() -> Tensor:
        values: Tensor = torch.linalg.eigvals(points.dense())
        return values.abs().amax(1)

    return run


def scipy_missing() -> str:
    """Why scipy's ARPACK cannot be had; empty where it can."""
    return "" if importlib.util.find_spec("scipy") else "scipy is not installed"


def arpack(points: Points) -> Radii:
    """One eigenvalue of each point by the closed-form product, one point after the other."""
    from scipy.sparse.linalg import LinearOperator, eigs

    n, singles = points.point.shape[1], [_row(points, i) for i in range(len(points))]
    transposed = points.weight.t()
    products = [one.product(lambda v: torch.mm(v, transposed)) for one in singles]
    starts = start_vectors(points).numpy()
    v, out = points.point.new_empty(1, n), points.point.new_empty(1, n)

    def radius(product: Product, start: Any) -> float:
        def matvec(x: Any) -> Any:
            v.copy_(torch.from_numpy(x).view(1, n))
            product(v, out)
            return out.numpy().ravel().copy()

        operator = LinearOperator((n, n), matvec=matvec, dtype=start.dtype)
        return float(abs(eigs(operator, k=1, tol=1e-3, v0=start, return_eigenvectors=False)[0]))

    return lambda: torch.tensor([radius(p, s) for p, s in zip(products, starts, strict=True)])


def _row(points: Points, i: int) -> Points:
    fixed, state = (z[i : i + 1] for z in points.data)
    return Points(points.kind, points.direction, points.weight, points.bias, points.point[i : i + 1], fixed, state)


def matfree_missing() -> str:
    """Why matfree cannot be had; empty where it can."""
    absent = [name for name in ("jax", "matfree") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def matfree(points: Points) -> Radii:
    """Filter in jax, Arnoldi by matfree with full reorthogonalisation, compiled for all points at once."""
    # Read when jax starts, which is here: as many threads as torch has, on the CPU.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if torch.get_num_threads() == 1:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    import jax
    from jax import numpy as jnp
    from matfree import decomp

    kind, hidden = points.kind, points.hidden
    c = {name: jnp.asarray(z.numpy()) for name, z in points.coefficients().items()}
    weight, start = jnp.asarray(points.weight.numpy()), jnp.asarray(start_vectors(points).numpy())
    order = min(ORDER, start.shape[1])

    def product(v: Any, c: dict[str, Any], weight: Any) -> Any:
        gates = (weight @ v[:hidden]).reshape(-1, hidden)
        if kind != "LSTM":
            total = sum(c[str(k)] * gates[k] for k in range(gates.shape[0]))
            return total + c["skip"] * v if "skip" in c else total
        cell = c["0"] * gates[0] + c["1"] * gates[1] + c["2"] * gates[2]
        cell = cell + c["forget"] * v[hidden:] if "forget" in c else cell
        output = c["output"] * cell + c["3"] * gates[3]
        return jnp.concatenate((output, cell)) if "forget" in c else output

    def projected(v: Any, c: dict[str, Any], weight: Any) -> Any:
        def unit(v: Any) -> Any:
            return v / jnp.linalg.norm(v)

        v = jax.lax.fori_loop(0, FILTER, lambda _, v: unit(product(v, c, weight)), unit(v))
        return decomp.hessenberg(order, reortho="full")(product, v, c, weight).J_small

    batched = jax.vmap(projected, in_axes=(0, 0, None))
    compiled = jax.jit(lambda v, c, w: jnp.abs(jnp.linalg.eigvals(batched(v, c, w))).max(axis=1))
    return lambda: torch.from_numpy(jax.device_get(compiled(start, c, weight)).copy())
