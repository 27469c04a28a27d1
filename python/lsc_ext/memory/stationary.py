"""Random inputs whose autocorrelation is a given sum of exponentials, from their first step on.

Letters: T steps, R autocorrelation, d lag, w the weight and rho the ratio of an exponential, e noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lsc_ext.memory.autocorrelation import Lags, Rho, read_rho
from lsc_ext.memory.eigenvalue import one_minus
from lsc_ext.nn.arguments import check_int
from lsc_ext.scan import scan


def stationary_inputs(
    rho: Rho, shape: Sequence[int], *, generator: Generator | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Gaussian sequences with E x[t] x[t + d] = sum of w rho^|d| and mean 0; all but time is independent.

    Each term is sqrt(w) times x[0] = e[0], x[t] = rho x[t-1] + sqrt(1 - rho^2) e[t], of variance 1 at every step,
    the first one too. rho = 0 is white noise, rho = 1 a number that a sequence keeps.

    Args:
        rho: as :func:`state_second_moment` takes it, in numbers and with weights of at least 0: a number, or (weight,
            rho) pairs such as :func:`fit_exponentials` finds.
        shape: (T, ..), time first, each at least 1.
        generator: the only source of random numbers; None for torch's. All is drawn in float64, term by term.
        dtype: of the result; None for torch's default.

    Returns:
        ``shape``, on the generator's device.

    Raises:
        ValueError: no step, |rho| > 1, a negative weight, or tensors of weights or ratios. The generator is as before.
        TypeError: an argument of another kind, lags, or a ``dtype`` that is not real and floating.
    """
    if isinstance(rho, Lags):
        raise TypeError("rho: expected a number or (weight, rho) pairs, got Lags; fit_exponentials makes pairs of them")
    R = read_rho(rho)
    assert not isinstance(R, Lags)  # read_rho passes them through
    for weight, ratio in R.terms:
        if weight.dim() or ratio.value.dim():
            raise ValueError("rho: expected numbers as weights and ratios, got a tensor of several")
        if weight < 0:
            raise ValueError(f"rho: expected weights of at least 0, got {float(weight):.6g}")
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"shape: expected (T, ..), got {type(shape).__name__}")
    if not shape:
        raise ValueError("shape: expected (T, ..), got ()")
    for size in shape:
        check_int("shape", size, 1)
    kind = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise TypeError(f"dtype: expected a real floating type, got {kind}")
    device = torch.device("cpu") if generator is None else generator.device
    total = torch.zeros(tuple(shape), dtype=torch.float64, device=device)
    for weight, ratio in R.terms:
        term = torch.randn(tuple(shape), dtype=torch.float64, device=device, generator=generator)
        if ratio.value != 0:
            term[1:] *= float((one_minus(ratio) * (1 + ratio.value)).real.sqrt())
            flat = term.view(len(term), 1, -1)
            term = scan(flat.new_full(flat.shape[2:], float(ratio.value.real)), flat).view_as(term)
        total += float(weight.sqrt()) * term
    return total.to(kind)
