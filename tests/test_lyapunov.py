"""Products of steps: against explicit matrices, determinants, closed forms and a determinant that needs no start."""

import math

import pytest
import torch
from networks import normal, stack
from torch import nn

import lsc_ext as lsc
from lsc_ext.chain import ChainOperator, Growth
from lsc_ext.operator import MatrixOperator


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cell_jacobians(cell, x, state):
    """[T, B, n, n] of a torch.nn cell that maps inputs [B, I] and states [B, n] to the next ones, by autograd."""
    found = []
    for inputs in x:
        whole = torch.autograd.functional.jacobian(lambda s, inputs=inputs: cell(inputs, s), state)  # [B, n, B, n]
        found.append(whole.diagonal(dim1=0, dim2=2).movedim(-1, 0))
        state = cell(inputs, state).detach()
    return torch.stack(found)


def torch_layer(kind, x, hidden):
    """A model of one torch.nn layer and its Jacobians in time, by torch.nn's own cell."""
    torch.manual_seed(1)
    cell = {"RNN": nn.RNNCell, "GRU": nn.GRUCell}[kind](x.shape[-1], hidden).to(x.dtype)
    model = getattr(nn, kind)(x.shape[-1], hidden).to(x.dtype)
    model.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    jacobians = cell_jacobians(cell, x, x.new_zeros(x.shape[1], hidden))
    return model, jacobians


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
@pytest.mark.parametrize("hidden", [1, 3, 33])
def test_all_exponents_add_up_to_the_determinants_of_autograd(kind, hidden):
    x = normal(12, 3, 4)
    model, jacobians = torch_layer(kind, x, hidden)
    found = lsc.lyapunov(model, x, num_exponents=hidden, generator=generator())
    expected = torch.linalg.slogdet(jacobians).logabsdet.mean(0)
    assert found.exponents.shape == (1, 3, hidden)
    torch.testing.assert_close(found.exponents[0].sum(-1), expected, rtol=1e-9, atol=1e-9)
    assert found.steps == 12


def test_exponents_are_those_of_the_textbook_loop():
    matrices = normal(20 * 3, 7, 7)
    growth = Growth(3, 4, 7, 5, 1, matrices)
    q = growth.vectors.mT.clone()  # [N, n, k]
    growth.follow(MatrixOperator(matrices), torch.arange(60).view(20, 3))
    logs = torch.zeros(3, 4, dtype=torch.float64)
    for step in matrices.view(20, 3, 7, 7):
        q, r = torch.linalg.qr(step @ q)
        logs += r.diagonal(dim1=1, dim2=2).abs().log()
    torch.testing.assert_close(growth.exponents, logs / 20, rtol=1e-10, atol=1e-10)


def test_gaussian_factors_have_the_exponent_of_theory():
    """B. Newman 1986: (log(2 / n) + psi(n / 2)) / 2 for entries of variance 1 / n."""
    n, steps = 32, 400
    torch.manual_seed(0)
    matrices = torch.randn(steps * 24, n, n) / math.sqrt(n)
    growth = Growth(24, 1, n, 0, 1, matrices)
    growth.follow(MatrixOperator(matrices), torch.arange(steps * 24).view(steps, 24))
    expected = (math.log(2 / n) + float(torch.digamma(torch.tensor(n / 2, dtype=torch.float64)))) / 2
    assert abs(float(growth.exponents.mean()) - expected) < 0.005
    assert expected == pytest.approx(-0.0158, abs=1e-4)


def test_a_linear_recurrence_has_the_logarithms_of_its_eigenvalues():
    torch.manual_seed(0)
    model = lsc.nn.LRU(3, 9).double()
    found = lsc.lyapunov(model, normal(600, 2, 3), num_exponents=2, skip=200, generator=generator())
    radius = lsc.radii(model, normal(1, 1, 3), directions=("time",))["time"].radius.detach()
    assert found.exponents[..., 0] == pytest.approx(float(radius.log().max()), abs=2e-3)
    # Complex eigenvalues come in pairs.
    assert found.exponents[..., 1] == pytest.approx(float(radius.log().max()), abs=2e-2)


def test_what_neither_grows_nor_shrinks_has_exponents_of_zero():
    q = torch.linalg.qr(normal(5, 6, 6)).Q
    growth = Growth(1, 6, 6, 0, 1, q)
    growth.follow(MatrixOperator(q), torch.arange(5).view(5, 1))
    assert growth.exponents.abs().max() < 1e-12


def test_lost_directions_are_minus_infinity_and_numbers_that_are_none_nan():
    matrices = torch.stack((torch.zeros(3, 3), torch.full((3, 3), math.nan), torch.eye(3))).double()
    growth = Growth(3, 2, 3, 0, 1, matrices)
    growth.follow(MatrixOperator(matrices), torch.tensor([[0, 1, 2], [2, 2, 2]]))
    assert (growth.exponents[0] == -math.inf).all()
    assert growth.exponents[1].isnan().all()
    assert growth.exponents[2] == pytest.approx(0)


@pytest.mark.parametrize("every", [2, 5])
def test_seldom_decompositions_have_the_same_exponents(every):
    x = normal(20, 3, 4)
    model = stack("gru", 4, 9, 2)
    first = lsc.lyapunov(model, x, num_exponents=3, generator=generator()).exponents
    found = lsc.lyapunov(model, x, num_exponents=3, qr_every=every, generator=generator()).exponents
    torch.testing.assert_close(found, first, rtol=1e-8, atol=1e-8)
    assert not torch.equal(found, first)


def test_steps_that_are_skipped_turn_the_vectors_and_do_not_count():
    x = normal(30, 2, 4)
    model = stack("gru", 4, 9, 1)
    whole = lsc.lyapunov(model, x, generator=generator())
    head = lsc.lyapunov(model, x[:10], generator=generator())
    tail = lsc.lyapunov(model, x, skip=10, generator=generator())
    assert tail.steps == 20
    torch.testing.assert_close(30 * whole.exponents, 10 * head.exponents + 20 * tail.exponents)


@pytest.mark.parametrize("skip", [0, 7])
def test_pieces_and_threads_change_no_bit(skip):
    x = normal(20, 5, 4)
    model = stack("lstm", 4, 9, 2)
    first = lsc.lyapunov(model, x, num_exponents=2, skip=skip, generator=generator()).exponents
    pieces = lsc.lyapunov(model, x, num_exponents=2, skip=skip, generator=generator(), time_chunk=3).exponents
    assert torch.equal(pieces, first)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threads = lsc.lyapunov(model, x, num_exponents=2, skip=skip, generator=generator()).exponents
    finally:
        torch.set_num_threads(before)
    assert torch.equal(threads, first)


def test_a_step_in_plain_torch_has_the_numbers_of_the_compiled_layer():
    x = normal(9, 2, 4)
    cell = nn.GRUCell(4, 35).double()
    layer = nn.GRU(4, 35).double()
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    step = lsc.StepModel(lambda inputs, state: cell(inputs, state), state_size=35, module=cell)
    for measure in (
        lambda model: lsc.lyapunov(model, x, num_exponents=2, generator=generator()).exponents,
        lambda model: lsc.products(model, x, steps=4, tol=1e-9, generator=generator()).gain.radius,
        lambda model: lsc.products(model, x, steps=4, tol=1e-9, generator=generator()).radius.radius,
    ):
        torch.testing.assert_close(measure(step), measure(layer), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
@pytest.mark.parametrize("hidden", [3, 33])
def test_gains_and_radii_are_those_of_explicit_products(kind, hidden):
    x, steps = normal(7, 2, 4), 3
    model, jacobians = torch_layer(kind, x, hidden)
    report = lsc.products(model, x, steps=steps, tol=1e-8, generator=generator())
    for place, (t, b) in enumerate(report.index.tolist()):
        product = torch.linalg.multi_dot(list(jacobians[t : t + steps, b].flip(0)))
        gain = torch.linalg.svdvals(product)[0] ** (1 / steps)
        radius = torch.linalg.eigvals(product).abs().max() ** (1 / steps)
        single = torch.linalg.eigvals(jacobians[t : t + steps, b]).abs().amax(1).log().mean().exp()
        assert report.gain.radius[0, place] == pytest.approx(float(gain), rel=1e-7)
        assert report.radius.radius[0, place] == pytest.approx(float(radius), rel=1e-7)
        assert report.single[0, place] == pytest.approx(float(single), rel=1e-6)
    assert report.index.shape == ((7 - steps + 1) * 2, 2)
    assert (report.gain.radius >= report.radius.radius * (1 - 1e-7)).all()
    assert report.gain.status.eq(0).all()


def test_radii_do_not_multiply():
    """Weakness of a check of single steps: both radii are 0, the product's is 4."""
    first = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    base = MatrixOperator(torch.stack((first, first.T)).double())
    assert lsc.spectral_radius(base).radius.tolist() == [0, 0]
    chain = ChainOperator(base, torch.tensor([[0, 1], [1, 0], [0, 0]]))
    assert lsc.spectral_radius(chain).radius.tolist() == pytest.approx([4, 4, 0])
    gram = ChainOperator(base, torch.tensor([[0, 1]]), gram=True)
    assert lsc.spectral_radius(gram).radius.tolist() == pytest.approx([16])


def test_the_order_of_a_chain_and_its_transpose():
    matrices = normal(3, 5, 5)
    base = MatrixOperator(matrices)
    scales = torch.tensor([0.5, 2.0], dtype=torch.float64)
    chain = ChainOperator(base, torch.tensor([[0, 1, 2], [2, 2, 1]]), scales)
    expected = torch.stack((matrices[2] @ matrices[1] @ matrices[0] / 8, 8 * matrices[1] @ matrices[2] @ matrices[2]))
    torch.testing.assert_close(chain.to_dense(), expected)
    v = normal(2, 5)
    torch.testing.assert_close(chain.rmatvec(v), torch.einsum("nij,ni->nj", expected, v))
    gram = ChainOperator(base, torch.tensor([[0, 1, 2], [2, 2, 1]]), scales, gram=True)
    torch.testing.assert_close(gram.to_dense(), expected.mT @ expected)


def test_a_layer_that_runs_backwards_goes_from_the_end():
    x = normal(9, 2, 4)
    torch.manual_seed(0)
    both = nn.GRU(4, 6, bidirectional=True).double()
    ahead = nn.GRU(4, 6).double()
    ahead.load_state_dict({name[:-8]: v for name, v in both.state_dict().items() if name.endswith("_reverse")})
    turned = x.flip(0)
    exponents = [lsc.lyapunov(model, z, num_exponents=6).exponents for model, z in ((both, x), (ahead, turned))]
    torch.testing.assert_close(exponents[0][1].sum(-1), exponents[1][0].sum(-1))
    found, expected = (lsc.products(model, z, steps=4, tol=1e-9) for model, z in ((both, x), (ahead, turned)))
    # Steps t .. t + 3 of one are steps T - 4 - t .. T - 1 - t of the other.
    torch.testing.assert_close(
        found.gain.radius[1].view(6, 2), expected.gain.radius[0].view(6, 2).flip(0), rtol=1e-7, atol=0
    )


def test_a_sample_is_part_of_all_products():
    model, x = stack("gru", 4, 9, 2), normal(12, 3, 4)
    whole = lsc.products(model, x, steps=5, generator=generator())
    some = lsc.products(model, x, steps=5, max_points=4, generator=generator())
    assert some.gain.radius.shape == (2, 4)
    places = some.index[:, 0] * 3 + some.index[:, 1]
    torch.testing.assert_close(some.gain.radius, whole.gain.radius[:, places], rtol=1e-3, atol=0)
    assert torch.equal(some.index, whole.index[places])


def test_reports_say_what_they_have():
    model, x = stack("gru", 4, 9, 2), normal(12, 3, 4)
    exponents = lsc.lyapunov(model, x, generator=generator())
    assert [row["layer"] for row in exponents.rows()] == [0, 1]
    assert "per step" in str(exponents)
    report = lsc.products(model, x, steps=5, generator=generator())
    assert "products of 5 steps" in str(report)
    assert [row["certified"] for row in report.rows()] == [1.0, 1.0]
    torch.testing.assert_close(exponents.rates(), exponents.exponents.exp())


def test_long_products_stay_in_range():
    """200 factors of 1/8: beyond float32, were each not scaled."""
    matrices = (torch.eye(3) / 8).expand(1, 3, 3).contiguous()
    model = nn.RNN(1, 3, nonlinearity="relu", bias=False)
    with torch.no_grad():
        model.weight_hh_l0.copy_(matrices[0])
        model.weight_ih_l0.fill_(1)
    report = lsc.products(model, torch.ones(200, 1, 1), steps=200)
    assert report.gain.radius.item() == pytest.approx(1 / 8, rel=1e-4)
    assert report.radius.radius.item() == pytest.approx(1 / 8, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: lsc.lyapunov(m, x, num_exponents=10), "num_exponents: expected 1 .. 9, got 10"),
        (lambda m, x: lsc.lyapunov(m, x, num_exponents=0), "num_exponents: expected 1 .. 9, got 0"),
        (lambda m, x: lsc.lyapunov(m, x, qr_every=0), "qr_every: expected at least 1, got 0"),
        (lambda m, x: lsc.lyapunov(m, x, skip=12), "skip: expected 0 .. 11, got 12"),
        (lambda m, x: lsc.products(m, x, steps=13), "steps: expected 1 .. 12, got 13"),
        (lambda m, x: lsc.products(m, x, steps=0), "steps: expected 1 .. 12, got 0"),
        (lambda m, x: lsc.products(m, x, steps=2, max_points=0), "max_points: expected at least 1 or None, got 0"),
        (lambda m, x: lsc.lyapunov(nn.Sequential(nn.Linear(4, 4).double()), x[0]), "model: expected one with a state"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(stack("gru", 4, 9, 2), normal(12, 3, 4))


@pytest.mark.parametrize(
    ("chains", "words"),
    [
        (torch.tensor([[0, 5]]), "chains: expected points 0 .. 4, got 5"),
        (torch.zeros(2, 0, dtype=torch.int64), r"K at least 1, got torch.int64 \(2, 0\)"),
        (torch.zeros(2, 1), "expected int64 of shape"),
    ],
)
def test_chains_of_points_that_are_not_there_are_refused(chains, words):
    with pytest.raises(ValueError, match=words):
        ChainOperator(MatrixOperator(normal(5, 3, 3)), chains)
    with pytest.raises(ValueError, match="base: expected square Jacobians, got 3 x 4"):
        ChainOperator(MatrixOperator(normal(5, 3, 4)), torch.zeros(1, 1, dtype=torch.int64))
