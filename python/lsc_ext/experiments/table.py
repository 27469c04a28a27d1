"""From results to the tables of docs/experiments.md, written between markers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lsc_ext.bench.report import between_markers, table
from lsc_ext.experiments.grid import COMPARISONS, EXPERIMENTS, Run
from lsc_ext.experiments.networks import ARMS, NETWORKS
from lsc_ext.experiments.provenance import provenance
from lsc_ext.experiments.results import Result
from lsc_ext.experiments.statistics import Share, shares
from lsc_ext.experiments.tasks import TASKS
from lsc_ext.files import write_whole

ARM_NAMES = {
    "none": "not pre-trained",
    "glorot": "Glorot",
    "he": "He",
    "lsc": "LSC",
    "1": "to 1",
    "0.5": "to 1/2",
    "unbalanced": "unbalanced",
}
MARKER = "experiments"
#: A mean radius this far from its target is still called there (the paper's own rule is 0.02 for the mean of all).
REACHED = 0.05
Results = Mapping[str, Result]


def write_page(page: Path, results: Mapping[str, Results], planned: Mapping[str, Sequence[Run]], picture: str) -> Path:
    """Replaces the tables of a page.

    Args:
        page: with the markers.
        results: experiment -> key -> result.
        planned: experiment -> the runs that belong to it, run or not.
        picture: by its path from the page.

    Raises:
        ValueError: a page without the markers.
    """
    content = document(results, planned, picture)
    return write_whole(page, between_markers(page.read_text(), content, MARKER).encode())


def document(results: Mapping[str, Results], planned: Mapping[str, Sequence[Run]], picture: str) -> str:
    """All tables: where and on what it ran, and for each experiment shares, results and radii."""
    parts = [f"![Shares of experiments in which an arm wins]({picture})"]
    for experiment in EXPERIMENTS:
        runs = list(planned.get(experiment, ()))
        kept = {run.key: results[experiment][run.key] for run in runs if run.key in results.get(experiment, {})}
        parts += [f"## {EXPERIMENTS[experiment]}", provenance(kept, len(runs), data=_data(kept))]
        if kept:
            parts += [share_table(kept, experiment), result_table(kept, runs)]
            parts += [text for text in (radius_table(kept),) if text]
    return "\n\n".join(parts) + "\n"


def _data(results: Results) -> str:
    """A sentence on what was read; "" without results."""
    found = sorted({(entry["config"]["source"], entry["result"]["data"][:12]) for entry in results.values()})
    texts = ", ".join(f"{source} (SHA-256 {digest}...)" for source, digest in found)
    return f"Data: {texts}. " if texts else ""


def share_table(results: Results, experiment: str) -> str:
    """How often one arm wins over another, with Wilson intervals; seeds of one network are counted apart."""
    rows = []
    for first, second in COMPARISONS[experiment]:
        for group, share in shares(results.values(), first, second).items():
            name = f"{ARM_NAMES[first]} over {ARM_NAMES[second]}"
            rows.append((f"**{name}**" if group == "all" else f"{name}: {_group(group)}", *share_cells(share)))
    return table(("arm over arm", "wins", "pairs", "ties", "share", "95% interval", "p", "verdict"), rows)


def share_cells(share: Share) -> tuple[str, ...]:
    """A line of the table."""
    if share.pairs == 0:
        return ("0", "0", str(share.ties), "–", "–", "–", "not run" if share.ties == 0 else share.verdict)
    interval = f"{share.low:.0%} to {share.high:.0%}"
    verdict = share.verdict if share.verdict == "no claim" else f"**{share.verdict}**"
    return (
        *(str(n) for n in (share.wins, share.pairs, share.ties)),
        f"{share.share:.0%}",
        interval,
        f"{share.p:.2g}",
        verdict,
    )


def _group(name: str) -> str:
    return NETWORKS.get(name, TASKS.get(name, name))


def result_table(results: Results, runs: Sequence[Run]) -> str:
    """What each cell reached on the test set: mean over seeds, lowest to highest."""
    arms = [arm for arm in ARMS if any(run.arm == arm for run in runs)]
    cells = list(dict.fromkeys(run.cell for run in runs))
    rows = []
    for cell in cells:
        of_cell = [run for run in runs if run.cell == cell]
        found = [_scores(results, [run for run in of_cell if run.arm == arm]) for arm in arms]
        rows.append((_cell_name(of_cell[0], runs), *found))
    measure = sorted({"perplexity" if run.task == "language" else "accuracy" for run in runs})
    head = f"test {' or '.join(measure)}: mean of seeds (lowest to highest)"
    return table((head, *(ARM_NAMES[arm] for arm in arms)), rows)


def _cell_name(run: Run, runs: Sequence[Run]) -> str:
    """What tells a cell from the others."""
    sources = {r.source for r in runs if r.task == run.task}
    parts: list[tuple[str, Callable[[Run], Any]]] = [
        (NETWORKS[run.network], lambda r: r.network),
        (TASKS[run.task], lambda r: r.task),
        (run.source, lambda r: r.source if len(sources) > 1 else None),
        (f"{run.layers} layers", lambda r: r.layers),
        (f"{run.hidden_size} units", lambda r: r.hidden_size if len({r.network for r in runs}) == 1 else None),
        (f"learning rate {run.lr:g}", lambda r: r.lr),
        ("not clipped" if run.clip is None else "clipped", lambda r: r.clip),
    ]
    return ", ".join(text for text, value in parts if len({value(r) for r in runs}) > 1) or NETWORKS[run.network]


def _scores(results: Results, runs: Sequence[Run]) -> str:
    found = [results[run.key]["result"]["test"] for run in runs if run.key in results]
    if not found:
        return "not run"
    finite = sorted(value for value in found if value is not None)
    missing = "" if len(found) == len(runs) else f", {len(found)} of {len(runs)} seeds"
    lost = len(found) - len(finite)
    missing += f", {lost} diverged" if lost else ""
    if not finite:
        return missing.removeprefix(", ")
    shown = "{:.1f}" if runs[0].task == "language" else "{:.3f}"
    mean, lowest, highest = (shown.format(v) for v in (statistics.mean(finite), finite[0], finite[-1]))
    return f"{mean} ({lowest} to {highest}){missing}"


def radius_table(results: Results) -> str:
    """Where pre-training started and what it reached, on held-out points."""
    groups: dict[tuple[str, str, int, str], list[dict[str, Any]]] = {}
    for entry in results.values():
        run, done = Run(**entry["config"]), entry["result"]
        if done["pretraining"] is not None:
            groups.setdefault((run.task, run.network, run.layers, run.arm), []).append(done)
    rows = []
    for (task, network, layers, arm), done in sorted(groups.items()):
        found = [entry["pretraining"] for entry in done]
        there = sum(row["deviation"] <= REACHED for row in found)
        seconds = statistics.mean(entry["seconds"]["pretraining"] for entry in done)
        rows.append(
            (
                f"{NETWORKS[network]}, {TASKS[task]}, {layers} layers, {ARM_NAMES[arm]}",
                _means(found, "before"),
                _means(found, "after"),
                f"{there} of {len(found)}",
                f"{max(row['deviation'] for row in found):.3f}",
                f"{statistics.mean(row['steps'] for row in found):.0f}",
                f"{seconds:.1f}",
            )
        )
    head = ("mean radii of the layers", "before", "after", f"within {REACHED}", "worst", "steps", "seconds")
    return table(head, rows) if rows else ""


def _means(found: Sequence[Mapping[str, Any]], moment: str) -> str:
    """Lowest and highest mean radius of any layer and seed, by direction."""
    texts = []
    for direction in found[0]["targets"]:
        means = [mean for row in found for mean in row[moment][direction]]
        texts.append(f"{direction} {min(means):.2f} to {max(means):.2f}")
    return ", ".join(texts)
