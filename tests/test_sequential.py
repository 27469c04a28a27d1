"""nn.Sequential, against Jacobians formed by torch.func.jacrev one point at a time."""

import copy
import itertools

import pytest
import torch
from networks import flat, gradients, normal
from step_modules import in_double, seeded
from torch import nn
from torch.func import jacrev
from torch.nn.utils import parametrizations

import lsc_ext as lsc
from lsc_ext.estimate import Status
from lsc_ext.frobenius import FROBENIUS_LIMIT, FROBENIUS_SAMPLE, frobenius_radius
from lsc_ext.operator import MatrixOperator
from lsc_ext.testing import assert_close

BATCH = 3


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        return x + self.inner(x)


def mlp(*widths, activation=nn.Tanh):
    parts = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), activation()]
    return parts


def convolutions():
    return [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ELU(),
        nn.Conv2d(3, 4, 3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.Softplus(),
    ]


def pictures(batch=BATCH, size=6):
    return normal(batch, 2, size, size)


def vectors(width=5, batch=BATCH):
    return normal(batch, width)


def after_batchnorm(*modules):
    """The modules with normalisation statistics and weights as training leaves them."""
    for module in modules:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            size = module.num_features
            module.running_mean.copy_(0.1 * normal(size))
            module.running_var.copy_(0.5 + normal(size, seed=2).square())
    return modules


# What is built, its inputs, and where the blocks begin: the modules from there to the next one are a layer.
STACKS = {
    "dense": (lambda: mlp(5, 5, 5, 5), vectors, (0, 2, 4)),
    "dense of several widths": (lambda: mlp(5, 7, 3, 4), vectors, (0, 2, 4)),
    "wide": (lambda: mlp(5, 40, 40, activation=nn.ELU), vectors, (0, 2)),
    "a norm inside": (
        lambda: [nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6), nn.LayerNorm(6)],
        vectors,
        (0, 3),
    ),
    "a norm first": (lambda: [nn.LayerNorm(5), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6)], vectors, (0, 3)),
    "residual blocks": (lambda: [nn.Linear(5, 4), Residual(4), Residual(4), nn.Tanh()], vectors, (0, 1, 2)),
    "flatten first": (
        lambda: [nn.Flatten(), nn.Linear(72, 6), nn.SiLU(), nn.Linear(6, 6), nn.SiLU()],
        pictures,
        (0, 3),
    ),
    "convolutions": (convolutions, pictures, (0, 3, 7)),
    "batch norm": (lambda: [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6)], vectors, (0, 2)),
}


def sequential(kind):
    build, inputs, starts = STACKS[kind]
    model = in_double(lambda: nn.Sequential(*build()))
    after_batchnorm(*model.modules())
    return model, inputs(), starts


def block_jacobians(model, x, starts):
    """Jacobians [B, m, n] of every block but the first, by jacrev of one sample at a time."""
    ends, fed, found = [*starts[1:], len(model)], x, []
    for start, end in zip(starts, ends, strict=True):
        block = nn.Sequential(*list(model)[start:end])
        if start != starts[0]:
            one = [jacrev(lambda z, b=block: b(z.unsqueeze(0)).flatten())(row) for row in fed]
            found.append(torch.stack(one).flatten(2))
        fed = nn.Sequential(*list(model)[0 if start == starts[0] else start : end])(fed)
    return found


def number(matrices):
    """The radius of square matrices, |J|_F / sqrt(max(m, n)) of others."""
    if matrices.shape[1] == matrices.shape[2]:
        return torch.linalg.eigvals(matrices).abs().amax(1)
    return torch.linalg.matrix_norm(matrices) / max(matrices.shape[1:]) ** 0.5


def depth(model, x, **options):
    options = {"tol": 1e-9, "num_matvecs": 4000, "generator": seeded(), **options}
    return lsc.radii(model, x, directions=("depth",), **options)["depth"]


@pytest.mark.parametrize("kind", STACKS)
def test_depth_is_between_blocks_as_jacrev_has_it(kind):
    model, x, starts = sequential(kind)
    found = depth(model, x)
    exact = torch.stack([number(j) for j in block_jacobians(copy.deepcopy(model).eval(), x, starts)])
    assert found.radius.shape == (len(starts) - 1, 1, BATCH)
    assert_close("depth", found.radius[:, 0], exact, 1e-8)
    assert found.certified_fraction == 1


@pytest.mark.parametrize("through_states", [False, True])
@pytest.mark.parametrize("kind", STACKS)
def test_gradient_is_autograds_through_the_formed_matrices(kind, through_states):
    model, x, starts = sequential(kind)
    leaves = list(model.parameters())
    actual = gradients(depth(model, x, through_states=through_states).radius, leaves)
    model.eval()
    if through_states:
        exact = gradients(sum(number(j).sum() for j in block_jacobians(model, x, starts)), leaves)
    else:  # what each block is fed is data
        exact = [torch.zeros_like(p) for p in leaves]
        ends, fed = [*starts[1:], len(model)], x
        for start, end in zip(starts, ends, strict=True):
            block = list(model)[start:end]
            if start != starts[0]:
                (own,) = block_jacobians(nn.Sequential(nn.Identity(), *block), fed, (0, 1))
                exact = [a + b for a, b in zip(exact, gradients(number(own), leaves), strict=True)]
            fed = nn.Sequential(*block)(fed).detach()
    assert_close("gradient", flat(actual), flat(exact), 1e-6)


def test_nested_sequences_are_the_flat_one():
    model, x, _ = sequential("dense")
    parts = list(model)
    nested = nn.Sequential(nn.Sequential(parts[0]), nn.Sequential(nn.Sequential(*parts[1:4]), *parts[4:]))
    assert torch.equal(depth(nested, x).radius, depth(model, x).radius)


def test_a_subclass_with_the_forward_of_a_sequence_is_one_block_inside_another():
    class Block(nn.Sequential):
        pass

    model = in_double(lambda: nn.Sequential(nn.Linear(5, 4), Block(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))))
    exact = number(block_jacobians(model, vectors(), (0, 1))[0])
    assert_close("depth", depth(model, vectors()).radius.flatten(), exact, 1e-8)


def test_a_subclass_with_its_own_forward_is_refused():
    class Backwards(nn.Sequential):
        def forward(self, x):
            for module in reversed(self):
                x = module(x)
            return x

    with pytest.raises(TypeError, match="model: expected a torch.nn.RNN, .*, got .*Backwards"):
        lsc.radii(Backwards(nn.Linear(5, 5), nn.Linear(5, 5)), vectors())


def test_inputs_with_a_time_axis_are_as_many_points():
    model, _, _ = sequential("dense of several widths")
    x = normal(4, BATCH, 5)
    found = depth(model, x)
    assert found.radius.shape == (2, 4, BATCH)
    assert_close("radii", found.radius.flatten(1), depth(model, x.flatten(0, 1)).radius.flatten(1), 1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_modes_and_statistics_are_as_they_were(training):
    model, x, _ = sequential("convolutions")
    model.train(training)
    model[2].train(not training)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    depth(model, x).radius.sum().backward()
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_child_named_whole_is_only_a_part():
    model = nn.Sequential()
    for name, part in (("first", nn.Linear(5, 5)), ("whole", nn.Linear(5, 5)), ("dropout", nn.Dropout(0.5))):
        model.add_module(name, part)
    model.double()
    assert torch.equal(depth(model, vectors()).radius, depth(model.eval(), vectors()).radius)


def test_dropout_between_layers_is_off_in_the_backward_pass_too():
    model = in_double(lambda: nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), nn.Linear(5, 5), nn.Tanh(), nn.Dropout()))
    leaves = list(model.parameters())
    training = gradients(depth(model, vectors()).radius, leaves)
    assert_close("gradient", flat(training), flat(gradients(depth(model.eval(), vectors()).radius, leaves)), 1e-12)


def large_matrices(count):
    """Rows of unequal length, one of them much longer, so that a sample has an error worth the name."""
    matrices = normal(count, FROBENIUS_LIMIT + 6, FROBENIUS_LIMIT + 9) * normal(count, FROBENIUS_LIMIT + 6, 1, seed=2)
    matrices[:, 17] *= 5
    return matrices


def test_a_sampled_norm_is_within_a_few_of_its_standard_errors_and_they_are_honest():
    matrices = large_matrices(1)
    operator = MatrixOperator(matrices)
    exact = torch.linalg.matrix_norm(matrices) / max(matrices.shape[1:]) ** 0.5
    runs = [frobenius_radius(operator, seed=seed) for seed in range(20)]
    error = torch.cat([(run.radius - exact) / exact for run in runs])
    claimed = torch.cat([run.residual for run in runs])
    assert ((error / claimed).abs() < 4.5).all()
    assert 0.5 < (error.square().mean() / claimed.square().mean()).sqrt() < 2
    assert runs[0].method == f"frobenius, {FROBENIUS_SAMPLE} of {FROBENIUS_LIMIT + 6}"
    assert (runs[0].num_matvecs == FROBENIUS_SAMPLE).all()
    assert (runs[0].status == Status.max_matvecs).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_gradient_of_a_sampled_norm_is_autograds_of_the_same_formula(transposed):
    rows = large_matrices(1)
    leaf = (rows.mT if transposed else rows).contiguous().requires_grad_()
    short, long = sorted(leaf.shape[1:])
    found = frobenius_radius(MatrixOperator(leaf), seed=5)
    (actual,) = gradients(found.radius, [leaf])
    drawn = torch.randperm(short, generator=seeded(5))[:FROBENIUS_SAMPLE]
    chosen = leaf[:, :, drawn] if transposed else leaf[:, drawn]
    formula = torch.linalg.matrix_norm(chosen) * (short / FROBENIUS_SAMPLE / long) ** 0.5
    assert_close("radius", found.radius, formula, 1e-12)
    (exact,) = gradients(formula, [leaf])
    assert_close("gradient", actual, exact, 1e-10)


def big_convolutions():
    model = in_double(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
    )
    return model, normal(2, 1, 20, 20)  # 3 * 20 * 20 = 1200 values between the blocks


def exact_norm(model, x):
    """Of the second block, from the convolution's own formula: no Jacobian of 1200 x 1200 is formed."""
    fed = model[:2](x)
    slope = 1 - model[2:](fed).square()
    taps = nn.functional.conv2d(torch.ones_like(fed), model[2].weight.square(), padding=1)
    return ((slope.square() * taps).sum(dim=(1, 2, 3)) / fed[0].numel()).sqrt()


def test_rectangular_depth_of_large_pictures_is_sampled_and_says_so():
    model, x = big_convolutions()
    model.append(nn.Conv2d(3, 4, 3, padding=1).double())
    found = depth(model, x, method="power", num_matvecs=4)
    assert f"frobenius, {FROBENIUS_SAMPLE} of 1200" in found.method
    again, other = depth(model, x, method="power", num_matvecs=4), depth(model, x, num_matvecs=4, generator=seeded(1))
    assert torch.equal(found.radius[1], again.radius[1])
    assert not torch.equal(found.radius[1], other.radius[1])
    taps = nn.functional.conv2d(torch.ones(1, 3, 20, 20).double(), model[4].weight.square(), padding=1)
    exact = (taps.sum() / 1600).sqrt()
    assert ((found.radius[1] - exact).abs() < 4 * found.residual[1] * exact).all()


def test_sampled_norm_of_a_convolution_is_near_its_formula():
    model, x = big_convolutions()
    operator = lsc.JacobianOperator.from_model(model, x, "depth")
    found, exact = frobenius_radius(operator), exact_norm(model, x)
    assert ((found.radius - exact).abs() < 4 * found.residual * exact).all()
    assert (found.residual < 0.05).all()


def mixture(batch_first=False):
    model = in_double(
        lambda: nn.Sequential(
            nn.GRU(4, 5, batch_first=batch_first),
            nn.Linear(5, 7),
            nn.Tanh(),
            nn.Dropout(0.5),
            lsc.nn.LSTM(7, 6, batch_first=batch_first, dtype=torch.float64),
            nn.Linear(6, 3),
        )
    )
    return model, normal(4, BATCH, 4)


def cells_of(model):
    """torch's cells with the weights of the recurrent layers."""
    cells = nn.GRUCell(4, 5, dtype=torch.float64), nn.LSTMCell(7, 6, dtype=torch.float64)
    for cell, layer in zip(cells, (model[0], model[4]), strict=True):
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    return cells


def over_samples(function, *arguments):
    return torch.stack([jacrev(function)(*(a[i] for a in arguments)) for i in range(BATCH)])


def by_hand(model, x, gru, lstm):
    """Numbers [T * B] of time for both recurrent layers, and of depth for the three layers above the first."""
    h, state = x.new_zeros(BATCH, 5), x.new_zeros(BATCH, 12)

    def advance(s, fed):
        return torch.cat(lstm(fed, s.split(6, -1)), -1)

    found = [[], [], [], [], []]
    for row in x:
        following = gru(row, h)
        fed = torch.tanh(model[1](following))
        parts = (
            over_samples(lambda s, r: gru(r, s), h, row),
            over_samples(advance, state, fed),
            over_samples(lambda y: torch.tanh(model[1](y)), following),
            over_samples(lambda f, s: advance(s, f)[:6], fed, state),
            model[5].weight.expand(BATCH, 3, 6),
        )
        for numbers, matrices in zip(found, parts, strict=True):
            numbers.append(number(matrices))
        h, state = following, advance(state, fed)
    time_0, time_2, *deep = (torch.cat(numbers) for numbers in found)
    return torch.stack((time_0, time_2)), torch.stack(deep)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_mixture_has_the_radii_of_its_parts_at_what_they_are_fed(batch_first):
    model, x = mixture(batch_first)
    report = lsc.radii(model, x.transpose(0, 1) if batch_first else x, generator=seeded())
    time, deep = by_hand(model, x, *cells_of(model))
    assert report.layers == {"time": [0, 2], "depth": [1, 2, 3]}
    assert_close("time", report["time"].radius.flatten(1), time, 1e-8)
    assert_close("depth", report["depth"].radius.flatten(1), deep, 1e-8)
    assert model.training


def test_gradient_through_a_mixture_is_autograds_through_its_parts():
    model, x = mixture()
    leaves = list(model.parameters())
    report = lsc.radii(model, x, through_states=True, generator=seeded())
    actual = gradients(sum(report[d].radius.sum() for d in report), leaves)
    gru, lstm = cells_of(model)
    own = [p for module in (gru, model[1], lstm, model[5]) for p in module.parameters()]
    time, deep = by_hand(model, x, gru, lstm)
    assert_close("gradient", flat(actual), flat(gradients(time.sum() + deep.sum(), own)), 1e-7)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrised_weights_are_measured_and_differentiated(wrap):
    model = in_double(lambda: nn.Sequential(wrap(nn.Linear(5, 5)), nn.Tanh(), wrap(nn.Linear(5, 5)), nn.Tanh()))
    exact = number(block_jacobians(model, vectors(), (0, 2))[0])
    found, leaves = depth(model, vectors(), through_states=True).radius, list(model.parameters())
    assert_close("radius", found.flatten(), exact, 1e-10)
    assert_close("gradient", flat(gradients(found, leaves)), flat(gradients(exact, leaves)), 1e-7)


def relu_mlp(wrap=lambda layer: layer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(part for k in range(4) for part in (wrap(nn.Linear(12 if k == 0 else 20, 20)), nn.ReLU()))
        )


@pytest.mark.parametrize("wrap", [lambda layer: layer, parametrizations.weight_norm])
def test_pretraining_brings_a_relu_network_to_one(wrap):
    model = relu_mlp(wrap)
    x = normal(600, 12, dtype=torch.float32)
    result = lsc.pretrain(model, x, steps=120, max_points=64, tolerance=0.02, patience=2)
    assert result.targets == {"depth": 1.0}
    assert result.before["depth"].mean() < 0.7
    assert result.deviation() < 0.05
    fresh = normal(200, 12, seed=9, dtype=torch.float32)
    for mean in depth(model, fresh, tol=1e-3).mean(dim=(1, 2)).tolist():
        assert mean == pytest.approx(1, abs=0.05)


def test_rescaling_a_weight_that_keeps_its_scale_is_refused_and_changes_nothing():
    model = relu_mlp(lambda layer: parametrizations.orthogonal(layer) if layer.in_features == 20 else layer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="moves: expected no 'rescale', got it for weight, .* keeps its scale"):
        lsc.pretrain(model, normal(32, 12, dtype=torch.float32), 0.5, moves=("rescale",), steps=5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_pretraining_leaves_statistics_of_a_batch_norm_alone():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))
    before = copy.deepcopy(model[1].state_dict())
    lsc.pretrain(model, normal(40, 6, dtype=torch.float32), steps=2)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(model[1].state_dict()[name], before[name])
    assert model.training


def test_samples_of_a_block_with_attention_are_the_first_dimension():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)  # it has batch_first, which says nothing about this model

        def forward(self, x):
            return x + self.attention(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1))[0].transpose(0, 1)

    model, x = nn.Sequential(Attending(), Attending()), normal(10, 3, 4, dtype=torch.float32)
    result = lsc.pretrain(model, x, steps=1, moves=("gradient",))
    assert result.after["depth"].radius.shape == (1, 1, 2)  # a fifth of ten samples


BAD = {
    "no matrix": (
        [nn.ReLU(), nn.Dropout()],
        vectors(),
        None,
        ValueError,
        "model: .* at least one weight matrix, got none",
    ),
    "empty": ([], vectors(), None, ValueError, "model: .* at least one weight matrix, got none"),
    "both layouts": (
        [nn.GRU(4, 4), nn.GRU(4, 4, batch_first=True)],
        normal(2, 2, 4),
        None,
        ValueError,
        "model: expected recurrent layers with one batch_first, got both",
    ),
    "a state": (mlp(5, 5), vectors(), vectors(), ValueError, "initial_state: expected None for an nn.Sequential"),
    "no tensor": (mlp(5, 5), [1.0], None, TypeError, "inputs: expected a torch.Tensor, got list"),
    "not finite": (mlp(5, 5), vectors() / 0, None, ValueError, "inputs: expected finite numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_sequence_that_makes_no_sense_is_refused(case):
    parts, x, state, error, message = BAD[case]
    with pytest.raises(error, match=message):
        lsc.radii(nn.Sequential(*parts).double(), x, state)
