"""Pre-training to the Local Stability Condition: bring the mean spectral radius of every layer's step Jacobians to a
target.

Herranz-Celotti & Rouat, "Stabilizing RNN Gradients through Pre-training", arXiv 2308.12075. Letters: L layers, T time
steps, P points measured per layer.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.files import write_json
from lsc_ext.operator import eval_mode
from lsc_ext.radii import RadiusReport, estimate_along, radii
from lsc_ext.spectral import METHODS
from lsc_ext.submodule import Submodule
from lsc_ext.trajectory import Kernel, grid_points, sample_dim, trajectory_of

MOVES = ("gradient", "rescale")
PRETRAINED_DIRECTIONS = ("time", "depth", "diagonal")


@dataclass(frozen=True)
class PretrainConfig:
    """How :func:`pretrain` goes about it.

    Attributes:
        directions: which Jacobians to bring to the target; None for the model's own: time and depth, of layers with a
            linear recurrence time and diagonal, of feed-forward ones depth.
        moves: "gradient" (AdamW on the mean squared distance of the radii to the target) and "rescale" (multiply a
            layer's kernel by target / measured radius, clipped); together, rescaling is damped by how far the kernel's
            scale moves the radius at all, so that it leaves alone what only the gates can change.
        steps: most steps to take.
        batch_size: sequences per step.
        max_points: P, points (t, b) measured per layer and direction in one step.
        lr: AdamW's learning rate for vectors (biases); matrices get lr / (fan in), since a change of all their entries
            by one size moves eigenvalues by fan in times it. It is halved after 30 steps without progress, which
            quiets the noise of fresh points where a target is hard to reach.
        weight_decay: AdamW's.
        rescale_limit: largest relative change of a kernel in one step (the paper's 0.15).
        method: how radii are estimated, see :func:`lsc_ext.spectral_radius`.
        num_matvecs: most products of one side per point; None for the method's default.
        tol: relative residual wanted while optimising.
        tolerance: distance to the target at which a layer's mean radius counts as there.
        patience: consecutive steps that all layers and directions must be there.
        holdout: fraction of the sequences kept for ``before`` and ``after``.
        certify_tol: relative residual wanted of the held-out points.
        certify_points: held-out points measured per layer and direction; None for all.
        time_steps: T of the random sequences where there is no data.
        max_sequences: most sequences taken from a loader or iterator.
        seed: of the split, the batches, the points and the start vectors.
    """

    directions: tuple[str, ...] | None = None
    moves: tuple[str, ...] = ("gradient", "rescale")
    steps: int = 300
    batch_size: int = 64
    max_points: int = 32
    lr: float = 0.02
    weight_decay: float = 0.0
    rescale_limit: float = 0.15
    method: str = "auto"
    num_matvecs: int | None = None
    tol: float = 1e-2
    tolerance: float = 0.02
    patience: int = 5
    holdout: float = 0.2
    certify_tol: float = 1e-3
    certify_points: int | None = 256
    time_steps: int = 32
    max_sequences: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("directions", PRETRAINED_DIRECTIONS), ("moves", MOVES)):
            given = getattr(self, name)
            if given is None and name == "directions":
                continue
            if isinstance(given, str):
                raise TypeError(f"{name}: expected a sequence of names, got the string {given!r}")
            object.__setattr__(self, name, tuple(given))
            if not given or len(set(given)) != len(given) or not set(given) <= set(allowed):
                raise ValueError(f"{name}: expected distinct names among {', '.join(allowed)}, got {tuple(given)}")
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        for name in ("steps", "batch_size", "max_points", "patience", "time_steps", "max_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("num_matvecs", "certify_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1 or None, got {value}")
        for name in ("lr", "tolerance", "rescale_limit"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay: expected a number >= 0, got {self.weight_decay}")
        for name in ("tol", "certify_tol", "holdout"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class PretrainStep:
    """One row of the history: what was measured before the step's change.

    Attributes:
        step: from 0.
        loss: sum over directions of the mean over points of (radius - target)^2.
        deviation: largest distance of a layer's mean radius to its target.
        means: direction -> mean radius of each layer.
        certified: fraction of the measured points that converged.
    """

    step: int
    loss: float
    deviation: float
    means: dict[str, list[float]]
    certified: float


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


def pretrain(
    model: nn.Module,
    data: Tensor | Iterable[Any] | None,
    target: float | str | Mapping[str, float] | None = None,
    *,
    config: PretrainConfig | None = None,
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
            0.5 with several.
        config: how; ``options`` are its fields by name and override it.
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
    settings = _settings(config, options)
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"model: expected finite weights, got NaN or infinity in {name}")
    source = _Sequences(model, data, settings)
    trajectory = trajectory_of(model, source.held_out.narrow(source.sample_dim, 0, 1))
    asked = trajectory.pretrained if settings.directions is None else settings.directions
    directions = tuple(d for d in asked if len(trajectory.layers_of(d)) > 0)
    if not directions:
        raise ValueError(f"directions: expected one that this model has, got {asked}")
    targets = resolve_target(target, directions, trajectory.num_layers, trajectory.time_steps)
    certify: dict[str, Any] = {
        "directions": directions,
        "tol": settings.certify_tol,
        "num_matvecs": settings.num_matvecs,
        "method": settings.method,
        "max_points": settings.certify_points,
    }

    def certified() -> RadiusReport:
        with torch.no_grad():
            return radii(model, source.held_out, generator=torch.Generator().manual_seed(settings.seed), **certify)

    before = certified()
    loop = _Loop(model, settings, targets, source)
    try:
        with eval_mode(model), _ProgressBar(settings.steps, progress) as advance:
            for record in loop.run():
                advance(record)
                if callback is not None:
                    callback(record)
    finally:
        loop.restore_best()
    return PretrainResult(before, certified(), loop.history, loop.converged, targets, settings, loop.best_step)


def _settings(config: PretrainConfig | None, options: dict[str, Any]) -> PretrainConfig:
    known = {f.name for f in fields(PretrainConfig)}
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: expected an option among {', '.join(sorted(known))}, got an unknown one")
    if config is None:
        return PretrainConfig(**options)
    return PretrainConfig(**{**{f.name: getattr(config, f.name) for f in fields(config)}, **options})


class _Sequences:
    """Training batches and held-out sequences, both in the model's layout."""

    def __init__(self, model: Any, data: Tensor | Iterable[Any] | None, settings: PretrainConfig) -> None:
        self.sample_dim = sample_dim(model)
        self._batch_size = settings.batch_size
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._fresh: Callable[[int], Tensor] | None = None
        if data is None:
            self._fresh = _random_inputs(model, settings, self._generator, self._device)
            self.held_out = self._fresh(settings.batch_size)
            return
        one_sequence = hasattr(model, "batch_first") and not isinstance(model, Submodule)  # what [T, I] means
        x = _gather(data, settings.max_sequences, self.sample_dim, one_sequence).to(self._device)
        if x.numel() == 0:
            raise ValueError(f"data: expected at least one sequence of at least one step, got shape {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("data: expected finite numbers, got NaN or infinity")
        count = x.shape[self.sample_dim]
        if count == 1:
            if self.sample_dim == 0 and not hasattr(model, "batch_first"):
                raise ValueError("data: expected at least two samples, got one")
            time_dim = 1 - self.sample_dim
            steps = x.shape[time_dim]
            if steps < 2:
                raise ValueError("data: expected at least two steps of a single sequence, got one")
            cut = steps - max(1, round(settings.holdout * steps))
            self.held_out, self._training = x.narrow(time_dim, cut, steps - cut), x.narrow(time_dim, 0, cut)
        else:
            order = torch.randperm(count, generator=self._generator).to(self._device)
            kept = min(max(1, round(settings.holdout * count)), count - 1)
            self.held_out = x.index_select(self.sample_dim, order[:kept])
            self._training = x.index_select(self.sample_dim, order[kept:])

    def batch(self) -> Tensor:
        """The next training batch."""
        if self._fresh is not None:
            return self._fresh(self._batch_size)
        count = self._training.shape[self.sample_dim]
        chosen = torch.randperm(count, generator=self._generator)[: self._batch_size].to(self._device)
        return self._training.index_select(self.sample_dim, chosen)


def _random_inputs(
    model: Any, settings: PretrainConfig, generator: torch.Generator, device: torch.device
) -> Callable[[int], Tensor]:
    """Draws standard normal sequences (or samples, for a model without a time axis) for a model that says its width."""
    width = getattr(model, "input_size", None)
    if not isinstance(width, int):
        raise ValueError(
            f"data: expected sequences, got None for a model without input_size, {type(model).__qualname__}"
        )
    dtype = next((p.dtype for p in model.parameters()), torch.float32)

    def fresh(count: int) -> Tensor:
        if not hasattr(model, "batch_first"):
            return torch.randn(count, width, generator=generator, dtype=dtype).to(device)
        x = torch.randn(settings.time_steps, count, width, generator=generator, dtype=dtype).to(device)
        return x.transpose(0, 1).contiguous() if model.batch_first else x

    return fresh


def _gather(data: Tensor | Iterable[Any], limit: int, sample_dim: int, one_sequence: bool) -> Tensor:
    """Sequences in one tensor; from an iterable, at most ``limit`` of them. [T, I] is one where ``one_sequence``."""

    def batched(x: Tensor) -> Tensor:
        return x.unsqueeze(sample_dim) if one_sequence and x.dim() == 2 else x

    if isinstance(data, Tensor):
        batches = [batched(data)]
    else:
        batches, held = [], 0
        for item in data:
            first = item[0] if isinstance(item, (tuple, list)) else item
            if not isinstance(first, Tensor):
                raise TypeError(f"data: expected tensors or tuples that begin with one, got {type(first).__qualname__}")
            batches.append(batched(first))
            held += batches[-1].shape[sample_dim] if batches[-1].dim() > sample_dim else 1
            if held >= limit:
                break
        if not batches:
            raise ValueError("data: expected at least one batch, got an empty iterable")
    for batch in batches:
        if batch.dim() < 2:
            raise ValueError(f"data: expected at least 2 dimensions, got shape {tuple(batch.shape)}")
        shapes = [list(b.shape) for b in (batch, batches[0])]
        for shape in shapes:
            shape[sample_dim] = 0
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"data: expected sequences of one length and width, got batches of {tuple(batches[0].shape)} and "
                f"{tuple(batch.shape)}"
            )
    return torch.cat(batches, dim=sample_dim).detach()


class _Loop:
    """The optimisation: measure, remember the best, move."""

    def __init__(
        self, model: nn.Module, settings: PretrainConfig, targets: dict[str, float], source: _Sequences
    ) -> None:
        self.model, self.settings, self.targets, self.source = model, settings, targets, source
        self.history: list[PretrainStep] = []
        self.converged = False
        self.best_step = 0
        self._best_deviation = math.inf
        self._best = self._copy()
        self._generator = torch.Generator().manual_seed(settings.seed + 1)
        self._optimizer = self._make_optimizer() if "gradient" in settings.moves else None
        self._schedule = (
            None
            if self._optimizer is None
            else torch.optim.lr_scheduler.ReduceLROnPlateau(self._optimizer, factor=0.5, patience=30, min_lr=1e-6)
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        vectors = [p for p in self.model.parameters() if p.requires_grad and p.dim() < 2]
        groups: list[dict[str, Any]] = [{"params": vectors, "lr": self.settings.lr}] if vectors else []
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.dim() >= 2:
                lr = self.settings.lr / parameter[0].numel()
                groups.append({"params": [parameter], "lr": lr})
        for group in groups:
            group["initial_lr"] = group["lr"]
        if not groups:
            raise ValueError("model: expected parameters that require gradients for the move 'gradient', got none")
        return torch.optim.AdamW(groups, weight_decay=self.settings.weight_decay)

    def _copy(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Module, name and values of every parameter and buffer."""
        return [
            (module, name, held.detach().clone())
            for module in self.model.modules()
            for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
            for name, held in named
        ]

    def restore_best(self) -> None:
        """Puts the best weights back."""
        with torch.no_grad():
            for module, name, value in self._best:
                held = getattr(module, name)
                if held.shape == value.shape:
                    held.copy_(value)
                else:  # a buffer that the module replaces as it runs, such as the last state of one batch
                    setattr(module, name, value.clone())

    def run(self) -> Iterator[PretrainStep]:
        """One record per step."""
        there = 0
        for step in range(self.settings.steps):
            estimates = self._measure()
            record = self._record(step, estimates)
            self.history.append(record)
            if record.deviation < self._best_deviation:
                self._best_deviation, self.best_step = record.deviation, step
                self._best = self._copy()
            there = there + 1 if record.deviation <= self.settings.tolerance else 0
            if there >= self.settings.patience:
                self.converged = True
                yield record
                return
            yield record
            self._move(estimates)
            if self._schedule is not None:
                self._schedule.step(record.deviation)

    def _measure(self) -> dict[str, list[tuple[int, RadiusEstimate, Kernel | None]]]:
        """Radii of fresh points from fresh start vectors: direction -> (layer, estimate, kernel) of each layer."""
        settings = self.settings
        trajectory = trajectory_of(self.model, self.source.batch())
        grid = grid_points(trajectory.time_steps, trajectory.batch)
        measured: dict[str, list[tuple[int, RadiusEstimate, Kernel | None]]] = {}
        with torch.set_grad_enabled("gradient" in settings.moves):
            for direction in self.targets:
                measured[direction] = []
                for layer in trajectory.layers_of(direction):
                    points = grid[torch.randperm(grid.shape[0], generator=self._generator)[: settings.max_points]]
                    seed = int(torch.randint(2**62, (1,), generator=self._generator))
                    operator = trajectory.operator(direction, layer, points)
                    estimate = estimate_along(
                        operator, direction, settings.method, settings.num_matvecs, settings.tol, seed
                    )
                    measured[direction].append((layer, estimate, trajectory.kernel(direction, layer)))
        return measured

    def _record(self, step: int, measured: dict[str, list[tuple[int, RadiusEstimate, Any]]]) -> PretrainStep:
        means = {d: [float(e.mean().detach()) for _, e, _ in rows] for d, rows in measured.items()}
        flat = [abs(mean - self.targets[d]) for d, row in means.items() for mean in row]
        if not all(math.isfinite(value) for value in flat):
            raise FloatingPointError(
                f"model: expected finite radii in every layer, got none in some at step {step}; "
                "do the states overflow at these weights?"
            )
        everything = concatenate([e for rows in measured.values() for _, e, _ in rows])
        loss = float(self._loss(measured).detach())
        return PretrainStep(step, loss, max(flat), means, everything.certified_fraction)

    def _loss(self, measured: dict[str, list[tuple[int, RadiusEstimate, Any]]]) -> Tensor:
        """Mean over points of (radius - target)^2, summed over directions."""
        parts = []
        for direction, rows in measured.items():
            radius = torch.stack([e.radius for _, e, _ in rows])
            finite = radius.isfinite()
            distance = torch.where(finite, radius - self.targets[direction], torch.zeros_like(radius))
            parts.append(distance.square().sum() / finite.sum())
        return torch.stack(parts).sum()

    def _move(self, measured: dict[str, list[tuple[int, RadiusEstimate, Kernel | None]]]) -> None:
        factors = self._rescale_factors(measured) if "rescale" in self.settings.moves else []
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(measured).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        for kernel, factor in factors:
            kernel.scale(factor)

    @property
    def _calm(self) -> float:
        """How far the learning rate has fallen, 1 at first: rescaling slows down with it."""
        if self._optimizer is None:
            return 1.0
        group = self._optimizer.param_groups[-1]
        return float(group["lr"]) / float(group["initial_lr"])

    def _rescale_factors(
        self, measured: dict[str, list[tuple[int, RadiusEstimate, Kernel | None]]]
    ) -> list[tuple[Kernel, float]]:
        factors = []
        limit = math.log1p(self.settings.rescale_limit) * self._calm
        for direction, rows in measured.items():
            for _, estimate, kernel in rows:
                mean = estimate.mean()
                level = float(mean.detach())
                if kernel is None or level <= 0 or kernel.frozen:
                    continue
                wanted = math.log(self.targets[direction] / level)
                damping = 1.0
                if mean.requires_grad:
                    # d log(mean radius) / d log(scale): 1 where the Jacobian is proportional to the kernel, 0 where the
                    # gates alone set the radius and no scale would help.
                    damping = min(max(kernel.response(mean), 0.0), 1.0)
                factors.append((kernel, math.exp(damping * min(max(wanted, -limit), limit))))
        return factors


class _ProgressBar:
    """A bar on standard error; silent where that is not a terminal."""

    def __init__(self, steps: int, wanted: bool | None) -> None:
        self._steps = steps
        self._shown = sys.stderr.isatty() if wanted is None else wanted
        self._bar: Any = None

    def __enter__(self) -> Callable[[PretrainStep], None]:
        if not self._shown:
            return lambda record: None
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task("pre-training", total=self._steps)

        def advance(record: PretrainStep) -> None:
            self._bar.update(task, advance=1, description=f"pre-training, off by {record.deviation:.3f}")

        return advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
