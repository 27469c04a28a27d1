"""Radii of random layers without drawing one, and the gain that brings them to a target.

A layer z -> W phi(z) of many units with independent weights of variance g^2 / fan_in has normal pre-activations of
variance q' = g^2 E phi(sqrt(q) x)^2 + b, and a Jacobian whose radius tends to g sqrt(E phi'(sqrt(q) x)^2), x
standard normal: the circular law with unequal rows. Orthogonal weights have the same limit (the single ring theorem;
Guionnet, Krishnapur and Zeitouni, Annals of Mathematics 174, 2011). The recursion is that of Poole et al., "Exponential
expressivity in deep neural networks through transient chaos", NeurIPS 2016.

Letters: phi the activation, q the variance of pre-activations, g the gain, b the variance of biases, n units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lsc_ext.nn.arguments import check_int
from lsc_ext.theory.paths import check_radius

Activation = str | Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cos": torch.cos,
    "gelu": functional.gelu,
    "identity": torch.clone,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
#: Variance times fan_in of square layers, by the scheme's name without how it is distributed.
SCHEMES = {"glorot": 1.0, "he": 2.0, "orthogonal": 1.0}

_NODES, _FEWER_NODES = 256, 192
_POINTS, _REACH = 20_000, 10.0  # of the midpoint rule: even, so that none is at 0; standard deviations
_SMALLEST, _LARGEST = 1e-24, 1e24  # variances that stand for the limits 0 and infinity


@lru_cache(maxsize=2)
def _hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Hermite quadrature for a standard normal x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


@lru_cache(maxsize=1)
def _midpoints() -> tuple[Tensor, Tensor]:
    """The same of the midpoint rule, whose error does not grow where a function jumps."""
    nodes = _REACH * ((2 * torch.arange(_POINTS, dtype=torch.float64) + 1) / _POINTS - 1)
    weights = (-nodes.square() / 2).exp()
    return nodes, weights / weights.sum()


def _function(activation: Activation) -> Callable[[Tensor], Tensor]:
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected a callable or one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


def _kind(scheme: str) -> str:
    kind = scheme.removesuffix("_normal").removesuffix("_uniform")
    if kind not in SCHEMES:
        raise ValueError(f"scheme: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    return kind


def _check_variance(name: str, value: float) -> None:
    check_radius(name, value)
    if name == "variance" and value == 0:
        raise ValueError(f"{name}: expected more than 0, got {value}")


def _means(activation: Activation, variance: Tensor) -> tuple[Tensor, Tensor]:
    """E phi^2 and E phi'^2 for each variance [Q]: Gauss-Hermite where two orders agree, else the midpoint rule."""
    found, fewer = (torch.stack(_weighed(activation, variance, _hermite(n))) for n in (_NODES, _FEWER_NODES))
    jumps = ((found - fewer).abs() > 1e-8 * found.abs() + 1e-300).any(0)
    if bool(jumps.any()):
        found[:, jumps] = torch.stack(_weighed(activation, variance[jumps], _midpoints()))
    return found[0], found[1]


def _weighed(activation: Activation, variance: Tensor, rule: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    nodes, weights = rule
    with torch.enable_grad():
        z = (variance.sqrt().unsqueeze(1) * nodes).requires_grad_()
        value = _function(activation)(z)
        if not isinstance(value, Tensor) or value.shape != z.shape:
            raise ValueError("activation: expected a function that works element by element, got another shape")
        slope = torch.zeros_like(z)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach().square() @ weights, slope.square() @ weights


def mean_square(activation: Activation, variance: float) -> float:
    """E phi(sqrt(q) x)^2 over a standard normal x, by Gauss-Hermite quadrature.

    Args:
        activation: a name of :class:`lsc_ext.nn.FeedForward`'s, or a function of a tensor, element by element.
        variance: q, above 0.

    Returns:
        To rounding for smooth functions. Where quadrature with 256 and with 192 nodes differ, as where the slope jumps
        elsewhere than at 0, by the midpoint rule with 20,000, whose error is below 1e-3.

    Raises:
        ValueError: a number out of range, an unknown name, or a function that changes the shape.
    """
    _check_variance("variance", variance)
    return float(_means(activation, torch.tensor([variance], dtype=torch.float64))[0])


def mean_square_slope(activation: Activation, variance: float) -> float:
    """E phi'(sqrt(q) x)^2, as :func:`mean_square`; the derivative is torch's."""
    _check_variance("variance", variance)
    return float(_means(activation, torch.tensor([variance], dtype=torch.float64))[1])


def _root(excess: Callable[[Tensor], Tensor]) -> float:
    """Where ``excess`` of a variance changes sign, going from 1 up where it is positive and down where negative.

    Zero at 1 is 1. Where the sign never changes, the end of the range.
    """
    at_one = float(excess(torch.ones(1, dtype=torch.float64)))
    if abs(at_one) < 1e-12:
        return 1.0
    end = _LARGEST if at_one > 0 else _SMALLEST
    direction = math.copysign(1.0, math.log10(end))
    inside = outside = 1.0
    for decade in range(abs(round(math.log10(end)))):  # in steps of a sixteenth
        points = 10 ** (direction * (decade + torch.arange(1, 17, dtype=torch.float64) / 16))
        changed = (excess(points).sign() != math.copysign(1, at_one)).nonzero()
        if changed.numel() > 0:
            outside = float(points[changed[0]])
            inside = outside / 10 ** (direction / 16)
            break
    else:
        return end
    for _ in range(60):
        middle = math.sqrt(inside * outside)
        same = float(excess(torch.tensor([middle], dtype=torch.float64))) * at_one > 0
        inside, outside = (middle, outside) if same else (inside, middle)
    return math.sqrt(inside * outside)


def variance_fixed_point(activation: Activation, *, gain: float = 1.0, bias_variance: float = 0.0) -> float:
    """The variance q* = g^2 E phi(sqrt(q*) x)^2 + b of pre-activations deep inside a stack fed with variance 1.

    Args:
        activation: as :func:`mean_square` takes it.
        gain: g, the standard deviation of a weight times sqrt(fan_in): 1 for Glorot on square layers, sqrt(2) for He.
        bias_variance: b.

    Returns:
        The fixed point next to 1 in the direction in which the variance moves. 0 and infinity where there is none
        before 1e-24 and 1e24; 1 where the variance stays, as that of ReLU does at g = sqrt(2).

    Raises:
        ValueError: a number out of range, an unknown name, or a function that changes the shape.
    """
    check_radius("gain", gain)
    _check_variance("bias_variance", bias_variance)
    found = _root(lambda q: gain**2 * _means(activation, q)[0] + bias_variance - q)
    return {_SMALLEST: 0.0, _LARGEST: math.inf}.get(found, found)


def layer_radius(
    activation: Activation,
    scheme: str = "glorot",
    *,
    gain: float = 1.0,
    variance: float | None = None,
    bias_variance: float = 0.0,
) -> float:
    """The radius of a square layer's Jacobian with random weights, in the limit of many units.

    Args:
        activation: as :func:`mean_square` takes it.
        scheme: "glorot", "he" or "orthogonal", with "_normal" or "_uniform" or without.
        gain: what the scheme's weights are multiplied by, as ``gain`` of :func:`lsc_ext.nn.initialize`.
        variance: of the pre-activations; None for :func:`variance_fixed_point`.
        bias_variance: of the biases, for the fixed point.

    Returns:
        Layers of n units lie above it by 3 to 6 percent for n from 16 to 256 (the largest of n eigenvalues).

    Raises:
        ValueError: a number out of range, an unknown name, or a function that changes the shape.
    """
    check_radius("gain", gain)
    _check_variance("bias_variance", bias_variance)
    total = gain * math.sqrt(SCHEMES[_kind(scheme)])
    if variance is None:
        variance = variance_fixed_point(activation, gain=total, bias_variance=bias_variance)
        variance = min(max(variance, _SMALLEST), _LARGEST)
    return total * math.sqrt(mean_square_slope(activation, variance))


def critical_gain(
    activation: Activation,
    scheme: str = "glorot",
    *,
    radius: float = 1.0,
    variance: float | None = None,
    bias_variance: float = 0.0,
) -> float:
    """What to multiply a scheme's weights by so that the Jacobians of square layers have a given radius.

    ReLU after Glorot: sqrt(2), after He: 1. tanh and sin after Glorot: 1. cos after Glorot: 1.4831.

    Args:
        activation: as :func:`mean_square` takes it.
        scheme: "glorot", "he" or "orthogonal", with "_normal" or "_uniform" or without.
        radius: the wanted one, above 0.
        variance: q of the layer's pre-activations; None for a layer deep in a stack all of whose layers have that
            radius, started from variance 1: the q with q = radius^2 E phi^2 / E phi'^2 + b. Where that is 0 or
            infinity (tanh, sin and GELU: 0), the gain of the limit.
        bias_variance: b.

    Returns:
        The factor; ``gain`` of :func:`lsc_ext.nn.initialize` takes it.

    Raises:
        ValueError: a number out of range, an unknown name, a function that changes the shape, or one without a slope
            at that variance, which no gain can bring to a radius.
    """
    check_radius("radius", radius)
    if radius == 0:
        raise ValueError("radius: expected more than 0, got 0")
    _check_variance("bias_variance", bias_variance)
    start = SCHEMES[_kind(scheme)]
    if variance is None:

        def excess(q: Tensor) -> Tensor:
            square, slope = _means(activation, q)
            return radius**2 * square + (bias_variance - q) * slope  # slope > 0 times what has to be zero

        variance = _root(excess)
    slope = mean_square_slope(activation, variance)
    if slope == 0:
        raise ValueError(f"activation: expected one with a slope, got none at variance {variance:g}")
    return radius / math.sqrt(slope * start)


def rectangular_radius(rows: int, columns: int, scheme: str = "glorot") -> float:
    """What stands for the radius of a linear rectangular layer: sqrt(v min(rows, columns)), v the variance of a weight.

    In the limit of many units; both of a random square sub-matrix and of |J|_F / sqrt(max(rows, columns)), which
    :func:`lsc_ext.radii` takes along "input" and "output". For Glorot it is sqrt(2 min(m, n) / (m + n)), 1 only where
    the layer is square.

    Args:
        rows: outputs, fan_out.
        columns: inputs, fan_in.
        scheme: "glorot", "he" or "orthogonal", with "_normal" or "_uniform" or without.

    Raises:
        ValueError: a size below 1, or an unknown scheme.
        TypeError: a size that is no int.
    """
    check_int("rows", rows, 1)
    check_int("columns", columns, 1)
    kind = _kind(scheme)
    variance = {"glorot": 2 / (rows + columns), "he": 2 / columns, "orthogonal": 1 / max(rows, columns)}[kind]
    return math.sqrt(variance * min(rows, columns))


def lyapunov_exponent(size: int, *, gain: float = 1.0) -> float:
    """How fast products of independent n x n normal matrices grow: log g + (log(2/n) + psi(n/2)) / 2 nats per factor.

    Entries have variance g^2 / n, so that every factor has a radius of about g. At g = 1 it is negative, about -1/(2n):
    a radius of 1 means neutral growth only for many units. Newman, Communications in Mathematical Physics 103, 1986.

    Args:
        size: n, at least 1.
        gain: g, above 0.

    Raises:
        ValueError: a number out of range.
        TypeError: ``size`` is no int.
    """
    check_int("size", size, 1)
    check_radius("gain", gain)
    if gain == 0:
        raise ValueError("gain: expected more than 0, got 0")
    psi = float(torch.tensor(size / 2, dtype=torch.float64).digamma())
    return math.log(gain) + (math.log(2 / size) + psi) / 2
