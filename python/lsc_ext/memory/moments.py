"""Second moments of a linear recurrence h[t+1] = lambda h[t] + x[t+1] and of its sensitivity d h / d lambda.

Formulas of Zucchet and Orvieto, "Recurrent neural networks: vanishing and exploding gradients are not the end of the
story", arXiv 2405.21064, equations 5 and 6, in a form of ours that keeps its digits near |lambda| = 1
(docs/math/memory.md).

Letters: lambda the eigenvalue, R the input's autocorrelation, f and S the moments of state and sensitivity, T steps.
"""

from __future__ import annotations

from torch import Tensor

from lsc_ext.memory.autocorrelation import Rho, read_rho
from lsc_ext.memory.eigenvalue import Eigenvalue, read_eigenvalue, real_where_real
from lsc_ext.memory.horizon import sensitivity_after, state_after
from lsc_ext.nn.arguments import check_int


def state_second_moment(lam: Eigenvalue, rho: Rho, *, horizon: int | None = None) -> Tensor:
    """E |h|^2 of h[t+1] = lambda h[t] + x[t+1].

    For R(d) = rho^|d| and real lambda it is (1 + rho lambda) / ((1 - rho lambda)(1 - lambda^2)).

    Args:
        lam: lambda: a real or complex number, a tensor of any shape, or a :class:`LogEigenvalue`, which keeps all
            digits where 1 - |lambda| is tiny. Inside the unit circle, unless there is a horizon.
        rho: the autocorrelation R of a real input: one number, or a tensor broadcast with ``lam``, for R(d) = rho^|d|;
            a list of (weight, rho) for a sum of such; or :class:`Lags`. White noise is 0, a constant 1.
        horizon: T for the state after T steps from zero; None for the stationary one.

    Returns:
        float64 of the broadcast shape, differentiable; in units of x^2.

    Raises:
        ValueError: |lambda| >= 1 without a horizon, |rho| > 1, or numbers that are not finite.
        TypeError: an argument of another kind.
    """
    x, R = read_eigenvalue("lam", lam, inside=horizon is None), read_rho(rho)
    if horizon is None:
        return R.state(x, x.conj()).real
    check_int("horizon", horizon, 1)
    return state_after(x, R, horizon)


def sensitivity_second_moment(lam: Eigenvalue, rho: Rho, *, horizon: int | None = None) -> Tensor:
    """E |d h / d lambda|^2: how strongly a state of that memory answers to a change of lambda.

    For real lambda and R(d) = rho^|d| it grows as a power of tau = 1 / (1 - lambda): tau^3 / 4 for white noise, tau^4
    for a constant input. With respect to modulus and phase of a complex lambda it is this, and |lambda|^2 times this.

    Args:
        lam: as :func:`state_second_moment` has it.
        rho: likewise.
        horizon: likewise.

    Returns:
        float64 of the broadcast shape, differentiable.

    Raises:
        ValueError: |lambda| >= 1 without a horizon, |rho| > 1, or numbers that are not finite.
        TypeError: an argument of another kind.
    """
    x, R = read_eigenvalue("lam", lam, inside=horizon is None), read_rho(rho)
    if horizon is None:
        return R.sensitivity(x, x.conj()).real
    check_int("horizon", horizon, 1)
    return sensitivity_after(x, R, horizon)


def state_cross_moment(first: Eigenvalue, second: Eigenvalue, rho: Rho) -> Tensor:
    """f(lambda1, lambda2) = E h1 h2 of two recurrences that read the same input; nothing is conjugated.

    f = (R(0) + A(lambda1) + A(lambda2)) / (1 - lambda1 lambda2), A(z) = sum over d >= 1 of R(d) z^d.

    Args:
        first: lambda1, as :func:`state_second_moment` takes it.
        second: lambda2, broadcast with it.
        rho: R, likewise.

    Returns:
        float64 where both are real, else complex128, of the broadcast shape.

    Raises:
        ValueError: a modulus of 1 or more, |rho| > 1, or numbers that are not finite.
        TypeError: an argument of another kind.
    """
    x, y = read_eigenvalue("first", first), read_eigenvalue("second", second)
    return real_where_real(read_rho(rho).state(x, y), x, y)


def sensitivity_cross_moment(first: Eigenvalue, second: Eigenvalue, rho: Rho) -> Tensor:
    """S(lambda1, lambda2) = E (d h1 / d lambda1) (d h2 / d lambda2); nothing is conjugated.

    The Hessian of a diagonal network couples eigenvalues i and j by S(lambda_i, conj lambda_j) and S(lambda_i,
    lambda_j). Exact for every rho; the expression in the paper's own notebook is so for rho = 0 and 1 only, and up to
    a factor of 2 too small between.

    Args:
        first: lambda1, as :func:`state_second_moment` takes it.
        second: lambda2, broadcast with it.
        rho: R, likewise.

    Returns:
        float64 where both are real, else complex128, of the broadcast shape.

    Raises:
        ValueError: a modulus of 1 or more, |rho| > 1, or numbers that are not finite.
        TypeError: an argument of another kind.
    """
    x, y = read_eigenvalue("first", first), read_eigenvalue("second", second)
    return real_where_real(read_rho(rho).sensitivity(x, y), x, y)
