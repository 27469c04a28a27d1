"""Figures 4, 9 and 10 of arXiv 2405.21064: the published network in four parametrisations, and random ones."""

import json
import math
from pathlib import Path

import pytest
import torch
from test_memory_checks import A4, B4, C4, D4, lru_of, modes_of

from lsc_ext import memory
from lsc_ext.paper import hessians
from lsc_ext.paper.published_network import STEPS, TIME_STEP, published_hessians

COMMITTED = json.loads((Path(__file__).parent.parent / "docs" / "memory" / "hessians.json").read_text())
F64 = torch.float64


@pytest.fixture(scope="module")
def published():
    return published_hessians()


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("dense", [5738842.1, 3152907.8, 1911917.4, 1388912.6, 233796.47, 941.87399, 195.27819, 67.133561, 0.8300998]),
        (
            "diagonal",
            [1472963.2, 1228426.5, 677985.67, 677982.87, 203.99493, 91.341112, 87.041234, 29.343208, 0.83018012],
        ),
        ("LRU", [11998037, 8112287, 360.35159, 322.1974, 103.17773, 44.307593, 24.106061, 13.550809, 0.82800766]),
    ],
)
def test_eigenvalues_are_those_of_the_published_network(name, figures, published):
    panel = next(p for p in COMMITTED["panels"] if p["parametrization"] == name)
    assert panel["eigenvalues"] == pytest.approx(figures, rel=6e-6)
    assert torch.linalg.eigvalsh(published[name]).flip(0)[:9].tolist() == pytest.approx(figures, rel=1e-6)


def test_the_lru_is_the_layer_s(published):
    lam, passed = modes_of(A4, B4, C4)
    found = torch.linalg.eigvalsh(memory.hessian(lru_of(lam, passed, float(D4)), horizon=STEPS))
    torch.testing.assert_close(torch.linalg.eigvalsh(published["LRU"]), found, rtol=1e-9, atol=1e-6)


def test_s4_is_the_second_derivative_of_its_loss(published):
    lam, passed = modes_of(A4, B4, C4)
    phase = torch.remainder(lam.angle(), 2 * math.pi)
    order = phase.argsort()
    root = passed[order].sqrt()
    rate = torch.complex(lam[order].abs().log(), phase[order]) / TIME_STEP
    inverse = math.log(math.expm1(TIME_STEP))
    parts = [rate.real, rate.imag, torch.full((4,), inverse, dtype=F64)]
    parts += [root.real / TIME_STEP, root.imag / TIME_STEP, root.real, root.imag, D4.view(1)]
    at = torch.cat(parts)
    k = torch.arange(300, dtype=F64)

    def response(p):
        re, im, d, b_re, b_im, c_re, c_im = p[:28].view(7, 4)
        step = torch.nn.functional.softplus(d)
        size, turn = torch.exp(step * re * k.unsqueeze(1)), step * im * k.unsqueeze(1)
        b, c = (b_re * c_re - b_im * c_im) * step, (b_re * c_im + b_im * c_re) * step
        g = (size * (b * turn.cos() - c * turn.sin())).sum(1)
        return torch.cat((g[:1] + p[28], g[1:]))

    aim = response(at)
    second = torch.func.hessian(lambda p: ((1 - k / 300) * (response(p) - aim).square()).sum() / 2)(at)
    torch.testing.assert_close(published["S4"], second, rtol=1e-6, atol=1e-6 * float(second.abs().max()) ** 0.5)
    # Of one batch of 64 sequences the paper's code gives 10^7.06 and 10^6.88.
    top = torch.linalg.eigvalsh(second)[-2:].log10().tolist()
    assert top == pytest.approx([6.88, 7.06], abs=0.05)


def test_every_parametrisation_has_rank_2_n_plus_1_and_the_dense_one_no_axes():
    panels = {p["parametrization"]: p for p in COMMITTED["panels"]}
    assert {name: p["parameters"] for name, p in panels.items()} == {"dense": 25, "diagonal": 25, "LRU": 29, "S4": 29}
    assert all(p["rank"] == 9 for p in panels.values())
    assert min(panels["dense"]["participation"][1:5]) > 6
    assert max(panels["diagonal"]["participation"][:4]) < 2.5
    assert max(panels["LRU"]["participation"][:2]) < 2.01
    assert min(torch.tensor(panels["LRU"]["signed_log10"]).diagonal()[4:8].tolist()) > 5
    assert min(torch.tensor(panels["S4"]["signed_log10"]).diagonal()[8:12].tolist()) > 5
    assert max(torch.tensor(panels["S4"]["signed_log10"]).diagonal()[:8].tolist()) < 4
    kappa = {name: p["recurrence_alignment"] for name, p in panels.items()}
    assert kappa["dense"] > 2.5 * max(kappa["diagonal"], kappa["LRU"])


def test_images_are_signed_logarithms(published):
    for panel in COMMITTED["panels"]:
        image = torch.tensor(panel["signed_log10"], dtype=F64)
        H = published[panel["parametrization"]]
        recovered = image.sign() * (10 ** image.abs() - 1)
        assert float((recovered - H).abs().max() / H.abs().max()) < 0.02
        small = H.abs() < 100
        torch.testing.assert_close(recovered[small], H[small], rtol=0, atol=1.3)


@pytest.mark.parametrize(
    ("rho", "spread", "top", "participation", "alignment"),
    [
        (0.99, "pi / 100", 8.44, 3.4, 7.9),
        (0.99, "pi / 10", 7.08, 1.6, 2.2),
        (0.99, "pi", 5.09, 1.3, 1.18),
        (0.0, "pi / 100", 6.44, 3.9, 7.2),
        (0.0, "pi / 10", 6.21, 1.5, 2.2),
        (0.0, "pi", 6.13, 1.4, 1.18),
    ],
)
def test_medians_over_draws_with_small_angles(rho, spread, top, participation, alignment):
    (row,) = (r for r in COMMITTED["angles"] if r["rho"] == rho and r["spread"] == spread)
    # Both medians are of 200 draws; the standard error of one is 1.25 sigma / sqrt(200), sigma 0.74 of the quartiles.
    for key, figure in (("log10_top", top), ("participation", participation), ("alignment", alignment)):
        low, found, high = row[key]
        assert low <= found <= high
        error = math.sqrt(2) * 1.25 * 0.74 * (high - low) / math.sqrt(200)
        assert abs(found - figure) < 3 * error + 0.005, key


def test_a_dense_recurrence_is_5_times_further_from_the_axes_than_a_diagonal_one():
    assert [(r["modulus"], r["rho"]) for r in COMMITTED["recurrences"]] == [
        (nu0, rho) for nu0 in (0.36, 0.9, 0.99) for rho in (0.0, 0.9)
    ]
    for row in COMMITTED["recurrences"]:
        assert row["ratio"][1] > 5
        assert row["dense"]["alignment"][1] > 5 * row["diagonal"]["alignment"][1]
        assert row["dense"]["participation"][0] > 2 * row["diagonal"]["participation"][2]


def test_draws_have_the_moduli_and_angles_asked_for():
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        lam, b, c = hessians._diagonal_draw(0.3, generator)
        assert bool((lam.abs() > 0.99).all())
        assert bool((lam.abs() < 0.995).all())
        assert float(lam.angle().abs().max()) < 0.3
        assert b.shape == c.shape == (10,)
        A, B, C = hessians._dense_draw(0.9, generator)
        sizes = torch.linalg.eigvals(A).abs()
        assert 0.9 <= float(sizes.min()) <= float(sizes.max()) < 1
        trace = hessians._diagonalized(A, B, C, 0.9).trace()
        lam, passed = modes_of(A, B, C)
        expected = (passed.abs().square() * memory.sensitivity_second_moment(lam, 0.9)).sum()
        assert float(trace) == pytest.approx(float(expected), rel=1e-9)


def test_seeds_and_sizes():
    one, other = (hessians.network_hessians(draws=2, networks=1, seed=seed) for seed in (0, 1))
    assert one["panels"] == other["panels"]
    assert one["angles"] != other["angles"]
    assert one["recurrences"] != other["recurrences"]
    for options in ({"draws": 0}, {"networks": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: expected at least 1, got 0"):
            hessians.network_hessians(**options)
