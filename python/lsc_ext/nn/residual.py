"""Residual blocks around linear recurrences.

Letters: T time, B batch, I input size, H hidden size, L blocks, N state size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lsc_ext.nn.arguments import check_int, time_first
from lsc_ext.nn.linear import LRU, in_layout, initial_states


def _glorot(linear: nn.Linear) -> None:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)


class Norm(nn.LayerNorm):
    """Layer norm whose forward mode is right to every order; torch 2.13's own has wrong second derivatives."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``torch.nn.LayerNorm``; from elementary operations where forward mode may be at work."""
        if not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0:
            return super().forward(input)
        centred = input - input.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return scaled * self.weight + self.bias


class ResLRUBlock(nn.Module):
    """One block: u = norm(a), y = LRU(u), g = dropout(GELU(y)), a + dropout(sigmoid(gate g) * value g).

    ``norm`` is a LayerNorm with epsilon 1e-3, ``lru`` a single :class:`LRU` layer from H to H features, ``gate`` and
    ``value`` are Linear from H to H. The arguments are those of :class:`ResLRU`.
    """

    def __init__(self, hidden_size: int, state_size: int, dropout: float, options: dict[str, Any]) -> None:
        super().__init__()
        placed = {name: options[name] for name in ("device", "dtype")}
        self.lru = LRU(hidden_size, hidden_size, state_size=state_size, **options)
        self.norm = Norm(hidden_size, eps=1e-3, **placed)
        self.gate = nn.Linear(hidden_size, hidden_size, **placed)
        self.value = nn.Linear(hidden_size, hidden_size, **placed)
        self.dropout = nn.Dropout(dropout)
        self._reset_linears()

    def _reset_linears(self) -> None:
        _glorot(self.gate)
        _glorot(self.value)

    def reset_parameters(self) -> None:
        """Draws every parameter anew: the LRU as it does itself, the linear maps Glorot-uniform without bias."""
        self.lru.reset_parameters()
        self.norm.reset_parameters()
        self._reset_linears()

    def _added(self, y: Tensor) -> Tensor:
        """What the block adds to its input, from what the recurrence hands up."""
        g = self.dropout(nn.functional.gelu(y))
        return self.dropout(self.gate(g).sigmoid() * self.value(g))  # type: ignore[no-any-return]

    def forward(self, a: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Of a [T, B, H] from ``initial`` [B, N]: the output [T, B, H] and the last state [B, N]."""
        y, last = self.lru.run_layer(0, self.norm(a), initial)
        return a + self._added(y), last

    def advance(self, a: Tensor, state: Tensor) -> Tensor:
        """One step in plain torch: a [.., H] and the state [.., 2 N], as :meth:`LRU.advance` has it, to the next."""
        return self.lru.advance(0, self.norm(a), state)

    def hand_up(self, a: Tensor, state: Tensor) -> Tensor:
        """The output [.., H] after the step that read a [.., H] and left ``state`` [.., 2 N]."""
        return a + self._added(self.lru.hand_up(0, self.norm(a), state))


class ResLRU(nn.Module):
    """Linear recurrent units in residual blocks with a gated output, as Herranz-Celotti and Rouat train them.

    Args:
        input_size: I.
        hidden_size: H, the width of the residual stream.
        num_layers: L, how many blocks.
        state_size: N of every recurrence, None for 2 H.
        dropout: probability of a zero after the GELU and after the gate, while training.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        min_modulus: as :class:`LRU` has it.
        max_modulus: as :class:`LRU` has it.
        max_phase: as :class:`LRU` has it.
        device: of the parameters.
        dtype: of the parameters, float32 or float64; states are complex64 or complex128.

    ``blocks`` holds the :class:`ResLRUBlock`; where I is not H, ``adapter``, a Linear, comes before the first.

    Raises:
        ValueError: a size below 1, or moduli, phase or dropout out of range.
        TypeError: a size that is no int, or dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        state_size: int | None = None,
        dropout: float = 0.1,
        batch_first: bool = False,
        min_modulus: float = 0.4,
        max_modulus: float = 0.99,
        max_phase: float = 0.314,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            check_int(name, size, 1)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a probability, got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.state_size = 2 * hidden_size if state_size is None else state_size
        self.dropout, self.batch_first = dropout, batch_first
        options: dict[str, Any] = {
            "min_modulus": min_modulus,
            "max_modulus": max_modulus,
            "max_phase": max_phase,
            "device": device,
            "dtype": dtype,
        }
        self.blocks = nn.ModuleList(
            ResLRUBlock(hidden_size, self.state_size, dropout, options) for _ in range(num_layers)
        )
        self.adapter: nn.Linear | None = None
        if input_size != hidden_size:
            self.adapter = nn.Linear(input_size, hidden_size, device=device, dtype=dtype)
            _glorot(self.adapter)

    def reset_parameters(self) -> None:
        """Draws every parameter anew."""
        for layer in range(self.num_layers):
            self.block(layer).reset_parameters()
        if self.adapter is not None:
            _glorot(self.adapter)

    def block(self, layer: int) -> ResLRUBlock:
        """One block."""
        module = self.blocks[layer]
        assert isinstance(module, ResLRUBlock)
        return module

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = (
            ("num_layers", 1),
            ("state_size", 2 * self.hidden_size),
            ("dropout", 0.1),
            ("batch_first", False),
        )
        for name, default in defaults:
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value!r}"
        return text

    def state_size_of(self, layer: int) -> int:
        """How many real numbers the state of a block has: 2 N."""
        return 2 * self.state_size

    def stream(self, layer: int, input: Tensor) -> Tensor:
        """What a block reads: for the first, what the adapter makes of the input."""
        return self.adapter(input) if layer == 0 and self.adapter is not None else input

    def advance(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """One step of one block in plain torch, with the adapter where it is the first.

        Args:
            layer: which.
            input: [.., I], what the block reads.
            state: [.., 2 N] real: real parts, then imaginary parts.

        Returns:
            The next state [.., 2 N].
        """
        return self.block(layer).advance(self.stream(layer, input), state)

    def hand_up(self, layer: int, input: Tensor, state: Tensor) -> Tensor:
        """What a block hands up, [.., H], after the step that read ``input`` and left ``state``."""
        return self.block(layer).hand_up(self.stream(layer, input), state)

    def layer_step(self, layer: int, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: what the block hands up and its next state, with the arguments of :meth:`advance`."""
        following = self.advance(layer, input, state)
        return self.hand_up(layer, input, following), following

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the blocks.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I] unbatched.
            hx: complex initial states [L, B, N] ([L, N] unbatched); None for zeros.

        Returns:
            What the last block hands up, [T, B, H] in the input's layout, and the last states in the layout of ``hx``.

        Raises:
            ValueError: a shape is wrong.
            TypeError: a dtype is wrong, or ``input`` is not a tensor.
            RuntimeError: mixed devices.
        """
        first = self.block(0)
        a, batched = time_first(self, input, first.gate.weight, None)
        initial = initial_states(hx, self.num_layers, a, self.state_size, first.lru._state_dtype, batched)
        if self.adapter is not None:
            a = self.adapter(a)
        last = []
        for block, start in zip(self.blocks, initial, strict=True):
            a, state = block(a, start)
            last.append(state)
        return in_layout(a, torch.stack(last), batched, self.batch_first)
