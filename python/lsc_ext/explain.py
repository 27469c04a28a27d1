"""Which implementation a measurement would use, and why, before it is made.

Letters: n rows and columns of a Jacobian, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lsc_ext import _C, ops
from lsc_ext.operator import (
    ConcatenatedOperator,
    ConstantOperator,
    JacobianOperator,
    MatrixOperator,
    StepOperator,
    eval_mode,
)
from lsc_ext.radii import check_directions, check_implementation, launched_direction, whole_direction
from lsc_ext.spectral import DENSE_LIMIT, check_options, method_of
from lsc_ext.trajectory import trajectory_of


@dataclass(frozen=True)
class LayerExplanation:
    """How the radii of one layer along one direction would be found.

    Attributes:
        direction: as :func:`lsc_ext.radii` has it.
        layer: which.
        rows: of its Jacobians.
        columns: of its Jacobians.
        products: what multiplies with them: "compiled, cpu", "compiled, cuda" or "torch".
        method: "closed form", "dense", "krylov", "power" or "frobenius", as estimates name it.
        why: the reason for that method.
    """

    direction: str
    layer: int
    rows: int
    columns: int
    products: str
    method: str
    why: str


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found.

    Attributes:
        model: its class, and what it is read as.
        backend: whose code runs compiled parts: "cpu", or the device.
        instruction_set: of the CPU's code; "" elsewhere.
        implementation: "generic", or "fused" for one launch with the forward pass.
        fused: direction -> why its radii are not found in that launch; "" for the one that is.
        time_steps: T.
        steps_at_once: how many of them are held at once.
        why_at_once: the reason.
        layers: one line for each direction and layer.
    """

    model: str
    backend: str
    instruction_set: str
    implementation: str
    fused: dict[str, str]
    time_steps: int
    steps_at_once: int
    why_at_once: str
    layers: list[LayerExplanation]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.model} on {self.backend}: {self.implementation}",
            f"steps at once: {self.steps_at_once} of {self.time_steps}, {self.why_at_once}",
        ]
        for direction, reason in self.fused.items():
            text = "in one launch with the forward pass" if not reason else f"not in one launch: {reason}"
            lines.append(f"{direction}: {text}")
        lines.append(f"{'direction':<10}{'layer':>6}{'Jacobian':>14}  {'products':<15}{'method':<13}why")
        for row in self.layers:
            size = f"{row.rows} x {row.columns}"
            lines.append(f"{row.direction:<10}{row.layer:>6}{size:>14}  {row.products:<15}{row.method:<13}{row.why}")
        return "\n".join(lines)


@ops.uncompiled
def explain(
    model: Any,
    inputs: Tensor,
    initial_state: Any = None,
    *,
    directions: Sequence[str] = ("time", "depth"),
    method: str = "auto",
    tol: float = 1e-3,
    impl: str = "auto",
    through_states: bool = False,
    readout: Callable[[Tensor], Tensor] | None = None,
    square: str = "frobenius",
) -> Explanation:
    """What :func:`lsc_ext.radii` would do with the same arguments: which code, which method for which layer, and why.

    It runs the model once over ``inputs`` and finds no radius.

    Args:
        model: as :func:`lsc_ext.radii` takes it, and so are the others.
        inputs: the same.
        initial_state: the same.
        directions: the same.
        method: the same.
        tol: the same.
        impl: the same.
        through_states: the same.
        readout: the same.
        square: the same.

    Raises:
        ValueError: an option is wrong, or ``impl="fused"`` where that is not possible.
        TypeError: the model is of another kind.
    """
    names = check_directions(directions)
    check_options(method, None, tol)
    check_implementation(impl, square)
    if "output" in names and readout is None:
        raise ValueError("readout: expected a module for direction 'output', got None")
    with eval_mode(model, readout):
        trajectory = trajectory_of(model, inputs, initial_state, through_states)
        asked = [name for name in names if trajectory.layers_of(name)]
        recorded = trajectory.recorded
        launched, reasons = launched_direction(trajectory, asked, method, impl, recorded, tol)
        held = trajectory.time_steps if recorded else next(iter(trajectory.pieces()))[1].time_steps
        point = torch.zeros(min(1, trajectory.time_steps * trajectory.batch), 2, dtype=torch.int64)
        layers = []
        for direction in asked:
            for layer in trajectory.layers_of(direction):
                operator = trajectory.operator(direction, layer, point, readout=readout)
                layers.append(_explained(operator, direction, layer, method, square))
                operator.release()
    if recorded:
        why = "as gradients are recorded"
    else:
        why = "as the trajectory fits or is kept whole" if held == trajectory.time_steps else "32 MiB of a trajectory"
    fused = {name: "" if name == launched else reasons[name] or f"{launched} is" for name in asked}
    return Explanation(
        f"{type(model).__qualname__}, read as a {type(trajectory).__name__},",
        str(inputs.device),
        str(_C.build_info()["instruction_set"]) if inputs.device.type == "cpu" else "",
        "generic" if launched is None else "fused",
        fused,
        trajectory.time_steps,
        held,
        why,
        layers,
    )


def _explained(operator: JacobianOperator, direction: str, layer: int, method: str, square: str) -> LayerExplanation:
    rows, columns = operator.rows, operator.columns
    if not whole_direction(operator, direction):
        if square == "frobenius":
            found, why = "frobenius", "the radius that a square part of it would have, by its norm"
            return LayerExplanation(direction, layer, rows, columns, _products(operator), found, why)
        columns = min(rows, columns)  # of the part that is drawn
        chosen = method if method != "auto" else "dense" if columns <= DENSE_LIMIT else "krylov"
    else:
        chosen = method_of(operator, method)
    return LayerExplanation(
        direction, layer, operator.rows, operator.columns, _products(operator), chosen, _why(chosen, method, columns)
    )


def _why(chosen: str, method: str, n: int) -> str:
    if method != "auto":
        return "as asked for"
    if chosen == "closed form":
        return "its eigenvalues are known"
    return f"n = {n} is {'at most' if chosen == 'dense' else 'more than'} {DENSE_LIMIT}"


def _products(operator: JacobianOperator) -> str:
    if isinstance(operator, ConstantOperator):
        return _products(operator.one)
    if isinstance(operator, ConcatenatedOperator):
        return _products(operator.parts[0])
    compiled = isinstance(operator, StepOperator | MatrixOperator)
    return f"compiled, {operator.backend.name}" if compiled else "torch"
