"""The CUDA backend. Functions of the same names as on the CPU end in an execution instead of a number of threads.

They return how many bytes of workspace they need; without a workspace they do nothing else.
"""

from collections.abc import Sequence
from typing import Any

from lsc_ext._C import _Buffer, _Layer

class Execution:
    def __init__(
        self, device: int, stream: int, precision: str, workspace: _Buffer | None, barrier: int | None
    ) -> None: ...

class ResultBuffers:
    def __init__(
        self,
        radius: _Buffer,
        eigenvalue: _Buffer,
        residual: _Buffer,
        condition: _Buffer,
        num_matvecs: _Buffer,
        status: _Buffer,
        vectors: _Buffer | None,
    ) -> None: ...

class Operator:
    def apply(
        self, transpose: bool, indices: _Buffer | None, count: int, v: _Buffer, out: _Buffer, execution: Execution
    ) -> int: ...
    def radii(
        self,
        tol: float,
        max_matvecs: int,
        seed: int,
        indices: _Buffer | None,
        count: int,
        targets: _Buffer | None,
        transposed: bool,
        out: ResultBuffers,
        execution: Execution,
        first: int = 0,
    ) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def points(self) -> int: ...
    @property
    def rows(self) -> int: ...

class StepOperator(Operator):
    def bilinear_gradient(
        self,
        indices: _Buffer,
        count: int,
        u: _Buffer,
        v: _Buffer,
        gradient: _Layer,
        gradient_below: _Layer,
        states: _Buffer | None,
        input: _Buffer | None,
        states_below: _Buffer | None,
        input_below: _Buffer | None,
        execution: Execution,
    ) -> int: ...
    def linearize(self, execution: Execution) -> int: ...

def architectures() -> list[str]: ...
def backward(
    cell: str,
    dtype: str,
    sizes: Sequence[int],
    x: _Buffer,
    weights: Sequence[_Layer],
    states: _Buffer,
    gates: _Buffer,
    state_gradients: _Buffer,
    x_gradient: _Buffer,
    gradients: Sequence[_Layer],
    execution: Execution,
) -> int: ...
def block_scan(
    dtype: str,
    sizes: Sequence[int],
    blocks: _Buffer,
    inputs: _Buffer,
    initial: _Buffer | None,
    states: _Buffer,
    reverse: bool,
    execution: Execution,
) -> int: ...
def device_count() -> int: ...
def device_info(index: int) -> dict[str, Any]: ...
def forward(
    cell: str,
    dtype: str,
    sizes: Sequence[int],
    x: _Buffer,
    weights: Sequence[_Layer],
    states: _Buffer,
    gates: _Buffer | None,
    execution: Execution,
) -> int: ...
def forward_radii(
    cell: str,
    dtype: str,
    sizes: Sequence[int],
    x: _Buffer,
    weights: Sequence[_Layer],
    states: _Buffer,
    gates: _Buffer,
    direction: str,
    count: int,
    items: Sequence[_Buffer],
    tol: float,
    max_matvecs: int,
    out: ResultBuffers,
    left: ResultBuffers | None,
    execution: Execution,
) -> int: ...
def launches() -> int: ...
def matrix_operator(dtype: str, points: int, rows: int, columns: int, matrices: _Buffer) -> Operator: ...
def multiply(
    dtype: str,
    m: int,
    n: int,
    k: int,
    a: _Buffer,
    a_row: int,
    a_column: int,
    b: _Buffer,
    b_row: int,
    b_column: int,
    c: _Buffer,
    execution: Execution,
) -> int: ...
def plan(what: str, cell: str, dtype: str, sizes: Sequence[int], execution: Execution) -> dict[str, Any]: ...
def scan(
    dtype: str,
    sizes: Sequence[int],
    transition: _Buffer,
    inputs: _Buffer,
    initial: _Buffer | None,
    states: _Buffer,
    constant: bool,
    reverse: bool,
    adjoint: bool,
    execution: Execution,
) -> int: ...
def start_vectors(dtype: str, seed: int, first: int, count: int, n: int, out: _Buffer, execution: Execution) -> int: ...
def step_operator(
    cell: str,
    dtype: str,
    sizes: Sequence[int],
    x: _Buffer,
    weights: Sequence[_Layer],
    states: _Buffer,
    gates: _Buffer,
    layer: int,
    direction: str,
    t: _Buffer,
    b: _Buffer,
    count: int,
    coefficients: _Buffer,
    slopes: _Buffer,
    coefficients_below: _Buffer,
    slopes_below: _Buffer,
) -> StepOperator: ...
def why_no_device() -> str: ...
