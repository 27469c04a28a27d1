"""Small files in the formats of published data sets."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, rng: np.random.Generator) -> None:
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def write_cifar(folder: Path, rng: np.random.Generator) -> None:
    for name, labels in (("cifar-10-batches-bin", 1), ("cifar-100-binary", 2)):
        (folder / name).mkdir()
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if labels == 1 else ["train", "test"]
        for file in names:
            rows = rng.integers(0, 256, (20, labels + 3072)).astype(np.uint8)
            rows[:, :labels] %= 10
            (folder / name / f"{file}.bin").write_bytes(rows.tobytes())


def shd(rng: np.random.Generator, count: int) -> dict[str, object]:
    """What an SHD file holds, by the names of its data sets."""
    lengths = rng.integers(5, 30, count)
    return {
        "labels": np.arange(count) % 20,
        "spikes/times": [rng.uniform(0, 1.3, n).astype(np.float16) for n in lengths],
        "spikes/units": [rng.integers(0, 700, n).astype(np.uint16) for n in lengths],
    }


def write_ptb(folder: Path) -> None:
    for part, lines in (("train", 30), ("valid", 6), ("test", 6)):
        text = "".join(f" the <unk> dog no {i % 3} saw a cat \n" for i in range(lines))
        (folder / f"ptb.{part}.txt").write_text(text)


def write_data_sets(folder: Path) -> Path:
    """MNIST, CIFAR-10, CIFAR-100 and Penn Treebank; of SHD names alone, see :func:`shd`."""
    rng = np.random.default_rng(0)
    write_mnist(folder, rng)
    write_cifar(folder, rng)
    write_ptb(folder)
    return folder
