"""The training experiments of Herranz-Celotti and Rouat, arXiv 2308.12075, at sizes of minutes, or in full.

A run is a function of its configuration; ``runner`` keeps each result as it comes, and tables and pictures are made
from the results alone.
"""

from lsc_ext.experiments.grid import COMPARISONS, EXPERIMENTS, Run, grid
from lsc_ext.experiments.runner import Progress, execute
from lsc_ext.experiments.training import run

__all__ = ["COMPARISONS", "EXPERIMENTS", "Progress", "Run", "execute", "grid", "run"]
