import pytest
import torch
from networks import (
    CELL_NAMES,
    DTYPES,
    SIZES,
    SMOOTH_CELLS,
    SPIKING_CELLS,
    TORCH_KINDS,
    flat,
    gradients,
    linear,
    normal,
    stack,
    states_of,
)
from torch.autograd import forward_ad
from torch.func import functional_call

import lsc_ext as lsc
from lsc_ext import ops, reference
from lsc_ext.cells import CELLS
from lsc_ext.frobenius import frobenius_radius
from lsc_ext.nn import flat_weights
from lsc_ext.operator import MatrixOperator
from lsc_ext.testing import TOLERANCES, assert_close


def arguments(cell, *, time=3, batch=2, inputs=2, hidden=3, layers=2, dtype=torch.float64):
    """x, initial and weights of a small stack."""
    model = stack(cell, inputs, hidden, layers, dtype=dtype, gain=1.5)
    x = normal(time, batch, inputs, dtype=dtype)
    initial = normal(layers, len(CELLS[cell].states), batch, hidden, seed=2, dtype=dtype)
    return x, initial, [w.detach() for w in flat_weights(model, layers)]


def as_function(cell, weights):
    """The operator's states as a function of tensors that have elements, and those tensors' places."""
    present = [i for i, w in enumerate(weights) if w.numel() > 0]

    def function(x, initial, *given):
        full = [w.new_empty(0) for w in weights]
        for i, w in zip(present, given, strict=True):
            full[i] = w
        return ops.recurrent(x, initial, full, cell)[0]

    return function, [weights[i] for i in present]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_forward_and_gradients_equal_torch_nn(kind, hidden, bias, dtype):
    ours, theirs, options = TORCH_KINDS[kind]
    inputs, batch = 2 + hidden // 3, 5
    truth = theirs(inputs, hidden, 2, bias=bias, dtype=torch.float64, **options)
    with torch.no_grad():
        for i, parameter in enumerate(truth.parameters()):
            parameter.copy_(1.5 * normal(*parameter.shape, seed=i) / hidden**0.5).copy_(parameter.to(dtype))
    model = ours(inputs, hidden, 2, bias=bias, dtype=dtype, **options)
    model.load_state_dict({k: v.to(dtype) for k, v in truth.state_dict().items()})
    x = normal(4, batch, inputs, dtype=dtype).requires_grad_()
    start = tuple(s.requires_grad_() for s in states_of(model, batch))
    tolerance = TOLERANCES[dtype]

    def run(network, dtype):
        leaves = [x.detach().to(dtype).requires_grad_(), *(s.detach().to(dtype).requires_grad_() for s in start)]
        output, last = network(leaves[0], leaves[1] if len(leaves) == 2 else tuple(leaves[1:]))
        ends = [output, *((last,) if isinstance(last, torch.Tensor) else last)]
        loss = sum((end * normal(*end.shape, seed=7 + i, dtype=dtype)).sum() for i, end in enumerate(ends))
        return ends, gradients(loss, [*leaves, *network.parameters()])

    (actual, actual_gradients), (expected, expected_gradients) = run(model, dtype), run(truth, torch.float64)
    for name, a, e in zip(("output", "h", "c"), actual, expected, strict=False):
        assert_close(name, a, e, tolerance.forward)
    names = ["x", *CELLS[kind].states, *(name for name, _ in model.named_parameters())]
    for name, a, e in zip(names, actual_gradients, expected_gradients, strict=True):
        assert_close(f"gradient of {name}", a, e, tolerance.gradient)


STRIDED = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda t: torch.stack((t, t + 1), dim=-1)[..., 0],
    "offset": lambda t: torch.cat((t[:1], t))[1:],
}


@pytest.mark.parametrize("how", STRIDED)
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_strides_of_the_arguments_do_not_matter(cell, how):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    plain = [t.clone().requires_grad_() for t in (x, initial, *present)]
    strided = [STRIDED[how](t.clone()).detach().requires_grad_() for t in (x, initial, *present)]
    expected, actual = function(*plain), function(*strided)
    assert torch.equal(actual, expected)
    weight = normal(*expected.shape, seed=9)
    for a, e in zip(gradients(actual * weight, strided), gradients(expected * weight, plain), strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_expanded_arguments_equal_their_copies(cell):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    wide, start, upstream = x[:, :1].expand(-1, 2, -1), initial[:, :, :1].expand(-1, -1, 2, -1), normal(1)
    expected = function(wide.contiguous(), start.contiguous(), *present)
    leaf = start.detach().contiguous().requires_grad_()
    actual = function(wide, leaf.expand_as(leaf), *present)
    assert torch.equal(actual, expected)
    (gradient,) = torch.autograd.grad(actual, leaf, upstream.expand_as(actual))
    (copied,) = torch.autograd.grad(function(wide, leaf, *present), leaf, upstream.expand_as(actual).contiguous())
    assert torch.equal(gradient, copied)


@pytest.mark.parametrize(("time", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_no_steps_or_no_sequences_leave_zero_gradients(cell, time, batch):
    x, initial, weights = arguments(cell, time=time, batch=batch)
    function, present = as_function(cell, weights)
    leaves = [t.requires_grad_() for t in (x, initial, *present)]
    states = function(*leaves)
    assert states.shape == (2, time + 1, len(CELLS[cell].states), batch, 3)
    assert torch.equal(states[:, 0], initial)
    found = gradients(states, leaves)
    assert torch.equal(found[1], torch.ones_like(initial))
    assert all(not g.any() for g in found[2:])


@pytest.mark.parametrize("cell", SMOOTH_CELLS)
def test_first_derivatives_pass_gradcheck_in_reverse_and_forward_mode(cell):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    leaves = [t.requires_grad_() for t in (x, initial, *present)]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("cell", SMOOTH_CELLS)
def test_second_derivatives_pass_gradgradcheck(cell):
    x, initial, weights = arguments(cell, time=2)
    function, present = as_function(cell, weights)
    leaves = [t.requires_grad_() for t in (x, initial, *present)]
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_third_derivatives_are_those_of_the_torch_step():
    x, initial, weights = arguments("gru", time=2)
    found = []
    for function in (ops.recurrent, ops.torch_trajectory):
        leaf = x.clone().requires_grad_()
        result = function(leaf, initial, weights, "gru")
        value = (result[0] if isinstance(result, tuple) else result).pow(3).sum()
        for _ in range(3):
            (value,) = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)
        found.append(value.detach())
    assert_close("third derivative", *found, 1e-11)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_backward_of_strided_states_and_gates_is_that_of_their_copies(cell):
    x, initial, weights = arguments(cell)
    states, gates = ops.recurrent(x, initial, weights, cell)
    upstream = normal(*states.shape, seed=9)
    expected = torch.ops.lsc_ext.recurrent_backward(upstream, x, states, gates, weights, cell)
    strided = [STRIDED["sliced"](t) for t in (upstream, x, states, gates)]
    actual = torch.ops.lsc_ext.recurrent_backward(*strided, weights, cell)
    for a, e in zip([*actual[:2], *actual[2]], [*expected[:2], *expected[2]], strict=True):
        assert torch.equal(a, e)


def test_a_second_derivative_of_a_radius_raises_for_whichever_parameter_it_is_taken():
    model, x = stack("gru", 2, 4, 2), normal(2, 2, 2)
    radius = lsc.radii(model, x, directions=("time",), through_states=True)["time"].radius.sum()
    parameters = [p for name, p in model.named_parameters() if "l0" in name]
    first = torch.autograd.grad(radius, parameters, create_graph=True)
    for parameter in parameters:
        with pytest.raises(RuntimeError, match="gradient of radius: expected no further derivative"):
            torch.autograd.grad(sum(f.sum() for f in first), parameter, retain_graph=True)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_forward_operator_passes_opcheck(cell):
    x, initial, weights = arguments(cell)
    leaves = [t.requires_grad_() for t in (x, initial)]
    torch.library.opcheck(torch.ops.lsc_ext.recurrent.default, (*leaves, [w.requires_grad_() for w in weights], cell))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_backward_operator_passes_opcheck(cell):
    x, initial, weights = arguments(cell)
    states, gates = ops.recurrent(x, initial, weights, cell)
    upstream = normal(*states.shape, seed=9)
    torch.library.opcheck(torch.ops.lsc_ext.recurrent_backward.default, (upstream, x, states, gates, weights, cell))


def directional_difference(function, leaves, directions, step=1e-6):
    moved = [function(*(t + sign * step * d for t, d in zip(leaves, directions, strict=True))) for sign in (1, -1)]
    return (moved[0] - moved[1]) / (2 * step)


def tangent_of(function, leaves, directions):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(leaves, directions, strict=True)]
        return forward_ad.unpack_dual(function(*duals)).tangent


@pytest.mark.parametrize("mode", ["make_dual", "jvp"])
@pytest.mark.parametrize("cell", SMOOTH_CELLS)
def test_forward_mode_of_the_operator_is_the_finite_difference(cell, mode):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    leaves = [x, initial, *present]
    directions = [normal(*t.shape, seed=20 + i) for i, t in enumerate(leaves)]
    if mode == "make_dual":
        tangent = tangent_of(function, leaves, directions)
    else:
        _, tangent = torch.func.jvp(function, tuple(leaves), tuple(directions))
    assert tangent is not None
    assert_close("tangent", tangent, directional_difference(function, leaves, directions), 1e-7)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_func_grad_of_the_operator_is_its_gradient(cell):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    places = tuple(range(2 + len(present)))
    found = torch.func.grad(lambda *given: function(*given).square().sum(), argnums=places)(x, initial, *present)
    leaves = [t.clone().requires_grad_() for t in (x, initial, *present)]
    for a, e in zip(found, gradients(function(*leaves).square(), leaves), strict=True):
        torch.testing.assert_close(a, e)


def loop(cell, weights):
    """The same function by the reference."""
    present = [i for i, w in enumerate(weights) if w.numel() > 0]

    def function(x, initial, *given):
        full = [w.new_empty(0) for w in weights]
        for i, w in zip(present, given, strict=True):
            full[i] = w
        return reference.recurrent(x, initial, full, cell)

    return function


@pytest.mark.parametrize("cell", SPIKING_CELLS)
def test_derivatives_of_spiking_cells_are_those_of_autograd_with_the_same_surrogate(cell):
    x, initial, weights = arguments(cell, time=6, hidden=7)
    x *= 3
    ours, present = as_function(cell, weights)
    theirs = loop(cell, weights)
    inputs = [x, initial, *present]
    directions = tuple(normal(*t.shape, seed=20 + i) for i, t in enumerate(inputs))
    results = []
    for function in (ours, theirs):
        leaves = [t.clone().requires_grad_() for t in inputs]
        states = function(*leaves)
        assert states[:, 1:, 0].count_nonzero() > 5
        upstream = normal(*states.shape, seed=9).requires_grad_()
        first = torch.autograd.grad(states, leaves, upstream, create_graph=True)
        inner = sum((f * d).sum() for f, d in zip(first, directions, strict=True))
        second = gradients(inner, [upstream, *leaves])
        tangent = torch.func.jvp(function, tuple(inputs), directions)[1]
        results.append({"states": states, "tangent": tangent, **dict(enumerate([*first, *second]))})
    for name, expected in results[1].items():
        assert_close(str(name), results[0][name], expected, TOLERANCES[torch.float64].gradient)


def right_or_refused(compute, expected, tolerance=1e-6):
    """What a transform may do: give the right numbers or raise."""
    try:
        actual = compute()
    except (RuntimeError, NotImplementedError):
        return
    assert actual is not None, "the transform lost the derivative"
    assert_close("transformed", actual, expected, tolerance)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_vmap_over_anything_is_a_loop(cell):
    x, initial, weights = arguments(cell)
    function, present = as_function(cell, weights)
    inputs = [x, initial, *present]
    several = [torch.stack((t, 1.1 * t, 0.9 * t)) for t in inputs]
    places = [(0,), (1,), (0, 1), (2,), tuple(range(len(inputs)))]
    for mapped in places:
        dims = tuple(0 if i in mapped else None for i in range(len(inputs)))
        given = [s if i in mapped else t for i, (s, t) in enumerate(zip(several, inputs, strict=True))]
        expected = [function(*(g[k] if d == 0 else g for g, d in zip(given, dims, strict=True))) for k in range(3)]
        assert torch.equal(torch.func.vmap(function, dims)(*given), torch.stack(expected))


@pytest.mark.parametrize("dim", [1, 2])
def test_vmap_over_another_dimension_and_twice(dim):
    x, initial, weights = arguments("lstm", time=3, batch=2, inputs=2)
    several = torch.stack((x, 2 * x, 3 * x), dim=dim)

    def run(each):
        return ops.recurrent(each, initial, weights, "lstm")[0]

    expected = torch.stack([run(x), run(2 * x), run(3 * x)])
    assert torch.equal(torch.func.vmap(run, dim)(several), expected)
    twice = torch.func.vmap(torch.func.vmap(run, dim))(torch.stack((several, several + 1)))
    assert torch.equal(twice[0], expected)


def test_func_hessian_of_the_operator_is_that_of_autograd():
    x, initial, weights = arguments("gru", time=2, batch=1)

    def loss(each):
        return ops.recurrent(each, initial, weights, "gru")[0].square().sum()

    expected = torch.autograd.functional.hessian(loss, x)
    assert_close("hessian", torch.func.hessian(loss)(x), expected, 1e-11)
    assert_close("jacrev twice", torch.func.jacrev(torch.func.jacrev(loss))(x), expected, 1e-11)
    assert expected.any()


LAYERS = {"RNN": lsc.nn.RNN, "GRU": lsc.nn.GRU, "LSTM": lsc.nn.LSTM}


@pytest.mark.parametrize("mode", ["make_dual", "jvp"])
@pytest.mark.parametrize("kind", LAYERS)
def test_forward_mode_of_a_layer_is_the_finite_difference(kind, mode):
    model, x = LAYERS[kind](2, 3, 2, dtype=torch.float64), normal(3, 2, 2)
    names = [name for name, _ in model.named_parameters()]
    leaves = [x, *(p.detach() for p in model.parameters())]
    directions = [normal(*t.shape, seed=20 + i) for i, t in enumerate(leaves)]

    def function(x, *weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))[0]

    if mode == "make_dual":
        tangent = tangent_of(function, leaves, directions)
    else:
        _, tangent = torch.func.jvp(function, tuple(leaves), tuple(directions))
    assert tangent is not None
    assert_close("tangent", tangent, directional_difference(function, leaves, directions), 1e-7)


def layer_radius(through_states, direction="time"):
    model, x = stack("gru", 2, 4, 2, gain=2), normal(3, 2, 2)
    name = "weight_hh_l1" if direction != "input" else "weight_ih_l0"

    def function(weight):
        with_weight = {name: weight}
        read = torch.func.functional_call

        class Model(torch.nn.Module):
            def forward(self, x):
                return lsc.radii(
                    self.inner, x, directions=(direction,), through_states=through_states, readout=linear(4, 3)
                )[direction].radius.mean()

        wrapped = Model()
        wrapped.inner = model
        return read(wrapped, {f"inner.{k}": v for k, v in with_weight.items()}, (x,))

    return function, model.get_parameter(name).detach().clone()


def matrix_radius(method):
    return lambda a: lsc.spectral_radius(
        a, method=method, tol=1e-8, generator=torch.Generator().manual_seed(0)
    ).radius.mean(), normal(2, 6, 6)


DIFFERENTIABLE_RADII = {
    "spectral_radius dense": lambda: matrix_radius("dense"),
    "spectral_radius krylov": lambda: matrix_radius("krylov"),
    "frobenius_radius": lambda: (lambda a: frobenius_radius(MatrixOperator(a)).radius.mean(), normal(2, 6, 4)),
    "radii time": lambda: layer_radius(False),
    "radii time through states": lambda: layer_radius(True),
    "radii input": lambda: layer_radius(False, "input"),
}


def expected_derivative(function, point, direction):
    leaf = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    return gradient, (gradient * direction).sum()


@pytest.mark.parametrize("name", DIFFERENTIABLE_RADII)
@pytest.mark.parametrize("with_grad", [True, False])
def test_no_radius_has_a_silently_missing_tangent_under_make_dual(name, with_grad):
    function, point = DIFFERENTIABLE_RADII[name]()
    direction = normal(*point.shape, seed=30)
    _, expected = expected_derivative(function, point, direction)
    leaf = point.requires_grad_(with_grad)
    right_or_refused(lambda: tangent_of(function, [leaf], [direction]), expected)


@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap", "jacrev", "jacfwd"])
@pytest.mark.parametrize("name", DIFFERENTIABLE_RADII)
def test_a_function_transform_of_a_radius_is_right_or_refused(name, transform):
    function, point = DIFFERENTIABLE_RADII[name]()
    direction = normal(*point.shape, seed=30)
    gradient, along = expected_derivative(function, point, direction)
    if transform == "jvp":
        right_or_refused(lambda: torch.func.jvp(function, (point,), (direction,))[1], along)
    elif transform == "vmap":
        several = torch.stack((point, 2 * point))
        expected = torch.stack([function(each).detach() for each in several])
        right_or_refused(lambda: torch.func.vmap(function)(several), expected)
    else:
        right_or_refused(lambda: getattr(torch.func, transform)(function)(point), gradient)


def test_double_backward_of_a_radius_raises():
    matrices = normal(2, 6, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(lsc.spectral_radius(matrices).radius.sum(), matrices, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of radius: expected no further derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("kind", LAYERS)
def test_compiled_layer_in_one_graph_gives_the_same_numbers(kind):
    model, x = LAYERS[kind](3, 5, 2), normal(4, 2, 3, dtype=torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, actual = model(x)[0], compiled(x)[0]
    assert torch.equal(actual, expected)
    for a, e in zip(gradients(actual, model.parameters()), gradients(expected, model.parameters()), strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_number_is_the_same_bit_for_bit_for_one_and_two_threads(cell):
    model, x = stack(cell, 9, 33, 2, dtype=torch.float32), normal(6, 13, 9, dtype=torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output, _ = model(x)
            found = gradients(output.square(), model.parameters())
            report = lsc.radii(model, x, generator=torch.Generator().manual_seed(0), method="krylov")
            radius = [report[d].radius.detach() for d in report]
            results.append(flat([output.detach(), *found, *radius]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_sequence_has_the_same_states_whatever_its_companions(cell):
    model, x = stack(cell, 9, 33, 2, dtype=torch.float32), normal(6, 13, 9, dtype=torch.float32)
    assert torch.equal(model(x)[0][:, 3:4], model(x[:, 3:4])[0])


def test_mixed_dtypes_are_refused():
    x, initial, weights = arguments("gru")
    with pytest.raises(TypeError, match="expected torch.float64"):
        ops.recurrent(x, initial, [w.float() for w in weights], "gru")


def test_an_unknown_cell_is_refused():
    x, initial, weights = arguments("gru")
    with pytest.raises(ValueError, match="cell: .*'elman'"):
        ops.recurrent(x, initial, weights, "elman")


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (2, 1, 2, 4), (2, 2, 3), (0, 1, 2, 3)])
def test_initial_states_of_another_shape_are_refused(shape):
    x, _, weights = arguments("gru")
    with pytest.raises(ValueError, match=r"initial: expected shape \(L, 1, 2, H\)|weight_ih: expected"):
        ops.recurrent(x, normal(*shape), weights, "gru")


def test_half_precision_is_refused():
    x, initial, weights = arguments("gru")
    with pytest.raises(TypeError, match=r"dtype: expected torch.float32 or torch.float64, got torch.float16"):
        ops.recurrent(x.half(), initial.half(), [w.half() for w in weights], "gru")


@pytest.mark.parametrize("cell", SMOOTH_CELLS)
def test_forward_mode_of_forward_mode_is_the_second_difference(cell):
    model, x = stack(cell, 3, 4, 2, gain=1.5), normal(4, 2, 3)
    v, w, step = normal(4, 2, 3, seed=5), normal(4, 2, 3, seed=6), 1e-4

    def loss(x):
        return model(x)[0].square().sum()

    def slope(x):
        return torch.func.jvp(loss, (x,), (v,))[1]

    nested = torch.func.jvp(slope, (x,), (w,))[1]
    difference = (slope(x + step * w) - slope(x - step * w)) / (2 * step)
    assert_close("second derivative", nested, difference.detach(), 1e-5)
