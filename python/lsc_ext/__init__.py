"""lsc_ext: will the gradients of a recurrent network explode or vanish? Measured before training, and repaired."""

from importlib.metadata import version as _version

from lsc_ext import nn
from lsc_ext._C import build_info
from lsc_ext.operator import JacobianOperator
from lsc_ext.pretrain import PretrainConfig, PretrainResult, pretrain
from lsc_ext.radii import RadiusReport, radii
from lsc_ext.spectral import RadiusEstimate, Status, spectral_radius

__version__ = _version("lsc_ext")

__all__ = [
    "JacobianOperator",
    "PretrainConfig",
    "PretrainResult",
    "RadiusEstimate",
    "RadiusReport",
    "Status",
    "build_info",
    "nn",
    "pretrain",
    "radii",
    "spectral_radius",
]
