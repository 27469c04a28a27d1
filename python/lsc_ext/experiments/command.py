"""What ``python -m lsc_ext experiments`` does: the runs, then tables and a picture of all results in the folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsc_ext.experiments.grid import COMPARISONS, EXPERIMENTS, Run, grid
from lsc_ext.experiments.picture import draw_shares
from lsc_ext.experiments.results import is_done, planned, read_results, results_file
from lsc_ext.experiments.runner import Progress, Say, execute
from lsc_ext.experiments.statistics import shares
from lsc_ext.experiments.table import ARM_NAMES, document, write_page
from lsc_ext.experiments.text import TEXTS
from lsc_ext.files import write_whole

SEEDS, FULL_SEEDS = (0, 1, 2), (0, 1, 2, 3)
IMAGES = ("mnist_5k", "mnist")


@dataclass(frozen=True)
class Options:
    """What the command is told.

    Attributes:
        folder: of the results.
        full: the paper's grid and sizes.
        seeds: None for 3, of the full grid 4.
        workers: processes; None for one per processor.
        images: "mnist_5k" or "mnist".
        text: one of ``text.TEXTS``.
        data: folder with files of published data sets.
        page: whose tables are to be replaced; None for tables.md in ``folder``.
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
        """The grid of an experiment."""
        seeds = self.seeds if self.seeds is not None else (FULL_SEEDS if self.full else SEEDS)
        return grid(experiment, full=self.full, seeds=seeds, images=self.images, text=self.text)


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
    for name, element in EXPERIMENTS.items():
        runs = options.runs(name)
        left = len(planned(runs, read_results(options.folder, name)))
        listed[name] = {"element": element, "runs": len(runs), "done": len(runs) - left}
    return listed


def chosen(names: Sequence[str]) -> list[str]:
    """Experiments by name, "all" for all, each once.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in EXPERIMENTS and name != "all":
            raise ValueError(f"experiment: expected names among {', '.join((*EXPERIMENTS, 'all'))}, got {name!r}")
    return [name for name in EXPERIMENTS if name in names or "all" in names]


def run_experiments(names: Sequence[str], options: Options, say: Say = print) -> Outcome:
    """Runs what has no result yet, then writes tables and a picture of everything in the folder.

    Args:
        names: of experiments, or "all".
        options: how.
        say: called with a line after each run.

    Raises:
        ValueError: an unknown name, or an option out of range.
        ModuleNotFoundError: matplotlib is missing.
        KeyboardInterrupt: runs that had ended are kept; called again, it goes on.
    """
    import matplotlib  # noqa: F401, a missing package is worth knowing before the work, not after

    wanted = chosen(names)
    grids = {name: options.runs(name) for name in EXPERIMENTS}
    workers = options.workers or os.cpu_count() or 1
    done: dict[str, Progress] = {}
    for name in wanted:
        runs = [] if options.tables else grids[name]
        done[name] = execute(name, runs, options.folder, data=options.data, workers=workers, say=say)
    results = {name: read_results(options.folder, name) for name in EXPERIMENTS}
    counted = {
        name: {run.key: found[run.key] for run in grids[name] if is_done(run, found)} for name, found in results.items()
    }
    outcome = Outcome({name: _report(name, counted[name], progress) for name, progress in done.items()})
    outcome.failed = [f"{run.key}: {error}" for progress in done.values() for run, error in progress.failed.items()]
    picture = draw_shares(counted, options.folder / "shares.svg")
    if options.page is None:
        tables = write_whole(options.folder / "tables.md", document(counted, grids, picture.name).encode())
    else:
        path = os.path.relpath(picture, options.page.parent)
        tables = write_page(options.page, counted, grids, path)
    outcome.files = [*(results_file(options.folder, name) for name in wanted), picture, tables]
    outcome.files = [file for file in outcome.files if file.exists()]
    outcome.report["files"] = [str(file) for file in outcome.files]
    return outcome


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
