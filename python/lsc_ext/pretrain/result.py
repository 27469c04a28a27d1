"""What pre-training hands back: radii before and after, and a record of every step."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lsc_ext.files import write_json
from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.radii import RadiusReport


@dataclass(frozen=True)
class PretrainStep:
    """One row of the history: what was measured before the step's change.

    Attributes:
        step: from 0.
        loss: sum over directions of the mean over points of (radius - target)^2.
        deviation: largest distance of a layer's mean radius to its target.
        means: direction -> mean radius of each layer.
        certified: fraction of the measured points that converged.
        errors: direction -> standard error of each of these means, as one of all points that could have been drawn;
            NaN of points of a single sequence.

    Of a layer that a schedule left out, means and errors are those of the last step that had it.
    """

    step: int
    loss: float
    deviation: float
    means: dict[str, list[float]]
    certified: float
    errors: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class PretrainResult:
    """What came of it.

    Attributes:
        before: radii of held-out points before, with the weights that came in.
        after: radii of the same points after, with the weights that the model now has.
        history: one :class:`PretrainStep` per step.
        converged: whether the stop rule was met.
        targets: direction -> target radius.
        config: the configuration, complete.
    """

    before: RadiusReport
    after: RadiusReport
    history: list[PretrainStep]
    converged: bool
    targets: dict[str, float]
    config: PretrainConfig
    best_step: int = field(default=0)

    def deviation(self) -> float:
        """Largest distance of a layer's held-out mean radius to its target, after."""
        return max(
            (abs(row["mean"] - self.targets[row["direction"]]) for row in self.after.rows()), default=float("nan")
        )

    def to_dict(self) -> dict[str, Any]:
        """Numbers for JSON."""
        return {
            "targets": self.targets,
            "converged": self.converged,
            "best_step": self.best_step,
            "deviation": self.deviation(),
            "config": asdict(self.config),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "history": [asdict(step) for step in self.history],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes :meth:`to_dict` as JSON; the weights are the model's and are saved with it."""
        return write_json(path, self.to_dict())

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws radii before and after by layer, and the history, to a PNG file; needs matplotlib."""
        from lsc_ext.plot import plot_pretraining

        return plot_pretraining(self.to_dict(), path)

    def __str__(self) -> str:
        goal = ", ".join(f"{direction} {target:g}" for direction, target in self.targets.items())
        state = "converged" if self.converged else "stopped at the step limit"
        heading = f"pre-training to {goal}: {state} after {len(self.history)} steps"
        return f"{heading}\n\nbefore\n{self.before}\n\nafter\n{self.after}"
