"""The radius that each direction is brought to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def resolve_target(
    target: float | str | Mapping[str, float] | None, directions: Sequence[str], num_layers: int, time_steps: int
) -> dict[str, float]:
    """The target radius of each direction.

    Args:
        target: a number for all but "output"; "unbalanced" for T / (L + T) in time and L / (L + T) along depth or
            diagonal, which add to one; a number for each direction; None for 1 with one layer or without recurrence and
            0.5 with several. Of "output", and of "input" where no number is given, the target is 1 unless a mapping
            says otherwise: a gradient passes them once, however many paths there are between.
        directions: which directions.
        num_layers: L.
        time_steps: T.

    Raises:
        ValueError: a target that is not positive, or one that is missing or not asked for.
    """
    given = isinstance(target, Mapping)
    if target is None:
        within = 1.0 if num_layers == 1 or "time" not in directions else 0.5
        target = {d: 1.0 if d == "input" else within for d in directions}
    if isinstance(target, str):
        if target != "unbalanced":
            raise ValueError(f"target: expected a number, 'unbalanced' or a mapping, got {target!r}")
        total = num_layers + time_steps
        shares = {"time": time_steps / total, "input": 1.0}
        target = {d: shares.get(d, num_layers / total) for d in directions}
    elif isinstance(target, Mapping):
        if set(target) != set(directions):
            raise ValueError(f"target: expected exactly the directions {tuple(directions)}, got {tuple(target)}")
    else:
        target = dict.fromkeys(directions, target)
    if "output" in directions and not given:
        target = {**target, "output": 1.0}
    for direction, value in target.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise ValueError(f"target[{direction!r}]: expected a positive number, got {value!r}")
    return {direction: float(target[direction]) for direction in directions}
