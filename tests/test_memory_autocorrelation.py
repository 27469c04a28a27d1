"""Autocorrelations of data and exponentials through them, against sums over pairs and known terms."""

import math

import pytest
import torch
from memory_inputs import F64, autocorrelation_at
from networks import normal

import lsc_ext as lsc
from lsc_ext import memory


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
