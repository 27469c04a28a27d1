"""Swaps the recurrent layers of a model for this package's, or back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from lsc_ext.nn.counterpart import counterpart
from lsc_ext.nn.recurrent import GRU, LSTM, RNN

_OURS: dict[type, Callable[..., nn.Module]] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}
_THEIRS: dict[type, Callable[..., nn.Module]] = {RNN: nn.RNN, GRU: nn.GRU, LSTM: nn.LSTM}


def convert(model: nn.Module, *, reverse: bool = False) -> nn.Module:
    """Swaps each ``torch.nn.RNN``, ``GRU`` and ``LSTM`` inside ``model`` for this package's layer.

    The new layers hold the same parameter objects: an optimiser goes on with them, and what was tied stays tied. Mode,
    ``requires_grad`` and plain attributes that were set on a layer are kept, and a layer that stands in several places
    stays one layer. Subclasses are left alone, as are layers that no module holds (those in a plain list).

    Args:
        model: changed in place, unless it is such a layer itself.
        reverse: swap ``lsc_ext.nn`` layers for those of ``torch.nn``.

    Returns:
        ``model``, or the new layer where ``model`` itself is one.

    Raises:
        ValueError: a layer has hooks, submodules, buffers, a parametrisation or a replaced ``forward``, or an option
            that the other library lacks.
        TypeError: a layer's dtype is neither float32 nor float64, or its parameters differ in dtype or device.

    Every error names the layer's path, and leaves the model as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__qualname__}")
    kinds = _THEIRS if reverse else _OURS
    swapped: dict[int, nn.Module] = {}
    for path, module in model.named_modules():
        kind = kinds.get(_class_of(module))
        if kind is not None:
            swapped[id(module)] = _convert_one(module, kind, path)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if id(child) in swapped:
                module._modules[name] = swapped[id(child)]
    return swapped.get(id(model), model)


def _class_of(module: nn.Module) -> type:
    """The class that was written; parametrising a module gives it a subclass of its own."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def _convert_one(module: nn.Module, kind: Callable[..., nn.Module], path: str) -> nn.Module:
    where = f"model{'.' if path else ''}{path}"
    state: dict[str, Any] = vars(module)
    hooks = sorted(name for name, held in state.items() if "_hooks" in name and isinstance(held, dict) and held)
    obstacles = hooks + [name for name in ("_modules", "_buffers", "forward") if state.get(name)]
    if obstacles:
        raise ValueError(
            f"{where}: expected a layer without hooks, submodules, buffers, parametrisations and a forward of its own, "
            f"got {', '.join(obstacles)}; remove them, convert, and put them back"
        )
    try:
        copy = counterpart(module, kind, share=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error
    make: Callable[..., nn.Module] = type(module)
    plain = vars(make(1, 2, device="meta"))
    for name in state.keys() - plain.keys():
        setattr(copy, name, state[name])
    return copy  # type: ignore[no-any-return]
