// What became of one point (one Jacobian) of a batch. The numbers are part of the Python interface.
#pragma once

#include <cstdint>

namespace lsc {

enum class Status : std::uint8_t {
  converged = 0,        // the reported Ritz pair settled, is well conditioned, and those beside it are found
  max_matvecs = 1,      // the budget ran out first; radius is the best estimate
  ill_conditioned = 2,  // settled, but residual times condition exceeds tol: the eigenvalue is uncertain
  breakdown = 3,        // the small eigenproblem failed in its own arithmetic
  nonfinite = 4,        // a product was NaN or infinite
};

}  // namespace lsc
