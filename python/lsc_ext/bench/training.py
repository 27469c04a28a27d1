"""Pre-training: how long a step takes against automatic differentiation, and whether stacks arrive, and when."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

import lsc_ext
from lsc_ext.bench.case import Case, Findings, Study
from lsc_ext.bench.closed_form import step
from lsc_ext.bench.measure import relative_error, seconds_of, spread
from lsc_ext.data import load_images
from lsc_ext.trajectory import trajectory_of

TARGET, ALLOWED, CERTIFIED = 0.5, 0.05, 0.95
CELLS = {"ReLU RNN": "rnn_relu", "GRU": "gru", "LSTM": "lstm"}
SECONDS = {8: 30, 64: 30, 256: 120}  # within which a stack of this width is to arrive
DIRECTIONS = ("time", "depth")


def cases(quick: bool) -> list[Case]:
    """The group "pretrain"."""
    layers, hidden, points = (2, 8, 2) if quick else (5, 128, 32)
    name = f"one step, {layers}-layer GRU, H={hidden}, {points} points per layer and direction"
    sizes = {"cell": "GRU", "H": hidden, "L": layers, "B": 8 if quick else 64, "dtype": "float32"}
    rows = [
        Case("pretrain", name, sizes, lambda: Study(lambda: one_step(quick, layers, hidden, points)), "step", grad=True)
    ]
    for width in (8,) if quick else (64, 256):
        for cell in CELLS:
            rows.append(_arrival(cell, width, layers, quick))
    return rows


def sequences(quick: bool) -> Tensor:
    """MNIST rows [28, 64, 28]; normal numbers where it is only about whether it runs."""
    generator = torch.Generator().manual_seed(0)
    if quick:
        return torch.randn(6, 8, 8, generator=generator)
    return load_images("mnist").x[:, torch.randperm(5000, generator=generator)[:64]].contiguous()


def _arrival(name: str, hidden: int, layers: int, quick: bool) -> Case:
    def run() -> Findings:
        torch.manual_seed(0)
        x = sequences(quick)
        model = lsc_ext.nn.Recurrent(CELLS[name], x.shape[2], hidden, layers)
        started = time.perf_counter()
        result = lsc_ext.pretrain(model, x, TARGET, method="krylov", seed=0)
        seconds = time.perf_counter() - started
        certified = min(row["certified"] for row in result.after.rows())
        numbers = {
            "seconds": seconds,
            "limit": SECONDS[hidden],
            "limit_over_seconds": SECONDS[hidden] / seconds,
            "steps": len(result.history),
            "status": {direction: estimate.counts() for direction, estimate in result.after.items()},
        }
        errors = {"worst distance": result.deviation(), "not certified": 1 - certified}
        return Findings(numbers, errors, errors["worst distance"] <= ALLOWED and certified >= CERTIFIED)

    sizes = {"cell": name, "H": hidden, "L": layers, "dtype": "float32"}
    return Case(
        "pretrain", f"{layers}-layer {name}, H={hidden}, to {TARGET}", sizes, lambda: Study(run), "run", grad=True
    )


def one_step(quick: bool, layers: int, hidden: int, points: int) -> Findings:
    """Seconds between two steps of ``pretrain``, and of a step through formed Jacobians and their eigenvalues."""
    torch.manual_seed(0)
    x = sequences(quick)
    model = torch.nn.GRU(x.shape[2], hidden, layers)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    report = lsc_ext.radii(
        model, x, directions=DIRECTIONS, max_points=points, tol=1e-4, generator=torch.Generator().manual_seed(0)
    )
    parameters = dict(model.named_parameters())
    ours = torch.stack([(report[d].radius - TARGET).square().mean() for d in DIRECTIONS]).sum()
    at: dict[str, Tensor] = {d: report[d].index for d in DIRECTIONS}  # type: ignore[misc]
    theirs = jacrev_loss(model, x, at)
    gradients = [torch.autograd.grad(z, list(parameters.values()), retain_graph=True) for z in (ours, theirs)]
    flat = [torch.cat([g.flatten() for g in gradient]) for gradient in gradients]
    errors = {"loss": relative_error(ours, theirs), "gradient": relative_error(*flat)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def their_step() -> None:
        optimizer.zero_grad()
        jacrev_loss(model, x, at).backward()
        optimizer.step()

    our_times: list[float] = []
    their_times: list[float] = []
    for _ in range(3):
        model.load_state_dict(before)
        our_times += _step_times(model, x, points)
        model.load_state_dict(before)
        their_times.append(seconds_of(their_step))
    ratio = statistics.median(their_times) / statistics.median(our_times)
    numbers = {
        "ours": spread(our_times),
        "jacrev": spread(their_times),
        "steps": {"ours": len(our_times), "jacrev": len(their_times)},
        "points": points,
        "ratio": ratio,
    }
    return Findings(numbers, errors, errors["loss"] < 1e-2 and errors["gradient"] < 0.1)


def _step_times(model: torch.nn.GRU, x: Tensor, points: int) -> list[float]:
    """Seconds between the records of consecutive steps of ``pretrain``, without the first, which warms up."""
    ends: list[float] = []
    options: dict[str, Any] = {"steps": 7, "patience": 100, "max_points": points, "certify_points": 1}
    lsc_ext.pretrain(model, x, TARGET, method="krylov", callback=lambda _: ends.append(time.perf_counter()), **options)
    return [after - before for before, after in itertools.pairwise(ends[1:])]


def jacrev_loss(model: torch.nn.GRU, x: Tensor, at: dict[str, Tensor]) -> Tensor:
    """The loss of ``pretrain`` at points ``at`` [L, P, 2] of each direction, through formed Jacobians.

    The states come from our compiled forward pass, as data, so this step pays for its Jacobians and eigenvalues only.
    """
    with torch.no_grad():
        states: Any = trajectory_of(model, x).states  # type: ignore[attr-defined]
    total = x.new_zeros(())
    for direction, index in at.items():
        radii = []
        for row, chosen in enumerate(index):
            layer = row if direction == "time" else row + 1
            t, b = chosen.unbind(1)
            fed = (x if layer == 0 else states[layer - 1, 1:, 0])[t, b]
            weights = [getattr(model, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]

            def function(s: Tensor, x: Tensor, w_ih: Tensor, b_ih: Tensor, w_hh: Tensor, b_hh: Tensor) -> Tensor:
                return step("GRU", linear(x, w_ih, b_ih), linear(s, w_hh, b_hh), s)

            jacobian = torch.func.jacrev(function, argnums=0 if direction == "time" else 1)
            rows = torch.func.vmap(jacobian, in_dims=(0, 0, None, None, None, None))
            matrices = rows(states[layer, t, 0, b], fed, *weights)
            radii.append(torch.linalg.eigvals(matrices).abs().amax(1))
        total = total + (torch.stack(radii) - TARGET).square().mean()
    return total
