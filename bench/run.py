"""Measures, writes bench/results/cpu.json, and renders docs/benchmarks.md and README's table from it.

python bench/run.py [options of `python -m lsc_ext bench`]
python bench/run.py --render    only renders
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lsc_ext.bench.report import render
from lsc_ext.cli import main

ROOT = Path(__file__).parent.parent
RESULTS, PAGE, README = ROOT / "bench" / "results" / "cpu.json", ROOT / "docs" / "benchmarks.md", ROOT / "README.md"


def run(arguments: Sequence[str]) -> int:
    """Returns an exit code; small sizes are neither kept nor rendered."""
    if "--quick" in arguments:
        return main(["bench", *arguments])
    if "--render" not in arguments:
        code = main(["bench", "--output", str(RESULTS), *arguments])
        if code != 0:
            return code
    render(json.loads(RESULTS.read_text()), PAGE, README)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
