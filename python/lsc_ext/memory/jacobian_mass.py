"""Where the mass of a product of step Jacobians is: on the diagonal, as if units did not know each other, or off it.

After Zucchet and Orvieto, arXiv 2405.21064, appendix on gated networks, who look at single entries of d s[t] / d s[0].
Entries that are small may weigh as much as the diagonal together, so what is measured here is mean squares.

Letters: J = d s[t] / d s[0] [n, n], C checkpoints t, B sequences, m probes, K entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.lyapunov import blocks_in_time, layers_in_time
from lsc_ext.memory.jacobian_moments import exact_moments, probed_moments
from lsc_ext.nn.arguments import check_int
from lsc_ext.operator import eval_mode
from lsc_ext.spectral import seed_from
from lsc_ext.trajectory import trajectory_of


@dataclass(frozen=True)
class JacobianMass:
    """What the products of a layer's first steps are made of, float64 on the CPU.

    All magnitudes are in units of exp(log_scale), their squares in those of exp(2 log_scale).

    Attributes:
        steps: the checkpoints t, how many Jacobians each product has.
        size: n.
        log_scale: 0 unless a product or its square leaves the range of float64, [C, B].
        diagonal: J_ii [C, B, n]; one more than 1e300 times smaller than the largest entry is 0.
        diagonal_mean: mean of J_ii [C, B].
        diagonal_square: mean of J_ii^2 [C, B].
        off_diagonal_square: mean of J_ij^2 over i != j [C, B], 0 for n = 1; from probes it may be below 0.
        off_diagonal_max: the largest |J_ij| [C, B]; None from probes.
        radius: spectral radius [C, B]; None from probes.
        gain: largest singular value [C, B]; None from probes.
        standard_error: of the estimates ``diagonal_mean``, ``diagonal_square`` and ``off_diagonal_square`` by name,
            [C, B]; empty where they are exact.
        pairs: (i, j) of the random entries that were asked for, [K, 2].
        entries: J_ij of these [C, B, K].
    """

    steps: list[int]
    size: int
    log_scale: Tensor
    diagonal: Tensor
    diagonal_mean: Tensor
    diagonal_square: Tensor
    off_diagonal_square: Tensor
    off_diagonal_max: Tensor | None
    radius: Tensor | None
    gain: Tensor | None
    standard_error: dict[str, Tensor]
    pairs: Tensor
    entries: Tensor

    @property
    def diagonal_rms(self) -> Tensor:
        """Root mean square of the diagonal [C, B]; from probes the root of what is unbiased, and so not unbiased."""
        return self.diagonal_square.clamp(min=0).sqrt()

    @property
    def off_diagonal_rms(self) -> Tensor:
        """Root mean square off the diagonal [C, B], likewise."""
        return self.off_diagonal_square.clamp(min=0).sqrt()

    @property
    def ratio(self) -> Tensor:
        """|off-diagonal|_F / |diagonal|_F [C, B], likewise: what plots of single entries hide. NaN for J = 0."""
        found: Tensor = (self.size - 1) ** 0.5 * self.off_diagonal_rms / self.diagonal_rms
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One row for each checkpoint: means over sequences, in units of 10^"log10"."""
        names = ("diagonal_mean", "diagonal_rms", "off_diagonal_rms", "off_diagonal_max", "radius", "gain")
        rows = []
        for number, steps in enumerate(self.steps):
            scales, some = self.log_scale[number], self.diagonal_square[number] + self.off_diagonal_square[number] != 0
            scale = scales[some].max() if some.any() else scales.new_zeros(())
            units = torch.where(some, scales - scale, 0.0).exp()  # J = 0 has no scale
            row: dict[str, Any] = {"steps": steps, "ratio": float(self.ratio[number].mean())}
            for name in names:
                values = getattr(self, name)
                row[name] = None if values is None else float((values[number] * units).mean())
            rows.append({**row, "log10": float(scale) / math.log(10)})
        return rows

    def __str__(self) -> str:
        names = ("diagonal_mean", "off_diagonal_max", "off_diagonal_rms", "ratio", "radius", "gain", "log10")
        heads = ("diagonal", "max off", "rms off", "off/on", "radius", "gain", "log10")
        lines = [f"{'steps':>6}" + "".join(f"{head:>11}" for head in heads)]
        for row in self.rows():
            texts = ["" if row[name] is None else f"{row[name]:.4g}" for name in names]
            lines.append(f"{row['steps']:>6}" + "".join(f"{text:>11}" for text in texts))
        return "\n".join(lines)


@ops.uncompiled
def jacobian_mass(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    layer: int = 0,
    steps: Sequence[int] | None = None,
    probes: int | None = None,
    entries: int = 0,
    generator: torch.Generator | None = None,
    time_chunk: int | None = None,
) -> JacobianMass:
    """How much of the products of a layer's first step Jacobians, d s[t] / d s[0], is on the diagonal.

    Vectors are multiplied with one step's Jacobian after another; after each step every vector is divided by a power of
    two of its own, which costs no digit, so nothing overflows or underflows along the way. Without ``probes`` these are
    the n unit vectors, in memory O(B n^2), and each entry is right to rounding of the largest in its column.

    With ``probes`` they are m vectors v of random signs, and E |J v|^2 = |J|_F^2, E v_i (J v)_i = J_ii (Hutchinson
    1990; Bekas, Kokiopoulou and Saad 2007). Estimates of mean squares are unbiased: those of J_ii^2 multiply different
    probes only. Their standard errors are the jackknife's.

    States of several variables are stacked, so that an LSTM's d h / d c is off the diagonal; so is the imaginary part
    of a complex eigenvalue, whose state is a real and an imaginary number.

    Args:
        model: any that :func:`lsc_ext.radii` takes and that has a state.
        inputs: sequences in the model's own layout.
        initial_state: as the model takes it; None for zeros.
        layer: whose Jacobians, as :func:`lsc_ext.radii` counts layers; one that runs backward starts from the end.
        steps: increasing checkpoints t; None for the powers of two up to the length of the sequences.
        probes: m, at least 3; None for exact numbers.
        entries: K, how many random entries off the diagonal to look up, drawn uniformly over all; exact only.
        generator: draws one seed for probes and entries.
        time_chunk: as :func:`lsc_ext.radii` has it.

    Raises:
        ValueError: an option out of range, or a model without a state.
        TypeError: the model is of another kind, or a number no int.
    """
    check_int("entries", entries, 0)
    if probes is not None:
        check_int("probes", probes, 3)
        if entries > 0:
            raise ValueError(f"entries: expected 0 where there are probes, which see no single entry, got {entries}")
    with torch.no_grad(), eval_mode(model):
        trajectory = trajectory_of(model, inputs, initial_state)
        layers = layers_in_time(trajectory)
        if layer not in layers:
            raise ValueError(f"layer: expected one of {layers}, got {layer!r}")
        marks = _checkpoints(steps, trajectory.time_steps)
        draw = torch.Generator().manual_seed(seed_from(generator))
        batch, vectors, found = trajectory.batch, None, []
        for _, begin, count, operator in blocks_in_time(trajectory, [layer], stop=marks[-1], time_chunk=time_chunk):
            if vectors is None:
                size = operator.columns
                pairs = _pairs(entries, size, draw)
                start = _start(batch, size, probes, draw).to(operator.device, operator.dtype)
                vectors, exponents = start, torch.zeros(start.shape[:2], dtype=torch.int64)
            for step in range(count):
                own = step * batch + torch.arange(batch).repeat_interleave(vectors.shape[1])
                product = operator.matvec(vectors.flatten(0, 1), own.to(operator.device))
                vectors, shift = _shortened(product.view_as(vectors))
                exponents = exponents + shift
                if begin + step + 1 in marks:
                    images = vectors.cpu().double()
                    if probes is None:
                        found.append(exact_moments(images, exponents, pairs))
                    else:
                        found.append(probed_moments(start.cpu().double(), images, exponents))
    merged = {name: torch.stack([moments[name] for moments in found]) for name in found[0]}
    errors = {name.removesuffix("_error"): merged.pop(name) for name in tuple(merged) if name.endswith("_error")}
    for name in ("off_diagonal_max", "radius", "gain"):
        merged.setdefault(name, None)  # type: ignore[arg-type]
    merged.setdefault("entries", torch.zeros(len(marks), batch, 0, dtype=torch.float64))
    return JacobianMass(steps=marks, size=size, standard_error=errors, pairs=pairs, **merged)


def _checkpoints(steps: Sequence[int] | None, time_steps: int) -> list[int]:
    if time_steps < 1:
        raise ValueError("inputs: expected at least one step, got none")
    if steps is None:
        return [2**k for k in range(time_steps.bit_length())]
    marks = list(steps)
    for mark in marks:
        check_int("steps", mark, 1)
    if not marks or marks[-1] > time_steps or any(a >= b for a, b in pairwise(marks)):
        raise ValueError(f"steps: expected increasing numbers of 1 .. {time_steps}, got {marks}")
    return marks


def _start(batch: int, size: int, probes: int | None, draw: torch.Generator) -> Tensor:
    """Unit vectors [B, n, n], or random signs [B, m, n]."""
    if probes is None:
        return torch.eye(size).expand(batch, size, size).contiguous()
    return 2.0 * torch.randint(2, (batch, probes, size), generator=draw) - 1


def _pairs(count: int, size: int, draw: torch.Generator) -> Tensor:
    """Places off the diagonal, [K, 2], drawn uniformly with replacement."""
    if count > 0 and size < 2:
        raise ValueError(f"entries: expected 0 for a state of one number, got {count}")
    row = torch.randint(size, (count,), generator=draw)
    column = (row + torch.randint(1, max(size, 2), (count,), generator=draw)) % size
    return torch.stack((row, column), dim=1)


def _shortened(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [B, k, n] with their largest numbers in [1/2, 1), and the exponents of the powers of two taken out.

    Vectors that are zero or not finite stay as they are.
    """
    largest = vectors.abs().amax(dim=2)
    usual = largest.isfinite() & (largest > 0)
    largest = torch.where(usual, largest, 1.0).clamp(min=torch.finfo(vectors.dtype).tiny)
    mantissa, exponent = torch.frexp(largest)
    factor = torch.where(usual, mantissa / largest, 1.0)  # the power of two itself, since the quotient has no rounding
    return vectors * factor.unsqueeze(2), torch.where(usual, exponent, 0).cpu().long()
