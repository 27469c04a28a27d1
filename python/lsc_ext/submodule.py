"""A module inside a bigger model, measured at what the model feeds it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext.trajectory import Trajectory, register_reader, trajectory_of


class Submodule(nn.Module):
    """One module of a model, for :func:`lsc_ext.radii` and :func:`lsc_ext.pretrain`.

    The whole model runs on its own inputs; radii are those of the module at what it is fed there. Its parameters are
    the module's alone, so pre-training changes nothing else.

    Args:
        model: the whole.
        which: the module's dotted name, as ``model.named_modules()`` has it, or its class, of which the model must have
            one.
        batch_first: whether the samples are dimension 0 of the model's inputs instead of dimension 1.

    Raises:
        ValueError: no such module, or several of that class.
        TypeError: ``model`` is not a module, or ``which`` neither name nor class.
    """

    def __init__(self, model: nn.Module, which: str | type[nn.Module], *, batch_first: bool = False) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__qualname__}")
        self.name = _name_of(model, which)
        self.batch_first = batch_first
        self.target = model.get_submodule(self.name)
        self._whole = (model,)  # in a tuple: its other parameters are not this module's

    @property
    def whole(self) -> nn.Module:
        """The model that the module is in."""
        return self._whole[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the whole model."""
        return self.whole(*args, **kwargs)

    def extra_repr(self) -> str:
        """Where the module is."""
        return repr(self.name)


def _name_of(model: nn.Module, which: str | type[nn.Module]) -> str:
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(which, str):
        if which not in names:
            raise ValueError(f"which: expected one of {', '.join(names)}, got {which!r}")
        return which
    if not isinstance(which, type):
        raise TypeError(f"which: expected a name or a class, got {which!r}")
    found = [name for name, module in model.named_modules() if name and isinstance(module, which)]
    if len(found) != 1:
        raise ValueError(
            f"which: expected a class of which the model has one module, got {which.__qualname__} with {len(found)}"
            + (f": {', '.join(found)}" if found else "")
        )
    return str(found[0])


def _call_of(model: Submodule, inputs: Any) -> tuple[Any, Any]:
    """What the module is called with when the whole model runs on ``inputs``: its input and its initial state."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))

    handle = model.target.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        model.whole(inputs)
    finally:
        handle.remove()
    if len(calls) != 1:
        raise ValueError(f"model: expected one call of {model.name!r} in a forward pass, got {len(calls)}")
    args, kwargs = calls[0]
    given = inspect.signature(model.target.forward).bind(*args, **kwargs).args
    if not 1 <= len(given) <= 2:
        raise ValueError(f"model: expected {model.name!r} to be called with an input and a state, got {len(given)}")
    return given[0], given[1] if len(given) == 2 else None


def _read_submodule(model: Any, inputs: Any, initial_state: Any, through_states: bool) -> Trajectory | None:
    if not isinstance(model, Submodule):
        return None
    if initial_state is not None:
        raise ValueError("initial_state: expected None for a Submodule, whose model brings it")
    with torch.set_grad_enabled(through_states and torch.is_grad_enabled()):
        fed, state = _call_of(model, inputs)
    if not through_states:
        fed, state = _detached(fed), _detached(state)
    return trajectory_of(model.target, fed, state, through_states)


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return tuple(_detached(v) for v in value) if isinstance(value, tuple | list) else value


register_reader(_read_submodule, Submodule)
