"""Recurrent layers with the interface of ``torch.nn``, on the compiled kernels.

Letters: T time, B batch, I input size, H hidden size, L layers, S state variables per unit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lsc_ext import ops
from lsc_ext.cells import CELLS, layer_step
from lsc_ext.nn.arguments import check_sizes, check_state, checked_input

if TYPE_CHECKING:
    from typing_extensions import Self

States = Tensor | tuple[Tensor, ...]

for _name, _cell in CELLS.items():
    ops.register_torch_step(_name, functools.partial(layer_step, _cell))


class Recurrent(nn.Module):
    """A stack of layers of any compiled cell.

    Args:
        cell: name of the cell; ``lsc_ext.cells.CELLS`` lists them.
        input_size: I.
        hidden_size: H.
        num_layers: L.
        bias: whether layers have biases.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Parameters are named and shaped as in ``torch.nn``: ``weight_ih_l{k}`` [input_blocks * H, I or H],
    ``weight_hh_l{k}`` [recurrent_blocks * H, H], ``bias_ih_l{k}``, ``bias_hh_l{k}``; a cell without recurrent products
    has no ``*_hh_*``. They start uniform in +-1/sqrt(H). Parameters that each unit has of its own are named as the cell
    names them, ``{name}_l{k}`` [H], and start where the cell says.

    Raises:
        ValueError: unknown cell, or a size below 1.
        TypeError: dtype neither float32 nor float64.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(sorted(CELLS))}, got {cell!r}")
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.bias, self.batch_first = bias, batch_first
        shape = CELLS[cell]
        for layer in range(num_layers):
            fed = input_size if layer == 0 else hidden_size
            parts = (("ih", shape.input_blocks, fed), ("hh", shape.recurrent_blocks, hidden_size))
            # torch's order, which optimizer states rely on: both weights, then both biases.
            for part, blocks, size in parts:
                if blocks > 0:
                    weight = torch.empty(blocks * hidden_size, size, device=device, dtype=dtype)
                    ops.dtype_name(weight)
                    self.register_parameter(f"weight_{part}_l{layer}", nn.Parameter(weight))
            for part, blocks, _ in parts:
                if blocks > 0 and bias:
                    rows = torch.empty(blocks * hidden_size, device=device, dtype=dtype)
                    self.register_parameter(f"bias_{part}_l{layer}", nn.Parameter(rows))
            for own in shape.unit_parameters:
                rows = torch.empty(hidden_size, device=device, dtype=dtype)
                self.register_parameter(f"{own.name}_l{layer}", nn.Parameter(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights and biases uniformly from +-1/sqrt(H), as ``torch.nn`` does, and the units' own parameters."""
        bound = 1 / math.sqrt(self.hidden_size)
        ranges = {own.name: (own.low, own.high) for own in CELLS[self.cell].unit_parameters}
        for name, parameter in self.named_parameters():
            nn.init.uniform_(parameter, *ranges.get(name.rsplit("_l", 1)[0], (-bound, bound)))

    def unit_parameters(self, layer: int) -> Tensor:
        """What the cell reads as the parameters of its units, [Q, H]; none: no elements."""
        names = CELLS[self.cell].unit_parameters
        if not names:
            return next(self.parameters()).new_empty(0)
        return torch.stack([getattr(self, f"{own.name}_l{layer}") for own in names])

    def flatten_parameters(self) -> None:
        """Does nothing; ``torch.nn`` has it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters that exist, layer by layer."""
        flat = flat_weights(self, self.num_layers)
        return [[w for w in ops.of_layer(flat, k) if w.numel() > 0] for k in range(self.num_layers)]

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if type(self) is Recurrent:
            text = f"{self.cell!r}, {text}"
        for name, default in (("num_layers", 1), ("nonlinearity", "tanh"), ("bias", True), ("batch_first", False)):
            value = getattr(self, name, default)
            if value != default:
                text += f", {name}={value!r}"
        return text

    def forward(self, input: Tensor, hx: States | None = None) -> tuple[Tensor, States]:
        """Runs the stack.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, or [T, I] unbatched.
            hx: initial states [L, B, H] ([L, H] unbatched), a tuple of S of them where the cell has several states;
                None for zeros.

        Returns:
            What the top layer hands up, [T, B, H] in the input's layout, and the last states in the layout of ``hx``.

        Raises:
            ValueError: a shape is wrong.
            TypeError: a dtype is wrong, or ``input`` is not a tensor.
            RuntimeError: mixed devices.
        """
        x, initial, batched = prepare(self, input, hx)
        states, _ = ops.recurrent(x, initial, flat_weights(self, self.num_layers), self.cell)
        output = states[-1, 1:, 0]  # [T, B, H]
        last = states[:, -1].transpose(0, 1)  # [S, L, B, H]
        if not batched:
            output, last = output.squeeze(1), last.squeeze(2)
        elif self.batch_first:
            output = output.transpose(0, 1)
        each = tuple(part.contiguous() for part in last)
        return output, each[0] if len(each) == 1 else each


class _TorchTwin(Recurrent):
    """A layer that torch.nn has too."""

    @classmethod
    def from_torch(cls, module: nn.RNNBase) -> Self:
        """A copy of a ``torch.nn`` layer with its weights.

        Raises:
            TypeError: not the ``torch.nn`` layer of the same name.
            ValueError: bidirectional, projected or with dropout.
        """
        if not isinstance(module, cls._torch_class()):
            raise TypeError(
                f"module: expected a torch.nn.{cls._torch_class().__name__}, got {type(module).__qualname__}"
            )
        check_supported(module, training=True)
        make: Callable[..., Self] = cls
        weight: Any = module.weight_hh_l0
        own: dict[str, Any] = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
        copy = make(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            bias=module.bias,
            batch_first=module.batch_first,
            device=weight.device,
            dtype=weight.dtype,
            **own,
        )
        copy.load_state_dict(module.state_dict())
        return copy.train(module.training)

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        raise NotImplementedError

    def to_torch(self) -> nn.RNNBase:
        """A ``torch.nn`` layer with a copy of the weights."""
        options: dict[str, Any] = {"bias": self.bias, "batch_first": self.batch_first}
        if isinstance(self, RNN):
            if self.nonlinearity == "sigmoid":
                raise ValueError("nonlinearity: expected tanh or relu, which torch.nn.RNN has, got 'sigmoid'")
            options["nonlinearity"] = self.nonlinearity
        weight = self.weight_ih_l0
        make: Callable[..., nn.RNNBase] = self._torch_class()
        twin = make(
            self.input_size, self.hidden_size, self.num_layers, device=weight.device, dtype=weight.dtype, **options
        )
        twin.load_state_dict(self.state_dict())
        return twin.train(self.training)


class RNN(_TorchTwin):
    """Elman layers; as ``torch.nn.RNN``, with ``nonlinearity`` "tanh", "relu" or "sigmoid"."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise ValueError(f"nonlinearity: expected tanh, relu or sigmoid, got {nonlinearity!r}")
        super().__init__(f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, device, dtype)
        self.nonlinearity = nonlinearity

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        return nn.RNN


class GRU(_TorchTwin):
    """Gated recurrent units; as ``torch.nn.GRU``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__("gru", input_size, hidden_size, num_layers, bias, batch_first, device, dtype)

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        return nn.GRU


class LSTM(_TorchTwin):
    """Long short-term memory; as ``torch.nn.LSTM``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__("lstm", input_size, hidden_size, num_layers, bias, batch_first, device, dtype)

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        return nn.LSTM


def check_supported(module: nn.RNNBase, *, training: bool) -> None:
    """Raises ValueError for options of a ``torch.nn`` layer that this package does not have."""
    if module.bidirectional:
        raise ValueError("module: expected a unidirectional layer, got bidirectional=True")
    if module.proj_size > 0:
        raise ValueError(f"module: expected proj_size=0, got {module.proj_size}")
    if training and module.dropout > 0:
        raise ValueError(f"module: expected dropout=0, got {module.dropout}")


def cell_name(module: Any) -> str | None:
    """The compiled cell of a module; None where there is none."""
    if isinstance(module, Recurrent):
        return module.cell
    if isinstance(module, nn.RNN):
        return f"rnn_{module.nonlinearity}"
    if isinstance(module, nn.GRU):
        return "gru"
    return "lstm" if isinstance(module, nn.LSTM) else None


def flat_weights(module: nn.Module, num_layers: int) -> list[Tensor]:
    """The flat list of :mod:`lsc_ext.ops`, read through attributes; absent parameters have no elements."""
    absent = next(module.parameters()).new_empty(0)
    flat = []
    for layer in range(num_layers):
        flat += [getattr(module, f"{name}_l{layer}", absent) for name in ops.PARAMETERS[:-1]]
        flat.append(module.unit_parameters(layer) if isinstance(module, Recurrent) else absent)
    return flat


def prepare(module: Any, input: Tensor, hx: States | None) -> tuple[Tensor, Tensor, bool]:
    """Checks the arguments of a forward call; returns x [T, B, I], initial states [L, S, B, H], and whether batched."""
    weight = module.weight_ih_l0
    x, batched = checked_input(module, input, weight)
    cell = CELLS[cell_name(module) or ""]
    layers, n_states, batch, hidden = module.num_layers, len(cell.states), x.shape[1], module.hidden_size
    if hx is None:
        return x, x.new_zeros(layers, n_states, batch, hidden), batched
    given = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    if len(given) != n_states:
        raise ValueError(f"hx: expected {n_states} state tensor(s) ({', '.join(cell.states)}), got {len(given)}")
    expected = (layers, batch, hidden) if batched else (layers, hidden)
    for name, state in zip(cell.states, given, strict=True):
        check_state(f"hx ({name})", state, expected, weight.dtype, weight.device)
    stacked = torch.stack([s if batched else s.unsqueeze(1) for s in given], dim=1)
    return x, stacked, batched
