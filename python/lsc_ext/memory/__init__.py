"""The curse of memory in closed form: how much states of long memory answer to a change of what makes them remember.

Ideas and figures are those of Zucchet and Orvieto, "Recurrent neural networks: vanishing and exploding gradients are
not the end of the story", arXiv 2405.21064, unless a function says otherwise; docs/math/memory.md has the formulas.
"""

from lsc_ext.memory.adam import effective_learning_rates
from lsc_ext.memory.autocorrelation import Lags
from lsc_ext.memory.chrono import chrono_initialize
from lsc_ext.memory.curvature import axis_alignment, dense_hessian, diagonal_hessian, participation_ratio
from lsc_ext.memory.eigenvalue import LogEigenvalue
from lsc_ext.memory.estimation import autocorrelation, fit_exponentials
from lsc_ext.memory.gates import GatedMoments, gated_second_moments
from lsc_ext.memory.jacobian_mass import JacobianMass, jacobian_mass
from lsc_ext.memory.lanczos import Eigenpairs, top_eigenpairs
from lsc_ext.memory.landscape import Landscape, unit_landscape, unit_loss
from lsc_ext.memory.measure import measure
from lsc_ext.memory.moments import (
    sensitivity_cross_moment,
    sensitivity_second_moment,
    state_cross_moment,
    state_second_moment,
)
from lsc_ext.memory.normalization import NORMALIZATIONS, input_normalization
from lsc_ext.memory.parametrization import PARAMETRIZATIONS, eigenvalue, parameters_of, sensitivity_matrix
from lsc_ext.memory.population import PopulationLoss, hessian, impulse_response, teacher_student_loss
from lsc_ext.memory.remedies import (
    LAYOUTS,
    EigenvalueParametrization,
    InputNormalization,
    normalize_input,
    parametrize_eigenvalues,
)
from lsc_ext.memory.report import GroupMeasure, Hypersensitivity, LayerMemory, MemoryReport
from lsc_ext.memory.stationary import stationary_inputs
from lsc_ext.memory.streaming import SensitivityScan
from lsc_ext.memory.systems import DenseSystem, DiagonalSystem, system_of
from lsc_ext.memory.vector_products import (
    CurvatureProduct,
    gauss_newton_product,
    hessian_product,
    population_product,
)

__all__ = [
    "LAYOUTS",
    "NORMALIZATIONS",
    "PARAMETRIZATIONS",
    "CurvatureProduct",
    "DenseSystem",
    "DiagonalSystem",
    "Eigenpairs",
    "EigenvalueParametrization",
    "GatedMoments",
    "GroupMeasure",
    "Hypersensitivity",
    "InputNormalization",
    "JacobianMass",
    "Lags",
    "Landscape",
    "LayerMemory",
    "LogEigenvalue",
    "MemoryReport",
    "PopulationLoss",
    "SensitivityScan",
    "autocorrelation",
    "axis_alignment",
    "chrono_initialize",
    "dense_hessian",
    "diagonal_hessian",
    "effective_learning_rates",
    "eigenvalue",
    "fit_exponentials",
    "gated_second_moments",
    "gauss_newton_product",
    "hessian",
    "hessian_product",
    "impulse_response",
    "input_normalization",
    "jacobian_mass",
    "measure",
    "normalize_input",
    "parameters_of",
    "parametrize_eigenvalues",
    "participation_ratio",
    "population_product",
    "sensitivity_cross_moment",
    "sensitivity_matrix",
    "sensitivity_second_moment",
    "state_cross_moment",
    "state_second_moment",
    "stationary_inputs",
    "system_of",
    "teacher_student_loss",
    "top_eigenpairs",
    "unit_landscape",
    "unit_loss",
]
