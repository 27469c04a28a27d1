"""What networks learn: images at once or row by row, spike trains, and the next word of a text.

Letters: T time steps, B samples, I features, N samples of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from lsc_ext.data import load_images
from lsc_ext.experiments.readers import Spikes, find_file, read_cifar, read_idx, read_shd, sha256_of
from lsc_ext.experiments.text import TEXTS, missing_text, numbers, read_text, vocabulary

TASKS = {
    "image": "images at once",
    "rows": "images row by row",
    "latency": "images as spikes, the brighter the earlier",
    "spikes": "spoken digits as spikes",
    "language": "the next word",
}
MNIST_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR100_FILES = ("train.bin", "test.bin")
SHD_FILES = ("shd_train.h5", "shd_test.h5")
#: Source -> the files it is read from; none where an installed package has it.
SOURCES: dict[str, tuple[str, ...]] = {
    "mnist_5k": (),
    "mnist": MNIST_FILES,
    "cifar10": CIFAR10_FILES,
    "cifar100": CIFAR100_FILES,
    "shd": SHD_FILES,
}
#: Labels of a source of samples.
CLASSES = {"mnist_5k": 10, "mnist": 10, "cifar10": 10, "cifar100": 100, "shd": 20}
LATENCY_STEPS, SPIKE_STEPS, SPIKE_UNITS = 100, 250, 700


@dataclass(frozen=True)
class Part:
    """Samples with labels.

    Attributes:
        labels: [N] int64.
        take: numbers of B samples -> what a network reads, [B, I] or [T, B, I].
    """

    labels: Tensor
    take: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Data in three parts.

    Attributes:
        features: I, or the size of the vocabulary.
        classes: how many labels or words.
        train: samples, or the words of a text as int64 [N].
        validation: likewise.
        test: likewise.
        sha256: of the data.
        guessing: what knowing nothing reaches: the accuracy of drawing a label, or the test part's perplexity under the
            frequencies of words in the training part, each counted once more than it occurs.
    """

    features: int
    classes: int
    train: Part | Tensor
    validation: Part | Tensor
    test: Part | Tensor
    sha256: str
    guessing: float


def missing_data(task: str, source: str, folder: Path | None) -> str | None:
    """Why the data cannot be read here; None where it can."""
    if task == "language":
        return missing_text(source, folder)
    files = [name for name in SOURCES[source] if folder is None or find_file(folder, name) is None]
    return f"no {', '.join(files)} in {folder or 'a folder given by --data'}" if files else None


@lru_cache(maxsize=4)
def load_task(
    task: str, source: str, folder: Path | None = None, *, words: int = 1000, samples: int | None = None
) -> Task:
    """Reads the data of a task.

    Args:
        task: one of :data:`TASKS`.
        source: one of :data:`SOURCES`, for "language" one of ``text.TEXTS``.
        folder: where files of published data sets are.
        words: largest vocabulary, for "language".
        samples: use only the first so many of each part (words, for "language"); None for all.

    Raises:
        ValueError: an unknown name, or a missing file.
        ModuleNotFoundError: a package is not installed.
    """
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    known = TEXTS if task == "language" else SOURCES
    if source not in known or (task == "spikes") != (source == "shd"):
        raise ValueError(f"source: expected one that has data for {task}, got {source!r}")
    missing = missing_data(task, source, folder)
    if missing is not None:
        raise ValueError(f"source {source}: {missing}")
    if task == "language":
        return _language(source, folder, words, samples)
    if task == "spikes":
        assert folder is not None
        return _spikes(folder, samples)
    return _images(task, source, folder, samples)


def windows(stream: Tensor, batch_size: int, time_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A text in order, in ``batch_size`` columns: words [T, B] and the words that follow them [T, B]."""
    length = stream.numel() // batch_size
    columns = stream[: length * batch_size].reshape(batch_size, length).T
    for start in range(0, length - time_steps, time_steps):
        yield columns[start : start + time_steps], columns[start + 1 : start + 1 + time_steps]


def _language(source: str, folder: Path | None, size: int, limit: int | None) -> Task:
    text = read_text(source, folder)
    known = vocabulary(text.train, size)
    train, validation, test = (numbers(words[:limit], known) for words in (text.train, text.validation, text.test))
    guessing = frequency_perplexity(train, test, len(known))
    return Task(len(known), len(known), train, validation, test, text.sha256, guessing)


def frequency_perplexity(train: Tensor, test: Tensor, words: int) -> float:
    """Of ``test`` [N] where every word is expected as often as it is in ``train``, counted once more than it occurs."""
    counts = train.bincount(minlength=words).double() + 1
    return float((-(counts / counts.sum())[test].log().mean()).exp())


def _pixels(source: str, folder: Path | None) -> tuple[list[tuple[Tensor, Tensor]], str]:
    """Images uint8 [N, channels, rows, columns] with labels, in three parts."""
    if source == "mnist_5k":
        images = load_images("mnist")
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
        x = (images.x.permute(1, 0, 2) * 255).round().to(torch.uint8).unsqueeze(1)[order]
        y = images.labels[order]
        return [(x[a:b], y[a:b]) for a, b in ((0, 3500), (3500, 4000), (4000, 5000))], images.sha256
    assert folder is not None
    paths = [path for name in SOURCES[source] if (path := find_file(folder, name)) is not None]
    if source == "mnist":
        read = [read_idx(path) for path in paths]
        pairs = [(read[i].unsqueeze(1), read[i + 1].long()) for i in (0, 2)]
    else:
        batches = [read_cifar(path, 1 if source == "cifar10" else 2) for path in paths]
        joined = (torch.cat([batch[i] for batch in batches[:-1]]) for i in (0, 1))
        pairs = [(next(joined), next(joined)), batches[-1]]
    (x, y), test = pairs
    order = torch.randperm(y.numel(), generator=torch.Generator().manual_seed(0))
    kept, validation = order[: -max(1, y.numel() // 10)], order[-max(1, y.numel() // 10) :]
    return [(x[kept], y[kept]), (x[validation], y[validation]), test], sha256_of(paths)


def _images(task: str, source: str, folder: Path | None, limit: int | None) -> Task:
    parts, digest = _pixels(source, folder)
    shape = parts[0][0].shape
    known = parts[0][0].float()
    mean, std = float(known.mean()), float(known.std())

    def standardised(images: Tensor, chosen: Tensor) -> Tensor:
        return (images[chosen].float().flatten(1) - mean) / std  # [B, I]

    def rows(images: Tensor, chosen: Tensor) -> Tensor:
        read = images[chosen].float() / 255  # [B, channels, rows, columns]
        return read.permute(2, 0, 1, 3).flatten(2)  # [rows, B, channels * columns]

    def latency(images: Tensor, chosen: Tensor) -> Tensor:
        return spike_latency(images[chosen].flatten(1))

    features = {
        "image": shape[1] * shape[2] * shape[3],
        "rows": shape[1] * shape[3],
        "latency": shape[1] * shape[2] * shape[3],
    }[task]
    take = {"image": standardised, "rows": rows, "latency": latency}[task]
    train, validation, test = (Part(y[:limit], partial(take, x[:limit])) for x, y in parts)
    return Task(features, CLASSES[source], train, validation, test, digest, 1 / CLASSES[source])


def spike_latency(pixels: Tensor) -> Tensor:
    """Pixels uint8 [B, I] as one spike each, [T, B, I] float32 with T = 100.

    A pixel p charges a leaky neuron by x = 50 p / 255. Above its threshold of 0.2 it spikes at step
    round(500 ln(x / (x - 0.2))), if that is before T (arXiv 2308.12075).
    """
    x = 50 * pixels.float() / 255
    fires = x > 0.2
    step = torch.where(fires, 500 * torch.log(x / (x - 0.2).clamp(min=1e-6)), torch.full_like(x, LATENCY_STEPS))
    step = step.round().clamp(max=LATENCY_STEPS).long()
    spikes = torch.zeros(LATENCY_STEPS + 1, *x.shape)  # the last row takes what comes too late
    return spikes.scatter_(0, step.unsqueeze(0), 1.0)[:LATENCY_STEPS].contiguous()


def _spikes(folder: Path, limit: int | None) -> Task:
    paths = [path for name in SHD_FILES if (path := find_file(folder, name)) is not None]
    train, test = (read_shd(path) for path in paths)
    held = max(1, train.labels.numel() // 20)
    first, second = _cut(train, 0, -held), _cut(train, -held, None)
    cut = (_cut(part, 0, limit) for part in (first, second, test))
    parts = [Part(part.labels, partial(spike_bins, part)) for part in cut]
    return Task(SPIKE_UNITS, CLASSES["shd"], parts[0], parts[1], parts[2], sha256_of(paths), 1 / CLASSES["shd"])


def _cut(spikes: Spikes, start: int, stop: int | None) -> Spikes:
    return Spikes(spikes.times[start:stop], spikes.units[start:stop], spikes.labels[start:stop])


def spike_bins(spikes: Spikes, chosen: Tensor) -> Tensor:
    """[T, B, 700] float32: 1 where a channel spikes within a bin of 4 ms; the first second, T = 250."""
    x = torch.zeros(SPIKE_STEPS, chosen.numel(), SPIKE_UNITS)
    for place, number in enumerate(chosen.tolist()):
        step = (spikes.times[number].double() * SPIKE_STEPS).floor().long()
        kept = step < SPIKE_STEPS
        x[step[kept], place, spikes.units[number][kept]] = 1.0
    return x
