"""The layers of ``lsc_ext.nn`` from their published equations, for tests: a step of each, and Jacobians formed of it.

The package is called to build a layer and for nothing else. Letters: T time, B batch, I input size, H hidden size, n
state size.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import torch
from networks import normal
from torch import Tensor
from torch.func import jacrev, vmap

import lsc_ext as lsc


class Layer(NamedTuple):
    """``step(x [.., I], s [.., n]) -> s'``; ``hand_up(x, s') -> y [.., H]``; a spiking layer's step also takes z."""

    step: Callable[..., Tensor]
    hand_up: Callable[[Tensor, Tensor], Tensor]


class Kind(NamedTuple):
    """How to build a stack from (inputs, size, layers, dtype), its layers from the parameters, what it can do."""

    build: Callable[..., torch.nn.Module]
    levels: Callable[[torch.nn.Module], list[list[Layer]]]
    spiking: bool = False
    recurrent: bool = True
    bidirectional: bool = False
    reads_out: bool = True

    @property
    def directions(self) -> tuple[str, ...]:
        absent = ("time", "diagonal") if not self.recurrent else ("diagonal",) if self.bidirectional else ()
        absent += () if self.reads_out else ("output",)
        return tuple(d for d in ("time", "depth", "diagonal", "input", "output") if d not in absent)


class Spike(torch.autograd.Function):
    """The step function, with the derivative 0.5 / (1 + 2 |x|)^2."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * 0.5 / (1 + 2 * x.abs()) ** 2


def named(model, layer, suffix=""):
    """The parameters of one layer by name."""
    end = f"_l{layer}{suffix}"
    return SimpleNamespace(**{n.removesuffix(end): p for n, p in model.named_parameters() if n.endswith(end)})


def state_is_output(x, s):
    return s


def without_diagonal(weight):
    return weight * (1 - torch.eye(weight.shape[0], dtype=weight.dtype))


def lif(p):
    def fire(v):
        return Spike.apply(v - p.threshold)

    def step(x, v, z=None):
        z = fire(v) if z is None else z
        driven = x @ p.weight_ih.T + p.bias_ih + z @ without_diagonal(p.weight_hh).T + p.bias_hh
        return torch.exp(-1 / p.tau) * v + driven - (p.threshold * z).detach()

    return Layer(step, lambda x, v: fire(v))


def alif(p):
    def fire(v, a):
        return Spike.apply(v - (p.threshold + p.beta * a))

    def step(x, s, z=None):
        v, a = s.chunk(2, -1)
        z = fire(v, a) if z is None else z
        memory = torch.exp(-1 / p.tau_a)
        a = memory * a + (1 - memory) * z
        driven = x @ p.weight_ih.T + p.bias_ih + z @ without_diagonal(p.weight_hh).T + p.bias_hh
        v = torch.exp(-1 / p.tau) * v + driven - ((p.threshold + p.beta * a) * z).detach()
        return torch.cat((v, a), -1)

    return Layer(step, lambda x, s: fire(*s.chunk(2, -1)))


def ind_rnn(p):
    return Layer(lambda x, h: (x @ p.weight_ih.T + p.bias_ih + p.recurrent_weight * h).clamp(min=0), state_is_output)


FUNCTIONS = {
    "identity": lambda x: x,
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "relu": lambda x: x * (x > 0),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "sin": torch.sin,
    "cos": torch.cos,
    "gelu": lambda x: x / 2 * (1 + torch.erf(x / math.sqrt(2))),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}


def dense_with(activation):
    def dense(p):
        return Layer(lambda x, y: FUNCTIONS[activation](x @ p.weight_ih.T + p.bias_ih), state_is_output)

    return dense


def gru(p):
    def step(x, h):
        fed = (x @ p.weight_ih.T + p.bias_ih).chunk(3, -1)
        back = (h @ p.weight_hh.T + p.bias_hh).chunk(3, -1)
        reset, keep = torch.sigmoid(fed[0] + back[0]), torch.sigmoid(fed[1] + back[1])
        return (1 - keep) * torch.tanh(fed[2] + reset * back[2]) + keep * h

    return Layer(step, state_is_output)


def lstm(p):
    projected = hasattr(p, "weight_hr")
    size = p.weight_hh.shape[1]

    def step(x, s):
        h, c = s[..., :size], s[..., size:]
        i, f, g, o = (x @ p.weight_ih.T + p.bias_ih + h @ p.weight_hh.T + p.bias_hh).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return torch.cat((h @ p.weight_hr.T if projected else h, c), -1)

    return Layer(step, lambda x, s: s[..., :size])


def complex_linear(transition, gamma, B, C, D):
    """x' = lambda x + gamma B u, y = Re(C x') + D u, complex; B, C [2, .., .]; states as real, then imaginary parts."""

    def step(u, s):
        state = torch.complex(*s.chunk(2, -1))
        state = transition * state + gamma * ((u + 0j) @ torch.complex(*B).T)
        return torch.cat((state.real, state.imag), -1)

    def hand_up(u, s):
        direct = D * u if D.dim() == 1 else u @ D.T
        return (torch.complex(*s.chunk(2, -1)) @ torch.complex(*C).T).real + direct

    return Layer(step, hand_up)


def lru(p):
    transition = torch.exp(torch.complex(-p.nu_log.exp(), p.theta_log.exp()))
    return complex_linear(transition, p.gamma_log.exp(), p.B, p.C, p.D)


def complex_diagonal(p):
    gamma = p.gamma_log.exp() if hasattr(p, "gamma_log") else 1
    return complex_linear(torch.complex(*getattr(p, "lambda")), gamma, p.B, p.C, p.D)


def block_diagonal(p):
    transition = torch.block_diag(*p.A)

    def hand_up(u, s):
        return s @ p.C.T + (p.D * u if p.D.dim() == 1 else u @ p.D.T)

    return Layer(lambda u, s: s @ transition.T + u @ p.B.T, hand_up)


def residual(model, number):
    block, inner = model.blocks[number], lru(named(model.blocks[number].lru, 0))
    adapter = model.adapter if number == 0 else None

    def stream(x):
        return x if adapter is None else x @ adapter.weight.T + adapter.bias

    def norm(a):
        centred = a - a.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-3)
        return scaled * block.norm.weight + block.norm.bias

    def hand_up(x, s):
        a = stream(x)
        g = FUNCTIONS["gelu"](inner.hand_up(norm(a), s))
        gate, value = (g @ m.weight.T + m.bias for m in (block.gate, block.value))
        return a + torch.sigmoid(gate) * value

    return Layer(lambda x, s: inner.step(norm(stream(x)), s), hand_up)


def stacked(equation, suffixes=("",)):
    def levels(model):
        return [[equation(named(model, k, suffix)) for suffix in suffixes] for k in range(model.num_layers)]

    return levels


def residual_levels(model):
    return [[residual(model, k)] for k in range(model.num_layers)]


def _built(layer, own=None, **options):
    """``own(size)`` has options that depend on the size."""

    def build(inputs, size, layers, dtype):
        chosen = {} if own is None else own(size)
        return layer(inputs, chosen.pop("hidden_size", size), layers, dtype=dtype, **options, **chosen)

    return build


BOTH = ("", "_reverse")
KINDS = {
    "LIF": Kind(_built(lsc.nn.LIF, bias=True), stacked(lif), spiking=True),
    "ALIF": Kind(_built(lsc.nn.ALIF, bias=True, tau=1.5, tau_a=20.0, threshold=0.3), stacked(alif), spiking=True),
    "bipolar ALIF": Kind(
        _built(lsc.nn.ALIF, bias=True, bipolar=True, tau=1.5, tau_a=20.0, threshold=0.3), stacked(alif), spiking=True
    ),
    "IndRNN": Kind(_built(lsc.nn.IndRNN), stacked(ind_rnn)),
    "LRU": Kind(_built(lsc.nn.LRU), stacked(lru)),
    "ResLRU": Kind(_built(lsc.nn.ResLRU, lambda size: {"state_size": size}), residual_levels),
    "ComplexDiagonalRNN": Kind(_built(lsc.nn.ComplexDiagonalRNN), stacked(complex_diagonal)),
    "normalised": Kind(_built(lsc.nn.ComplexDiagonalRNN, normalization="learned"), stacked(complex_diagonal)),
    "one head": Kind(_built(lsc.nn.BlockDiagonalRNN), stacked(block_diagonal)),
    "four heads": Kind(
        _built(lsc.nn.BlockDiagonalRNN, lambda size: {"state_size": 4 * math.ceil(size / 4)}, heads=4),
        stacked(block_diagonal),
    ),
    "bidirectional GRU": Kind(_built(lsc.nn.GRU, bidirectional=True), stacked(gru, BOTH), bidirectional=True),
    "bidirectional LSTM": Kind(_built(lsc.nn.LSTM, bidirectional=True), stacked(lstm, BOTH), bidirectional=True),
    "projected LSTM": Kind(
        _built(lsc.nn.LSTM, lambda size: {"proj_size": size, "hidden_size": size + 2}), stacked(lstm)
    ),
    "projected bidirectional LSTM": Kind(
        _built(lsc.nn.LSTM, lambda size: {"proj_size": size, "hidden_size": size + 2}, bidirectional=True),
        stacked(lstm, BOTH),
        bidirectional=True,
        reads_out=False,
    ),
    **{
        f"FeedForward {name}": Kind(
            _built(lsc.nn.FeedForward, activation=name), stacked(dense_with(name)), recurrent=False
        )
        for name in FUNCTIONS
    },
}


def build(kind, inputs=4, size=3, layers=3, seed=0, dtype=torch.float64):
    """A stack whose parameters all differ from where they start, so that no unit is like another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KINDS[kind].build(inputs, size, layers, torch.float64)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                spread = 0.2 if (parameter >= 0).all() or parameter.dim() == 1 else 1.0
                parameter.mul_(1 + spread * (torch.rand_like(parameter) - 0.5))
                if parameter.dim() == 1 and not parameter.any():  # biases that start at zero
                    parameter.uniform_(-0.3, 0.3)
                if kind == "IndRNN" and name.startswith("bias"):
                    parameter.add_(0.7)  # with few units at work Jacobians are defective, and autograd cannot help
    return model.to(dtype)


def start_of(kind, model, batch, seed=2):
    """Random initial states, as the model takes them; None where it has none."""
    if not KINDS[kind].recurrent:
        return None
    dtype = next(model.parameters()).dtype
    _, last = model(torch.zeros(1, batch, model.input_size, dtype=dtype))
    parts, levels = last if isinstance(last, tuple) else (last,), KINDS[kind].levels(model)
    drawn = []
    for i, part in enumerate(parts):
        real, imag = (normal(*part.shape, seed=seed + 2 * i + j, dtype=dtype) for j in (0, 1))
        drawn.append(torch.complex(real, imag) if part.is_complex() else real)
    if KINDS[kind].spiking:  # the spikes that these voltages and adaptations mean
        free = torch.cat(drawn[1:], -1)
        with torch.no_grad():
            drawn[0] = torch.stack([level[0].hand_up(None, s) for level, s in zip(levels, free, strict=True)])
    return tuple(drawn) if len(drawn) > 1 else drawn[0]


class Points(NamedTuple):
    """One direction of one level where it ran: time is that of the inputs."""

    layer: Layer
    inputs: Tensor  # [T, B, .]
    before: Tensor  # [T, B, n]
    after: Tensor
    handed_up: Tensor  # [T, B, .]


def run(kind, model, x, initial, through_states=False):
    """The layers along the trajectory: a list of levels, each a list of directions."""
    with torch.set_grad_enabled(through_states):
        parts = initial if isinstance(initial, tuple) else (initial,)
        spikes, free = (parts[0], parts[1:]) if KINDS[kind].spiking else (None, parts)
        levels, fed, number = [], x, 0
        for layers in KINDS[kind].levels(model):
            ran = []
            for d, layer in enumerate(layers):
                if initial is None:
                    state = x.new_zeros(x.shape[1], model.hidden_size)
                else:
                    own = [part[number] for part in free]
                    state = torch.cat([h for s in own for h in ((s.real, s.imag) if s.is_complex() else (s,))], -1)
                before, after, handed_up = [], [], []
                for t, u in enumerate(fed.flip(0) if d else fed):
                    given = (spikes[number],) if spikes is not None and t == 0 else ()
                    before.append(state)
                    state = layer.step(u, state, *given)
                    after.append(state)
                    handed_up.append(layer.hand_up(u, state))
                visited = [torch.stack(values) for values in (before, after, handed_up)]
                ran.append(Points(layer, fed, *(v.flip(0) if d else v for v in visited)))
                number += 1
            levels.append(ran)
            fed = torch.cat([points.handed_up for points in ran], -1)
    if through_states:
        return levels
    # The layers again, where gradients are enabled: what they share of the parameters was computed without.
    return [
        [Points(fresh, *(tensor.detach() for tensor in points[1:])) for fresh, points in zip(layers, ran, strict=True)]
        for layers, ran in zip(KINDS[kind].levels(model), levels, strict=True)
    ]


def _formed(function, *arguments):
    """Jacobians with respect to the first argument, [T, B, m, n], of a function of single points."""
    flat = [a.flatten(0, 1) for a in arguments]
    return vmap(jacrev(function))(*flat).unflatten(0, arguments[0].shape[:2])


def _along(direction, levels, k, d, readout):
    """The matrices of one direction of one level; None where it has none along ``direction``."""
    (step, hand_up), inputs, before, after, _ = levels[k][d]
    if direction == "time":
        return _formed(lambda s, x: step(x, s), before, inputs)
    if direction == "depth" and k > 0:
        return _formed(lambda x, s: hand_up(x, step(x, s)), inputs, before)
    if direction == "diagonal" and k > 0:
        ((below, fed, lower, *_),) = levels[k - 1]
        return _formed(lambda s, x, upper: step(below.hand_up(x, below.step(x, s)), upper), lower, fed, before)
    if direction == "input" and k == 0:
        return _formed(step, inputs, before)
    if direction == "output" and k == len(levels) - 1:
        beside = [points.handed_up for points in levels[k]]
        return _formed(
            lambda s, x, *others: readout(torch.cat([*others[:d], hand_up(x, s), *others[d + 1 :]], -1)),
            after,
            inputs,
            *beside,
        )
    return None


def jacobians(levels, direction, readout=None):
    """The matrices [T, B, m, n] of every layer that has the direction, the two directions of a level side by side."""
    found = [_along(direction, levels, k, d, readout) for k, ran in enumerate(levels) for d in range(len(ran))]
    return [matrices for matrices in found if matrices is not None]


def radius(direction, matrices):
    """Largest modulus of an eigenvalue; |J|_F / sqrt(max(m, n)) of what is rectangular, and of inputs and outputs."""
    rows, columns = matrices.shape[-2:]
    if rows != columns or direction in ("input", "output"):
        return matrices.square().sum((-2, -1)).sqrt() / math.sqrt(max(rows, columns))
    values = torch.linalg.eigvals(matrices)
    leading = values.gather(-1, values.detach().abs().argmax(-1, keepdim=True)).squeeze(-1)
    return leading.abs()


def radii(kind, model, x, initial, direction, readout=None, through_states=False):
    """[layers, T, B]."""
    levels = run(kind, model, x, initial, through_states)
    return torch.stack([radius(direction, m) for m in jacobians(levels, direction, readout)])
