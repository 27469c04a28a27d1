"""One linear recurrent network learns another: the training experiments of Zucchet and Orvieto, "Recurrent neural
networks: vanishing and exploding gradients are not the end of the story", arXiv 2405.21064, on the exact loss.

The paper draws 128 sequences for every step of Adam; here each step has the mean over all sequences, so that a run
takes seconds and no noise hides what the architectures differ in.
"""

from lsc_ext.experiments.identification.grid import IDENTIFICATIONS, Identification, identification_grid
from lsc_ext.experiments.identification.training import identify

__all__ = ["IDENTIFICATIONS", "Identification", "identification_grid", "identify"]
