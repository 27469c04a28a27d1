"""Compiled kernels of lsc_ext. Private: use the Python functions."""

from collections.abc import Callable, Sequence
from typing import Any

# A build with CUDA has the module `cuda` beside these.

# Address and number of elements of contiguous memory that the caller keeps alive.
_Buffer = tuple[int, int]
# weight_ih, weight_hh, bias_ih, bias_hh, unit.
_Layer = Sequence[_Buffer | None]

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
        self, transpose: bool, indices: _Buffer | None, count: int, v: _Buffer, out: _Buffer, threads: int
    ) -> None: ...
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
        threads: int,
        first: int = 0,
    ) -> None: ...
    def chain(self, chains: _Buffer, count: int, length: int, scales: _Buffer, gram: bool) -> Operator: ...
    def growth(
        self,
        points: _Buffer,
        steps: int,
        chains: int,
        vectors: int,
        every: int,
        seed: int,
        q: _Buffer,
        logs: _Buffer,
        threads: int,
    ) -> None: ...
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
        threads: int,
    ) -> None: ...

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
    threads: int,
) -> None: ...
def block_scan(
    dtype: str,
    sizes: Sequence[int],
    blocks: _Buffer,
    inputs: _Buffer,
    initial: _Buffer | None,
    states: _Buffer,
    reverse: bool,
    threads: int,
) -> None: ...
def backward_from_ends(cell: str, dtype: str, sizes: Sequence[int], memory: Sequence[int], threads: int) -> None: ...
def copy_rate(threads: int, bytes: int, seconds: float) -> float: ...
def fma_rate(dtype: str, threads: int, seconds: float) -> float: ...
def build_info() -> dict[str, Any]: ...
def callback_operator(
    dtype: str,
    points: int,
    n: int,
    index: _Buffer,
    v: _Buffer,
    out: _Buffer,
    function: Callable[[bool, int], object],
) -> Operator: ...
def cells() -> dict[str, dict[str, int]]: ...
def forward_from_zero(cell: str, dtype: str, sizes: Sequence[int], memory: Sequence[int], threads: int) -> None: ...
def forward(
    cell: str,
    dtype: str,
    sizes: Sequence[int],
    x: _Buffer,
    weights: Sequence[_Layer],
    states: _Buffer,
    gates: _Buffer | None,
    threads: int,
) -> None: ...
def impulse_pull(
    dtype: str,
    sizes: Sequence[int],
    A: _Buffer,
    C: _Buffer,
    slope: _Buffer,
    states: _Buffer,
    A_gradient: _Buffer,
    B_gradient: _Buffer,
    C_gradient: _Buffer,
    threads: int,
) -> None: ...
def impulse_push(
    dtype: str,
    sizes: Sequence[int],
    A: _Buffer,
    C: _Buffer,
    A_change: _Buffer,
    B_change: _Buffer,
    C_change: _Buffer,
    states: _Buffer,
    change: _Buffer,
    threads: int,
) -> None: ...
def impulse_response(
    dtype: str,
    sizes: Sequence[int],
    A: _Buffer,
    B: _Buffer,
    C: _Buffer,
    states: _Buffer,
    response: _Buffer,
    threads: int,
) -> None: ...
def impulse_states_size(dtype: str, sizes: Sequence[int]) -> int: ...
def matrix_operator(dtype: str, points: int, rows: int, columns: int, matrices: _Buffer) -> Operator: ...
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
    threads: int,
) -> None: ...
def sensitivity_scan(
    dtype: str,
    sizes: Sequence[int],
    transition: _Buffer,
    inputs: _Buffer,
    state: _Buffer,
    derivative: _Buffer,
    state_squares: _Buffer,
    derivative_squares: _Buffer,
    threads: int,
) -> None: ...
def start_vectors(dtype: str, seed: int, first: int, count: int, n: int, out: _Buffer, threads: int) -> None: ...
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
    threads: int,
) -> StepOperator: ...
