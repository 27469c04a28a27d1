"""The oracle: the same questions answered slowly, in float64, by plain torch on formed matrices.

It shares no line with the compiled code and imports the cells alone. Names and arguments are those of the fast
functions; options that only steer an iteration are taken and have no effect.
"""

from lsc_ext.reference.forward import recurrent
from lsc_ext.reference.linear import block_diagonal_rnn, complex_diagonal_rnn, lru, res_lru
from lsc_ext.reference.radius import RadiusEstimate, radii, spectral_radius

__all__ = [
    "RadiusEstimate",
    "block_diagonal_rnn",
    "complex_diagonal_rnn",
    "lru",
    "radii",
    "recurrent",
    "res_lru",
    "spectral_radius",
]
