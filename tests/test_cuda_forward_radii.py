"""The forward pass and the radii in one launch: the bits of two passes, and what happens where it goes wrong."""

import pytest
import torch
from emulated import CudaDevice, emulated_cuda, mishap
from networks import CELL_DIRECTIONS, normal, stack, states_of

import lsc_ext as lsc
from lsc_ext import backends
from lsc_ext.estimate import Status, concatenate
from lsc_ext.estimators import Found, run_krylov
from lsc_ext.fused import DIRECTIONS, Points, forward_radii, why_not_fused
from lsc_ext.nn.recurrent import read_weights
from lsc_ext.operator import StepOperator

STEPS, BATCH, INPUTS = 3, 2, 4
FUSED = [(cell, direction) for cell, direction in CELL_DIRECTIONS if direction in DIRECTIONS]


class Problem:
    """A stack on a device and all points of a direction."""

    def __init__(self, device, cell, direction, hidden=5, layers=2, batch=BATCH, steps=STEPS, dtype=torch.float64):
        model = stack(cell, INPUTS, hidden, layers, gain=2)
        weights = [w if w is not None else torch.empty(0) for w in read_weights(model, range(layers))]
        initial = torch.stack(list(states_of(model, batch)), dim=1)

        def place(z):
            return device.tensor(z.detach()).to(dtype)

        self.cell, self.direction, self.device = cell, direction, device
        self.weights = [place(w) for w in weights]
        self.x, self.initial = place(normal(steps, batch, INPUTS)), place(initial)
        first = 0 if direction == "time" else 1
        self.points = torch.cartesian_prod(torch.arange(first, layers), torch.arange(steps), torch.arange(batch))

    def fused(self, vectors=None, **options):
        points = Points(self.points, vectors)
        return forward_radii(self.x, self.initial, self.weights, self.cell, points, direction=self.direction, **options)

    def apart_states(self):
        return lsc.ops.recurrent(self.x, self.initial, self.weights, self.cell)[0]

    def apart(self, num_matvecs=600, tol=1e-3, seed=0):
        """The same by two passes: states, gates and the radius, status and products of every point."""
        states, gates = lsc.ops.recurrent(self.x, self.initial, self.weights, self.cell)
        parts, lefts = [], []
        for layer in self.points[:, 0].unique().tolist():
            mine = (self.points[:, 0] == layer).nonzero().squeeze(1)
            operator = StepOperator(
                self.cell, self.x, states, gates, self.weights, layer, self.direction, self.points[mine, 1:]
            )
            parts.append(run_krylov(operator, num_matvecs, tol, seed, vectors=True, first=int(mine[0])))
            lefts.append(
                run_krylov(
                    operator,
                    num_matvecs,
                    tol,
                    seed + 1,
                    vectors=True,
                    targets=parts[-1][0].eigenvalue.to(torch.complex128),
                    first=int(mine[0]),
                )
            )
        return (
            states,
            gates,
            *(Found(concatenate([e for e, _ in p]), torch.cat([v for _, v in p])) for p in (parts, lefts)),
        )


def assert_same_estimate(found, wanted, chosen=...):
    for name in ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition"):
        part, other = getattr(found, name)[chosen], getattr(wanted, name)[chosen]
        if part.is_complex():
            part, other = torch.view_as_real(part), torch.view_as_real(other)
        assert torch.equal(part.nan_to_num(nan=-1), other.nan_to_num(nan=-1)), name


def assert_same(problem, **options):
    states, gates, found = problem.fused(pairs=True, **options)
    wanted_states, wanted_gates, wanted, wanted_left = problem.apart(**options)
    assert torch.equal(states, wanted_states)
    assert torch.equal(gates, wanted_gates)
    assert_same_estimate(found.estimate, wanted.estimate)
    assert torch.equal(found.right, wanted.right)
    radius = wanted.estimate.radius
    chosen = radius.isfinite() & (radius > 0)
    assert_same_estimate(found.left_estimate, wanted_left.estimate, chosen)
    assert torch.equal(found.left[chosen], wanted_left.right[chosen])


@pytest.mark.parametrize(("cell", "direction"), FUSED)
def test_every_cell_has_the_bits_of_two_passes(cuda_device, cell, direction):
    assert_same(Problem(cuda_device, cell, direction))


SIZES = [(hidden, precision) for hidden in (1, 3, 31, 33, 65) for precision in ("highest", "high", "medium")]


@pytest.mark.parametrize(
    ("hidden", "precision"),
    [pytest.param(*size, marks=pytest.mark.slow if size[0] == 65 and size[1] != "highest" else ()) for size in SIZES],
)
def test_sizes_and_precisions(cuda_device, hidden, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        problem = Problem(cuda_device, "gru", "time", hidden, dtype=torch.float32)
        problem.points = problem.points[::3]
        assert_same(problem)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("batch", [1, 9, pytest.param(65, marks=pytest.mark.slow)])
def test_batches(cuda_device, batch):
    problem = Problem(cuda_device, "lstm", "time", 17, 1, batch)
    problem.points = problem.points[:: 1 + batch // 16]
    assert_same(problem)


def test_it_is_one_launch(cuda_device):
    problem = Problem(cuda_device, "gru", "time")
    problem.fused()
    functions = backends.backend_of(problem.x).functions
    before = functions.launches()
    problem.fused()
    assert functions.launches() == before + 1
    problem.apart()
    assert functions.launches() > before + 4


def test_the_order_of_threads_and_of_points_changes_nothing(cuda_device):
    problem = Problem(cuda_device, "gru", "time", 17)
    first = problem.fused()[2].estimate
    shuffled = torch.randperm(len(problem.points))
    problem.points = problem.points[shuffled]
    for seed in (1, 2):
        cuda_device.reseed(seed)
        again = problem.fused(vectors=shuffled)[2].estimate
        assert torch.equal(again.radius, first.radius[shuffled.to(first.radius.device)])
        assert torch.equal(again.num_matvecs, first.num_matvecs[shuffled.to(first.radius.device)])


def test_no_points_is_a_forward_pass(cuda_device):
    problem = Problem(cuda_device, "gru", "time")
    problem.points = problem.points[:0]
    states, _, found = problem.fused()
    assert torch.equal(states, problem.apart_states())
    assert found.estimate.radius.shape == (0,)


def test_states_that_are_not_finite_reach_their_points_alone(cuda_device):
    problem = Problem(cuda_device, "gru", "time")
    problem.x[1, 1] = float("nan")
    found = problem.fused()[2].estimate
    _, t, b = problem.points.unbind(1)
    reached = ((t >= 1) & (b == 1)).to(found.status.device)
    assert torch.equal(found.status == Status.nonfinite, reached)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 17}, "more than 16 layers"),
        ({"hidden": 600}, "weights that the blocks of the device do not hold"),
        ({"steps": 0}, "no steps"),
    ],
)
def test_what_one_launch_cannot_hold_says_why(options, words):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", "time", **options)
        assert why_not_fused(problem.x, problem.initial, "gru") == words
        with pytest.raises(ValueError, match=f"expected a stack that one launch can hold, got {words}"):
            problem.fused()


@pytest.mark.parametrize("point", [(2, 0, 0), (0, 3, 0), (0, 0, 2), (-1, 0, 0)])
def test_points_outside_are_refused(cuda_device, point):
    problem = Problem(cuda_device, "gru", "time")
    problem.points = torch.tensor([point])
    with pytest.raises(ValueError, match=r"points: expected \[N, 3\] of layers 0 .. 1, steps below 3"):
        problem.fused()
    problem.direction = "input"
    with pytest.raises(ValueError, match="direction: expected time, depth or diagonal, got 'input'"):
        problem.fused()


def test_a_barrier_that_another_launch_left_halfway_is_an_error(monkeypatch):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", "time")
        halfway = torch.full((2,), 99, dtype=torch.int32)
        monkeypatch.setattr(backends.CudaBackend, "_barrier", lambda backend: halfway)
        with pytest.raises(RuntimeError, match="grid barrier: expected a state that was zero once"):
            problem.fused()


@pytest.mark.parametrize("block", [0, 3, 7])
def test_a_block_that_stalls_holds_up_but_changes_nothing(block):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", "time", 17)
        states, _, first = problem.fused()
        with mishap(stalled=block):
            again_states, _, again = problem.fused()
        assert torch.equal(again_states, states)
        assert_same_estimate(again.estimate, first.estimate)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_that_is_not_announced_is_an_error_and_not_a_hang(steps):
    """The walk is done, but a point waits for the count of its layer's steps."""
    with emulated_cuda():
        # One block walks, 5 units for each step, whose counts come last; what it is fed is counted after each step.
        problem = Problem(CudaDevice("emulated"), "rnn_tanh", "time", 5, 1, batch=1, steps=steps)
        counted = 1 + steps * (1 + 5)  # the grid barrier comes first
        lost = r"kernel forward_radii.*deadlock.*waiting.*walk_role\.h"
        with mishap(lost=counted), pytest.raises(RuntimeError, match=lost):
            problem.fused()
        with mishap(lost=counted + 1):  # which there is not
            problem.fused()


def test_on_the_cpu_there_is_no_launch():
    assert why_not_fused(torch.zeros(2, 2, 3), torch.zeros(1, 1, 2, 5), "gru") == "a tensor of the CPU"


def model_on(device, cell="gru", hidden=35, layers=2):
    model = stack(cell, INPUTS, hidden, layers, gain=2)
    return model if device.name == "emulated" else model.cuda()


@pytest.mark.parametrize("directions", [("time",), ("depth", "diagonal", "time")])
@pytest.mark.parametrize("options", [{}, {"max_points": 3}, {"time_chunk": 2}, {"time_chunk": 1, "max_points": 2}])
def test_radii_takes_one_launch_and_gives_the_same_bits(cuda_device, directions, options):
    model, x = model_on(cuda_device), cuda_device.tensor(normal(STEPS, BATCH, INPUTS))

    def measured(impl):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return lsc.radii(model, x, directions=directions, impl=impl, generator=generator, **options)

    found, expected = measured("auto"), measured("generic")
    assert (found.implementation, expected.implementation) == ("fused", "generic")
    for direction in directions:
        assert found[direction].radius.shape == expected[direction].radius.shape
        for part in ("radius", "residual", "status", "num_matvecs", "eigenvalue"):
            assert torch.equal(getattr(found[direction], part), getattr(expected[direction], part)), part


@pytest.mark.parametrize(("cell", "direction"), [("gru", "time"), ("lstm", "depth"), ("rnn_relu", "diagonal")])
def test_gradients_of_radii_are_those_of_two_passes(cuda_device, cell, direction):
    model, x = model_on(cuda_device, cell), cuda_device.tensor(normal(STEPS, BATCH, INPUTS))

    def gradients(impl):
        model.zero_grad()
        generator = torch.Generator().manual_seed(0)
        report = lsc.radii(model, x, directions=(direction,), impl=impl, generator=generator)
        report[direction].radius.sum().backward()
        assert report.implementation == impl
        return report, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    report, found = gradients("fused")
    expected_report, expected = gradients("generic")
    assert torch.equal(report[direction].radius, expected_report[direction].radius)
    assert torch.equal(report[direction].growth_gradient, expected_report[direction].growth_gradient)
    assert not report[direction].growth_gradient.all()
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def test_left_vectors_come_with_the_radii(cuda_device):
    """Of a gradient, what two passes add is left out: a backward pass launches no iteration."""
    model, x = model_on(cuda_device), cuda_device.tensor(normal(STEPS, BATCH, INPUTS))
    functions = backends.backend_of(x).functions
    counts = {}
    for impl in ("fused", "generic"):
        report = lsc.radii(model, x, directions=("time",), impl=impl, generator=torch.Generator().manual_seed(0))
        before = functions.launches()
        report["time"].radius.sum().backward()
        counts[impl] = functions.launches() - before
    # An iteration is two launches, one to reset its queue, for each of two layers.
    assert counts["generic"] - counts["fused"] == 4


def test_radii_say_why_there_is_no_one_launch(cuda_device):
    model, x = model_on(cuda_device), cuda_device.tensor(normal(STEPS, BATCH, INPUTS))
    with pytest.raises(ValueError, match="'fused', got time: a tol of 0 while gradients are recorded"):
        lsc.radii(model, x, directions=("time",), impl="fused", tol=0.0)
    with pytest.raises(ValueError, match="'fused', got time: gradients through the states"):
        lsc.radii(model, x, directions=("time",), impl="fused", through_states=True)
    with torch.no_grad():
        for options, words in (
            ({"directions": ("input",)}, "input: direction 'input'"),
            ({"directions": ("time",), "method": "power"}, "time: radii by method 'power' without an iteration"),
        ):
            with pytest.raises(ValueError, match=words):
                lsc.radii(model, x, impl="fused", **options)
        with (
            backends.launches_apart(),
            pytest.raises(ValueError, match="launches for every step, which were asked for"),
        ):
            lsc.radii(model, x, impl="fused")
        assert lsc.radii(model, x, directions=("input",)).implementation == "generic"


def test_a_direction_without_layers_is_left_to_two_passes(cuda_device):
    model = stack("gru", INPUTS, 35, 1)
    model = model if cuda_device.name == "emulated" else model.cuda()
    x = cuda_device.tensor(normal(STEPS, BATCH, INPUTS))
    with torch.no_grad():
        assert lsc.radii(model, x, directions=("diagonal",)).implementation == "generic"
