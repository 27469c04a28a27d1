"""lsc_ext: will the gradients of a recurrent network explode or vanish? Measured before training, and repaired."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from lsc_ext import nn, theory
from lsc_ext._C import build_info
from lsc_ext.diagnose import Diagnosis, Finding, diagnose
from lsc_ext.estimate import RadiusEstimate, Status
from lsc_ext.explain import Explanation, LayerExplanation, explain
from lsc_ext.lyapunov import LyapunovReport, ProductReport, lyapunov, products
from lsc_ext.operator import JacobianOperator
from lsc_ext.pretrain import PretrainConfig, PretrainResult, pretrain
from lsc_ext.radii import RadiusReport, radii
from lsc_ext.scan import block_scan, scan
from lsc_ext.sequential import SequentialTrajectory as _SequentialTrajectory  # noqa: F401, reads nn.Sequential
from lsc_ext.spectral import spectral_radius
from lsc_ext.step_model import StepModel
from lsc_ext.submodule import Submodule

if _TYPE_CHECKING:
    from lsc_ext import memory

__version__ = _version("lsc_ext")

__all__ = [
    "Diagnosis",
    "Explanation",
    "Finding",
    "JacobianOperator",
    "LayerExplanation",
    "LyapunovReport",
    "PretrainConfig",
    "PretrainResult",
    "ProductReport",
    "RadiusEstimate",
    "RadiusReport",
    "Status",
    "StepModel",
    "Submodule",
    "block_scan",
    "build_info",
    "diagnose",
    "explain",
    "lyapunov",
    "memory",
    "nn",
    "pretrain",
    "products",
    "radii",
    "scan",
    "spectral_radius",
    "theory",
]


def __getattr__(name: str) -> _Any:
    """``memory`` is imported when it is first asked for: it would be a third of the time that the package takes."""
    if name == "memory":
        return _import_module("lsc_ext.memory")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "memory"})
