"""The whole of a pre-training: what comes in is checked, measured, moved, and measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.operator import eval_mode
from lsc_ext.pretrain.config import PretrainConfig, settings_of
from lsc_ext.pretrain.progress import ProgressBar
from lsc_ext.pretrain.result import PretrainResult, PretrainStep
from lsc_ext.pretrain.split import Sequences
from lsc_ext.pretrain.target import resolve_target
from lsc_ext.radii import RadiusReport, radii
from lsc_ext.trajectory import Readout, Trajectory, trajectory_of


def pretrain(
    model: nn.Module,
    data: Tensor | Iterable[Any] | None,
    target: float | str | Mapping[str, float] | None = None,
    *,
    config: PretrainConfig | None = None,
    preset: str | None = None,
    readout: Readout | None = None,
    progress: bool | None = None,
    callback: Callable[[PretrainStep], None] | None = None,
    **options: Any,
) -> PretrainResult:
    """Brings the mean spectral radius of every layer to ``target`` by changing the model's weights in place.

    Args:
        model: any that :func:`lsc_ext.radii` takes.
        data: sequences (samples, for a feed-forward model) in the model's own layout; a DataLoader or any iterable of
            them (or of tuples that begin with them); None for standard normal ones, drawn afresh at every step. Moved
            to the device of the weights.
        target: 1.0, 0.5, "unbalanced", ``{"time": a, "depth": b}``, or None for 1 with one layer or without recurrence,
            0.5 with several; of "input" and "output" as :func:`lsc_ext.pretrain.resolve_target` has it.
        config: how; ``options`` are its fields by name and override it.
        preset: in place of ``config``, a schedule of the paper: "paper_rnn", "paper_lru" or "paper_ffn", the
            constructors of :class:`PretrainConfig`.
        readout: maps what the last layer hands up, [N, H], to [N, O]; adds the direction "output". A module is changed
            in place and restored with the model.
        progress: show a progress bar; None for only where standard error is a terminal.
        callback: called with each step's record.
        **options: fields of :class:`PretrainConfig`.

    Returns:
        A :class:`PretrainResult`. ``before`` and ``after`` are measured on points that the optimiser did not use: a
        fifth of the sequences by seed, at least one; of a single sequence its last fifth; without data, fresh draws.

    Raises:
        ValueError: an option out of range, no data, or numbers that are not finite in data or weights.
        TypeError: the model is of another kind, or an option is unknown.
        FloatingPointError: no measured radius is finite.
        KeyboardInterrupt: after the best weights so far were put back.

    On every error the model holds the best weights so far, or the ones it came with.
    """
    # Not with the package, whose import should cost little.
    from lsc_ext.pretrain.loop import Loop
    from lsc_ext.pretrain.moves.check import check_moves

    settings = settings_of(config, preset, options)
    for argument, module in (("model", model), ("readout", readout)):
        for name, parameter in module.named_parameters() if isinstance(module, nn.Module) else ():
            if not bool(parameter.isfinite().all()):
                raise ValueError(f"{argument}: expected finite weights, got NaN or infinity in {name}")
    source = Sequences(model, data, settings)
    trajectory = trajectory_of(model, source.held_out.narrow(source.sample_dim, 0, 1))
    directions = _directions(trajectory, settings, readout)
    check_moves(trajectory, settings)
    if settings.stop == "certain" and source.population == 1:
        raise ValueError("stop: expected 'certain' for several sequences, whose means have an error, got it for one")
    targets = resolve_target(target, directions, trajectory.num_layers, trajectory.time_steps)
    certify: dict[str, Any] = {
        "directions": directions,
        "tol": settings.certify_tol,
        "num_matvecs": settings.num_matvecs,
        "method": settings.method,
        "max_points": settings.certify_points,
        "readout": readout,
        "square": settings.square,
    }

    def certified() -> RadiusReport:
        with torch.no_grad():
            return radii(model, source.held_out, generator=torch.Generator().manual_seed(settings.seed), **certify)

    before = certified()
    loop = Loop(model, settings, targets, source, readout)
    try:
        with eval_mode(model, readout), ProgressBar(settings.steps, progress) as advance:
            for record in loop.run():
                advance(record)
                if callback is not None:
                    callback(record)
    finally:
        loop.kept.put_back()
    return PretrainResult(before, certified(), loop.history, loop.converged, targets, settings, loop.best_step)


def _directions(trajectory: Trajectory, settings: PretrainConfig, readout: Readout | None) -> tuple[str, ...]:
    """What to bring to a target: of what was asked for, what the model has."""
    asked = trajectory.pretrained if settings.directions is None else settings.directions
    if readout is None and "output" in asked:
        raise ValueError("readout: expected a module for direction 'output', got None")
    if readout is not None and "output" not in asked:
        asked = (*asked, "output")
    directions = tuple(d for d in asked if len(trajectory.layers_of(d)) > 0)
    if not directions:
        raise ValueError(f"directions: expected one that this model has, got {asked}")
    return directions
