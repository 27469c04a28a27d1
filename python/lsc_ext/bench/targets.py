"""What the package set out to reach, and whether a run reached it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lsc_ext.bench.peers import DENSE, JVP, MKL, ONEDNN


@dataclass(frozen=True)
class Target:
    """A figure to reach over some of the rows.

    Attributes:
        group: whose rows.
        text: what is asked, in words.
        at_least: the figure.
        peer: how many times ours the peer's time is; where None, ``value`` is looked up in the row.
        value: a key of the row, or of its ``numbers``.
        statistic: "lowest" of the rows or their "geometric mean".
        where: sizes that a row must have, each one value or a tuple of those that count.
    """

    group: str
    text: str
    at_least: float
    peer: str | None = None
    value: str | None = None
    statistic: str = "lowest"
    where: Mapping[str, Any] = field(default_factory=dict)

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The figure of one row; None where the row has none or does not count."""
        if row["group"] != self.group or not row.get("correct", False) or not self._counts(row["sizes"]):
            return None
        if self.peer is not None:
            ratio = row.get("peers", {}).get(self.peer, {}).get("ratio")
            return None if ratio is None else float(ratio["median"])
        found = {**row.get("numbers", {}), **row}.get(self.value or "")
        return None if found is None else float(found)

    def _counts(self, sizes: Mapping[str, Any]) -> bool:
        return all(
            sizes.get(name) in (wanted if isinstance(wanted, tuple) else (wanted,))
            for name, wanted in self.where.items()
        )


WIDE = (64, 128, 256, 512)
FIXED = {"products": 80, "dtype": "float32", "direction": "time", "N": (256, 1024)}


def _layers(passes: str, batch: int, least: Mapping[str, float]) -> list[Target]:
    return [
        Target(
            "layers",
            f"{passes}, B={batch}: {cell}, times torch.nn",
            figure,
            "torch.nn",
            where={"cell": cell, "B": batch, "passes": passes, "H": WIDE},
        )
        for cell, figure in least.items()
    ]


TARGETS = (
    Target("radii", "over the loop on MKL", 2.0, MKL, statistic="geometric mean", where=FIXED),
    Target("radii", "over the loop on MKL", 1.3, MKL, where=FIXED),
    Target("radii", "over the loop on oneDNN", 1.2, ONEDNN, statistic="geometric mean", where=FIXED),
    Target("radii", "over the jvp loop", 15.0, JVP, statistic="geometric mean", where=FIXED),
    Target("radii", "over jacrev + eigvals", 100.0, DENSE, statistic="geometric mean", where=FIXED),
    Target(
        "radii",
        "of the FMA peak in products, H = 256 and 512",
        0.65,
        value="fraction_of_fma_peak",
        where=FIXED | {"H": (256, 512)},
    ),
    Target(
        "radii", "3-layer GRU to tol 1e-3, over jacrev + eigvals", 40.0, DENSE, where={"L": 3, "tol": 1e-3, "H": 256}
    ),
    *_layers("forward", 32, {"RNN": 2.5, "GRU": 2.5, "LSTM": 0.97}),
    *_layers("forward", 1, {"RNN": 4.0, "GRU": 4.0, "LSTM": 1.5}),
    *_layers("forward and backward", 32, {"RNN": 2.0, "GRU": 2.0, "LSTM": 0.97}),
    *_layers("forward and backward", 1, {"RNN": 2.0, "GRU": 2.0, "LSTM": 0.97}),
    Target("pretrain", "a step over one by jacrev + differentiable eigvals", 30.0, value="ratio", where={"H": 128}),
    Target(
        "pretrain",
        "time allowed over time taken, 30 s at H = 64 and 120 s at H = 256",
        1.0,
        value="limit_over_seconds",
        where={"H": (64, 256)},
    ),
)


def judge(rows: Sequence[Mapping[str, Any]], targets: Sequence[Target] = TARGETS) -> list[dict[str, Any]]:
    """Every target that some row counts for: asked, measured, met, over how many rows."""
    verdicts = []
    for target in targets:
        found = [value for value in map(target.of, rows) if value is not None]
        if not found:
            continue
        measured = min(found) if target.statistic == "lowest" else math.exp(sum(map(math.log, found)) / len(found))
        verdicts.append(
            {
                "group": target.group,
                "target": target.text,
                "statistic": target.statistic,
                "at_least": target.at_least,
                "measured": measured,
                "lowest": min(found),
                "median": statistics.median(found),
                "highest": max(found),
                "rows": len(found),
                "met": measured >= target.at_least,
            }
        )
    return verdicts


def asked_of(row: Mapping[str, Any], targets: Sequence[Target] = TARGETS) -> list[dict[str, Any]]:
    """What one row is held to by itself: each target for the lowest."""
    rows = []
    for target in targets:
        value = target.of(row) if target.statistic == "lowest" else None
        if value is not None:
            rows.append(
                {"target": target.text, "at_least": target.at_least, "measured": value, "met": value >= target.at_least}
            )
    return rows
