import inspect

import pytest
import torch
from networks import TORCH_KINDS, linear, normal, stack

import lsc_ext as lsc
from lsc_ext import ops, reference
from lsc_ext.nn import flat_weights
from lsc_ext.testing import assert_close

PAIRS = {
    "recurrent": (ops.recurrent, reference.recurrent),
    "radii": (lsc.radii, reference.radii),
    "spectral_radius": (lsc.spectral_radius, reference.spectral_radius),
}


@pytest.mark.parametrize("name", PAIRS)
def test_fast_and_reference_functions_have_one_signature(name):
    fast, slow = (inspect.signature(function).parameters.values() for function in PAIRS[name])
    assert [(p.name, p.kind, p.default) for p in fast] == [(p.name, p.kind, p.default) for p in slow]


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_reference_trajectory_is_that_of_torch_nn(kind):
    _, theirs, options = TORCH_KINDS[kind]
    twin, x = theirs(3, 4, 2, dtype=torch.float64, **options), normal(5, 2, 3)
    states = 2 if kind == "lstm" else 1
    trajectory = reference.recurrent(x, torch.zeros(2, states, 2, 4), flat_weights(twin, 2), kind)
    assert_close("output", trajectory[-1, 1:, 0], twin(x)[0], 1e-12)


def test_reference_radius_of_a_triangular_matrix_is_its_largest_diagonal_entry():
    matrices = normal(3, 5, 5).triu()
    expected = matrices.diagonal(dim1=1, dim2=2).abs().amax(1)
    assert_close("radius", reference.spectral_radius(matrices).radius, expected, 1e-12)


def test_reference_radius_of_a_rotation_is_its_scale():
    matrix = torch.tensor([[3.0, -4.0], [4.0, 3.0]])
    found = reference.spectral_radius(matrix)
    assert found.radius.item() == pytest.approx(5)
    assert found.eigenvalue.item() == pytest.approx(3 + 4j)


def test_reference_radius_of_a_linear_readout_is_its_scaled_frobenius_norm():
    readout = linear(4, 7)
    found = reference.radii(stack("gru", 3, 4, 1), normal(2, 2, 3), directions=("output",), readout=readout)
    expected = torch.linalg.matrix_norm(readout.weight) / 7**0.5
    torch.testing.assert_close(found["output"].radius, expected.expand(1, 2, 2))


def test_reference_refuses_what_draws_at_random():
    with pytest.raises(ValueError, match="max_points, square: expected None and 'frobenius'"):
        reference.radii(stack("gru", 3, 4), normal(2, 2, 3), max_points=1)


def test_reference_refuses_models_of_another_kind():
    with pytest.raises(TypeError, match="model: expected a recurrent layer, got Linear"):
        reference.radii(linear(3, 3), normal(2, 2, 3))
