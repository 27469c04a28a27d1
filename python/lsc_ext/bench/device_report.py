"""What GPUs were measured, for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lsc_ext.bench.report import duration, table

NONE = (
    "None of this was measured so far: no machine with a GPU was at hand. `make gpu` measures it where there is one; "
    "without one it compiles everything for sm_90 and stops at the first call of a device."
)


def section(reports: Sequence[Mapping[str, Any]]) -> str:
    """Each device with its stages, constants and races; says so where there is none."""
    return "\n\n".join(_device(report) for report in reports) + "\n" if reports else NONE + "\n"


def _device(report: Mapping[str, Any]) -> str:
    stages = report["stages"]
    parts = [f"### {report['device']}"]
    parts.append(table(("stage", "verdict"), [(name, found["verdict"]) for name, found in stages.items()]))
    constants = stages.get("constants", {})
    if constants.get("figures"):
        parts.append(table(("constant", "measured"), [(n, f"{v:.4g}") for n, v in constants["figures"].items()]))
    if constants.get("wrong"):
        parts.append(f"**Wrong, no figure is shown:** {', '.join(constants['wrong'])}.")
    parts += [text for name in ("layers", "radii") if (text := _races(stages.get(name, {}).get("rows", [])))]
    return "\n\n".join(parts)


def _races(rows: Sequence[Mapping[str, Any]]) -> str:
    right = [row for row in rows if row.get("correct") and "ours" in row]
    shown = [
        (row["case"], duration(row["ours"]["median"]), name, f"{rival['ratio']['median']:.2f}")
        for row in right
        for name, rival in row["peers"].items()
        if "ratio" in rival
    ]
    wrong = [f"**Wrong, no speed is shown:** {row['case']}." for row in rows if not row.get("correct", True)]
    return "\n\n".join(([table(("case", "ours", "rival", "times as fast"), shown)] if shown else []) + wrong)
