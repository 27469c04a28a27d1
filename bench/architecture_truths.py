"""Every architecture a second time: its step by hand in float64, from the published equations and the parameters alone.

Nothing of a layer's own code is read. Letters: T time, B batch, N points, n state size, H what a layer hands up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[[Tensor, Tensor], Tensor]
Readout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer: (fed [N, ..], state [N, n]) -> next state; (fed, next state) -> handed up. n = 0 without a state.

    ``first`` is the step from the initial state where that is not what the layer itself would have left.
    """

    advance: Function
    hand_up: Function
    size: int
    backwards: bool = False
    first: Function | None = None


@dataclass(frozen=True)
class Ran:
    """A layer and what it met: fed [T, B, ..], states before and after each step [T, B, n], handed up [T, B, ..]."""

    layer: Layer
    fed: Tensor
    before: Tensor
    after: Tensor
    handed_up: Tensor


def run(layers: Sequence[Layer], x: Tensor, abreast: int = 1) -> list[Ran]:
    """Step by step from zero states; ``abreast`` layers at a time read the same and hand up side by side."""
    ran: list[Ran] = []
    fed = x
    for first in range(0, len(layers), abreast):
        for layer in layers[first : first + abreast]:
            rows = fed.flip(0) if layer.backwards else fed
            state = rows.new_zeros(rows.shape[1], layer.size)
            before, after, handed = [], [], []
            for row in rows:
                step = layer.first if layer.first is not None and not before else layer.advance
                before.append(state)
                state = step(row, state)
                after.append(state)
                handed.append(layer.hand_up(row, state))
            columns = [rows, *(torch.stack(part) for part in (before, after, handed))]
            ran.append(Ran(layer, *(column.flip(0) if layer.backwards else column for column in columns)))
        fed = torch.cat([part.handed_up for part in ran[first:]], dim=-1) if abreast > 1 else ran[-1].handed_up
    return ran


def jacobians(
    ran: Sequence[Ran], direction: str, k: int, readout: Readout, abreast: int = 1, composed: bool = False
) -> Tensor:
    """Those of layer k at all points, t-major: [T * B, m, n], row by row by autograd; differentiable, states held.

    Diagonal ones are differentiated as a product of two Jacobians, what the upper layer is fed being held too, or
    ``composed``: as the Jacobian of one function of the state below.
    """
    own = ran[k]
    advance, hand_up = own.layer.advance, own.layer.hand_up
    fed, before, after = (part.detach().flatten(0, 1) for part in (own.fed, own.before, own.after))
    if direction == "time":
        return _rows(lambda s: advance(fed, s), before)
    if direction == "depth":
        return _rows(lambda x: hand_up(x, advance(x, before)), fed)
    if direction == "input":
        return _rows(lambda x: advance(x, before) if own.layer.size else hand_up(x, before), fed)
    if direction == "diagonal":
        below = ran[k - 1]
        x, s = below.fed.detach().flatten(0, 1), below.before.detach().flatten(0, 1)

        def rise(s: Tensor) -> Tensor:
            return below.layer.hand_up(x, below.layer.advance(x, s))

        if not composed:
            return _rows(lambda y: advance(y, before), fed) @ _rows(rise, s)
        return _rows(lambda s: advance(rise(s), before), s)
    if own.layer.size == 0:
        return _rows(readout, own.handed_up.detach().flatten(0, 1))
    level = k - k % abreast
    others = {i: ran[i].handed_up.detach().flatten(0, 1) for i in range(level, level + abreast)}
    return _rows(
        lambda s: readout(torch.cat([hand_up(fed, s) if i == k else up for i, up in others.items()], dim=-1)), after
    )


def _rows(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    point = point.detach().requires_grad_()
    values = function(point).flatten(1)
    found = [torch.autograd.grad(column.sum(), point, create_graph=True, allow_unused=True)[0] for column in values.T]
    return torch.stack([torch.zeros_like(point) if g is None else g for g in found], dim=1).flatten(2)


def radius(matrices: Tensor, square: bool) -> Tensor:
    """The largest modulus of LAPACK's eigenvalues, or |J|_F / sqrt(max(m, n)); [N], differentiable."""
    if square:
        return torch.linalg.eigvals(matrices).abs().amax(-1)
    return torch.linalg.matrix_norm(matrices) / max(matrices.shape[1:]) ** 0.5


class _Spike(torch.autograd.Function):
    """1 where x > 0; the derivative is 0.5 / (1 + 2 |x|)^2."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context: Any, upstream: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return upstream * 0.5 / (1 + 2 * x.abs()) ** 2


spike: Callable[[Tensor], Tensor] = _Spike.apply


def _own(model: nn.Module, end: str) -> dict[str, Tensor]:
    """The parameters whose names end so, without the end."""
    return {name.removesuffix(end): value for name, value in model.named_parameters() if name.endswith(end)}


def _state(fed: Tensor, state: Tensor) -> Tensor:
    return state


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def _elman(p: dict[str, Tensor], phi: Callable[[Tensor], Tensor]) -> Layer:
    def advance(x: Tensor, h: Tensor) -> Tensor:
        return phi(x @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"])

    return Layer(advance, _state, p["weight_hh"].shape[1])


def _gru(p: dict[str, Tensor], backwards: bool = False) -> Layer:
    def advance(x: Tensor, h: Tensor) -> Tensor:
        ir, iz, candidate = (x @ p["weight_ih"].T + p["bias_ih"]).chunk(3, dim=-1)
        hr, hz, recurrent = (h @ p["weight_hh"].T + p["bias_hh"]).chunk(3, dim=-1)
        z = _sigmoid(iz + hz)
        return (1 - z) * torch.tanh(candidate + _sigmoid(ir + hr) * recurrent) + z * h

    return Layer(advance, _state, p["weight_hh"].shape[1], backwards)


def _lstm(p: dict[str, Tensor]) -> Layer:
    projection = p.get("weight_hr")
    handed_up, hidden = p["weight_hh"].shape[1], p["weight_hh"].shape[0] // 4

    def advance(x: Tensor, state: Tensor) -> Tensor:
        h, c = state.split((handed_up, hidden), dim=-1)
        gates = x @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
        i, f, g, o = gates.chunk(4, dim=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * torch.tanh(g)
        h = _sigmoid(o) * torch.tanh(c)
        return torch.cat((h if projection is None else h @ projection.T, c), dim=-1)

    return Layer(advance, lambda x, state: state[:, :handed_up], handed_up + hidden)


def _min_gru(p: dict[str, Tensor]) -> Layer:
    def advance(x: Tensor, h: Tensor) -> Tensor:
        z, candidate = (x @ p["weight_ih"].T + p["bias_ih"]).chunk(2, dim=-1)
        return h + _sigmoid(z) * (candidate - h)

    return Layer(advance, _state, p["weight_ih"].shape[0] // 2)


def _ind_rnn(p: dict[str, Tensor]) -> Layer:
    u = p["recurrent_weight"]
    return Layer(lambda x, h: (x @ p["weight_ih"].T + p["bias_ih"] + u * h).clamp(min=0), _state, u.shape[0])


def _spiking(p: dict[str, Tensor]) -> Layer:
    """LIF, and ALIF where there is ``tau_a``; the state is (v) or (v, a)."""
    hidden = p["threshold"].shape[0]
    adapts = "tau_a" in p
    off_diagonal = 1 - torch.eye(hidden, dtype=torch.float64)

    def spikes(x: Tensor, state: Tensor) -> Tensor:
        raised = p["beta"] * state[:, hidden:] if adapts else 0.0
        return spike(state[:, :hidden] - p["threshold"] - raised)

    def step(x: Tensor, state: Tensor, z: Tensor) -> Tensor:
        v, threshold, rest = state[:, :hidden], p["threshold"], []
        if adapts:
            kept = torch.exp(-1 / p["tau_a"])
            rest.append(kept * state[:, hidden:] + (1 - kept) * z)
            threshold = threshold + p["beta"] * rest[0]
        driven = x @ p["weight_ih"].T + z @ (p["weight_hh"] * off_diagonal).T
        v = torch.exp(-1 / p["tau"]) * v + driven - (threshold * z).detach()
        return torch.cat((v, *rest), dim=-1)

    # No spike comes before the first step, and none depends on the threshold there.
    def first(x: Tensor, state: Tensor) -> Tensor:
        return step(x, state, torch.zeros_like(state[:, :hidden]))

    size = hidden * (2 if adapts else 1)
    return Layer(lambda x, state: step(x, state, spikes(x, state)), spikes, size, first=first)


def _dense(p: dict[str, Tensor], phi: Callable[[Tensor], Tensor]) -> Layer:
    return Layer(lambda x, s: s, lambda x, s: phi(x @ p["weight_ih"].T + p["bias_ih"]), 0)


def _complex(pair: Tensor) -> Tensor:
    return torch.complex(pair[0], pair[1])


def _linear(p: dict[str, Tensor]) -> Layer:
    """x' = A x + B u, y = Re(C x') + D u, with the state as real parts, then imaginary parts; diagonal, or one head."""
    if "A" in p:
        A, B, C = torch.block_diag(*p["A"]), p["B"], p["C"]
    else:
        B, C = _complex(p["B"]), _complex(p["C"])
        if "nu_log" in p:
            A = torch.exp(torch.complex(-torch.exp(p["nu_log"]), torch.exp(p["theta_log"]))).diag()
        else:
            A = _complex(p["lambda"]).diag()
        if "gamma_log" in p:
            B = torch.exp(p["gamma_log"]).unsqueeze(1) * B
    D = p["D"].diag() if p["D"].dim() == 1 else p["D"]
    size = A.shape[0]

    def read(state: Tensor) -> Tensor:
        return torch.complex(state[:, :size], state[:, size:]) if A.is_complex() else state

    def advance(u: Tensor, state: Tensor) -> Tensor:
        following = read(state) @ A.T + u.to(A.dtype) @ B.T
        return torch.cat((following.real, following.imag), dim=-1) if A.is_complex() else following

    def hand_up(u: Tensor, state: Tensor) -> Tensor:
        output = read(state) @ C.T
        return (output.real if A.is_complex() else output) + u @ D.T

    return Layer(advance, hand_up, size * (2 if A.is_complex() else 1))


def _normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def _gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _residual(model: Any, k: int) -> Layer:
    p = {name: value for name, value in model.blocks[k].named_parameters()}
    lru = _linear({name.removeprefix("lru.").removesuffix("_l0"): v for name, v in p.items() if name.startswith("lru")})
    adapter = model.adapter if k == 0 else None

    def stream(x: Tensor) -> Tensor:
        return x if adapter is None else x @ adapter.weight.T + adapter.bias

    def normed(x: Tensor) -> Tensor:
        return _normed(stream(x), p["norm.weight"], p["norm.bias"], 1e-3)

    def hand_up(x: Tensor, state: Tensor) -> Tensor:
        g = _gelu(lru.hand_up(normed(x), state))
        gate = _sigmoid(g @ p["gate.weight"].T + p["gate.bias"])
        return stream(x) + gate * (g @ p["value.weight"].T + p["value.bias"])

    return Layer(lambda x, state: lru.advance(normed(x), state), hand_up, lru.size)


def _normed_gru(p: dict[str, Tensor]) -> Layer:
    """A GRU whose two products are each normed over all gates."""

    def advance(x: Tensor, h: Tensor) -> Tensor:
        fed = _normed(x @ p["ih.weight"].T + p["ih.bias"], p["norm_ih.weight"], p["norm_ih.bias"], 1e-5)
        back = _normed(h @ p["hh.weight"].T + p["hh.bias"], p["norm_hh.weight"], p["norm_hh.bias"], 1e-5)
        (ir, iz, candidate), (hr, hz, recurrent) = fed.chunk(3, dim=-1), back.chunk(3, dim=-1)
        z = _sigmoid(iz + hz)
        return (1 - z) * torch.tanh(candidate + _sigmoid(ir + hr) * recurrent) + z * h

    return Layer(advance, _state, p["hh.weight"].shape[1])


def _convolution(module: nn.Conv2d) -> Layer:
    """A convolution as a product of patches and weights, then tanh."""

    def hand_up(x: Tensor, state: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, module.kernel_size, padding=1)  # type: ignore[arg-type]
        assert module.bias is not None
        out = torch.tanh(module.weight.flatten(1) @ patches + module.bias.unsqueeze(1))
        return out.unflatten(-1, x.shape[-2:])

    return Layer(lambda x, s: s, hand_up, 0)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": lambda x: x.clamp(min=0),
    "sigmoid": _sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "gelu": _gelu,
    "swish": lambda x: x * _sigmoid(x),
}
_BY_PARAMETERS: dict[str, Callable[[dict[str, Tensor]], Layer]] = {
    "gru": _gru,
    "lstm": _lstm,
    "min_gru": _min_gru,
    "ind_rnn": _ind_rnn,
    "lif": _spiking,
    "alif": _spiking,
    "alif_bipolar": _spiking,
    "lru": _linear,
    "complex_diagonal": _linear,
    "block_diagonal": _linear,
    **{f"rnn_{phi}": functools.partial(_elman, phi=_ACTIVATIONS[phi]) for phi in ("tanh", "relu", "sigmoid")},
    **{f"feed_forward_{name}": functools.partial(_dense, phi=phi) for name, phi in _ACTIVATIONS.items()},
}


def by_name(name: str, model: Any) -> list[Layer]:
    """The layers of what ``lsc_ext.nn.build`` makes of a name."""
    if name == "res_lru":
        return [_residual(model, k) for k in range(model.num_layers)]
    return [_BY_PARAMETERS[name](_own(model, f"_l{k}")) for k in range(model.num_layers)]


def bidirectional_gru(model: Any) -> list[Layer]:
    """Layer k forwards, layer k backwards, ..."""
    ends = [(f"_l{k}{suffix}", bool(suffix)) for k in range(model.num_layers) for suffix in ("", "_reverse")]
    return [_gru(_own(model, end), backwards) for end, backwards in ends]


def normed_grus(model: Any) -> list[Layer]:
    """A stack of StepModels whose module has linear maps ``ih`` and ``hh`` and norms ``norm_ih`` and ``norm_hh``."""
    return [_normed_gru(dict(layer.module.named_parameters())) for layer in model.layers]


def convolutions(model: Iterable[nn.Module]) -> list[Layer]:
    """An ``nn.Sequential`` of convolutions and tanh in turns."""
    return [_convolution(module) for module in model if isinstance(module, nn.Conv2d)]
