"""The largest eigenvalues of a symmetric matrix that is known by its products with vectors.

Letters: P rows, V [P, j] orthonormal Lanczos vectors, T = V^T H V tridiagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsc_ext.memory.vector_products import CurvatureProduct
from lsc_ext.nn.arguments import check_int
from lsc_ext.spectral import seed_from


@dataclass(frozen=True)
class Eigenpairs:
    """What :func:`top_eigenpairs` found, from the largest eigenvalue on.

    Attributes:
        values: [count] float64.
        vectors: [P, count] float64, orthonormal.
        residuals: |H v - value v| / |largest value|, [count], by products with the vectors found: the distance of each
            value to some eigenvalue is no more.
        num_products: that were formed, these among them.
        converged: whether all residuals are within the tolerance. As with every Krylov method, what the start vector
            happens to be orthogonal to is not found, and an eigenvalue of several vectors may be found with one.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    num_products: int
    converged: bool


def top_eigenpairs(
    product: CurvatureProduct,
    count: int = 1,
    *,
    num_products: int | None = None,
    tol: float = 1e-8,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """The largest eigenvalues and their vectors, by Lanczos' method with every vector orthogonalised twice.

    Args:
        product: the matrix, such as :func:`hessian_product` returns.
        count: how many, at most P.
        num_products: products at most to build up vectors, ``count`` more check what was found; None for P or 300, the
            smaller, but at least ``count``.
        tol: relative residual at which an eigenpair counts as found.
        generator: draws one seed for the start vector.

    Returns:
        float64 on the CPU. Memory P times the number of products.

    Raises:
        ValueError: an option out of range, or a product that is not finite.
    """
    size = product.size
    check_int("count", count, 1)
    if count > size:
        raise ValueError(f"count: expected at most {size}, got {count}")
    if num_products is not None:
        check_int("num_products", num_products, 1)
    limit = max(count, min(size, 300)) if num_products is None else num_products
    if limit < count:
        raise ValueError(f"num_products: expected at least {count}, got {num_products}")
    if not tol > 0:
        raise ValueError(f"tol: expected more than 0, got {tol}")
    draw = torch.Generator().manual_seed(seed_from(generator))

    def fresh() -> Tensor:
        return torch.randn(size, dtype=torch.float64, generator=draw)

    basis = torch.zeros(min(limit, size), size, dtype=torch.float64)
    diagonal: list[float] = []
    beside: list[float] = []
    vector, _ = _orthonormal(fresh(), basis[:0])
    for j in range(len(basis)):
        basis[j] = vector
        image = product(vector)
        if not bool(image.isfinite().all()):
            raise ValueError("product: expected finite numbers, got NaN or infinity")
        diagonal.append(float(vector @ image))
        vector, left = _orthonormal(image, basis[: j + 1])
        scale = max(map(abs, diagonal)) + max(beside, default=0.0)
        closed = left <= 1e-14 * scale  # an invariant subspace: go on in what is orthogonal to it
        if closed and j + 1 < len(basis):
            vector, _ = _orthonormal(fresh(), basis[: j + 1])
        beside.append(0.0 if closed else left)
        values, small = _ritz(diagonal, beside[:-1])
        if j + 1 >= count:
            residuals = beside[-1] * small[-1, -count:].abs()
            largest = float(values.abs().max())
            if not closed and largest > 0 and bool((residuals <= tol * largest).all()):
                break
    values, small = _ritz(diagonal, beside[:-1])
    used = len(diagonal)
    order = slice(-count, None)
    chosen = values[order].flip(0)
    vectors = (basis[:used].mT @ small[:, order]).flip(1)
    largest = float(values.abs().max())
    images = torch.stack([product(v) for v in vectors.unbind(1)], 1)
    residuals = (images - vectors * chosen).norm(dim=0) / (largest if largest > 0 else 1.0)
    return Eigenpairs(chosen, vectors, residuals, used + count, bool((residuals <= tol).all()))


def _orthonormal(vector: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """What is left of a vector apart from rows of ``basis``, of length 1, and its length."""
    for _ in range(2):
        vector = vector - basis.mT @ (basis @ vector)
    length = float(vector.norm())
    return (vector / length if length > 0 else vector), length


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the tridiagonal matrix, rising, and their vectors."""
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        T = T + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(T)
    return values, vectors
