"""What a call of a layer costs beside its arithmetic, and writes bench/results/overhead.json with the machine.

One step of one sequence through 32 units, where the arithmetic is nothing. Ours, torch.nn's and the bare kernel take
turns in one process; a time is that of one call in a block of calls, a row the median of the blocks with their spread.
A layer whose numbers are wrong gets no time.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lsc_ext as lsc
from lsc_ext import _C, bench, ops
from lsc_ext.nn import eager, flat_weights

HIDDEN, CALLS, BLOCKS = 32, 50, 200
MODES = ("forward, no grad", "forward, recorded", "forward and backward")


def call_of(module: torch.nn.Module, x: torch.Tensor, mode: str) -> Callable[[], Any]:
    def both() -> Any:
        output = module(x)[0]
        output.sum().backward()
        return output

    return both if mode == MODES[2] else lambda: module(x)[0]


def results(module: torch.nn.Module, x: torch.Tensor, mode: str) -> list[torch.Tensor]:
    output = call_of(module, x, mode)().detach()
    return [output, *(p.grad for p in module.parameters() if p.grad is not None)]


def bare(model: lsc.nn.Recurrent, x: torch.Tensor) -> Callable[[], Any]:
    """The compiled forward pass alone, into memory that is there already."""
    weights, shape = [w.detach() for w in flat_weights(model, 1)], ops.CELL_SHAPES[model.cell]
    states = x.new_zeros(1, 2, shape["states"], 1, HIDDEN)
    held = (x, weights, states)
    arguments = [model.cell, "float32", ops.sizes(x, states[:, 0]), ops.buffer(x), ops.layer_buffers(weights)]
    arguments += [ops.buffer(states), None, torch.get_num_threads()]
    return lambda: (_C.forward(*arguments), held)[0]


def measure(kind: str, mode: str, calls: int, blocks: int) -> dict[str, Any]:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(HIDDEN, HIDDEN)
    ours = getattr(lsc.nn, kind).from_torch(theirs)
    x = torch.randn(1, 1, HIDDEN)
    pairs = zip(results(ours, x, mode), results(theirs, x, mode), strict=True)
    error = max(float((a - e).norm() / e.norm()) for a, e in pairs)
    row: dict[str, Any] = {"kind": kind, "mode": mode, "relative_error": error, "correct": error < 1e-5}
    row["route"] = eager.route((x, *ours.parameters())).name
    if not row["correct"]:
        return row
    contenders = {"ours": call_of(ours, x, mode), "torch": call_of(theirs, x, mode), "kernel": bare(ours, x)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for block in range(blocks + 2):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            if block >= 2:
                times[name].append((time.perf_counter() - start) / calls * 1e6)
    for name, spent in times.items():
        low, *_, high = statistics.quantiles(spent, n=10)
        row[name] = {"median": statistics.median(spent), "10th": low, "90th": high}
    return row


def main(path: Path, calls: int = CALLS, blocks: int = BLOCKS) -> int:
    rows = []
    for kind in ("RNN", "GRU", "LSTM"):
        for mode in MODES:
            with torch.set_grad_enabled(mode != MODES[0]):
                rows.append(measure(kind, mode, calls, blocks))
    print(f"{'us, median (10th .. 90th)':<32}{'ours':>26}{'torch.nn':>26}{'kernel':>8}")
    for row in rows:
        title = f"{row['kind']}, {row['mode']}"
        if not row["correct"]:
            print(f"{title:<32}WRONG: relative error {row['relative_error']:.1e}; no time is shown")
            continue
        shown = [f"{row[n]['median']:.1f} ({row[n]['10th']:.1f} .. {row[n]['90th']:.1f})" for n in ("ours", "torch")]
        print(f"{title:<32}{shown[0]:>26}{shown[1]:>26}{row['kernel']['median']:>8.1f}")
    correct = all(row["correct"] for row in rows)
    report = {
        "machine": bench.machine(),
        "build": lsc.build_info(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "unit": "microseconds per call",
        "correct": correct,
        "cases": rows,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if correct else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent / "results" / "overhead.json"))
