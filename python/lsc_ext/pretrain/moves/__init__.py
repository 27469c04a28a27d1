"""How weights are changed: one move a file."""

from lsc_ext.pretrain.moves.gradient import Gradient
from lsc_ext.pretrain.moves.move import Change, Move
from lsc_ext.pretrain.moves.rescale import Rescale

__all__ = ["Change", "Gradient", "Move", "Rescale"]
