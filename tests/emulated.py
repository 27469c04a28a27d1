"""The device code on the host: ``with emulated_cuda(): ...`` runs what CPU tensors ask for as a GPU would."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsc_ext import backends

_BUILDS = ("build/emulated", "build/dev")


@functools.cache
def module() -> Any:
    """The compiled module ``_emulated``, from LSC_EMULATED_BUILD or a build folder of this checkout."""
    root = Path(__file__).parent.parent
    named = os.environ.get("LSC_EMULATED_BUILD")
    for folder in [Path(named)] if named else [root / build for build in _BUILDS]:
        for path in folder.glob("_emulated.*.so"):
            spec = importlib.util.spec_from_file_location("_emulated", path)
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            return loaded
    raise RuntimeError("the emulated CUDA backend is not built: make emulated")


@contextlib.contextmanager
def emulated_cuda(seed: int = 0) -> Iterator[None]:
    """Inside, CPU tensors are run by the device code, its threads taking turns in an order that ``seed`` decides."""
    module().set_seed(seed)
    with backends.emulated(module()):
        yield
