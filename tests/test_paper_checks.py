"""What Herranz-Celotti and Rouat, arXiv 2308.12075, and what follows from their equations say of our numbers.

Values are of closed forms, or means over random networks with the spread of single ones; seeds are fixed. The radii
that new ALIF, LRU, ResLRU and dense layers start with are in test_initial_radii.py.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import theory

F64 = torch.float64


def orthogonal(n: int) -> Tensor:
    return torch.nn.init.orthogonal_(torch.empty(n, n, dtype=F64))


@torch.no_grad()
def time_radius(model, x: Tensor, **options) -> Tensor:
    estimate = lsc.radii(model, x, directions=("time",), **options)["time"]
    assert estimate.certified_fraction == 1
    return estimate.radius


# Paths and profiles


def test_the_double_hockey_stick_at_fifty_steps_and_five_layers():
    assert theory.hockey_stick(50, 5, folds=2) == math.comb(57, 50) == 264_385_836
    assert sum(math.comb(t - s + 5, 5) for t in range(51) for s in range(t + 1)) == 264_385_836


@pytest.mark.parametrize(
    ("rho", "figure"), [(0.3, 2.0904132e-4), (0.5, 1.0), (0.7, 4783.743), (1.0, 42_634_215_112_710), (1.2, 7.0142e21)]
)
def test_ten_layers_over_a_hundred_steps(rho, figure):
    profile = theory.gradient_profile(rho, rho, 10, 100)
    assert float(profile[0]) == pytest.approx(figure, rel=1e-5 if rho > 1 else 1e-7)
    measured = theory.PascalRNN(10, rho, rho).gradient_profile(2 * torch.randn(100, 6, dtype=F64))
    torch.testing.assert_close(measured, profile.unsqueeze(1).expand(100, 6), rtol=1e-9, atol=0)
    if rho == 0.7:
        assert theory.gradient_limit(rho, rho, 10) == pytest.approx(4783.74315, rel=1e-8)


@pytest.mark.parametrize(("t", "figure"), [(80, 0.96929), (85, 0.84627), (90, 0.5), (95, 0.08978), (99, 2**-10)])
def test_one_half_stays_flat_until_the_last_steps(t, figure):
    assert float(theory.gradient_profile(0.5, 0.5, 10, 100)[t]) == pytest.approx(figure, abs=5e-6)


@pytest.mark.parametrize(
    ("layers", "steps", "figure"), [(3, 100, 0.5735), (6, 100, 0.5497), (3, 300, 0.5757), (6, 300, 0.5527)]
)
def test_unbalanced_targets_let_more_than_half_through(layers, steps, figure):
    rho = theory.unbalanced_target(layers, steps)
    profile = theory.gradient_profile(rho["time"], rho["depth"], layers, steps)
    assert float(profile[0]) == pytest.approx(figure, abs=5e-5)
    measured = theory.PascalRNN(layers, rho["time"], rho["depth"]).gradient_profile(torch.ones(steps, 1, dtype=F64))
    torch.testing.assert_close(measured[:, 0], profile, rtol=1e-9, atol=0)
    long = theory.gradient_profile(rho["time"], rho["depth"], layers, 10 * steps)
    assert float(long[0]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("layers", "steps", "figure"),
    [
        (5, 100, 96_560_646),
        (5, 5000, 2.61e16),
        (5, 10_000, 8.35e17),
        (50, 5, 3_478_761),
        (100, 5, 96_560_646),
        (10, 1000, 2.91e23),
        (50, 5000, 3.77e120),
        (100, 10_000, 1.77e242),
    ],
)
def test_path_counts_of_the_binomial_figure(layers, steps, figure):
    count = theory.path_count(steps, layers)
    if isinstance(figure, int):
        assert count == figure
    else:
        assert count == pytest.approx(figure, rel=2e-3)
    assert float(theory.log_path_count(steps, layers)) == pytest.approx(math.log(count), rel=1e-12)


def test_paths_grow_by_24_decades_in_a_thousand_steps_where_depth_grows_too():
    p = 1 / 101
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    slope = 101 * entropy / 100
    assert slope == pytest.approx(0.0561, abs=5e-5)
    far, near = theory.log_path_count(torch.tensor([1_000_000, 900_000]), torch.tensor([10_000, 9_000]))
    assert float(far - near) / 100_000 == pytest.approx(slope, rel=1e-4)
    assert 1000 * slope / math.log(10) == pytest.approx(24.4, abs=0.05)


# Networks at rest


@pytest.mark.parametrize("n", [3, 33, 65])
def test_an_orthogonal_linear_rnn_has_radius_one_and_a_factor_scales_it(n):
    model = lsc.nn.RNN(2, n, 1, nonlinearity="relu", dtype=F64)
    with torch.no_grad():
        model.weight_hh_l0.copy_(orthogonal(n))
        model.bias_ih_l0.fill_(10.0)  # every unit is active after the first step, which so is linear
    x = 0.1 * torch.randn(1, 3, 2, dtype=F64)
    assert float((time_radius(model, x, method="dense") - 1).abs().max()) < 1e-12
    assert float((time_radius(model, x) - 1).abs().max()) < 1e-3  # its growth, where krylov is asked
    with torch.no_grad():
        model.weight_hh_l0.mul_(0.7)
    assert float((time_radius(model, x, method="dense") - 0.7).abs().max()) < 1e-12


def test_a_factor_scales_the_radius_of_a_relu_rnn_whose_active_units_stay():
    model = lsc.nn.RNN(4, 33, 1, nonlinearity="relu", dtype=F64)
    x = torch.randn(1, 5, 4, dtype=F64)  # from zero states, so the recurrent weight does not choose who is active
    before = time_radius(model, x, method="dense")
    with torch.no_grad():
        model.weight_hh_l0.mul_(1.9)
    torch.testing.assert_close(time_radius(model, x, method="dense"), 1.9 * before, rtol=1e-12, atol=0)
    assert before.unique().numel() > 1


@pytest.mark.parametrize("n", [3, 33])
def test_a_sigmoid_rnn_with_orthogonal_weights_starts_at_a_quarter(n):
    model = lsc.nn.RNN(2, n, 1, nonlinearity="sigmoid", bias=False, dtype=F64)
    with torch.no_grad():
        model.weight_hh_l0.copy_(orthogonal(n))
    radius = time_radius(model, torch.zeros(1, 1, 2, dtype=F64), method="dense")
    assert float(radius) == pytest.approx(0.25, abs=1e-14)


@torch.no_grad()
def test_the_radius_of_an_lru_in_time_is_its_largest_modulus_whatever_it_reads():
    model = lsc.nn.LRU(6, 6, 3, state_size=31, dtype=F64)
    first = time_radius(model, torch.randn(4, 2, 6, dtype=F64))
    second = time_radius(model, 10 * torch.randn(4, 2, 6, dtype=F64))
    for layer in range(3):
        expected = float((-getattr(model, f"nu_log_l{layer}").exp()).exp().max())
        assert first[layer].tolist() == [pytest.approx([expected] * 2, rel=1e-12)] * 4
    assert torch.equal(first, second)


@torch.no_grad()
@pytest.mark.parametrize(("n", "figure", "spread", "count"), [(64, 0.852, 0.010, 24), (128, 0.857, 0.005, 12)])
def test_an_lstm_at_rest_starts_where_the_paper_says(n, figure, spread, count):
    found = []
    for _ in range(count):
        model = lsc.nn.initialize(lsc.nn.LSTM(n, n, dtype=F64), "keras")
        radius = float(time_radius(model, torch.zeros(1, 1, n, dtype=F64)))
        # Columns are those of c, rows of the block of g; i = o = 1/2 and tanh' = 1 at rest.
        block = model.weight_hh_l0[2 * n : 3 * n]
        expected = (torch.sigmoid(torch.tensor(1.0)) + 0.25 * torch.linalg.eigvals(block)).abs().max()
        assert radius == pytest.approx(float(expected), rel=1e-3)
        found.append(radius)
    assert torch.tensor(found).mean() == pytest.approx(figure, abs=3 * spread / math.sqrt(count) + 1e-3)
    assert float(torch.tensor(found).std()) < 2 * spread


@torch.no_grad()
def test_the_lstm_at_rest_obeys_its_identity_exactly():
    model = lsc.nn.initialize(lsc.nn.LSTM(31, 31, dtype=F64), "keras")
    block = model.weight_hh_l0[62:93]
    expected = (torch.sigmoid(torch.tensor(1.0, dtype=F64)) + 0.25 * torch.linalg.eigvals(block)).abs().max()
    radius = time_radius(model, torch.zeros(1, 1, 31, dtype=F64), method="dense")
    assert float(radius) == pytest.approx(float(expected), rel=1e-10)


def test_an_lstm_as_torch_makes_it_starts_at_about_0_64():
    found = [float(time_radius(torch.nn.LSTM(64, 64), torch.zeros(1, 1, 64))) for _ in range(12)]
    assert torch.tensor(found).mean() == pytest.approx(0.64, abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize(("n", "figure", "spread", "count"), [(64, 0.641, 0.007, 24), (128, 0.644, 0.006, 12)])
def test_a_gru_at_rest_starts_where_the_paper_says(n, figure, spread, count):
    found = []
    for _ in range(count):
        model = lsc.nn.initialize(lsc.nn.GRU(n, n, dtype=F64), "keras")
        radius = float(time_radius(model, torch.zeros(1, 1, n, dtype=F64)))
        block = model.weight_hh_l0[2 * n :]
        expected = (0.5 + 0.25 * torch.linalg.eigvals(block)).abs().max()
        assert radius == pytest.approx(float(expected), rel=1e-3)
        found.append(radius)
    assert torch.tensor(found).mean() == pytest.approx(figure, abs=3 * spread / math.sqrt(count) + 1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("steps", "n", "figure", "spread"), [(500, 256, 0.9969, 3e-4), (200, 128, 0.9919, 6e-4)])
def test_alif_at_rest_hangs_on_its_adaptation_and_half_is_out_of_reach(steps, n, figure, spread):
    x = torch.zeros(1, 1, n)
    found = [float(time_radius(lsc.nn.ALIF(n, n, tau_a=steps / 2), x)) for _ in range(6)]
    assert torch.tensor(found).mean() == pytest.approx(figure, abs=2 * spread)
    model = lsc.nn.ALIF(n, n, tau_a=steps / 2)
    model.weight_hh_l0.zero_()
    assert float(time_radius(model, x)) > 0.99  # no recurrent weight lowers it; a shorter tau_a does
    model.tau_a_l0.fill_(1 / math.log(2))
    assert float(time_radius(model, x)) < 0.5


# Gradients and moments


@pytest.mark.parametrize("pair", [True, False], ids=["complex pair", "real"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_of_a_radius_is_that_of_differences(pair, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        matrix = torch.randn(8, 8, generator=generator, dtype=F64)
        values = torch.linalg.eigvals(matrix)
        order = values.abs().argsort(descending=True)
        gap = values[order[0]].abs() - values[order[2 if pair else 1]].abs()
        if (values[order[0]].imag != 0) == pair and gap > 0.1:
            break
    leaf = matrix.clone().requires_grad_()
    lsc.spectral_radius(leaf).radius.backward()
    step = 1e-6
    for i, j in itertools.product(range(8), range(8)):
        change = torch.zeros(8, 8, dtype=F64)
        change[i, j] = step
        ends = [float(torch.linalg.eigvals(matrix + sign * change).abs().max()) for sign in (1, -1)]
        assert float(leaf.grad[i, j]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_newton_identities_give_the_sums_over_all_subsets_of_times(order):
    radii = 1 + 0.1 * torch.randn(11, 5, dtype=F64)
    y = radii - radii.mean(1, keepdim=True)
    subsets = torch.combinations(torch.arange(11), order)
    expected = y[subsets].prod(1).sum(0).mean().abs()
    assert float(theory.interactions(radii, (order,))) == pytest.approx(float(expected), rel=1e-9)


@torch.no_grad()
def test_the_diagonal_of_an_lru_has_the_spectrum_of_a_matrix_of_its_width():
    width, states = 5, 10
    model = lsc.nn.LRU(width, width, 2, state_size=states, dtype=F64)
    x = torch.randn(3, 1, width, dtype=F64)
    dense = lsc.JacobianOperator.from_model(model, x, "diagonal").to_dense()
    assert dense.shape[1:] == (2 * states, 2 * states)

    def read(name: str, layer: int) -> Tensor:
        return getattr(model, f"{name}_l{layer}")

    # Up: gamma B of the layer above; down: Re(C lambda s), the state's part of what the layer below hands up.
    eigenvalue = torch.polar((-read("nu_log", 0).exp()).exp(), read("theta_log", 0).exp())
    below = torch.complex(*read("C", 0)) * eigenvalue
    above = torch.complex(*read("B", 1)) * read("gamma_log", 1).exp().unsqueeze(1)
    down = torch.cat((below.real, -below.imag), dim=1)  # [width, 2 N]
    up = torch.cat((above.real, above.imag))  # [2 N, width]
    small = torch.linalg.eigvals(down @ up).abs().sort(descending=True).values
    for matrix in dense:
        large = torch.linalg.eigvals(matrix).abs().sort(descending=True).values
        torch.testing.assert_close(large[:width], small, rtol=1e-8, atol=1e-10)
        assert float(large[width:].max()) < 1e-6
    measured = lsc.radii(model, x, directions=("diagonal",))["diagonal"].radius
    torch.testing.assert_close(measured, small[0].expand_as(measured), rtol=1e-8, atol=0)


# Random matrices


@pytest.mark.parametrize(
    ("n", "figure", "spread", "count"),
    [(16, 1.060, 0.10, 400), (64, 1.055, 0.058, 100), (128, 1.051, 0.041, 60), (256, 1.040, 0.022, 24)],
)
def test_the_radius_of_independent_entries_lies_a_little_above_one(n, figure, spread, count):
    matrices = torch.randn(count, n, n, dtype=F64) / math.sqrt(n)
    estimate = lsc.spectral_radius(matrices)
    assert estimate.certified_fraction == 1
    # The means in the list are of a finite number of draws themselves, so 4 standard errors and half of the last digit.
    assert float(estimate.radius.mean()) == pytest.approx(figure, abs=4 * spread / math.sqrt(count) + 0.005)
    assert float(estimate.radius.std()) == pytest.approx(spread, rel=0.5)


@pytest.mark.parametrize(("n", "figure"), [(64, 1.93), (128, 1.97)])
def test_the_largest_singular_value_of_independent_entries_is_no_radius(n, figure):
    matrices = torch.randn(40, n, n, dtype=F64) / math.sqrt(n)
    assert float(torch.linalg.matrix_norm(matrices, 2).mean()) == pytest.approx(figure, abs=0.03)


@pytest.mark.parametrize(
    ("scheme", "n", "figure", "spread"),
    [
        ("glorot", 64, 0.760, 0.06),
        ("glorot", 128, 0.745, 0.06),
        ("glorot", 256, 0.754, 0.026),
        ("he", 64, 1.053, 0.08),
        ("he", 128, 1.054, 0.06),
        ("he", 256, 1.044, 0.036),
    ],
)
def test_a_mask_of_half_the_units_lowers_the_radius_by_root_two(scheme, n, figure, spread):
    count = 24
    weight = torch.randn(count, n, n, dtype=F64) * math.sqrt((1 if scheme == "glorot" else 2) / n)
    mask = (torch.rand(count, n, 1) < 0.5).double()
    radius = lsc.spectral_radius(mask * weight).radius
    assert float(radius.mean()) == pytest.approx(figure, abs=4 * spread / math.sqrt(count) + 0.005)
    assert theory.layer_radius("relu", scheme) == pytest.approx(math.sqrt(0.5 if scheme == "glorot" else 1), rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "scheme", "variance", "figure"),
    [("cos", "glorot", 0.6392, 0.6006), ("cos", "he", 1.1089, 0.944), ("sin", "he", 0.7968, 1.0969)],
)
def test_mean_field_radii_of_sines_and_cosines(activation, scheme, variance, figure):
    gain = math.sqrt(2) if scheme == "he" else 1.0
    assert theory.variance_fixed_point(activation, gain=gain) == pytest.approx(variance, abs=5.1e-5)
    assert theory.layer_radius(activation, scheme) == pytest.approx(figure, abs=5.1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("activation", "scheme", "figure"),
    [
        ("relu", "glorot", 0.741),
        ("relu", "he", 1.072),
        ("sin", "glorot", 1.006),
        ("sin", "he", 1.151),
        ("cos", "glorot", 0.660),
        ("cos", "he", 0.992),
    ],
)
def test_thirty_dense_layers_lie_above_the_mean_field_by_their_finite_width(activation, scheme, figure):
    found = []
    for _ in range(2):
        model = lsc.nn.FeedForward(784, 128, 30, activation, bias=False)
        lsc.nn.initialize(model, f"{scheme}_normal")
        found.append(lsc.radii(model, torch.randn(2, 784), directions=("depth",))["depth"].radius[9:].mean())
    measured = float(torch.stack(found).mean())
    assert measured == pytest.approx(figure, abs=0.06)  # the figure is of all layers, this of the deep ones
    limit = theory.layer_radius(activation, scheme)
    if (activation, scheme) != ("sin", "glorot"):  # its variance falls to 0 so slowly that thirty layers are few
        assert 1.01 < measured / limit < 1.12


@torch.no_grad()
@pytest.mark.parametrize(
    ("columns", "rows", "limit", "figure", "count"),
    [(700, 256, 0.732, 0.767, 8), (784, 128, 0.530, 0.551, 20), (784, 53, 0.356, 0.371, 40), (300, 300, 1.0, 1.03, 6)],
)
def test_linear_encoders_start_below_one(columns, rows, limit, figure, count):
    assert theory.rectangular_radius(rows, columns) == pytest.approx(limit, abs=6e-4)
    drawn, whole = [], []
    for seed in range(count):
        model = lsc.nn.initialize(lsc.nn.FeedForward(columns, rows, 1, "identity"), "glorot_normal")
        options = {"directions": ("input",), "generator": torch.Generator().manual_seed(seed)}
        drawn.append(lsc.radii(model, torch.randn(1, columns), square="subsample", **options)["input"].radius.mean())
        whole.append(lsc.radii(model, torch.randn(1, columns), **options)["input"].radius.mean())
    assert float(torch.stack(drawn).mean()) == pytest.approx(figure, rel=0.03)
    assert float(torch.stack(whole).mean()) == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize(("n", "figure"), [(32, -0.0158), (128, -0.0039)])
def test_products_of_independent_matrices_shrink_at_a_radius_of_one(n, figure):
    assert theory.lyapunov_exponent(n) == pytest.approx(figure, abs=5e-5)
    chains, steps = 300, 30
    vectors, growth = torch.randn(chains, n, 1), []
    for _ in range(steps):
        image = torch.randn(chains, n, n) / math.sqrt(n) @ vectors
        size = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        growth.append((size / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)).log().mean())
        vectors = image / size
    spread = math.sqrt(1 / (2 * n) / (chains * steps))  # of the mean of logarithms of chi-square numbers
    assert float(torch.stack(growth).mean()) == pytest.approx(theory.lyapunov_exponent(n), abs=4 * spread)
