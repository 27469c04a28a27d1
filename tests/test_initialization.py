import copy
import math

import pytest
import torch
from networks import CELL_NAMES, stack
from scipy import stats
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import lsc_ext as lsc
from lsc_ext.cells import CELLS
from lsc_ext.nn import INITIALIZATIONS, initialize

DOUBLE = {"dtype": torch.float64}
SCHEMES = list(INITIALIZATIONS)
SCALED = ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"]
TRUNCATED_STD = stats.truncnorm(-2, 2).std()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On matrices as small as these, LAPACK's threads do little but wait for each other where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def is_uniform(values, bound):
    """Whether the numbers could be uniform in +-bound: by their largest, missed once in e^10 draws, and their ranks."""
    x = values.detach().flatten().numpy()
    ends = 1 - 10 / x.size <= abs(x).max() / bound <= 1
    return ends and stats.kstest(x, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3


def is_truncated_normal(values, std):
    """Whether they could be normal numbers cut at two standard deviations that are left with this one."""
    x, parent = values.detach().flatten().numpy(), std / TRUNCATED_STD
    ends = 2 - 10 / (2 * stats.truncnorm(-2, 2).pdf(2) * x.size) <= abs(x).max() / parent <= 2
    return ends and stats.kstest(x, stats.truncnorm(-2, 2, scale=parent).cdf).pvalue > 1e-3


def has_orthonormal_sides(matrix):
    """Whether the shorter side of a matrix [., .] has orthonormal vectors."""
    tall = matrix.detach() if matrix.shape[0] >= matrix.shape[1] else matrix.detach().T
    return torch.allclose(tall.T @ tall, torch.eye(tall.shape[1], dtype=tall.dtype), atol=1e-12)


def is_drawn(kind, matrix):
    """Whether a matrix [out, in] follows the closed form of a scheme."""
    fan_out, fan_in = matrix.shape
    if kind == "orthogonal":
        return has_orthonormal_sides(matrix)
    std = math.sqrt(2 / (fan_in + fan_out) if kind.startswith("glorot") else 2 / fan_in)
    return is_uniform(matrix, math.sqrt(3) * std) if kind.endswith("uniform") else is_truncated_normal(matrix, std)


def follows(scheme, module):
    """Whether a one-layer recurrent module has every property that the scheme promises."""
    hidden, weights = module.hidden_size, [module.weight_ih_l0, module.weight_hh_l0]
    biases = [module.bias_ih_l0, module.bias_hh_l0]
    if scheme == "torch":
        return all(is_uniform(p, hidden**-0.5) for p in module.parameters())
    if scheme in ("keras", "paper"):
        expected = torch.zeros_like(module.bias_ih_l0)
        if isinstance(module, nn.LSTM | lsc.nn.LSTM):
            expected[hidden : 2 * hidden] = 1
        plain = isinstance(module, nn.RNN | lsc.nn.RNN)
        if scheme == "paper" and plain:
            bias_holds = is_uniform(biases[0], math.sqrt(3 / hidden))
        else:
            bias_holds = torch.equal(biases[0], expected)
        weights_hold = is_drawn("glorot_uniform", weights[0]) and has_orthonormal_sides(weights[1])
        return bool(bias_holds and weights_hold and not biases[1].any())
    blocks = [block for weight in weights for block in weight.split(hidden)]
    return all(is_drawn(scheme, block) for block in blocks) and not any(b.any() for b in biases)


LAYERS = {
    "rnn": lambda: lsc.nn.RNN(24, 60, **DOUBLE),
    "gru": lambda: lsc.nn.GRU(24, 60, **DOUBLE),
    "lstm": lambda: lsc.nn.LSTM(24, 60, **DOUBLE),
    "torch rnn": lambda: nn.RNN(24, 60, **DOUBLE),
    "torch gru": lambda: nn.GRU(24, 60, **DOUBLE),
    "torch lstm": lambda: nn.LSTM(24, 60, **DOUBLE),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_scheme_keeps_its_closed_form(layer, scheme):
    module = LAYERS[layer]()
    assert initialize(module, scheme, generator=seeded()) is module
    assert follows(scheme, module)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scheme_passes_for_another(scheme):
    """Of a plain RNN and a GRU together: only they tell keras from paper, and blocks from the whole."""
    plain = initialize(LAYERS["rnn"](), scheme, generator=seeded())
    gated = initialize(LAYERS["gru"](), scheme, generator=seeded())
    assert [other for other in SCHEMES if follows(other, plain) and follows(other, gated)] == [scheme]


def test_descriptions_are_one_line_each():
    assert set(INITIALIZATIONS) == {"torch", "keras", "paper", "orthogonal", *SCALED}
    assert all(text and "\n" not in text for text in INITIALIZATIONS.values())
    assert len(set(INITIALIZATIONS.values())) == len(INITIALIZATIONS)


@pytest.mark.parametrize("scheme", SCALED)
def test_variance_of_a_block_has_its_own_fans(scheme):
    weight = initialize(nn.LSTM(200, 50, **DOUBLE), scheme, generator=seeded()).weight_ih_l0.detach()
    expected = 2 / (200 + 50) if scheme.startswith("glorot") else 2 / 200
    for block in weight.split(50):
        kurtosis = 1.8 if scheme.endswith("uniform") else 2.37
        assert float(block.var()) == pytest.approx(expected, rel=4 * math.sqrt((kurtosis - 1) / block.numel()))


def test_fans_of_keras_are_those_of_all_gates():
    weight = initialize(nn.LSTM(200, 50, **DOUBLE), "keras", generator=seeded()).weight_ih_l0
    assert is_uniform(weight, math.sqrt(6 / (200 + 4 * 50)))


@pytest.mark.parametrize("scheme", ["keras", "paper"])
def test_forget_bias_is_one_once(scheme):
    module = initialize(nn.LSTM(3, 4, 2, bidirectional=True), scheme, generator=seeded())
    expected = torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(4)
    for layer in ("l0", "l0_reverse", "l1", "l1_reverse"):
        assert torch.equal(getattr(module, f"bias_ih_{layer}"), expected)
        assert not getattr(module, f"bias_hh_{layer}").any()


@pytest.mark.parametrize("cell", [name for name in CELL_NAMES if name.startswith("rnn_")])
def test_bias_of_the_paper_is_that_of_every_plain_rnn(cell):
    module = initialize(lsc.nn.Recurrent(cell, 3, 300, **DOUBLE), "paper", generator=seeded())
    assert is_uniform(module.bias_ih_l0, 0.1)
    assert not module.bias_hh_l0.any()


@pytest.mark.parametrize("scheme", ["keras", "orthogonal"])
def test_orthogonal_matrices_follow_the_haar_measure(scheme):
    """A trace of a Haar matrix has mean 0 and variance 1."""
    module, generator = nn.RNN(8, 8, **DOUBLE), seeded()
    draws = [initialize(module, scheme, generator=generator).weight_hh_l0.detach().clone() for _ in range(400)]
    traces = torch.stack([draw.trace() for draw in draws])
    assert abs(float(traces.mean())) < 4 / 20
    assert float(traces.var()) == pytest.approx(1, rel=4 * math.sqrt(2 / 400))
    assert {round(float(draw.det())) for draw in draws} == {-1, 1}


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_cell_and_layer_is_drawn(cell, scheme):
    module = stack(cell, 3, 8, 3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
    initialize(module, scheme, generator=seeded())
    own = {p.name for p in CELLS[cell].unit_parameters}  # theirs is another meaning: left alone
    for name, parameter in module.named_parameters():
        assert bool((parameter == 7).any()) == (name.rsplit("_l", 1)[0] in own)
    weights = [p for name, p in module.named_parameters() if name.startswith("weight")]
    assert len(weights) == 3 * ((CELLS[cell].input_blocks > 0) + (CELLS[cell].recurrent_blocks > 0))
    assert all(weight.any() for weight in weights)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_projections_are_drawn_as_input_weights_are(scheme):
    module = initialize(nn.LSTM(40, 60, proj_size=30, **DOUBLE), scheme, generator=seeded())
    projection, recurrent = module.weight_hr_l0, module.weight_hh_l0
    assert projection.shape == (30, 60)
    if scheme == "torch":
        assert all(is_uniform(p, 60**-0.5) for p in module.parameters())
    elif scheme in ("keras", "paper"):
        assert is_drawn("glorot_uniform", projection)
        assert has_orthonormal_sides(recurrent)
    else:
        assert is_drawn(scheme, projection)
        assert all(is_drawn(scheme, block) for block in recurrent.split(60))


FLAT = {
    "linear": (lambda **o: nn.Linear(96, 64, **o), 96, 64),
    "conv1d": (lambda **o: nn.Conv1d(8, 24, 5, **o), 40, 120),
    "grouped conv2d": (lambda **o: nn.Conv2d(8, 24, (3, 4), groups=2, **o), 48, 288),
    "conv3d": (lambda **o: nn.Conv3d(3, 16, 3, **o), 81, 432),
    "transposed conv1d": (lambda **o: nn.ConvTranspose1d(24, 8, 5, **o), 40, 120),
    "transposed conv2d": (lambda **o: nn.ConvTranspose2d(24, 8, 4, **o), 128, 384),
    "transposed conv3d": (lambda **o: nn.ConvTranspose3d(16, 3, 3, **o), 81, 432),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layer", FLAT)
def test_linear_layers_and_convolutions(layer, scheme):
    make, fan_in, fan_out = FLAT[layer]
    module = initialize(make(**DOUBLE), scheme, generator=seeded())
    kind = "glorot_uniform" if scheme in ("keras", "paper") else scheme
    if kind == "torch":
        assert is_uniform(module.weight, fan_in**-0.5)
        assert is_uniform(module.bias, fan_in**-0.5)
        return
    assert not module.bias.any()
    if kind == "orthogonal":
        assert has_orthonormal_sides(module.weight.flatten(1))
        return
    std = math.sqrt(2 / (fan_in + fan_out) if kind.startswith("glorot") else 2 / fan_in)
    weight = module.weight
    assert is_uniform(weight, math.sqrt(3) * std) if kind.endswith("uniform") else is_truncated_normal(weight, std)


@pytest.mark.parametrize("layer", FLAT)
def test_torch_is_what_torch_starts_with(layer):
    """Two samples, one of torch's own, cannot be told apart."""
    make, _, _ = FLAT[layer]
    own, ours = make(**DOUBLE), initialize(make(**DOUBLE), "torch", generator=seeded(1))
    samples = (module.weight.detach().flatten().numpy() for module in (own, ours))
    assert stats.ks_2samp(*samples, method="asymp").pvalue > 1e-3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 4, bias=False), lambda: nn.GRU(3, 4, bias=False)])
def test_layers_without_biases(make, scheme):
    module = initialize(make(), scheme, generator=seeded())
    assert not any(name.startswith("bias") for name, _ in module.named_parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_weights_without_elements(shape, scheme):
    module = nn.Linear(1, 1)
    module.weight, module.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
    initialize(module, scheme, generator=seeded())
    assert module.weight.shape == shape
    assert not module.bias.any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gain_multiplies_weights_and_not_biases(scheme):
    one = initialize(nn.Sequential(nn.LSTM(3, 4), nn.RNN(3, 4), nn.Linear(3, 4)), scheme, generator=seeded())
    two = initialize(copy.deepcopy(one), scheme, gain=2.0, generator=seeded())
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(b, a * (2 if "weight" in name else 1)), name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_seed_decides_every_number(scheme):
    first, second, other, double = (
        nn.Sequential(lsc.nn.LSTM(3, 4, 2, dtype=dtype), nn.Conv1d(3, 4, 2, dtype=dtype))
        for dtype in (torch.float32, torch.float32, torch.float32, torch.float64)
    )
    for module, seed in ((first, 1), (second, 1), (other, 2), (double, 1)):
        initialize(module, scheme, generator=seeded(seed))
        torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b.float()) for a, b in zip(first.parameters(), double.parameters(), strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_given_generator_leaves_the_default_one_alone(scheme):
    module = nn.GRU(3, 4)
    parametrizations.orthogonal(module, "weight_hh_l0")
    before = torch.get_rng_state()
    initialize(module, scheme, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_default_one_is_used():
    given, default = nn.GRU(3, 4), nn.GRU(3, 4)
    torch.manual_seed(5)
    initialize(default, "he_uniform")
    initialize(given, "he_uniform", generator=seeded(5))
    assert torch.equal(default.weight_hh_l0, given.weight_hh_l0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_and_graph_membership_stay(dtype):
    module = nn.Linear(4, 4, dtype=dtype)
    weight = module.weight
    module.bias.requires_grad_(False)
    initialize(module, "orthogonal", generator=seeded())
    assert module.weight is weight
    assert (weight.dtype, weight.requires_grad, module.bias.requires_grad) == (dtype, True, False)
    assert weight.is_leaf


class Handled(nn.Module):
    """Draws for itself where the scheme is one of its own."""

    def __init__(self, *schemes):
        super().__init__()
        self.decay, self.inside, self.schemes = nn.Parameter(torch.zeros(5)), nn.Linear(3, 4), schemes
        nn.init.constant_(self.inside.weight, 7.0)

    def initialize_parameters(self, scheme, generator):
        if scheme not in self.schemes:
            return False
        nn.init.uniform_(self.decay, generator=generator)
        return True


def test_a_module_may_draw_for_itself():
    first, second = Handled("paper"), Handled("paper")
    initialize(nn.ModuleDict({"lru": first}), "paper", generator=seeded())
    initialize(second, "paper", generator=seeded())
    assert first.decay.any()
    assert torch.equal(first.decay, second.decay)
    assert (first.inside.weight == 7).all()


def test_a_module_that_declines_is_drawn_as_others_are():
    module = initialize(Handled("paper"), "keras", generator=seeded())
    assert not module.decay.any()
    assert not (module.inside.weight == 7).any()


class PerUnit(lsc.nn.GRU):
    """A layer with a parameter for each unit and a child of its own."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.threshold_l0 = nn.Parameter(torch.full((self.hidden_size,), 7.0))
        self.head = nn.Linear(self.hidden_size, 2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_parameters_of_each_unit_stay(scheme):
    module = PerUnit(3, 4)
    before = module.head.weight.detach().clone()
    initialize(module, scheme, generator=seeded())
    assert (module.threshold_l0 == 7).all()
    assert not torch.equal(module.head.weight, before)


def test_containers_are_walked_to_the_bottom_and_the_rest_is_left():
    embedding, norm = nn.Embedding(3, 4), nn.LayerNorm(4)
    cell = lsc.nn.Recurrent("min_gru", 4, 4)
    model = nn.Sequential(embedding, nn.ModuleDict({"a": nn.ModuleList([nn.LSTM(4, 4), norm, cell])}), nn.Linear(4, 2))
    left = [p.detach().clone() for m in (embedding, norm) for p in m.parameters()]
    drawn = [p.detach().clone() for m in (model[1]["a"][0], cell, model[2]) for p in m.parameters()]
    initialize(model, "torch", generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(left, (*embedding.parameters(), *norm.parameters()), strict=True))
    after = [p for m in (model[1]["a"][0], cell, model[2]) for p in m.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(drawn, after, strict=True))


def test_a_shared_layer_is_drawn_once():
    shared = nn.Linear(3, 3)
    twice = initialize(nn.Sequential(shared, nn.Sequential(shared)), "he_normal", generator=seeded())
    once = initialize(nn.Linear(3, 3), "he_normal", generator=seeded())
    assert torch.equal(twice[0].weight, once.weight)


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.orthogonal])
@pytest.mark.parametrize("layer", ["rnn", "gru", "torch lstm"])
def test_parametrised_weights_are_set_through_the_parametrisation(layer, make):
    plain = initialize(LAYERS[layer](), "keras", generator=seeded())
    first, second = LAYERS[layer](), LAYERS[layer]()
    for module in (first, second):
        make(module, "weight_hh_l0")
        initialize(module, "keras", generator=seeded())
        torch.rand(3)
    assert parametrize.is_parametrized(first, "weight_hh_l0")
    assert has_orthonormal_sides(first.weight_hh_l0)
    torch.testing.assert_close(first.weight_ih_l0, plain.weight_ih_l0)
    torch.testing.assert_close(first.weight_hh_l0, plain.weight_hh_l0)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class Doubled(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def forward(self, x):
        return 2 * x

    def right_inverse(self, x):
        if self.error is not None:
            raise self.error
        return x / 2


class Squared(nn.Module):
    def forward(self, x):
        return x.square()


def test_the_parametrised_value_is_the_draw():
    module = nn.Linear(3, 4)
    parametrize.register_parametrization(module, "weight", Doubled())
    initialize(module, "glorot_normal", generator=seeded())
    expected = initialize(nn.Linear(3, 4), "glorot_normal", generator=seeded()).weight
    assert torch.equal(module.weight, expected)
    assert torch.equal(module.parametrizations.weight.original, expected / 2)


class Residual(nn.Module):
    """A parametrisation with a layer of its own."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.inside(torch.zeros(3))

    def right_inverse(self, x):
        return x - self.inside(torch.zeros(3))


def test_layers_inside_a_parametrisation_stay():
    module, inside = nn.Linear(3, 4), Residual()
    parametrize.register_parametrization(module, "weight", inside)
    before = copy.deepcopy(inside.state_dict())
    initialize(module, "glorot_normal", generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), inside.state_dict().values(), strict=True))
    expected = initialize(nn.Linear(3, 4), "glorot_normal", generator=seeded()).weight
    torch.testing.assert_close(module.weight, expected)


def irreversible():
    module = lsc.nn.GRU(3, 4)
    parametrize.register_parametrization(module, "weight_hh_l0", Squared())
    return module


def unassignable():
    module = nn.Linear(4, 4)
    parametrizations.orthogonal(module, "weight", use_trivialization=False, orthogonal_map="cayley")
    return module


def failing():
    module = nn.Linear(4, 4)
    parametrize.register_parametrization(module, "weight", Doubled())
    module.parametrizations.weight[0].error = ArithmeticError("no")
    return module


def pruned():
    return prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)


BAD_MODULES = {
    "nothing": (nn.ReLU, ValueError, "module: expected a recurrent layer, Linear or convolution, .* got ReLU"),
    "empty": (lambda: nn.Sequential(nn.Embedding(2, 3)), ValueError, "module: expected .* got Sequential"),
    "not a module": (lambda: torch.zeros(3), TypeError, "module: expected a torch.nn.Module, got Tensor"),
    "lazy": (lambda: nn.LazyLinear(3), ValueError, "module: expected parameters .* a lazy LazyLinear.weight; run"),
    "complex": (
        lambda: nn.Linear(2, 2, dtype=torch.complex64),
        ValueError,
        "module: expected real .*, got torch.complex64 in Linear.weight",
    ),
    "no right inverse": (irreversible, ValueError, "module: expected a right_inverse .*weight_hh_l0.* none in Squared"),
    "right inverse undefined": (unassignable, ValueError, "module: expected .*Linear.weight .* NotImplementedError"),
    "right inverse fails": (failing, ValueError, "module: expected .*Linear.weight .* got ArithmeticError: no"),
    "pruned": (pruned, ValueError, "module: expected Linear.weight to be a parameter.*, got a plain tensor"),
}


@pytest.mark.parametrize("case", BAD_MODULES)
def test_refused_modules(case):
    make, error, message = BAD_MODULES[case]
    with pytest.raises(error, match=message):
        initialize(make(), "keras", generator=seeded())


BAD_OPTIONS = {
    "scheme": ({"scheme": "xavier"}, "scheme: expected one of torch, keras, paper, .*, got 'xavier'"),
    "scheme of another type": ({"scheme": ["keras"]}, r"scheme: expected one of .*, got \['keras'\]"),
    "infinite gain": ({"scheme": "keras", "gain": math.inf}, "gain: expected a finite number, got inf"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_refused_options(case):
    options, message = BAD_OPTIONS[case]
    with pytest.raises(ValueError, match=message):
        initialize(nn.Linear(3, 4), **options)


def test_gain_where_a_module_draws_for_itself_is_refused():
    module = Handled("paper")
    with pytest.raises(ValueError, match="gain: expected 1, as Handled draws its own parameters, got 2"):
        initialize(module, "paper", gain=2.0)
    assert not module.decay.any()


@pytest.mark.parametrize("last", ["no right inverse", "right inverse undefined", "right inverse fails", "pruned"])
def test_an_error_leaves_everything_as_it_was(last):
    tall = nn.Linear(3, 5, **DOUBLE)
    parametrizations.orthogonal(tall)
    model = nn.Sequential(lsc.nn.LSTM(3, 4), tall, Handled("keras"), nn.BatchNorm1d(2), BAD_MODULES[last][0]())
    before = copy.deepcopy(model.state_dict())
    identities = [id(p) for p in (*model.parameters(), *model.buffers())]
    generator = seeded()
    state = generator.get_state()
    with pytest.raises(ValueError, match="module: expected"):
        initialize(model, "keras", generator=generator)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert [id(p) for p in (*model.parameters(), *model.buffers())] == identities
    assert torch.equal(generator.get_state(), state)


def time_radius(model):
    """rho of the step Jacobian of a one-layer model at zero state and zero input."""
    zero = torch.zeros(1, 1, model.input_size, **DOUBLE)
    return float(lsc.radii(model, zero, directions=("time",), tol=1e-5, generator=seeded())["time"].radius.detach())


def drawn_radii(model, scheme, draws, prepare=lambda _: None):
    generator, found = seeded(), []
    with torch.no_grad():
        for _ in range(draws):
            prepare(initialize(model, scheme, generator=generator))
            found.append(time_radius(model))
    return torch.tensor(found)


# Layer, scheme, H, mean and standard deviation of one draw, what rounding may hide in the mean.
FIRST_RADII = [
    (lsc.nn.LSTM, "keras", 64, 0.852, 0.010, 0.0005),
    (lsc.nn.LSTM, "keras", 128, 0.857, 0.005, 0.0005),
    (lsc.nn.LSTM, "torch", 128, 0.64, 0.006, 0.005),
    (lsc.nn.GRU, "keras", 64, 0.641, 0.007, 0.0005),
    (lsc.nn.GRU, "keras", 128, 0.644, 0.006, 0.0005),
]


@pytest.mark.parametrize(("layer", "scheme", "hidden", "mean", "std", "rounding"), FIRST_RADII)
def test_radius_of_gated_layers_at_rest(layer, scheme, hidden, mean, std, rounding):
    radii = drawn_radii(layer(3, hidden, **DOUBLE), scheme, 24)
    assert float(radii.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(24) + rounding)


@pytest.mark.parametrize("hidden", [5, 16, 32])
def test_radius_of_an_lstm_at_rest_in_closed_form(hidden):
    """At rest i = o = 1/2, g = c = 0: each eigenvalue w of the g block becomes sigmoid(1) + w / 4."""
    model = initialize(lsc.nn.LSTM(3, hidden, **DOUBLE), "keras", generator=seeded(hidden))
    eigenvalues = torch.linalg.eigvals(model.weight_hh_l0.detach()[2 * hidden : 3 * hidden])
    expected = float((1 / (1 + math.exp(-1)) + eigenvalues / 4).abs().max())
    zero = torch.zeros(1, 1, 3, **DOUBLE)
    radius = lsc.radii(model, zero, directions=("time",), method="dense")["time"].radius.detach()
    assert float(radius) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("scheme", ["keras", "orthogonal"])
def test_radius_of_a_sigmoid_rnn_at_rest_is_a_quarter(scheme):
    model = initialize(lsc.nn.RNN(3, 31, nonlinearity="sigmoid", **DOUBLE), scheme, generator=seeded())
    assert time_radius(model) == pytest.approx(0.25, abs=1e-12)


def all_units_on(model):
    model.bias_ih_l0.fill_(1.0)


def half_the_units_on(model):
    half = model.hidden_size // 2
    model.bias_ih_l0.copy_(torch.tensor([1.0, -1.0]).repeat_interleave(half))


@pytest.mark.parametrize("scheme", ["keras", "paper", "orthogonal"])
def test_radius_of_a_linear_orthogonal_rnn_is_one(scheme):
    model = lsc.nn.RNN(3, 31, nonlinearity="relu", **DOUBLE)
    assert drawn_radii(model, scheme, 1, all_units_on).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_radius_of_a_relu_rnn_is_linear_in_the_gain(factor):
    radii = []
    for gain in (1.0, factor):
        model = lsc.nn.RNN(3, 30, nonlinearity="relu", **DOUBLE)
        initialize(model, "he_normal", gain=gain, generator=seeded())
        with torch.no_grad():
            half_the_units_on(model)
        radii.append(time_radius(model))
    assert radii[1] == pytest.approx(factor * radii[0], rel=1e-10)


HALF_ON = [("glorot_normal", 128, 0.745, 0.06), ("he_normal", 64, 1.053, 0.081)]


@pytest.mark.parametrize(("scheme", "hidden", "mean", "std"), HALF_ON)
def test_radius_of_a_relu_rnn_with_half_its_units_on(scheme, hidden, mean, std):
    radii = drawn_radii(lsc.nn.RNN(3, hidden, nonlinearity="relu", **DOUBLE), scheme, 48, half_the_units_on)
    assert float(radii.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(48) + 0.0005)


@pytest.mark.parametrize(
    ("size", "mean", "std", "count"),
    [(16, 1.060, 0.10, 100), (64, 1.055, 0.058, 100), (128, 1.051, 0.041, 50), (256, 1.040, 0.022, 24)],
)
def test_radius_of_independent_entries_exceeds_one_by_the_size(size, mean, std, count):
    layer, generator = nn.Linear(size, size, **DOUBLE), seeded()
    draws = [initialize(layer, "glorot_normal", generator=generator).weight.detach().clone() for _ in range(count)]
    radii = lsc.spectral_radius(torch.stack(draws), tol=1e-4, generator=seeded()).radius
    assert float(radii.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(count) + 0.0005)
