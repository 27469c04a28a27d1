"""The runner: one table of cases, group by group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import lsc_ext
from lsc_ext.bench import growth, layers, overhead, products, radii, scan, threads, training
from lsc_ext.bench.case import Case
from lsc_ext.bench.machine import machine
from lsc_ext.bench.measure import measure
from lsc_ext.bench.roofline import copy_peak, fma_peak, fractions, higher, measure_roofline
from lsc_ext.bench.targets import asked_of, judge

Say = Callable[[str], None]
SCHEMA = 2

#: Group by name, in the order of the report: its cases at full or at small sizes.
GROUPS: dict[str, Callable[[bool], list[Case]]] = {
    "radii": radii.cases,
    "layers": layers.cases,
    "pretrain": training.cases,
    "threads": threads.cases,
    "growth": growth.cases,
    "overhead": overhead.cases,
    "scan": scan.cases,
    "products": products.cases,
}


def cases(groups: Sequence[str] | None = None, quick: bool = False) -> list[Case]:
    """The table, or some of its groups.

    Raises:
        ValueError: an unknown group.
    """
    for name in groups or ():
        if name not in GROUPS:
            raise ValueError(f"group: expected one of {', '.join(GROUPS)}, got {name!r}")
    return [case for name, make in GROUPS.items() if groups is None or name in groups for case in make(quick)]


def run_bench(
    quick: bool = False,
    say: Say = print,
    groups: Sequence[str] | None = None,
    earlier: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """Runs every case, or those of some groups.

    Args:
        quick: small sizes, to see that everything runs and is correct.
        say: takes each line.
        groups: names of ``GROUPS``; None for all.
        earlier: a report whose rows of other groups are taken over.
        keep: called with the report so far after each case.

    Returns:
        Plain numbers, ``correct`` telling whether all checks were green.

    Raises:
        ValueError: an unknown group, or an earlier report of another machine, build, torch or number of threads.
    """
    table = cases(groups, quick)
    count = torch.get_num_threads()
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": machine(),
        "build": lsc_ext.build_info(),
        "torch": torch.__version__,
        "threads": count,
        "quick": quick,
    }
    kept = _rows_of_others(earlier, report, {case.group for case in table})
    roofline = measure_roofline(quick)
    if earlier is not None:
        roofline = higher(roofline, earlier["roofline"])
    say(f"{report['machine']['processor']}, {count} threads, torch {torch.__version__}")
    peaks = ", ".join(f"{d} {fma_peak(roofline, d, count) / 1e9:.0f} GFLOP/s" for d in roofline["fma"])
    say(f"peak of multiply-adds: {peaks}; copy: {copy_peak(roofline, count) / 1e9:.1f} GB/s")
    rows: list[dict[str, Any]] = []
    for i, case in enumerate(table):
        if i > 0 and case.group != table[i - 1].group:
            roofline = higher(roofline, measure_roofline(quick))
        try:
            row = measure(case, roofline, count)
        except ModuleNotFoundError as error:
            row = {"group": case.group, "case": case.name, "sizes": dict(case.sizes), "missing": str(error)}
        rows.append(row)
        everything = sorted([*rows, *kept], key=lambda r: list(GROUPS).index(r["group"]))
        for any_row in everything:
            any_row |= fractions(any_row, roofline, count)
            any_row["targets"] = asked_of(any_row)
        for line in lines_of(row):
            say(line)
        report |= {
            "roofline": roofline,
            "correct": all(r.get("correct", True) for r in everything),
            "targets": judge(everything),
            "cases": everything,
        }
        keep(report)
    if report["targets"]:
        say("")
    for verdict in report["targets"]:
        say(line_of_target(verdict))
    return report


def _rows_of_others(
    earlier: Mapping[str, Any] | None, report: Mapping[str, Any], measured: set[str]
) -> list[dict[str, Any]]:
    if earlier is None:
        return []
    for name in ("schema", "machine", "build", "torch", "threads", "quick"):
        if earlier.get(name) != report[name]:
            raise ValueError(
                f"output: expected a report of this {name} to add groups to, got {earlier.get(name)}; "
                "run all groups, or write to another file"
            )
    return [row for row in earlier["cases"] if row["group"] not in measured]


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """A row as text; no speed where a check is red."""
    heading = f"\n{row['group']}: {row['case']}"
    if "missing" in row:
        return [heading, f"  not measured: {row['missing']}"]
    errors = [f"{who}: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()) for who, found in row["errors"].items()]
    if not row["correct"]:
        return [heading, *(f"  WRONG, no speed is shown: {error}" for error in errors)]
    lines = [heading, *(f"  correct, {error}" for error in errors)]
    if "numbers" in row:
        lines.append("  " + ", ".join(f"{name} {_short(value)}" for name, value in row["numbers"].items()))
    if "ours" in row:
        lines.append(f"  {'lsc_ext':<44}{_milliseconds(row['ours'])}   per {row['unit']}{_against_roofline(row)}")
    for name, peer in row.get("peers", {}).items():
        if "missing" in peer:
            lines.append(f"  {name:<44}{peer['missing']}")
            continue
        ratio = peer["ratio"]
        shown = f"{ratio['median']:.2f} x ours ({ratio['lowest']:.2f} .. {ratio['highest']:.2f}, {peer['pairs']} pairs)"
        lines.append(f"  {name:<44}{_milliseconds(peer['time'])}   {shown}")
    for asked in row.get("targets", []):
        verdict = "met" if asked["met"] else "not met"
        lines.append(f"  target {asked['target']}: {asked['at_least']:g}, measured {asked['measured']:.2f}, {verdict}")
    return lines


def line_of_target(verdict: Mapping[str, Any]) -> str:
    """A target with what was measured."""
    return (
        f"{'met    ' if verdict['met'] else 'NOT MET'} {verdict['group']}: {verdict['target']}, "
        f"{verdict['statistic']} of {verdict['rows']}: at least {verdict['at_least']:g}, "
        f"measured {verdict['measured']:.2f}"
    )


def _milliseconds(spread: Mapping[str, float]) -> str:
    return f"{spread['median'] * 1e3:>10.4f} ms"


def _against_roofline(row: Mapping[str, Any]) -> str:
    shown = ""
    if "flops_per_second" in row:
        shown += f", {row['flops_per_second'] / 1e9:.1f} GFLOP/s, {row['fraction_of_fma_peak']:.0%} of the peak"
    if "bytes_per_second" in row:
        shown += f", {row['bytes_per_second'] / 1e9:.1f} GB/s, {row['fraction_of_copy_rate']:.0%} of the copy rate"
    return shown


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_short(item)}" for name, item in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)
