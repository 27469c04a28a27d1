"""How weights are changed: one move a file."""

from lsc_ext.pretrain.moves.chance import Chance
from lsc_ext.pretrain.moves.gate_bias import GateBias
from lsc_ext.pretrain.moves.gradient import Gradient
from lsc_ext.pretrain.moves.move import Change, Move, carry_out
from lsc_ext.pretrain.moves.paper_rescale import PaperRescale
from lsc_ext.pretrain.moves.rescale import Rescale
from lsc_ext.pretrain.moves.shuffle import Shuffle
from lsc_ext.pretrain.moves.swap import Swap
from lsc_ext.pretrain.moves.timescale import Timescale

__all__ = [
    "Chance",
    "Change",
    "GateBias",
    "Gradient",
    "Move",
    "PaperRescale",
    "Rescale",
    "Shuffle",
    "Swap",
    "Timescale",
    "carry_out",
]
