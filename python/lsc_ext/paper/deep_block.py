"""The deep recurrent network whose signals and gradients arXiv 2405.21064 follows at initialisation.

A linear map, residual blocks x + value(u) sigmoid(gate(u)) with u = norm(gelu(recurrence(norm(x)))), a linear map.
Recurrences remember for t steps or some more.

Letters: T time steps, B sequences, I features, H width, lambda an eigenvalue, t the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lsc_ext.memory import chrono_initialize
from lsc_ext.nn import GRU, LRU, ComplexDiagonalRNN

NORMS = ("none", "layer", "batch")


class FullComplexRNN(ComplexDiagonalRNN):
    """With a matrix D between input and output of one width, as the paper has it."""

    def _feedthrough_shape(self, layer: int) -> tuple[int, ...]:
        return (self.hidden_size, self._fed(layer))


class FullLRU(LRU):
    """With a matrix D between input and output of one width, as the paper has it."""

    def _feedthrough_shape(self, layer: int) -> tuple[int, ...]:
        return (self.hidden_size, self._fed(layer))


Recurrence = GRU | FullComplexRNN | FullLRU


class StepBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of each feature over all steps of all sequences, [T, B, H]."""

    def forward(self, input: Tensor) -> Tensor:
        """As that of [T B, H]."""
        normalized: Tensor = super().forward(input.flatten(0, 1)).view_as(input)
        return normalized


class Block(nn.Module):
    """One residual block; its norm is used twice."""

    def __init__(self, recurrence: Recurrence, width: int, norm: str) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.norm = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": StepBatchNorm}[norm](width)
        self.value, self.gate = lecun_linear(width, width), lecun_linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, H] -> [T, B, H]."""
        handed_up, _ = self.recurrence(self.norm(x))
        u = self.norm(nn.functional.gelu(handed_up, approximate="tanh"))
        following: Tensor = x + self.value(u) * torch.sigmoid(self.gate(u))
        return following

    def states(self, x: Tensor) -> Tensor:
        """The hidden states of the recurrence, [T, B, H], complex where they are."""
        fed: Tensor = self.norm(x)
        if isinstance(self.recurrence, GRU):
            states: Tensor = self.recurrence(fed)[0]
            return states
        start: Tensor = fed.new_zeros(fed.shape[1:], dtype=self.recurrence.eigenvalues(0).dtype)
        return self.recurrence.states_of(0, fed, start)


class DeepNetwork(nn.Module):
    """Encoder, blocks, decoder.

    Args:
        recurrence: a name of :data:`RECURRENCES`.
        norm: "none", "layer" or "batch".
        memory: t, at least 1.
        features: I.
        width: H.
        layers: how many blocks.

    Weights are drawn from torch's generator: those of linear maps normal of variance 1 / columns, biases 0.
    """

    def __init__(self, recurrence: str, norm: str, memory: float, features: int, width: int, layers: int) -> None:
        super().__init__()
        self.encoder = lecun_linear(features, width)
        self.blocks = nn.ModuleList(Block(RECURRENCES[recurrence](width, memory), width, norm) for _ in range(layers))
        self.decoder = lecun_linear(width, features)

    def streams(self, x: Tensor) -> list[Tensor]:
        """The residual stream [T, B, H] before the first block and after each, for x [T, B, I]."""
        streams: list[Tensor] = [self.encoder(x)]
        for block in self.blocks:
            streams.append(block(streams[-1]))
        return streams

    def states(self, streams: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states of each block for the streams before them."""
        return [block.states(x) for block, x in zip(self.blocks, streams, strict=False)]  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, I] -> [T, B, I]."""
        predicted: Tensor = self.decoder(self.streams(x)[-1])
        return predicted


def lecun_linear(inputs: int, outputs: int) -> nn.Linear:
    """Weights normal of variance 1 / inputs, biases 0."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=inputs**-0.5)
    nn.init.zeros_(linear.bias)
    return linear


def complex_rnn(width: int, memory: float) -> FullComplexRNN:
    """Lambda itself the parameter, uniform on the ring 1 - 1/t <= |lambda| <= 1 - 1/(2t), and no normalisation."""
    return FullComplexRNN(width, width, min_modulus=1 - 1 / memory, max_modulus=1 - 1 / (2 * memory))


def lru(width: int, memory: float) -> FullLRU:
    """The same draw in the LRU's parameters, with its learned gamma = sqrt(1 - |lambda|^2)."""
    drawn, layer = complex_rnn(width, memory), FullLRU(width, width)
    with torch.no_grad():
        lam = drawn.eigenvalues(0)
        log_modulus = lam.abs().log()
        values = {
            "nu_log_l0": (-log_modulus).log(),
            "theta_log_l0": lam.angle().remainder(2 * math.pi).log(),
            "gamma_log_l0": (-torch.expm1(2 * log_modulus)).log() / 2,
            **{name: drawn.get_parameter(name) for name in ("B_l0", "C_l0", "D_l0")},
        }
        for name, value in values.items():
            layer.get_parameter(name).copy_(value)
    return layer


def chrono_gru(width: int, memory: float) -> GRU:
    """The update gate remembers for 1 + t to 1 + 2 t steps."""
    return draw_gru(GRU(width, width), 1.0, 1.0, (memory, 2 * memory))


def draw_gru(
    layer: GRU,
    input_variance: float,
    recurrent_scale: float,
    memory: Sequence[float],
    generator: torch.Generator | None = None,
) -> GRU:
    """The paper's initialisation of a GRU, in place: b_z = log of a uniform number, the other biases 0.

    Args:
        layer: of one layer, with biases.
        input_variance: sigma_x; input weights are normal of variance 2 sigma_x / I.
        recurrent_scale: sigma_h; recurrent weights are sigma_h times an orthogonal matrix for each gate.
        memory: smallest and largest T = exp(b_z); a unit remembers for T + 1 steps.
        generator: of random numbers; None for torch's.

    Returns:
        ``layer``.
    """
    low, high = memory
    W, U, *biases = (layer.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    with torch.no_grad():
        nn.init.normal_(W, std=(2 * input_variance / layer.input_size) ** 0.5, generator=generator)
        for gate in U.chunk(3):
            nn.init.orthogonal_(gate, gain=recurrent_scale, generator=generator)
        for bias in biases:
            nn.init.zeros_(bias)
    return chrono_initialize(layer, 1 + high, min_memory=1 + low, generator=generator)


#: Name -> (width, memory) -> a layer.
RECURRENCES: dict[str, Callable[[int, float], Recurrence]] = {"crnn": complex_rnn, "lru": lru, "gru": chrono_gru}
