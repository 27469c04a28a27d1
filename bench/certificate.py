"""How often a converged radius is wrong: random matrices of eight kinds against LAPACK.

python bench/certificate.py [--matrices 100000] [--seed 1] [--output bench/results/certificate.json]
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from lsc_ext.testing import MATRIX_KINDS, CertificateCounts, count_certificate

SIZES = (3, 9, 17, 33, 35, 37, 41, 47, 53, 57, 65, 71, 83, 97, 111, 127, 128)
DTYPES = (torch.float64, torch.float32)
TOL = 1e-3


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def row(counts: CertificateCounts) -> dict[str, object]:
    """What is reported of a kind in one dtype."""
    return {
        "matrices": counts.matrices,
        "converged": counts.converged,
        "off_by_10_tol": counts.off,
        "off_by_5_percent": counts.far_off,
        "worst_relative_error": counts.worst,
        "median_matvecs": counts.median_matvecs,
        "status": counts.status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matrices", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "certificate.json")
    arguments = parser.parse_args()
    each = -(-arguments.matrices // (len(MATRIX_KINDS) * len(DTYPES) * len(SIZES)))
    kinds: dict[str, dict[str, object]] = {}
    print(
        f"{'kind':18} {'dtype':8} {'matrices':>8} {'converged':>9} {'off':>4} {'> 5 %':>5} {'worst':>8} {'matvecs':>7}"
    )
    for kind in MATRIX_KINDS:
        kinds[kind] = {}
        for single, dtype in enumerate(DTYPES):
            parts = [
                count_certificate(kind, each, n, dtype, seed=2000 * arguments.seed + 1000 * single + n, tol=TOL)
                for n in SIZES
            ]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            name = str(dtype).removeprefix("torch.")
            kinds[kind][name] = row(total)
            share = total.converged / total.matrices
            print(
                f"{kind:18} {name:8} {total.matrices:8} {share:9.4f} {total.off:4} {total.far_off:5} "
                f"{total.worst:8.1e} {total.median_matvecs:7.0f}",
                flush=True,
            )
    result = {
        "machine": {"platform": platform.platform(), "processor": processor(), "threads": torch.get_num_threads()},
        "torch": torch.__version__,
        "tol": TOL,
        "sizes": SIZES,
        "seed": arguments.seed,
        "kinds": kinds,
    }
    partial = arguments.output.with_suffix(".tmp")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(arguments.output)


if __name__ == "__main__":
    main()
