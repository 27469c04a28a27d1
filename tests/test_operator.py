import gc
import weakref

import pytest
import torch
from networks import (
    CELL_DIRECTIONS,
    RECURRENT_CELLS,
    STEP_DIRECTIONS,
    gradients,
    linear,
    normal,
    stack,
    states_of,
)

import lsc_ext as lsc
from lsc_ext.operator import ConcatenatedOperator, JacobianOperator, MatrixOperator, SubmatrixOperator
from lsc_ext.reference.forward import run
from lsc_ext.reference.jacobian import jacobians
from lsc_ext.testing import TOLERANCES, assert_close

STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 3, 2, 4, 5, 3
READOUT = linear(HIDDEN, 6)
TOLERANCE = TOLERANCES[torch.float64].jacobian


def network(cell, hidden=HIDDEN):
    model = stack(cell, INPUTS, hidden, LAYERS, gain=2)
    return model, normal(STEPS, BATCH, INPUTS), states_of(model, BATCH)


def operator_of(cell, direction, layer=None):
    model, x, states = network(cell)
    return JacobianOperator.from_model(model, x, direction, layer=layer, initial_state=states, readout=READOUT)


def layers_of(direction):
    return {"time": (0, 1, 2), "input": (0,), "output": (2,)}.get(direction, (1, 2))


@pytest.mark.parametrize(("cell", "direction"), CELL_DIRECTIONS)
def test_matrices_are_the_jacobians_of_the_reference_step(cell, direction):
    model, x, states = network(cell)
    trajectory = run(model, x, states, through_states=False)
    expected = torch.cat(
        [jacobians(trajectory, direction, k, t, READOUT) for k in layers_of(direction) for t in range(STEPS)]
    )
    assert_close(direction, operator_of(cell, direction).to_dense(), expected.detach(), TOLERANCE)


@pytest.mark.parametrize(("cell", "direction"), CELL_DIRECTIONS)
def test_transposed_product_is_the_adjoint(cell, direction):
    operator = operator_of(cell, direction)
    u, v = normal(operator.num_points, operator.rows), normal(operator.num_points, operator.columns, seed=2)
    torch.testing.assert_close((u * operator.matvec(v)).sum(1), (operator.rmatvec(u) * v).sum(1))


@pytest.mark.parametrize(("cell", "direction"), CELL_DIRECTIONS)
def test_index_picks_points_in_any_order_and_more_than_once(cell, direction):
    operator = operator_of(cell, direction)
    index = torch.tensor([operator.num_points - 1, 0, 0, 3])
    dense = operator.to_dense()[index]
    v, u = normal(4, operator.columns), normal(4, operator.rows)
    assert_close("matvec", operator.matvec(v, index), (dense @ v.unsqueeze(2)).squeeze(2), TOLERANCE)
    assert_close("rmatvec", operator.rmatvec(u, index), (dense.mT @ u.unsqueeze(2)).squeeze(2), TOLERANCE)


@pytest.mark.parametrize("hidden", [1, 31, 33, 65])
@pytest.mark.parametrize(("cell", "direction"), STEP_DIRECTIONS)
def test_products_in_float32_are_those_in_float64(cell, direction, hidden):
    model, x, _ = network(cell, hidden)
    wide = JacobianOperator.from_model(model, x, direction)
    narrow = JacobianOperator.from_model(model.float(), x.float(), direction)
    v, u = normal(wide.num_points, wide.columns), normal(wide.num_points, wide.rows)
    tolerance = TOLERANCES[torch.float32].jacobian
    assert_close("matvec", narrow.matvec(v.float()), wide.matvec(v), tolerance)
    assert_close("rmatvec", narrow.rmatvec(u.float()), wide.rmatvec(u), tolerance)


@pytest.mark.parametrize(("cell", "direction"), STEP_DIRECTIONS)
def test_bilinear_gradients_are_those_of_the_reference(cell, direction):
    model, x, states = network(cell)
    operator = JacobianOperator.from_model(model, x, direction, layer=layers_of(direction)[0], initial_state=states)
    trajectory = run(model, x, states, through_states=False)
    dense = torch.cat([jacobians(trajectory, direction, layers_of(direction)[0], t) for t in range(STEPS)])
    u, v = normal(operator.num_points, operator.rows), normal(operator.num_points, operator.columns, seed=2)
    parameters = list(model.parameters())
    expected = gradients(torch.einsum("ki,kij,kj->", u, dense, v), parameters)
    found = operator.bilinear_gradients(u, v, torch.arange(operator.num_points))
    pairs = [(p, g) for p, g in zip(operator.parameters, found, strict=True) if p.requires_grad]
    actual = gradients(sum((p * g).sum() for p, g in pairs), parameters)
    for (name, _), a, e in zip(model.named_parameters(), actual, expected, strict=True):
        assert_close(f"gradient of {name}", a, e, TOLERANCE)


def test_points_are_layer_major_then_time_then_batch():
    whole, last = operator_of("gru", "time"), operator_of("gru", "time", 2)
    assert torch.equal(whole.to_dense()[2 * STEPS * BATCH :], last.to_dense())
    assert whole.shape == (LAYERS * STEPS * BATCH, HIDDEN, HIDDEN)


def test_from_model_reads_torch_layers():
    model, x, _ = network("lstm")
    twin = torch.nn.LSTM(INPUTS, HIDDEN, LAYERS, dtype=torch.float64)
    twin.load_state_dict(model.state_dict())
    expected = JacobianOperator.from_model(model, x, "time").to_dense()
    assert torch.equal(JacobianOperator.from_model(twin, x, "time").to_dense(), expected)


def quadratic(weight):
    return lambda s: torch.tanh(s @ weight.T) + s.square()


def test_operator_of_a_function_has_its_jacobians():
    weight, point = normal(4, 4), normal(3, 4, seed=2)
    operator = JacobianOperator(quadratic(weight), point)
    expected = torch.func.vmap(torch.func.jacrev(quadratic(weight)))(point)
    assert_close("matrices", operator.to_dense(), expected, TOLERANCE)
    assert_close("transposed", operator.rmatvec(torch.ones_like(point)), expected.sum(1), TOLERANCE)


def test_operator_of_a_function_may_be_rectangular():
    weight = normal(2, 4)
    operator = JacobianOperator(lambda s: s @ weight.T, normal(3, 4))
    assert operator.shape == (3, 2, 4)
    assert torch.equal(operator.to_dense(), weight.expand(3, 2, 4))


def test_radius_of_a_function_is_that_of_its_matrices():
    operator = JacobianOperator(quadratic(normal(40, 40) / 6), normal(3, 40, seed=2))
    found = lsc.spectral_radius(operator, method="krylov", tol=1e-8)
    exact = torch.linalg.eigvals(operator.to_dense()).abs().amax(1)
    assert_close("radius", found.radius, exact, 1e-7)


def test_radius_of_a_function_is_differentiable_with_respect_to_parameters_and_point():
    weight, point = (normal(6, 6) / 2).requires_grad_(), normal(3, 6, seed=2).requires_grad_()
    operator = JacobianOperator(quadratic(weight), point, [weight])
    actual = torch.autograd.grad(lsc.spectral_radius(operator, method="dense").radius.sum(), (weight, point))
    dense = torch.func.vmap(torch.func.jacrev(quadratic(weight)))(point)
    expected = torch.autograd.grad(torch.linalg.eigvals(dense).abs().amax(1).sum(), (weight, point))
    for a, e in zip(actual, expected, strict=True):
        assert_close("gradient", a, e, 1e-8)


class FailsAtTheSixthProduct(JacobianOperator):
    calls = 0

    def _product(self, v, transpose, index):
        self.calls += 1
        if self.calls > 5:
            raise ZeroDivisionError("inside")
        return super()._product(v, transpose, index)


def test_an_exception_in_a_product_comes_out_of_the_iteration():
    operator = FailsAtTheSixthProduct(lambda s: 2 * s, normal(2, 40))
    with pytest.raises(ZeroDivisionError, match="inside"):
        lsc.spectral_radius(operator, method="krylov")


def test_operator_of_a_function_is_freed():
    operator = JacobianOperator(lambda s: 2 * s, normal(2, 3))
    reference = weakref.ref(operator)
    del operator
    gc.collect()
    assert reference() is None


def test_concatenated_operators_act_each_on_their_own_points():
    parts = [MatrixOperator(normal(count, 3, 4, seed=count)) for count in (2, 1, 3)]
    whole = ConcatenatedOperator(parts)
    dense = torch.cat([part.matrices for part in parts])
    index = torch.tensor([5, 0, 2])
    assert torch.equal(whole.to_dense(), dense)
    v, u = normal(3, 4), normal(6, 3)
    assert_close("matvec", whole.matvec(v, index), (dense[index] @ v.unsqueeze(2)).squeeze(2), TOLERANCE)
    assert_close("rmatvec", whole.rmatvec(u), (dense.mT @ u.unsqueeze(2)).squeeze(2), TOLERANCE)


def test_concatenated_operators_have_their_parts_radii():
    parts = [MatrixOperator(normal(count, 4, 4, seed=count)) for count in (2, 1)]
    found = lsc.spectral_radius(ConcatenatedOperator(parts), method="dense")
    exact = torch.cat([torch.linalg.eigvals(part.matrices).abs().amax(1) for part in parts])
    assert_close("radius", found.radius, exact, 1e-10)


def test_operators_of_different_shapes_do_not_concatenate():
    with pytest.raises(ValueError, match=r"parts: expected Jacobians of one shape, got \(3, 4\) and \(3, 3\)"):
        ConcatenatedOperator([MatrixOperator(normal(1, 3, 4)), MatrixOperator(normal(1, 3, 3))])


def test_submatrix_has_the_chosen_rows_and_columns():
    whole, rows, columns = MatrixOperator(normal(2, 4, 5)), torch.tensor([0, 3]), torch.tensor([1, 2])
    operator = SubmatrixOperator(whole, rows, columns)
    expected = whole.matrices[:, rows][:, :, columns]
    assert torch.equal(operator.to_dense(), expected)
    u = normal(2, 2)
    assert_close("rmatvec", operator.rmatvec(u), (expected.mT @ u.unsqueeze(2)).squeeze(2), TOLERANCE)


@pytest.mark.parametrize("cell", RECURRENT_CELLS)
def test_only_a_diagonal_recurrence_is_called_diagonal(cell):
    assert operator_of(cell, "time", 0).is_diagonal == (cell in ("ind_rnn", "min_gru"))


BAD_FROM_MODEL = {
    "direction": ({"direction": "up"}, ValueError, "direction: expected one of time, .*, got 'up'"),
    "layer": ({"direction": "depth", "layer": 0}, ValueError, r"layer: expected one of \[1, 2\] .*, got 0"),
    "readout": ({"direction": "output"}, ValueError, "readout: expected a module for direction 'output', got None"),
}


@pytest.mark.parametrize("case", BAD_FROM_MODEL)
def test_from_model_refuses(case):
    options, error, message = BAD_FROM_MODEL[case]
    model, x, _ = network("gru")
    with pytest.raises(error, match=message):
        JacobianOperator.from_model(model, x, **options)


def test_from_model_refuses_models_of_another_kind():
    with pytest.raises(TypeError, match="model: expected a torch.nn.RNN, .*, got Linear"):
        JacobianOperator.from_model(linear(3, 3), normal(2, 2, 3), "time")


def test_from_model_refuses_depth_of_a_single_layer():
    with pytest.raises(ValueError, match="direction: .*'depth' with one layer"):
        JacobianOperator.from_model(stack("gru", 3, 4, 1), normal(2, 2, 3), "depth")


BAD_PRODUCTS = {
    "shape": (normal(2, 3), None, ValueError, r"v: expected shape \(6, 5\), got \(2, 3\)"),
    "indexed shape": (normal(6, 5), torch.tensor([0]), ValueError, r"v: expected shape \(1, 5\), got \(6, 5\)"),
    "dtype": (normal(6, 5).float(), None, TypeError, "v: expected torch.float64 on cpu, got torch.float32"),
    "index too large": (normal(1, 5), torch.tensor([6]), ValueError, r"index: expected 0 .. 5, got 6"),
    "index negative": (normal(1, 5), torch.tensor([-1]), ValueError, r"index: expected 0 .. 5, got -1"),
}


@pytest.mark.parametrize("case", BAD_PRODUCTS)
def test_products_refuse(case):
    v, index, error, message = BAD_PRODUCTS[case]
    with pytest.raises(error, match=message):
        operator_of("gru", "time", 0).matvec(v, index)


BAD_FUNCTIONS = {
    "point": (lambda s: s, normal(3), ValueError, r"point: expected shape \(N, n\), got \(3,\)"),
    "result": (lambda s: s.sum(1), normal(2, 3), ValueError, r"function: expected a result of shape \(2, m\), got"),
    "dtype": (lambda s: s, normal(2, 3).half(), TypeError, "dtype: expected torch.float32 or torch.float64"),
}


@pytest.mark.parametrize("case", BAD_FUNCTIONS)
def test_operator_of_a_function_refuses(case):
    function, point, error, message = BAD_FUNCTIONS[case]
    with pytest.raises(error, match=message):
        JacobianOperator(function, point)
