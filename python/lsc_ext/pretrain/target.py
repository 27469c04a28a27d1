"""The radius that each direction is brought to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def resolve_target(
    target: float | str | Mapping[str, float] | None, directions: Sequence[str], num_layers: int, time_steps: int
) -> dict[str, float]:
    """The target radius of each direction.

    Args:
        target: a number for all; "unbalanced" for T / (L + T) in time and L / (L + T) elsewhere, which add to one; a
            number for each direction; None for 1 with one layer or without recurrence and 0.5 with several.
        directions: which directions.
        num_layers: L.
        time_steps: T.

    Raises:
        ValueError: a target that is not positive, or one that is missing or not asked for.
    """
    if target is None:
        target = 1.0 if num_layers == 1 or "time" not in directions else 0.5
    if isinstance(target, str):
        if target != "unbalanced":
            raise ValueError(f"target: expected a number, 'unbalanced' or a mapping, got {target!r}")
        total = num_layers + time_steps
        target = {d: (time_steps if d == "time" else num_layers) / total for d in directions}
    elif isinstance(target, Mapping):
        if set(target) != set(directions):
            raise ValueError(f"target: expected exactly the directions {tuple(directions)}, got {tuple(target)}")
    else:
        target = dict.fromkeys(directions, target)
    for direction, value in target.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise ValueError(f"target[{direction!r}]: expected a positive number, got {value!r}")
    return {direction: float(target[direction]) for direction in directions}
