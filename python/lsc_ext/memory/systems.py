"""Linear networks as matrices: h' = A h + B x, y = C h' + D x, dense, in blocks or diagonal, and layers read as such.

Letters: I inputs, O outputs, n states, K blocks of m states, T steps, g[k] [O, I] the response after k steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lsc_ext.impulse import impulse_response
from lsc_ext.memory.eigenvalue import LogEigenvalue, Point, read_eigenvalue
from lsc_ext.nn.linear import LRU, BlockDiagonalRNN, ComplexDiagonalRNN, LinearRecurrent


@dataclass(frozen=True)
class DenseSystem:
    """h' = A h + B x, y = C h' + D x with real matrices; all become float64.

    Attributes:
        A: [n, n], or [K, m, m] for blocks along the diagonal, n = K m.
        B: [n, I], or [n] for one input.
        C: [O, n], or [n] for one output.
        D: [O, I]; a number for one input and output; None for 0.

    Raises:
        ValueError: shapes that do not fit, or complex numbers.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None

    def __post_init__(self) -> None:
        A = _real("A", self.A)
        if A.dim() not in (2, 3) or A.shape[-1] != A.shape[-2]:
            raise ValueError(f"A: expected shape (n, n) or (K, m, m), got {tuple(A.shape)}")
        n = A.shape[-1] * (len(A) if A.dim() == 3 else 1)
        B, C = _ports(_real("B", self.B), _real("C", self.C), n)
        for name, value in (("A", A), ("B", B), ("C", C), ("D", _feedthrough(self.D, B, C))):
            object.__setattr__(self, name, value)

    def parameters(self) -> dict[str, Tensor]:
        """A, B, C and D, in the order of :func:`lsc_ext.memory.hessian`."""
        return {"A": self.A, "B": self.B, "C": self.C, "D": _given(self.D)}

    def with_parameters(self, values: Mapping[str, Tensor]) -> DenseSystem:
        """One with other values of :meth:`parameters`."""
        return DenseSystem(**values)

    def impulse_response(self, steps: int) -> Tensor:
        """g[0] = C B + D, g[k] = C A^k B, [T, O, I]."""
        return _response(self.impulse_matrices(), steps)

    def impulse_matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A [K, m, m], B, C and D, all real."""
        return self.A if self.A.dim() == 3 else self.A.unsqueeze(0), self.B, self.C, _given(self.D)

    def dense(self) -> DenseSystem:
        """With A as one matrix."""
        return replace(self, A=torch.block_diag(*self.A)) if self.A.dim() == 3 else self


@dataclass(frozen=True)
class DiagonalSystem:
    """h' = lambda h + B x, y = Re(C h') + D x; all become complex128, and float64 for D.

    Attributes:
        lam: [n] real or complex, or a :class:`LogEigenvalue`.
        B: [n, I], or [n] for one input; real or complex.
        C: [O, n], or [n] for one output; real or complex.
        D: [O, I] real; a number for one input and output; None for 0.

    Raises:
        ValueError: shapes that do not fit.
    """

    lam: Tensor | LogEigenvalue
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    point: Point = field(init=False, repr=False)

    def __post_init__(self) -> None:
        point = read_eigenvalue("lam", self.lam, inside=False)
        if point.value.dim() != 1:
            raise ValueError(f"lam: expected shape (n,), got {tuple(point.value.shape)}")
        B, C = (torch.as_tensor(z).to(torch.complex128) for z in (self.B, self.C))
        B, C = _ports(B, C, len(point.value))
        for name, value in (("point", point), ("B", B), ("C", C), ("D", _feedthrough(self.D, B.real, C.real))):
            object.__setattr__(self, name, value)

    def parameters(self) -> dict[str, Tensor]:
        """Real and imaginary parts of lambda, B and C, each [2, ..], and D, in the order of the Hessian."""
        parts = {"lam": self.point.value, "B": self.B, "C": self.C}
        return {name: torch.stack((z.real, z.imag)) for name, z in parts.items()} | {"D": _given(self.D)}

    def with_parameters(self, values: Mapping[str, Tensor]) -> DiagonalSystem:
        """One with other values of :meth:`parameters`."""
        lam, B, C = (torch.complex(*values[name]) for name in ("lam", "B", "C"))
        return DiagonalSystem(lam, B, C, values["D"])

    def impulse_response(self, steps: int) -> Tensor:
        """g[0] = Re C B + D, g[k] = Re C lambda^k B, [T, O, I]."""
        return _response(self.impulse_matrices(), steps)

    def impulse_matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A [n, 2, 2], B [2 n, I], C [O, 2 n] and D: the same with real numbers, a state as (real, imaginary)."""
        real, imag = self.point.value.real, self.point.value.imag
        blocks = torch.stack((real, -imag, imag, real), -1).view(-1, 2, 2)
        B = torch.view_as_real(self.B.resolve_conj()).transpose(1, 2).flatten(0, 1)
        C = torch.view_as_real(self.C.conj().resolve_conj()).flatten(1)
        return blocks, B, C, _given(self.D)

    def dense(self) -> DenseSystem:
        """The same with real matrices: real parts, then imaginary parts of the state."""
        real, imag = (torch.diag(z) for z in (self.point.value.real, self.point.value.imag))
        A = torch.cat((torch.cat((real, -imag), 1), torch.cat((imag, real), 1)))
        B, C = torch.cat((self.B.real, self.B.imag)), torch.cat((self.C.real, -self.C.imag), 1)
        return DenseSystem(A, B, C, self.D)


LinearSystem = DenseSystem | DiagonalSystem


def system_of(layer: nn.Module) -> LinearSystem:
    """A layer with a linear recurrence as matrices, in float64; gradients flow to its parameters.

    Args:
        layer: :class:`lsc_ext.nn.LRU`, :class:`ComplexDiagonalRNN` or :class:`BlockDiagonalRNN` of one layer.

    Raises:
        ValueError: more than one layer.
        TypeError: another module.
    """
    read = _check_layer(layer)
    D = _feedthrough_of(read)
    if isinstance(read, BlockDiagonalRNN):
        return DenseSystem(_of(read, "A"), _of(read, "B"), _of(read, "C"), D)
    lam: Tensor | LogEigenvalue
    if isinstance(read, LRU):
        lam = LogEigenvalue(_of(read, "nu_log").exp(), _of(read, "theta_log").exp())
    else:
        lam = torch.complex(*_of(read, "lambda"))
    B = torch.complex(*_of(read, "B"))
    if hasattr(read, "gamma_log_l0"):
        B = _of(read, "gamma_log").exp().unsqueeze(1) * B
    return DiagonalSystem(lam, B, torch.complex(*_of(read, "C")), D)


def real_matrices(system: LinearSystem | nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A [K, m, m], B, C and D of the real network that answers as ``system``, or a layer of :func:`system_of`, does.

    Of layers without a detour through complex numbers, which training takes often.

    Raises:
        ValueError: as :func:`system_of`.
        TypeError: as :func:`system_of`.
    """
    if isinstance(system, DenseSystem | DiagonalSystem):
        return system.impulse_matrices()
    layer = _check_layer(system)
    D = _feedthrough_of(layer)
    if isinstance(layer, BlockDiagonalRNN):
        return _of(layer, "A"), _of(layer, "B"), _of(layer, "C"), D
    if D.dtype != layer.D_l0.dtype:  # then the layer's own exponentials would have its digits
        return system_of(layer).impulse_matrices()
    real, imag = layer.eigenvalue_parts(0)
    blocks = torch.stack((real, -imag, imag, real), -1).view(-1, 2, 2)
    B = layer.input_matrix(0).transpose(0, 1).flatten(0, 1)
    c_real, c_imag = _of(layer, "C").unbind(0)
    return blocks, B, torch.stack((c_real, -c_imag), -1).flatten(1), D


def _check_layer(layer: nn.Module) -> LRU | ComplexDiagonalRNN | BlockDiagonalRNN:
    if not isinstance(layer, LRU | ComplexDiagonalRNN | BlockDiagonalRNN):
        raise TypeError(
            f"layer: expected an LRU, a ComplexDiagonalRNN or a BlockDiagonalRNN, got {type(layer).__qualname__}"
        )
    if layer.num_layers != 1:
        raise ValueError(f"layer: expected num_layers == 1, as a stack is not one recurrence, got {layer.num_layers}")
    return layer


def _feedthrough_of(layer: LinearRecurrent) -> Tensor:
    D = _of(layer, "D")
    return torch.diag(D) if D.dim() == 1 and len(D) > 1 else D.view(len(D), -1)


def _of(layer: LinearRecurrent, name: str) -> Tensor:
    parameter: Tensor = getattr(layer, f"{name}_l0")
    return parameter.double()


def _real(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.is_complex():
        raise ValueError(f"{name}: expected a real tensor, got {value.dtype if isinstance(value, Tensor) else value}")
    return value.double()


def _ports(B: Tensor, C: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """B [n, I] and C [O, n]."""
    into, out = B.view(-1, 1) if B.dim() == 1 else B, C.view(1, -1) if C.dim() == 1 else C
    if into.dim() != 2 or into.shape[0] != n:
        raise ValueError(f"B: expected shape ({n},) or ({n}, I), got {tuple(B.shape)}")
    if out.dim() != 2 or out.shape[1] != n:
        raise ValueError(f"C: expected shape ({n},) or (O, {n}), got {tuple(C.shape)}")
    return into, out


def _feedthrough(D: Tensor | None, B: Tensor, C: Tensor) -> Tensor:
    """D [O, I]."""
    O, I = C.shape[0], B.shape[1]
    if D is None:
        return B.new_zeros(O, I)
    if isinstance(D, complex) or (isinstance(D, Tensor) and D.is_complex()):
        raise ValueError(f"D: expected real numbers, got {D}")
    D = torch.as_tensor(D, dtype=torch.float64)
    if D.shape != (O, I) and not (O == I == 1 and D.numel() == 1):
        raise ValueError(f"D: expected shape ({O}, {I}), got {tuple(D.shape)}")
    return D.reshape(O, I)


def _given(D: Tensor | None) -> Tensor:
    assert D is not None  # __post_init__ has put zeros there
    return D


def _response(matrices: tuple[Tensor, Tensor, Tensor, Tensor], steps: int) -> Tensor:
    A, B, C, D = matrices
    response = impulse_response(A, B, C, steps)
    return torch.cat((response[:1] + D, response[1:]))
