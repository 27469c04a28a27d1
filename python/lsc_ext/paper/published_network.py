"""The network of figures 4 and 9 of arXiv 2405.21064, drawn again from its code's seed, in four parametrisations.

Letters: lambda its four eigenvalues, c and b output and input weights in their basis, gamma a factor on inputs, D a
direct path, Delta a time step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lsc_ext.memory import DenseSystem, DiagonalSystem, eigenvalue, hessian, input_normalization, parameters_of

STEPS = 300
TIME_STEP = 0.01
_F64 = torch.float64
# How many parameters make the eigenvalues; they come first.
RECURRENT = {"dense": 16, "diagonal": 8, "LRU": 8, "S4": 12}
A = torch.tensor(
    [
        [-1.4247412550487388, -1.5329170486627643, -0.3887158145195779, 1.2379928998062293],
        [0.007940461682874378, -0.6328705387122633, 0.7550464504272068, 0.9610731194628643],
        [0.11484895897874497, 0.7160967315683565, -0.048685822854779626, 0.840569175749642],
        [-0.3267346495877476, -1.1527603743610932, -0.2170820540503687, 0.026568562697580567],
    ],
    dtype=_F64,
)
B = torch.tensor([0.6721794544389568, -2.635084189677658, 1.642194415740619, 0.619311244075578], dtype=_F64)
C = torch.tensor([0.6827156955186438, -0.4191951593030349, 0.2536809405968809, 0.6006502489021232], dtype=_F64)
D = torch.tensor(-1.775317998295996, dtype=_F64)


def published_hessians() -> dict[str, Tensor]:
    """Hessians of the loss over 300 steps of white noise, the student at the teacher, [P, P] by parametrisation.

    dense: A, B, C, D. diagonal: real and imaginary parts of lambda, b and c, and D; b = c. LRU: w and v of lambda =
    exp(-exp(w) + i exp(v)), log gamma, b / gamma and c in parts, D; gamma = sqrt(1 - |lambda|^2). S4: real and
    imaginary parts of log(lambda) / Delta, what Delta is the softplus of, b / Delta and c in parts, D; Delta = 0.01.
    Phases of LRU and S4 are in [0, 2 pi).
    """
    values, P = torch.linalg.eig(A)
    phase = torch.remainder(values.angle(), 2 * math.pi)
    order = phase.argsort()
    lam, P = torch.polar(values.abs(), phase)[order], P[:, order]
    root = (torch.linalg.solve(P, B.to(P)) * (C.to(P) @ P)).sqrt()
    diagonal = hessian(DiagonalSystem(lam, root, root, D), horizon=STEPS)
    gamma = input_normalization(lam)
    w, v = parameters_of("exp", lam)
    real, _, step = parameters_of("s4", lam, time_step=TIME_STEP)
    parts = torch.stack((root.real, root.imag))  # of b, and of c
    rest = (parts.flatten(), D.view(1))
    lru = torch.cat((w, v, gamma.log(), (parts / gamma).flatten(), *rest))
    s4 = torch.cat((real, phase[order] / TIME_STEP, step, (parts / TIME_STEP).flatten(), *rest))
    return {
        "dense": hessian(DenseSystem(A, B, C, D), horizon=STEPS),
        "diagonal": diagonal,
        "LRU": _through(_of_lru, lru, diagonal),
        "S4": _through(_of_s4, s4, diagonal),
    }


def _through(parameters: Callable[[Tensor], Tensor], at: Tensor, diagonal: Tensor) -> Tensor:
    """The Hessian of the diagonal network by other parameters: at a solution no second derivative enters."""
    slope: Tensor = torch.autograd.functional.jacobian(parameters, at)
    return slope.mT @ diagonal @ slope


def _of_lru(p: Tensor) -> Tensor:
    w, v, log_gamma = p[:12].view(3, 4)
    return _flat("exp", (w, v), log_gamma.exp(), p[12:])


def _of_s4(p: Tensor) -> Tensor:
    real, imaginary, step = p[:12].view(3, 4)
    return _flat("s4", (real, imaginary, step), torch.nn.functional.softplus(step), p[12:])


def _flat(name: str, parameters: tuple[Tensor, ...], factor: Tensor, rest: Tensor) -> Tensor:
    """Parameters of the diagonal network, as its Hessian has them."""
    lam = eigenvalue(name, *parameters)
    assert not isinstance(lam, complex | Tensor)  # these two keep logarithms
    modulus, phase = torch.exp(-torch.as_tensor(lam.decay)), torch.as_tensor(lam.phase)
    parts = (modulus * phase.cos(), modulus * phase.sin(), (rest[:8].view(2, 4) * factor).flatten(), rest[8:])
    return torch.cat(parts)
