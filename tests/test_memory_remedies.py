"""Parametrisations and initial gates on layers: the function stays, the sensitivity falls as the closed form says."""

import copy
import math
import re

import pytest
import torch
from networks import normal
from torch import Tensor, nn
from torch.nn.utils import parametrize

import lsc_ext as lsc
from lsc_ext import memory

F64, C128 = torch.float64, torch.complex128


class Diagonal(nn.Module):
    """Somebody's layer: h' = lambda h + B x, y = Re(C h), complex eigenvalues in one tensor."""

    def __init__(self, lam: Tensor, inputs: int = 1) -> None:
        super().__init__()
        self.lam = nn.Parameter(lam.clone())
        self.B = nn.Parameter(normal(len(lam), inputs, seed=5).to(lam.dtype))
        self.C = nn.Parameter(normal(inputs, len(lam), seed=6).to(lam.dtype))

    def forward(self, x: Tensor) -> Tensor:
        state, output = torch.zeros_like(self.lam), []
        for step in x:
            state = self.lam * state + self.B @ step.to(self.B.dtype)
            output.append((self.C @ state).real)
        return torch.stack(output)


LAM = torch.polar(torch.tensor([0.95, 0.8, 0.99], dtype=F64), torch.tensor([0.3, 1.5, 0.02], dtype=F64))


@pytest.mark.parametrize("parametrization", ["exp", "optimal"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_layer_computes_what_it_did_and_learns_other_parameters(parametrization, dtype):
    lam = LAM.to(torch.complex64 if dtype == torch.float32 else C128)
    x = normal(7, 1, dtype=dtype)
    layer = Diagonal(lam)
    before = layer(x)
    assert memory.parametrize_eigenvalues(layer, "lam", parametrization) is layer
    torch.testing.assert_close(layer.lam, lam, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)
    torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-6)
    names = [name for name, _ in layer.named_parameters()]
    assert sorted(names) == ["B", "C", "parametrizations.lam.original0", "parametrizations.lam.original1"]
    assert all(p.dtype == dtype for name, p in layer.named_parameters() if "original" in name)
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x))
    layer.lam = 0.5 * LAM.to(lam)
    torch.testing.assert_close(layer.lam, 0.5 * lam)
    parametrize.remove_parametrizations(layer, "lam")
    torch.testing.assert_close(layer.lam.detach(), 0.5 * lam)


@pytest.mark.parametrize("parametrization", ["exp", "optimal"])
def test_large_steps_stay_inside_the_circle(parametrization):
    def largest(layer: Diagonal) -> float:
        optimizer, found = torch.optim.Adam(layer.parameters(), lr=0.3), []
        for _ in range(5):
            optimizer.zero_grad()
            (-layer(normal(20, 1)).square().sum()).backward()  # louder is better, so all moduli grow
            optimizer.step()
            found.append(float(layer.lam.detach().abs().max()))
        return max(found)

    assert largest(memory.parametrize_eigenvalues(Diagonal(LAM), "lam", parametrization)) <= 1
    assert largest(Diagonal(LAM)) > 1


@pytest.mark.parametrize("parametrization", ["exp", "optimal"])
def test_real_eigenvalues(parametrization):
    value = torch.tensor([0.9, 0.5, 0.999], dtype=F64)
    layer = memory.parametrize_eigenvalues(Diagonal(value), "lam", parametrization)
    torch.testing.assert_close(layer.lam, value, rtol=1e-14, atol=0)
    w = layer.parametrizations.lam.original
    expected = w.tanh() if parametrization == "optimal" else (-w.exp()).exp()
    torch.testing.assert_close(layer.lam, expected)
    if parametrization == "optimal":
        layer.lam = -value
        torch.testing.assert_close(layer.lam, -value, rtol=1e-14, atol=0)


def single(lam: complex) -> lsc.nn.ComplexDiagonalRNN:
    """One unit that hands up its real part."""
    model = lsc.nn.ComplexDiagonalRNN(1, 1, state_size=1, dtype=F64)
    with torch.no_grad():
        model.lambda_l0.copy_(torch.tensor([[lam.real], [lam.imag]], dtype=F64))
        model.B_l0.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1))
        model.C_l0.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1))
    return model


def sensitivity_of(model: nn.Module, parts: int, rho) -> Tensor:
    """E |d h|^2 over the parameters of the eigenvalue: that of Re h and of Im h = Re(-i h), [P, P]."""
    total = 0
    for number, C in enumerate(((1.0, 0.0), (0.0, 1.0))):
        with torch.no_grad():
            model.C_l0.copy_(torch.tensor(C).view(2, 1, 1))
        names, found = list(dict(model.named_parameters())), memory.hessian(model, rho=rho)
        sizes = [p.numel() for p in model.parameters()]
        begin = next(sum(sizes[:i]) for i, name in enumerate(names) if "lambda" in name)
        total = total + found[begin : begin + parts, begin : begin + parts]
        assert number < 2
    return total


@pytest.mark.parametrize(("normalization", "rho"), [(None, 0.0), ("l2", 0.0), ("l2", 0.7), ("l1", 0.7)])
@pytest.mark.parametrize("parametrization", ["exp", "optimal"])
def test_the_sensitivity_of_a_layer_falls_as_the_closed_form_says(parametrization, normalization, rho):
    lam = complex(LAM[2])
    model = single(lam)
    bare = sensitivity_of(model, 2, rho)
    S = float(memory.sensitivity_second_moment(lam, rho))
    torch.testing.assert_close(bare, S * torch.eye(2, dtype=F64), rtol=1e-9, atol=1e-9 * S)
    memory.parametrize_eigenvalues(model, "lambda_l0", parametrization, layout="parts")
    if normalization is not None:
        memory.normalize_input(model, "B_l0", lambda layer: layer.eigenvalues(0), normalization=normalization, dim=1)
    found = sensitivity_of(model, 2, rho)
    expected = memory.sensitivity_matrix(lam, rho, parametrization=parametrization, normalization=normalization)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * float(expected.max()))
    assert float(found[0, 0]) < 2e-3 * S
    if normalization is not None:
        assert float(found[0, 0]) < 2e-4 * S


@pytest.mark.parametrize("learned", [False, True])
def test_a_learned_factor_is_a_parameter_and_the_other_follows(learned):
    lam = complex(LAM[0])
    model = memory.normalize_input(single(lam), "B_l0", lambda layer: layer.eigenvalues(0), dim=1, learned=learned)
    gamma = float(memory.input_normalization(lam))
    torch.testing.assert_close(model.B_l0.flatten(), torch.tensor([gamma, 0.0], dtype=F64))
    assert (("parametrizations.B_l0.0.gamma_log") in dict(model.named_parameters())) == learned
    found = sensitivity_of(model, 2, 0.0)
    matrix = memory.sensitivity_matrix(lam, 0.0, normalization="l2", learned=learned)
    turn = torch.tensor([[lam.real, lam.imag], [-lam.imag, lam.real]], dtype=F64) / abs(lam)
    turn[1] = turn[1] / abs(lam)  # (nu, theta) by real and imaginary part
    torch.testing.assert_close(found, turn.T @ matrix @ turn, rtol=1e-8, atol=1e-8 * float(matrix.max()))
    with torch.no_grad():
        model.lambda_l0.mul_(0.5)
    after = gamma if learned else math.sqrt(1 - abs(lam / 2) ** 2)
    assert float(model.B_l0.detach()[0].abs()) == pytest.approx(after, rel=1e-12)


def test_normalized_states_have_variance_one_whatever_their_memory():
    layer = memory.normalize_input(Diagonal(LAM), "B", lambda module: module.lam)
    with torch.no_grad():
        layer.B = memory.input_normalization(LAM).unsqueeze(1).to(C128)
    states = lsc.scan(LAM, layer.B.detach().T * torch.randn(3000, 30, 1), torch.zeros(30, 3, dtype=C128))
    power = states[1000:].abs().square().mean((0, 1))
    assert power.tolist() == pytest.approx([1, 1, 1], rel=0.1)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.lam.mul_(0.5)
    assert not torch.allclose(twin.B, layer.B)  # a copy reads its own eigenvalues
    torch.testing.assert_close(layer.B[:, 0].detach().real, memory.input_normalization(LAM))


# Gates


def torch_and_ours(name: str, **options) -> list[nn.Module]:
    kinds = [getattr(lsc.nn, name)] if name != "min_gru" else []
    if name == "min_gru":
        return [lsc.nn.Recurrent("min_gru", 2, 33, **options)]
    return [kind(2, 33, **options) for kind in (*kinds, getattr(nn, name))]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "min_gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_memories_are_spread_over_what_was_asked_for(name, bidirectional):
    for model in torch_and_ours(name, num_layers=2, bidirectional=bidirectional):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        generator = torch.Generator().manual_seed(3)
        assert memory.chrono_initialize(model, 100.0, min_memory=20.0, generator=generator) is model
        blocks = {"LSTM": (1, 0), "GRU": (1, None), "min_gru": (None, 0)}[name]
        ends = [f"_l{k}{way}" for k in range(2) for way in (("", "_reverse") if bidirectional else ("",))]
        drawn = []
        for end in ends:
            bias = getattr(model, f"bias_ih{end}").detach().view(-1, 33)
            b = bias[blocks[0]] if blocks[0] is not None else -bias[blocks[1]]
            if None not in blocks:
                torch.testing.assert_close(bias[0], -bias[1], rtol=0, atol=0)
            drawn.append(1 / (1 - torch.sigmoid(b.double())))
        tau = torch.cat(drawn)
        assert float(tau.min()) > 19.999
        assert float(tau.max()) <= 100.001
        assert float(tau.mean()) == pytest.approx(60, abs=4 * 23 / math.sqrt(len(tau)))
        changed = {block for block in blocks if block is not None}
        for key, value in model.state_dict().items():
            if key.startswith("weight"):
                assert torch.equal(value, before[key])
                continue
            for block, (old, new) in enumerate(zip(before[key].view(-1, 33), value.view(-1, 33), strict=True)):
                assert torch.equal(old, new) == (block not in changed)
                if key.startswith("bias_hh") and block in changed:
                    assert float(new.abs().max()) == 0


def test_the_same_seed_gives_torch_and_ours_the_same_gates():
    ours, theirs = torch_and_ours("LSTM")
    for model in (ours, theirs):
        memory.chrono_initialize(model, 50.0, generator=torch.Generator().manual_seed(1))
    forget, input_gate = slice(33, 66), slice(0, 33)
    for rows in (forget, input_gate):
        assert torch.equal(ours.bias_ih_l0[rows], theirs.bias_ih_l0[rows])
    inside = nn.Sequential(nn.Linear(2, 2), theirs)
    memory.chrono_initialize(inside, 50.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.bias_ih_l0[forget], theirs.bias_ih_l0[forget])


def quiet(model: nn.Module, scale: float) -> None:
    """Gates that see nothing, candidates that see little of the input, so that tanh is straight."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("weight"):
                p.zero_()
        units, last = model.hidden_size, 2 if "LSTM" in type(model).__name__ else -1
        model.weight_ih_l0.unflatten(0, (-1, units))[last].fill_(scale)
        for bias in (model.bias_ih_l0, model.bias_hh_l0):
            bias.unflatten(0, (-1, units))[last].zero_()


def slope(model: nn.Module, x: Tensor, shifts: dict[int, float], step: float = 1e-4) -> Tensor:
    """d state / d b for every sequence and unit, b moving blocks of the biases by these factors; by differences."""
    ends = []
    start = model.bias_ih_l0.detach().clone()
    for sign in (1, -1):
        with torch.no_grad():
            model.bias_ih_l0.copy_(start)
            for block, factor in shifts.items():
                model.bias_ih_l0.unflatten(0, (-1, model.hidden_size))[block].add_(sign * factor * step)
            last = model(x)[1]
            ends.append((last[1] if isinstance(last, tuple) else last)[0])
    with torch.no_grad():
        model.bias_ih_l0.copy_(start)
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_sensitivity_to_gates_is_that_of_the_closed_form(name, rho):
    """With gates of one memory: a GRU's update gate, and forget and input gate of an LSTM moving together."""
    scale, tau, steps, count = 1e-3, 12.0, 150, 600
    x = [torch.randn(count, 1, dtype=F64)]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(count, 1, dtype=F64))
    x = torch.stack(x)
    z = 1 - 1 / tau
    expected = memory.gated_second_moments(z, rho)
    for kind in (getattr(lsc.nn, name), getattr(nn, name)):
        model = kind(1, 1, dtype=F64)
        memory.chrono_initialize(model, tau, min_memory=tau)
        quiet(model, scale)
        together = {1: 1.0, 0: -1.0} if name == "LSTM" else {1: 1.0}
        found = slope(model, x, together).square() / scale**2
        error = float(found.std()) / math.sqrt(count)
        assert float(found.mean()) == pytest.approx(float(expected.sensitivity), abs=4 * error)
        assert error < 0.2 * float(found.mean())
        if name == "LSTM":
            # The forget gate alone, of states that the input gate normalises, and of those that it does not.
            S = float(memory.sensitivity_second_moment(z, rho)) * (z * (1 - z)) ** 2
            alone = slope(model, x, {1: 1.0}).square() / scale**2
            assert float(alone.mean()) == pytest.approx(S * (1 - z) ** 2, rel=0.25)
            with torch.no_grad():
                model.bias_ih_l0[0] = 0.0
                model.bias_hh_l0[0] = 0.0
            open_ = slope(model, x, {1: 1.0}).square() / scale**2
            assert float(open_.mean() / alone.mean()) == pytest.approx((0.5 * tau) ** 2, rel=1e-2)


# Bad arguments


def parameter_named(name: str):
    return lambda: memory.parametrize_eigenvalues(Diagonal(LAM), name)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (parameter_named("nu"), "name: expected a parameter of Diagonal, got 'nu'"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(LAM), "lam", "polar"), "parametrization: expected one of exp"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(LAM), "lam", layout="real"), "value: expected eigenvalues"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(LAM), "lam", layout="x"), "layout: expected one of complex"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(LAM.real), "lam", layout="parts"), "parts (2, ..), got (3,)"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(2 * LAM), "lam"), "value: expected moduli below 1"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(0 * LAM), "lam"), "value: expected moduli above 0"),
        (lambda: memory.parametrize_eigenvalues(Diagonal(-LAM.abs()), "lam"), "value: expected positive eigenvalues"),
        (lambda: memory.normalize_input(Diagonal(LAM), "W", lambda m: m.lam), "name: expected a parameter"),
        (lambda: memory.normalize_input(Diagonal(LAM), "B", lambda m: m.lam, normalization=None), "normalization"),
        (lambda: memory.normalize_input(Diagonal(LAM), "B", lambda m: m.lam, dim=2), "dim: expected a dimension of B"),
        (
            lambda: memory.normalize_input(Diagonal(LAM), "B", lambda m: m.lam, dim=1),
            "eigenvalues: expected shape (1,)",
        ),
        (lambda: memory.normalize_input(Diagonal(2 * LAM), "B", lambda m: m.lam), "eigenvalues: expected moduli below"),
        (lambda: memory.chrono_initialize(nn.GRU(2, 3), 1.5), "expected 1 < min_memory <= max_memory, got 2.0 and 1.5"),
        (lambda: memory.chrono_initialize(nn.GRU(2, 3), 5.0, min_memory=1.0), "expected 1 < min_memory"),
        (lambda: memory.chrono_initialize(nn.GRU(2, 3, bias=False), 5.0), "expected gates with biases, got GRU"),
        (lambda: memory.chrono_initialize(nn.RNN(2, 3), 5.0), "module: expected an LSTM, GRU or min_gru"),
        (
            lambda: memory.chrono_initialize(nn.utils.parametrizations.weight_norm(nn.GRU(2, 3), "bias_ih_l0"), 5.0),
            "expected a plain parameter",
        ),
    ],
)
def test_bad_values_are_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_bad_types_are_refused():
    with pytest.raises(TypeError, match="module: expected"):
        memory.chrono_initialize("GRU", 5.0)


def test_what_is_refused_changes_nothing():
    layer = Diagonal(2 * LAM)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    with pytest.raises(ValueError, match="moduli"):
        memory.parametrize_eigenvalues(layer, "lam")
    with pytest.raises(ValueError, match="moduli"):
        memory.normalize_input(layer, "B", lambda m: m.lam)
    assert not parametrize.is_parametrized(layer)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
    both = nn.ModuleList([nn.GRU(2, 3), nn.GRU(2, 3, bias=False)])
    kept, state = both[0].bias_ih_l0.clone(), torch.get_rng_state()
    with pytest.raises(ValueError, match="biases"):
        memory.chrono_initialize(both, 5.0)
    assert torch.equal(both[0].bias_ih_l0, kept)
    assert torch.equal(torch.get_rng_state(), state)
