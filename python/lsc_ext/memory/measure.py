"""The curse of memory in a network of one's own: how far its states move with its parameters, on its own data.

Zucchet and Orvieto, "Recurrent neural networks: vanishing and exploding gradients are not the end of the story", arXiv
2405.21064, show in linear units that sensitivities grow with memory though no gradient explodes. Here the same moments
are measured layer by layer, beside the mean squares of gradients that they make of a loss.

Letters: h a layer's state, theta parameters, T steps, B sequences.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from lsc_ext import ops
from lsc_ext.memory.durations import (
    ClosedForm,
    Durations,
    Reference,
    diagonal_closed_form,
    durations_of,
    gated_closed_form,
    reference_of,
)
from lsc_ext.memory.gradients import Loss, gradient_moments
from lsc_ext.memory.groups import Group, groups_of, paths_in
from lsc_ext.memory.report import GroupMeasure, LayerMemory, MemoryReport
from lsc_ext.memory.sensitivity import DiagonalPass, Squares, diagonal_squares, probed_squares, run_diagonal
from lsc_ext.memory.verdict import verdict
from lsc_ext.nn.arguments import check_int
from lsc_ext.operator import eval_mode
from lsc_ext.radii import RadiusReport, radii
from lsc_ext.rerun import LayerRun
from lsc_ext.submodule import Submodule
from lsc_ext.trajectory import Trajectory, trajectory_of


@ops.uncompiled
def measure(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    loss: Loss | None = None,
    num_probes: int = 16,
    num_steps: int = 1,
    max_sequences: int | None = 16,
    max_points: int = 64,
    radius_report: RadiusReport | None = None,
    generator: Generator | None = None,
) -> MemoryReport:
    """How sensitive is the memory of this network, on this data, to which of its parameters?

    For every layer with a state and every group of its parameters: E |d h_T / d theta|^2, the squared Frobenius norm,
    of the layer given what it is fed. The state h is that of :func:`lsc_ext.radii` along "time", all of its variables.

    Args:
        model: any that :func:`lsc_ext.radii` takes. Dropout is off; what requires no gradient is left out.
        inputs: in the model's own layout, as :func:`lsc_ext.radii` takes them.
        initial_state: as the model takes it; None for zeros. It counts as data.
        loss: maps the model's output (the first of several) to one number, whose gradients are measured; None for half
            the mean square of its difference to a random target of variance 1.
        num_probes: random products for each sequence and step. Diagonal recurrences, linear or not, and states of no
            more numbers than this are exact.
        num_steps: over how many last steps the mean is taken.
        max_sequences: over how many sequences, drawn without replacement, all but radii and gradients are means; None
            for all.
        max_points: for how many points a radius is found where neither eigenvalues nor gates say how long a layer
            remembers.
        radius_report: what :func:`lsc_ext.radii` has found already along "time", to be used for that.
        generator: draws one seed; None for a fixed one. torch's own generator stays as it is.

    Returns:
        A :class:`MemoryReport`. Standard errors are those of means over sequences.

    Raises:
        ValueError: an option out of range, inputs without a step or that are not finite, no layer with a state, or a
            loss that is not one number.
        TypeError: the model is of another kind, or the loss no function.
    """
    for name, value in (("num_probes", num_probes), ("num_steps", num_steps), ("max_points", max_points)):
        check_int(name, value, 1)
    if max_sequences is not None:
        check_int("max_sequences", max_sequences, 1)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function of the output, got {type(loss).__qualname__}")
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        raise ValueError("inputs: expected finite numbers, got NaN or infinity")
    draw = Generator().manual_seed(_seed(generator))
    whole = model.whole if isinstance(model, Submodule) else model
    # cuDNN has no backward pass in eval mode, and torch none of what was made in inference mode.
    unrecorded = torch.inference_mode(False), torch.backends.cudnn.flags(enabled=False)
    with unrecorded[0], unrecorded[1], eval_mode(model, whole), ops.eagerly():
        inputs, initial_state = _recordable(inputs), _recordable(initial_state)
        with torch.no_grad():
            trajectory = trajectory_of(model, inputs, initial_state)
            if trajectory.time_steps < 1 or trajectory.batch < 1:
                raise ValueError(f"inputs: expected at least one step of one sequence, got shape {tuple(inputs.shape)}")
            if num_steps > trajectory.time_steps:
                raise ValueError(f"num_steps: expected at most {trajectory.time_steps}, got {num_steps}")
            index = _some(trajectory, max_sequences, draw)
            found = [(k, trajectory.rerun(k)) for k in range(trajectory.num_layers)]
            runs = [(k, run.select(index)) for k, run in found if run is not None]
            if not runs:
                raise ValueError(f"model: expected a layer with a state, got a {type(whole).__qualname__} without")
            by_layer = _radii_by_layer(model, inputs, initial_state, runs, max_points, radius_report, draw)
        paths = paths_in(model.target if isinstance(model, Submodule) else whole)
        groups = [groups_of(trajectory.weights_of(k), paths) for k, _ in runs]
        gradients = gradient_moments(whole, inputs, initial_state, loss, groups, draw)
        layers, memories = [], []
        for (k, run), own in zip(runs, groups, strict=True):
            layer, memory = _layer(k, run, own, by_layer.get(k), gradients, num_probes, num_steps, draw)
            layers.append(layer)
            memories.append(memory)
    findings = verdict(layers, [run for _, run in runs], groups, memories)
    return MemoryReport(layers, findings, len(index), num_steps)


def _recordable(value: Any) -> Any:
    """Tensors that autograd can record."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    return type(value)(map(_recordable, value)) if isinstance(value, tuple | list) else value


def _seed(generator: Generator | None) -> int:
    if generator is None:
        return 0
    return int(torch.randint(2**63 - 1, (1,), generator=generator, dtype=torch.int64))


def _some(trajectory: Trajectory, count: int | None, generator: Generator) -> Tensor:
    if count is None or count >= trajectory.batch:
        return torch.arange(trajectory.batch)
    return torch.randperm(trajectory.batch, generator=generator)[:count].sort().values


def _radii_by_layer(
    model: Any,
    inputs: Tensor,
    initial_state: Any,
    runs: Sequence[tuple[int, LayerRun]],
    max_points: int,
    report: RadiusReport | None,
    generator: Generator,
) -> dict[int, Tensor]:
    """Radii along time of every layer, where one needs them."""
    if all(run.diagonal or run.carry or run.moduli is not None for _, run in runs):
        return {}
    if report is None or "time" not in report:
        options: dict[str, Any] = {"directions": ("time",), "max_points": max_points, "generator": generator}
        report = radii(model, inputs, initial_state, **options)
    rows = zip(report.layers["time"], report["time"].radius, strict=True)
    return {layer: radius.detach().flatten() for layer, radius in rows}


def _layer(
    layer: int,
    run: LayerRun,
    groups: Sequence[Group],
    radius: Tensor | None,
    gradients: dict[str, float],
    num_probes: int,
    num_steps: int,
    generator: Generator,
) -> tuple[LayerMemory, Durations | None]:
    passed = None
    squares: dict[str, Squares] = {}
    if run.diagonal is not None:
        passed = run_diagonal(run.diagonal, num_steps)
        squares = diagonal_squares(run.diagonal, passed, groups, num_probes, generator)
    settled = set(squares)
    rest = [group for group in groups if group.name not in squares]
    if rest and (passed is None or _reaches(run, rest)):
        squares |= probed_squares(run, rest, num_probes, num_steps, generator)
    with torch.no_grad():
        states = None if passed is not None else run.states(torch.arange(run.sequences))
        gate = None if run.carry is None else run.carry()
    last = passed.states if passed is not None else states[-num_steps:]  # type: ignore[index]
    power = float(last.abs().double().square().sum(-1).mean()) / run.units
    memory = durations_of(run, gate, radius)
    closed, measured = _theory(run, passed, states, gate, squares, groups, num_steps)
    reference = None if memory is None else reference_of(run, memory, power)
    nan = float("nan")
    return LayerMemory(
        layer,
        run.kind,
        power,
        nan if memory is None else memory.median,
        nan if memory is None else memory.largest,
        "" if memory is None else memory.source,
        closed,
        measured,
        _measures(groups, squares, settled, reference, gradients),
    ), memory


def _reaches(run: LayerRun, groups: Sequence[Group]) -> bool:
    """Whether the states depend on any of these."""
    with torch.enable_grad():
        total = run.states(torch.tensor([0])).sum()
    if not total.requires_grad:
        return False
    found = torch.autograd.grad(total, [group.tensor for group in groups], allow_unused=True)
    return any(gradient is not None for gradient in found)


def _theory(
    run: LayerRun,
    passed: DiagonalPass | None,
    states: Tensor | None,
    gate: Tensor | None,
    squares: dict[str, Squares],
    groups: Sequence[Group],
    num_steps: int,
) -> tuple[ClosedForm | None, float | None]:
    """What the closed form says, where there is one, and the sensitivity that was measured in its place."""
    if run.diagonal is not None and passed is not None:
        steps = torch.arange(len(run.fed) - num_steps, len(run.fed)) + 1
        measured = float(passed.sensitivities.abs().double().square().mean())
        return diagonal_closed_form(run.diagonal, steps), measured
    update = next((g for g in groups if g.weight.name.startswith("bias_ih") and g.name.endswith("[z]")), None)
    if gate is None or states is None or run.kind not in ("gru", "min_gru"):
        return None, None
    if not bool(states.isfinite().all()):
        return None, None
    closed = gated_closed_form(gate, states)
    bias = None if update is None else squares.get(update.name)
    return closed, None if bias is None else bias.mean / run.units


def _measures(
    groups: Sequence[Group],
    squares: dict[str, Squares],
    settled: set[str],
    reference: Reference | None,
    gradients: dict[str, float],
) -> list[GroupMeasure]:
    each = {group.name: squares[group.name].mean / max(1, group.count) for group in groups if group.name in squares}
    found = []
    for group in groups:
        own = squares.get(group.name)
        others = [value for name, value in each.items() if name != group.name]
        middle = statistics.median(others) if others and all(map(math.isfinite, others)) else 0.0
        found.append(
            GroupMeasure(
                group.name,
                group.role,
                group.count,
                None if own is None else own.mean,
                float("nan") if own is None else own.stderr,
                own is not None and own.exact,
                None if reference is None else reference.of(group.role, group.name in settled),
                each[group.name] / middle if own is not None and middle > 0 else None,
                gradients.get(group.name),
            )
        )
    return found
