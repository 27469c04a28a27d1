"""Path counts, gradient profiles, gains and moments against enumeration, exact arithmetic, autograd and scipy."""

import itertools
import math
import re
from fractions import Fraction

import pytest
import torch
from networks import normal
from scipy import integrate, stats
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import theory
from lsc_ext.pretrain import resolve_target
from lsc_ext.theory.gain import ACTIVATIONS

PAIRS = [(0.5, 0.5), (1.0, 1.0), (0.3, 0.3), (1.2, 1.2), (0.9, 0.1), (0.2, 1.4), (0.0, 0.7), (0.6, 0.0)]


def walks(time_steps: int, layers: int, grid: str) -> int:
    """Paths from (T, D) to (0, 0), one by one."""
    if (time_steps, layers) == (0, 0):
        return 1
    down = (time_steps, layers - 1) if grid == "rectangle" else (time_steps - 1, layers - 1)
    moves = ((time_steps - 1, layers), down)
    return sum(walks(t, d, grid) for t, d in moves if t >= 0 and d >= 0)


@pytest.mark.parametrize("grid", ["rectangle", "parallelogram"])
def test_paths_are_counted_as_they_are_walked(grid):
    for time_steps, layers in itertools.product(range(8), range(6)):
        expected = walks(time_steps, layers, grid)
        assert theory.path_count(time_steps, layers, grid=grid) == expected
        assert float(theory.log_path_count(time_steps, layers, grid=grid).exp()) == pytest.approx(expected, rel=1e-13)


def test_the_parallelogram_is_the_sheared_rectangle():
    for time_steps, layers in itertools.product(range(9), range(9)):
        if time_steps >= layers:
            rectangle = theory.path_count(time_steps - layers, layers)
            assert theory.path_count(time_steps, layers, grid="parallelogram") == rectangle


@pytest.mark.parametrize(("time_steps", "layers"), [(0, 0), (1, 0), (0, 3), (7, 4), (31, 33), (50, 5)])
def test_the_hockey_stick_sums_path_counts(time_steps, layers):
    once = sum(math.comb(s + layers, layers) for s in range(time_steps + 1))
    pairs = ((t, back) for t in range(time_steps + 1) for back in range(t + 1))
    twice = sum(math.comb(t - back + layers, layers) for t, back in pairs)
    assert theory.hockey_stick(time_steps, layers, folds=0) == math.comb(time_steps + layers, layers)
    assert theory.hockey_stick(time_steps, layers) == once
    assert theory.hockey_stick(time_steps, layers, folds=2) == twice


def test_the_bound_averages_all_pairs_and_ends_at_infinity():
    pairs = sum(math.comb(t - back + 3, 3) for t in range(8) for back in range(t + 1))
    assert theory.gradient_bound(7, 3) == pairs / 7
    assert theory.gradient_bound(10000, 2000) == math.inf


def test_log_path_counts_take_arrays_and_go_beyond_floats():
    steps, layers = torch.tensor([[5], [10000]]), torch.tensor([2, 5000])
    expected = [[math.log(math.comb(t + d, d)) for d in (2, 5000)] for t in (5, 10000)]
    assert theory.log_path_count(steps, layers).tolist() == [pytest.approx(row, rel=1e-12) for row in expected]
    assert theory.log_path_count(2, 3, grid="parallelogram") == -math.inf


@pytest.mark.parametrize("rho_time", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_radii_that_add_to_one_carry_a_probability(rho_time):
    total, layers = 40, torch.arange(41)
    carried = theory.path_contribution(total - layers, layers, rho_time, 1 - rho_time)
    assert carried.max() <= 1 + 1e-12
    assert float(carried.sum()) == pytest.approx(1, abs=1e-12)  # over all paths of one length
    expected = stats.binom.pmf(layers.numpy(), total, 1 - rho_time)
    assert carried.tolist() == pytest.approx(expected, abs=1e-13)


def test_a_move_down_the_parallelogram_counts_once():
    assert float(theory.path_contribution(5, 2, 0.5, 3.0, grid="parallelogram")) == pytest.approx(10 * 0.5**3 * 9)
    assert float(theory.path_contribution(5, 2, 0.5, 3.0)) == pytest.approx(21 * 0.5**5 * 9)


def pascal(x: Tensor, layers: int, rho_time: float, rho_depth: float, *, delayed: bool) -> Tensor:
    """The network as its equation reads, step by step, unlike the library's: outputs [T]."""
    steps = x.shape[0]
    zero = x.new_zeros(())
    state = [[zero] * (steps + 1) for _ in range(layers)]  # state[l][t + 1] after step t
    for t, layer in itertools.product(range(steps), range(layers)):
        below = x[t] if layer == 0 else state[layer - 1][t if delayed else t + 1]
        state[layer][t + 1] = rho_depth * below + rho_time * state[layer][t]
    return torch.stack(state[-1][1:])


@pytest.mark.parametrize("grid", ["rectangle", "parallelogram"])
@pytest.mark.parametrize(("layers", "steps"), [(1, 1), (1, 31), (3, 1), (3, 33), (10, 65), (33, 3)])
def test_the_profile_is_what_autograd_finds(layers, steps, grid):
    for rho_time, rho_depth in PAIRS:
        x = normal(steps).requires_grad_()
        output = pascal(x, layers, rho_time, rho_depth, delayed=grid == "parallelogram")
        (expected,) = torch.autograd.grad(output.sum() + 0 * x.sum(), x)  # the sum for where nothing arrives
        found = theory.gradient_profile(rho_time, rho_depth, layers, steps, grid=grid)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_pascal_rnn_is_its_equation_and_reports_its_radii():
    x = normal(12, 2)
    model = theory.PascalRNN(4, 0.8, 0.3)
    expected = torch.stack([pascal(column, 4, 0.8, 0.3, delayed=False) for column in x.mT], dim=1)
    torch.testing.assert_close(model(x), expected, rtol=1e-14, atol=0)
    profile = theory.gradient_profile(0.8, 0.3, 4, 12)
    torch.testing.assert_close(model.gradient_profile(x), profile.unsqueeze(1).expand(12, 2), rtol=1e-12, atol=0)
    assert model(torch.zeros(0, 3)).shape == (0, 3)
    assert "rho_time=0.8" in repr(model)


def exact_profile(a: Fraction, b: Fraction, layers: int, steps: int) -> list[Fraction]:
    terms = [math.comb(d + layers - 1, layers - 1) * b**layers * a**d for d in range(steps)]
    return list(itertools.accumulate(terms))[::-1]


@pytest.mark.parametrize(("a", "b"), [("1/2", "1/2"), ("1", "1"), ("7/10", "7/10"), ("3/103", "100/103")])
def test_the_profile_is_that_of_exact_arithmetic(a, b):
    exact = exact_profile(Fraction(a), Fraction(b), 33, 65)
    found = theory.gradient_profile(float(Fraction(a)), float(Fraction(b)), 33, 65)
    assert found.tolist() == pytest.approx([float(x) for x in exact], rel=1e-12)


def test_the_profile_stands_long_and_deep_networks():
    log = theory.log_gradient_profile(1.0, 1.0, 100, 10_000)
    steps = (0, 1, 5_000, 9_998, 9_999)
    expected = [math.log(math.comb(10_000 - t - 1 + 100, 100)) for t in steps]
    assert [float(log[t]) for t in steps] == pytest.approx(expected, rel=1e-13, abs=1e-12)
    half = theory.gradient_profile(0.5, 0.5, 100, 10_000)
    tail = stats.nbinom.cdf([9_999 - t for t in (0, 9_800, 9_900, 9_990)], 100, 0.5)
    assert [float(half[t]) for t in (0, 9_800, 9_900, 9_990)] == pytest.approx(tail, rel=1e-9)
    assert half.max() <= 1 + 1e-11
    assert theory.gradient_profile(1.2, 1.2, 100, 10_000)[0] == math.inf
    rising = theory.log_gradient_profile(1.2, 1.2, 100, 10_000)
    assert rising.isfinite().all()
    # Far from the end it grows by log 1.2 a step and by a little more for the paths that are new.
    growth = float(rising[0] - rising[1])
    assert growth == pytest.approx(math.log(1.2) + math.log1p(99 / 9_999), rel=3e-4)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.3, 0.3), (0.7, 0.7), (0.9, 0.1), (0.0, 0.4), (0.4, 0.0)])
def test_the_profile_tends_to_its_limit(a, b):
    limit = theory.gradient_limit(a, b, 4)
    assert float(theory.gradient_profile(a, b, 4, 2000)[0]) == pytest.approx(limit, rel=1e-9)
    assert (abs(limit - 1) < 1e-12) == (a + b == 1)


def test_without_decay_in_time_there_is_no_limit():
    assert theory.gradient_limit(1.0, 0.1, 3) == math.inf
    assert theory.gradient_limit(1.0, 0.0, 3) == 0
    assert theory.gradient_limit(0.99999, 1e9, 100) == math.inf


def test_unbalanced_targets_are_those_of_pretraining_and_carry_most_to_the_corner():
    target = theory.unbalanced_target(3, 100)
    assert target == {"time": pytest.approx(100 / 103), "depth": pytest.approx(3 / 103)}
    assert target == resolve_target("unbalanced", ("time", "depth"), 3, 100)
    best = float(theory.path_contribution(100, 3, target["time"], target["depth"]))
    for time in (0.5, 0.9, 0.96, 0.98, 0.99):
        assert float(theory.path_contribution(100, 3, time, 1 - time)) < best


def mean_over_normal(function, variance: float) -> float:
    """By adaptive quadrature, split at zero where some have a kink."""

    def density(z: float) -> float:
        value = float(function(torch.tensor(z, dtype=torch.float64)))
        return value * math.exp(-z * z / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    edge = 12 * math.sqrt(variance)
    return sum(integrate.quad(density, *ends, epsabs=1e-13, limit=200)[0] for ends in ((-edge, 0), (0, edge)))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gaussian_means_are_those_of_adaptive_quadrature(name):
    function = ACTIVATIONS[name]

    def slope(z: Tensor) -> Tensor:
        return torch.func.grad(function)(z)

    for variance in (0.3, 1.0, 2.5):
        expected = mean_over_normal(lambda z: function(z) ** 2, variance)
        assert theory.mean_square(name, variance) == pytest.approx(expected, rel=1e-9)
        expected = mean_over_normal(lambda z: slope(z) ** 2, variance)
        assert theory.mean_square_slope(name, variance) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shift", [0.3, 1.0, -1.7])
@pytest.mark.parametrize("variance", [0.5, 4.0])
def test_a_slope_may_jump_anywhere(shift, variance):
    tail = stats.norm.sf(shift, scale=math.sqrt(variance))

    def shifted(z: Tensor) -> Tensor:
        return torch.relu(z - shift)

    assert theory.mean_square_slope(shifted, variance) == pytest.approx(tail, abs=1e-3)
    expected = mean_over_normal(lambda z: shifted(z) ** 2, variance)
    assert theory.mean_square(shifted, variance) == pytest.approx(expected, rel=1e-3)
    assert theory.critical_gain(shifted, variance=variance) == pytest.approx(tail**-0.5, rel=5e-3)


def test_activations_are_those_of_the_feed_forward_layer():
    assert tuple(sorted(ACTIVATIONS)) == lsc.nn.feed_forward.ACTIVATIONS
    z = torch.linspace(-3, 3, 31, dtype=torch.float64).unsqueeze(1)
    for name, function in ACTIVATIONS.items():
        layer = lsc.nn.FeedForward(1, 1, 1, name, bias=False, dtype=torch.float64)
        torch.nn.init.ones_(layer.weight_ih_l0)
        torch.testing.assert_close(layer(z).detach(), function(z), rtol=1e-12, atol=1e-14)


def test_critical_gains_in_closed_form():
    assert theory.critical_gain("relu", "glorot_normal") == pytest.approx(math.sqrt(2), rel=1e-12)
    assert theory.critical_gain("relu", "he_uniform") == pytest.approx(1, rel=1e-12)
    assert theory.critical_gain("relu", "orthogonal") == pytest.approx(math.sqrt(2), rel=1e-12)
    for name in ("identity", "tanh", "sin"):
        assert theory.critical_gain(name) == pytest.approx(1, rel=1e-9)
    # cos: q tanh q = 1 and g^2 (1 - exp(-2 q)) / 2 = 1.
    q = 1.1996786402577338
    assert theory.critical_gain("cos") == pytest.approx(math.sqrt(2 / -math.expm1(-2 * q)), rel=1e-9)
    assert theory.critical_gain("sin", variance=0.5) == pytest.approx(math.sqrt(2 / (1 + math.exp(-1))), rel=1e-12)
    assert theory.critical_gain("relu", radius=0.5) == pytest.approx(math.sqrt(2) / 2, rel=1e-12)


def test_a_callable_counts_as_the_activation_it_is():
    assert theory.critical_gain(torch.cos) == theory.critical_gain("cos")
    leaky = theory.critical_gain(lambda z: torch.nn.functional.leaky_relu(z, 0.1))
    assert leaky == pytest.approx(math.sqrt(2 / 1.01), rel=1e-9)


@pytest.mark.parametrize("name", ["relu", "tanh", "cos", "sigmoid"])
@pytest.mark.parametrize("scheme", ["glorot", "he", "orthogonal"])
@pytest.mark.parametrize("radius", [0.5, 1.0])
def test_a_layer_with_the_critical_gain_has_the_radius(name, scheme, radius):
    gain = theory.critical_gain(name, scheme, radius=radius)
    assert theory.layer_radius(name, scheme, gain=gain) == pytest.approx(radius, rel=1e-6)


def test_bias_variance_moves_the_fixed_point():
    gain = theory.critical_gain("tanh", bias_variance=0.1)
    assert gain > 1.1  # saturation has to be made up for
    assert theory.layer_radius("tanh", gain=gain, bias_variance=0.1) == pytest.approx(1, rel=1e-9)
    q = theory.variance_fixed_point("tanh", gain=gain, bias_variance=0.1)
    assert q == pytest.approx(gain**2 * theory.mean_square("tanh", q) + 0.1, rel=1e-9)


def test_a_variance_without_a_fixed_point_says_so():
    assert theory.variance_fixed_point("relu", gain=2.0) == math.inf
    assert theory.variance_fixed_point("relu", gain=1.0) == 0
    assert theory.variance_fixed_point("relu", gain=math.sqrt(2)) == 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["relu", "sin", "cos", "tanh", "gelu"])
@pytest.mark.parametrize(("scheme", "start"), [("glorot_normal", 1.0), ("he_normal", 2.0), ("orthogonal", 1.0)])
def test_layers_drawn_with_the_critical_gain_have_a_radius_of_about_one(name, scheme, start):
    variance = 1.0  # of the second layer's pre-activations, when the first layer's is 1
    for _ in range(40):
        gain = theory.critical_gain(name, scheme, variance=variance)
        variance = start * gain**2 * theory.mean_square(name, 1.0)
    model = lsc.nn.FeedForward(160, 160, 2, name, bias=False)
    lsc.nn.initialize(model, scheme, gain=gain)
    torch.nn.init.orthogonal_(model.weight_ih_l0)
    estimate = lsc.radii(model, torch.randn(60, 160), directions=("depth",))["depth"]
    assert estimate.certified_fraction == 1
    assert 0.99 < float(estimate.mean()) < 1.09  # 160 units lie 2 to 6 percent above the limit


def fake_radii(steps: int = 20, count: int = 40) -> Tensor:
    """An autoregressive process over time, 0.8 of the step before, in each of the sequences [2, T, B]."""
    noise = normal(2, steps, count, seed=7)
    values = [noise[:, 0]]
    for t in range(1, steps):
        values.append(0.8 * values[-1] + 0.6 * noise[:, t])
    return 0.9 + 0.05 * torch.stack(values, dim=1)


@pytest.mark.parametrize(("reference", "skip"), [(None, 0), (None, 4), (7, 2)])
def test_covariances_are_scipys(reference, skip):
    radii = fake_radii()
    found = theory.covariance_decay(radii, reference=reference, skip=skip)
    anchor = skip if reference is None else reference
    assert found.covariance.shape == (2, 20 - skip)
    for layer, t in itertools.product(range(2), range(skip, 20)):
        here, there = radii[layer, t].numpy(), radii[layer, anchor].numpy()
        expected = stats.pearsonr(here, there)
        product = float(((here - here.mean()) * (there - there.mean())).sum()) / 39
        assert float(found.covariance[layer, t - skip]) == pytest.approx(product, rel=1e-10, abs=1e-17)
        assert float(found.correlation[layer, t - skip]) == pytest.approx(expected.statistic, rel=1e-10)
        assert float(found.p_value[layer, t - skip]) == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-250)


@pytest.mark.parametrize("count", [3, 4, 5, 33, 1000, 100_000])
def test_p_values_hold_for_few_and_many_sequences(count):
    x = normal(count, seed=3)
    for share in (0.0, 0.01, 0.3, 0.97):
        y = share * x + math.sqrt(1 - share**2) * normal(count, seed=4)
        found = theory.covariance_decay(torch.stack([x, y]))
        expected = stats.pearsonr(x.numpy(), y.numpy()).pvalue
        assert float(found.p_value[1]) == pytest.approx(expected, rel=1e-8, abs=1e-250)
        assert float(found.p_value[0]) == pytest.approx(0, abs=1e-6)


def test_radii_that_never_differ_have_no_correlation():
    found = theory.covariance_decay(torch.full((5, 6), 0.3, dtype=torch.float64))
    assert found.correlation.isnan().all()
    assert found.p_value.isnan().all()
    assert found.covariance.abs().max() < 1e-30


@torch.no_grad()
def test_a_report_is_read_as_it_is():
    model, x = lsc.nn.GRU(4, 9, 2), torch.randn(6, 5, 4)
    estimate = lsc.radii(model, x)["time"]
    found = theory.covariance_decay(estimate, skip=1)
    assert found.correlation.shape == (2, 5)
    assert torch.equal(found.covariance, theory.covariance_decay(estimate.radius, skip=1).covariance)
    assert theory.interactions(estimate).shape == (3, 2)
    with pytest.raises(ValueError, match="max_points"):
        theory.covariance_decay(lsc.radii(model, x, max_points=3)["time"])


def brute_symmetric(values: list[float], order: int) -> float:
    return math.fsum(math.prod(subset) for subset in itertools.combinations(values, order))


@pytest.mark.parametrize("order", range(6))
def test_symmetric_polynomials_are_sums_over_subsets(order):
    values = normal(3, 9)
    expected = [brute_symmetric(row.tolist(), order) for row in values]
    assert theory.elementary_symmetric(values, order).tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert theory.elementary_symmetric(torch.ones(2, 0), 1).tolist() == [0, 0]


def test_interactions_are_means_of_products_over_all_subsets_of_steps():
    radii = fake_radii(9, 7)
    found = theory.interactions(radii, (1, 2, 3, 4))
    for layer in range(2):
        y = radii[layer] - radii[layer].mean(-1, keepdim=True)
        for row, order in enumerate((1, 2, 3, 4)):
            expected = abs(sum(brute_symmetric(column, order) for column in y.mT.tolist()) / 7)
            assert float(found[row, layer]) == pytest.approx(expected, rel=1e-9, abs=1e-15)


RADII = torch.rand(5, 6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.path_count(-1, 2), "time_steps: expected at least 0, got -1"),
        (lambda: theory.path_count(1, 2, grid="square"), "grid: expected one of rectangle, parallelogram"),
        (lambda: theory.log_path_count(torch.tensor([0.5]), 1), "time_steps: expected whole numbers"),
        (lambda: theory.log_path_count(1, 1, grid="x"), "grid"),
        (lambda: theory.hockey_stick(3, 2, folds=-1), "folds: expected at least 0"),
        (lambda: theory.gradient_bound(0, 1), "time_steps: expected at least 1, got 0"),
        (lambda: theory.gradient_profile(-0.1, 1.0, 2, 3), "rho_time: expected a finite number of at least 0"),
        (lambda: theory.gradient_profile(0.1, math.nan, 2, 3), "rho_depth"),
        (lambda: theory.gradient_profile(0.1, 1.0, 0, 3), "num_layers: expected at least 1, got 0"),
        (lambda: theory.gradient_profile(0.1, 1.0, 1, 0), "num_steps: expected at least 1, got 0"),
        (lambda: theory.gradient_profile(0.1, 1.0, 1, 3, grid="x"), "grid"),
        (lambda: theory.gradient_limit(math.inf, 1.0, 3), "rho_time"),
        (lambda: theory.unbalanced_target(0, 3), "num_layers"),
        (lambda: theory.PascalRNN(2, 0.5, -1), "rho_depth"),
        (lambda: theory.PascalRNN(2, 0.5, 0.5)(torch.zeros(3)), "input: expected shape (T, B), got (3,)"),
        (lambda: theory.critical_gain("softmax"), "activation: expected a callable or one of"),
        (lambda: theory.critical_gain("relu", "xavier"), "scheme: expected one of glorot, he, orthogonal"),
        (lambda: theory.critical_gain("relu", radius=0.0), "radius: expected more than 0"),
        (lambda: theory.critical_gain("relu", variance=0.0), "variance: expected more than 0"),
        (lambda: theory.critical_gain(torch.ones_like), "activation: expected one with a slope"),
        (lambda: theory.critical_gain(torch.sum), "activation: expected a function that works element by element"),
        (lambda: theory.variance_fixed_point("relu", gain=-1.0), "gain"),
        (lambda: theory.layer_radius("relu", bias_variance=-1.0), "bias_variance"),
        (lambda: theory.rectangular_radius(0, 3), "rows"),
        (lambda: theory.lyapunov_exponent(3, gain=0.0), "gain: expected more than 0"),
        (lambda: theory.covariance_decay(RADII[:, :2]), "at least 3 sequences"),
        (lambda: theory.covariance_decay(RADII / 0), "radii: expected finite numbers"),
        (lambda: theory.covariance_decay(RADII, skip=5), "skip: expected 0 to 4, got 5"),
        (lambda: theory.covariance_decay(RADII, reference=1, skip=2), "reference: expected 2 to 4, got 1"),
        (lambda: theory.interactions(RADII, ()), "orders: expected at least one"),
        (lambda: theory.interactions(RADII, (2, 0)), "orders: expected at least 1, got 0"),
        (lambda: theory.elementary_symmetric(RADII, -1), "order: expected at least 0"),
        (lambda: theory.elementary_symmetric(torch.tensor(1.0), 1), "values: expected shape"),
    ],
)
def test_bad_values_are_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.path_count(1.0, 2),
        lambda: theory.gradient_profile("1", 1.0, 2, 3),
        lambda: theory.gradient_profile(1.0, True, 2, 3),
        lambda: theory.unbalanced_target(2, 3.0),
        lambda: theory.covariance_decay([[1.0]]),
    ],
)
def test_bad_types_are_refused(call):
    with pytest.raises(TypeError, match="expected"):
        call()
