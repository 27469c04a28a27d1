"""Files of the published data sets, where a user has them. Nothing is fetched, nothing is unpickled.

Letters: N samples.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Width of the numbers in an IDX file by its type byte; images and labels are unsigned bytes.
_UNSIGNED_BYTE = 8
_CIFAR_PIXELS = 3 * 32 * 32


def find_file(folder: Path, name: str) -> Path | None:
    """``name`` or ``name``.gz in ``folder`` or anywhere below it; None where there is neither."""
    for wanted in (name, name + ".gz"):
        found = sorted(folder.rglob(wanted))
        if found:
            return found[0]
    return None


def sha256_of(paths: Sequence[Path]) -> str:
    """Of the files' content, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """The content, unpacked where the name ends in .gz."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def read_idx(path: Path) -> Tensor:
    """Unsigned bytes in MNIST's IDX format: uint8 of the shape that the file says.

    Raises:
        ValueError: another format, or a file that is cut short.
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes, got one that begins with {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    values = np.frombuffer(content, np.uint8, offset=min(start, len(content)))
    if not shape or values.size != np.prod(shape):
        raise ValueError(f"{path}: expected {content[3]} sizes and that many bytes, got {values.size} for {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def read_cifar(path: Path, label_bytes: int) -> tuple[Tensor, Tensor]:
    """CIFAR in its binary version: images uint8 [N, 3, 32, 32] and labels int64 [N].

    Args:
        path: of one batch.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, whose second is the fine label.

    Raises:
        ValueError: a size that is no whole number of records.
    """
    content = np.frombuffer(read_bytes(path), np.uint8)
    record = label_bytes + _CIFAR_PIXELS
    if content.size == 0 or content.size % record:
        raise ValueError(f"{path}: expected records of {record} bytes, got {content.size} bytes")
    rows = torch.from_numpy(content.reshape(-1, record).copy())
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].long()


@dataclass(frozen=True)
class Spikes:
    """Spike trains.

    Attributes:
        times: of every spike in seconds, float32, one tensor for each sample.
        units: its channel, int64, likewise.
        labels: [N] int64.
    """

    times: list[Tensor]
    units: list[Tensor]
    labels: Tensor


def read_shd(path: Path) -> Spikes:
    """Spiking Heidelberg Digits, an HDF5 file with labels, spikes/times and spikes/units.

    Raises:
        ModuleNotFoundError: h5py is not installed.
        ValueError: a data set is missing, or lengths do not match.
    """
    try:
        import h5py
    except ImportError as error:
        raise ModuleNotFoundError("h5py: expected it to read HDF5, not installed; pip install h5py") from error
    with h5py.File(path, "r") as file:
        return spikes_of(file, path)


def spikes_of(file: Mapping[str, Any], path: Path) -> Spikes:
    """What an open file of :func:`read_shd` holds."""
    for name in ("labels", "spikes/times", "spikes/units"):
        if name not in file:
            raise ValueError(f"{path}: expected a data set {name}, got none")
    labels = torch.from_numpy(np.asarray(file["labels"]).astype(np.int64))
    times = [torch.from_numpy(np.asarray(row, dtype=np.float32)) for row in file["spikes/times"]]
    units = [torch.from_numpy(np.asarray(row).astype(np.int64)) for row in file["spikes/units"]]
    lengths = [[row.numel() for row in rows] for rows in (times, units)]
    if lengths[0] != lengths[1] or len(times) != labels.numel():
        raise ValueError(f"{path}: expected a time and a unit for each spike and a label for each sample, got others")
    return Spikes(times, units, labels)
