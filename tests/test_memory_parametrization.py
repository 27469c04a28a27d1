"""Curvatures and losses of one unit in its parameters, against autograd, differences and the moments."""

import math

import pytest
import torch
from memory_inputs import F64, few_inputs, inputs, polar
from torch import Tensor

from lsc_ext import memory
from lsc_ext.memory import LogEigenvalue
from lsc_ext.memory.autocorrelation import read_rho
from lsc_ext.memory.eigenvalue import read_eigenvalue


@pytest.mark.parametrize("lam", [0.4, 0.9, polar(0.9, 0.3), polar(0.97, -2.0)])
@inputs
def test_sensitivity_to_the_modulus_is_that_of_the_state_in_hyperbolic_length(lam, rho):
    """E |d (gamma h) / d nu|^2 = E |gamma h|^2 / (1 - nu^2)^2, for any input."""
    state = memory.input_normalization(lam) ** 2 * memory.state_second_moment(lam, rho)
    found = memory.sensitivity_matrix(lam, rho, normalization="l2")[0, 0]
    torch.testing.assert_close(found * (1 - abs(lam) ** 2) ** 2, state, rtol=1e-11, atol=0)
    optimal = memory.sensitivity_matrix(
        LogEigenvalue(-math.log(abs(lam))), rho, parametrization="optimal", normalization="l2"
    )
    real = memory.input_normalization(abs(lam)) ** 2 * memory.state_second_moment(abs(lam), rho)
    torch.testing.assert_close(optimal[0, 0], real, rtol=1e-11, atol=0)


def loss_of_parameters(parametrization, normalization, rho, teacher):
    def loss(*parameters):
        lam = memory.eigenvalue(parametrization, *parameters)
        return memory.unit_loss(lam, teacher, rho, normalization=normalization)

    return loss


@few_inputs
@pytest.mark.parametrize("normalization", memory.NORMALIZATIONS)
@pytest.mark.parametrize("parametrization", memory.PARAMETRIZATIONS)
def test_the_sensitivity_matrix_is_the_hessian_of_the_loss_at_the_teacher(parametrization, normalization, rho):
    teacher = polar(0.8, 0.6)
    parameters = memory.parameters_of(parametrization, teacher, time_step=0.3)
    assert abs(complex(read_eigenvalue("z", memory.eigenvalue(parametrization, *parameters)).value) - teacher) < 1e-14
    loss = loss_of_parameters(parametrization, normalization, rho, teacher)
    assert float(loss(*parameters)) == pytest.approx(0, abs=1e-25)
    rows = torch.autograd.functional.hessian(loss, parameters)
    expected = torch.stack([torch.stack(row) for row in rows])
    options = {"parametrization": parametrization, "normalization": normalization, "time_step": 0.3}
    found = memory.sensitivity_matrix(teacher, rho, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("nu", "theta"), [(0.9, 0.0), (0.9, 0.3), (0.999, 0.3), (0.999, -2.0)])
def test_the_optimal_modulus_moves_the_phase_of_complex_eigenvalues(nu, theta):
    """Its curvature is 1 for a real eigenvalue alone: at a fixed v the phase moves by about -2 theta d w."""
    lam = polar(nu, theta)
    found = memory.sensitivity_matrix(lam, 0.0, parametrization="optimal", normalization="l2")
    turn = theta * (-2 * nu - (1 - nu**2) * (1 / nu + nu / (1 + nu**2)))
    by_phase = nu**2 * (1 + nu**2) / (1 - nu**2) ** 2
    assert float(found[0, 0]) == pytest.approx(1 + turn**2 * by_phase, rel=1e-9)
    assert float(found[1, 1]) == pytest.approx(1, rel=1e-9)
    if nu > 0.99:
        assert float(found[0, 0]) == pytest.approx(2 * (theta / (1 - nu)) ** 2, rel=0.01)


def test_a_learned_factor_does_not_follow_its_eigenvalue():
    lam, rho = polar(0.9, 0.3), 0.7
    learned = memory.sensitivity_matrix(lam, rho, normalization="l2", learned=True)
    S = float(memory.input_normalization(lam) ** 2 * memory.sensitivity_second_moment(lam, rho))
    expected = torch.tensor([[S, 0], [0, 0.81 * S]], dtype=F64)
    torch.testing.assert_close(learned, expected, rtol=1e-12, atol=1e-9)
    assert float(memory.sensitivity_matrix(lam, rho, normalization="l2")[0, 0]) < S


def test_the_step_of_a_state_space_model_scales_its_input():
    """gamma = D moves with the parameter of the step alone."""
    lam, rho, D = polar(0.9, 0.3), 0.5, 0.2
    teacher = read_eigenvalue("lam", lam)

    def loss(w, v, d):
        step = torch.nn.functional.softplus(d)
        x = read_eigenvalue("lam", memory.eigenvalue("s4", w, v, d))
        R = read_rho(rho)
        own, other = R.state(x, x.conj()).real, R.state(teacher, teacher.conj()).real
        cross = R.state(x, teacher.conj()).real
        return (step**2 * own + D**2 * other - 2 * step * D * cross) / 2

    parameters = memory.parameters_of("s4", lam, time_step=D)
    expected = torch.stack([torch.stack(row) for row in torch.autograd.functional.hessian(loss, parameters)])
    found = memory.sensitivity_matrix(lam, rho, parametrization="s4", normalization="step", time_step=D)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert int(torch.linalg.matrix_rank(memory.sensitivity_matrix(lam, rho, parametrization="s4", time_step=D))) == 2


@pytest.mark.parametrize("parametrization", ["polar", "exp", "optimal"])
def test_parametrizations_keep_digits_that_floats_near_one_have_not(parametrization):
    lam = LogEigenvalue.of_memory(torch.tensor([1.5, 10.0, 1e4, 1e11], dtype=F64), 0.01)
    again = memory.eigenvalue(parametrization, *memory.parameters_of(parametrization, lam))
    if parametrization == "polar":
        torch.testing.assert_close(again, lam_value(lam), rtol=1e-15, atol=0)
    else:
        torch.testing.assert_close(again.decay, lam.decay, rtol=1e-12, atol=0)


def lam_value(lam: LogEigenvalue) -> Tensor:
    return read_eigenvalue("lam", lam).value


def test_negative_parameters_of_the_optimal_modulus_are_negative_eigenvalues():
    found = lam_value(memory.eigenvalue("optimal", -0.7))
    assert complex(found) == pytest.approx(math.tanh(-0.7), abs=1e-15)


@pytest.mark.parametrize("normalization", memory.NORMALIZATIONS)
@inputs
def test_the_loss_of_a_unit_is_the_difference_of_moments(normalization, rho):
    lam, teacher = torch.tensor([0.3, -0.8, polar(0.95, 1.0), 0.0]), torch.tensor(polar(0.9, 0.2))
    moments = [
        memory.input_normalization(x, normalization)
        * memory.input_normalization(y, normalization)
        * memory.state_cross_moment(x, y.conj(), rho).real
        for x, y in ((lam, lam), (teacher, teacher), (lam, teacher))
    ]
    expected = (moments[0] + moments[1]) / 2 - moments[2]
    found = memory.unit_loss(lam, teacher, rho, normalization=normalization)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("rho", [0.0, 0.9, 1.0])
def test_the_loss_of_a_unit_keeps_its_digits_near_its_teacher(rho):
    """1/2 S |lambda - lambda*|^2, where the moments agree to all their digits."""
    for shift in (1e-6, 1e-9, 1e-12):
        teacher = LogEigenvalue(1e-4, 0.3)
        apart = abs(complex(lam_value(teacher)) * shift)
        S = float(memory.sensitivity_second_moment(teacher, rho))
        found = float(memory.unit_loss(LogEigenvalue(1e-4, 0.3 + shift), teacher, rho))
        assert found == pytest.approx(S * apart**2 / 2, rel=max(2e-3, 1e-16 / shift * 2) if shift < 1e-6 else 2e-2)


def test_curvatures_of_a_landscape_are_those_of_differences():
    teacher, step = polar(0.9, 0.2), 1e-4
    for parametrization in ("polar", "exp", "optimal"):
        w, v = memory.parameters_of(parametrization, polar(0.8, 0.5))

        def loss(a, b, parametrization=parametrization):
            return memory.unit_landscape(parametrization, a, b, teacher, 0.3).loss

        found = memory.unit_landscape(parametrization, w, v, teacher, 0.3)
        by_w = (loss(w + step, v) - 2 * loss(w, v) + loss(w - step, v)) / step**2
        by_v = (loss(w, v + step) - 2 * loss(w, v) + loss(w, v - step)) / step**2
        assert float(found.modulus) == pytest.approx(float(by_w), rel=1e-5)
        assert float(found.phase) == pytest.approx(float(by_v), rel=1e-5)
        grid = memory.unit_landscape(parametrization, w + torch.linspace(-0.1, 0.1, 3), v, teacher, 0.3)
        assert grid.loss.shape == (3,)
        assert float(grid.loss[1]) == pytest.approx(float(found.loss), rel=1e-6)
