"""A complex diagonal scan, T = 65536, B = 1, N = 256, complex64, against what torch offers and the memory's speed.

python bench/scan.py [--output bench/results/scan.json]
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C, ops
from lsc_ext.bench import machine
from lsc_ext.files import write_json
from lsc_ext.scan import scan
from lsc_ext.testing import relative_error

T, B, N, ROUNDS, ALLOWED = 65536, 1, 256, 5, 1e-5


def torch_loop(transition: Tensor, inputs: Tensor) -> Tensor:
    state, states = torch.zeros_like(inputs[0]), []
    for row in inputs.unbind(0):
        state = torch.addcmul(row, transition, state)
        states.append(state)
    return torch.stack(states)


def torch_doubling(transition: Tensor, inputs: Tensor) -> Tensor:
    """log2 T passes: after pass p a state holds the inputs of the last 2^p steps."""
    states, power, distance = inputs, transition, 1
    while distance < inputs.shape[0]:
        states = torch.cat((states[:distance], states[distance:] + power * states[:-distance]))
        power, distance = power * power, 2 * distance
    return states


def seconds(run: Callable[[], Any], rounds: int) -> float:
    """The best of so many."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def copy_rate(elements: int) -> float:
    """Bytes per second, read and written, of a copy into memory that is there."""
    source, target = (torch.ones(elements, dtype=torch.complex64) for _ in range(2))
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), ROUNDS)


def main() -> int:
    """Measures every way; 1 where one is wrong, and then no speed is shown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "scan.json")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    transition = torch.polar(0.9 + 0.099 * torch.rand(N, generator=generator), torch.rand(N, generator=generator))
    inputs, upstream = (torch.randn(T, B, N, dtype=torch.complex64, generator=generator) for _ in range(2))
    ways = {"lsc_ext scan": (scan, ROUNDS), "torch doubling": (torch_doubling, 2), "torch loop": (torch_loop, 1)}

    def backward(way: Callable[..., Tensor], a: Tensor, b: Tensor, g: Tensor) -> tuple[Callable[[], Any], Tensor]:
        leaves = [leaf.detach().clone().requires_grad_() for leaf in (a, b)]
        states = way(*leaves)
        return lambda: torch.autograd.grad(states, leaves, g, retain_graph=True), states

    # Before anything else: later, the allocator may have old memory to hand out.
    fresh = seconds(lambda: torch.empty_like(inputs).fill_(0), ROUNDS)
    rate = copy_rate(inputs.numel())
    roofline = 2 * inputs.nbytes / rate
    target = torch.ones_like(inputs)
    memory = [ops.buffer(t) for t in (transition, inputs, target)]
    threads = torch.get_num_threads()
    kernel = seconds(
        lambda: _C.scan("complex64", [T, B, N], *memory[:2], None, memory[2], True, False, False, threads), ROUNDS
    )

    few = slice(0, 4096)
    wide = [t.to(torch.complex128) for t in (transition, inputs[few], upstream[few])]
    run, expected = backward(torch_loop, *wide)
    truth = (expected, *run())
    rows, correct = [], True
    print(f"{machine()['processor']}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, (way, rounds) in ways.items():
        run, states = backward(way, transition, inputs[few], upstream[few])
        found = (states, *run())
        error = max(relative_error(a, e) for a, e in zip(found, truth, strict=True))
        row: dict[str, Any] = {"way": name, "error": error, "correct": error <= ALLOWED}
        rows.append(row)
        if not row["correct"]:
            correct = False
            print(f"{name}: WRONG, relative error {error:.2g}")
            continue
        with torch.no_grad():
            row["forward_seconds"] = seconds(functools.partial(way, transition, inputs), rounds)
        run, _ = backward(way, transition, inputs, upstream)
        row["backward_seconds"] = seconds(run, rounds)
        del run
    if correct:
        print(
            f"copy {rate / 1e9:.1f} GB/s; reading inputs and writing states takes {roofline * 1e3:.1f} ms at that rate"
        )
        print(f"the scan into memory that is there: {kernel * 1e3:.1f} ms, {roofline / kernel:.0%} of that rate")
        print(f"the system's own time for memory of {inputs.nbytes >> 20} MiB that is new: {fresh * 1e3:.1f} ms")
        for row in rows:
            ratio = row["forward_seconds"] / rows[0]["forward_seconds"]
            back = row["backward_seconds"] / rows[0]["backward_seconds"]
            print(
                f"{row['way']:<16} forward {row['forward_seconds'] * 1e3:9.1f} ms ({ratio:5.1f} x ours), "
                f"backward {row['backward_seconds'] * 1e3:9.1f} ms ({back:5.1f} x ours), error {row['error']:.1e}"
            )
    write_json(
        options.output,
        {
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "sizes": {"T": T, "B": B, "N": N, "dtype": "complex64"},
            "copy_bytes_per_second": rate,
            "roofline_seconds": roofline,
            "new_memory_seconds": fresh,
            "kernel_seconds": kernel,
            "correct": correct,
            "rows": rows,
        },
    )
    return 0 if correct else 1


if __name__ == "__main__":
    sys.exit(main())
