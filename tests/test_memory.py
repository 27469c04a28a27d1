"""Moments, curvatures and losses of lsc.memory against exact arithmetic, sums, autograd, differences and simulation."""

import cmath
import itertools
import math
import re
from decimal import Decimal, getcontext

import pytest
import torch
from networks import normal
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.memory import LogEigenvalue
from lsc_ext.memory.autocorrelation import read_rho
from lsc_ext.memory.eigenvalue import read_eigenvalue

F64, C128 = torch.float64, torch.complex128
INPUTS = {
    "white": 0.0,
    "coloured": 0.7,
    "alternating": -0.6,
    "constant": 1.0,
    "mixture": [(0.3, 0.9), (0.5, 0.0), (0.2, 1.0)],
    "lags": memory.Lags(torch.tensor([1.0, 0.6, 0.3, 0.1])),
}
inputs = pytest.mark.parametrize("rho", INPUTS.values(), ids=INPUTS)
few_inputs = pytest.mark.parametrize("rho", [INPUTS[name] for name in ("mixture", "lags")])


def polar(modulus: float, phase: float) -> complex:
    return cmath.rect(modulus, phase)


def autocorrelation_at(rho, lags: Tensor) -> Tensor:
    """R, from what a user gives."""
    if isinstance(rho, memory.Lags):
        return torch.cat((rho.values, torch.zeros(int(lags.max()) + 1)))[lags]
    pairs = [(1.0, rho)] if isinstance(rho, float) else rho
    return sum(w * torch.tensor(r, dtype=F64) ** lags for w, r in pairs)


# High precision


class Exact:
    """A complex number of 90 digits."""

    def __init__(self, real, imag=0):
        self.real, self.imag = Decimal(real), Decimal(imag)

    def __add__(self, other):
        return Exact(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other):
        return Exact(self.real - other.real, self.imag - other.imag)

    def __mul__(self, other):
        real = self.real * other.real - self.imag * other.imag
        return Exact(real, self.real * other.imag + self.imag * other.real)

    def __truediv__(self, other):
        size = other.real**2 + other.imag**2
        return self * Exact(other.real / size, -other.imag / size)

    def __complex__(self):
        return complex(float(self.real), float(self.imag))


def exact_polar(decay: float, phase: float) -> Exact:
    """exp(-decay + i phase), by its series."""
    z = Exact(-Decimal(decay), Decimal(phase))
    total = term = Exact(1)
    for k in range(1, 120):
        term = term * z / Exact(k)
        total = total + term
    return total


def exact_moments(x: Exact, y: Exact, rho: float) -> tuple[Exact, Exact]:
    """f and S as the document writes them: sums of A and A' over powers of 1 - p, which cancel in floats."""
    one, r = Exact(1), Exact(rho)
    p = x * y
    sums = one + r * x / (one - r * x) + r * y / (one - r * y)
    slopes = [z * r / ((one - r * z) * (one - r * z)) for z in (x, y)]
    q = one - p
    return sums / q, (one + p) / (q * q * q) * sums + (slopes[0] + slopes[1]) / (q * q)


@pytest.mark.parametrize("rho", [0.0, 0.5, 1 - 1e-12, 1.0, -0.9])
@pytest.mark.parametrize("phase", [None, 1e-7, 0.3, 3.0])
@pytest.mark.parametrize("decay", [0.7, 1e-3, 1e-13])
def test_moments_keep_their_digits_near_the_circle(decay, phase, rho):
    getcontext().prec = 90
    x = exact_polar(decay, 0.0 if phase is None else phase)
    f, S = (complex(z).real for z in exact_moments(x, Exact(x.real, -x.imag), rho))
    lam = LogEigenvalue(decay, phase)
    assert float(memory.state_second_moment(lam, rho)) == pytest.approx(f, rel=1e-13)
    assert float(memory.sensitivity_second_moment(lam, rho)) == pytest.approx(S, rel=1e-13)
    z = exact_polar(3 * decay, 0.1)
    f, S = (complex(z) for z in exact_moments(x, z, rho))
    assert abs(complex(memory.state_cross_moment(lam, LogEigenvalue(3 * decay, 0.1), rho)) - f) < 1e-13 * abs(f)


@pytest.mark.parametrize("lam", [0.5, -0.9, 1 - 1e-6, 1 - 2**-40, -1 + 2**-30])
@pytest.mark.parametrize("rho", [0.0, 0.9, 1.0])
def test_real_numbers_near_one_are_taken_as_they_are(lam, rho):
    getcontext().prec = 90
    f, S = (float(complex(z).real) for z in exact_moments(Exact(lam), Exact(lam), rho))
    assert float(memory.state_second_moment(lam, rho)) == pytest.approx(f, rel=1e-13)
    assert float(memory.sensitivity_second_moment(lam, rho)) == pytest.approx(S, rel=1e-13)


def test_a_memory_of_a_trillion_steps_is_a_logarithm_and_no_float():
    lam = LogEigenvalue.of_memory(1e12, 0.0)
    assert float(memory.sensitivity_second_moment(lam, 0.0)) == pytest.approx(1e36 / 4, rel=1e-11)
    assert float(LogEigenvalue.of_memory(2.0).decay) == pytest.approx(math.log(2), rel=1e-15)


# Sums and simulation


@inputs
@pytest.mark.parametrize("lam", [0.8, -0.5, 0.0, polar(0.85, 0.4), polar(0.7, -2.5)])
def test_moments_are_sums_over_pairs_of_steps(lam, rho):
    k = torch.arange(400)
    R = autocorrelation_at(rho, (k.unsqueeze(1) - k).abs())
    power = torch.tensor(lam, dtype=C128) ** k
    power[0] = 1  # torch has NaN for 0 ** 0
    slope = torch.cat((torch.zeros(1), power[:-1])) * k
    for moment, row in ((memory.state_second_moment, power), (memory.sensitivity_second_moment, slope)):
        expected = (row.conj() @ (R.to(C128) @ row)).real
        torch.testing.assert_close(moment(lam, rho), expected, rtol=1e-11, atol=1e-12)
        for steps in (1, 2, 3, 31):
            few = row[:steps]
            expected = (few.conj() @ (R[:steps, :steps].to(C128) @ few)).real
            torch.testing.assert_close(moment(lam, rho, horizon=steps), expected, rtol=1e-12, atol=1e-12)


def test_finite_horizons_reach_beyond_the_circle():
    expected = sum(1.02 ** (2 * k) for k in range(200))
    assert float(memory.state_second_moment(1.02, 0.0, horizon=200)) == pytest.approx(expected, rel=1e-12)
    turning = memory.sensitivity_second_moment(polar(1.0, 0.7), 0.0, horizon=50)
    assert float(turning) == pytest.approx(49 * 50 * 99 / 6, rel=1e-12)


def simulated(lam: complex, rho: float, gamma: float, chains: int, steps: int) -> tuple[Tensor, Tensor]:
    """Squares of states and sensitivities of many chains [chains] after a number of steps from zero."""
    x = torch.randn(chains, dtype=F64)
    h = torch.zeros(chains, dtype=C128)
    s = torch.zeros(chains, dtype=C128)
    for _ in range(steps):
        s = lam * s + h
        h = lam * h + gamma * x
        x = rho * x + math.sqrt(1 - rho**2) * torch.randn(chains, dtype=F64)
    return h.abs().square(), s.abs().square()


@pytest.mark.parametrize(("lam", "rho"), [(0.9, 0.0), (0.9, 0.7), (polar(0.9, 0.4), 0.7), (polar(0.93, 2.0), -0.4)])
def test_moments_are_those_of_simulated_recurrences(lam, rho):
    squares = simulated(lam, rho, 1.0, 4000, 150)
    for found, moment in zip(squares, (memory.state_second_moment, memory.sensitivity_second_moment), strict=True):
        error = float(found.std()) / math.sqrt(len(found))
        assert float(moment(lam, rho)) == pytest.approx(float(found.mean()), abs=4 * error)
        assert error < 0.04 * float(found.mean())


def test_a_tensor_of_eigenvalues_against_a_tensor_of_inputs():
    lam, rho = torch.linspace(-0.9, 0.99, 33, dtype=F64).view(-1, 1)[::2], torch.linspace(0, 1, 5, dtype=F64)
    found = memory.sensitivity_second_moment(lam, rho)
    assert found.shape == (17, 5)
    assert found.dtype == F64
    for i, j in itertools.product((0, 7, 16), range(5)):
        assert found[i, j] == memory.sensitivity_second_moment(float(lam[i]), float(rho[j]))
    assert memory.state_second_moment(torch.empty(0, 3), 0.5).shape == (0, 3)
    assert memory.state_second_moment(torch.tensor(0.5), [(2.0, 0.0)]).shape == ()


@inputs
def test_inputs_add_up(rho):
    lam = torch.tensor([0.3, 0.9, polar(0.8, 1.0)])
    lags = memory.Lags(autocorrelation_at(rho, torch.arange(500)))
    for moment in (memory.state_second_moment, memory.sensitivity_second_moment):
        torch.testing.assert_close(moment(lam, rho), moment(lam, lags), rtol=1e-10, atol=0)


# Derivatives


@inputs
@pytest.mark.parametrize("pair", [(0.8, -0.3), (0.9, 0.9), (polar(0.9, 0.3), polar(0.8, -0.2)), (0.0, polar(0.5, 1.0))])
def test_the_sensitivity_is_the_second_derivative_of_the_state(pair, rho):
    x, y = (torch.tensor(z, dtype=C128, requires_grad=True) for z in pair)
    moment = memory.state_cross_moment(x, y, rho)
    (slope,) = torch.autograd.grad(moment.real, x, create_graph=True)  # the conjugate of d f / d x
    (second,) = torch.autograd.grad(slope.real, y)
    torch.testing.assert_close(
        second.conj(), memory.sensitivity_cross_moment(*pair, rho).to(C128), rtol=1e-10, atol=1e-12
    )
    points = [read_eigenvalue("z", z) for z in pair]
    torch.testing.assert_close(slope.conj(), read_rho(rho).state_slope(*points), rtol=1e-11, atol=1e-12)


@inputs
def test_divided_differences_are_those_of_the_state_moment(rho):
    R = read_rho(rho)
    m, q, x, y = (read_eigenvalue("z", z) for z in (polar(0.9, 0.3), 0.5j, polar(0.8, -1.0), -0.3))
    once = (R.state(m, y) - R.state(q, y)) / (m.value - q.value)
    torch.testing.assert_close(R.difference(m, q, y), once, rtol=1e-12, atol=0)
    twice = once - (R.state(m, x) - R.state(q, x)) / (m.value - q.value)
    torch.testing.assert_close(R.differences(m, q, x, y), twice / (y.value - x.value), rtol=1e-12, atol=0)
    torch.testing.assert_close(R.difference(m, m, y), R.state_slope(m, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(R.differences(m, m, y, y), R.sensitivity(m, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("moment", [memory.state_second_moment, memory.sensitivity_second_moment])
@pytest.mark.parametrize("horizon", [None, 7])
def test_moments_have_gradients(moment, horizon):
    lam = torch.tensor([0.0, 0.5, 0.97, -0.4], dtype=F64, requires_grad=True)
    rho = torch.tensor([0.3, 0.0, 0.9, 0.5], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: moment(a, b, horizon=horizon), (lam, rho))
    decay = torch.tensor([1e-3, 0.5], dtype=F64, requires_grad=True)
    phase = torch.tensor([0.2, 2.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, t: moment(LogEigenvalue(a, t), 0.5, horizon=horizon).log(), (decay, phase)
    )


# The curse


@pytest.mark.parametrize(("rho", "power", "factor"), [(0.0, 3, 0.25), (1.0, 4, 1.0)])
def test_sensitivity_is_a_power_of_the_memory(rho, power, factor):
    tau = torch.logspace(2, 9, 8, dtype=F64)
    S = memory.sensitivity_second_moment(LogEigenvalue.of_memory(tau), rho)
    torch.testing.assert_close(S / tau**power, torch.full((8,), factor, dtype=F64), rtol=2 / 100, atol=0)
    torch.testing.assert_close(S.log10().diff(), torch.full((7,), float(power), dtype=F64), rtol=3e-3, atol=0)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_sensitivity_does_not_grow_exponentially_with_the_memory(rho):
    """Twice the memory is at most 2^4 times the sensitivity, whatever the input; an exponential would square it."""
    tau = 2.0 ** torch.arange(1, 40, dtype=F64)
    S = memory.sensitivity_second_moment(LogEigenvalue.of_memory(tau), rho)
    factors = S[1:] / S[:-1]
    assert float(factors.max()) < 16.0001
    assert float(factors.min()) > 4
    state = memory.state_second_moment(LogEigenvalue.of_memory(tau), rho)
    ratio = S / state / tau**2  # two more powers than the state has
    assert float(ratio.min()) > 0.2
    assert float(ratio.max()) < 1.0001


# Normalised states and parametrisations


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


# Gates


@pytest.mark.parametrize("z", [0.0, 0.5, 0.9, 0.99])
@inputs
def test_constant_gates_are_the_derivative_through_the_weight_of_the_input(z, rho):
    leaves = [torch.tensor(z, dtype=F64, requires_grad=True) for _ in range(2)]
    moment = (1 - leaves[0]) * (1 - leaves[1]) * memory.state_cross_moment(*leaves, rho)
    (first,) = torch.autograd.grad(moment, leaves[0], create_graph=True)
    (second,) = torch.autograd.grad(first, leaves[1])
    found = memory.gated_second_moments(z, rho)
    torch.testing.assert_close(found.state, moment.detach(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found.sensitivity, (z * (1 - z)) ** 2 * second, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.999])
def test_gates_bound_states_and_sensitivities(rho):
    found = memory.gated_second_moments(LogEigenvalue.of_memory(torch.logspace(0.1, 6, 60, dtype=F64)), rho)
    assert float(found.state.max()) <= 1
    assert float(found.sensitivity.max()) < 0.25


# Data


@pytest.mark.parametrize("shape", [(33,), (31, 3), (16, 5, 4), (1, 2)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("remove_mean", [False, True])
def test_the_autocorrelation_is_the_mean_over_pairs(shape, biased, remove_mean):
    x = (2 + normal(*shape)).float()
    x = x.transpose(0, -1).contiguous().transpose(0, -1)
    data = x.double() - (x.double().mean(0) if remove_mean else 0)
    steps, lags = len(x), min(len(x), 7)
    expected = [(data[d:] * data[: steps - d]).sum(0) / (steps if biased else steps - d) for d in range(lags)]
    options = {"biased": biased, "remove_mean": remove_mean}
    found = memory.autocorrelation(x, lags, **options)
    torch.testing.assert_close(found, torch.stack([z.mean() for z in expected]), rtol=1e-10, atol=1e-12)
    if len(shape) > 1:
        found = memory.autocorrelation(x, lags, per_feature=True, **options)
        rows = torch.stack([z.reshape(-1, shape[-1]).mean(0) for z in expected], -1)
        torch.testing.assert_close(found, rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "terms",
    [
        [(0.043056, 0.997005), (0.332, 0.0)],
        [(1.0, 0.5), (0.0, 0.0)],
        [(0.5, 0.99), (1.5, 0.7), (0.2, 0.0)],
        [(0.4, 1.0), (0.3, 0.8), (0.3, -0.5), (0.1, 0.0)],
    ],
)
def test_exponentials_are_found_again(terms):
    lags = torch.arange(200)
    R = autocorrelation_at(terms, lags)
    found = memory.fit_exponentials(R, len(terms) - 1)
    assert len(found) == len(terms)
    for term, expected in zip(found, terms, strict=True):
        assert term == pytest.approx(expected, rel=1e-6, abs=1e-8)
    bare = memory.fit_exponentials(R - terms[-1][0] * (lags == 0), len(terms) - 1, white=False)
    assert bare[0] == pytest.approx(terms[0], rel=1e-6)
    assert len(bare) == len(terms) - 1


def test_a_fit_to_data_gives_moments_of_data():
    """Two features, a slow and a white one; the state moments of their fit are those of running the recurrence."""
    steps, chains = 400, 300
    x, noise = [torch.randn(chains, dtype=F64)], torch.randn(steps, chains, dtype=F64)
    for t in range(steps - 1):
        x.append(0.95 * x[-1] + math.sqrt(1 - 0.95**2) * noise[t])
    data = torch.stack(x) + torch.randn(steps, chains, dtype=F64)
    R = memory.autocorrelation(data, 60)
    fitted = memory.fit_exponentials(R)
    assert fitted[0] == pytest.approx((1, 0.95), rel=0.06)
    assert fitted[1] == pytest.approx((1, 0.0), rel=0.06)
    states = lsc.scan(torch.full((1,), 0.9, dtype=F64), data.unsqueeze(-1), torch.zeros(chains, 1, dtype=F64))
    measured = float(states[100:].square().mean())
    assert float(memory.state_second_moment(0.9, fitted)) == pytest.approx(measured, rel=0.04)
    assert float(memory.state_second_moment(0.9, memory.Lags(R))) == pytest.approx(measured, rel=0.04)


# Networks


def networks(inputs: int, outputs: int) -> list:
    """A dense, a block diagonal and a diagonal network of one shape."""
    A = normal(4, 4, seed=3)
    A = 0.8 * A / torch.linalg.eigvals(A).abs().max()
    B, C, D = normal(4, inputs, seed=4), normal(outputs, 4, seed=5), normal(outputs, inputs, seed=6)
    blocks = torch.stack((A[:2, :2], A[2:, 2:])) * 0.5
    lam = torch.tensor([0.9, -0.5, polar(0.8, 0.5), polar(0.7, 2.0)], dtype=C128)
    return [
        memory.DenseSystem(A, B, C, D),
        memory.DenseSystem(blocks, B, C, D),
        memory.DiagonalSystem(lam, torch.complex(B, B.flip(0)), torch.complex(C, C.flip(1)), D),
    ]


@pytest.mark.parametrize("steps", [1, 2, 3, 31, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 2)])
def test_impulse_responses_are_products_of_steps(steps, inputs, outputs):
    for system in networks(inputs, outputs):
        dense = system.dense()
        state, expected = dense.B, []
        for k in range(steps):
            expected.append(dense.C @ state + (dense.D if k == 0 else 0))
            state = dense.A @ state
        found = memory.impulse_response(system, steps)
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-13)


LAYERS = {
    "lru": lambda: lsc.nn.LRU(2, 3, state_size=4, max_phase=1.0, max_modulus=0.9, dtype=F64),
    "square lru": lambda: lsc.nn.LRU(3, 3, state_size=2, max_modulus=0.9, dtype=F64),
    "complex diagonal": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, state_size=4, max_modulus=0.9, dtype=F64),
    "normalised": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, state_size=4, normalization="learned", max_modulus=0.9),
    "blocks": lambda: lsc.nn.BlockDiagonalRNN(2, 3, state_size=4, heads=2, max_modulus=0.9, dtype=F64),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_answers_an_impulse_as_its_system_does(make):
    layer = make()
    I = layer.input_size
    x = torch.zeros(9, I, I, dtype=layer.D_l0.dtype)
    x[0] = torch.eye(I)
    response = layer(x)[0].transpose(1, 2).double()  # [T, O, I]
    tolerance = 1e-5 if layer.D_l0.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(memory.impulse_response(layer, 9), response, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_population_loss_is_the_mean_loss_of_layers_over_many_sequences(rho):
    steps, count = 12, 20_000
    student, teacher = lsc.nn.LRU(1, 1, state_size=3, dtype=F64), lsc.nn.BlockDiagonalRNN(1, 1, state_size=3, dtype=F64)
    x = [torch.randn(count, dtype=F64)]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(count, dtype=F64))
    data = torch.stack(x).unsqueeze(-1)
    with torch.no_grad():
        losses = (student(data)[0] - teacher(data)[0]).square().mean((0, 2)) / 2
    error = float(losses.std()) / math.sqrt(count)
    found = memory.teacher_student_loss(student, teacher, rho, horizon=steps)
    assert float(found.detach()) == pytest.approx(float(losses.mean()), abs=4 * error)
    assert error < 0.02 * float(losses.mean())


@inputs
def test_the_stationary_loss_is_that_of_a_long_horizon(rho):
    systems = networks(2, 3)
    for student, teacher in itertools.product(systems, systems):
        found = float(memory.teacher_student_loss(student, teacher, rho))
        if student is teacher:
            assert found == pytest.approx(0, abs=1e-11)
            continue
        response = (memory.impulse_response(student, 300) - memory.impulse_response(teacher, 300)).flatten(1)
        k = torch.arange(300)
        R = autocorrelation_at(rho, (k.unsqueeze(1) - k).abs())
        assert found == pytest.approx(float((response * (R @ response)).sum()) / 2, rel=1e-9)
        long = memory.teacher_student_loss(student, teacher, rho, horizon=800)
        assert found == pytest.approx(float(long), rel=0.05)


@pytest.mark.parametrize("horizon", [None, 5])
@few_inputs
def test_hessians_are_those_of_the_loss(horizon, rho):
    for system in networks(1, 1):
        names, values = zip(*system.parameters().items(), strict=True)

        def loss(*changed, names=names, system=system):
            student = system.with_parameters(dict(zip(names, changed, strict=True)))
            return memory.teacher_student_loss(student, system, rho, horizon=horizon)

        blocks = torch.autograd.functional.hessian(loss, values)
        sizes = [z.numel() for z in values]
        rows = [
            torch.cat([block.reshape(sizes[i], sizes[j]) for j, block in enumerate(row)], 1)
            for i, row in enumerate(blocks)
        ]
        expected = torch.cat(rows)
        scale = float(expected.abs().max())
        found = memory.hessian(system, rho=rho, horizon=horizon)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10 * scale)
        if horizon is not None:  # sums of products of slopes, or second derivatives
            given = memory.hessian(system, system, rho, horizon=horizon)
            torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("rho", [0.6, [(0.3, 1.0), (0.5, 0.0)]])
def test_closed_form_hessians_are_blocks_of_the_whole_one(rho):
    dense, _, diagonal = networks(2, 3)
    found = memory.dense_hessian(dense.A, dense.B, dense.C, rho)
    whole = memory.hessian(dense, rho=rho)[:16, :16]
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))
    found = memory.diagonal_hessian(diagonal.lam, diagonal.B, diagonal.C, rho)
    whole = memory.hessian(diagonal, rho=rho)[:8, :8]
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))


def test_the_dense_hessian_stands_eigenvalues_that_coincide():
    A = torch.diag(torch.tensor([0.7, 0.7, -0.2], dtype=F64))
    B, C = normal(3, 1, seed=4), normal(1, 3, seed=5)
    whole = memory.hessian(memory.DenseSystem(A, B, C), rho=0.5)[:9, :9]
    torch.testing.assert_close(memory.dense_hessian(A, B, C, 0.5), whole, rtol=1e-10, atol=1e-10)


def test_the_hessian_of_layers_away_from_the_teacher_is_that_of_differences():
    torch.manual_seed(3)
    student, teacher = (lsc.nn.LRU(1, 1, state_size=2, dtype=F64) for _ in range(2))
    found = memory.hessian(student, teacher, horizon=20)
    flat = torch.nn.utils.parameters_to_vector(student.parameters()).detach()
    assert found.shape == (len(flat), len(flat))

    def slope(values: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(values, student.parameters())
        loss = memory.teacher_student_loss(student, teacher, horizon=20)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])

    for i in range(len(flat)):
        change = 1e-6 * torch.eye(len(flat), dtype=F64)[i]
        column = (slope(flat + change) - slope(flat - change)) / 2e-6
        torch.testing.assert_close(found[i], column, rtol=1e-6, atol=1e-7)


def test_gradient_descent_on_the_population_loss_finds_the_teacher():
    torch.manual_seed(0)
    teacher = memory.DiagonalSystem(torch.tensor([0.8 + 0.1j]), torch.ones(1), torch.ones(1))
    student = lsc.nn.ComplexDiagonalRNN(1, 1, state_size=1, max_modulus=0.7, dtype=F64)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = memory.teacher_student_loss(student, teacher, horizon=50)
        loss.backward()
        return loss

    before = float(closure().detach())
    optimizer.step(closure)
    assert float(closure().detach()) < 1e-8 * before
    found = complex(*student.lambda_l0[:, 0].tolist())
    assert min(abs(found - (0.8 + 0.1j)), abs(found - (0.8 - 0.1j))) < 1e-3


# Alignment


def test_alignment_and_participation_of_known_matrices():
    assert float(memory.axis_alignment(torch.diag(torch.tensor([1e6, 1.0, 0.0])))) == pytest.approx(1)
    assert float(memory.axis_alignment(torch.ones(5, 5))) == pytest.approx(5)
    assert float(memory.axis_alignment(torch.zeros(3, 3))) == 0
    stretch = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
    matrix = stretch @ (torch.ones(3, 3) + torch.eye(3)) @ stretch
    assert float(memory.axis_alignment(matrix)) == pytest.approx(2)  # whatever the scales of the axes are
    assert memory.participation_ratio(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2).tolist() == pytest.approx([1, 1])
    assert float(memory.participation_ratio(torch.ones(4, 4))) == pytest.approx(4)
    batch = torch.stack((torch.ones(3, 3), torch.eye(3) + 1))
    assert memory.axis_alignment(batch).tolist() == pytest.approx([3, 2])
    assert memory.participation_ratio(batch, 1).shape == (2, 1)


# Bad arguments

ONE, SYSTEM = torch.ones(1), memory.DenseSystem(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: memory.state_second_moment(1.0, 0.0), "lam: expected moduli below 1, got 1"),
        (lambda: memory.state_second_moment(polar(1.1, 1.0), 0.0), "lam: expected moduli below 1"),
        (lambda: memory.state_second_moment(math.nan, 0.0), "lam: expected finite numbers"),
        (lambda: memory.state_second_moment(LogEigenvalue(-0.1), 0.0), "lam: expected moduli below 1"),
        (lambda: memory.state_second_moment(LogEigenvalue(math.nan), 0.0), "lam: expected a finite decay"),
        (lambda: memory.state_second_moment(0.5, 1.5), "rho: expected real numbers between -1 and 1, got 1.5"),
        (lambda: memory.state_second_moment(0.5, math.nan), "rho: expected finite numbers"),
        (lambda: memory.state_second_moment(0.5, []), "rho: expected at least one (weight, rho) pair"),
        (lambda: memory.state_second_moment(0.5, [(math.inf, 0.5)]), "rho: expected finite weights"),
        (lambda: memory.state_second_moment(0.5, 0.0, horizon=0), "horizon: expected at least 1, got 0"),
        (lambda: memory.sensitivity_cross_moment(0.5, 2.0, 0.0), "second: expected moduli below 1"),
        (lambda: LogEigenvalue.of_memory(1.0), "tau: expected more than 1 step"),
        (lambda: memory.Lags(torch.zeros(0)), "values: expected shape (L,)"),
        (lambda: memory.Lags(torch.tensor([math.nan])), "values: expected finite numbers"),
        (lambda: memory.input_normalization(0.5, "l3"), "normalization: expected one of None, 'l2', 'l1', got 'l3'"),
        (lambda: memory.eigenvalue("log", 0.5), "parametrization: expected one of polar, exp, optimal, s4"),
        (lambda: memory.eigenvalue("s4", -0.5), "step: expected a number for s4"),
        (lambda: memory.eigenvalue("exp", 0.5, step=0.1), "step: expected None for exp"),
        (lambda: memory.parameters_of("s4", 0.5, time_step=0.0), "time_step: expected more than 0"),
        (lambda: memory.sensitivity_matrix(0.0, 0.5), "lam: expected moduli above 0"),
        (lambda: memory.sensitivity_matrix(0.5, 0.5, normalization="step"), "normalization: expected one of"),
        (lambda: memory.unit_loss(0.5, 1.0), "teacher: expected moduli below 1"),
        (lambda: memory.unit_landscape("s4", 0.5, 0.0, 0.5), "parametrization: expected one of polar, exp, optimal"),
        (lambda: memory.gated_second_moments(-0.5, 0.0), "gate: expected real numbers in [0, 1)"),
        (lambda: memory.gated_second_moments(0.5j, 0.0), "gate: expected real numbers in [0, 1)"),
        (lambda: memory.autocorrelation(torch.zeros(3, 2), 4), "x: expected shape (T, ..) with at least 4 steps"),
        (lambda: memory.autocorrelation(torch.zeros(3), 2, per_feature=True), "x: expected shape"),
        (lambda: memory.autocorrelation(torch.full((3,), math.nan), 2), "x: expected finite numbers"),
        (lambda: memory.fit_exponentials(torch.ones(4), 2), "values: expected at least 5 lags for 2 terms, got 4"),
        (lambda: memory.fit_exponentials(torch.full((9,), math.inf)), "values: expected finite numbers"),
        (lambda: memory.diagonal_hessian(torch.ones(2) / 2, ONE, ONE), "B: expected shape (2,) or (2, I), got (1,)"),
        (lambda: memory.diagonal_hessian(torch.tensor(0.5), ONE, ONE), "lam: expected shape (n,), got ()"),
        (lambda: memory.dense_hessian(torch.ones(2, 3), ONE, ONE), "A: expected a real square matrix"),
        (lambda: memory.dense_hessian(torch.eye(1), ONE, ONE), "A: expected moduli below 1"),
        (lambda: memory.axis_alignment(torch.ones(2, 3)), "hessian: expected real shape (.., P, P)"),
        (lambda: memory.axis_alignment(-torch.eye(2)), "hessian: expected a diagonal of at least 0"),
        (lambda: memory.participation_ratio(torch.eye(2), 3), "count: expected 1 to 2, got 3"),
        (lambda: memory.DenseSystem(torch.ones(2, 3), ONE, ONE), "A: expected shape (n, n) or (K, m, m), got (2, 3)"),
        (lambda: memory.DenseSystem(torch.eye(2), ONE, ONE), "B: expected shape (2,) or (2, I), got (1,)"),
        (lambda: memory.DenseSystem(torch.eye(1), ONE, ONE, torch.ones(2, 1)), "D: expected shape (1, 1), got (2, 1)"),
        (lambda: memory.DenseSystem(torch.eye(1) * 1j, ONE, ONE), "A: expected a real tensor"),
        (lambda: memory.DiagonalSystem(ONE, ONE, torch.ones(2)), "C: expected shape (1,) or (O, 1), got (2,)"),
        (lambda: memory.system_of(lsc.nn.LRU(1, 1, 2)), "layer: expected num_layers == 1"),
        (lambda: memory.impulse_response(SYSTEM, 0), "steps: expected at least 1, got 0"),
        (
            lambda: memory.teacher_student_loss(SYSTEM, memory.DenseSystem(torch.zeros(1, 1), torch.ones(1, 2), ONE)),
            "teacher: expected (outputs, inputs) == (1, 1) as the student has, got (1, 2)",
        ),
        (
            lambda: memory.teacher_student_loss(SYSTEM, memory.DenseSystem(torch.ones(1, 1), ONE, ONE)),
            "expected a spectral radius below 1 without a horizon, got 1",
        ),
        (
            lambda: memory.teacher_student_loss(*[memory.DiagonalSystem(ONE, ONE, ONE)] * 2),
            "student: expected a spectral radius below 1",
        ),
    ],
)
def test_bad_values_are_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: memory.state_second_moment("0.5", 0.0),
        lambda: memory.state_second_moment(True, 0.0),
        lambda: memory.state_second_moment(0.5, "white"),
        lambda: memory.state_second_moment(0.5, [0.5]),
        lambda: memory.state_second_moment(0.5, 0.0, horizon=2.0),
        lambda: memory.autocorrelation([1.0], 1),
        lambda: memory.autocorrelation(torch.ones(3) * 1j, 1),
        lambda: memory.fit_exponentials(torch.ones(3, 3)),
        lambda: memory.teacher_student_loss(SYSTEM, 0.5),
        lambda: memory.teacher_student_loss(torch.nn.GRU(1, 1), SYSTEM),
        lambda: memory.hessian(torch.nn.Linear(1, 1)),
    ],
)
def test_bad_types_are_refused(call):
    with pytest.raises(TypeError, match="expected"):
        call()
