"""The gradient of a network whose every step Jacobian is one number, in closed form and as a network.

Letters: T steps of time, L layers, B sequences, G(t) the gradient at step t, d steps between an input and an output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lsc_ext.nn.arguments import check_int
from lsc_ext.theory.paths import check_grid, check_radius


def log_gradient_profile(
    rho_time: float, rho_depth: float, num_layers: int, num_steps: int, *, grid: str = "rectangle"
) -> Tensor:
    """The natural logarithm of :func:`gradient_profile`, which it is computed from.

    Args:
        rho_time: a, radius along time, at least 0.
        rho_depth: b, radius along depth, at least 0.
        num_layers: L.
        num_steps: T.
        grid: as :func:`gradient_profile` has it.

    Returns:
        [T] float64, minus infinity where nothing arrives. The absolute error is about 1e-15 times the largest of 1,
        T |log a| and L |log b|, at any L and T.

    Raises:
        ValueError: a number out of range, or an unknown grid.
        TypeError: a size that is no int, or a radius that is no number.
    """
    check_radius("rho_time", rho_time)
    check_radius("rho_depth", rho_depth)
    check_int("num_layers", num_layers, 1)
    check_int("num_steps", num_steps, 1)
    check_grid(grid)
    span = torch.arange(num_steps, dtype=torch.float64)
    # log C(d + L - 1, L - 1) as a sum of logarithms near zero: differences of log-gammas would lose five digits.
    count = torch.zeros_like(span)
    for k in range(1, num_layers):
        count += (span / k).log1p()
    radii = torch.tensor([rho_time, rho_depth], dtype=torch.float64)
    carried = count + torch.xlogy(span, radii[0]) + torch.xlogy(torch.tensor(float(num_layers)), radii[1])
    profile = carried.logcumsumexp(0).flip(0)  # at step t, spans of 0 .. T-1-t
    if grid == "rectangle":
        return profile
    late = min(num_layers - 1, num_steps)  # each of the L-1 moves between layers took a step
    return torch.cat((profile[late:], profile.new_full((late,), -math.inf)))


def gradient_profile(
    rho_time: float, rho_depth: float, num_layers: int, num_steps: int, *, grid: str = "rectangle"
) -> Tensor:
    """The gradient of the sum of all top outputs with respect to the input at each step, all Jacobians being numbers.

    G(t) = sum over d = 0 .. T-1-t of C(d + L - 1, L - 1) b^L a^d, a along time and b along depth, the input counting as
    depth: what :class:`PascalRNN` has. With a = b = 1 it is C(T - t - 1 + L, L); with a + b = 1 the probability that L
    successes of chance b take at most T - 1 - t failures, so at most 1.

    Args:
        rho_time: a, at least 0.
        rho_depth: b, at least 0.
        num_layers: L.
        num_steps: T.
        grid: "rectangle": a layer reads the one below at the same step; "parallelogram": at the step before, which
            moves the profile by L - 1 steps.

    Returns:
        G(t) for t = 0 .. T-1, [T] float64; infinity beyond the range of floats, see :func:`log_gradient_profile`.

    Raises:
        ValueError: a number out of range, or an unknown grid.
        TypeError: a size that is no int, or a radius that is no number.
    """
    return log_gradient_profile(rho_time, rho_depth, num_layers, num_steps, grid=grid).exp()


def gradient_limit(rho_time: float, rho_depth: float, num_layers: int) -> float:
    """What :func:`gradient_profile` tends to far from the end of a long sequence: (b / (1 - a))^L.

    1 for any number of layers if and only if a + b = 1.

    Args:
        rho_time: a, at least 0.
        rho_depth: b, at least 0.
        num_layers: L.

    Returns:
        Infinity for a >= 1, where there is no limit, unless b = 0.

    Raises:
        ValueError: a number out of range.
        TypeError: a size that is no int, or a radius that is no number.
    """
    check_radius("rho_time", rho_time)
    check_radius("rho_depth", rho_depth)
    check_int("num_layers", num_layers, 1)
    if rho_depth == 0:
        return 0.0
    if rho_time >= 1:
        return math.inf
    try:
        return float((rho_depth / (1 - rho_time)) ** num_layers)
    except OverflowError:
        return math.inf


class PascalRNN(nn.Module):
    """A stack of one linear unit per layer, s[t,l] = rho_depth s[t,l-1] + rho_time s[t-1,l], that hands up its state.

    Its gradients count paths, as Pascal's triangle does. There is nothing to learn, so there are no parameters.

    Args:
        num_layers: L.
        rho_time: the radius along time of every layer, at least 0.
        rho_depth: the radius along depth, and of the input, at least 0.

    Raises:
        ValueError: a number out of range.
        TypeError: a size that is no int, or a radius that is no number.
    """

    def __init__(self, num_layers: int, rho_time: float, rho_depth: float) -> None:
        super().__init__()
        check_int("num_layers", num_layers, 1)
        check_radius("rho_time", rho_time)
        check_radius("rho_depth", rho_depth)
        self.num_layers, self.rho_time, self.rho_depth = num_layers, rho_time, rho_depth

    def extra_repr(self) -> str:
        """Layers and radii."""
        return f"{self.num_layers}, rho_time={self.rho_time:g}, rho_depth={self.rho_depth:g}"

    def forward(self, input: Tensor) -> Tensor:
        """Runs it from zero: input [T, B] -> the states of the top layer [T, B].

        Raises:
            ValueError: ``input`` has another number of dimensions.
        """
        if input.dim() != 2:
            raise ValueError(f"input: expected shape (T, B), got {tuple(input.shape)}")
        states = [torch.zeros_like(input[0]) for _ in range(self.num_layers)] if len(input) else []
        top = []
        for x in input:
            for layer, state in enumerate(states):
                x = states[layer] = self.rho_depth * x + self.rho_time * state
            top.append(x)
        return torch.stack(top) if top else input.clone()

    def gradient_profile(self, input: Tensor) -> Tensor:
        """By autograd, d (sum of all outputs) / d input, [T, B], for input [T, B]: the same whatever the input is."""
        with torch.enable_grad():
            leaf = input.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self(leaf).sum(), leaf)
        return gradient
