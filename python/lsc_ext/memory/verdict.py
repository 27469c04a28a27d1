"""Which parameters of a layer are hypersensitive, and which remedy mends that.

Letters: tau a memory in steps, lambda eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lsc_ext.memory.durations import Durations
from lsc_ext.memory.groups import Group
from lsc_ext.memory.parametrization import sensitivity_matrix
from lsc_ext.memory.report import HYPERSENSITIVE, Hypersensitivity, LayerMemory
from lsc_ext.rerun import LayerRun

_DENSE = "take a diagonal recurrence such as lsc.nn.LRU: in a dense one no single number is to blame"
_GATED = "the gates weigh already; shorten the chains by smaller recurrent weights (lsc.pretrain), or " + _DENSE


def hypersensitive_groups(layer: LayerMemory) -> list[int]:
    """Which of a layer's groups have an excess of ``HYPERSENSITIVE`` or more, the gravest first."""
    excess = [group.excess for group in layer.groups]
    found = [i for i, value in enumerate(excess) if value is not None and value >= HYPERSENSITIVE]
    return sorted(found, key=lambda i: -(excess[i] or 0.0))


def verdict(
    layers: Sequence[LayerMemory],
    runs: Sequence[LayerRun],
    groups: Sequence[Sequence[Group]],
    durations: Sequence[Durations | None],
) -> list[Hypersensitivity]:
    """One finding for each remedy, the gravest first."""
    by_remedy: dict[str, list[tuple[float, int, str, float | None]]] = {}
    for layer, run, own, memory in zip(layers, runs, groups, durations, strict=True):
        named = {group.name: group for group in own}
        for i in hypersensitive_groups(layer):
            measure = layer.groups[i]
            remedy = remedy_of(run, named[measure.name], own, memory, len(run.fed))
            entry = (measure.excess or math.inf, layer.layer, measure.name, measure.against_others)
            by_remedy.setdefault(remedy, []).append(entry)
    found = []
    for remedy, entries in by_remedy.items():
        entries.sort(key=lambda entry: -entry[0])
        excess, where, name, others = entries[0]
        span = next(each.span for each in layers if each.layer == where)
        beside = "" if others is None else f", and {others:.2g} times as much as one of the layer's other parameters"
        more = [entry[2] for entry in entries[1:]]
        also = "" if not more else f" So do {len(more)} more: {', '.join(more[:4])}{', ..' if len(more) > 4 else ''}."
        text = (
            f"Hypersensitive: one number of {name} (layer {where}, memories of {span} steps) moves the state "
            f"{excess:.2g} times as much, in mean square, as it would under normalisation and reparametrisation"
            f"{beside}.{also}"
        )
        names = [entry[2] for entry in entries]
        found.append(Hypersensitivity(sorted({e[1] for e in entries}), names, excess, others, text, remedy))
    return sorted(found, key=lambda finding: -finding.excess)


def remedy_of(run: LayerRun, group: Group, groups: Sequence[Group], durations: Durations | None, steps: int) -> str:
    """What in :mod:`lsc_ext.memory` mends a group's hypersensitivity."""
    if run.kind == "lstm":
        return f"weigh what comes in by what is forgotten: lsc.memory.chrono_initialize(layer, {max(steps, 2)})"
    if run.kind in ("gru", "min_gru"):
        return _GATED
    if run.kind == "step":
        return (
            "where the eigenvalues of a diagonal recurrence are parameters, lsc.memory.parametrize_eigenvalues and "
            "lsc.memory.normalize_input; else " + _DENSE
        )
    if run.diagonal is None and run.kind != "ind_rnn":
        return _DENSE
    if durations is None:
        return "its eigenvalues are not finite"
    return _for_diagonal(run, group, groups, durations, steps)


def _for_diagonal(run: LayerRun, group: Group, groups: Sequence[Group], durations: Durations, steps: int) -> str:
    bare = group.weight.name.rpartition("_l")[0]
    raw = bare in ("lambda", "recurrent_weight") and not group.original
    normalize = _normalization(run, groups, group.role if group.role == "bias" else "input")
    if raw and not bool((durations.eigenvalues.abs() < 1).all()):
        return f"shrink the moduli of {group.weight.name} below 1, then measure again"
    if raw:
        name, left = _best(durations, group)
        layout = ', layout="parts"' if bare == "lambda" else ""
        calls = [f'lsc.memory.parametrize_eigenvalues(layer, "{group.weight.name}", "{name}"{layout})'] if name else []
        calls += [normalize] if normalize else []
        if calls:
            return f"{', then '.join(calls)}: of white noise that leaves {left:.2g} times"
    if normalize and bare != "theta_log" and group.original != "original1":
        return normalize
    return _phases(durations, steps) if durations.eigenvalues.is_complex() else "start from shorter memories"


def _phases(durations: Durations, steps: int) -> str:
    """A normalised unit moves with log theta by theta^2 tau^2 / 2, with w of "optimal" by 2 theta^2 tau^2 beside 1."""
    limit = (HYPERSENSITIVE / 2) ** 0.5 / min(durations.largest, steps)
    return f"start from phases below {limit:.2g}: what is left grows as theta^2 tau^2 under any parametrisation here"


def _normalization(run: LayerRun, groups: Sequence[Group], role: str) -> str:
    """The call that normalises the input weights, or the biases; "" where they are already."""
    weight = next((g.weight for g in groups if g.weight.role == role), None)
    if weight is None or any(g.weight is weight and g.original for g in groups):
        return ""
    end = weight.name.rpartition("_l")[2]
    if run.kind == "ind_rnn":
        return f'lsc.memory.normalize_input(layer, "{weight.name}", lambda m: m.recurrent_weight_l{end})'
    return f'lsc.memory.normalize_input(layer, "{weight.name}", lambda m: m.eigenvalues({end}), dim=1)'


def _best(durations: Durations, group: Group) -> tuple[str, float]:
    """Of "exp", "optimal" and "" for none, what leaves the least to normalised units fed white noise, and how much.

    Where phases are large, none may be: then it is the normalisation alone that helps.
    """
    lam = durations.eigenvalues
    lam = torch.where(lam.abs() > 0, lam, torch.full_like(lam, 1e-6))
    left: dict[str, float] = {}
    for name in ("exp", "optimal", "polar"):
        curvature = sensitivity_matrix(lam, 0.0, parametrization=name, normalization="l2").diagonal(dim1=-2, dim2=-1)
        if not lam.is_complex():
            curvature = curvature[..., :1]
        elif name == "polar":  # real and imaginary part share what modulus and arc have
            curvature = (curvature[..., :1] + curvature[..., 1:] / lam.abs().square().unsqueeze(-1)) / 2
        left["" if name == "polar" else name] = float(curvature.mean(0).max())
    if bool((group.tensor.detach() <= 0).any()) and not lam.is_complex():
        del left["exp"]  # whose real eigenvalues are positive
    best = min(left, key=lambda name: left[name])
    return best, left[best]
