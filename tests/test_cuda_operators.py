"""Jacobian operators on CUDA: products and gradients of bilinear forms by the device code."""

import pytest
import torch
from networks import SPIKING_CELLS, STEP_DIRECTIONS, gradients, normal, stack, states_of

import lsc_ext as lsc
from lsc_ext.operator import (
    ConcatenatedOperator,
    ConstantOperator,
    JacobianOperator,
    MatrixOperator,
    StepOperator,
    SubmatrixOperator,
)
from lsc_ext.reference.forward import Trajectory, run
from lsc_ext.reference.jacobian import jacobians
from lsc_ext.testing import assert_close

STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 3, 2, 4, 5, 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
#: torch's names of the precisions of products, and what each may lose.
PRECISIONS = {"high": 1e-3, "medium": 1e-2}


class Problem:
    """A trajectory by the reference, and the operator of one layer and direction at points of it."""

    def __init__(self, device, cell, direction, hidden=HIDDEN, dtype=torch.float64, points=None, through_states=False):
        model = stack(cell, INPUTS, hidden, LAYERS, gain=2)
        x = normal(STEPS, BATCH, INPUTS)
        self.direction, self.layer = direction, 1 if direction in ("depth", "diagonal") else 0
        self.reference = run(model, x, states_of(model, BATCH), through_states=False)
        weights = [w.detach() for w in self.reference.weights]
        states, gates = lsc.ops.recurrent(
            device.tensor(x), device.tensor(self.reference.states[:, 0]), [device.tensor(w) for w in weights], cell
        )
        if points is None:
            points = torch.cartesian_prod(torch.arange(STEPS), torch.arange(BATCH)).flip(0)
        self.points = points
        self.operator = StepOperator(
            cell,
            *(device.tensor(z).to(dtype).requires_grad_() for z in (x, states)),
            gates.to(dtype),
            [device.tensor(w).to(dtype).requires_grad_() for w in weights],
            self.layer,
            direction,
            points,
            through_states,
        )
        self.device, self.dtype = device, dtype

    def dense(self, trajectory=None):
        """[N, m, n] float64."""
        steps = [jacobians(trajectory or self.reference, self.direction, self.layer, t) for t in range(STEPS)]
        return torch.stack(steps)[self.points[:, 0], self.points[:, 1]]

    def vectors(self, count, seed=3):
        """u [count, m] and v [count, n] of the operator's type."""
        sizes = (self.operator.rows, self.operator.columns)
        return tuple(normal(count, size, seed=seed + i).to(self.dtype) for i, size in enumerate(sizes))

    def assert_products(self, index=None, tolerance=None):
        dense = self.dense().detach()
        dense = dense if index is None else dense[index]
        u, v = self.vectors(dense.shape[0])
        on_device = None if index is None else self.device.tensor(index)
        pushed = self.operator.matvec(self.device.tensor(v), on_device)
        pulled = self.operator.rmatvec(self.device.tensor(u), on_device)
        tolerance = tolerance or TOLERANCE[self.dtype]
        assert_close("J v", pushed, torch.einsum("kij,kj->ki", dense, v.double()), tolerance)
        assert_close("J' u", pulled, torch.einsum("kij,ki->kj", dense, u.double()), tolerance)


@pytest.mark.parametrize(("cell", "direction"), STEP_DIRECTIONS)
def test_products_are_those_of_the_reference_jacobians(cuda_device, cell, direction):
    problem = Problem(cuda_device, cell, direction)
    problem.assert_products()
    problem.assert_products(torch.tensor([5, 0, 0, 3, 5]))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("hidden", [1, 3, 31, 33, 65])
@pytest.mark.parametrize(("cell", "direction"), [("gru", "time"), ("lstm", "diagonal"), ("min_gru", "input")])
def test_products_of_odd_sizes(cuda_device, cell, direction, hidden, dtype):
    Problem(cuda_device, cell, direction, hidden, dtype, torch.tensor([[2, 1], [0, 0], [1, 1]])).assert_products()


@pytest.mark.parametrize("direction", ["time", "diagonal"])
@pytest.mark.parametrize("cell", SPIKING_CELLS)
@pytest.mark.parametrize("hidden", [1, 33])
def test_products_of_derived_states_in_float32(cuda_device, cell, direction, hidden):
    Problem(cuda_device, cell, direction, hidden, torch.float32).assert_products()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("direction", ["time", "depth"])
def test_products_in_less_precision(cuda_device, direction, precision):
    problem = Problem(cuda_device, "lstm", direction, 33, torch.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        problem.assert_products(tolerance=PRECISIONS[precision])
    finally:
        torch.set_float32_matmul_precision(before)


def many_points(count=91):
    return torch.stack((torch.arange(count) % STEPS, torch.arange(count) // STEPS % BATCH), dim=1)


@pytest.mark.parametrize("cell", ["gru", "alif"])
def test_blocks_take_more_than_one_tile(cuda_device, cell):
    problem = Problem(cuda_device, cell, "time", points=many_points())
    problem.assert_products()
    problem.assert_products(torch.arange(90).flip(0))


@pytest.mark.parametrize("cell", ["lstm", "alif"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_product_does_not_depend_on_its_companions(cuda_device, cell, dtype):
    problem = Problem(cuda_device, cell, "diagonal", 33, dtype, many_points(11))
    u, v = (cuda_device.tensor(z) for z in problem.vectors(11))
    index = cuda_device.tensor(torch.tensor([10, 3, 3, 7]))
    cuda_device.reseed(1)
    for product, given in ((problem.operator.matvec, v), (problem.operator.rmatvec, u)):
        whole = product(given)
        assert torch.equal(product(given[index], index), whole[index])
        assert torch.equal(product(given[4:5], index.new_tensor([4])), whole[4:5])


@pytest.mark.parametrize("direction", ["time", "depth", "diagonal", "input"])
def test_no_points_have_no_products_and_zero_gradients(cuda_device, direction):
    for problem, index in (
        (Problem(cuda_device, "lstm", direction, points=torch.zeros(0, 2, dtype=torch.int64)), None),
        (Problem(cuda_device, "lstm", direction), cuda_device.tensor(torch.zeros(0, dtype=torch.int64))),
    ):
        operator = problem.operator
        u, v = (cuda_device.tensor(z) for z in problem.vectors(0))
        assert operator.matvec(v, index).shape == (0, operator.rows)
        assert operator.rmatvec(u, index).shape == (0, operator.columns)
        found = operator.bilinear_gradients(u, v, torch.zeros(0, dtype=torch.int64))
        assert not any(g.any() for g in found)


def bilinear_gradients(problem, index, left, right):
    found = problem.operator.bilinear_gradients(*(problem.device.tensor(z) for z in (left, right)), index)
    assert len(found) == len(problem.operator.parameters)
    return found


def reference_gradients(problem, index, left, right, through_states):
    """Of sum_k left[k]' J[index[k]] right[k], by autograd in float64; in the order of the operator's parameters."""
    given = problem.reference
    x, states, *weights = (z.detach().clone().requires_grad_() for z in (given.x, given.states, *given.weights))
    dense = problem.dense(Trajectory(given.cell, weights, x, states))[index]
    layers = [problem.layer, problem.layer - 1] if problem.direction == "diagonal" else [problem.layer]
    parameters = [w for k in layers for w in weights[5 * k : 5 * k + 5]]
    value = torch.einsum("ki,kij,kj->", left.double(), dense, right.double())
    return gradients(value, [*parameters, *([x, states] if through_states else [])])


def assert_bilinear_gradients(problem, through_states, index):
    left, right = problem.vectors(index.shape[0])
    expected = reference_gradients(problem, index, left, right, through_states)
    found = bilinear_gradients(problem, index, left, right)
    for i, (a, e) in enumerate(zip(found, expected, strict=True)):
        assert_close(f"gradient of parameter {i}", a, e, TOLERANCE[problem.dtype])


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize(("cell", "direction"), STEP_DIRECTIONS)
def test_bilinear_gradients_are_those_of_the_reference(cuda_device, cell, direction, through_states):
    problem = Problem(cuda_device, cell, direction, through_states=through_states)
    assert_bilinear_gradients(problem, through_states, torch.tensor([5, 0, 0, 3, 5, 1]))


@pytest.mark.parametrize("hidden", [1, 33])
@pytest.mark.parametrize(("cell", "direction"), [("gru", "diagonal"), ("lstm", "time"), ("alif", "time")])
def test_bilinear_gradients_in_float32(cuda_device, cell, direction, hidden):
    problem = Problem(cuda_device, cell, direction, hidden, torch.float32, through_states=True)
    assert_bilinear_gradients(problem, True, torch.tensor([4, 1, 1]))


def test_bilinear_gradients_of_many_pairs(cuda_device):
    problem = Problem(cuda_device, "gru", "diagonal", points=many_points())
    assert_bilinear_gradients(problem, False, torch.arange(91).flip(0))


@pytest.mark.parametrize("cell", ["lstm", "alif"])
def test_bilinear_gradients_of_a_pair_do_not_depend_on_its_companions(cuda_device, cell):
    problem = Problem(cuda_device, cell, "diagonal", 33, torch.float32, through_states=True)
    left, right = problem.vectors(6)
    *_, whole = bilinear_gradients(problem, torch.arange(6), left, right)
    cuda_device.reseed(1)
    t, b = problem.points[4]
    *_, alone = bilinear_gradients(problem, torch.tensor([4]), left[4:5], right[4:5])
    # The states before the step of either layer get what this pair hands them, and nothing of the others.
    assert whole[:, t, :, b].any()
    assert torch.equal(whole[0, t, 1, b], alone[0, t, 1, b])
    assert torch.equal(whole[1, t, 1, b], alone[1, t, 1, b])


def test_weights_that_change_later_do_not_reach_the_operator(cuda_device):
    problem = Problem(cuda_device, "lstm", "diagonal")
    with torch.no_grad():
        for parameter in problem.operator.parameters:
            parameter.fill_(torch.nan)
    problem.assert_products()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 5), (2, 33, 31), (11, 65, 33)])
def test_matrices_multiply(cuda_device, shape, dtype):
    matrices = normal(*shape).to(dtype)
    operator = MatrixOperator(cuda_device.tensor(matrices))
    index = torch.arange(shape[0]).flip(0).repeat(2)
    u, v = (normal(2 * shape[0], size, seed=i).to(dtype) for i, size in enumerate(shape[1:]))
    wide = matrices.double()[index]
    pushed, pulled = operator.matvec(cuda_device.tensor(v), index), operator.rmatvec(cuda_device.tensor(u), index)
    assert_close("J v", pushed, torch.einsum("kij,kj->ki", wide, v.double()), TOLERANCE[dtype])
    assert_close("J' u", pulled, torch.einsum("kij,ki->kj", wide, u.double()), TOLERANCE[dtype])
    (gradient,) = operator.bilinear_gradients(cuda_device.tensor(u), cuda_device.tensor(v), index)
    expected = torch.zeros(shape, dtype=torch.float64)
    for k, i in enumerate(index):
        expected[i] += torch.outer(u[k].double(), v[k].double())
    assert_close("gradient", gradient, expected, TOLERANCE[dtype])


def test_operators_of_operators_multiply(cuda_device):
    matrices = normal(3, 4, 4)
    whole = MatrixOperator(cuda_device.tensor(matrices))
    rows, columns = torch.tensor([0, 3]), torch.tensor([1, 2])
    part = SubmatrixOperator(whole, rows, columns)
    assert torch.equal(part.to_dense().cpu(), matrices[:, rows][:, :, columns])
    constant = ConstantOperator(MatrixOperator(cuda_device.tensor(matrices[:1])), 5)
    assert torch.equal(constant.to_dense().cpu(), matrices[:1].expand(5, 4, 4))
    both = ConcatenatedOperator([constant, whole])
    assert torch.equal(both.to_dense().cpu(), torch.cat((matrices[:1].expand(5, 4, 4), matrices)))
    index, v = torch.tensor([7, 2, 2]), normal(3, 4, seed=2)
    dense = torch.cat((matrices[:1].expand(5, 4, 4), matrices))[index]
    assert_close("J v", both.matvec(cuda_device.tensor(v), index), torch.einsum("kij,kj->ki", dense, v), 1e-12)
    left, right = both.bilinear_gradients(cuda_device.tensor(v), cuda_device.tensor(v), index)
    first = torch.outer(v[1], v[1]) + torch.outer(v[2], v[2])
    assert_close("gradient of the first part", left[0], first, 1e-12)
    assert_close("gradient of the second part", right[2], torch.outer(v[0], v[0]), 1e-12)


def test_the_iteration_of_the_host_asks_a_function_on_the_device(cuda_device):
    weight = cuda_device.tensor(normal(40, 40) / 6)
    point = cuda_device.tensor(normal(3, 40, seed=2))
    asked = []

    def function(s):
        asked.append(s.device)
        return torch.tanh(s @ weight.T)

    operator = JacobianOperator(function, point)
    assert operator.backend.name == "cpu"
    out = torch.full((3, 40), torch.nan, dtype=torch.float64)
    v, index = normal(3, 40, seed=3), torch.tensor([2, 0, 2])
    operator.backend.call(
        operator.compiled.apply, False, lsc.ops.buffer(index), 3, lsc.ops.buffer(v), lsc.ops.buffer(out)
    )
    dense = operator.to_dense().cpu()[index]
    assert_close("J v", out, torch.einsum("kij,kj->ki", dense, v), 1e-12)
    assert set(asked) == {point.device}


def test_points_and_indices_of_the_host_are_checked(cuda_device):
    with pytest.raises(ValueError, match=r"points: expected 0 <= t < T and 0 <= b < B, got \(3, 0\)"):
        Problem(cuda_device, "gru", "time", points=torch.tensor([[0, 0], [3, 0]]))
    problem = Problem(cuda_device, "gru", "time")
    with pytest.raises(ValueError, match=r"index: expected 0 .. 5, got -1"):
        problem.operator.matvec(cuda_device.tensor(problem.vectors(1)[1]), torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"layer: expected 1 .. 1, got 0"):
        StepOperator("gru", *arguments_of(problem.operator), 0, "diagonal", problem.points)


def test_tensors_of_several_devices_are_refused(cuda_device):
    x, states, gates, weights = arguments_of(Problem(cuda_device, "gru", "time").operator)
    elsewhere = [w.to("meta") for w in weights]
    with pytest.raises(RuntimeError, match=f"weights: expected tensors on {x.device} as x is, got meta"):
        StepOperator("gru", x, states, gates, elsewhere, 0, "time", torch.zeros(1, 2, dtype=torch.int64))


def arguments_of(operator):
    return operator.x, operator.states, operator.gates, operator._weights
