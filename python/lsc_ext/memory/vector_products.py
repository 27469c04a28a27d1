"""Products of a Hessian with vectors, which never form it.

Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994, and Schraudolph, "Fast
curvature matrix-vector products for second-order gradient descent", Neural Computation 14, 2002.

Letters: P parameters, H a Hessian, J the Jacobian of outputs by parameters, G = J^T J.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsc_ext.impulse import push_impulse
from lsc_ext.memory.autocorrelation import Rho, read_rho
from lsc_ext.memory.population import flat_parameters, response_weights, with_parameters
from lsc_ext.memory.systems import LinearSystem
from lsc_ext.nn.arguments import check_int

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CurvatureProduct:
    """A symmetric matrix that is known by its products alone.

    Attributes:
        size: P.
        product: of a vector [P] float64, [P] float64.
    """

    size: int
    product: Product

    def __call__(self, vector: Tensor) -> Tensor:
        """The matrix times ``vector`` [P].

        Raises:
            ValueError: another shape.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"vector: expected shape ({self.size},), got {tuple(vector.shape)}")
        return self.product(vector.detach().double())


def hessian_product(loss: Callable[[], Tensor], parameters: Iterable[Tensor]) -> CurvatureProduct:
    """The Hessian of a loss, by the derivative of its gradient along a vector.

    Args:
        loss: called once; a number that depends on the parameters, twice differentiable.
        parameters: tensors that require gradients. Vectors have them flattened, one after another.

    Returns:
        The Hessian where the parameters stand now. It keeps the graph of the gradient.

    Raises:
        ValueError: no parameter, complex ones, or a loss that is no real number or depends on none of them.
        RuntimeError: a loss that autograd cannot differentiate twice.
    """
    leaves = _leaves(parameters)
    with torch.enable_grad():
        value = loss()
        if value.numel() != 1 or value.is_complex():
            raise ValueError(f"loss: expected a real number, got {value.dtype} of shape {tuple(value.shape)}")
        _check_depends("loss", value)
        slopes = torch.autograd.grad(value.sum(), leaves, create_graph=True, materialize_grads=True)

    def product(vector: Tensor) -> Tensor:
        return _joined(_derivative(slopes, leaves, vector))

    return CurvatureProduct(sum(leaf.numel() for leaf in leaves), product)


def gauss_newton_product(output: Callable[[], Tensor], parameters: Iterable[Tensor]) -> CurvatureProduct:
    """J^T J / N of N outputs: the Gauss-Newton matrix of half their mean square error, whatever the targets are.

    It is positive semi-definite, and the Hessian where the error is 0.

    Args:
        output: called once; a tensor of N numbers that depends on the parameters, twice differentiable.
        parameters: as :func:`hessian_product` has them.

    Raises:
        ValueError: no parameter, complex ones, or no real output that depends on any.
        RuntimeError: outputs that autograd cannot differentiate twice.
    """
    leaves = _leaves(parameters)
    with torch.enable_grad():
        outputs = output()
        if outputs.numel() == 0:
            raise ValueError(f"output: expected at least one number, got shape {tuple(outputs.shape)}")
        if outputs.is_complex():
            raise ValueError(f"output: expected real numbers, got {outputs.dtype}")
        _check_depends("output", outputs)
        dual = torch.zeros_like(outputs, requires_grad=True)
        # J^T u is linear in u: its derivative along a vector is J times that.
        pulled = torch.autograd.grad(outputs, leaves, dual, create_graph=True, materialize_grads=True)

    def product(vector: Tensor) -> Tensor:
        (pushed,) = _derivative(pulled, [dual], vector)
        parts = torch.autograd.grad(outputs, leaves, pushed, retain_graph=True, materialize_grads=True)
        return _joined(parts) / outputs.numel()

    return CurvatureProduct(sum(leaf.numel() for leaf in leaves), product)


def population_product(student: LinearSystem | nn.Module, rho: Rho = 0.0, *, horizon: int) -> CurvatureProduct:
    """The Hessian of :func:`teacher_student_loss` where student and teacher agree, in O(T n^2) for a vector.

    :func:`lsc_ext.memory.hessian` forms the same matrix, and says what the parameters are.

    Args:
        student: as :func:`teacher_student_loss` takes it.
        rho: the inputs, as there.
        horizon: T, over which the loss is averaged.

    Raises:
        ValueError: as there.
        TypeError: as there.
    """
    check_int("horizon", horizon, 1)
    R, start = read_rho(rho), flat_parameters(student)
    weighed = response_weights(R, horizon)

    def matrices(flat: Tensor) -> tuple[Tensor, ...]:
        return with_parameters(student, flat).impulse_matrices()

    leaf = start.requires_grad_()
    with torch.enable_grad():
        pulled = with_parameters(student, leaf).impulse_response(horizon).flatten(1)

    def product(vector: Tensor) -> Tensor:
        found = torch.func.jvp(matrices, (start.detach(),), (vector,))
        (A, B, C, _), (dA, dB, dC, dD) = found[0], found[1]
        pushed = push_impulse((A, B, C), (dA, dB, dC), horizon)
        pushed[0] += dD
        (image,) = torch.autograd.grad(pulled, leaf, weighed(pushed.flatten(1)), retain_graph=True)
        return image

    return CurvatureProduct(len(start), product)


def _leaves(parameters: Iterable[Tensor]) -> list[Tensor]:
    leaves = list(parameters)
    if not leaves:
        raise ValueError("parameters: expected at least one tensor, got none")
    for number, leaf in enumerate(leaves):
        if not leaf.requires_grad:
            raise ValueError(f"parameters: expected tensors that require gradients, number {number} does not")
        if leaf.is_complex():
            raise ValueError(f"parameters: expected real tensors, number {number} is {leaf.dtype}")
    return leaves


def _check_depends(name: str, value: Tensor) -> None:
    if not value.requires_grad:
        raise ValueError(f"{name}: expected one that depends on the parameters, got one that depends on none")


def _derivative(values: Sequence[Tensor], by: Sequence[Tensor], weights: Tensor) -> Sequence[Tensor]:
    """That of the sum of ``values`` times ``weights`` [their number]; zeros of those that depend on nothing."""
    pieces = weights.split([value.numel() for value in values])
    kept = [(value, piece.view_as(value).to(value)) for value, piece in zip(values, pieces, strict=True)]
    kept = [(value, piece) for value, piece in kept if value.requires_grad]
    if not kept:
        return [torch.zeros_like(each) for each in by]
    moving, factors = zip(*kept, strict=True)
    return torch.autograd.grad(moving, by, factors, retain_graph=True, materialize_grads=True)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().double().flatten().cpu() for part in parts])
