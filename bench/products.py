"""Jacobian products of a step in plain torch: ours by kept graphs against what torch.func offers.

python bench/products.py [--output bench/results/products.json]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.bench import machine
from lsc_ext.files import write_json
from lsc_ext.testing import TOLERANCES, relative_error

SIZES, ROUNDS = ((48, 128), (256, 256)), 41


class LayerNormGRU(nn.Module):
    """A GRU whose gates are normalised: what no fused kernel has."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.by_input, self.by_state = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.norm = nn.LayerNorm(3 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a, b = self.norm(self.by_input(x)).chunk(3, -1), self.by_state(h).chunk(3, -1)
        update, reset = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        return update * h + (1 - update) * torch.tanh(a[2] + reset * b[2])


def ways(hidden: int, points: int, generator: torch.Generator) -> tuple[dict[str, Callable[[], Tensor]], list[Tensor]]:
    """What multiplies, by name, and J v and J' v by the formed matrix in float64."""
    step = LayerNormGRU(hidden)
    x, s, v = (torch.randn(points, hidden, generator=generator) for _ in range(3))
    operator = lsc.JacobianOperator(lambda s, x: step(x, s), s, list(step.parameters()), [x])

    def function(s: Tensor) -> Tensor:
        return step(x, s)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.fx about its own graph
        linear = torch.func.linearize(function, s)[1]
    pull = torch.func.vjp(function, s)[1]
    wide = LayerNormGRU(hidden).double()
    wide.load_state_dict(step.state_dict())
    dense = torch.func.vmap(torch.func.jacrev(lambda s, x: wide(x, s)))(s.double(), x.double())
    truth = [(dense @ v.double().unsqueeze(2)).squeeze(2), (dense.mT @ v.double().unsqueeze(2)).squeeze(2)]
    return {
        "J v, ours": lambda: operator.matvec(v),
        "J v, torch.func.jvp": lambda: torch.func.jvp(function, (s,), (v,))[1],
        "J v, torch.func.linearize, kept": lambda: linear(v),
        "J' v, ours": lambda: operator.rmatvec(v),
        "J' v, torch.func.vjp": lambda: torch.func.vjp(function, s)[1](v)[0],
        "J' v, torch.func.vjp, kept": lambda: pull(v)[0],
    }, truth


def main() -> int:
    """Measures every way; 1 where one is wrong, and then no speed is shown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "products.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    cases: list[dict[str, Any]] = []
    correct = True
    print(f"{machine()['processor']}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for hidden, points in SIZES:
        found, truth = ways(hidden, points, torch.Generator().manual_seed(0))
        rows = {name: relative_error(run(), truth["'" in name]) for name, run in found.items()}
        right = all(error <= TOLERANCES[torch.float32].jacobian for error in rows.values())
        correct = correct and right
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(ROUNDS):
            for name, run in found.items():
                started = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - started)
        print(f"H = {hidden}, {points} points" + ("" if right else f": WRONG, relative errors {rows}"))
        for name, measured in times.items():
            low, middle, high = statistics.quantiles(measured, n=4)
            ours = statistics.median(times[name[: name.index(",")] + ", ours"])
            cases.append(
                {"H": hidden, "points": points, "way": name, "error": rows[name], "seconds": [low, middle, high]}
            )
            if right:
                spread = f"({low * 1e6:.0f} .. {high * 1e6:.0f})"
                print(f"  {name:<34}{middle * 1e6:9.0f} us {spread}, {middle / ours:.1f} x ours")
    write_json(
        options.output,
        {
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "correct": correct,
            "cases": cases,
        },
    )
    return 0 if correct else 1


if __name__ == "__main__":
    sys.exit(main())
