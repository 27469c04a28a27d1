"""What :func:`lsc_ext.memory.measure` found, in numbers and in words.

Letters: h a layer's state, theta parameters.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsc_ext.memory.durations import ClosedForm

#: Excess from which on a group is hypersensitive. A state that moves 100 times as much in mean square moves 10 times as
#: far: a learning rate that suits other parameters is then off by a decade, and no single one suits both.
HYPERSENSITIVE = 100.0


@dataclass(frozen=True)
class GroupMeasure:
    """One group of a layer's parameters.

    Attributes:
        name: that of the parameter, and [gate] where it is one gate's part.
        role: what it does, one of ``lsc_ext.weights.ROLES``.
        count: how many real numbers it has.
        sensitivity: E |d h / d theta|^2, squared Frobenius norm; None where the state does not depend on it.
        stderr: of it, NaN for a single sequence measured exactly.
        exact: whether no probe was drawn at random for it.
        reference: of one number of such a unit under normalisation and reparametrisation; None for not known.
        against_others: ``per_parameter`` by the median of the layer's other groups; None without others.
        gradient: mean square of the entries of the loss's gradient; None where the loss does not depend on it.
    """

    name: str
    role: str
    count: int
    sensitivity: float | None
    stderr: float
    exact: bool
    reference: float | None
    against_others: float | None
    gradient: float | None

    @property
    def per_parameter(self) -> float | None:
        """E |d h|^2 for each of its numbers, the mean."""
        return None if self.sensitivity is None else self.sensitivity / max(1, self.count)

    @property
    def excess(self) -> float | None:
        """``per_parameter`` by the reference; infinite where the state's derivative is no finite number."""
        if self.per_parameter is None:
            return None
        if not math.isfinite(self.per_parameter):
            return math.inf
        if self.reference is None:
            return None
        if self.reference > 0:
            return self.per_parameter / self.reference
        return math.inf if self.per_parameter > 0 else 0.0


@dataclass(frozen=True)
class LayerMemory:
    """One layer with a state.

    Attributes:
        layer: which, as :func:`lsc_ext.radii` counts.
        kind: the cell's name, "diagonal", "linear" or "step".
        state: E |h|^2 for each number of the state, a complex one counting as one.
        median: of its memories in steps; NaN where none is known.
        largest: of them.
        source: of the memories: "eigenvalues", "gates", "radii", or "" for none.
        closed_form: what the theory predicts of ``state`` and of the sensitivity below; None without a theory.
        measured: E |d h / d lambda|^2, or that to the bias of the gate, as the closed form has it.
        groups: its parameters.
    """

    layer: int
    kind: str
    state: float
    median: float
    largest: float
    source: str
    closed_form: ClosedForm | None
    measured: float | None
    groups: list[GroupMeasure]

    @property
    def span(self) -> str:
        """Its memories from the median to the largest, in words."""
        ends = dict.fromkeys(_short(value) for value in (self.median, self.largest))
        return " to ".join(ends)

    @property
    def state_ratio(self) -> float | None:
        """``state`` by its closed form."""
        return None if self.closed_form is None else _ratio(self.state, self.closed_form.state)

    @property
    def sensitivity_ratio(self) -> float | None:
        """``measured`` by its closed form."""
        if self.closed_form is None or self.measured is None:
            return None
        return _ratio(self.measured, self.closed_form.sensitivity)


@dataclass(frozen=True)
class Hypersensitivity:
    """Groups of parameters that a state answers to far more than it need.

    Attributes:
        layers: where.
        groups: their names, the gravest first.
        excess: of the gravest one, by what its memory would have under normalisation and reparametrisation.
        against_others: of the gravest one, by its layer's other groups.
        text: that in words.
        remedy: what mends it.
    """

    layers: list[int]
    groups: list[str]
    excess: float
    against_others: float | None
    text: str
    remedy: str


@dataclass(frozen=True)
class MemoryReport:
    """What :func:`lsc_ext.memory.measure` found.

    Attributes:
        layers: those with a state.
        findings: what is hypersensitive, the gravest first.
        sequences: how many sequences sensitivities are means of.
        steps: over how many last steps.
    """

    layers: list[LayerMemory]
    findings: list[Hypersensitivity]
    sequences: int
    steps: int

    def rows(self) -> list[dict[str, Any]]:
        """One row for each layer and group."""
        return [
            {
                "layer": layer.layer,
                "kind": layer.kind,
                **asdict(group),
                "per_parameter": group.per_parameter,
                "excess": group.excess,
            }
            for layer in self.layers
            for group in layer.groups
        ]

    def to_dict(self) -> dict[str, Any]:
        """Numbers for JSON; those that are not finite are None."""
        layers = []
        for layer in self.layers:
            own = {key: value for key, value in asdict(layer).items() if key != "groups"}
            layers.append({**own, "state_ratio": layer.state_ratio, "sensitivity_ratio": layer.sensitivity_ratio})
        content = {
            "sequences": self.sequences,
            "steps": self.steps,
            "threshold": HYPERSENSITIVE,
            "layers": layers,
            "rows": self.rows(),
            "findings": [asdict(finding) for finding in self.findings],
        }
        return dict(_finite(content))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws sensitivities and gradients over memory, PNG or SVG by the path's ending; needs matplotlib."""
        from lsc_ext.plot import plot_memory

        return plot_memory(self.to_dict(), path)

    def table(self) -> str:
        """The numbers."""
        width = max([len(group.name) for layer in self.layers for group in layer.groups] + [9])
        lines = [
            f"{'layer':>5}  {'parameter':<{width}}{'memory':>16}{'E|h|^2':>10}{'E|dh|^2':>10}{'each':>10}"
            f"{'excess':>10}{'gradient':>10}"
        ]
        for layer in self.layers:
            for group in layer.groups:
                numbers = (layer.state, group.sensitivity, group.per_parameter, group.excess, group.gradient)
                lines.append(
                    f"{layer.layer:>5}  {group.name:<{width}}{layer.span:>16}"
                    + "".join(f"{_short(n):>10}" for n in numbers)
                )
        return "\n".join(lines)

    def summary(self) -> str:
        """A line for each layer: its memories, and the group of the largest excess."""
        lines = [f"{'layer':>5}{'memory':>16}{'E|h|^2':>10}{'excess':>10}  of"]
        for layer in self.layers:
            worst = max(layer.groups, key=lambda group: group.excess or 0.0, default=None)
            excess, name = (None, "-") if worst is None else (worst.excess, worst.name)
            lines.append(f"{layer.layer:>5}{layer.span:>16}{_short(layer.state):>10}{_short(excess):>10}  {name}")
        return "\n".join(lines)

    def ratios(self) -> str:
        """How near the closed forms come, a line for each layer that has one; may be empty."""
        return "\n".join(
            f"layer {layer.layer}: measured by closed form: state {_short(layer.state_ratio)}, sensitivity "
            f"{_short(layer.sensitivity_ratio)}"
            for layer in self.layers
            if layer.closed_form is not None
        )

    def __str__(self) -> str:
        words = "\n".join(f"{each.text}\n   -> {each.remedy}" for each in self.findings)
        parts = (self.table(), self.ratios(), words or "Nothing stands out: no parameter group is hypersensitive.")
        return "\n\n".join(part for part in parts if part)


def _ratio(measured: float, expected: float) -> float | None:
    return measured / expected if expected > 0 else None


def _short(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
