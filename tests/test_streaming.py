"""Radii of a trajectory that is held a piece at a time: the same bits, in memory that does not grow with time."""

import subprocess
import sys

import pytest
import torch
from networks import CELL_NAMES, RECURRENT_CELLS, linear, normal, stack, states_of
from torch import nn

import lsc_ext as lsc
from lsc_ext.nn import StackTrajectory
from lsc_ext.nn import stack as stack_module
from lsc_ext.testing import assert_close
from lsc_ext.trajectory import trajectory_of

TIME = 7
COMPILED = ("time", "depth", "diagonal", "input")
FIELDS = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")


def radii(model, x, *args, **options):
    options.setdefault("generator", torch.Generator().manual_seed(3))
    with torch.no_grad():
        return lsc.radii(model, x, *args, **options)


def assert_same_bits(report, expected):
    assert list(report) == list(expected)
    assert report.layers == expected.layers
    for direction in expected:
        found, wanted = report[direction], expected[direction]
        assert (found.method, found.population) == (wanted.method, wanted.population)
        assert found.index is wanted.index is None or torch.equal(found.index, wanted.index)
        for name in FIELDS:
            a, b = getattr(found, name), getattr(wanted, name)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.numpy().tobytes() == b.numpy().tobytes(), f"{name} along {direction} differs"


def in_small_pieces(monkeypatch):
    """Budgets of one step of one layer, and of one point."""
    monkeypatch.setattr(stack_module, "PIECE_BYTES", 1)
    monkeypatch.setattr(stack_module, "_POINTS_PER_THREAD", 1)


@pytest.mark.parametrize("steps", [1, 3, TIME - 1])
@pytest.mark.parametrize("cell", RECURRENT_CELLS)
def test_pieces_of_a_trajectory_are_the_whole_one_bit_for_bit(cell, steps):
    model, x = stack(cell, 4, 9, 3), normal(TIME, 2, 4)
    states = torch.stack(states_of(model, 2), dim=1)
    whole = StackTrajectory(model, x, states, range(3), "", False)
    firsts = []
    with torch.no_grad():
        for first, piece in whole.pieces(steps):
            assert piece.time_steps == min(steps, TIME - first)
            held = slice(first, first + piece.time_steps + 1)
            assert torch.equal(piece.states, whole.states[:, held])
            assert torch.equal(piece.gates, whole.gates[:, first : first + piece.time_steps])
            assert torch.equal(piece.handed_up, whole.handed_up[first : first + piece.time_steps])
            firsts.append(first)
    assert firsts == list(range(0, TIME, steps))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_compiled_direction_of_every_cell_has_the_bits_of_the_whole(cell):
    directions = COMPILED if cell in RECURRENT_CELLS else ("depth", "input")
    hidden = 34  # more than LAPACK is asked for
    model, x = stack(cell, 4, hidden, 3, gain=2, dtype=torch.float32), normal(TIME, 2, 4, dtype=torch.float32)
    whole = radii(model, x, directions=directions, time_chunk=TIME)
    for steps in (1, 3):
        assert_same_bits(radii(model, x, directions=directions, time_chunk=steps), whole)


@pytest.mark.parametrize("method", ["auto", "krylov", "power", "dense"])
@pytest.mark.parametrize("hidden", [5, 40])
def test_every_method_has_the_bits_of_the_whole(method, hidden):
    model, x = stack("gru", 4, hidden, 2), normal(TIME, 3, 4)
    options = {"method": method, "num_matvecs": 60, "tol": 1e-5}
    whole = radii(model, x, time_chunk=TIME, **options)
    assert_same_bits(radii(model, x, time_chunk=2, **options), whole)


def test_initial_states_of_an_lstm_are_where_the_first_piece_starts():
    torch.manual_seed(0)
    model, x = nn.LSTM(4, 20, 2, batch_first=True), torch.randn(3, TIME, 4)
    states = torch.randn(2, 3, 20), torch.randn(2, 3, 20)
    whole = radii(model, x, states, directions=COMPILED, time_chunk=TIME)
    assert_same_bits(radii(model, x, states, directions=COMPILED, time_chunk=2), whole)
    assert not torch.equal(radii(model, x, time_chunk=2)["time"].radius, whole["time"].radius)


def test_a_sequence_without_a_batch_axis():
    model, x = stack("gru", 4, 40, 1), normal(TIME, 4)
    assert_same_bits(radii(model, x, time_chunk=2), radii(model, x, time_chunk=TIME))


@pytest.mark.parametrize("count", [1, 5, 3 * TIME - 1])
def test_a_sample_of_points_is_the_same_sample(count):
    model, x = stack("lstm", 4, 20, 2), normal(TIME, 3, 4)
    whole = radii(model, x, max_points=count, directions=COMPILED, time_chunk=TIME)
    assert whole["time"].index.shape == (2, count, 2)
    assert_same_bits(radii(model, x, max_points=count, directions=COMPILED, time_chunk=2), whole)
    everywhere = radii(model, x, time_chunk=TIME, tol=1e-9)["time"]
    sampled = radii(model, x, max_points=count, directions=("time",), time_chunk=2, tol=1e-9)["time"]
    for layer in range(2):
        t, b = sampled.index[layer].T
        assert_close("radius at its index", sampled.radius[layer], everywhere.radius[layer, t, b], 1e-7)


@pytest.mark.parametrize("directions", [COMPILED, ("output",)])
def test_a_budget_splits_time_and_points_without_being_asked(monkeypatch, directions):
    model, x, readout = stack("lstm", 4, 20, 2), normal(TIME, 3, 4), linear(20, 6)
    options = {"directions": directions, "readout": readout, "tol": 1e-6}
    whole = radii(model, x, **options)
    in_small_pieces(monkeypatch)
    with torch.no_grad():
        trajectory = trajectory_of(model, x)
        assert [first for first, _ in trajectory.pieces()] == list(range(TIME))
        assert trajectory.points_at_once("time", 0) == torch.get_num_threads()
    split = radii(model, x, **options)
    if directions == COMPILED:
        assert_same_bits(split, whole)
    else:  # torch's products of the readout depend on how many points come together
        assert_close("radius", split["output"].radius, whole["output"].radius, 1e-12)


def test_points_of_layers_of_two_directions_are_split_alone(monkeypatch):
    model, x = stack("gru", 4, 40, 2, bidirectional=True), normal(TIME, 3, 4)
    whole = radii(model, x)
    in_small_pieces(monkeypatch)
    assert_same_bits(radii(model, x), whole)


def test_where_a_gradient_is_recorded_nothing_is_split(monkeypatch):
    model, x = stack("gru", 4, 40, 2), normal(TIME, 2, 4)

    def gradients():
        report = lsc.radii(model, x, generator=torch.Generator().manual_seed(3))
        return torch.autograd.grad(report["time"].mean() + report["depth"].mean(), tuple(model.parameters()))

    whole = gradients()
    in_small_pieces(monkeypatch)
    monkeypatch.setattr(StackTrajectory, "pieces", None)
    for found, expected in zip(gradients(), whole, strict=True):
        assert torch.equal(found, expected)


def test_frozen_weights_are_streamed_while_gradients_are_enabled():
    model, x = stack("gru", 4, 40, 2).requires_grad_(False), normal(TIME, 2, 4)
    seed = torch.Generator().manual_seed(3)
    assert_same_bits(lsc.radii(model, x, time_chunk=2, generator=seed), radii(model, x, time_chunk=TIME))


def test_a_submodule_is_streamed():
    model = nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 40, 2)).double()
    x, part = normal(TIME, 2, 3), lsc.Submodule(model, "1")
    assert_same_bits(radii(part, x, time_chunk=2), radii(part, x, time_chunk=TIME))


def test_a_time_chunk_that_cannot_be_had_is_refused():
    x = normal(TIME, 2, 4)
    model = stack("gru", 4, 5, 1)
    with pytest.raises(ValueError, match="time_chunk: expected at least 1, got 0"):
        radii(model, x, time_chunk=0)
    with pytest.raises(ValueError, match="time_chunk: expected None while gradients are recorded"):
        lsc.radii(model, x, time_chunk=2)
    with pytest.raises(ValueError, match="readout|time_chunk: expected None while gradients are recorded"):
        lsc.radii(model.requires_grad_(False), x, directions=("output",), readout=linear(5, 2), time_chunk=2)
    for whole in (
        stack("gru", 4, 5, 1, bidirectional=True),
        lsc.nn.LRU(4, 5).double(),
        nn.Sequential(nn.GRU(4, 5), nn.GRU(5, 5)).double(),
    ):
        with pytest.raises(ValueError, match="time_chunk: expected None for a .*Trajectory, whose states are kept"):
            radii(whole, x, time_chunk=2)


PROGRAM = """
import resource, sys
import torch
import lsc_ext as lsc

model, x = torch.nn.GRU(128, 128), torch.randn({time}, 1, 128)
lsc.radii(model, x[:2])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


before = peak()
with torch.no_grad():
    report = lsc.radii(model, x, directions=("time",), method="krylov", num_matvecs=2)
assert report["time"].radius.shape == (1, {time}, 1)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("time", "bound"),
    [
        (40_000, 110),  # kept whole: 98 MiB of states and gates, and as much of coefficients
        pytest.param(100_000, 150, marks=pytest.mark.slow),
    ],
)
def test_memory_of_a_long_sequence_does_not_grow_with_it(time, bound):
    pytest.importorskip("resource")
    program = PROGRAM.format(time=time)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    raised = float(done.stdout)
    assert raised < bound, f"radii at {time} steps raised peak memory by {raised:.0f} MiB, expected under {bound}"


SENSITIVITIES = """
import resource, torch
from lsc_ext.memory import SensitivityScan
found, piece = SensitivityScan(torch.full((16,), 0.999), 1), torch.randn(1000, 1, 16)
found.feed(piece)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(999):
    found.feed(piece)
assert found.steps == 10**6
assert bool(found.sensitivity_second_moment().isfinite().all())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_sensitivities_of_a_million_steps_take_the_memory_of_one_piece():
    pytest.importorskip("resource")
    program = [sys.executable, "-c", SENSITIVITIES]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    raised = float(done.stdout)
    assert raised < 4, f"a million steps raised peak memory by {raised:.0f} MiB, expected under 4"
