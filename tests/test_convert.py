"""convert: a model with its recurrent layers swapped computes the same and trains the same parameters."""

import copy

import pytest
import torch
from networks import normal
from torch import nn
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext.nn import convert


class Tagger(nn.Module):
    """Two kinds of layers, one of them in two places, and a subclass that is not torch.nn's own."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(3, 4, bidirectional=True)
        self.middle = nn.Sequential(nn.Linear(8, 4), nn.ModuleDict({"rnn": nn.LSTM(4, 4, 2, proj_size=2, dropout=0.5)}))
        self.again = self.first
        self.own = Counting(2, 4)

    def forward(self, x):
        h = self.middle[0](self.first(x)[0])
        return self.own(self.middle[1]["rnn"](h)[0])[0]


class Counting(nn.RNN):
    pass


def tagger():
    return Tagger().double().eval()


pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def test_the_converted_model_computes_the_same_with_the_same_parameters():
    model, x = tagger(), normal(5, 2, 3)
    expected, names = model(x), {name: p for name, p in model.named_parameters()}
    assert convert(model) is model
    assert type(model.first) is lsc.nn.GRU
    assert type(model.middle[1]["rnn"]) is lsc.nn.LSTM
    assert model.again is model.first
    assert type(model.own) is Counting
    assert [(n, id(p)) for n, p in model.named_parameters()] == [(n, id(p)) for n, p in names.items()]
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-13)
    assert not any(module.training for module in model.modules())


def test_there_and_back_again():
    model, x = tagger(), normal(5, 2, 3)
    expected, shown = model(x), repr(model)
    assert convert(convert(model), reverse=True) is model
    assert repr(model) == shown
    assert torch.equal(model(x), expected)
    model.first.weight_hh_l0.data.zero_()
    assert not torch.equal(model(x), expected)


def test_an_optimiser_goes_on_with_the_parameters():
    twin = tagger()
    model, x = copy.deepcopy(twin), normal(5, 2, 3)
    weights = []
    for network in (model, twin):
        optimizer = torch.optim.Adam(network.parameters())
        for step in range(4):
            if network is model and step == 2:
                convert(model)
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_layer_itself_is_returned_anew(kind):
    layer = kind(3, 4, 2, batch_first=True, bias=False).double()
    layer.weight_hh_l1.requires_grad_(False)
    layer.note = "kept"
    new = convert(layer)
    assert type(new) is getattr(lsc.nn, kind.__name__)
    assert new.note == "kept"
    assert [p.requires_grad for p in new.parameters()] == [p.requires_grad for p in layer.parameters()]
    assert new.weight_hh_l1 is layer.weight_hh_l1
    back = convert(new, reverse=True)
    assert type(back) is kind
    assert back.note == "kept"
    assert torch.equal(back(normal(2, 5, 3))[0], layer(normal(2, 5, 3))[0])


def test_tied_parameters_stay_tied():
    model = nn.ModuleList([nn.GRU(3, 4), nn.GRU(3, 4)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    convert(model)
    assert model[1].weight_hh_l0 is model[0].weight_hh_l0
    assert len(list(model.parameters())) == 7


def test_a_model_without_such_layers_is_left_as_it_is():
    model = nn.Sequential(nn.Linear(3, 4), Counting(4, 4))
    before = list(model.children())
    assert convert(model) is model
    assert list(model.children()) == before


def hooked(register):
    layer = nn.GRU(3, 4)
    getattr(layer, register)(lambda *arguments: None)
    return layer


def changed(change):
    layer = nn.GRU(3, 4)
    change(layer)
    return layer


def without_bias(layer):
    layer.bias_hh_l0 = None


def mixed(layer):
    layer.bias_hh_l0 = nn.Parameter(layer.bias_hh_l0.detach().double())


def reshaped(layer):
    layer.bias_hh_l0 = nn.Parameter(torch.zeros(3))


UNCONVERTIBLE = {
    "half precision": (lambda: nn.GRU(3, 4, dtype=torch.half), TypeError, "got torch.float16 on cpu"),
    "meta device and cpu": (lambda: changed(mixed), TypeError, "got torch.float32 on cpu, torch.float64 on cpu"),
    "no parameter": (lambda: changed(without_bias), ValueError, r"lacks \['bias_hh_l0'\]"),
    "another shape": (lambda: changed(reshaped), ValueError, r"bias_hh_l0: expected shape \(12,\), got \(3,\)"),
    "buffer": (
        lambda: changed(lambda layer: layer.register_buffer("extra", torch.zeros(1))),
        ValueError,
        "got _buffers",
    ),
    "submodule": (lambda: changed(lambda layer: layer.add_module("extra", nn.Linear(1, 1))), ValueError, "_modules"),
    "forward": (lambda: changed(lambda layer: setattr(layer, "forward", print)), ValueError, "got forward"),
    "parametrisation": (lambda: parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0"), ValueError, "_modules"),
    "forward hook": (lambda: hooked("register_forward_hook"), ValueError, "got _forward_hooks"),
    "pre-hook": (lambda: hooked("register_forward_pre_hook"), ValueError, "got _forward_pre_hooks"),
    "backward hook": (lambda: hooked("register_full_backward_hook"), ValueError, "got _backward_hooks"),
    "state dict hook": (lambda: hooked("register_state_dict_pre_hook"), ValueError, "_state_dict_pre_hooks"),
}


@pytest.mark.parametrize("case", UNCONVERTIBLE)
def test_what_cannot_be_converted_is_named_and_nothing_changes(case):
    make, error, message = UNCONVERTIBLE[case]
    model = nn.Sequential(nn.GRU(3, 4), nn.ModuleDict({"inner": make()}), nn.LSTM(3, 4))
    before = list(model.modules())
    with pytest.raises(error, match=rf"model\.1\.inner: .*{message}"):
        convert(model)
    assert list(model.modules()) == before
    with pytest.raises(error, match=rf"model: .*{message}"):
        convert(make())


def test_back_to_torch_refuses_what_torch_lacks():
    with pytest.raises(ValueError, match=r"model\.0: nonlinearity: expected tanh or relu, .*got 'sigmoid'"):
        convert(nn.Sequential(lsc.nn.RNN(3, 4, nonlinearity="sigmoid")), reverse=True)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="model: expected a torch.nn.Module, got list"):
        convert([nn.GRU(3, 4)])
