"""The law behind the word "converged": how often random matrices of eight kinds come out wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lsc_ext.testing import MATRIX_KINDS, CertificateCounts, count_certificate

SIZES = (3, 17, 33, 35, 41, 47, 57, 71, 97, 128)
WEIGHTS = (1, 1, 3, 3, 3, 3, 3, 2, 1, 1)  # small ones more often: LAPACK's time grows as n cubed


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The matrices are too small for LAPACK to gain from threads, and it loses much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def counts_of(kind: str, matrices: int, seed: int) -> CertificateCounts:
    """``matrices`` of a kind, half of them in float32, half in float64."""
    unit = -(-matrices // (2 * sum(WEIGHTS)))
    parts = [
        count_certificate(kind, weight * unit, n, dtype, seed=2000 * seed + 1000 * single + n)
        for single, dtype in enumerate((torch.float64, torch.float32))
        for n, weight in zip(SIZES, WEIGHTS, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def check_law(matrices_of_a_kind: int, seed: int) -> None:
    counts = {kind: counts_of(kind, matrices_of_a_kind, seed) for kind in MATRIX_KINDS}
    table = "\n".join(
        f"{kind}: {c.converged} of {c.matrices} converged, {c.off} off by 10 tol, {c.far_off} by 5 percent, "
        f"worst {c.worst:.2g}, {c.status}"
        for kind, c in counts.items()
    )
    assert sum(c.matrices for c in counts.values()) >= 8 * matrices_of_a_kind, table
    assert sum(c.off for c in counts.values()) * 1000 <= sum(c.converged for c in counts.values()), table
    for kind, c in counts.items():
        assert c.matrices >= 2500, f"{kind}\n{table}"
        assert c.off * 500 <= c.converged, f"{kind}\n{table}"
        assert c.far_off == 0, f"{kind}\n{table}"
    # A verdict that is never given is never wrong.
    for kind in ("gaussian", "gated_cell", "low_rank", "clustered_moduli"):
        assert counts[kind].converged >= 0.99 * counts[kind].matrices, f"{kind}\n{table}"
    for kind, least in (("orthogonal_masked", 0.97), ("graded", 0.95), ("near_defective", 0.5), ("triangular", 0.6)):
        assert counts[kind].converged >= least * counts[kind].matrices, f"{kind}\n{table}"


def test_twenty_thousand_matrices() -> None:
    check_law(2500, seed=1)


@pytest.mark.slow
def test_hundred_thousand_matrices() -> None:
    check_law(12500, seed=2)
