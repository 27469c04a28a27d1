"""Spectral radii by the device code: the true ones, found as on the CPU, whatever else is computed beside them."""

import contextlib

import numpy as np
import pytest
import torch
from networks import gradients, normal, stack, states_of
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import backends
from lsc_ext.estimate import Status
from lsc_ext.estimators import run_krylov
from lsc_ext.operator import MatrixOperator, StepOperator
from lsc_ext.reference.forward import run
from lsc_ext.reference.jacobian import jacobians
from lsc_ext.testing import MATRIX_KINDS, assert_close

SIZES = (1, 3, 31, 33, 65)
TILE = 8
PARTS = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(count, n, seed=0):
    return normal(count, n, n, seed=seed) / n**0.5


def orthogonal(count, n):
    return torch.linalg.qr(gaussian(count, n))[0]


def defective(count, n):
    """Jordan blocks of order 2 (and one of order 1 where n is odd) in a rotated basis, the largest eigenvalue 1.5."""
    values = 1.5 - torch.arange(n) // 2 / n
    jordan = torch.diag(values.double()) + torch.diag((torch.arange(n - 1) % 2 == 0).double(), 1)
    basis = orthogonal(count, n)
    return basis @ jordan @ basis.mT


def nilpotent(count, n):
    """Ones above the diagonal, scaled: J^n = 0."""
    return (
        torch.diag(torch.ones(n - 1, dtype=torch.float64), 1).expand(count, n, n)
        * torch.arange(1, count + 1)[:, None, None]
    )


def rank_deficient(count, n):
    rank = max(1, n // 3)
    return normal(count, n, rank) @ normal(count, rank, n, seed=1) / n


def zero(count, n):
    return torch.zeros(count, n, n, dtype=torch.float64)


KINDS = {f.__name__: f for f in (gaussian, orthogonal, defective, nilpotent, rank_deficient, zero)}


def true_radii(matrices: Tensor) -> Tensor:
    """By numpy, in float64."""
    return torch.from_numpy(np.abs(np.linalg.eigvals(matrices.double().numpy())).max(axis=-1))


def on_host():
    """CPU tensors are run by the CPU's code, even where they stand for CUDA tensors."""
    return backends.emulated(None) if backends.emulating() else contextlib.nullcontext()


def krylov(matrices: Tensor, vectors=True, budget=600, tol=1e-3, seed=5, **options):
    """The compiled iteration's estimate and Ritz vectors, on the CPU."""
    estimate, found = run_krylov(MatrixOperator(matrices), budget, tol, seed, vectors=vectors, **options)
    parts = {part: getattr(estimate, part).cpu() for part in PARTS}
    return parts, None if found is None else found.cpu()


def assert_same_path(found, expected, tolerance=1e-10):
    """Two runs of one algorithm: every decision alike, every number but for its rounding."""
    torch.testing.assert_close(found["residual"], expected["residual"], rtol=1e-2, atol=tolerance * 100, equal_nan=True)
    for part in ("status", "num_matvecs"):
        assert torch.equal(found[part], expected[part]), f"{part}: {found[part]} is not {expected[part]}"
    for part in ("radius", "eigenvalue"):
        torch.testing.assert_close(found[part], expected[part], rtol=tolerance, atol=tolerance, equal_nan=True)


def assert_same_bits(found, expected):
    for part in PARTS:
        ours, theirs = (torch.view_as_real(z[part]) if z[part].is_complex() else z[part] for z in (found, expected))
        assert torch.equal(ours.nan_to_num(nan=-1), theirs.nan_to_num(nan=-1)), part


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_radii_are_the_eigenvalues_and_the_way_to_them_is_the_cpus(cuda_device, kind, n):
    matrices = KINDS[kind](3, n)
    found, vectors = krylov(cuda_device.tensor(matrices))
    with on_host():
        expected, expected_vectors = krylov(matrices)
    # A Ritz value of a defective or nilpotent matrix is known to a root of the rounding, and so is what is made of it;
    # among eigenvalues of one modulus, and for the step at which a subspace is exhausted, rounding decides.
    sharp = kind not in ("defective", "nilpotent") or n < 2
    if sharp and kind not in ("orthogonal", "rank_deficient"):
        assert_same_path(found, expected)
    elif sharp:
        torch.testing.assert_close(found["radius"], expected["radius"], rtol=1e-6, atol=0)
    converged = found["status"] == Status.converged
    assert converged.all() or not sharp
    truth = true_radii(matrices) if kind != "nilpotent" else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(found["radius"][converged], truth[converged], rtol=1e-3, atol=1e-9)
    assert vectors.shape == expected_vectors.shape
    assert vectors.isfinite().all()
    lengths, wanted = (v.square().sum((1, 2)) for v in (vectors, expected_vectors))
    torch.testing.assert_close(lengths, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["orthogonal_masked", "gated_cell", "graded", "triangular"])
def test_matrices_of_the_certificate_take_the_cpus_way(cuda_device, kind):
    matrices = MATRIX_KINDS[kind](4, 47, seeded(3))
    found, _ = krylov(cuda_device.tensor(matrices))
    with on_host():
        expected, _ = krylov(matrices)
    if kind == "triangular":  # its Ritz values are too ill-conditioned to be the same to more than the verdict
        assert torch.equal(found["status"] == Status.converged, expected["status"] == Status.converged)
        return
    assert_same_path(found, expected, 1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_float32(cuda_device, n):
    matrices = gaussian(3, n).float()
    found, vectors = krylov(cuda_device.tensor(matrices))
    assert (found["status"] == Status.converged).all()
    assert_close("radius", found["radius"], true_radii(matrices).float(), 1e-3)
    x = torch.complex(vectors[:, 0], vectors[:, 1])
    image = (matrices.to(x.dtype) @ x.unsqueeze(2)).squeeze(2)
    assert_close("J x", torch.view_as_real(image), torch.view_as_real(found["eigenvalue"].unsqueeze(1) * x), 2e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_point_that_is_not_finite_leaves_its_companions_alone(cuda_device, bad):
    matrices = gaussian(5, 33)
    alone, _ = krylov(cuda_device.tensor(matrices))
    matrices[2, 4, 4] = bad
    found, vectors = krylov(cuda_device.tensor(matrices))
    assert found["status"].tolist()[2] == Status.nonfinite
    assert found["radius"][2].isnan()
    assert (vectors[2] == 0).all()
    others = torch.tensor([0, 1, 3, 4])
    assert_same_bits({k: v[others] for k, v in found.items()}, {k: v[others] for k, v in alone.items()})


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("count", [0, 2, 20])
def test_no_points_and_no_directions(cuda_device, count, n):
    found, vectors = krylov(cuda_device.tensor(torch.ones(count, n, n, dtype=torch.float64)))
    assert found["radius"].tolist() == pytest.approx([float(n)] * count)
    assert (found["status"] == Status.converged).all()
    assert vectors.shape == (count, 2, n)


@pytest.mark.parametrize("budget", [1, 4, 40])
def test_fixed_work_spends_what_it_is_given(cuda_device, budget):
    matrices = gaussian(3, 33)
    found, _ = krylov(cuda_device.tensor(matrices), tol=0, budget=budget)
    with on_host():
        expected, _ = krylov(matrices, tol=0, budget=budget)
    assert_same_path(found, expected, 1e-8)
    assert (found["num_matvecs"] == budget).all()
    assert (found["status"] == Status.max_matvecs).all()


def test_targets_find_the_left_vectors_of_their_points(cuda_device):
    matrices = gaussian(11, 33)
    values = torch.from_numpy(np.linalg.eigvals(matrices.numpy()))
    targets = values.gather(1, values.abs().argmax(1, keepdim=True)).squeeze(1)
    index = torch.tensor([7, 2, 2, 10])
    place = cuda_device.tensor
    found, vectors = krylov(place(matrices), index=place(index), targets=place(targets[index]))
    with on_host():
        expected, _ = krylov(matrices, index=index, targets=targets[index])
    assert_same_path(found, expected)
    torch.testing.assert_close(found["eigenvalue"], targets[index], rtol=1e-3, atol=0)
    y = torch.complex(vectors[:, 0], vectors[:, 1])
    image = (matrices[index].mT.to(y.dtype) @ y.unsqueeze(2)).squeeze(2)
    assert_close("J' y", torch.view_as_real(image), torch.view_as_real(targets[index].unsqueeze(1) * y), 2e-3)
    assert_same_bits({k: v[1:2] for k, v in found.items()}, {k: v[2:3] for k, v in found.items()})


def test_what_a_point_gets_depends_on_neither_companions_nor_schedule(cuda_device):
    """20 points fill two blocks of the emulator, which starts them in any order; one point has a block to itself."""
    matrices = gaussian(20, 33)
    matrices[::3] = orthogonal(7, 33)
    matrices = cuda_device.tensor(matrices)
    first, vectors = krylov(matrices)
    for seed in (1, 2):
        cuda_device.reseed(seed)
        again, vectors_again = krylov(matrices)
        assert_same_bits(again, first)
        assert torch.equal(vectors_again, vectors)
    for i in (0, 7, 19):
        alone, _ = krylov(matrices[i : i + 1].clone(), first=i)
        assert_same_bits(alone, {part: z[i : i + 1] for part, z in first.items()})


def test_strided_matrices(cuda_device):
    matrices = gaussian(2, 31)
    wide = cuda_device.tensor(torch.full((2, 31, 40), float("nan"), dtype=torch.float64))
    wide[:, :, 3:34] = cuda_device.tensor(matrices).mT
    found = lsc.spectral_radius(wide[:, :, 3:34].mT, method="krylov", generator=seeded())
    torch.testing.assert_close(found.radius.cpu(), true_radii(matrices), rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", ["krylov", "dense", "power"])
@pytest.mark.parametrize("n", [5, 40])
def test_gradient_of_a_radius(cuda_device, method, n):
    options = {"method": method, "tol": 1e-8, "num_matvecs": 2000 if method == "krylov" else 128}
    matrices = gaussian(3, n).requires_grad_()
    with on_host():
        host = lsc.spectral_radius(matrices, generator=seeded(), **options)
        (expected,) = gradients(host.radius, [matrices])
    own = cuda_device.tensor(matrices)
    found = lsc.spectral_radius(own, generator=seeded(), **options)
    (actual,) = gradients(found.radius, [own])
    assert actual.device == own.device
    assert_close("gradient", actual.cpu(), expected, 1e-6)
    assert torch.equal(found.growth_gradient.cpu(), host.growth_gradient)


STEPS, BATCH, INPUTS, HIDDEN = 3, 2, 4, 17


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("direction", ["time", "depth", "diagonal"])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm", "alif"])
def test_radii_of_steps(cuda_device, cell, direction, dtype):
    model, x = stack(cell, INPUTS, HIDDEN, 2, gain=2), normal(STEPS, BATCH, INPUTS)
    reference = run(model, x, states_of(model, BATCH), through_states=False)
    weights = [cuda_device.tensor(w.detach()).to(dtype) for w in reference.weights]
    x, initial = (cuda_device.tensor(z.detach()).to(dtype) for z in (x, reference.states[:, 0]))
    states, gates = lsc.ops.recurrent(x, initial, weights, cell)
    points = torch.tensor([[2, 1], [0, 0], [1, 1]])
    layer = 0 if direction == "time" else 1
    operator = StepOperator(cell, x, states, gates, weights, layer, direction, points)
    found, _ = run_krylov(operator, 600, 1e-3, 1, vectors=False)
    dense = torch.stack([jacobians(reference, direction, layer, t)[b] for t, b in points.tolist()]).detach()
    converged = (found.status == Status.converged).cpu()
    assert converged.all() or cell == "alif"
    truth = true_radii(dense)
    torch.testing.assert_close(found.radius.cpu().double()[converged], truth[converged], rtol=2e-3, atol=1e-5)


def test_products_of_less_precision_find_the_radius_to_theirs(cuda_device):
    model, x = stack("gru", INPUTS, 33, 1, gain=2), normal(STEPS, BATCH, INPUTS)
    reference = run(model, x, states_of(model, BATCH), through_states=False)
    weights = [cuda_device.tensor(w.detach()).float() for w in reference.weights]
    x, initial = (cuda_device.tensor(z.detach()).float() for z in (x, reference.states[:, 0]))
    states, gates = lsc.ops.recurrent(x, initial, weights, "gru")
    operator = StepOperator("gru", x, states, gates, weights, 0, "time", torch.tensor([[1, 1], [2, 0]]))
    truth = true_radii(torch.stack([jacobians(reference, "time", 0, t)[b] for t, b in ((1, 1), (2, 0))]).detach())
    before = torch.get_float32_matmul_precision()
    try:
        for precision, tolerance in (("highest", 1e-3), ("high", 2e-3), ("medium", 2e-2)):
            torch.set_float32_matmul_precision(precision)
            found, _ = run_krylov(operator, 600, 1e-3, 1, vectors=False)
            assert_close(precision, found.radius.cpu(), truth.float(), tolerance)
    finally:
        torch.set_float32_matmul_precision(before)


def test_rectangular_jacobians_and_wrong_counts_are_refused(cuda_device):
    tall = MatrixOperator(cuda_device.tensor(torch.ones(2, 3, 2)))
    with pytest.raises(ValueError, match="operator: expected square Jacobians, got 3 x 2"):
        run_krylov(tall, 10, 1e-3, 0, vectors=False)


def test_a_device_without_compiled_code_is_refused():
    with pytest.raises(RuntimeError, match=r"device: expected cpu.* tensors.*, got meta"):
        lsc.spectral_radius(torch.zeros(2, 3, 3, device="meta"))
