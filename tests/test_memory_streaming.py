"""The streaming pass: against scans and autograd that keep everything, closed forms, and itself in pieces."""

import cmath
import math
import time

import pytest
import torch

import lsc_ext as lsc
from lsc_ext.memory import SensitivityScan, sensitivity_second_moment, state_second_moment
from lsc_ext.testing import TOLERANCES, assert_close

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def eigenvalues(count, dtype):
    modulus = torch.linspace(-0.9, 0.95, count, dtype=torch.float64)
    if not dtype.is_complex:
        return modulus.to(dtype)
    return torch.polar(modulus.abs(), torch.linspace(0, 3, count, dtype=torch.float64)).to(dtype)


def kept(a, x):
    """h and d h / d a [T, B, N] by the definition, in complex128."""
    a, x = a.to(torch.complex128), x.to(torch.complex128)
    h, s, states, derivatives = torch.zeros_like(x[0]), torch.zeros_like(x[0]), [], []
    for inputs in x:
        s = a * s + h
        h = a * h + inputs
        states.append(h)
        derivatives.append(s)
    return torch.stack(states), torch.stack(derivatives)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 31, 33, 65])
def test_moments_are_those_of_what_was_kept(dtype, size):
    a, x = eigenvalues(size, dtype), torch.randn(21, 3, size, dtype=dtype)
    states, derivatives = kept(a, x)

    found = SensitivityScan(a, 3).feed(x)
    pairs = (
        ("state", found.state, states[-1].to(dtype) if dtype.is_complex else states[-1].real.to(dtype)),
        (
            "sensitivity",
            found.sensitivity,
            derivatives[-1].to(dtype) if dtype.is_complex else derivatives[-1].real.to(dtype),
        ),
        ("moment of states", found.state_second_moment(), states.abs().square().mean((0, 1))),
        ("moment of sensitivities", found.sensitivity_second_moment(), derivatives.abs().square().mean((0, 1))),
    )
    for what, part, expected in pairs:
        assert_close(what, part, expected, TOLERANCES[a.real.dtype].forward)
    assert found.steps == 21


def test_sensitivities_are_autograds():
    a, x = eigenvalues(5, torch.float64).requires_grad_(), torch.randn(9, 1, 5, dtype=torch.float64)
    found = SensitivityScan(a, 1).feed(x)
    (gradient,) = torch.autograd.grad(lsc.scan(a, x)[-1].sum(), a)
    torch.testing.assert_close(found.sensitivity[0], gradient)


@pytest.mark.parametrize("lam", [0.5, -0.8, cmath.rect(0.9, 1.0)])
def test_long_sequences_have_the_moments_of_the_closed_form(lam):
    dtype = torch.complex128 if isinstance(lam, complex) else torch.float64
    found = SensitivityScan(torch.tensor([lam], dtype=dtype), 64)
    found.feed(torch.randn(200, 64, 1, dtype=torch.float64))
    for _ in range(5):
        found.feed(torch.randn(4000, 64, 1, dtype=torch.float64))
    assert float(found.state_second_moment()) == pytest.approx(float(state_second_moment(lam, 0.0)), rel=0.02)
    assert float(found.sensitivity_second_moment()) == pytest.approx(
        float(sensitivity_second_moment(lam, 0.0)), rel=0.05
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_of_eights_and_threads_change_no_bit(dtype):
    a, x = eigenvalues(700, dtype), torch.randn(50, 3, 700, dtype=dtype)
    whole = SensitivityScan(a, 3).feed(x)
    pieces = SensitivityScan(a, 3).feed(x[:16]).feed(x[16:40]).feed(x[40:])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threads = SensitivityScan(a, 3).feed(x)
    finally:
        torch.set_num_threads(before)
    for other in (pieces, threads):
        assert torch.equal(other.state, whole.state)
        assert torch.equal(other.sensitivity, whole.sensitivity)
        assert torch.equal(other.state_second_moment(), whole.state_second_moment())
        assert torch.equal(other.sensitivity_second_moment(), whole.sensitivity_second_moment())


def test_views_are_read_as_they_are():
    a, x = eigenvalues(6, torch.float64), torch.randn(6, 3, 20, dtype=torch.float64)
    found = SensitivityScan(a.flip(0).flip(0), 3).feed(x.transpose(0, 2)[::2])
    expected = SensitivityScan(a, 3).feed(x.transpose(0, 2)[::2].contiguous())
    assert torch.equal(found.sensitivity_second_moment(), expected.sensitivity_second_moment())


def test_before_the_first_step_there_is_no_moment():
    found = SensitivityScan(eigenvalues(3, torch.float32), 2).feed(torch.zeros(0, 2, 3))
    assert found.steps == 0
    assert bool(found.state_second_moment().isnan().all())
    assert SensitivityScan(torch.zeros(0), 2).feed(torch.zeros(4, 2, 0)).state_second_moment().shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: SensitivityScan(torch.zeros(2, 2), 1),
            ValueError,
            r"eigenvalues: expected shape \(N,\), got \(2, 2\)",
        ),
        (
            lambda: SensitivityScan(torch.zeros(2).half(), 1),
            TypeError,
            "eigenvalues: expected float32, .* got torch.float16",
        ),
        (lambda: SensitivityScan(torch.zeros(2), 0), ValueError, "batch: expected at least 1, got 0"),
        (
            lambda: SensitivityScan(torch.zeros(2), 1).feed(torch.zeros(3, 2, 2)),
            ValueError,
            r"expected shape \(T, 1, 2\)",
        ),
        (
            lambda: SensitivityScan(torch.zeros(2), 1).feed(torch.zeros(3, 1, 2, dtype=torch.float64)),
            TypeError,
            "inputs: expected torch.float32 or torch.float32, got torch.float64",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.slow
def test_it_takes_at_most_three_times_a_plain_scan():
    """B=16, T=512, 256 units: the target of docs/benchmarks.md, by the best of many turns."""
    a, x = eigenvalues(256, torch.float32), torch.randn(512, 16, 256)

    def best(run):
        times = []
        for _ in range(30):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    plain = best(lambda: lsc.scan(a, x))
    assert math.isfinite(plain)
    assert best(lambda: SensitivityScan(a, 16).feed(x)) < 3 * plain
