"""Hessians of linear networks at a solution in closed form, and how well their axes are those of the parameters.

At a solution the Hessian of 1/2 E |y - y*|^2 is the mean of products of the output's derivatives. Formulas after
arXiv 2405.21064 for diagonal recurrences; that for dense ones is derived in docs/math/memory.md.

Letters: n states, I inputs, O outputs; h' = A h + B x, y = C h'; P the eigenvectors of A, S the sensitivity moment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext.memory.autocorrelation import Rho, read_rho
from lsc_ext.memory.eigenvalue import Eigenvalue, Point, read_eigenvalue


def diagonal_hessian(lam: Eigenvalue, B: Tensor, C: Tensor, rho: Rho = 0.0) -> Tensor:
    """The Hessian over the eigenvalues of y = Re(C h), h' = lambda h + B x, at a solution, after infinite time.

    Args:
        lam: [n], as :func:`state_second_moment` has it.
        B: [n] or [n, I], real or complex; inputs are independent of each other and have the same autocorrelation.
        C: [n] or [O, n].
        rho: the inputs, as :func:`state_second_moment` has it; numbers, no tensors.

    Returns:
        [2 n, 2 n] float64, over the real parts, then the imaginary parts.

    Raises:
        ValueError: a modulus of 1 or more, |rho| > 1, or shapes that do not fit.
        TypeError: an argument of another kind.
    """
    x, R = read_eigenvalue("lam", lam), read_rho(rho)
    into, out = _matrices(x.value, B, C)
    row, column = x.unsqueeze(-1), x.unsqueeze(-2)
    same = (out.mT @ out) * (into @ into.mT) * R.sensitivity(row, column)
    mixed = (out.mT @ out.conj()) * (into @ into.mH) * R.sensitivity(row, column.conj())
    top = torch.cat(((same + mixed).real, (mixed - same).imag), 1)
    bottom = torch.cat((-(same + mixed).imag, (mixed - same).real), 1)
    return torch.cat((top, bottom)) / 2


def dense_hessian(A: Tensor, B: Tensor, C: Tensor, rho: Rho = 0.0) -> Tensor:
    """The Hessian over the entries of A of y = C h, h' = A h + B x, at a solution, after infinite time.

    From the eigenvectors of A, which should be far from dependent: digits are lost as the square of their condition.
    Eigenvalues may coincide.

    Args:
        A: [n, n] real, spectral radius below 1.
        B: [n] or [n, I] real.
        C: [n] or [O, n] real.
        rho: the inputs, as :func:`diagonal_hessian` has it.

    Returns:
        [n^2, n^2] float64, over A row by row. Memory n^4.

    Raises:
        ValueError: a spectral radius of 1 or more, |rho| > 1, or shapes that do not fit.
        TypeError: an argument of another kind.
    """
    if A.dim() != 2 or A.shape[0] != A.shape[1] or A.is_complex():
        raise ValueError(f"A: expected a real square matrix, got {A.dtype} of shape {tuple(A.shape)}")
    R = read_rho(rho)
    values, P = torch.linalg.eig(A.double())
    x, n = read_eigenvalue("A", values), len(values)
    into, out = _matrices(values, B, C)
    inverse = torch.linalg.inv(P)
    into, out = inverse @ into, out @ P

    def at(index: int) -> Point:
        shape = [1, 1, 1, 1]
        shape[index] = n
        return Point(x.value.view(shape), x.log.view(shape), False)

    # d y / d A_ij: sum over m, q of (P^-1)_mi P_jq out_m into_q times the divided difference of states over m and q.
    m, q, m2, q2 = (at(index) for index in range(4))
    pairs = R.differences(m, q, m2, q2)
    pairs = pairs * (out.mT @ out).view(n, 1, n, 1) * (into @ into.mT).view(1, n, 1, n)
    basis = torch.einsum("mi,jq->ijmq", inverse, P).reshape(n * n, n * n)
    hessian: Tensor = (basis @ pairs.reshape(n * n, n * n) @ basis.mT).real
    return hessian


def _matrices(values: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """B [n, I] and C [O, n], complex128."""
    if values.dim() != 1:
        raise ValueError(f"lam: expected shape (n,), got {tuple(values.shape)}")
    n = len(values)
    into, out = torch.as_tensor(B).to(torch.complex128), torch.as_tensor(C).to(torch.complex128)
    into, out = into.view(-1, 1) if into.dim() == 1 else into, out.view(1, -1) if out.dim() == 1 else out
    if into.dim() != 2 or into.shape[0] != n:
        raise ValueError(f"B: expected shape ({n},) or ({n}, I), got {tuple(torch.as_tensor(B).shape)}")
    if out.dim() != 2 or out.shape[1] != n:
        raise ValueError(f"C: expected shape ({n},) or (O, {n}), got {tuple(torch.as_tensor(C).shape)}")
    return into, out


def _check_symmetric(hessian: Tensor) -> Tensor:
    if hessian.dim() < 2 or hessian.shape[-1] != hessian.shape[-2] or hessian.is_complex():
        raise ValueError(f"hessian: expected real shape (.., P, P), got {hessian.dtype} {tuple(hessian.shape)}")
    if not bool(hessian.isfinite().all()):
        raise ValueError("hessian: expected finite numbers, got NaN or infinity")
    return hessian.double()


def axis_alignment(hessian: Tensor) -> Tensor:
    """kappa_D, the largest eigenvalue of D^(-1/2) H D^(-1/2), D the diagonal of H.

    How far a diagonal preconditioner such as Adam's falls short: 1 where H is diagonal, up to P where all parameters
    pull as one. Parameters of curvature 0 are left out.

    Args:
        hessian: [.., P, P], symmetric and positive semi-definite.

    Returns:
        [..] float64; 0 where H is 0.

    Raises:
        ValueError: not square, complex, not finite, or with a negative diagonal.
    """
    H = _check_symmetric(hessian)
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    if bool((diagonal < 0).any()):
        raise ValueError("hessian: expected a diagonal of at least 0, got a negative entry")
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    scaled = scale.unsqueeze(-1) * H * scale.unsqueeze(-2)
    if H.shape[-1] == 0:
        return H.new_zeros(H.shape[:-2])
    largest: Tensor = torch.linalg.eigvalsh(scaled)[..., -1]
    return largest


def participation_ratio(hessian: Tensor, count: int = 1) -> Tensor:
    """1 / sum of v_i^4 over the entries of unit eigenvectors: on how many parameters each direction of curvature lies.

    Args:
        hessian: [.., P, P] symmetric.
        count: how many eigenvectors, from that of the largest eigenvalue on.

    Returns:
        [.., count] float64, between 1 and P.

    Raises:
        ValueError: not square, complex, not finite, or fewer than ``count`` parameters.
    """
    H = _check_symmetric(hessian)
    if not 1 <= count <= H.shape[-1]:
        raise ValueError(f"count: expected 1 to {H.shape[-1]}, got {count}")
    vectors = torch.linalg.eigh(H).eigenvectors[..., -count:].flip(-1)
    found: Tensor = 1 / vectors.pow(4).sum(-2)
    return found
