"""Results of runs in one file per experiment, whole at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsc_ext.experiments.grid import Run
from lsc_ext.experiments.identification.grid import IDENTIFICATIONS, Identification
from lsc_ext.files import write_whole

Result = dict[str, Any]
AnyRun = Run | Identification


def results_file(folder: Path, experiment: str) -> Path:
    """Where the results of an experiment are."""
    return folder / f"{experiment}.json"


def read_results(folder: Path, experiment: str) -> dict[str, Result]:
    """Key of a run -> its "config" and "result"; empty where there is no file.

    Raises:
        ValueError: a file of another kind.
    """
    path = results_file(folder, experiment)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        return {run_of(entry["config"]).key: entry for entry in content["runs"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected results of experiments, got another file: {error}") from error


def write_results(folder: Path, experiment: str, results: Mapping[str, Result]) -> Path:
    """One run on each line, in the order of their keys."""
    lines = [json.dumps(results[key], separators=(",", ":"), allow_nan=False) for key in sorted(results)]
    text = "\n".join((f'{{"experiment":{json.dumps(experiment)},"runs":[', ",\n".join(lines), "]}\n"))
    return write_whole(results_file(folder, experiment), text.encode())


def run_of(config: Mapping[str, Any]) -> AnyRun:
    """The run that a result was computed for."""
    return Identification(**config) if config["experiment"] in IDENTIFICATIONS else Run(**config)


def is_done(run: AnyRun, results: Mapping[str, Result]) -> bool:
    """Whether there is a result of exactly this configuration."""
    return run.key in results and results[run.key]["config"] == run.config()
