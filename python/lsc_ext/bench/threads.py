"""What threads cost and bring: beside torch's own pool, and one against all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.bench.case import Case, Contender, Errors, Findings, Race, Study
from lsc_ext.bench.measure import seconds_of, spread
from lsc_ext.radii import radii

ONE = "one thread"


def cases(quick: bool) -> list[Case]:
    """The group "threads"."""
    hidden, batch, steps = (16, 4, 2) if quick else (128, 32, 16)
    sizes = {"cell": "GRU", "H": hidden, "B": batch, "T": steps, "dtype": "float32"}
    blocks, calls = (3, 2) if quick else (25, 40)
    beside = Case(
        "threads",
        "a torch product and a layer of ours in turns",
        sizes,
        lambda: Study(lambda: beside_torch(hidden, batch, steps, blocks, calls)),
    )
    return [beside, _one_against_all("forward", sizes), _one_against_all("radii", sizes)]


def beside_torch(hidden: int, batch: int, steps: int, blocks: int, calls: int) -> Findings:
    """Seconds that a product and a layer take in turns beyond what each takes alone; torch's layer for comparison."""
    torch.manual_seed(0)
    theirs = torch.nn.GRU(hidden, hidden)
    ours = nn.GRU.from_torch(theirs)
    x, a = torch.randn(steps, batch, hidden), torch.randn(256, 256)
    alone = ours(x)[0]
    calls_of: dict[str, Sequence[Callable[[], Any]]] = {
        "product": [lambda: a @ a],
        "ours": [lambda: ours(x)],
        "torch.nn": [lambda: theirs(x)],
    }
    calls_of |= {f"product, {name}": [*calls_of["product"], *calls_of[name]] for name in ("ours", "torch.nn")}

    def block(parts: Sequence[Callable[[], Any]]) -> None:
        for _ in range(calls):
            for part in parts:
                part()

    times: dict[str, list[float]] = {name: [] for name in calls_of}
    for repeat in range(blocks + 1):
        for name, parts in calls_of.items():
            spent = seconds_of(lambda parts=parts: block(parts)) / calls  # type: ignore[misc]
            if repeat > 0:
                times[name].append(spent)
    excess = {
        name: [
            both - p - o for both, p, o in zip(times[f"product, {name}"], times["product"], times[name], strict=True)
        ]
        for name in ("ours", "torch.nn")
    }
    a @ a
    changed = float((ours(x)[0] != alone).sum())
    numbers = {
        "seconds": {name: statistics.median(spent) for name, spent in times.items()},
        "excess_seconds": {name: spread(values) for name, values in excess.items()},
    }
    return Findings(numbers, {"changed numbers": changed}, changed == 0)


def _one_against_all(what: str, sizes: dict[str, Any]) -> Case:
    def build() -> Race:
        torch.manual_seed(0)
        model = nn.GRU(sizes["H"], sizes["H"])
        x, threads = torch.randn(sizes["T"], sizes["B"], sizes["H"]), torch.get_num_threads()

        def run() -> Tensor:
            if what == "forward":
                return model(x)[0]  # type: ignore[no-any-return]
            generator = torch.Generator().manual_seed(0)
            return radii(model, x, directions=("time",), method="krylov", generator=generator)["time"].radius

        def alone() -> Tensor:
            torch.set_num_threads(1)
            try:
                return run()
            finally:
                torch.set_num_threads(threads)

        def errors() -> Errors:
            return {"numbers that differ": float((run() != alone()).sum())}

        return Race(Contender("lsc_ext", run, errors=errors), [Contender(ONE, alone)], {"numbers that differ": 0.0})

    return Case("threads", f"{what}, all threads against one", sizes, build)
