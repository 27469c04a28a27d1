"""Networks given by a step, against matrices formed one row at a time by autograd."""

import copy
import gc
import io
import math
import pickle
import weakref

import pytest
import torch
from networks import DIRECTIONS, flat, gradients, linear, normal
from step_modules import (
    LayerNormGRU,
    TwoStates,
    expected_radius,
    formed,
    gru_model,
    gru_stack,
    hand_loop,
    in_double,
    lstm_model,
    seeded,
)
from torch import nn
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext.testing import assert_close

STEPS, BATCH, INPUTS = 3, 2, 4
TIGHT = {"tol": 1e-9, "num_matvecs": 4000}
READOUT_SIZE = 6


def lstm_stack(inputs, sizes):
    lower = lstm_model(inputs, sizes[0])
    return lsc.StepModel([lower, lstm_model(sizes[0], sizes[1], seed=1)])


MODELS = {
    "one": lambda: gru_model(INPUTS, 5),
    "two states": lambda: lstm_model(INPUTS, 5),
    "stack": lambda: gru_stack(INPUTS, (5, 7, 3)),
    "stack of two states": lambda: lstm_stack(INPUTS, (5, 5)),
}
STACKS = {
    "layer-norm GRU": lambda: gru_stack(INPUTS, (5, 5, 5)),
    "LSTM with two states": lambda: lstm_stack(INPUTS, (5, 5)),
}


def readout_of(model):
    state = model.layers[-1].state_size
    return linear(state // 2 if model.layers[-1]._functions[1] else state, READOUT_SIZE)


def measured(model, x, direction, **options):
    options.setdefault("generator", seeded())
    readout = readout_of(model) if direction == "output" else None
    report = lsc.radii(model, x, directions=(direction,), readout=readout, **{**TIGHT, **options})
    return report[direction]


def expected(model, x, direction, layer, through_states=True):
    readout = readout_of(model) if direction == "output" else None
    return expected_radius(formed(model, x, direction, layer, readout, through_states), direction)


def layers_with(model, direction):
    count = model.num_layers
    return {"time": range(count), "input": [0], "output": [count - 1]}.get(direction, range(1, count))


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_forward_is_the_loop_by_hand(kind, with_states):
    model, x = MODELS[kind](), normal(STEPS, BATCH, INPUTS)
    states = [normal(BATCH, m.state_size, seed=7 + k) for k, m in enumerate(model.layers)] if with_states else None
    given = states[0] if with_states and model.num_layers == 1 else states
    output, last = model(x, given)
    wanted, wanted_last = hand_loop(model, x, states)
    assert torch.equal(output, wanted)
    for a, e in zip([last] if model.num_layers == 1 else last, wanted_last, strict=True):
        assert torch.equal(a, e)


def test_batch_first_is_the_other_layout():
    model, x = gru_model(INPUTS, 5), normal(STEPS, BATCH, INPUTS)
    turned = lsc.StepModel(model.module, 5, batch_first=True)
    assert torch.equal(turned(x.transpose(0, 1))[0], model(x)[0].transpose(0, 1))
    assert torch.equal(measured(turned, x.transpose(0, 1), "time").radius, measured(model, x, "time").radius)


def test_a_stack_has_the_layout_of_the_whole():
    layers = [gru_model(INPUTS, 5), gru_model(5, 5)]
    x = normal(STEPS, BATCH, INPUTS)
    output, _ = lsc.StepModel(layers, batch_first=True)(x.transpose(0, 1))
    assert torch.equal(output.transpose(0, 1), lsc.StepModel(layers)(x)[0])


def test_no_steps_and_no_sequences_are_measured_as_none():
    model = gru_stack(INPUTS, (5, 5))
    for steps, batch in ((0, 2), (3, 0)):
        x = normal(steps, batch, INPUTS)
        assert model(x)[0].shape == (steps, batch, 5)
        assert lsc.radii(model, x)["time"].radius.shape == (2, steps, batch)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", STACKS)
def test_every_direction_is_that_of_the_formed_matrices(kind, direction):
    model, x = STACKS[kind](), normal(STEPS, BATCH, INPUTS)
    found = measured(model, x, direction)
    exact = torch.stack([expected(model, x, direction, k) for k in layers_with(model, direction)])
    assert_close(direction, found.radius.flatten(1), exact, 1e-8)
    assert found.certified_fraction == 1


@pytest.mark.parametrize("hidden", [1, 3, 33, 65])
@pytest.mark.parametrize("direction", ["time", "depth", "diagonal"])
def test_radii_of_odd_sizes_are_certified_and_right(direction, hidden):
    model, x = gru_stack(INPUTS, (hidden, hidden), gain=2.0), normal(2, 2, INPUTS)
    found = measured(model, x, direction)
    assert found.method == ("dense" if hidden <= 32 else "krylov")
    assert found.certified_fraction == 1
    exact = torch.stack([expected(model, x, direction, k) for k in layers_with(model, direction)])
    assert_close(direction, found.radius.flatten(1), exact, 1e-7)


def test_krylov_and_dense_agree_on_two_states_beside_each_other():
    model, x = lstm_model(INPUTS, 19), normal(STEPS, BATCH, INPUTS)
    found = measured(model, x, "time")
    assert found.method == "krylov"
    assert_close("radius", found.radius.flatten(), expected(model, x, "time", 0), 1e-7)


def test_depth_of_unequal_widths_is_the_frobenius_norm_over_the_root_of_the_wider():
    model, x = gru_stack(INPUTS, (5, 7, 3)), normal(STEPS, BATCH, INPUTS)
    exact = torch.stack([expected(model, x, "depth", k) for k in (1, 2)])
    assert_close("depth", measured(model, x, "depth").radius.flatten(1), exact, 1e-10)


def test_subsampled_depth_is_the_radius_of_one_of_the_square_submatrices():
    model, x = gru_stack(INPUTS, (4, 5)), normal(1, 1, INPUTS)
    whole = formed(model, x, "depth", 1)[0]
    choices = [torch.linalg.eigvals(whole[[i for i in range(5) if i != left]]).abs().max() for left in range(5)]
    found = measured(model, x, "depth", square="subsample").radius.flatten()
    assert min((found - choice).abs().item() for choice in choices) < 1e-10


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", STACKS)
def test_gradient_is_autograds_through_the_formed_matrices(kind, direction, through_states):
    model, x = STACKS[kind](), normal(STEPS, BATCH, INPUTS).requires_grad_()
    leaves = [*model.parameters(), *([x] if through_states else [])]
    actual = gradients(measured(model, x, direction, through_states=through_states).radius, leaves)
    parts = [expected(model, x, direction, k, through_states) for k in layers_with(model, direction)]
    exact = gradients(torch.stack(parts), leaves)
    assert_close("gradient", flat(actual), flat(exact), 1e-7)


def test_krylov_gradient_is_autograds_through_the_formed_matrices():
    model, x = gru_model(INPUTS, 33, gain=2.0), normal(2, 2, INPUTS)
    leaves = list(model.parameters())
    found = measured(model, x, "time", through_states=True)
    actual, exact = gradients(found.radius, leaves), gradients(expected(model, x, "time", 0), leaves)
    assert not found.growth_gradient.any()
    assert_close("gradient", flat(actual), flat(exact), 1e-5)


@pytest.mark.parametrize("direction", ["time", "depth", "diagonal"])
def test_gradient_of_layers_that_share_their_weights_counts_each_use_once(direction):
    shared = gru_model(5, 5)
    model, x = lsc.StepModel([shared, shared]), normal(STEPS, BATCH, 5)
    leaves = list(model.parameters())
    actual = gradients(measured(model, x, direction, through_states=True).radius, leaves)
    exact = gradients(sum(expected(model, x, direction, k).sum() for k in layers_with(model, direction)), leaves)
    assert_close("gradient", flat(actual), flat(exact), 1e-7)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x, state):
        return torch.tanh(self.dropout(self.linear(state)) + x)


def test_dropout_is_off_in_the_backward_pass_too():
    model, x = lsc.StepModel(in_double(Dropping), 4), normal(STEPS, BATCH, 4)
    found = []
    for training in (True, False):
        model.train(training)
        found.append(gradients(measured(model, x, "time").radius, list(model.parameters())))
        assert model.module.dropout.training == training
    assert_close("gradient", flat(found[0]), flat(found[1]), 1e-12)


def test_dropout_is_off_in_the_operator_of_a_model():
    model, x = lsc.StepModel(in_double(Dropping), 4), normal(STEPS, BATCH, 4)
    operator = lsc.JacobianOperator.from_model(model, x, "time")
    assert torch.equal(operator.to_dense(), lsc.JacobianOperator.from_model(model.eval(), x, "time").to_dense())


@pytest.mark.parametrize("make", ["module given", "module", "bound method"])
def test_parameters_are_registered_once(make):
    cell = in_double(TwoStates, INPUTS, 5)
    model = {
        "module given": lambda: lsc.StepModel(lambda x, s: cell.step(x, s), 10, module=cell, output=cell.output),
        "module": lambda: lsc.StepModel(in_double(LayerNormGRU, INPUTS, 5), 5),
        "bound method": lambda: lsc.StepModel(cell.step, 10, output=cell.output),
    }[make]()
    own = list((model.module if make == "module" else cell).parameters())
    assert [id(p) for p in model.parameters()] == [id(p) for p in own]
    assert all(name.startswith("module.") for name in model.state_dict())
    assert len(model.state_dict()) == len(own)


def test_an_output_that_is_a_module_is_trained_and_measured_with_the_step():
    head = linear(5, 3)
    model = lsc.StepModel(in_double(LayerNormGRU, INPUTS, 5), 5, output=head)
    assert any(p is head.weight for p in model.parameters())
    found = lsc.radii(model, normal(1, 1, INPUTS), directions=("output",), readout=nn.Identity())["output"].radius
    assert_close("radius", found.flatten(), torch.linalg.matrix_norm(head.weight).reshape(1) / 5**0.5, 1e-10)
    (gradient,) = gradients(found, [head.weight])
    (exact,) = gradients(torch.linalg.matrix_norm(head.weight) / 5**0.5, [head.weight])
    assert_close("gradient", gradient, exact, 1e-10)


def test_an_output_inside_the_module_is_registered_there_alone():
    cell = in_double(LayerNormGRU, INPUTS, 5)
    model = lsc.StepModel(cell, 5, output=cell.norm)
    assert len(model.state_dict()) == len(cell.state_dict())


def test_state_dict_carries_the_weights_to_another_model():
    model, other, x = gru_stack(INPUTS, (5, 7)), gru_stack(INPUTS, (5, 7), gain=3.0), normal(STEPS, BATCH, INPUTS)
    assert not torch.equal(model(x)[0], other(x)[0])
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x)[0], other(x)[0])


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    memory = io.BytesIO()
    torch.save(model, memory)
    memory.seek(0)
    return torch.load(memory, weights_only=False)


@pytest.mark.parametrize("make", [copy.deepcopy, pickled, saved])
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_is_equal_and_reads_its_own_weights(kind, make):
    model, x = MODELS[kind](), normal(STEPS, BATCH, INPUTS)
    before = model(x)[0].detach()
    copied = make(model)
    assert torch.equal(copied(x)[0], before)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2)
    assert torch.equal(model(x)[0], before)
    assert not torch.equal(copied(x)[0], before)


def test_a_function_that_holds_a_module_is_not_copied_without_it():
    cell = in_double(LayerNormGRU, INPUTS, 5)
    model = lsc.StepModel(lambda x, s: cell(x, s), 5, module=cell)
    with pytest.raises(TypeError, match="step: expected a module or a method of one in a model that is copied, got a"):
        copy.deepcopy(model)
    sliced = lsc.StepModel(cell, 5, output=lambda s: s[:, :2])
    assert copy.deepcopy(sliced).module is not cell


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by torch.compile itself
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_step_has_the_radii_and_gradients_of_the_step(backend):
    cell, x = in_double(LayerNormGRU, INPUTS, 5), normal(STEPS, BATCH, INPUTS)
    plain, compiled = lsc.StepModel(cell, 5), lsc.StepModel(torch.compile(cell, backend=backend), 5)
    leaves = list(cell.parameters())
    assert_close("output", compiled(x)[0], plain(x)[0], 1e-12)
    found, exact = measured(compiled, x, "time").radius, measured(plain, x, "time").radius
    assert_close("radius", found, exact, 1e-10)
    assert_close("gradient", flat(gradients(found, leaves)), flat(gradients(exact, leaves)), 1e-8)


class OldSine(torch.autograd.Function):
    """In the style of old: forward and setup in one, no jvp."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0].cos()


class Sinusoid(nn.Module):
    def __init__(self, sine, size=5):
        super().__init__()
        self.linear, self.sine = nn.Linear(size, size), sine

    def forward(self, x, state):
        return self.sine(self.linear(state)) + x


def test_a_custom_function_without_a_jvp_is_measured_as_the_one_of_torch():
    x = normal(STEPS, BATCH, 5)
    custom, plain = (lsc.StepModel(in_double(Sinusoid, sine), 5) for sine in (OldSine.apply, torch.sin))
    assert_close("radius", measured(custom, x, "time").radius, measured(plain, x, "time").radius, 1e-12)
    pairs = [gradients(measured(m, x, "time").radius, list(m.parameters())) for m in (custom, plain)]
    assert_close("gradient", flat(pairs[0]), flat(pairs[1]), 1e-12)


class OnceSine(OldSine):
    backward = staticmethod(torch.autograd.function.once_differentiable(OldSine.backward))


class DetachedSine(OldSine):
    @staticmethod
    def backward(ctx, upstream):
        return upstream.detach() * ctx.saved_tensors[0].detach().cos()


@pytest.mark.parametrize("sine", [OnceSine, DetachedSine])
def test_a_step_that_is_not_twice_differentiable_is_an_error_and_leaves_everything_as_it_was(sine):
    model, x = lsc.StepModel(in_double(Sinusoid, sine.apply), 5), normal(STEPS, 20, 5)
    before, output = copy.deepcopy(model.state_dict()), model(x)[0].detach()
    for measure in (lsc.radii, lsc.pretrain):
        with pytest.raises(RuntimeError, match="function: expected a backward pass that autograd can differentiate"):
            measure(model, x)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(x)[0], output)


def test_inference_mode_changes_no_number():
    model, x = gru_stack(INPUTS, (5, 7)), normal(STEPS, BATCH, INPUTS)
    outside = lsc.radii(model, x, generator=seeded())
    with torch.inference_mode():
        inside = lsc.radii(model, x, generator=seeded())
    for direction in outside:
        assert torch.equal(inside[direction].radius, outside[direction].radius.detach())


@pytest.mark.parametrize("size", [5, 40])
def test_a_step_that_ignores_its_state_has_radius_zero(size):
    model, x = lsc.StepModel(lambda x, state: x.tanh(), size), normal(STEPS, BATCH, size)
    found = measured(model, x, "time")
    assert torch.equal(found.radius, torch.zeros(1, STEPS, BATCH, dtype=torch.float64))
    assert found.certified_fraction == 1


class Parametrised(nn.Module):
    def __init__(self, wrap, size):
        super().__init__()
        self.linear = wrap(nn.Linear(size, size))

    def forward(self, x, state):
        return torch.tanh(self.linear(state) + x)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrised_weights_are_measured_and_differentiated(wrap):
    model, x = lsc.StepModel(in_double(Parametrised, wrap, 5), 5), normal(STEPS, BATCH, 5)
    leaves, found = list(model.parameters()), measured(model, x, "time", through_states=True)
    exact = expected(model, x, "time", 0)
    assert_close("radius", found.radius.flatten(), exact, 1e-10)
    assert_close("gradient", flat(gradients(found.radius, leaves)), flat(gradients(exact, leaves)), 1e-7)


def test_measuring_keeps_no_graph():
    values = []

    def step(x, state):
        following = torch.tanh(state * 0.7 + x)
        values.append(weakref.ref(following))
        return following

    report = lsc.radii(lsc.StepModel(step, 5), normal(STEPS, BATCH, 5), directions=("time",))
    gc.collect()
    assert len(values) > STEPS
    assert [ref() for ref in values if ref() is not None] == []
    assert report["time"].radius.numel() == STEPS * BATCH


@pytest.mark.parametrize("square", ["frobenius", "subsample"])
def test_a_report_whose_backward_pass_was_run_keeps_no_linearisation(square):
    values = []

    class Watched(LayerNormGRU):
        def forward(self, x, h):
            following = super().forward(x, h)
            values.append(weakref.ref(following))
            return following

    model = lsc.StepModel([gru_model(4, 5), lsc.StepModel(in_double(Watched, 5, 40), 40)])
    report = lsc.radii(model, normal(1, BATCH, 4), directions=("time", "depth"), square=square)
    sum(report[d].radius.sum() for d in report).backward()
    gc.collect()
    assert values
    assert [ref() for ref in values if ref() is not None] == []


def trained():
    model = lsc.StepModel([lsc.StepModel(LayerNormGRU(6 if k == 0 else 24, 24), 24) for k in range(3)])
    x = normal(6, 48, 6, dtype=torch.float32)
    return model, x


def test_pretraining_brings_a_stack_of_a_users_cell_to_one_half():
    model, x = trained()
    result = lsc.pretrain(model, x, 0.5, steps=150, max_points=16, tolerance=0.02, patience=2, certify_points=48)
    after = lsc.radii(model, normal(6, 8, 6, seed=9, dtype=torch.float32))
    for direction in ("time", "depth"):
        assert result.before[direction].mean().item() != pytest.approx(0.5, abs=0.05)
        assert result.after[direction].certified_fraction == 1
        for mean in after[direction].mean(dim=(1, 2)).tolist():
            assert mean == pytest.approx(0.5, abs=0.05)
    assert result.deviation() < 0.05


def cell_of(*arguments):
    return in_double(LayerNormGRU, *arguments)


BAD_MODELS = {
    "no function": (lambda: lsc.StepModel(3, 4), TypeError, "step: expected a function or a sequence .*, got int"),
    "text": (lambda: lsc.StepModel("gru", 4), TypeError, r"step\[0\]: expected a StepModel of one layer, got str"),
    "stack of functions": (lambda: lsc.StepModel([cell_of(4, 4)]), TypeError, r"step\[0\]: .*, got LayerNormGRU"),
    "empty stack": (lambda: lsc.StepModel([]), ValueError, "step: expected at least one StepModel"),
    "stack with a size": (lambda: lsc.StepModel([gru_model(4, 4)], 4), ValueError, "step: .* no other argument"),
    "stack of stacks": (lambda: lsc.StepModel([gru_stack(4, (4,))]), TypeError, r"step\[0\]: .* one layer"),
    "layout of a layer": (
        lambda: lsc.StepModel([lsc.StepModel(cell_of(4, 4), 4, batch_first=True)]),
        ValueError,
        r"step\[0\]: expected batch_first of the stack",
    ),
    "no size": (lambda: lsc.StepModel(cell_of(4, 4)), ValueError, "state_size: expected an int .*, got None"),
    "size 0": (lambda: lsc.StepModel(cell_of(4, 4), 0), ValueError, "state_size: expected an int .*, got 0"),
    "real size": (lambda: lsc.StepModel(cell_of(4, 4), 4.0), ValueError, "state_size: expected an int .*, got 4.0"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_model_that_makes_no_sense_is_refused(case):
    make, error, message = BAD_MODELS[case]
    with pytest.raises(error, match=message):
        make()


ONE, STACK, X = gru_model(4, 5), gru_stack(4, (5, 7)), normal(3, 2, 4)
BAD_CALLS = {
    "input": (ONE, [1.0], None, TypeError, "input: expected a torch.Tensor, got list"),
    "a vector": (ONE, normal(4), None, ValueError, r"input: expected shape \(T, B, ...\), got \(4,\)"),
    "size of hx": (ONE, X, normal(2, 4), ValueError, r"hx\[0\]: expected shape \(2, 5\), got \(2, 4\)"),
    "batch of hx": (ONE, X, normal(3, 5), ValueError, r"hx\[0\]: expected shape \(2, 5\), got \(3, 5\)"),
    "number of hx": (STACK, X, normal(2, 5), ValueError, "hx: expected 2 states, one for each layer, got 1"),
    "upper hx": (STACK, X, [normal(2, 5)] * 2, ValueError, r"hx\[1\]: expected shape \(2, 7\), got \(2, 5\)"),
    "hx is a number": (ONE, X, 3, TypeError, "hx: expected a torch.Tensor or a sequence of them, got int"),
    "hx of numbers": (STACK, X, [1, 2], TypeError, r"hx\[0\]: expected a torch.Tensor, got int"),
    "integer hx": (
        ONE,
        X,
        torch.zeros(2, 5, dtype=torch.int64),
        TypeError,
        "initial_state: .* real numbers, got torch",
    ),
    "another shape": (
        lsc.StepModel(lambda x, s: s[:, :3], 4),
        X,
        None,
        ValueError,
        r"step: expected the next state as \(2, 4\), got \(2, 3\)",
    ),
    "a tuple": (lsc.StepModel(lambda x, s: (s, s), 4), X, None, TypeError, "step: .* as one Tensor, got tuple"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_call_that_makes_no_sense_is_refused_by_the_model_and_by_its_radii(case):
    model, x, states, error, message = BAD_CALLS[case]
    for run in (model, lambda *given: lsc.radii(model, *given)):
        with pytest.raises(error, match=message):
            run(x, states)


def test_half_precision_is_refused():
    model = lsc.StepModel(lambda x, s: s * 0.5 + x, 4)
    with pytest.raises(TypeError, match="dtype: expected torch.float32 or torch.float64"):
        lsc.radii(model, X.half())


def test_a_step_that_overflows_is_told_and_counted():
    model = lsc.StepModel(lambda x, s: s * math.inf + x, 4)
    found = measured(model, X, "time")
    assert found.counts()["nonfinite"] == 6


def test_unequal_states_have_no_diagonal():
    with pytest.raises(ValueError, match="direction: expected layers of one state size for 'diagonal', got 5 and 7"):
        lsc.radii(STACK, X, directions=("diagonal",))
