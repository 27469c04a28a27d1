"""From results of identification to tables, written between markers of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lsc_ext.bench.report import table
from lsc_ext.experiments.identification.grid import IDENTIFICATIONS, Identification
from lsc_ext.experiments.identification.summary import Results, Summary, best, cells, findings, label
from lsc_ext.experiments.provenance import provenance

MARKER = "identification"


def identification_document(
    results: Mapping[str, Results], planned: Mapping[str, Sequence[Identification]], picture: str
) -> str:
    """All tables: what was found, where it ran, and every cell at the better of its learning rates.

    Args:
        results: experiment -> key -> result.
        planned: experiment -> the runs that belong to it, run or not.
        picture: by its path from the page.
    """
    parts = [f"![Losses of students by architecture]({picture})"]
    lines = findings(results, planned)
    if lines:
        parts.append("\n".join(f"- {line}" for _, line in lines))
    for experiment, title in IDENTIFICATIONS.items():
        runs = list(planned.get(experiment, ()))
        kept = {run.key: results[experiment][run.key] for run in runs if run.key in results.get(experiment, {})}
        parts += [f"### {title}", provenance(kept, len(runs), _kind(kept))]
        if kept:
            parts.append(_rates(kept, runs) if experiment == "adam" else _losses(kept, runs, experiment))
    return "\n\n".join(parts) + "\n"


def _kind(results: Results) -> str:
    """How long runs are; "" without results."""
    iterations = sorted({entry["config"]["iterations"] for entry in results.values()})
    return f" of {', '.join(f'{n:,}' for n in iterations)} iterations" if iterations else ""


def _losses(results: Results, runs: Sequence[Identification], experiment: str) -> str:
    """A row for each cell, or for each teacher and a column for each student where there are several teachers."""
    found = cells(runs)
    if experiment in ("long_memory", "angles"):
        name = "memory" if experiment == "long_memory" else "angle"
        head = "nu_0" if experiment == "long_memory" else "largest phase / pi"
        places = list(dict.fromkeys(getattr(run, name) for run in runs))
        students = list(dict.fromkeys(label(run) for run in runs))
        rows = []
        for place in places:
            members = {label(group[0]): group for group in found.values() if getattr(group[0], name) == place}
            power = _power(results, [run for group in members.values() for run in group])
            rows.append((f"{place:g}", power, *(shown(best(results, members[student])) for student in students)))
        return table((f"{head}; loss: mean of seeds (lowest to highest), rate", "silent", *students), rows)
    lines: list[tuple[str, ...]] = []
    for group in found.values():
        several = len({run.memory for run in runs}) > 1
        text = label(group[0]) + (f", nu_0 = {group[0].memory}" if several else "")
        cell = [text, shown(best(results, group)), shown(best(results, group, relative=True))]
        if experiment == "heads":
            cell.append(_share_of_transition(results, group))
        lines.append(tuple(cell))
    titles = ["student", "loss: mean of seeds (lowest to highest), rate", "of a silent student's"]
    if experiment == "heads":
        titles.append("Adam's share of the rate, A")
    return table(titles, lines)


def shown(summary: Summary | None) -> str:
    """A cell of a table."""
    if summary is None:
        return "not run"
    missing = f", {len(summary.losses)} of {len(summary.losses) + summary.missing} seeds" if summary.missing else ""
    lost, mean = summary.rank
    if lost == len(summary.losses):
        return f"diverged, {summary.lr:g}{missing}"
    lowest, highest = summary.reached[0], summary.reached[-1]
    missing += f", {lost} of {len(summary.losses)} diverged" if lost else ""
    return f"{mean:.2g} ({lowest:.2g} to {highest:.2g}), {summary.lr:g}{missing}"


def _power(results: Results, runs: Sequence[Identification]) -> str:
    powers = sorted({results[run.key]["result"]["power"] for run in runs if run.key in results})
    return f"{powers[0]:.3g} to {powers[-1]:.3g}" if powers else "not run"


def _share_of_transition(results: Results, group: Sequence[Identification]) -> str:
    """Geometric mean over numbers and seeds of 1 / (sqrt(v) + eps) at the better rate."""
    summary = best(results, group)
    if summary is None:
        return "not run"
    logs = [
        math.log(results[run.key]["result"]["rates"]["A"]["scale"]["geometric mean"])
        for run in group
        if run.lr == summary.lr and results.get(run.key, {}).get("result", {}).get("rates")
    ]
    return f"{math.exp(sum(logs) / len(logs)):.2g}" if logs else "diverged"


def _rates(results: Results, runs: Sequence[Identification]) -> str:
    """Adam's shares by tensor: geometric mean over seeds of the geometric mean, smallest and largest of all."""
    rows = []
    for group in cells(runs).values():
        found = [results[run.key]["result"]["rates"] for run in group if run.key in results]
        found = [rates for rates in found if rates]
        for name in found[0] if found else ():
            shares = [rates[name] for rates in found]
            signs = sum(row["probe"]["not positive"] for row in shares)
            count = sum(row["probe"]["count"] for row in shares)
            rows.append(
                (f"{label(group[0])}, {name}", _span(shares, "scale"), _span(shares, "probe"), f"{signs} of {count}")
            )
    head = ("tensor: geometric mean (smallest to largest)", "1 / (sqrt(v) + eps)", "as published", "not positive")
    return table(head, rows)


def _span(shares: Sequence[Mapping[str, Any]], kind: str) -> str:
    rows = [row[kind] for row in shares if "geometric mean" in row[kind]]
    if not rows:
        return "none positive"
    mean = math.exp(sum(math.log(row["geometric mean"]) for row in rows) / len(rows))
    return f"{mean:.2g} ({min(r['smallest'] for r in rows):.1g} to {max(r['largest'] for r in rows):.1g})"
