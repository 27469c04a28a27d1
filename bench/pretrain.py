"""How long pre-training takes, and whether it arrives: 5-layer stacks on MNIST rows, T = 28, B = 64, method "krylov".

python bench/pretrain.py [--output bench/results/pretrain.json]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

import lsc_ext as lsc
from lsc_ext.bench import machine
from lsc_ext.data import load_images
from lsc_ext.files import write_json

LAYERS, TARGET, ALLOWED, CERTIFIED = 5, 0.5, 0.05, 0.95
SECONDS = {64: 30, 256: 120}
CELLS = {"ReLU RNN": "rnn_relu", "GRU": "gru", "LSTM": "lstm"}


def measure(name: str, hidden: int, x: torch.Tensor) -> dict[str, Any]:
    """One stack: seconds, the worst layer's distance to the target and its certified fraction on held-out points."""
    torch.manual_seed(0)
    model = lsc.nn.Recurrent(CELLS[name], x.shape[2], hidden, LAYERS)
    started = time.perf_counter()
    result = lsc.pretrain(model, x, TARGET, method="krylov", seed=0)
    seconds = time.perf_counter() - started
    rows = result.after.rows()
    certified = min(row["certified"] for row in rows)
    return {
        "network": name,
        "hidden_size": hidden,
        "seconds": seconds,
        "steps": len(result.history),
        "worst_distance": result.deviation(),
        "lowest_certified": certified,
        "status": {direction: estimate.counts() for direction, estimate in result.after.items()},
        "reached": result.deviation() <= ALLOWED and certified >= CERTIFIED and seconds < SECONDS[hidden],
    }


def main() -> int:
    """Measures every stack; 1 where one misses its target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "pretrain.json")
    options = parser.parse_args()
    x = load_images("mnist").x[:, torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:64]]
    rows = []
    print(f"{'network':<10}{'H':>5}{'seconds':>9}{'steps':>7}{'distance':>10}{'certified':>11}")
    for hidden in SECONDS:
        for name in CELLS:
            row = measure(name, hidden, x.contiguous())
            rows.append(row)
            print(
                f"{name:<10}{hidden:>5}{row['seconds']:>9.1f}{row['steps']:>7}{row['worst_distance']:>10.4f}"
                f"{row['lowest_certified']:>10.1%}{'' if row['reached'] else '  missed'}"
            )
    write_json(
        options.output,
        {"machine": machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows},
    )
    return 0 if all(row["reached"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
