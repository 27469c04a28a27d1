import copy
import pickle

import pytest
import torch
from networks import DTYPES, SIZES, gradients, normal
from torch.func import functional_call

import lsc_ext as lsc
from lsc_ext import reference
from lsc_ext.testing import TOLERANCES, assert_close

nn = lsc.nn
DOUBLE = {"dtype": torch.float64}
KINDS = {
    "LRU": (nn.LRU, {}, reference.lru),
    "ComplexDiagonalRNN": (nn.ComplexDiagonalRNN, {}, reference.complex_diagonal_rnn),
    "normalised": (nn.ComplexDiagonalRNN, {"normalization": "learned"}, reference.complex_diagonal_rnn),
    "BlockDiagonalRNN": (nn.BlockDiagonalRNN, {"heads": 1}, reference.block_diagonal_rnn),
    "heads": (nn.BlockDiagonalRNN, {"heads": 3}, reference.block_diagonal_rnn),
    "ResLRU": (nn.ResLRU, {"dropout": 0.0}, reference.res_lru),
}


def make(kind, inputs=3, hidden=4, layers=2, *, state_size=6, dtype=torch.float64, **options):
    module, own, _ = KINDS[kind]
    return module(inputs, hidden, layers, state_size=state_size, dtype=dtype, **own, **options)


def initial_of(model, batch=None, seed=2):
    """Random initial states [L, B, N], [L, N] without a batch."""
    _, last = model(next(model.parameters()).new_zeros(0, *(() if batch is None else (batch,)), model.input_size))
    return torch.randn(last.shape, dtype=last.dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients_equal_the_published_equations(kind, size, dtype):
    model = make(kind, 2, size, state_size=3 * (1 + size // 3), dtype=dtype)
    x = normal(5, 3, 2, dtype=dtype).requires_grad_()
    start = initial_of(model, 3).requires_grad_()
    leaves, tolerance = [x, start, *model.parameters()], TOLERANCES[dtype]
    output, last = model(x, start)
    expected, states = KINDS[kind][2](model, x, start)
    assert_close("output", output, expected, tolerance.forward)
    assert_close("last state", last, states[:, -1], tolerance.forward)
    assert output.dtype == dtype

    def loss(output, last):
        return (output * normal(*output.shape, seed=7)).sum() + (last * normal(*last.shape, seed=8)).real.sum()

    found, wanted = gradients(loss(output, last), leaves), gradients(loss(expected, states[:, -1]), leaves)
    names = ["x", "initial", *(name for name, _ in model.named_parameters())]
    largest = max(e.abs().max() for e in wanted)
    for name, a, e in zip(names, found, wanted, strict=True):
        if e.any():
            assert_close(f"gradient of {name}", a, e, tolerance.gradient)
        else:  # the norm of a single feature
            assert a.abs().max() <= tolerance.gradient * largest


@pytest.mark.parametrize("kind", KINDS)
def test_equal_widths_feed_through_element_by_element(kind):
    model, x = make(kind, 4, 4, 3), normal(5, 2, 4)
    holders = [block.lru for block in model.blocks] if kind == "ResLRU" else [model]
    assert all(p.shape == (4,) for holder in holders for n, p in holder.named_parameters() if n.startswith("D_"))
    assert_close("output", model(x)[0], KINDS[kind][2](model, x)[0], TOLERANCES[torch.float64].forward)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_chunks_with_carried_states_equals_the_whole(kind):
    model, x = make(kind), normal(11, 2, 3)
    whole, last = model(x, initial_of(model, 2))
    state, outputs = initial_of(model, 2), []
    for chunk in x.split((1, 4, 0, 6)):
        output, state = model(chunk, state)
        outputs.append(output)
    assert_close("output", torch.cat(outputs), whole, TOLERANCES[torch.float64].forward)
    assert_close("last state", state, last, TOLERANCES[torch.float64].forward)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts(kind):
    model, swapped = make(kind), make(kind, batch_first=True)
    swapped.load_state_dict(model.state_dict())
    x, start = normal(5, 2, 3), initial_of(model, 2)
    output, last = model(x, start)
    by_batch, same_last = swapped(x.transpose(0, 1), start)
    assert torch.equal(by_batch, output.transpose(0, 1))
    assert torch.equal(same_last, last)
    with pytest.raises(ValueError, match="hx: expected shape"):
        model(x.transpose(0, 1), start)
    alone, alone_last = model(x[:, 0], start[:, 0])
    assert_close("output", alone, output[:, 0], 1e-14)
    assert_close("last state", alone_last, last[:, 0], 1e-14)
    square = normal(5, 5, 3)
    assert not torch.allclose(swapped(square)[0], model(square)[0])


@pytest.mark.parametrize(("time", "batch"), [(0, 2), (3, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_few_steps_and_few_sequences(kind, time, batch):
    model = make(kind)
    start = initial_of(model, batch)
    output, last = model(normal(time, batch, 3).requires_grad_(), start)
    assert output.shape == (time, batch, 4)
    assert last.shape == start.shape
    assert time > 0 or torch.equal(last, start)
    assert all(g.isfinite().all() for g in gradients(output, model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_strides_of_the_input_do_not_matter(kind):
    model, x = make(kind), normal(5, 2, 3)
    for strided in (x.transpose(0, 2).contiguous().transpose(0, 2), torch.stack((x, x + 1), dim=-1)[..., 0]):
        assert_close("output", model(strided)[0], model(x)[0], 1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_the_layers_are_the_forward_pass(kind):
    model, x = make(kind), normal(4, 2, 3)
    output, last = model(x)
    states = [x.new_zeros(2, model.state_size_of(layer)) for layer in range(2)]
    for t in range(4):
        fed = x[t]
        for layer in range(2):
            fed, states[layer] = model.layer_step(layer, fed, states[layer])
        assert_close("output", fed, output[t], TOLERANCES[torch.float64].forward)
    expected = torch.cat((last.real, last.imag), dim=-1) if last.is_complex() else last
    assert_close("last state", torch.stack(states), expected, TOLERANCES[torch.float64].forward)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_pass_gradcheck_to_second_order(kind):
    model = make(kind, 3, 3, 1, state_size=3)
    leaves = (normal(2, 3).requires_grad_(), normal(2, model.state_size_of(0), seed=2).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda u, s: model.layer_step(0, u, s), leaves, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_pass_gradcheck_in_every_mode(kind):
    model = make(kind, 2, 3, 1, state_size=3)
    names = [name for name, _ in model.named_parameters()]

    def function(x, start, *weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (x, start))

    leaves = [normal(3, 2, 2), initial_of(model, 2), *(p.detach().clone() for p in model.parameters())]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_weights_and_inputs(kind):
    models, x = [make(kind), make(kind)], normal(2, 5, 2, 3)
    stacked, buffers = torch.func.stack_module_state(models)
    together = torch.func.vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,))[0])(stacked, buffers, x)
    for i, model in enumerate(models):
        assert_close("output", together[i], model(x[i])[0], TOLERANCES[torch.float64].forward)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_in_one_graph_gives_the_same_numbers(kind):
    model, x = make(kind), normal(5, 2, 3)
    actual, expected = torch.compile(model, fullgraph=True, backend="aot_eager")(x)[0], model(x)[0]
    assert_close("output", actual, expected, 1e-14)
    for a, e in zip(gradients(actual, model.parameters()), gradients(expected, model.parameters()), strict=True):
        assert_close("gradient", a, e, 1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_gives_the_same_numbers(kind):
    model, x = make(kind).eval(), normal(5, 2, 3)
    assert_close("output", torch.export.export(model, (x,)).module()(x)[0], model(x)[0], 1e-14)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_compute_the_same(kind, way):
    model, x = make(kind), normal(5, 2, 3)
    twin = way(model)
    assert torch.equal(twin(x)[0], model(x)[0])
    twin.reset_parameters()
    assert not torch.equal(twin(x)[0], model(x)[0])
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x)[0], model(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_module_moves_between_dtypes_and_devices(kind):
    model = make(kind, dtype=torch.float32).double()
    output, last = model(normal(5, 2, 3))
    assert output.dtype == torch.float64
    assert last.dtype in (torch.float64, torch.complex128)
    assert all(p.is_meta for p in make(kind, device="meta").parameters())


def test_every_dtype_starts_from_the_same_numbers():
    torch.manual_seed(3)
    wide = make("LRU")
    torch.manual_seed(3)
    narrow = make("LRU", dtype=torch.float32)
    assert all(torch.equal(a.float(), b) for a, b in zip(wide.parameters(), narrow.parameters(), strict=True))


LRU_PARAMETERS = {
    "nu_log_l0": (6,),
    "theta_log_l0": (6,),
    "gamma_log_l0": (6,),
    "B_l0": (2, 6, 3),
    "C_l0": (2, 4, 6),
    "D_l0": (4, 3),
    "nu_log_l1": (6,),
    "theta_log_l1": (6,),
    "gamma_log_l1": (6,),
    "B_l1": (2, 6, 4),
    "C_l1": (2, 4, 6),
    "D_l1": (4,),
}


def test_parameters_of_an_lru():
    assert {n: tuple(p.shape) for n, p in make("LRU").named_parameters()} == LRU_PARAMETERS


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.LRU(3, 4), "LRU(3, 4)"),
        (nn.LRU(3, 4, 2, state_size=8, max_phase=1.0), "LRU(3, 4, num_layers=2, state_size=8, max_phase=1.0)"),
        (nn.BlockDiagonalRNN(3, 4, heads=2), "BlockDiagonalRNN(3, 4, heads=2)"),
        (
            nn.ComplexDiagonalRNN(3, 4, batch_first=True, normalization="learned"),
            "ComplexDiagonalRNN(3, 4, batch_first=True, normalization='learned')",
        ),
    ],
)
def test_repr_has_what_differs_from_the_defaults(model, expected):
    assert repr(model) == expected
    assert repr(nn.ResLRU(3, 4, dropout=0.5)).startswith("ResLRU(\n  3, 4, dropout=0.5\n")


# Means over 400 draws; the standard deviation of one maximum is below a tenth of its distance from 0.99.
@pytest.mark.parametrize(("size", "expected"), [(64, 0.9892), (256, 0.9898), (512, 0.9899)])
def test_largest_initial_modulus_of_an_lru(size, expected):
    model = nn.LRU(1, 1, 400, state_size=size, **DOUBLE)
    moduli = torch.stack([model.eigenvalues(layer).abs().detach() for layer in range(400)])
    assert moduli.amax(1).mean().item() == pytest.approx(expected, abs=1e-4)
    assert moduli.min() >= 0.4
    assert moduli.max() <= 0.99


def test_initial_values_of_an_lru():
    model = nn.LRU(50, 200, state_size=300, **DOUBLE)
    eigenvalues = model.eigenvalues(0).detach()
    assert_close("gamma", model.gamma_log_l0.exp(), (1 - eigenvalues.abs() ** 2).sqrt(), 1e-12)
    assert 0 < eigenvalues.angle().min() <= eigenvalues.angle().max() <= 0.314
    assert eigenvalues.angle().mean().item() == pytest.approx(0.157, rel=0.1)
    for part in (0, 1):
        assert model.B_l0[part].std().item() == pytest.approx(350**-0.5, rel=0.03)
        assert model.C_l0[part].std().item() == pytest.approx(500**-0.5, rel=0.03)
    assert model.B_l0.abs().max() <= (3 / 350) ** 0.5
    assert model.D_l0.std().item() == pytest.approx(50**-0.5, rel=0.03)
    assert nn.LRU(2000, 2000, state_size=1).D_l0.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 0.9)])
def test_initial_eigenvalues_of_a_complex_diagonal_recurrence_fill_a_ring(low, high):
    model = nn.ComplexDiagonalRNN(
        50, 60, state_size=4000, min_modulus=low, max_modulus=high, normalization="learned", **DOUBLE
    )
    eigenvalues = model.eigenvalues(0).detach()
    square = eigenvalues.abs().square()
    assert low <= square.min().sqrt() + 1e-12
    assert square.max() <= high**2 + 1e-12
    assert square.mean().item() == pytest.approx((low**2 + high**2) / 2, rel=0.03)
    assert eigenvalues.angle().std().item() == pytest.approx(3.1416 / 3**0.5, rel=0.03)
    assert_close("gamma", model.gamma_log_l0.exp(), (1 - square).sqrt(), 1e-12)
    assert model.B_l0.std().item() == pytest.approx(4000**-0.5, rel=0.03)
    assert model.C_l0.std().item() == pytest.approx(4000**-0.5, rel=0.03)
    assert model.D_l0.std().item() == pytest.approx(50**-0.5, rel=0.05)


def test_initial_eigenvalues_of_blocks():
    model = nn.BlockDiagonalRNN(50, 60, heads=4, state_size=400, min_modulus=0.2, max_modulus=0.8, **DOUBLE)
    torch.manual_seed(5)
    model.reset_parameters()
    torch.manual_seed(5)
    drawn = torch.linalg.eigvals(torch.randn(4, 100, 100, dtype=torch.float64) / 10)
    expected = (0.2 + 0.6 * drawn.abs().tanh()).sort(dim=1).values
    found = torch.linalg.eigvals(model.A_l0.detach()).abs().sort(dim=1).values
    assert_close("moduli", found, expected, 1e-8)
    assert model.B_l0.std().item() == pytest.approx(50**-0.5, rel=0.03)
    assert model.C_l0.std().item() == pytest.approx(400**-0.5, rel=0.03)


def test_initial_values_of_a_residual_block():
    block = nn.ResLRU(30, 60).blocks[0]
    assert block.lru.state_size == 120
    assert block.norm.eps == 1e-3
    for linear in (block.gate, block.value):
        assert linear.weight.abs().max() <= (6 / 120) ** 0.5
        assert linear.weight.std().item() == pytest.approx(60**-0.5, rel=0.05)
        assert not linear.bias.any()


def test_dropout_is_off_in_the_gradient_of_a_radius():
    model, x, found = make("ResLRU", layers=3), normal(3, 2, 3), []
    for block in model.blocks:
        block.dropout.p = 0.5
    for training in (True, False):
        report = lsc.radii(model.train(training), x, directions=("depth",), generator=torch.Generator().manual_seed(0))
        found.append(torch.cat([g.flatten() for g in gradients(report["depth"].radius, model.parameters())]))
    assert found[1].abs().max() > 0
    assert_close("gradient", found[0], found[1], 1e-12)


def test_dropout_acts_in_training_only():
    model, x = nn.ResLRU(3, 8, dropout=0.5), normal(5, 2, 3, dtype=torch.float32)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


BAD_CONSTRUCTION = {
    "no units": ("LRU", (3, 0), {}, ValueError, "hidden_size: expected at least 1, got 0"),
    "no state": ("LRU", (3, 4), {"state_size": 0}, ValueError, "state_size: expected at least 1, got 0"),
    "fractional": ("ResLRU", (3, 4.0), {}, TypeError, "hidden_size: expected an int, got float"),
    "moduli": ("LRU", (3, 4), {"max_modulus": 1.0}, ValueError, "max_modulus < 1, got 0.4 and 1.0"),
    "phase": ("LRU", (3, 4), {"max_phase": 0.0}, ValueError, "max_phase: expected more than 0, got 0.0"),
    "swapped": (
        "ComplexDiagonalRNN",
        (3, 4),
        {"min_modulus": 0.9, "max_modulus": 0.5},
        ValueError,
        "expected 0 <= min_modulus <= max_modulus <= 1, got 0.9 and 0.5",
    ),
    "normalization": ("ComplexDiagonalRNN", (3, 4), {"normalization": "l2"}, ValueError, "None or 'learned', got 'l2'"),
    "heads": ("BlockDiagonalRNN", (3, 4), {"heads": 3}, ValueError, "heads: .* divisor of state_size == 4, got 3"),
    "no heads": ("BlockDiagonalRNN", (3, 4), {"heads": 0}, ValueError, "heads: expected at least 1, got 0"),
    "dropout": ("ResLRU", (3, 4), {"dropout": 1.5}, ValueError, "dropout: expected a probability, got 1.5"),
    "half": ("LRU", (3, 4), {"dtype": torch.half}, TypeError, "dtype: expected torch.float32 or .*float16"),
}


@pytest.mark.parametrize("case", BAD_CONSTRUCTION)
def test_construction_refuses(case):
    kind, sizes, options, error, message = BAD_CONSTRUCTION[case]
    with pytest.raises(error, match=message):
        getattr(nn, kind)(*sizes, **options)


BAD_CALLS = {
    "not a tensor": ([1.0], None, TypeError, "input: expected a torch.Tensor, got list"),
    "four dimensions": (normal(1, 5, 2, 3), None, ValueError, r"input: expected 2 .* or 3 dimensions, got shape"),
    "input size": (normal(5, 2, 4), None, ValueError, "input: expected .* input_size == 3, got 4"),
    "dtype": (normal(5, 2, 3).float(), None, TypeError, "input: expected torch.float64 .*, got torch.float32"),
    "device": (torch.empty(5, 2, 3, device="meta", **DOUBLE), None, RuntimeError, "input: expected device cpu .*meta"),
    "state shape": (normal(5, 2, 3), normal(2, 3, 6), ValueError, r"hx: expected shape \(2, 2, 6\), got \(2, 3, 6\)"),
    "batched state": (normal(5, 3), normal(2, 1, 6), ValueError, r"hx: expected shape \(2, 6\), got"),
    "state kind": (normal(5, 2, 3), (normal(2, 2, 6),), TypeError, "hx: expected a torch.Tensor, got tuple"),
    "state dtype": (normal(5, 2, 3), normal(2, 2, 6).half(), TypeError, "hx: expected torch.*, got torch.float16"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_refuses(kind, case):
    x, state, error, message = BAD_CALLS[case]
    with pytest.raises(error, match=message):
        make(kind)(x, state)


def test_a_real_state_is_refused_where_states_are_complex():
    with pytest.raises(TypeError, match=r"hx: expected torch.complex128 on cpu, got torch.float64 on cpu"):
        make("LRU")(normal(5, 2, 3), normal(2, 2, 6))
