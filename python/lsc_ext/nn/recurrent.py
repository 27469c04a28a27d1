"""Recurrent layers with the interface of ``torch.nn``, on the compiled kernels.

Letters: T time, B batch, I input size, H hidden size, L layers, D directions (1 or 2), S state variables per unit, P
projection size, N rows of packed data. F is what a layer hands up: H, or P with a projection.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lsc_ext import ops
from lsc_ext.cells import CELLS, Cell, layer_step
from lsc_ext.nn.arguments import States, check_features, check_int, check_states, read, time_first
from lsc_ext.nn.counterpart import counterpart
from lsc_ext.nn.eager import Plan, from_zero, run_stack
from lsc_ext.nn.precision import autocast_type, check_dtype, round_weights, rounded
from lsc_ext.nn.sequences import Initial, Packed, Sequences, Steps

if TYPE_CHECKING:
    from typing_extensions import Self

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
        dropout: probability of zeroing what a layer hands up to the next one, in training.
        bidirectional: whether each layer has a second direction, from the end to the start; then D = 2.
        proj_size: P, for the cell lstm: layers hand up and feed back P numbers, ``weight_hr_l{k}`` times their H; 0 for
            no projection. The kernel runs on the unprojected state with ``W_hh W_hr`` [4 H, H] in place of ``W_hh``
            [4 H, P]: H / P times the arithmetic of a recurrent product that knew P, so a small P saves parameters and
            not time. Where initial states are given, the first step is done in plain torch.
        device: of the parameters.
        dtype: of the parameters, float32 or float64; on CUDA float16 and bfloat16 too.

    Parameters are named, shaped and ordered as in ``torch.nn``: ``weight_ih_l{k}`` [input_blocks * H, I or D * F],
    ``weight_hh_l{k}`` [recurrent_blocks * H, F], ``bias_ih_l{k}``, ``bias_hh_l{k}``, and again with ``_reverse``; a
    cell without recurrent products has no ``*_hh_*``. They start uniform in +-1/sqrt(H). Parameters that each unit has
    of its own are named as the cell names them, ``{name}_l{k}`` [H], and start where the cell says.

    Inside ``torch.autocast`` of its device a float32 layer rounds its input, weights and biases to the lower type; sums
    and states are float32. Results have the types that those of ``torch.nn`` have without oneDNN: the
    lower type for Elman cells and for what is projected, else that of the initial states, or of the input.

    Raises:
        ValueError: unknown cell; a size below 1; ``dropout`` outside [0, 1]; ``proj_size`` below 0, not below H, or for
            another cell than lstm.
        TypeError: another dtype, or an argument of another type.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(sorted(CELLS))}, got {cell!r}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            check_int(name, size, 1)
        for name, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: expected a bool, got {type(flag).__name__}")
        check_int("proj_size", proj_size, 0)
        if proj_size >= hidden_size or (proj_size > 0 and cell != "lstm"):
            raise ValueError(
                f"proj_size: expected less than hidden_size == {hidden_size}, and 0 unless the cell is lstm, "
                f"got {proj_size} for {cell}"
            )
        if not isinstance(dropout, int | float) or isinstance(dropout, bool):
            raise TypeError(f"dropout: expected a float, got {type(dropout).__name__}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout: it acts between layers, so {dropout} changes nothing with num_layers == 1", stacklevel=2
            )
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        shape, handed_up = CELLS[cell], proj_size or hidden_size
        for layer in range(num_layers):
            fed = input_size if layer == 0 else handed_up * len(self._suffixes)
            for suffix in self._suffixes:
                end = f"_l{layer}{suffix}"
                parts = (("ih", shape.input_blocks, fed), ("hh", shape.recurrent_blocks, handed_up))
                # torch's order, which optimizer states rely on: both weights, then both biases.
                extents: dict[str, tuple[int, ...]] = {
                    f"weight_{part}": (blocks * hidden_size, size) for part, blocks, size in parts if blocks > 0
                }
                if bias:
                    extents |= {f"bias_{part}": (blocks * hidden_size,) for part, blocks, _ in parts if blocks > 0}
                if proj_size > 0:
                    extents["weight_hr"] = (proj_size, hidden_size)
                extents |= {name: (hidden_size,) for name in self._own_names}
                for name, extent in extents.items():
                    values = torch.empty(extent, device=device, dtype=dtype)
                    check_dtype(values)
                    self.register_parameter(name + end, nn.Parameter(values))
        self._plan = self._make_plan()
        self.reset_parameters()

    def _make_plan(self) -> Plan | None:
        """For the shortest way; None where layers are not one kernel call."""
        shape = CELLS[self.cell]
        if self.bidirectional or self.proj_size > 0 or shape.unit_parameters or not shape.in_time:
            return None
        names: list[str | None] = []
        for layer in range(self.num_layers):
            own = [f"{name}_l{layer}" for name in ops.PARAMETERS]
            names += [name if name in self._parameters else None for name in own]
        sizes = ops.CELL_SHAPES[self.cell]
        return Plan(
            self.cell, self.hidden_size, self.num_layers, tuple(names), sizes["states"], sizes["preactivations"]
        )

    @property
    def _drops(self) -> bool:
        """Whether dropout acts between layers now."""
        return self.dropout > 0 and self.training and self.num_layers > 1

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def reset_parameters(self) -> None:
        """Draws weights and biases uniformly from +-1/sqrt(H), as ``torch.nn`` does, and the units' own parameters."""
        bound = 1 / math.sqrt(self.hidden_size)
        ranges = {own.name: (own.low, own.high) for own in CELLS[self.cell].unit_parameters}
        for name, parameter in self.named_parameters():
            nn.init.uniform_(parameter, *ranges.get(name.rsplit("_l", 1)[0], (-bound, bound)))

    @property
    def _own_names(self) -> tuple[str, ...]:
        """Names of the parameters that each unit has of its own."""
        return tuple(own.name for own in CELLS[self.cell].unit_parameters)

    @property
    def own_roles(self) -> dict[str, str]:
        """Parameter that each unit has of its own -> what it does, one of ``lsc_ext.weights.ROLES``."""
        return {own.name: own.role for own in CELLS[self.cell].unit_parameters}

    def unit_parameters(self, layer: int, suffix: str = "") -> Tensor | None:
        """What the cell reads as the parameters of its units, [Q, H]; None where it has none."""
        if not self._own_names:
            return None
        return torch.stack([getattr(self, f"{name}_l{layer}{suffix}") for name in self._own_names])

    def used_recurrent_weight(self, weight: Tensor) -> Tensor:
        """What the cell multiplies its state with, of the parameter ``weight_hh_l{k}``."""
        return weight

    def flatten_parameters(self) -> None:
        """Does nothing; ``torch.nn`` has it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters that exist, layer by layer and direction by direction."""
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
        names += self._own_names
        ends = [f"_l{layer}{suffix}" for layer in range(self.num_layers) for suffix in self._suffixes]
        return [[getattr(self, name + end) for name in names if hasattr(self, name + end)] for end in ends]

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if type(self) is Recurrent:
            text = f"{self.cell!r}, {text}"
        defaults = {"num_layers": 1, "nonlinearity": "tanh", "bias": True, "batch_first": False}
        defaults |= {"dropout": 0.0, "bidirectional": False, "proj_size": 0}
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                text += f", {name}={value!r}"
        return text

    def forward(
        self, input: Tensor | PackedSequence, hx: States | None = None
    ) -> tuple[Tensor | PackedSequence, States]:
        """Runs the stack.

        Args:
            input: [T, B, I], [B, T, I] with ``batch_first``, [T, I] unbatched, or a ``PackedSequence``.
            hx: initial states, for each of the cell's S states one tensor [L * D, B, H] ([L * D, H] unbatched; state 0
                of a projected layer has P for H), in a tuple where S > 1; None for zeros. For packed sequences, in the
                order of the batch before packing.

        Returns:
            What the top layer hands up, [T, B, D * F] in the input's layout or packed, and the last states in the
            layout of ``hx``.

        Raises:
            ValueError: a shape is wrong.
            TypeError: a dtype is wrong, or ``input`` is neither a tensor nor packed.
            RuntimeError: mixed devices.
        """
        if hx is None and self._plan is not None and not self.batch_first and not self._drops:
            walked = from_zero(self._plan, self, input)  # type: ignore[arg-type]
            if walked is not None:
                return walked[0], walked[1][0] if len(walked[1]) == 1 else walked[1]
        weight = read(self, "weight_ih_l0")
        lower = autocast_type(weight)
        sequences: Sequences
        if isinstance(input, PackedSequence):
            batched = True
            check_features(self, input.data, weight, lower)
            sequences = Packed(input.data, input.batch_sizes.tolist())
        else:
            x, batched = time_first(self, input, weight, lower)
            sequences = Steps(x)
        initial = check_states(self, CELLS[self.cell].states, hx, sequences.batch, batched, weight, lower)
        if isinstance(input, PackedSequence) and initial is not None and input.sorted_indices is not None:
            initial = tuple(state.index_select(1, input.sorted_indices) for state in initial)
        if lower is None:
            output, last = self._walk(sequences, initial, None)
        else:
            state_type = sequences.data.dtype if initial is None else initial[-1].dtype
            sequences = sequences.holding(rounded(sequences.data, lower).to(weight.dtype))
            if initial is not None:
                initial = tuple(state.to(weight.dtype) for state in initial)
            with torch.autocast(weight.device.type, enabled=False):
                output, last = self._walk(sequences, initial, lower)
            output_type = lower if self.proj_size > 0 or self.cell.startswith("rnn_") else state_type
            output = output.to(output_type)
            last = (last[0].to(output_type), *(state.to(state_type) for state in last[1:]))
        handed_up: Tensor | PackedSequence = output
        if isinstance(input, PackedSequence):
            handed_up = PackedSequence(output, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            if input.unsorted_indices is not None:
                last = tuple(state.index_select(1, input.unsorted_indices) for state in last)
        elif not batched:
            handed_up, last = output.squeeze(1), tuple(state.squeeze(1) for state in last)
        elif self.batch_first:
            handed_up = output.transpose(0, 1)
        return handed_up, last[0] if len(last) == 1 else last

    def _walk(
        self, sequences: Sequences, initial: Initial, lower: torch.dtype | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers: at once where the kernel can, else one by one."""
        dropped = self._drops
        if not (self.bidirectional or self.proj_size > 0 or dropped):
            weights = round_weights(read_weights(self, range(self.num_layers)), lower)
            return sequences.run(lambda x, start: run_stack(x, start, weights, self.cell, self.hidden_size), initial)
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            directions = []
            for suffix in self._suffixes:
                start = None if initial is None else tuple(state[len(ends) : len(ends) + 1] for state in initial)
                walked = sequences if suffix == "" else sequences.reversed()
                output, end = self._walk_layer(walked, start, lower, layer, suffix)
                directions.append(output if suffix == "" else sequences.holding(output).reversed().data)
                ends.append(end)
            data = directions[0] if len(directions) == 1 else torch.cat(directions, dim=-1)
            if dropped and layer < self.num_layers - 1:
                data = nn.functional.dropout(data, self.dropout)
            sequences = sequences.holding(data)
        return sequences.data, tuple(torch.cat(states) for states in zip(*ends, strict=True))

    def _walk_layer(
        self, sequences: Sequences, initial: Initial, lower: torch.dtype | None, layer: int, suffix: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer in one direction, [T, B, .] -> [T, B, F] or packed likewise; states [1, B, .]."""
        weights = round_weights(read_weights(self, [layer], suffix), lower)
        if self.proj_size == 0:
            return sequences.run(lambda x, start: run_stack(x, start, weights, self.cell, self.hidden_size), initial)
        to_handed_up = rounded(read(self, f"weight_hr_l{layer}{suffix}"), lower)
        if initial is not None and not sequences.any_step:
            return sequences.data.new_empty(*sequences.data.shape[:-1], self.proj_size), initial
        ahead, first = sequences, None
        if initial is not None:
            # The given state 0 is projected, the kernel's are not; behind the first step all are of one kind.
            x, ahead = sequences.split_first()
            state = torch.cat([s.squeeze(0) for s in initial], dim=-1)
            after = projected_step(CELLS[self.cell], x, state, weights, self.proj_size)
            first, initial = after[0], tuple(s.unsqueeze(0) for s in after)
        weight_hh = cast(Tensor, weights[1])
        on_unprojected = [weights[0], weight_hh @ to_handed_up, *weights[2:]]
        output, last = ahead.run(
            lambda x, start: run_stack(x, start, on_unprojected, self.cell, self.hidden_size), initial
        )
        if first is not None:
            output = sequences.joined(first, output)
        return nn.functional.linear(output, to_handed_up), (nn.functional.linear(last[0], to_handed_up), *last[1:])


class _TorchTwin(Recurrent):
    """A layer that torch.nn has too."""

    @classmethod
    def from_torch(cls, module: nn.RNNBase) -> Self:
        """A copy of a ``torch.nn`` layer, with all its options and a copy of its parameters.

        Raises:
            TypeError: not the ``torch.nn`` layer of the same name, or a dtype that the kernels do not have.
            ValueError: parametrised.
        """
        if not isinstance(module, cls._torch_class()):
            raise TypeError(
                f"module: expected a torch.nn.{cls._torch_class().__name__}, got {type(module).__qualname__}"
            )
        return cast("Self", counterpart(module, cls, share=False))

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        raise NotImplementedError

    def to_torch(self) -> nn.RNNBase:
        """A ``torch.nn`` layer with the options and a copy of the parameters.

        Raises:
            ValueError: an option that ``torch.nn`` lacks; or parametrised.
        """
        return cast(nn.RNNBase, counterpart(self, self._torch_class(), share=False))

    @property
    def mode(self) -> str:
        """The kind of layer, as ``torch.nn`` calls it."""
        return self.cell.upper()


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
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise ValueError(f"nonlinearity: expected tanh, relu or sigmoid, got {nonlinearity!r}")
        options = (num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(f"rnn_{nonlinearity}", input_size, hidden_size, *options, device=device, dtype=dtype)
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
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = (num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__("gru", input_size, hidden_size, *options, device=device, dtype=dtype)

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        return nn.GRU


class LSTM(_TorchTwin):
    """Long short-term memory; as ``torch.nn.LSTM``. What ``proj_size`` costs: :class:`Recurrent`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = (num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__("lstm", input_size, hidden_size, *options, device=device, dtype=dtype)

    @classmethod
    def _torch_class(cls) -> type[nn.RNNBase]:
        return nn.LSTM


def cell_name(module: Any) -> str | None:
    """The compiled cell of a module; None where there is none."""
    if isinstance(module, Recurrent):
        return module.cell
    if isinstance(module, nn.RNN):
        return f"rnn_{module.nonlinearity}"
    if isinstance(module, nn.GRU):
        return "gru"
    return "lstm" if isinstance(module, nn.LSTM) else None


def read_weights(module: Any, layers: Sequence[int], suffix: str = "") -> list[Tensor | None]:
    """The parameters of these layers as they are now, in the order of ``ops.PARAMETERS``; None for an absent one."""
    weights: list[Tensor | None] = []
    ours = isinstance(module, Recurrent)
    for layer in layers:
        own = [read(module, f"{name}_l{layer}{suffix}") for name in ops.PARAMETERS[:-1]]
        if ours and own[1] is not None:
            own[1] = module.used_recurrent_weight(own[1])
        weights += own
        weights.append(module.unit_parameters(layer, suffix) if ours else None)
    return weights


def flat_weights(module: nn.Module, num_layers: int) -> list[Tensor]:
    """The flat list of :mod:`lsc_ext.ops`; absent parameters have no elements."""
    weights = read_weights(module, range(num_layers))
    absent = cast(Tensor, weights[0]).new_empty(0)
    return [absent if w is None else w for w in weights]


def projected_step(
    cell: Cell, x: Tensor, state: Tensor, weights: Sequence[Tensor | None], projected: int
) -> tuple[Tensor, ...]:
    """One step from a projected state 0: x [B, I], state [B, P + H] -> S unprojected states [B, H]."""
    weight_ih, weight_hh, bias_ih, bias_hh = (cast(Tensor, w) for w in weights[:4])
    fed_back, carried = state[:, :projected], state[:, projected:]
    gates = [
        nn.functional.linear(fed, weight, bias).chunk(blocks, dim=-1)
        for fed, weight, bias, blocks in (
            (x, weight_ih, bias_ih, cell.input_blocks),
            (fed_back, weight_hh, bias_hh, cell.recurrent_blocks),
        )
    ]
    return cell.step(tuple(gates[0]), tuple(gates[1]), (fed_back, carried), ())
