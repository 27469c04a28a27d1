"""Inputs of a given autocorrelation: moments over many sequences, the recurrence itself, seeds and bad input."""

import math

import pytest
import torch

import lsc_ext as lsc
from lsc_ext import memory

F64 = torch.float64
MIXTURE = [(0.3, 0.9), (0.5, 0.0), (0.2, 1.0), (0.1, -0.6)]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(rho, lag: int) -> float:
    pairs = [(1.0, rho)] if isinstance(rho, float) else rho
    return sum(weight * ratio**lag for weight, ratio in pairs)


@pytest.mark.parametrize("rho", [0.0, 0.7, -0.8, 0.997, 1.0, MIXTURE], ids=str)
def test_every_pair_of_steps_has_its_moment_from_the_first_step_on(rho):
    count, steps = 40_000, 7
    x = memory.stationary_inputs(rho, (steps, count), generator=drawn(1), dtype=F64)
    found = x @ x.mT / count
    expected = torch.tensor([[law(rho, abs(t - s)) for s in range(steps)] for t in range(steps)], dtype=F64)
    # A mean of products of two Gaussians: variance at most 2 R(0)^2 / count.
    assert float((found - expected).abs().max()) < 4.5 * law(rho, 0) * math.sqrt(2 / count)
    assert float(x.mean(1).abs().max()) < 4.5 * math.sqrt(law(rho, 0) / count)
    assert float((x[0] * x[0]).mean()) == pytest.approx(law(rho, 0), rel=0.04)


def test_one_term_is_its_recurrence_over_the_generator_s_noise():
    x = memory.stationary_inputs([(4.0, 0.9)], (5, 3, 2), generator=drawn(3), dtype=F64)
    noise = torch.randn(5, 3, 2, dtype=F64, generator=drawn(3))
    state = noise[0]
    for t in range(5):
        state = noise[0] if t == 0 else 0.9 * state + math.sqrt(1 - 0.81) * noise[t]
        torch.testing.assert_close(x[t], 2 * state, rtol=1e-13, atol=1e-15)


def test_a_constant_stays_and_a_ratio_next_to_1_hardly_moves():
    x = memory.stationary_inputs(1.0, (9, 4), generator=drawn(0), dtype=F64)
    assert bool((x == x[0]).all())
    y = memory.stationary_inputs(memory_of(1e-12), (9, 4), generator=drawn(0), dtype=F64)
    moved = (y[1] - y[0]).std()
    assert 0.2 * math.sqrt(2e-12) < float(moved) < 3 * math.sqrt(2e-12)  # sqrt(1 - rho^2) keeps its digits


def memory_of(decay: float) -> list[tuple[float, memory.LogEigenvalue]]:
    return [(1.0, memory.LogEigenvalue(decay))]


def test_what_is_fitted_can_be_drawn_again_and_drives_states_as_the_theory_says():
    terms = [(0.6, 0.9), (0.4, 0.0)]
    x = memory.stationary_inputs(terms, (400, 300), generator=drawn(5), dtype=F64)
    fitted = memory.fit_exponentials(memory.autocorrelation(x, 30))
    assert fitted[0] == pytest.approx((0.6, 0.9), abs=0.02)
    assert fitted[1] == pytest.approx((0.4, 0.0), abs=0.02)
    assert memory.stationary_inputs(fitted, (2, 3)).shape == (2, 3)
    lam = torch.full((300,), 0.8, dtype=F64)
    states = lsc.scan(lam, x.unsqueeze(1))[100:]
    assert float(states.square().mean()) == pytest.approx(float(memory.state_second_moment(0.8, terms)), rel=0.03)


def test_seeds_types_and_shapes():
    first = memory.stationary_inputs(MIXTURE, (6, 2, 3), generator=drawn(0))
    assert first.dtype == torch.float32
    assert torch.equal(first, memory.stationary_inputs(MIXTURE, [6, 2, 3], generator=drawn(0)))
    assert not torch.equal(first, memory.stationary_inputs(MIXTURE, (6, 2, 3), generator=drawn(1)))
    exact = memory.stationary_inputs(MIXTURE, (6, 2, 3), generator=drawn(0), dtype=F64)
    torch.testing.assert_close(first, exact.float(), rtol=0, atol=0)
    assert memory.stationary_inputs(0.5, (1,)).shape == (1,)
    torch.manual_seed(7)
    own = memory.stationary_inputs(0.5, (4,))
    torch.manual_seed(7)
    assert torch.equal(own, memory.stationary_inputs(0.5, (4,)))
    assert float(memory.stationary_inputs([(0.0, 0.5)], (3, 2)).abs().max()) == 0


@pytest.mark.parametrize(
    ("rho", "shape", "options", "error", "words"),
    [
        (1.5, (3,), {}, ValueError, "rho: expected real numbers between -1 and 1"),
        ([(-0.1, 0.5)], (3,), {}, ValueError, "rho: expected weights of at least 0, got -0.1"),
        (torch.tensor([0.1, 0.2]), (3,), {}, ValueError, "rho: expected numbers as weights and ratios"),
        ([(torch.ones(2), 0.2)], (3,), {}, ValueError, "rho: expected numbers as weights and ratios"),
        (memory.Lags(torch.ones(2)), (3,), {}, TypeError, "rho: .* got Lags"),
        ("white", (3,), {}, TypeError, "rho: expected a number"),
        (0.5, (), {}, ValueError, "shape: expected"),
        (0.5, (0, 2), {}, ValueError, "shape: expected at least 1, got 0"),
        (0.5, (3, 2.0), {}, TypeError, "shape: expected an int, got float"),
        (0.5, 3, {}, TypeError, "shape: expected .* got int"),
        (0.5, (3,), {"dtype": torch.complex64}, TypeError, "dtype: expected a real floating type"),
        (0.5, (3,), {"dtype": "float32"}, TypeError, "dtype: expected a real floating type, got float32"),
        (0.5, (3,), {"dtype": torch.int64}, TypeError, "dtype: expected a real floating type"),
    ],
)
def test_bad_input_is_refused_before_a_number_is_drawn(rho, shape, options, error, words):
    generator = drawn(0)
    before = generator.get_state()
    with pytest.raises(error, match=words):
        memory.stationary_inputs(rho, shape, generator=generator, **options)
    assert torch.equal(generator.get_state(), before)
