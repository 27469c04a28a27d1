"""The loss of one unit that learns the memory of another: 1/2 E |h - h*|^2, both fed the same input.

Letters: lambda and lambda* the eigenvalues of student and teacher, gamma and gamma* the factors on their inputs, w and
v the student's parameters of modulus and phase.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lsc_ext.memory.autocorrelation import Rho, read_rho
from lsc_ext.memory.eigenvalue import Eigenvalue, difference, read_eigenvalue
from lsc_ext.memory.normalization import check_normalization, factor
from lsc_ext.memory.parametrization import check_parametrization, eigenvalue


def unit_loss(lam: Eigenvalue, teacher: Eigenvalue, rho: Rho = 0.0, *, normalization: str | None = None) -> Tensor:
    """1/2 E |gamma h - gamma* h*|^2 in closed form, h of lambda and h* of lambda*.

    It is computed from lambda - lambda* and divided differences of f, so that it is 0 at the optimum and keeps its
    digits around it, where the difference of moments has none.

    Args:
        lam: the student's eigenvalue, as :func:`state_second_moment` has it.
        teacher: the teacher's, broadcast with it.
        rho: the input, likewise; white noise by default.
        normalization: of both inputs, one of ``NORMALIZATIONS``.

    Returns:
        float64 of the broadcast shape, differentiable.

    Raises:
        ValueError: a modulus of 1 or more, |rho| > 1, or an unknown name.
        TypeError: an argument of another kind.
    """
    check_normalization(normalization)
    x, y, R = read_eigenvalue("lam", lam), read_eigenvalue("teacher", teacher), read_rho(rho)
    apart = difference(x, y)
    own, gap = factor(x, normalization), factor(x, normalization) - factor(y, normalization)
    moved = own.square() * (apart * apart.conj()).real * R.differences(x, y, x.conj(), y.conj()).real
    if normalization is None:
        return moved / 2
    cross = (apart * R.difference(x, y, y.conj())).real
    return (moved + gap.square() * R.state(y, y.conj()).real) / 2 + own * gap * cross


class Landscape(NamedTuple):
    """Float64 tensors of one shape.

    Attributes:
        loss: 1/2 E |gamma h - gamma* h*|^2.
        modulus: its second derivative by w.
        phase: that by v.
    """

    loss: Tensor
    modulus: Tensor
    phase: Tensor


def unit_landscape(
    parametrization: str,
    modulus: float | Tensor,
    phase: float | Tensor,
    teacher: Eigenvalue,
    rho: Rho = 0.0,
    *,
    normalization: str | None = "l2",
) -> Landscape:
    """Loss and its second derivatives over a student's parameters; the derivatives are autograd's.

    Args:
        parametrization: "polar", "exp" or "optimal".
        modulus: w, any shape.
        phase: v, broadcast with it.
        teacher: its eigenvalue, broadcast with them.
        rho: the input, as :func:`state_second_moment` has it.
        normalization: one of ``NORMALIZATIONS``; student's and teacher's factors follow their eigenvalues.

    Returns:
        All of the broadcast shape, detached.

    Raises:
        ValueError: a modulus of 1 or more, |rho| > 1, or an unknown name.
        TypeError: an argument of another kind.
    """
    check_parametrization(parametrization, ("polar", "exp", "optimal"))
    shape = read_eigenvalue("teacher", teacher).value
    w, v = (torch.as_tensor(z, dtype=torch.float64) for z in (modulus, phase))
    leaves = [z.detach().clone().requires_grad_() for z in torch.broadcast_tensors(w, v, shape.real)[:2]]
    with torch.enable_grad():
        loss = unit_loss(eigenvalue(parametrization, *leaves), teacher, rho, normalization=normalization)
        seconds = []
        for leaf in leaves:
            (first,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), leaf, retain_graph=True)
            seconds.append(second.detach())
    return Landscape(loss.detach(), *seconds)
