"""What can be said of gradients without a network: path counts, profiles, gains, and statistics of measured radii.

Ideas and figures are those of Herranz-Celotti and Rouat, "Stabilizing RNN Gradients through Pre-training", arXiv
2308.12075, unless a function says otherwise; docs/math/paths-and-profiles.md has the formulas.
"""

from lsc_ext.theory.covariance import CovarianceDecay, covariance_decay
from lsc_ext.theory.gain import (
    critical_gain,
    layer_radius,
    lyapunov_exponent,
    mean_square,
    mean_square_slope,
    rectangular_radius,
    variance_fixed_point,
)
from lsc_ext.theory.interactions import elementary_symmetric, interactions
from lsc_ext.theory.paths import (
    gradient_bound,
    hockey_stick,
    log_path_count,
    path_contribution,
    path_count,
    unbalanced_target,
)
from lsc_ext.theory.profile import PascalRNN, gradient_limit, gradient_profile, log_gradient_profile

__all__ = [
    "CovarianceDecay",
    "PascalRNN",
    "covariance_decay",
    "critical_gain",
    "elementary_symmetric",
    "gradient_bound",
    "gradient_limit",
    "gradient_profile",
    "hockey_stick",
    "interactions",
    "layer_radius",
    "log_gradient_profile",
    "log_path_count",
    "lyapunov_exponent",
    "mean_square",
    "mean_square_slope",
    "path_contribution",
    "path_count",
    "rectangular_radius",
    "unbalanced_target",
    "variance_fixed_point",
]
