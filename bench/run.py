"""Runs the benchmark and writes bench/results/cpu.json, with the machine that it was measured on."""

import sys
from pathlib import Path

from lsc_ext.cli import main

if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    sys.exit(main(["bench", "--output", str(results / "cpu.json"), *sys.argv[1:]]))
