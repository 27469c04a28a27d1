"""Which figure of arXiv 2405.21064 is computed and drawn by what."""

from __future__ import annotations

from lsc_ext.paper import angle_drawing, hessian_drawing, memory_drawing, propagation_drawing, word_drawing
from lsc_ext.paper.angle import learned_angle
from lsc_ext.paper.coupling import eigenvalue_coupling
from lsc_ext.paper.curse import memory_curse
from lsc_ext.paper.gate_moments import gate_moments
from lsc_ext.paper.hessians import network_hessians
from lsc_ext.paper.jacobians import gru_jacobians
from lsc_ext.paper.landscapes import loss_landscapes
from lsc_ext.paper.propagation import signal_propagation
from lsc_ext.paper.table import Figure
from lsc_ext.paper.tamed import tamed_memory
from lsc_ext.paper.words import word_autocorrelation

MEMORY_FIGURES = {
    figure.name: figure
    for figure in (
        Figure("curse", "Figure 1: sensitivity and loss against memory", memory_curse, memory_drawing.draw_curse),
        Figure("tamed", "Figure 2: normalised and reparametrised", tamed_memory, memory_drawing.draw_tamed),
        Figure("hessians", "Figures 4A, 4B, 9, 10: Hessians", network_hessians, hessian_drawing.draw_hessians),
        Figure(
            "propagation",
            "Figures 5 and 13: signals and gradients of deep networks",
            signal_propagation,
            propagation_drawing.draw_propagation,
        ),
        Figure("landscapes", "Figure 6: losses by parametrisation", loss_landscapes, memory_drawing.draw_landscapes),
        Figure("angle", "Figure 7: learning an angle", learned_angle, angle_drawing.draw_angle),
        Figure("coupling", "Figure 8: |S(lambda, lambda0)|", eigenvalue_coupling, memory_drawing.draw_coupling),
        Figure("words", "Figure 12: autocorrelation of words", word_autocorrelation, word_drawing.draw_words),
        Figure("jacobians", "Figure 14: the Jacobian of a GRU", gru_jacobians, propagation_drawing.draw_jacobians),
        Figure("gates", "Figure 15: second moments of gated units", gate_moments, word_drawing.draw_gates),
    )
}
#: A name for several figures.
MEMORY_GROUPS = {"all": tuple(MEMORY_FIGURES)}
