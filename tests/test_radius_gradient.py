import pytest
import torch
from networks import CELL_DIRECTIONS, RECURRENT_CELLS, flat, gradients, linear, normal, stack
from torch import nn

import lsc_ext as lsc
from lsc_ext import reference
from lsc_ext.estimate import Status
from lsc_ext.frobenius import frobenius_radius
from lsc_ext.nn import flat_weights
from lsc_ext.operator import JacobianOperator, MatrixOperator, StepOperator
from lsc_ext.testing import assert_close, matrix_from_eigenvalues
from lsc_ext.trajectory import grid_points

SQUARE_DIRECTIONS = ("time", "depth", "diagonal")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(flat(a), flat(b), dim=0))


def mean_radius(function, model, x, direction, **options):
    return function(model, x, directions=(direction,), generator=seeded(), **options)[direction].radius.mean()


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize(("cell", "direction"), CELL_DIRECTIONS)
def test_gradient_of_small_networks_is_that_of_the_reference(cell, direction, through_states):
    model, x, head = stack(cell, 4, 5, 3, gain=2), normal(3, 2, 4).requires_grad_(), linear(5, 6)
    readout = nn.Sequential(head, nn.Tanh())
    leaves = [*model.parameters(), *head.parameters(), *([x] if through_states else [])]
    options = {"through_states": through_states, "readout": readout}
    actual, expected = (
        gradients(mean_radius(f, model, x, direction, **options), leaves) for f in (lsc.radii, reference.radii)
    )
    assert_close("gradient", flat(actual), flat(expected), 1e-8)


def point_gradients(radius, parameters):
    """Gradients of each point's radius, [points, parameters]."""
    rows = [flat(torch.autograd.grad(r, parameters, retain_graph=True, allow_unused=True)) for r in radius.flatten()]
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", RECURRENT_CELLS)
def test_krylov_gradient_of_nearly_every_converged_point_points_where_the_exact_one_does(cell, dtype):
    model, x = stack(cell, 4, 33, 1, gain=2, dtype=dtype), normal(4, 5, 4, dtype=dtype)
    names = [n for n, _ in model.named_parameters() if "bias_hh" not in n]
    parameters = [model.get_parameter(n) for n in names]
    options = {"directions": ("time",), "generator": seeded()}
    found, exact = lsc.radii(model, x, method="krylov", **options)["time"], reference.radii(model, x, **options)["time"]
    rows, expected = point_gradients(found.radius, parameters), point_gradients(exact.radius, parameters)
    converged = (found.status == Status.converged).flatten() & ~found.growth_gradient.flatten()
    assert converged.double().mean() > 0.7
    agreement = torch.nn.functional.cosine_similarity(rows, expected, dim=1)[converged]
    assert (agreement >= 0.999).double().mean() >= 0.95


@pytest.mark.parametrize("n", [5, 12, 33, 65])
def test_krylov_gradient_of_matrices_is_that_of_the_eigenvalues(n):
    matrices = (normal(6, n, n) / n**0.5).requires_grad_()
    found = lsc.spectral_radius(matrices, method="krylov", tol=1e-8, num_matvecs=2000, generator=seeded())
    exact = reference.spectral_radius(matrices)
    assert (found.status == Status.converged).all()
    (actual,), (expected,) = gradients(found.radius, [matrices]), gradients(exact.radius, [matrices])
    assert_close("gradient", actual, expected, 1e-5)
    assert not found.growth_gradient.any()


def basis(n):
    return (torch.eye(n, dtype=torch.float64) + 0.3 * normal(n, n) / n**0.5).unsqueeze(0)


LEADING = {
    "positive": [1.5, 0.7],
    "negative": [-1.5, 0.7],
    "complex": [0.9 + 1.2j, 0.9 - 1.2j],
    "imaginary": [1.5j, -1.5j],
}


def matrix_led_by(kind, n):
    rest = torch.linspace(-0.5, 0.5, n - 2, dtype=torch.float64).to(torch.complex128)
    values = torch.cat((torch.tensor(LEADING[kind], dtype=torch.complex128), rest)).unsqueeze(0)
    return matrix_from_eigenvalues(values, basis(n))


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("kind", LEADING)
def test_gradient_of_a_simple_leading_pair_is_the_finite_difference(kind, method):
    matrix, step = matrix_led_by(kind, 36), 1e-5
    direction = normal(*matrix.shape, seed=5)
    options = {"method": method, "tol": 1e-10, "num_matvecs": 4000}
    leaf = matrix.clone().requires_grad_()
    found = lsc.spectral_radius(leaf, generator=seeded(), **options)
    assert found.radius.item() == pytest.approx(1.5, rel=1e-8)
    assert bool(found.eigenvalue.imag.abs() > 0.1) == (kind in ("complex", "imaginary"))
    (gradient,) = gradients(found.radius, [leaf])
    ends = [lsc.spectral_radius(matrix + s * direction, generator=seeded(), **options).radius for s in (step, -step)]
    difference = (ends[0] - ends[1]) / (2 * step)
    assert_close("derivative", (gradient * direction).sum().reshape(1), difference, 1e-6)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("through_states", [False, True])
def test_gradient_of_a_network_is_the_finite_difference(kind, through_states):
    model, x = stack("rnn_tanh", 3, 34, 1), normal(3, 1, 3)
    lead = matrix_led_by("positive" if kind == "real" else "complex", 34)[0]
    with torch.no_grad():
        model.weight_hh_l0.copy_(lead)
        model.weight_ih_l0.mul_(0.3)
    states, gates = None, None
    options = {"method": "krylov", "tol": 1e-10, "num_matvecs": 4000, "directions": ("time",)}
    found = lsc.radii(model, x, generator=seeded(), through_states=through_states, **options)["time"]
    assert (found.status == Status.converged).all()
    assert (found.eigenvalue.imag.abs() > 0.1).all() == (kind == "complex")
    directions = [normal(*p.shape, seed=i) for i, p in enumerate(model.parameters())]
    along = sum((g * d).sum() for g, d in zip(gradients(found.radius, model.parameters()), directions, strict=True))
    with torch.no_grad():
        weights = [p.clone() for p in model.parameters()]
        states, gates = lsc.ops.recurrent(x, x.new_zeros(1, 1, 1, 34), weights_of(model), "rnn_tanh")

    def total(sign, step=1e-6):
        with torch.no_grad():
            for p, w, d in zip(model.parameters(), weights, directions, strict=True):
                p.copy_(w + sign * step * d)
            if through_states:
                return lsc.radii(model, x, generator=seeded(), **options)["time"].radius.sum()
            moved = weights_of(model)
            products = torch.nn.functional.linear(x, moved[0], moved[2])
            recurrent = torch.nn.functional.linear(states[0, :-1, 0], moved[1], moved[3])
            fresh = (products + recurrent).reshape(gates.shape).contiguous()
            held = StepOperator("rnn_tanh", x, states, fresh, moved, 0, "time", grid_points(3, 1))
            return lsc.spectral_radius(
                held, method="krylov", tol=1e-10, num_matvecs=4000, generator=seeded()
            ).radius.sum()

    difference = (total(1) - total(-1)) / 2e-6
    assert_close("derivative", along.reshape(1), difference.reshape(1), 1e-5)


def weights_of(model):
    return flat_weights(model, model.num_layers)


def test_states_as_data_leaves_out_the_path_through_the_trajectory():
    model, x = stack("rnn_tanh", 4, 6, 2, gain=2), normal(4, 2, 4)
    local, total = (
        gradients(mean_radius(lsc.radii, model, x, "time", through_states=s), model.parameters()) for s in (False, True)
    )
    assert not torch.allclose(flat(local), flat(total), rtol=0.01)


def test_initial_states_are_reached_through_the_trajectory_alone():
    model, x = stack("gru", 4, 6, 1, gain=2), normal(3, 2, 4)
    start = normal(1, 2, 6).requires_grad_()
    for through_states in (False, True):
        radius = lsc.radii(model, x, start, directions=("time",), through_states=through_states)["time"].radius
        (gradient,) = gradients(radius, [start])
        assert bool(gradient.any()) == through_states


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonal_matrix_has_a_flagged_growth_gradient_of_positive_cosine(dtype):
    orthogonal = torch.linalg.qr(normal(3, 96, 96))[0].to(dtype).requires_grad_()
    found = lsc.spectral_radius(orthogonal, method="krylov", num_matvecs=300, generator=seeded())
    assert not found.growth_gradient.any()
    (gradient,) = gradients(found.radius, [orthogonal])
    assert found.growth_gradient.all()
    assert gradient.isfinite().all()
    # Scaling an orthogonal matrix scales its radius: the derivative along the matrix itself is the radius.
    along = (gradient * orthogonal).sum((1, 2))
    assert_close("along the matrix", along.detach(), found.radius.detach(), 1e-4)
    assert (torch.nn.functional.cosine_similarity(gradient.flatten(1), orthogonal.flatten(1), dim=1) > 0).all()


def test_power_gradient_is_flagged_and_points_where_the_exact_one_does():
    matrices = (normal(4, 40, 40) / 40**0.5).requires_grad_()
    found = lsc.spectral_radius(matrices, method="power", generator=seeded())
    (actual,) = gradients(found.radius, [matrices])
    (expected,) = gradients(reference.spectral_radius(matrices).radius, [matrices])
    assert found.growth_gradient.all()
    assert (torch.nn.functional.cosine_similarity(actual.flatten(1), expected.flatten(1), dim=1) > 0).all()


def test_marks_of_a_report_cover_every_layer():
    model, x = stack("gru", 4, 5, 3), normal(3, 2, 4)
    estimate = lsc.radii(model, x, method="power")["time"]
    assert estimate.growth_gradient.shape == estimate.radius.shape
    estimate.radius.sum().backward()
    assert estimate.growth_gradient.all()


def test_zero_matrix_has_radius_and_gradient_zero():
    matrices = torch.zeros(2, 40, 40, dtype=torch.float64, requires_grad=True)
    found = lsc.spectral_radius(matrices, method="krylov")
    assert (found.radius == 0).all()
    assert (found.status == Status.converged).all()
    assert not gradients(found.radius, [matrices])[0].any()


@pytest.mark.parametrize("method", ["dense", "krylov", "power"])
def test_points_that_are_not_finite_have_gradient_zero(method):
    matrices = normal(3, 33, 33)
    matrices[1, 0, 0] = float("nan")
    matrices.requires_grad_()
    found = lsc.spectral_radius(matrices, method=method)
    (gradient,) = gradients(found.mean(), [matrices])
    assert not gradient[1].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_frobenius_gradient_is_that_of_autograd(shape):
    matrices = normal(3, *shape).requires_grad_()
    (actual,) = gradients(frobenius_radius(MatrixOperator(matrices)).radius, [matrices])
    norm = torch.linalg.matrix_norm(matrices) / max(shape) ** 0.5
    (expected,) = gradients(norm, [matrices])
    assert_close("gradient", actual, expected, 1e-12)


def test_a_parameter_changed_in_place_before_backward_raises():
    model, x = stack("gru", 4, 5, 1), normal(3, 2, 4)
    radius = lsc.radii(model, x, directions=("time",))["time"].radius.mean()
    with torch.no_grad():
        model.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        radius.backward()


def test_backward_twice_over_a_kept_graph_gives_the_same_gradient():
    matrices = normal(2, 40, 40).requires_grad_()
    radius = lsc.spectral_radius(matrices, generator=seeded()).radius.sum()
    first, second = (torch.autograd.grad(radius, matrices, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_no_gradient_is_prepared_where_none_is_wanted():
    model, x = stack("gru", 4, 5, 2), normal(3, 2, 4)
    with torch.no_grad():
        assert not lsc.radii(model, x)["time"].radius.requires_grad
    assert not lsc.spectral_radius(normal(2, 4, 4)).radius.requires_grad


def test_gradient_reaches_matrices_of_any_leading_shape_and_stride():
    matrices = normal(2, 5, 3, 5).permute(0, 2, 1, 3).requires_grad_()
    found = lsc.spectral_radius(matrices)
    (actual,) = gradients(found.radius, [matrices])
    (expected,) = gradients(reference.spectral_radius(matrices).radius, [matrices])
    assert found.radius.shape == (2, 3)
    assert_close("gradient", actual, expected, 1e-8)


def test_gradient_of_a_function_operator_reaches_closed_over_parameters():
    weight = (normal(6, 6) / 2).requires_grad_()
    operator = JacobianOperator(lambda s: torch.tanh(s @ weight.T), normal(3, 6, seed=2), [weight])
    (gradient,) = gradients(lsc.spectral_radius(operator, method="dense").radius, [weight])
    assert gradient.any()
