"""All steps of a stack in one launch, forward and back: the bits of launches for every step, and what goes wrong."""

import math

import pytest
import torch
from emulated import CudaDevice, emulated_cuda, mishap
from networks import CELL_NAMES, normal, stack, states_of

import lsc_ext as lsc
from lsc_ext import backends, fused
from lsc_ext.nn.recurrent import read_weights


class Problem:
    """A stack on a device, with an upstream gradient for every state."""

    def __init__(self, device, cell="gru", hidden=5, layers=2, batch=3, steps=4, inputs=4, dtype=torch.float64):
        model = stack(cell, inputs, hidden, layers, gain=2)
        weights = [torch.empty(0) if w is None else w for w in read_weights(model, range(layers))]
        initial = torch.stack(list(states_of(model, batch)), dim=1)

        def place(z):
            return device.tensor(z.detach().to(dtype).requires_grad_(z.numel() > 0))

        self.cell, self.device = cell, device
        self.weights = [place(w) for w in weights]
        self.x, self.initial = place(normal(steps, batch, inputs)), place(initial)
        self.upstream = device.tensor(normal(layers, steps + 1, initial.shape[1], batch, hidden).to(dtype))

    def states(self):
        return lsc.ops.recurrent(self.x, self.initial, self.weights, self.cell)

    def everything(self):
        """States, pre-activations and all gradients."""
        states, gates = self.states()
        wanted = [z for z in (self.x, self.initial, *self.weights) if z.requires_grad]
        return [states.detach(), gates.detach(), *torch.autograd.grad(states, wanted, self.upstream)]

    def launches(self, run):
        functions = backends.backend_of(self.x).functions
        before = functions.launches()
        run()
        return functions.launches() - before

    def plan(self, what="forward"):
        return fused.plan(what, self.x, self.initial, self.cell)


def assert_same(problem):
    assert problem.plan()["pays"]
    assert problem.plan("backward")["pays"]
    found = problem.everything()
    with backends.launches_apart():
        expected = problem.everything()
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part, other)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_has_the_bits_of_launches_for_every_step(cuda_device, cell):
    assert_same(Problem(cuda_device, cell))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("hidden", [1, 3, 31, 33, 65])
def test_sizes_and_precisions(cuda_device, hidden, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert_same(Problem(cuda_device, "gru", hidden, dtype=torch.float32))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("batch", [1, 8, 9, 65])
def test_batches(cuda_device, batch):
    assert_same(Problem(cuda_device, "lstm", 17, 1, batch, dtype=torch.float32))


# On the emulator, whose device has 8 blocks at once.
@pytest.mark.parametrize(
    ("sizes", "apart", "slices", "parts"),
    [
        ({"hidden": 5, "layers": 5, "batch": 3}, False, 1, 1),
        ({"hidden": 5, "layers": 2, "batch": 20}, True, 1, 2),
        ({"hidden": 33, "layers": 2, "batch": 3}, True, 2, 1),
        ({"hidden": 40, "layers": 1, "batch": 3}, True, 3, 1),
    ],
)
def test_every_way_to_share_a_stack_has_the_same_bits(sizes, apart, slices, parts):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "lstm", dtype=torch.float32, **sizes)
        plan = problem.plan()
        assert (plan["apart"], plan["slices"], plan["parts"]) == (apart, slices, parts)
        assert plan["walking"] == sizes["layers"] * slices * parts * (2 if apart else 1) <= plan["blocks"] == 8
        assert_same(problem)


def test_each_pass_is_one_launch_through_all_steps(cuda_device):
    problem = Problem(cuda_device, steps=9)
    with torch.no_grad():
        assert problem.launches(problem.states) == 1
        with backends.launches_apart():
            assert problem.launches(problem.states) > 2 * 2 * 9
    few, many = (Problem(cuda_device, steps=steps) for steps in (2, 9))
    assert few.launches(few.everything) == many.launches(many.everything)


def test_gates_that_nobody_asked_for_are_not_kept(cuda_device):
    """A layer that is not trained has no pre-activations: the walk has room for its own alone."""
    for layers in (1, 5):  # apart, where one block is ahead of the other, and together
        problem = Problem(cuda_device, "lstm", layers=layers)
        with torch.no_grad():
            kept, _ = problem.states()
        states = torch.full_like(kept, math.nan)
        states[:, 0] = problem.initial.detach()
        ops, backend = lsc.ops, backends.backend_of(states)
        backend.call(
            backend.functions.forward,
            "lstm",
            "float64",
            ops.sizes(problem.x, problem.initial),
            ops.buffer(problem.x),
            ops.layer_buffers(problem.weights),
            ops.buffer(states),
            None,
        )
        assert torch.equal(states, kept)


def test_threads_in_another_order_change_nothing(cuda_device):
    problem = Problem(cuda_device, "lstm", 17, 3)
    first = problem.everything()
    for seed in (1, 2):
        cuda_device.reseed(seed)
        for part, other in zip(problem.everything(), first, strict=True):
            assert torch.equal(part, other)


@pytest.mark.parametrize("block", range(6))
def test_a_block_that_stalls_holds_up_but_changes_nothing(block):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", 17, 2)
        first = problem.everything()
        with mishap(stalled=block):
            for part, other in zip(problem.everything(), first, strict=True):
                assert torch.equal(part, other)


@pytest.mark.parametrize("forward", [True, False])
def test_a_number_that_is_lost_is_an_error_and_not_a_hang(forward):
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", 17, 2, batch=1)
        states, _ = problem.states()

        def backward():
            return torch.autograd.grad(states, problem.x, problem.upstream)

        lost = r"kernel walk.*deadlock.*waiting.*resident\.h"
        with mishap(lost=40), pytest.raises(RuntimeError, match=lost):
            problem.states() if forward else backward()
        problem.everything()  # and the next launch is well


def not_a_number(sign):
    """The NaN of all ones, which stands for what is not there yet, and the same without its sign."""
    bits = -1 if sign else 2**63 - 1
    return torch.tensor(bits, dtype=torch.int64).view(torch.float64).item()


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize("where", ["x", "initial", "weight", "upstream"])
def test_no_nan_is_taken_for_a_number_that_is_not_there(cuda_device, where, sign):
    problem = Problem(cuda_device)
    value = not_a_number(sign)
    assert math.isnan(value)
    target = {"x": problem.x, "initial": problem.initial, "weight": problem.weights[0], "upstream": problem.upstream}
    with torch.no_grad():
        target[where].view(-1)[-1] = value
    found = problem.everything()
    with backends.launches_apart():
        expected = problem.everything()
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part.isnan(), other.isnan())
        assert torch.equal(part.nan_to_num(), other.nan_to_num())


def test_what_one_launch_cannot_hold_runs_step_by_step():
    with emulated_cuda():
        deep = Problem(CudaDevice("emulated"), layers=17)
        assert deep.plan()["reason"] == "more than 16 layers"
        wide = Problem(CudaDevice("emulated"), "lstm", 300, 1, batch=1, steps=1)
        assert wide.plan()["reason"] == "weights that the blocks of the device do not hold"
        with torch.no_grad():
            assert deep.launches(deep.states) > 17
            assert wide.launches(wide.states) > 1
        with backends.launches_apart():
            assert deep.plan()["reason"] == "launches for every step, which were asked for"


def test_it_does_not_run_where_the_model_says_that_it_is_longer():
    with emulated_cuda():
        problem = Problem(CudaDevice("emulated"), "gru", 33, 1, batch=2000, steps=1)
        plan = problem.plan()
        assert plan["reason"] == ""
        assert not plan["pays"]
        with torch.no_grad():
            assert problem.launches(problem.states) > 1


def test_no_steps_and_no_sequences(cuda_device):
    for sizes in ({"steps": 0}, {"batch": 0}):
        problem = Problem(cuda_device, **sizes)
        assert problem.plan()["reason"] == "no steps"
        states, _ = problem.states()
        assert torch.equal(states[:, 0], problem.initial)


def test_other_words_are_refused(cuda_device):
    problem = Problem(cuda_device)
    with pytest.raises(ValueError, match="what: expected forward, backward or forward_radii, got 'sideways'"):
        problem.plan("sideways")
