"""Central moments across time steps: does the expectation of a product of radii hang on pairs, or on more?

Letters: T time steps, B sequences, k the order, e_k the elementary symmetric polynomial, p_j the power sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lsc_ext.estimate import RadiusEstimate
from lsc_ext.nn.arguments import check_int
from lsc_ext.theory.covariance import sequences_of


def elementary_symmetric(values: Tensor, order: int) -> Tensor:
    """e_k: the sum over all k-subsets of the last dimension of the product of their values, in O(k^2 + k T).

    By Newton's identities, k e_k = sum over j = 1 .. k of (-1)^(j-1) e_(k-j) p_j with p_j = sum of values^j.

    Args:
        values: [..., T], real; computed in float64.
        order: k, at least 0; e_0 is 1, and beyond T the result is 0 up to rounding.

    Returns:
        [...] float64.

    Raises:
        ValueError: ``order`` is negative, or ``values`` has no dimension.
        TypeError: ``order`` is no int.
    """
    check_int("order", order, 0)
    if values.dim() < 1:
        raise ValueError("values: expected shape (..., T), got a number")
    wide = values.double()
    sums = [wide.pow(j).sum(-1) for j in range(1, order + 1)]
    found = [torch.ones_like(wide.sum(-1))]
    for k in range(1, order + 1):
        terms = [(-1) ** (j - 1) * found[k - j] * sums[j - 1] for j in range(1, k + 1)]
        found.append(torch.stack(terms).sum(0) / k)
    return found[order]


def interactions(radii: Tensor | RadiusEstimate, orders: Sequence[int] = (2, 3, 4)) -> Tensor:
    """|mean over sequences of e_k(r - mean r)|: all central moments of k different steps, added up.

    E[r_1 r_2 .. r_T] expands into such sums. The paper's argument keeps pairs; this says whether triples and
    quadruples of steps are smaller.

    Args:
        radii: [..., T, B], as :func:`lsc_ext.theory.covariance_decay` takes them; the mean over B is taken off at each
            step.
        orders: k, each at least 1.

    Returns:
        [len(orders), ...] float64.

    Raises:
        ValueError: fewer than two sequences, radii that are not finite or a sample, or an order below 1.
        TypeError: ``radii`` is neither a tensor nor an estimate, or an order is no int.
    """
    values = sequences_of(radii, 2)
    for order in orders:
        check_int("orders", order, 1)
    if len(orders) == 0:
        raise ValueError("orders: expected at least one, got none")
    centred = (values - values.mean(-1, keepdim=True)).mT
    return torch.stack([elementary_symmetric(centred, order).mean(-1).abs() for order in orders])
