"""Mean radii of newly made layers against the figures of Herranz-Celotti and Rouat, arXiv 2308.12075, and what follows
from the equations. A figure +- spread is of single networks; means of several are held to it.
"""

import math

import pytest
import torch

import lsc_ext as lsc


@torch.no_grad()
def drawn(count, build, inputs, direction, states=lambda: None):
    """The radius of ``count`` networks, each averaged over its points, with inputs and states of its own."""
    found = []
    for _ in range(count):
        estimate = lsc.radii(build(), inputs(), states(), directions=(direction,))[direction]
        assert estimate.certified_fraction == 1
        found.append(float(estimate.radius.mean()))
    return torch.tensor(found)


@pytest.mark.parametrize(("tau_a", "size", "figure", "spread"), [(250, 256, 0.9969, 3e-4), (100, 128, 0.9919, 6e-4)])
def test_alif_at_rest_starts_where_the_paper_says(tau_a, size, figure, spread):
    found = drawn(20, lambda: lsc.nn.ALIF(size, size, tau_a=tau_a), lambda: torch.zeros(1, 1, size), "time")
    assert float(found.mean()) == pytest.approx(figure, abs=spread)
    assert found.std() < 2 * spread


@torch.no_grad()
def test_the_slowest_adaptation_makes_the_radius_of_alif_at_rest():
    model = lsc.nn.ALIF(128, 128, tau_a=100)
    radius = lsc.radii(model, torch.zeros(1, 1, 128), directions=("time",))["time"].radius
    assert radius.item() == pytest.approx(math.exp(-1 / float(model.tau_a_l0.max())), abs=2e-3)


@pytest.mark.parametrize("size", [128, 256])
def test_the_voltages_of_alif_at_rest_alone_have_radius_one_half(size):
    # Without adaptation, and with next to no memory, half of the recurrent weight is left: its radius is about 1.
    build, rest = lambda: lsc.nn.LIF(size, size, tau=0.1, threshold=0.01), lambda: torch.zeros(1, 1, size)
    assert float(drawn(20, build, rest, "time").mean()) == pytest.approx(0.50, abs=0.01)


@pytest.mark.parametrize(("size", "figure", "count"), [(64, 0.9892, 300), (256, 0.9898, 40), (512, 0.9899, 20)])
def test_lru_starts_just_below_the_largest_modulus(size, figure, count):
    # The smallest of N uniform numbers has mean 1 / (N + 1), so single networks spread by 0.0008, 0.0002 and 0.0001.
    found = drawn(count, lambda: lsc.nn.LRU(8, 8, state_size=size), lambda: torch.zeros(1, 1, 8), "time")
    assert float(found.mean()) == pytest.approx(figure, abs=1.5e-4)
    assert found.max() < 0.99


@pytest.mark.parametrize(("width", "diagonal", "count"), [(32, 0.115, 40), (64, 0.108, 12), (128, 0.108, 4)])
def test_res_lru_with_random_states_and_inputs_starts_where_the_paper_says(width, diagonal, count):
    def states():
        return torch.complex(torch.randn(2, 4, 2 * width), torch.randn(2, 4, 2 * width))

    def build():
        return lsc.nn.ResLRU(width, width, 2)

    def inputs():
        return torch.randn(1, 4, width)

    # Single networks spread by 0.016, 0.012 and 0.007 along the diagonal.
    assert float(drawn(count, build, inputs, "diagonal", states).mean()) == pytest.approx(diagonal, abs=0.012)
    assert float(drawn(count, build, inputs, "time", states).mean()) == pytest.approx(0.989, abs=0.001)


DEPTHS = [
    ("relu", "glorot_normal", 0.741),
    ("relu", "he_normal", 1.072),
    ("sin", "glorot_normal", 1.006),
    ("sin", "he_normal", 1.151),
    ("cos", "glorot_normal", 0.660),
    ("cos", "he_normal", 0.992),
]


@pytest.mark.parametrize(("activation", "scheme", "figure"), DEPTHS)
def test_thirty_dense_layers_start_where_the_paper_says(activation, scheme, figure):
    def build():
        return lsc.nn.initialize(lsc.nn.FeedForward(784, 128, 30, activation), scheme)

    found = drawn(3, build, lambda: torch.randn(1, 784), "depth")
    assert float(found.mean()) == pytest.approx(figure, abs=0.03)


@torch.no_grad()
def test_ind_rnn_starts_at_one_wherever_a_unit_is_active_and_at_zero_elsewhere():
    model, x = lsc.nn.IndRNN(4, 2), torch.randn(6, 30, 4)
    output, _ = model(x)
    active = (output > 0).any(-1)
    assert active.any()
    assert not active.all()
    assert torch.equal(lsc.radii(model, x, directions=("time",))["time"].radius[0], active.float())
