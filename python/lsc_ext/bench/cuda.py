"""On a GPU: layers against cuDNN, radii against a closed-form torch loop, each also replayed from a CUDA graph; and
forward pass and radii in one launch against two.

Everybody's turn ends with a synchronisation and holds many calls. Matrix products are asked for in the precision that
the row names, of everybody.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lsc_ext
from lsc_ext import fused, nn, ops
from lsc_ext.backends import launches_apart
from lsc_ext.bench import peers
from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.closed_form import Points
from lsc_ext.bench.layers import GATES
from lsc_ext.bench.measure import measure, relative_error
from lsc_ext.bench.radii import PRODUCTS, errors_of
from lsc_ext.bench.run import lines_of
from lsc_ext.files import write_whole
from lsc_ext.nn import StackTrajectory
from lsc_ext.operator import StepOperator
from lsc_ext.spectral import estimate_radius
from lsc_ext.trajectory import grid_points, trajectory_of

#: What a row's precision means to torch, and how far from float64 it may be.
PRECISIONS: Mapping[str, tuple[torch.dtype, str]] = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "fp16": (torch.float16, "high"),
    "bf16": (torch.bfloat16, "high"),
}
ALLOWED = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
CUDNN, GRAPHED = "torch.nn, cuDNN", "from a CUDA graph"
Run = Callable[[], Any]


def layer_cases(device: str, quick: bool) -> list[Case]:
    """The group "cuda layers"; (H, B, T, L), among them sizes at which cuDNN is at its best."""
    grid = [(64, 32, 256, 4), (128, 32, 256, 2), (256, 1, 1024, 1), (256, 32, 1024, 1), (512, 32, 256, 2)]
    grid += [(256, 32, 256, 4), (768, 16, 1024, 1), (1024, 32, 256, 1), (1024, 128, 256, 1), (2048, 32, 64, 1)]
    grid += [(168, 62, 1024, 1)]
    kinds, precisions = tuple(GATES), tuple(PRECISIONS)
    if quick:
        grid, kinds, precisions = [(8, 3, 4, 2)], ("GRU",), ("fp32",)
    forward = [_layer(device, k, *size, p, False) for size in grid for k in kinds for p in precisions]
    return forward + [_layer(device, k, *size, "tf32", True) for size in grid[:5] for k in kinds]


def radius_cases(device: str, quick: bool) -> list[Case]:
    """The group "cuda radii"."""
    hidden, counts = ((8,), (5,)) if quick else ((64, 128, 256, 512), (256, 2048, 8192))
    kinds = ("GRU",) if quick else tuple(GATES)
    together = [(5, 2, 2, 2)] if quick else [(64, 32, 64, 2), (128, 32, 64, 2), (256, 16, 64, 2)]
    alone = [_radii(device, k, h, n, p) for k in kinds for h in hidden for n in counts for p in ("fp32", "tf32")]
    if not quick:
        alone += [_radii(device, k, h, n, "tf32") for k in kinds for h, n in ((64, 65536), (256, 65536), (1024, 2048))]
    return alone + [_one_launch(device, *size, p) for size in together for p in ("fp32", "tf32")]


#: Group by the name of its stage: its cases on a device, at full or at small sizes.
GROUPS: Mapping[str, Callable[[str, bool], list[Case]]] = {"layers": layer_cases, "radii": radius_cases}


@contextlib.contextmanager
def precise(name: str) -> Iterator[None]:
    """Inside, float32 products of torch, of cuDNN and of this package are as the row's precision says."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(PRECISIONS[name][1])
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _turn(device: str, precision: str, calls: int, run: Run) -> Run:
    def turn() -> None:
        with precise(precision):
            for _ in range(calls):
                run()
        if device == "cuda":
            torch.cuda.synchronize()

    return turn


def graphed(run: Run) -> Run:
    """``run`` as the replay of what it queues once; its results are in the same memory every time."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _ways(device: str, precision: str, name: str, run: Run, calls: int, errors: Any) -> list[Contender]:
    """The same work call by call and, where there are graphs, replayed."""

    def contender(suffix: str, way: Run) -> Contender:
        return Contender(name + suffix, _turn(device, precision, calls, way), calls, lambda: errors(way()))

    plain = contender("", run)
    if device != "cuda":
        return [plain]
    with precise(precision):
        return [plain, contender(f", {GRAPHED}", graphed(run))]


def _layer(
    device: str, kind: str, hidden: int, batch: int, steps: int, layers: int, precision: str, backward: bool
) -> Case:
    def build() -> Race:
        dtype = PRECISIONS[precision][0]
        torch.manual_seed(0)
        wide = getattr(torch.nn, kind)(hidden, hidden, layers)
        x = torch.randn(steps, batch, hidden)
        ours = getattr(nn, kind).from_torch(wide).to(device, dtype)
        theirs = getattr(torch.nn, kind)(hidden, hidden, layers).to(device, dtype)
        theirs.load_state_dict(wide.state_dict())
        at = x.to(device, dtype)

        def results(module: torch.nn.Module, inputs: Tensor) -> list[Tensor]:
            y = module(inputs)[0]
            if not backward:
                return [y]
            return [y.detach(), *torch.autograd.grad(y.square().sum(), list(module.parameters()))]

        truth = results(wide.double(), x.double())

        def errors(found: list[Tensor]) -> Errors:
            pairs = zip(found, truth, strict=True)
            return {"relative error": max(relative_error(a.cpu(), b) for a, b in pairs)}

        calls = 1 if device != "cuda" else 10
        make = _ways if not backward else _eager  # autograd's graph is not captured
        ours_all = make(device, precision, "lsc_ext", lambda: results(ours, at), calls, errors)

        def step_by_step() -> list[Tensor]:
            with launches_apart():
                return results(ours, at)

        ours_all = [
            *_eager(device, precision, "lsc_ext, launches for every step", step_by_step, calls, errors),
            *ours_all,
        ]
        theirs_all = make(device, precision, CUDNN, lambda: results(theirs, at), calls, errors)
        passes = 3 if backward else 1
        flops = 2.0 * 2 * GATES[kind] * hidden * hidden * layers * steps * batch * passes
        return Race(ours_all[-1], [*ours_all[:-1], *theirs_all], {"relative error": ALLOWED[precision]}, flops)

    passes = "forward and backward" if backward else "forward"
    sizes = {"cell": kind, "H": hidden, "L": layers, "B": batch, "T": steps, "passes": passes, "dtype": precision}
    name = f"{passes}, {kind}, H={hidden}, L={layers}, B={batch}, T={steps}, {precision}"
    return Case("cuda layers", name, sizes, build, "call", seconds=0.5, grad=backward)


def _eager(device: str, precision: str, name: str, run: Run, calls: int, errors: Any) -> list[Contender]:
    return [Contender(name, _turn(device, precision, calls, run), calls, lambda: errors(run()))]


def _radii(device: str, kind: str, hidden: int, count: int, precision: str) -> Case:
    """``count`` points of the second of two layers at fixed work."""

    def build() -> Race:
        torch.manual_seed(0)
        model = getattr(torch.nn, kind)(hidden, hidden, 2)
        steps, batch = (4, -(-count // 4)) if count < 256 else (32, count // 32)
        x = torch.randn(steps, batch, hidden)
        trajectory = trajectory_of(model, x)
        assert isinstance(trajectory, StackTrajectory)
        at = grid_points(steps, batch)[:count]
        sample = Points.of_layer(model, trajectory, x, 1, "time", at[: 16 if hidden <= 128 else 5])
        truth = peers.dense(sample.to(torch.float64))()
        weights = [w.to(device) for w in trajectory.weights]
        parts = (trajectory.cell, x.to(device), trajectory.states.to(device), trajectory.gates.to(device), weights)
        with precise(precision):
            operator = StepOperator(*parts, 1, "time", at.to(device))
        points = Points.of_layer(model, trajectory, x, 1, "time", at).moved(device)
        transposed = points.weight.t()
        gates = points.point.new_empty(len(points), points.weight.shape[0])
        product = points.product(lambda v: torch.mm(v, transposed, out=gates))
        start = peers.start_vectors(points)

        def ours() -> Tensor:
            return estimate_radius(operator, "krylov", PRODUCTS, 0.0, 0).radius

        def theirs(projected: Run) -> Run:
            # The small matrices' eigenvalues by LAPACK: torch has no batched ones on the device.
            return lambda: torch.linalg.eigvals(projected().cpu()).abs().amax(1)

        def errors(found: Tensor) -> Errors:
            return errors_of(found.cpu(), truth)

        def contender(name: str, run: Run) -> Contender:
            return Contender(name, _turn(device, precision, 1, run), count, lambda: errors(run()))

        others = [contender("closed-form torch loop", theirs(lambda: peers.projected(product, start)))]
        if device == "cuda":
            with precise(precision):
                replayed = graphed(lambda: peers.projected(product, start))
            others.append(contender(f"closed-form torch loop, {GRAPHED}", theirs(replayed)))
        allowed = {"median": 1e-2, "90th percentile": 5e-2}
        flops = 2.0 * PRODUCTS * GATES[kind] * hidden * hidden
        return Race(contender("lsc_ext", ours), others, allowed, flops)

    sizes = {"cell": kind, "H": hidden, "N": count, "direction": "time", "dtype": precision, "products": PRODUCTS}
    return Case("cuda radii", f"{kind}, time, H={hidden}, N={count}, {precision}", sizes, build, "point")


def _one_launch(device: str, hidden: int, batch: int, steps: int, layers: int, precision: str) -> Case:
    """The forward pass of a GRU and the radii of all its steps at fixed work, in one launch and in two passes."""

    def build() -> Race:
        torch.manual_seed(0)
        model = nn.GRU(hidden, hidden, layers).to(device)
        x = torch.randn(steps, batch, hidden).to(device)
        with torch.no_grad():
            trajectory = trajectory_of(model, x)
        assert isinstance(trajectory, StackTrajectory)
        initial, weights = trajectory.initial, trajectory.weights
        at = grid_points(steps, batch)
        points = fused.Points(
            torch.cat([torch.nn.functional.pad(at, (1, 0), value=layer) for layer in range(layers)]),
            vectors=torch.arange(len(at)).repeat(layers),
            seeds=torch.arange(layers).repeat_interleave(len(at)),
        )

        def together() -> list[Tensor]:
            states, _, found = fused.forward_radii(x, initial, weights, "gru", points, num_matvecs=PRODUCTS, tol=0.0)
            return [states, found.estimate.radius]

        def forward() -> list[Tensor]:
            return list(ops.recurrent(x, initial, weights, "gru"))

        def radii_of(states: Tensor, gates: Tensor) -> list[Tensor]:
            operators = [StepOperator("gru", x, states, gates, weights, k, "time", at) for k in range(layers)]
            found = [estimate_radius(each, "krylov", PRODUCTS, 0.0, k).radius for k, each in enumerate(operators)]
            return [states, torch.cat(found)]

        def apart() -> list[Tensor]:
            return radii_of(*forward())

        with precise(precision), torch.no_grad():
            states, gates = forward()
            truth = radii_of(states, gates)

        def contender(name: str, run: Run, count: int = 2) -> Contender:
            def errors() -> Errors:
                with precise(precision):
                    found = run()
                pairs = zip(found[:count], truth, strict=False)
                return {"difference from two passes": max(relative_error(a.cpu(), b.cpu()) for a, b in pairs)}

            return Contender(name, _turn(device, precision, 1, run), 1, errors)

        others = [
            contender("lsc_ext, two passes", apart),
            contender("lsc_ext, the forward pass alone", forward, 1),
            contender("lsc_ext, the radii alone", lambda: radii_of(states, gates)),
        ]
        per_point = 2.0 * PRODUCTS * 3 * hidden * hidden
        flops = layers * len(at) * (per_point + 2.0 * 2 * 3 * hidden * hidden)
        return Race(contender("lsc_ext, one launch", together), others, {"difference from two passes": 0.0}, flops)

    sizes = {"cell": "GRU", "H": hidden, "L": layers, "B": batch, "T": steps, "dtype": precision, "products": PRODUCTS}
    name = f"forward and radii, GRU, H={hidden}, L={layers}, B={batch}, T={steps}, {precision}"
    return Case("cuda radii", name, sizes, build, "call")


def roofline_of(figures: Mapping[str, float]) -> dict[str, Any]:
    """The limits of a device in the form of :mod:`lsc_ext.bench.roofline`, from what the constants' stage measured."""
    rates = {"fp32": "fma_fp32", "tf32": "mma_tf32", "fp16": "mma_fp16", "bf16": "mma_bf16", "float64": "fma_fp64"}
    return {
        "fma": {dtype: {"1": figures[f"{name}_tflop_per_s"] * 1e12} for dtype, name in rates.items()},
        "copy": {"1": figures["copy_gb_per_s"] * 1e9},
        "copy_bytes": 1 << 30,
    }


def main(group: str, output: str, constants: str) -> int:
    """Measures a group on the GPU and writes its rows after each case; returns 1 where a check is red."""
    figures = json.loads(Path(constants).read_text())["figures"]
    roofline = roofline_of(figures)
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "build": lsc_ext.build_info(),
        "rows": rows,
    }
    for case in GROUPS[group]("cuda", False):
        rows.append(measure(case, roofline, 1))
        for line in lines_of(rows[-1]):
            print(line, flush=True)
        write_whole(Path(output), json.dumps(report, indent=1).encode())
    return 0 if all(row["correct"] for row in rows) else 1
