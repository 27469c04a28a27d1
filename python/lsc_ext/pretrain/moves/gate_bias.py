"""Move the bias of the gate that multiplies a layer's own past."""

from __future__ import annotations

from lsc_ext.pretrain.measurement import LayerRadius
from lsc_ext.pretrain.moves.rescale import Damped
from lsc_ext.trajectory import Kernel


class GateBias(Damped):
    """The forget gate of an LSTM, or the update gate of a GRU or minGRU, opened or closed by target / measured radius.

    A step Jacobian is the diagonal of that gate plus terms with recurrent weights, so no scale of the weights brings
    the radius below the largest gate.
    """

    def _kernel(self, row: LayerRadius) -> Kernel | None:
        return row.carries.get("gate_bias")
