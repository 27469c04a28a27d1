"""How an eigenvalue is made of two parameters, one for its modulus and one for its phase.

Letters: lambda = nu exp(i theta), w and v the parameters of modulus and phase, D = softplus(d) a time step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lsc_ext.memory.autocorrelation import Autocorrelation, Rho, read_rho
from lsc_ext.memory.eigenvalue import Eigenvalue, LogEigenvalue, Point, read_eigenvalue
from lsc_ext.memory.normalization import check_normalization, factor, factor_slope

DEFAULT_STEP = 0.01


@dataclass(frozen=True)
class _Map:
    """Parameters -> lambda, its inverse, and the derivative of (nu, theta) by the parameters, [.., 2, P]."""

    summary: str
    forward: Callable[[Tensor, Tensor], Eigenvalue]
    inverse: Callable[[Point], tuple[Tensor, Tensor]]
    jacobian: Callable[[Point], Tensor]


def _polar(modulus: Tensor, phase: Tensor) -> Tensor:
    return torch.complex(modulus * phase.cos(), modulus * phase.sin())


def _signed(modulus: Tensor, phase: Tensor) -> Tensor:
    """The phase of a number whose modulus may have come out negative."""
    return torch.where(modulus < 0, phase + torch.pi, phase)


def _optimal(w: Tensor, v: Tensor) -> LogEigenvalue:
    fall = (-2 * w.abs()).exp()  # tanh |w| = (1 - fall) / (1 + fall)
    decay = fall.log1p() - (-fall).log1p()
    return LogEigenvalue(decay, _signed(w, v * _unit_of_phase(decay, w.tanh())))


def _artanh(decay: Tensor) -> Tensor:
    """Of nu = exp(-decay): (log(1 + nu) - log(1 - nu)) / 2."""
    return ((-decay).exp().log1p() - torch.log(-torch.expm1(-decay))) / 2


def _positive_phase(x: Point) -> Point:
    """With the phase in [0, 2 pi)."""
    return Point(x.value, torch.complex(x.log.real, torch.remainder(x.phase, 2 * torch.pi)), x.real)


def _unit_of_phase(decay: Tensor, modulus: Tensor) -> Tensor:
    """The change of the phase that changes a normalised state of white noise by 1."""
    return -torch.expm1(-2 * decay) / (modulus * (1 + modulus.square()).sqrt())


def _rows(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The matrices ((a, b), (c, d))."""
    a, b, c, d = torch.broadcast_tensors(a, b, c, d)
    return torch.stack((torch.stack((a, b), -1), torch.stack((c, d), -1)), -2)


def _optimal_jacobian(x: Point) -> Tensor:
    nu, zero = x.modulus, torch.zeros_like(x.modulus)
    unit, gap = _unit_of_phase(x.decay, nu), -torch.expm1(-2 * x.decay)
    # d log unit / d nu; theta = v unit moves with nu, too.
    slope = -2 * nu / gap - 1 / nu - nu / (1 + nu.square())
    return _rows(gap, zero, x.phase * slope * gap, unit)


def _exp_jacobian(x: Point) -> Tensor:
    zero = torch.zeros_like(x.modulus)
    return _rows(-x.modulus * x.decay, zero, zero, x.phase)


def _polar_jacobian(x: Point) -> Tensor:
    one, zero = torch.ones_like(x.modulus), torch.zeros_like(x.modulus)
    return _rows(one, zero, zero, one)


_MAPS = {
    "polar": _Map("lambda = w exp(i v)", _polar, lambda x: (x.modulus, x.phase), _polar_jacobian),
    "exp": _Map(
        "lambda = exp(-exp(w) + i exp(v)), the LRU's; theta > 0",
        lambda w, v: LogEigenvalue(w.exp(), v.exp()),
        lambda x: (x.decay.log(), x.phase.log()),
        _exp_jacobian,
    ),
    "optimal": _Map(
        "nu = tanh(w), theta = v (1 - nu^2) / (nu sqrt(1 + nu^2)): curvature 1 on the real axis, white noise",
        _optimal,
        lambda x: (_artanh(x.decay), x.phase / _unit_of_phase(x.decay, x.modulus)),
        _optimal_jacobian,
    ),
}

PARAMETRIZATIONS = {name: entry.summary for name, entry in _MAPS.items()} | {
    "s4": "lambda = exp(softplus(d) (w + i v)), w < 0: that of state-space models, with a third parameter d"
}
"""What a parametrisation is."""


def check_parametrization(name: str, known: tuple[str, ...] = tuple(PARAMETRIZATIONS)) -> None:
    """Raises ValueError for an unknown parametrisation."""
    if name not in known:
        raise ValueError(f"parametrization: expected one of {', '.join(known)}, got {name!r}")


def eigenvalue(
    parametrization: str,
    modulus: float | Tensor,
    phase: float | Tensor = 0.0,
    step: float | Tensor | None = None,
) -> Eigenvalue:
    """An eigenvalue from its parameters.

    Args:
        parametrization: one of ``PARAMETRIZATIONS``.
        modulus: w, any shape.
        phase: v, broadcast with it.
        step: d, broadcast with them; for "s4", where it is needed, and for no other.

    Returns:
        What every function of this package takes: complex128 for "polar", else a :class:`LogEigenvalue`, so that
        moduli near 1 keep their digits. Differentiable.

    Raises:
        ValueError: an unknown name, or a step where there is none or none where there is one.
    """
    check_parametrization(parametrization)
    if (step is None) == (parametrization == "s4"):
        expected = "a number" if parametrization == "s4" else "None"
        raise ValueError(f"step: expected {expected} for {parametrization}, got {step}")
    w, v = (torch.as_tensor(z, dtype=torch.float64) for z in (modulus, phase))
    w, v = torch.broadcast_tensors(w, v)
    if step is None:
        return _MAPS[parametrization].forward(w, v)
    D = torch.nn.functional.softplus(torch.as_tensor(step, dtype=torch.float64))
    return LogEigenvalue(-D * w, D * v)


def parameters_of(parametrization: str, lam: Eigenvalue, *, time_step: float = DEFAULT_STEP) -> tuple[Tensor, ...]:
    """The parameters that :func:`eigenvalue` makes ``lam`` of.

    Args:
        parametrization: one of ``PARAMETRIZATIONS``.
        lam: as :func:`state_second_moment` has it.
        time_step: D, for "s4" alone.

    Returns:
        w and v, and d for "s4"; float64 of the shape of ``lam``. Phases of "exp" are taken in [0, 2 pi).

    Raises:
        ValueError: an unknown name, a modulus of 1 or more, a ``time_step`` that is not above 0.
        TypeError: ``lam`` of another kind.
    """
    check_parametrization(parametrization)
    _check_time_step(time_step)
    x = read_eigenvalue("lam", lam)
    if parametrization == "s4":
        D = torch.full_like(x.modulus, time_step)
        return -x.decay / D, x.phase / D, D.expm1().log()
    if parametrization == "exp":
        x = _positive_phase(x)
    return _MAPS[parametrization].inverse(x)


def _check_time_step(time_step: float) -> None:
    if not time_step > 0:
        raise ValueError(f"time_step: expected more than 0, got {time_step}")


def sensitivity_matrix(
    lam: Eigenvalue,
    rho: Rho,
    *,
    parametrization: str = "polar",
    normalization: str | None = None,
    learned: bool = False,
    time_step: float = DEFAULT_STEP,
) -> Tensor:
    """G = E Re conj(d h / d p_i) (d h / d p_j) over the parameters p of one eigenvalue; h is normalised.

    It is the Hessian of 1/2 E |h - h*|^2 where h = h*, so the curvature that an optimiser meets at the solution; its
    diagonal holds the sensitivities E |d h / d p_i|^2.

    Args:
        lam: lambda, as :func:`state_second_moment` has it, not 0.
        rho: likewise.
        parametrization: one of ``PARAMETRIZATIONS``; the parameters are those of modulus and phase (w, v), and d for
            "s4".
        normalization: of the input: None, "l2" or "l1" (``NORMALIZATIONS``), or "step" for "s4", which multiplies the
            input by D.
        learned: the factor is a parameter of its own, as in the LRU, so that it does not move with lambda.
        time_step: D, for "s4" alone.

    Returns:
        [.., P, P] float64, P = 2, or 3 for "s4".

    Raises:
        ValueError: an unknown name, a modulus of 0 or of 1 or more, |rho| > 1.
        TypeError: an argument of another kind.
    """
    check_parametrization(parametrization)
    _check_time_step(time_step)
    by_step = normalization == "step" and parametrization == "s4"
    if not by_step:
        check_normalization(normalization)
    x, R = read_eigenvalue("lam", lam), read_rho(rho)
    if not bool((x.modulus > 0).all()):
        raise ValueError("lam: expected moduli above 0, where a phase means something, got 0")
    if parametrization == "exp":
        x = _positive_phase(x)
    gamma = torch.full_like(x.modulus, time_step) if by_step else factor(x, normalization)
    base = _gauss_newton(x, R, gamma)
    jacobian = _s4_jacobian(x, time_step) if parametrization == "s4" else _MAPS[parametrization].jacobian(x)
    if by_step:
        slope = torch.zeros_like(jacobian[..., 0, :])
        slope[..., 2] = -torch.expm1(-gamma)
    else:
        slope = factor_slope(x, normalization).unsqueeze(-1) * jacobian[..., 0, :]
    slope = torch.zeros_like(slope) if learned else slope
    jacobian = torch.cat((slope.unsqueeze(-2), jacobian), -2)  # of (gamma, nu, theta), [.., 3, P]
    return jacobian.mT @ base @ jacobian


def _s4_jacobian(x: Point, time_step: float) -> Tensor:
    D = torch.full_like(x.modulus, time_step)
    fall, zero = -torch.expm1(-D) / D, torch.zeros_like(D)  # d log D / d d
    nu = torch.stack((D * x.modulus, zero, -x.decay * x.modulus * fall), -1)
    return torch.stack((nu, torch.stack((zero, D, x.phase * fall), -1)), -2)


def _gauss_newton(x: Point, R: Autocorrelation, gamma: Tensor) -> Tensor:
    """E Re of products of the derivatives of gamma h by gamma, nu and theta, [.., 3, 3]."""
    conj = x.conj()
    f, slope, S = R.state(x, conj), R.state_slope(x, conj), R.sensitivity(x, conj)
    turned = slope * x.value / x.modulus
    f, S, by_nu, by_theta = f.real, S.real, gamma * turned.real, -gamma * x.modulus * turned.imag
    nu, square = x.modulus, gamma.square()
    f, by_nu, by_theta, SS, nu, zero = torch.broadcast_tensors(f, by_nu, by_theta, square * S, nu, torch.zeros_like(S))
    rows = ((f, by_nu, by_theta), (by_nu, SS, zero), (by_theta, zero, nu.square() * SS))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
