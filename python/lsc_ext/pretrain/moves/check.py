"""Whether a model has what the moves change."""

from __future__ import annotations

from lsc_ext.pretrain.config import PretrainConfig
from lsc_ext.pretrain.moves.swap import partners
from lsc_ext.trajectory import Trajectory


def check_moves(trajectory: Trajectory, settings: PretrainConfig) -> None:
    """Refuses a move that would never do anything.

    Raises:
        ValueError: such a move.
    """
    layers = range(trajectory.num_layers)
    weights = [trajectory.weights_of(layer) for layer in layers]
    nothing = {
        "gate_bias": all(trajectory.carry("gate_bias", layer) is None for layer in layers),
        "timescale": all(trajectory.carry("timescale", layer) is None for layer in layers),
        "swap": all(not partners(a, b) for i, a in enumerate(weights) for b in weights[:i]),
        "shuffle": not any(weight.value.dim() >= 2 for row in weights for weight in row),
        "rescale": settings.rescale_rule != "response" and all(w.role == "other" for row in weights for w in row),
    }
    for move in settings.moves:
        if nothing.get(move, False):
            raise ValueError(f"moves: expected such as change something in this model, got {move!r}")
