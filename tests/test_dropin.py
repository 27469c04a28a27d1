"""Every option of torch.nn's recurrent layers gives torch.nn's numbers: results, states and gradients, in float64."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from networks import TORCH_KINDS, normal
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import lsc_ext as lsc
from lsc_ext.nn import eager
from lsc_ext.testing import TOLERANCES, assert_close

INPUTS = 3
STEPS = 5
LENGTHS = {"packed": [2, 5, 3, 5], "packed, sorted": [5, 5, 3, 2, 1]}
LAYOUTS = ("time first", "batch first", "unbatched", *LENGTHS)
KINDS = [*TORCH_KINDS, "projected"]
QUIET = "ignore:LSTM with projections:UserWarning"  # torch's own, of oneDNN


def pair(kind, hidden, layers, **options):
    """A layer of this package and torch.nn's with the same weights."""
    if kind == "projected":
        options["proj_size"] = max(1, hidden // 3)
    ours, theirs, extra = TORCH_KINDS["lstm" if kind == "projected" else kind]
    options = {"dtype": torch.float64} | options
    twin = theirs(INPUTS, hidden, layers, **extra, **options)
    model = ours(INPUTS, hidden, layers, **extra, **options)
    model.load_state_dict(twin.state_dict())
    return model, twin


def as_tuple(states):
    return (states,) if isinstance(states, torch.Tensor) else tuple(states)


def sequences_in(layout):
    """The input's tensors, and how they become the input."""
    if layout in LENGTHS:
        tensors = [normal(length, INPUTS, seed=i) for i, length in enumerate(LENGTHS[layout])]
        return tensors, lambda given: pack_sequence(given, enforce_sorted=layout == "packed, sorted")
    shape = {"time first": (STEPS, 2), "batch first": (2, STEPS), "unbatched": (STEPS,)}[layout]
    return [normal(*shape, INPUTS)], lambda given: given[0]


def states_for(model, layout):
    """Random initial states in the layer's layout."""
    batch = {"unbatched": ()}.get(layout, (len(LENGTHS.get(layout, (0, 0))),))
    count = model.num_layers * (2 if model.bidirectional else 1)
    sizes = [model.proj_size or model.hidden_size] + ([model.hidden_size] if model.mode == "LSTM" else [])
    return [normal(count, *batch, size, seed=20 + i) for i, size in enumerate(sizes)]


def results(model, layout, given, tensors=None):
    """All that a layer returns, and the gradients of a weighted sum of it."""
    values, join = sequences_in(layout)
    leaves = [t.clone().requires_grad_() for t in (values if tensors is None else tensors)]
    states = [t.clone().requires_grad_() for t in states_for(model, layout)] if given else []
    hx = None if not given else states[0] if len(states) == 1 else tuple(states)
    output, last = model(join(leaves), hx)
    packing = []
    if isinstance(output, PackedSequence):
        packing = [output.batch_sizes, output.sorted_indices, output.unsorted_indices]
        output = output.data
    ends = [output, *as_tuple(last)]
    loss = sum((end * normal(*end.shape, seed=40 + i)).sum() for i, end in enumerate(ends))
    gradients = torch.autograd.grad(loss, [*leaves, *states, *model.parameters()])
    return [*ends, *gradients], packing


def assert_same(model, twin, layout, given):
    (actual, packing), (expected, expected_packing) = results(model, layout, given), results(twin, layout, given)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_close(f"result {i}", a, e, TOLERANCES[torch.float64].gradient)
    for a, e in zip(packing, expected_packing, strict=True):
        assert (a is None) == (e is None)
        assert a is None or torch.equal(a, e)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_results_states_and_gradients_are_those_of_torch(kind, layers, bidirectional, given, layout):
    options = {"bidirectional": bidirectional, "batch_first": layout == "batch first"}
    assert_same(*pair(kind, 4, layers, **options), layout, given)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("hidden", [1, 3, 31, 33])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_biases_do_not_matter(kind, bias, hidden):
    if (kind, hidden) == ("projected", 1):
        with pytest.raises(ValueError, match="proj_size: expected less than hidden_size == 1"):
            lsc.nn.LSTM(INPUTS, 1, proj_size=1)
        return
    model, twin = pair(kind, hidden, 2, bias=bias, bidirectional=True)
    for layout in ("time first", "packed"):
        assert_same(model, twin, layout, True)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["time first", "batch first", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_draws_the_masks_of_torch(kind, bidirectional, layout, training):
    options = {"bidirectional": bidirectional, "batch_first": layout == "batch first", "dropout": 0.5}
    model, twin = pair(kind, 4, 3, **options)
    found = []
    for layer in (model.train(training), twin.train(training)):
        torch.manual_seed(3)
        found.append(results(layer, layout, True)[0])
    for a, e in zip(*found, strict=True):
        assert_close("result", a, e, TOLERANCES[torch.float64].gradient)
    again = results(model, layout, True)[0]
    assert torch.equal(again[0], found[0][0]) != training


def test_dropout_keeps_the_share_and_the_mean_that_it_should():
    model = lsc.nn.RNN(1, 200, 2, nonlinearity="relu", dropout=0.25, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_()
            if name == "bias_ih_l0":
                parameter.fill_(1.0)
            if name == "weight_ih_l1":
                parameter.copy_(torch.eye(200))
    output = model(normal(50, 4, 1))[0].detach()
    assert set(output.unique().tolist()) == {0.0, 1 / 0.75}
    assert (output == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dropout_on_one_layer_warns_as_torch_does():
    with pytest.warns(UserWarning, match="dropout: it acts between layers, so 0.5 changes nothing"):
        lsc.nn.GRU(3, 4, dropout=0.5)


@pytest.mark.parametrize("sort", [True, False])
def test_padded_sequences_go_there_and_back(sort):
    model, twin = pair("gru", 4, 2, bidirectional=True, batch_first=True)
    x, lengths = normal(3, STEPS, INPUTS), [5, 3, 2] if sort else [2, 5, 3]
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=sort)
    actual, _ = pad_packed_sequence(model(packed)[0], batch_first=True)
    expected, _ = pad_packed_sequence(twin(packed)[0], batch_first=True)
    assert_close("output", actual, expected, 1e-12)


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False, "dropout": 0.5}])
def test_parameters_are_those_of_torch_by_name_order_and_first_value(kind, options):
    model, twin = pair(kind, 4, 2, **options)
    for layer in (model, twin):
        torch.manual_seed(5)
        layer.reset_parameters()
    for (name, a), (expected_name, e) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert name == expected_name
        assert torch.equal(a, e)
    assert [[p.shape for p in w] for w in model.all_weights] == [[p.shape for p in w] for w in twin.all_weights]
    twin.load_state_dict(model.state_dict())
    back = model.to_torch()
    assert repr(back) == repr(twin)
    assert repr(type(model).from_torch(back)) == repr(model)


ARGUMENTS = {
    "GRU": (lsc.nn.GRU, nn.GRU, (3, 4, 2, False, True, 0.25, True)),
    "RNN": (lsc.nn.RNN, nn.RNN, (3, 4, 2, "relu", False, True, 0.25, True)),
    "LSTM": (lsc.nn.LSTM, nn.LSTM, (3, 4, 2, False, True, 0.25, True, 2)),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_positional_arguments_are_those_of_torch(kind):
    ours, theirs, arguments = ARGUMENTS[kind]
    model, twin = ours(*arguments), theirs(*arguments)
    for name in theirs.__constants__:
        assert getattr(model, name) == getattr(twin, name), name
    assert getattr(model, "nonlinearity", None) == getattr(twin, "nonlinearity", None)


def test_a_copy_from_torch_draws_nothing():
    twin, before = nn.GRU(3, 4), torch.get_rng_state()
    lsc.nn.GRU.from_torch(twin).to_torch()
    assert torch.equal(torch.get_rng_state(), before)


REFUSED = {
    "proj_size of a GRU cell": (("gru", 3, 4), {"proj_size": 2}, ValueError, "proj_size: .* got 2 for gru"),
    "proj_size below 0": (("lstm", 3, 4), {"proj_size": -1}, ValueError, "proj_size: expected at least 0, got -1"),
    "dropout above 1": (("gru", 3, 4, 2), {"dropout": 1.5}, ValueError, r"dropout: .* \[0, 1\], got 1.5"),
    "dropout a flag": (("gru", 3, 4, 2), {"dropout": True}, TypeError, "dropout: expected a float, got bool"),
    "bias a number": (("gru", 3, 4, 2), {"bias": 1}, TypeError, "bias: expected a bool, got int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_construction_refuses(case):
    arguments, options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        lsc.nn.Recurrent(*arguments, **options)


def test_states_of_the_projected_size_are_asked_for():
    model, _ = pair("projected", 6, 1)
    with pytest.raises(ValueError, match=r"hx \(h\): expected shape \(1, 2, 2\), got \(1, 2, 6\)"):
        model(normal(STEPS, 2, INPUTS), (normal(1, 2, 6), normal(1, 2, 6)))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 2}])
def test_no_steps_return_the_initial_states(options):
    model = lsc.nn.LSTM(3, 4, 2, dtype=torch.float64, **options)
    states = states_for(model, "time first")
    output, last = model(normal(0, 2, 3), tuple(states))
    assert output.shape == (0, 2, (2 if model.bidirectional else 1) * (model.proj_size or 4))
    assert all(torch.equal(a, e) for a, e in zip(last, states, strict=True))


def test_what_is_returned_may_be_changed_in_place():
    for kind in TORCH_KINDS:
        found = []
        for model in pair(kind, 4, 1):
            x = normal(STEPS, 2, INPUTS).requires_grad_()
            output, last = model(x)
            output.mul_(2)
            for state in as_tuple(last):
                state.add_(1)
            loss = output.sum() + sum(state.square().sum() for state in as_tuple(last))
            found.append([output, *as_tuple(last), *torch.autograd.grad(loss, [x, *model.parameters()])])
        for a, e in zip(*found, strict=True):
            assert_close(kind, a, e, 1e-12)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_compute_the_same(way):
    model, _ = pair("projected", 4, 2, bidirectional=True, dropout=0.5)
    if way == "torch.save":
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        twin, _ = pair("projected", 4, 2, bidirectional=True, dropout=0.5)
        twin.load_state_dict(torch.load(file, weights_only=True))
    else:
        twin = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    x = normal(STEPS, 2, INPUTS)
    assert torch.equal(model.eval()(x)[0], twin.eval()(x)[0])


@pytest.mark.parametrize("parametrise", [parametrizations.weight_norm, parametrizations.orthogonal])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_parametrised_weights_give_the_gradients_of_torch(bidirectional, parametrise):
    model, twin = pair("gru", 4, 1, bidirectional=bidirectional)
    for layer in (model, twin):
        torch.manual_seed(0)
        parametrise(layer, "weight_hh_l0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(model, twin, "time first", True)


BFLOAT16 = {"device_type": "cpu", "dtype": torch.bfloat16}


@pytest.mark.filterwarnings(QUIET, "ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize("state_type", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("input_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_the_types_and_nearly_the_numbers_of_torch(kind, input_type, state_type):
    model, twin = pair(kind, 16, 2, dtype=torch.float32)
    given = None if state_type is None else [s.to(state_type) for s in states_for(model, "time first")]
    found = []
    for layer in (model, twin):
        x = normal(STEPS, 2, INPUTS).to(input_type).requires_grad_()
        hx = None if given is None else given[0] if len(given) == 1 else tuple(given)
        # oneDNN refuses this on processors without bfloat16, and would return other types.
        with torch.backends.mkldnn.flags(enabled=False), torch.autocast(**BFLOAT16):
            output, last = layer(x, hx)
        ends = [output, *as_tuple(last)]
        loss = sum((end.double() * normal(*end.shape, seed=40 + i)).sum() for i, end in enumerate(ends))
        found.append([*ends, *torch.autograd.grad(loss, [x, *layer.parameters()])])
    for a, e in zip(*found, strict=True):
        assert a.dtype == e.dtype
        assert_close("result", a, e, 3e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_rounds_inputs_and_weights_and_nothing_else(kind):
    model, _ = pair(kind, 16, 2, dtype=torch.float32)
    rounded = copy.deepcopy(model)
    x = normal(STEPS, 2, INPUTS, dtype=torch.float32)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    with torch.autocast(**BFLOAT16):
        actual, last = model(x)
    expected, expected_last = rounded(x.bfloat16().float())
    plain, _ = model(x)
    assert not torch.equal(expected, plain)
    assert torch.equal(actual, expected.to(actual.dtype))
    assert all(torch.equal(a, e.to(a.dtype)) for a, e in zip(as_tuple(last), as_tuple(expected_last), strict=True))


def test_autocast_gradients_are_those_of_the_rounded_layer_rounded():
    model, _ = pair("gru", 16, 2, dtype=torch.float32)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    x = normal(STEPS, 2, INPUTS, dtype=torch.float32).bfloat16().float()
    with torch.autocast(**BFLOAT16):
        loss = model(x)[0].square().sum()
    actual = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.autograd.grad(rounded(x)[0].square().sum(), list(rounded.parameters()))
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, e.bfloat16().float())


def test_autocast_leaves_float64_layers_alone():
    model, _ = pair("gru", 4, 1)
    x = normal(STEPS, 2, INPUTS)
    with torch.autocast(**BFLOAT16):
        actual = model(x)[0]
    assert torch.equal(actual, model(x)[0])


def test_without_autocast_another_input_type_is_refused():
    model, _ = pair("gru", 4, 1, dtype=torch.float32)
    with pytest.raises(TypeError, match="input: expected torch.float32 as the weights are, got torch.bfloat16"):
        model(torch.zeros(STEPS, 2, INPUTS, dtype=torch.bfloat16))


ROUTED = [(kind, grad) for kind in TORCH_KINDS for grad in (False, True)]


@pytest.mark.parametrize(("kind", "grad"), ROUTED)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_short_way_and_the_operator_give_the_same_bits(monkeypatch, kind, grad, given, steps):
    model, _ = pair(kind, 5, 2, dtype=torch.float32)
    x = normal(steps, 3, INPUTS, dtype=torch.float32)
    states = tuple(s.float() for s in (normal(2, 3, 5, seed=i) for i in range(2 if kind == "lstm" else 1)))
    through, found = [], []
    operator = eager._through_operator

    def counted(*arguments):
        through.append(None)
        return operator(*arguments)

    monkeypatch.setattr(eager, "_through_operator", counted)
    for short in (True, False):
        if not short:
            monkeypatch.setattr(eager, "watched", lambda: True)
        leaves = [t.clone().requires_grad_(grad) for t in (x, *states)]
        hx = (leaves[1] if len(leaves) == 2 else tuple(leaves[1:])) if given else None
        with torch.set_grad_enabled(grad):
            output, last = model(leaves[0], hx)
        ends = [output, *as_tuple(last)]
        if grad:
            loss = sum((end * normal(*end.shape, seed=40 + i).float()).sum() for i, end in enumerate(ends))
            wanted = leaves if given else leaves[:1]
            ends += torch.autograd.grad(loss, [*wanted, *model.parameters()])
        found.append(ends)
        assert bool(through) != short
    for a, e in zip(*found, strict=True):
        assert torch.equal(a, e)


def test_only_plain_eager_calls_take_the_short_way():
    x = torch.randn(3)
    assert eager.route((x, None)) is eager.Route.KERNEL
    assert eager.route((x.clone().requires_grad_(),)) is eager.Route.RECORDED
    negated = torch.complex(x, x).conj().imag
    subclass = torch.Tensor._make_subclass(type("Sub", (torch.Tensor,), {}), x)
    for tensor in (negated, subclass, x.to("meta"), torch._efficientzerotensor(3)):
        assert eager.route((x, tensor)) is eager.Route.OPERATOR
    with torch.autograd.forward_ad.dual_level():
        assert eager.route((x,)) is eager.Route.OPERATOR
    with torch.device("cpu"):
        assert eager.route((x,)) is eager.Route.OPERATOR
    torch.func.vmap(lambda each: (eager.route((x,)) is eager.Route.OPERATOR or 1 / 0) and each)(x)


def test_lazily_negated_values_are_negated():
    model, x = lsc.nn.GRU(3, 4), torch.randn(5, 2, 3)
    negated = torch.complex(x, x).conj().imag
    assert negated.is_neg()
    assert torch.equal(model(negated)[0], model(-x)[0])


def test_a_weight_shared_by_two_layers_gets_both_gradients_in_every_order():
    model, twin = pair("gru", 4, 2)
    for layer in (model, twin):
        layer.weight_hh_l1 = layer.weight_hh_l0
    found = []
    for layer in (model, twin):
        loss = layer(normal(STEPS, 2, INPUTS))[0].square().sum()
        (first,) = torch.autograd.grad(loss, layer.weight_hh_l0, create_graph=True)
        found.append([first, torch.autograd.grad(first.square().sum(), layer.weight_hh_l0)[0]])
    for a, e in zip(*found, strict=True):
        assert_close("gradient", a, e, 1e-10)


def test_changing_a_saved_tensor_before_backward_is_noticed():
    model, x = lsc.nn.GRU(3, 4), torch.randn(5, 2, 3)
    output = model(x)[0].sum()
    with torch.no_grad():
        model.weight_hh_l0.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_a_weight_of_another_dtype_is_refused_on_every_way():
    model, x = lsc.nn.GRU(3, 4), torch.randn(5, 2, 3)
    model.weight_hh_l0 = nn.Parameter(model.weight_hh_l0.detach().double())
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(TypeError, match="dtype: expected torch.float32"):
            model(x)


def test_weights_are_read_when_the_layer_is_called():
    model, x = lsc.nn.GRU(3, 4), torch.randn(5, 2, 3)
    before = model(x)[0]
    model.weight_hh_l0 = nn.Parameter(torch.zeros(12, 4))
    assert not torch.equal(model(x)[0], before)
    with torch.no_grad():
        model.weight_hh_l0.fill_(0.5)
    assert_close("output", model(x)[0], model.to_torch()(x)[0], TOLERANCES[torch.float32].forward)


def test_active_dropout_is_asked_about_before_anything_is_computed(monkeypatch):
    model, x = lsc.nn.GRU(INPUTS, 5, 2, dropout=0.5), torch.randn(STEPS, 2, INPUTS)
    calls, kernel = [], eager._kernel

    def counted(plan, *arguments):
        calls.append(plan.layers)
        return kernel(plan, *arguments)

    monkeypatch.setattr(eager, "_kernel", counted)
    model(x)
    assert calls == [1, 1]  # layer by layer, and no pass over both that is thrown away
    calls.clear()
    model.eval()(x)
    assert calls == [2]
