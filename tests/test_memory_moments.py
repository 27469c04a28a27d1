"""Moments of states and sensitivities against exact arithmetic, sums, autograd and simulation."""

import itertools
import math
from decimal import Decimal, getcontext

import pytest
import torch
from memory_inputs import C128, F64, autocorrelation_at, inputs, polar
from torch import Tensor

from lsc_ext import memory
from lsc_ext.memory import LogEigenvalue
from lsc_ext.memory.autocorrelation import read_rho
from lsc_ext.memory.eigenvalue import read_eigenvalue

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
