"""One module inside a model, against the same module at what it is fed, taken down by hand."""

import copy

import pytest
import torch
from networks import flat, gradients, linear, normal
from step_modules import gru_model, in_double, seeded
from torch import nn

import lsc_ext as lsc
from lsc_ext.testing import assert_close

STEPS, BATCH, WORDS, WIDTH, HIDDEN = 5, 3, 11, 4, 6


class Tagger(nn.Module):
    """Embedding, dropout, recurrent layers called in one of several ways, and a head."""

    def __init__(self, call="positional", batch_first=False, layer=nn.GRU):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(WORDS, WIDTH), nn.Dropout(0.5)
        self.inner = nn.ModuleDict({"rnn": layer(WIDTH, HIDDEN, 2, batch_first=batch_first)})
        self.head, self.call = nn.Linear(HIDDEN, 3), call
        self.register_buffer("start", normal(2, BATCH, HIDDEN, seed=4))

    def fed(self, tokens):
        return self.dropout(self.embedding(tokens))

    def forward(self, tokens):
        x, rnn = self.fed(tokens), self.inner["rnn"]
        output, _ = {
            "positional": lambda: rnn(x),
            "no state": lambda: rnn(x, None),
            "state": lambda: rnn(x, self.start),
            "named": lambda: rnn(input=x, hx=self.start),
            "named in another order": lambda: rnn(hx=self.start, input=x),
        }[self.call]()
        return self.head(output)


CALLS = ("positional", "no state", "state", "named", "named in another order")


def tagger(*arguments, **options):
    return in_double(Tagger, *arguments, **options)


def tokens(batch_first=False, batch=BATCH, steps=STEPS):
    drawn = torch.randint(WORDS, (steps, batch), generator=seeded(3))
    return drawn.T.contiguous() if batch_first else drawn


def measured(model, inputs, states=None, **options):
    options = {"directions": ("time", "depth"), "generator": seeded(), **options}
    return lsc.radii(model, inputs, states, **options)


def assert_same_report(actual, expected):
    assert list(actual) == list(expected)
    for direction in expected:
        assert torch.equal(actual[direction].radius, expected[direction].radius)
        assert actual[direction].certified_fraction == 1


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("which", ["inner.rnn", nn.GRU])
@pytest.mark.parametrize("call", CALLS)
def test_radii_are_those_of_the_inner_layer_at_what_it_is_fed(call, which, batch_first):
    model, inputs = tagger(call, batch_first), tokens(batch_first)
    states = model.start if call in CALLS[2:] else None
    fed = model.eval().fed(inputs).detach()
    expected = measured(model.inner["rnn"], fed, states)
    actual = measured(lsc.Submodule(model.train(), which, batch_first=batch_first), inputs)
    assert_same_report(actual, expected)


@pytest.mark.parametrize("make", [lambda: gru_model(WIDTH, HIDDEN), lambda: lsc.nn.LSTM(WIDTH, HIDDEN).double()])
def test_other_kinds_of_layers_are_measured_inside_a_model_too(make):
    model = tagger()
    model.inner["rnn"] = layer = make()
    fed = model.eval().fed(tokens()).detach()
    actual = measured(lsc.Submodule(model, "inner.rnn"), tokens(), directions=("time",))
    assert_same_report(actual, measured(layer, fed, directions=("time",)))


@pytest.mark.parametrize("training", [False, True])
def test_dropout_of_the_whole_is_off_and_every_mode_restored(training):
    model = tagger().train(training)
    model.head.train(not training)
    modes = [m.training for m in model.modules()]
    wrapped = lsc.Submodule(model, "inner.rnn")
    assert torch.equal(measured(wrapped, tokens())["time"].radius, measured(wrapped, tokens())["time"].radius)
    assert [m.training for m in model.modules()] == modes


def test_modes_are_restored_and_no_hook_is_left_after_an_error():
    model = tagger()
    model.head = nn.Linear(2, 2).double()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measured(lsc.Submodule(model, "inner.rnn"), tokens())
    assert all(m.training for m in model.modules())
    assert not model.inner["rnn"]._forward_pre_hooks


@pytest.mark.parametrize("through_states", [False, True])
def test_gradient_reaches_what_comes_before_through_the_states_alone(through_states):
    model = tagger().eval()
    leaves = [model.embedding.weight, *model.inner["rnn"].parameters()]
    actual = measured(lsc.Submodule(model, "inner.rnn"), tokens(), through_states=through_states)["time"]
    fed = model.fed(tokens()) if through_states else model.fed(tokens()).detach()
    exact = measured(model.inner["rnn"], fed, through_states=through_states)["time"]
    found = gradients(actual.radius, leaves)
    assert_close("gradient", flat(found), flat(gradients(exact.radius, leaves)), 1e-12)
    assert bool(found[0].abs().max() > 0) == through_states


def test_gradient_of_the_embedding_is_the_finite_difference():
    model, step = tagger().eval(), 1e-6
    wrapped, weight = lsc.Submodule(model, "inner.rnn"), model.embedding.weight
    (gradient,) = gradients(measured(wrapped, tokens(), through_states=True)["time"].radius, [weight])
    way = normal(WORDS, WIDTH, seed=8)

    def at(distance):
        with torch.no_grad():
            weight.add_(distance * way)
            total = measured(wrapped, tokens())["time"].radius.sum()
            weight.sub_(distance * way)
        return total

    difference = (at(step) - at(-step)) / (2 * step)
    assert_close("derivative", (gradient * way).sum().reshape(1), difference.reshape(1), 1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_pretraining_changes_the_inner_parameters_alone(batch_first):
    model = tagger(batch_first=batch_first).float()
    before = copy.deepcopy(model.state_dict())
    wrapped = lsc.Submodule(model, nn.GRU, batch_first=batch_first)
    inputs = tokens(batch_first, batch=BATCH * 8)
    result = lsc.pretrain(wrapped, inputs, 0.5, steps=150, max_points=16, tolerance=0.02, patience=2)
    assert result.deviation() < 0.05
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("inner.")), name
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_its_parameters_are_those_of_the_module_alone():
    model = tagger()
    wrapped = lsc.Submodule(model, "inner.rnn")
    assert [id(p) for p in wrapped.parameters()] == [id(p) for p in model.inner["rnn"].parameters()]
    assert torch.equal(wrapped.eval()(tokens()).isnan(), torch.zeros(STEPS, BATCH, 3, dtype=torch.bool))


def test_tokens_of_a_single_layer_make_an_empty_report_of_numbers():
    model = tagger()
    model.inner["rnn"] = nn.GRU(WIDTH, HIDDEN).double()
    depth = measured(lsc.Submodule(model, nn.GRU), tokens())["depth"]
    assert depth.radius.shape == (0, STEPS, BATCH)
    assert depth.radius.is_floating_point()


class Twice(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.rnn, self.times = nn.GRU(WIDTH, WIDTH), times

    def forward(self, x):
        for _ in range(self.times):
            x, _ = self.rnn(x)
        return x


@pytest.mark.parametrize("times", [0, 2])
def test_a_module_that_is_not_called_once_is_refused(times):
    with pytest.raises(ValueError, match=f"model: expected one call of 'rnn' in a forward pass, got {times}"):
        measured(lsc.Submodule(Twice(times), "rnn"), normal(2, 2, WIDTH, dtype=torch.float32))


def pair():
    return nn.ModuleDict({"lower": nn.GRU(3, 4), "upper": nn.GRU(4, 5), "head": nn.Linear(5, 2)})


BAD = {
    "two of a class": (lambda: lsc.Submodule(pair(), nn.GRU), ValueError, "got GRU with 2: lower, upper"),
    "none of a class": (lambda: lsc.Submodule(pair(), nn.LSTM), ValueError, "got LSTM with 0$"),
    "unknown name": (
        lambda: lsc.Submodule(pair(), "middle"),
        ValueError,
        "which: expected one of lower, upper, head, got 'middle'",
    ),
    "no name": (lambda: lsc.Submodule(pair(), ""), ValueError, "which: expected one of .*, got ''"),
    "a number": (lambda: lsc.Submodule(pair(), 3), TypeError, "which: expected a name or a class, got 3"),
    "no module": (lambda: lsc.Submodule(abs, "rnn"), TypeError, "model: expected a torch.nn.Module, got builtin"),
    "a state": (
        lambda: measured(lsc.Submodule(tagger(), nn.GRU), tokens(), normal(2, BATCH, HIDDEN)),
        ValueError,
        "initial_state: expected None for a Submodule",
    ),
    "another kind": (
        lambda: measured(lsc.Submodule(tagger(), "head"), tokens()),
        TypeError,
        "model: expected a torch.nn.RNN, .*, got Linear",
    ),
    "a whole model": (
        lambda: measured(tagger(), tokens()),
        TypeError,
        r"'inner.rnn': try Submodule\(model, 'inner.rnn'\)",
    ),
    "nothing known": (lambda: measured(linear(3, 3), normal(2, 3)), TypeError, "got Linear$"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case):
    attempt, error, message = BAD[case]
    with pytest.raises(error, match=message):
        attempt()
