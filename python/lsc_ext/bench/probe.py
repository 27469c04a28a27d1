"""One measurement of radii in a process of its own: python -m lsc_ext.bench.probe '{"H": 64, ...}' prints JSON.

The high-water mark of memory belongs to a process and never falls, so each size gets a fresh one.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import torch

from lsc_ext.bench.measure import seconds_of
from lsc_ext.nn import GRU
from lsc_ext.operator import JacobianOperator
from lsc_ext.radii import radii


def peak_memory() -> int | None:
    """Largest resident set so far [bytes]; None where the system does not say.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def probe(sizes: dict[str, Any]) -> dict[str, Any]:
    """Radii along time of an L-layer GRU, H wide, over T steps of B sequences, at N points per layer (None: all)."""
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    model = GRU(sizes["H"], sizes["H"], sizes["L"])
    x = torch.randn(sizes["T"], sizes["B"], sizes["H"])

    def run() -> Any:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return radii(model, x, directions=("time",), method="krylov", max_points=sizes["N"], generator=generator)[
                "time"
            ]

    with torch.no_grad():
        radii(GRU(2, 2), x.new_zeros(1, 1, 2), method="krylov")  # loads what is loaded at first use
    before = peak_memory()
    found = run()
    after = peak_memory()
    seconds = statistics.median(seconds_of(run) for _ in range(3))
    t, b = (0, 0) if found.index is None else found.index[0, 0].tolist()
    expected = _dense(model, x[: t + 1, b : b + 1])
    return {
        "seconds": seconds,
        "peak_bytes": None if before is None or after is None else after - before,
        "trajectory_bytes": 4 * sizes["L"] * sizes["B"] * sizes["H"] * (4 * sizes["T"] + 1),  # one state, three gates
        "error": abs(float(found.radius[0].flatten()[0]) / expected - 1),
        "certified": found.certified_fraction,
    }


def _dense(model: GRU, x: torch.Tensor) -> float:
    """The radius of the lowest layer at the last step of one sequence, by LAPACK."""
    with torch.no_grad():
        matrix = JacobianOperator.from_model(model, x, "time", layer=0).to_dense()[-1]
        return float(torch.linalg.eigvals(matrix.double()).abs().max())


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]))))
