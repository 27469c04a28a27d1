"""How many paths a gradient has through the grid of time and depth, and what they add up to.

Letters: T steps back in time, D steps down in depth, C(n, k) the binomial coefficient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lsc_ext.nn.arguments import check_int
from lsc_ext.pretrain import resolve_target

GRIDS = ("rectangle", "parallelogram")


def check_grid(grid: str) -> None:
    """Raises ValueError for an unknown grid."""
    if grid not in GRIDS:
        raise ValueError(f"grid: expected one of {', '.join(GRIDS)}, got {grid!r}")


def check_radius(name: str, value: float) -> None:
    """Raises TypeError and ValueError for what is not a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")


def path_count(time_steps: int, layers: int, *, grid: str = "rectangle") -> int:
    """How many paths lead T steps back in time and D layers down; exact.

    Args:
        time_steps: T.
        layers: D.
        grid: "rectangle": layer l reads what layer l-1 handed up at the same step, so a path has T + D moves, each back
            or down: C(T + D, D). "parallelogram": it reads what layer l-1 handed up one step before, as the paper
            writes networks, so every move goes back and D of the T go down too: C(T, D), 0 where D > T.

    Raises:
        ValueError: a negative number, or an unknown grid.
        TypeError: a number that is no int.
    """
    check_int("time_steps", time_steps, 0)
    check_int("layers", layers, 0)
    check_grid(grid)
    return math.comb(time_steps + layers if grid == "rectangle" else time_steps, layers)


def log_path_count(time_steps: int | Tensor, layers: int | Tensor, *, grid: str = "rectangle") -> Tensor:
    """The natural logarithm of :func:`path_count`, float64, for whole arrays and for counts beyond any float.

    Args:
        time_steps: T, a number or a tensor of whole numbers that broadcasts with ``layers``.
        layers: D, likewise.
        grid: as :func:`path_count` has it; minus infinity where there is no path.

    Returns:
        Of the broadcast shape; absolute error about 1e-16 times the largest of T log T and D log D.

    Raises:
        ValueError: a negative number, or an unknown grid.
    """
    check_grid(grid)
    steps, depth = _whole("time_steps", time_steps), _whole("layers", layers)
    beside = steps if grid == "rectangle" else steps - depth
    count = (beside.clamp(min=0) + depth + 1).lgamma() - (depth + 1).lgamma() - (beside.clamp(min=0) + 1).lgamma()
    return torch.where(beside >= 0, count, -math.inf)


def _whole(name: str, value: int | Tensor) -> Tensor:
    numbers = torch.as_tensor(value, dtype=torch.float64)
    if not bool(((numbers >= 0) & (numbers == numbers.floor()) & numbers.isfinite()).all()):
        raise ValueError(f"{name}: expected whole numbers of at least 0, got {value}")
    return numbers


def path_contribution(
    time_steps: int | Tensor, layers: int | Tensor, rho_time: float, rho_depth: float, *, grid: str = "rectangle"
) -> Tensor:
    """What all paths together carry: their number times ``rho_time`` for each move in time and ``rho_depth`` for each
    move in depth.

    Where the two add to one on the rectangle it is a binomial probability, so at most 1 for any T and D: the reason for
    the target 1/2, and for every unbalanced pair.

    Args:
        time_steps: T, a number or a tensor.
        layers: D, likewise.
        rho_time: radius along time, at least 0.
        rho_depth: radius along depth, at least 0.
        grid: as :func:`path_count` has it. On the parallelogram a move down counts once, as ``rho_depth``.

    Returns:
        float64 of the broadcast shape, infinite beyond the range of floats.

    Raises:
        ValueError: a number out of range, or an unknown grid.
        TypeError: a radius that is no number.
    """
    check_radius("rho_time", rho_time)
    check_radius("rho_depth", rho_depth)
    count = log_path_count(time_steps, layers, grid=grid)
    steps, depth = _whole("time_steps", time_steps), _whole("layers", layers)
    moves = steps if grid == "rectangle" else (steps - depth).clamp(min=0)
    radii = torch.tensor([rho_time, rho_depth], dtype=torch.float64)
    return (count + torch.xlogy(moves, radii[0]) + torch.xlogy(depth, radii[1])).exp()


def hockey_stick(time_steps: int, layers: int, *, folds: int = 1) -> int:
    """Path counts summed over spans of time; exact.

    sum over s = 0 .. T of C(s + D, D) = C(T + D + 1, D + 1), the hockey-stick identity. Each fold sums once more, so
    two give the sum over all pairs t' <= t <= T of C(t - t' + D, D) = C(T + D + 2, D + 2).

    Args:
        time_steps: T.
        layers: D.
        folds: how often to sum; 0 gives the path count itself.

    Raises:
        ValueError: a negative number.
        TypeError: a number that is no int.
    """
    check_int("folds", folds, 0)
    return path_count(time_steps, layers + folds)


def gradient_bound(time_steps: int, layers: int) -> float:
    """The growth that radii of 1 allow: C(T + D + 2, T) / T.

    All path counts between any two steps, averaged over the T steps that have an output. The paper bounds the change of
    parameters at radii of 1 by a constant times a quantity of this form (older versions of its figure on path counts
    name this one, later ones C(T + D, T)); the constant is not known to us, so only ratios of it mean anything.

    Args:
        time_steps: T, at least 1.
        layers: D, moves in depth.

    Returns:
        Infinity beyond the range of floats.

    Raises:
        ValueError: a number out of range.
        TypeError: a number that is no int.
    """
    check_int("time_steps", time_steps, 1)
    total = hockey_stick(time_steps, layers, folds=2)
    try:
        return total / time_steps
    except OverflowError:
        return math.inf


def unbalanced_target(num_layers: int, num_steps: int) -> dict[str, float]:
    """T / (L + T) in time and L / (L + T) in depth: what ``target="unbalanced"`` of :func:`lsc_ext.pretrain` means.

    Of all pairs that add to one, it lets most through from corner to corner of the grid
    (docs/math/local-stability-condition.md).

    Args:
        num_layers: L.
        num_steps: T.

    Returns:
        ``{"time": ..., "depth": ...}``, which ``target`` of :func:`lsc_ext.pretrain` takes too.

    Raises:
        ValueError: a number below 1.
        TypeError: a number that is no int.
    """
    check_int("num_layers", num_layers, 1)
    check_int("num_steps", num_steps, 1)
    return resolve_target("unbalanced", ("time", "depth"), num_layers, num_steps)
