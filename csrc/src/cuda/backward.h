#pragma once

#include <string>
#include <vector>

#include "algorithms/stack.h"
#include "cuda/execution.h"

namespace lsc::cuda {

// As algorithms/backward.h, on device memory: state_gradients [L, T + 1, S, B, H] holds d loss / d states as the caller
// knows it and leaves complete, x_gradient [T, B, I]; gradients of parameters where they are not null. All steps
// in one launch where fused/plan.h says that it pays.
template <class T>
void backward(Execution& execution, const std::string& cell_name, const CellShape& cell,
              const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, T* state_gradients,
              T* x_gradient, const std::vector<LayerParameters<T>>& gradients);

}  // namespace lsc::cuda
