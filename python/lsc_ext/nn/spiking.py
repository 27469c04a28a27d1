"""Spiking layers: leaky integrate-and-fire neurons without and with adaptation.

Letters: T time, B batch, I input size, H hidden size, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn

from lsc_ext.nn.draw import draw_into
from lsc_ext.nn.recurrent import Recurrent
from lsc_ext.trajectory import Kernel

#: Below this many steps a time constant remembers nothing in float32: exp(-1 / 0.01).
SHORTEST = 0.01


@dataclass(frozen=True)
class _Decays(Kernel):
    """Recurrent weights and decays exp(-1 / tau) together: the Jacobian in time of LIF is proportional to them; or the
    decays alone, where the recurrent weight is not among ``weights``.

    ``values`` are the recurrent weight and the parameters of the units as the cell reads them, of which the first
    ``decays`` rows are decays.
    """

    decays: int = 1

    def response(self, mean: Tensor) -> float:
        """As the base, over the decays alone of what the cell reads."""
        by_weight, by_unit = torch.autograd.grad(mean, self.values, retain_graph=True, allow_unused=True)
        weight, unit = (value.detach() for value in self.values)
        scaled = len(self.weights) > self.decays
        change = 0.0 if by_weight is None or not scaled else float((by_weight * weight).sum())
        if by_unit is not None:
            change += float((by_unit * unit)[: self.decays].sum())
        return change / float(mean.detach())

    def scale(self, factor: float) -> None:
        """Multiplies the weight and every decay by ``factor``, no decay to more than exp(-1e-4)."""
        with torch.no_grad():
            for module, name in self.weights:
                held = getattr(module, name)
                if name.startswith("tau"):
                    held.copy_(1 / (1 / held.clamp(min=SHORTEST) - math.log(factor)).clamp(min=1e-4))
                else:
                    held.mul_(factor)


class _Spiking(Recurrent):
    """What LIF and ALIF share: time constants instead of decays, no neuron that excites itself."""

    _starts: dict[str, float]

    def used_recurrent_weight(self, weight: Tensor) -> Tensor:
        """Without the diagonal: no neuron excites itself."""
        return weight - torch.diag(weight.diagonal())

    @property
    def _own_names(self) -> tuple[str, ...]:
        return tuple(self._starts)

    def unit_parameters(self, layer: int, suffix: str = "") -> Tensor:
        """What the cell reads, [Q, H]: decays exp(-1 / tau) in place of time constants."""
        rows = []
        for name in self._own_names:
            values: Tensor = getattr(self, f"{name}_l{layer}{suffix}")
            rows.append((-1 / values.clamp(min=SHORTEST)).exp() if name.startswith("tau") else values)
        return torch.stack(rows)

    def time_kernel(self, end: str, weight_hh: Tensor, unit: Tensor) -> Kernel:
        """What moves the Jacobian in time of the layer ``end``, read as ``weight_hh`` and ``unit``."""
        constants = [name for name in self._own_names if name.startswith("tau")]
        weights = tuple((self, name + end) for name in ("weight_hh", *constants))
        return _Decays(weights, (weight_hh, unit), len(constants))

    def timescale(self, end: str, weight_hh: Tensor, unit: Tensor) -> Kernel:
        """The decays of the layer ``end`` alone."""
        constants = [name for name in self._own_names if name.startswith("tau")]
        return _Decays(tuple((self, name + end) for name in constants), (weight_hh, unit), len(constants))

    @property
    def own_roles(self) -> dict[str, str]:
        """See :class:`Recurrent`."""
        return {name: "timescale" if name.startswith("tau") else "threshold" for name in self._own_names}

    def reset_parameters(self) -> None:
        """Draws every parameter as Herranz-Celotti and Rouat do."""
        self.initialize_parameters("paper", None)

    def initialize_parameters(self, scheme: str, generator: Generator | None) -> bool:
        """The scheme "paper"; others leave the neurons' own parameters alone."""
        if scheme != "paper":
            return False
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                kind = name.rsplit("_l", 1)[0]
                if kind in self._starts:
                    self._draw(kind, parameter, generator)
                elif parameter.dim() == 2:
                    draw_into(parameter, partial(nn.init.xavier_uniform_, generator=generator), generator)
                else:
                    nn.init.zeros_(parameter)
        return True

    def _draw(self, kind: str, parameter: Tensor, generator: Generator | None) -> None:
        mean = self._starts[kind]
        std = 3 * mean / 7  # cut at two of them, so that every draw has the sign of the mean
        width = 2 * abs(std)
        low, high = mean - width, mean + width
        draw_into(
            parameter,
            lambda values: nn.init.trunc_normal_(values, mean, std, low, high, generator=generator),
            generator,
        )


class LIF(_Spiking):
    """Leaky integrate-and-fire neurons.

    v' = exp(-1/tau) v + W_ih x + W_hh z - [threshold z], z' = 1 where v' > threshold, else 0. The reset [.] passes no
    derivative on; the derivative of a spike is 0.5 / (1 + 2 |v - threshold|)^2. No neuron excites itself: the diagonal
    of W_hh has no effect. The layer hands up spikes z; its states are (z, v), and its Jacobians are those of v with the
    path through z inside.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        tau: mean of the time constants to start from, in steps.
        threshold: mean of the thresholds to start from.
        bias: whether layers have biases; they start at 0.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Parameters are those of :class:`Recurrent` and ``tau_l{k}``, ``threshold_l{k}`` [H]. Weights start Glorot uniform,
    the others normal around their mean p with standard deviation 3 p / 7, cut at two of them.

    Raises:
        ValueError: a size below 1, or a time constant below 0.01.
        TypeError: dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        tau: float = 2.0,
        threshold: float = 1.0,
        bias: bool = False,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_time_constant("tau", tau)
        self._starts = {"tau": tau, "threshold": threshold}
        options = (num_layers, bias, batch_first)
        super().__init__("lif", input_size, hidden_size, *options, device=device, dtype=dtype)


class ALIF(_Spiking):
    """Neurons whose threshold adapts: :class:`LIF` with a' = exp(-1/tau_a) a + (1 - exp(-1/tau_a)) z and the threshold
    threshold + beta a'.

    Bellec et al. 2018, as trained in arXiv 2308.12075. States are (z, v, a); the Jacobians are those of (v, a) with the
    path through z inside.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        bipolar: whether beta starts normal around 0 with standard deviation beta / sqrt(I), so that some neurons get
            easier to excite the more they fire.
        tau: mean of the time constants of v to start from, in steps.
        tau_a: mean of those of a; the paper takes half the length of the sequences.
        threshold: mean of the thresholds to start from.
        beta: mean of beta to start from.
        bias: whether layers have biases; they start at 0.
        batch_first: whether inputs and outputs are [B, T, .] instead of [T, B, .].
        device: of the parameters.
        dtype: of the parameters, float32 or float64.

    Parameters are those of :class:`Recurrent` and ``tau_l{k}``, ``tau_a_l{k}``, ``threshold_l{k}``, ``beta_l{k}`` [H],
    drawn as :class:`LIF` draws them.

    Raises:
        ValueError: a size below 1, or a time constant below 0.01.
        TypeError: dtype neither float32 nor float64.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bipolar: bool = False,
        tau: float = 0.1,
        tau_a: float = 100.0,
        threshold: float = 0.01,
        beta: float = 1.8,
        bias: bool = False,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_time_constant("tau", tau)
        _check_time_constant("tau_a", tau_a)
        self.bipolar = bipolar
        self._starts = {"tau": tau, "tau_a": tau_a, "threshold": threshold, "beta": beta}
        options = (num_layers, bias, batch_first)
        super().__init__("alif", input_size, hidden_size, *options, device=device, dtype=dtype)

    def _draw(self, kind: str, parameter: Tensor, generator: Generator | None) -> None:
        if kind == "beta" and self.bipolar:
            std = self._starts["beta"] / math.sqrt(self.input_size)
            draw_into(parameter, partial(nn.init.normal_, std=std, generator=generator), generator)
        else:
            super()._draw(kind, parameter, generator)

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        return super().extra_repr() + (", bipolar=True" if self.bipolar else "")


def _check_time_constant(name: str, value: float) -> None:
    if not value >= SHORTEST:
        raise ValueError(f"{name}: expected at least {SHORTEST} steps, got {value}")
