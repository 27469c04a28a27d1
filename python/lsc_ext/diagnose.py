"""One report on a network and its data: the radii, the gradient that they let expect, the one that there is, what a
product of steps does, how sensitive its memory is, and what to do about it.

Letters: T time steps, B sequences, L layers.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.lyapunov import LyapunovReport, ProductReport, lyapunov, products
from lsc_ext.operator import eval_mode
from lsc_ext.plot import plot_diagnosis
from lsc_ext.radii import RadiusReport, radii
from lsc_ext.sequential import output_of
from lsc_ext.spectral import seed_from
from lsc_ext.submodule import Submodule
from lsc_ext.theory import log_gradient_profile
from lsc_ext.trajectory import sample_dim, trajectory_of

if TYPE_CHECKING:
    from lsc_ext.memory import MemoryReport

#: Of the steps, how many from the first on a growth is read from: near the end every profile falls, for few outputs
#: are left.
KEPT = 0.9
#: Decades over those steps from which on a gradient counts as exploding or vanishing.
DECADES = 2.0
#: How far the radii of a pair of directions may add up beside 1, and layers lie apart.
_SUM, _APART = 0.05, 0.1
#: Share of points that should be certified, and how far a product's rate may lie from what single steps say.
_CERTIFIED, _MISLED = 0.95, 0.1
_REACH = 1e-3
#: Sequences and probes of each that sensitivities are measured with: a verdict in decades needs no more.
_SEQUENCES, _PROBES = 4, 4


@dataclass(frozen=True)
class Finding:
    """Something that a report says.

    Attributes:
        kind: "explodes", "vanishes", "forgets", "expected to explode", "expected to vanish", "hypersensitive",
            "uneven", "uncertified", "misleading" or "sound".
        text: what it is, with its figures.
        advice: what to do, "" where there is nothing.
    """

    kind: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes:
        radii: of single steps.
        expected: log10 of the gradient of all top outputs with respect to the input at each step, [T] float64, were
            every Jacobian a number of the mean radius (:func:`lsc_ext.theory.gradient_profile`).
        gradient: norm of d (sum of all outputs) / d x_t, the mean over sequences, [T] float64; None for inputs that are
            no floating-point numbers.
        from_last: the same of the last output alone.
        exponents: of every layer with a state; None without.
        products: of ``steps`` steps; None without a state or for shorter sequences.
        memory: how sensitive the states are to which parameters; None without a state, or where it was not asked for.
        findings: what it comes to, the gravest first.
    """

    radii: RadiusReport
    expected: Tensor
    gradient: Tensor | None
    from_last: Tensor | None
    exponents: LyapunovReport | None
    products: ProductReport | None
    memory: MemoryReport | None
    findings: list[Finding]

    @property
    def horizon(self) -> int | None:
        """How many steps back the last output's gradient is still a thousandth of what it is at the last step."""
        return None if self.from_last is None else _horizon(self.from_last)

    def to_dict(self) -> dict[str, Any]:
        """Numbers for JSON."""
        return {
            "radii": self.radii.to_dict(),
            "expected_log10_gradient": self.expected.tolist(),
            "gradient": None if self.gradient is None else self.gradient.tolist(),
            "gradient_from_last": None if self.from_last is None else self.from_last.tolist(),
            "horizon": self.horizon,
            "lyapunov": None if self.exponents is None else self.exponents.rows(),
            "products": None if self.products is None else {"steps": self.products.steps, "rows": self.products.rows()},
            "memory": None if self.memory is None else self.memory.to_dict(),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws radii by layer and the gradients over time, PNG or SVG by the path's ending; needs matplotlib."""
        return plot_diagnosis(self.to_dict(), path)

    def __str__(self) -> str:
        parts = [str(self.radii)]
        if self.products is not None:
            parts.append(str(self.products))
        if self.exponents is not None:
            parts.append(f"Lyapunov exponents, nats per step\n{self.exponents}")
        if self.memory is not None:
            parts.append(f"memory in steps, and the parameter that moves the state most\n{self.memory.summary()}")
        lines = [f"{number}. {each.text}" for number, each in enumerate(self.findings, 1)]
        lines = [
            line + (f"\n   -> {each.advice}" if each.advice else "")
            for line, each in zip(lines, self.findings, strict=True)
        ]
        return "\n\n".join([*parts, "\n".join(lines)])


@ops.uncompiled
def diagnose(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    steps: int = 16,
    max_points: int = 256,
    tol: float = 1e-3,
    memory: bool = True,
    generator: torch.Generator | None = None,
) -> Diagnosis:
    """Will this network's gradients explode or vanish on this data, and what to do?

    Args:
        model: any that :func:`lsc_ext.radii` takes. Dropout is off.
        inputs: in the model's own layout, as :func:`lsc_ext.radii` takes them.
        initial_state: as the model takes it; None for zeros.
        steps: how many steps the products have whose gain and radius are measured.
        max_points: points measured for each layer and direction, drawn without replacement.
        tol: relative residual of a certified point.
        memory: whether to measure how sensitive the states are to the parameters, on 4 sequences with 4 probes each
            (:func:`lsc_ext.memory.measure` takes more).
        generator: draws one seed.

    Raises:
        ValueError: an option out of range, or inputs without a step.
        TypeError: the model is of another kind.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    seed = seed_from(generator)

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    with torch.no_grad():
        trajectory = trajectory_of(model, inputs, initial_state)
        if trajectory.time_steps < 1 or trajectory.batch < 1:
            raise ValueError(f"inputs: expected at least one step of one sequence, got shape {tuple(inputs.shape)}")
        directions = tuple(d for d in trajectory.pretrained if len(trajectory.layers_of(d)) > 0)
        directions = directions or ("input",)
        recurrent, time_steps = len(trajectory.layers_of("time")) > 0, trajectory.time_steps
        num_layers = trajectory.num_layers
        del trajectory
        report = radii(
            model, inputs, initial_state, directions=directions, max_points=max_points, tol=tol, generator=drawn()
        )
        exponents = lyapunov(model, inputs, initial_state, generator=drawn()) if recurrent else None
        along = None
        if recurrent and time_steps >= steps:
            few = max(1, max_points // 4)
            along = products(model, inputs, initial_state, steps=steps, max_points=few, tol=tol, generator=drawn())
    sensitive = None
    if memory and recurrent:
        from lsc_ext.memory import measure  # not with the package, which would take half as long again to import

        options: dict[str, Any] = {"num_probes": _PROBES, "max_sequences": _SEQUENCES, "radius_report": report}
        sensitive = measure(model, inputs, initial_state, generator=drawn(), **options)
    gradient, from_last = _gradients(model, inputs, initial_state, time_steps, recurrent)
    expected = _expected(report, num_layers, time_steps, recurrent)
    findings = _findings(report, expected, gradient, from_last, along, sensitive, num_layers, recurrent)
    return Diagnosis(report, expected, gradient, from_last, exponents, along, sensitive, findings)


def _gradients(
    model: Any, inputs: Tensor, initial_state: Any, time_steps: int, recurrent: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Norms [T] of the gradients of all outputs and of the last one with respect to the input at each step."""
    if not inputs.is_floating_point():
        return None, None
    whole = model.whole if isinstance(model, Submodule) else model
    batch = sample_dim(model)
    leaf = inputs.detach().clone().requires_grad_()
    state = () if initial_state is None else (initial_state,)
    # cuDNN has no backward pass in eval mode.
    with torch.enable_grad(), eval_mode(model, whole), ops.eagerly(), torch.backends.cudnn.flags(enabled=False):
        output = output_of(whole, leaf, *state)
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None, None
        time = 0 if inputs.dim() == 2 or batch == 1 else 1
        last = output.select(time, -1) if recurrent and output.dim() == inputs.dim() else output
        every = torch.autograd.grad(output.sum(), leaf, retain_graph=True)[0]
        end = torch.autograd.grad(last.sum(), leaf)[0]
    found = []
    for gradient in (every, end):
        if not recurrent:
            rows = gradient.double().flatten(1).norm(dim=1)
            found.append(rows.mean(0, keepdim=True))
            continue
        whole_batch = gradient.unsqueeze(1) if gradient.dim() == 2 else gradient.movedim(time, 0)
        found.append(whole_batch.double().flatten(2).norm(dim=2).mean(1))
    return found[0], found[1]


def _expected(report: RadiusReport, num_layers: int, time_steps: int, recurrent: bool) -> Tensor:
    means = {direction: float(report[direction].mean()) for direction in report}
    depth = means.get("depth", means.get("diagonal", 1.0))
    grid = "parallelogram" if "diagonal" in means and "depth" not in means else "rectangle"
    time = means.get("time", 0.0)
    if not all(math.isfinite(value) for value in (depth, time)):
        return torch.full((time_steps if recurrent else 1,), math.nan, dtype=torch.float64)
    if not recurrent:
        return torch.tensor([num_layers * math.log10(max(depth, 1e-300))], dtype=torch.float64)
    return log_gradient_profile(time, depth, num_layers, time_steps, grid=grid) / math.log(10)


def _horizon(from_last: Tensor) -> int:
    """The number of steps, from the last one back, whose gradient is at least a thousandth of the last one's."""
    reached = from_last >= _REACH * from_last[-1]
    return len(reached) if bool(reached.all()) else int(reached.flip(0).int().argmin())


def _decades(profile: Tensor) -> float:
    """How much larger, in decades, the first step's gradient is than that of the last step that counts."""
    if len(profile) < 2:
        return 0.0
    return float(profile[0] - profile[max(1, int(KEPT * len(profile))) - 1])


def _findings(
    report: RadiusReport,
    expected: Tensor,
    gradient: Tensor | None,
    from_last: Tensor | None,
    along: ProductReport | None,
    memory: MemoryReport | None,
    num_layers: int,
    recurrent: bool,
) -> list[Finding]:
    found: list[Finding] = []
    target = "0.5" if recurrent and num_layers > 1 else "1.0"
    repair = f"pre-train: lsc.pretrain(model, data, target={target})"
    if gradient is not None:
        found += _measured_growth(gradient, from_last, recurrent, repair, num_layers)
    found += _expected_growth(report, expected, recurrent, repair)
    if memory is not None:
        found += [Finding("hypersensitive", each.text, each.remedy) for each in memory.findings]
    for direction in report:
        rows = report.rows()
        means = [row["mean"] for row in rows if row["direction"] == direction and math.isfinite(row["mean"])]
        if means and max(means) - min(means) > _APART:
            found.append(
                Finding(
                    "uneven",
                    f"Layers differ along {direction}: mean radii from {min(means):.2f} to {max(means):.2f}.",
                    repair,
                )
            )
        certified = report[direction].certified_fraction
        if certified < _CERTIFIED:
            found.append(
                Finding(
                    "uncertified",
                    f"Only {certified:.0%} of the points along {direction} are certified.",
                    "see docs/howto/read-a-report.md for what a status says; a larger tol or num_matvecs may do",
                )
            )
    if along is not None:
        found += _misleading(along)
    if not any(each.kind not in ("expected to explode", "expected to vanish") for each in found):
        said = "the measured gradient neither explodes nor vanishes" if gradient is not None else "the radii are even"
        found.append(Finding("sound", f"Nothing stands out: {said}."))
    return found


def _measured_growth(
    gradient: Tensor, from_last: Tensor | None, recurrent: bool, repair: str, num_layers: int
) -> list[Finding]:
    if not bool(gradient.isfinite().all()):
        return [Finding("explodes", "The gradient with respect to the input is not finite.", repair)]
    if not recurrent:
        size = math.log10(max(float(gradient[0]), 1e-300))
        if abs(size) < DECADES:
            return []
        kind = "explodes" if size > 0 else "vanishes"
        return [Finding(kind, f"The gradient of the outputs' sum with respect to the input is 10^{size:.1f}.", repair)]
    found = []
    decades = _decades(gradient.clamp(min=1e-300).log10())
    if abs(decades) >= DECADES:
        kind, word = ("explodes", "larger") if decades > 0 else ("vanishes", "smaller")
        found.append(
            Finding(
                kind,
                f"The gradient of all outputs is 10^{abs(decades):.1f} times {word} at the first step than late in "
                "the sequence.",
                repair,
            )
        )
    if from_last is not None and float(from_last[0]) < _REACH * float(from_last[-1]):
        horizon = _horizon(from_last)
        keep = "target=1.0" if num_layers == 1 else 'target="unbalanced"'
        found.append(
            Finding(
                "forgets",
                f"The last output's gradient is below a thousandth beyond {horizon} steps back, of {len(from_last)}.",
                f"where longer memory is wanted, pre-train with {keep}, or take layers that keep it (lsc.nn.LRU)",
            )
        )
    return found


def _expected_growth(report: RadiusReport, expected: Tensor, recurrent: bool, repair: str) -> list[Finding]:
    means = {direction: float(report[direction].mean()) for direction in report}
    if not recurrent or len(means) < 2 or not bool(expected[:1].isfinite().all()):
        return []
    total = sum(means.values())
    listed = " + ".join(f"{mean:.2f} along {direction}" for direction, mean in means.items())
    decades = _decades(expected)
    if total > 1 + _SUM:
        text = f"Mean radii add to {total:.2f} ({listed}): by paths alone a gradient grows by 10^{decades:.1f}."
        return [Finding("expected to explode", text, repair)]
    if total < 1 - _SUM:
        text = f"Mean radii add to {total:.2f} ({listed}): paths carry less than what came in."
        return [Finding("expected to vanish", text, repair)]
    return []


def _misleading(along: ProductReport) -> list[Finding]:
    found = []
    for row in along.rows():
        if abs(row["gain"] - row["single"]) > _MISLED:
            found.append(
                Finding(
                    "misleading",
                    f"Layer {row['layer']}: single steps have radius {row['single']:.2f}, but products of "
                    f"{along.steps} steps a gain of {row['gain']:.2f} and a radius of {row['radius']:.2f} per step.",
                    "trust the product: radii do not multiply (docs/math/products-of-steps.md)",
                )
            )
    return found
