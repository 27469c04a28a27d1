"""Every differentiable function in every mode of torch: the right number, or an error that this table knows of.

A new function is one row of ``ROWS``; a mode that it refuses is one line of ``REFUSED``. Nothing may be silently zero:
every reference is a finite difference in float64, and is asserted not to vanish.
"""

import pytest
import torch
import torch._dynamo
from networks import normal, stack, states_of
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import lsc_ext as lsc
from lsc_ext import ops
from lsc_ext.frobenius import frobenius_radius
from lsc_ext.nn import flat_weights
from lsc_ext.operator import MatrixOperator
from lsc_ext.testing import assert_close

STEP = 1e-5
TOLERANCE = 1e-6  # of a central difference at this step
DOUBLE = {"dtype": torch.float64}


def flat_results(results):
    """All results of a layer in one row, complex numbers as two."""
    if isinstance(results, torch.Tensor):
        return results.flatten()
    output, last = results
    rows = [output, *((last,) if isinstance(last, torch.Tensor) else last)]
    return torch.cat([(torch.view_as_real(r) if r.is_complex() else r).flatten() for r in rows])


def of_input(model, states=None):
    """A layer as a function of its input."""
    given = () if states is None else (states,)
    return lambda x: flat_results(model(x, *given)), normal(3, 2, model.input_size)


def of_parameter(model, name, states=None):
    """The same as a function of one parameter."""
    _, x = of_input(model)
    given = (x,) if states is None else (x, states)
    return (
        lambda weight: flat_results(functional_call(model, {name: weight}, given)),
        model.get_parameter(name).detach().clone(),
    )


def of_operator(cell):
    model = stack(cell, 2, 3, 2)
    initial, weights = torch.stack(states_of(model, 2), dim=1), [w.detach() for w in flat_weights(model, 2)]
    return lambda x: ops.recurrent(x, initial, weights, cell)[0].flatten(), normal(3, 2, 2)


def seeded(make, *sizes, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*sizes, **options, **DOUBLE)


def matrix_radius(method):
    def function(matrix):
        generator = torch.Generator().manual_seed(0)
        return lsc.spectral_radius(matrix, method=method, tol=1e-10, generator=generator).radius

    return function, normal(2, 5, 5)


def measured(direction, through_states=False):
    """Radii as a function of the weight that they depend on."""
    # Of one step, as states count as constants there: after more, the difference would move them too.
    model, x = stack("gru", 2, 4, 2, gain=2), normal(3 if through_states else 1, 2, 2)
    name = "weight_ih_l0" if direction == "input" else "weight_hh_l1"
    options = {"directions": (direction,), "through_states": through_states, "method": "dense"}

    class Measured(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            generator = torch.Generator().manual_seed(0)
            return lsc.radii(self.inner, x, generator=generator, **options)[direction].radius.flatten()

    module = Measured()
    return lambda w: functional_call(module, {f"inner.{name}": w}, (x,)), model.get_parameter(name).detach().clone()


class PlainStep(torch.nn.Module):
    def __init__(self, inputs, hidden, **options):
        super().__init__()
        self.by_input, self.by_state = (torch.nn.Linear(n, hidden, **options) for n in (inputs, hidden))

    def forward(self, x, state):
        return torch.tanh(self.by_input(x) + self.by_state(state))


def lstm(**options):
    return seeded(lsc.nn.LSTM, 2, 4, 1, **options)


#: name -> (function of one tensor, where to differentiate it)
ROWS = {
    "ops.recurrent of x": lambda: of_operator("lstm"),
    "RNN of x": lambda: of_input(seeded(lsc.nn.RNN, 2, 3, 2)),
    "RNN of weight_hh": lambda: of_parameter(seeded(lsc.nn.RNN, 2, 3, 2), "weight_hh_l1"),
    "GRU of x": lambda: of_input(seeded(lsc.nn.GRU, 2, 3, 2)),
    "GRU of bias_hh": lambda: of_parameter(seeded(lsc.nn.GRU, 2, 3, 2), "bias_hh_l0"),
    "GRU, bidirectional, of x": lambda: of_input(seeded(lsc.nn.GRU, 2, 3, 2, bidirectional=True)),
    "LSTM of x": lambda: of_input(lstm()),
    "LSTM of weight_ih": lambda: of_parameter(lstm(), "weight_ih_l0"),
    "LSTM, projected, of x": lambda: of_input(lstm(proj_size=2), (normal(1, 2, 2), normal(1, 2, 4))),
    "LSTM, projected, of weight_hr": lambda: of_parameter(lstm(proj_size=2), "weight_hr_l0"),
    "Recurrent min_gru of x": lambda: of_input(stack("min_gru", 2, 3, 2)),
    "IndRNN of recurrent_weight": lambda: of_parameter(stack("ind_rnn", 2, 3, 2), "recurrent_weight_l1"),
    "FeedForward of x": lambda: of_input(seeded(lsc.nn.FeedForward, 2, 3, 2, "gelu")),
    "FeedForward of weight_ih": lambda: of_parameter(seeded(lsc.nn.FeedForward, 2, 3, 2, "sin"), "weight_ih_l0"),
    "LRU of nu_log": lambda: of_parameter(seeded(lsc.nn.LRU, 2, 3, 2), "nu_log_l0"),
    "ComplexDiagonalRNN of lambda": lambda: of_parameter(seeded(lsc.nn.ComplexDiagonalRNN, 2, 3), "lambda_l0"),
    "BlockDiagonalRNN of A": lambda: of_parameter(seeded(lsc.nn.BlockDiagonalRNN, 2, 4, heads=2), "A_l0"),
    "ResLRU of x": lambda: of_input(seeded(lsc.nn.ResLRU, 2, 3, 2).eval()),
    "StepModel of x": lambda: of_input(lsc.StepModel(seeded(PlainStep, 2, 3), 3, input_size=2), normal(2, 3, seed=8)),
    "spectral_radius, dense": lambda: matrix_radius("dense"),
    "spectral_radius, krylov": lambda: matrix_radius("krylov"),
    "frobenius_radius": lambda: (lambda a: frobenius_radius(MatrixOperator(a)).radius, normal(2, 5, 4)),
    "radii, time": lambda: measured("time"),
    "radii, through states": lambda: measured("time", through_states=True),
    "radii, input": lambda: measured("input"),
}


def weighted(function, point):
    """The function made a number by random weights."""
    weights = normal(*function(point).shape, seed=7)
    return lambda p: (function(p) * weights).sum()


def reverse(loss, point, create_graph=False):
    leaf = point.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf, create_graph=create_graph)[0]


def difference(loss, point):
    """The gradient by central differences."""
    moves = STEP * torch.eye(point.numel(), **DOUBLE).reshape(-1, *point.shape)
    with torch.no_grad():
        changes = torch.stack([loss(point + move) - loss(point - move) for move in moves])
    return (changes / (2 * STEP)).reshape(point.shape)


def along(function, point, direction):
    return (function(point + STEP * direction) - function(point - STEP * direction)) / (2 * STEP)


def direction_at(point):
    return normal(*point.shape, seed=8)


def by_dual_numbers(loss, point):
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(point, direction_at(point)))).tangent
    assert tangent is not None, "the tangent was lost"
    return tangent


def by_double_backward(loss, point):
    leaf = point.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    return torch.autograd.grad((first * direction_at(point)).sum(), leaf)[0]


def by_compiler(loss, point):
    torch.compiler.reset()
    return reverse(torch.compile(loss, fullgraph=True, backend="aot_eager"), point)


def by_batched_gradients(function, point):
    leaf = point.clone().requires_grad_()
    value = function(leaf)
    unit = torch.eye(value.numel(), **DOUBLE).reshape(-1, *value.shape)
    return torch.autograd.grad(value, leaf, unit, is_grads_batched=True)[0]


def several(point):
    return torch.stack((point, 1.1 * point, 0.9 * point))


def loop(function, point):
    return torch.stack([function(p) for p in several(point)])


#: How a mode finds a derivative of a number, and what it should be.
GRADIENTS = {
    "reverse": (reverse, difference),
    "func.grad": (lambda f, p: torch.func.grad(f)(p), difference),
    "func.vjp": (lambda f, p: torch.func.vjp(f, p)[1](torch.ones((), **DOUBLE))[0], difference),
    "checkpoint": (lambda f, p: reverse(lambda q: checkpoint(f, q, use_reentrant=False), p), difference),
    "compile": (by_compiler, difference),
    "forward dual": (by_dual_numbers, lambda f, p: along(f, p, direction_at(p))),
    "func.jvp": (
        lambda f, p: torch.func.jvp(f, (p,), (direction_at(p),))[1],
        lambda f, p: along(f, p, direction_at(p)),
    ),
    "double backward": (
        by_double_backward,
        lambda f, p: along(lambda q: reverse(f, q), p, direction_at(p)),
    ),
    "func.grad twice": (
        lambda f, p: torch.func.grad(lambda q: (torch.func.grad(f)(q) * direction_at(q)).sum())(p),
        lambda f, p: along(lambda q: reverse(f, q), p, direction_at(p)),
    ),
    "jvp of grad": (
        lambda f, p: torch.func.jvp(torch.func.grad(f), (p,), (direction_at(p),))[1],
        lambda f, p: along(lambda q: reverse(f, q), p, direction_at(p)),
    ),
    "grad of jvp": (
        lambda f, p: torch.func.grad(lambda q: torch.func.jvp(f, (q,), (direction_at(q),))[1])(p),
        lambda f, p: along(lambda q: reverse(f, q), p, direction_at(p)),
    ),
    "jvp of jvp": (
        lambda f, p: torch.func.jvp(
            lambda q: torch.func.jvp(f, (q,), (direction_at(q),))[1], (p,), (normal(*p.shape, seed=9),)
        )[1],
        lambda f, p: (along(lambda q: reverse(f, q), p, direction_at(p)) * normal(*p.shape, seed=9)).sum(),
    ),
    "vmap(grad)": (
        lambda f, p: torch.func.vmap(torch.func.grad(f))(several(p)),
        lambda f, p: loop(lambda q: reverse(f, q), p),
    ),
}


def rows_of_jacobian(function, point):
    count = function(point).numel()
    return torch.stack([reverse(lambda q, i=i: function(q).flatten()[i], point) for i in range(count)])


#: The same of a function with many results.
JACOBIANS = {
    "vmap": (lambda f, p: torch.func.vmap(f)(several(p)), lambda f, p: loop(lambda q: f(q).detach(), p)),
    "jacrev": (lambda f, p: torch.func.jacrev(f)(p).flatten(0, -1 - p.dim()), rows_of_jacobian),
    "jacfwd": (lambda f, p: torch.func.jacfwd(f)(p).flatten(0, -1 - p.dim()), rows_of_jacobian),
    "is_grads_batched": (by_batched_gradients, rows_of_jacobian),
}

RADII = [name for name in ROWS if "radi" in name]
#: What raises: of these rows in these modes, an error whose text has this in it.
REFUSED: list[tuple[list[str], list[str], str]] = [
    (
        RADII,
        ["func.grad", "func.vjp", "func.jvp", "jvp of grad", "func.grad twice", "jvp of jvp", "grad of jvp"],
        "data pointer",
    ),
    (RADII, ["vmap", "vmap(grad)", "jacrev", "jacfwd"], "data pointer|random operation"),
    (RADII, ["forward dual"], "expected no forward-mode tangents"),
    (RADII, ["double backward"], "gradient of radius: expected no further derivative"),
    (RADII, ["is_grads_batched"], "Batching rule not implemented"),
    (RADII, ["compile"], "graph|opaque|trace|non-Tensor"),
]


def refusal(row, mode):
    return next((text for rows, modes, text in REFUSED if row in rows and mode in modes), None)


@pytest.mark.parametrize("mode", [*GRADIENTS, *JACOBIANS])
@pytest.mark.parametrize("row", ROWS)
def test_the_mode_gives_the_derivative_or_an_error_that_is_listed(row, mode):
    function, point = ROWS[row]()
    found, truth = (GRADIENTS | JACOBIANS)[mode]
    subject = weighted(function, point) if mode in GRADIENTS else function
    text = refusal(row, mode)
    if text is not None:
        with pytest.raises((RuntimeError, NotImplementedError, torch._dynamo.exc.TorchDynamoException), match=text):
            found(subject, point)
        return
    expected = truth(subject, point)
    assert expected.abs().max() > 1e-3
    assert_close(mode, found(subject, point), expected, TOLERANCE)


KINDS = {"RNN": lsc.nn.RNN, "GRU": lsc.nn.GRU, "LSTM": lsc.nn.LSTM}
OPTIONS = {"plain": {}, "bidirectional": {"bidirectional": True}, "batch first": {"batch_first": True}}


# One of each cell and each option with every change; compiling takes seconds.
GRAPHS = [
    pytest.param(kind, options, marks=() if k == o else pytest.mark.slow)
    for k, kind in enumerate(KINDS)
    for o, options in enumerate(OPTIONS)
]


@pytest.mark.parametrize(("kind", "options"), GRAPHS)
def test_one_compiled_graph_serves_every_batch_size(kind, options):
    torch.compiler.reset()
    model = seeded(KINDS[kind], 3, 4, 2, **OPTIONS[options])
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (2, 3, 5):
            x = normal(4, batch, 3)
            found = []
            for network in (compiled, model):
                leaf = x.clone().requires_grad_()
                output = network(leaf)[0]
                gradients = torch.autograd.grad(output.square().sum(), [leaf, *model.parameters()])
                found.append([output, *gradients])
            for a, e in zip(*found, strict=True):
                assert torch.equal(a, e)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_exported_programs_compute_the_same(kind, options, strict):
    model = seeded(KINDS[kind], 3, 4, 2, **OPTIONS[options]).eval()
    batch = 0 if model.batch_first else 1
    shapes = {"input": {batch: torch.export.Dim("batch", min=2, max=64)}}
    example, other = (normal(b, 4, 3) if batch == 0 else normal(4, b, 3) for b in (2, 3))
    program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=strict)
    for x in (example, other):
        assert torch.equal(program.module()(x)[0], model(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_a_loop_over_its_members(kind):
    members = []
    for i in range(3):
        torch.manual_seed(i)
        members.append(KINDS[kind](3, 4, 2, **DOUBLE))
    parameters, buffers = torch.func.stack_module_state(members)
    x = normal(4, 2, 3)

    def run(parameters, buffers, x):
        return functional_call(members[0], (parameters, buffers), (x,))[0]

    for places, given in (((0, 0, None), x), ((0, 0, 0), torch.stack((x, 2 * x, 3 * x)))):
        expected = torch.stack([m(given if places[2] is None else given[i])[0] for i, m in enumerate(members)])
        assert torch.equal(torch.func.vmap(run, places)(parameters, buffers, given), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_each_sample_are_those_of_a_loop(kind):
    model = seeded(KINDS[kind], 3, 4, 2)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    samples = normal(5, 4, 3)  # [B, T, I]

    def loss(weights, sample):
        return functional_call(model, weights, (sample,))[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, samples)
    for i, sample in enumerate(samples):
        expected = torch.autograd.grad(model(sample)[0].square().sum(), list(model.parameters()))
        for (name, _), e in zip(model.named_parameters(), expected, strict=True):
            assert_close(name, found[name][i], e, 1e-13)


def test_checkpoints_save_the_states_and_give_the_same_gradients():
    model, x = seeded(lsc.nn.GRU, 3, 4, 2, dropout=0.5), normal(4, 2, 3)
    found = []
    for reentrant in (None, False, True):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        output = model(leaf) if reentrant is None else checkpoint(model, leaf, use_reentrant=reentrant)
        output[0].square().sum().backward()
        found.append([leaf.grad, *(p.grad.clone() for p in model.parameters())])
        model.zero_grad()
    for other in found[1:]:
        assert all(torch.equal(a, e) for a, e in zip(other, found[0], strict=True))


def test_vectorised_jacobians_of_autograd_functional():
    model, x = seeded(lsc.nn.GRU, 3, 4), normal(3, 1, 3)
    found = [torch.autograd.functional.jacobian(lambda q: model(q)[0], x, vectorize=v) for v in (False, True)]
    assert_close("jacobian", found[1], found[0], 1e-13)
