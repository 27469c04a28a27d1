"""What ``python -m lsc_ext experiments`` does: the runs, then tables and a picture of all results in the folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsc_ext.bench.report import between_markers
from lsc_ext.experiments.grid import COMPARISONS, EXPERIMENTS, Run, grid
from lsc_ext.experiments.identification import IDENTIFICATIONS, Identification, identification_grid
from lsc_ext.experiments.identification.picture import draw_identification
from lsc_ext.experiments.identification.summary import findings
from lsc_ext.experiments.identification.table import MARKER, identification_document
from lsc_ext.experiments.picture import draw_shares
from lsc_ext.experiments.results import AnyRun, Result, is_done, read_results, results_file
from lsc_ext.experiments.runner import Progress, Say, execute
from lsc_ext.experiments.statistics import shares
from lsc_ext.experiments.table import ARM_NAMES, document, write_page
from lsc_ext.experiments.table import MARKER as STABILITY_MARKER
from lsc_ext.experiments.text import TEXTS
from lsc_ext.files import write_whole

SEEDS, FULL_SEEDS = (0, 1, 2), (0, 1, 2, 3)
FULL_IDENTIFICATION_SEEDS = tuple(range(10))
#: Experiments by name: of arXiv 2308.12075, then of arXiv 2405.21064.
KNOWN = {**EXPERIMENTS, **IDENTIFICATIONS}
#: A name for several experiments.
GROUPS = {"stability": tuple(EXPERIMENTS), "curse": tuple(IDENTIFICATIONS), "all": tuple(KNOWN)}
IMAGES = ("mnist_5k", "mnist")


@dataclass(frozen=True)
class Options:
    """What the command is told.

    Attributes:
        folder: of the results.
        full: the paper's grid and sizes.
        seeds: None for 3, of the full grid 4, and 10 of one network that learns another.
        workers: processes; None for one per processor.
        images: "mnist_5k" or "mnist".
        text: one of ``text.TEXTS``.
        data: folder with files of published data sets.
        page: whose tables are to be replaced; None for tables.md and identification.md in ``folder``.
        tables: run nothing, only write tables and picture of what is there.
    """

    folder: Path = Path("lsc_experiments")
    full: bool = False
    seeds: tuple[int, ...] | None = None
    workers: int | None = None
    images: str = "mnist_5k"
    text: str = "topics"
    data: Path | None = None
    page: Path | None = None
    tables: bool = False

    def __post_init__(self) -> None:
        for name, known in (("images", IMAGES), ("text", tuple(TEXTS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: expected at least 1, got {self.workers}")
        if self.data is not None and not self.data.is_dir():
            raise ValueError(f"data: expected a folder, got {self.data}")
        if self.page is not None and not self.page.is_file():
            raise ValueError(f"page: expected a page to write tables into, got none at {self.page}")

    def runs(self, experiment: str) -> list[Run]:
        """The grid of an experiment of :data:`EXPERIMENTS`."""
        seeds = self.seeds if self.seeds is not None else (FULL_SEEDS if self.full else SEEDS)
        return grid(experiment, full=self.full, seeds=seeds, images=self.images, text=self.text)

    def identifications(self, experiment: str) -> list[Identification]:
        """The grid of an experiment of :data:`IDENTIFICATIONS`."""
        seeds = self.seeds if self.seeds is not None else (FULL_IDENTIFICATION_SEEDS if self.full else SEEDS)
        return identification_grid(experiment, full=self.full, seeds=seeds)

    def any_runs(self, experiment: str) -> Sequence[AnyRun]:
        """The grid of any experiment."""
        return self.identifications(experiment) if experiment in IDENTIFICATIONS else self.runs(experiment)


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        report: for JSON.
        failed: lines, one for each run that ended with an error.
        files: that were written.
    """

    report: dict[str, Any]
    failed: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def listing(options: Options) -> dict[str, dict[str, Any]]:
    """Experiment -> what it stands for, how many runs it has and how many have a result."""
    listed = {}
    for name, element in KNOWN.items():
        runs, results = options.any_runs(name), read_results(options.folder, name)
        done = sum(is_done(run, results) for run in runs)
        listed[name] = {"element": element, "runs": len(runs), "done": done}
    return listed


def chosen(names: Sequence[str]) -> list[str]:
    """Experiments by name or by that of a group, each once.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in KNOWN and name not in GROUPS:
            raise ValueError(f"experiment: expected names among {', '.join((*KNOWN, *GROUPS))}, got {name!r}")
    wanted = {member for name in names for member in GROUPS.get(name, (name,))}
    return [name for name in KNOWN if name in wanted]


def run_experiments(names: Sequence[str], options: Options, say: Say = print) -> Outcome:
    """Runs what has no result yet, then writes tables and a picture of everything of the same paper in the folder.

    Args:
        names: of experiments, or of groups.
        options: how.
        say: called with a line after each run.

    Raises:
        ValueError: an unknown name, or an option out of range.
        ModuleNotFoundError: matplotlib is missing.
        KeyboardInterrupt: runs that had ended are kept; called again, it goes on.
    """
    import matplotlib  # noqa: F401, a missing package is worth knowing before the work, not after

    wanted = chosen(names)
    parts = [part for part in (EXPERIMENTS, IDENTIFICATIONS) if any(name in part for name in wanted)]
    if options.page is not None:
        for part in parts:  # a page without markers is worth knowing before the work, too
            between_markers(options.page.read_text(), "", _MARKERS[part is IDENTIFICATIONS])
    workers = options.workers or os.cpu_count() or 1
    done: dict[str, Progress] = {}
    for name in wanted:
        runs = [] if options.tables else options.any_runs(name)
        done[name] = execute(name, runs, options.folder, data=options.data, workers=workers, say=say)
    outcome = Outcome({})
    outcome.failed = [f"{run.key}: {error}" for progress in done.values() for run, error in progress.failed.items()]
    outcome.files = [results_file(options.folder, name) for name in wanted]
    for part, write in ((EXPERIMENTS, _write_stability), (IDENTIFICATIONS, _write_curse)):
        progress = {name: found for name, found in done.items() if name in part}
        if progress:
            write(options, progress, outcome)
    outcome.files = [file for file in outcome.files if file.exists()]
    outcome.report["files"] = [str(file) for file in outcome.files]
    return outcome


_MARKERS = (STABILITY_MARKER, MARKER)


def _counted(options: Options, names: Sequence[str]) -> dict[str, dict[str, Result]]:
    """Experiment -> key -> result, of the runs that belong to it."""
    results = {name: read_results(options.folder, name) for name in names}
    return {
        name: {run.key: found[run.key] for run in options.any_runs(name) if is_done(run, found)}
        for name, found in results.items()
    }


def _write_stability(options: Options, done: Mapping[str, Progress], outcome: Outcome) -> None:
    grids = {name: options.runs(name) for name in EXPERIMENTS}
    counted = _counted(options, tuple(EXPERIMENTS))
    outcome.report |= {name: _report(name, counted[name], progress) for name, progress in done.items()}
    picture = draw_shares(counted, options.folder / "shares.svg")
    if options.page is None:
        tables = write_whole(options.folder / "tables.md", document(counted, grids, picture.name).encode())
    else:
        path = os.path.relpath(picture, options.page.parent)
        tables = write_page(options.page, counted, grids, path)
    outcome.files += [picture, tables]


def _write_curse(options: Options, done: Mapping[str, Progress], outcome: Outcome) -> None:
    grids = {name: options.identifications(name) for name in IDENTIFICATIONS}
    counted = _counted(options, tuple(IDENTIFICATIONS))
    lines = findings(counted, grids)
    for name, progress in done.items():
        outcome.report[name] = {
            "runs": len(counted[name]),
            "failed": {run.key: error for run, error in progress.failed.items()},
            "findings": [line for experiment, line in lines if experiment == name],
        }
    picture = draw_identification(counted, grids, options.folder / "identification.svg")
    if options.page is None:
        content = identification_document(counted, grids, picture.name)
        tables = write_whole(options.folder / "identification.md", content.encode())
    else:
        content = identification_document(counted, grids, os.path.relpath(picture, options.page.parent))
        tables = write_whole(options.page, between_markers(options.page.read_text(), content, MARKER).encode())
    outcome.files += [picture, tables]


def _report(name: str, results: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    counted = {}
    for first, second in COMPARISONS[name]:
        share = shares(results.values(), first, second)["all"]
        counted[f"{ARM_NAMES[first]} over {ARM_NAMES[second]}"] = {
            "wins": share.wins,
            "pairs": share.pairs,
            "ties": share.ties,
            "interval": [share.low, share.high],
            "p": share.p,
            "verdict": share.verdict,
        }
    return {
        "runs": len(results),
        "shares": counted,
        "missing": {run.key: reason for run, reason in progress.missing.items()},
        "failed": {run.key: error for run, error in progress.failed.items()},
    }
