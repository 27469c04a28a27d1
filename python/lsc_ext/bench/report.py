"""From a report to pages: the tables of docs/benchmarks.md and of README, written between markers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.bench import peers, pictures
from lsc_ext.files import write_whole

Rows = Sequence[Mapping[str, Any]]
RIVALS = {
    peers.MKL: "MKL loop",
    peers.ONEDNN: "oneDNN loop",
    peers.JVP: "jvp loop",
    peers.DENSE: "jacrev + eigvals",
    peers.ARPACK: "ARPACK",
    peers.MATFREE: "matfree, jax",
}


def render(report: Mapping[str, Any], page: Path, readme: Path) -> None:
    """Writes the tables of ``page`` and of ``readme``, and the pictures into a folder beside ``page`` of its name.

    Raises:
        ValueError: a page without the markers.
    """
    folder = page.with_suffix("")
    drawn = pictures.draw(report["cases"], folder)
    for path, content in (
        (page, document(report, [f"{folder.name}/{p.name}" for p in sorted(drawn)])),
        (readme, summary(report)),
    ):
        write_whole(path, between_markers(path.read_text(), content).encode())


def between_markers(text: str, content: str, name: str = "benchmarks") -> str:
    """The text with what stands between <!-- name --> and <!-- /name --> replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"page: expected <!-- {name} --> and <!-- /{name} -->, got none")
    return re.sub(pattern, lambda found: found[1] + content + found[2], text, flags=re.DOTALL)


def summary(report: Mapping[str, Any]) -> str:
    """How many times as fast as each rival, over all cases that they share."""
    return f"{_machine(report)}\n\n{_ratios(report['cases'])}\n"


def document(report: Mapping[str, Any], drawn: Sequence[str] = ()) -> str:
    """Every section that has rows; ``drawn`` are the pictures, by their path from the page."""
    parts = [_machine(report), _roofline(report)]
    if report["targets"]:
        parts += ["## Asked and measured", _targets(report["targets"])]
    for group, (title, sections) in SECTIONS.items():
        rows = [row for row in report["cases"] if row["group"] == group]
        if rows:
            parts.append(f"## {title}")
            parts += [f"![{title}]({path})" for path in drawn if Path(path).stem.startswith(group)]
            parts += [text for section in sections if (text := section([r for r in rows if "missing" not in r]))]
            parts += [f"Not measured, {row['case']}: {row['missing']}." for row in rows if "missing" in row]
            parts += [f"**Wrong, no speed is shown:** {row['case']}." for row in rows if not row.get("correct", True)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left, the others to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    """Three digits with a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _times(ratio: Mapping[str, float]) -> str:
    return f"{_digits(ratio['median'])} ({_digits(ratio['lowest'])} to {_digits(ratio['highest'])})"


def _machine(report: Mapping[str, Any]) -> str:
    build = report["build"]
    return (
        f"Measured on {report['machine']['processor']} ({report['machine']['system']}), {report['threads']} threads, "
        f"instruction set {build['instruction_set']}, {build['compiler']}, torch {report['torch']}."
    )


def _roofline(report: Mapping[str, Any]) -> str:
    roofline, counts = report["roofline"], list(report["roofline"]["copy"])
    rows = [
        (f"multiply-adds, {dtype}, GFLOP/s", *(f"{rates[n] / 1e9:.1f}" for n in counts))
        for dtype, rates in roofline["fma"].items()
    ]
    rows.append(("copy, GB/s read and written", *(f"{roofline['copy'][n] / 1e9:.1f}" for n in counts)))
    return table(("the machine's limit, by threads", *counts), rows)


def _ratios(rows: Rows) -> str:
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in _timed(rows):
        for name, rival in row.get("peers", {}).items():
            if "ratio" in rival and (subject := _subject(row)):
                measured = (row["sizes"]["H"], rival["ratio"]["median"])
                found.setdefault((subject, RIVALS.get(name, name)), []).append(measured)
    lines = []
    for (subject, rival), measured_by_width in found.items():
        widths, ratios = zip(*measured_by_width, strict=True)
        mean, lowest, highest = statistics.geometric_mean(ratios), min(ratios), max(ratios)
        width = f"{min(widths)} to {max(widths)}" if min(widths) < max(widths) else str(min(widths))
        spread = f"{_digits(lowest)} to {_digits(highest)}"
        lines.append((subject, rival, width, str(len(ratios)), _digits(mean), spread))
    return table(("", "rival", "H", "cases", "times as fast: geometric mean", "lowest to highest"), lines)


def _subject(row: Mapping[str, Any]) -> str | None:
    sizes = row["sizes"]
    if row["group"] == "layers":
        return f"{sizes['passes']}, {sizes['cell']}, B = {sizes['B']}"
    if row["group"] == "radii" and "tol" in sizes:
        return f"radii: {row['case']}"
    if row["group"] == "radii" and (sizes["dtype"], sizes["direction"]) == ("float32", "time"):
        return f"radii: {sizes['products']} products for each point"
    return None


def _targets(verdicts: Rows) -> str:
    rows = [
        (
            f"{v['group']}: {v['target']}, {v['statistic']} of {v['rows']}"
            if v["rows"] > 1
            else f"{v['group']}: {v['target']}",
            f"{v['at_least']:g}",
            _digits(v["measured"]),
            f"{_digits(v['lowest'])}, {_digits(v['median'])}, {_digits(v['highest'])}",
            "yes" if v["met"] else f"**no**, {1 - v['measured'] / v['at_least']:.0%} short",
        )
        for v in verdicts
    ]
    return table(("", "at least", "measured", "lowest, median, highest", "reached"), rows)


def _timed(rows: Rows) -> Rows:
    return [row for row in rows if "ours" in row]


def _radii_speed(rows: Rows) -> str:
    """Times of ours, then how many times as long each other takes."""

    def cells(row: Mapping[str, Any]) -> Sequence[str]:
        products = row["sizes"].get("products")
        return (
            row["case"],
            duration(row["ours"]["median"]),
            duration(row["ours"]["median"] / products) if products else "–",
            f"{row['fraction_of_fma_peak']:.0%}" if "fraction_of_fma_peak" in row else "–",
            *(_rival(row["peers"], name) for name in RIVALS),
        )

    timed = _timed(rows)
    if not timed:
        return ""
    head = (
        "case",
        "ours, per point",
        "per product",
        "of FMA peak",
        *(f"{name}, times ours" for name in RIVALS.values()),
    )
    others = sorted({name for row in timed for name in row["peers"] if name not in RIVALS})
    notes = [
        f"{row['case']}: {name} takes {_times(row['peers'][name]['ratio'])} times ours."
        for name in others
        for row in timed
        if name in row["peers"]
    ]
    return "\n\n".join([table(head, map(cells, timed)), *notes])


def _rival(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        return "–"
    return found[name]["missing"] if "missing" in found[name] else _times(found[name]["ratio"])


def _radii_accuracy(rows: Rows) -> str:
    def shown(errors: Mapping[str, float]) -> str:
        return f"{errors['median']:.0e}, {errors['90th percentile']:.0e}" if "median" in errors else "–"

    timed = [row for row in _timed(rows) if "median" in row["errors"]["lsc_ext"]]
    if not timed:
        return ""
    names = {"lsc_ext": "ours", **RIVALS}
    lines = [(row["case"], *(shown(row["errors"].get(name, {})) for name in names)) for row in timed]
    return (
        "Relative error against LAPACK in float64, median and 90th percentile of a sample of the points:\n\n"
        + table(("case", *names.values()), lines)
    )


def _against_torch(rows: Rows) -> str:
    """A line per layer."""

    def cells(row: Mapping[str, Any]) -> Sequence[str]:
        peer = row["peers"]["torch.nn"]
        return (
            row["case"],
            duration(row["ours"]["median"]),
            duration(peer["time"]["median"]),
            _times(peer["ratio"]),
            str(peer["pairs"]),
            f"{row['flops_per_second'] / 1e9:.0f}",
            f"{row['fraction_of_fma_peak']:.0%}",
        )

    head = ("case", "ours", "torch.nn", "times ours", "pairs", "GFLOP/s", "of FMA peak")
    timed = _timed(rows)
    return table(head, map(cells, timed)) if timed else ""


def _everybody(rows: Rows) -> str:
    """A line per contender."""
    lines: list[Sequence[str]] = []
    timed = _timed(rows)
    for row in timed:
        rate = f"{row['fraction_of_fma_peak']:.0%} of FMA peak" if "fraction_of_fma_peak" in row else ""
        rate = f"{row['fraction_of_copy_rate']:.0%} of copy rate" if "fraction_of_copy_rate" in row else rate
        lines.append((f"{row['case']}: **ours**", duration(row["ours"]["median"]), "1", str(row["pairs"]), rate))
        for name, peer in row["peers"].items():
            if "missing" in peer:
                lines.append((name, peer["missing"], "", "", ""))
            else:
                lines.append((name, duration(peer["time"]["median"]), _times(peer["ratio"]), str(peer["pairs"]), ""))
    return table(("who", f"per {timed[0]['unit']}", "times ours", "pairs", "limit"), lines) if lines else ""


def _steps(rows: Rows) -> str:
    found = [(row, row["numbers"]) for row in rows if "ratio" in row.get("numbers", {})]
    lines = [
        (
            row["case"],
            duration(n["ours"]["median"]),
            duration(n["jacrev"]["median"]),
            _digits(n["ratio"]),
            f"{n['steps']['ours']}, {n['steps']['jacrev']}",
            f"{row['errors']['lsc_ext']['gradient']:.0e}",
        )
        for row, n in found
    ]
    head = ("case", "ours", "jacrev + differentiable eigvals", "times ours", "steps timed", "gradients differ by")
    return table(head, lines) if lines else ""


def _arrivals(rows: Rows) -> str:
    found = [(row, row["numbers"]) for row in rows if "limit" in row.get("numbers", {})]
    lines = [
        (
            row["case"],
            f"{n['seconds']:.1f} s of {n['limit']} s",
            str(n["steps"]),
            f"{row['errors']['lsc_ext']['worst distance']:.3f}",
            f"{1 - row['errors']['lsc_ext']['not certified']:.1%}",
        )
        for row, n in found
    ]
    head = ("stack", "time, and what is allowed", "steps", "worst layer's distance", "certified")
    return table(head, lines) if lines else ""


def _excess(rows: Rows) -> str:
    found = [row["numbers"] for row in rows if "excess_seconds" in row.get("numbers", {})]
    return "\n\n".join(
        f"A torch product ({duration(n['seconds']['product'])}) and a layer in turns take beyond their times alone: "
        + ", ".join(
            f"{who} {value['median'] * 1e6:.1f} µs ({value['lowest'] * 1e6:.1f} to {value['highest'] * 1e6:.1f})"
            for who, value in n["excess_seconds"].items()
        )
        + "."
        for n in found
    )


def _exponents(rows: Rows) -> str:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    found = [(row, row["numbers"]) for row in rows if "time_exponent" in row.get("numbers", {})]
    lines = [
        (
            n["letter"],
            f"{n['values'][0]} to {n['values'][-1]}",
            ", ".join(f"{k}={v}" for k, v in row["sizes"].items() if k != "cell"),
            f"{duration(n['seconds'][0])} to {duration(n['seconds'][-1])}",
            shown(n["time_exponent"]),
            " to ".join("–" if n["peak_bytes"][i] is None else f"{n['peak_bytes'][i] / 2**20:.1f}" for i in (0, -1)),
            " to ".join(f"{n['trajectory_bytes'][i] / 2**20:.1f}" for i in (0, -1)),
            shown(n["memory_exponent"]),
        )
        for row, n in found
    ]
    head = ("grows", "from, to", "others", "time", "exponent", "peak MiB", "of it trajectory", "exponent")
    return table(head, lines) if lines else ""


Section = Callable[[Rows], str]
#: Group -> its heading and what its rows are shown as.
SECTIONS: dict[str, tuple[str, tuple[Section, ...]]] = {
    "radii": ("Radii", (_radii_speed, _radii_accuracy)),
    "layers": ("Layers", (_against_torch,)),
    "pretrain": ("Pre-training", (_steps, _arrivals)),
    "threads": ("Threads", (_excess, _everybody)),
    "growth": ("Growth of cost", (_exponents,)),
    "overhead": ("What a call costs", (_everybody,)),
    "scan": ("Scans", (_everybody,)),
    "products": ("Jacobian products of a step in plain torch", (_everybody,)),
}
