"""The same layer in the other library: options and parameters carried over, nothing drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lsc_ext.nn.precision import is_half

OPTIONS = ("bias", "batch_first", "bidirectional")
#: Options that only some kinds of layers take, and the values that leave them out.
OWN_OPTIONS = {"nonlinearity": None, "proj_size": 0}


def counterpart(module: Any, kind: Callable[..., nn.Module], *, share: bool) -> Any:
    """A layer of class ``kind`` with the options, parameters and mode of ``module``.

    Args:
        module: a ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or this package's.
        kind: the other library's class.
        share: whether the copy holds the same parameters, the objects themselves, or clones.

    Raises:
        ValueError: ``kind`` has no such option; or a parameter is missing, parametrised or of another shape.
        TypeError: another dtype than float32, float64 and, on CUDA, float16 and bfloat16; or parameters of several
            dtypes or devices.
    """
    options = {name: getattr(module, name) for name in OPTIONS}
    options |= {name: value for name, off in OWN_OPTIONS.items() if (value := getattr(module, name, off)) != off}
    if kind is nn.RNN and module.nonlinearity == "sigmoid":
        raise ValueError("nonlinearity: expected tanh or relu, which torch.nn.RNN has, got 'sigmoid'")
    # On the meta device nothing is drawn and nothing is allocated.
    copy = kind(module.input_size, module.hidden_size, module.num_layers, device="meta", **options)
    names = list(copy._parameters)
    given: dict[str, Any] = {name: module._parameters.get(name) for name in names}
    missing = [name for name, parameter in given.items() if parameter is None]
    unknown = [name for name in module._parameters if name not in given]
    if missing or unknown:
        raise ValueError(
            f"module: expected the parameters {', '.join(names)}, got one that lacks {missing} and has {unknown} "
            "(of a parametrised layer, remove the parametrisation first)"
        )
    for (name, parameter), place in zip(given.items(), copy.parameters(), strict=True):
        if parameter.shape != place.shape:
            raise ValueError(f"module.{name}: expected shape {tuple(place.shape)}, got {tuple(parameter.shape)}")
    kinds = {(parameter.dtype, parameter.device) for parameter in given.values()}
    wide = all(dtype in (torch.float32, torch.float64) for dtype, _ in kinds)
    if len(kinds) != 1 or not (wide or all(is_half(parameter) for parameter in given.values())):
        found = ", ".join(f"{dtype} on {device}" for dtype, device in sorted(kinds, key=str))
        raise TypeError(f"module: expected parameters of one device, all float32 or all float64, got {found}")
    for name, parameter in given.items():
        if not share:
            parameter = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        setattr(copy, name, parameter)
    if isinstance(copy, nn.RNNBase):
        copy.flatten_parameters()  # as torch.nn does after a move to CUDA, or every call there would warn
    copy.dropout = module.dropout  # after construction, which warns of what the user has been warned of
    copy.training = module.training
    return copy
