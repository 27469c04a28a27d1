"""The loss of one linear network that learns another, averaged over all inputs, and its Hessian: no samples, no noise.

Letters: g and g* the responses of student and teacher, T steps, R the inputs' autocorrelation, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lsc_ext.impulse import impulse_mismatch
from lsc_ext.memory.autocorrelation import Exponentials, Lags, Rho, read_rho, sum_of
from lsc_ext.memory.eigenvalue import Point
from lsc_ext.memory.systems import DenseSystem, DiagonalSystem, LinearSystem, real_matrices, system_of
from lsc_ext.nn.arguments import check_int

_DOUBLINGS = 60


def teacher_student_loss(
    student: LinearSystem | nn.Module, teacher: LinearSystem | nn.Module, rho: Rho = 0.0, *, horizon: int | None = None
) -> Tensor:
    """1/2 E |y - y*|^2, summed over outputs, exact: the loss that infinitely many sequences would have.

    Over T steps from states of zero, white noise of variance 1 gives 1/2 sum over k < T of (1 - k/T) |g[k] - g*[k]|^2.

    Args:
        student: a :class:`DenseSystem`, :class:`DiagonalSystem`, or a layer as :func:`system_of` reads it.
        teacher: likewise, with as many inputs and outputs; dense, diagonal or layer whatever the student is.
        rho: the inputs, as :func:`state_second_moment` takes it, in numbers; inputs are independent of each other.
        horizon: T, over which the loss is averaged; None for stationary states, where every |lambda| must be below 1.

    Returns:
        A float64 number, differentiable with respect to all matrices, to any order. With a horizon it is 0 at a
        solution; without one the error is that of rounding relative to E |y|^2. O(T n) for diagonal networks and
        O(n^2 T) for dense ones, compiled on the CPU with its gradient; T^2 numbers more where the input is coloured.

    Raises:
        ValueError: other inputs or outputs, a spectral radius of 1 or more without a horizon, or |rho| > 1.
        TypeError: an argument of another kind.
    """
    if horizon is not None:
        return PopulationLoss(teacher, rho, horizon=horizon)(student)
    one, other, R = read_system("student", student), read_system("teacher", teacher), read_rho(rho)
    _check_ports("teacher", other, "student", one)
    return _stationary(one, other, R)


class PopulationLoss:
    """:func:`teacher_student_loss` over T steps as a function of the student, for training.

    A teacher without parameters that require a gradient answers once; another one is read for every loss.

    Args:
        teacher: as there; a gradient flows to it if it requires one.
        rho: as there.
        horizon: T.

    Raises:
        ValueError: as there.
        TypeError: as there.
    """

    def __init__(self, teacher: LinearSystem | nn.Module, rho: Rho = 0.0, *, horizon: int) -> None:
        check_int("horizon", horizon, 1)
        self.teacher, self.horizon = _known("teacher", teacher), horizon
        self._weigh = response_weights(read_rho(rho), horizon)
        target = read_system("teacher", teacher).impulse_response(horizon)
        #: The teacher's answer; None where it is learned as well and so read anew every time.
        self._target = None if target.requires_grad else target

    def __call__(self, student: LinearSystem | nn.Module) -> Tensor:
        """The loss, a float64 number.

        Raises:
            ValueError: a student with other inputs or outputs than the teacher's.
            TypeError: a student of another kind.
        """
        A, B, C, D = real_matrices(_known("student", student))
        target = self._answer()
        if (len(C), B.shape[1]) != target.shape[1:]:
            raise ValueError(
                f"student: expected (outputs, inputs) == {tuple(target.shape[1:])} as the teacher has, got "
                f"{(len(C), B.shape[1])}"
            )
        return impulse_mismatch(A, B, C, D, target, self._weigh)

    def power(self) -> float:
        """Half the mean square of the teacher's output: the loss of a student that is silent."""
        target = self._answer().detach()
        return float((target * self._weigh(target)).sum()) / 2

    def _answer(self) -> Tensor:
        if self._target is not None:
            return self._target
        return read_system("teacher", self.teacher).impulse_response(self.horizon)


def _check_ports(name: str, system: LinearSystem, other: str, expected: LinearSystem) -> None:
    sizes = [(z.C.shape[0], z.B.shape[1]) for z in (expected, system)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{name}: expected (outputs, inputs) == {sizes[0]} as the {other} has, got {sizes[1]}")


def impulse_response(system: LinearSystem | nn.Module, steps: int) -> Tensor:
    """g[0] = C B + D, g[k] = C A^k B: what is left after k steps of an input of 1.

    Args:
        system: as :func:`teacher_student_loss` takes it.
        steps: T.

    Returns:
        [T, O, I] float64, differentiable.

    Raises:
        ValueError: fewer than 1 step.
        TypeError: an argument of another kind.
    """
    check_int("steps", steps, 1)
    return read_system("system", system).impulse_response(steps)


def hessian(
    student: LinearSystem | nn.Module,
    teacher: LinearSystem | nn.Module | None = None,
    rho: Rho = 0.0,
    *,
    horizon: int | None = None,
) -> Tensor:
    """The Hessian of :func:`teacher_student_loss` over all parameters of the student.

    Args:
        student: as :func:`teacher_student_loss` takes it. The parameters are, flattened one after another, those of
            ``student.parameters()``: A, B, C, D of a dense system; real and imaginary parts of lambda, B, C, and D of a
            diagonal one; a layer's own, in their order.
        teacher: as there; None for the student itself, the Hessian at a solution. With a horizon that is computed as
            the sum of products of first derivatives which it is.
        rho: as there.
        horizon: as there.

    Returns:
        [P, P] float64, symmetric.

    Raises:
        ValueError: as there.
        TypeError: as there.
    """
    R = read_rho(rho)
    start = flat_parameters(student)
    if teacher is None and horizon is not None:
        check_int("horizon", horizon, 1)
        slopes = _response_jacobian(student, start, horizon)  # [T, O I P]
        shape = slopes.numel() // len(start), len(start)
        return slopes.view(shape).mT @ response_weights(R, horizon)(slopes).view(shape)
    target = _detached(read_system("student", student)) if teacher is None else read_system("teacher", teacher)
    with torch.enable_grad():
        leaf = start.requires_grad_()
        loss = teacher_student_loss(with_parameters(student, leaf), target, rho, horizon=horizon)
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in slope]
    second = torch.stack(rows)
    return (second + second.mT) / 2


def _response_jacobian(student: LinearSystem | nn.Module, start: Tensor, steps: int) -> Tensor:
    """D g / d parameters, [T, O I P]: rows by the compiled gradient, or columns where those are fewer."""

    def response(flat: Tensor) -> Tensor:
        return with_parameters(student, flat).impulse_response(steps).flatten()

    leaf = start.requires_grad_()
    with torch.enable_grad():
        found = response(leaf)
    if len(found) > len(leaf):  # one at a time: what is checked as a network is read cannot run under vmap
        columns = [torch.func.jvp(response, (start.detach(),), (e,))[1] for e in torch.eye(len(leaf)).to(leaf)]
        return torch.stack(columns, -1).view(steps, -1)
    rows = [torch.autograd.grad(found, leaf, e, retain_graph=True)[0] for e in torch.eye(len(found)).to(found)]
    return torch.stack(rows).view(steps, -1) if rows else leaf.new_zeros(steps, 0)


def read_system(name: str, system: LinearSystem | nn.Module) -> LinearSystem:
    """``system`` as matrices; ``name`` is that of the argument.

    Raises:
        TypeError: of another kind.
    """
    known = _known(name, system)
    return system_of(known) if isinstance(known, nn.Module) else known


def _known(name: str, system: LinearSystem | nn.Module) -> LinearSystem | nn.Module:
    if not isinstance(system, DenseSystem | DiagonalSystem | nn.Module):
        raise TypeError(f"{name}: expected a DenseSystem, a DiagonalSystem or a layer, got {type(system).__name__}")
    return system


class _Read(nn.Module):
    """Reads a layer as a system, for ``torch.func.functional_call``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> LinearSystem:
        """The system."""
        return system_of(self.layer)


def _named_parameters(system: LinearSystem | nn.Module) -> dict[str, Tensor]:
    return dict(_Read(system).named_parameters()) if isinstance(system, nn.Module) else system.parameters()


def flat_parameters(system: LinearSystem | nn.Module) -> Tensor:
    """All parameters one after another, [P] float64, in the order of :func:`hessian`."""
    read_system("student", system)
    return torch.cat([z.detach().double().flatten() for z in _named_parameters(system).values()])


def with_parameters(system: LinearSystem | nn.Module, flat: Tensor) -> LinearSystem:
    """The system with other values of its parameters, which come one after another."""
    values, begin = {}, 0
    for name, old in _named_parameters(system).items():
        values[name] = flat[begin : begin + old.numel()].view(old.shape)
        begin += old.numel()
    if isinstance(system, nn.Module):
        found: LinearSystem = torch.func.functional_call(_Read(system), values, ())
        return found
    return system.with_parameters(values)


def _detached(system: LinearSystem) -> LinearSystem:
    return system.with_parameters({name: z.detach() for name, z in system.parameters().items()})


def _coloured(R: Exponentials | Lags) -> bool:
    if isinstance(R, Lags):
        return bool((R.values[1:] != 0).any())
    return any(bool((rho.value != 0).any()) for _, rho in R.terms)


def _white_weights(R: Exponentials | Lags, steps: int) -> Tensor:
    """R(0) (1 - k/T), [T]."""
    k = torch.arange(steps, dtype=torch.float64)
    return R.at(torch.zeros(1, dtype=torch.float64)) * (1 - k / steps)


def _weights(R: Exponentials | Lags, steps: int) -> Tensor:
    """R(k - l) (1 - max(k, l) / T), [T, T]: of the T outputs the last T - k have the input of k steps before."""
    k = torch.arange(steps, dtype=torch.float64)
    later = torch.maximum(k.unsqueeze(1), k)
    return R.at(k)[(k.unsqueeze(1) - k).abs().long()] * (1 - later / steps)


def response_weights(R: Exponentials | Lags, steps: int) -> Callable[[Tensor], Tensor]:
    """What turns a response [T, ..] into W times it, so that its product with the response is a mean square."""
    if _coloured(R):
        matrix = _weights(R, steps)
        return lambda response: torch.tensordot(matrix, response, 1)
    weights = _white_weights(R, steps)
    return lambda response: weights.view(-1, *[1] * (response.dim() - 1)) * response


def _stationary(student: LinearSystem, teacher: LinearSystem, R: Exponentials | Lags) -> Tensor:
    """Half the mean square of the difference, as that of one network with both states."""
    if isinstance(student, DiagonalSystem) and isinstance(teacher, DiagonalSystem):
        return _diagonal_power(student, teacher, R) / 2
    one, other = student.dense(), teacher.dense()
    A, B = torch.block_diag(one.A, other.A), torch.cat((one.B, other.B))
    C, D = torch.cat((one.C, -other.C), 1), one.parameters()["D"] - other.parameters()["D"]
    return _dense_power(A, B, C, D, R) / 2


def _diagonal_power(student: DiagonalSystem, teacher: DiagonalSystem, R: Exponentials | Lags) -> Tensor:
    """E y^2 = sum over pairs of states of f, with the conjugate of every state as a state of its own."""
    for name, system in (("student", student), ("teacher", teacher)):
        _check_stable(name, float(system.point.modulus.detach().max()))
    parts = [point for z in (student, teacher) for point in (z.point, z.point.conj())]
    x = Point(torch.cat([p.value for p in parts]), torch.cat([p.log for p in parts]), False)
    B = torch.cat([z for s in (student, teacher) for z in (s.B, s.B.conj())])
    C = torch.cat([sign * z for s, sign in ((student, 0.5), (teacher, -0.5)) for z in (s.C, s.C.conj())], 1)
    D = (student.parameters()["D"] - teacher.parameters()["D"]).to(C)
    states = ((C.mT @ C) * (B @ B.mT) * R.state(x.unsqueeze(-1), x.unsqueeze(-2))).sum()
    through = (D * (C @ (R.onesided(x).unsqueeze(-1) * B))).sum()
    variance = R.at(torch.zeros(1, dtype=torch.float64)).squeeze(-1)
    return states.real + 2 * through.real + variance * D.real.square().sum()


def _dense_power(A: Tensor, B: Tensor, C: Tensor, D: Tensor, R: Exponentials | Lags) -> Tensor:
    """E |y|^2 = sum over lags of R(d) tr c(d), c(d) = sum over k of g[k + d] g[k]^T = C A^d (X C^T + B D^T) for d > 0.

    X = A X A^T + B B^T is found by squaring A (Smith, SIAM Journal on Applied Mathematics 16, 1968).
    """
    _check_stable("student or teacher", float(torch.linalg.eigvals(A.detach()).abs().max()))
    X, power = B @ B.mT, A
    for _ in range(_DOUBLINGS):
        X = X + power @ X @ power.mT
        power = power @ power
        if float(power.detach().abs().max()) < 1e-30:
            break
    reached = X @ C.mT + B @ D.mT  # [n, O]
    at_zero = (C * reached.mT).sum() + (D * (C @ B + D)).sum()
    if isinstance(R, Lags):
        later = reached
        total = R.values[0] * at_zero
        for r in R.values[1:]:
            later = A @ later
            total = total + 2 * r * (C * later.mT).sum()
        return total
    eye = torch.eye(len(A), dtype=torch.float64)
    terms = []
    for weight, rho in R.terms:
        ratio = rho.value.real
        sums = torch.linalg.solve(eye - ratio * A, ratio * (A @ reached))  # over d >= 1 of (ratio A)^d
        terms.append(weight * (at_zero + 2 * (C * sums.mT).sum()))
    return sum_of(terms)


def _check_stable(name: str, radius: float) -> None:
    if not radius < 1:
        raise ValueError(f"{name}: expected a spectral radius below 1 without a horizon, got {radius:.6g}")
