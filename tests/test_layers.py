"""Every layer of ``lsc_ext.nn`` against Jacobians formed by torch from the published equations (tests/equations.py)."""

import math

import pytest
import torch
from equations import KINDS, build, radii, start_of
from networks import flat, gradients, linear, normal

import lsc_ext as lsc
from lsc_ext.estimate import Status
from lsc_ext.operator import JacobianOperator
from lsc_ext.testing import TOLERANCES, assert_close, relative_error

EXACT = TOLERANCES[torch.float64].jacobian
CLOSED_FORM = ("IndRNN", "LRU", "ResLRU", "ComplexDiagonalRNN", "normalised", "one head", "four heads")
BIDIRECTIONAL = [kind for kind in KINDS if KINDS[kind].bidirectional]
#: Krylov to the last digits; a dense or closed form takes no notice.
FINE = {"tol": 1e-11, "num_matvecs": 4000}


def readout_for(model):
    width = (getattr(model, "proj_size", 0) or model.hidden_size) * (2 if getattr(model, "bidirectional", False) else 1)
    return torch.nn.Sequential(linear(width, 5), torch.nn.Tanh()).to(next(model.parameters()).dtype)


def measured(model, x, initial=None, **options):
    return lsc.radii(model, x, initial, generator=torch.Generator().manual_seed(0), **options)


def case(kind, size=3, steps=3, batch=2, **options):
    """A stack, inputs, initial states and a readout."""
    model = build(kind, 4, size, **options)
    x = normal(steps, batch, 4, dtype=next(model.parameters()).dtype)
    return model, x, start_of(kind, model, batch), readout_for(model)


@pytest.mark.parametrize(("size", "steps"), [(1, 3), (3, 3), (33, 3), (3, 1)])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_radii_are_those_of_jacobians_formed_of_the_equations(kind, size, steps):
    model, x, initial, readout = case(kind, size, steps)
    directions = KINDS[kind].directions
    report = measured(model, x, initial, directions=directions, readout=readout, **FINE)
    for direction in directions:
        expected = radii(kind, model, x, initial, direction, readout)
        assert expected.shape[1:] == (steps, 2)
        assert_close(direction, report[direction].radius, expected, EXACT)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_states_that_are_not_given_are_zeros(kind):
    model, x, initial, readout = case(kind)
    zeros = initial
    if initial is not None:
        zeros = tuple(torch.zeros_like(s) for s in initial) if isinstance(initial, tuple) else torch.zeros_like(initial)
    for direction in KINDS[kind].directions:
        found = measured(model, x, directions=(direction,), readout=readout)[direction].radius
        assert_close(direction, found, radii(kind, model, x, zeros, direction, readout), EXACT)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_krylov_agrees_with_the_exact_radius_that_auto_takes_for_small_states(kind):
    model, x, initial, _ = case(kind, 15)
    directions, tol = tuple(d for d in KINDS[kind].directions if d in ("time", "depth", "diagonal")), 1e-5
    if KINDS[kind].bidirectional:
        directions = ("time",)  # its layers read twice as much as they hand up
    exact = measured(model, x, initial, directions=directions)
    found = measured(model, x, initial, directions=directions, method="krylov", tol=tol)
    for direction in directions:
        assert "krylov" not in exact[direction].method
        assert "krylov" in found[direction].method
        error = (found[direction].radius / exact[direction].radius - 1).abs()
        assert error.max() < 10 * tol
        # Relu leaves low-rank Jacobians behind, for which the verdict is more careful than the number.
        assert found[direction].certified_fraction > 0.8


@pytest.mark.parametrize("kind", CLOSED_FORM)
@torch.no_grad()
def test_the_closed_form_in_time_agrees_with_krylov_and_with_the_eigenvalues_of_the_matrix(kind):
    model, x, initial, _ = case(kind, 31)
    closed, krylov, dense = (
        measured(model, x, initial, directions=("time",), method=method, tol=1e-8, num_matvecs=4000)["time"]
        for method in ("auto", "krylov", "dense")
    )
    assert (closed.method, krylov.method, dense.method) == ("closed form", "krylov", "dense")
    assert_close("dense", closed.radius, dense.radius, EXACT)
    assert (krylov.status == Status.converged).all()
    assert_close("krylov", krylov.radius, closed.radius, 1e-7)
    assert_close("modulus", closed.eigenvalue.abs(), closed.radius, EXACT)
    assert (closed.eigenvalue.imag >= 0).all()


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_mean_radius_is_that_of_autograd_through_the_formed_jacobians(kind, through_states):
    model, x, initial, readout = case(kind)
    x.requires_grad_()
    names, leaves = zip(*model.named_parameters(), *readout.named_parameters(), ("inputs", x), strict=True)
    for direction in KINDS[kind].directions:
        options = {"readout": readout, "through_states": through_states}
        value = measured(model, x, initial, directions=(direction,), **options)[direction].radius.mean()
        actual = gradients(value, leaves)
        expected = gradients(radii(kind, model, x, initial, direction, **options).mean(), leaves)
        size = max(float(g.norm()) for g in expected)
        assert size > 0
        for name, a, e in zip(names, actual, expected, strict=True):
            assert float((a - e).norm()) <= EXACT * size, (direction, name)


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize("kind", ["one head", "LRU", "LIF", "bidirectional LSTM"])
def test_krylov_gradient_of_large_states_is_that_of_the_formed_jacobians(kind, through_states):
    model, x, initial, _ = case(kind, 33, steps=2, batch=1, layers=2)
    direction = "time" if kind != "LRU" else "diagonal"
    options = {"directions": (direction,), "through_states": through_states}
    estimate = measured(model, x, initial, **options, **FINE)[direction]
    assert estimate.method == "krylov"
    assert (estimate.status == Status.converged).all()
    leaves = list(model.parameters())
    actual = gradients(estimate.radius.mean(), leaves)
    expected = gradients(radii(kind, model, x, initial, direction, through_states=through_states).mean(), leaves)
    assert not estimate.growth_gradient.any()
    size = max(float(g.norm()) for g in expected)
    assert max(float((a - e).norm()) for a, e in zip(actual, expected, strict=True)) < 1e-7 * size


@pytest.mark.parametrize("kind", KINDS)
def test_states_as_data_leave_out_the_path_through_the_trajectory(kind):
    model, x, initial, _ = case(kind, layers=2)
    x.requires_grad_()
    # Where a step is linear its Jacobians are the same at every state: there is no such path.
    linear_step = kind in ("LRU", "ComplexDiagonalRNN", "normalised", "one head", "four heads")
    reached = []
    for through_states in (False, True):
        radius = measured(model, x, initial, directions=("depth",), through_states=through_states)["depth"].radius
        reached.append(bool(gradients(radius, [x])[0].any()))
    piecewise = kind in ("IndRNN", "FeedForward identity", "FeedForward relu")
    assert reached == [False, not (linear_step or piecewise)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_single_precision_gives_the_radii_of_double_precision(kind):
    model, x, initial, readout = case(kind, 9)
    narrow, _, start, narrow_readout = case(kind, 9, dtype=torch.float32)
    directions = KINDS[kind].directions
    double = measured(model, x, initial, directions=directions, readout=readout)
    single = measured(narrow, x.float(), start, directions=directions, readout=narrow_readout)
    for direction in directions:
        assert single[direction].radius.dtype == torch.float32
        error = relative_error(single[direction].radius, double[direction].radius)
        assert 0 < error < TOLERANCES[torch.float32].jacobian, direction


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("size", [3, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_no_points_make_an_empty_report_and_a_gradient_of_zero(kind, size, steps, batch):
    model, x = build(kind, 4, size, layers=2), normal(steps, batch, 4)
    readout = readout_for(model)
    directions = KINDS[kind].directions
    report = measured(model, x, directions=directions, readout=readout)
    for direction in directions:
        assert report[direction].radius.shape == (len(report.layers[direction]), steps, batch)
        assert report[direction].mean().isnan()
        assert math.isnan(report[direction].certified_fraction)
    total = torch.stack([report[direction].radius.sum() for direction in directions])
    assert not any(gradient.any() for gradient in gradients(total, model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_layers_are_counted_from_the_bottom_and_directions_of_one_layer_are_neighbours(kind):
    model, x, initial, readout = case(kind, steps=1, batch=1)
    found = measured(model, x, initial, directions=KINDS[kind].directions, readout=readout).layers
    if KINDS[kind].bidirectional:
        expected = {"time": [0, 1, 2, 3, 4, 5], "depth": [2, 3, 4, 5], "input": [0, 1], "output": [4, 5]}
    else:
        expected = {"time": [0, 1, 2], "depth": [1, 2], "diagonal": [1, 2], "input": [0], "output": [2]}
    assert found == {direction: expected[direction] for direction in KINDS[kind].directions}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].recurrent])
@torch.no_grad()
def test_feed_forward_layers_have_no_jacobians_in_time(kind):
    model, x, _, _ = case(kind)
    report = measured(model, x, directions=("time", "diagonal"))
    assert report["time"].radius.shape == report["diagonal"].radius.shape == (0, 3, 2)


@torch.no_grad()
def test_samples_of_a_feed_forward_model_are_one_step_of_many_sequences():
    model, x, _, _ = case("FeedForward gelu", steps=1, batch=6)
    assert torch.equal(measured(model, x[0], directions=("depth",))["depth"].radius, measured(model, x)["depth"].radius)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
@torch.no_grad()
def test_the_second_direction_counts_time_as_the_inputs_do(kind):
    model, x, _, _ = case(kind, steps=5)
    for name, parameter in model.named_parameters():
        if not name.endswith("_reverse"):
            model.get_parameter(f"{name}_reverse").copy_(parameter)
    for direction in ("time", "input"):
        ahead = measured(model, x, directions=(direction,))[direction].radius
        turned = measured(model, x.flip(0), directions=(direction,))[direction].radius
        # With the same weights the second direction sees in x what the first one sees in x from its end.
        assert_close(direction, ahead[1], turned[0].flip(0), EXACT)
        assert relative_error(ahead[1], turned[0]) > 0.01


@pytest.mark.parametrize("kind", ["bidirectional GRU", "projected bidirectional LSTM", "LRU", "ALIF"])
@torch.no_grad()
def test_sampled_points_have_the_radii_of_the_full_grid(kind):
    model, x, initial, _ = case(kind, steps=6)
    directions = ("time", "depth", "input")
    whole = measured(model, x, initial, directions=directions)
    sampled = measured(model, x, initial, directions=directions, max_points=5)
    for direction in directions:
        t, b = sampled[direction].index.unbind(-1)
        rows = torch.arange(t.shape[0]).unsqueeze(1)
        assert_close(direction, sampled[direction].radius, whole[direction].radius[rows, t, b], EXACT)


@torch.no_grad()
def test_a_bidirectional_layer_has_no_diagonal():
    model, x, _, _ = case("bidirectional GRU")
    assert measured(model, x, directions=("diagonal",))["diagonal"].radius.shape == (0, 3, 2)


def test_output_of_a_bidirectional_projection_is_refused():
    model, x, _, readout = case("projected bidirectional LSTM")
    with pytest.raises(
        ValueError, match="directions: expected no 'output' for a bidirectional layer with a projection"
    ):
        measured(model, x, directions=("output",), readout=readout)


def test_a_feed_forward_model_takes_no_states():
    model, x, _, _ = case("FeedForward relu")
    with pytest.raises(ValueError, match="initial_state: expected None for a feed-forward model, got states"):
        measured(model, x, x)


@pytest.mark.parametrize("direction", ["depth", "output"])
def test_gradients_of_a_model_in_training_mode_see_no_dropout(direction):
    x, found = normal(3, 2, 4), []
    for training in (False, True):
        model, head = build("ResLRU", layers=2), linear(3, 5)
        readout = torch.nn.Sequential(head, torch.nn.Dropout(0.5)).train(training)
        model.train(training)
        assert any(part.p > 0 for part in model.modules() if isinstance(part, torch.nn.Dropout))
        radius = measured(model, x, directions=(direction,), readout=readout)[direction].radius
        found.append(gradients(radius, [*model.parameters(), *head.parameters()]))
        assert model.training == readout.training == training
    assert_close("gradient", flat(found[1]), flat(found[0]), EXACT)


def test_an_operator_of_a_model_in_training_mode_sees_no_dropout():
    model, x = build("ResLRU", layers=2), normal(3, 2, 4)
    operator = JacobianOperator.from_model(model.train(), x, "depth")
    first = operator.to_dense()
    operator.release()
    assert model.training
    assert torch.equal(operator.to_dense(), first)
    assert torch.equal(JacobianOperator.from_model(model.eval(), x, "depth").to_dense(), first)
