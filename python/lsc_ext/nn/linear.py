"""Recurrent layers whose recurrence is linear, on the compiled scan.

Letters: T time, B batch, I input size, H hidden size, L layers, N state size, K heads of size m, K * m = N; as tensors,
``A``, ``B``, ``C`` and ``D`` are the matrices of a linear system. A layer's state moves by x' = A x + B u and hands up
y = C x' + D u; layer k > 0 reads u = y of layer k - 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.nn.arguments import check_int, check_state, time_first
from lsc_ext.scan import block_scan, scan

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def _uniform(*shape: int) -> Tensor:
    """Uniform in (0, 1], drawn in float64 so that every dtype starts from the same numbers."""
    return 1 - torch.rand(*shape, dtype=torch.float64)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class LinearRecurrent(nn.Module):
    """A stack of layers with a linear recurrence: what they have in common.

    Parameters of layer k: those of the recurrence, then ``B_l{k}``, ``C_l{k}`` and ``D_l{k}``, the last [H], element by
    element, where the layer reads H features, else [H, I].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        state_size: int | None,
        batch_first: bool,
    ) -> None:
        super().__init__()
        state_size = hidden_size if state_size is None else state_size
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "state_size": state_size,
        }
        for name, size in sizes.items():
            check_int(name, size, 1)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.state_size, self.batch_first = state_size, batch_first

    def _register(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        for layer in range(self.num_layers):
            for name, shape in self._shapes(layer).items():
                values = torch.empty(shape, device=device, dtype=dtype)
                ops.dtype_name(values)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(values))
        self.reset_parameters()

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of a layer."""
        raise NotImplementedError

    def _initial_values(self, layer: int) -> dict[str, Tensor]:
        """Newly drawn values of each parameter of a layer."""
        raise NotImplementedError

    @property
    def roles(self) -> dict[str, str]:
        """Parameter -> what it does, one of ``lsc_ext.weights.ROLES``; others do something else."""
        return {"B": "input", "C": "readout"}

    def _fed(self, layer: int) -> int:
        """How many features a layer reads."""
        return self.input_size if layer == 0 else self.hidden_size

    def _feedthrough_shape(self, layer: int) -> tuple[int, ...]:
        fed = self._fed(layer)
        return (self.hidden_size,) if fed == self.hidden_size else (self.hidden_size, fed)

    def _feedthrough(self, layer: int, input: Tensor) -> Tensor:
        """D u, [.., H]."""
        direct: Tensor = getattr(self, f"D_l{layer}")
        return direct * input if direct.dim() == 1 else nn.functional.linear(input, direct)

    @property
    def _state_dtype(self) -> torch.dtype:
        return self.D_l0.dtype  # type: ignore[return-value]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws every parameter anew."""
        for layer in range(self.num_layers):
            for name, values in self._initial_values(layer).items():
                self.get_parameter(f"{name}_l{layer}").copy_(values)

    def _options(self) -> tuple[tuple[str, object], ...]:
        """Options and their defaults, in the order of the constructor."""
        return (("num_layers", 1), ("state_size", self.hidden_size), ("batch_first", False))

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in self._options():
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value!r}"
        return text

    def state_size_of(self, layer: int) -> int:
        """How many real numbers the state of a layer has, a complex one counting as two."""
        return self.state_size * (2 if self._state_dtype.is_complex else 1)

    def states_of(self, layer: int, x: Tensor, initial: Tensor) -> Tensor:
        """The states of one layer after each step, [T, B, N], over x [T, B, I] from ``initial`` [B, N]."""
        raise NotImplementedError

    def read_out(self, layer: int, x: Tensor, states: Tensor) -> Tensor:
        """What a layer hands up, [.., H], fed x [.., I], in states [.., N]."""
        raise NotImplementedError

    def as_real(self, state: Tensor) -> Tensor:
        """States [.., N] as [.., n] real numbers: real parts, then imaginary parts."""
        return torch.cat((state.real, state.imag), dim=-1) if state.is_complex() else state

    def run_layer(self, layer: int, x: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """One layer over x [T, B, I] from ``initial`` [B, N]: what it hands up [T, B, H], its last state [B, N]."""
        states = self.states_of(layer, x, initial)
        return self.read_out(layer, x, states), states[-1] if states.shape[0] > 0 else initial

    def advance(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """One step of one layer in plain torch, differentiable to any order.

        Args:
            layer: which.
            input: [.., I], what the layer reads.
            state: [.., n] real, n = ``state_size_of(layer)``; a complex state as its real parts, then its imaginary
                parts.

        Returns:
            The next state, [.., n].
        """
        raise NotImplementedError

    def hand_up(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """What a layer hands up, [.., H], after the step that read ``input`` and left ``state`` [.., n], as above."""
        raise NotImplementedError

    def layer_step(self, layer: int, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: what the layer hands up, [.., H], and its next state, with the arguments of :meth:`advance`."""
        following = self.advance(layer, input, state)
        return self.hand_up(layer, input, following), following

    def eigenvalues(self, layer: int) -> Tensor:
        """Those of the transition, complex [N]; differentiable."""
        raise NotImplementedError

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the stack.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I] unbatched.
            hx: initial states [L, B, N] ([L, N] unbatched), complex where the layer's states are; None for zeros.

        Returns:
            What the top layer hands up, [T, B, H] in the input's layout, and the last states in the layout of ``hx``.

        Raises:
            ValueError: a shape is wrong.
            TypeError: a dtype is wrong, or ``input`` is not a tensor.
            RuntimeError: mixed devices.
        """
        x, batched = time_first(self, input, self.D_l0, None)  # type: ignore[arg-type]
        initial = initial_states(hx, self.num_layers, x, self.state_size, self._state_dtype, batched)
        last = []
        for layer in range(self.num_layers):
            x, state = self.run_layer(layer, x, initial[layer])
            last.append(state)
        return in_layout(x, torch.stack(last), batched, self.batch_first)


def initial_states(
    hx: Tensor | None, layers: int, x: Tensor, state_size: int, dtype: torch.dtype, batched: bool
) -> Tensor:
    """Checks ``hx``; returns [L, B, N] of ``dtype`` for x [T, B, I].

    Raises:
        TypeError: no tensor, or another dtype or device.
        ValueError: another shape.
    """
    shape = (layers, x.shape[1], state_size)
    if hx is None:
        return x.new_zeros(shape, dtype=dtype)
    check_state("hx", hx, shape if batched else (layers, state_size), dtype, x.device)
    return hx if batched else hx.unsqueeze(1)


def in_layout(output: Tensor, last: Tensor, batched: bool, batch_first: bool) -> tuple[Tensor, Tensor]:
    """[T, B, H] and [L, B, N] as the caller's input was laid out."""
    if not batched:
        return output.squeeze(1), last.squeeze(1)
    return (output.transpose(0, 1) if batch_first else output), last


class ComplexDiagonal(LinearRecurrent):
    """Layers with a complex diagonal recurrence x' = lambda x + gamma B u, y = Re(C x') + D u.

    ``B_l{k}`` [2, N, I] and ``C_l{k}`` [2, H, N] hold the real and the imaginary part.
    """

    def eigenvalue_parts(self, layer: int) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of lambda, [N] each; differentiable."""
        raise NotImplementedError

    def _gamma(self, layer: int) -> Tensor | None:
        """[N]; None for one."""
        gamma_log: Tensor | None = getattr(self, f"gamma_log_l{layer}", None)
        return None if gamma_log is None else gamma_log.exp()

    def input_matrix(self, layer: int) -> Tensor:
        """The matrix gamma B as [2, N, I]."""
        matrix: Tensor = getattr(self, f"B_l{layer}")
        gamma = self._gamma(layer)
        return matrix if gamma is None else gamma.unsqueeze(-1) * matrix

    @property
    def _state_dtype(self) -> torch.dtype:
        return _COMPLEX[self.D_l0.dtype]  # type: ignore[index]

    def eigenvalues(self, layer: int) -> Tensor:
        """The transition lambda of a layer, complex [N]."""
        return torch.complex(*self.eigenvalue_parts(layer))

    def states_of(self, layer: int, x: Tensor, initial: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.states_of`."""
        # Real and imaginary rows take turns, so each product is one real one and its result is complex memory.
        rows = self.input_matrix(layer).transpose(0, 1).flatten(0, 1)  # [2 N, I]
        driven = torch.view_as_complex(nn.functional.linear(x, rows).unflatten(-1, (self.state_size, 2)))
        return scan(self.eigenvalues(layer), driven, initial)

    def read_out(self, layer: int, x: Tensor, states: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.read_out`."""
        matrix: Tensor = getattr(self, f"C_l{layer}")
        columns = torch.stack((matrix[0], -matrix[1]), dim=-1).flatten(1)  # [H, 2 N]
        output = nn.functional.linear(torch.view_as_real(states).flatten(-2), columns)
        return output + self._feedthrough(layer, x)

    def advance(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.advance`."""
        real, imag = state.split(self.state_size, dim=-1)
        (a_real, a_imag), (b_real, b_imag) = self.eigenvalue_parts(layer), self.input_matrix(layer)
        next_real = a_real * real - a_imag * imag + input @ b_real.T
        next_imag = a_real * imag + a_imag * real + input @ b_imag.T
        return torch.cat((next_real, next_imag), dim=-1)

    def hand_up(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.hand_up`."""
        real, imag = state.split(self.state_size, dim=-1)
        c_real, c_imag = getattr(self, f"C_l{layer}")
        recurrent: Tensor = real @ c_real.T - imag @ c_imag.T
        return recurrent + self._feedthrough(layer, input)


class LRU(ComplexDiagonal):
    """Linear recurrent units (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences").

    x' = lambda x + gamma B u, y = Re(C x') + D u, with lambda = exp(-exp(nu_log) + i exp(theta_log)) inside the unit
    circle whatever the parameters are, and gamma = exp(gamma_log).

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        state_size: N, None for H.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        min_modulus: the smallest |lambda| to start from.
        max_modulus: the largest.
        max_phase: the largest phase of lambda to start from.
        device: of the parameters.
        dtype: of the parameters, float32 or float64; states are complex64 or complex128.

    Parameters of layer k: ``nu_log_l{k}``, ``theta_log_l{k}``, ``gamma_log_l{k}`` [N], ``B_l{k}`` [2, N, I],
    ``C_l{k}`` [2, H, N], ``D_l{k}`` [H] or [H, I]. They start as in Herranz-Celotti and Rouat, "Stabilizing RNN
    Gradients through Pre-training": nu_log uniform between the logarithms of -log max_modulus and -log min_modulus, the
    phase uniform, gamma = sqrt(1 - |lambda|^2), real and imaginary parts of B and C uniform of variance 1 / (rows +
    columns), D normal, of variance 1 / I where it is a matrix.

    Raises:
        ValueError: a size below 1, or moduli or phase out of range.
        TypeError: a size that is no int, or dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        state_size: int | None = None,
        batch_first: bool = False,
        min_modulus: float = 0.4,
        max_modulus: float = 0.99,
        max_phase: float = 0.314,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, state_size, batch_first)
        if not 0 < min_modulus <= max_modulus < 1:
            raise ValueError(
                f"min_modulus, max_modulus: expected 0 < min_modulus <= max_modulus < 1, "
                f"got {min_modulus} and {max_modulus}"
            )
        if not max_phase > 0:
            raise ValueError(f"max_phase: expected more than 0, got {max_phase}")
        self.min_modulus, self.max_modulus, self.max_phase = min_modulus, max_modulus, max_phase
        self._register(device, dtype)

    @property
    def roles(self) -> dict[str, str]:
        """See :class:`LinearRecurrent`."""
        return {**super().roles, "nu_log": "timescale"}

    def _options(self) -> tuple[tuple[str, object], ...]:
        return (*super()._options(), ("min_modulus", 0.4), ("max_modulus", 0.99), ("max_phase", 0.314))

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        N, I, H = self.state_size, self._fed(layer), self.hidden_size
        return {
            "nu_log": (N,),
            "theta_log": (N,),
            "gamma_log": (N,),
            "B": (2, N, I),
            "C": (2, H, N),
            "D": self._feedthrough_shape(layer),
        }

    def _initial_values(self, layer: int) -> dict[str, Tensor]:
        N, I, H = self.state_size, self._fed(layer), self.hidden_size
        low, high = (math.log(-math.log(modulus)) for modulus in (self.max_modulus, self.min_modulus))
        nu_log = low + (high - low) * _uniform(N)
        feedthrough = _normal(*self._feedthrough_shape(layer))
        return {
            "nu_log": nu_log,
            "theta_log": (self.max_phase * _uniform(N)).log(),
            "gamma_log": (-torch.expm1(-2 * nu_log.exp())).log() / 2,
            "B": (2 * _uniform(2, N, I) - 1) * math.sqrt(3 / (I + N)),
            "C": (2 * _uniform(2, H, N) - 1) * math.sqrt(3 / (N + H)),
            "D": feedthrough if feedthrough.dim() == 1 else feedthrough / math.sqrt(I),
        }

    def eigenvalue_parts(self, layer: int) -> tuple[Tensor, Tensor]:
        """See :class:`ComplexDiagonal`."""
        modulus = (-getattr(self, f"nu_log_l{layer}").exp()).exp()
        phase = getattr(self, f"theta_log_l{layer}").exp()
        return modulus * phase.cos(), modulus * phase.sin()


class ComplexDiagonalRNN(ComplexDiagonal):
    """A complex diagonal recurrence with lambda itself as parameter (Zucchet and Orvieto 2024, "Recurrent neural
    networks: vanishing and exploding gradients are not the end of the story").

    x' = lambda x + gamma B u, y = Re(C x') + D u. Nothing keeps lambda inside the unit circle.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        state_size: N, None for H.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        normalization: None for gamma = 1, "learned" for gamma = exp(gamma_log).
        min_modulus: the smallest |lambda| to start from.
        max_modulus: the largest.
        device: of the parameters.
        dtype: of the parameters, float32 or float64; states are complex64 or complex128.

    Parameters of layer k: ``lambda_l{k}`` [2, N], real and imaginary part, ``gamma_log_l{k}`` [N] where it is learned,
    ``B_l{k}`` [2, N, I], ``C_l{k}`` [2, H, N], ``D_l{k}`` [H] or [H, I]. lambda starts uniform on the ring between the
    moduli, gamma as sqrt(1 - |lambda|^2), B and C normal of variance 1 / N in each part, D normal of variance 1 / I.

    Raises:
        ValueError: a size below 1, moduli out of range, or an unknown normalization.
        TypeError: a size that is no int, or dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        state_size: int | None = None,
        batch_first: bool = False,
        normalization: str | None = None,
        min_modulus: float = 0.0,
        max_modulus: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, state_size, batch_first)
        if normalization not in (None, "learned"):
            raise ValueError(f"normalization: expected None or 'learned', got {normalization!r}")
        _check_moduli(min_modulus, max_modulus)
        self.normalization, self.min_modulus, self.max_modulus = normalization, min_modulus, max_modulus
        self._register(device, dtype)

    @property
    def roles(self) -> dict[str, str]:
        """See :class:`LinearRecurrent`."""
        return {**super().roles, "lambda": "recurrent"}

    def _options(self) -> tuple[tuple[str, object], ...]:
        return (*super()._options(), ("normalization", None), ("min_modulus", 0.0), ("max_modulus", 1.0))

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        N, I, H = self.state_size, self._fed(layer), self.hidden_size
        gamma: dict[str, tuple[int, ...]] = {} if self.normalization is None else {"gamma_log": (N,)}
        return {"lambda": (2, N), **gamma, "B": (2, N, I), "C": (2, H, N), "D": self._feedthrough_shape(layer)}

    def _initial_values(self, layer: int) -> dict[str, Tensor]:
        N, I, H = self.state_size, self._fed(layer), self.hidden_size
        # 1 - u is below 1, so |lambda| is below max_modulus and 1 - |lambda|^2 has a logarithm.
        square = (1 - _uniform(N)) * (self.max_modulus**2 - self.min_modulus**2) + self.min_modulus**2
        modulus, phase = square.sqrt(), math.pi * (2 * _uniform(N) - 1)
        gamma = {} if self.normalization is None else {"gamma_log": torch.log1p(-square) / 2}
        return {
            "lambda": torch.stack((modulus * phase.cos(), modulus * phase.sin())),
            **gamma,
            "B": _normal(2, N, I) / math.sqrt(N),
            "C": _normal(2, H, N) / math.sqrt(N),
            "D": _normal(*self._feedthrough_shape(layer)) / math.sqrt(I),
        }

    def eigenvalue_parts(self, layer: int) -> tuple[Tensor, Tensor]:
        """See :class:`ComplexDiagonal`."""
        real, imag = getattr(self, f"lambda_l{layer}")
        return real, imag


class BlockDiagonalRNN(LinearRecurrent):
    """A real linear recurrence in independent heads: x' = A x + B u with A block diagonal, y = C x' + D u.

    The linear network that Zucchet and Orvieto 2024 compare diagonal ones with; one head is a dense recurrence.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        heads: K, which divides N.
        state_size: N, None for H.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        min_modulus: the smallest modulus of an eigenvalue to start from.
        max_modulus: the largest.
        device: of the parameters.
        dtype: of the parameters and states, float32 or float64.

    Parameters of layer k: ``A_l{k}`` [K, m, m], ``B_l{k}`` [N, I], ``C_l{k}`` [H, N], ``D_l{k}`` [H] or [H, I]. A block
    starts as a normal matrix of variance 1 / m whose eigenvalues l keep their phases and take the moduli min_modulus +
    (max_modulus - min_modulus) tanh |l|; B, C and D start normal, of variance 1 / I, 1 / N and 1 / I.

    Raises:
        ValueError: a size below 1, heads that do not divide the state, or moduli out of range.
        TypeError: a size that is no int, or dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        heads: int = 1,
        state_size: int | None = None,
        batch_first: bool = False,
        min_modulus: float = 0.0,
        max_modulus: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, state_size, batch_first)
        check_int("heads", heads, 1)
        if self.state_size % heads != 0:
            raise ValueError(f"heads: expected a divisor of state_size == {self.state_size}, got {heads}")
        _check_moduli(min_modulus, max_modulus)
        self.heads, self.min_modulus, self.max_modulus = heads, min_modulus, max_modulus
        self._register(device, dtype)

    @property
    def roles(self) -> dict[str, str]:
        """See :class:`LinearRecurrent`."""
        return {**super().roles, "A": "recurrent"}

    def _options(self) -> tuple[tuple[str, object], ...]:
        return (("heads", 1), *super()._options(), ("min_modulus", 0.0), ("max_modulus", 1.0))

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        N, I, H, m = self.state_size, self._fed(layer), self.hidden_size, self.state_size // self.heads
        return {"A": (self.heads, m, m), "B": (N, I), "C": (H, N), "D": self._feedthrough_shape(layer)}

    def _initial_values(self, layer: int) -> dict[str, Tensor]:
        N, I, H, m = self.state_size, self._fed(layer), self.hidden_size, self.state_size // self.heads
        values, vectors = torch.linalg.eig(_normal(self.heads, m, m) / math.sqrt(m))
        modulus = self.min_modulus + (self.max_modulus - self.min_modulus) * values.abs().tanh()
        moved = vectors * torch.polar(modulus, values.angle()).unsqueeze(-2)
        return {
            "A": torch.linalg.solve(vectors, moved, left=False).real,
            "B": _normal(N, I) / math.sqrt(I),
            "C": _normal(H, N) / math.sqrt(N),
            "D": _normal(*self._feedthrough_shape(layer)) / math.sqrt(I),
        }

    def states_of(self, layer: int, x: Tensor, initial: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.states_of`."""
        driven = nn.functional.linear(x, getattr(self, f"B_l{layer}"))
        return block_scan(getattr(self, f"A_l{layer}"), driven, initial)

    def read_out(self, layer: int, x: Tensor, states: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.read_out`."""
        return self.hand_up(layer, x, states)

    def advance(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.advance`."""
        blocks: Tensor = getattr(self, f"A_l{layer}")
        by_head = state.unflatten(-1, blocks.shape[:2]).unsqueeze(-1)
        moved: Tensor = (blocks @ by_head).flatten(-3)
        return moved + nn.functional.linear(input, getattr(self, f"B_l{layer}"))

    def hand_up(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """See :meth:`LinearRecurrent.hand_up`."""
        output = nn.functional.linear(state, getattr(self, f"C_l{layer}"))
        return output + self._feedthrough(layer, input)

    def eigenvalues(self, layer: int) -> Tensor:
        """Those of all heads, by LAPACK, complex [N]."""
        values: Tensor = torch.linalg.eigvals(getattr(self, f"A_l{layer}"))
        return values.flatten()


def _check_moduli(low: float, high: float) -> None:
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"min_modulus, max_modulus: expected 0 <= min_modulus <= max_modulus <= 1, got {low} and {high}"
        )
