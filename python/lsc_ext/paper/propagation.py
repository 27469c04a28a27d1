"""Figures 5 and 13 of arXiv 2405.21064: signals and gradients of deep recurrent networks at initialisation.

Letters: T time steps, B sequences, I features, H width, L layers, t memory, lambda = nu exp(i theta) an eigenvalue.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import stationary_inputs
from lsc_ext.paper.deep_block import NORMS, RECURRENCES, DeepNetwork
from lsc_ext.paper.sequences import check_at_least

#: Features of BERT's embeddings of words, and (weight, rho) pairs of the autocorrelation that the paper fits to them.
FEATURES = 768
WORDS = ((0.0431, 0.997005), (0.332, 0.0))
MEMORIES = (1.0, 10**0.5, 10.0, 10**1.5, 100.0)
OBJECTIVES = ("next", "published")
# Parameters of a recurrence with a curve of their own; a GRU's are all its own, and the others are the rest.
_GROUPS = {"lambda_l0": "lambda", "nu_log_l0": "nu", "theta_log_l0": "theta"}


def signal_propagation(
    *,
    recurrences: Sequence[str] = tuple(RECURRENCES),
    norms: Sequence[str] = ("none", "layer"),
    memories: Sequence[float] = MEMORIES,
    layers: int = 4,
    time_steps: int = 512,
    batch_size: int = 4,
    features: int = FEATURES,
    hidden_size: int = 256,
    objective: str = "next",
    seeds: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean squares of streams, hidden states and gradients of every layer, in float64.

    Inputs are independent Gaussian features with the autocorrelation of words. All networks have the same seeds.

    Args:
        recurrences: of :data:`lsc_ext.paper.deep_block.RECURRENCES`.
        norms: of "none", "layer", "batch".
        memories: t, at least 1.
        layers: L.
        time_steps: T, at least 2.
        batch_size: B.
        features: I.
        hidden_size: H.
        objective: "next": half the mean squared error of the next input; "published": of the one before, which is what
            the paper's code has.
        seeds: draws of inputs and weights that numbers are means of; gradients by angles of the LRU differ by factors
            of 20 and more between two of them.
        seed: of the first inputs; weights have the one after it, the next inputs the one after that, and so on.

    Raises:
        ValueError: a name or a size out of range.
    """
    check_at_least(1, layers=layers, batch_size=batch_size, features=features, hidden_size=hidden_size, seeds=seeds)
    check_at_least(2, time_steps=time_steps)
    for name, values, known in (
        ("recurrences", recurrences, RECURRENCES),
        ("norms", norms, NORMS),
        ("objective", (objective,), OBJECTIVES),
    ):
        if not values:
            raise ValueError(f"{name}: expected at least one, got none")
        for value in values:
            if value not in known:
                raise ValueError(f"{name}: expected names among {', '.join(known)}, got {value!r}")
    if not memories:
        raise ValueError("memories: expected at least one, got none")
    for memory in memories:
        if not 1 <= memory < math.inf:
            raise ValueError(f"memories: expected at least 1, got {memory}")
    inputs = []
    for first in range(seed, seed + 2 * seeds, 2):
        shape, generator = (time_steps, batch_size, features), torch.Generator().manual_seed(first)
        inputs.append((first + 1, stationary_inputs(WORDS, shape, generator=generator, dtype=torch.float64)))
    arms = []
    for recurrence, norm, memory in itertools.product(recurrences, norms, memories):
        draws = []
        for weights, x in inputs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(weights)
                network = DeepNetwork(recurrence, norm, memory, features, hidden_size, layers).double()
            draws.append(measure(network, x, objective))
        arms.append({"recurrence": recurrence, "norm": norm, "memory": memory, **_mean_of(draws)})
    return {
        "config": {
            "recurrences": list(recurrences),
            "norms": list(norms),
            "memories": [str(memory) for memory in memories],
            "layers": layers,
            "time_steps": time_steps,
            "batch_size": batch_size,
            "features": features,
            "hidden_size": hidden_size,
            "objective": objective,
            "seeds": seeds,
            "seed": seed,
        },
        "arms": arms,
        "findings": findings_of(arms),
    }


def curves_of(arms: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The arms of each recurrence and norm, by growing memory."""
    kinds = dict.fromkeys((arm["recurrence"], arm["norm"]) for arm in arms)
    return [
        sorted((arm for arm in arms if (arm["recurrence"], arm["norm"]) == kind), key=lambda arm: float(arm["memory"]))
        for kind in kinds
    ]


def growth_per_block(arm: Mapping[str, Any]) -> float:
    """The factor by which a block multiplies the mean square of the stream, in the geometric mean."""
    streams = arm["output"]
    return float((streams[-1] / streams[0]) ** (1 / (len(streams) - 1)))


def findings_of(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each recurrence and norm, and one on depth."""
    curves = curves_of(arms)
    changes = [f"{_name(curve)} {growth_per_block(curve[-1]) / growth_per_block(curve[0]):.3g}" for curve in curves]
    depth = "growth per block at the longest memory over that at the shortest: " + ", ".join(changes)
    return [*(_finding(curve) for curve in curves), depth]


def _name(curve: Sequence[Mapping[str, Any]]) -> str:
    norm = curve[0]["norm"]
    return f"{curve[0]['recurrence']} {'without' if norm == 'none' else 'with ' + norm} norm"


def _finding(curve: Sequence[Mapping[str, Any]]) -> str:
    first, last = curve[0], curve[-1]
    texts = []
    for own, value in first["gradient"].items():
        low, high = last["gradient_range"][own]
        texts.append(f"{own} {value:.2g} to {last['gradient'][own]:.2g} (draws {low:.2g} to {high:.2g})")
    gradients = ", ".join(texts)
    return (
        f"{_name(curve)}, t = {first['memory']:g} to {last['memory']:g}: a block multiplies the "
        f"stream's mean square by {growth_per_block(first):.3g} to {growth_per_block(last):.3g}; E |h|^2 of the "
        f"last block {first['state'][-1]:.2g} to {last['state'][-1]:.2g}; squared gradients {gradients}"
    )


def loss_of(predicted: Tensor, x: Tensor, objective: str) -> Tensor:
    """Half the mean squared error of predictions [T, B, I] of the input after, or before."""
    error = predicted[:-1] - x[1:] if objective == "next" else predicted[1:] - x[:-1]
    return error.square().mean() / 2


def measure(network: DeepNetwork, x: Tensor, objective: str) -> dict[str, Any]:
    """Mean squares for x [T, B, I]: of streams and states after each block, of gradients by group in all and by block.

    The mean over a group is over all entries of its parameters.
    """
    streams = network.streams(x)
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss_of(network.decoder(streams[-1]), x, objective), parameters)
    with torch.no_grad():
        states = network.states(streams)
    held = [(group_of(name), _block_of(name), gradient) for name, gradient in zip(names, gradients, strict=True)]
    groups = list(dict.fromkeys(group for group, _, _ in held))
    layers = range(len(network.blocks))
    return {
        "output": [_mean_square([stream]) for stream in streams],
        "state": [_mean_square([state]) for state in states],
        "gradient": {own: _mean_square([g for group, _, g in held if group == own]) for own in groups},
        "by_layer": {
            own: [_mean_square([g for group, block, g in held if (group, block) == (own, k)]) for k in layers]
            for own in groups
        },
    }


def group_of(name: str) -> str:
    """Which group a parameter counts in: "lambda", "nu" and "theta", "own" of a GRU, and "rest"."""
    _, recurrent, last = name.rpartition(".recurrence.")
    if recurrent and last.startswith(("weight_", "bias_")):
        return "own"
    return _GROUPS.get(last, "rest") if recurrent else "rest"


def _block_of(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("blocks.") else None


def _mean_of(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over draws, to six digits, and of the gradients of groups the smallest and the largest draw too."""
    gradients = [draw["gradient"] for draw in draws]
    ends = {own: [min(g[own] for g in gradients), max(g[own] for g in gradients)] for own in gradients[0]}
    return {**_rounded_mean(draws), "gradient_range": _rounded_mean([ends])}


def _rounded_mean(draws: Sequence[Any]) -> Any:
    first = draws[0]
    if isinstance(first, dict):
        return {name: _rounded_mean([draw[name] for draw in draws]) for name in first}
    if isinstance(first, list):
        return [_rounded_mean(values) for values in zip(*draws, strict=True)]
    return float(f"{sum(draws) / len(draws):.6g}")


def _mean_square(tensors: Sequence[Tensor]) -> float:
    """Over all entries of all tensors."""
    total = sum(float(tensor.detach().abs().square().sum()) for tensor in tensors)
    return total / sum(tensor.numel() for tensor in tensors)
