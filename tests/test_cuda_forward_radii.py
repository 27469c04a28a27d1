"""The forward pass and the radii in one launch: the bits of two passes, and what happens where it goes wrong."""

import pytest
import torch
from networks import CELL_DIRECTIONS, normal, stack, states_of

import lsc_ext as lsc
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
        initial = torch.stack([s for s in states_of(model, batch)], dim=1)
        place = lambda z: device.tensor(z.detach()).to(dtype)  # noqa: E731
        self.cell, self.direction, self.device = cell, direction, device
        self.weights = [place(w) for w in weights]
        self.x, self.initial = place(normal(steps, batch, INPUTS)), place(initial)
        first = 0 if direction == "time" else 1
        self.points = torch.cartesian_prod(torch.arange(first, layers), torch.arange(steps), torch.arange(batch))

    def fused(self, **options):
        return forward_radii(
            self.x, self.initial, self.weights, self.cell, self.points, direction=self.direction, **options
        )

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
    functions = lsc.backends.backend_of(problem.x).functions
    before = functions.launches()
    problem.fused()
    assert functions.launches() == before + 1
    problem.apart()
    assert functions.launches() > before + 4
