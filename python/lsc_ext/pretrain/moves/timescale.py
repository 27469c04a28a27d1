"""Multiply the decays of a layer's state."""

from __future__ import annotations

from lsc_ext.pretrain.measurement import LayerRadius
from lsc_ext.pretrain.moves.rescale import Damped
from lsc_ext.trajectory import Kernel


class Timescale(Damped):
    """Moduli of an LRU, exp(-1 / tau) of spiking neurons; where rescaling has them among its weights, it goes first."""

    unless_scaled = True

    def _kernel(self, row: LayerRadius) -> Kernel | None:
        return row.carries.get("timescale")
