"""Trajectories of layers with a linear recurrence, alone and in residual blocks."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsc_ext.nn.arguments import time_first
from lsc_ext.nn.linear import LRU, BlockDiagonalRNN, ComplexDiagonal, LinearRecurrent, initial_states
from lsc_ext.nn.residual import ResLRU
from lsc_ext.rerun import Diagonal
from lsc_ext.steps import StepLayer, StepTrajectory
from lsc_ext.trajectory import Kernel, Trajectory, kernel_of, register_reader
from lsc_ext.weights import Weight

#: Largest block whose eigenvalues are left to LAPACK, as for any small Jacobian; larger ones go through products.
_SMALL_BLOCK = 32


@dataclass(frozen=True)
class _Modulus(Kernel):
    """The moduli exp(-exp(nu_log)) of an LRU's eigenvalues, which stay below one."""

    def response(self, mean: Tensor) -> float:
        """1: the radius is the largest modulus."""
        return 1.0

    def scale(self, factor: float) -> None:
        """Multiplies every modulus by ``factor``, none to more than 1 - 1e-6."""
        with torch.no_grad():
            for module, name in self.weights:
                nu_log = getattr(module, name)
                nu_log.copy_((nu_log.exp() - math.log(factor)).clamp(min=1e-6).log())


def _time_kernel(model: LinearRecurrent, layer: int) -> Kernel:
    if isinstance(model, LRU):
        nu_log = kernel_of(model, f"nu_log_l{layer}")
        return _Modulus(nu_log.weights, nu_log.values)
    return kernel_of(model, f"A_l{layer}" if isinstance(model, BlockDiagonalRNN) else f"lambda_l{layer}")


def _carries(model: LinearRecurrent, layer: int) -> dict[str, Kernel]:
    return {"timescale": _time_kernel(model, layer)} if isinstance(model, LRU) else {}


def _weights(model: LinearRecurrent, layer: int) -> tuple[Weight, ...]:
    end = f"_l{layer}"
    complex_ones = ("B", "C", "lambda") if model._state_dtype.is_complex else ()
    return tuple(
        Weight(model, name + end, model.roles.get(name, "other"), parts=2 if name in complex_ones else 1)
        for name in model._shapes(layer)
    )


def _block_weights(model: ResLRU, layer: int) -> tuple[Weight, ...]:
    """Of one residual block: its recurrence, the gated map behind it, the norm, and before the first the adapter."""
    block = model.block(layer)
    found = list(_weights(block.lru, 0))
    for linear in (block.gate, block.value):
        found += [Weight(linear, "weight", "gating"), Weight(linear, "bias", "bias")]
    found += [Weight(block.norm, "weight", "other"), Weight(block.norm, "bias", "other")]
    if layer == 0 and model.adapter is not None:
        found += [Weight(model.adapter, "weight", "adapter"), Weight(model.adapter, "bias", "bias")]
    return tuple(found)


def _eigenvalues(model: LinearRecurrent, layer: int) -> Tensor | None:
    large = isinstance(model, BlockDiagonalRNN) and model.state_size // model.heads > _SMALL_BLOCK
    return None if large else model.eigenvalues(layer)


def _before(model: LinearRecurrent, initial: Tensor, states: Tensor) -> Tensor:
    """States before each step [T, B, n], real, from the initial one [B, N] and those after each step [T, B, N]."""
    return model.as_real(torch.cat((initial.unsqueeze(0), states))[: states.shape[0]])


def _diagonal(model: LinearRecurrent, layer: int, features: Tensor, initial: Tensor) -> Diagonal | None:
    if not isinstance(model, ComplexDiagonal):
        return None

    def input_matrix() -> Tensor:
        return torch.complex(*model.input_matrix(layer))

    features, initial = features.detach(), initial.detach()
    return Diagonal(functools.partial(model.eigenvalues, layer), input_matrix, features, initial)


def _states(model: LinearRecurrent, layer: int, fed: Tensor, initial: Tensor) -> Tensor:
    """States after each step [T, K, n] over what the recurrence reads, from ``initial`` [K, n], all real."""
    start = torch.complex(*initial.chunk(2, dim=-1)) if model._state_dtype.is_complex else initial
    return model.as_real(model.states_of(layer, fed, start))


def _read_linear(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, LinearRecurrent):
        return None
    fed, batched = time_first(model, inputs, model.get_parameter("D_l0"), None)
    initial = initial_states(initial_state, model.num_layers, fed, model.state_size, model._state_dtype, batched)
    layers = []
    for k in range(model.num_layers):
        with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
            states = model.states_of(k, fed, initial[k])
            handed_up = model.read_out(k, fed, states)
        own = [p for name, p in model.named_parameters() if name.endswith(f"_l{k}")]
        direct = ((model, f"B_l{k}"), (model, f"D_l{k}"))
        kernels = {
            "time": _time_kernel(model, k),
            "diagonal": kernel_of(model, f"B_l{k}"),
            "depth": Kernel(direct, tuple(getattr(module, name) for module, name in direct)),
        }
        layers.append(
            StepLayer(
                functools.partial(model.advance, k),
                functools.partial(model.hand_up, k),
                fed,
                _before(model, initial[k], states),
                handed_up,
                own,
                linear=True,
                eigenvalues=_eigenvalues(model, k),
                kernels=kernels,
                carries=_carries(model, k),
                weights=_weights(model, k),
                kind="linear",
                diagonal=_diagonal(model, k, fed, initial[k]),
                run=functools.partial(_states, model, k),
            )
        )
        fed = handed_up
    return StepTrajectory(layers, through_states, ("time", "diagonal"))


def _block_states(model: ResLRU, layer: int, fed: Tensor, initial: Tensor) -> Tensor:
    block = model.block(layer)
    return _states(block.lru, 0, block.norm(model.stream(layer, fed)), initial)


def _read_residual(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, ResLRU):
        return None
    first = model.block(0)
    fed, batched = time_first(model, inputs, first.gate.weight, None)
    initial = initial_states(initial_state, model.num_layers, fed, model.state_size, first.lru._state_dtype, batched)
    layers = []
    for k in range(model.num_layers):
        block = model.block(k)
        with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
            a = model.stream(k, fed)
            states = block.lru.states_of(0, block.norm(a), initial[k])
            before = _before(block.lru, initial[k], states)
            handed_up, _ = block(a, initial[k])
        own = list(block.parameters())
        if k == 0 and model.adapter is not None:
            own += list(model.adapter.parameters())
        layers.append(
            StepLayer(
                functools.partial(model.advance, k),
                functools.partial(model.hand_up, k),
                fed,
                before,
                handed_up,
                own,
                eigenvalues=block.lru.eigenvalues(0),
                kernels={"time": _time_kernel(block.lru, 0), "diagonal": kernel_of(block.lru, "B_l0")},
                carries=_carries(block.lru, 0),
                weights=_block_weights(model, k),
                diagonal=_diagonal(block.lru, 0, block.norm(a), initial[k]),
                run=functools.partial(_block_states, model, k),
            )
        )
        fed = handed_up
    return StepTrajectory(layers, through_states, ("time", "diagonal"))


register_reader(_read_linear, LinearRecurrent)
register_reader(_read_residual, ResLRU)
