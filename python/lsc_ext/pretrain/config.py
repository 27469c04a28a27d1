"""How pre-training goes about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lsc_ext.operator import DIRECTIONS
from lsc_ext.spectral import METHODS

if TYPE_CHECKING:
    from typing_extensions import Self

MOVES = ("gradient", "rescale", "gate_bias", "timescale", "shuffle", "swap")
PRETRAINED_DIRECTIONS = DIRECTIONS
OPTIMIZERS = ("adamw", "adabelief")
RATES = ("fan_in", "equal")
RESCALE_RULES = ("response", "paper_2023", "paper_2025", "paper_lru", "paper_ffn")
SCHEDULES = ("all", "pair")
SHUFFLE_SCOPES = ("gate", "weight")
SQUARES = ("frobenius", "subsample")
STATES = ("reached", "normal")
STOPS = ("mean", "certain", "paper", "paper_average", "never")
_CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "optimizer": OPTIMIZERS,
    "rates": RATES,
    "rescale_rule": RESCALE_RULES,
    "schedule": SCHEDULES,
    "shuffle_scope": SHUFFLE_SCOPES,
    "square": SQUARES,
    "states": STATES,
    "stop": STOPS,
}


@dataclass(frozen=True)
class PretrainConfig:
    """How :func:`pretrain` goes about it.

    "The paper" is Herranz-Celotti & Rouat, arXiv 2308.12075, and the code that its authors published; which of its
    defects are avoided and which kept is in docs/design/0016. :meth:`paper_rnn`, :meth:`paper_lru` and
    :meth:`paper_ffn` are the schedules of that code.

    Attributes:
        directions: which Jacobians to bring to the target; None for the model's own: time and depth, of layers with a
            linear recurrence time and diagonal, of feed-forward ones depth. "output" needs a readout.
        moves: what changes the weights, in this order whatever order they are given in:

            - "gradient": an optimiser on the mean squared distance of the radii to the target.
            - "rescale": multiply weights by target / measured radius, clipped; see ``rescale_rule``.
            - "gate_bias": move the bias of the gate that multiplies a layer's own past (forget gate of an LSTM, update
              gate of a GRU or minGRU), which no scale of a kernel lowers. Ours.
            - "timescale": multiply the decays of a layer's state (moduli of an LRU, exp(-1/tau) of LIF and ALIF) by
              target / measured radius. Ours. Where a rule of "rescale" has moved them already, it does nothing.
            - "shuffle": permute the entries of matrices (the paper).
            - "swap": exchange the first half of every weight between two layers (the paper, for the LRU).
        steps: most steps to take.
        batch_size: sequences per step.
        max_points: P, points (t, b) measured per layer and direction in one step.
        optimizer: "adamw", or "adabelief" (Zhuang et al., arXiv 2010.07468, with RAdam's rectification) as the paper
            has it.
        lookahead: steps of the optimiser after which the weights go back half of the way (Zhang et al., arXiv
            1907.08610; the paper takes 6); None for no lookahead.
        lr: the learning rate.
        rates: "fan_in": vectors (biases) get ``lr``, matrices lr / (fan in), since a change of all their entries by one
            size moves eigenvalues by fan in times it; "equal": all get ``lr`` (the paper).
        plateau: steps without progress after which the learning rate and the largest rescaling are halved, which
            quiets the noise of fresh points where a target is hard to reach; None for never (the paper).
        weight_decay: of the optimiser, decoupled.
        rescale_rule: which weights a step of "rescale" multiplies, and by what.

            - "response": each kernel by target / radius, damped by how far the radius follows its scale. Ours.
            - "paper_2023": the code of July 2023. All that acts on the input of a layer, with every bias, by target /
              radius along depth ("input" in the first layer; "diagonal" where there is no depth); recurrent weights and
              time constants by target / radius in time.
            - "paper_2025": the code as published last. As before, without biases, and the input weights of LSTM, LIF,
              ALIF and linear layers only.
            - "paper_lru": nu_log of an LRU by target / radius in time, B and C by target / radius along "diagonal".
            - "paper_ffn": the first kernel by 1 / (std sqrt(fan out)), the last by 1 / (std sqrt(fan in)), the others
              by target / radius, at most by 3 in place of 1.15 where the radius is below 1/2.
        rescale_limit: largest relative change of a weight in one rescaling (the paper: 0.15, of the LRU 0.05).
        rescale_probability: that a step rescales.
        shuffle_probability: that a step shuffles (the paper: 0.34, of the LRU 1, feed-forward 0.2).
        shuffle_scope: "gate" permutes within the matrix of each gate; "weight" within a whole weight (the paper).
        shuffle_vectors: whether weights of one dimension are shuffled too.
        swap_probability: that a step swaps.
        anneal: part of the steps within which the probabilities of "shuffle" and "swap" fall linearly to 0; None for
            never (the paper).
        schedule: "all" layers at each step, or a random "pair" of consecutive layers: radii in time of both, along
            depth or diagonal from one to the other; only these two are rescaled, shuffled and swapped.
        states: "reached": radii at the states that the network reaches from zero; "normal": of one step from standard
            normal states (the paper, for the LRU).
        square: how rectangular Jacobians become one number, see :func:`lsc_ext.radii`.
        method: how radii are estimated, see :func:`lsc_ext.spectral_radius`.
        num_matvecs: most products of one side per point; None for the method's default.
        tol: relative residual wanted while optimising.
        stop: when a layer counts as there, for ``patience`` steps in a row.

            - "mean": every layer's mean radius is within ``tolerance`` of its target.
            - "certain": and two standard errors of that mean are within ``tolerance`` too.
            - "paper": as "mean", without "output", and the moving variance (0.9) over layers and directions is below
              0.5, after two best steps below 0.1.
            - "paper_average": the moving average (0.9) of the mean over all layers is within ``tolerance``, that of its
              squared distance below 0.4, after two best steps below 0.1.
            - "never": all steps are taken.
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
    optimizer: str = "adamw"
    lookahead: int | None = None
    lr: float = 0.02
    rates: str = "fan_in"
    plateau: int | None = 30
    weight_decay: float = 0.0
    rescale_rule: str = "response"
    rescale_limit: float = 0.15
    rescale_probability: float = 1.0
    shuffle_probability: float = 0.34
    shuffle_scope: str = "gate"
    shuffle_vectors: bool = False
    swap_probability: float = 1.0
    anneal: float | None = 0.5
    schedule: str = "all"
    states: str = "reached"
    square: str = "frobenius"
    method: str = "auto"
    num_matvecs: int | None = None
    tol: float = 1e-2
    stop: str = "mean"
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
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("steps", "batch_size", "max_points", "patience", "time_steps", "max_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("num_matvecs", "certify_points", "lookahead", "plateau"):
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
        for name in ("rescale_probability", "shuffle_probability", "swap_probability"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a probability above 0, got {getattr(self, name)}")
        if self.anneal is not None and not 0 < self.anneal <= 1:
            raise ValueError(f"anneal: expected None or a number above 0 and at most 1, got {self.anneal}")
        if not isinstance(self.shuffle_vectors, bool):
            raise TypeError(f"shuffle_vectors: expected a bool, got {type(self.shuffle_vectors).__name__}")
        if self.rescale_rule != "response" and self.rescale_limit >= 1:
            raise ValueError(f"rescale_limit: expected less than 1 with {self.rescale_rule}, got {self.rescale_limit}")

    @property
    def needs_gradients(self) -> bool:
        """Whether a move asks how a radius follows a weight; "rescale" takes the answer where it is there anyway."""
        return not {"gradient", "gate_bias", "timescale"}.isdisjoint(self.moves)

    @classmethod
    def paper_rnn(cls, **options: Any) -> Self:
        """The schedule of the paper's recurrent networks; ``options`` are fields that differ from it.

        All layers at each step, in time, along the input and along depth; AdaBelief with lookahead at 7.2e-3, the
        rescaling of July 2023, shuffling without an end, and the stop rule of 21 steps within 0.08. At most 400 steps:
        the paper takes two passes over the time steps of its sequences.
        """
        return cls(**{**_PAPER, **_PAPER_RNN, **options})

    @classmethod
    def paper_lru(cls, **options: Any) -> Self:
        """The schedule of the paper's linear recurrent units; ``options`` are fields that differ from it.

        No gradient: a pair of layers at each of 500 steps, from normal states, is rescaled by at most 5 percent,
        shuffled and half swapped. It is meant for :class:`lsc_ext.nn.ResLRU` and ``data=None``.
        """
        return cls(**{**_PAPER, **_PAPER_LRU, **options})

    @classmethod
    def paper_ffn(cls, **options: Any) -> Self:
        """The schedule of the paper's feed-forward networks; ``options`` are fields that differ from it.

        A pair of consecutive layers at each of at most 10,500 steps (100 epochs of MNIST): a gradient step of AdaBelief
        with lookahead at 1e-4, with probability 0.34 a rescaling and 0.2 a shuffle, until the average over layers has
        been within 0.02 for 11 steps.
        """
        return cls(**{**_PAPER, **_PAPER_FFN, **options})


_PAPER: dict[str, Any] = {
    "optimizer": "adabelief",
    "lookahead": 6,
    "rates": "equal",
    "plateau": None,
    "weight_decay": 1e-4,
    "anneal": None,
    "shuffle_scope": "weight",
    "square": "subsample",
}
_PAPER_RNN: dict[str, Any] = {
    "directions": ("time", "input", "depth"),
    "moves": ("gradient", "rescale", "shuffle"),
    "steps": 400,
    "lr": 7.2e-3,
    "rescale_rule": "paper_2023",
    "stop": "paper",
    "tolerance": 0.08,
    "patience": 21,
}
_PAPER_LRU: dict[str, Any] = {
    "directions": ("time", "diagonal"),
    "moves": ("rescale", "shuffle", "swap"),
    "steps": 500,
    "batch_size": 8,
    "max_points": 8,
    "rescale_rule": "paper_lru",
    "rescale_limit": 0.05,
    "shuffle_probability": 1.0,
    "shuffle_vectors": True,
    "schedule": "pair",
    "states": "normal",
    "stop": "never",
}
_PAPER_FFN: dict[str, Any] = {
    "directions": ("depth",),
    "moves": ("gradient", "rescale", "shuffle"),
    "steps": 10_500,
    "batch_size": 512,
    "lr": 1e-4,
    "rescale_rule": "paper_ffn",
    "rescale_probability": 0.34,
    "shuffle_probability": 0.2,
    "shuffle_vectors": True,
    "schedule": "pair",
    "stop": "paper_average",
    "tolerance": 0.02,
    "patience": 11,
}

#: name -> the constructor of a schedule.
PRESETS: dict[str, Callable[..., PretrainConfig]] = {
    "paper_rnn": PretrainConfig.paper_rnn,
    "paper_lru": PretrainConfig.paper_lru,
    "paper_ffn": PretrainConfig.paper_ffn,
}


def settings_of(config: PretrainConfig | None, preset: str | None, options: dict[str, Any]) -> PretrainConfig:
    """The configuration or preset with these fields changed.

    Raises:
        TypeError: an unknown field.
        ValueError: an unknown preset, or both a configuration and a preset.
    """
    known = {f.name for f in fields(PretrainConfig)}
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: expected an option among {', '.join(sorted(known))}, got an unknown one")
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        if config is not None:
            raise ValueError("preset: expected None beside a config, got both")
        return PRESETS[preset](**options)
    if config is None:
        return PretrainConfig(**options)
    return PretrainConfig(**{**{f.name: getattr(config, f.name) for f in fields(config)}, **options})
