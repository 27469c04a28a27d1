"""What tames the curse of memory, for a diagonal layer of your own, by ``torch.nn.utils.parametrize``.

Letters: N eigenvalues lambda, w and v the parameters of modulus and phase, gamma the factor on inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lsc_ext.memory.eigenvalue import Eigenvalue, read_eigenvalue
from lsc_ext.memory.normalization import check_normalization, factor
from lsc_ext.memory.parametrization import check_parametrization, eigenvalue, parameters_of

Layer = TypeVar("Layer", bound=nn.Module)

LAYOUTS = {
    "complex": "complex numbers [..]",
    "parts": "real and imaginary parts [2, ..], as lambda_l{k} of ComplexDiagonalRNN",
    "real": "real numbers [..]",
}
"""How a tensor may hold eigenvalues."""
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class EigenvalueParametrization(nn.Module):
    """Eigenvalues inside the unit circle, made of unconstrained numbers: a parametrisation for torch's ``parametrize``.

    The original tensors are w, and v unless the layout is "real"; computed in float64, handed over in their dtype.

    Args:
        parametrization: "exp" or "optimal", as :func:`lsc_ext.memory.eigenvalue` has them.
        layout: one of ``LAYOUTS``. Real eigenvalues are positive with "exp".

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, parametrization: str = "exp", layout: str = "complex") -> None:
        super().__init__()
        check_parametrization(parametrization, ("exp", "optimal"))
        if layout not in LAYOUTS:
            raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
        self.parametrization, self.layout = parametrization, layout

    def extra_repr(self) -> str:
        """Both names."""
        return f"{self.parametrization!r}, {self.layout!r}"

    def forward(self, modulus: Tensor, phase: Tensor | None = None) -> Tensor:
        """The eigenvalues, in their layout, of w [..] and v [..]."""
        if self.layout == "real":
            w = modulus.double()
            return (w.tanh() if self.parametrization == "optimal" else (-w.exp()).exp()).to(modulus.dtype)
        assert phase is not None  # right_inverse gives two tensors for these layouts
        value = read_eigenvalue("lam", eigenvalue(self.parametrization, modulus, phase), inside=False)
        if self.layout == "parts":
            return torch.stack((value.value.real, value.value.imag)).to(modulus.dtype)
        return value.value.to(_COMPLEX[modulus.dtype])

    def right_inverse(self, value: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """W, and v unless the layout is "real", of eigenvalues in their layout.

        Raises:
            ValueError: a modulus of 1 or more, 0 where there is a phase, a layout that does not fit, or a number
                below 0 where all are positive.
        """
        if value.is_complex() != (self.layout == "complex"):
            raise ValueError(f"value: expected eigenvalues in the layout {self.layout!r}, got {value.dtype}")
        if self.layout == "parts" and (value.dim() < 1 or len(value) != 2):
            raise ValueError(f"value: expected real and imaginary parts (2, ..), got {tuple(value.shape)}")
        kind = value.real.dtype
        if self.layout == "real":
            return self._real_inverse(read_eigenvalue("value", value).value.real).to(kind)
        lam = torch.complex(*value.double()) if self.layout == "parts" else value
        if not bool((read_eigenvalue("value", lam).modulus > 0).all()):
            raise ValueError("value: expected moduli above 0, where a phase means something, got 0")
        w, v = parameters_of(self.parametrization, lam)
        return w.to(kind), v.to(kind)

    def _real_inverse(self, value: Tensor) -> Tensor:
        if self.parametrization == "optimal":
            return value.atanh()
        if not bool((value > 0).all()):
            raise ValueError(f"value: expected positive eigenvalues for 'exp', got {float(value.min())}")
        return (-value.log()).log()


def parametrize_eigenvalues(
    module: Layer, name: str, parametrization: str = "exp", *, layout: str | None = None
) -> Layer:
    """Makes the eigenvalues that a module has as a parameter stable and their modulus easy to learn, in place.

    The module computes what it did. Its parameter becomes ``parametrizations.{name}.original0``, and ``original1`` for
    phases, so build the optimiser afterwards; ``torch.nn.utils.parametrize.remove_parametrizations`` undoes it.

    Args:
        module: any module.
        name: of the parameter that holds the eigenvalues, each inside the unit circle, complex ones not 0.
        parametrization: "exp", exp(-exp(w) + i exp(v)), or "optimal", tanh(w), and a phase of v times what changes
            the state by 1: curvature 1 in v, and in w where the phase is 0, for normalised states fed white noise.
        layout: one of ``LAYOUTS``; None for "complex" or "real", as the parameter is.

    Returns:
        ``module``.

    Raises:
        ValueError: an unknown name, no such parameter, or eigenvalues that the parametrisation does not reach; the
            module is as it was.
    """
    parameter = _parameter(module, name)
    if layout is None:
        layout = "complex" if parameter.is_complex() else "real"
    made = EigenvalueParametrization(parametrization, layout)
    made.right_inverse(parameter.detach())  # raises before anything is changed
    parametrize.register_parametrization(module, name, made)
    return module


class InputNormalization(nn.Module):
    """Input weights times gamma, a factor for each eigenvalue: a parametrisation for torch's ``parametrize``.

    Args:
        owner: the module whose eigenvalues count; they are read anew whenever the weight is.
        eigenvalues: of it, [N]: as functions of this package take them.
        normalization: "l2" or "l1", as :func:`input_normalization` has it.
        dim: which dimension of the weight runs over the eigenvalues.
        learned: gamma starts as that and is a parameter of its own, ``gamma_log`` [N], its logarithm.

    Raises:
        ValueError: an unknown name, or a modulus of 1 or more.
    """

    def __init__(
        self,
        owner: nn.Module,
        eigenvalues: Callable[[Any], Eigenvalue],
        normalization: str = "l2",
        dim: int = 0,
        learned: bool = False,
    ) -> None:
        super().__init__()
        check_normalization(normalization)
        self.normalization, self.dim, self.eigenvalues = normalization, dim, eigenvalues
        self._owner = (owner,)  # in a tuple: the owner is no child of its child
        self.gamma_log: nn.Parameter | None = None
        if learned:
            with torch.no_grad():
                start = self.factor().log()
            dtype = next((p.dtype for p in owner.parameters() if p.is_floating_point()), torch.float64)
            self.gamma_log = nn.Parameter(start.to(dtype))

    def extra_repr(self) -> str:
        """Name and dimension."""
        return f"{self.normalization!r}, dim={self.dim}, learned={self.gamma_log is not None}"

    def factor(self) -> Tensor:
        """Gamma now, [N]."""
        if self.gamma_log is not None:
            return self.gamma_log.exp()
        return factor(read_eigenvalue("eigenvalues", self.eigenvalues(self._owner[0])), self.normalization)

    def _shaped(self, weight: Tensor) -> Tensor:
        gamma = self.factor()
        if gamma.dim() != 1 or weight.shape[self.dim] != len(gamma):
            raise ValueError(
                f"eigenvalues: expected shape ({weight.shape[self.dim]},) as dimension {self.dim} of the weight "
                f"{tuple(weight.shape)}, got {tuple(gamma.shape)}"
            )
        shape = [1] * weight.dim()
        shape[self.dim] = -1
        return gamma.view(shape).to(weight.real.dtype)

    def forward(self, weight: Tensor) -> Tensor:
        """Gamma times the weight."""
        return self._shaped(weight) * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight by gamma."""
        return weight / self._shaped(weight)


def normalize_input(
    module: Layer,
    weight: str,
    eigenvalues: Callable[[Layer], Eigenvalue],
    *,
    normalization: str = "l2",
    dim: int = 0,
    learned: bool = False,
) -> Layer:
    """Multiplies the input weights of a diagonal recurrence by gamma(lambda), in place, so that states stay bounded.

    White noise of variance 1 then gives states of variance 1 whatever the memory is, and the sensitivity to the modulus
    falls from tau^3 / 4 to tau^2 / 4. ``torch.nn.utils.parametrize.remove_parametrizations`` undoes it.

    Args:
        module: any module whose state moves by h' = lambda h + B x.
        weight: name of B, a parameter [N, ..].
        eigenvalues: what reads lambda [N] off the module, such as ``lambda layer: layer.eigenvalues(0)`` for those of
            :mod:`lsc_ext.nn`. A parametrisation of them is respected.
        normalization: "l2" for sqrt(1 - |lambda|^2), "l1" for 1 - |lambda|.
        dim: which dimension of B runs over the eigenvalues; 1 for ``B_l{k}`` [2, N, I] of :mod:`lsc_ext.nn`.
        learned: gamma starts as that and is learned as a parameter of its own, as in the LRU, instead of following
            lambda.

    Returns:
        ``module``, whose weight now reads as gamma times what it was.

    Raises:
        ValueError: an unknown name, no such parameter, a modulus of 1 or more, or another number of eigenvalues; the
            module is as it was.
    """
    if normalization not in ("l2", "l1"):
        raise ValueError(f"normalization: expected one of 'l2', 'l1', got {normalization!r}")
    parameter = _parameter(module, weight)
    if not -parameter.dim() <= dim < parameter.dim():
        raise ValueError(f"dim: expected a dimension of {weight} {tuple(parameter.shape)}, got {dim}")
    made = InputNormalization(module, eigenvalues, normalization, dim, learned)
    with torch.no_grad():
        scaled = made(parameter)  # raises before anything is changed
    parametrize.register_parametrization(module, weight, made)
    with torch.no_grad():
        setattr(module, weight, scaled)
    return module


def _parameter(module: nn.Module, name: str) -> Tensor:
    parameters = dict(module.named_parameters(recurse=False))
    if name not in parameters:
        raise ValueError(f"name: expected a parameter of {type(module).__qualname__}, got {name!r}")
    return parameters[name]
