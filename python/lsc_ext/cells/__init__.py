"""The cells: one file each, the truth in plain torch. Adding a file here adds its cells."""

import importlib
import pkgutil

from lsc_ext.cells._base import CELLS, Cell, UnitParameter, all_states, layer_step

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CELLS", "Cell", "UnitParameter", "all_states", "layer_step"]
