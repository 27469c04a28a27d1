"""Speed against the strongest peers on this machine, and only where the numbers are right.

Every case first checks its own result; a red check prints no speed. Times are taken in one process, ours and the peers'
interleaved, after warm-ups; ratios are medians of pairwise ratios with their spread. The roofline is what torch's own
matrix product reaches in the same run.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import lsc_ext
from lsc_ext import nn
from lsc_ext.nn import StackTrajectory
from lsc_ext.operator import StepOperator
from lsc_ext.radii import radii
from lsc_ext.trajectory import grid_points, trajectory_of

Say = Callable[[str], None]


@dataclass
class _Peer:
    """A rival; ``points``: how many of the points it works on, its time being scaled to one point."""

    name: str
    run: Callable[[], Any]
    points: int = 1


@dataclass
class _Case:
    """One comparison. ``check`` returns the measured errors and whether they are small enough."""

    name: str
    ours: Callable[[], Any]
    points: int
    peers: list[_Peer]
    check: Callable[[], tuple[dict[str, float], bool]]
    flops: Callable[[], float]
    pairs: int


def run_bench(quick: bool = False, say: Say = print) -> dict[str, Any]:
    """Runs every case; returns the results as plain numbers, ``correct`` telling whether all checks were green."""
    with torch.no_grad():
        peak = _matrix_product_rate(quick)
        say(f"{machine()['processor']}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        say(f"torch matrix product, float32, 1024: {peak / 1e9:.0f} GFLOP/s")
        rows = [_measure(case, peak, say) for case in _cases(quick)]
    return {
        "machine": machine(),
        "build": lsc_ext.build_info(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matrix_product_flops": peak,
        "correct": all(row["correct"] for row in rows),
        "cases": rows,
    }


def machine() -> dict[str, str]:
    """The processor and the system that a measurement was made on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return {"processor": name, "system": platform.system()}


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _matrix_product_rate(quick: bool) -> float:
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = [_seconds(lambda: a @ b) for _ in range(5 if quick else 15)]
    return float(2 * 1024**3 / statistics.median(times[2:]))


def _measure(case: _Case, peak: float, say: Say) -> dict[str, Any]:
    errors, correct = case.check()
    row: dict[str, Any] = {"case": case.name, "correct": correct, "errors": errors}
    shown = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    if not correct:
        say(f"\n{case.name}\n  WRONG: {shown}; no speed is shown")
        return row
    contenders = [_Peer("lsc_ext", case.ours, case.points), *case.peers]
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for repeat in range(case.pairs + 2):
        for contender in contenders:
            spent = _seconds(contender.run) / contender.points
            if repeat >= 2:
                times[contender.name].append(spent)
    ours = times["lsc_ext"]
    rate = case.flops() / case.points / statistics.median(ours)
    row |= {
        "unit": "seconds per point" if case.points > 1 else "seconds",
        "ours": _spread(ours),
        "useful_flops": rate,
        "fraction_of_matrix_product": rate / peak,
        "peers": {},
    }
    say(f"\n{case.name}\n  correct: {shown}")
    say(f"  {'lsc_ext':<44}{statistics.median(ours) * 1e3:>10.3f} ms   {rate / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f}")
    for peer in case.peers:
        ratios = [theirs / mine for theirs, mine in zip(times[peer.name], ours, strict=True)]
        row["peers"][peer.name] = {"time": _spread(times[peer.name]), "ratio": _spread(ratios), "points": peer.points}
        spread = _spread(ratios)
        say(
            f"  {peer.name:<44}{statistics.median(times[peer.name]) * 1e3:>10.3f} ms   {spread['median']:.2f} x ours "
            f"({spread['lowest']:.2f} .. {spread['highest']:.2f})"
        )
    return row


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _cases(quick: bool) -> list[_Case]:
    cases = [_radii_case(32 if quick else 256, 4 if quick else 32, 2 if quick else 8, 2 if quick else 7)]
    shapes = [(32, 8, 16, 2)] if quick else [(64, 32, 64, 2), (256, 32, 64, 1), (128, 1, 64, 1)]
    for kind in ("RNN", "GRU", "LSTM"):
        for hidden, batch, steps, layers in shapes:
            for backward in (False, True):
                cases.append(_layer_case(kind, hidden, batch, steps, layers, backward, 3 if quick else 15))
    return cases


def _radii_case(hidden: int, steps: int, batch: int, pairs: int) -> _Case:
    """All points of the time direction of a 3-layer GRU, float32, tol 1e-3."""
    torch.manual_seed(0)
    model = torch.nn.GRU(28, hidden, 3)
    x = torch.randn(steps, batch, 28)
    sample = min(24, steps * batch)
    layer = 1
    step_inputs, step_states = _layer_points(model, x, layer, sample)
    cell = torch.nn.GRUCell(hidden, hidden)
    cell.load_state_dict({name: getattr(model, f"{name}_l{layer}") for name in cell.state_dict()})

    def step(h: Tensor, fed: Tensor) -> Tensor:
        return torch.func.functional_call(cell, dict(cell.named_parameters()), (fed, h))  # type: ignore[no-any-return]

    def dense() -> Tensor:
        jacobian = torch.func.vmap(torch.func.jacrev(step))(step_states, step_inputs)
        values: Tensor = torch.linalg.eigvals(jacobian)
        return values.abs().amax(1)

    def ours() -> Any:
        return radii(
            model, x, directions=("time",), method="krylov", tol=1e-3, generator=torch.Generator().manual_seed(0)
        )

    def check() -> tuple[dict[str, float], bool]:
        estimate = ours()["time"]
        truth = radii(model.double(), x.double(), directions=("time",), method="dense")["time"].radius
        model.float()
        error = ((estimate.radius.double() - truth) / truth).abs().flatten()
        errors = {
            "median": float(error.median()),
            "90th percentile": float(error.quantile(0.9)),
            "not certified": 1 - estimate.certified_fraction,
        }
        return errors, errors["median"] <= 1e-3 and errors["90th percentile"] <= 1e-2

    def flops() -> float:
        return float(ours()["time"].num_matvecs.sum()) * 2 * 3 * hidden * hidden

    operator = StepOperator(*_compiled_arguments(model, x, layer, sample))
    points = 3 * steps * batch
    return _Case(
        f"radii, 3-layer GRU, H={hidden}, T={steps}, B={batch}, float32, all {points} points along time, per point",
        ours,
        points,
        [
            _Peer("torch.func.jacrev + torch.linalg.eigvals", dense, sample),
            _Peer(
                "closed-form torch, 64 power + 16 Arnoldi steps",
                lambda: _torch_krylov(cell, step_inputs, step_states),
                sample,
            ),
            _Peer("ours by power iteration, 128 products", lambda: _power(operator), sample),
        ],
        check,
        flops,
        pairs,
    )


def _power(operator: StepOperator) -> Any:
    return lsc_ext.spectral_radius(operator, method="power", generator=torch.Generator().manual_seed(0))


def _compiled_arguments(model: Any, x: Tensor, layer: int, count: int) -> tuple[Any, ...]:
    trajectory = trajectory_of(model, x)
    assert isinstance(trajectory, StackTrajectory)
    points = grid_points(x.shape[0], x.shape[1])[-count:]
    return (trajectory.cell, x, trajectory.states, trajectory.gates, trajectory.weights, layer, "time", points)


def _layer_points(model: Any, x: Tensor, layer: int, count: int) -> tuple[Tensor, Tensor]:
    """What a layer is fed and its state before the step, [count, H] each, at the last points of the grid."""
    trajectory = trajectory_of(model, x)
    assert isinstance(trajectory, StackTrajectory)
    fed = trajectory.states[layer - 1, 1:, 0].flatten(0, 1)
    before = trajectory.states[layer, :-1, 0].flatten(0, 1)
    return fed[-count:].clone(), before[-count:].clone()


def _torch_krylov(cell: torch.nn.GRUCell, fed: Tensor, h: Tensor) -> Tensor:
    """The strongest peer: batched products from the GRU's closed-form Jacobian, filter and Arnoldi, all in torch."""
    gates_x = fed @ cell.weight_ih.T + cell.bias_ih
    gates_h = h @ cell.weight_hh.T + cell.bias_hh
    (xr, xz, xn), (hr, hz, hn) = gates_x.chunk(3, 1), gates_h.chunk(3, 1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    dn = (1 - z) * (1 - n * n)
    dr, dz = dn * hn * r * (1 - r), (h - n) * z * (1 - z)

    def product(v: Tensor) -> Tensor:
        wr, wz, wn = (v @ cell.weight_hh.T).chunk(3, 1)
        return z * v + dz * wz + dr * wr + dn * r * wn

    v = torch.nn.functional.normalize(torch.randn_like(h), dim=1)
    for _ in range(64):
        v = torch.nn.functional.normalize(product(v), dim=1)
    order = min(16, h.shape[1])
    basis = [v]
    hessenberg = h.new_zeros(h.shape[0], order + 1, order)
    for j in range(order):
        w = product(basis[j])
        for i in range(j + 1):
            hessenberg[:, i, j] = (basis[i] * w).sum(1)
            w = w - hessenberg[:, i, j, None] * basis[i]
        hessenberg[:, j + 1, j] = torch.linalg.vector_norm(w, dim=1)
        basis.append(w / hessenberg[:, j + 1, j, None].clamp_min(1e-30))
    values: Tensor = torch.linalg.eigvals(hessenberg[:, :order])
    return values.abs().amax(1)


def _layer_case(kind: str, hidden: int, batch: int, steps: int, layers: int, backward: bool, pairs: int) -> _Case:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(hidden, hidden, layers)
    ours = getattr(nn, kind).from_torch(theirs)
    x = torch.randn(steps, batch, hidden)

    def run(module: torch.nn.Module) -> list[Tensor]:
        if not backward:
            return [module(x)[0]]
        with torch.enable_grad():
            y = module(x)[0]
            return [y.detach(), *torch.autograd.grad(y.square().sum(), list(module.parameters()))]

    def check() -> tuple[dict[str, float], bool]:
        error = max(float((a - b).norm() / b.norm()) for a, b in zip(run(ours), run(theirs), strict=True))
        return {"relative error": error}, error < 1e-5

    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    work = 2.0 * 2 * gates * hidden * hidden * layers * steps * batch * (3 if backward else 1)
    passes = "forward and backward" if backward else "forward"
    return _Case(
        f"{passes}, {layers}-layer {kind}, H={hidden}, B={batch}, T={steps}, float32",
        lambda: run(ours),
        1,
        [_Peer(f"torch.nn.{kind}", lambda: run(theirs))],
        check,
        lambda: work,
        pairs,
    )
