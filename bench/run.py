"""Measures, writes bench/results/cpu.json, and renders docs/benchmarks.md and README's table from it.

python bench/run.py [options of `python -m lsc_ext bench`]
python bench/run.py --render    only renders
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsc_ext.bench import device_report
from lsc_ext.bench.report import between_markers, render
from lsc_ext.cli import main
from lsc_ext.files import write_whole

ROOT = Path(__file__).parent.parent
RESULTS, PAGE, README = ROOT / "bench" / "results" / "cpu.json", ROOT / "docs" / "benchmarks.md", ROOT / "README.md"


def device_reports() -> list[dict[str, Any]]:
    """What bench/gpu/run.py --keep left, one for each device."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.parent.glob("*.json"))]
    return [report for report in found if "stages" in report]


def run(arguments: Sequence[str]) -> int:
    """Returns an exit code; small sizes are neither kept nor rendered."""
    if "--quick" in arguments:
        return main(["bench", *arguments])
    if "--render" not in arguments:
        code = main(["bench", "--output", str(RESULTS), *arguments])
        if code != 0:
            return code
    render(json.loads(RESULTS.read_text()), PAGE, README)
    section = device_report.section(device_reports())
    write_whole(PAGE, between_markers(PAGE.read_text(), section, "gpu").encode())
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
