"""Products of Hessians with vectors and the eigenvalues found from them: against whole matrices, scipy and the paper's
network."""

import pytest
import scipy.sparse.linalg
import torch
from test_memory_checks import A4, B4, C4, D4

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.memory import (
    CurvatureProduct,
    DenseSystem,
    DiagonalSystem,
    gauss_newton_product,
    hessian_product,
    population_product,
    top_eigenpairs,
)

F64 = torch.float64


def formed(product):
    return torch.stack([product(e) for e in torch.eye(product.size, dtype=F64)], 1)


def of_matrix(H):
    return CurvatureProduct(len(H), lambda v: H @ v)


def symmetric(size, seed=0):
    H = torch.randn(size, size, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return H + H.mT


def tiny_model():
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3, dtype=F64), torch.randn(6, 2, dtype=F64)
    return model, x, y


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def with_values(model, values):
    parts = values.split([p.numel() for p in model.parameters()])
    return {name: part.view_as(p) for (name, p), part in zip(model.named_parameters(), parts, strict=True)}


def test_hessian_products_are_those_of_the_whole_hessian():
    model, x, y = tiny_model()

    def loss(values):
        return (torch.func.functional_call(model, with_values(model, values), (x,)) - y).square().mean() / 2

    expected = torch.autograd.functional.hessian(loss, flat(model))
    product = hessian_product(lambda: (model(x) - y).square().mean() / 2, model.parameters())
    torch.testing.assert_close(formed(product), expected)
    assert all(p.grad is None for p in model.parameters())


def test_gauss_newton_products_are_those_of_the_jacobian_and_not_of_the_hessian():
    model, x, y = tiny_model()
    J = torch.autograd.functional.jacobian(
        lambda values: torch.func.functional_call(model, with_values(model, values), (x,)).flatten(), flat(model)
    )
    product = gauss_newton_product(lambda: model(x), model.parameters())
    torch.testing.assert_close(formed(product), J.mT @ J / len(J))
    other = hessian_product(lambda: (model(x) - y).square().mean() / 2, model.parameters())
    assert not torch.allclose(formed(product), formed(other))
    same = hessian_product(lambda: (model(x) - model(x).detach()).square().mean() / 2, model.parameters())
    torch.testing.assert_close(formed(product), formed(same))


def test_products_through_the_layers_of_this_package():
    torch.manual_seed(0)
    layer = lsc.nn.GRU(2, 3).double()
    x = torch.randn(4, 2, 2, dtype=F64)
    product = hessian_product(lambda: layer(x)[0].square().mean(), layer.parameters())
    v = torch.randn(product.size, dtype=F64)

    def gradient(at):
        parameters = {k: p.requires_grad_() for k, p in with_values(layer, at).items()}
        out = torch.func.functional_call(layer, parameters, (x,))[0].square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(out, list(parameters.values()))])

    step = 1e-5
    difference = (gradient(flat(layer) + step * v) - gradient(flat(layer) - step * v)) / (2 * step)
    torch.testing.assert_close(product(v), difference, rtol=1e-6, atol=1e-9)


def test_a_loss_that_is_linear_or_does_not_see_a_parameter():
    a, b = torch.ones(2, dtype=F64, requires_grad=True), torch.ones(1, dtype=F64, requires_grad=True)
    assert formed(hessian_product(lambda: a.sum(), [a, b])).eq(0).all()
    torch.testing.assert_close(
        formed(gauss_newton_product(lambda: 2 * b, [a, b])), torch.diag(torch.tensor([0.0, 0, 4], dtype=F64))
    )


STUDENTS = {
    "dense": lambda: DenseSystem(A4, B4, C4, D4),
    "blocks": lambda: DenseSystem(0.3 * torch.randn(2, 2, 2, dtype=F64), *torch.randn(2, 4, dtype=F64)),
    "diagonal": lambda: DiagonalSystem(torch.rand(3, dtype=F64) + 0.2j, *torch.randn(2, 3, dtype=torch.complex128)),
    "lru": lambda: lsc.nn.LRU(2, 3, state_size=5, dtype=F64),
    "2 x 2 layer": lambda: lsc.nn.BlockDiagonalRNN(1, 2, heads=2, state_size=4, dtype=F64),
}


@pytest.mark.parametrize("rho", [0.0, 0.7])
@pytest.mark.parametrize("name", STUDENTS)
def test_population_products_are_those_of_the_hessian_at_a_solution(name, rho):
    torch.manual_seed(1)
    student = STUDENTS[name]()
    expected = memory.hessian(student, rho=rho, horizon=20)
    product = population_product(student, rho, horizon=20)
    torch.testing.assert_close(formed(product), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_the_papers_network_by_products():
    product = population_product(DenseSystem(A4, B4, C4, D4), horizon=300)
    v = torch.full((25,), 0.2, dtype=F64)
    image = product(v)
    assert float(v @ image) == pytest.approx(267581.7999, rel=1e-6)
    assert image[:4].tolist() == pytest.approx([-101711.36620, 53082.77122, 75668.69375, -51286.01986], rel=1e-6)
    for _ in range(50):
        image = product(v)
        v = image / image.norm()
    assert float(v @ product(v)) == pytest.approx(5738842.084, rel=1e-6)
    found = top_eigenpairs(product, 5, generator=torch.Generator().manual_seed(0))
    assert found.converged
    assert found.values.tolist() == pytest.approx([5738842.1, 3152907.8, 1911917.4, 1388912.6, 233796.47], rel=1e-6)
    assert found.num_products < 25


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 2), (31, 3), (65, 1), (200, 4)])
def test_eigenpairs_are_scipys(size, count):
    H = symmetric(size)
    found = top_eigenpairs(of_matrix(H), count, generator=torch.Generator().manual_seed(1))
    if size > count + 1:
        wanted = scipy.sparse.linalg.eigsh(H.numpy(), k=count, which="LA", return_eigenvectors=False)[::-1].copy()
    else:
        wanted = torch.linalg.eigvalsh(H).flip(0)[:count].numpy()
    torch.testing.assert_close(found.values, torch.from_numpy(wanted), rtol=1e-7, atol=1e-9)
    assert found.converged
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(count, dtype=F64), rtol=0, atol=1e-10)
    torch.testing.assert_close(H @ found.vectors, found.vectors * found.values, rtol=0, atol=1e-6 * size)


def test_residuals_are_true_where_products_run_out():
    H = symmetric(60) @ symmetric(60)
    found = top_eigenpairs(of_matrix(H), 2, num_products=12, generator=torch.Generator().manual_seed(1))
    assert not found.converged
    assert found.num_products == 12 + 2
    true = (H @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals * found.values[0], true)
    assert (found.residuals > 1e-8).any()


def test_a_product_in_float32_is_not_called_more_exact_than_it_is():
    H = symmetric(40)
    rounded = CurvatureProduct(40, lambda v: (H.float() @ v.float()).double())
    found = top_eigenpairs(rounded, tol=1e-12, generator=torch.Generator().manual_seed(1))
    assert not found.converged
    assert 1e-9 < float(found.residuals[0]) < 1e-5


def test_a_matrix_of_low_rank_and_one_of_zeros():
    v = torch.linspace(1, 2, 30, dtype=F64)
    found = top_eigenpairs(of_matrix(torch.outer(v, v)), 3, generator=torch.Generator().manual_seed(1))
    assert found.values.tolist() == pytest.approx([float(v @ v), 0, 0], abs=1e-9)
    assert found.converged
    zeros = top_eigenpairs(of_matrix(torch.zeros(5, 5, dtype=F64)), 2)
    assert zeros.values.tolist() == [0, 0]
    assert zeros.converged


def test_the_start_vector_comes_from_the_generator_alone():
    H = symmetric(40)
    pairs = [
        top_eigenpairs(of_matrix(H), num_products=5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(pairs[0].vectors, pairs[1].vectors)
    assert not torch.equal(pairs[0].vectors, pairs[2].vectors)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: top_eigenpairs(of_matrix(symmetric(3)), 4), "count: expected at most 3, got 4"),
        (
            lambda: top_eigenpairs(of_matrix(symmetric(3)), 2, num_products=1),
            "num_products: expected at least 2",
        ),
        (lambda: top_eigenpairs(of_matrix(symmetric(3)), tol=0), "tol: expected more than 0, got 0"),
        (lambda: top_eigenpairs(of_matrix(symmetric(3) * torch.nan)), "product: expected finite numbers"),
        (lambda: of_matrix(symmetric(3))(torch.ones(2)), r"vector: expected shape \(3,\), got \(2,\)"),
        (lambda: hessian_product(lambda: torch.ones(1), []), "parameters: expected at least one tensor"),
        (lambda: hessian_product(lambda: torch.ones(1), [torch.ones(1)]), "parameters: expected tensors that require"),
        (
            lambda: hessian_product(lambda: torch.ones(2), [torch.ones(1, requires_grad=True)]),
            "loss: expected a real number",
        ),
        (
            lambda: hessian_product(lambda: torch.ones(1), [torch.ones(1, requires_grad=True)]),
            "loss: expected one that depends on the parameters",
        ),
        (
            lambda: gauss_newton_product(lambda: torch.ones(1), [torch.ones(1, requires_grad=True)]),
            "output: expected one that depends on the parameters",
        ),
        (
            lambda: hessian_product(lambda: torch.ones(1), [torch.ones(1, dtype=torch.cfloat, requires_grad=True)]),
            "parameters: expected real tensors, number 0 is torch.complex64",
        ),
        (lambda: population_product(DenseSystem(A4, B4, C4, D4), horizon=0), "horizon: expected at least 1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
