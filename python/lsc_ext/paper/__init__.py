"""Figures of two papers, from numbers computed there and then.

``FIGURES`` are those of Herranz-Celotti and Rouat, arXiv 2308.12075, ``MEMORY_FIGURES`` those of Zucchet and Orvieto,
arXiv 2405.21064.

``compute`` functions return plain numbers and know no matplotlib; ``drawing`` draws from those numbers alone.
"""

from lsc_ext.paper.memory_table import MEMORY_FIGURES, MEMORY_GROUPS
from lsc_ext.paper.table import FIGURE_GROUPS, FIGURES, Figure, chosen_figures, run_figure

__all__ = [
    "FIGURES",
    "FIGURE_GROUPS",
    "MEMORY_FIGURES",
    "MEMORY_GROUPS",
    "Figure",
    "chosen_figures",
    "run_figure",
]
