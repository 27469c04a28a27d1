"""Initial weights by name, for layers of this package and of torch.nn, from one generator.

Letters: I input size, H hidden size, P size of a projection; a block is the [H, .] part of a weight that one gate has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lsc_ext.nn.recurrent import cell_name

Layer = TypeVar("Layer", bound=nn.Module)
Shape = tuple[int, ...]
Rule = Callable[[Shape, Generator], Tensor]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TRUNCATED_STD = 0.87962566103423978  # of the standard normal distribution cut at +-2


def _uniform(shape: Shape, bound: float, generator: Generator) -> Tensor:
    # float64 whatever the weights are, so that a seed means the same network in every dtype and on every device.
    return torch.empty(shape, dtype=torch.float64, device=generator.device).uniform_(-bound, bound, generator=generator)


def _truncated_normal(shape: Shape, std: float, generator: Generator) -> Tensor:
    parent = std / TRUNCATED_STD
    empty = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return nn.init.trunc_normal_(empty, 0.0, parent, -2 * parent, 2 * parent, generator=generator)


def _orthogonal(shape: Shape, generator: Generator) -> Tensor:
    empty = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return nn.init.orthogonal_(empty, generator=generator)


def _scaled(shape: Shape, generator: Generator, *, glorot: bool, normal: bool) -> Tensor:
    """Variance 2 / (fan_in + fan_out) for Glorot, 2 / fan_in for He."""
    fan_in, fan_out = _fans(shape)
    variance = 2 / (fan_in + fan_out) if glorot else 2 / fan_in
    if normal:
        return _truncated_normal(shape, math.sqrt(variance), generator)
    return _uniform(shape, math.sqrt(3 * variance), generator)


def _fans(shape: Shape) -> tuple[int, int]:
    """fan_in and fan_out of [out, in, *window], as ``torch.nn.init`` counts them."""
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


@dataclass(frozen=True)
class _Scheme:
    summary: str
    kernel: Rule | None = None  # None: uniform in torch.nn's bound, biases too
    recurrent: Rule | None = None
    by_block: bool = True
    forget_bias: float = 0.0
    rnn_bias: bool = False


_glorot_uniform: Rule = partial(_scaled, glorot=True, normal=False)
_glorot_normal: Rule = partial(_scaled, glorot=True, normal=True)
_he_uniform: Rule = partial(_scaled, glorot=False, normal=False)
_he_normal: Rule = partial(_scaled, glorot=False, normal=True)

_SCHEMES = {
    "torch": _Scheme("torch.nn's: uniform in +-1/sqrt(H), or +-1/sqrt(fan_in) without recurrence, biases too"),
    "keras": _Scheme(
        "Keras's: Glorot uniform and orthogonal over all gates at once, forget bias 1",
        _glorot_uniform,
        _orthogonal,
        by_block=False,
        forget_bias=1.0,
    ),
    "paper": _Scheme(
        "the LSC paper's: as keras; biases of plain RNNs uniform in +-sqrt(3/H)",
        _glorot_uniform,
        _orthogonal,
        by_block=False,
        forget_bias=1.0,
        rnn_bias=True,
    ),
    "glorot_uniform": _Scheme("uniform of variance 2/(fan_in + fan_out), gate by gate", _glorot_uniform),
    "glorot_normal": _Scheme("normal cut at 2 sigma, variance 2/(fan_in + fan_out), gate by gate", _glorot_normal),
    "he_uniform": _Scheme("uniform of variance 2/fan_in, gate by gate", _he_uniform),
    "he_normal": _Scheme("normal cut at 2 sigma, variance 2/fan_in, gate by gate", _he_normal),
    "orthogonal": _Scheme("orthogonal, gate by gate", _orthogonal),
}

INITIALIZATIONS: dict[str, str] = {name: scheme.summary for name, scheme in _SCHEMES.items()}
"""What ``initialize`` can do: scheme -> one line."""


def initialize(module: Layer, scheme: str, *, gain: float = 1.0, generator: Generator | None = None) -> Layer:
    """Draws new weights, in place.

    Touched are ``lsc_ext.nn`` layers, ``torch.nn.RNN``, ``GRU`` and ``LSTM``, ``Linear`` and convolutions: the module
    itself and all that it contains. Other parameters stay, those that a cell has for each unit among them. A weight
    under a parametrisation is assigned through it, and reads as what the parametrisation makes of the draw.

    A module with a method ``initialize_parameters(scheme, generator) -> bool`` is asked first; True means that it has
    drawn for itself and all that it contains.

    Args:
        module: a layer, or a module that contains some.
        scheme: one of ``INITIALIZATIONS``.

            - "torch": what ``torch.nn`` starts with.
            - "keras": input weights [blocks * H, I] are Glorot uniform with fans I and blocks * H, recurrent ones
              [blocks * H, H] have orthonormal columns. Biases are 0, the forget gate's of an LSTM 1.
            - "paper": the same, but the bias of a plain RNN is uniform in +-sqrt(3/H).
            - "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "orthogonal": each block [H, n] is a
              matrix of its own with fan_in n and fan_out H. Biases are 0.

            Where a layer has two biases for a gate, all is in ``bias_ih``, except for "torch". Projections [P, H],
            ``Linear`` and convolutions, flattened to [out, .] where orthogonal, are drawn as input weights.
        gain: multiplies the weights, not the biases.
        generator: the only source of random numbers; None for torch's. A seed gives the same numbers, rounded, in every
            dtype and on every device.

    Returns:
        ``module``.

    Raises:
        ValueError: unknown scheme, ``gain`` not finite, or not 1 where a module draws for itself; nothing to
            initialise; or a weight that cannot be assigned: lazy, complex, computed by a hook, or under a
            parametrisation without right inverse. The module and the generator are as before.
        TypeError: not a module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__qualname__}")
    if not isinstance(scheme, str) or scheme not in _SCHEMES:
        raise ValueError(f"scheme: expected one of {', '.join(_SCHEMES)}, got {scheme!r}")
    if not math.isfinite(gain):
        raise ValueError(f"gain: expected a finite number, got {gain}")
    with torch.no_grad(), _restored_on_error(module, generator or torch.default_generator):
        if not _visit(module, scheme, gain, generator, set()):
            raise ValueError(
                "module: expected a recurrent layer, Linear or convolution, or a module that contains one, "
                f"got {type(module).__qualname__}"
            )
    return module


def _visit(module: nn.Module, scheme: str, gain: float, generator: Generator | None, seen: set[nn.Module]) -> bool:
    """Initialises a module and its children; returns whether there was anything to do."""
    if module in seen:
        return False
    seen.add(module)
    # torch's lazy modules have another method of this name, which gives parameters their shapes.
    own = None if isinstance(module, LazyModuleMixin) else getattr(module, "initialize_parameters", None)
    if own is not None and own(scheme, generator):
        if gain != 1:
            raise ValueError(f"gain: expected 1, as {type(module).__qualname__} draws its own parameters, got {gain}")
        return True
    found = False
    for slot in _slots(module):
        _assign(slot, _draw(slot, _SCHEMES[scheme], gain, generator or torch.default_generator), generator)
        found = True
    for name, child in module.named_children():
        if name != "parametrizations" or not parametrize.is_parametrized(module):
            found |= _visit(child, scheme, gain, generator, seen)
    return found


class _Slot(NamedTuple):
    """A tensor to be drawn; ``reach`` is k in torch.nn's bound 1/sqrt(k)."""

    owner: nn.Module
    name: str
    old: Tensor
    role: str
    blocks: int
    reach: int
    cell: str = ""


def _slots(module: Any) -> Iterator[_Slot]:
    cell = cell_name(module)
    if cell is not None:
        hidden = module.hidden_size
        for place in (f"_l{layer}{way}" for layer in range(module.num_layers) for way in ("", "_reverse")):
            for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
                old = getattr(module, role + place, None)
                if old is not None:
                    blocks = 1 if role == "weight_hr" else old.shape[0] // hidden
                    yield _Slot(module, role + place, _settable(module, role + place, old), role, blocks, hidden, cell)
    elif isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        weight = _settable(module, "weight", module.weight)
        fan_in, _ = _fans(tuple(weight.shape))
        yield _Slot(module, "weight", weight, "weight", 1, fan_in)
        if module.bias is not None:
            yield _Slot(module, "bias", _settable(module, "bias", module.bias), "bias", 1, fan_in)


def _settable(owner: Any, name: str, old: Tensor) -> Tensor:
    """``old``, or ValueError where it cannot be assigned."""
    where = f"{type(owner).__qualname__}.{name}"
    if is_lazy(old):
        raise ValueError(f"module: expected parameters that have shapes, got a lazy {where}; run the module once")
    if not old.is_floating_point():
        raise ValueError(f"module: expected real floating-point parameters, got {old.dtype} in {where}")
    if parametrize.is_parametrized(owner, name):
        lacking = [type(p).__qualname__ for p in owner.parametrizations[name] if not hasattr(p, "right_inverse")]
        if lacking:
            raise ValueError(f"module: expected a right_inverse to assign {where} through, got none in {lacking[0]}")
    elif name not in dict(owner.named_parameters(recurse=False, remove_duplicate=False)):
        raise ValueError(f"module: expected {where} to be a parameter, or to be parametrised, got a plain tensor")
    return old


def _draw(slot: _Slot, scheme: _Scheme, gain: float, generator: Generator) -> Tensor:
    """float64, of the shape of the slot."""
    shape = tuple(slot.old.shape)
    if slot.role.startswith("bias"):
        return _bias(slot, scheme, generator)
    rule = scheme.recurrent or scheme.kernel if slot.role == "weight_hh" else scheme.kernel
    if 0 in shape:
        return slot.old.double()
    if rule is None:
        return gain * _uniform(shape, 1 / math.sqrt(slot.reach), generator)
    count = slot.blocks if scheme.by_block else 1
    block = (shape[0] // count, *shape[1:])
    return gain * torch.cat([rule(block, generator) for _ in range(count)])


def _bias(slot: _Slot, scheme: _Scheme, generator: Generator) -> Tensor:
    shape = tuple(slot.old.shape)
    if scheme.kernel is None:
        return _uniform(shape, 1 / math.sqrt(slot.reach) if slot.reach > 0 else 0.0, generator)
    bias = torch.zeros(shape, dtype=torch.float64)
    if slot.role == "bias_ih" and slot.cell == "lstm":
        bias.tensor_split(4)[1].fill_(scheme.forget_bias)
    elif slot.role == "bias_ih" and scheme.rnn_bias and slot.cell.startswith("rnn_"):
        return _uniform(shape, math.sqrt(3 / slot.reach), generator)
    return bias


def _assign(slot: _Slot, value: Tensor, generator: Generator | None) -> None:
    value = value.to(slot.old)
    if not parametrize.is_parametrized(slot.owner, slot.name):
        slot.old.copy_(value)
        return
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            # A right inverse may draw too: torch's orthogonal one completes a tall matrix to a square one.
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            torch.default_generator.manual_seed(int(seed))
        try:
            setattr(slot.owner, slot.name, value)
        except Exception as error:
            raise ValueError(
                f"module: expected {type(slot.owner).__qualname__}.{slot.name} to take an assignment through its "
                f"parametrisation, got {type(error).__name__}: {error}"
            ) from error


@contextmanager
def _restored_on_error(module: nn.Module, generator: Generator) -> Iterator[None]:
    state = generator.get_state()
    before = [
        (owner, name, tensor, tensor.clone())
        for owner in module.modules()
        for table in (owner.named_parameters(recurse=False), owner.named_buffers(recurse=False))
        for name, tensor in table
        if not is_lazy(tensor)
    ]
    try:
        yield
    except BaseException:
        generator.set_state(state)
        for owner, name, tensor, values in before:
            tensor.copy_(values)
            if getattr(owner, name) is not tensor:  # a right inverse may have put another in its place
                setattr(owner, name, tensor)
        raise
