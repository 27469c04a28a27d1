"""Layers with a linear recurrence, step by step from their published equations, in complex128.

Letters: T time, B batch, I input size, H hidden size, L layers, N state size, K heads of size m.

Each function reads the parameters of a module by attribute name, runs x [T, B, I] from ``initial`` [L, B, N] (None
for zeros) and returns (output [T, B, H], states [L, T + 1, B, N]), slot 0 being ``initial``; differentiable. LRU:
Orvieto et al. 2023. The other two recurrences: Zucchet and Orvieto 2024. The residual block: Herranz-Celotti and Rouat.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Result = tuple[Tensor, Tensor]


def lru(model: Any, x: Tensor, initial: Tensor | None = None) -> Result:
    """The LRU: x' = lambda x + gamma (B u), y = Re(C x') + D u, lambda = exp(-exp(nu_log) + i exp(theta_log))."""
    return _stack(model, x, initial, _lru_matrices)


def complex_diagonal_rnn(model: Any, x: Tensor, initial: Tensor | None = None) -> Result:
    """As :func:`lru` with lambda itself a parameter; without ``gamma_log`` gamma is one."""
    return _stack(model, x, initial, _complex_diagonal_matrices)


def block_diagonal_rnn(model: Any, x: Tensor, initial: Tensor | None = None) -> Result:
    """Dense heads: x' = A x + B u, y = C x' + D u with A block diagonal; the imaginary parts are zero."""
    return _stack(model, x, initial, _block_diagonal_matrices)


def res_lru(model: Any, x: Tensor, initial: Tensor | None = None) -> Result:
    """Blocks a + sigmoid(W1 g + b1) (W3 g + b3), g = GELU(LRU(LayerNorm(a))); no dropout, as in eval mode."""
    a = x.double()
    if model.adapter is not None:
        a = a @ model.adapter.weight.double().T + model.adapter.bias.double()
    trajectories = []
    for k, block in enumerate(model.blocks):
        centred = a - a.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-3) ** -0.5
        u = centred * scale * block.norm.weight.double() + block.norm.bias.double()
        y, states = _stack(block.lru, u, None if initial is None else initial[k : k + 1], _lru_matrices)
        g = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        opened = 1 / (1 + torch.exp(-(g @ block.gate.weight.double().T + block.gate.bias.double())))
        a = a + opened * (g @ block.value.weight.double().T + block.value.bias.double())
        trajectories.append(states[0])
    return a, torch.stack(trajectories)


Matrices = tuple[Tensor, Tensor, Tensor]


def _lru_matrices(model: Any, layer: int) -> Matrices:
    nu, theta, gamma = (getattr(model, f"{name}_log_l{layer}").double().exp() for name in ("nu", "theta", "gamma"))
    transition = torch.exp(torch.complex(-nu, theta))
    return torch.diag(transition), gamma.unsqueeze(1) * _complex(model, "B", layer), _complex(model, "C", layer)


def _complex_diagonal_matrices(model: Any, layer: int) -> Matrices:
    transition, matrix = _complex(model, "lambda", layer), _complex(model, "B", layer)
    gamma_log = getattr(model, f"gamma_log_l{layer}", None)
    if gamma_log is not None:
        matrix = gamma_log.double().exp().unsqueeze(1) * matrix
    return torch.diag(transition), matrix, _complex(model, "C", layer)


def _block_diagonal_matrices(model: Any, layer: int) -> Matrices:
    transition = torch.block_diag(*getattr(model, f"A_l{layer}").double())
    matrices = (transition, *(getattr(model, f"{name}_l{layer}").double() for name in ("B", "C")))
    a, b, c = (matrix.to(torch.complex128) for matrix in matrices)
    return a, b, c


def _complex(model: Any, name: str, layer: int) -> Tensor:
    real, imag = getattr(model, f"{name}_l{layer}").double()
    return torch.complex(real, imag)


def _stack(model: Any, x: Tensor, initial: Tensor | None, matrices: Any) -> Result:
    fed, trajectories = x.double(), []
    for layer in range(model.num_layers):
        a, b, c = matrices(model, layer)
        direct = getattr(model, f"D_l{layer}").double()
        feedthrough = torch.diag(direct) if direct.dim() == 1 else direct
        if initial is None:
            state = torch.zeros(x.shape[1], a.shape[0], dtype=torch.complex128)
        else:
            state = initial[layer].to(torch.complex128)
        trajectory, outputs = [state], []
        for u in fed:
            state = state @ a.T + u.to(torch.complex128) @ b.T
            trajectory.append(state)
            outputs.append((state @ c.T).real + u @ feedthrough.T)
        fed = torch.stack(outputs) if outputs else x.new_zeros(0, x.shape[1], c.shape[0], dtype=torch.float64)
        trajectories.append(torch.stack(trajectory))
    return fed, torch.stack(trajectories)
