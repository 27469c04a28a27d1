// Spectral radii of many Jacobians on the device, in one launch: algorithms/radius_iteration.h by warps.
#pragma once

#include "algorithms/radius_iteration.h"
#include "cuda/execution.h"
#include "cuda/layer_step.h"
#include "cuda/operator.h"

namespace lsc::cuda {

// As RadiusTargets of algorithms/radius_batch.h, in the device's memory. Points are not looked at: they must be there.
struct RadiusTargets {
  const std::int64_t* point = nullptr;
  const Eigenvalue* eigenvalue = nullptr;
  bool transposed = false;
  std::uint64_t first = 0;
};

// Of every point, in the device's memory.
template <class T>
struct RadiusResults {
  double* radius = nullptr;
  Eigenvalue* eigenvalue = nullptr;
  double* residual = nullptr;
  double* condition = nullptr;
  std::int32_t* num_matvecs = nullptr;
  std::uint8_t* status = nullptr;
  T* vectors = nullptr;  // [count, 2, n], or null
};

// As estimate_radii of algorithms/radius_batch.h. What a point gets depends on nothing but the point, bit for bit.
// Throws std::invalid_argument where the Jacobians are not square.
template <class Products, class T = typename Products::Number>
void estimate_radii(Execution& execution, const Products& products, const RadiusOptions& options, Index count,
                    const RadiusTargets& targets, const RadiusResults<T>& results);

}  // namespace lsc::cuda
