"""Gates that start with given memories.

Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018: a gate sigmoid(b) forgets in about 1 /
(1 - sigmoid(b)) steps, and an input gate of -b keeps states as large as inputs. For what that does to sensitivities see
:func:`lsc_ext.memory.gated_second_moments`.

Letters: H units, tau a memory in steps, b a bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from lsc_ext.nn.recurrent import cell_name

Layer = TypeVar("Layer", bound=nn.Module)

# Which block of the biases gets b and which -b, by cell.
_SIGNS: dict[str, dict[int, float]] = {"lstm": {1: 1.0, 0: -1.0}, "gru": {1: 1.0}, "min_gru": {0: -1.0}}


def chrono_initialize(
    module: Layer, max_memory: float, *, min_memory: float = 2.0, generator: Generator | None = None
) -> Layer:
    """Draws the biases of gates anew, in place, so that units remember for ``min_memory`` to ``max_memory`` steps.

    tau is uniform between them for each unit, b = log(tau - 1), so that sigmoid(b) = 1 - 1 / tau. An LSTM's forget gate
    gets b and its input gate -b, a GRU's update gate b, which in torch.nn keeps the old state; that of ``min_gru``,
    which takes the new, -b. All is in ``bias_ih``, where ``bias_hh`` becomes 0. Other biases and all weights stay.

    Args:
        module: an LSTM, GRU or min_gru, of torch.nn or ``lsc_ext.nn``, or a module that contains some.
        max_memory: the longest memory in steps; the length of what is to be bridged is the usual choice.
        min_memory: the shortest, more than 1. 2 is that of the paper.
        generator: the only source of random numbers; None for torch's. Drawn in float64, layer by layer.

    Returns:
        ``module``.

    Raises:
        ValueError: memories out of range or order; no gated layer; one without biases, or with a bias under a
            parametrisation. The module and the generator are as before.
        TypeError: not a module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__qualname__}")
    if not 1 < min_memory <= max_memory < math.inf:
        raise ValueError(
            f"min_memory, max_memory: expected 1 < min_memory <= max_memory, got {min_memory} and {max_memory}"
        )
    gates = [gate for layer in module.modules() for gate in _gates(layer)]
    if not gates:
        raise ValueError(
            f"module: expected an LSTM, GRU or min_gru, or a module with one, got {type(module).__qualname__}"
        )
    device = torch.device("cpu") if generator is None else generator.device
    with torch.no_grad():
        for gate in gates:
            draw = torch.empty(gate.units, dtype=torch.float64, device=device)
            b = (draw.uniform_(min_memory, max_memory, generator=generator) - 1).log()
            for block, sign in gate.signs.items():
                rows = slice(block * gate.units, (block + 1) * gate.units)
                gate.bias_ih[rows] = (sign * b).to(gate.bias_ih)
                if gate.bias_hh is not None:
                    gate.bias_hh[rows] = 0
    return module


class _Gate(NamedTuple):
    """The biases of one layer and direction."""

    bias_ih: Tensor
    bias_hh: Tensor | None
    units: int
    signs: dict[int, float]


def _gates(layer: Any) -> Iterator[_Gate]:
    signs = _SIGNS.get(cell_name(layer) or "")
    if signs is None:
        return
    where = type(layer).__qualname__
    if not layer.bias:
        raise ValueError(f"module: expected gates with biases, got {where} with bias=False")
    for end in (f"_l{k}{way}" for k in range(layer.num_layers) for way in ("", "_reverse")):
        own = {name: getattr(layer, name + end, None) for name in ("bias_ih", "bias_hh")}
        for name in own:
            if parametrize.is_parametrized(layer, name + end):
                raise ValueError(f"module: expected a plain parameter {where}.{name + end}, got a parametrised one")
        if own["bias_ih"] is not None:
            yield _Gate(own["bias_ih"], own["bias_hh"], layer.hidden_size, signs)
