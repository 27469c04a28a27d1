import functools
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
from lsc_ext.operator import (
    ConcatenatedOperator,
    ConstantOperator,
    JacobianOperator,
    MatrixOperator,
    SubmatrixOperator,
)
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


POINTS, SIZE, WIDE = 12, 5, 40


class Spied:
    """tanh(W s) scaled and shifted by each point's own data, which counts its evaluations and remembers their sizes."""

    def __init__(self, points=POINTS, size=SIZE):
        self.weight, self.point = normal(size, size) / size**0.5, normal(points, size, seed=2)
        self.data = [normal(points, size, seed=3), normal(points, 1, seed=4)]
        self.evaluated = []

    def __call__(self, s, shift, scale):
        self.evaluated.append(s.shape[0])
        return torch.tanh(s @ self.weight.T + shift) * scale

    def operator(self):
        return JacobianOperator(self, self.point, data=self.data)

    def dense(self):
        inner = self.point @ self.weight.T + self.data[0]
        return self.data[1].unsqueeze(2) * (1 - inner.tanh().square()).unsqueeze(2) * self.weight


def assert_products(operator, dense, index):
    rows = dense if index is None else dense[index]
    v = normal(rows.shape[0], rows.shape[2], seed=6)
    assert_close("matvec", operator.matvec(v, index), torch.einsum("kij,kj->ki", rows, v), TOLERANCE)
    assert_close("rmatvec", operator.rmatvec(v, index), torch.einsum("kij,ki->kj", rows, v), TOLERANCE)


INDICES = {
    "all": None,
    "in order": list(range(POINTS)),
    "permuted": [7, 0, 11, 3, 5, 1, 2, 4, 6, 8, 9, 10],
    "some": [4, 2, 9],
    "one": [11],
    "repeated": [3, 3, 0, 11, 3],
    "none": [],
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_operator_of_a_function_reads_the_data_of_each_point(index):
    spied = Spied()
    assert_products(spied.operator(), spied.dense(), None if index is None else torch.tensor(index, dtype=torch.int64))


def test_products_are_right_whatever_points_are_asked_for_one_after_the_other():
    spied, generator = Spied(), torch.Generator().manual_seed(0)
    operator, dense = spied.operator(), spied.dense()
    for _ in range(60):
        count = int(torch.randint(1, POINTS + 1, (1,), generator=generator))
        assert_products(operator, dense, torch.randperm(POINTS, generator=generator)[:count])
        if count == POINTS:
            operator.release()
            assert_products(operator, dense, None)


def test_gradients_of_products_reach_the_data():
    spied = Spied()
    weight, point, data = (z.clone().requires_grad_() for z in (spied.weight, spied.point, spied.data[0]))
    spied.weight = weight
    operator = JacobianOperator(spied, point, [weight, weight], [data, spied.data[1]])
    index = torch.tensor([3, 0, 3, 11])
    u, v = normal(4, SIZE, seed=7), normal(4, SIZE, seed=8)
    found = operator.bilinear_gradients(u, v, index)
    spied.point, spied.data = point, [data, spied.data[1]]
    exact = torch.autograd.grad(torch.einsum("ki,kij,kj->", u, spied.dense()[index], v), (weight, point, data))
    assert [id(p) for p in operator.parameters] == [id(weight), id(point), id(data)]
    for actual, wanted in zip(found, exact, strict=True):
        assert_close("gradient", actual, wanted, TOLERANCE)


def test_an_iteration_evaluates_the_function_a_few_times_only():
    spied = Spied(100, WIDE)
    operator = spied.operator()
    found = lsc.spectral_radius(operator, method="krylov", generator=torch.Generator().manual_seed(0))
    assert int(found.num_matvecs.max()) > 40
    assert len(spied.evaluated) <= 2
    operator.matvec(normal(100, WIDE))
    assert len(spied.evaluated) <= 3  # once more: the iteration lets go of what it kept


def test_points_that_finish_at_different_times_cost_few_evaluations_in_turns_of_both_products():
    weight, shift = normal(WIDE, WIDE) / WIDE**0.5, torch.diag(torch.ones(WIDE - 1, dtype=torch.float64), 1)
    evaluated, products = [], []

    def half_of_them_nilpotent(s, kind):
        evaluated.append(s.shape[0])
        return torch.where(kind > 0, torch.tanh(s @ weight.T), 3 * s @ shift.T)

    class Counted(JacobianOperator):
        def _product(self, v, transpose, index):
            products.append((transpose, v.shape[0]))
            return super()._product(v, transpose, index)

    operator = Counted(half_of_them_nilpotent, normal(60, WIDE, seed=2), data=[normal(60, 1, seed=3)])
    lsc.spectral_radius(operator, method="krylov", tol=1e-6, generator=torch.Generator().manual_seed(0))
    assert len(products) > 100
    assert {transpose for transpose, _ in products} == {False, True}
    assert len(evaluated) <= 10
    assert sum(evaluated) <= 4 * 60


def test_release_lets_go_of_the_graph_and_the_next_product_builds_it_again():
    values = []

    def remembered(s):
        values.append(s.tanh())
        return values[-1]

    operator = JacobianOperator(remembered, normal(3, 4))
    kept, values[:] = [weakref.ref(v) for v in values], []
    assert all(ref() is not None for ref in kept)
    operator.release()
    gc.collect()
    assert all(ref() is None for ref in kept)
    assert_close("matrices", operator.to_dense(), torch.diag_embed(1 - normal(3, 4).tanh().square()), TOLERANCE)
    assert len(values) == 1


WRAPPED = {
    "concatenated": lambda one: ConcatenatedOperator([one, one]),
    "submatrix": lambda one: SubmatrixOperator(one, torch.tensor([0, 1]), torch.tensor([1, 3])),
    "constant": lambda one: ConstantOperator(one, 3),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_release_reaches_what_an_operator_is_made_of(kind):
    evaluated = []
    inner = JacobianOperator(lambda s: evaluated.append(len(s)) or s.tanh(), normal(1, 4))
    operator = WRAPPED[kind](inner)
    product = functools.partial(operator.matvec, normal(operator.num_points, operator.columns))
    before = product()
    operator.release()
    evaluated.clear()
    assert torch.equal(product(), before)
    assert evaluated


def test_a_constant_operator_has_one_jacobian_everywhere():
    matrix = normal(1, 4, 4).requires_grad_()
    operator = ConstantOperator(MatrixOperator(matrix), 6)
    assert_products(operator, matrix.detach().expand(6, 4, 4), torch.tensor([5, 0, 5]))
    assert_products(operator, matrix.detach().expand(6, 4, 4), None)
    for method in ("dense", "krylov"):
        found = lsc.spectral_radius(operator, method=method, tol=1e-8)
        exact = torch.linalg.eigvals(matrix).abs().amax()
        assert_close("radius", found.radius, exact.expand(6), 1e-7)
        (actual,), (wanted,) = gradients(found.radius, [matrix]), gradients(6 * exact, [matrix])
        assert_close("gradient", actual, wanted, 1e-6)


def krylov(operator, **options):
    return lsc.spectral_radius(operator, method="krylov", generator=torch.Generator().manual_seed(3), **options)


@pytest.mark.parametrize("points", [1025, 2100])
def test_points_beyond_the_width_of_a_block_have_the_numbers_of_few(points):
    spied = Spied(points, 12)
    whole = krylov(spied.operator())
    assert len(spied.evaluated) <= 6
    few = torch.tensor([0, 1, 1023, 1024, points - 1])
    exact = torch.linalg.eigvals(spied.dense()).abs().amax(1)
    assert (whole.status == 0).all()
    assert_close("radius", whole.radius, exact, 1e-3)
    first = Spied(points, 12)
    first.point, first.data = first.point[:1024], [z[:1024] for z in first.data]
    assert_close("radius of the first", whole.radius[:1024], krylov(first.operator()).radius, 1e-9)
    v = normal(5, 12, seed=9)
    product = spied.operator().matvec(v, few)
    assert_close("product", product, torch.einsum("kij,kj->ki", spied.dense()[few], v), TOLERANCE)


def test_threads_change_no_number():
    spied, threads = Spied(200, WIDE), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(krylov(spied.operator()))
    finally:
        torch.set_num_threads(threads)
    # The iteration's own arithmetic does not depend on threads; torch's matrix products may sum in another order.
    assert_close("radius", found[1].radius, found[0].radius, 1e-9)
    assert torch.equal(found[1].status, found[0].status)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_what_is_raised_inside_a_product_comes_out_and_leaves_the_operator_whole(error):
    class Raising(JacobianOperator):
        left = 5

        def _product(self, v, transpose, index):
            self.left -= 1
            if self.left == 0:
                raise error("inside")
            return super()._product(v, transpose, index)

    spied = Spied(30, WIDE)
    operator = Raising(spied, spied.point, data=spied.data)
    untouched = krylov(spied.operator())
    with pytest.raises(error, match="inside"):
        krylov(operator)
    assert operator.left == 0
    after = krylov(operator)
    assert torch.equal(after.radius, untouched.radius)
    assert torch.equal(after.num_matvecs, untouched.num_matvecs)


def test_a_backward_pass_that_cannot_be_differentiated_is_refused():
    class Detached(torch.autograd.Function):
        @staticmethod
        def forward(ctx, s):
            return 2 * s

        @staticmethod
        def backward(ctx, upstream):
            return 2 * upstream.detach()

    with pytest.raises(RuntimeError, match="function: expected a backward pass that autograd can differentiate"):
        JacobianOperator(Detached.apply, normal(2, 3))


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
    "index of reals": (normal(1, 5), torch.tensor([0.0]), ValueError, r"index: expected integers \(K,\), got torch.fl"),
    "mask": (normal(1, 5), torch.tensor([True]), ValueError, r"index: expected integers \(K,\), got torch.bool"),
    "index negative": (normal(1, 5), torch.tensor([-1]), ValueError, r"index: expected 0 .. 5, got -1"),
}


OPERATORS = {
    "compiled": lambda: operator_of("gru", "time", 0),
    "function": lambda: JacobianOperator(lambda s: 2 * s, normal(6, 5)),
    "concatenated": lambda: ConcatenatedOperator([MatrixOperator(normal(3, 5, 5))] * 2),
    "constant": lambda: ConstantOperator(MatrixOperator(normal(1, 5, 5)), 6),
}


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("case", BAD_PRODUCTS)
def test_products_refuse(case, kind):
    v, index, error, message = BAD_PRODUCTS[case]
    with pytest.raises(error, match=message):
        OPERATORS[kind]().matvec(v, index)


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


@pytest.mark.parametrize("data", [normal(3, 4), torch.tensor(1.0)])
def test_operator_of_a_function_refuses_data_of_other_points(data):
    with pytest.raises(ValueError, match=r"data: expected tensors of shape \(2, ...\), got"):
        JacobianOperator(lambda s, d: s * d, normal(2, 4), data=[data])
