"""Which runs an experiment has: a small grid by default, the paper's where it is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

EXPERIMENTS = {
    "ffn": "Figure 2: feed-forward networks of 30 layers, Glorot, He and LSC",
    "recurrent": "Figure 3: deep recurrent networks, not pre-trained, to 1 and to 1/2",
    "reslru": "Figure 4 and Table 1: ResLRU on a language model, with unbalanced targets too",
}
TARGET_ARMS = ("none", "1", "0.5")
#: Experiment -> the comparisons that are counted: does the first arm win over the second?
COMPARISONS: dict[str, tuple[tuple[str, str], ...]] = {
    "ffn": (("lsc", "glorot"), ("lsc", "he"), ("he", "glorot")),
    "recurrent": (("0.5", "1"), ("0.5", "none"), ("1", "none")),
    "reslru": (("0.5", "1"), ("0.5", "none"), ("1", "none"), ("unbalanced", "none"), ("unbalanced", "0.5")),
}


@dataclass(frozen=True)
class Run:
    """Everything that decides what a run computes, but for the data itself.

    Attributes:
        experiment: one of :data:`EXPERIMENTS`.
        task: one of ``tasks.TASKS``.
        source: of the data.
        network: one of ``networks.NETWORKS``.
        layers: how many.
        hidden_size: units of every layer.
        arm: one of ``networks.ARMS``.
        lr: Adam's learning rate.
        seed: of weights, order of batches, dropout and pre-training.
        epochs: of training; the test set is measured after the last.
        batch_size: samples, or columns of text.
        time_steps: words before the gradient is cut; 0 where the data says.
        words: largest vocabulary; 0 where there is none.
        clip: largest norm of a gradient; None for any.
        dropout: of what layers read.
        carry: whether the state at the end of a piece of text is the next piece's first.
        samples: of each part at most; None for all.
        pretrain_steps: at most.
        pretrain_batch: samples, or windows of text, at each.
        pretrain_points: Jacobians of each layer and direction at each.
        pretrain_lr: AdamW's learning rate there.
        tolerance: distance of every layer's mean radius to the target that ends pre-training,
        patience: after so many steps in a row.
    """

    experiment: str
    task: str
    source: str
    network: str
    layers: int
    hidden_size: int
    arm: str
    lr: float
    seed: int
    epochs: int
    batch_size: int
    time_steps: int = 0
    words: int = 0
    clip: float | None = None
    dropout: float = 0.0
    carry: bool = False
    samples: int | None = None
    pretrain_steps: int = 100
    pretrain_batch: int = 32
    pretrain_points: int = 16
    pretrain_lr: float = 0.02
    tolerance: float = 0.03
    patience: int = 3

    @property
    def cell(self) -> tuple[Any, ...]:
        """What runs of different arms and seeds have in common where they belong together."""
        return (self.task, self.source, self.network, self.layers, self.hidden_size, self.lr, self.clip)

    @property
    def key(self) -> str:
        """A name of its own within an experiment."""
        names = (*self.cell, self.arm, self.seed)
        return "-".join("x" if name is None else str(name) for name in names)

    def config(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def grid(experiment: str, *, full: bool, seeds: Sequence[int], images: str, text: str) -> list[Run]:
    """The runs of an experiment, seed by seed.

    Args:
        experiment: one of :data:`EXPERIMENTS`.
        full: the paper's grid and sizes.
        seeds: of all of them.
        images: source of images read at once, row by row or as spikes.
        text: source of words.

    Raises:
        ValueError: an unknown experiment, or seeds that are none or not distinct.
    """
    check_grid(experiment, EXPERIMENTS, seeds)
    cells = {"ffn": _ffn, "recurrent": _recurrent, "reslru": _reslru}[experiment](full, images, text)
    return [
        Run(experiment=experiment, arm=arm, seed=seed, **cell) for seed in seeds for cell, arms in cells for arm in arms
    ]


def check_grid(experiment: str, known: Mapping[str, str], seeds: Sequence[int]) -> None:
    """Raises ValueError for an unknown experiment, or seeds that are none or not distinct."""
    if experiment not in known:
        raise ValueError(f"experiment: expected one of {', '.join(known)}, got {experiment!r}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds: expected distinct numbers, got {list(seeds)}")


Cells = list[tuple[dict[str, Any], tuple[str, ...]]]


def _ffn(full: bool, images: str, text: str) -> Cells:
    rates = (1e-2, 3.16e-3, 1e-3, 3.16e-4, 1e-4, 3.16e-5, 1e-5) if full else (1e-2, 1e-3, 1e-4)
    common = {
        "task": "image",
        "layers": 30,
        "hidden_size": 128,
        "epochs": 50 if full else 6,
        "batch_size": 512 if full else 100,
        "pretrain_steps": 300 if full else 60,
        "pretrain_batch": 64,
        "tolerance": 0.04,
    }
    sources = (images, "cifar10", "cifar100") if full else (images,)
    return [
        ({**common, "source": source, "network": network, "lr": lr}, ("glorot", "he", "lsc"))
        for source, network, lr in itertools.product(sources, ("sin", "relu", "cos"), rates)
    ]


def _recurrent(full: bool, images: str, text: str) -> Cells:
    if not full:
        small = {"layers": 5, "hidden_size": 32, "lr": 3e-3, "pretrain_batch": 16}
        tasks: tuple[dict[str, Any], ...] = (
            {"task": "rows", "source": images, "batch_size": 50, "epochs": 8},
            {
                "task": "language",
                "source": text,
                "batch_size": 32,
                "time_steps": 32,
                "words": 1000,
                "carry": True,
                "epochs": 12,
            },
        )
        few = ("gru", "lstm", "rnn_relu", "alif")
        return [({**small, **task, "network": network}, TARGET_ARMS) for task in tasks for network in few]
    networks = ("gru", "lstm", "rnn_relu", "rnn_sigmoid", "alif", "alif_bipolar")
    cells: Cells = []
    for depth, network in itertools.product((2, 5), networks):
        spiking = network.startswith("alif")
        common = {"network": network, "layers": depth, "epochs": 30, "dropout": 0.3, "pretrain_steps": 300}
        latency = {"task": "latency", "source": images, "batch_size": 256, "lr": 1e-3 if spiking else 1e-2}
        spikes = {"task": "spikes", "source": "shd", "batch_size": 32 if depth == 5 else 100, "lr": 1e-3}
        language = {
            "task": "language",
            "source": text,
            "batch_size": 32,
            "time_steps": 100,
            "words": 10_000,
            "hidden_size": 300,
            "carry": True,
            "lr": 1e-3 if spiking else 3.16e-4,
        }
        latency["hidden_size"] = {"lstm": 42, "gru": 53}.get(network, 128)
        spikes["hidden_size"] = {"lstm": 94, "gru": 117}.get(network, 256)
        cells += [({**common, **task}, TARGET_ARMS) for task in (latency, spikes, language)]
    return cells


def _reslru(full: bool, images: str, text: str) -> Cells:
    arms = (*TARGET_ARMS, "unbalanced")
    common = {"task": "language", "source": text, "network": "res_lru"}
    if not full:
        small = {"hidden_size": 48, "epochs": 6, "batch_size": 16, "time_steps": 64, "words": 1000, "lr": 1e-2}
        small |= {"clip": 1.0, "pretrain_batch": 16, "pretrain_points": 8, "pretrain_lr": 0.05, "tolerance": 0.05}
        return [({**common, **small, "layers": depth}, arms) for depth in (3, 6)]
    figure = {"hidden_size": 128, "epochs": 30, "batch_size": 32, "time_steps": 100, "words": 10_000, "lr": 1e-2}
    large = {**figure, "hidden_size": 256, "batch_size": 64, "time_steps": 300, "lr": 3e-2}
    sizes = [{**figure, "layers": depth} for depth in (3, 6)]
    sizes += [{**large, "layers": depth, "dropout": dropout} for depth, dropout in ((3, 0.2), (6, 0.1))]
    return [
        ({**common, **size, "clip": clip, "pretrain_steps": 500, "pretrain_lr": 0.05, "tolerance": 0.05}, arms)
        for size in sizes
        for clip in (None, 1.0)
    ]
