"""Pre-training to the Local Stability Condition: bring the mean spectral radius of every layer's step Jacobians to a
target.

Herranz-Celotti & Rouat, "Stabilizing RNN Gradients through Pre-training", arXiv 2308.12075. Letters: L layers, T time
steps, P points measured per layer.
"""

from lsc_ext.pretrain.config import MOVES, PRESETS, PRETRAINED_DIRECTIONS, PretrainConfig
from lsc_ext.pretrain.result import PretrainResult, PretrainStep
from lsc_ext.pretrain.run import pretrain
from lsc_ext.pretrain.target import resolve_target

__all__ = [
    "MOVES",
    "PRESETS",
    "PRETRAINED_DIRECTIONS",
    "PretrainConfig",
    "PretrainResult",
    "PretrainStep",
    "pretrain",
    "resolve_target",
]
