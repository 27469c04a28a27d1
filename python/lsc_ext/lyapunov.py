"""What happens to a gradient over many steps: Lyapunov exponents, and the gain and the radius of products of K steps.

Pre-training looks at single steps, but radii do not multiply: [[0, 2], [0, 0]] and its transpose have radius 0, their
product has radius 4. docs/math/products-of-steps.md. Letters: L layers, T time steps, B sequences, P points, k
exponents, K steps of a product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.chain import ChainOperator, Growth
from lsc_ext.estimate import RadiusEstimate, concatenate
from lsc_ext.nn import BidirectionalTrajectory
from lsc_ext.operator import JacobianOperator, eval_mode
from lsc_ext.spectral import check_options, estimate_radius, seed_from
from lsc_ext.trajectory import Trajectory, grid_points, trajectory_of


@dataclass(frozen=True)
class LyapunovReport:
    """Finite-time Lyapunov exponents of the layers' own step Jacobians.

    Attributes:
        exponents: [L, B, k] in nats per step, from the largest; of a layer given its inputs. -inf where a direction is
            lost, NaN where a product was not finite.
        layers: which layer each row belongs to.
        steps: how many steps they are means over.
    """

    exponents: Tensor
    layers: list[int]
    steps: int

    def rates(self) -> Tensor:
        """The factor per step, exp of the exponents, to be compared with a radius [L, B, k]."""
        return self.exponents.exp()

    def rows(self) -> list[dict[str, Any]]:
        """One row for each layer: the largest exponent's mean and extremes over sequences, and its factor per step."""
        rows = []
        for layer, values in zip(self.layers, self.exponents[..., 0], strict=True):
            rows.append(
                {
                    "layer": layer,
                    "mean": float(values.mean()),
                    "min": float(values.min()),
                    "max": float(values.max()),
                    "rate": float(values.mean().exp()),
                }
            )
        return rows

    def __str__(self) -> str:
        lines = [f"{'layer':>5}{'exponent':>11}{'min':>9}{'max':>9}{'per step':>10}"]
        for row in self.rows():
            lines.append(
                f"{row['layer']:>5}{row['mean']:>11.4f}{row['min']:>9.4f}{row['max']:>9.4f}{row['rate']:>10.4f}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class ProductReport:
    """Products of K consecutive step Jacobians of each layer, as rates per step.

    Attributes:
        gain: largest singular value ^ (1 / K), [L, P]: what a gradient's length can become. Its ``residual`` and
            ``status`` are those of the product's singular value squared.
        radius: spectral radius of the product ^ (1 / K), [L, P].
        single: geometric mean of the radii of the K single steps, [L, P]: what they would be, did radii multiply.
        layers: which layer each row belongs to.
        steps: K.
        index: [P, 2] pairs (t, b), the step that each product begins with.
    """

    gain: RadiusEstimate
    radius: RadiusEstimate
    single: Tensor
    layers: list[int]
    steps: int
    index: Tensor

    def rows(self) -> list[dict[str, Any]]:
        """One row for each layer: mean gain, radius and single steps' radius per step, and what was certified."""
        rows = []
        for row, layer in enumerate(self.layers):
            certified = (self.gain.status[row] == 0) & (self.radius.status[row] == 0)
            rows.append(
                {
                    "layer": layer,
                    "gain": float(self.gain.radius[row].nanmean()),
                    "largest gain": float(self.gain.radius[row].max()) if self.gain.radius.numel() else float("nan"),
                    "radius": float(self.radius.radius[row].nanmean()),
                    "single": float(self.single[row].nanmean()),
                    "certified": float(certified.double().mean()),
                }
            )
        return rows

    def __str__(self) -> str:
        lines = [f"rates per step of products of {self.steps} steps"]
        lines.append(f"{'layer':>5}{'gain':>9}{'largest':>9}{'radius':>9}{'single':>9}{'certified':>11}")
        for row in self.rows():
            lines.append(
                f"{row['layer']:>5}{row['gain']:>9.4f}{row['largest gain']:>9.4f}{row['radius']:>9.4f}"
                f"{row['single']:>9.4f}{row['certified']:>11.1%}"
            )
        return "\n".join(lines)


@ops.uncompiled
def lyapunov(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    num_exponents: int = 1,
    qr_every: int = 1,
    skip: int = 0,
    generator: torch.Generator | None = None,
    time_chunk: int | None = None,
) -> LyapunovReport:
    """The largest finite-time Lyapunov exponents of every layer's step Jacobians d s[t,l] / d s[t-1,l] along time.

    The Jacobian of a step of the whole stack is block triangular in layers, so its exponents are those of the layers.

    Args:
        model: any that :func:`lsc_ext.radii` takes and that has a state.
        inputs: sequences in the model's own layout.
        initial_state: as the model takes it; None for zeros.
        num_exponents: k, at most the number of states of a layer.
        qr_every: steps between two QR decompositions.
        skip: steps at the beginning that are not counted, in which the vectors turn to the growing directions.
        generator: draws one seed for the vectors to begin with.
        time_chunk: as :func:`lsc_ext.radii` has it.

    Raises:
        ValueError: an option out of range, or a model without a state.
        TypeError: the model is of another kind.
    """
    with torch.no_grad(), eval_mode(model):
        trajectory = trajectory_of(model, inputs, initial_state)
        layers = layers_in_time(trajectory)
        if not 0 <= skip < trajectory.time_steps:
            raise ValueError(f"skip: expected 0 .. {trajectory.time_steps - 1}, got {skip}")
        seed, growths = seed_from(generator), {}
        for layer, begin, count, operator in blocks_in_time(trajectory, layers, time_chunk=time_chunk):
            if layer not in growths:
                like = torch.empty(0, dtype=operator.dtype, device=operator.device)
                growths[layer] = Growth(
                    trajectory.batch, num_exponents, operator.columns, (seed + layer) % 2**63, qr_every, like
                )
            steps = torch.arange(count * trajectory.batch).view(-1, trajectory.batch)
            _follow(growths[layer], operator, steps, skip - begin)
    exponents = torch.stack([growths[layer].exponents for layer in layers])
    return LyapunovReport(exponents, layers, trajectory.time_steps - skip)


def _follow(growth: Growth, operator: JacobianOperator, steps: Tensor, uncounted: int) -> None:
    """Goes along ``steps`` [steps, B], of which the first ``uncounted`` are not counted."""
    uncounted = min(max(uncounted, 0), len(steps))
    growth.follow(operator, steps[:uncounted])
    if uncounted:
        growth.forget()
    growth.follow(operator, steps[uncounted:])


@ops.uncompiled
def products(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    steps: int = 16,
    max_points: int | None = None,
    num_matvecs: int | None = None,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> ProductReport:
    """Gain and radius of products of ``steps`` consecutive step Jacobians of every layer along time, certified.

    Args:
        model: any that :func:`lsc_ext.radii` takes and that has a state.
        inputs: sequences in the model's own layout, of at least ``steps`` steps.
        initial_state: as the model takes it; None for zeros.
        steps: K.
        max_points: how many products to look at for each layer, drawn without replacement; None for all T - K + 1 of
            every sequence.
        num_matvecs: most products with the K-step Jacobian for each; see :func:`lsc_ext.spectral_radius`.
        tol: relative residual at which a product counts as converged; a rate is K times as exact.
        generator: draws one seed for the start vectors and the sample.

    Raises:
        ValueError: an option out of range, sequences shorter than ``steps``, or a model without a state.
        TypeError: the model is of another kind.
    """
    check_options("krylov", num_matvecs, tol)
    if max_points is not None and max_points < 1:
        raise ValueError(f"max_points: expected at least 1 or None, got {max_points}")
    with torch.no_grad(), eval_mode(model):
        trajectory = trajectory_of(model, inputs, initial_state)
        layers = layers_in_time(trajectory)
        starts = trajectory.time_steps - steps + 1
        if not 1 <= steps <= trajectory.time_steps:
            raise ValueError(f"steps: expected 1 .. {trajectory.time_steps}, got {steps}")
        seed, batch = seed_from(generator), trajectory.batch
        chosen = torch.arange(starts * batch)
        if max_points is not None and max_points < len(chosen):
            sampler = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(len(chosen), generator=sampler)[:max_points].sort().values
        # Points t B + b; those of a product are B apart.
        needed, chains = (chosen[:, None] + batch * torch.arange(steps)).unique(return_inverse=True)
        points = torch.stack((needed // max(batch, 1), needed % max(batch, 1)), dim=1)
        chains = chains.view(-1, steps)
        found = []
        for layer in layers:
            own = chains.flip(1) if runs_backward(trajectory, layer) else chains
            operator = trajectory.operator("time", layer, points)
            found.append(_products_of(operator, own, num_matvecs, tol, (seed + layer) % 2**63))
    gain, radius, single = zip(*found, strict=True)
    index = torch.stack((chosen // max(batch, 1), chosen % max(batch, 1)), dim=1)
    shape = (len(layers), len(chosen))
    return ProductReport(
        concatenate(gain).reshape(*shape),
        concatenate(radius).reshape(*shape),
        torch.stack(single),
        layers,
        steps,
        index,
    )


def _products_of(
    operator: JacobianOperator, chains: Tensor, num_matvecs: int | None, tol: float, seed: int
) -> tuple[RadiusEstimate, RadiusEstimate, Tensor]:
    """Gain, radius and single steps' radius of products along ``chains`` [P, K], as rates per step."""
    count, steps = chains.shape
    like = torch.empty(0, dtype=operator.dtype, device=operator.device)
    growth = Growth(count, 1, operator.columns, seed, 1, like)
    growth.follow(operator, chains.mT)
    shift = growth.exponents[:, 0]
    shift = torch.where(shift.isfinite(), shift, torch.zeros_like(shift))

    def rate(gram: bool) -> RadiusEstimate:
        chain = ChainOperator(operator, chains, (-shift).exp(), gram=gram)
        found = estimate_radius(chain, "auto", num_matvecs, tol, seed)
        per_step = found.radius.double().log() / (steps * (2 if gram else 1)) + shift.to(found.radius.device)
        return replace(found, radius=per_step.exp().to(found.radius.dtype))

    single = estimate_radius(operator, "auto", num_matvecs, tol, seed).radius
    return rate(True), rate(False), single[chains.to(single.device)].log().mean(dim=1).exp()


def layers_in_time(trajectory: Trajectory) -> list[int]:
    """The layers with a state; raises ValueError where there is none."""
    layers = list(trajectory.layers_of("time"))
    if not layers:
        raise ValueError("model: expected one with a state, got layers without recurrence")
    return layers


def blocks_in_time(
    trajectory: Trajectory, layers: Sequence[int], *, stop: int | None = None, time_chunk: int | None = None
) -> Iterator[tuple[int, int, int, JacobianOperator]]:
    """Jacobians in time of the first ``stop`` steps (None: of all), block by block, each layer's in its own order.

    Yields:
        A layer, how many of its steps came before, how many there are in the block, and the operator: its points are
        the B sequences of the first of these steps, those of the second, ..
    """
    for first, piece in trajectory.pieces(time_chunk):
        last = piece.time_steps if stop is None else min(piece.time_steps, stop - first)
        if last <= 0:
            return
        grid = grid_points(piece.time_steps, piece.batch).view(piece.time_steps, piece.batch, 2)
        for layer in layers:
            points = grid.flip(0) if runs_backward(trajectory, layer) else grid
            most = piece.points_at_once("time", layer) or max(1, points.shape[0] * piece.batch)
            at_once = max(1, most // max(1, piece.batch))
            for begin in range(0, last, at_once):
                block = points[begin : min(begin + at_once, last)]
                yield layer, first + begin, len(block), piece.operator("time", layer, block.reshape(-1, 2))


def runs_backward(trajectory: Trajectory, layer: int) -> bool:
    """Whether a layer goes from the last step to the first; its points count time as the inputs do."""
    return isinstance(trajectory, BidirectionalTrajectory) and layer % 2 == 1
