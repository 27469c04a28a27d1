"""Figures 4, 9 and 10 of arXiv 2405.21064: Hessians at a solution, and what turns them away from the parameters' axes.

Letters: H the Hessian, rho the ratio of the input's autocorrelation, nu0 the least modulus, theta0 the largest angle of
eigenvalues, kappa_D the largest eigenvalue of D^(-1/2) H D^(-1/2), D the diagonal of H.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsc_ext.memory import axis_alignment, dense_hessian, diagonal_hessian, participation_ratio
from lsc_ext.paper.numbers import rounded
from lsc_ext.paper.published_network import RECURRENT, published_hessians
from lsc_ext.paper.sequences import check_at_least

SPREADS = {"pi / 100": math.pi / 100, "pi / 10": math.pi / 10, "pi": math.pi}
MODULI = (0.36, 0.9, 0.99)
_STATES = 10
_RANK = 1e-12  # of the largest: eigenvalues below it are of rounding
_SHOWN = 9  # eigenvectors
_SPECTRUM = 15  # eigenvalues over lambda of the 20: where angles are small the last are near rounding
_F64 = torch.float64
_STATISTICS = ("log10_top", "participation", "alignment")


def network_hessians(*, draws: int = 200, networks: int = 30, seed: int = 0) -> dict[str, Any]:
    """Hessians of the published network in four parametrisations, and statistics of those of random ones.

    Args:
        draws: diagonal networks of 10 complex eigenvalues for each theta0, over lambda alone.
        networks: dense ones of 10 states for each nu0, over A, and over lambda once diagonalised.
        seed: of both.
    """
    check_at_least(1, draws=draws, networks=networks)
    panels = [_panel(name, H) for name, H in published_hessians().items()]
    angles = _angles(draws, seed)
    recurrences = _recurrences(networks, seed)
    findings = [
        f"{p['parametrization']}: {p['parameters']} parameters, rank {p['rank']}, eigenvalues "
        f"{p['eigenvalues'][0]:.3g} to {p['eigenvalues'][-1]:.3g}, participation of the first "
        f"{p['participation'][0]:.1f}, kappa_D of the recurrence {p['recurrence_alignment']:.2f}, of all "
        f"{p['alignment']:.2f}"
        for p in panels
    ]
    for row in angles:
        top, participation, alignment = (row[key][1] for key in _STATISTICS)
        findings.append(
            f"rho = {row['rho']:g}, theta0 = {row['spread']}: medians of {draws} draws: top eigenvalue 10^{top:.2f}, "
            f"participation {participation:.2f}, kappa_D {alignment:.2f}"
        )
    for row in recurrences:
        findings.append(
            f"nu0 = {row['modulus']:g}, rho = {row['rho']:g}: median kappa_D of {networks} networks "
            f"{row['dense']['alignment'][1]:.1f} dense, {row['diagonal']['alignment'][1]:.2f} diagonal, "
            f"{row['ratio'][1]:.1f} times"
        )
    return {
        "config": {"draws": draws, "networks": networks, "seed": seed},
        "panels": panels,
        "angles": angles,
        "recurrences": recurrences,
        "findings": findings,
    }


def _panel(name: str, H: Tensor) -> dict[str, Any]:
    values = torch.linalg.eigvalsh(H).flip(0)
    rank = int((values > _RANK * values[0]).sum())
    recurrence = RECURRENT[name]
    image = H.sign() * H.abs().log1p() / math.log(10)
    return {
        "parametrization": name,
        "parameters": len(H),
        "recurrence": recurrence,
        "rank": rank,
        "eigenvalues": rounded(values[:rank]),
        "participation": rounded(participation_ratio(H, min(_SHOWN, rank))),
        "alignment": rounded(axis_alignment(H)),
        "recurrence_alignment": rounded(axis_alignment(H[:recurrence, :recurrence])),
        "signed_log10": [[round(z, 2) for z in row] for row in image.tolist()],
    }


def _angles(draws: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for name, spread in SPREADS.items():
        generator = torch.Generator().manual_seed(seed)
        drawn = [_diagonal_draw(spread, generator) for _ in range(draws)]
        for rho in (0.99, 0.0):
            hessians = torch.stack([diagonal_hessian(*network, rho) for network in drawn])
            values = torch.linalg.eigvalsh(hessians).flip(-1)
            row = {"spread": name, "rho": rho, **_statistics(hessians)}
            rows.append({**row, "median_eigenvalues": rounded(values.median(0).values[:_SPECTRUM])})
    return rows


def _diagonal_draw(spread: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of modulus 0.99 to 0.995, uniform by area, and angles up to ``spread``; b and c."""
    least, most = 0.99, (1 + 0.99) / 2
    u, turn = torch.rand(2, _STATES, dtype=_F64, generator=generator)
    lam = torch.polar((u * (most**2 - least**2) + least**2).sqrt(), spread * (2 * turn - 1))
    b, c = torch.randn(2, _STATES, dtype=torch.complex128, generator=generator)
    return lam, b, c


def _recurrences(networks: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for modulus in MODULI:
        generator = torch.Generator().manual_seed(seed)
        drawn = [_dense_draw(modulus, generator) for _ in range(networks)]
        for rho in (0.0, 0.9):
            dense = torch.stack([dense_hessian(*network, rho) for network in drawn])
            diagonal = torch.stack([_diagonalized(*network, rho) for network in drawn])
            ratio = axis_alignment(dense) / axis_alignment(diagonal)
            row = {"modulus": modulus, "rho": rho, "dense": _statistics(dense), "diagonal": _statistics(diagonal)}
            rows.append({**row, "ratio": _quartiles(ratio)})
    return rows


def _dense_draw(modulus: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian A with every |lambda| moved to nu0 + (1 - nu0) tanh |lambda|; B and C."""
    options: dict[str, Any] = {"dtype": _F64, "generator": generator}
    values, P = torch.linalg.eig(torch.randn(_STATES, _STATES, **options) / math.sqrt(_STATES))
    lam = torch.polar(modulus + (1 - modulus) * values.abs().tanh(), values.angle())
    A = torch.linalg.solve(P, P * lam, left=False).real
    return A, torch.randn(_STATES, **options), torch.randn(_STATES, **options) / math.sqrt(_STATES)


def _diagonalized(A: Tensor, B: Tensor, C: Tensor, rho: float) -> Tensor:
    """Over the eigenvalues of the same network, input and output weights of one size."""
    lam, P = torch.linalg.eig(A)
    root = (torch.linalg.solve(P, B.to(P)) * (C.to(P) @ P)).sqrt()
    return diagonal_hessian(lam, root, root, rho)


def _statistics(hessians: Tensor) -> dict[str, Any]:
    """Quartiles over draws: log10 of the largest eigenvalue, participation of its vector, kappa_D."""
    top = torch.linalg.eigvalsh(hessians)[:, -1].log10()
    found = (top, participation_ratio(hessians)[:, 0], axis_alignment(hessians))
    return {name: _quartiles(values) for name, values in zip(_STATISTICS, found, strict=True)}


def _quartiles(values: Tensor) -> Any:
    return rounded(values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=_F64)))
