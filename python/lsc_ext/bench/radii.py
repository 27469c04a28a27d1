"""Radii at fixed work, 64 + 16 products per point, against everybody; to a tolerance against LAPACK; their gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.bench import peers
from lsc_ext.bench.case import Case, Contender, Errors, Race
from lsc_ext.bench.closed_form import Points
from lsc_ext.bench.measure import relative_error
from lsc_ext.estimate import RadiusEstimate
from lsc_ext.nn import StackTrajectory
from lsc_ext.operator import StepOperator
from lsc_ext.radii import radii
from lsc_ext.spectral import estimate_radius
from lsc_ext.trajectory import grid_points, trajectory_of

KINDS = {"RNN": 1, "GRU": 3, "LSTM": 4}  # and their gates
PRODUCTS = peers.FILTER + peers.ORDER
# What 80 products reach at these networks, ours and theirs alike.
ALLOWED = {"median": 1e-2, "90th percentile": 5e-2}


def cases(quick: bool) -> list[Case]:
    """The group "radii"."""
    hidden = (16,) if quick else (64, 128, 256, 512)
    counts = (8,) if quick else (256, 1024)
    fixed = [fixed_work(kind, h, n, everybody=n == counts[0]) for kind in KINDS for h in hidden for n in counts]
    one, n = (16, 8) if quick else (128, 256)
    return [
        *fixed,
        fixed_work("GRU", one, n, dtype="float64"),
        fixed_work("GRU", one, n, direction="depth"),
        to_tolerance(*((24, 4, 2) if quick else (256, 32, 8))),
        gradient(one, n),
    ]


@functools.lru_cache(maxsize=1)
def _network(kind: str, hidden: int, dtype: torch.dtype) -> tuple[Any, Tensor, StackTrajectory, Tensor]:
    """Two layers as torch draws them, run over normal data, and the shuffled points of the grid: kept for the next."""
    torch.manual_seed(0)
    model = getattr(torch.nn, kind)(hidden, hidden, 2, dtype=dtype)
    x = torch.randn(32, 32, hidden, dtype=dtype)
    trajectory = trajectory_of(model, x)
    assert isinstance(trajectory, StackTrajectory)
    points = grid_points(32, 32)
    return model, x, trajectory, points[torch.randperm(points.shape[0])]


@functools.lru_cache(maxsize=1)
def _truth(kind: str, hidden: int, dtype: torch.dtype, direction: str, count: int) -> Tensor:
    """Radii of the first points by LAPACK in float64."""
    model, x, trajectory, at = _network(kind, hidden, dtype)
    sample = Points.of_layer(model, trajectory, x, 1, direction, at[:count])
    return peers.dense(sample.to(torch.float64))()


def errors_of(found: Tensor, truth: Tensor) -> Errors:
    """Median and 90th percentile of the relative errors at the points that both have."""
    count = min(len(found), len(truth))
    error = ((found[:count].double() - truth[:count]) / truth[:count]).abs()
    return {"median": float(error.median()), "90th percentile": float(error.quantile(0.9)), "points": float(count)}


def fixed_work(
    kind: str, hidden: int, count: int, direction: str = "time", dtype: str = "float32", everybody: bool = False
) -> Case:
    """``count`` points of the second of two layers; ``everybody``: also those that take long, at few points each."""
    precision = getattr(torch, dtype)

    def build() -> Race:
        model, x, trajectory, at = _network(kind, hidden, precision)
        at = at[:count]
        points = Points.of_layer(model, trajectory, x, 1, direction, at)
        operator = StepOperator(
            trajectory.cell, x, trajectory.states, trajectory.gates, trajectory.weights, 1, direction, at
        )
        # LAPACK takes seconds for one matrix of 1024 rows.
        truth = _truth(kind, hidden, precision, direction, min(count, 16 if operator.columns <= 256 else 5))

        def contender(name: str, make: Callable[[Points], peers.Radii], most: int, missing: str = "") -> Contender:
            if missing:
                return Contender(name, missing=missing)
            few = points.first(most)
            run = make(few)
            return Contender(name, run, len(few), lambda: errors_of(run(), truth))

        def ours() -> RadiusEstimate:
            return estimate_radius(operator, "krylov", PRODUCTS, 0.0, 0)

        made = float(ours().num_matvecs.double().mean())

        def errors() -> Errors:
            return {**errors_of(ours().radius, truth), "products": made}

        others = [
            contender(peers.MKL, peers.mkl_loop, count),
            contender(peers.ONEDNN, peers.onednn_loop, count, peers.onednn_missing(precision)),
        ]
        if everybody:
            others += [
                contender(peers.JVP, peers.jvp_loop, 64),
                contender(peers.DENSE, peers.dense, 1 if operator.columns > 512 else 4),
                contender(peers.ARPACK, peers.arpack, 5, peers.scipy_missing()),
                contender(peers.MATFREE, peers.matfree, count, peers.matfree_missing()),
            ]
        flops = 2.0 * made * KINDS[kind] * hidden * hidden
        return Race(Contender("lsc_ext", ours, count, errors), others, ALLOWED, flops)

    sizes = {"cell": kind, "H": hidden, "N": count, "direction": direction, "dtype": dtype, "products": PRODUCTS}
    name = f"{kind}, {direction}, H={hidden}, N={count}, {dtype}"
    return Case("radii", name, sizes, build, "point")


def to_tolerance(hidden: int, steps: int, batch: int) -> Case:
    """All points along time of a 3-layer GRU to tol 1e-3, against forming each Jacobian."""
    count = 3 * steps * batch

    def build() -> Race:
        torch.manual_seed(0)
        model = torch.nn.GRU(28, hidden, 3)
        x = torch.randn(steps, batch, 28)
        trajectory = trajectory_of(model, x)
        assert isinstance(trajectory, StackTrajectory)
        at = grid_points(steps, batch)[-min(24, steps * batch) :]
        points = Points.of_layer(model, trajectory, x, 1, "time", at)
        truth = peers.dense(points.to(torch.float64))()

        def ours() -> Any:
            generator = torch.Generator().manual_seed(0)
            return radii(model, x, directions=("time",), method="krylov", tol=1e-3, generator=generator)["time"]

        found = ours()

        def errors() -> Errors:
            sample = ours().radius[1].flatten()[-len(points) :]
            return {**errors_of(sample, truth), "not certified": 1 - found.certified_fraction}

        few = points.first(4)
        dense = peers.dense(few)
        flops = float(found.num_matvecs.double().mean()) * 2 * 3 * hidden * hidden
        return Race(
            Contender("lsc_ext", ours, count, errors),
            [Contender(peers.DENSE, dense, len(few), lambda: errors_of(dense(), truth))],
            {"median": 1e-3, "90th percentile": 1e-2},
            flops,
        )

    sizes = {"cell": "GRU", "H": hidden, "L": 3, "T": steps, "B": batch, "N": count, "tol": 1e-3, "dtype": "float32"}
    return Case("radii", f"3-layer GRU, time, H={hidden}, N={count}, to tol 1e-3", sizes, build, "point", 7, 4.0)


def gradient(hidden: int, count: int) -> Case:
    """Radii and the gradient of their sum, against reverse mode through LAPACK's eigenvalues."""

    def build() -> Race:
        with torch.no_grad():
            model, x, trajectory, at = _network("GRU", hidden, torch.float32)
            points = Points.of_layer(model, trajectory, x, 1, "time", at[:count])
        few = points.first(8)

        def through_eigenvalues(points: Points) -> Tensor:
            weight = points.weight.clone().requires_grad_()
            values = torch.linalg.eigvals(points.dense(weight))
            return torch.autograd.grad(values.abs().amax(1).sum(), weight)[0]

        truth = through_eigenvalues(few.to(torch.float64))
        leaves = [w.detach().requires_grad_() for w in trajectory.weights]

        def by_ours(at: Tensor) -> Tensor:
            parts = (trajectory.cell, x, trajectory.states, trajectory.gates, leaves)
            radius = estimate_radius(StepOperator(*parts, 1, "time", at), "krylov", None, 1e-3, 0).radius
            return torch.autograd.grad(radius.sum(), leaves[ops.PER_LAYER + 1])[0]  # weight_hh of the second layer

        return Race(
            Contender("lsc_ext", lambda: by_ours(at[:count]), count, lambda: _error(by_ours(at[: len(few)]), truth)),
            [
                Contender(
                    "torch.func.jacrev + differentiable eigvals",
                    lambda: through_eigenvalues(few),
                    len(few),
                    lambda: _error(through_eigenvalues(few), truth),
                )
            ],
            {"relative error": 5e-2},
        )

    sizes = {"cell": "GRU", "H": hidden, "N": count, "direction": "time", "tol": 1e-3, "dtype": "float32"}
    return Case("radii", f"gradient, GRU, time, H={hidden}, N={count}, to tol 1e-3", sizes, build, "point", grad=True)


def _error(found: Tensor, expected: Tensor) -> Errors:
    return {"relative error": relative_error(found, expected)}
