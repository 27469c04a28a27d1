"""States of a diagonal recurrence and their sensitivity to its eigenvalues in one pass over data of any length.

Letters: T steps, B sequences, N units, a their eigenvalues, s the sensitivity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext import backends, ops
from lsc_ext.scan import DTYPES, memory_of, scan

#: Steps that a device without the compiled pass holds at once.
_CHUNK = 1024


class SensitivityScan:
    """h_t = a h_{t-1} + x_t and s_t = d h_t / d a = a s_{t-1} + h_{t-1}; only the last and sums of squares stay.

    Takes time O(T B N) and memory O(B N) for sequences that come in pieces. On the CPU it is one compiled pass, with
    sums in float64; elsewhere it is two scans of pieces of 1,024 steps. For complex a the derivative is the holomorphic
    one. Autograd does not see it.

    Args:
        eigenvalues: a [N], float32, float64, complex64 or complex128.
        batch: B.

    Raises:
        ValueError: eigenvalues that are not [N], or no sequence.
        TypeError: another dtype.
    """

    def __init__(self, eigenvalues: Tensor, batch: int) -> None:
        if eigenvalues.dim() != 1:
            raise ValueError(f"eigenvalues: expected shape (N,), got {tuple(eigenvalues.shape)}")
        if eigenvalues.dtype not in DTYPES:
            raise TypeError(f"eigenvalues: expected float32, float64, complex64 or complex128, got {eigenvalues.dtype}")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch: expected at least 1, got {batch!r}")
        self.eigenvalues = memory_of(eigenvalues.detach())
        shape = (batch, len(eigenvalues))
        #: After the last step, [B, N].
        self.state = eigenvalues.new_zeros(shape)
        #: d state / d a, [B, N].
        self.sensitivity = eigenvalues.new_zeros(shape)
        #: How many steps were taken.
        self.steps = 0
        parts = (2,) if eigenvalues.is_complex() else ()
        self._squares = [
            torch.zeros(*shape, *parts, dtype=torch.float64, device=eigenvalues.device)
            for _ in ("state", "sensitivity")
        ]

    def feed(self, inputs: Tensor) -> SensitivityScan:
        """Goes on along ``inputs`` [T, B, N], real or of the eigenvalues' dtype; returns itself.

        Raises:
            ValueError: another shape.
            TypeError: another dtype.
            RuntimeError: tensors of several devices.
        """
        shape = tuple(self.state.shape)
        if inputs.dim() != 3 or tuple(inputs.shape[1:]) != shape:
            raise ValueError(f"inputs: expected shape (T, {shape[0]}, {shape[1]}), got {tuple(inputs.shape)}")
        if inputs.device != self.state.device:
            raise RuntimeError(f"inputs: expected a tensor on {self.state.device}, got {inputs.device}")
        if inputs.dtype not in (self.state.dtype, self.state.real.dtype):
            raise TypeError(f"inputs: expected {self.state.dtype} or {self.state.real.dtype}, got {inputs.dtype}")
        inputs = memory_of(inputs.detach().to(self.state.dtype))
        with torch.no_grad():
            if backends.backend_of(inputs).name == "cpu":
                self._feed_compiled(inputs)
            else:
                self._feed_by_scans(inputs)
        self.steps += len(inputs)
        return self

    def state_second_moment(self) -> Tensor:
        """Mean of |h|^2 over all steps and sequences so far, [N] float64; NaN before the first."""
        return self._moment(self._squares[0])

    def sensitivity_second_moment(self) -> Tensor:
        """Mean of |d h / d a|^2, likewise."""
        return self._moment(self._squares[1])

    def _moment(self, squares: Tensor) -> Tensor:
        each = squares.sum(-1) if squares.dim() == 3 else squares
        return each.mean(0) / self.steps if self.steps else torch.full_like(each[0], float("nan"))

    def _feed_compiled(self, inputs: Tensor) -> None:
        backend = backends.backend_of(inputs)
        backend.call(
            backend.functions.sensitivity_scan,
            DTYPES[inputs.dtype],
            list(inputs.shape),
            ops.buffer(self.eigenvalues),
            ops.buffer(inputs),
            ops.buffer(self.state),
            ops.buffer(self.sensitivity),
            *(ops.buffer(squares) for squares in self._squares),
        )

    def _feed_by_scans(self, inputs: Tensor) -> None:
        for piece in inputs.split(_CHUNK):
            states = scan(self.eigenvalues, piece, self.state)
            before = torch.cat((self.state.unsqueeze(0), states[:-1]))
            derivatives = scan(self.eigenvalues, before, self.sensitivity)
            for total, values in zip(self._squares, (states, derivatives), strict=True):
                numbers = torch.view_as_real(values) if values.is_complex() else values
                total += numbers.double().square().sum(0)
            self.state, self.sensitivity = states[-1].clone(), derivatives[-1].clone()
