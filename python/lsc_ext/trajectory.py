"""A model run over inputs, and the Jacobians of its steps there.

Letters: T time, B batch, L layers, N points (t, b).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.estimators import Found
from lsc_ext.fused import Points
from lsc_ext.operator import DIRECTIONS, JacobianOperator, eval_mode
from lsc_ext.rerun import LayerRun
from lsc_ext.weights import Weight, assign, is_frozen

Readout = Callable[[Tensor], Tensor]

#: Memory of one piece of a trajectory, and of the coefficients of one operator, where these may be split: 32 MiB.
PIECE_BYTES = 2**25


@dataclass(frozen=True)
class Kernel:
    """Weights whose common scale moves a Jacobian.

    Attributes:
        weights: module and name of each.
        values: the tensors that operators differentiate: of a parametrised weight, its value.
    """

    weights: tuple[tuple[nn.Module, str], ...]
    values: tuple[Tensor, ...]

    @property
    def frozen(self) -> bool:
        """Whether one of the weights must not change."""
        return any(is_frozen(module, name) for module, name in self.weights)

    def response(self, mean: Tensor) -> float:
        """D log mean / d log scale; 1 where the values are not those that operators differentiate."""
        if not all(v.requires_grad for v in self.values):
            return 1.0
        gradients = torch.autograd.grad(mean, self.values, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, self.values, strict=True)
        return sum(float((g * v.detach()).sum()) for g, v in pairs if g is not None) / float(mean.detach())

    def scale(self, factor: float) -> None:
        """Multiplies every weight by ``factor``.

        Raises:
            ValueError: a parametrisation that keeps its scale.
        """
        with torch.no_grad():
            for module, name in self.weights:
                assign(module, name, getattr(module, name) * factor, "rescale")


def kernel_of(module: nn.Module, name: str, value: Tensor | None = None) -> Kernel:
    """One weight; ``value``, the tensor that operators differentiate, is the weight itself unless given."""
    return Kernel(((module, name),), (getattr(module, name) if value is None else value,))


class Trajectory(ABC):
    """A model run over inputs: the grid of points that it visited, and its Jacobians there."""

    num_layers: int
    time_steps: int
    batch: int
    #: What pre-training brings to a target unless it is told otherwise.
    pretrained: tuple[str, ...] = ("time", "depth")

    @abstractmethod
    def layers_of(self, direction: str) -> Sequence[int]:
        """The layers that have Jacobians along ``direction``; raises ValueError for an unknown name."""

    @abstractmethod
    def operator(
        self, direction: str, layer: int, points: Tensor, *, readout: Readout | None = None
    ) -> JacobianOperator:
        """The Jacobians of one layer at ``points`` [N, 2], pairs (t, b)."""

    @abstractmethod
    def kernel(self, direction: str, layer: int) -> Kernel | None:
        """The weights whose scale moves this Jacobian; None where there are none."""

    def carry(self, kind: str, layer: int) -> Kernel | None:
        """What carries the state of a layer on whatever its kernel is; scaling it scales how much of a state is left.

        Args:
            kind: "gate_bias", the bias of the gate that multiplies the layer's own past (forget gate of an LSTM, update
                gate of a GRU); "timescale", the time constants (moduli of an LRU, decays of a spiking neuron).
            layer: which.

        Returns:
            None where the layer has none.
        """
        return None

    def weights_of(self, layer: int) -> Sequence[Weight]:
        """The parameters of a layer with their roles."""
        return ()

    @abstractmethod
    def rerun(self, layer: int) -> LayerRun | None:
        """A layer alone over what it was fed, to run again; None where it has no state."""

    @property
    def recorded(self) -> bool:
        """Whether gradients of radii may be asked for: then the operators, and what they read, stay until then."""
        return torch.is_grad_enabled()

    def why_not_fused(self, direction: str, method: str) -> str:
        """Why the model cannot run and its radii along ``direction`` be found in one launch; "" where they can."""
        return f"a {type(self).__name__}"

    def fused_radii(self, direction: str, points: Points, num_matvecs: int, tol: float, pairs: bool) -> Found:
        """Runs the model and finds radii in one launch, as :func:`lsc_ext.fused.forward_radii` has it.

        What is found may have ``pairs`` of vectors, for gradients.

        Raises:
            ValueError: :meth:`why_not_fused` has a reason.
        """
        raise ValueError(f"impl: expected a model that one launch can hold, got {self.why_not_fused(direction, '')}")

    def pieces(self, time_chunk: int | None = None) -> Iterator[tuple[int, Trajectory]]:
        """The steps in order, as (first step, trajectory of some of them): here all at once.

        A trajectory that can go on from its last states yields pieces of ``time_chunk`` steps, by default of as many as
        take ``PIECE_BYTES``. The next piece takes the memory of the one before.

        Raises:
            ValueError: ``time_chunk`` is given and the trajectory is kept whole.
        """
        if time_chunk is not None:
            kind = type(self).__name__
            raise ValueError(f"time_chunk: expected None for a {kind}, whose states are kept whole, got {time_chunk}")
        yield 0, self

    def points_at_once(self, direction: str, layer: int) -> int | None:
        """How many points of an operator take ``PIECE_BYTES``, where splitting it changes no bit; else None."""
        return None


def check_direction(direction: str) -> None:
    """Raises ValueError for an unknown name."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r}")


TrajectoryReader = Callable[[Any, Any, Any, bool], "Trajectory | None"]
_READERS: list[TrajectoryReader] = []
_KINDS: list[type[nn.Module]] = []
KNOWN_MODELS = (
    "a torch.nn.RNN, GRU or LSTM, a module of lsc_ext.nn, a StepModel, an nn.Sequential of such and of feed-forward "
    "layers, or a Submodule of another model"
)


def register_reader(reader: TrajectoryReader, *kinds: type[nn.Module]) -> None:
    """Teaches :func:`trajectory_of` kinds of models; the last one taught is asked first.

    A reader returns None for a model that is not of its kind.
    """
    _READERS.insert(0, reader)
    _KINDS.extend(kinds)


def read(model: Any, inputs: Any, initial_state: Any = None, through_states: bool = False) -> Trajectory | None:
    """As :func:`trajectory_of`; None where no reader knows the model."""
    for reader in _READERS:
        trajectory = reader(model, inputs, initial_state, through_states)
        if trajectory is not None:
            return trajectory
    return None


def trajectory_of(model: Any, inputs: Any, initial_state: Any = None, through_states: bool = False) -> Trajectory:
    """Runs ``model`` in eval mode over ``inputs``.

    Raises:
        TypeError: no reader knows the model.
    """
    with eval_mode(model):
        trajectory = read(model, inputs, initial_state, through_states)
    if trajectory is None:
        raise TypeError(f"model: expected {KNOWN_MODELS}, got {type(model).__qualname__}{_hint(model)}")
    return trajectory


def _hint(model: Any) -> str:
    """Which parts of an unknown model could be measured."""
    if not isinstance(model, nn.Module):
        return ""
    names = [repr(name) for name, part in model.named_modules() if name and isinstance(part, tuple(_KINDS))]
    return f", which contains {', '.join(names)}: try Submodule(model, {names[0]})" if names else ""


def leaves_of(model: nn.Sequential) -> list[nn.Module]:
    """The modules of a sequence, nested ones read as if they were not nested."""
    leaves = []
    for child in model:
        leaves += leaves_of(child) if type(child) is nn.Sequential else [child]
    return leaves


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module of a sequence runs over time."""
    return hasattr(module, "batch_first") and hasattr(module, "num_layers")


def sample_dim(model: Any) -> int:
    """Which dimension of a model's inputs counts the samples: 0 with ``batch_first`` or without a time axis, else 1."""
    if isinstance(model, nn.Sequential):
        model = next((leaf for leaf in leaves_of(model) if is_recurrent(leaf)), None)
    return 0 if bool(getattr(model, "batch_first", True)) else 1


def grid_points(time_steps: int, batch: int) -> Tensor:
    """All pairs (t, b), t-major: [T * B, 2]."""
    return torch.cartesian_prod(torch.arange(time_steps), torch.arange(batch)).reshape(-1, 2)
