"""What must hold of a radius on matrices whose eigenvalues are known exactly, whatever the method."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lsc_ext import Status, spectral_radius
from lsc_ext.testing import MATRIX_KINDS, TOLERANCES, assert_close, matrix_from_eigenvalues

METHODS = ("krylov", "dense", "auto")
DTYPES = (torch.float32, torch.float64)
TOL = 1e-3
N = 48  # beyond the sizes that "auto" hands to LAPACK


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DTYPES, ids=("float32", "float64"))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    assert isinstance(request.param, torch.dtype)
    return request.param


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(kind: str, count: int, n: int = N, seed: int = 0) -> Tensor:
    return MATRIX_KINDS[kind](count, n, generator(seed))


def orthogonal(count: int, n: int = N, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(count, n, n, generator=generator(seed), dtype=torch.float64))[0]


@pytest.mark.parametrize("factor", [-3.0, 1e-6, 1e6])
def test_scaling_the_matrix_scales_the_radius(method: str, dtype: torch.dtype, factor: float) -> None:
    matrices = draw("gaussian", 4).to(dtype)
    one = spectral_radius(matrices, method=method, generator=generator())
    other = spectral_radius(factor * matrices, method=method, generator=generator())
    assert one.status.tolist() == other.status.tolist() == [Status.converged] * 4
    assert_close("radius", other.radius, abs(factor) * one.radius, TOL)


def test_the_radius_survives_a_similarity(method: str) -> None:
    matrices = draw("clustered_moduli", 4)
    basis = orthogonal(4, seed=1) + 0.1 * torch.eye(N, dtype=torch.float64)
    similar = basis @ matrices @ torch.linalg.inv(basis)
    one = spectral_radius(matrices, method=method, generator=generator())
    assert_close("radius", spectral_radius(similar, method=method, generator=generator()).radius, one.radius, TOL)


def test_the_transpose_has_the_same_radius(method: str, dtype: torch.dtype) -> None:
    matrices = draw("gated_cell", 4).to(dtype)
    one = spectral_radius(matrices, method=method, generator=generator()).radius
    assert_close("radius", spectral_radius(matrices.mT, method=method, generator=generator()).radius, one, TOL)


def test_a_rotation_has_a_complex_pair(method: str, dtype: torch.dtype) -> None:
    values = torch.full((1, N), 0.2, dtype=torch.complex128)
    values[0, 0], values[0, 1] = 0.3 + 0.6j, 0.3 - 0.6j
    estimate = spectral_radius(
        matrix_from_eigenvalues(values, orthogonal(1)).to(dtype), method=method, generator=generator()
    )
    assert estimate.status.tolist() == [Status.converged]
    assert float(estimate.eigenvalue[0].imag) > 0
    assert_close("eigenvalue", estimate.eigenvalue, torch.tensor([0.3 + 0.6j]), TOL)
    assert_close("radius", estimate.radius, estimate.eigenvalue.abs(), TOLERANCES[dtype].forward)


def test_a_rotation_of_the_plane(method: str, dtype: torch.dtype) -> None:
    angle = 1.0
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=dtype)
    estimate = spectral_radius(2 * turn, method=method, generator=generator())
    assert int(estimate.status) == Status.converged
    assert_close("eigenvalue", estimate.eigenvalue, 2 * torch.tensor(complex(math.cos(angle), math.sin(angle))), 1e-5)


def test_a_jordan_block_is_ill_conditioned(dtype: torch.dtype) -> None:
    block = 0.5 * torch.eye(6, dtype=dtype) + torch.diag(torch.ones(5, dtype=dtype), 1)
    assert int(spectral_radius(block, method="krylov", generator=generator()).status) == Status.ill_conditioned
    assert_close(
        "radius",
        spectral_radius(block, method="dense").radius,
        torch.tensor(0.5, dtype=dtype),
        TOLERANCES[dtype].forward,
    )


def test_a_near_defective_pair_has_a_large_condition(method: str) -> None:
    block = torch.tensor([[1.0, 1.0], [1e-8, 1.0]], dtype=torch.float64)
    estimate = spectral_radius(block, method=method, generator=generator())
    assert float(estimate.condition) == pytest.approx(5e3, rel=0.01)


def test_zero(method: str, dtype: torch.dtype) -> None:
    for n in (1, 2, N):
        estimate = spectral_radius(torch.zeros(3, n, n, dtype=dtype), method=method, generator=generator())
        assert estimate.radius.tolist() == [0, 0, 0]
        assert estimate.residual.tolist() == [0, 0, 0]
        assert estimate.status.tolist() == [Status.converged] * 3


def test_a_nilpotent_matrix_has_radius_zero(dtype: torch.dtype) -> None:
    shift = torch.diag(torch.ones(N - 1, dtype=dtype), 1)  # 24 products do not end at zero; those of 12 x 12 do
    short = shift[:12, :12].contiguous()
    krylov = spectral_radius(short, method="krylov", generator=generator())
    assert float(krylov.radius) == 0
    assert int(krylov.status) == Status.converged
    assert float(spectral_radius(short, method="power", generator=generator()).radius) == 0
    for method in ("dense", "auto"):
        assert float(spectral_radius(short, method=method, generator=generator()).radius) == 0
    # Perturbed by rounding, these have radii far above 0; few may be taken for it. See docs/math/radius.md.
    strict = (torch.randn(200, N, N, generator=generator(), dtype=torch.float64) / N**0.5).triu(1).to(dtype)
    found = spectral_radius(strict, method="krylov", generator=generator())
    wrong = (found.radius > 0) & (found.status == Status.converged)
    assert float(wrong.double().mean()) <= 0.02


def test_no_rows(method: str, dtype: torch.dtype) -> None:
    estimate = spectral_radius(torch.zeros(2, 0, 0, dtype=dtype), method=method, generator=generator())
    assert estimate.radius.tolist() == [0, 0]
    assert estimate.status.tolist() == [Status.converged] * 2


def test_one_row(method: str, dtype: torch.dtype) -> None:
    matrices = torch.tensor([2.0, -3.0, 0.0, 1e-20], dtype=dtype).reshape(4, 1, 1)
    estimate = spectral_radius(matrices, method=method, generator=generator())
    assert_close("radius", estimate.radius, matrices.flatten().abs(), TOLERANCES[dtype].forward)
    assert_close("eigenvalue", estimate.eigenvalue.real, matrices.flatten(), TOLERANCES[dtype].forward)
    assert estimate.status.tolist() == [Status.converged] * 4


def test_graded_diagonal(method: str, dtype: torch.dtype) -> None:
    diagonal = 10 ** torch.linspace(-6, 3, N, dtype=dtype)
    estimate = spectral_radius(torch.diag(diagonal), method=method, generator=generator())
    assert int(estimate.status) == Status.converged
    assert_close("radius", estimate.radius, diagonal[-1], 1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_an_orthogonal_matrix_is_bracketed_by_its_growth(dtype: torch.dtype, scale: float) -> None:
    matrices = (scale * orthogonal(3, 128)).to(dtype)
    estimate = spectral_radius(matrices, method="krylov", generator=generator())
    assert estimate.status.tolist() == [Status.converged] * 3
    assert_close("radius", estimate.radius, torch.full((3,), scale, dtype=dtype), 1e-5)
    assert bool(estimate.eigenvalue.isnan().all())
    assert bool((estimate.residual < TOL).all())


def test_a_nearly_diagonal_matrix_is_not_taken_for_an_orthogonal_one() -> None:
    # Many real eigenvalues near the largest: the growth of a vector is a percent low for a long time.
    values = torch.linspace(-1, 1, 128, dtype=torch.float64).repeat(8, 1)
    matrices = matrix_from_eigenvalues(values, orthogonal(8, 128))
    estimate = spectral_radius(matrices, method="krylov", generator=generator())
    converged = estimate.status == Status.converged
    assert bool(((estimate.radius - 1).abs()[converged] < 10 * TOL).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_says_so(method: str, dtype: torch.dtype, value: float) -> None:
    matrices = draw("gaussian", 3).to(dtype)
    alone = spectral_radius(matrices, method=method, generator=generator())
    matrices[1, 5, 7] = value
    estimate = spectral_radius(matrices, method=method, generator=generator())
    assert estimate.status.tolist() == [Status.converged, Status.nonfinite, Status.converged]
    assert bool(estimate.radius[1].isnan())
    assert torch.equal(estimate.radius[::2], alone.radius[::2])
    assert estimate.certified_fraction == pytest.approx(2 / 3)


def test_power_says_what_is_not_finite() -> None:
    matrices = draw("gaussian", 2)
    matrices[0, 0, 0] = math.nan
    estimate = spectral_radius(matrices, method="power", generator=generator())
    assert int(estimate.status[0]) == Status.nonfinite
    assert bool(estimate.radius[0].isnan())
    assert bool(estimate.radius[1].isfinite())


def test_batch_dimensions(method: str, dtype: torch.dtype) -> None:
    matrices = draw("gaussian", 6).to(dtype)
    flat = spectral_radius(matrices, method=method, generator=generator())
    shaped = spectral_radius(matrices.reshape(2, 1, 3, N, N), method=method, generator=generator())
    for name in ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition"):
        assert getattr(shaped, name).shape == (2, 1, 3)
        assert torch.equal(getattr(shaped, name).flatten(), getattr(flat, name))


@pytest.mark.parametrize("name", [*METHODS, "power"])
def test_no_matrices(name: str, dtype: torch.dtype) -> None:
    estimate = spectral_radius(torch.zeros(2, 0, N, N, dtype=dtype), method=name)
    assert estimate.radius.shape == estimate.status.shape == (2, 0)
    assert estimate.radius.dtype == dtype


def test_block_diagonal_with_an_invariant_subspace(method: str, dtype: torch.dtype) -> None:
    # The first block is in reach of every vector; a vector inside it never sees the second.
    large, small = 0.9 * orthogonal(1, 4)[0], 0.5 * orthogonal(1, 3, seed=1)[0]
    matrix = torch.zeros(N, N, dtype=torch.float64)
    matrix[:4, :4], matrix[4:7, 4:7] = large, small
    estimate = spectral_radius(matrix.to(dtype), method=method, generator=generator())
    assert int(estimate.status) == Status.converged
    assert_close("radius", estimate.radius, torch.tensor(0.9, dtype=dtype), 1e-5)


def test_the_residual_bounds_the_error_of_normal_matrices(dtype: torch.dtype) -> None:
    matrices = draw("gaussian", 6)
    symmetric = (matrices + matrices.mT).to(dtype)
    estimate = spectral_radius(symmetric, method="krylov", tol=0.02, generator=generator())
    values = torch.linalg.eigvalsh(symmetric.double())
    nearest = (values - estimate.eigenvalue.real.double().unsqueeze(1)).abs().amin(dim=1)
    slack = 1e-5 if dtype == torch.float32 else 1e-12
    assert bool((nearest <= (estimate.residual.double() + slack) * estimate.radius.double()).all())


@pytest.mark.parametrize("kind", ["gaussian", "gated_cell", "low_rank", "clustered_moduli"])
def test_arpack_agrees(kind: str) -> None:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    matrices = draw(kind, 3, 80, seed=3)
    estimate = spectral_radius(matrices, method="krylov", generator=generator())
    for matrix, radius in zip(matrices, estimate.radius, strict=True):
        values = linalg.eigs(matrix.numpy(), k=12, ncv=60, v0=[1.0] * 80, return_eigenvectors=False)
        assert float(radius) == pytest.approx(max(abs(values)), rel=TOL)


@pytest.mark.parametrize("kind", list(MATRIX_KINDS))
def test_no_number_depends_on_threads_or_companions(kind: str, threads: None) -> None:
    matrices = draw(kind, 61, 40).float()
    torch.set_num_threads(1)
    alone = spectral_radius(matrices, method="krylov", generator=generator())
    fields = ("radius", "residual", "status", "num_matvecs", "eigenvalue", "condition")
    for count in (2, 3):
        torch.set_num_threads(count)
        other = spectral_radius(matrices, method="krylov", generator=generator())
        few = spectral_radius(matrices[:7], method="krylov", generator=generator())
        for name in fields:
            one, two = (
                torch.nan_to_num(torch.view_as_real(z) if z.is_complex() else z)
                for z in (getattr(alone, name), getattr(other, name))
            )
            assert torch.equal(one, two), name
            third = getattr(few, name)
            third = torch.nan_to_num(torch.view_as_real(third) if third.is_complex() else third)
            assert torch.equal(one[:7], third), name


@pytest.mark.parametrize("name", ["krylov", "power"])
def test_the_generator_decides_the_numbers(name: str) -> None:
    matrices = draw("gaussian", 3)
    one, same, other = (spectral_radius(matrices, method=name, generator=generator(seed)).radius for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_power_is_not_krylov() -> None:
    # Only one of them has a residual and settles on an eigenvalue; the other spends its products and is a percent off.
    matrices = draw("gaussian", 4, 64)
    krylov = spectral_radius(matrices, method="krylov", generator=generator())
    power = spectral_radius(matrices, method="power", generator=generator())
    exact = torch.linalg.eigvals(matrices).abs().amax(dim=1)
    assert krylov.method == "krylov"
    assert power.method == "power"
    assert krylov.status.tolist() == [Status.converged] * 4
    assert bool(krylov.residual.isfinite().all())
    assert bool(power.residual.isnan().all())
    assert power.num_matvecs.tolist() == [128] * 4
    assert_close("krylov", krylov.radius, exact, TOL)
    error = ((power.radius - exact) / exact).abs()
    assert bool((error > 1e-5).any())
    assert bool((error < 0.1).all())


def test_power_is_exact_where_one_eigenvalue_stands_out() -> None:
    values = torch.linspace(-0.3, 0.3, N, dtype=torch.float64).repeat(2, 1)
    values[:, 0] = -1.5
    matrices = matrix_from_eigenvalues(values, orthogonal(2))
    power = spectral_radius(matrices, method="power", generator=generator())
    assert_close("radius", power.radius, torch.full((2,), 1.5, dtype=torch.float64), 1e-6)


def test_the_budget_is_kept() -> None:
    matrices = draw("orthogonal_masked", 40, 96)
    estimate = spectral_radius(matrices, method="krylov", num_matvecs=60, generator=generator())
    assert int(estimate.num_matvecs.max()) <= 60
    allowed = torch.tensor([int(s) for s in Status if s not in (Status.breakdown, Status.nonfinite)])
    assert bool(torch.isin(estimate.status, allowed).all())
    assert int(spectral_radius(matrices, method="krylov", num_matvecs=1, generator=generator()).num_matvecs.max()) == 1


@pytest.mark.parametrize("budget", [1, 4, 80, 200])
def test_tol_0_spends_the_same_on_every_matrix(budget: int) -> None:
    matrices = torch.randn(7, 40, 40, generator=generator()) / 40**0.5
    estimate = spectral_radius(matrices, method="krylov", num_matvecs=budget, tol=0.0, generator=generator())
    assert estimate.num_matvecs.tolist() == [budget] * 7
    assert estimate.status.tolist() == [int(Status.max_matvecs)] * 7


def test_tol_0_is_a_filter_and_one_factorisation_and_has_a_gradient() -> None:
    matrices = (torch.randn(7, 40, 40, generator=generator(), dtype=torch.float64) / 40**0.5).requires_grad_()
    exact = torch.linalg.eigvals(matrices).abs().amax(1)
    fixed = spectral_radius(matrices, method="krylov", num_matvecs=200, tol=0.0, generator=generator())
    assert_close("radius", fixed.radius, exact, 1e-6)
    found = torch.autograd.grad(fixed.radius.sum(), matrices)[0]
    assert_close("gradient", found, torch.autograd.grad(exact.sum(), matrices)[0], 1e-2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "lanczos"}, ("method", "krylov", "'lanczos'")),
        ({"tol": -1e-3}, ("tol", "between 0 and 1", "-0.001")),
        ({"tol": 1.5}, ("tol", "between 0 and 1", "1.5")),
        ({"tol": math.nan}, ("tol", "between 0 and 1", "nan")),
        ({"num_matvecs": 0}, ("num_matvecs", "at least 1", "0")),
    ],
)
def test_options_out_of_range(options: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        spectral_radius(torch.eye(3), **options)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 3, 2)])
def test_matrices_that_are_not_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"matrices: expected shape .*got"):
        spectral_radius(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_other_dtypes(wrong: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"dtype: expected .*got {wrong}"):
        spectral_radius(torch.zeros(3, 3, dtype=wrong))
