"""Exact losses and Hessians of linear networks against products of steps, simulation, autograd and differences."""

import itertools
import math

import pytest
import torch
from memory_inputs import C128, F64, autocorrelation_at, few_inputs, inputs, polar
from networks import normal
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import memory

# Networks


def networks(inputs: int, outputs: int) -> list:
    """A dense, a block diagonal and a diagonal network of one shape."""
    A = normal(4, 4, seed=3)
    A = 0.8 * A / torch.linalg.eigvals(A).abs().max()
    B, C, D = normal(4, inputs, seed=4), normal(outputs, 4, seed=5), normal(outputs, inputs, seed=6)
    blocks = torch.stack((A[:2, :2], A[2:, 2:])) * 0.5
    lam = torch.tensor([0.9, -0.5, polar(0.8, 0.5), polar(0.7, 2.0)], dtype=C128)
    return [
        memory.DenseSystem(A, B, C, D),
        memory.DenseSystem(blocks, B, C, D),
        memory.DiagonalSystem(lam, torch.complex(B, B.flip(0)), torch.complex(C, C.flip(1)), D),
    ]


@pytest.mark.parametrize("steps", [1, 2, 3, 31, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 2)])
def test_impulse_responses_are_products_of_steps(steps, inputs, outputs):
    for system in networks(inputs, outputs):
        dense = system.dense()
        state, expected = dense.B, []
        for k in range(steps):
            expected.append(dense.C @ state + (dense.D if k == 0 else 0))
            state = dense.A @ state
        found = memory.impulse_response(system, steps)
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-13)


LAYERS = {
    "lru": lambda: lsc.nn.LRU(2, 3, state_size=4, max_phase=1.0, max_modulus=0.9, dtype=F64),
    "square lru": lambda: lsc.nn.LRU(3, 3, state_size=2, max_modulus=0.9, dtype=F64),
    "complex diagonal": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, state_size=4, max_modulus=0.9, dtype=F64),
    "normalised": lambda: lsc.nn.ComplexDiagonalRNN(2, 3, state_size=4, normalization="learned", max_modulus=0.9),
    "blocks": lambda: lsc.nn.BlockDiagonalRNN(2, 3, state_size=4, heads=2, max_modulus=0.9, dtype=F64),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_answers_an_impulse_as_its_system_does(make):
    layer = make()
    I = layer.input_size
    x = torch.zeros(9, I, I, dtype=layer.D_l0.dtype)
    x[0] = torch.eye(I)
    response = layer(x)[0].transpose(1, 2).double()  # [T, O, I]
    tolerance = 1e-5 if layer.D_l0.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(memory.impulse_response(layer, 9), response, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_population_loss_is_the_mean_loss_of_layers_over_many_sequences(rho):
    steps, count = 12, 20_000
    student, teacher = lsc.nn.LRU(1, 1, state_size=3, dtype=F64), lsc.nn.BlockDiagonalRNN(1, 1, state_size=3, dtype=F64)
    x = [torch.randn(count, dtype=F64)]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(count, dtype=F64))
    data = torch.stack(x).unsqueeze(-1)
    with torch.no_grad():
        losses = (student(data)[0] - teacher(data)[0]).square().mean((0, 2)) / 2
    error = float(losses.std()) / math.sqrt(count)
    found = memory.teacher_student_loss(student, teacher, rho, horizon=steps)
    assert float(found.detach()) == pytest.approx(float(losses.mean()), abs=4 * error)
    assert error < 0.02 * float(losses.mean())


@inputs
def test_the_stationary_loss_is_that_of_a_long_horizon(rho):
    systems = networks(2, 3)
    for student, teacher in itertools.product(systems, systems):
        found = float(memory.teacher_student_loss(student, teacher, rho))
        if student is teacher:
            assert found == pytest.approx(0, abs=1e-11)
            continue
        response = (memory.impulse_response(student, 300) - memory.impulse_response(teacher, 300)).flatten(1)
        k = torch.arange(300)
        R = autocorrelation_at(rho, (k.unsqueeze(1) - k).abs())
        assert found == pytest.approx(float((response * (R @ response)).sum()) / 2, rel=1e-9)
        long = memory.teacher_student_loss(student, teacher, rho, horizon=800)
        assert found == pytest.approx(float(long), rel=0.05)


@pytest.mark.parametrize("horizon", [None, 5])
@few_inputs
def test_hessians_are_those_of_the_loss(horizon, rho):
    for system in networks(1, 1):
        names, values = zip(*system.parameters().items(), strict=True)

        def loss(*changed, names=names, system=system):
            student = system.with_parameters(dict(zip(names, changed, strict=True)))
            return memory.teacher_student_loss(student, system, rho, horizon=horizon)

        blocks = torch.autograd.functional.hessian(loss, values)
        sizes = [z.numel() for z in values]
        rows = [
            torch.cat([block.reshape(sizes[i], sizes[j]) for j, block in enumerate(row)], 1)
            for i, row in enumerate(blocks)
        ]
        expected = torch.cat(rows)
        scale = float(expected.abs().max())
        found = memory.hessian(system, rho=rho, horizon=horizon)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10 * scale)
        if horizon is not None:  # sums of products of slopes, or second derivatives
            given = memory.hessian(system, system, rho, horizon=horizon)
            torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("rho", [0.6, [(0.3, 1.0), (0.5, 0.0)]])
def test_closed_form_hessians_are_blocks_of_the_whole_one(rho):
    dense, _, diagonal = networks(2, 3)
    found = memory.dense_hessian(dense.A, dense.B, dense.C, rho)
    whole = memory.hessian(dense, rho=rho)[:16, :16]
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))
    found = memory.diagonal_hessian(diagonal.lam, diagonal.B, diagonal.C, rho)
    whole = memory.hessian(diagonal, rho=rho)[:8, :8]
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))


def test_the_dense_hessian_stands_eigenvalues_that_coincide():
    A = torch.diag(torch.tensor([0.7, 0.7, -0.2], dtype=F64))
    B, C = normal(3, 1, seed=4), normal(1, 3, seed=5)
    whole = memory.hessian(memory.DenseSystem(A, B, C), rho=0.5)[:9, :9]
    torch.testing.assert_close(memory.dense_hessian(A, B, C, 0.5), whole, rtol=1e-10, atol=1e-10)


def test_the_hessian_of_layers_away_from_the_teacher_is_that_of_differences():
    torch.manual_seed(3)
    student, teacher = (lsc.nn.LRU(1, 1, state_size=2, dtype=F64) for _ in range(2))
    found = memory.hessian(student, teacher, horizon=20)
    flat = torch.nn.utils.parameters_to_vector(student.parameters()).detach()
    assert found.shape == (len(flat), len(flat))

    def slope(values: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(values, student.parameters())
        loss = memory.teacher_student_loss(student, teacher, horizon=20)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])

    for i in range(len(flat)):
        change = 1e-6 * torch.eye(len(flat), dtype=F64)[i]
        column = (slope(flat + change) - slope(flat - change)) / 2e-6
        torch.testing.assert_close(found[i], column, rtol=1e-6, atol=1e-7)


def test_gradient_descent_on_the_population_loss_finds_the_teacher():
    torch.manual_seed(0)
    teacher = memory.DiagonalSystem(torch.tensor([0.8 + 0.1j]), torch.ones(1), torch.ones(1))
    student = lsc.nn.ComplexDiagonalRNN(1, 1, state_size=1, max_modulus=0.7, dtype=F64)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = memory.teacher_student_loss(student, teacher, horizon=50)
        loss.backward()
        return loss

    before = float(closure().detach())
    optimizer.step(closure)
    assert float(closure().detach()) < 1e-8 * before
    found = complex(*student.lambda_l0[:, 0].tolist())
    assert min(abs(found - (0.8 + 0.1j)), abs(found - (0.8 - 0.1j))) < 1e-3


# Alignment


def test_alignment_and_participation_of_known_matrices():
    assert float(memory.axis_alignment(torch.diag(torch.tensor([1e6, 1.0, 0.0])))) == pytest.approx(1)
    assert float(memory.axis_alignment(torch.ones(5, 5))) == pytest.approx(5)
    assert float(memory.axis_alignment(torch.zeros(3, 3))) == 0
    stretch = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
    matrix = stretch @ (torch.ones(3, 3) + torch.eye(3)) @ stretch
    assert float(memory.axis_alignment(matrix)) == pytest.approx(2)  # whatever the scales of the axes are
    assert memory.participation_ratio(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2).tolist() == pytest.approx([1, 1])
    assert float(memory.participation_ratio(torch.ones(4, 4))) == pytest.approx(4)
    batch = torch.stack((torch.ones(3, 3), torch.eye(3) + 1))
    assert memory.axis_alignment(batch).tolist() == pytest.approx([3, 2])
    assert memory.participation_ratio(batch, 1).shape == (2, 1)


def test_a_layer_as_teacher_may_be_trained_against_and_be_trained_itself():
    torch.manual_seed(0)
    teacher, student = (lsc.nn.LRU(1, 1, state_size=3, dtype=F64) for _ in range(2))
    loss = memory.PopulationLoss(teacher, horizon=20)
    for _ in range(2):
        loss(student).backward()
    found = [torch.autograd.grad(loss(student), [*teacher.parameters()]) for _ in range(2)]
    expected = torch.autograd.grad(memory.teacher_student_loss(teacher, student, horizon=20), [*teacher.parameters()])
    for one, other, wanted in zip(*found, expected, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, wanted)
    with torch.no_grad():
        teacher.C_l0 += 1
    assert float(loss(student).detach()) == pytest.approx(
        float(memory.teacher_student_loss(student, teacher, horizon=20).detach())
    )


def test_layers_of_float32_are_read_in_float64_on_both_sides():
    torch.manual_seed(0)
    layer = lsc.nn.LRU(1, 2, state_size=4, min_modulus=0.999, max_modulus=0.9999)
    assert float(memory.teacher_student_loss(layer, layer, horizon=500).detach()) == 0


def test_views_of_complex_numbers_are_read_as_they_are():
    lam, B = torch.tensor([0.5 + 0.3j], dtype=C128), torch.tensor([[1 + 2j]], dtype=C128)
    plain = memory.impulse_response(memory.DiagonalSystem(lam, B.conj().resolve_conj(), B), 4)
    assert torch.equal(memory.impulse_response(memory.DiagonalSystem(lam, B.conj(), B), 4), plain)
    one = torch.ones(1, dtype=F64)
    found = memory.impulse_response(memory.DenseSystem(lam.view(1, 1).conj().imag, one, one), 3)
    assert found.flatten().tolist() == pytest.approx([1, -0.3, 0.09])


def test_a_network_without_outputs_has_a_hessian_of_zeros():
    system = memory.DenseSystem(torch.rand(2, 2, dtype=F64), torch.ones(2, 1, dtype=F64), torch.ones(0, 2, dtype=F64))
    assert memory.hessian(system, horizon=4).eq(0).all()
