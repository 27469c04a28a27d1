"""The figures of Herranz-Celotti and Rouat, arXiv 2308.12075, from numbers computed there and then.

``compute`` functions return plain numbers and know no matplotlib; ``drawing`` draws from those numbers alone.
"""

from lsc_ext.paper.table import FIGURE_GROUPS, FIGURES, Figure, chosen_figures, run_figure

__all__ = ["FIGURES", "FIGURE_GROUPS", "Figure", "chosen_figures", "run_figure"]
