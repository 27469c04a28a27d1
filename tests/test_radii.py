import json
import math

import pytest
import torch
from networks import CELL_NAMES, DIRECTIONS, RECURRENT_CELLS, TORCH_KINDS, linear, normal, stack, states_of
from torch import nn

import lsc_ext as lsc
from lsc_ext import reference
from lsc_ext.cells import CELLS
from lsc_ext.estimate import RadiusEstimate, Status
from lsc_ext.operator import JacobianOperator
from lsc_ext.testing import assert_close

READOUT = linear(5, 6)
FIELDS = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def measured(model, x, states=None, **options):
    options.setdefault("generator", seeded())
    options.setdefault("readout", READOUT)
    with torch.no_grad():
        return lsc.radii(model, x, states, **options)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_direction_has_one_number_per_layer_step_and_sequence(cell):
    report = measured(stack(cell, 4, 5, 3), normal(6, 2, 4), directions=DIRECTIONS)
    in_time = CELLS[cell].in_time
    rows = {"time": 3 * in_time, "depth": 2, "diagonal": 2 * in_time, "input": 1, "output": 1}
    assert list(report) == list(DIRECTIONS)
    for direction in DIRECTIONS:
        for name in FIELDS:
            assert getattr(report[direction], name).shape == (rows[direction], 6, 2)
        expected = [0] if direction == "input" else list(range(3 - rows[direction], 3))
        assert report.layers[direction] == expected


def test_types_of_an_estimate():
    estimate = measured(stack("gru", 4, 5, 2, dtype=torch.float32), normal(2, 2, 4, dtype=torch.float32))["time"]
    found = {name: getattr(estimate, name).dtype for name in FIELDS}
    assert found == {
        "radius": torch.float32,
        "residual": torch.float32,
        "status": torch.uint8,
        "num_matvecs": torch.int32,
        "eigenvalue": torch.complex64,
        "condition": torch.float32,
    }


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_small_networks_have_the_radii_of_the_reference(cell):
    model, x = stack(cell, 4, 5, 3, gain=2), normal(4, 2, 4)
    states = states_of(model, 2)
    options = {"directions": DIRECTIONS, "readout": READOUT}
    report, expected = measured(model, x, states, **options), reference.radii(model, x, states, **options)
    for direction in DIRECTIONS:
        assert_close(direction, report[direction].radius, expected[direction].radius, 1e-10)


@pytest.mark.parametrize("cell", RECURRENT_CELLS)
def test_krylov_radii_are_those_of_the_reference_to_their_tolerance(cell):
    model, x = stack(cell, 4, 33, 2, gain=2), normal(3, 2, 4)
    options = {"directions": ("time", "depth", "diagonal")}
    report, expected = measured(model, x, tol=1e-4, method="krylov", **options), reference.radii(model, x, **options)
    for direction in options["directions"]:
        converged = report[direction].status == Status.converged
        assert converged.double().mean() > 0.9
        error = (report[direction].radius - expected[direction].radius).abs() / expected[direction].radius
        assert error[converged].max() < 1e-3


def test_the_eigenvalue_has_the_radius_as_its_modulus_and_is_in_the_upper_half_plane():
    estimate = measured(stack("gru", 4, 33, 1, gain=3), normal(4, 3, 4), directions=("time",))["time"]
    assert_close("modulus", estimate.eigenvalue.abs(), estimate.radius, 1e-12)
    assert (estimate.eigenvalue.imag >= 0).all()


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_torch_layers_have_the_radii_of_their_twins(kind):
    ours, theirs, options = TORCH_KINDS[kind]
    twin, x = theirs(4, 5, 2, batch_first=True, **options), normal(2, 6, 4, dtype=torch.float32)
    model = ours.from_torch(twin)
    for direction in ("time", "depth"):
        assert torch.equal(measured(model, x)[direction].radius, measured(twin, x)[direction].radius)


@pytest.mark.parametrize("layout", ["batch first", "unbatched"])
def test_layout_of_the_inputs_is_the_models(layout):
    x = normal(6, 1, 4)
    expected = measured(stack("gru", 4, 5, 2), x)["time"].radius
    model = stack("gru", 4, 5, 2, batch_first=layout == "batch first")
    found = measured(model, x.transpose(0, 1) if layout == "batch first" else x.squeeze(1))["time"].radius
    assert torch.equal(found, expected)


@pytest.mark.parametrize("gain", [1, 4])
def test_min_gru_closed_form_is_the_dense_radius(gain):
    model, x = stack("min_gru", 4, 40, 2, gain=gain), normal(3, 2, 4)
    closed = measured(model, x, directions=("time",))["time"]
    dense = measured(model, x, directions=("time",), method="dense")["time"]
    assert closed.method == "closed form"
    assert_close("radius", closed.radius, dense.radius, 1e-12)
    assert (closed.num_matvecs == 1).all()


@pytest.mark.parametrize(("hidden", "method"), [(32, "dense"), (33, "krylov")])
def test_auto_is_dense_up_to_32_states_and_krylov_above(hidden, method):
    assert measured(stack("gru", 4, hidden, 1), normal(1, 1, 4), directions=("time",))["time"].method == method


def test_power_is_close_and_claims_no_residual():
    model, x = stack("gru", 4, 16, 1, gain=2), normal(3, 2, 4)
    found = measured(model, x, directions=("time",), method="power", num_matvecs=400)["time"]
    exact = measured(model, x, directions=("time",), method="dense")["time"]
    assert ((found.radius / exact.radius - 1).abs() < 0.05).all()
    assert found.residual.isnan().all()
    assert (found.status == Status.max_matvecs).all()


def test_sampled_points_have_the_radii_of_the_full_grid():
    model, x = stack("gru", 4, 33, 2, gain=2), normal(5, 4, 4)
    sampled = measured(model, x, max_points=7, tol=1e-6)["time"]
    whole = measured(model, x, tol=1e-6)["time"]
    assert sampled.radius.shape == (2, 7)
    assert sampled.index.shape == (2, 7, 2)
    t, b = sampled.index.unbind(-1)
    assert_close("radius", sampled.radius, whole.radius[torch.tensor([[0], [1]]), t, b], 1e-5)


def test_points_are_drawn_without_replacement():
    index = measured(stack("gru", 4, 5, 2), normal(5, 4, 4), max_points=19)["time"].index
    for layer in index:
        assert len({tuple(pair) for pair in layer.tolist()}) == 19


@pytest.mark.parametrize("max_points", [20, 21, None])
def test_as_many_points_as_there_are_is_the_whole_grid(max_points):
    estimate = measured(stack("gru", 4, 5, 2), normal(5, 4, 4), max_points=max_points)["time"]
    assert estimate.radius.shape == (2, 5, 4)
    assert estimate.index is None
    assert estimate.population == 20


@pytest.mark.parametrize("method", ["krylov", "power"])
def test_the_same_generator_state_gives_the_same_numbers(method):
    model, x = stack("gru", 4, 33, 2), normal(3, 4, 4)
    first, second = (measured(model, x, max_points=5, method=method, generator=seeded(7))["time"] for _ in range(2))
    assert torch.equal(first.radius, second.radius)
    assert torch.equal(first.index, second.index)


def test_another_generator_state_draws_other_points_and_start_vectors():
    model, x = stack("gru", 4, 33, 1), normal(3, 4, 4)
    first, second = (
        measured(model, x, max_points=5, method="power", generator=seeded(seed), directions=("time",))["time"]
        for seed in (7, 8)
    )
    assert not torch.equal(first.index, second.index)
    assert not torch.equal(first.radius, second.radius)


def test_a_generator_is_advanced_once():
    generator, twin = seeded(), seeded()
    measured(stack("gru", 4, 5, 2), normal(3, 4, 4), generator=generator)
    torch.randint(2**63 - 1, (1,), generator=twin, dtype=torch.int64)
    assert torch.equal(generator.get_state(), twin.get_state())


@pytest.mark.parametrize("batch", [1, 4])
def test_standard_error_is_zero_where_every_point_was_measured(batch):
    assert measured(stack("gru", 4, 5, 2), normal(5, batch, 4))["time"].stderr() == 0


def estimate_with(radius, index, population):
    blank = torch.zeros_like(radius)
    status = torch.zeros(radius.shape, dtype=torch.uint8)
    return RadiusEstimate(radius, blank, status, status.int(), blank + 0j, blank, "dense", index, population)


def test_standard_error_of_a_sample_is_that_of_clusters_by_sequence():
    radius = torch.tensor([[1.0, 2.0, 4.0, 5.0]], dtype=torch.float64)
    index = torch.tensor([[[0, 0], [1, 0], [0, 1], [2, 2]]])  # sequences 0, 0, 1, 2
    totals = [(1 - 3) + (2 - 3), 4 - 3, 5 - 3]
    variance = 3 / 2 * sum(t**2 for t in totals) / 4**2 * (1 - 4 / 10)
    assert estimate_with(radius, index, 10).stderr().item() == pytest.approx(math.sqrt(variance))


def test_standard_error_of_one_sampled_sequence_is_unknown():
    radius, index = torch.tensor([[1.0, 2.0]]), torch.tensor([[[0, 0], [1, 0]]])
    assert estimate_with(radius, index, 10).stderr().isnan()


def test_standard_error_covers_the_mean_of_the_whole_grid():
    model, x = stack("gru", 4, 8, 1, gain=3), normal(10, 20, 4)
    truth = measured(model, x, directions=("time",))["time"].mean()
    scores = []
    for seed in range(40):
        sample = measured(model, x, directions=("time",), max_points=40, generator=seeded(seed))["time"]
        scores.append(float((sample.mean() - truth) / sample.stderr()))
    assert 0.6 < torch.tensor(scores).square().mean().sqrt() < 1.6


def test_mean_leaves_out_what_is_not_finite():
    estimate = estimate_with(torch.tensor([[1.0, float("nan"), 3.0]]), None, None)
    assert estimate.mean() == 2


def test_mean_along_chosen_axes():
    estimate = measured(stack("gru", 4, 5, 2), normal(5, 3, 4))["time"]
    torch.testing.assert_close(estimate.mean((1, 2)), estimate.radius.mean((1, 2)))


def test_another_implementation_is_refused():
    with pytest.raises(ValueError, match="impl: expected one of auto, generic, fused, got 'fast'"):
        measured(stack("gru", 4, 5), normal(2, 2, 4), impl="fast")


def test_one_launch_is_refused_on_the_cpu():
    with torch.no_grad(), pytest.raises(ValueError, match="'fused', got time: a tensor of the CPU"):
        measured(stack("gru", 4, 35), normal(2, 2, 4), impl="fused", directions=("time",))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(number):
    x = normal(2, 2, 4)
    x[1, 0, 2] = number
    with pytest.raises(ValueError, match="inputs: expected finite numbers, got NaN or infinity"):
        measured(stack("gru", 4, 5), x)


@pytest.mark.parametrize("method", ["krylov", "power", "dense", "auto"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "min_gru", "rnn_relu"])
def test_weights_that_are_nan_end_as_nonfinite(cell, method):
    model = stack(cell, 4, 33, 2)
    with torch.no_grad():
        model.weight_ih_l1[0, 0] = float("nan")
    estimate = measured(model, normal(2, 2, 4), method=method, directions=("time",))["time"]
    assert (estimate.status[0] != Status.nonfinite).all()
    assert (estimate.status[1] == Status.nonfinite).all()
    assert estimate.radius[1].isnan().all()
    assert estimate.mean().isfinite()


@pytest.mark.parametrize(("time", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("hidden", [5, 33])
def test_no_points_make_an_empty_report(time, batch, hidden):
    report = measured(
        stack("lstm", 4, hidden, 2), normal(time, batch, 4), directions=DIRECTIONS, readout=linear(hidden, 3)
    )
    for direction in DIRECTIONS:
        assert report[direction].radius.shape[1:] == (time, batch)
        assert math.isnan(report[direction].certified_fraction)
        assert report[direction].mean().isnan()
    assert json.dumps(report.to_dict())
    assert str(report)


def test_a_single_layer_has_no_depth():
    report = measured(stack("gru", 4, 5, 1), normal(3, 2, 4), directions=("depth", "diagonal"))
    assert report["depth"].radius.shape == report["diagonal"].radius.shape == (0, 3, 2)


@pytest.mark.parametrize("training", [True, False])
def test_modes_of_all_parts_are_as_they_were(training):
    model, readout = nn.GRU(4, 5, 2, dropout=0.5).train(training), nn.Sequential(nn.Linear(5, 5), nn.Dropout())
    readout[0].eval()
    measured(model, normal(3, 2, 4, dtype=torch.float32), directions=DIRECTIONS, readout=readout)
    assert model.training == training
    assert [part.training for part in readout.modules()] == [True, False, True]


def test_mode_is_as_it_was_after_an_error():
    model = stack("gru", 4, 5, 2)
    with pytest.raises(ValueError, match="input: expected"):
        measured(model, normal(3, 2, 9))
    assert model.training


def test_dropout_is_off():
    model, x = nn.GRU(4, 5, 2, dropout=0.9), normal(3, 2, 4, dtype=torch.float32)
    twin = nn.GRU(4, 5, 2)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(measured(model, x)["depth"].radius, measured(twin, x)["depth"].radius)


def test_subsample_is_the_radius_of_a_square_submatrix():
    model, x = stack("gru", 7, 5, 1), normal(3, 2, 7)
    options = {"directions": ("input",), "square": "subsample"}
    found = measured(model, x, **options)["input"].radius.flatten()
    dense = JacobianOperator.from_model(model, x, "input").to_dense()  # [N, 5, 7]
    choices = torch.combinations(torch.arange(7), 5)
    radii = torch.stack([torch.linalg.eigvals(dense[:, :, c]).abs().amax(1) for c in choices])
    errors = (radii - found).abs().amax(1)
    assert errors.min() < 1e-10


def test_subsample_of_a_square_jacobian_is_its_radius():
    model, x = stack("gru", 5, 5, 1), normal(3, 2, 5)
    found = measured(model, x, directions=("input",), square="subsample")["input"].radius.flatten()
    dense = JacobianOperator.from_model(model, x, "input").to_dense()
    assert_close("radius", found, torch.linalg.eigvals(dense).abs().amax(1), 1e-10)


def test_report_is_numbers_for_json():
    report = measured(stack("gru", 4, 5, 2), normal(3, 2, 4), directions=DIRECTIONS)
    content = json.loads(json.dumps(report.to_dict()))
    assert content["implementation"] == "generic"
    assert content["status"]["time"]["converged"] == 12
    assert [row["points"] for row in content["rows"]] == [6] * 6
    time = report["time"].radius[0]
    assert content["rows"][0]["mean"] == pytest.approx(float(time.mean()))
    assert content["rows"][0]["std"] == pytest.approx(float(time.std()))


def test_report_prints_a_line_for_each_direction_and_layer():
    lines = str(measured(stack("gru", 4, 5, 2), normal(3, 2, 4))).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["time", "0"], ["time", "1"], ["depth", "1"]]
    assert "100.0%" in lines[1]


def test_counts_name_every_status():
    counts = measured(stack("gru", 4, 5, 2), normal(3, 2, 4))["time"].counts()
    assert counts == {"converged": 12, "max_matvecs": 0, "ill_conditioned": 0, "breakdown": 0, "nonfinite": 0}


@pytest.mark.parametrize("budget", [1, 2, 40])
def test_no_point_uses_more_products_than_allowed(budget):
    estimate = measured(stack("gru", 4, 33, 1), normal(3, 2, 4), directions=("time",), tol=1e-9, num_matvecs=budget)
    assert (estimate["time"].num_matvecs <= budget).all()
    assert (estimate["time"].status != Status.converged).all()


BAD_OPTIONS = {
    "a bare string": ({"directions": "time"}, TypeError, "directions: expected a sequence of names, got the string"),
    "unknown direction": ({"directions": ("up",)}, ValueError, "directions: expected names among time, .*, got 'up'"),
    "no direction": ({"directions": ()}, ValueError, r"directions: expected distinct names, at least one, got \(\)"),
    "repeated": ({"directions": ("time", "time")}, ValueError, "directions: expected distinct names"),
    "method": ({"method": "lanczos"}, ValueError, "method: expected one of auto, .*, got 'lanczos'"),
    "num_matvecs": ({"num_matvecs": 0}, ValueError, "num_matvecs: expected at least 1, got 0"),
    "tol": ({"tol": 1.0}, ValueError, "tol: expected a number between 0 and 1, got 1.0"),
    "tol nan": ({"tol": float("nan")}, ValueError, "tol: expected a number between 0 and 1, got nan"),
    "square": ({"square": "pad"}, ValueError, "square: expected one of frobenius, subsample, got 'pad'"),
    "max_points": ({"max_points": 0}, ValueError, "max_points: expected at least 1, got 0"),
    "readout": ({"directions": ("output",), "readout": None}, ValueError, "readout: expected a module .*, got None"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_out_of_range_are_refused(case):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        measured(stack("gru", 4, 5), normal(2, 2, 4), **options)


def test_models_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="model: expected a torch.nn.RNN, GRU or LSTM, .*, got Linear"):
        measured(linear(4, 4), normal(2, 2, 4))
