"""How far the state of one layer moves where its parameters do, squared: E |d h / d theta|^2, layer by layer.

Products u' (d h / d theta) with signs u that are drawn at random have the squared Frobenius norm of d h / d theta as
the mean of their squares (Hutchinson, Communications in Statistics 19, 1990). Where every parameter moves one unit
alone, one product for each of a unit's numbers is exact, whatever the signs are; so it is with unit vectors for u,
which are taken where they are no more than the products asked for. A linear diagonal recurrence needs no graph over
time: d h / d theta = s d lambda / d theta + sum over i of g_i d W_i / d theta, with s from :class:`SensitivityScan`.

Letters: h the state [n], theta parameters, u a probe [n], lambda eigenvalues [N], W [N, I] the input matrix, s = d h /
d lambda, g_i what the recurrence makes of feature i alone, T steps, B sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from lsc_ext.memory.groups import Group
from lsc_ext.memory.streaming import SensitivityScan
from lsc_ext.rerun import Diagonal, LayerRun

#: Steps whose features are added up by one matrix product.
_CHUNK = 256
#: How far gradients may differ where signs should not matter, in square roots of the precision.
_SAME = 4.0


@dataclass
class Squares:
    """Squared derivatives of one group by sequence.

    Attributes:
        values: of each sequence, the mean over its steps.
        exact: whether each is the norm itself and no mean over probes.
        spread: standard error by the probes alone of a single sequence's value; 0 where exact.
    """

    values: list[float] = field(default_factory=list)
    exact: bool = True
    spread: float = 0.0

    @property
    def mean(self) -> float:
        """Over sequences."""
        return sum(self.values) / len(self.values)

    @property
    def stderr(self) -> float:
        """Of the mean, from what differs between sequences; of a single one from its probes."""
        if len(self.values) < 2:
            return self.spread
        values = torch.tensor(self.values, dtype=torch.float64)
        return float(values.std()) / math.sqrt(len(self.values))


@dataclass(frozen=True)
class DiagonalPass:
    """A linear diagonal recurrence after each of its last steps.

    Attributes:
        states: [K, B, N].
        sensitivities: s, [K, B, N].
        features: g, [K, B, N, I].
    """

    states: Tensor
    sensitivities: Tensor
    features: Tensor


def run_diagonal(diagonal: Diagonal, num_steps: int) -> DiagonalPass:
    """One pass over the sequences, whose memory is O(1) in T."""
    with torch.no_grad():
        lam, W, u = diagonal.eigenvalues(), diagonal.input_matrix(), diagonal.features
        scan = SensitivityScan(lam, u.shape[1])
        if bool((diagonal.initial != 0).any()):
            scan.feed(diagonal.initial.to(lam.dtype).unsqueeze(0))  # as if it were fed a step before the first
        g = torch.zeros(u.shape[1], len(lam), u.shape[2], dtype=lam.dtype, device=lam.device)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        first = len(u) - num_steps
        pieces = [*u[:first].split(_CHUNK), *u[first:].split(1)] if first > 0 else list(u.split(1))
        for piece in pieces:
            fed = piece.to(lam.dtype)
            scan.feed(fed @ W.T)
            steps = len(piece)
            powers = _powers(lam, steps)
            added = torch.einsum("tn,tki->kni", powers.flip(0), fed)
            g = (powers[-1] * lam).unsqueeze(-1) * g + added
            if steps == 1:
                kept.append((scan.state.clone(), scan.sensitivity.clone(), g))
        states, sensitivities, features = (torch.stack(list(part)) for part in zip(*kept[-num_steps:], strict=True))
        return DiagonalPass(states, sensitivities, features)


def _powers(lam: Tensor, count: int) -> Tensor:
    """Lambda to the power of 0 .. count - 1, [count, N]."""
    one = torch.ones_like(lam).unsqueeze(0)
    return torch.cat((one, lam.expand(count - 1, -1))).cumprod(0)


def diagonal_squares(
    diagonal: Diagonal,
    passed: DiagonalPass,
    groups: Sequence[Group],
    num_probes: int,
    generator: Generator,
) -> dict[str, Squares]:
    """Of the groups that lambda and W are made of, by name."""

    def states(number: int) -> Tensor:
        s, g = passed.sensitivities[:, number], passed.features[:, number]  # [K, N], [K, N, I]
        change = s * diagonal.eigenvalues() + (g * diagonal.input_matrix()).sum(-1)
        return torch.cat((change.real, change.imag), -1) if change.is_complex() else change

    parts = 2 if passed.states.is_complex() else 1
    return _squares(states, passed.states.shape[1], groups, parts, num_probes, generator)


def probed_squares(
    run: LayerRun, groups: Sequence[Group], num_probes: int, num_steps: int, generator: Generator
) -> dict[str, Squares]:
    """Of the groups that the states have a part of, by name; reverse passes over one sequence at a time."""

    def states(number: int) -> Tensor:
        return run.states(torch.tensor([number]))[-num_steps:, 0]

    return _squares(states, run.sequences, groups, run.parts, num_probes, generator)


def _squares(
    states: Callable[[int], Tensor],
    sequences: int,
    groups: Sequence[Group],
    parts: int | None,
    num_probes: int,
    generator: Generator,
) -> dict[str, Squares]:
    tensors = list({id(group.tensor): group.tensor for group in groups}.values())
    found: dict[str, Squares] = {}
    for number in range(sequences):
        with torch.enable_grad():
            h = states(number).unbind(0)
        if not h[0].requires_grad:
            return {}
        if number == 0 and parts is not None and not _alone(h[-1], tensors, parts):
            parts = None
        probes, exact = _probes(parts, num_probes, generator, h[0])
        sums: dict[str, list[float]] = {}
        for step in h:
            for probe in probes:
                pulled = dict(zip(map(id, tensors), _pull(step, tensors, probe), strict=True))
                for group in groups:
                    gradient = pulled[id(group.tensor)]
                    if gradient is not None:
                        square = float(group.part(gradient).abs().double().square().sum())
                        sums.setdefault(group.name, []).append(square)
        for name, each in sums.items():
            own = found.setdefault(name, Squares())
            own.values.append(sum(each) / (len(h) if exact else len(each)))
            own.exact = exact
            if not exact and len(each) > 1:
                own.spread = float(torch.tensor(each, dtype=torch.float64).std()) / math.sqrt(len(each))
    return found


def _pull(h: Tensor, tensors: Sequence[Tensor], probe: Tensor) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(h, tensors, probe, retain_graph=True, allow_unused=True)


def _signs(size: int, generator: Generator, like: Tensor) -> Tensor:
    return (2 * torch.randint(2, (size,), generator=generator) - 1).to(like)


def _probes(parts: int | None, count: int, generator: Generator, like: Tensor) -> tuple[list[Tensor], bool]:
    """Probes like a state [n], and whether the sum of their squares is the norm itself instead of their mean."""
    size = len(like)
    if parts is not None:
        return _by_part(torch.ones_like(like), parts), True
    if size <= count:
        return list(torch.eye(size, dtype=like.dtype, device=like.device)), True
    return [_signs(size, generator, like) for _ in range(count)], False


def _by_part(signs: Tensor, parts: int) -> list[Tensor]:
    """Signs [n] for one of a unit's numbers at a time, zero for the others."""
    return list(torch.block_diag(*signs.view(parts, 1, -1)))


def _alone(h: Tensor, tensors: Sequence[Tensor], parts: int) -> bool:
    """Whether each parameter moves one unit, so that no sign matters; a parametrisation may mix units.

    Signs are those of the binary digits of a unit's number: two units differ in one of them at least.
    """
    units = torch.arange(len(h) // parts)
    plain = [_pull(h, tensors, probe) for probe in _by_part(torch.ones_like(h), parts)]
    for digit in range(int(units[-1]).bit_length()):
        signs = (1 - 2 * (units >> digit & 1)).repeat(parts).to(h)
        for one, probe in zip(plain, _by_part(signs, parts), strict=True):
            if not all(map(_same, one, _pull(h, tensors, probe))):
                return False
    return True


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two gradients differ in signs alone."""
    if one is None or other is None or one.numel() == 0:
        return True
    tolerance = _SAME * torch.finfo(one.dtype).eps ** 0.5
    return not bool((one.abs() - other.abs()).abs().max() > tolerance * one.abs().max())
