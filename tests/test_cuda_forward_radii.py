"""The forward pass and the radii in one launch: the bits of two passes, and what happens where it goes wrong."""

import pytest
import torch
from emulated import CudaDevice, emulated_cuda
from networks import CELL_DIRECTIONS, normal, stack, states_of

import lsc_ext as lsc
from lsc_ext import backends, fused
from lsc_ext.estimate import Status
from lsc_ext.estimators import run_krylov
from lsc_ext.fused import forward_radii, why_not_fused
from lsc_ext.nn.recurrent import read_weights
from lsc_ext.operator import StepOperator

STEPS, BATCH, INPUTS = 3, 2, 4
FUSED = [(cell, direction) for cell, direction in CELL_DIRECTIONS if direction in ("time", "diagonal")]


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

    def fused(self, **options):
        return forward_radii(
            self.x, self.initial, self.weights, self.cell, self.points, direction=self.direction, **options
        )

    def apart_states(self):
        return lsc.ops.recurrent(self.x, self.initial, self.weights, self.cell)[0]

    def apart(self, num_matvecs=600, tol=1e-3, seed=0):
        """The same by two passes: states, gates and the radius, status and products of every point."""
        states, gates = lsc.ops.recurrent(self.x, self.initial, self.weights, self.cell)
        parts = []
        for layer in self.points[:, 0].unique().tolist():
            mine = (self.points[:, 0] == layer).nonzero().squeeze(1)
            operator = StepOperator(
                self.cell, self.x, states, gates, self.weights, layer, self.direction, self.points[mine, 1:]
            )
            estimate, _ = run_krylov(operator, num_matvecs, tol, seed, vectors=False, first=int(mine[0]))
            parts.append(estimate)
        joined = [torch.cat([getattr(p, name) for p in parts]) for name in ("radius", "status", "num_matvecs")]
        return states, gates, joined


def assert_same(problem, **options):
    states, gates, found = problem.fused(**options)
    wanted_states, wanted_gates, (radius, status, num_matvecs) = problem.apart(**options)
    assert torch.equal(states, wanted_states)
    assert torch.equal(gates, wanted_gates)
    assert torch.equal(found.status, status)
    assert torch.equal(found.num_matvecs, num_matvecs)
    assert torch.equal(found.radius.nan_to_num(nan=-1), radius.nan_to_num(nan=-1))


@pytest.mark.parametrize(("cell", "direction"), FUSED)
def test_every_cell_has_the_bits_of_two_passes(cuda_device, cell, direction):
    assert_same(Problem(cuda_device, cell, direction))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("hidden", [1, 3, 31, 33, 65])
def test_sizes_and_precisions(cuda_device, hidden, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert_same(Problem(cuda_device, "gru", "time", hidden, dtype=torch.float32))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("batch", [1, 9])
def test_batches(cuda_device, batch):
    assert_same(Problem(cuda_device, "lstm", "time", 17, 1, batch))


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
    _, _, first = problem.fused()
    shuffled = torch.randperm(len(problem.points))
    problem.points = problem.points[shuffled]
    for seed in (1, 2):
        cuda_device.reseed(seed)
        _, _, again = problem.fused(vectors=shuffled)
        assert torch.equal(again.radius, first.radius[shuffled.to(first.radius.device)])
        assert torch.equal(again.num_matvecs, first.num_matvecs[shuffled.to(first.radius.device)])


def test_no_points_is_a_forward_pass(cuda_device):
    problem = Problem(cuda_device, "gru", "time")
    problem.points = problem.points[:0]
    states, _, found = problem.fused()
    assert torch.equal(states, problem.apart_states())
    assert found.radius.shape == (0,)


def test_states_that_are_not_finite_reach_their_points_alone(cuda_device):
    problem = Problem(cuda_device, "gru", "time")
    problem.x[1, 1] = float("nan")
    _, _, found = problem.fused()
    _, t, b = problem.points.unbind(1)
    reached = ((t >= 1) & (b == 1)).to(found.status.device)
    assert torch.equal(found.status == Status.nonfinite, reached)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 65}, "a batch of more than 64"),
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
    problem.direction = "depth"
    with pytest.raises(ValueError, match="direction: expected time or diagonal, got 'depth'"):
        problem.fused()


def test_a_barrier_that_another_launch_left_halfway_is_an_error(monkeypatch):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", "time")
        monkeypatch.setattr(fused, "_barrier", lambda backend: torch.full((2,), 99, dtype=torch.int32))
        with pytest.raises(RuntimeError, match="grid barrier: expected a state that was zero once"):
            problem.fused()


def test_on_the_cpu_there_is_no_launch():
    assert why_not_fused(torch.zeros(2, 2, 3), torch.zeros(1, 1, 2, 5), "gru") == "a tensor of the CPU"


@pytest.mark.parametrize("directions", [("time",), ("depth", "diagonal", "time")])
@pytest.mark.parametrize("max_points", [None, 3])
def test_radii_takes_one_launch_and_gives_the_same_bits(cuda_device, directions, max_points):
    model = stack("gru", INPUTS, 35, 2, gain=2)
    model = model if cuda_device.name == "emulated" else model.cuda()
    x = cuda_device.tensor(normal(STEPS, BATCH, INPUTS))

    def measured(impl):
        with torch.no_grad():
            return lsc.radii(
                model,
                x,
                directions=directions,
                max_points=max_points,
                impl=impl,
                generator=torch.Generator().manual_seed(0),
            )

    found, expected = measured("auto"), measured("generic")
    assert (found.implementation, expected.implementation) == ("fused", "generic")
    for direction in directions:
        assert found[direction].radius.shape == expected[direction].radius.shape
        for part in ("radius", "residual", "status", "num_matvecs", "eigenvalue"):
            assert torch.equal(getattr(found[direction], part), getattr(expected[direction], part)), part


def test_radii_say_why_there_is_no_one_launch(cuda_device):
    model = stack("gru", INPUTS, 35, 2)
    model = model if cuda_device.name == "emulated" else model.cuda()
    x = cuda_device.tensor(normal(STEPS, BATCH, INPUTS))
    with pytest.raises(ValueError, match="'fused', got time: recorded gradients"):
        lsc.radii(model, x, directions=("time",), impl="fused")
    with torch.no_grad():
        for options, words in (
            ({"directions": ("depth",)}, "depth: direction 'depth'"),
            ({"directions": ("time",), "method": "power"}, "time: radii by method 'power' without an iteration"),
            ({"directions": ("time",), "time_chunk": 2}, "time: a time_chunk"),
        ):
            with pytest.raises(ValueError, match=words):
                lsc.radii(model, x, impl="fused", **options)
        assert lsc.radii(model, x, directions=("depth",)).implementation == "generic"


def test_a_direction_without_layers_is_left_to_two_passes(cuda_device):
    model = stack("gru", INPUTS, 35, 1)
    model = model if cuda_device.name == "emulated" else model.cuda()
    x = cuda_device.tensor(normal(STEPS, BATCH, INPUTS))
    with torch.no_grad():
        assert lsc.radii(model, x, directions=("diagonal",)).implementation == "generic"
