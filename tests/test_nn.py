import copy
import io
import pickle

import pytest
import torch
from networks import CELL_NAMES, TORCH_KINDS, normal, stack, states_of
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext import reference
from lsc_ext.cells import CELLS
from lsc_ext.nn import flat_weights
from lsc_ext.testing import TOLERANCES, assert_close

DOUBLE = {"dtype": torch.float64}


def pair(kind, *sizes, **options):
    """A layer of this package and the torch.nn layer with the same weights."""
    ours, theirs, extra = TORCH_KINDS[kind]
    twin = theirs(*sizes, **extra, **DOUBLE, **options)
    model = ours(*sizes, **extra, **DOUBLE, **options)
    model.load_state_dict(twin.state_dict())
    return model, twin


def as_tuple(states):
    return (states,) if isinstance(states, torch.Tensor) else tuple(states)


def assert_same_results(model, twin, *arguments):
    (output, last), (expected, expected_last) = model(*arguments), twin(*arguments)
    assert_close("output", output, expected, TOLERANCES[torch.float64].forward)
    assert isinstance(last, tuple) == isinstance(expected_last, tuple)
    for a, e in zip(as_tuple(last), as_tuple(expected_last), strict=True):
        assert a.is_contiguous()
        assert_close("last state", a, e, TOLERANCES[torch.float64].forward)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_parameters_have_the_names_shapes_and_order_of_torch(kind, bias):
    model, twin = pair(kind, 3, 4, 2, bias=bias)
    assert [(n, p.shape) for n, p in model.named_parameters()] == [(n, p.shape) for n, p in twin.named_parameters()]


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_state_dict_loads_both_ways(kind):
    model, twin = pair(kind, 3, 4, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    twin.load_state_dict(model.state_dict())
    assert_same_results(model, twin, normal(5, 2, 3))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_first": True}])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_from_torch_and_to_torch_keep_weights_and_options(kind, options):
    _, twin = pair(kind, 3, 4, 2, **options)
    model = TORCH_KINDS[kind][0].from_torch(twin.eval())
    back = model.to_torch()
    assert not model.training
    assert not back.training
    assert repr(back) == repr(twin)
    assert_same_results(model, twin, normal(2, 5, 3))
    assert_same_results(model, back, normal(2, 5, 3))


def test_from_torch_copies():
    model, twin = pair("gru", 3, 4)
    copied = lsc.nn.GRU.from_torch(twin)
    with torch.no_grad():
        twin.weight_hh_l0.zero_()
    torch.testing.assert_close(copied.weight_hh_l0, model.weight_hh_l0)


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_layouts_and_initial_states_are_those_of_torch(kind, given, layout):
    model, twin = pair(kind, 3, 4, 2, batch_first=layout == "batch first")
    x = {"time first": normal(5, 2, 3), "batch first": normal(2, 5, 3), "unbatched": normal(5, 3)}[layout]
    states = states_of(model, 2)
    if layout == "unbatched":
        states = tuple(s[:, 0] for s in states)
    arguments = (x, states if len(states) > 1 else states[0]) if given else (x,)
    assert_same_results(model, twin, *arguments)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_depth_is_that_of_torch(kind, layers):
    assert_same_results(*pair(kind, 3, 4, layers), normal(5, 2, 3))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_any_cell_runs_as_the_reference_does(cell):
    model, x = stack(cell, 3, 5, 2), normal(4, 2, 3)
    states = states_of(model, 2)
    expected = reference.recurrent(x, torch.stack(states, dim=1), flat_weights(model, 2), cell)
    output, last = model(x, states)
    assert_close("output", output, expected[-1, 1:, 0], TOLERANCES[torch.float64].forward)
    for i, state in enumerate(as_tuple(last)):
        assert_close("last state", state, expected[:, -1, i], TOLERANCES[torch.float64].forward)


def test_cell_without_recurrent_products_has_no_recurrent_parameters():
    model = lsc.nn.Recurrent("min_gru", 3, 5, 2)
    assert [n for n, _ in model.named_parameters()] == [
        "weight_ih_l0",
        "bias_ih_l0",
        "weight_ih_l1",
        "bias_ih_l1",
    ]


def test_default_weights_are_uniform_within_one_over_root_hidden():
    weights = torch.cat([p.detach().flatten() for p in lsc.nn.GRU(30, 100).parameters()])
    assert weights.abs().max() <= 0.1
    assert weights.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_all_weights_lists_what_each_layer_has():
    model = lsc.nn.GRU(3, 4, 2)
    assert [len(layer) for layer in model.all_weights] == [4, 4]
    assert len(lsc.nn.Recurrent("min_gru", 3, 4).all_weights[0]) == 2


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lsc.nn.GRU(3, 4), "GRU(3, 4)"),
        (lsc.nn.LSTM(3, 4, 2, bias=False, batch_first=True), "LSTM(3, 4, num_layers=2, bias=False, batch_first=True)"),
        (lsc.nn.Recurrent("min_gru", 3, 4, 2), "Recurrent('min_gru', 3, 4, num_layers=2)"),
    ],
)
def test_repr_has_what_differs_from_the_defaults(model, expected):
    assert repr(model) == expected


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid"])
def test_repr_of_elman_layers_names_another_nonlinearity(nonlinearity):
    assert (nonlinearity in repr(lsc.nn.RNN(3, 4, nonlinearity=nonlinearity))) == (nonlinearity != "tanh")


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(model)
    fresh.reset_parameters()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle, through_torch_save])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_copies_compute_the_same(cell, way):
    model, x = stack(cell, 3, 4, 2), normal(5, 2, 3)
    assert torch.equal(way(model)(x)[0], model(x)[0])


def test_a_deep_copy_shares_nothing():
    model = stack("gru", 3, 4)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.weight_hh_l0.zero_()
    assert model.weight_hh_l0.any()


def test_functional_call_reads_the_given_weights():
    model, x = stack("gru", 3, 4), normal(5, 2, 3)
    doubled = {name: 2 * p for name, p in model.named_parameters()}
    expected, _ = stack("gru", 3, 4, gain=2)(x)
    actual, _ = functional_call(model, doubled, (x,))
    assert_close("output", actual, expected, TOLERANCES[torch.float64].forward)


def test_parametrised_weight_is_read_and_trained():
    model, x = stack("gru", 3, 4), normal(5, 2, 3)
    parametrizations.weight_norm(model, "weight_hh_l0")
    model(x)[0].sum().backward()
    originals = model.parametrizations.weight_hh_l0
    assert all(p.grad is not None and p.grad.any() for p in originals.parameters())


def test_orthogonal_recurrent_weight_stays_orthogonal_through_a_step():
    model, x = stack("rnn_tanh", 3, 4), normal(5, 2, 3)
    parametrizations.orthogonal(model, "weight_hh_l0")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = model.weight_hh_l0.detach().clone()
    model(x)[0].square().sum().backward()
    optimizer.step()
    after = model.weight_hh_l0.detach()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after @ after.T, torch.eye(4, dtype=torch.float64))


def test_module_moves_between_dtypes():
    model = lsc.nn.GRU(3, 4).double()
    output, _ = model(normal(5, 2, 3))
    assert output.dtype == torch.float64


BAD_CONSTRUCTION = {
    "unknown cell": (("elman", 3, 4), {}, ValueError, "cell: expected one of .*gru.*, got 'elman'"),
    "no units": (("gru", 3, 0), {}, ValueError, "hidden_size: expected at least 1, got 0"),
    "negative input": (("gru", -1, 4), {}, ValueError, "input_size: expected at least 1, got -1"),
    "no layers": (("gru", 3, 4, 0), {}, ValueError, "num_layers: expected at least 1, got 0"),
    "fractional size": (("gru", 3, 4.0), {}, TypeError, "hidden_size: expected an int, got float"),
    "boolean size": (("gru", 3, 4, True), {}, TypeError, "num_layers: expected an int, got bool"),
    "half precision": (("gru", 3, 4), {"dtype": torch.half}, TypeError, "dtype: expected torch.float32 or .*float16"),
}


@pytest.mark.parametrize("case", BAD_CONSTRUCTION)
def test_construction_refuses(case):
    arguments, options, error, message = BAD_CONSTRUCTION[case]
    with pytest.raises(error, match=message):
        lsc.nn.Recurrent(*arguments, **options)


def test_unknown_nonlinearity_is_refused():
    with pytest.raises(ValueError, match="nonlinearity: expected tanh, relu or sigmoid, got 'gelu'"):
        lsc.nn.RNN(3, 4, nonlinearity="gelu")


BAD_CALLS = {
    "not a tensor": ([1.0], None, TypeError, "input: expected a torch.Tensor, got list"),
    "four dimensions": (normal(1, 5, 2, 3), None, ValueError, r"input: expected 2 .* or 3 dimensions, got shape"),
    "input size": (normal(5, 2, 4), None, ValueError, "input: expected .* input_size == 3, got 4"),
    "dtype": (normal(5, 2, 3).float(), None, TypeError, "input: expected torch.float64 .*, got torch.float32"),
    "integers": (torch.zeros(5, 2, 3, dtype=torch.int64), None, TypeError, "input: expected torch.float64 .*int64"),
    "device": (torch.empty(5, 2, 3, device="meta", **DOUBLE), None, RuntimeError, "input: expected device cpu .*meta"),
    "states missing": (normal(5, 2, 3), normal(2, 2, 4), ValueError, r"hx: expected 2 state tensor.*\(h, c\), got 1"),
    "state shape": (
        normal(5, 2, 3),
        (normal(2, 2, 4), normal(2, 3, 4)),
        ValueError,
        r"hx \(c\): expected .*\(2, 3, 4\)",
    ),
    "batched state": (normal(5, 3), (normal(2, 1, 4),) * 2, ValueError, r"hx \(h\): expected shape \(2, 4\), got"),
    "state dtype": (normal(5, 2, 3), (normal(2, 2, 4).float(),) * 2, TypeError, r"hx \(h\): expected torch.float64"),
    "state kind": (normal(5, 2, 3), ([0.0], [0.0]), TypeError, r"hx \(h\): expected a torch.Tensor, got list"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_forward_refuses(case):
    x, states, error, message = BAD_CALLS[case]
    with pytest.raises(error, match=message):
        stack("lstm", 3, 4, 2)(x, states)


BAD_TWINS = {
    "another kind": (lambda: nn.LSTM(3, 4), TypeError, "module: expected a torch.nn.GRU, got LSTM"),
    "half precision": (
        lambda: nn.GRU(3, 4, dtype=torch.half),
        TypeError,
        "module: expected .* got torch.float16 on cpu",
    ),
    "parametrised": (
        lambda: parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0"),
        ValueError,
        r"module: expected the parameters .* lacks \['weight_hh_l0'\]",
    ),
}


@pytest.mark.parametrize("case", BAD_TWINS)
def test_from_torch_refuses(case):
    make, error, message = BAD_TWINS[case]
    with pytest.raises(error, match=message):
        lsc.nn.GRU.from_torch(make())


def test_to_torch_refuses_a_sigmoid():
    with pytest.raises(ValueError, match="nonlinearity: expected tanh or relu"):
        lsc.nn.RNN(3, 4, nonlinearity="sigmoid").to_torch()


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_sequences_of_no_steps_return_the_initial_states(cell):
    model = stack(cell, 3, 4, 2)
    states = states_of(model, 2)
    output, last = model(normal(0, 2, 3), states)
    assert output.shape == (0, 2, 4)
    assert all(torch.equal(a, e) for a, e in zip(as_tuple(last), states, strict=True))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_batches_of_no_sequences_return_empty_results(cell):
    output, last = stack(cell, 3, 4, 2)(normal(5, 0, 3))
    assert output.shape == (5, 0, 4)
    assert all(state.shape == (2, 0, 4) for state in as_tuple(last))
    assert len(as_tuple(last)) == len(CELLS[cell].states)
